"""Which way a trial's steps take: what the suite asks for, or the fastest of those with the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from optbench.backends.base import MEASURED
from optbench.backends.functional import Configuration
from optbench.backends.torch import dense
from optbench.backends.torch.compiled import CompiledStep, Program
from optbench.backends.torch.graph import CudaRecorder, GraphStep, obstacle
from optbench.backends.torch.model import LossOptions
from optbench.backends.torch.steps import AutogradStep, Step
from optbench.models.layers import BuiltLayer
from optbench.trial import TrialSpec

if TYPE_CHECKING:
    from optbench.backends.torch.engine import TorchSession

#: Full batches that a measurement times, and the share of autograd's time that a graph must not exceed.
TIMED_STEPS = 12
WORTH = 0.95

MakeStep = Callable[["TorchSession"], Step]
#: Opens the trial once more, to try a way of its steps.
Open = Callable[[MakeStep], "TorchSession"]
#: What has been found about graphs in this process: the reason against one, or None.
Found = dict[tuple[Configuration, object, str], str | None]


def make_step(
    trial: TrialSpec,
    built: tuple[BuiltLayer, ...],
    options: LossOptions,
    found: Found,
    again: Open,
    *,
    asked: str,
) -> MakeStep:
    """Choose the way of a trial's steps.

    Parameters
    ----------
    trial, built, options
        What is trained.
    found : dict
        What the engine knows from trials before; a configuration is tried and timed once a process.
    again : callable
        Opens the trial a second time, for a try.
    asked : str
        The way asked for, or ``auto``; see :data:`optbench.environment.STEPS`.

    Returns
    -------
    callable
        Makes the step of a session.
    """
    if asked == "eager":
        return lambda session: AutogradStep("asked for")
    if asked == "compiled":
        if trial.device == "mps":
            return lambda session: AutogradStep("compiled was asked for: not on mps")
        return lambda session: CompiledStep(Program(built=built, options=options), "asked for")
    if asked == "auto" and dense.takes(trial, built):
        return lambda session: dense.DenseStep(built, "dense layers on a CPU")
    if trial.device != "cuda":
        why = "graph was asked for: it needs a CUDA device" if asked == "graph" else "the only one here"
        return lambda session: AutogradStep(why)
    key = (Configuration.of(trial, built), trial.workload.batch_size, asked)
    if key not in found:
        found[key] = _against_graph(again, measure=asked == "auto")
    against = found[key]
    if against is None:
        why = MEASURED if asked == "auto" else "asked for"
        return lambda session: GraphStep(session.optimizer, CudaRecorder(), why)
    return lambda session: AutogradStep(against if asked == "auto" else f"graph was asked for: {against}")


def _against_graph(again: Open, *, measure: bool) -> str | None:
    """Try the trial's steps as a graph; the reason against it, or None."""
    plain = again(lambda session: AutogradStep(""))
    if (reason := obstacle(plain.optimizer, same_bits=measure)) is not None:
        return reason
    try:
        graph = again(lambda session: GraphStep(session.optimizer, CudaRecorder(), ""))
        taken = _seconds(graph)
    except RuntimeError as error:  # an operation that cannot be recorded
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return MEASURED if measure and taken > WORTH * _seconds(plain) else None


def _seconds(session: TorchSession) -> float:
    """Seconds of a few steps, the fastest of three after a first."""
    session.warm_up()
    rows = session.some_rows(TIMED_STEPS)
    taken = []
    for _ in range(4):
        clock = time.perf_counter()
        session.train_epoch(rows, 1)
        taken.append(time.perf_counter() - clock)
    return min(taken[1:])
