"""The suites that come with optbench: beside it in a clone, inside it where it is installed."""

from __future__ import annotations

from pathlib import Path

import optbench


def shipped_suites() -> Path | None:
    """Folder of the suites that come with optbench; None where there is none."""
    package = Path(optbench.__file__).parent
    places = (package / "suites", package.parent / "suites")
    return next((place for place in places if (place / "quick.yaml").is_file()), None)


def find_shipped(path: Path) -> Path:
    """A file of this path, or else the suite of that name that comes with optbench."""
    folder = shipped_suites()
    if folder is None or path.exists() or len(path.parts) > 1 or path.suffix not in ("", ".yaml"):
        return path
    found = folder / f"{path.stem if path.suffix else path.name}.yaml"
    return found if found.is_file() else path
