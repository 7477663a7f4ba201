"""What tuning found, what it cost, and what it was worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pandas as pd

from optbench.optimizers import FAMILIES
from optbench.records.frames import Results
from optbench.report.leaderboard import Leaderboard, of_board, oriented
from optbench.report.text import DASH, TextTable, Value, estimate, number
from optbench.stats.common import differences
from optbench.stats.effects import mean_difference
from optbench.task import Metrics
from optbench.tuning.journal import Journal, Study


def tuning_table(results: Results) -> TextTable | None:
    """Lay out each search: what was spent, the winner, its validation score; None where nothing was tuned."""
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value, ...]] = []
    notes: list[str] = []
    for journal in results.journals:
        cost = tuning_cost(results.tuning)
        for study in journal.studies:
            spent = cost.get((study.workload, study.optimizer, study.stage), math.nan)
            text, value = _row(study, journal, spent)
            rows.append(text)
            values.append(value)
        notes += _notes(journal)
        notes += inclusion_notes(journal, results.tuning)
    if not rows:
        return None
    columns = ("workload", "optimizer", "searched", "settings", "lost", "trained, s", "validation", "winner")
    return TextTable(
        title="Tuning",
        columns=columns,
        rows=tuple(rows),
        values=tuple(values),
        notes=tuple(dict.fromkeys(notes)),
    )


def untuned_table(results: Results, boards: tuple[Leaderboard, ...]) -> TextTable | None:
    """Lay out the tuned numbers beside the declared ones, paired by block; None without the latter."""
    if results.untuned.empty:
        return None
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value, ...]] = []
    for board in boards:
        measure, metric, sign = board.measure, board.metric, board.measure.sign
        tuned = oriented(of_board(results.trials, board), metric, maximise=board.maximise)
        before = oriented(of_board(results.untuned, board), metric, maximise=board.maximise)
        for name in [row.optimizer for row in board.rows]:
            if name not in before or name not in tuned:
                rows.append((board.title, name, DASH, DASH, "the declared numbers won", DASH))
                values.append((board.title, name, None, None, None, None))
                continue
            pairs = pd.DataFrame({"a": tuned[name], "b": before[name]}).dropna()
            if pairs.empty:
                continue
            gain = mean_difference(differences(pairs["a"], pairs["b"]))
            means = [sign * float(pairs[column].mean()) for column in ("a", "b")]
            shown = [number(measure.factor * mean) if math.isfinite(mean) else "diverged" for mean in means]
            change = estimate(gain.estimate, gain.low, gain.high, metric=measure) if gain.n else DASH
            rows.append((board.title, name, *shown, change, str(len(pairs))))
            values.append((board.title, name, *means, gain.estimate, len(pairs)))
    words = boards[0].measure.heading if boards else ""
    return TextTable(
        title="Tuned against the declared numbers",
        columns=("workload", "optimizer", f"tuned: {words}", "declared", "gain [95% CI]", "pairs"),
        rows=tuple(rows),
        values=tuple(values),
        notes=("Same seeds and blocks; positive is a gain. Described, not tested.",),
    )


def tuning_cost(tuning: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """Seconds of trials by workload, optimizer and stage; a resumed trial's total has its beginning."""
    if tuning.empty or "total_seconds" not in tuning:
        return {}
    keys = ["workload", "optimizer", "stage"]
    ordered = tuning.sort_values("setting_epochs")
    lineage = [*keys, "setting", "seed"]
    resumed = ordered["resumed"].astype(bool)
    before = ordered.groupby(lineage)["total_seconds"].shift(1).where(resumed, 0.0).fillna(0.0)
    own = (ordered["total_seconds"] - before).clip(lower=0.0)
    sums = own.groupby([ordered[key] for key in keys]).sum(min_count=1)
    return {(str(a), str(b), str(c)): float(seconds) for (a, b, c), seconds in sums.items()}


def scores_by_optimizer(results: Results, workload: str) -> dict[str, list[float]]:
    """Validation score of every independent setting, oriented; for the curve of the expected best.

    Draws that depend on earlier scores and settings stopped early are no sample of the space.
    """
    found: dict[str, list[float]] = {}
    for journal in results.journals:
        if journal.sampler not in ("random", "quasi-random"):
            continue
        for study in journal.studies:
            if study.workload == workload and study.stage == "optimizer":
                scores = [setting.trainings[-1].score for setting in study.settings if setting.search == 0]
                found[study.optimizer] = [-math.inf if score is None else score for score in scores]
    return {name: scores for name, scores in found.items() if len(scores) > 1}


def inclusion_notes(journal: Journal, tuning: pd.DataFrame) -> Iterator[str]:
    """Sentences where a general optimizer lost to its special case, which better tuning would rule out."""
    families: Mapping[tuple[str, str], str] = (
        tuning.drop_duplicates(["workload", "optimizer"])
        .set_index(["workload", "optimizer"])["family"]
        .to_dict()
        if len(tuning)
        else {}
    )
    studies = {(s.workload, s.optimizer): s for s in journal.studies if s.winner is not None}
    for (workload, general), study in studies.items():
        for (where, special), other in studies.items():
            family = FAMILIES.get(families.get((workload, general), ""))
            contained = family.contains(study.config or {}) if family is not None else {}
            how = contained.get(families.get((where, special), ""))
            if workload != where or how is None:
                continue
            lost_by = _score(other) - _score(study)
            if lost_by > 0:
                yield (
                    f"Inclusion: on {workload} {general} did worse in tuning than {special} "
                    f"({_shown(_score(study), journal)} against {_shown(_score(other), journal)}), which it "
                    f"contains ({how}): its search was too small or left that case out."
                )


def _row(study: Study, journal: Journal, seconds: float) -> tuple[tuple[str, ...], tuple[Value, ...]]:
    lost = sum(setting.trainings[-1].score is None for setting in study.settings if setting.trainings)
    searched = ", ".join(f"{axis.name} {_range(axis)}" for axis in study.searches[-1])
    if study.winner is None:
        score, winner = math.nan, "none: every setting diverged" if study.settings else "not yet"
    else:
        score = _score(study)
        winner = ", ".join(
            f"{name}={_value(value)}{f' ({study.edges[name]} edge)' if name in study.edges else ''}"
            for name, value in study.settings[study.winner].values.items()
        )
    label = study.optimizer if study.stage == "optimizer" else f"{study.optimizer} (network)"
    text = (
        study.workload,
        label,
        searched,
        str(len(study.settings)),
        str(lost),
        number(seconds) if math.isfinite(seconds) else DASH,
        _shown(score, journal) if math.isfinite(score) else DASH,
        winner,
    )
    return text, (*text[:3], len(study.settings), lost, seconds, score, winner)


def _notes(journal: Journal) -> list[str]:
    budget = ", ".join(f"{value:g} {name}" for name, value in journal.budget.items())
    notes = [
        f"Equal budgets: {budget} for every optimizer and workload, sampler {journal.sampler}, "
        f"{len(journal.seeds)} tuning seeds that no evaluation uses; the winner has the best mean "
        f"{Metrics()[journal.monitor].title}. Test data pick nothing."
    ]
    if not journal.done:
        notes.append("Tuning has not ended: run the suite again to go on.")
    edges = [
        f"{s.optimizer} on {s.workload} ({', '.join(f'{n}: {side}' for n, side in s.edges.items())})"
        for s in journal.studies
        if s.edges
    ]
    if edges:
        notes.append(
            f"The winner lies on the edge of its range, so a better one may lie beyond: {'; '.join(edges)}."
        )
    return notes


def _score(study: Study) -> float:
    score = study.settings[study.winner].trainings[-1].score if study.winner is not None else None
    return -math.inf if score is None else score


def _shown(score: float, journal: Journal) -> str:
    monitor = Metrics()[journal.monitor]
    return number(monitor.sign * score * monitor.factor)


def _range(axis: object) -> str:
    choices, low, high = (getattr(axis, name) for name in ("choices", "low", "high"))
    return f"{{{', '.join(map(_value, choices))}}}" if choices else f"{low:.3g} to {high:.3g}"


def _value(value: object) -> str:
    if isinstance(value, tuple | list):
        return "-".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
