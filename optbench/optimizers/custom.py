"""An optimizer of the user's own: a class in a file or a package, and the arguments it is called with.

In a suite file::

    mine: {class: my_opt.py:MyOpt, lr: 0.01, betas: [0.9, 0.99]}
    lion: {class: lion_pytorch:Lion, lr: 1.0e-4}

The class is a ``torch.optim.Optimizer`` called as ``MyOpt(params, lr=0.01, ...)``, a Keras optimizer or a
function that returns an optax transformation, called as ``MyOpt(lr=0.01, ...)``: what the suite's backend
needs. A package offers optimizers by name through the entry-point group ``optbench.optimizers``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any, Literal

from optbench.config import FORBID_EXTRA
from optbench.imports import ImportProblem, load_object

ENTRY_POINT_GROUP = "optbench.optimizers"


class CustomError(ValueError):
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
    """Make a config from a suite's entry, without running any of the user's code.

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
    code = _identify(reference, base_dir)
    return Custom(reference=reference, arguments=tuple(arguments.items()), code=code, directory=base_dir)


def plugins() -> dict[str, str]:
    """List what installed packages offer in the entry-point group: name -> class reference."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def load(config: Custom) -> Any:
    """Import the class; its code must be the code that the config names.

    Raises
    ------
    CustomError
        If it is not there any more, has changed, or fails to import.
    """
    directory = getattr(config, "_directory", None) or Path.cwd()
    found = _identify(config.reference, directory)
    if found != config.code:
        raise CustomError(
            f"{config.reference} is {found}, but this trial was declared with {config.code}; "
            "bring that code back, or declare the suite again to train with the new one"
        )
    try:
        return load_object(config.reference, directory)
    except ImportProblem as error:
        raise CustomError(f"{config.reference} cannot be imported: {error}; mend the file") from error


def arguments(config: Custom) -> dict[str, Any]:
    """Keyword arguments as the class takes them."""
    return dict(config.arguments)


def home(config: Custom) -> str:
    """Tell which backend a class belongs to: torch, tensorflow (Keras) or jax, by its base classes."""
    made = load(config)
    bases = {base.__module__.partition(".")[0] for base in getattr(made, "__mro__", ())}
    if "torch" in bases:
        return "torch"
    return "tensorflow" if "keras" in bases else "jax"


def _split(reference: str) -> tuple[str, str]:
    where, _, name = reference.rpartition(":")
    if not where or not name.isidentifier():
        raise CustomError(f"class: found {reference!r}; write `my_opt.py:MyOpt` or `package.module:Class`")
    return where, name


def _identify(reference: str, directory: Path) -> str:
    """Find the code of a reference and name it, after looking for the class in its source."""
    where, name = _split(reference)
    if where.endswith(".py"):
        path = directory / where
        if not path.is_file():
            raise CustomError(f"{path}: there is no such file; the path is relative to the suite's folder")
        _check_name(path, name)
        return _digest(path)
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise CustomError(
            f"{reference}: there is no module {where!r} in this environment; install the package, "
            "or name a file, as in my_opt.py:MyOpt"
        )
    if spec.origin is not None and spec.origin.endswith(".py"):
        _check_name(Path(spec.origin), name)
    for distribution in importlib.metadata.packages_distributions().get(where.partition(".")[0], []):
        return f"{distribution}=={importlib.metadata.version(distribution)}"
    if spec.origin is None:
        raise CustomError(f"{reference}: {where!r} is a folder without code; name a module in it")
    return _digest(Path(spec.origin))


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def _check_name(path: Path, name: str) -> None:
    try:
        body = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise CustomError(f"{path}: not Python ({error})") from None
    defined: set[str] = set()
    computed = False  # names that only running the file would show
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined.update(target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined.update(alias.asname or alias.name for alias in node.names)
        else:
            computed = computed or not isinstance(node, ast.Expr)
    if name not in defined and "*" not in defined and not computed:
        classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
        known = f"it has {', '.join(classes)}" if classes else "it has no class"
        raise CustomError(f"{path}: no {name!r} in this file; {known}")


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
