"""What the shell completes: datasets, backends, formats, suites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

#: Words of the options that take a few; the readers of the options check them.
BACKENDS = ("torch", "tensorflow", "jax")
DEVICES = ("auto", "cpu", "cuda", "mps", "tpu")
FORMATS = ("terminal", "html", "markdown", "latex", "csv", "json", "plots", "parquet")
LISTS = ("datasets", "models", "optimizers", "suites", "results")
EXECUTORS = ("local", "ray")


def of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Complete one of some words."""
    known = tuple(words)

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def datasets(incomplete: str) -> list[str]:
    """Complete the name of a dataset."""
    from optbench.datasets.registry import ENTRIES

    return [name for name in ENTRIES if name.startswith(incomplete)]


def suites(incomplete: str) -> list[str]:
    """Complete a suite file, a folder on the way to one, or the name of a suite of the package."""
    from optbench.suite.shipped import shipped_suites

    base = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    found = []
    if base.is_dir():
        for path in sorted(base.iterdir()):
            text = str(path)
            if text.startswith(incomplete.removeprefix("./")):
                if path.is_dir() and not path.name.startswith("."):
                    found.append(f"{text}/")
                elif path.suffix in (".yaml", ".yml", ".sqlite"):
                    found.append(text)
    folder = shipped_suites()
    names = [path.stem for path in sorted(folder.glob("*.yaml"))] if folder is not None else []
    return [*found, *(name for name in names if name.startswith(incomplete) and name not in found)]
