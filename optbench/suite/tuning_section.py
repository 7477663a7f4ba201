"""What a suite declares about tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt

from optbench.datasets import registry
from optbench.datasets.base import validation_count
from optbench.optimizers import OptimizerConfig
from optbench.suite.declared import refuse_unreached
from optbench.suite.validation import InvalidError, listed, parse, problem, shown, unknown_choice
from optbench.task import FORBID_EXTRA, TASKS
from optbench.trial import Seeds, Workload, to_plain
from optbench.tuning.space import Axis, family_axes, grid, read_axes, with_values

if TYPE_CHECKING:
    from optbench.suite.yamlfile import KeyPath

Sampler = Literal["random", "quasi-random", "tpe", "grid", "halving", "hyperband"]
#: Tuning seeds begin here unless the suite lists some, so that more evaluation seeds never meet them.
FIRST_SEED = 1_000_000


#: A larger search is a typo, and planning it would take minutes.
MOST_SETTINGS = 100_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every optimizer may spend on a workload; exactly one is given.

    Attributes
    ----------
    trials : int
        Settings of the hyperparameters; each is trained once with every tuning seed.
    epochs : int
        Epochs of training, over all settings and seeds.
    seconds : float
        Measured seconds of trials; the current setting when they run out is finished.
    """

    __pydantic_config__ = FORBID_EXTRA

    trials: Annotated[int, Gt(0)] | None = None
    epochs: Annotated[int, Gt(0)] | None = None
    seconds: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True, kw_only=True)
class TuningFile:
    """The section ``tuning`` of a suite file.

    Attributes
    ----------
    sampler : str
        How settings are drawn.
    trials : int, optional
        Short for ``budget: {trials: ..}``.
    budget : Budget, optional
        What every optimizer may spend on a workload.
    seeds : int or list
        How many tuning seeds, or which; never among the evaluation seeds.
    monitor : str, optional
        Picks the winner, by its mean over the tuning seeds: any metric that is recorded of the validation
        part. Never a test metric. That of the workloads' task if not given.
    epochs : int, optional
        Of a whole training of the search; those of the workload if not given.
    folds : int, optional
        Train every setting once for each of this many folds of the training part, each the validation part
        in turn, in place of the workload's own split.
    winners : int
        How many of the best settings are evaluated, labelled `adam #1`, `adam #2`, and so on; where
        the network is searched, each with its network, as workloads.
    space : mapping
        By optimizer label: hyperparameters to search. The family's own space where an optimizer is not named.
    network : mapping
        Keys of the workload to search too, as in ``model.dropout``.
    widen : int
        How often a workload is searched again, at equal cost for all, while a winner lies on an edge.
    untuned : bool
        Also train the hyperparameters of the suite file, for a table that compares them with the tuned ones.
    eta : int
        Successive halving keeps one in `eta`.
    """

    __pydantic_config__ = FORBID_EXTRA

    sampler: Sampler = "random"
    trials: Annotated[int, Gt(0)] | None = None
    budget: Budget | None = None
    seeds: Any = 3
    monitor: str | None = None
    epochs: Annotated[int, Gt(0)] | None = None
    folds: Annotated[int, Gt(1)] | None = None
    winners: Annotated[int, Gt(0)] = 1
    space: Any = None
    network: Any = None
    widen: Annotated[int, Ge(0)] = 0
    untuned: bool = True
    eta: Annotated[int, Gt(1)] = 3


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A tuning declaration, resolved: ``space`` has every optimizer's axes."""

    sampler: Sampler
    budget: Budget
    seeds: tuple[Seeds, ...]
    monitor: str
    space: Mapping[str, tuple[Axis, ...]]
    network: tuple[Axis, ...] = ()
    widen: int = 0
    untuned: bool = True
    eta: int = 3
    length: int | None = None
    folds: int | None = None
    winners: int = 1

    @property
    def repeats(self) -> int:
        """Trainings of one setting: one a seed and fold."""
        return len(self.seeds) * (self.folds or 1)

    @property
    def stages(self) -> int:
        """Searches of each optimizer: one for the network and one on it; one for both where several win."""
        return 2 if self.network and self.winners == 1 and any(self.space.values()) else 1

    def whole(self, workload: Workload) -> int:
        """Epochs of a whole training of the search."""
        return self.length or workload.epochs

    def settings(self, workload: Workload) -> int | None:
        """Settings that each optimizer gets on a workload, widening aside; None for a budget in seconds."""
        if self.budget.trials is not None:
            return self.budget.trials
        if self.budget.epochs is None:
            return None
        if self.sampler in ("halving", "hyperband"):
            return sum(rungs[0][0] for rungs in self.brackets(self.whole(workload)))
        return self.budget.epochs // (self.whole(workload) * self.repeats)

    def trainings(self, workload: Workload) -> int | None:
        """Trials of one optimizer on a workload, those of every rung; None for a budget in seconds."""
        settings = self.settings(workload)
        if settings is not None and self.sampler in ("halving", "hyperband"):
            settings = sum(count for rungs in self.brackets(self.whole(workload)) for count, _ in rungs)
        return settings and settings * self.repeats * self.stages

    def epochs(self, workload: Workload) -> int:
        """Epochs that one optimizer's search takes on a workload, a resumed training counted once."""
        if self.sampler in ("halving", "hyperband"):
            total = sum(_epochs(rungs) for rungs in self.brackets(self.whole(workload)))
        else:
            total = (self.settings(workload) or 0) * self.whole(workload)
        return total * self.repeats * self.stages

    def brackets(self, epochs: int) -> list[list[tuple[int, int]]]:
        """Brackets that the budget pays for: of each its rungs as (settings, epochs).

        Hyperband's brackets go from many short trainings to a few whole ones, again and again; successive
        halving repeats the first. Source: Li et al. (2018), JMLR 18(185), algorithm 1. The last bracket is
        cut to what is left of a budget of trials; one that a budget of epochs does not cover is left out.
        For a budget in seconds: one round of brackets.
        """
        steps = 0
        while self.eta ** (steps + 1) <= epochs:
            steps += 1
        kinds = range(steps, -1, -1) if self.sampler == "hyperband" else (steps,)
        cycle = [self._rungs(s, steps, epochs, -(-(steps + 1) * self.eta**s // (s + 1))) for s in kinds]
        if self.budget.seconds is not None:
            return cycle
        found: list[list[tuple[int, int]]] = []
        left = self.budget.trials or self.budget.epochs or 0
        while True:
            for number, rungs in enumerate(cycle):
                if self.budget.trials is not None:
                    cost = count = min(left, rungs[0][0])
                    cut = self._rungs(kinds[number], steps, epochs, count)
                else:
                    cut, cost = rungs, self.repeats * _epochs(rungs)
                if cost > left or not left:
                    return found
                found.append(cut)
                left -= cost

    def _rungs(self, s: int, steps: int, epochs: int, count: int) -> list[tuple[int, int]]:
        """Rungs of the bracket that halves ``s`` times."""
        rungs = []
        for i in range(s + 1):
            kept = max(1, count // self.eta**i)
            rungs.append((kept, max(1, round(epochs / self.eta ** (s - i)))))
        return rungs


def _epochs(rungs: Sequence[tuple[int, int]]) -> int:
    """Epochs of a bracket, a resumed training counted once."""
    done, total = 0, 0
    for count, epochs in rungs:
        total += count * (epochs - done)
        done = epochs
    return total


def read_tuning(
    entry: Any,
    optimizers: Mapping[str, OptimizerConfig],
    workloads: Mapping[str, Workload],
    evaluation: Sequence[Seeds],
) -> Tuning:
    """Check the section ``tuning`` of a suite file.

    Raises
    ------
    InvalidError
        With everything that does not fit, by its path.
    """
    path: KeyPath = ("tuning",)
    file = parse(TuningFile, entry, path)
    tuning = Tuning(
        sampler=file.sampler,
        budget=_budget(file, path),
        seeds=_tuning_seeds(file.seeds, evaluation, (*path, "seeds")),
        monitor=_monitor(file.monitor, workloads, (*path, "monitor")),
        space=_spaces(file.space, optimizers, (*path, "space"), networks=file.network is not None),
        network=read_axes(file.network, (*path, "network")) if file.network is not None else (),
        widen=file.widen,
        untuned=file.untuned,
        eta=file.eta,
        length=file.epochs,
        folds=file.folds,
        winners=file.winners,
    )
    _check_winners(tuning, optimizers, path)
    if file.sampler == "grid":
        _check_grid(tuning, path)
    for label, workload in workloads.items():
        if workload.split.validation == 0 and workload.split.how != "published" and not tuning.folds:
            raise problem(
                path, f"workload {label} has no validation examples to select by; set its split.validation"
            )
        if tuning.length is not None and tuning.length < workload.epochs:
            facts = registry.info(workload.dataset)
            held_out = (
                validation_count(workload.split, facts.train) if workload.split.source == "train" else 0
            )
            refuse_unreached(workload.lasting(tuning.length), facts, held_out, (*path, "epochs"))
        budget = tuning.budget
        if (budget.trials or 0) > MOST_SETTINGS or (budget.epochs or 0) // tuning.whole(
            workload
        ) > MOST_SETTINGS:
            found = f"{budget.trials} trials" if budget.trials else f"{budget.epochs} epochs"
            raise problem(path, f"found {found}; a search has {MOST_SETTINGS:,} settings at most: give fewer")
        settings = tuning.settings(workload)
        if settings is not None and not settings:
            least = tuning.whole(workload) * tuning.repeats
            raise problem(
                (*path, "budget"),
                f"found {file.budget and file.budget.epochs} epochs; one setting of workload {label} takes "
                f"{least} ({tuning.whole(workload)} epochs x {tuning.repeats} seeds and folds): give that "
                "at least",
            )
    return tuning


def _monitor(given: str | None, workloads: Mapping[str, Workload], path: KeyPath) -> str:
    """What picks the winner: a metric that all workloads record of the validation part."""
    tasks = {name: TASKS[workload.task] for name, workload in workloads.items()}
    own = dict.fromkeys(task.monitor for task in tasks.values())
    monitor: str = given or (next(iter(own)) if len(own) == 1 else "val_loss")
    for label, workload in workloads.items():
        recorded = [name for name in tasks[label].history if name.startswith("val_")]
        recorded += [metric.column("val_" + metric.name).name for metric in workload.metrics or ()]
        if monitor not in recorded:
            raise problem(path, f"found {shown(monitor)}; workload {label} records {listed(recorded)}")
    return monitor


def _check_winners(tuning: Tuning, optimizers: Mapping[str, OptimizerConfig], path: KeyPath) -> None:
    """Refuse several winners where they would stand for different questions."""
    if tuning.winners == 1:
        return
    if tuning.untuned:
        raise problem(
            (*path, "untuned"),
            "with several winners the declared numbers have no partner; set untuned: false",
        )
    if tuning.network and len(optimizers) > 1:
        raise problem(
            (*path, "winners"),
            f"found {tuning.winners} with a searched network and {len(optimizers)} optimizers; several "
            "networks can win for one optimizer alone: search the networks in a suite of its own",
        )
    if tuning.budget.trials is not None and tuning.budget.trials < tuning.winners:
        raise problem((*path, "winners"), f"found {tuning.winners} of {tuning.budget.trials} settings")


def _budget(file: TuningFile, path: KeyPath) -> Budget:
    budget = file.budget or Budget(trials=file.trials)
    if (file.trials is not None) == (file.budget is not None) or len(to_plain(budget)) != 1:
        raise problem(
            path, "needs one budget: trials: 16, or budget: {epochs: 480}, or budget: {seconds: 3600}"
        )
    if budget.seconds is not None and file.sampler == "grid":
        raise problem((*path, "budget"), "a grid has a fixed number of settings; give trials")
    return budget


def _tuning_seeds(entry: Any, evaluation: Sequence[Seeds], path: KeyPath) -> tuple[Seeds, ...]:
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 < entry <= 1000:
        values = [FIRST_SEED + k for k in range(entry)]
    elif (
        isinstance(entry, list)
        and entry
        and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in entry)
        and len(set(entry)) == len(entry)
    ):
        values = entry
    else:
        raise problem(
            path, f"found {shown(entry)}; give a count from 1, or a list of different whole numbers"
        )
    taken = {number for seeds in evaluation for number in to_plain(seeds).values()}
    if both := sorted(taken & set(values)):
        raise problem(
            path,
            f"{both[0]} is an evaluation seed too; tuning and evaluation must not share seeds: take others, "
            "or give a count",
        )
    return tuple(Seeds(split=s, init=s, order=s, dropout=s, augment=s) for s in values)


def _spaces(
    entry: Any, optimizers: Mapping[str, OptimizerConfig], path: KeyPath, *, networks: bool
) -> dict[str, tuple[Axis, ...]]:
    given = {} if entry is None else entry
    if not isinstance(given, dict):
        raise problem(path, f"found {shown(entry)}; map optimizers to the hyperparameters to search")
    unknown = [label for label in given if label not in optimizers]
    if unknown:
        raise InvalidError(
            [unknown_choice(label, optimizers, (*path, label), what="optimizer") for label in unknown]
        )
    spaces = {}
    for label, config in optimizers.items():
        nothing = networks and given.get(label) == {}  # its numbers stand, only the network is searched
        axes = family_axes(config) if label not in given else ()
        if label in given and not nothing:
            axes = read_axes(given[label], (*path, label))
        if not axes and not nothing:
            raise problem(
                path, f"has nothing for {label}, a class without a space of its own; say what to search"
            )
        for axis in axes:
            for u in (
                (0.0, 1.0)
                if axis.kind != "choice"
                else [k / len(axis.choices) for k in range(len(axis.choices))]
            ):
                with_values(config, {axis.name: axis.at(u)}, (*path, label))
        spaces[label] = axes
    return spaces


def _check_grid(tuning: Tuning, path: KeyPath) -> None:
    if tuning.budget.trials is None:
        raise problem((*path, "budget"), "a grid has a fixed number of settings; give trials")
    for label, axes in tuning.space.items():
        try:
            grid((*tuning.network, *axes), tuning.budget.trials)
        except ValueError as error:
            raise problem((*path, "space", label), f"{error}, and every optimizer gets as many") from None
