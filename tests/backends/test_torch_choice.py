"""Which way a trial's steps take on a GPU: never a matter of the clock. The GPU is rehearsed on the CPU."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from optbench.backends.torch import choice, engine, optimizers  # noqa: E402
from optbench.backends.torch.engine import TorchEngine  # noqa: E402
from optbench.backends.torch.graph import make_capturable  # noqa: E402
from optbench.datasets import registry  # noqa: E402
from optbench.environment import Context  # noqa: E402
from optbench.execution.checkpoint import Checkpoints  # noqa: E402
from optbench.execution.protocol import run_trial  # noqa: E402
from optbench.optimizers import FAMILIES, WAME, Adam  # noqa: E402
from optbench.trial import CosineSchedule, Seeds  # noqa: E402
from tests.backends.contract import CNN, MLP, spec  # noqa: E402
from tests.backends.rehearsal import Rehearsal  # noqa: E402

CAPTURE = "CUDA error: operation not permitted when stream is capturing\nand more"
NADAM, ADAGRAD = FAMILIES["nadam"].config(), FAMILIES["adagrad"].config()


class Slow(Rehearsal):
    """A device that others keep busy."""

    def record(self, step, *generators):
        replay = super().record(step, *generators)
        return lambda: (time.sleep(0.003), replay())


class Failing(Rehearsal):
    """A device on which recording fails."""

    error: Exception = RuntimeError(CAPTURE)

    def record(self, step, *generators):
        raise self.error


class Full(Failing):
    """A device without room for a recording."""

    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def process(monkeypatch):
    """A fresh engine on a rehearsed GPU: what another process of the same run would have."""
    chosen = engine.make_step
    monkeypatch.setattr(
        engine,
        "make_step",
        lambda trial, *a, **options: chosen(replace(trial, device="cuda"), *a, **options),
    )
    describe = TorchEngine.describe
    monkeypatch.setattr(TorchEngine, "describe", lambda self, _: {**describe(self, "cpu"), "device": "cuda"})

    def start(recorder, step="auto"):
        monkeypatch.setattr(choice, "CudaRecorder", recorder)
        return TorchEngine(Context(step=step))

    return start


def trained(started, trial, **options):
    return run_trial(trial, started, registry.load("digits"), environment={}, **options)


def assert_same_bits(one, other):
    assert one.history.keys() == other.history.keys()
    for name in set(one.history) - {"step_seconds", "eval_seconds"}:
        np.testing.assert_array_equal(one.history[name], other.history[name], err_msg=name)


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_trials_of_one_optimizer_go_one_way_however_busy_each_process_is(process, model):
    records = [
        trained(process(recorder), spec("torch", Adam(), model, seeds=Seeds(init=k, order=k), **workload))
        for k, (recorder, workload) in enumerate(
            [(Rehearsal, {}), (Slow, {}), (Rehearsal, {"schedule": CosineSchedule()})]
        )
    ]
    facts = [record.environment for record in records]
    assert {(f["step"], f["step_because"]) for f in facts} == {("graph", choice.RECORDED)}


@pytest.mark.parametrize(("model", "way"), [(MLP, "hand-written"), (CNN, "autograd")], ids=["mlp", "cnn"])
@pytest.mark.parametrize("recorder", [Failing, Full])
def test_what_cannot_be_recorded_says_so_and_keeps_the_bits(process, model, way, recorder):
    trial = spec("torch", Adam(), model)
    found, graph = trained(process(recorder), trial), trained(process(Rehearsal), trial)
    first_line = str(recorder.error).partition("\n")[0]
    assert found.environment["step"] == way
    assert found.environment["step_because"].startswith("not recorded: ")
    assert found.environment["step_because"].endswith(first_line)
    assert graph.environment["step"] == "graph"
    assert_same_bits(found, graph)


def test_a_trial_that_was_recorded_goes_on_where_there_is_no_room_for_a_recording(process, tmp_path):
    trial = spec("torch", Adam(), CNN)
    whole = trained(process(Rehearsal), replace(trial, workload=replace(trial.workload, epochs=4)))
    files = Checkpoints(tmp_path, minutes=1e-9)
    half = replace(trial, workload=replace(trial.workload, epochs=4, stop=2))
    assert trained(process(Rehearsal), half, checkpoints=files).environment["step"] == "graph"
    rest = trained(
        process(Full), replace(half, workload=replace(half.workload, stop=None)), checkpoints=files
    )
    assert (rest.environment["step"], rest.environment["checkpoint"]) == ("autograd", "resumed")
    assert_same_bits(rest, whole)


@pytest.mark.parametrize(
    ("config", "why"),
    [(NADAM, "rounds otherwise"), (ADAGRAD, "on the host"), (WAME(), "no Triton kernel")],
    ids=lambda value: getattr(value, "optimizer", ""),
)
def test_an_optimizer_that_cannot_be_recorded_is_launched_by_hand(process, config, why):
    facts = trained(process(Rehearsal), spec("torch", config)).environment
    assert facts["step"] == "hand-written"
    assert why in facts["step_because"]


def test_a_recording_with_other_bits_has_a_kernel_of_another_name(process):
    kernels = {
        step: trained(process(Rehearsal, step), spec("torch", NADAM)).environment["kernel"]
        for step in ("auto", "graph")
    }
    assert kernels == {"auto": "plain", "graph": "plain, steps counted on the device"}
    w = [torch.zeros(3, requires_grad=True)]
    for config, name in ((NADAM, "foreach, steps counted on the device"), (Adam(), "fused")):
        made = optimizers.make_optimizer(config, w)
        make_capturable(made)
        assert optimizers.kernel_of(made) == name


def test_a_moment_without_memory_decides_no_form_of_an_optimizer(monkeypatch):
    w = [torch.zeros(3, requires_grad=True)]
    step, raised = torch.optim.Adam.step, [Full.error, RuntimeError("fused is not for this device")]

    def failing(self, closure=None):
        if raised:
            raise raised.pop(0)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", failing)
    optimizers._steps.cache_clear()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            optimizers._steps(torch.optim.Adam, "fused", "cpu")
        assert not optimizers._steps(torch.optim.Adam, "fused", "cpu")
        monkeypatch.setattr(torch.optim.Adam, "__init__", lambda *_, **__: (_ for _ in ()).throw(Full.error))
        with pytest.raises(torch.OutOfMemoryError):
            optimizers.make_optimizer(Adam(), w)
    finally:
        optimizers._steps.cache_clear()
