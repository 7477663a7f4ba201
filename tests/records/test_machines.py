from __future__ import annotations

import pytest

from optbench.records.machines import machine_id, machine_names, one_machine

FULL = {"processor": "x", "cores": 2, "device": "cpu", "threads": 1, "framework": "torch 2"}


def test_a_machine_is_hardware_threads_and_framework():
    facts = {"processor": "x", "threads": 1, "framework": "torch 2", "git": {"commit": "a"}}
    assert machine_id({**facts, "git": None}) == machine_id(facts)
    assert len({machine_id({**facts, **f}) for f in ({}, {"threads": 2}, {"framework": "torch 3"})}) == 3


@pytest.mark.parametrize("partial", [{}, {"processor": "x"}, {**FULL, "threads": None}, {"imported": "csv"}])
def test_a_fact_that_was_not_measured_is_no_other_machine(partial):
    assert one_machine([FULL, partial])
    assert one_machine([partial, FULL, partial])
    assert machine_names([partial, FULL]) == machine_names([FULL, partial]) == ["torch 2, x, 1 thread"]


@pytest.mark.parametrize("other", [{"processor": "y"}, {"threads": 2}, {"processor": "x", "cores": 3}])
def test_a_fact_measured_with_two_values_is_another_machine(other):
    assert not one_machine([FULL, other])
    assert not one_machine([{}, FULL, {}, other])


def test_two_machines_that_lack_each_others_facts_are_told_apart_by_what_both_have():
    assert one_machine([{"processor": "x"}, {"threads": 2}])
    assert not one_machine([{"processor": "x"}, {"threads": 2}, {"processor": "y"}])


def test_every_machine_is_named_once():
    second = {**FULL, "processor": "y"}
    assert machine_names([FULL, second, FULL]) == ["torch 2, x, 1 thread", "torch 2, y, 1 thread"]
    assert machine_names([{}]) == []
