"""The suites that come with optbench: beside it in a clone, inside it where it is installed."""

from __future__ import annotations

import difflib
from pathlib import Path

import optbench


def shipped_suites() -> Path | None:
    """Folder of the suites that come with optbench; None where there is none."""
    package = Path(optbench.__file__).parent
    places = (package / "suites", package.parent / "suites")
    return next((place for place in places if (place / "quick.yaml").is_file()), None)


def suggest(path: Path) -> str:
    """Say which suite was meant by a path that is none, or where there are some."""
    folder = shipped_suites()
    shipped = [found.stem for found in folder.glob("*.yaml")] if folder is not None else []
    beside = {name.name: str(name) for name in path.parent.glob("*.y*ml")} if path.parent.is_dir() else {}
    for word, known in ((path.name, list(beside)), (path.stem, [Path(name).stem for name in beside])):
        if near := difflib.get_close_matches(word, known, n=1, cutoff=0.7):
            return f"did you mean {next(str(p) for n, p in beside.items() if near[0] in (n, Path(n).stem))}?"
    if len(path.parts) == 1 and (near := difflib.get_close_matches(path.stem, shipped, n=1, cutoff=0.7)):
        return f"did you mean {near[0]}?"
    return "give the path of a suite file, or a name of `optbench list suites`"


def find_shipped(path: Path) -> Path:
    """A file of this path, or else the suite of that name that comes with optbench."""
    folder = shipped_suites()
    if folder is None or path.exists() or len(path.parts) > 1 or path.suffix not in ("", ".yaml"):
        return path
    found = folder / f"{path.stem if path.suffix else path.name}.yaml"
    return found if found.is_file() else path
