from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from optbench.cli.plan_table import render_plan, statements
from optbench.report.text import duration
from optbench.suite.load import load_suite


def test_a_plan_says_when_nothing_can_be_shown(write_suite):
    lines = " ".join(statements(load_suite(write_suite(("seeds: 2", "seeds: 5")))))
    assert "no test can reject at 0.05" in lines
    assert "6 seeds are needed before any difference can be shown" in lines


def test_more_comparisons_need_more_seeds(write_suite):
    path = write_suite(("adam: {lr: 0.01}", "adam: {lr: 0.01}\n  sgd: {}\n  rmsprop: {}"))
    assert "7 seeds are needed before" in " ".join(statements(load_suite(path)))


def test_one_optimizer_has_nothing_to_compare(write_suite):
    suite = load_suite(write_suite(("  adam: {lr: 0.01}\n", "")))
    assert statements(suite) == ["One optimizer a workload: there is nothing to compare."]


@pytest.mark.parametrize("stops", [True, False])
def test_early_stopping_is_named_where_it_makes_a_run_shorter(write_suite, stops):
    stopping = "epochs: 2\n    early_stopping: {patience: 2}" if stops else "epochs: 2"
    suite = load_suite(write_suite(("epochs: 2", stopping)))
    console = Console(width=200, file=io.StringIO())
    console.print(render_plan(suite, []))
    assert ("early stopping makes it less" in console.file.getvalue()) == stops


def test_durations_are_said_as_people_say_them():
    assert [duration(s) for s in (0.25, 45, 600, 3 * 3600)] == ["0.2 s", "45 s", "10 min", "3.0 h"]


def test_crossed_seeds_are_not_planned_as_independent_pairs(write_suite):
    lines = " ".join(statements(load_suite(write_suite(("seeds: 2", "seeds: {init: [0, 1], order: 8}")))))
    assert "2 init x 8 order seeds are crossed: 16 blocks, but not 16 independent pairs" in lines
    assert "2 seeds of init say little about new ones" in lines
    assert "smallest attainable" not in lines
    power, independent = re.findall(r"(\d+)% for d_z = 1.5|, (\d+)%\)", lines)
    assert int(power[0]) < int(independent[1])
