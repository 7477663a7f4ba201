"""Plots drawn before, in the user's cache folder: what has not changed is not drawn again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import platformdirs

from optbench.records.whole import whole

#: Plots that are kept; the oldest go first.
MOST = 500
#: A plot for the page: SVG, or PNG in base64; neither where there is nothing to show.
Inline = tuple[str | None, str | None]


def key_of(draw: Callable[..., Any], number: int) -> str | None:
    """Name what a plot shows.

    Parameters
    ----------
    draw : callable
        A ``functools.partial``: its function and arguments are all that the plot depends on.
    number : int
        Its place on the page, which its ids begin with.

    Returns
    -------
    str or None
        SHA-256 over function, arguments, Matplotlib's version and the code of the reports; None for what
        cannot be pickled.
    """
    if not isinstance(draw, functools.partial):
        return None
    named = (_code(), number, draw.func.__module__, draw.func.__qualname__)
    try:
        content = pickle.dumps((named, draw.args, draw.keywords))
    except (pickle.PicklingError, TypeError, AttributeError):
        return None
    return hashlib.sha256(content).hexdigest()


def read(key: str | None) -> Inline | None:
    """Look a plot up; None where it must be drawn."""
    if key is None:
        return None
    try:
        svg, png = json.loads(_place(key).read_text("utf-8"))
    except (OSError, ValueError, RecursionError, TypeError):
        return None
    return svg, png


def keep(key: str | None, drawn: Inline) -> None:
    """Keep a plot; a folder that cannot be written keeps none."""
    if key is None:
        return
    with contextlib.suppress(OSError):
        path = _place(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as place:
            place.write_text(json.dumps(drawn), encoding="utf-8")


def tidy() -> None:
    """Remove the oldest of too many."""
    with contextlib.suppress(OSError):
        found = sorted(_place("").parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in found[MOST:]:
            path.unlink()


def _place(key: str) -> Path:
    return platformdirs.user_cache_path("optbench") / "plots" / f"{key}.json"


@functools.cache
def _code() -> tuple[str, ...]:
    """Matplotlib's version, and what changes with every edit of the code that draws."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    facts = ((path.name, path.stat()) for path in files)
    return (mpl.__version__, *(f"{name} {found.st_size} {found.st_mtime_ns}" for name, found in facts))
