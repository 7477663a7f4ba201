"""Schedules by step: each formula at its ends and against PyTorch's where it has one."""

from __future__ import annotations

import itertools
import math

import pytest

from optbench.optimizers.schedules import (
    STEPWISE,
    Chain,
    CosineSteps,
    InverseRoot,
    Linear,
    OneCycle,
    Polynomial,
    Restarts,
    Warmup,
    WarmupStableDecay,
    factor,
    must_begin,
)

TOTAL = 40


def curve(schedule, total=TOTAL):
    return [factor(schedule, step, total) for step in range(total)]


def test_a_warm_up_reaches_the_rate_itself_at_its_last_step():
    for kind in (Warmup, CosineSteps, Linear, Polynomial, InverseRoot, WarmupStableDecay):
        assert curve(kind(warmup=4))[:4] == [0.25, 0.5, 0.75, 1.0], kind
    assert curve(Warmup(warmup=4))[4:] == [1.0] * (TOTAL - 4)


@pytest.mark.parametrize("schedule", [CosineSteps(floor=0.1), Linear(floor=0.1), Polynomial(floor=0.1)])
def test_a_decay_goes_from_one_towards_its_floor(schedule):
    found = curve(schedule)
    assert found[0] == 1.0
    assert all(a > b for a, b in itertools.pairwise(found))
    assert found[-1] > 0.1
    assert factor(schedule, TOTAL, TOTAL) == pytest.approx(0.1)


def test_the_middle_of_each_decay():
    assert factor(CosineSteps(), 20, 40) == pytest.approx(0.5)
    assert factor(Linear(), 20, 40) == 0.5
    assert factor(Polynomial(power=2), 20, 40) == 0.25
    assert factor(Linear(warmup=20), 30, 40) == 0.5


def test_the_inverse_root_follows_its_formula():
    found = curve(InverseRoot(warmup=4))
    assert found[15] == pytest.approx(math.sqrt(4 / 16))


def test_wsd_is_stable_until_its_decay():
    found = curve(WarmupStableDecay(warmup=4, decay=0.25))
    assert found[3:31] == [1.0] * 28
    assert found[30:] == pytest.approx([1 - k / 10 for k in range(10)])
    root = curve(WarmupStableDecay(decay=0.25, shape="root"))
    assert root[32] == pytest.approx(1 - math.sqrt(0.2))


def test_restarts_begin_again_after_each_period():
    found = curve(Restarts(period=8, grow=2))
    assert [found[0], found[8], found[24]] == [1.0, 1.0, 1.0]
    assert found[4] == pytest.approx(0.5)
    assert found[16] == pytest.approx(0.5)


def test_a_chain_has_each_of_its_parts_for_its_steps():
    chain = Chain(parts=(Warmup(warmup=10), Linear(floor=0.5), CosineSteps()), steps=(10, 20))
    found = curve(chain)
    assert found[:10] == curve(Warmup(warmup=10), 10)
    assert found[10:30] == curve(Linear(floor=0.5), 20)
    assert found[30:] == curve(CosineSteps(), 10)


def test_what_must_have_gone_by_before_the_last_part_begins():
    assert must_begin(Linear(warmup=5)) == 5
    assert must_begin(OneCycle()) == 0
    assert must_begin(Chain(parts=(Linear(), Linear(), Linear(warmup=2)), steps=(10, 20))) == 32


def test_one_cycle_and_restarts_are_pytorchs():
    torch = pytest.importorskip("torch")

    def of_torch(make):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = make(optimizer)
        found = []
        for _ in range(TOTAL):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    lr = torch.optim.lr_scheduler
    assert curve(Restarts(period=8, grow=2)) == pytest.approx(
        of_torch(lambda o: lr.CosineAnnealingWarmRestarts(o, 8, 2)), abs=1e-12
    )
    mine, theirs = curve(OneCycle()), of_torch(lambda o: lr.OneCycleLR(o, 1.0, TOTAL))
    assert mine[0] == pytest.approx(theirs[0])
    assert max(mine) == pytest.approx(1.0, abs=0.01)
    assert theirs[-1] == pytest.approx(4e-6)


def test_every_kind_is_in_the_table():
    assert set(STEPWISE) == {kind.__dataclass_fields__["kind"].default for kind in STEPWISE.values()}
