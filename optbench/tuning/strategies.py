"""How settings are drawn, one search at a time: generators that ask for trainings and are told their scores.

Every draw comes from Optuna with a seed of its own, in an order that does not depend on who trains what
first, so that a search that is told the same scores asks for the same settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optbench.environment import pip_hint
from optbench.errors import UserError
from optbench.suite.tuning_section import Tuning
from optbench.tuning.space import Axis, assembled, drawn_axes, grid

if TYPE_CHECKING:
    import optuna


class TuningError(UserError, RuntimeError):
    """Tuning that cannot go on; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Train this setting (its number within the search) for a number of epochs."""

    setting: int
    values: Mapping[str, Any]
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Scores in the order asked, larger is better, ``-inf`` the worst; seconds of this search so far."""

    scores: Sequence[float]
    seconds: float


Strategy = Generator[list[Ask], Answer, None]


def strategy(
    tuning: Tuning, axes: Sequence[Axis], *, epochs: int, settings: int | None, seed: int
) -> Strategy:
    """Search a space within the budget.

    Parameters
    ----------
    tuning : Tuning
        Sampler and budget.
    axes : sequence of Axis
        The space.
    epochs : int
        Of a whole training.
    settings : int or None
        How many, as :meth:`Tuning.settings` says; None for a budget in seconds.
    seed : int
        Of the draws.
    """
    if tuning.sampler == "grid":
        return _all_at_once(grid(axes, settings or 0), epochs)
    draw = _Draw(tuning, axes, settings=settings or 16, seed=seed)
    if tuning.sampler in ("halving", "hyperband"):
        return _halving(tuning, draw, epochs)
    if tuning.sampler == "tpe" or settings is None:
        return _one_by_one(tuning, draw, epochs, settings)
    return _all_at_once([draw.ask() for _ in range(settings)], epochs)


def _all_at_once(points: Sequence[Mapping[str, Any]], epochs: int) -> Strategy:
    yield [Ask(setting=k, values=values, epochs=epochs) for k, values in enumerate(points)]


def _one_by_one(tuning: Tuning, draw: _Draw, epochs: int, settings: int | None) -> Strategy:
    number, seconds = 0, 0.0
    while number < settings if settings is not None else seconds < (tuning.budget.seconds or 0):
        answer = yield [Ask(setting=number, values=draw.ask(), epochs=epochs)]
        draw.tell(number, answer.scores[0])
        number, seconds = number + 1, answer.seconds


def _halving(tuning: Tuning, draw: _Draw, epochs: int) -> Strategy:
    """Successive halving, bracket by bracket; the best of a rung go on, the first of equals."""
    first, seconds, paid = 0, 0.0, tuning.budget.seconds
    while True:
        for rungs in tuning.brackets(epochs):
            scores: dict[int, float] = {}
            live = {first + k: draw.ask() for k in range(rungs[0][0])}
            first += len(live)
            for rung, (count, length) in enumerate(rungs):
                if rung:
                    live = dict(sorted(live.items(), key=lambda item: (-scores[item[0]], item[0]))[:count])
                answer = yield [Ask(setting=k, values=v, epochs=length) for k, v in sorted(live.items())]
                scores = dict(zip(sorted(live), answer.scores, strict=True))
                seconds = answer.seconds
            if paid is not None and seconds >= paid:
                return
        if paid is None:
            return


class _Draw:
    """Settings from an Optuna sampler."""

    def __init__(self, tuning: Tuning, axes: Sequence[Axis], *, settings: int, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise TuningError(
                f"tuning needs Optuna: {pip_hint('tuning')}, or take out the suite's section tuning"
            ) from None
        self._axes, self._parts, self._by_model = axes, drawn_axes(axes), tuning.sampler == "tpe"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            samplers = optuna.samplers
            sampler: optuna.samplers.BaseSampler
            if self._by_model:
                sampler = samplers.TPESampler(seed=seed, n_startup_trials=max(4, settings // 4))
            elif tuning.sampler == "quasi-random":
                sampler = samplers.QMCSampler(seed=seed, scramble=True)
            else:
                sampler = samplers.RandomSampler(seed=seed)
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._trials: list[optuna.Trial] = []
        self._space = {axis.name: self._distribution(axis, optuna.distributions) for axis in self._parts}

    def ask(self) -> dict[str, Any]:
        """Draw the next setting."""
        trial = self._study.ask(self._space)
        self._trials.append(trial)
        if not self._by_model:
            # Told at once: these samplers learn nothing, but count the scores.
            self._study.tell(trial, 0.0)
            drawn = {axis.name: axis.at(trial.params[axis.name]) for axis in self._parts}
        else:
            drawn = {axis.name: _value(axis, trial.params[axis.name]) for axis in self._parts}
        return assembled(self._axes, drawn)

    def tell(self, number: int, score: float) -> None:
        """Tell the score of a setting."""
        if self._by_model:
            self._study.tell(self._trials[number], score)

    def _distribution(self, axis: Axis, kinds: Any) -> Any:
        if not self._by_model:  # a place in the unit cube, the same for every kind of axis
            return kinds.FloatDistribution(0.0, 1.0)
        if axis.kind == "choice":
            return kinds.CategoricalDistribution(range(len(axis.choices)))
        if axis.kind == "int":
            steps = int(axis.high - axis.low) // axis.step
            return kinds.IntDistribution(int(axis.low), int(axis.low) + steps * axis.step, step=axis.step)
        if axis.kind == "decay":
            return kinds.FloatDistribution(1 - axis.high, 1 - axis.low, log=True)
        return kinds.FloatDistribution(axis.low, axis.high, log=axis.kind == "log")


def _value(axis: Axis, drawn: Any) -> Any:
    if axis.kind == "choice":
        return axis.choices[drawn]
    if axis.kind == "int":
        return drawn
    return axis.tidy(1 - drawn if axis.kind == "decay" else drawn)
