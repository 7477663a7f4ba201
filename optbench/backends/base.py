"""The contract of a training engine.

An engine turns a trial's arrays into a :class:`Session`; the protocol above it (``execution.protocol``) owns
everything that is not framework: which rows in which order, when to evaluate, when to stop, what to record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.base import TrialData
from optbench.environment import Context
from optbench.errors import UserError
from optbench.matching import Indices
from optbench.models.layers import BuiltLayer
from optbench.task import TASKS
from optbench.trial import TrialSpec, Workload

PartName = Literal["train_eval", "validation", "test"]
Weights = Mapping[str, NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """The loss of a trial: its name in each backend's table of losses, and the options of its training."""

    name: str
    options: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, workload: Workload) -> LossSpec:
        """Take the loss of a workload's task, with those of its options that the workload sets."""
        task = TASKS[workload.task]
        name = workload.loss or task.loss
        values = ((name, getattr(workload, name)) for name in task.loss_options)
        return cls(name=name, options=tuple((n, value) for n, value in values if value is not None))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an engine finds on a part of the data; the task's other metrics follow from the predictions.

    Attributes
    ----------
    loss : float
        Mean of the task's loss over the examples, without the options of its training.
    predictions : array, [n, ...]
        The task's kind of prediction for each example, in the order of the part; numbers are standardised as
        their targets are.
    outputs : array, [n, outputs], optional
        What the model gives for each example, if asked for.
    """

    loss: float
    predictions: NDArray[Any]
    outputs: NDArray[Any] | None = None


class Session(Protocol):
    """A running trial on a device."""

    def facts(self) -> Mapping[str, Any]:
        """Say what this session chose among ways to the same result, for the record's environment.

        ``optimizer`` and ``kernel`` that moves the weights; ``step``, how a step is taken, and
        ``step_because``; ``stored``, the precision of weights, losses and optimizer state; and with images
        ``memory_format`` and ``relu_after_pool``. Asked after :meth:`warm_up`.
        """

    def warm_up(self) -> None:
        """Compile and allocate what a step needs, leaving weights, state and random streams as they were."""

    def train_epoch(
        self,
        rows: Indices,
        epoch: int,
        x: NDArray[Any] | None = None,
        rates: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Take one step a batch over rows of the training pool, in order, the last short batch included.

        ``rates`` are the learning rates of the steps, where each has one of its own.

        ``x`` [len(rows), *shape], unscaled as the pool is, takes the place of the pool's inputs where the
        images are augmented; the targets stay those of the rows. A step is: gradient of the loss with its
        options and penalties, ``clip_value``, ``clip_norm``, ``weight_decay``, the optimizer's update.

        Returns the loss of each batch as it was before its step, in training mode with penalties; the device
        is synchronised.
        """

    def evaluate(self, part: PartName, *, outputs: bool = False, averaged: bool = False) -> Evaluation:
        """Evaluate a part in evaluation mode; the device is synchronised.

        ``averaged`` takes the moving average of the weights, which the workload must ask for.
        """

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the steps to come."""

    def weights(self) -> dict[str, NDArray[Any]]:
        """Copy the weights out, by parameter name in the canonical layout."""

    def remember(self) -> None:
        """Keep a copy of the weights on the device."""

    def recall(self) -> None:
        """Go back to the weights last remembered."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Copy out all that the steps to come depend on: weights, optimizer, learning rate, random streams.

        The weights last remembered are in it too.

        Raises
        ------
        UnsavableError
            If a custom optimizer keeps something that is no array or plain value.
        """

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a :meth:`state` of this trial: every step after it has the same bits.

        Raises
        ------
        ValueError, KeyError
            If it is not one; the session is of no use then.
        """

    def state_bytes(self) -> int:
        """Bytes of the optimizer's state on the device, beside weights and gradients."""


class Stack(Protocol):
    """Trials that differ in seeds and learning rates alone, trained as one program.

    An engine may offer ``stack(specs, built, sessions) -> Stack``, and ``stack_facts(spec, built, session)``
    with what a trial's record is to say of its steps in one.
    """

    @property
    def members(self) -> Sequence[Any]:
        """The trials as their protocols go on to see them: a session each, in the order of the sessions."""

    def train_epoch(
        self, sessions: Sequence[Any], rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None
    ) -> list[NDArray[np.float64]]:
        """Train an epoch of these sessions, those of the trials that have not ended, in the stack's order.

        The same steps as each session's ``train_epoch`` would take with its rows and inputs, up to rounding;
        afterwards the members show their new weights. Those of trials that have ended may be of no use.
        Returns the batch losses of each.
        """


class Engine(Protocol):
    """A framework."""

    name: str

    def configure(self, context: Context) -> None:
        """Compute with these settings from now on.

        Raises
        ------
        UserError
            If the framework cannot change one once it has started.
        """

    def resolve_device(self, device: str) -> str:
        """Turn ``auto`` into the best device of this machine; check any other name.

        Raises
        ------
        DeviceError
            If this machine has no such device.
        """

    def describe(self, device: str) -> Mapping[str, Any]:
        """Versions, threads and device name, for the record's environment."""

    def peak_bytes(self, device: str) -> int | None:
        """Most memory that this process has held on the device; None where the framework does not tell."""

    def open(
        self, spec: TrialSpec, built: tuple[BuiltLayer, ...], data: TrialData, weights: Weights
    ) -> Session:
        """Build the model with these weights and its optimizer on the trial's device."""


def entry(table: Mapping[str, T], name: str, table_of: str) -> T:
    """Look up what a backend has for a name of the vocabulary.

    Parameters
    ----------
    table : mapping
        One of a backend's tables.
    name : str
        Kind of layer, activation, loss ...
    table_of : str
        What the table holds, for the message: ``torch activations``.

    Raises
    ------
    NotImplementedError
        If the backend lacks it; nothing is ever put in its place.
    """
    if name not in table:
        raise NotImplementedError(f"{table_of}: there is none for {name!r}, only for {', '.join(table)}")
    return table[name]


class NotStackableError(Exception):
    """Trials that this engine cannot train as one program; they are trained one by one instead."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of any framework says that memory was short."""
    if isinstance(error, MemoryError) or type(error).__name__ in (
        "OutOfMemoryError",
        "ResourceExhaustedError",
    ):
        return True
    words = ("out of memory", "can't allocate memory", "RESOURCE_EXHAUSTED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def check_started(context: Context, started: Context, framework: str) -> None:
    """Refuse settings other than those that a framework has started with in this process.

    Raises
    ------
    UserError
        If the threads or determinism differ; the message says what to do.
    """
    for name in ("threads", "deterministic"):
        wanted, have = getattr(context, name), getattr(started, name)
        if wanted != have:
            raise UserError(
                f"backend {framework}: {name} is {wanted}, but in this process {framework} has started with "
                f"{name} {have} and cannot change; run one of the two in another process, or with workers=2"
            )


class DeviceError(UserError, RuntimeError):
    """A device that this machine or framework does not have."""


class UnsavableError(RuntimeError):
    """A state that cannot be written as arrays; the message says what is in the way."""


class BackendMissingError(UserError, RuntimeError):
    """A framework that is not installed; the message names the extra that brings it."""
