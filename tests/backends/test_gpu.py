"""What a GPU does: the ways of a step, and the forms of optimizers. Skipped without one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from optbench import run  # noqa: E402
from optbench.models.layers import Conv2D, Dense, Model  # noqa: E402
from optbench.optimizers import FAMILIES, SGD, WAME, Adam, AdamW, RMSprop  # noqa: E402
from optbench.records.frames import load_results  # noqa: E402
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


@pytest.mark.parametrize("optimizer", [FAMILIES[name].cases()[0] for name in ("nadam", "radam", "adamax")])
def test_what_is_not_recorded_is_launched_by_hand_with_autograd_s_bits(optimizer, monkeypatch):
    trial = on_gpu(optimizer, DROPOUT, precision="float32")
    by_hand = trained("auto", trial, rates=(3,))
    assert by_hand[3]["step"] == "hand-written"
    assert "rounds otherwise" in by_hand[3]["step_because"]
    monkeypatch.setattr("optbench.backends.torch.choice.can_be_written_out", lambda *_: False)
    plain = trained("auto", trial, rates=(3,))
    assert plain[3]["step"] == "autograd"
    np.testing.assert_array_equal(plain[0], by_hand[0])


SUITE = """
suite: ways
workloads:
  - {dataset: mnist-mini, model: {name: mlp, hidden: [32]}, batch_size: 64, epochs: 1}
  - {dataset: mnist-mini, model: {name: small_cnn}, batch_size: 64, epochs: 1}
optimizers: {adam: {lr: 0.001}, sgd: {lr: 0.1, momentum: 0.9}, wame: {lr: 0.01}, nadam: {lr: 0.001}}
seeds: 4
device: cuda
engine: {batch_seeds: off}
analysis: {baseline: wame}
"""


@pytest.mark.parametrize("seeds_together", ["off", "2"])
def test_all_trials_of_an_optimizer_go_one_way(tmp_path, seeds_together):
    """With three workers that share the card, each of which decides on its own."""
    (tmp_path / "ways.yaml").write_text(SUITE.replace("off", seeds_together))
    run(tmp_path / "ways.yaml", results=tmp_path, workers=3)
    results = load_results(tmp_path / "ways")
    ways: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for trial in results.trials.itertuples():
        assert trial.status == "completed"
        facts = results.environments[trial.environment]
        found = tuple(str(facts.get(name)) for name in ("step", "step_because", "optimizer", "kernel"))
        ways.setdefault((trial.workload, trial.optimizer), set()).add(found)
    assert len(ways) == 8
    assert {key: found for key, found in ways.items() if len(found) > 1} == {}
    if seeds_together == "off":
        recorded = {optimizer for (_, optimizer), ((step, *_),) in ways.items() if step == "graph"}
        assert recorded == {"adam", "sgd", "wame"}


def test_float64_agrees_with_the_cpu():
    trial = on_gpu(SGD(lr=0.05), MODEL_WITHOUT_DRAWS)
    there, here = (trained("auto", replace(trial, device=device))[0] for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, rtol=1e-9)
