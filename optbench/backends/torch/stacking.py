"""How the trials of a stack are trained together: as one batch, as branches of one graph, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optbench.backends.base import NotStackableError, Stack
from optbench.backends.torch.branches import BranchStack
from optbench.backends.torch.graph import CudaRecorder, obstacle
from optbench.backends.torch.optimizers import class_facts, set_lr
from optbench.backends.torch.session import TorchSession
from optbench.backends.torch.stack import TorchStack, stack_optimizer
from optbench.backends.torch.stacked_layers import LAYERS
from optbench.models.layers import BuiltLayer, walk
from optbench.optimizers import stack_obstacle
from optbench.optimizers.groups import at_lr
from optbench.trial import TrialSpec

#: Layers whose products are better left to each trial: as groups they are slower on a GPU.
IMAGES = frozenset({"conv2d", "max_pool2d", "global_average_pool2d"})


@dataclass(frozen=True)
class Way:
    """How a stack takes its steps.

    Attributes
    ----------
    kind : str
        ``batch``: every weight of all trials one array; ``branches``: each trial's own kernels side by side.
    recorded : bool
        Whether a step is recorded as a CUDA graph.
    why : str
        For the record.
    """

    kind: Literal["batch", "branches"]
    recorded: bool
    why: str

    @property
    def step(self) -> str:
        """How a step is taken, for the record."""
        if self.kind == "branches":
            return "branches of a graph"
        return "stacked graph" if self.recorded else "stacked"


def way(spec: TrialSpec, built: tuple[BuiltLayer, ...], *, requested: str) -> Way:
    """Choose how trials like this one are trained together.

    Parameters
    ----------
    spec, built
        One of them.
    requested : str
        The way of a step that was asked for, see :data:`optbench.environment.STEPS`.

    Raises
    ------
    NotStackableError
        If they cannot be.
    """
    recorded = spec.device == "cuda" and requested != "eager"
    if (reason := stack_obstacle(spec.optimizer, "torch", apart=recorded)) is not None:
        raise NotStackableError(reason)
    mixes = stack_obstacle(spec.optimizer, "torch") is not None
    unknown = sorted({place.layer.kind for place in walk(built)} - set(LAYERS))
    plain = spec.precision in ("float32", "float64", "tf32")  # which is a switch of all products
    images = any(place.layer.kind in IMAGES for place in walk(built))
    if recorded and (mixes or unknown or not plain or images):
        return Way("branches", True, "seeds trained as one graph, each by its own kernels")
    if unknown:
        raise NotStackableError(f"the layer {unknown[0]} is not stacked")
    if not plain:
        raise NotStackableError(f"{spec.precision} cannot be trained in a stack")
    return Way("batch", recorded, "seeds trained as one program")


def make_stack(
    specs: Sequence[TrialSpec],
    built: tuple[BuiltLayer, ...],
    sessions: Sequence[TorchSession],
    *,
    requested: str,
) -> Stack:
    """Join trials that differ in their seeds and learning rates alone; raises ``NotStackableError``."""
    chosen = way(specs[0], built, requested=requested)
    recorder = CudaRecorder() if chosen.recorded else None
    if chosen.kind == "branches":
        assert recorder is not None
        for spec, session in zip(specs, sessions, strict=True):
            _make_recordable(spec, session)
        return BranchStack(sessions, recorder)
    return TorchStack(specs, built, sessions, recorder=recorder, together=specs[0].device == "cuda")


def _make_recordable(spec: TrialSpec, session: TorchSession) -> None:
    """Have the rule itself move a trial whose optimizer's class cannot be recorded."""
    if obstacle(session.optimizer, same_bits=False) is None:
        return
    config: Any = at_lr(spec.optimizer, session.lr)
    made = stack_optimizer(config, session.params, session.roles, recorded=True)
    set_lr(made, session.lr)
    for w, state in session.optimizer.state.items():
        if "t" in state:  # the rule's own, from a checkpoint
            made.state[w] = state
    session.use(made)


def stack_facts(
    spec: TrialSpec, built: tuple[BuiltLayer, ...], session: TorchSession, *, requested: str
) -> dict[str, Any]:
    """Say how a trial's steps are taken in a stack, for its record."""
    try:
        chosen = way(spec, built, requested=requested)
    except NotStackableError:  # reported where the trials are joined
        return {}
    facts: dict[str, Any] = {"step": chosen.step, "step_because": chosen.why}
    if chosen.recorded:
        optimizer = stack_optimizer(spec.optimizer, session.params, session.roles, recorded=True)
        if (named := class_facts(optimizer)) != class_facts(session.optimizer):
            facts |= named
    return facts
