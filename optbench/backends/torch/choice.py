"""Which way a trial's steps take: what the suite asks for, or the fastest of those with the same bits.

The choice follows from what is trained, on which device, by which versions. A clock would find another way
in a process that shares the device, and trials of one optimizer would go different ways.
"""

from __future__ import annotations

from collections.abc import Callable

from optbench.backends.base import LossSpec
from optbench.backends.functional import Configuration
from optbench.backends.torch.compiled import CompiledStep, Program
from optbench.backends.torch.dense import DenseStep, can_be_written_out
from optbench.backends.torch.graph import CudaRecorder, GraphStep, obstacle
from optbench.backends.torch.session import TorchSession, half_device
from optbench.backends.torch.steps import AutogradStep, MakeStep
from optbench.models.layers import BuiltLayer
from optbench.optimizers.schedules import is_stepwise
from optbench.trial import TrialSpec

#: Full batches of a try: one as it is, from which the next is recorded, and two replays.
TRIED_STEPS = 3
#: Why ``auto`` takes a graph, for the record.
RECORDED = "a step of the same bits in one launch"

#: Opens the trial once more, to try a way of its steps.
OpenTrial = Callable[[MakeStep], TorchSession]
#: Reason against a graph, or None, by configuration, batch size and what was asked for.
GraphObstacles = dict[tuple[Configuration, object, str], str | None]


def make_step(
    trial: TrialSpec,
    built: tuple[BuiltLayer, ...],
    obstacles: GraphObstacles,
    open_trial: OpenTrial,
    *,
    requested: str,
) -> MakeStep:
    """Choose the way of a trial's steps.

    Parameters
    ----------
    trial, built
        What is trained.
    obstacles : dict
        What the engine knows from trials before; a configuration is tried once a process.
    open_trial : callable
        Opens the trial a second time, for a try.
    requested : str
        The way asked for, or ``auto``; see :data:`optbench.environment.STEPS`.

    Returns
    -------
    callable
        Makes the step of a trial's state.
    """
    if trial.workload.model.own is not None:
        return lambda state: AutogradStep("a custom network")
    if requested == "eager":
        return _one_by_one(trial, built, "asked for")
    if requested == "compiled":
        if trial.device == "mps":
            return lambda state: AutogradStep("compiled was asked for: not on mps")
        program = Program(built=built, loss=LossSpec.of(trial.workload), half=half_device(trial))
        return lambda state: CompiledStep(program, "asked for")
    if requested == "auto" and trial.device == "cpu" and can_be_written_out(trial, built):
        return lambda state: DenseStep(built, "dense layers on a CPU")
    if trial.device != "cuda":
        why = "graph was asked for: it needs a CUDA device" if requested == "graph" else "the only one here"
        return lambda state: AutogradStep(why)
    if is_stepwise(trial.workload.schedule):
        return lambda state: AutogradStep("each step has a learning rate of its own")
    key = (Configuration.of(trial, built), trial.workload.batch_size, requested)
    if key not in obstacles:
        obstacles[key] = _against_graph(open_trial, same_bits=requested == "auto")
    against = obstacles[key]
    if against is None:
        why = RECORDED if requested == "auto" else "asked for"
        return lambda state: GraphStep(state.optimizer, CudaRecorder(), why)
    return _one_by_one(
        trial, built, f"not recorded: {against}" if requested == "auto" else f"graph was asked for: {against}"
    )


def _one_by_one(trial: TrialSpec, built: tuple[BuiltLayer, ...], why: str) -> MakeStep:
    """Launch every kernel of a step: on a GPU dense models by hand, with half of autograd's launches."""
    if trial.device == "cuda" and can_be_written_out(trial, built):
        return lambda state: DenseStep(built, why)
    return lambda state: AutogradStep(why)


def _against_graph(open_trial: OpenTrial, *, same_bits: bool) -> str | None:
    """Try the trial's steps as a graph; the reason against it, or None."""
    plain = open_trial(lambda state: AutogradStep(""))
    if (reason := obstacle(plain.optimizer, same_bits=same_bits)) is not None:
        return reason
    del plain  # two of a large model need not fit
    try:
        tried = open_trial(lambda state: GraphStep(state.optimizer, CudaRecorder(), ""))
        tried.warm_up()
        tried.train_epoch(tried.some_rows(TRIED_STEPS + 1)[:-1], 1)  # the last batch a short one, as it is
    except RuntimeError as error:  # an operation that cannot be recorded, or no memory for it
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None
