"""MLflow's file store: a folder a run, with its parameters, metrics and state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from optbench.datasets.cells import decode, read_bytes
from optbench.records.readers import states
from optbench.records.readers.curves import check_steps, facts_of, on_steps, rate_of, run_of
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog
from optbench.suite.validation import one_line, shown
from optbench.trial import Status

#: RunStatus of MLflow's protocol.
_STATES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


def is_run(path: Path, head: bytes) -> bool:
    """Whether a file is the meta.yaml of a run (an experiment's has no run id)."""
    return path.name == "meta.yaml" and b"run_id:" in head


def read(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read the runs of a file store."""
    for path in paths:
        folder = path.parent
        meta = _yaml(path)
        settings = {**_texts(folder / "tags"), **_texts(folder / "params")}
        curves = {p.relative_to(folder / "metrics").as_posix(): _curve(p) for p in _files(folder / "metrics")}
        notes = []
        if curves and all(len({step for step, _ in curve}) < len(curve) for curve in curves.values()):
            steps = {step for curve in curves.values() for step, _ in curve}
            if steps == {0.0}:
                notes.append("metrics were logged without steps: their values are numbered")
                curves = {
                    name: [(float(i), value) for i, (_, value) in enumerate(curve)]
                    for name, curve in curves.items()
                }
        check_steps(str(folder), curves)
        word = _STATES.get(meta.get("status", 3), str(meta.get("status", "FINISHED")))
        status = states.state(word, naming.failures("status"))
        if status is None:
            raise LogError(f"{path}: status: found {shown(word)}; say --failed status=WORD,WORD")
        if status != "completed":
            notes.append(f"its status is {word}")
        steps_, columns = on_steps(curves)
        experiment = _experiment(folder.parent / "meta.yaml")
        known = {**({"dataset": experiment} if experiment else {}), **facts_of(settings)}
        # A tag says the name of a run; an experiment's name says the dataset, if nothing else does.
        run = str(meta.get("run_name") or settings.get("mlflow.runName", ""))
        yield run_of(
            str(folder),
            "mlflow",
            naming,
            naming.facts(folder, below, run=run, known=known),
            columns,
            steps=steps_ if len(steps_) else None,
            status=cast(Status, status),
            notes=notes,
            rate=rate_of(settings),
        )


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    text, _ = decode(read_bytes(path), path)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LogError(f"{path}: no sound YAML ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise LogError(f"{path}: found {shown(content)}; the facts of a run belong here")
    return content


def _experiment(path: Path) -> str | None:
    if not path.is_file():
        return None
    name = str(_yaml(path).get("name", ""))
    return None if name in ("", "Default") else name


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


def _texts(folder: Path) -> dict[str, str]:
    return {p.name: decode(read_bytes(p), p)[0].strip() for p in _files(folder)}


def _curve(path: Path) -> list[tuple[float, float]]:
    """Lines of time, value and step, in the order of their time."""
    rows = []
    for number, line in enumerate(decode(read_bytes(path), path)[0].splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        try:
            when, value = float(parts[0]), float(parts[1])
            step = float(parts[2]) if len(parts) > 2 else 0.0
        except (ValueError, IndexError):
            raise LogError(
                f"{path}: line {number}: found {shown(line)}; time, value and step belong here"
            ) from None
        if not math.isfinite(step):
            raise LogError(f"{path}: line {number}: step: found {parts[2]!r}; a number belongs here")
        rows.append((when, step, value))
    rows.sort(key=lambda row: row[0])
    return [(step, value) for _, step, value in rows]
