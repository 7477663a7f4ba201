"""The report's tables beside the leaderboards: across workloads, every pair, times to target, settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from optbench.records.frames import Results
from optbench.report.across import Across, AcrossRow, SettingComparison
from optbench.report.board_notes import named_notes
from optbench.report.effect import shown_difference
from optbench.report.leaderboard import Leaderboard, of_board
from optbench.report.reasons import left_open
from optbench.report.text import (
    CORRECTIONS,
    DASH,
    EXPLORATORY,
    TextTable,
    Value,
    estimate,
    number,
    p_value,
    short,
)
from optbench.stats.families import FamilyResult, PairedComparison
from optbench.stats.pairs import CUT
from optbench.task import TASKS, Metric, Metrics

#: Columns of the table of trials, where the results have them, beside the metrics that are tested.
_TRIAL_COLUMNS = (
    "trial_id",
    "workload",
    "optimizer",
    "lr",
    "seed",
    "backend",
    "device",
    "status",
    *(f"test_{name}" for task in TASKS.values() for name in task.metrics),
    "test_loss",
    *(f"val_{name}_best" for task in TASKS.values() for name in task.headline),
    "best_epoch",
    "epochs",
    "step_seconds",
)
#: Columns of the table of every comparison.
PAIR_COLUMNS = (
    "workload",
    "family",
    "comparison",
    "n",
    "missing",
    "zeros",
    "ties",
    "mean difference [CI, together]",
    "Student's t [CI]",
    "Hodges-Lehmann [CI]",
    "d_z",
    "rank-biserial",
    "P(better)",
    "p",
    "p adjusted",
    "smallest p",
    "method",
    "verdict",
    "reason",
    "evidence",
)


def across_table(across: Across) -> TextTable:
    """Lay out the comparison over workloads."""
    cells = [_across_cells(across, row) for row in across.rows]
    within, difference = (
        f"within each, against {across.baseline} ({across.evidence('each')})",
        f"these workloads: minus {across.baseline} [CI]",
    )
    verdict_columns = (
        f"verdict, these ({across.evidence('these')})",
        f"verdict, new ({across.evidence('new')})",
    )
    core = ("optimizer", difference, "p, these", *verdict_columns)
    # The claims first, so that they are seen without scrolling.
    columns = (*core[:4], "p, new", core[4], within, "mean rank", "profile area")
    extras = {"profile area"} if all(math.isnan(row.profile) for row in across.rows) else set()
    return TextTable(
        title=across.title,
        columns=columns,
        rows=tuple(tuple(text for text, _ in row) for row in cells),
        notes=tuple(_across_notes(across, sure=any("(sure of" in row[6][0] for row in cells))),
        always=frozenset(core),
        details=frozenset({"profile area"}),
        extras=frozenset(extras),
        values=tuple(tuple(value for _, value in row) for row in cells),
        evidence=across.confirms if across.question in ("these", "new") else EXPLORATORY,
    )


def _across_cells(across: Across, row: AcrossRow) -> list[tuple[str, Value]]:
    """Cells of an optimizer, each with the value to sort by."""
    words = ("better", "worse", "equivalent", "mixed", "inconclusive", "crashed")
    these, new, count = row.these, row.new, row.conjunction
    is_baseline = row.optimizer == across.baseline
    low, high = number(row.mean_rank_low), number(row.mean_rank_high)
    interval = f" [{low}, {high}]" if math.isfinite(row.mean_rank_low) else ""
    tally = ", ".join(f"{row.verdicts.count(w)} {w}" for w in words if w in row.verdicts)
    if count and ("better" in row.verdicts or count.better_on_at_least):
        tally += f" (sure of {count.better_on_at_least})"
    difference = DASH
    if these:
        cut = these.method.endswith(CUT)
        difference = estimate(these.estimate, these.low, these.high, metric=across.measure, cut=cut)
    return [
        (row.optimizer, row.optimizer),
        (difference, these.estimate if these else None),
        (p_value(these.p_adjusted) if these else DASH, these.p_adjusted if these else None),
        ("baseline" if is_baseline else these.verdict.word if these else DASH, None),
        (p_value(new.p_adjusted) if new else DASH, new.p_adjusted if new else None),
        ("baseline" if is_baseline else new.verdict.word if new else DASH, None),
        ("baseline" if is_baseline else tally or DASH, row.verdicts.count("better")),
        (number(row.mean_rank) + interval, row.mean_rank),
        (number(row.profile), row.profile),
    ]


_PROFILE = "Profile area: of epochs to target, within 4 times the best; 1 is best everywhere."
_SURE = (
    " Sure of: on at least so many it is better, with all workloads and comparisons taken together (partial "
    "conjunction), a stricter question."
)


def _across_notes(across: Across, *, sure: bool) -> list[str]:
    claimed = left_open((row.optimizer, row.these.verdict) for row in across.rows if row.these is not None)
    return [
        *across.notes,
        "Within each: the verdicts of the single workloads, each corrected within its own table."
        + (_SURE if sure else ""),
        *(f"New workloads: {note}" for note in named_notes(across.family.comparisons)),
        f"p-values after {CORRECTIONS[across.correction]} over the comparisons of each question, [CI] at the "
        "same level for all of them together.",
        *([] if all(math.isnan(row.profile) for row in across.rows) else [_PROFILE]),
        *([f"These workloads, better and worse: {claimed}."] if claimed else []),
        *(
            f"{row.optimizer}, these workloads: {row.these.verdict.word}. {row.these.verdict.reason}"
            for row in across.rows
            if row.these is not None and row.these.verdict.word == "mixed"
        ),
        *(
            f"{row.optimizer}, these workloads: no average, as trials diverged; by signed ranks within "
            "workloads."
            for row in across.rows
            if row.these is not None and row.these.n_pairs and math.isnan(row.these.estimate)
        ),
    ]


def pairs_table(boards: Sequence[Leaderboard]) -> TextTable:
    """Lay out every comparison that was made, with what its method used."""
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value, ...]] = []
    for board in boards:
        for kind, family in (("declared", board.family), ("all pairs", board.all_pairs)):
            evidence = board.evidence if kind == "declared" else EXPLORATORY
            for c in family.comparisons if family is not None else ():
                text, value = _pair(c, board.measure)
                rows.append((board.title, kind, *text, evidence))
                values.append((board.title, kind, *value, None))
    return TextTable(
        title="Every comparison",
        columns=PAIR_COLUMNS,
        rows=tuple(rows),
        notes=(
            "declared: each against the baseline. all pairs: with a correction of "
            "its own over a workload's pairs; it answers another question, so its verdicts may differ. "
            "smallest p: the adjusted p that this n could have reached. [CI, together]: at the level that "
            "holds for a family's comparisons together, as the adjusted p does; Student's t and "
            "Hodges-Lehmann: of a comparison alone.",
        ),
        values=tuple(values),
    )


def _pair(c: PairedComparison, metric: Metric) -> tuple[list[str], list[Value]]:
    name = f"{c.candidate} vs {c.baseline}"
    if c.signed_rank is None or c.mean is None or c.rank is None:
        return [name, "0", str(c.n_missing), *[DASH] * 12, c.verdict.word, c.verdict.reason], [None] * 17
    test, hodges, shown = c.signed_rank, c.hodges_lehmann, shown_difference(c)
    d_z = c.standardized.d_z if c.standardized else math.nan
    text = [
        name,
        str(c.n),
        str(c.n_missing),
        str(test.n_zeros),
        str(test.n_ties),
        estimate(shown.estimate, shown.low, shown.high, metric=metric, cut=shown.cut),
        estimate(c.mean.estimate, c.mean.low, c.mean.high, metric=metric),
        estimate(hodges.estimate, hodges.low, hodges.high, metric=metric) if hodges else DASH,
        number(d_z),
        number(c.rank.rank_biserial),
        number(c.rank.superiority),
        p_value(test.pvalue),
        p_value(c.p_adjusted),
        short(c.smallest_adjusted_p),
        f"signed-rank, Pratt, {test.method}" if c.crossed is None else f"crossed seeds, {c.crossed.method}",
        c.verdict.word,
        c.verdict.reason,
    ]
    value: list[Value] = [name, c.n, c.n_missing, test.n_zeros, test.n_ties, shown.estimate, c.mean.estimate]
    value += [hodges.estimate if hodges else None, d_z, c.rank.rank_biserial, c.rank.superiority]
    value += [test.pvalue, c.p_adjusted, c.smallest_adjusted_p, None, None, None]
    return text, value


def times_table(boards: Sequence[Leaderboard]) -> TextTable | None:
    """Lay out epochs to target: successes, medians, and the comparison of min(T, B) with the baseline."""
    rows = []
    for board in boards:
        if board.times is None:
            continue
        compared = {c.candidate: c for c in board.times.family.comparisons}
        for s in board.times.summaries:
            c = compared.get(s.optimizer)
            rows.append(
                (
                    board.title,
                    s.optimizer,
                    f"{s.successes} of {s.n}",
                    short(s.median, 4),
                    short(s.rmst, 4),
                    short(s.par2, 4),
                    short(s.ert, 4),
                    p_value(c.p_adjusted) if c else DASH,
                    c.verdict.word if c else "baseline",
                )
            )
    if not rows:
        return None
    budgets = sorted({f"{board.times.budget:g}" for board in boards if board.times is not None})
    return TextTable(
        title="Epochs to target",
        columns=(
            "workload",
            "optimizer",
            "reached",
            "median",
            "mean of min(T, B)",
            "PAR-2",
            "ERT",
            "p",
            "verdict",
        ),
        rows=tuple(rows),
        notes=(
            f"B: the workload's epochs ({', '.join(budgets)}). A trial that does not reach the target, or "
            "diverges, counts as B in the mean and as 2 B in PAR-2; ERT is the epochs spent for a success. "
            "p: signed-rank test of min(T, B) against the baseline, corrected within a workload. The median "
            "is over all trials, those that do not reach it the last; a leaderboard's is over those that do.",
        ),
        evidence=EXPLORATORY,
    )


def settings_table(comparisons: Sequence[SettingComparison], metric: Metric) -> TextTable:
    """Lay out the comparison of backends, devices and precisions."""
    rows = []
    for item in comparisons:
        for c in item.family.comparisons:
            mean = shown_difference(c)
            difference = estimate(mean.estimate, mean.low, mean.high, metric=metric, cut=mean.cut)
            pair = f"{c.candidate} vs {c.baseline}"
            cells = (pair, str(c.n), difference, p_value(c.p_adjusted), c.verdict.word)
            rows.append((item.workload, item.optimizer, *cells))
    return TextTable(
        title="Backend, device and precision as a factor",
        columns=("workload", "optimizer", "comparison", "n", f"{metric.heading} [CI]", "p", "verdict"),
        rows=tuple(rows),
        notes=(
            "Pairs are trials of one seed with equal fingerprints of split, initial weights and batch order. "
            "Dropout masks are not matched between frameworks. Corrected over the pairs of settings of one "
            "optimizer on one workload.",
        ),
        evidence=EXPLORATORY,
    )


def top_k_table(boards: Sequence[Leaderboard], trials: pd.DataFrame) -> TextTable | None:
    """Lay out top-k accuracies, mean and standard deviation over completed trials; None without any."""
    found = {int(m[1]): name for name in trials if (m := re.fullmatch(r"test_top(\d+)_accuracy", str(name)))}
    if not found:
        return None
    return _described(
        boards,
        trials,
        {metric.heading: metric for metric in (Metrics()[found[k]] for k in sorted(found))},
        title="Top-k accuracy",
        note="Share of test examples whose true class is among the k largest outputs",
    )


def metrics_table(boards: Sequence[Leaderboard], results: Results) -> TextTable | None:
    """Lay out custom metrics on the test part; None without any."""
    own = (metric.column(metric.columns()[0]) for metric in results.metrics.custom)
    columns = {
        f"{metric.heading} ({metric.better} is better)": metric
        for metric in own
        if metric.name in results.trials
    }
    return _described(
        boards, results.trials, columns, title="Other metrics", note="Metrics that the suite declares"
    )


def _described(
    boards: Sequence[Leaderboard],
    trials: pd.DataFrame,
    columns: Mapping[str, Metric],
    *,
    title: str,
    note: str,
) -> TextTable | None:
    """Lay out columns of the trials by optimizer; ``columns`` maps headings to metrics."""
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value, ...]] = []
    for board in boards if columns else ():
        mine = of_board(trials, board)
        mine = mine[mine["status"] == "completed"]
        for row in board.rows:
            own = mine[mine["optimizer"] == row.optimizer]
            scores = [metric.factor * own[metric.name].dropna() for metric in columns.values()]
            if any(len(score) for score in scores):
                head = (board.title, row.optimizer)
                spreads = (_spread(s, m.digits) for s, m in zip(scores, columns.values(), strict=True))
                rows.append((*head, *spreads))
                values.append((*head, *(float(score.mean()) for score in scores)))
    if not rows:
        return None
    return TextTable(
        title=title,
        columns=("workload", "optimizer", *columns),
        rows=tuple(rows),
        notes=(f"{note}, mean and standard deviation over completed trials; described, not tested.",),
        values=tuple(values),
    )


def _spread(values: pd.Series, digits: int) -> str:
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return number(float(values.mean()), digits) + spread if len(values) else DASH


def trials_table(trials: pd.DataFrame, *, tested: Iterable[str] = (), limit: int) -> TextTable:
    """Lay out the first ``limit`` trials, with the metrics that are ``tested``."""
    place = _TRIAL_COLUMNS.index("status") + 1
    wanted = dict.fromkeys((*_TRIAL_COLUMNS[:place], *tested, *_TRIAL_COLUMNS[place:]))
    names = [name for name in wanted if name in trials]
    part = trials[names].head(limit)
    rows = [
        tuple(DASH if pd.isna(x) else f"{x:.6g}" if isinstance(x, float) else str(x) for x in row)
        for row in part.itertuples(index=False)
    ]
    rest = len(trials) - len(part)
    notes = (f"{rest:,} more trials are in trials.csv.",) if rest else ()
    return TextTable(title="Trials", columns=tuple(names), rows=tuple(rows), notes=notes)


def friedman_note(family: FamilyResult) -> str:
    """Say what Friedman's test found, or that it could not be made."""
    f = family.friedman
    if f is None:
        return f"{family.scope}: Friedman's test was not made (fewer than 3 optimizers or 2 complete blocks)."
    return (
        f"{family.scope}: Friedman's test over {f.n} complete blocks and {f.k} optimizers, "
        f"p {p_value(f.pvalue)} ({f.method}), Kendall's W {f.kendall_w:.2f}."
    )
