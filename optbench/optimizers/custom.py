"""A custom optimizer: a class in a file or a package, and the arguments it is called with.

In a suite file::

    mine: {class: my_opt.py:MyOpt, lr: 0.01, betas: [0.9, 0.99]}
    adan: {class: pytorch_optimizer:Adan, lr: 1.0e-3}

The class is a ``torch.optim.Optimizer`` called as ``MyOpt(params, lr=0.01, ...)``, a Keras optimizer or a
function that returns an optax transformation, called as ``MyOpt(lr=0.01, ...)``: what the suite's backend
needs. ``lr`` becomes ``learning_rate`` where that is the class's word. A package offers optimizers by name
through the entry-point group ``optbench.optimizers``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, replace
from inspect import Parameter, signature
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
    name : str, optional
        Name in :mod:`optbench.optimizers.library` that led to the class.
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
    name: str | None = None
    reference: str
    arguments: tuple[tuple[str, Any], ...] = ()
    code: str
    directory: InitVar[Path | None] = None

    def __post_init__(self, directory: Path | None) -> None:
        object.__setattr__(self, "arguments", frozen_arguments(self.arguments))
        object.__setattr__(self, "_directory", directory and directory.absolute())

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
        raise CustomError(f"{error}; fix {config.reference}") from error


def directory_of(config: Custom) -> Path | None:
    """Tell where a config's file is looked for."""
    found: Path | None = getattr(config, "_directory", None)
    return found


def arguments(config: Custom) -> dict[str, Any]:
    """Keyword arguments as the suite gives them."""
    return dict(config.arguments)


#: Words for one thing, of which a class takes one.
SYNONYMS = (
    ("lr", "learning_rate"),
    ("eps", "epsilon"),
    ("beta1", "beta_1", "b1"),
    ("beta2", "beta_2", "b2"),
    ("weight_decay", "wd"),
)
#: First arguments that take pairs of name and parameter.
_PAIRS = ("named_parameters", "named_params")
#: Arguments that no suite gives.
_NOT_GIVEN = ("self", "params", "roles", "names", *_PAIRS)
#: Places of single betas where a class takes them as ``betas``.
_BETAS = {"beta1": 0, "beta2": 1}


def make(config: Custom, *positional: Any, roles: Mapping[str, Any], lr: Any = None) -> Any:
    """Call the class: with its arguments, and what of the model's weights its signature asks for.

    Parameters
    ----------
    config : Custom
        The class and its arguments.
    *positional
        What comes first: PyTorch's parameters.
    roles : mapping
        Role of every weight by its name, in the order of the parameters. A class with an argument ``roles``
        is given it, one with ``names`` the names alone; one whose first argument is ``named_parameters`` or
        ``named_params`` gets pairs of name and parameter for the parameters.
    lr : optional
        Takes the place of the learning rate, where the config has one.

    Raises
    ------
    CustomError
        If the class does not take an argument, or cannot be loaded.
    """
    target = load(config)
    given = arguments(config)
    if lr is not None:
        given |= {name: lr for name in SYNONYMS[0] if name in given}
    given = fitted(target, given, config.reference)
    known = _parameters(target)
    wanted = {"roles": dict(roles), "names": tuple(roles)}
    given |= {name: value for name, value in wanted.items() if name in known and name not in given}
    if positional and next(iter(known), None) in _PAIRS:
        positional = (list(zip(roles, positional[0], strict=True)), *positional[1:])
    return target(*positional, **given)


def fitted(target: Any, given: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """Call arguments by the words that a class has for them: ``lr`` may be its ``learning_rate``.

    Single betas become a place of ``betas`` where it takes these.

    Raises
    ------
    CustomError
        If it has no word for one of them; the message lists what it takes.

    Examples
    --------
    >>> def adam(learning_rate, b1=0.9, b2=0.999): ...
    >>> fitted(adam, {"lr": 0.1, "beta1": 0.8}, "mine:adam")
    {'learning_rate': 0.1, 'b1': 0.8}
    """
    known = _parameters(target)
    anything = not known or any(p.kind is Parameter.VAR_KEYWORD for p in known.values())
    found: dict[str, Any] = {}
    for name, value in given.items():
        words = next((group for group in SYNONYMS if name in group), (name,))
        word = name if name in known else next((w for w in words if w in known), None)
        place = _BETAS.get(words[0])
        if word is None and place is not None and "betas" in known:
            default = found.get("betas", known["betas"].default)
            betas = list(default) if isinstance(default, list | tuple) else [0.9, 0.999]
            betas[place] = value
            found["betas"] = tuple(betas)
            continue
        if word is None and not anything:
            accepted = ", ".join(n for n in known if n not in _NOT_GIVEN)
            raise CustomError(f"{reference} takes no argument {name!r}; it takes {accepted or 'none'}")
        if (word or name) in found:
            raise CustomError(
                f"{reference}: {name!r} is another word for {word!r}, which is given too; keep one"
            )
        found[word or name] = value
    return found


def _parameters(target: Any) -> dict[str, Parameter]:
    """Parameters of a class or function; none where Python cannot tell."""
    try:
        return dict(signature(target).parameters)
    except (TypeError, ValueError):
        return {}


def backend_of(config: Custom) -> str:
    """Tell which backend a class belongs to: torch, tensorflow (Keras) or jax, by its base classes."""
    target = load(config)
    bases = {base.__module__.partition(".")[0] for base in getattr(target, "__mro__", ())}
    if "torch" in bases:
        return "torch"
    return "tensorflow" if "keras" in bases else "jax"


def _with_values(config: Custom, values: Mapping[str, Any]) -> Custom:
    arguments = {**dict(config.arguments), **values}
    return replace(config, arguments=tuple(arguments.items()), directory=directory_of(config))


def _no_rule(*arguments: Any, **options: Any) -> Any:
    raise CustomError("the rule of a custom class is in its own code; only its framework can run it")


def frozen_arguments(given: Any) -> tuple[tuple[str, Any], ...]:
    """Keyword arguments in the order of their names, as JSON's scalars and tuples of them."""
    return tuple(sorted((str(name), _freeze(value, name)) for name, value in given))


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
