import json
import math
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from optbench.optimizers import FAMILIES, SGD, WAME, AdamW, Nadam, RMSprop
from optbench.optimizers.wame import compact, expand
from optbench.verification.wame_checks import golden
from tests.conftest import SHARED
from tests.optimizers.golden import SEQUENCES, assert_follows

GOLDEN_FILE = SHARED / "golden" / "wame.json"
ALL_CONFIGS = [config for family in FAMILIES.values() for config in family.cases()]


class Reference:
    def __init__(self, config, weights):
        self.config, self.w, self.t = config, weights, 0
        self.family = FAMILIES[config.optimizer]
        self.states = [self.family.start(config, w) for w in weights]

    def step(self, gradients):
        self.t += 1
        for k, g in enumerate(gradients):
            self.w[k], self.states[k] = self.family.step(self.config, self.w[k], g, self.states[k], self.t)

    def weights(self):
        return self.w

    def rule_state(self):
        return self.states


def run(config, gradients, w=1.0):
    reference = Reference(config, [np.array([w])])
    for g in gradients:
        reference.step([np.array([float(g)])])
        yield reference


@pytest.mark.parametrize(("case", "key"), SEQUENCES)
def test_the_reference_follows_the_golden_vectors(case, key):
    assert_follows(case, key, "float64", Reference)


@pytest.mark.skipif(not GOLDEN_FILE.exists(), reason="needs ../shared/golden/wame.json")
def test_the_packaged_golden_vectors_are_the_original_ones():
    assert golden() == json.loads(GOLDEN_FILE.read_text())["cases"]


def test_zeta_first_reaches_its_bound_at_step_27_under_a_constant_gradient():
    zetas = [r.states[0]["zeta"].item() for r in run(WAME(), [1] * 30)]
    assert zetas.index(100.0) + 1 == 27


def test_first_steps_under_a_constant_gradient_are_those_of_the_formula():
    weights = [1.0] + [r.w[0].item() for r in run(WAME(lr=1.0), [2] * 3)]
    steps = -np.diff(weights)
    np.testing.assert_allclose(
        steps, [0.1 / math.sqrt(0.1), 0.21 / math.sqrt(0.19), 0.333 / math.sqrt(0.271)]
    )


def test_report2_shipped_is_keras_rmsprop():
    gradients = np.random.default_rng(0).normal(size=40)
    *_, wame = run(WAME(lr=1e-3, variant="report2_shipped", eps=1e-12), gradients)
    *_, rmsprop = run(RMSprop(lr=1e-3, rho=0.9, eps=1e-12, flavor="keras"), gradients)
    np.testing.assert_array_equal(wame.w[0], rmsprop.w[0])


def test_author_shipped_remembers_the_weight_and_keeps_zeta_unclipped():
    # Written out once more from the authors' code: a weight above 0 with a gradient above 0 "agrees".
    w, zeta, z, theta, remembered = 0.5, 1.0, 1.0, 0.0, 0.0
    gradients = [0.3, 0.2] * 20
    for t, (g, reached) in enumerate(
        zip(gradients, run(WAME(lr=1e-4, variant="author_shipped"), gradients, w=0.5), strict=True), 1
    ):
        product = remembered * g
        zeta = zeta * 1.2 if product > 0 else zeta * 0.1 if product < 0 else zeta
        clipped = min(max(zeta, 0.01), 100.0)
        theta = 0.999 * theta + (1 - 0.999) * g * g
        z = 0.9 * z + (1 - 0.9) * clipped
        rate = 1e-4 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        remembered, w = w, w - rate * clipped / z * g / (math.sqrt(theta) + 1e-11)
        assert reached.w[0].item() == pytest.approx(w, rel=1e-12)
    assert zeta > 100
    assert reached.states[0]["zeta"].item() == pytest.approx(zeta)


@pytest.mark.parametrize(
    ("variant", "own"),
    [
        ("adjusted", "inside"),
        ("divide", "inside"),
        ("report2_shipped", "inside"),
        ("author", "outside"),
        ("author_shipped", "outside"),
        ("report1_shipped", "outside"),
    ],
)
def test_epsilon_stands_where_the_variant_has_it(variant, own):
    gradients = [1e-6, -1e-6, 1e-6]
    ends = {
        mode: [r.w[0].item() for r in run(WAME(variant=variant, eps_mode=mode), gradients)]
        for mode in (None, "inside", "outside")
    }
    assert ends[None] == ends[own]
    assert ends["inside"] != ends["outside"]


@given(
    scale=st.sampled_from([1e-8, 1e-3, 1e3]),
    gradients=st.lists(st.floats(1e-3, 1) | st.floats(-1, -1e-3), min_size=1, max_size=30),
)
def test_adjusted_answers_to_signs_not_to_scale(scale, gradients):
    *_, one = run(WAME(eps=1e-40), gradients)
    *_, other = run(WAME(eps=1e-40), [scale * g for g in gradients])
    np.testing.assert_array_equal(one.states[0]["zeta"], other.states[0]["zeta"])
    np.testing.assert_allclose(one.w[0], other.w[0], rtol=1e-9, atol=1e-12)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=60))
def test_zeta_stays_within_its_bounds(gradients):
    for reached in run(WAME(), gradients):
        assert 0.01 <= reached.states[0]["zeta"].item() <= 100


@pytest.mark.parametrize("config", ALL_CONFIGS, ids=str)
def test_a_step_is_pure_and_a_learning_rate_given_to_it_counts(config):
    family = FAMILIES[config.optimizer]
    w, g = np.array([1.0, -2.0]), np.array([0.5, 0.25])
    state = family.start(config, w)
    before = {name: np.copy(array) for name, array in state.items()}
    first, _ = family.step(config, w, g, state, 1)
    assert w.tolist() == [1.0, -2.0]
    assert all(np.array_equal(state[name], before[name]) for name in state)
    halved, _ = family.step(config, w, g, state, 1, lr=config.lr / 2)
    if getattr(config, "variant", None) != "report1_shipped":  # its zeta starts at 0, and so does its step
        np.testing.assert_allclose(halved - w, (first - w) / 2, rtol=1e-6)
        assert np.all(first != w)


@pytest.mark.parametrize("config", ALL_CONFIGS, ids=str)
def test_state_arrays_counts_what_the_rule_keeps(config):
    family, w = FAMILIES[config.optimizer], np.ones((2, 3))
    state = family.start(config, w)
    assert family.state_arrays(config) == sum(array.shape == w.shape for array in state.values())


@pytest.mark.parametrize("config", ALL_CONFIGS, ids=str)
def test_a_config_survives_json_as_a_suite_reads_it(config):
    plain = {f.name: getattr(config, f.name) for f in fields(config)}
    read = TypeAdapter(type(config)).validate_json(json.dumps(plain), strict=True)
    assert read == config
    assert hash(read) == hash(config)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (SGD, {"nesterov": True}),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
        (SGD, {"dampening": 0.1}),
        (SGD, {"dampening": 0.1, "momentum": 0.9, "flavor": "keras"}),
        (WAME, {"zeta_min": 200.0}),
        (WAME, {"variant": "paper", "eps_mode": "inside"}),
        (WAME, {"variant": "adjusted2"}),
        (WAME, {"alpha": 1.0}),
        (AdamW, {"weight_decay": -0.1}),
        (Nadam, {"learning_rate": 0.1}),
    ],
)
def test_configs_that_make_no_sense_are_refused(kind, given):
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(given)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_search_space_names_hyperparameters_and_holds_the_default(name):
    family = FAMILIES[name]
    default = family.config()
    for parameter, interval in family.space.items():
        assert interval.low <= getattr(default, parameter) <= interval.high
        replace(default, **{parameter: interval.low})


def test_importing_the_optimizers_imports_no_framework():
    imports = "import sys, optbench.optimizers, optbench.verification.verify"
    code = imports + "; print([m for m in %r if m in sys.modules])"
    heavy = ["torch", "tensorflow", "keras", "jax", "optax"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_compact_state_loses_nothing(dtype):
    generator = np.random.default_rng(0)
    zeta = np.exp(generator.uniform(np.log(0.01), np.log(100), 999)).astype(dtype)
    sign = generator.integers(-1, 2, 999).astype(dtype)
    state = {"zeta": zeta, "Z": zeta, "theta": zeta, "sign": sign}
    packed = compact(WAME(), state, np)
    assert set(packed) == {"zeta", "Z", "theta"}
    assert packed["zeta"].dtype == dtype
    for name, array in expand(packed, np).items():
        np.testing.assert_array_equal(array, state[name])
    for config in (WAME(variant="report1_shipped"), WAME(zeta_min=1e-12), WAME(zeta_max=1e12)):
        assert compact(config, state, np) is state
