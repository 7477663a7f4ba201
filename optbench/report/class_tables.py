"""Tables by class: scores, the lowest class, the commonest errors, goals; and the two best trained models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from optbench.report.leaderboard import Leaderboard, of_board
from optbench.report.text import DASH, TextTable, Value, number, p_value
from optbench.report.trained import Trained, by_class, listed
from optbench.suite.report_spec import Goals, ReportSpec
from optbench.task import Metrics

_COLUMN = re.compile(r"test_(?P<score>precision|recall|f1|top(?P<k>\d+)_recall)\[(?P<name>.*)\]", re.DOTALL)


def class_scores(trials: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Columns of a table of trials by class and score: precision, recall, F1, top-k recall."""
    matches = [match for column in by_class(trials) if (match := _COLUMN.fullmatch(str(column)))]
    found: dict[str, dict[str, str]] = {match["name"]: {} for match in matches}
    order = ("precision", "recall", "f1")
    for match in sorted(
        matches, key=lambda m: (int(m["k"] or 0), order.index(m["score"]) if not m["k"] else 0)
    ):
        found[match["name"]][match["score"]] = match[0]
    return found


def class_tables(boards: Sequence[Leaderboard], trials: pd.DataFrame) -> list[TextTable]:
    """Lay out the scores of every class for the first optimizer of each workload that records them."""
    tables = []
    for board in boards:
        for row in board.rows[:1]:
            mine = _completed(trials, board, row.optimizer)
            if scores := class_scores(mine):
                tables.append(_by_class(board, row.optimizer, mine, scores))
    return tables


def all_classes_table(boards: Sequence[Leaderboard], trials: pd.DataFrame) -> TextTable | None:
    """Every class of every optimizer, one row each, for the CSV file."""
    rows, values = [], []
    names: dict[str, None] = {}
    found = []
    for board in boards:
        for row in board.rows:
            mine = _completed(trials, board, row.optimizer)
            for name, columns in class_scores(mine).items():
                names |= dict.fromkeys(columns)
                found.append(
                    (
                        board.title,
                        row.optimizer,
                        name,
                        len(mine),
                        mine[list(columns.values())].mean(),
                        columns,
                    )
                )
    for *head, count, means, columns in found:
        shares = [means[columns[score]] if score in columns else None for score in names]
        rows.append((*head, str(count), *(DASH if x is None else number(100 * x) for x in shares)))
        values.append((*head, float(count), *shares))
    if not rows:
        return None
    return TextTable(
        title="Scores by class",
        columns=("workload", "optimizer", "class", "trials", *(_heading(score) for score in names)),
        rows=tuple(rows),
        values=tuple(values),
    )


def errors_table(
    boards: Sequence[Leaderboard], trials: pd.DataFrame, spec: ReportSpec, trained: Trained
) -> TextTable | None:
    """Lay out lowest class, commonest errors and goals of every optimizer; None without classes."""
    goals = {entry.label: entry.goals for entry in spec.workloads}
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value, ...]] = []
    notes = list(trained.notes)
    wanted = [goals[board.workload] for board in boards]
    with_goals = any(goal.accuracy is not None or goal.recall is not None for goal in wanted)
    for board in boards:
        for row in board.rows:
            mine = _completed(trials, board, row.optimizer)
            recalls = {
                name: columns["recall"] for name, columns in class_scores(mine).items() if "recall" in columns
            }
            if not recalls:
                continue
            means = mine[list(recalls.values())].mean()
            lowest = [name for name, column in recalls.items() if means[column] == means.min()]
            errors = trained.confusions.get((board.workload, row.optimizer))
            text = [
                board.title,
                row.optimizer,
                str(len(mine)),
                " and ".join(lowest[:3]) + (f" and {len(lowest) - 3} more" if len(lowest) > 3 else ""),
                number(100 * float(means.min())),
                listed(errors.commonest()) if errors is not None else DASH,
            ]
            if with_goals:
                text += _goals(goals[board.workload], mine, recalls)
            rows.append(tuple(text))
            values.append((*text[:2], float(len(mine)), None, float(means.min()), *[None] * (len(text) - 5)))
    if not rows:
        return None
    notes.insert(
        0,
        "Lowest class: by mean recall over completed trials. Commonest errors: true class as predicted "
        "class, counted over the final models of all these trials, those that tie included.",
    )
    if with_goals:
        notes.append("Goals: trials that reach the workload's goal, of all completed ones.")
    return TextTable(
        title="Lowest class, commonest errors" + (", goals" if with_goals else ""),
        columns=(
            "workload",
            "optimizer",
            "trials",
            "lowest class",
            "its recall, %",
            "commonest errors",
            *(("accuracy goal", "every class") if with_goals else ()),
        ),
        rows=tuple(rows),
        notes=tuple(notes),
        values=tuple(values),
    )


def models_table(trained: Trained) -> TextTable | None:
    """Lay out McNemar's test of the two best trained models of each dataset; None without any."""
    if not trained.tests:
        return None
    accuracy = Metrics()["test_accuracy"]
    rows = []
    for found in trained.tests:
        models = [
            f"{model.name} ({accuracy.factor * model.accuracy:.{accuracy.digits}f} %)"
            for model in (found.best, found.second)
        ]
        test = found.test
        counts = (str(found.n), f"{test.b}:{test.c}")
        rows.append((found.dataset, *models, *counts, p_value(test.p_midp), p_value(test.p_exact)))
    chosen = " and ".join(sorted({Metrics()[found.chosen_by].title for found in trained.tests}))
    on_test = any(found.chosen_by.startswith("test") for found in trained.tests)
    return TextTable(
        title="Best against second best trained model",
        columns=("dataset", "best", "second", "n", "alone right", "mid-p", "exact p"),
        always=frozenset({"dataset", "best", "second", "alone right", "mid-p"}),
        rows=tuple(rows),
        notes=(
            f"Of every workload and optimizer the best model by {chosen}, then the best two of these, "
            "with test accuracies; McNemar's test on the same n test examples. Alone right: how many only "
            "the best has right, and how many only the second. It is about these two trained models, not "
            "about their optimizers or networks: the variance of training is not in it."
            + (" Chosen on the test part, its p-value is too small." if on_test else ""),
        ),
    )


def _by_class(
    board: Leaderboard, optimizer: str, trials: pd.DataFrame, scores: Mapping[str, Mapping[str, str]]
) -> TextTable:
    names = list(dict.fromkeys(score for columns in scores.values() for score in columns))
    means = trials[[column for columns in scores.values() for column in columns.values()]].mean()
    shares = {
        name: [float(means[columns[score]]) if score in columns else None for score in names]
        for name, columns in scores.items()
    }
    recall = names.index("recall") if "recall" in names else 0
    order = sorted(shares, key=lambda name: (shares[name][recall] is None, shares[name][recall]))
    return TextTable(
        title=f"By class: {board.title}, {optimizer}",
        columns=("class", *(f"{_heading(score)}, %" for score in names)),
        rows=tuple((name, *(DASH if x is None else number(100 * x) for x in shares[name])) for name in order),
        notes=(
            f"Means over {len(trials)} completed trials, lowest recall first. The first optimizer of the "
            "leaderboard; per_class.csv has all.",
        ),
        values=tuple((name, *shares[name]) for name in order),
    )


def _goals(goals: Goals, trials: pd.DataFrame, recalls: Mapping[str, str]) -> list[str]:
    n = len(trials)
    overall = every = DASH
    if goals.accuracy is not None and "test_accuracy" in trials:
        reached = int((trials["test_accuracy"] >= goals.accuracy).sum())
        overall = f"{reached} of {n} (>= {100 * goals.accuracy:g} %)"
    if goals.recall is not None:
        lowest = trials[list(recalls.values())].min(axis=1)
        means = trials[list(recalls.values())].mean()
        below = [name for name, column in recalls.items() if means[column] < goals.recall]
        every = f"{int((lowest >= goals.recall).sum())} of {n} (>= {100 * goals.recall:g} %)"
        if below:
            every += (
                f"; on average {len(below)} below: {', '.join(below[:5])}{', ..' if len(below) > 5 else ''}"
            )
    return [overall, every]


def _completed(trials: pd.DataFrame, board: Leaderboard, optimizer: str) -> pd.DataFrame:
    mine = of_board(trials, board)
    return mine[(mine["status"] == "completed") & (mine["optimizer"] == optimizer)]


def _heading(score: str) -> str:
    match = re.fullmatch(r"top(\d+)_recall", score)
    return f"top-{match[1]} recall" if match else {"f1": "F1"}.get(score, score)
