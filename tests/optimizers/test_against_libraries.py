"""The NumPy references against the classes of PyTorch, optax, Keras and pytorch_optimizer, in float64.

Fifty steps are taken on problems with vectors and matrices. Where a class takes other steps by itself, the
difference is the one that the family's docstring names: without it, both take the same ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest

from optbench.optimizers import FAMILIES, Adadelta, Adam, Adamax, AdamW, Lamb, Lion, Muon, RAdam, Rprop
from optbench.verification.checks import error, label, reference
from optbench.verification.problems import Problem, logistic, quadratic, rosenbrock
from optbench.verification.steppers import session

STEPS, BAR = 50, 1e-10
#: An epsilon that is nothing, wherever it stands.
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Row:
    """A config and the class that takes the same steps with these arguments."""

    ours: Any
    theirs: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    bar: float = BAR

    def __str__(self) -> str:
        return f"{self.theirs} {label(self.ours)}"

    @property
    def problems(self) -> list[Problem]:
        """What both train."""
        matrices = FAMILIES[self.ours.optimizer].matrices(self.ours)
        return [tensors()] if matrices else [quadratic(), rosenbrock(), logistic(), tensors()]


def tensors() -> Problem:
    """Build quadratics over a wide, a tall and a square matrix, with noise."""
    generator = np.random.default_rng(11)
    shapes = ((4, 9), (9, 4), (5, 5))
    start, goal = ([generator.normal(size=shape) for shape in shapes] for _ in range(2))

    def evaluate(w, t):
        noise = np.random.default_rng((12, t))
        gradients = [x - y + 0.3 * noise.normal(size=x.shape) for x, y in zip(w, goal, strict=True)]
        return sum(float(((x - y) ** 2).sum()) / 2 for x, y in zip(w, goal, strict=True)), gradients

    return Problem(name="matrices", start=start, evaluate=evaluate)


def rows(given: list[Row]) -> Any:
    return pytest.mark.parametrize("row", given, ids=str)


TORCH = [
    Row(ours=Rprop(lr=1e-3, step_max=0.1), theirs="torch.optim:Rprop", arguments={"step_sizes": (1e-6, 0.1)}),
    Row(ours=RAdam(lr=0.01), theirs="torch.optim:RAdam"),
    Row(ours=Adadelta(lr=1.0), theirs="torch.optim:Adadelta"),
    Row(ours=Adamax(lr=0.01), theirs="torch.optim:Adamax"),
    Row(ours=Adam(lr=0.01, amsgrad=True), theirs="torch.optim:Adam", arguments={"amsgrad": True}),
    Row(
        ours=AdamW(lr=0.01, amsgrad=True, weight_decay=0.1),
        theirs="torch.optim:AdamW",
        arguments={"amsgrad": True, "weight_decay": 0.1},
    ),
    Row(ours=Lion(lr=1e-3), theirs="pytorch_optimizer:Lion"),
    Row(
        ours=Lion(lr=1e-3, weight_decay=0.1), theirs="pytorch_optimizer:Lion", arguments={"weight_decay": 0.1}
    ),
]
TORCH_MUON = [
    Row(ours=Muon(lr=0.02, eps=TINY), theirs="torch.optim:Muon", arguments={"weight_decay": 0.0}),
    Row(
        ours=Muon(lr=0.02, scale="rms", weight_decay=0.1, nesterov=False, ns_steps=6, eps=TINY),
        theirs="torch.optim:Muon",
        arguments={"weight_decay": 0.1, "nesterov": False, "ns_steps": 6, "adjust_lr_fn": "match_rms_adamw"},
    ),
]
OPTAX = [
    Row(ours=Lion(lr=1e-3), theirs="optax:lion", arguments={"weight_decay": 0.0}),
    Row(ours=Lion(lr=1e-3, weight_decay=0.1), theirs="optax:lion", arguments={"weight_decay": 0.1}),
    Row(ours=Lamb(lr=0.01, weight_decay=0.1), theirs="optax:lamb", arguments={"weight_decay": 0.1}),
    Row(ours=Lamb(lr=0.01, weight_decay=0.0), theirs="optax:lamb"),
    Row(ours=Adamax(lr=0.01), theirs="optax:adamax"),
    Row(ours=Adadelta(lr=1.0), theirs="optax:adadelta"),
    # Epsilon stands elsewhere.
    Row(ours=RAdam(lr=0.01, eps=TINY), theirs="optax:radam", arguments={"eps": TINY}),
    # Nesterov's form is mixed of moments with a bias correction.
    Row(
        ours=Muon(lr=0.02, weight_decay=0.1, nesterov=False, eps=TINY),
        theirs="optax.contrib:muon",
        arguments={"weight_decay": 0.1, "nesterov": False, "eps": TINY},
    ),
    Row(
        ours=Muon(lr=0.02, scale="rms", nesterov=False, eps=TINY),
        theirs="optax.contrib:muon",
        arguments={"consistent_rms": 0.2, "nesterov": False, "eps": TINY},
    ),
]
KERAS = [
    Row(ours=Lion(lr=1e-3), theirs="keras.optimizers:Lion"),
    Row(
        ours=Lion(lr=1e-3, weight_decay=0.1), theirs="keras.optimizers:Lion", arguments={"weight_decay": 0.1}
    ),
    Row(ours=Lamb(lr=0.01, weight_decay=0.0, eps=1e-7), theirs="keras.optimizers:Lamb"),
    Row(
        ours=Adadelta(lr=0.5, rho=0.95, eps=1e-7),
        theirs="keras.optimizers:Adadelta",
    ),
    Row(
        ours=Adam(lr=0.01, amsgrad=True, flavor="keras", eps=1e-7),
        theirs="keras.optimizers:Adam",
        arguments={"amsgrad": True},
    ),
    # Epsilon stands elsewhere.
    Row(ours=Adamax(lr=0.01, eps=TINY), theirs="keras.optimizers:Adamax", arguments={"epsilon": TINY}),
    # Its momentum is 1 / (1 - momentum) times as large, and so is its norm beside epsilon; Keras takes that
    # norm, and the root of the shape, in float32.
    Row(
        ours=Muon(lr=0.02, scale="rms", weight_decay=0.1, eps=1e-7 * 0.05),
        theirs="keras.optimizers:Muon",
        arguments={"weight_decay": 0.1},
        bar=1e-7,
    ),
    Row(
        ours=Muon(lr=0.02, scale="none", nesterov=False, eps=1e-7 * 0.05),
        theirs="keras.optimizers:Muon",
        arguments={"weight_decay": 0.0, "rms_rate": None, "nesterov": False},
        bar=1e-7,
    ),
]


def gap(row: Row, trained: Callable[[Row, Problem], list[Any]]) -> float:
    """Largest error of a class over the problems."""
    found = 0.0
    for problem in row.problems:
        *_, wanted = reference(row.ours, problem, STEPS)
        found = max(found, error(trained(row, problem), wanted))
    return found


def by_torch(row: Row, problem: Problem) -> list[Any]:
    """Train with a class of PyTorch; Muon is given each matrix as PyTorch's layers hold it, [out, in]."""
    import torch

    def turned(x):
        return np.ascontiguousarray(x.T) if row.ours.optimizer == "muon" else x.copy()

    params = [torch.tensor(turned(w), requires_grad=True) for w in problem.start]
    optimizer = resolve_name(row.theirs)(params, lr=row.ours.lr, **row.arguments)
    for t in range(1, STEPS + 1):
        gradients = problem.gradient([turned(w.detach().numpy()) for w in params], t)
        for w, g in zip(params, gradients, strict=True):
            w.grad = torch.tensor(turned(g))
        optimizer.step()
    return [turned(w.detach().numpy()) for w in params]


def by_optax(row: Row, problem: Problem) -> list[Any]:
    """Train with a function of optax."""
    import jax
    import optax

    solver = resolve_name(row.theirs)(row.ours.lr, **row.arguments)
    params = [jax.numpy.asarray(w) for w in problem.start]
    state, update = solver.init(params), jax.jit(solver.update)
    for t in range(1, STEPS + 1):
        gradients = problem.gradient([np.array(w) for w in params], t)
        updates, state = update([jax.numpy.asarray(g) for g in gradients], state, params)
        params = optax.apply_updates(params, updates)
    return [np.array(w) for w in params]


def by_keras(row: Row, problem: Problem) -> list[Any]:
    """Train with a class of Keras, whose default precision is float64."""
    import keras

    params = [keras.Variable(w, dtype="float64") for w in problem.start]
    optimizer = resolve_name(row.theirs)(row.ours.lr, **row.arguments)
    for t in range(1, STEPS + 1):
        gradients = problem.gradient([np.array(keras.ops.convert_to_numpy(w)) for w in params], t)
        optimizer.apply([keras.ops.convert_to_tensor(g, dtype="float64") for g in gradients], params)
    return [np.array(keras.ops.convert_to_numpy(w)) for w in params]


def needs(row: Row) -> None:
    """Skip where a class's package is not installed, or too old to have it."""
    module, _, name = row.theirs.partition(":")
    found = pytest.importorskip(module, reason=f"{row.theirs} is compared with")
    if not hasattr(found, name):
        pytest.skip(f"{module} here has no {name}")


@rows(TORCH)
def test_classes_of_pytorch_take_the_references_steps(row):
    pytest.importorskip("torch")
    needs(row)
    assert gap(row, by_torch) <= BAR


@rows(TORCH_MUON)
def test_pytorchs_muon_differs_by_its_bfloat16_alone(row, monkeypatch):
    torch = pytest.importorskip("torch")
    needs(row)
    rounded = gap(row, by_torch)
    assert 1e-5 < rounded < 1e-2
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    assert gap(row, by_torch) <= BAR


@rows(OPTAX)
def test_functions_of_optax_take_the_references_steps(row):
    needs(row)
    with session("jax"):
        assert gap(row, by_optax) <= BAR


def test_optaxs_rprop_takes_each_step_one_update_late():
    pytest.importorskip("optax")
    import jax.numpy as jnp
    import optax

    generator = np.random.default_rng(3)
    gradients = generator.normal(size=(STEPS, 7)) + 0.5
    ours = Rprop(lr=0.01)
    family, w = FAMILIES["rprop"], np.zeros(7)
    state, last = family.start(ours, w), np.zeros(7)
    with session("jax"):
        solver = optax.rprop(0.01)
        theirs = solver.init(jnp.zeros(7))
        for t, g in enumerate(gradients, 1):
            moved, state = family.step(ours, w, g, state, t)
            updates, theirs = solver.update(jnp.asarray(g), theirs)
            flipped = (moved == w) & (g != 0)
            np.testing.assert_allclose(updates, np.where(flipped, 0, last), rtol=1e-12)
            w, last = moved, moved - w


def test_optaxs_amsgrad_keeps_the_largest_corrected_moment():
    pytest.importorskip("optax")
    row = Row(ours=Adam(lr=0.01, amsgrad=True), theirs="optax:amsgrad")
    with session("jax"):
        assert gap(row, by_optax) > 1e-3
        (found,) = by_optax(row, rosenbrock())
    problem = rosenbrock()
    w, m, v, largest = problem.start[0], 0.0, 0.0, 0.0
    for t in range(1, STEPS + 1):
        (g,) = problem.gradient([w], t)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        largest = np.maximum(largest, v / (1 - 0.999**t))
        w = w - 0.01 * m / (1 - 0.9**t) / (np.sqrt(largest) + 1e-8)
    np.testing.assert_allclose(found, w, rtol=1e-10)


#: Keras has one backend a process.
IN_KERAS = """
import json, keras
keras.config.set_floatx("float64")
if keras.config.backend() == "jax":
    import jax
    jax.config.update("jax_enable_x64", True)
from tests.optimizers.test_against_libraries import KERAS, by_keras, gap
print(json.dumps({str(row): gap(row, by_keras) for row in KERAS}))
"""


@pytest.mark.slow
def test_classes_of_keras_take_the_references_steps():
    pytest.importorskip("keras", reason="its classes are compared with")
    there = [name for name in ("jax", "torch", "tensorflow") if importlib.util.find_spec(name)]
    environment = {**os.environ, "KERAS_BACKEND": there[0], "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", IN_KERAS],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(KERAS)
    bars = {str(row): row.bar for row in KERAS}
    assert {name: off for name, off in found.items() if not off <= bars[name]} == {}
