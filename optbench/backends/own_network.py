"""What the custom networks of all frameworks share: their making, the check of their outputs, their roles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from optbench import matching
from optbench.backends.global_draws import GlobalDraws
from optbench.errors import UserError
from optbench.models.layers import BuiltLayer, OwnNetwork, Role
from optbench.models.own import TITLES, Framework, called, framework_of
from optbench.suite.references import ImportProblem, load_identified


class OwnNetworkError(UserError, TypeError):
    """A class or function that makes no network for this trial; the message says what it made."""


def own_of(built: tuple[BuiltLayer, ...]) -> OwnNetwork | None:
    """The custom network that a built model consists of, if it does."""
    first = built[0].layer
    return first if isinstance(first, OwnNetwork) else None


def init_seed(seed: int) -> int:
    """Seed of a network's own initialisation, of a trial's seed of the init stream."""
    return int(matching.stream(seed, "init").integers(2**63))


def make(own: OwnNetwork, backend: Framework, seed: int) -> Any:
    """Make the network by its own initialisation; the global generators it draws from are then as before.

    Parameters
    ----------
    own : OwnNetwork
    backend : str
        Whose network it must be.
    seed : int
        See :func:`init_seed`.

    Raises
    ------
    OwnNetworkError
        If its code is gone or has changed, or gives no network of this backend.
    """
    folder = getattr(own, "_directory", None) or Path.cwd()
    try:
        maker = load_identified(own.reference, own.code, folder)
    except ImportProblem as error:
        raise OwnNetworkError(f"model {own.reference}: {error}") from error
    with GlobalDraws(seed).mine():
        made = called(maker, own.given, seed)
    if (found := framework_of(made)) != backend:
        what = type(made).__name__ if found is None else f"{TITLES[found]} ({type(made).__name__})"
        raise OwnNetworkError(
            f"model {own.reference} made {what}; the {backend} backend needs {TITLES[backend]}"
        )
    return made


def check_outputs(own: OwnNetwork, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuse a network whose outputs for an example are not of the shape that the task needs.

    Raises
    ------
    OwnNetworkError
    """
    if len(found) != len(wanted) or found[:-1] != wanted[:-1] or found[-1] < wanted[-1]:
        raise OwnNetworkError(
            f"model {own.reference} gives outputs of shape {list(found)} for an example; these data need "
            f"{list(wanted)}: one a class, one a token at each place of a text, or one number"
        )


def role_of(name: str, dimensions: int) -> Role:
    """Guess the role of a trained weight from its name and its number of dimensions.

    The last part of a name is the weight's own, the parts before it are those of its layers.
    """
    *layers, own = name.lower().replace(".", "/").split("/")
    table = "embed" in own or (own == "weight" and layers and "embed" in layers[-1])
    if dimensions == 2 and table:
        return "embedding"
    if "bias" in own:
        return "bias"
    if dimensions <= 1:
        return "norm"
    return "conv" if dimensions > 2 else "matrix"


def with_head(roles: Mapping[str, Role], among: Collection[str] | None = None) -> dict[str, Role]:
    """Call the last kernel the head, or the last among some."""
    last = [n for n, role in roles.items() if role in ("matrix", "conv") and (among is None or n in among)]
    return {**roles, **({last[-1]: "head"} if last else {})}


def kernels(roles: Mapping[str, Role]) -> frozenset[str]:
    """Names of the weights that a workload's ``weight_decay`` is for: those that are multiplied with."""
    return frozenset(name for name, role in roles.items() if role in ("matrix", "conv", "head"))
