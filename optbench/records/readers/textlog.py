"""Plain-text training logs: lines such as ``step:120/3000 val_loss:3.41``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from optbench.datasets.cells import decode, read_bytes, words
from optbench.records.readers import names
from optbench.records.readers.curves import facts_beside, on_steps, run_of
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?)"
_NAME = r"[A-Za-z][\w/.@\-]*"
#: A quote behind a name: a line may be JSON.
_PAIR = re.compile(rf"({_NAME}(?: {_NAME})?)[\"']?\s*[:=]\s*({_NUMBER})(?![\w.])\s*(%)?(?:ms|s)?", re.I)
#: Without a mark between them only the name of a metric, as in nanoGPT's "val loss 2.31".
_LOOSE = re.compile(rf"(?<![\w/.@\-])({_NAME}(?: {_NAME})?)\s+({_NUMBER})(?![\w.])\s*(%)?", re.I)
#: Words before a metric that make another number of it than that of the step.
_OTHER = frozenset(
    words("best min max minimum maximum lowest highest previous prev last running mean average")
)
#: Units behind a number that belong to a time, not to a metric.
_TIMED = re.compile(rf"([A-Za-z][\w/.\-]*)\s*[:=]\s*(?:{_NUMBER})\s*(?:ms|s|h|min|it/s)\b", re.I)
_AXIS = re.compile(
    r"\b(epoch|step|iter(?:ation)?)\b[\"']?\s*[:=#]?\s*[\[(]?\s*(\d+)(?:\.0+)?(?:\s*(?:/|of)\s*\d+)?", re.I
)
SUFFIXES = (".txt", ".log", ".out", ".stdout", ".jsonl", ".ndjson")


def is_log(path: Path, head: bytes) -> bool:
    """Whether at least two lines of a text file name a step or epoch, or a metric, with its number."""
    if path.suffix.lower() not in SUFFIXES or b"\0" in head:
        return False
    lines = head.decode("utf-8", errors="replace").splitlines()
    placed = [line for line in lines if _AXIS.search(line)]
    return sum(bool(_PAIR.search(line)) or any(_loose(line, Naming())) for line in placed) >= 2 or (
        len(placed) >= 2 and sum(len(_PAIR.findall(line)) >= 2 for line in lines) >= 2
    )


def read(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read a text file a run: name:value and name=value, or the lines that --line describes."""
    for path in paths:
        text, notes = decode(read_bytes(path), path)
        points, axis = _points(text, path, naming)
        if not points:
            raise LogError(
                f"{path}: found no line with a step or epoch and a number; say what a line looks like, as in "
                "--line 'step:{step}/* val_loss:{val_loss}'"
            )
        for name, curve in points.items():
            for (before, _), (after, _) in pairwise(curve):
                if after < before:
                    raise LogError(
                        f"{path}: {axis}: found {after:g} after {before:g}; {axis}s of one run rise: is it "
                        "the log of two runs? Split it, or give each run a file of its own"
                    )
            _last_of_each(name, curve, axis, notes)
        steps, columns = on_steps(points)
        yield run_of(
            str(path),
            "text",
            naming,
            naming.facts(path, below, known=facts_beside(path, below)),
            columns,
            epochs=steps if axis == "epoch" else None,
            steps=None if axis == "epoch" else steps,
            notes=list(dict.fromkeys(notes)),
        )


def _last_of_each(name: str, curve: list[tuple[float, float]], axis: str, notes: list[str]) -> None:
    """Of several values at one place the last one."""
    kept = dict(curve)
    if len(kept) < len(curve):
        notes.append(f"{name}: several values a {axis}; the last of each is taken")
        curve[:] = list(kept.items())


def _points(text: str, path: Path, naming: Naming) -> tuple[dict[str, list[tuple[float, float]]], str]:
    """Curves by name, and whether their places are epochs or steps."""
    template = _template(naming.line) if naming.line else None
    points: dict[str, list[tuple[str, float, float]]] = {}
    here: tuple[str, float] | None = None
    for line in text.splitlines():
        if template is not None:
            found = template.search(line)
            if found is None:
                continue
            values = {name: _number(value) for name, value in found.groupdict().items()}
            for name in ("step", "epoch"):
                if name in values:
                    here = name, values.pop(name)
        else:
            # A line may name both; its step says more.
            places = {m[1].lower()[:4]: float(m[2]) for m in _AXIS.finditer(line)}
            for short, name in (("epoc", "epoch"), ("iter", "step"), ("step", "step")):
                if short in places and not (name == "epoch" and here is not None and here[0] == "step"):
                    here = name, places[short]
            values = dict(_pairs(line, naming))
        if here is None:
            continue
        for name, value in values.items():
            points.setdefault(name, []).append((*here, value))
    kinds = {kind for curve in points.values() for kind, _, _ in curve}
    axis = "step" if "step" in kinds else "epoch"
    return {
        name: [(at, value) for kind, at, value in curve if kind == axis] for name, curve in points.items()
    }, axis


def _pairs(line: str, naming: Naming) -> Iterator[tuple[str, float]]:
    """Names and numbers of a line; of two words before a number both if they mean a metric, else one."""
    timed = {found[1].lower() for found in _TIMED.finditer(line)}
    for found in (*_PAIR.finditer(line), *_loose(line, naming)):
        name = found[1]
        parts = name.split()
        if len(parts) > 1 and naming.metric(name) is None and parts[0].lower() not in _OTHER:
            name = parts[-1]
        if name.lower() in timed or names.role_of(name) is not None:
            continue
        value = _number(found[2])
        yield name, value / 100 if found[3] else value


def _loose(line: str, naming: Naming) -> Iterator[re.Match[str]]:
    """Names of metrics with a number behind them and nothing between."""
    for found in _LOOSE.finditer(line):
        if any(naming.metric(name) is not None for name in (found[1], found[1].split()[-1])):
            yield found


def _number(text: str) -> float:
    return math.nan if text.lower().lstrip("+-") == "nan" else float(text)


def _template(line: str) -> re.Pattern[str]:
    """A line with ``{name}`` where numbers stand, and ``*`` for anything."""
    parts = re.split(r"(\{[^{}]+\}|\*|\s+)", line)
    text, seen = "", set()
    for part in parts:
        if re.fullmatch(r"\{[A-Za-z_]\w*\}", part):
            name = part[1:-1]
            if name in seen:
                raise LogError(f"--line: {part} stands twice; name each number once")
            seen.add(name)
            text += rf"(?P<{name}>{_NUMBER})"
        elif part.startswith("{"):
            raise LogError(f"--line: found {part}; write names of letters, digits and _")
        else:
            text += ".*?" if part == "*" else r"\s+" if part.isspace() else re.escape(part)
    if not seen & {"step", "epoch"} or len(seen) < 2:
        raise LogError("--line: needs {step} or {epoch}, and the name of a metric, as in '{step} {val_loss}'")
    return re.compile(text, re.IGNORECASE)
