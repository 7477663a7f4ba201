"""Problems whose gradients NumPy gives: the same numbers reach every framework's optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Arrays = list[NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Starting weights, and the loss and gradient at weights ``w`` in step ``t`` (1, 2, ...).

    Noise is drawn by the step's number, so that every optimizer meets the same.
    """

    name: str
    start: Arrays
    evaluate: Callable[[Arrays, int], tuple[float, Arrays]]

    def gradient(self, weights: Arrays, t: int) -> Arrays:
        """Return the gradient alone."""
        return self.evaluate(weights, t)[1]


def problems() -> tuple[Problem, ...]:
    """List them: a quadratic, Rosenbrock, a noisy logistic regression, a small CNN."""
    return quadratic(), rosenbrock(), logistic(), cnn()


def quadratic() -> Problem:
    """Build a bowl with curvatures from .01 to 100, over two tensors."""
    curvature = [np.logspace(-2, 2, 12).reshape(3, 4), np.logspace(-1, 1, 5)]
    generator = np.random.default_rng(1)
    start = [generator.normal(size=c.shape) for c in curvature]

    def evaluate(w: Arrays, t: int) -> tuple[float, Arrays]:
        loss = sum(float((c * x * x).sum()) / 2 for c, x in zip(curvature, w, strict=True))
        return loss, [c * x for c, x in zip(curvature, w, strict=True)]

    return Problem(name="quadratic", start=start, evaluate=evaluate)


def rosenbrock() -> Problem:
    """Build the curved valley of Rosenbrock (1960) in ten dimensions."""
    start = [np.tile([-1.2, 1.0], 5)]

    def evaluate(w: Arrays, t: int) -> tuple[float, Arrays]:
        x, y = w[0][::2], w[0][1::2]
        gap = y - x * x
        gradient = np.empty_like(w[0])
        gradient[::2] = -400 * x * gap - 2 * (1 - x)
        gradient[1::2] = 200 * gap
        return float((100 * gap**2 + (1 - x) ** 2).sum()), [gradient]

    return Problem(name="Rosenbrock", start=start, evaluate=evaluate)


def logistic() -> Problem:
    """Build a logistic regression on random minibatches, with label noise."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(400, 20))
    y = (x @ generator.normal(size=20) + generator.normal(size=400) > 0).astype(float)

    def evaluate(w: Arrays, t: int) -> tuple[float, Arrays]:
        rows = np.random.default_rng((3, t)).integers(0, len(x), 16)
        logits = x[rows] @ w[0] + w[1]
        error = (1 / (1 + np.exp(-logits)) - y[rows]) / len(rows)
        loss = float(np.mean(np.logaddexp(0, logits) - y[rows] * logits))
        return loss, [x[rows].T @ error, error.sum(keepdims=True)]

    return Problem(name="logistic", start=[np.zeros(20), np.zeros(1)], evaluate=evaluate)


def cnn() -> Problem:
    """Build a convolution, ReLU and a dense softmax layer on random minibatches of synthetic images."""
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 3, 120)
    images = generator.normal(size=(120, 6, 6)) + generator.normal(size=(3, 6, 6))[labels]
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    patches = windows.reshape(120, 16, 9)
    shapes = [(9, 4), (4,), (64, 3), (3,)]
    start = [generator.normal(size=s) * (0.3 if len(s) > 1 else 0) for s in shapes]

    def evaluate(w: Arrays, t: int) -> tuple[float, Arrays]:
        rows = np.random.default_rng((5, t)).integers(0, 120, 32)
        hidden = patches[rows] @ w[0] + w[1]
        flat = np.maximum(hidden, 0).reshape(32, 64)
        logits = flat @ w[2] + w[3]
        logits -= logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        error = (np.exp(log_p) - np.eye(3)[labels[rows]]) / 32
        back = (error @ w[2].T).reshape(32, 16, 4) * (hidden > 0)
        kernel = np.einsum("npk,npc->kc", patches[rows], back)
        gradients = [kernel, back.sum((0, 1)), flat.T @ error, error.sum(0)]
        return float(-log_p[np.arange(32), labels[rows]].mean()), gradients

    return Problem(name="CNN", start=start, evaluate=evaluate)
