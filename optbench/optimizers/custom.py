"""A custom optimizer: a class in a file or a package, and the arguments it is called with.

In a suite file::

    mine: {class: my_opt.py:MyOpt, lr: 0.01, betas: [0.9, 0.99]}
    lion: {class: lion_pytorch:Lion, lr: 1.0e-4}

The class is a ``torch.optim.Optimizer`` called as ``MyOpt(params, lr=0.01, ...)``, a Keras optimizer or a
function that returns an optax transformation, called as ``MyOpt(lr=0.01, ...)``: what the suite's backend
needs. A package offers optimizers by name through the entry-point group ``optbench.optimizers``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from optbench.errors import UserError
from optbench.optimizers.base import Family
from optbench.suite import references
from optbench.suite.references import ImportProblem
from optbench.task import FORBID_EXTRA


class CustomError(UserError, ValueError):
    """A class that cannot be found or loaded; the message names the file and what to do."""


@dataclass(frozen=True, kw_only=True)
class Custom:
    """A user's optimizer class with its arguments.

    Attributes
    ----------
    reference : str
        ``file.py:Class`` or ``package.module:Class``, as written in the suite.
    arguments : tuple of (str, value)
        Keyword arguments in the order of their names; values are JSON's scalars, or tuples of them.
    code : str
        What identifies the code: ``sha256:...`` of the file, or ``name==version`` of the package.
    directory : Path, optional
        Where a file is looked for; not part of the identity. The working directory otherwise.
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["custom"] = "custom"
    reference: str
    arguments: tuple[tuple[str, Any], ...] = ()
    code: str
    directory: InitVar[Path | None] = None

    def __post_init__(self, directory: Path | None) -> None:
        frozen = tuple(sorted((str(name), _freeze(value, name)) for name, value in self.arguments))
        object.__setattr__(self, "arguments", frozen)
        object.__setattr__(self, "_directory", directory)

    @property
    def lr(self) -> float | None:
        """The argument ``lr`` or ``learning_rate``, where there is one."""
        given = dict(self.arguments)
        return given.get("lr", given.get("learning_rate"))


def from_mapping(mapping: Mapping[str, Any], *, base_dir: Path) -> Custom:
    """Make a config from a suite's entry, without running custom code.

    Parameters
    ----------
    mapping : mapping
        ``class`` and the keyword arguments; ``optimizer``, if there, is ``custom`` or the name of an entry
        point.
    base_dir : Path
        Directory that a file name is relative to: the suite's own.

    Returns
    -------
    Custom

    Raises
    ------
    CustomError
        If the file, module or class is not there, or an argument is no JSON-like value.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "mine.py").write_text("class Mine: ...")
    >>> config = from_mapping({"class": "mine.py:Mine", "lr": 0.1}, base_dir=folder)
    >>> config.reference, config.arguments
    ('mine.py:Mine', (('lr', 0.1),))
    """
    arguments = {key: value for key, value in mapping.items() if key not in ("class", "optimizer")}
    reference = mapping.get("class")
    if reference is None:
        name, known = mapping.get("optimizer"), plugins()
        if name not in known:
            offered = f", or one of the installed {', '.join(known)}" if known else ""
            raise CustomError(f"no optimizer is called {name!r}; give `class: my_opt.py:MyOpt`{offered}")
        reference = known[name]
    if not isinstance(reference, str):
        raise CustomError(f"class: found {reference!r}; write `my_opt.py:MyOpt` or `package.module:Class`")
    try:
        code = references.identify(reference, base_dir)
    except ImportProblem as error:
        raise CustomError(str(error)) from None
    return Custom(reference=reference, arguments=tuple(arguments.items()), code=code, directory=base_dir)


def plugins() -> dict[str, str]:
    """List what installed packages offer: name -> class reference."""
    return references.plugins("optimizers")


def load(config: Custom) -> Any:
    """Import the class; its code must be the code that the config names.

    Raises
    ------
    CustomError
        If it is not there any more, has changed, or fails to import.
    """
    directory = directory_of(config) or Path.cwd()
    try:
        return references.load_identified(config.reference, config.code, directory)
    except ImportProblem as error:
        raise CustomError(f"{error}; mend {config.reference}") from error


def directory_of(config: Custom) -> Path | None:
    """Tell where a config's file is looked for."""
    found: Path | None = getattr(config, "_directory", None)
    return found


def arguments(config: Custom) -> dict[str, Any]:
    """Keyword arguments as the class takes them."""
    return dict(config.arguments)


def backend_of(config: Custom) -> str:
    """Tell which backend a class belongs to: torch, tensorflow (Keras) or jax, by its base classes."""
    made = load(config)
    bases = {base.__module__.partition(".")[0] for base in getattr(made, "__mro__", ())}
    if "torch" in bases:
        return "torch"
    return "tensorflow" if "keras" in bases else "jax"


def _with_values(config: Custom, values: Mapping[str, Any]) -> Custom:
    arguments = {**dict(config.arguments), **values}
    return replace(config, arguments=tuple(arguments.items()), directory=directory_of(config))


def _no_rule(*arguments: Any, **options: Any) -> Any:
    raise CustomError("the rule of a custom class is in its own code; only its framework can run it")


def _freeze(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_freeze(item, name) for item in value)
    if (
        value is None
        or isinstance(value, bool | int | str)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    raise CustomError(
        f"argument {name}: found {value!r}; give a finite number, a word, true, false, or a list"
    )


#: What is known of any custom class.
FAMILY = Family(
    name="custom",
    title="custom",
    config=Custom,
    init=_no_rule,
    update=_no_rule,
    elementwise=False,
    has_rule=False,
    with_values=_with_values,
)
