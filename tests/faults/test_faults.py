"""A run that is disturbed and run again leaves the store of an undisturbed one, to the bit."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults import commands, draw
from tests.faults.harness import Case, disturbed, undisturbed
from tests.faults.kinds import EXECUTORS, KINDS, executors_here, kinds_here
from tests.faults.suites import BACKENDS, SORTS, backends_here, sorts_here


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Contents of undisturbed stores, each trained once."""
    found = {}

    def of(case):
        key = case.sort, case.backend
        if key not in found:
            found[key] = undisturbed(tmp_path_factory.mktemp("calm") / "s", *key)
        return found[key]

    return of


def check(case, folder, calm):
    """Skip what cannot be here; the store must be that of a calm run."""
    if case.backend not in backends_here() or case.sort not in sorts_here():
        pytest.skip("not installed")
    if case.executor not in executors_here():
        pytest.skip("needs the extra ray")
    if reason := kinds_here()[1].get(case.kind):
        pytest.skip(reason)
    outcome = disturbed(folder / "case", case)
    assert outcome.hit
    assert not outcome.complaints
    assert outcome.content == calm(case)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_leaves_the_store_of_a_calm_run(tmp_path, calm, kind):
    fault = KINDS[kind]
    check(Case(kind=kind, moment=fault.moments[-1], executor=fault.executors[0]), tmp_path, calm)


@pytest.mark.nightly
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("sort", SORTS)
def test_a_kill_at_a_checkpoint_leaves_the_store_of_a_calm_run(tmp_path, calm, sort, executor):
    check(Case(sort=sort, executor=executor), tmp_path, calm)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["second run", "clock jumps", "permissions taken"])
def test_by_day_a_few_faults_leave_the_store_of_a_calm_run(tmp_path, calm, kind):
    check(Case(kind=kind, moment="stored trial"), tmp_path, calm)


@pytest.mark.nightly
@pytest.mark.parametrize("name", commands.COMMANDS)
def test_a_killed_command_leaves_what_was_there_or_all_that_it_writes(tmp_path, name):
    assert not [what for found in commands.killed(name, 6, 0, tmp_path / "files") for what in found]


def test_cases_are_drawn_evenly_over_what_is_possible():
    cases = list(draw.cases(420, seed=1, backends=BACKENDS, executors=["one process", "two workers"]))
    possible = [
        name for name in kinds_here()[0] if set(KINDS[name].executors) & {"one process", "two workers"}
    ]
    for drawn, choices, most in (
        (Counter(case.kind for case in cases), possible, 1),
        (Counter(case.backend for case in cases), BACKENDS, 20),
        (Counter(case.sort for case in cases), sorts_here(), 20),
    ):
        assert set(drawn) == set(choices)
        assert max(drawn.values()) - min(drawn.values()) <= most
    assert all(case.executor in KINDS[case.kind].executors for case in cases)
    assert all(case.moment in KINDS[case.kind].moments for case in cases)
    assert {(case.sort, case.backend) for case in cases} == {(s, b) for s in sorts_here() for b in BACKENDS}
    assert cases == list(draw.cases(420, seed=1, backends=BACKENDS, executors=["one process", "two workers"]))
