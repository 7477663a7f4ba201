import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")
optax = pytest.importorskip("optax", reason="needs optax")

from optbench.optimizers import FAMILIES, SGD, Adam, AdamW, RMSprop, custom  # noqa: E402
from optbench.optimizers import WAME as Config  # noqa: E402
from optbench.optimizers.optax import make_optimizer, wame  # noqa: E402
from optbench.verification import checks, wame_checks  # noqa: E402
from optbench.verification.steppers import OptaxStepper, session  # noqa: E402
from tests.optimizers.golden import SEQUENCES, assert_follows  # noqa: E402


@pytest.fixture(autouse=True)
def float64():
    with session("jax"):
        yield


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("case", "key"), SEQUENCES)
def test_golden_vectors(case, key, dtype):
    assert_follows(case, key, dtype, lambda config, start: OptaxStepper(config, start, dtype))


def test_traps():
    assert [check.name for check in wame_checks.wame_traps("jax") if not check.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_family_follows_its_reference(family):
    assert [c for c in checks.trajectories(family.all_cases(), "jax", []) if not c.passed] == []


@pytest.mark.parametrize(
    "config",
    [Config(), SGD(momentum=0.9), Adam(), AdamW(), RMSprop(momentum=0.9), Adam(flavor="keras")],
    ids=str,
)
def test_an_injected_or_scheduled_learning_rate_is_the_references(config):
    rates = [config.lr / t for t in range(1, 5)]
    injected = optax.inject_hyperparams(
        lambda learning_rate: make_optimizer(config, learning_rate=learning_rate)
    )(learning_rate=config.lr)
    scheduled = make_optimizer(config, learning_rate=lambda count: config.lr / (count + 1))
    family, w = FAMILIES[config.optimizer], np.array([1.0, -2.0])
    state = family.start(config, w)
    ends = [jax.numpy.asarray(w)] * 2
    states = [injected.init(ends[0]), scheduled.init(ends[1])]
    for t, lr in enumerate(rates, 1):
        g = np.array([0.5, 0.1 * t])
        states[0].hyperparams["learning_rate"] = jax.numpy.asarray(lr)
        for k, solver in enumerate((injected, scheduled)):
            updates, states[k] = jax.jit(solver.update)(jax.numpy.asarray(g), states[k], ends[k])
            ends[k] = optax.apply_updates(ends[k], updates)
        w, state = family.step(config, w, g, state, t, lr=lr)
    for end in ends:
        np.testing.assert_allclose(end, w, rtol=1e-12)


def test_it_works_on_trees_in_chains_and_without_parameters():
    params = {"dense": {"kernel": jax.numpy.ones((2, 3)), "bias": jax.numpy.zeros(3)}}
    solver = optax.chain(optax.clip_by_global_norm(1.0), wame(0.1))
    state = solver.init(params)
    updates, state = solver.update(jax.tree.map(jax.numpy.ones_like, params), state)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert float(updates["dense"]["bias"][0]) == pytest.approx(-0.1 * 0.1 / np.sqrt(0.1), rel=1e-6)
    other = wame(0.1, variant="author_shipped")
    state = other.init(params)
    assert state.arrays["sign"]["dense"]["kernel"].dtype == jax.numpy.int8
    with pytest.raises(ValueError, match="needs the parameters"):
        other.update(params, state)


def test_half_precision_weights_keep_a_float32_state():
    w = jax.numpy.ones(4, jax.numpy.bfloat16)
    solver = wame(0.1)
    updates, state = solver.update(w, solver.init(w), w)
    assert updates.dtype == jax.numpy.bfloat16
    assert {state.arrays[name].dtype.name for name in ("zeta", "Z", "theta")} == {"float32"}


def test_a_custom_function_is_called_and_checked(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import optax\ndef good(lr): return optax.sgd(lr)\ndef bad(): return 3\n"
    )
    good = custom.from_mapping({"class": "mine.py:good", "lr": 0.5}, base_dir=tmp_path)
    updates, _ = make_optimizer(good).update(jax.numpy.ones(1), make_optimizer(good).init(jax.numpy.ones(1)))
    assert float(updates[0]) == -0.5
    with pytest.raises(TypeError, match=r"mine\.py:bad"):
        make_optimizer(custom.from_mapping({"class": "mine.py:bad"}, base_dir=tmp_path))
