"""Several stores as one: the same label for the same thing, different labels for different things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optbench.frames import Results, load_results
from optbench.optimizers import OptimizerConfig
from optbench.suite import Suite, SuiteWorkload, known_choice

#: Key: position of the store, workload label, optimizer label there.
Labels = Mapping[tuple[int, str, str], tuple[str, str]]


def gather(stores: Sequence[tuple[Suite, Path]]) -> tuple[Suite, Results]:
    """Read one or more stores for one analysis.

    Parameters
    ----------
    stores : sequence of (Suite, Path)
        Each store with the suite that explains it.

    Returns
    -------
    suite : Suite
        All workloads, optimizers, seeds and backends; title from all, analysis from the first.
    results : Results
        With the labels of that suite.
    """
    suites = [suite for suite, _ in stores]
    results = load_results(*(path for _, path in stores))
    if len(stores) == 1:
        return suites[0], results
    suite, labels = combine(suites)
    if len(results.trials):
        results = _relabel(results, labels)
    return suite, results


def combine(suites: Sequence[Suite]) -> tuple[Suite, Labels]:
    """Merge suites; where two use one label for different things, the suite's name is added to it.

    Parameters
    ----------
    suites : sequence of Suite

    Returns
    -------
    suite : Suite
        Targets of a workload that several suites share are those of the first.
    labels : mapping
        New (workload, optimizer) labels by position of the suite and the labels there.
    """
    names = _names(suites)
    entries: dict[str, SuiteWorkload] = {}
    labels: dict[tuple[int, str, str], tuple[str, str]] = {}
    contents: dict[str, list[Any]] = {}
    configs: dict[tuple[str, str], list[OptimizerConfig]] = {}
    for suite in suites:
        for entry in suite.workloads:
            _note(contents.setdefault(entry.label, []), entry.workload)
    placed: list[tuple[int, SuiteWorkload, str]] = []
    for position, suite in enumerate(suites):
        for entry in suite.workloads:
            clash = len(contents[entry.label]) > 1
            workload = f"{entry.label} [{names[position]}]" if clash else entry.label
            placed.append((position, entry, workload))
            for label, config in entry.optimizers.items():
                _note(configs.setdefault((workload, label), []), config)
    for position, entry, workload in placed:
        optimizers: dict[str, OptimizerConfig] = {}
        for label, config in entry.optimizers.items():
            clash = len(configs[workload, label]) > 1
            new = f"{label} [{names[position]}]" if clash else label
            labels[position, entry.label, label] = (workload, new)
            optimizers[new] = config
        known = entries.get(workload)
        merged = {**known.optimizers, **optimizers} if known else optimizers
        entries[workload] = replace(known or entry, label=workload, optimizers=merged)
    first = suites[0]
    combined = replace(
        first,
        name="+".join(dict.fromkeys(suite.name for suite in suites)),
        title=" + ".join(dict.fromkeys(suite.title for suite in suites)),
        text="\n---\n".join(dict.fromkeys(suite.text for suite in suites)),
        workloads=tuple(entries.values()),
        seeds=tuple(dict.fromkeys(seed for suite in suites for seed in suite.seeds)),
        backends=tuple(dict.fromkeys(backend for suite in suites for backend in suite.backends)),
    )
    baseline = combined.analysis.baseline
    if baseline is not None and baseline not in combined.optimizers:
        combined = replace(combined, analysis=replace(combined.analysis, baseline=f"{baseline} [{names[0]}]"))
    return combined, labels


def with_analysis(
    suite: Suite,
    *,
    baseline: str | None = None,
    primary: str | None = None,
    alpha: float | None = None,
    correction: str | None = None,
) -> Suite:
    """Change what the report tests; ``None`` keeps what the suite declares.

    Raises
    ------
    SuiteError
        If a value is none that the suite knows.
    """
    changes: dict[str, Any] = {}
    if baseline is not None:
        changes["baseline"] = known_choice("--baseline", baseline, suite.optimizers)
    if primary is not None:
        known = ("test_accuracy", "test_loss", "val_accuracy", "val_loss", "train_loss")
        changes["primary"] = known_choice("--primary", primary, known)
    if alpha is not None:
        changes["alpha"] = alpha
    if correction is not None:
        changes["correction"] = known_choice("--correction", correction, ("holm", "bonferroni", "bh", "none"))
    return replace(suite, analysis=replace(suite.analysis, **changes))


def _names(suites: Sequence[Suite]) -> list[str]:
    """Names that tell the suites apart."""
    names = [suite.name for suite in suites]
    return [
        name if names.count(name) == 1 else f"{name} {names[: position + 1].count(name)}"
        for position, name in enumerate(names)
    ]


def _note(known: list[Any], value: Any) -> None:
    if value not in known:
        known.append(value)


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
