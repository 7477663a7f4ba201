"""The session of the frameworks that compile: pure programs over a state that is passed in and handed back.

JAX and TensorFlow differ in how a program is written and compiled, and in nothing else; what they share is
here. A program knows no trial: weights, optimizer state, learning rate, dropout key and data are its
arguments, so that all trials of one configuration run the same compiled code, whatever their seeds and
learning rates, and two sessions never touch each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.backends.arrays import Resident, evaluation_batch, layout, scaled
from optbench.backends.base import Evaluation, LossSpec, PartName, Weights
from optbench.backends.own_network import init_seed, own_of
from optbench.datasets.base import TrialData
from optbench.matching import Indices
from optbench.models.layers import BuiltLayer, Role
from optbench.optimizers import SGD, OptimizerConfig, groups
from optbench.optimizers.groups import at_lr, leaves
from optbench.optimizers.schedules import is_stepwise
from optbench.task import TASKS
from optbench.trial import TrialSpec, stored_precision

#: Configurations whose compiled programs a process keeps.
KEPT = 256

State = dict[str, Any]
#: Learning rate of all steps, or of each.
Rate = float | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a program is compiled for, beside the shapes of the arrays it is called with.

    The learning rate is an argument, so it is taken out of the optimizer's config (a custom class keeps its
    arguments, and groups the proportion of their learning rates). Seeds, epochs, schedules and data are not
    in here.
    """

    built: tuple[BuiltLayer, ...]
    optimizer: OptimizerConfig
    device: str
    precision: str
    loss: LossSpec
    #: Kind of targets and predictions, see :class:`optbench.task.Task`.
    targets: str
    #: Tokens of a window, where a pool is a text and its rows are where windows start.
    context: int | None
    ema: float | None
    accumulate: int | None
    clip_value: float | None
    clip_norm: float | None
    weight_decay: float | None

    @classmethod
    def of(cls, spec: TrialSpec, built: tuple[BuiltLayer, ...]) -> Configuration:
        """Take what matters from a trial."""
        workload, optimizer = spec.workload, spec.optimizer
        return cls(
            built=built,
            optimizer=at_lr(optimizer, 1.0),
            device=spec.device,
            precision=spec.precision,
            loss=LossSpec.of(workload),
            targets=TASKS[workload.task].targets,
            context=workload.context,
            ema=workload.ema,
            accumulate=workload.accumulate,
            clip_value=workload.clip_value,
            clip_norm=workload.clip_norm,
            weight_decay=workload.weight_decay,
        )

    def evaluated(self) -> Configuration:
        """What an evaluation is compiled for: the same with every optimizer."""
        return replace(
            self,
            optimizer=SGD(lr=1.0),
            loss=replace(self.loss, options=()),
            clip_value=None,
            clip_norm=None,
            weight_decay=None,
        )


def accumulated(
    passes: Callable[[Any, slice, int], tuple[Any, Any, Any]], model: Any, *, n: int, parts: int
) -> tuple[Any, Any, Any]:
    """Loss, running averages and gradients of n examples from those of their parts, one after the other.

    ``passes(model, part, number)`` gives those of one part; the averages that one moves are the next one's.
    """
    size, total = -(-n // parts), 0.0
    moved: dict[str, Any] = {}
    gradients: dict[str, Any] = {}
    for number, start in enumerate(range(0, n, size)):
        part = slice(start, min(start + size, n))
        share = (part.stop - part.start) / n
        loss, new, found = passes({**model, **moved}, part, number)
        moved |= new
        total = total + loss * share
        gradients = {name: gradients.get(name, 0.0) + g * share for name, g in found.items()}
    return total, moved, gradients


class Programs(Protocol):
    """The compiled programs of one configuration.

    ``rows`` is int32 [batches, batch]: one step (or one evaluation) a row. ``x`` and ``y`` are whole pools.
    """

    #: How an epoch is run, for the record.
    step: str
    #: Of the trained weights, by name in their order.
    roles: Mapping[str, Role]

    def scope(self) -> AbstractContextManager[Any]:
        """Device and precision; every other method is called inside."""

    def put(self, array: NDArray[Any]) -> Any:
        """Copy an array to the device."""

    def own_weights(self, seed: int) -> Weights:
        """Weights that a custom network makes for a seed of the init stream."""

    def start(self, weights: Weights, key: NDArray[np.uint32]) -> State:
        """Make the state before the first step: ``model`` holds the weights, ``key`` seeds dropout."""

    def epoch(self, state: State, lr: Rate, x: Any, y: Any, places: Any, rows: Any) -> tuple[State, Any]:
        """Take one step a row: inputs ``x[places]``, targets ``y[rows]``. Returns the losses [batches].

        ``lr`` is the learning rate of all steps, or [batches], one a step.
        """

    def evaluate(self, model: Any, x: Any, y: Any, rows: Any) -> tuple[Any, Any, Any]:
        """Losses and predictions [batches, batch, ...], outputs [batches, batch, outputs]."""

    def leaves(self, tree: Any) -> list[NDArray[Any]]:
        """Copy out the arrays of a state, or of a part of one, in a fixed order."""

    def filled(self, tree: Any, leaves: list[NDArray[Any]]) -> Any:
        """Make a tree of the same structure from other leaves, on the device."""

    def prepare_epoch(
        self, state: State, x: Any, y: Any, batches: int, batch: int, *, stepwise: bool = False
    ) -> None:
        """Compile :meth:`epoch` for these shapes and take no step."""

    def prepare_evaluation(self, state: State, x: Any, y: Any, rows: Any) -> None:
        """Compile :meth:`evaluate` for these shapes."""


class FunctionalSession:
    """A running trial; see :class:`optbench.backends.base.Session`."""

    def __init__(
        self,
        programs: Programs,
        resident: Resident,
        spec: TrialSpec,
        built: tuple[BuiltLayer, ...],
        data: TrialData,
        weights: Weights,
    ) -> None:
        self.programs, self.data, self.precision = programs, data, stored_precision(spec.precision)
        self.lr = spec.optimizer.lr or 0.0  # a custom class may have no such argument
        self._augmented = spec.workload.augment is not None
        self._stepwise = is_stepwise(spec.workload.schedule)
        size = spec.workload.batch_size
        self.batch = data.examples if size == "full" else size
        key = matching.stream(spec.seeds.dropout, "dropout").integers(2**32, size=2, dtype=np.uint32)
        with programs.scope():
            if own_of(built) is not None:
                weights = programs.own_weights(init_seed(spec.seeds.init))
            options: dict[str, Any] = {"device": spec.device, "dtype": self.precision, "put": programs.put}
            self.pool = self._x, self._y = resident.pool(data.train, data, **options)
            self._state = programs.start(weights, key)
            self._parts = {
                name: (*resident.pool(part, data, **options), part)
                for name, part in (
                    ("train_eval", data.train_eval),
                    ("validation", data.validation),
                    ("test", data.test),
                )
            }
            limit = evaluation_batch(built)
            self._evaluation = {
                name: programs.put(_even(part.rows, limit)) for name, (_, _, part) in self._parts.items()
            }
        self._names = tuple(weights)
        self._optimizer = " and ".join(part.optimizer for part in leaves(spec.optimizer))
        sizes = {name: np.size(w) for name, w in weights.items()}
        self._groups = groups.described(spec.optimizer, programs.roles, sizes)
        self._layout = layout(built)
        self._remembered: Any = None

    def facts(self) -> Mapping[str, Any]:
        """Name the rule; a framework compiles it with the rest of the epoch."""
        return {
            "optimizer": self._optimizer,
            "kernel": "compiled epoch",
            "step": self.programs.step,
            "stored": self.precision,
            **self._groups,
            **self._layout,
        }

    def warm_up(self) -> None:
        """Compile the epoch, its short last batch and the evaluations; nothing is run on the weights."""
        with self.programs.scope():
            x = self._x
            if self._augmented:
                x = self.programs.put(np.zeros((self.data.rows_each, *self._x.shape[1:]), self.precision))
            whole, rest = divmod(self.data.rows_each, self.batch)
            for batches, batch in ((whole, self.batch), (min(rest, 1), rest)):
                if batches:
                    self.programs.prepare_epoch(
                        self._state, x, self._y, batches, batch, stepwise=self._stepwise
                    )
            for name, (x, y, part) in self._parts.items():
                if len(part):
                    self.programs.prepare_evaluation(self._state, x, y, self._evaluation[name])

    def train_epoch(
        self,
        rows: Indices,
        epoch: int,
        x: NDArray[Any] | None = None,
        rates: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """See :class:`optbench.backends.base.Session`."""
        losses = []
        with self.programs.scope():
            pool = self._x if x is None else self.programs.put(scaled(x, self.data, self.precision))
            places = rows if x is None else np.arange(len(rows))
            whole = len(rows) // self.batch * self.batch
            for part in (slice(0, whole), slice(whole, None)):
                if len(rows[part]):
                    batches = [
                        self.programs.put(batched(indices[part], self.batch)) for indices in (places, rows)
                    ]
                    lr: Rate = self.lr
                    if rates is not None:
                        lr, rates = rates[: len(batches[0])], rates[len(batches[0]) :]
                    self._state, taken = self.programs.epoch(self._state, lr, pool, self._y, *batches)
                    losses.append(taken)
            return np.concatenate([np.asarray(taken, np.float64) for taken in losses])

    @property
    def current(self) -> State:
        """All that the steps to come depend on, on the device."""
        return self._state

    @property
    def kept(self) -> Any:
        """The weights last remembered, None without any."""
        return self._remembered

    def release(self) -> None:
        """Give up the state, which a stack has taken over."""
        self._state, self._remembered = {}, None

    def part(self, name: PartName) -> tuple[Any, Any, Any, int]:
        """Inputs, targets, batches of rows [batches, batch] and number of examples of a part."""
        x, y, which = self._parts[name]
        return x, y, self._evaluation[name], len(which)

    def evaluate(self, part: PartName, *, outputs: bool = False, averaged: bool = False) -> Evaluation:
        """See :class:`optbench.backends.base.Session`."""
        model = self._state["model"]
        model = {**model, **self._state["ema"]} if averaged else model
        return self.evaluated(model, part, outputs=outputs)

    def evaluated(self, model: Any, part: PartName, *, outputs: bool) -> Evaluation:
        """Evaluate a part with these weights."""
        x, y, which = self._parts[part]
        n = len(which)
        with self.programs.scope():
            evaluated = self.programs.evaluate(model, x, y, self._evaluation[part])
            wanted = evaluated if outputs else evaluated[:2]
            arrays = [np.asarray(a).reshape(-1, *a.shape[2:])[:n] for a in wanted]
        return Evaluation(
            loss=float(arrays[0].sum(dtype=np.float64)) / n,
            predictions=arrays[1],
            outputs=arrays[2] if outputs else None,
        )

    def set_lr(self, lr: float) -> None:
        """See :class:`optbench.backends.base.Session`."""
        self.lr = lr

    def weights(self) -> dict[str, NDArray[Any]]:
        """See :class:`optbench.backends.base.Session`."""
        return {name: np.array(self._state["model"][name]) for name in self._names}

    def remember(self) -> None:
        """See :class:`optbench.backends.base.Session`. Arrays of a state never change, so no copy is made."""
        self._remembered = self._state["model"]

    def recall(self) -> None:
        """See :class:`optbench.backends.base.Session`."""
        self._state = {**self._state, "model": self._remembered}

    def state(self) -> dict[str, NDArray[Any]]:
        """See :class:`optbench.backends.base.Session`."""
        copied = {"lr": np.array(self.lr)}
        with self.programs.scope():
            for part, tree in (("state", self._state), ("remembered", self._remembered)):
                leaves = self.programs.leaves(tree) if tree is not None else []
                copied |= {f"{part}/{number}": raw(leaf) for number, leaf in enumerate(leaves)}
        return copied

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See :class:`optbench.backends.base.Session`."""
        with self.programs.scope():
            if "remembered/0" in state:
                self._remembered = self._filled(self._state["model"], "remembered", state)
            self._state = self._filled(self._state, "state", state)
        self.lr = float(state["lr"])

    def state_bytes(self) -> int:
        """See :class:`optbench.backends.base.Session`."""
        with self.programs.scope():
            return sum(leaf.nbytes for leaf in self.programs.leaves(self._state["optimizer"]))

    def _filled(self, tree: Any, part: str, state: Mapping[str, NDArray[Any]]) -> Any:
        leaves = []
        for number, old in enumerate(self.programs.leaves(tree)):
            new = state[f"{part}/{number}"]
            if (new.shape, new.dtype) != (old.shape, raw(old).dtype):
                raise ValueError(f"{part}/{number} is {new.dtype} {new.shape}, not {old.dtype} {old.shape}")
            leaves.append(new.view(old.dtype))
        return self.programs.filled(tree, leaves)


def raw(array: NDArray[Any]) -> NDArray[Any]:
    """Give an array that NumPy has no type of its own for (bfloat16) as unsigned integers."""
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array


def batched(rows: Indices, batch: int) -> NDArray[np.int32]:
    """Whole batches as rows of a matrix, or the one short batch that is left."""
    return rows.astype(np.int32).reshape(-1, min(batch, len(rows)))


def _even(rows: Indices, limit: int) -> NDArray[np.int32]:
    """Split rows into batches of one size, at most ``limit``; the first row fills up the last batch."""
    batches = max(1, -(-len(rows) // limit))
    size = -(-len(rows) // batches)
    filled = np.full(batches * size, rows[0] if len(rows) else 0, np.int32)
    filled[: len(rows)] = rows
    return filled.reshape(batches, size)
