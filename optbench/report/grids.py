"""Workloads that differ in one thing, compared: batch size, initialiser, penalty, network as a factor."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from optbench.records.frames import Results
from optbench.report.across import SettingComparison
from optbench.report.board_notes import mixed_in
from optbench.report.effect import shown_difference
from optbench.report.fair_times import SETTING
from optbench.report.leaderboard import crossing_of, oriented
from optbench.report.text import EXPLORATORY, TextTable, estimate, p_value
from optbench.stats.crashes import crashed_optimizers, name_crashed
from optbench.stats.families import Settings, compare_family
from optbench.suite.report_spec import ReportSpec
from optbench.task import Metric


def grids_compared(results: Results, spec: ReportSpec) -> list[SettingComparison]:
    """Compare the settings of each grid with its first one, for every optimizer.

    Parameters
    ----------
    results : Results
    spec : ReportSpec
        Gives the grids, the metric, alpha, correction and margin.

    Returns
    -------
    list of SettingComparison
        One a grid, optimizer, backend, device and precision. Pairs are trials of one seed with the same
        split; what the grid sets differs, and what follows from it (a batch size changes the steps, an
        initialiser the first weights).
    """
    if results.trials.empty:
        return []
    groups: dict[str, list[tuple[str, str]]] = {}
    for entry in spec.workloads:
        if entry.entry:
            name = entry.title.removesuffix(f" {entry.setting}") or entry.entry
            groups.setdefault(name, []).append((entry.label, entry.setting))
        for factor in entry.factors:
            name = f"{factor.field} of {factor.group}"
            groups.setdefault(name, []).append((entry.label, factor.setting))
    metric = spec.analysis.primary
    found = []
    for title, members in groups.items():
        settings = dict(members)
        trials = results.trials[results.trials["workload"].isin(settings)]
        keys = ["optimizer", *(name for name in SETTING if name in trials)]
        for key, part in trials.groupby(keys, sort=False):
            comparison = _compared(part, settings, str(key[0]), title, metric, results, spec)
            if comparison is not None:
                found.append(comparison)
    return found


def _compared(
    part: pd.DataFrame,
    settings: dict[str, str],
    optimizer: str,
    title: str,
    metric: str,
    results: Results,
    spec: ReportSpec,
) -> SettingComparison | None:
    maximise = results.metrics[metric].maximised
    names = [setting for label, setting in settings.items() if label in set(part["workload"])]
    # A crash has no fingerprints, and so no pair: the other setting's trial stands alone in its block.
    known = part[part["split"].notna()] if "split" in part else part
    # Stores that are analysed together may hold workloads of one name: each store's pairs are its own.
    stores = known["store"] if "store" in known else [0] * len(known)
    blocks = [
        f"{store}/{seed}/{split}"
        for store, seed, split in zip(stores, known["seed"], known["split"], strict=True)
    ]
    named = known.assign(optimizer=known["workload"].map(settings), block=blocks, block_id=blocks)
    table = oriented(named, metric, maximise=maximise).reindex(columns=names)
    if len(names) < 2 or table.empty:
        return None
    a = spec.analysis
    family = compare_family(
        table.to_numpy(dtype=float),
        names,
        settings=Settings(names[0], "baseline", a.alpha, a.correction, a.margin),
        scope=f"{optimizer} on {title}",
        maximise=maximise,
        crossing=crossing_of(named.assign(status="completed"), table.index),
    )
    crashed = crashed_optimizers(part.assign(optimizer=part["workload"].map(settings)))
    return SettingComparison(
        workload=title,
        optimizer=optimizer,
        family=name_crashed(family, crashed, either=True),
        shared=_shared(named),
        mixed=mixed_in(named, results),
    )


def _shared(trials: pd.DataFrame) -> str:
    """What the trials of every block have in common, by their fingerprints."""
    names = {"order": "order", "init": "first weights"}
    same = [
        word
        for name, word in names.items()
        if name in trials and (trials.groupby("block")[name].nunique(dropna=False) == 1).all()
    ]
    return ", ".join(["split", *same])


def grids_table(comparisons: Sequence[SettingComparison], metric: Metric) -> TextTable | None:
    """Lay out the comparison of the settings of grids; None without one."""
    rows = []
    for item in comparisons:
        for c in item.family.comparisons:
            mean = shown_difference(c)
            difference = estimate(mean.estimate, mean.low, mean.high, metric=metric, cut=mean.cut)
            pair = f"{c.candidate} vs {c.baseline}"
            cells = (pair, item.shared, str(c.n), difference, p_value(c.p_adjusted), c.verdict.word)
            rows.append((item.workload, item.optimizer, *cells))
    if not rows:
        return None
    columns = ("workload", "optimizer", "comparison", "shared", "n", f"{metric.heading} [CI]", "p", "verdict")
    return TextTable(
        title="Settings as a factor",
        columns=columns,
        rows=tuple(rows),
        notes=(
            "Each setting against the first one, for every optimizer. Pairs are trials of one seed with the "
            "same split; `shared` says what else their fingerprints prove to be the same: the order of the "
            "examples, the first weights. Corrected over the settings of one factor and optimizer.",
            *(
                f"{item.workload}, {item.optimizer}: {item.mixed.mixed} of {item.mixed.blocks} pairs mix "
                f"{item.mixed.words}; that changes the bits of a training and is part of the difference."
                for item in comparisons
                if item.mixed is not None and item.mixed.mixed
            ),
        ),
        always=frozenset({"optimizer", "comparison", columns[5], "p", "verdict"}),
        evidence=EXPLORATORY,
    )
