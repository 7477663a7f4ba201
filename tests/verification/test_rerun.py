"""Which facts of two machines are named as causes of a difference."""

from __future__ import annotations

from optbench.verification.rerun import _causes

FULL = {"framework": "torch 2", "threads": 1, "processor": "x", "packages": {"numpy": "2"}, "git": None}


def test_a_fact_with_two_values_is_a_cause():
    assert _causes(FULL, {**FULL, "threads": 2}) == ["likely cause: threads was 1, is 2"]
    assert _causes(FULL, {**FULL, "packages": {"numpy": "3"}}) == [
        "likely cause: packages was numpy 2, is numpy 3"
    ]


def test_a_fact_that_was_not_recorded_is_no_cause_but_is_named():
    without = {name: value for name, value in FULL.items() if name != "threads"}
    (same, missing) = _causes(without, FULL)
    assert same.startswith("no recorded fact of the machine differs")
    assert missing == "not recorded, so it may be a cause: threads (then)"
    assert _causes({**FULL, "git": {"commit": "a"}}, FULL)[-1].endswith("git (now)")


def test_a_stack_is_recorded_only_where_there_is_one():
    assert _causes({**FULL, "stacked": 8}, FULL) == ["likely cause: stacked was 8, is not used"]


def test_equal_machines_have_no_cause_and_nothing_missing():
    (line,) = _causes(FULL, dict(FULL))
    assert line.startswith("no recorded fact of the machine differs")
