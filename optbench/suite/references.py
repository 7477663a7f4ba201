"""Find, identify and import what a suite names: ``package.module:name``, or ``file.py:name`` beside it.

Installed packages offer things by a name of their own through entry points, in the groups
``optbench.optimizers``, ``optbench.models``, ``optbench.datasets`` and ``optbench.metrics``, or
``optbench.metrics.maximise`` and ``.minimise`` for metrics whose names do not tell. A name of optbench's own
stays optbench's.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Literal

from optbench.environment import pip_hint
from optbench.suite.validation import one_line

#: Frameworks that an extra of the package's own brings.
FRAMEWORKS = ("torch", "tensorflow", "jax")

Kind = Literal["optimizers", "models", "datasets", "metrics", "metrics.maximise", "metrics.minimise"]


class ImportProblem(ValueError):
    """A reference that leads nowhere; the message says what to do."""


def load_object(reference: str, folder: Path) -> Any:
    """Import an object.

    Parameters
    ----------
    reference : str
        ``package.module:name``, or ``path/file.py:name`` with the path relative to ``folder``.
    folder : Path
        Folder of the suite file.

    Raises
    ------
    ImportProblem
        If there is no such file, module or name, or importing it fails.
    """
    where, name = _split(reference)
    try:
        module = _import_file(folder / where) if where.endswith(".py") else importlib.import_module(where)
    except ImportProblem:
        raise
    except Exception as error:  # the user's code may fail in any way
        lacking = error.name if isinstance(error, ModuleNotFoundError) else None
        raise ImportProblem(
            f"{where} cannot be imported ({type(error).__name__}: {one_line(error)}){_remedy(lacking)}"
        ) from error
    if not hasattr(module, name):
        raise ImportProblem(f"{where} has no {name!r}")
    return getattr(module, name)


def identify(reference: str, folder: Path) -> str:
    """Name the code of a reference without running it, after looking for the name in its source.

    Returns
    -------
    str
        ``sha256:...`` of the file, or ``name==version`` of the installed package.

    Raises
    ------
    ImportProblem
        If there is no such file, module or name.
    """
    where, name = _split(reference)
    if where.endswith(".py"):
        path = folder / where
        if not path.is_file():
            raise ImportProblem(f"{path}: there is no such file; the path starts at the suite's folder")
        _check_name(path, name)
        return file_digest(path)
    spec = _find(where)
    if spec is None:
        raise ImportProblem(
            f"{reference}: there is no module {where!r} in this environment; install the package, "
            "or name a file, as in my_file.py:name"
        )
    if where.partition(".")[0] in sys.stdlib_module_names:
        return f"python=={platform.python_version()}"  # frozen and built-in modules have no file
    if spec.origin is not None and spec.origin.endswith(".py"):
        _check_name(Path(spec.origin), name)
    places = tuple((place, _changed(place)) for place in sys.path)
    for distribution in _distributions(places).get(where.partition(".")[0], []):
        return f"{distribution}=={importlib.metadata.version(distribution)}"
    if spec.origin is None:
        raise ImportProblem(f"{reference}: {where!r} is a folder without code; name a module in it")
    return file_digest(Path(spec.origin))


def load_identified(reference: str, code: str, folder: Path) -> Any:
    """Import an object whose code must be what :func:`identify` said when it was declared.

    Raises
    ------
    ImportProblem
        If it is not there any more, has changed, or fails to import.
    """
    found = identify(reference, folder)
    if found != code:
        raise ImportProblem(
            f"{reference} is {found}, but this trial was declared with {code}; "
            "bring that code back, or declare the suite again to train with the new one"
        )
    return load_object(reference, folder)


def plugins(kind: Kind) -> dict[str, str]:
    """List what installed packages offer: name -> reference."""
    return {e.name: e.value for e in importlib.metadata.entry_points(group=f"optbench.{kind}")}


def _remedy(module: str | None) -> str:
    """How to get a module that custom code imports and that is not there."""
    if module is None:
        return ""
    package = module.partition(".")[0]
    if package == "keras":
        return f"; bring it with `{pip_hint('tensorflow')}`"
    if package in FRAMEWORKS:
        return f"; bring it with `{pip_hint(package)}`"
    known = f"`pip install {package}`" if package in ("flax", "equinox") else "pip, or add its file"
    return f"; bring {package} with {known} into this environment"


def _find(module: str) -> ModuleSpec | None:
    """Find a module without importing its parents, unless they alone know where it is."""
    names, spec = module.split("."), None
    if module not in sys.modules:
        for count in range(1, len(names) + 1):
            places = None if spec is None else spec.submodule_search_locations
            spec = PathFinder.find_spec(".".join(names[:count]), places)
            if spec is None:
                break
    try:
        return spec or importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


@lru_cache(maxsize=4)
def _distributions(places: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:
    """Distributions by top-level module; half a second where much is installed, so once for these folders."""
    if sys.version_info >= (3, 11):
        return importlib.metadata.packages_distributions()
    # Python 3.10 knows only what a distribution declares in top_level.txt, which few write today.
    found: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        files = [file for file in distribution.files or () if file.suffix == ".py"]
        for name in declared or {file.parts[0].removesuffix(".py") for file in files}:
            found.setdefault(name, []).append(distribution.metadata["Name"])
    return found


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def is_file(reference: str) -> bool:
    """Whether a reference names a file, not a module."""
    return reference.rpartition(":")[0].endswith(".py")


def file_digest(path: Path) -> str:
    """Identify a file by its content."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def _split(reference: str) -> tuple[str, str]:
    where, _, name = reference.rpartition(":")
    if not where or not name.isidentifier():
        raise ImportProblem(f"found {reference!r}; write `my_file.py:name` or `package.module:name`")
    return where, name


def _check_name(path: Path, name: str) -> None:
    try:
        body = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ImportProblem(f"{path}: not Python ({one_line(error)})") from None
    defined: dict[str, None] = {}
    imported: set[str] = set()
    computed = False  # names that only running the file would show
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined[node.name] = None
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            imported.update(target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported.update(alias.asname or alias.name for alias in node.names)
        else:
            computed = computed or not isinstance(node, ast.Expr)
    if not computed and not {name, "*"} & {*defined, *imported}:
        known = f"it has {', '.join(defined)}" if defined else "it defines no class and no function"
        raise ImportProblem(f"{path}: no {name!r} in this file; {known}")


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ImportProblem(f"{path}: there is no such file; the path starts at the suite's folder")
    # Named by its content too: an edited file is another module, as is one of the same name elsewhere.
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()
    name = f"optbench_own_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportProblem(f"{path}: Python cannot load this file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
