"""Verdicts over new test examples: seeds x examples, from the stored predictions.

All other verdicts are about the test examples at hand. Where each trial's predictions are stored, every block
has scored the same examples, so that seeds and examples are two crossed samples, and the mean difference is
tested for new levels of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optbench.datasets import registry
from optbench.datasets.base import DataError, Dataset, cut
from optbench.records.frames import Results
from optbench.records.pairing import counted_block
from optbench.records.store import Store
from optbench.report.effect import interval_name
from optbench.report.leaderboard import Leaderboard, of_board
from optbench.report.text import DASH, EXPLORATORY, TextTable, estimate, p_value
from optbench.stats.common import FloatArray
from optbench.stats.crossed import CrossedMean, two_way_examples
from optbench.stats.pairs import Settings, adjust_family, one_side, simultaneous_confidence
from optbench.stats.verdict import MEAN, Verdict, verdict
from optbench.suite.validation import parse
from optbench.trial import TrialSpec

#: The metric that predictions can say of single examples.
METRIC = "test_accuracy"
#: Predictions of more examples in all than this are not read: the report would take long.
MOST_PREDICTIONS = 200_000_000


@dataclass(frozen=True, kw_only=True)
class OverExamples:
    """One optimizer against the baseline over new seeds and new test examples.

    ``mean.shares`` are the parts of the variance of the mean that come from seeds, from examples, and from
    which examples a seed happens to get right.
    """

    candidate: str
    baseline: str
    mean: CrossedMean
    p_adjusted: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class NewExamples:
    """The comparisons of one leaderboard over new test examples, or why there are none.

    ``left_out`` names the candidates that share predictions with the baseline in fewer than two blocks.
    """

    board: Leaderboard
    examples: int
    rows: tuple[OverExamples, ...] = ()
    reason: str | None = None
    left_out: tuple[str, ...] = ()


def new_examples(boards: Sequence[Leaderboard], results: Results) -> list[NewExamples]:
    """Compare over new test examples wherever predictions are stored.

    Parameters
    ----------
    boards : sequence of Leaderboard
    results : Results

    Returns
    -------
    list of NewExamples
        Of the leaderboards that test the accuracy and whose stores hold predictions. Data are read where they
        are on this machine, and never downloaded; custom code is not run for them.
    """
    return [
        _of_board(board, results, board.examples)
        for board in boards
        if board.metric == METRIC and board.examples is not None and len(board.table.columns) > 1
    ]


def _of_board(board: Leaderboard, results: Results, examples: int) -> NewExamples:
    trials = of_board(results.trials, board)
    trials = trials[trials["status"] == "completed"]
    reason = _refusal(board, trials, examples)
    if reason is None:
        read = _right(trials, results, examples)
        if isinstance(read, str):
            reason = read
        else:
            rows, left_out = _compared(board, trials, read)
            return NewExamples(board=board, examples=examples, rows=rows, left_out=left_out)
    return NewExamples(board=board, examples=examples, reason=reason)


def _refusal(board: Leaderboard, trials: pd.DataFrame, examples: int) -> str | None:
    if board.crossing is not None:
        return f"{board.crossing.sentence} seeds are crossed: with the examples that is one factor too many"
    if len(trials) * examples > MOST_PREDICTIONS:
        return f"{len(trials)} trials x {examples} predictions are too many to read for a report"
    return None


def _right(trials: pd.DataFrame, results: Results, examples: int) -> dict[str, NDArray[np.bool_]] | str:
    """Which test examples each trial got right, by its id; a sentence where that is not known."""
    right: dict[str, NDArray[np.bool_]] = {}
    truths: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for number, part in trials.groupby("store", sort=False):
        with Store(results.stores[int(number)]) as store:
            for trial in store.trials(list(part["trial_id"])):
                spec = parse(TrialSpec, dict(trial.spec))
                seed = spec.seeds.split
                if seed not in truths:
                    dataset = _dataset(spec, results.data_dir)
                    if isinstance(dataset, str):
                        return dataset
                    test = cut(dataset, spec.workload.split, spec.seeds, train_eval=1).test
                    truths[seed] = test.targets, test.rows
                truth, rows = truths[seed]
                if not np.array_equal(rows, next(iter(truths.values()))[1]):
                    return (
                        "each seed has test examples of its own, so that its verdicts are over new ones "
                        "already"
                    )
                predicted = store.predictions(trial.trial_id).get("last")
                if predicted is None:
                    continue
                if len(predicted) != len(truth) or len(truth) != examples:
                    return "the data on this machine are not those that were predicted"
                found = predicted == truth
                if abs(float(found.mean()) - trial.metrics.get(METRIC, -1.0)) > 1e-6:
                    return "the data on this machine are not those that were predicted"
                right[trial.trial_id] = found
    return right


def _dataset(spec: TrialSpec, data_dir: Path | None) -> Dataset | str:
    name = spec.workload.dataset
    if not isinstance(name, str) or name not in registry.ENTRIES:
        return "custom data are not read for a report"
    if not (spec.workload.smoke or registry.is_present(name, data_dir=data_dir)):
        return f"dataset {name} is not on this machine (`optbench data fetch {name}`)"
    try:
        return registry.of_workload(spec.workload, data_dir=data_dir)
    except DataError as error:
        return str(error)


def _compared(
    board: Leaderboard, trials: pd.DataFrame, right: dict[str, NDArray[np.bool_]]
) -> tuple[tuple[OverExamples, ...], tuple[str, ...]]:
    keyed = trials.assign(block=counted_block(trials))
    ids = keyed[keyed["trial_id"].isin(right)].pivot(index="block", columns="optimizer", values="trial_id")
    names = list(board.table.columns)
    settings = Settings(board.baseline, "baseline", board.alpha, board.correction)
    pairs = [(names[c], names[b]) for c, b in settings.pairs(names)]
    level = simultaneous_confidence(len(pairs), settings)
    found = []
    for candidate, baseline in pairs:
        scores = _scores(ids, right, candidate, baseline, board)
        mean = None if scores is None else two_way_examples(*scores, confidence=level)
        found.append((candidate, baseline, mean))
    adjusted = adjust_family([mean.pvalue if mean else np.nan for _, _, mean in found], settings)
    rows = tuple(
        OverExamples(
            candidate=c,
            baseline=b,
            mean=mean,
            p_adjusted=float(p),
            verdict=_verdict(mean, float(p), c, b, board),
        )
        for (c, b, mean), p in zip(found, adjusted, strict=True)
        if mean is not None
    )
    return rows, tuple(c for c, _, mean in found if mean is None)


def _scores(
    ids: pd.DataFrame, right: dict[str, NDArray[np.bool_]], candidate: str, baseline: str, board: Leaderboard
) -> tuple[FloatArray, FloatArray] | None:
    """Right or wrong by seed and example; None where a run diverged, or fewer than 2 blocks hold both."""
    if not {candidate, baseline} <= set(ids.columns):
        return None
    if np.isinf(board.table[[candidate, baseline]].to_numpy(dtype=float)).any():
        return None
    both = ids[[candidate, baseline]].dropna()
    if len(both) < 2:
        return None
    a, b = (np.array([right[key] for key in both[name]], dtype=np.float64) for name in (candidate, baseline))
    return a, b


def _verdict(mean: CrossedMean, p: float, candidate: str, baseline: str, board: Leaderboard) -> Verdict:
    if mean.reason is not None:
        return Verdict("inconclusive", f"{candidate} against {baseline}: {mean.reason}.")
    return verdict(
        pvalue=p,
        direction=mean.estimate,
        alpha=board.alpha,
        candidate=candidate,
        baseline=baseline,
        claim=MEAN,
    )


def new_examples_table(comparisons: Sequence[NewExamples]) -> TextTable | None:
    """Lay out the verdicts over new test examples; None where no store has predictions."""
    if not comparisons:
        return None
    rows, values = [], []
    for item in comparisons:
        for row in item.rows:
            board, mean = item.board, row.mean
            low, high = one_side(mean.low, mean.high, mean.estimate, found=row.p_adjusted <= board.alpha)
            shares = [f"{share:.0%}" if share == share else DASH for share in mean.shares]
            text = (
                board.title,
                row.candidate,
                f"{item.examples:,}",
                str(mean.levels[0]),
                estimate(
                    mean.estimate, low, high, metric=board.measure, cut=(low, high) != (mean.low, mean.high)
                ),
                p_value(row.p_adjusted),
                row.verdict.word,
                *shares,
            )
            rows.append(text)
            values.append(
                (*text[:2], item.examples, mean.levels[0], mean.estimate, row.p_adjusted, None, *mean.shares)
            )
    board = comparisons[0].board
    size = max((len(item.rows) for item in comparisons), default=0)
    intervals = interval_name(size, alpha=board.alpha, correction=board.correction)
    notes = [
        "On new test examples, drawn like these, and new seeds: the mean difference in accuracy is tested "
        "against the variance that seeds and examples bring (two-way, Cochran-Cox). Examples are taken to "
        "be independent: copies, or frames of one film, are not. The last columns are the shares of the "
        "variance of the mean; both: which examples a seed happens to get right.",
        *(
            f"{item.board.title}: not made, as {item.reason}."
            for item in comparisons
            if item.reason is not None
        ),
        *(
            f"{item.board.title}: not made for {', '.join(item.left_out)}: fewer than two blocks hold "
            "predictions of both sides, or a run diverged."
            for item in comparisons
            if item.left_out
        ),
    ]
    return TextTable(
        title="On new test examples",
        evidence=EXPLORATORY,
        columns=(
            "workload",
            "optimizer",
            "test examples",
            "seeds",
            f"minus {board.baseline} [{intervals}]",
            "p",
            "verdict",
            "seeds' share",
            "examples' share",
            "both",
        ),
        rows=tuple(rows),
        notes=tuple(notes),
        values=tuple(values),
    )
