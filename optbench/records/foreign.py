"""Results of other tools as a store that ``optbench report`` reads.

Such trials were not trained here, so nothing proves that they match: their fingerprints say ``declared``
(:data:`optbench.records.pairing.DECLARED`), and a report says so wherever it speaks of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import optbench
from optbench.records.foreign_metrics import (
    ImportedError,
    check_testable,
    choose_primary,
    declared_metrics_of,
    is_share,
    status_of,
    testable_metrics,
)
from optbench.records.foreign_notes import notes_of
from optbench.records.gathered import declared_metrics
from optbench.records.identity import imported_ids
from optbench.records.logs import HISTORY, RunLog
from optbench.records.pairing import DECLARED
from optbench.records.store import FILE_NAME, Store, StoredTrial, StoreError, new_store
from optbench.suite.report_spec import Analysis, ReportSpec, ReportWorkload, Targets
from optbench.task import CustomMetric, Direction, sign_of
from optbench.trial import STREAMS, Fingerprints, Seeds, TrialRecord, TrialSpec, content_hash


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was written: the store, its trials in all, those new in it, and sentences about the logs."""

    store: Path
    trials: int
    new: int
    notes: tuple[str, ...]


def write(
    logs: Sequence[RunLog],
    out: Path,
    *,
    baseline: str | None = None,
    directions: Mapping[str, Direction] | None = None,
    notes: Sequence[str] = (),
) -> Imported:
    """Write runs of other tools into a store: all of them, or none where the process is ended.

    Parameters
    ----------
    logs : sequence of RunLog
        See :mod:`optbench.records.logs` for their readers.
    out : Path
        Folder of the store, new or of an earlier import; its name becomes the suite's.
    baseline : str, optional
        Optimizer that the others are compared with; the first if not given.
    directions : mapping of str to {"higher", "lower"}, optional
        What is better of metrics that are not known, such as ``test_my_score``.
    notes : sequence of str
        What was left out before, to be recorded with the rest.

    Returns
    -------
    Imported

    Raises
    ------
    ImportedError
        If two runs are of one dataset, model, optimizer and seed, an accuracy is no share, a metric is not
        known and no direction was given, or no run has a metric that a report can test.
    StoreError
        If the store holds trained trials, or other numbers for one of these runs.
    """
    if not logs:
        raise ImportedError("import: found no run; give CSV files, or folders with logs")
    known, rows, earlier = _known(out)
    custom = declared_metrics_of(logs, directions or {}, earlier)
    testable = testable_metrics(custom)
    check_testable(logs, testable)
    primary, said = choose_primary(logs, testable, known.values())
    records = [_record(log, primary) for log in logs]
    sources: dict[str, str] = {}
    for log, record in zip(logs, records, strict=True):
        if record.trial_id in sources:
            raise ImportedError(
                f"{log.source}: optimizer {log.optimizer!r}, dataset {log.dataset!r}, seed {log.seed} comes "
                f"twice (also in {sources[record.trial_id]}); give the runs different seeds, or leave one out"
            )
        sources[record.trial_id] = log.source
    for record in records:
        before = known.get(record.trial_id)
        if before is not None and not _same(before, record):
            raise StoreError(
                f"{out}: {sources[record.trial_id]} has other numbers than the trial {record.trial_id} "
                "imported before; remove the store to import all again"
            )
    new = {record.trial_id: record for record in records if record.trial_id not in known}
    rows |= {key: _labels(record.spec) for key, record in new.items()}
    trials = [*known.values(), *new.values()]
    spec = _report_spec(out.resolve().name, trials, rows, baseline, custom, primary)
    notes = (*said, *notes, *notes_of(logs))
    with _opened(out) as store:
        store.set_plan((key, *labels) for key, labels in rows.items())
        store.set_meta(
            suite=spec.name,
            title=spec.title,
            source=spec.text,
            hash=spec.hash,
            view=spec.to_json(),
            smoke="",
            imported=optbench.__version__,
            imported_notes="\n".join(dict.fromkeys([*_earlier_notes(store), *notes])),
        )
        store.add(*new.values())
    return Imported(store=out / FILE_NAME, trials=len(rows), new=len(new), notes=notes)


@contextmanager
def _opened(out: Path) -> Iterator[Store]:
    """Open the store of an earlier import for one transaction, or make one that gets its name at its end."""
    if not (out / FILE_NAME).is_file():
        with new_store(out / FILE_NAME) as store:
            yield store
        return
    with Store(out, write=True) as store, store.writing(), store.together():
        yield store


def _earlier_notes(store: Store) -> list[str]:
    return [note for note in store.meta().get("imported_notes", "").splitlines() if note]


def _known(out: Path) -> tuple[dict[str, StoredTrial], dict[str, tuple[str, str]], dict[str, CustomMetric]]:
    """Trials, labels and declared metrics of an earlier import; refuses a store of trained trials."""
    if not (out / FILE_NAME).is_file():
        return {}, {}, {}
    with Store(out) as store:
        if "imported" not in store.meta():
            raise StoreError(f"{store.path}: holds trials that optbench trained; import into another folder")
        trials = {trial.trial_id: trial for trial in store.trials()}
        labels = {key: (workload, optimizer) for key, workload, optimizer in store.plan()}
        return trials, labels, {metric.name: metric for metric in declared_metrics(store.meta())}


def _record(log: RunLog, primary: str) -> TrialRecord:
    history = {name: log.history[name] for name in log.history if np.isfinite(log.history[name]).any()}
    length = max((len(values) for values in history.values()), default=0)
    metrics = {**log.metrics, **_finals(history, log.ends)}
    status = status_of(log, primary)
    columns = {name: np.full(length, np.nan) for name in HISTORY} if length else {}
    for name, values in history.items():
        columns[name][: len(values)] = values
    block = {
        "workload": {
            # A mapping, as for custom data: nothing is taken from the registry's dataset.
            "dataset": {
                "kind": "imported",
                "name": log.dataset,
                "location": "",
                "digest": content_hash(log.dataset),
            },
            "model": {"name": log.model, "layers": []},
            "batch_size": "unknown",
            "split": {},
        },
        "seeds": dict.fromkeys(STREAMS, log.seed),
        "backend": log.backend,
        "device": log.device,
        "precision": "unknown",
    }
    optimizer = {"optimizer": log.optimizer} | ({} if log.lr is None else {"lr": log.lr})
    written = Path(log.source.partition(":")[0])
    when = written.stat().st_mtime if written.exists() else 0.0
    spec = {**block, "optimizer": optimizer, "imported": f"{log.kind} ({log.source})"}
    key, block_key = imported_ids(spec)
    return TrialRecord(
        trial_id=key,
        block_id=block_key,
        spec=cast(TrialSpec, spec),
        status=status,
        fingerprints=Fingerprints(split=DECLARED, init=DECLARED, order=DECLARED),
        history=columns,
        metrics=metrics,
        timings={},
        predictions={},
        environment={"imported": log.kind, **({"reading": list(log.notes)} if log.notes else {})},
        started=datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="seconds"),
    )


_ENDS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def _finals(history: Mapping[str, NDArray[np.float64]], ends: Mapping[str, float]) -> dict[str, float]:
    """Last values, and the best epoch by the rule of :class:`optbench.trial.Workload`'s monitor."""
    if not history:
        return {}
    finals = {"epochs": float(max(map(len, history.values())) - 1)}
    finals |= {
        name: ends[name]
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        if name in ends
    }
    for name in ("val_accuracy", "val_loss"):
        if name in history and "best_epoch" not in finals:
            best = int(np.nanargmax(sign_of(name) * history[name]))
            finals["best_epoch"] = float(best)
            finals |= {
                f"{other}_best": float(history[other][best])
                for other in ("val_loss", "val_accuracy")
                if other in history and best < len(history[other]) and np.isfinite(history[other][best])
            }
    return finals


def _labels(spec: Any) -> tuple[str, str]:
    dataset, model = spec["workload"]["dataset"]["name"], spec["workload"]["model"]["name"]
    return (f"{dataset}/{model}" if model else dataset), spec["optimizer"]["optimizer"]


def _same(before: StoredTrial, record: TrialRecord) -> bool:
    finite = {name: value for name, value in record.metrics.items() if math.isfinite(value)}
    return (
        before.status == record.status
        and before.metrics == finite
        and before.history.keys() == record.history.keys()
        and all(np.array_equal(before.history[n], v, equal_nan=True) for n, v in record.history.items())
    )


def _report_spec(
    name: str,
    trials: Sequence[Any],
    rows: Mapping[str, tuple[str, str]],
    baseline: str | None,
    custom: Mapping[str, CustomMetric],
    primary: str,
) -> ReportSpec:
    """What a report shows of these trials, in the order in which they were given."""
    optimizers = list(dict.fromkeys(optimizer for _, optimizer in rows.values()))
    if baseline is not None and baseline not in optimizers:
        raise ImportedError(f"--baseline: found {baseline!r}; the runs have {', '.join(optimizers)}")
    workloads = []
    for label in dict.fromkeys(workload for workload, _ in rows.values()):
        mine = [trial for trial in trials if rows[trial.trial_id][0] == label]
        workloads.append(
            ReportWorkload(
                label=label,
                targets=Targets(),
                optimizers=tuple(dict.fromkeys(rows[trial.trial_id][1] for trial in mine)),
                epochs=max(1, *(int(trial.metrics.get("epochs", 1)) for trial in mine)),
                metrics=tuple(custom.values()),
            )
        )
    seeds = sorted({trial.spec["seeds"]["init"] for trial in trials})
    return ReportSpec(
        name=name,
        title=f"{name} (imported)",
        text="",
        workloads=tuple(workloads),
        seeds=tuple(Seeds(**dict.fromkeys(STREAMS, seed)) for seed in seeds),
        backends=tuple(dict.fromkeys(trial.spec["backend"] for trial in trials)),
        analysis=Analysis(baseline=baseline, primary=primary),
    )


def percent(logs: Sequence[RunLog]) -> tuple[list[RunLog], list[str]]:
    """Turn metrics that are shares, such as accuracies, from percentages into shares.

    Returns
    -------
    logs : list of RunLog
    divided : list of str
        The metrics that were percentages: shares of which a value is above 1.
    """
    divided = [name for name, largest in _largest(logs).items() if is_share(name) and largest > 1]

    def share(name: str, value: Any) -> Any:
        return value / 100 if name in divided else value

    taken = [
        replace(
            log,
            metrics={name: share(name, value) for name, value in log.metrics.items()},
            history={name: share(name, values) for name, values in log.history.items()},
            ends={name: share(name, value) for name, value in log.ends.items()},
        )
        for log in logs
    ]
    return taken, divided


def _largest(logs: Iterable[RunLog]) -> dict[str, float]:
    """The largest value that each metric has in any run."""
    found: dict[str, float] = {}
    for log in logs:
        for name, values in (*log.history.items(), *log.metrics.items()):
            numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
            finite = numbers[np.isfinite(numbers)]
            found[name] = max(found.get(name, -math.inf), float(finite.max(initial=-math.inf)))
    return found
