"""Everything that a report says, computed once for all formats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optbench.frames import Results
from optbench.report.across import Across, SettingComparison, across, settings_compared
from optbench.report.leaderboard import Leaderboard, leaderboards
from optbench.report.methods import methods_paragraph
from optbench.report.tables import (
    across_table,
    metrics_table,
    pass_table,
    settings_table,
    times_table,
    top_k_table,
)
from optbench.report.text import TextTable, leaderboard_table
from optbench.report.times import with_fair_times
from optbench.report.tuning import tuning_cost, tuning_table, untuned_table
from optbench.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results with what the statistics make of them; ``claims`` are one sentence a workload and question."""

    suite: Suite
    results: Results
    boards: tuple[Leaderboard, ...]
    overall: tuple[Across, ...]
    settings: tuple[SettingComparison, ...]
    claims: tuple[str, ...]
    warnings: tuple[str, ...]
    methods: str


def analyse(results: Results, suite: Suite) -> Report:
    """Run the whole analysis of some results.

    Parameters
    ----------
    results : Results
    suite : Suite
        Labels, targets, and what to test.

    Returns
    -------
    Report
    """
    results = _with_tuning_cost(with_fair_times(results))
    boards = leaderboards(results, suite)
    overall = across(boards, suite)
    return Report(
        suite=suite,
        results=results,
        boards=tuple(boards),
        overall=tuple(overall),
        settings=tuple(settings_compared(results, suite)) if len(results.trials) else (),
        claims=tuple([_claim(board) for board in boards] + [_overall_claim(found) for found in overall]),
        warnings=tuple(_warnings(results, suite)),
        methods=methods_paragraph(results, suite, boards),
    )


def _with_tuning_cost(results: Results) -> Results:
    """Charge every trial's optimizer with what its search on that workload took, as ``tuning_seconds``."""
    cost: dict[tuple[str, str], float] = {}
    for (workload, optimizer, _), seconds in tuning_cost(results.tuning).items():
        cost[workload, optimizer] = cost.get((workload, optimizer), 0.0) + seconds
    if not cost or results.trials.empty:
        return results
    labels = zip(results.trials["workload"], results.trials["optimizer"], strict=True)
    charged = results.trials.assign(tuning_seconds=[cost.get(label, math.nan) for label in labels])
    return replace(results, trials=charged)


def main_tables(report: Report) -> list[TextTable]:
    """Tables that every format shows: leaderboards, across workloads, and :func:`side_tables`."""
    tables = [leaderboard_table(board) for board in report.boards]
    tables += [across_table(found) for found in report.overall]
    return tables + list(side_tables(report).values())


def side_tables(report: Report) -> dict[str, TextTable]:
    """Tables beside the leaderboards, by the name of their file; those with nothing to show are left out."""
    tables = {
        "targets": times_table(report.boards),
        "top_k": top_k_table(report.boards, report.results.trials),
        "metrics": metrics_table(report.boards, report.results.trials, report.suite),
        "timing": pass_table(report.results),
        "tuning": tuning_table(report.results),
        "untuned": untuned_table(report.results, report.boards),
        "settings": settings_table(report.settings, report.suite.analysis.primary)
        if report.settings
        else None,
    }
    return {name: table for name, table in tables.items() if table is not None}


def _claim(board: Leaderboard) -> str:
    groups: dict[str, list[str]] = {}
    for c in board.family.comparisons:
        groups.setdefault(c.verdict.word, []).append(c.candidate)
    return f"{board.title}: {_sentence(groups, board.baseline)}"


def _overall_claim(found: Across) -> str:
    these: dict[str, list[str]] = {}
    new: dict[str, list[str]] = {}
    for row in found.rows:
        if row.these is not None:
            these.setdefault(row.these.verdict.word, []).append(row.optimizer)
        if row.new is not None:
            new.setdefault(row.new.verdict.word, []).append(row.optimizer)
    return (
        f"{found.title}, on these workloads: {_sentence(these, found.baseline)} "
        f"On new workloads: {_sentence(new, found.baseline)}"
    )


def _sentence(groups: dict[str, list[str]], baseline: str) -> str:
    phrases = {
        "better": f"better than {baseline}",
        "worse": f"worse than {baseline}",
        "equivalent": f"equivalent to {baseline} within the margin",
        "mixed": f"mixed against {baseline}",
        "inconclusive": f"inconclusive against {baseline}",
    }
    parts = [f"{_listed(groups[word])} {phrase}" for word, phrase in phrases.items() if word in groups]
    return "; ".join(parts) + "." if parts else f"only {baseline} has trials, so there is no comparison."


def _warnings(results: Results, suite: Suite) -> list[str]:
    found = []
    if any(meta.get("smoke") for meta in results.meta):
        found.append("Dry run on made data: these numbers are no result.")
    count = len(results.trials)
    if not count:
        found.append("No trial of this suite has been run: there is nothing to report yet.")
        return found
    if count < results.planned:
        found.append(f"{results.planned - count} of {results.planned} planned trials have not been run.")
    if results.unplanned:
        found.append(
            f"{results.unplanned} more records are in no plan (other seeds, or an earlier state of the suite "
            "file) and left out; `optbench run SUITE` takes in those that the suite declares."
        )
    crashed = int((results.trials["status"] == "crashed").sum())
    if crashed:
        found.append(
            f"{crashed} of {count} trials crashed: they are missing data, and may bias what is left."
        )
    if results.refusals:
        found.append(f"{len(results.refusals)} trials do not match their block and were not paired.")
    if len({meta.get("hash") for meta in results.meta}) == 1 and len(results.meta) == 1:
        meta = results.meta[0]
        if meta.get("hash") and meta.get("source") != suite.text and meta["hash"] != suite.hash:
            found.append("The suite file has changed since the store was last run with it.")
    return found


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
