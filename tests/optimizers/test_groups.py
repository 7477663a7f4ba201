"""Parameter groups: which config moves which weights, and that each moves them as if alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optbench.models.layers import BatchNorm, Conv2D, Dense, Model, build, roles
from optbench.optimizers import SGD, WAME, AdamW, Group, Grouped, Lion, Muon, groups
from optbench.optimizers.groups import GroupsError, assign
from optbench.tuning.space import with_values

LAYERS = (Conv2D(filters=2, kernel=3), BatchNorm(), Dense(units=4), Dense())
BUILT = build(Model(name="m", layers=LAYERS), (5, 5, 1), 3)
ROLES = roles(BUILT)


def grouped(*entries):
    return Grouped(groups=tuple(Group(match=match, config=config) for match, config in entries))


def test_an_ordinary_config_moves_all_weights():
    (part,) = assign(SGD(), ROLES)
    assert part.names == tuple(ROLES)


def test_muon_moves_hidden_kernels_and_adamw_the_rest():
    own, rest = assign(Muon(rest_lr=0.001), ROLES)
    assert own.names == ("conv2d_1/kernel", "dense_1/kernel")
    assert "dense_2/kernel" in rest.names
    assert (rest.config.optimizer, rest.config.lr) == ("adamw", 0.001)


def test_an_explicit_match_gives_muon_all_that_it_names():
    (own, rest) = assign(grouped((("matrix", "head"), Muon()), (("rest",), SGD())), ROLES)
    assert own.names == ("dense_1/kernel", "dense_2/kernel")
    assert own.config.optimizer == "muon"
    assert len(rest.names) == len(ROLES) - 2


def test_weights_without_a_group_and_vectors_for_a_matrix_rule_are_refused():
    with pytest.raises(GroupsError, match=r"bias, conv, head, norm .*match: rest"):
        assign(grouped((("matrix",), SGD())), ROLES)
    with pytest.raises(GroupsError, match=r"muon moves matrices, .* gives it conv2d_1/bias \(bias\)"):
        assign(grouped((("bias",), Muon()), (("rest",), SGD())), ROLES)
    with pytest.raises(ValueError, match="two match matrix"):
        grouped((("matrix",), SGD()), (("matrix", "conv"), SGD()))


def test_rates_follow_the_first_groups_in_proportion():
    first, second, fixed = (
        groups.Assigned(match=(), config=SGD(lr=lr), names=(), scheduled=scheduled)
        for lr, scheduled in ((0.1, True), (0.02, True), (0.5, False))
    )
    assert first.rate(0.05, 0.1) == 0.05
    assert second.rate(0.05, 0.1) == pytest.approx(0.01)
    assert fixed.rate(0.05, 0.1) == 0.5


def test_a_search_sets_one_groups_numbers_or_all_learning_rates():
    config = grouped((("matrix",), SGD(lr=0.1)), (("rest",), AdamW(lr=0.01)))
    moved = with_values(config, {"rest.weight_decay": 0.3, "lr": 0.2})
    assert [g.config.lr for g in moved.groups] == [0.2, pytest.approx(0.02)]
    assert moved.groups[1].config.weight_decay == 0.3
    with pytest.raises(GroupsError, match="no group has it"):
        with_values(config, {"rho": 0.5})


def test_the_record_says_which_config_moves_how_many_weights():
    sizes = {p.name: math.prod(p.shape) for layer in BUILT for p in layer.parameters}
    assert groups.described(SGD(), roles(BUILT), sizes) == {}
    first, second = groups.described(Muon(), roles(BUILT), sizes)["groups"]
    assert (first["optimizer"], first["tensors"], first["weights"]) == ("muon", 2, 9 * 2 + 18 * 4)
    assert first["fingerprint"] != second["fingerprint"]
    other = groups.described(Muon(lr=0.5), roles(BUILT), sizes)["groups"]
    assert other[0]["fingerprint"] != first["fingerprint"]
    assert other[1]["fingerprint"] == second["fingerprint"]


def weights_and_gradients(torch):
    generator = np.random.default_rng(0)
    shapes = {"a": (3, 4), "b": (4,), "c": (4, 2)}
    params = [torch.tensor(generator.normal(size=s), requires_grad=True) for s in shapes.values()]
    gradients = [[torch.tensor(generator.normal(size=s)) for s in shapes.values()] for _ in range(6)]
    return params, gradients, {"a": "matrix", "b": "bias", "c": "head"}


def test_groups_in_pytorch_take_the_steps_of_separate_optimizers_and_are_saved():
    torch = pytest.importorskip("torch")
    from optbench.backends.torch import saving
    from optbench.backends.torch.optimizers import make_optimizer, set_lr

    config = grouped((("matrix",), Muon(lr=0.1)), (("bias",), Lion(lr=0.01)), (("rest",), AdamW(lr=0.05)))
    params, gradients, names = weights_and_gradients(torch)
    apart, _, _ = weights_and_gradients(torch)
    whole = make_optimizer(config, params, names)
    single = [
        make_optimizer(c, [w], {n: names[n]})
        for c, w, n in zip(
            (Grouped(groups=(Group(match=("matrix",), config=Muon(lr=0.1)),)), Lion(lr=0.01), AdamW(lr=0.05)),
            apart,
            names,
            strict=True,
        )
    ]

    def step(optimizers, weights, given):
        for w, g in zip(weights, given, strict=True):
            w.grad = g.clone()
        for optimizer in optimizers:
            optimizer.step()

    for t, given in enumerate(gradients[:3]):
        if t == 1:
            set_lr(whole, 0.05)
            for optimizer, lr in zip(single, (0.05, 0.005, 0.025), strict=True):
                set_lr(optimizer, lr)
        step([whole], params, given)
        step(single, apart, given)
    kept = [w.detach().clone() for w in params]
    assert all(torch.equal(a, b) for a, b in zip(params, apart, strict=True))
    assert not torch.equal(params[1], weights_and_gradients(torch)[0][1])

    saved = saving.export(whole, params, custom=False)
    other, _, _ = weights_and_gradients(torch)
    with torch.no_grad():
        for w, value in zip(other, kept, strict=True):
            w.copy_(value)
    again = make_optimizer(config, other, names)
    saving.restore(again, other, saved)
    for given in gradients[3:]:
        step([whole], params, given)
        step([again], other, given)
    assert all(torch.equal(a, b) for a, b in zip(params, other, strict=True))


@pytest.mark.parametrize(
    "backend",
    [pytest.param("tensorflow", marks=pytest.mark.slow), pytest.param("jax", marks=pytest.mark.slow)],
)
def test_groups_take_the_same_steps_in_every_framework(backend):
    """A rate that no schedule moves is a number of Python's, which a framework may round to float32."""
    pytest.importorskip("torch")
    pytest.importorskip(backend)
    from optbench.trial import StepSchedule
    from tests.backends.contract import record, spec

    config = Grouped(
        groups=(
            Group(match=("matrix", "conv"), config=Muon(lr=0.01)),
            Group(match=("bias",), config=WAME(lr=0.003, weight_decay=0.1), scheduled=False),
            Group(match=("rest",), config=AdamW(lr=0.003, cautious=True)),
        )
    )
    schedule = StepSchedule(at=(1,), factor=0.3)
    model = Model(
        name="m", layers=(Conv2D(filters=2, kernel=3, stride=2), BatchNorm(), Dense(units=4), Dense())
    )
    ours, theirs = (
        record(spec(name, config, model, epochs=2, batch_size=200, schedule=schedule)).history["train_loss"]
        for name in ("torch", backend)
    )
    np.testing.assert_allclose(theirs, ours, rtol=1e-10)
