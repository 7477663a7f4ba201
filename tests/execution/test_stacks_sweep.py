"""A sweep of learning rates in a stack that is recorded: each rate's slice is moved beside the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optbench.optimizers import WAME, Adam
from optbench.trial import CosineSchedule
from tests.execution.test_stacks import MLP, assert_twins, both_ways, recorded, specs


@pytest.mark.parametrize("optimizer", [Adam(), WAME()], ids=lambda c: c.optimizer)
def test_rates_move_side_by_side_and_are_recorded_anew_when_a_schedule_moves_them(optimizer, monkeypatch):
    pytest.importorskip("torch")
    recorders = recorded(monkeypatch, "batch")
    rates = (0.01, 0.001, 0.01)
    wanted = [
        replace(spec, optimizer=replace(optimizer, lr=rate))
        for spec, rate in zip(
            specs("torch", MLP, optimizer, epochs=3, schedule=CosineSchedule(), weight_decay=1e-2),
            rates,
            strict=True,
        )
    ]
    alone, together = both_ways(wanted)
    assert_twins(alone, together, rtol=1e-8)
    (recorder,) = recorders
    assert (recorder.recorded, recorder.branches) == (3, 2)
