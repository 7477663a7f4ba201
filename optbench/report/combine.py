"""Several stores as one: the same label for the same thing, different labels for different things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from optbench.records.frames import Results, load_results
from optbench.suite.load import known_choice
from optbench.suite.report_spec import ReportSpec, ReportWorkload
from optbench.task import Metrics

#: Key: position of the store, workload label, optimizer label there.
Labels = Mapping[tuple[int, str, str], tuple[str, str]]


def gather(
    stores: Sequence[tuple[ReportSpec, Path]], workloads: Sequence[str] | None = None
) -> tuple[ReportSpec, Results]:
    """Read one or more stores for one analysis.

    Parameters
    ----------
    stores : sequence of (ReportSpec, Path)
        Each store with what its suite asks of a report.
    workloads : sequence of str, optional
        Only these, by their labels in a suite; all if not given.

    Returns
    -------
    spec : ReportSpec
        All workloads, optimizers, seeds and backends; title from all, analysis from the first. Targets of a
        workload that several suites share are those of the first.
    results : Results
        With the labels of that spec: where two stores use one label for different things, the suite's name
        is added to it.

    Raises
    ------
    SuiteError
        If no suite has such a workload.
    """
    specs = [spec for spec, _ in stores]
    labels_of_all = dict.fromkeys(entry.label for spec in specs for entry in spec.workloads)
    if workloads is not None:
        workloads = [known_choice("--workload", label, labels_of_all) for label in workloads]
        specs = [_part(spec, workloads) for spec in specs]
    results = load_results(*(path for _, path in stores), workloads=workloads)
    # A suite's file may say of a metric what an earlier state of it did not.
    metrics = Metrics.of(metric for spec in specs for entry in spec.workloads for metric in entry.metrics)
    left_out = () if workloads is None else tuple(label for label in labels_of_all if label not in workloads)
    results = replace(results, metrics=metrics, left_out=left_out)
    if len(stores) == 1:
        return specs[0], results
    labels = _labels(results.trials, _names(specs)) if len(results.trials) else {}
    return _combine(specs, labels), _relabel(results, labels) if labels else results


def _part(spec: ReportSpec, workloads: Sequence[str]) -> ReportSpec:
    return replace(spec, workloads=tuple(entry for entry in spec.workloads if entry.label in workloads))


def _labels(trials: pd.DataFrame, names: Sequence[str]) -> Labels:
    columns = ["store", "workload", "optimizer", "workload_id", "config_id"]
    known = trials[columns].drop_duplicates()
    clash = known.groupby("workload")["workload_id"].transform("nunique") > 1
    suffix = known["store"].map(lambda store: f" [{names[store]}]")
    known["new_workload"] = known["workload"] + suffix.where(clash, "")
    clash = known.groupby(["new_workload", "optimizer"])["config_id"].transform("nunique") > 1
    known["new_optimizer"] = known["optimizer"] + suffix.where(clash, "")
    return {
        (row.store, row.workload, row.optimizer): (row.new_workload, row.new_optimizer)
        for row in known.itertuples()
    }


def _combine(specs: Sequence[ReportSpec], labels: Labels) -> ReportSpec:
    entries: dict[str, ReportWorkload] = {}
    for position, spec in enumerate(specs):
        for entry in spec.workloads:
            for label in entry.optimizers:
                workload, optimizer = labels.get((position, entry.label, label), (entry.label, label))
                known = entries.get(workload, replace(entry, label=workload, optimizers=()))
                optimizers = tuple(dict.fromkeys([*known.optimizers, optimizer]))
                entries[workload] = replace(known, optimizers=optimizers)
    first = specs[0]
    combined = replace(
        first,
        name="+".join(dict.fromkeys(spec.name for spec in specs)),
        title=" + ".join(dict.fromkeys(spec.title for spec in specs)),
        text="\n---\n".join(dict.fromkeys(spec.text for spec in specs)),
        workloads=tuple(entries.values()),
        seeds=tuple(dict.fromkeys(seed for spec in specs for seed in spec.seeds)),
        backends=tuple(dict.fromkeys(backend for spec in specs for backend in spec.backends)),
    )
    baseline = first.analysis.baseline
    if baseline is not None and baseline not in combined.optimizers:
        renamed = [new for (position, _, old), (_, new) in labels.items() if (position, old) == (0, baseline)]
        if renamed:
            combined = replace(combined, analysis=replace(first.analysis, baseline=renamed[0]))
    return combined


def with_analysis(
    spec: ReportSpec,
    *,
    baseline: str | None = None,
    primary: str | None = None,
    alpha: float | None = None,
    correction: str | None = None,
) -> ReportSpec:
    """Change what the report tests; ``None`` keeps what the suite declares.

    Raises
    ------
    SuiteError
        If a value is none that the suite knows.
    """
    changes: dict[str, Any] = {}
    if baseline is not None:
        changes["baseline"] = known_choice("--baseline", baseline, spec.optimizers)
    if primary is not None:
        changes["primary"] = known_choice("--primary", primary, spec.primaries)
    if alpha is not None:
        changes["alpha"] = alpha
    if correction is not None:
        changes["correction"] = known_choice("--correction", correction, ("holm", "bonferroni", "bh", "none"))
    return replace(spec, analysis=replace(spec.analysis, **changes))


def _names(specs: Sequence[ReportSpec]) -> list[str]:
    """Names that tell the suites apart."""
    names = [spec.name for spec in specs]
    return [
        name if names.count(name) == 1 else f"{name} {names[: position + 1].count(name)}"
        for position, name in enumerate(names)
    ]


def _relabel(results: Results, labels: Labels) -> Results:
    trials = results.trials
    keys = zip(trials["store"], trials["workload"], trials["optimizer"], strict=True)
    new = [labels.get(key, key[1:]) for key in keys]
    trials = trials.assign(workload=[w for w, _ in new], optimizer=[o for _, o in new])
    epochs = results.epochs
    if len(epochs):
        rows = trials.set_index("trial_id").index.get_indexer(epochs["trial_id"].astype(str))
        changed = {name: trials[name].astype("category").take(rows) for name in ("workload", "optimizer")}
        epochs = epochs.assign(**{name: column.array for name, column in changed.items()})
    return replace(results, trials=trials, epochs=epochs)
