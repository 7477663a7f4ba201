"""Checks of rules that take tensors as a whole: what kind they are, and what holds of those on matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.optimizers import OptimizerConfig, family_of, groups, has_rule
from optbench.verification.checks import Check, error
from optbench.verification.problems import Problem, quadratic
from optbench.verification.steppers import make

#: Singular values of a step of Muon, over its learning rate and factor: what five iterations leave.
SINGULAR = (0.5, 1.5)
SHAPES = ((6, 6), (4, 9), (9, 4))


def checks(backend: str, cases: Sequence[Any]) -> Iterator[Check]:
    """Check shape, scale and rotation of the first step of a family that moves matrices."""
    yield from matrices(cases[0], backend)


def matrices(config: OptimizerConfig, backend: str) -> Iterator[Check]:
    """Take first steps from zero with gradients of several shapes, sizes and rotations.

    Of a class whose rule is not known the figures have no bars.
    """
    known = has_rule(config)
    generator = np.random.default_rng(6)
    gradients = [generator.normal(size=shape) for shape in SHAPES]
    steps = [_first(config, backend, g) for g in gradients]
    sizes = np.array([np.linalg.svd(step, compute_uv=False)[[0, -1]] for step in steps])
    figure = ", ".join(f"{s[0]}x{s[1]}: {v[1]:.2g} to {v[0]:.2g}" for s, v in zip(SHAPES, sizes, strict=True))
    wanted = [_factor(config, shape) for shape in SHAPES]
    low, high = SINGULAR
    fits = all(low * f <= v[1] and v[0] <= high * f for f, v in zip(wanted, sizes, strict=True) if f)
    yield Check(
        name="first step of a matrix: singular values",
        backend=backend,
        passed=fits if known else None,
        figure=figure,
        bar=f"{low:g} to {high:g} times lr and the shape's factor" if known else "",
    )
    gap = max(error([_first(config, backend, 100 * g)], [s]) for g, s in zip(gradients, steps, strict=True))
    yield Check(
        name="first step of a matrix: gradient x 100",
        backend=backend,
        passed=gap <= 1e-5 if known else None,
        figure=f"changes by {gap:.1e}",
        bar="1e-05" if known else "",
    )
    gap = max(_turned(config, backend, g, s, generator) for g, s in zip(gradients, steps, strict=True))
    yield Check(
        name="first step of a matrix: turned as the gradient is",
        backend=backend,
        passed=gap <= 1e-8 if known else None,
        figure=f"off by {gap:.1e}",
        bar="1e-08" if known else "",
    )


def kind(config: OptimizerConfig, backend: str, problem: Problem) -> str:
    """Tell what a rule takes as a whole, by what happens when the entries of tensors change places.

    Returns
    -------
    str
        ``elements`` where entries that change places move as before, but for tensors put together;
        ``matrices`` where they do not.
    """
    generator = np.random.default_rng(7)
    order = [generator.permutation(w.size) for w in problem.start]

    def moved(arrays: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        return [a.ravel()[p].reshape(a.shape) for a, p in zip(arrays, order, strict=True)]

    plain, placed = (
        make(backend, config, problem.start, "float64"),
        make(backend, config, moved(problem.start), "float64"),
    )
    for t in range(1, 4):
        loss, gradients = problem.evaluate(plain.weights(), t)
        plain.step(gradients, loss)
        placed.step(moved(gradients), loss)
    return "elements" if error(placed.weights(), moved(plain.weights())) <= 1e-9 else "matrices"


def suited(config: OptimizerConfig, backend: str) -> Problem:
    """Choose the quadratic that a class can take: of its matrix alone where it refuses a vector."""
    whole = quadratic()
    if has_rule(config):
        return whole
    try:
        make(backend, config, whole.start, "float32").step(whole.gradient(whole.start, 1))
    except (
        Exception
    ):  # a third-party class may refuse in any way; the matrix alone shows whether it can at all
        return Problem(
            name="quadratic of a matrix",
            start=whole.start[:1],
            evaluate=lambda w, t: _part(whole, w, t),
        )
    return whole


def _part(whole: Problem, w: list[NDArray[np.float64]], t: int) -> tuple[float, list[NDArray[np.float64]]]:
    loss, gradients = whole.evaluate([*w, np.zeros_like(whole.start[1])], t)
    return loss, gradients[:1]


def _first(config: OptimizerConfig, backend: str, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    stepper = make(backend, config, [np.zeros_like(gradient)], "float64")
    stepper.step([gradient], 1.0)
    return stepper.weights()[0]


def _turned(
    config: OptimizerConfig,
    backend: str,
    gradient: NDArray[np.float64],
    step: NDArray[np.float64],
    generator: np.random.Generator,
) -> float:
    left, right = (np.linalg.qr(generator.normal(size=(n, n)))[0] for n in gradient.shape)
    return error([_first(config, backend, left @ gradient @ right)], [left @ step @ right])


def _factor(config: OptimizerConfig, shape: tuple[int, int]) -> float:
    """Learning rate times what the family's rule makes of a shape; 0 where it is not known."""
    if not has_rule(config) or not family_of(config).matrices(config):
        return 0.0
    (part,) = groups.assign(config, {"w": "matrix"})
    from optbench.optimizers.muon import factor

    rate: float = part.config.lr * factor(part.config.scale, *shape)
    return rate
