"""Display names: a report calls workloads and optimizers by their titles, where a suite gives some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from optbench.records.frames import Results
from optbench.suite.report_spec import ReportSpec


def with_titles(results: Results, spec: ReportSpec) -> tuple[Results, ReportSpec]:
    """Call everything by its title.

    Parameters
    ----------
    results : Results
    spec : ReportSpec

    Returns
    -------
    results, spec
        Unchanged where the suite has no titles. The labels stay in the store, and in what
        :func:`optbench.records.frames.load_results` gives.
    """
    optimizers = dict(spec.titles)
    workloads = {entry.label: entry.title for entry in spec.workloads if entry.title}
    if not optimizers and not workloads:
        return results, spec

    def named(frame: pd.DataFrame) -> pd.DataFrame:
        pairs = (("optimizer", optimizers), ("workload", workloads))
        return frame.assign(**{name: _called(frame[name], names) for name, names in pairs if name in frame})

    entries = tuple(
        replace(
            entry,
            label=workloads.get(entry.label, entry.label),
            optimizers=tuple(optimizers.get(name, name) for name in entry.optimizers),
        )
        for entry in spec.workloads
    )
    baseline = spec.analysis.baseline
    analysis = replace(spec.analysis, baseline=optimizers.get(baseline or "", baseline))
    journals = tuple(
        replace(
            journal,
            studies=tuple(
                replace(
                    study,
                    workload=workloads.get(study.workload, study.workload),
                    optimizer=optimizers.get(study.optimizer, study.optimizer),
                )
                for study in journal.studies
            ),
        )
        for journal in results.journals
    )
    refusals = tuple(replace(r, optimizer=optimizers.get(r.optimizer, r.optimizer)) for r in results.refusals)
    called = replace(
        results,
        trials=named(results.trials),
        epochs=named(results.epochs),
        tuning=named(results.tuning),
        untuned=named(results.untuned),
        journals=journals,
        refusals=refusals,
    )
    return called, replace(spec, workloads=entries, analysis=analysis)


def _called(labels: pd.Series, names: Mapping[str, str]) -> pd.Series:
    if isinstance(labels.dtype, pd.CategoricalDtype):
        return labels.cat.rename_categories(
            {label: names.get(label, label) for label in labels.cat.categories}
        )
    return labels.map(lambda label: names.get(label, label))
