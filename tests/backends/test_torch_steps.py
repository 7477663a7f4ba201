"""The ways of a PyTorch step train the same thing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from optbench import matching  # noqa: E402
from optbench.backends.torch import compiled, graph, steps  # noqa: E402
from optbench.environment import Context  # noqa: E402
from optbench.models import zoo  # noqa: E402
from optbench.models.layers import Activate, Dense, Dropout, Model  # noqa: E402
from optbench.optimizers import FAMILIES, SGD, WAME, Adam  # noqa: E402
from optbench.trial import Augment  # noqa: E402
from tests.backends.contract import CNN, session, spec  # noqa: E402
from tests.backends.rehearsal import Rehearsal  # noqa: E402

OPTIMIZERS = [config for family in FAMILIES.values() for config in family.cases()]
MODELS = {
    "relu": zoo.mlp(hidden=[32, 16]),
    "dropout": (Dropout(rate=0.1), *zoo.mlp(hidden=[32, 16], dropout=0.3)),
    "tanh": zoo.mlp(hidden=[16], activation="tanh"),
    "activate": (Dense(units=16), Activate(activation="sigmoid"), Dense(units=12), Dense(activation="relu")),
    "linear": (Dense(),),
}
RULES = {"clip_norm": 0.5, "clip_value": 0.1, "weight_decay": 1e-3, "label_smoothing": 0.1}


def trained(way, trial, *, rates=(), epochs=3):
    """Batch losses, weights and state after a few epochs that end in a short batch."""
    live, _, data = session(trial, context=Context(step=way))
    live.warm_up()
    found = []
    for epoch in range(1, epochs + 1):
        if epoch in rates:
            live.set_lr(live.lr / 3)
        order = data.train.rows[matching.epoch_order(0, epoch, len(data.train))]
        assert len(order) % 64
        found.append(live.train_epoch(order, epoch))
    return np.concatenate(found), live.weights(), live.state(), live.facts()


def assert_same(one, other, rtol=0.0):
    np.testing.assert_allclose(one[0], other[0], rtol=rtol)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], rtol=rtol, atol=rtol, err_msg=name)
    assert one[2].keys() == other[2].keys()
    if not rtol:
        for name, value in one[2].items():
            np.testing.assert_array_equal(value, other[2][name], err_msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.optimizer)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_step_by_hand_has_autograd_s_bits_with_every_optimizer(optimizer, precision):
    trial = spec("torch", optimizer, Model(name="m", layers=MODELS["dropout"]), precision=precision)
    eager, by_hand = (trained(way, trial, rates=(3,)) for way in ("eager", "auto"))
    assert (eager[3]["step"], by_hand[3]["step"]) == ("autograd", "hand-written")
    assert_same(eager, by_hand)


@pytest.mark.parametrize("layers", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rules", [{}, RULES, {"batch_size": "full"}], ids=["plain", "rules", "full"])
def test_the_step_by_hand_agrees_with_autograd_for_every_model(layers, rules):
    trial = spec("torch", Adam(lr=0.01), Model(name="m", layers=layers), **rules)
    eager, by_hand = (trained(way, trial) for way in ("eager", "auto"))
    assert by_hand[3]["step"] == "hand-written"
    assert_same(eager, by_hand, rtol=1e-12)


@pytest.mark.parametrize(("precision", "rtol"), [("float64", 1e-12), ("float32", 1e-5)])
def test_penalties_by_hand_agree_with_autograd(precision, rtol):
    layers = zoo.mlp(hidden=[32, 16], l1=1e-3, l2=1e-2)
    trial = spec("torch", SGD(lr=0.1), Model(name="m", layers=layers), precision=precision)
    assert_same(*(trained(way, trial) for way in ("eager", "auto")), rtol=rtol)


def test_a_checkpoint_goes_from_one_way_to_the_other():
    trial = spec("torch", Adam(), Model(name="m", layers=MODELS["dropout"]), precision="float32")
    whole = trained("auto", trial, epochs=3)
    half = trained("eager", trial, epochs=2)
    live, _, data = session(trial)
    live.warm_up()
    live.restore(half[2])
    order = data.train.rows[matching.epoch_order(0, 3, len(data.train))]
    losses = live.train_epoch(order, 3)
    np.testing.assert_array_equal(np.concatenate([half[0], losses]), whole[0])
    for name, value in live.state().items():
        np.testing.assert_array_equal(value, whole[2][name], err_msg=name)


@pytest.mark.parametrize(
    "trial",
    [
        spec("torch", model=CNN),
        spec("torch", precision="bfloat16"),
        spec("torch", model=Model(name="gelu", layers=zoo.mlp(hidden=[8], activation="gelu"))),
        spec("torch", model=Model(name="bn", layers=zoo.mlp(hidden=[8], batch_norm="hidden"))),
    ],
    ids=["images", "bfloat16", "gelu", "batch norm"],
)
def test_what_is_not_written_out_goes_autograd_s_way(trial):
    assert session(trial)[0].facts()["step"] == "autograd"


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rtol"), [("float64", 1e-9), ("float32", 1e-3)])
def test_a_compiled_step_agrees_with_autograd(precision, rtol):
    """With convolutions, batch normalisation, dropout, smoothing and a short last batch."""
    trial = spec("torch", SGD(lr=0.05), CNN, precision=precision, label_smoothing=0.1)
    eager, one, two = (trained(way, trial) for way in ("eager", "compiled", "compiled"))
    if one[3]["step"] != "compiled":
        pytest.skip(f"torch.compile does not work here: {one[3]['step_because']}")
    assert_same(eager, one, rtol=rtol)
    assert_same(one, two)


@pytest.mark.slow
def test_trials_of_a_configuration_share_a_compiled_program():
    trial = spec("torch", Adam(), Model(name="m", layers=MODELS["dropout"]), precision="float32")
    first = trained("compiled", trial)
    if first[3]["step"] != "compiled":
        pytest.skip(f"torch.compile does not work here: {first[3]['step_because']}")
    torch._dynamo.utils.counters.clear()
    other = trained("compiled", replace(trial, optimizer=SGD(lr=0.1)))
    assert other[3]["step"] == "compiled"
    assert not torch._dynamo.utils.counters["stats"].get("unique_graphs"), "nothing is compiled again"


def test_where_the_compiler_fails_autograd_goes_on_and_the_record_says_so(monkeypatch):
    def broken(program):
        def loss(*arguments):
            raise RuntimeError("no compiler here\nand more")

        return loss

    monkeypatch.setattr(compiled, "compiled", broken)
    trial = spec("torch", Adam(), CNN, precision="float32")
    eager, tried = (trained(way, trial) for way in ("eager", "compiled"))
    assert tried[3]["step"] == "autograd"
    assert tried[3]["step_because"] == "compiled was asked for: RuntimeError: no compiler here"
    assert_same(eager, tried)


def rehearsed(monkeypatch, recorder):
    def make(trial, built, obstacles, open_trial, *, requested):
        return lambda state: graph.GraphStep(state.optimizer, recorder, "asked for")

    monkeypatch.setattr("optbench.backends.torch.engine.make_step", make)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9), WAME(lr=0.01)], ids=["sgd", "wame"])
def test_a_replayed_step_reads_its_batch_from_the_buffers(optimizer, monkeypatch):
    """Recorded once a learning rate; the first step of each, and the short last batch, are taken outside."""
    trial = spec("torch", optimizer, CNN, precision="float32")
    eager = trained("eager", trial, rates=(3,))
    recorder = Rehearsal()
    rehearsed(monkeypatch, recorder)
    replayed = trained("graph", trial, rates=(3,))
    assert_same(eager, replayed)
    per_epoch = len(eager[0]) // 3 - 1
    assert recorder.recorded == 2
    assert recorder.replayed == 3 * per_epoch - 2


def test_a_replayed_step_reads_augmented_inputs(monkeypatch):
    trial = spec("torch", SGD(lr=0.1), CNN, precision="float32", augment=Augment(rotation=1.0))
    found = []
    for recorder in (None, Rehearsal()):
        if recorder is not None:
            rehearsed(monkeypatch, recorder)
        live, _, data = session(trial)
        rows = data.train.rows[:300]
        losses = [live.train_epoch(rows, e, data.train.x[rows[::-1]] // e) for e in (1, 2, 3)]
        losses.append(live.train_epoch(rows, 4))
        found.append((np.concatenate(losses), live.weights(), live.state(), {}))
    assert recorder.recorded == 2, "once for given inputs, once for the pool"
    assert_same(*found)


def test_a_graph_without_a_gpu_is_said_in_the_record():
    facts = trained("graph", spec("torch", Adam(), CNN), epochs=1)[3]
    assert facts["step"] == "autograd"
    assert facts["step_because"] == "graph was asked for: it needs a CUDA device"


def test_optimizers_that_cannot_be_recorded_are_named():
    w = [torch.zeros(2, requires_grad=True)]
    against = graph.obstacle
    assert against(torch.optim.Adam(w), same_bits=True) is None
    assert against(torch.optim.NAdam(w), same_bits=False) is None
    assert "rounds otherwise" in (against(torch.optim.NAdam(w), same_bits=True) or "")
    assert "on the host" in (against(torch.optim.Adagrad(w), same_bits=False) or "")
    from optbench.optimizers.torch import WAME as Kernel

    assert "no Triton kernel" in (against(Kernel(w), same_bits=True) or "")
    author = Kernel(w, variant="author")
    assert "moves its learning rate" in (against(author, same_bits=True) or "")


def test_images_say_how_they_are_laid_out():
    facts = session(spec("torch", model=CNN, precision="bfloat16"))[0].facts()
    assert facts["memory_format"] == "channels last"
    assert facts["relu_after_pool"] is False  # another layer stands between
    assert facts["stored"] == "float32"


def test_denormals_are_nothing_in_training_and_themselves_elsewhere():
    tiny = torch.tensor([1e-39])
    with steps.flush_denormals():
        assert (tiny * 1).item() == 0
    assert (tiny * 1).item() > 0
