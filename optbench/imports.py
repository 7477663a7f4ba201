"""Import what a suite file names: ``package.module:name``, or ``file.py:name`` beside the suite."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


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
    where, _, name = reference.rpartition(":")
    if not where or not name.isidentifier():
        raise ImportProblem(f"found {reference!r}; write `my_file.py:name` or `package.module:name`")
    try:
        module = _import_file(folder / where) if where.endswith(".py") else importlib.import_module(where)
    except ImportProblem:
        raise
    except Exception as error:  # the user's code may fail in any way
        raise ImportProblem(f"{where} cannot be imported ({type(error).__name__}: {error})") from error
    if not hasattr(module, name):
        raise ImportProblem(f"{where} has no {name!r}")
    return getattr(module, name)


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
