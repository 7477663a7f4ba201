"""What a GPU does: the ways of a step, and the forms of optimizers. Skipped without one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from optbench.backends.base import MEASURED  # noqa: E402
from optbench.models.layers import Conv2D, Dense, Model  # noqa: E402
from optbench.optimizers import FAMILIES, SGD, WAME, Adam, AdamW, RMSprop  # noqa: E402
from tests.backends.contract import CNN, spec  # noqa: E402
from tests.backends.test_torch_steps import MODELS, trained  # noqa: E402

pytestmark = pytest.mark.gpu
DROPOUT = Model(name="m", layers=MODELS["dropout"])
MODEL_WITHOUT_DRAWS = Model(name="m", layers=(Conv2D(filters=4, kernel=3, activation="relu"), Dense()))


def on_gpu(*arguments, **options):
    return replace(spec("torch", *arguments, **options), device="cuda")


def without_places(state):
    """A state without the devices on which PyTorch's classes count their steps: a recorded one on the GPU."""
    structure = json.loads(state["optimizer"].tobytes())

    def cleaned(value):
        if isinstance(value, dict):
            return {name: cleaned(item) for name, item in value.items() if name != "device"}
        return [cleaned(item) for item in value] if isinstance(value, list) else value

    return {**state, "optimizer": cleaned(structure)}


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.1, momentum=0.9), Adam(), AdamW(), RMSprop(), WAME(lr=0.01)],
    ids=lambda o: o.optimizer,
)  # fmt: skip
@pytest.mark.parametrize("model", [DROPOUT, CNN], ids=["dropout", "cnn"])
def test_a_cuda_graph_has_autograd_s_bits(optimizer, model):
    trial = on_gpu(optimizer, model, precision="float32")
    eager, replayed = (trained(way, trial, rates=(3,)) for way in ("eager", "graph"))
    assert replayed[3]["step"] == "graph", replayed[3]["step_because"]
    np.testing.assert_array_equal(eager[0], replayed[0])
    for name, value in eager[1].items():
        np.testing.assert_array_equal(value, replayed[1][name], err_msg=name)
    one, other = without_places(eager[2]), without_places(replayed[2])
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize(
    "optimizer", [family.cases()[0] for family in FAMILIES.values()], ids=lambda o: o.optimizer
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_rule_can_be_recorded_and_trains_the_same(optimizer, precision):
    """With the class that the family names, or by the rule itself, which then counts its steps on the GPU."""
    trial = on_gpu(optimizer, DROPOUT, precision=precision)
    eager, replayed = (trained(way, trial, rates=(3,)) for way in ("eager", "graph"))
    if replayed[3]["step"] != "graph":
        assert "graph was asked for" in replayed[3]["step_because"]
        assert FAMILIES[optimizer.optimizer].native.get("torch") is not None
    rtol = 1e-10 if precision == "float64" else 2e-3
    np.testing.assert_allclose(eager[0], replayed[0], rtol=rtol)


def test_by_hand_and_by_autograd_are_the_same_bits(monkeypatch):
    trial = on_gpu(Adam(), DROPOUT, precision="float32")
    by_hand = trained("eager", trial, rates=(3,))
    assert by_hand[3]["step"] == "hand-written"
    monkeypatch.setattr("optbench.backends.torch.choice.can_be_written_out", lambda *_: False)
    plain = trained("eager", trial, rates=(3,))
    assert plain[3]["step"] == "autograd"
    np.testing.assert_array_equal(plain[0], by_hand[0])


def test_on_a_gpu_the_clock_chooses_among_ways_of_the_same_bits():
    facts = trained("auto", on_gpu(Adam(), precision="float32"))[3]
    assert facts["step"] in ("graph", "autograd")
    assert facts["step_because"] == MEASURED


def test_float64_agrees_with_the_cpu():
    trial = on_gpu(SGD(lr=0.05), MODEL_WITHOUT_DRAWS)
    there, here = (trained("auto", replace(trial, device=device))[0] for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, rtol=1e-9)
