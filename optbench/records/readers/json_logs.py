"""JSON that frameworks write: Keras's History, Hugging Face's trainer_state.json, DeepOBS's results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optbench.datasets.cells import decode, read_bytes
from optbench.datasets.numbers import Numbers
from optbench.records.readers.curves import facts_beside, facts_of, rate_of, run_of
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog, numbers
from optbench.suite.validation import one_line, shown

#: Curves of DeepOBS, and the metrics that they are.
_DEEPOBS = {
    "train_losses": "train_loss",
    "valid_losses": "val_loss",
    "test_losses": "test_loss",
    "train_accuracies": "train_accuracy",
    "valid_accuracies": "val_accuracy",
    "test_accuracies": "test_accuracy",
}


def is_huggingface(path: Path, head: bytes) -> bool:
    """Whether a file is a trainer_state.json."""
    return path.suffix == ".json" and (path.name == "trainer_state.json" or b'"log_history"' in head)


def is_deepobs(path: Path, head: bytes) -> bool:
    """Whether a file is a result of DeepOBS."""
    return path.suffix == ".json" and re.match(rb'\s*\{\s*"(train|valid|test)_losses"\s*:', head) is not None


#: A list of numbers by its name, or, as pandas writes a frame, a mapping of its rows.
_LISTS = rb'\s*\{\s*"[^"]+"\s*:\s*(\[\s*|\{\s*"\d+"\s*:\s*)(-?[\d.]|NaN|-?Infinity|null)'


def is_history(path: Path, head: bytes) -> bool:
    """Whether a file is a Keras History: a list of numbers a metric, or an object that holds one."""
    return path.suffix == ".json" and (
        re.match(_LISTS, head) is not None or re.search(rb'"history"\s*:' + _LISTS, head) is not None
    )


def _json(path: Path) -> Any:
    text, _ = decode(read_bytes(path), path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LogError(f"{path}: no sound JSON ({one_line(error)}); is the file cut off?") from None


def _curve(path: Path, name: str, values: Any) -> Numbers:
    if not isinstance(values, list) or not all(v is None or isinstance(v, int | float) for v in values):
        raise LogError(f"{path}: {name}: found {shown(values)}; a list of numbers belongs here")
    return numbers(values)


def read_history(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read Keras's ``History.history`` as JSON: one list a metric, one value an epoch."""
    for path in paths:
        content = _json(path)
        if not isinstance(content, dict) or not content:
            raise LogError(f"{path}: found {shown(content)}; a History has a list of numbers a metric")
        if isinstance(content.get("history"), dict):  # the whole object
            content = content["history"]
        lists = {str(name): _listed(values) for name, values in content.items() if name != "epoch"}
        columns = {name: _curve(path, name, values) for name, values in lists.items()}
        lengths = {len(column.values) for column in columns.values()}
        longest = max(lengths)
        if not longest:
            raise LogError(f"{path}: the lists are empty: no epoch was trained")
        notes = []
        if len(lengths) > 1:
            notes.append(
                f"metrics have {min(lengths)} to {longest} values: the last of shorter ones are missing"
            )
        columns = {name: _longer(column, longest) for name, column in columns.items()}
        epochs = np.arange(longest, dtype=np.float64) + naming.first_epoch
        facts = naming.facts(path, below, known=facts_beside(path, below))
        yield run_of(str(path), "keras-history", naming, facts, columns, epochs=epochs, notes=notes)


def _listed(values: Any) -> Any:
    """The rows of a frame of pandas, a mapping by their numbers, as a list."""
    if isinstance(values, dict) and list(values) == [str(i) for i in range(len(values))]:
        return list(values.values())
    return values


def _longer(column: Numbers, length: int) -> Numbers:
    lack = length - len(column.values)
    return Numbers(
        np.append(column.values, np.full(lack, np.nan)), np.append(column.diverged, np.zeros(lack, bool))
    )


def read_huggingface(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read the ``log_history`` of Hugging Face's Trainer; its numbered evaluations are the points."""
    for path in _last_states(paths):
        content = _json(path)
        rows = content.get("log_history") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise LogError(
                f"{path}: log_history: found {shown(rows)}; a list of the logged rows belongs here"
            )
        notes = []
        # The row at the end has means over the whole training, which are no last values.
        closing = [row for row in rows if "train_runtime" in row]
        rows = [row for row in rows if "train_runtime" not in row]
        if closing:
            notes.append("the closing row with means over the training is left out")
        names = list(dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, int | float)))
        columns = {name: numbers([row.get(name) for row in rows]) for name in names}
        axes = {name: columns.pop(name).values for name in ("epoch", "step") if name in columns}
        if not axes:
            raise LogError(f"{path}: step: no row of log_history has one; is it a trainer_state.json?")
        facts = naming.facts(path, below, known=facts_beside(path, below))
        yield run_of(
            str(path),
            "huggingface",
            naming,
            facts,
            columns,
            epochs=axes.get("epoch"),
            steps=axes.get("step"),
            notes=notes,
        )


def _last_states(paths: Sequence[Path]) -> list[Path]:
    """Of the checkpoints of one run the last, which holds the history of all."""
    kept: dict[Path, tuple[int, Path]] = {}
    for path in paths:
        found = re.fullmatch(r"checkpoint-(\d+)", path.parent.name)
        run, step = (path.parent.parent, int(found[1])) if found else (path.parent, 2**62)
        if run not in kept or step > kept[run][0]:
            kept[run] = step, path
    return [path for _, path in kept.values()]


def read_deepobs(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read results of DeepOBS 1.x: problem, optimizer and seed in the file, or in the folders above it."""
    for path in paths:
        content = _json(path)
        if not isinstance(content, dict):
            raise LogError(f"{path}: found {shown(content)}; results of DeepOBS are a mapping")
        columns = {
            metric: _curve(path, name, content[name]) for name, metric in _DEEPOBS.items() if name in content
        }
        longest = max((len(column.values) for column in columns.values()), default=0)
        if not longest:
            raise LogError(f"{path}: no curve has a value: no epoch was trained")
        columns = {name: _longer(column, longest) for name, column in columns.items()}
        yield run_of(
            str(path),
            "deepobs",
            naming,
            naming.facts(path, below, known=_deepobs_facts(path, content)),
            columns,
            # It evaluates before the first step.
            epochs=np.arange(longest, dtype=np.float64),
            as_numbered=True,
            rate=rate_of({**content, **_mapping(content.get("optimizer_hyperparams"))}),
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _deepobs_facts(path: Path, content: Mapping[str, Any]) -> dict[str, str]:
    found = facts_of({k: v for k, v in content.items() if not isinstance(v, list | dict)})
    # results/<test problem>/<optimizer>/<settings>/random_seed__42__<time>.json
    above = path.resolve().parent.parents
    if len(above) > 1:
        found.setdefault("optimizer", above[0].name)
        found.setdefault("dataset", above[1].name)
    seed = re.match(r"random_seed__(\d+)__", path.name)
    if seed:
        found.setdefault("seed", seed[1])
    return found
