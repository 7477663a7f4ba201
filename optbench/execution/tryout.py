"""Try what is not optbench's own before a suite trains with it: each optimizer takes steps on a small model.

Arguments that a class does not take, groups that it wants, closures and second derivatives show at the first
step, and then it has cost a second and no trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.environment import Context
from optbench.errors import UserError
from optbench.execution.jobs import ProcessEndedError
from optbench.execution.process_state import Interruption, restored
from optbench.models.layers import BatchNorm, Conv2D, Dense, Model, roles
from optbench.optimizers import SGD, groups, has_rule
from optbench.suite.spec import PlannedTrial
from optbench.suite.validation import one_line
from optbench.trial import TrialSpec, Workload, content_hash, to_plain

#: Weights of every role that any layer of numbers or images has, few of each.
SMALL = Model(
    name="small",
    layers=(
        Conv2D(filters=2, kernel=3, stride=2),
        BatchNorm(),
        Dense(units=4, activation="relu"),
        Dense(units=4, activation="relu"),
        Dense(),
    ),
)
BATCH = 8


class TryoutError(UserError):
    """Optimizers that cannot train; the message names each with its reason."""


class Tryouts:
    """Tries each config once, for the whole of a run.

    Parameters
    ----------
    context : Context
        Settings of the engines.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tried: set[str] = set()

    def check(self, planned: Iterable[PlannedTrial], call: Callable[..., Any]) -> None:
        """Try the optimizers of these trials that are not optbench's own.

        Of a search, which draws number after number, one setting of each optimizer is tried.

        Parameters
        ----------
        planned : iterable of PlannedTrial
            What is to be trained.
        call : callable
            ``call(function, *arguments)`` calls a function where trials run.

        Raises
        ------
        TryoutError
            If some cannot train.
        """
        problems: dict[str, str] = {}
        for trial in planned:
            if has_rule(trial.spec.optimizer):
                continue
            key = _key(trial)
            if key in self._tried:
                continue
            self._tried.add(key)
            if (reason := self._reason(trial.spec, call)) is not None:
                problems.setdefault(trial.optimizer, f"on {trial.spec.backend}: {reason}")
        if problems:
            lines = "".join(f"\n  optimizers.{label}: {reason}" for label, reason in problems.items())
            raise TryoutError(
                "nothing was trained: each optimizer took two steps on a small model, and "
                f"{len(problems)} cannot train; fix or leave out{lines}"
            )

    def _reason(self, spec: TrialSpec, call: Callable[..., Any]) -> str | None:
        there = set(roles(network(small(spec).workload, registry.info("digits"))).values())
        for config in groups.for_roles(spec.optimizer, there):
            reason = self._tried_config(spec, config, call)
            # A rule that takes matrices alone is sound; that a model has other weights too, its trials say.
            if reason is not None and not (
                groups.leaves(config) == (config,)
                and self._tried_config(spec, _on_matrices(config), call) is None
            ):
                return reason
        return None

    def _tried_config(self, spec: TrialSpec, config: Any, call: Callable[..., Any]) -> str | None:
        try:
            reason: str | None = call(tried, small(replace(spec, optimizer=config)), self._context)
        except ProcessEndedError:
            return None  # such code ends its own trials at most, and each records it
        return reason


def _on_matrices(config: Any) -> groups.Grouped:
    """The same optimizer for matrices, a plain one for the other weights."""
    rest = groups.Group(match=("rest",), config=SGD(lr=0.01))
    return groups.Grouped(groups=(groups.Group(match=("matrix",), config=config), rest))


def small(spec: TrialSpec) -> TrialSpec:
    """Take a trial's optimizer and machine for a training of two steps; a schedule moves its second."""
    workload = Workload(
        dataset="digits",
        model=SMALL,
        batch_size=BATCH,
        epochs=2,
        schedule=spec.workload.schedule,
        weight_decay=spec.workload.weight_decay,
    )
    return replace(spec, workload=workload)


def tried(spec: TrialSpec, context: Context) -> str | None:
    """Take two steps; the reason why that fails, or None."""
    engine = backends.engine(spec.backend, context)
    dataset = registry.load("digits")
    data = trial_data(dataset, spec.workload, spec.seeds, train_eval=BATCH)
    built = network(spec.workload, dataset.info)
    weights = matching.initial_weights(built, spec.seeds.init, spec.precision)
    rows = data.train.rows[: 2 * BATCH]
    with restored(), Interruption() as interruption:
        try:
            session = engine.open(spec, built, data, weights)
            session.train_epoch(rows[:BATCH], 1)
            if spec.workload.schedule is not None and spec.optimizer.lr is not None:
                session.set_lr(spec.optimizer.lr / 2)
            session.train_epoch(rows[BATCH:], 2)
        except UserError as error:
            return one_line(error)
        except Exception as error:  # custom code may fail in any way; here, that is the answer
            return f"{type(error).__name__}: {one_line(error)}"
        except BaseException:  # sys.exit, say, which is for its trials to say
            if interruption.requested:
                raise
    return None


def _key(trial: PlannedTrial) -> str:
    """Identify what is tried: a config on a machine; of a search's settings the numbers do not matter."""
    spec = trial.spec
    plain = to_plain(spec.optimizer)
    if trial.role == "tuning":
        plain = _without_numbers(plain)
    return content_hash([plain, spec.backend, spec.device, spec.precision, spec.workload.schedule is None])


def _without_numbers(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _without_numbers(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_without_numbers(item) for item in plain]
    return 0 if isinstance(plain, int | float) and not isinstance(plain, bool) else plain
