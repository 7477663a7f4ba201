import math

import pytest

from optbench.execution.schedules import LearningRate
from optbench.trial import CosineSchedule, ReduceOnPlateau, StepSchedule


def rates(schedule, epochs, losses=None):
    rate = LearningRate(schedule, 0.8, epochs)
    found = []
    for epoch in range(1, epochs + 1):
        found.append(rate.at(epoch))
        rate.observe({"val_loss": losses[epoch - 1] if losses else 1.0, "val_accuracy": 0.5})
    return found


def test_no_schedule_keeps_the_rate():
    assert rates(None, 3) == [0.8] * 3


def test_step_multiplies_after_each_milestone():
    assert rates(StepSchedule(at=(1, 3), factor=0.5), 4) == pytest.approx([0.8, 0.4, 0.4, 0.2])


def test_cosine_goes_from_the_whole_rate_towards_the_floor():
    found = rates(CosineSchedule(floor=0.1), 4)
    assert found[0] == 0.8
    assert found[2] == pytest.approx(0.8 * (0.1 + 0.9 * 0.5))
    assert found[3] == pytest.approx(0.8 * (0.1 + 0.9 * (1 + math.cos(0.75 * math.pi)) / 2))


def test_plateau_counts_as_keras_does():
    # Improvement is measured against the best by more than min_delta; the rate falls at the second epoch
    # without one and the count starts again.
    rule = ReduceOnPlateau(patience=2, factor=0.5, min_delta=0.1)
    losses = [1.0, 0.95, 0.7, 0.65, 0.65, 0.65, 0.65, 0.1]
    assert rates(rule, 8, losses) == [0.8, 0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2]


def test_plateau_waits_through_the_cooldown_and_stops_at_the_smallest_rate():
    rule = ReduceOnPlateau(patience=1, factor=0.5, cooldown=2, min_lr=0.3)
    assert rates(rule, 6, [1.0] * 6) == [0.8, 0.8, 0.4, 0.4, 0.3, 0.3]


def test_plateau_of_an_accuracy_looks_for_the_larger_value():
    rate = LearningRate(ReduceOnPlateau(monitor="val_accuracy", patience=1, factor=0.5), 1.0, 9)
    for accuracy in (0.5, 0.6, 0.7):
        rate.observe({"val_accuracy": accuracy})
    assert rate.at(4) == 1.0
    rate.observe({"val_accuracy": 0.6})
    assert rate.at(5) == 0.5
