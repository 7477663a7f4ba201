"""A methods paragraph, ready for a paper, from what was really done."""

from __future__ import annotations

from collections.abc import Sequence

import optbench
from optbench.records.frames import Results
from optbench.records.machines import machine_names
from optbench.records.pairing import DECLARED
from optbench.report.answer import count_range
from optbench.report.declared import Declared
from optbench.report.leaderboard import Leaderboard
from optbench.report.questions import PART, QUESTION_TEXTS
from optbench.report.reasons import reach
from optbench.report.text import listed
from optbench.suite.report_spec import Analysis, ReportSpec
from optbench.task import Metric

_CORRECTIONS = {
    "holm": "Holm's step-down procedure",
    "bonferroni": "Bonferroni's method",
    "bh": "Benjamini and Hochberg's procedure (false discovery rate)",
}


def methods_paragraph(
    results: Results, spec: ReportSpec, boards: Sequence[Leaderboard], declared: Declared
) -> str:
    """Write what was trained, how it was matched, and how it was tested.

    Parameters
    ----------
    results : Results
        The counts, software and machines come from the records, not from the plan.
    spec : ReportSpec
    boards : sequence of Leaderboard
    declared : Declared
        When all that was decided.

    Returns
    -------
    str
        Plain text, several sentences.
    """
    trials = results.trials
    if trials.empty or not boards:
        return "No trial has been run yet, so there is nothing to describe."
    sentences = [
        _trained(results, boards),
        _tuned(results),
        _matched(results),
        _measured(results.metrics[spec.analysis.primary]),
    ]
    compared = [c for board in boards for c in board.family.comparisons]
    if compared:
        sentences += [_tested(spec, boards, declared), _reach(boards), *declared.sentences]
    sentences.append(_machines(results))
    return " ".join(sentence for sentence in sentences if sentence)


def _trained(results: Results, boards: Sequence[Leaderboard]) -> str:
    trials = results.trials
    optimizers = list(dict.fromkeys(name for board in boards for name in board.table.columns))
    workloads = list(dict.fromkeys(board.workload for board in boards))
    counts = trials["status"].value_counts()
    ended = [f"{counts[word]} {word}" for word in ("completed", "diverged", "crashed") if word in counts]
    lines = []
    for entry in workloads:
        epochs = trials.loc[trials["workload"] == entry, "epochs"].max() if "epochs" in trials else None
        lines.append(f"{entry} (up to {epochs:g} epochs)" if epochs and epochs == epochs else entry)
    blocks = trials["block_id"].nunique()
    return (
        f"We compared {listed(optimizers)} on {listed(lines)}. {len(trials)} of {results.planned} planned "
        f"trials were run in {blocks} blocks: {', '.join(ended)}."
    )


def _tuned(results: Results) -> str:
    if not results.journals:
        return ""
    journal = results.journals[0]
    searches = [study for study in journal.studies if study.stage == "optimizer"]
    names = sorted({axis.name for study in searches for axis in study.searches[0]})
    monitor = results.metrics[journal.monitor].title
    budget = " and ".join(f"{value:g} {name}" for name, value in journal.budget.items())
    return (
        f"On every workload each optimizer's {listed(names)} was tuned beforehand with the same budget of "
        f"{budget} ({journal.sampler} search through Optuna, {len(journal.seeds)} seeds that the evaluation "
        f"does not use); the setting with the best mean {monitor} was evaluated."
    )


def _matched(results: Results) -> str:
    if (results.trials["split"] == DECLARED).any():
        return (
            "Trials were trained and recorded elsewhere, and imported; those of one dataset, model and seed "
            "were paired because they were declared to match, which no fingerprint proves."
        )
    text = (
        "Within a block, split, initial weights, batch order and the streams of dropout and augmentation are "
        "the same and only the optimizer differs; trials were paired only where fingerprints of the arrays "
        "in use agreed"
    )
    refused = len(results.refusals)
    return f"{text} ({refused} refused)." if refused else f"{text}."


def _measured(metric: Metric) -> str:
    return (
        f"The primary metric is {metric.title} ({metric.direction} is better). A trial that diverged "
        "counts as the worst of its block, a trial that crashed as missing."
    )


def _tested(spec: ReportSpec, boards: Sequence[Leaderboard], declared: Declared) -> str:
    analysis = spec.analysis
    baselines = list(dict.fromkeys(board.baseline for board in boards))
    most = max(len(board.family.comparisons) for board in boards)
    correction = (
        "without a correction for multiplicity"
        if analysis.correction == "none"
        else f"corrected by {_CORRECTIONS[analysis.correction]} over a workload's comparisons (up to {most})"
    )
    compared = [c for board in boards for c in board.family.comparisons]
    crossed = any(c.crossed is not None for c in compared)
    together = most > 1 and analysis.correction not in ("none", "bh")
    level = f"{1 - analysis.alpha:.0%}" + (" for a workload's comparisons together" if together else "")
    text = (
        f"Each optimizer was compared with {listed(baselines)} by the two-sided Wilcoxon signed-rank test "
        f"with Pratt's treatment of zeros, {_exactness(boards)}, at level {analysis.alpha:g}, {correction}. "
        "It is about the typical run; better and worse were said only where the mean difference showed the "
        "same, tested by sign flips and, against a longer tail, by Hall's skewness-corrected t. Intervals "
        f"of mean differences invert these tests, at {level}."
    )
    if len({board.workload for board in boards}) > 1:
        text += (
            " On these workloads together, the average of their mean differences, each workload weighing "
            "the same, was tested by sign flips within workloads, with Hall's t against a longer tail; "
            "where a trial diverged, by signed ranks within workloads, summed. Better and worse were said "
            "only where signed ranks of all pairs together showed the same."
        )
    if crossed:
        text += (
            " Where the seeds of several streams are crossed, the mean was tested against the variance of "
            "each of them instead, since trials that share a seed are not independent."
        )
    if analysis.margin is not None and any(c.equivalence is not None for c in compared):
        text += (
            f" Equivalence within a margin of {_margin(analysis, boards)}"
            f"{', declared before the first trial,' if declared.before else ''} is about the typical run: "
            "two one-sided sign tests of the median difference, refused where a run collapsed or one pair "
            "carries the mean; nothing is said of a mean that collapses not seen here would carry."
        )
    if spec.families > 1 and analysis.correction not in ("none", "bh"):
        text += f" Corrected p-values were multiplied by the {spec.families} workloads."
    if declared.part:
        return f"{text} {PART}"
    word = "confirmatory" if declared.before else "main"
    return f"{text} The {word} question: {QUESTION_TEXTS[spec.question]} All other verdicts are exploratory."


def _margin(analysis: Analysis, boards: Sequence[Leaderboard]) -> str:
    measure = boards[0].measure
    points = " percentage points" if measure.unit == "share" else ""
    return f"{(analysis.margin or 0.0) * measure.factor:g}{points}"


def _exactness(boards: Sequence[Leaderboard]) -> str:
    tests = [c.signed_rank for board in boards for c in board.family.comparisons if c.signed_rank]
    exact = sum(test.method == "exact" for test in tests)
    if exact == len(tests):
        return "exact under ties"
    return f"exact in {exact} of {len(tests)} comparisons and by a saddlepoint approximation elsewhere"


def _reach(boards: Sequence[Leaderboard]) -> str:
    named = [
        (f"{c.candidate} on {board.title}" if len(boards) > 1 else c.candidate, c)
        for board in boards
        for c in board.family.comparisons
    ]
    used = [c.n for _, c in named]
    if not any(used):
        return "No block held two optimizers, so no test could be made."
    smallest = reach(named)
    text = f"The comparisons used {count_range(used)} pairs"
    return (
        f"{text}; the smallest adjusted p-value that they could reach is {smallest}."
        if smallest
        else f"{text}."
    )


def _machines(results: Results) -> str:
    if (results.trials["split"] == DECLARED).all():
        return f"The analysis is optbench {optbench.__version__}'s."
    where = "; ".join(machine_names(results.environments))
    run = f" on {where}" if where else ""
    return f"Trials were run with optbench {optbench.__version__}{run}."
