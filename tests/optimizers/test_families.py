"""What a family says about itself is complete, and true."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import optbench
from optbench import optimizers
from optbench.optimizers import FAMILIES, SGD, UnknownFamilyError, custom, family_of, has_rule
from optbench.optimizers.base import ARRAY_FUNCTIONS, Family
from optbench.verification import verify
from optbench.verification.checks import label

CASES = [(family, config) for family in FAMILIES.values() for config in family.cases()]
NAMES = [f"{family.name} {label(config)}" for family, config in CASES]
NATIVES = [
    pytest.param(framework, family, config, id=f"{framework}-{config}")
    for family, config in CASES
    for framework in family.native
]
PACKAGE = Path(optbench.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Lazy:
    """A rule that no framework has, which keeps the gradient and the weights themselves as its state."""

    optimizer: Literal["lazy"] = "lazy"
    lr: float = 0.1


def lazy_update(config, w, g, state, *, lr, t, xp):
    return -lr * (g + 0.5 * state["last"] + 0.25 * state["before"]), {"last": g, "before": w}


LAZY = Family(
    name="lazy",
    title="Lazy",
    config=Lazy,
    init=lambda config, w, xp: {"last": xp.zeros_like(w), "before": w},
    update=lazy_update,
    elementwise=True,
)


@pytest.fixture
def lazy(monkeypatch):
    """Register one more family, by its rule alone."""
    for module in (optimizers, verify):
        monkeypatch.setattr(module, "FAMILIES", {**FAMILIES, "lazy": LAZY})
    return LAZY


def needs(framework):
    return pytest.importorskip({"optax": "optax", "keras": "keras", "torch": "torch"}[framework])


def test_every_file_of_a_family_is_registered():
    found = set()
    for module in pkgutil.iter_modules(optimizers.__path__):
        if module.name not in ("torch", "keras", "optax", "torch_kernels"):
            family = getattr(importlib.import_module(f"optbench.optimizers.{module.name}"), "FAMILY", None)
            found |= {family.name} if family is not None else set()
    assert found == {*FAMILIES, "custom", "groups", "library"}


def test_a_family_is_named_as_its_config_is():
    for name, family in FAMILIES.items():
        assert family.config().optimizer == family.name == name
        assert family.state_arrays(family.config()) >= 0


def test_an_unregistered_config_is_named_with_what_to_do():
    with pytest.raises(UnknownFamilyError, match=r"'lazy' is not registered; add its file to _REGISTERED"):
        family_of(Lazy())


def test_a_custom_class_has_a_family_without_a_rule(tmp_path):
    (tmp_path / "mine.py").write_text("class Mine: ...")
    config = custom.from_mapping({"class": "mine.py:Mine", "lr": 0.1}, base_dir=tmp_path)
    family = family_of(config)
    assert not has_rule(config)
    assert has_rule(SGD())
    assert family.space == {}
    assert family.with_values(config, {"lr": 0.2}).lr == 0.2
    assert all("custom" in (family.stack_obstacle(b) or "") for b in ("torch", "jax", "tensorflow"))
    with pytest.raises(custom.CustomError, match="only its framework can run it"):
        family.start(config, np.ones(1))


@pytest.mark.parametrize(("framework", "family", "config"), NATIVES)
def test_a_declared_class_is_there_and_takes_the_declared_arguments(framework, family, config):
    needs(framework)
    found = family.native_for(framework, config)
    if found is None:
        return
    native, arguments = found
    kind = pkgutil.resolve_name(native.target)
    if framework == "torch":
        import torch

        group = kind([torch.zeros(2, requires_grad=True)], lr=config.lr, **arguments).param_groups[0]
        assert {name: group[name] for name in arguments} == arguments
    else:  # Keras is not used in this process: TensorFlow would keep its number of threads
        inspect.signature(kind).bind(config.lr, **arguments)


@pytest.mark.parametrize(("family", "config"), CASES, ids=NAMES)
def test_weights_are_read_only_where_the_family_says_so(family, config):
    generator = np.random.default_rng(1)
    starts = [generator.normal(size=5) for _ in range(2)]
    gradients = [generator.normal(size=5) for _ in range(4)]
    deltas = []
    for w in starts:
        state, found = family.start(config, w), []
        for t, g in enumerate(gradients, 1):
            moved, state = family.step(config, w, g, state, t)
            found.append(moved - w)
        deltas.append(np.array(found))
    same = np.allclose(*deltas, rtol=1e-6, atol=1e-12)
    assert same != family.needs_weights(config)


@pytest.mark.parametrize(("family", "config"), CASES, ids=NAMES)
def test_an_elementwise_rule_moves_a_stack_as_each_of_its_trials(family, config):
    generator = np.random.default_rng(2)
    w, g = generator.normal(size=(2, 3, 4)), generator.normal(size=(6, 2, 3, 4))

    def end(w, g):
        state = family.start(config, w)
        for t, gradient in enumerate(g, 1):
            w, state = family.step(config, w, gradient, state, t)
        return w

    same = np.array_equal(end(w, g), np.stack([end(w[k], g[:, k]) for k in (0, 1)]))
    assert same == family.by_element(config)


def test_stacking_asks_the_rule_where_one_array_holds_all_trials():
    whole = Family(**{**vars(LAZY), "elementwise": False})
    assert "element by element" in (whole.stack_obstacle("torch") or "")
    assert whole.stack_obstacle("jax") is None
    assert LAZY.stack_obstacle("torch") is None
    assert LAZY.stack_obstacle("tensorflow") is not None


@pytest.mark.parametrize(
    ("framework", "module", "name"),
    [
        ("numpy", "optbench.optimizers.base", "NUMPY"),
        ("torch", "optbench.backends.torch.rules", "ONE"),
        ("torch", "optbench.backends.torch.rules", "MANY"),
        ("tensorflow", "optbench.optimizers.keras", "FUNCTIONS"),
        ("jax", "optbench.optimizers.optax", "FUNCTIONS"),
        ("tensorflow", "optbench.backends.tensorflow.programs", "RULES"),
    ],
)
def test_every_framework_has_the_functions_that_a_rule_may_call(framework, module, name):
    pytest.importorskip(framework)
    functions = getattr(importlib.import_module(module), name)
    assert [name for name in ARRAY_FUNCTIONS if not callable(getattr(functions, name, None))] == []


def test_a_rule_that_calls_anything_else_fails_in_its_reference():
    def update(config, w, g, state, *, lr, t, xp):
        return xp.cbrt(g), state

    family = Family(**{**vars(LAZY), "update": update})
    with pytest.raises(AttributeError, match=r"xp.cbrt, which not every framework has; a rule may call abs"):
        family.step(Lazy(), np.ones(1), np.ones(1), {}, 1)


def test_a_rule_without_classes_runs_on_pytorch_and_is_verified(lazy):
    pytest.importorskip("torch")
    from optbench.backends.torch.optimizers import RuleOptimizer, make_optimizer

    report = verify.run("lazy", backends=["torch"])
    failed = {check.name for check in report.failures}
    assert not {name for name in failed if "reference" in name}
    assert not {name for name in failed if "state saved" in name}
    import torch

    assert isinstance(make_optimizer(Lazy(), [torch.zeros(1, requires_grad=True)]), RuleOptimizer)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_state_never_lies_in_the_memory_of_a_weight_or_a_gradient(lazy, dtype):
    torch = pytest.importorskip("torch")
    from optbench.backends.torch.optimizers import make_optimizer

    w = torch.ones(3, dtype=getattr(torch, dtype), requires_grad=True)
    optimizer, expected = make_optimizer(Lazy(), [w]), np.ones(3)
    state = LAZY.start(Lazy(), expected)
    w.grad = torch.empty_like(w, requires_grad=False)
    for t in range(1, 5):
        g = np.array([1.0, -2.0, 0.5]) * t
        w.grad.copy_(torch.from_numpy(g))  # in place, as the step by hand does
        optimizer.step()
        expected, state = LAZY.step(Lazy(), expected, g, state, t)
    np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-6 if dtype == "float32" else 1e-14)


def test_optax_never_takes_another_array_for_the_weights(lazy):
    pytest.importorskip("optax")
    import jax.numpy as jnp

    from optbench.optimizers.optax import make_optimizer

    w, g = jnp.ones(2), jnp.full(2, 0.5)
    solver = make_optimizer(Lazy())
    with pytest.raises(ValueError, match=r"lazy needs the parameters: call update\(grads, state, params\)"):
        solver.update(g, solver.init(w))


def test_optax_gives_nan_for_weights_that_a_family_wrongly_says_it_does_not_read(monkeypatch):
    pytest.importorskip("optax")
    import jax.numpy as jnp

    from optbench.optimizers.optax import make_optimizer

    wrong = Family(
        **{
            **vars(FAMILIES["adamw"]),
            "name": "lazy",
            "config": Lazy,
            "init": lambda config, w, xp: {},
            "update": lambda config, w, g, state, *, lr, t, xp: (-lr * (g + w), state),
            "needs_weights": lambda config: False,
            "native": {},
        }
    )
    monkeypatch.setattr(optimizers, "FAMILIES", {"lazy": wrong})
    solver = make_optimizer(Lazy())
    updates, _ = solver.update(jnp.ones(2), solver.init(jnp.ones(2)))
    assert np.isnan(np.asarray(updates)).all()


def test_styles_and_special_cases_name_families_once():
    styles = [family.style for family in FAMILIES.values() if family.style is not None]
    assert len(set(styles)) == len(styles)
    for family in FAMILIES.values():
        assert set(family.contains({})) <= set(FAMILIES) - {family.name}
    assert FAMILIES["wame"].contains({"variant": "adjusted"}) == {"rmsprop": "zeta_min = zeta_max = 1"}
    assert FAMILIES["wame"].contains({"variant": "paper"}) == {}
    assert FAMILIES["wame"].contains({"variant": "author"}) == {}
    assert FAMILIES["wame"].contains({"variant": "of a later version"}) == {}


def test_the_documentation_names_the_class_that_each_family_declares():
    page = (PACKAGE.parent / "docs" / "optimizers.md").read_text()
    table = page.partition("## Which class runs")[2].partition("\n\nWhat the frameworks")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    cells = {row[0].strip("`"): row[1:] for row in rows[2:]}
    assert cells.keys() >= FAMILIES.keys(), "each family needs a row in docs/optimizers.md"
    for name, family in FAMILIES.items():
        for framework, cell in zip(("torch", "keras", "optax"), cells[name], strict=True):
            native = family.native.get(framework)
            wanted = native.target.rpartition(":")[2] if native is not None else "rule"
            assert wanted in cell, f"{name} in {framework}: {cell}"


def test_nothing_outside_the_optimizers_asks_a_config_for_its_class():
    classes = {family.config.__name__ for family in FAMILIES.values()} | {"Custom", "Grouped"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "optimizers":
            for node in ast.walk(ast.parse(path.read_text())):
                named = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "type")
                if named and classes & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
                    found.append(f"{path}:{node.lineno}")
    assert found == []
