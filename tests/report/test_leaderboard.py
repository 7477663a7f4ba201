from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from optbench.api import compare
from optbench.records.frames import Results
from optbench.report.analysis import analyse
from optbench.report.leaderboard import leaderboards, oriented
from optbench.report.leaderboard_columns import leaderboard_table
from optbench.report.text import markdown
from optbench.suite.load import load_suite
from optbench.trial import STREAMS


def results(scores: dict[str, list[float | str]], **columns) -> Results:
    """Records of one workload: a number is a completed trial's accuracy, a word another status."""
    rows = [
        {
            "trial_id": f"{optimizer}-{seed}",
            "block_id": f"b{seed}",
            "block": f"b{seed}",
            "workload": "digits/mlp",
            "optimizer": optimizer,
            "seed": str(seed),
            **{f"seed_{stream}": seed for stream in STREAMS},
            "backend": "torch",
            "status": score if isinstance(score, str) else "completed",
            "test_accuracy": math.nan if isinstance(score, str) else score,
            "test_loss": math.nan if isinstance(score, str) else 1 - score,
            "step_seconds": 2.0,
            "epochs": 2.0,
            "best_epoch": 1.0,
        }
        for optimizer, values in scores.items()
        for seed, score in enumerate(values)
    ]
    frame = pd.DataFrame(rows)
    return Results(
        trials=frame, epochs=pd.DataFrame(), refusals=(), planned=len(frame), meta=(), environments=()
    )


def board(write_suite, scores, *replacements):
    count = len(next(iter(scores.values())))
    suite = load_suite(write_suite(("seeds: 2", f"seeds: {count}"), *replacements))
    (made,) = leaderboards(results(scores), suite.report_spec)
    return made, {row.optimizer: row for row in made.rows}


def test_numbers_of_a_small_board_by_hand(write_suite):
    wame = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95]
    adam = [x + d for x, d in zip(wame, (0.01, 0.02, 0.03, 0.04, 0.05, 0.06), strict=True)]
    made, rows = board(write_suite, {"wame": wame, "adam": adam})
    assert [row.optimizer for row in made.rows] == ["adam", "wame"]
    comparison = rows["adam"].comparison
    assert rows["wame"].comparison is None
    assert comparison.signed_rank.pvalue == comparison.p_adjusted == 0.03125
    assert comparison.mean.estimate == pytest.approx(0.035)
    assert (comparison.rank.wins, comparison.rank.ties, comparison.rank.losses) == (6, 0, 0)
    assert comparison.verdict.word == "better"
    assert rows["adam"].seconds_per_epoch == 1.0


def test_holm_multiplies_over_the_comparisons_and_says_what_can_be_reached(write_suite):
    base = np.linspace(0.9, 0.95, 6)
    scores = {"wame": list(base), "adam": list(base + 0.01), "sgd": list(base - 0.02)}
    made, rows = board(write_suite, scores, ("adam: {lr: 0.01}", "adam: {lr: 0.01}\n  sgd: {lr: 0.1}"))
    assert rows["adam"].comparison.p_adjusted == rows["sgd"].comparison.p_adjusted == 2 * 0.03125
    assert {rows[name].comparison.verdict.word for name in ("adam", "sgd")} == {"inconclusive"}
    assert any("0.0625" in note and "no test can reject" in note for note in made.notes)


def test_a_diverged_trial_is_worst_and_two_are_a_tie(write_suite):
    scores = {"wame": [0.9, 0.9, "diverged"], "adam": ["diverged", "diverged", "diverged"]}
    made, rows = board(write_suite, scores)
    assert [row.optimizer for row in made.rows] == ["wame", "adam"]
    assert rows["adam"].diverged == 3
    comparison = rows["adam"].comparison
    assert (comparison.rank.wins, comparison.rank.ties, comparison.rank.losses) == (0, 1, 2)
    assert math.isnan(comparison.mean.estimate)
    assert comparison.verdict.word == "inconclusive"


def test_a_crash_is_missing_not_worst(write_suite):
    _, rows = board(write_suite, {"wame": [0.9, 0.9, 0.9], "adam": [0.95, 0.95, "crashed"]})
    comparison = rows["adam"].comparison
    assert (comparison.n, comparison.n_missing, comparison.rank.losses) == (2, 1, 0)
    assert rows["adam"].rank == 1


def test_a_loss_is_better_when_lower(write_suite):
    made, rows = board(
        write_suite,
        {"wame": [0.9, 0.8], "adam": [0.7, 0.6]},
        ("{baseline: wame}", "{baseline: wame, primary: test_loss}"),
    )
    assert [row.optimizer for row in made.rows] == ["wame", "adam"]
    assert rows["adam"].comparison.mean.estimate == pytest.approx(-0.2)


def test_oriented_table_marks_outcomes():
    table = oriented(
        results({"a": [0.5, "diverged"], "b": ["crashed", 0.5]}).trials, "test_accuracy", maximise=True
    )
    assert table.loc["b1", "a"] == -math.inf
    assert math.isnan(table.loc["b0", "b"])


def test_names_cannot_break_the_markdown_table(write_suite):
    made, _ = board(
        write_suite,
        {"wame": [0.9, 0.8], "a|<b>_*": [0.7, 0.6]},
        ("adam: {lr: 0.01}", '"a|<b>_*": {optimizer: adam, lr: 0.01}'),
    )
    lines = markdown(leaderboard_table(made)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    bars = {line.replace("\\|", "").count("|") for line in table}
    assert len(bars) == 1
    assert not any("<b>" in line for line in lines)


def test_crossed_seeds_are_analysed_as_crossed_in_every_table(made_results):
    wame = [0.80, 0.805, 0.81, 0.807]
    results, spec = made_results(
        {"wame": wame, "adam": [v + 0.05 for v in wame]}, ("seeds: 4", "seeds: {init: 4, order: 3}")
    )
    report = analyse(results, spec)
    (board,) = report.boards
    (c,) = board.family.comparisons
    assert c.crossed is not None
    assert c.n == 12
    assert c.attainable == "crossed seeds: 4 init x 3 order, not 12 independent pairs"
    assert any("crossed seeds: 4 init x 3 order" in note for note in board.notes)
    assert board.all_pairs.comparisons[0].crossed is not None
    assert math.isnan(c.smallest_adjusted_p)
    assert "seeds of several streams are crossed" in report.methods


def test_the_python_api_takes_records_of_crossed_seeds_as_crossed(made_results):
    wame = [0.80, 0.805, 0.81, 0.807]
    found, _ = made_results(
        {"wame": wame, "adam": [v + 0.05 for v in wame]}, ("seeds: 4", "seeds: {init: 4, order: 3}")
    )
    (c,) = compare(found, baseline="wame").within[0].comparisons
    assert c.crossed is not None
    assert "not 12 independent pairs" in c.attainable
    plain, _ = made_results({"wame": wame, "adam": [v + 0.05 for v in wame]})
    assert compare(plain, baseline="wame").within[0].comparisons[0].crossed is None


def test_one_trial_has_a_mean_and_no_spread(write_suite):
    _, rows = board(write_suite, {"wame": [0.9, 0.8], "adam": [0.7, "crashed"]})
    assert rows["wame"].sd == pytest.approx(0.1 / math.sqrt(2))
    assert rows["adam"].mean == 0.7
    assert math.isnan(rows["adam"].sd)
    assert math.isnan(rows["adam"].mean_low)


def test_times_and_targets_are_those_of_the_optimizer_itself(made_results):
    """Curves rise evenly to the score in 4 epochs; what diverged or crashed has reached nothing."""
    found, spec = made_results(
        {"wame": [0.9, 0.9, 0.9], "adam": [0.6, 0.6, "crashed"], "sgd": ["diverged", 0.45, "diverged"]},
        ("adam: {lr: 0.01}", "adam: {lr: 0.01}\n  sgd: {lr: 0.1}"),
        ("epochs: 2", "epochs: 4\n    targets: {val_accuracy: 0.5}"),
    )
    found.trials["steps_per_epoch"] = 3.0
    (made,) = leaderboards(found, spec)
    rows = {row.optimizer: row for row in made.rows}
    reached = {name: (row.target_reached, row.target_epoch) for name, row in rows.items()}
    assert reached.pop("sgd")[0] == 0
    assert reached == {"wame": (3, 2.0), "adam": (2, 4.0)}
    assert math.isnan(rows["sgd"].target_epoch)
    assert len(made.reached) == 8
    lost = made.reached.set_index(["optimizer", "seed"])["target_epoch"] == math.inf
    assert set(lost[lost].index.get_level_values(0)) == {"sgd"}
    assert lost.sum() == 3
    epoch = 0.5 + 0.9 / 10
    assert rows["wame"].seconds_per_epoch == pytest.approx(epoch)
    assert rows["wame"].step_ms == pytest.approx(1000 * epoch / 3)


def test_what_is_shown_at_which_width_and_sorted_by_what(write_suite):
    base = np.linspace(0.9, 0.95, 8)
    scores = {"wame": list(base), "adam": list(base + np.linspace(0.01, 0.017, 8))}
    made, _ = board(write_suite, scores)
    table = leaderboard_table(made)
    core = {"#", "optimizer", "minus wame [95% CI]", "p (Holm)", "verdict (exploratory)"}
    assert table.always == core
    assert {"group", "d_z", "s/epoch", "ended"} <= table.details
    assert {"95% CI of the mean", "best epoch", "test loss"} <= table.extras
    assert not table.always & table.details
    assert not table.extras & (table.always | table.details)
    place = table.columns.index("#")
    assert [row[place] for row in table.values] == [1.001, 2.002]
    for lost in ("diverged", "crashed"):
        made, _ = board(write_suite, {**scores, "adam": [*scores["adam"][:7], lost]})
        assert "ended" not in leaderboard_table(made).details
