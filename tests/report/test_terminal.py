"""The report at every width of a terminal, and the standing of a run."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from optbench.cli.progress import RunView
from optbench.report.analysis import analyse, main_tables
from optbench.report.side_tables import across_table
from optbench.report.terminal import UNWRAPPED, fitting, rich_table, shortened
from optbench.report.text import TextTable
from optbench.report.watch import Ended, standing_table, whole_blocks
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.task import Metrics
from tests.conftest import write_changed
from tests.report.conftest import made_record

ACCURACY = Metrics()["test_accuracy"]


def text_of(part, width):
    console = Console(width=width, file=io.StringIO())
    console.print(part)
    return console.file.getvalue()


def board_like(labels):
    """A leaderboard's columns, with these labels."""
    core = ("#", "optimizer", "minus adam [95% CI]", "p (Holm)", "verdict")
    columns = ("#", "optimizer", "test accuracy, %", *core[2:4], "W/T/L", "verdict", "ended")
    row = ("10-12", "98.05 ± 0.11", "-25.65 [-26.37, -24.93]", "<0.001", "12/10/11", "inconclusive")
    rows = tuple((row[0], label, *row[1:], "10 done, 1 diverged") for label in labels)
    return TextTable(
        title="a workload", columns=columns, rows=rows, always=frozenset(core), details=frozenset({"ended"})
    )


LONG = ["wame", "a-label-of-many-letters-and-one-more", "a-label-of-many-letters-and-two-more", "x" * 90]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_difference_p_and_verdict_stay_at_every_width(width):
    text = text_of(rich_table(board_like(LONG), width=width), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("inconclusive") == len(LONG)
    assert text.count("<0.001") == len(LONG)
    assert text.count("-25.65") == text.count("[-26.37, -24.93]") == len(LONG)
    assert text.count("10-12") == len(LONG)


def test_what_is_left_out_is_said_and_a_wide_terminal_has_all():
    table = board_like(["wame", "adam"])
    assert "Left out at this width: test accuracy, %, W/T/L, ended." in text_of(
        rich_table(table, width=60), 60
    )
    wide = text_of(rich_table(table, width=200), 200)
    assert "Left out" not in wide
    assert "10 done, 1 diverged" in wide


def test_p_and_differences_go_before_other_columns():
    columns = ("workload", "optimizer", "reached in time", "minus adam [CI]", "p", "verdict")
    row = ("a/b", "sgd", "7 of 7 trials, ever", "+1.00 [+0.50, +1.50]", "0.016", "better")
    narrow = text_of(rich_table(TextTable(title="t", columns=columns, rows=(row,)), width=60), 60)
    assert "0.016" in narrow
    assert "[+0.50, +1.50]" in narrow
    assert "Left out at this width: reached in time." in narrow


def test_long_labels_stay_different_when_they_are_shortened():
    names = [f"report{i}-shipped-with-everything" for i in range(9)] + ["adam"]
    for width in (9, 12, 20):
        short = shortened(names, width)
        assert len(set(short.values())) == len(names)
        assert max(map(len, short.values())) <= width
        assert short["adam"] == "adam"


def test_a_pipe_gets_whole_lines(made_results):
    results, spec = made_results({"wame": [0.8, 0.81], "adam": [0.82, 0.85]})
    for table in main_tables(analyse(results, spec)):
        lines = text_of(rich_table(table, width=UNWRAPPED), UNWRAPPED).splitlines()
        assert [f"  {note}" for note in table.notes] == [line for line in lines if line.startswith("  ")][
            -len(table.notes) :
        ]


def test_labels_of_a_wide_table_leave_room_for_its_numbers():
    rows = tuple(
        (f"a-workload-of-a-long-name-{i}", "an-optimizer", "12", "3.25", "lr=0.001") for i in range(3)
    )
    table = TextTable(
        title="Tuning", columns=("workload", "optimizer", "settings", "trained, s", "winner"), rows=rows
    )
    shown, widths = fitting(table, 66)
    assert shown == list(table.columns)
    assert sum(widths.values()) + 2 * len(shown) <= 66


def test_a_note_names_the_rows_it_is_about(made_results):
    scores = {"wame": [0.80, 0.81, 0.82, 0.83], "adam": [0.80, 0.82, 0.84, 0.87]}
    results, spec = made_results(scores)
    (board,) = analyse(results, spec).boards
    assert any(note.startswith("1 of 4 pairs is equal; n=3") for note in board.notes)
    three = {**scores, "sgd": [0.5, 0.6, 0.71, 0.72]}
    results, spec = made_results(three, ("adam: {lr: 0.01}", "adam: {lr: 0.01}\n  sgd: {lr: 0.1}"))
    (board,) = analyse(results, spec).boards
    assert any(note.startswith("adam: 1 of 4 pairs is equal; n=3") for note in board.notes)
    assert any(note.startswith("sgd: n=4: smallest attainable") for note in board.notes)


def test_what_is_sure_over_workloads_stands_beside_what_single_ones_say(two_workloads):
    results, spec, _ = two_workloads
    (found,) = analyse(results, spec).overall
    rows = [replace(row, verdicts=("better", "inconclusive")) for row in found.rows]
    table = across_table(replace(found, rows=tuple(rows)))
    single = {
        row[0]: row[table.columns.index("within each, against wame (exploratory)")] for row in table.rows
    }
    assert single["adam"] == "1 better, 1 inconclusive (sure of 0)"
    assert "better on at least" not in table.columns
    assert any("Sure of: on at least so many" in note for note in table.notes)


def ended(optimizer, block, score, status="completed", workload="w"):
    return Ended(workload=workload, optimizer=optimizer, block=block, status=status, score=score)


def test_a_standing_compares_the_same_seeds_only():
    run = [ended("wame", "0", 0.9), ended("adam", "0", 0.8), ended("wame", "1", 0.1)]
    text = text_of(standing_table(run, {"w": ("wame", "adam")}, metric=ACCURACY, width=80), 80)
    assert "means over 1 whole block, no test" in text
    assert "90.00 (1)" in text
    assert "50.00" not in text


def test_a_crashed_optimizer_is_called_so_and_holds_up_no_block():
    run = [ended("wame", "0", 0.9), ended("adam", "0", 0.8), ended("sgd", "0", math.nan, "crashed")]
    names = {"w": ("wame", "adam", "sgd")}
    assert whole_blocks(run, names) == {"w": {"0"}}
    text = text_of(standing_table(run, names, metric=ACCURACY, width=80), 80)
    assert any("sgd" in line and "crashed" in line for line in text.splitlines())
    assert "80.00 (1)" in text


def test_a_diverged_trial_is_counted_in_the_standing():
    run = [ended("wame", "0", 0.9), ended("adam", "0", math.nan, "diverged")]
    text = text_of(standing_table(run, {"w": ("wame", "adam")}, metric=ACCURACY, width=80), 80)
    assert "- (0, 1 diverged)" in text


def test_a_standing_of_many_workloads_fits():
    names = [f"workload-{i}-with-a-long-name" for i in range(30)]
    run = [ended(o, "0", 0.5, workload=w) for w in names for o in ("wame", "adam")]
    text = text_of(standing_table(run, dict.fromkeys(names, ("wame", "adam")), metric=ACCURACY, width=80), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "more workloads; a wider terminal shows them" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bar_counter_and_time_left_stay_while_it_runs(tmp_path, width):
    path = write_changed(
        tmp_path,
        ("- dataset: digits", "- name: a-workload-whose-name-is-rather-long-indeed\n    dataset: digits"),
    )
    suite = load_suite(path)
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    view = RunView(suite, console)
    plan = trials(suite, lambda backend, _: "cpu")
    view.planned(plan, {})
    view.started(plan[0])
    view.epoch(plan[0], 1, {"train_loss": 2.0})
    view.finished(plan[0], made_record(plan[0].spec, 0.8))
    lines = text_of(view, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "1/4" in lines[0]
    assert "left" in lines[0]
    assert "…" in lines[1]
    assert "left" in lines[1]


def test_what_may_wait_is_done_once_trials_run_side_by_side(tmp_path):
    suite = load_suite(write_changed(tmp_path))
    plan = trials(suite, lambda backend, _: "cpu")
    view, done = RunView(suite, Console(file=io.StringIO())), []
    view.meanwhile(lambda: done.append(len(done)), workers=1)
    view.planned(plan, {})
    for trial in plan[:2]:  # one after the other: their times are measured
        view.started(trial)
        view.finished(trial, made_record(trial.spec, 0.8))
    assert done == []
    for trial in plan[2:]:
        view.started(trial)
    view.started(plan[0])
    assert done == [0]


def test_what_may_wait_is_done_while_workers_start(tmp_path):
    suite = load_suite(write_changed(tmp_path))
    view, done = RunView(suite, Console(file=io.StringIO())), []
    view.meanwhile(lambda: done.append(len(done)), workers="auto")
    assert done == []
    for _ in range(2):
        view.planned(trials(suite, lambda backend, _: "cpu"), {})
    assert done == [0]


def test_a_piped_run_says_how_long_a_trial_took_and_which_shared_their_time(tmp_path):
    suite = load_suite(write_changed(tmp_path))
    console = Console(width=200, file=io.StringIO())
    view = RunView(suite, console)
    plan = trials(suite, lambda backend, _: "cpu")
    view.planned(plan, {})
    alone = made_record(plan[0].spec, 0.8)
    view.finished(plan[0], replace(alone, timings={"total": 2.0}))
    together = replace(alone, timings={}, environment={**alone.environment, "stacked": 3})
    view.finished(plan[1], together)
    first, second = console.file.getvalue().splitlines()
    assert ", 2.0 s, about " in first
    assert ", one of 3 together, about 0 s left" in second, "of 4 trials 3 ended together"
