"""The answer of a suite's records, and of a table of results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from optbench.datasets import registry
from optbench.records.frames import Results
from optbench.records.pairing import DECLARED
from optbench.report.across import Across, SettingComparison
from optbench.report.answer import (
    MOST_NAMED,
    Answer,
    Finding,
    Quantity,
    Scope,
    Sentence,
    by_workload,
    count_range,
    in_reading_order,
    quantity_of,
    test_sentence,
    verdict_sentence,
)
from optbench.report.effect import shown_difference
from optbench.report.fair_times import step_ways
from optbench.report.leaderboard import Leaderboard
from optbench.report.text import duration, listed, short
from optbench.stats.datasets import FEWEST_DATASETS, StratifiedComparison
from optbench.stats.families import PairedComparison
from optbench.suite.report_spec import Analysis, ReportSpec

if TYPE_CHECKING:
    from optbench.stats.compare import Comparison

#: Most leaderboards in the answer where there is no verdict over all of them.
MOST_BOARDS = 2
#: Most optimizers whose step time is named one by one.
MOST_RATIOS = 3


def suite_answer(
    results: Results,
    spec: ReportSpec,
    boards: Sequence[Leaderboard],
    overall: Sequence[Across],
    grids: Sequence[SettingComparison] = (),
) -> Answer:
    """Say in three to six sentences what a suite's records show.

    Parameters
    ----------
    results : Results
        With the times that are fair to compare.
    spec : ReportSpec
    boards : sequence of Leaderboard
    overall : sequence of Across
    grids : sequence of SettingComparison
        The settings of workloads' grids, compared with each other.

    Returns
    -------
    Answer
        Empty without a record.
    """
    if not boards:
        return Answer()
    quantity = quantity_of(boards[0].measure, alpha=spec.analysis.alpha, correction=spec.analysis.correction)
    verdicts, tested = _verdicts(boards, overall, quantity, spec.analysis)
    sentences = [
        *verdicts,
        _factors(grids) if len(verdicts) == 1 else None,
        tested,
        _sample(results, boards),
        _cost(results, boards),
        _missing(results, boards),
    ]
    return Answer(sentences=tuple(found for found in sentences if found is not None))


def _verdicts(
    boards: Sequence[Leaderboard], overall: Sequence[Across], quantity: Quantity, analysis: Analysis
) -> tuple[list[Sentence], Sentence | None]:
    """Write the verdicts over all workloads, where there are some, else those of the first workloads."""
    how = "exact signed-rank test of the pairs (the typical run)"
    if overall:
        found = overall[0]
        where = f"{_these(found)} ({found.evidence('these')})"
        scope = Scope(where=where, findings=_stratified(found))
        if any(row.these is not None and row.these.n_datasets > 1 for row in found.rows):
            sentences = [
                Sentence(kind="verdict", text=verdict_sentence(scope, quantity, margin=analysis.margin))
            ]
            sentences.append(Sentence(kind="verdict", text=_beyond(found, boards, scope)))
            how = "test of the average difference, by sign flips within workloads"
            return sentences, test_sentence([scope], how=how, correction=found.correction, alpha=found.alpha)
    scopes = [replace(_of_board(b), where=f"{b.title} ({b.evidence})") for b in boards]
    sentences = [
        Sentence(kind="verdict", text=_lost(board)) for board in boards if board.baseline in board.crashed
    ]
    scopes = [
        scope
        for scope, board in zip(scopes, boards, strict=True)
        if scope.findings and board.baseline not in board.crashed
    ]
    for scope in scopes:
        sentences.append(
            Sentence(kind="verdict", text=verdict_sentence(scope, quantity, margin=analysis.margin))
        )
    rest = len(sentences) - MOST_BOARDS
    if rest > 0:
        last = sentences[MOST_BOARDS - 1]
        more = f" {rest} more leaderboards follow." if rest > 1 else " One more leaderboard follows."
        sentences = [*sentences[: MOST_BOARDS - 1], Sentence(kind="verdict", text=last.text + more)]
    if not sentences:
        sentences = [Sentence(kind="verdict", text=_nothing(boards), caution=True)]
    if any(_approximate(board) for board in boards):
        how = "signed-rank test of the pairs, by a saddlepoint approximation where there are many"
    return sentences, test_sentence(scopes, how=how, correction=analysis.correction, alpha=analysis.alpha)


def _factors(grids: Sequence[SettingComparison]) -> Sentence | None:
    """Write the verdicts on the settings of grids."""
    settings = []
    several = len({item.optimizer for item in grids}) > 1
    for item in grids:
        where = f"{item.workload} ({item.optimizer})" if several else item.workload
        words: dict[str, list[str]] = {}
        for c in item.family.comparisons:
            words.setdefault(c.verdict.word, []).append(c.candidate)
        pairs = ", ".join(f"{listed(names)} {word}" for word, names in words.items())
        settings.append(f"{where}: {pairs} against {item.family.comparisons[0].baseline}")
    rest = [f"{len(settings) - MOST_NAMED} more in the table"] if len(settings) > MOST_NAMED else []
    text = f"Settings of grids (exploratory): {'; '.join([*settings[:MOST_NAMED], *rest])}."
    return Sentence(kind="verdict", text=text) if settings else None


def _these(across: Across) -> str:
    setting = across.title.partition(" workloads")[2]
    count = len(across.workloads)
    used = max((row.these.n_datasets for row in across.rows if row.these is not None), default=count)
    return f"these {used} workloads{setting}" if used == count else f"{used} of {count} workloads{setting}"


def _stratified(across: Across) -> tuple[Finding, ...]:
    compared = [row.these for row in across.rows if row.these is not None and row.these.n_pairs]
    return tuple(_of_stratified(c, compared, across.correction) for c in compared)


def _of_stratified(
    c: StratifiedComparison, family: Sequence[StratifiedComparison], correction: str
) -> Finding:
    # The first step of every step-down method multiplies the smallest p by the size of the family.
    factor = 1 if correction in ("none", "bh") else len(family)
    return Finding(
        candidate=c.candidate,
        baseline=c.baseline,
        word=c.verdict.word,
        estimate=c.estimate,
        low=c.low,
        high=c.high,
        p=c.p_adjusted,
        smallest_p=_least(factor * c.smallest_attainable_p, c.p_adjusted),
        n=c.n_pairs,
        reason=c.verdict.reason,
        claim=c.verdict.claim,
        left_open=c.verdict.left_open,
    )


def _least(first: float, p: float) -> float:
    """What could be reached at the correction's first step, or what a later step did reach."""
    return min(1.0, first) if math.isnan(p) else min(1.0, first, p)


def _of_pair(c: PairedComparison) -> Finding:
    difference = shown_difference(c)
    return Finding(
        candidate=c.candidate,
        baseline=c.baseline,
        word=c.verdict.word,
        estimate=difference.estimate,
        low=difference.low,
        high=difference.high,
        p=c.p_adjusted,
        smallest_p=c.smallest_adjusted_p,
        n=c.n,
        reason=c.verdict.reason,
        claim=c.verdict.claim,
        left_open=c.verdict.left_open,
    )


def _of_board(board: Leaderboard) -> Scope:
    findings = tuple(_of_pair(c) for c in board.family.comparisons)
    return Scope(where=board.title, findings=findings)


def _beyond(across: Across, boards: Sequence[Leaderboard], scope: Scope) -> str:
    """Verdicts of single workloads, and on new ones."""
    scopes = [_of_board(board) for board in boards if board.title in across.workloads]
    names = [finding.candidate for finding in in_reading_order(scope.findings)[:MOST_NAMED]]
    single = f"Workload by workload ({across.evidence('each')}): {by_workload(scopes, names)}"
    count = len(across.workloads)
    if count < FEWEST_DATASETS:
        return f"{single}; {count} workloads say nothing of new ones ({FEWEST_DATASETS} are the least)."
    new = [(row.optimizer, row.new.verdict.word) for row in across.rows if row.new is not None]
    words = dict.fromkeys(word for _, word in new)
    beyond = "; ".join(f"{listed([n for n, w in new if w == word])} {word}" for word in words)
    return f"{single}. On new workloads of this kind ({across.evidence('new')}): {beyond}."


def _lost(board: Leaderboard) -> str:
    return f"{board.title}: the baseline {board.baseline} crashed in every trial: nothing to compare with."


def _nothing(boards: Sequence[Leaderboard]) -> str:
    names = listed(list(dict.fromkeys(board.baseline for board in boards)))
    return f"Only {names} has trials on a workload, so nothing is compared and no verdict is possible."


def _approximate(board: Leaderboard) -> bool:
    return any(c.signed_rank and c.signed_rank.method != "exact" for c in board.family.comparisons)


def _sample(results: Results, boards: Sequence[Leaderboard]) -> Sentence:
    """Say what the verdicts rest on: seeds, workloads, test examples."""
    trials = results.trials
    seeds = [int(n) for n in trials.groupby("workload", sort=False)["seed"].nunique()]
    noun = "seed" if max(seeds) == 1 else "seeds"
    workloads = list(dict.fromkeys(board.workload for board in boards))
    several = len(workloads) > 1
    text = f"It rests on {count_range(seeds)} {noun} of " + (
        f"each of {len(workloads)} workloads" if several else workloads[0]
    )
    imported = "split" in trials and (trials["split"] == DECLARED).any()
    made = any(meta.get("smoke") for meta in results.meta)
    if imported or made or boards[0].metric.startswith("val"):
        return Sentence(kind="sample", text=f"{text}.")
    known = (registry.ENTRIES[name].info for name in trials["dataset"].unique() if name in registry.ENTRIES)
    sizes = [info.test for info in known if info.test]
    counted = f"{'their' if several else 'its'} test examples"
    if sizes:
        counted += f" ({count_range(sizes)}{' each' if several else ''})"
    return Sentence(kind="sample", text=f"{text}, and on {counted}: what others would say is not in it.")


def _cost(results: Results, boards: Sequence[Leaderboard]) -> Sentence:
    """Say what an optimizer's step costs beside the baseline's, and what all trials and tuning took."""
    ratios = _step_ratios(boards)
    if not ratios:
        text = "Times are not compared, as no trials ran alone on one machine"
    else:
        few = len(ratios) <= MOST_RATIOS
        ends = [choose(ratios, key=ratios.__getitem__) for choose in (min, max)]
        told = [f"{name} {ratios[name]:.2f}" for name in (ratios if few else ends)]
        listing = (", " if few else " to ").join(told)
        text = f"Time of a step, {boards[0].baseline}'s as 1: {listing}"
    spent, tuned = _seconds(results.trials), _seconds(results.tuning)
    parts = [f"all trials took {duration(spent)}"] if spent else []
    if tuned:
        parts.append(f"tuning before them {duration(tuned)}, with one budget for every optimizer")
    ways = step_ways(results, results.trials, boards[0].baseline) if ratios else ""
    return Sentence(kind="cost", text=f"{'; '.join([text, *parts])}. {ways}".rstrip())


def _seconds(trials: object) -> float:
    if "total_seconds" not in getattr(trials, "columns", ()):
        return 0.0
    return float(trials["total_seconds"].sum())  # type: ignore[index]


def _step_ratios(boards: Sequence[Leaderboard]) -> dict[str, float]:
    """Each optimizer's step time over the baseline's, the geometric mean over workloads."""
    logs: dict[str, list[float]] = {}
    for board in boards:
        times = {row.optimizer: row.step_ms for row in board.rows}
        base = times.get(board.baseline, math.nan)
        for name, time in times.items():
            if name != board.baseline and time > 0 and base > 0:
                logs.setdefault(name, []).append(math.log(time / base))
    return {name: math.exp(sum(found) / len(found)) for name, found in logs.items()}


def _missing(results: Results, boards: Sequence[Leaderboard]) -> Sentence:
    """Say how the planned trials ended, and that there are others that were not read."""
    found = _ended(results, boards)
    if not (others := results.left_out):
        return found
    words = listed(others) if len(others) <= MOST_NAMED else f"{len(others):,} workloads of the suite"
    text = f"{found.text} Not read, as only others were asked for: {words}."
    return Sentence(kind=found.kind, text=text, caution=True)


def _ended(results: Results, boards: Sequence[Leaderboard]) -> Sentence:
    trials = results.trials
    planned = max(results.planned, len(trials))
    counts = {word: trials.loc[trials["status"] == word, "optimizer"] for word in ("diverged", "crashed")}
    unfit = sum(refusal.unfit for refusal in results.refusals)
    absent = planned - len(trials) - unfit
    if not absent and not unfit and not any(len(found) for found in counts.values()):
        return Sentence(kind="missing", text=f"All {planned:,} planned trials completed.")
    completed = int((trials["status"] == "completed").sum())
    parts = [f"{completed:,} completed"]
    for word, found in counts.items():
        if len(found):
            parts.append(f"{len(found):,} {word} ({listed(sorted(map(str, found.unique())))})")
    if absent:
        parts.append(f"{absent:,} have not been run")
    if unfit:
        parts.append(f"{unfit:,} have a record that is not as it was written and are left out")
    text = f"Of {planned:,} planned trials {', '.join(parts)}"
    if len(counts["diverged"]):
        text += "; a diverged one counts as the worst of its block"
    if len(counts["crashed"]) or absent or unfit:
        text += "; what is missing may bias what is left"
    changes = _sensitive(boards) if len(counts["crashed"]) else []
    if changes:
        text += f", and could turn the verdict on {listed(changes)}"
    return Sentence(kind="missing", text=f"{text}.", caution=bool(absent or unfit or len(counts["crashed"])))


def _sensitive(boards: Sequence[Leaderboard]) -> list[str]:
    """Candidates whose verdict hangs on what the missing runs would have been."""
    found = (
        c.candidate
        for board in boards
        for c in board.family.comparisons
        if c.sensitivity is not None
        and c.verdict.word != "crashed"
        and c.sensitivity.worst != c.sensitivity.best
    )
    return list(dict.fromkeys(found))


def table_answer(result: Comparison) -> Answer:
    """Say in three to six sentences what a table of results shows.

    Parameters
    ----------
    result : Comparison

    Returns
    -------
    Answer
        Of the datasets together where there are several, else of the one.
    """
    settings, table = result.settings, result.input
    quantity = Quantity(
        name=table.metric,
        unit="",
        level=1 - settings.alpha,
        write=lambda value: f"{value:+.3g}",
        together=settings.correction not in ("none", "bh"),
    )
    within = [Scope(where=f.scope, findings=tuple(map(_of_pair, f.comparisons))) for f in result.within]
    scopes, how = within, "signed-rank test of the pairs (the typical run)"
    sentences: list[Sentence | None] = []
    new = result.new_datasets
    if result.these_datasets:
        where = f"these {len(table.datasets)} datasets"
        told = [_of_stratified(c, result.these_datasets, settings.correction) for c in result.these_datasets]
        scopes = [Scope(where=where, findings=tuple(told))]
        how = "test of the average difference, by sign flips within datasets"
    elif new is not None:
        where = f"{len(table.datasets)} datasets, as a sample of datasets like them"
        scopes = [Scope(where=where, findings=tuple(map(_of_pair, new.comparisons)))]
    sentences += [
        Sentence(kind="verdict", text=verdict_sentence(scope, quantity, margin=settings.margin))
        for scope in scopes[:MOST_BOARDS]
        if scope.findings
    ]
    if result.these_datasets and new is not None:
        words = _by_word((c.candidate, c.baseline, c.verdict.word) for c in new.comparisons)
        few = len(table.datasets) < FEWEST_DATASETS
        none = f"{len(table.datasets)} datasets say nothing of new ones ({FEWEST_DATASETS} are the least)"
        text = none if few else f"On new datasets like these: {words}"
        sentences.append(Sentence(kind="verdict", text=f"{text}."))
    sentences.append(test_sentence(scopes, how=how, correction=settings.correction, alpha=settings.alpha))
    sentences.append(Sentence(kind="sample", text=_table_sample(result)))
    lost = [f"{table.diverged} diverged"] if table.diverged else []
    lost += [f"{table.missing} are missing"] if table.missing else []
    if lost:
        text = f"Of {table.rows} trials {' and '.join(lost)}: their pairs count as the worst, or not at all."
        sentences.append(Sentence(kind="missing", text=text, caution=True))
    return Answer(sentences=tuple(found for found in sentences if found is not None))


def _by_word(verdicts: Iterable[tuple[str, str, str]]) -> str:
    ordered = sorted(verdicts, key=lambda item: item[2])
    parts = []
    for word, items in groupby(ordered, key=lambda item: item[2]):
        pairs = list(items)
        named = listed([f"{a} against {b}" for a, b, _ in pairs[:3]])
        parts.append(f"{word} for {named if len(pairs) <= 3 else f'{len(pairs)} comparisons'}")
    return "; ".join(parts)


def _table_sample(result: Comparison) -> str:
    table = result.input
    blocks = [f.n_blocks for f in result.within]
    seeds = f"{count_range(blocks)} seeds of " if blocks else "one value for each of "
    datasets = f"{len(table.datasets)} datasets" if len(table.datasets) > 1 else table.datasets[0]
    return f"It rests on {seeds}{datasets} and {short(table.rows, 6)} results; costs are not in the table."
