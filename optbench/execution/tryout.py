"""Try what is not optbench's own before a suite trains with it: each optimizer takes steps on a small model.

Arguments that a class does not take, groups that it wants, closures and second derivatives show at the first
step, and then it has cost a second and no trial. The small model has weights of the roles that the suite's
models have. Weights that become NaN are no reason to refuse: to diverge is an outcome, and what happens on a
small model says little of another.

Rules of optbench's own are not tried: their hyperparameters, and the roles that groups match, are checked
where the suite is read, and a test has each rule take steps with whatever its bounds allow.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.environment import Context
from optbench.errors import UserError
from optbench.execution.jobs import ProcessEndedError
from optbench.execution.process_state import Interruption, restored
from optbench.models.layers import BatchNorm, Conv2D, Dense, Model, Role, roles
from optbench.optimizers import SGD, groups, has_rule
from optbench.suite.spec import PlannedTrial
from optbench.suite.validation import one_line
from optbench.trial import TrialSpec, Workload, content_hash, to_plain

BATCH = 8
#: Roles of a small model of numbers or images.
ROLES: tuple[Role, ...] = ("matrix", "conv", "head", "norm", "bias")


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
        #: A workload is kept beside its roles, so that its id is not another's.
        self._roles: dict[int, tuple[Workload, frozenset[Role]]] = {}

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
            there = self._roles_of(trial.spec.workload)
            key = f"{_key(trial)} {sorted(there)}"
            if key in self._tried:
                continue
            self._tried.add(key)
            if trial.optimizer in problems:
                continue
            if (reason := self._reason(trial.spec, there, call)) is not None:
                problems[trial.optimizer] = f"on {trial.spec.backend}: {reason}"
        if problems:
            lines = "".join(f"\n  optimizers.{label}: {reason}" for label, reason in problems.items())
            raise TryoutError(
                "nothing was trained: each optimizer took two steps on a small model, and "
                f"{len(problems)} cannot train; fix or leave out{lines}"
            )

    def _roles_of(self, workload: Workload) -> frozenset[Role]:
        """Roles of a small model that has those of a workload's network, as far as it can."""
        if id(workload) not in self._roles:
            found = roles(network(workload, registry.info(workload.dataset))).values()
            self._roles[id(workload)] = workload, frozenset(found) & frozenset(ROLES)
        return self._roles[id(workload)][1]

    def _reason(self, spec: TrialSpec, there: Collection[Role], call: Callable[..., Any]) -> str | None:
        trial = small(spec, there)
        has = set(roles(network(trial.workload, registry.info("digits"))).values())
        for config in groups.for_roles(spec.optimizer, has):
            reason = self._tried_config(replace(trial, optimizer=config), call)
            if reason is None:
                continue
            alone = groups.leaves(config) == (config,) and "matrix" in has
            # A rule that takes matrices alone is sound; that a model has other weights too, its trials say.
            if alone and self._tried_config(replace(trial, optimizer=_on_matrices(config)), call) is None:
                continue
            return reason
        return None

    def _tried_config(self, spec: TrialSpec, call: Callable[..., Any]) -> str | None:
        try:
            reason: str | None = call(tried, spec, self._context)
        except ProcessEndedError:
            return None  # such code ends its own trials at most, and each records it
        return reason


def _on_matrices(config: Any) -> groups.Grouped:
    """The same optimizer for matrices, a plain one for the other weights."""
    rest = groups.Group(match=("rest",), config=SGD(lr=0.01))
    return groups.Grouped(groups=(groups.Group(match=("matrix",), config=config), rest))


def small(spec: TrialSpec, there: Collection[Role] = ROLES) -> TrialSpec:
    """Take a trial's optimizer and machine for a training of two steps; a schedule moves its second.

    Parameters
    ----------
    spec : TrialSpec
        The trial.
    there : collection of str
        Roles of the weights that the model is to have; a head it has in any case.
    """
    workload = Workload(
        dataset="digits",
        model=small_model(there),
        batch_size=BATCH,
        epochs=2,
        schedule=spec.workload.schedule,
        weight_decay=spec.workload.weight_decay,
    )
    return replace(spec, workload=workload)


def small_model(there: Collection[Role] = ROLES) -> Model:
    """Make a model that has weights of these roles, few of each."""
    bias = "bias" in there
    layers: list[Any] = []
    if "conv" in there:
        layers.append(Conv2D(filters=2, kernel=3, stride=2, bias=bias))
    if "norm" in there:
        layers.append(BatchNorm())
    if "matrix" in there:
        layers += [Dense(units=4, activation="relu", bias=bias)] * 2
    return Model(name="small", layers=(*layers, Dense(bias=bias)))


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
            return _described(error)
        except BaseException:  # sys.exit, say, which is for its trials to say
            if interruption.requested:
                raise
    return None


def _described(error: Exception) -> str:
    """Name an error, and the line of code that is not optbench's: the message of some says nothing."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    file = Path(at.filename)
    place = "" if Path(__file__).parents[1] in file.parents else f" ({file.name}:{at.lineno})"
    return ": ".join(filter(None, (type(error).__name__, one_line(error)))) + place


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
