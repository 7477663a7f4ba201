"""The learning rate of a trial, epoch by epoch; the same numbers for every framework."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.optimizers.schedules import factor, is_stepwise
from optbench.task import sign_of
from optbench.trial import CosineSchedule, ReduceOnPlateau, Schedule, StepSchedule


class LearningRate:
    """Follows a schedule from the optimizer's own learning rate.

    Parameters
    ----------
    schedule : Schedule or None
        None keeps the rate constant.
    initial : float
        Learning rate of the optimizer config.
    epochs : int
        Epochs of the workload; the cosine ends there.
    """

    def __init__(self, schedule: Schedule | None, initial: float, epochs: int) -> None:
        self._schedule = schedule
        self._initial = initial
        self._epochs = epochs
        self._reduced = initial
        self._best = math.nan
        self._waited = 0
        self._cooldown = 0

    def at(self, epoch: int) -> float:
        """Learning rate of an epoch (1, 2, ...), given the rows observed so far."""
        schedule = self._schedule
        if isinstance(schedule, StepSchedule):
            return self._initial * schedule.factor ** sum(epoch > milestone for milestone in schedule.at)
        if isinstance(schedule, CosineSchedule):
            share = (1 + math.cos(math.pi * (epoch - 1) / self._epochs)) / 2
            return self._initial * (schedule.floor + (1 - schedule.floor) * share)
        return self._reduced

    def of_steps(self, first: int, count: int, total: int) -> NDArray[np.float64] | None:
        """Learning rates of steps ``first`` (0, 1, ...) on, of ``total``; None where epochs have them."""
        schedule: Any = self._schedule
        if not is_stepwise(schedule):
            return None
        return self._initial * np.array([factor(schedule, first + k, total) for k in range(count)])

    def observe(self, row: Mapping[str, float]) -> None:
        """Take note of an epoch's evaluation, in the order of Keras's ReduceLROnPlateau."""
        rule = self._schedule
        if not isinstance(rule, ReduceOnPlateau):
            return
        value = -sign_of(rule.monitor) * row[rule.monitor]
        if self._cooldown:
            self._cooldown -= 1
            self._waited = 0
        if math.isnan(self._best) or value < self._best - rule.min_delta:
            self._best, self._waited = value, 0
        elif not self._cooldown:
            self._waited += 1
            if self._waited >= rule.patience:
                self._reduced = max(self._reduced * rule.factor, rule.min_lr)
                self._cooldown, self._waited = rule.cooldown, 0
