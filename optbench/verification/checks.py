"""The checks of an optimizer: each takes a config and a backend and returns what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from optbench.optimizers import CanonicalConfig, OptimizerConfig, family_of, groups, has_rule
from optbench.optimizers.base import Hyperparameters
from optbench.verification.problems import Arrays, Problem, problems
from optbench.verification.steppers import make

#: Steps and largest relative error of a trajectory, by precision: rounding grows chaotically after a while.
TRAJECTORY = {"float64": (50, 1e-10), "float32": (10, 1e-5)}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes
    ----------
    name, backend : str
        What was checked, and where.
    passed : bool or None
        None where there is nothing to pass: a figure without a bar, or a check that was skipped.
    figure : str
        What was found, or why it was skipped.
    bar : str
        What had to be reached; empty without a bar.
    """

    name: str
    backend: str
    passed: bool | None
    figure: str
    bar: str = ""


def label(config: Hyperparameters) -> str:
    """Name a config by what it changes: ``variant=paper``, ``momentum=0.9, nesterov=True``, or ``plain``.

    The learning rate is not named.
    """
    if not has_rule(config):
        return str(getattr(config, "reference", config))
    default = type(config)()
    changed = {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if f.name != "lr" and getattr(config, f.name) != getattr(default, f.name)
    }
    return ", ".join(f"{name}={value}" for name, value in changed.items()) or "plain"


def reference(config: CanonicalConfig, problem: Problem, steps: int) -> Iterator[Arrays]:
    """Run the NumPy reference in float64: the weights after each step."""
    weights = [w.copy() for w in problem.start]
    assigned = groups.assign(config, groups.roles_by_shape([w.shape for w in weights]))
    own = [
        part.config
        for _, part in sorted(
            ((int(name), part) for part in assigned for name in part.names), key=lambda pair: pair[0]
        )
    ]
    families = [family_of(part) for part in own]
    states = [family.start(c, w) for family, c, w in zip(families, own, weights, strict=True)]
    for t in range(1, steps + 1):
        loss, gradients = problem.evaluate(weights, t)
        for k, g in enumerate(gradients):
            weights[k], states[k] = families[k].step(own[k], weights[k], g, states[k], t, loss=loss)
        yield list(weights)


def trajectory(config: OptimizerConfig, backend: str, problem: Problem, dtype: str, steps: int) -> Arrays:
    """Train a problem with a framework's optimizer; each step sees the gradient at its own weights."""
    stepper = make(backend, config, problem.start, dtype)
    for t in range(1, steps + 1):
        loss, gradients = problem.evaluate(stepper.weights(), t)
        stepper.step(gradients, loss)
    return stepper.weights()


def error(found: Arrays, wanted: Arrays) -> float:
    """Largest difference over the largest weight of the same tensor; infinite where something is NaN."""
    worst = max(
        float(np.abs(a - b).max() / np.abs(b).max()) if np.abs(b).max() else float(np.abs(a - b).max())
        for a, b in zip(found, wanted, strict=True)
    )
    return worst if math.isfinite(worst) else math.inf


def trajectories(cases: Sequence[CanonicalConfig], backend: str, ends: list[Arrays]) -> Iterator[Check]:
    """Compare every case and problem with the reference, in both precisions.

    The last weights of the float64 runs are appended to ``ends``, for :func:`cross_backend`.
    """
    for problem in problems():
        for dtype, (steps, bar) in TRAJECTORY.items():
            worst, where = 0.0, ""
            for config in cases:
                *_, wanted = reference(config, problem, steps)
                end = trajectory(config, backend, problem, dtype, steps)
                if dtype == "float64":
                    ends.append(end)
                found = error(end, wanted)
                if not found <= worst:
                    worst, where = found, label(config)
            yield Check(
                name=f"{problem.name}, {steps} steps, {dtype}, against the reference",
                backend=backend,
                passed=worst <= bar,
                figure=f"{worst:.1e}" + (f" ({where})" if worst > bar else ""),
                bar=f"{bar:.0e}",
            )


def cross_backend(ends: Mapping[str, list[Arrays]]) -> Iterator[Check]:
    """Compare the backends with each other: where each one's float64 trajectories ended."""
    steps, bar = TRAJECTORY["float64"]
    first, *others = ends
    for other in others:
        worst = max(error(a, b) for a, b in zip(ends[other], ends[first], strict=True))
        yield Check(
            name=f"all problems, {steps} steps, float64, against {first}",
            backend=other,
            passed=worst <= bar,
            figure=f"{worst:.1e}",
            bar=f"{bar:.0e}",
        )


def invariances(config: OptimizerConfig, backend: str) -> Iterator[Check]:
    """Check what needs no reference: determinism, zeros, scale, concatenation, a state saved half-way."""
    from optbench.verification import matrix_checks

    problem = matrix_checks.suited(config, backend)
    yield _which(config, backend, problem)
    runs = [trajectory(config, backend, problem, "float32", 20) for _ in range(2)]
    yield _bits("the same run twice", backend, runs[0], runs[1])
    moved = sum(float(np.abs(a - b).sum()) for a, b in zip(runs[0], problem.start, strict=True))
    yield Check(
        name="steps move the weights", backend=backend, passed=moved > 0, figure=f"{moved:.2g}", bar="> 0"
    )
    yield _zero_gradient(config, backend, problem)
    # A class that takes matrices alone is given rows in place of vectors.
    only_matrices = all(w.ndim > 1 for w in problem.start)

    def row(x: Any) -> Any:
        return x[None] if only_matrices else x

    yield _scale(config, backend, row)
    yield from _concatenated(config, backend, problem, row)
    yield _resumed(config, backend, problem)
    for dtype in ("float16", "bfloat16"):
        yield _half_precision(config, backend, dtype, problem)

    measured = make(backend, config, [row(np.ones(1000))], "float32")
    measured.step([row(np.ones(1000))])
    yield Check(
        name="state, bytes a float32 parameter",
        backend=backend,
        passed=None,
        figure=f"{measured.state_bytes() / 1000:g}",
    )


def _zero_gradient(config: OptimizerConfig, backend: str, problem: Problem) -> Check:
    """A step with gradient 0 leaves the weights where they are, but for a declared decay."""
    known = has_rule(config)
    stepper = make(backend, config, problem.start, "float64")
    stepper.step([np.zeros_like(w) for w in problem.start])
    decay = family_of(config).decay(config)
    drift = error(stepper.weights(), [w * (1 - decay) for w in problem.start])
    return Check(
        name="a zero gradient leaves the weights" + (" but for the decay" if decay else ""),
        backend=backend,
        passed=drift <= 1e-15 if known else None,
        figure=f"{drift:.1e}",
        bar="1e-15" if known else "",
    )


def _concatenated(
    config: OptimizerConfig, backend: str, problem: Problem, row: Callable[[Any], Any]
) -> Iterator[Check]:
    """Two tensors move as one that holds both; a rule of whole tensors shows another figure instead."""
    from optbench.verification import matrix_checks

    family, known = family_of(config), has_rule(config)
    one = [row(np.concatenate([w.ravel() for w in problem.start]))]
    together = make(backend, config, one, "float32")
    separate = make(backend, config, problem.start, "float32")
    for t in range(1, 21):
        gradients = problem.gradient(separate.weights(), t)
        separate.step(gradients)
        together.step([row(np.concatenate([g.ravel() for g in gradients]))])
    joined = row(np.concatenate([w.ravel() for w in separate.weights()]))
    gap = error(together.weights(), [joined])  # a vector loop's remainder may round otherwise than its body
    whole = known and not family.by_element(config)
    figure = f"off by {gap:.1e}" if gap else "identical"
    if not known and not gap <= 1e-6:
        whole = True
        kind = matrix_checks.kind(config, backend, problem)
    elif whole:
        kind = "matrices" if family.matrices(config) else "elements"
    if whole:
        figure = "works on whole matrices" if kind == "matrices" else "takes each tensor as a whole"
    yield Check(
        name="two tensors or one concatenated",
        backend=backend,
        passed=None if whole else gap <= 1e-6,
        figure=figure,
        bar="" if whole else "1e-06",
    )
    if whole and not known and kind == "matrices":
        yield from matrix_checks.matrices(config, backend)


def _resumed(config: OptimizerConfig, backend: str, problem: Problem) -> Check:
    """A stepper that goes on from another's saved state moves as that one does."""
    straight = make(backend, config, problem.start, "float32")
    for gradients in [problem.gradient(problem.start, 1)] * 10:
        straight.step(gradients)
    resumed = make(backend, config, problem.start, "float32")
    resumed.restore(straight.snapshot())
    for _ in range(10):
        for stepper in (straight, resumed):
            stepper.step(problem.gradient(stepper.weights(), 1))
    return _bits("state saved and loaded half-way", backend, resumed.weights(), straight.weights())


def _scale(config: OptimizerConfig, backend: str, row: Callable[[Any], Any]) -> Check:
    """How the first step answers to gradients a hundred times as large."""
    lengths = []
    for factor in (1.0, 100.0):
        stepper = make(backend, config, [row(np.zeros(3))], "float64")
        stepper.step([factor * row(np.array([1.0, -2.0, 3.0]))])
        lengths.append(float(np.abs(stepper.weights()[0]).sum()))
    ratio = lengths[1] / lengths[0] if lengths[0] else math.nan
    known = has_rule(config)
    expected = 100.0 ** family_of(config).verification.gradient_power(config)
    close = abs(ratio / expected - 1) < 1e-3
    return Check(
        name="first step, gradient x 100: length x",
        backend=backend,
        passed=close if known else None,
        figure=f"{ratio:.4g}",
        bar=f"{expected:g}" if known else "",
    )


def _half_precision(config: OptimizerConfig, backend: str, dtype: str, problem: Problem) -> Check:
    """Twenty steps on the quadratic stay finite, and do not lose ground where float32 gains it."""
    name = f"{dtype} weights: finite, loss falls as in float32"
    try:
        ends = {d: trajectory(config, backend, problem, d, 20) for d in (dtype, "float32")}
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as failure:
        return Check(name=name, backend=backend, passed=None, figure=f"not supported: {failure}"[:80])
    losses = {d: problem.evaluate(w, 1)[0] for d, w in ends.items()}
    start = problem.evaluate(problem.start, 1)[0]
    # Half precision may lose a step below its spacing, so the loss may stand still, but not rise.
    good = math.isfinite(losses[dtype]) and (losses[dtype] <= 1.02 * start or losses["float32"] > start)
    figure = f"loss {start:.4g} -> {losses[dtype]:.4g} (float32 {losses['float32']:.4g})"
    # The frameworks' own classes let an epsilon of 1e-8 vanish in float16; that is theirs, and a figure here.
    ours = make(backend, config, problem.start, "float32").ours
    return Check(name=name, backend=backend, passed=good if good or ours else None, figure=figure)


def torch_only(config: OptimizerConfig) -> Iterator[Check]:
    """Check PyTorch's parameter groups and learning-rate schedules."""
    import torch

    from optbench.backends.torch.optimizers import make_optimizer
    from optbench.verification import matrix_checks

    start = matrix_checks.suited(config, "torch").start
    start = start if len(start) > 1 else [*start, -start[0]]

    def run(act: Callable[[Any, list[Any]], None]) -> Arrays:
        params = [torch.tensor(w, dtype=torch.float32, requires_grad=True) for w in start]
        act(make_optimizer, params)
        return [w.detach().double().numpy() for w in params]

    def steps(optimizer: Any, params: list[Any], *, halve: bool) -> None:
        for t in range(6):
            for w in params:
                w.grad = torch.ones_like(w) * (1 if t % 3 else -2)
            optimizer.step()
            if halve and t == 2:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.5

    def grouped(build: Any, params: list[Any]) -> None:
        optimizer = build(config, params[:1])
        template = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        optimizer.add_param_group({**template, "params": params[1:], "lr": template["lr"] / 2})
        steps(optimizer, params, halve=False)

    def separate(build: Any, params: list[Any]) -> None:
        for w, factor in ((params[:1], 1.0), (params[1:], 0.5)):
            optimizer = build(config, w)
            optimizer.param_groups[0]["lr"] *= factor
            steps(optimizer, w, halve=False)

    name = "two groups as two optimizers"
    if family_of(config).parts(config) is None:
        yield _bits(name, "torch", run(grouped), run(separate))
    else:
        yield Check(name=name, backend="torch", passed=None, figure="skipped: it makes groups of its own")
    scheduled = run(lambda build, params: steps(build(config, params), params, halve=True))
    constant = run(lambda build, params: steps(build(config, params), params, halve=False))
    gap, moved = error(scheduled, constant), family_of(config).scheduled
    yield Check(
        name="a schedule that halves lr is obeyed" if moved else "no schedule moves it",
        backend="torch",
        passed=gap > 0 if moved else gap == 0,
        figure=f"{gap:.1e}",
        bar="> 0" if moved else "0",
    )


def settings_for_invariances(config: OptimizerConfig) -> OptimizerConfig:
    """Take a learning rate at which twenty steps on the quadratic are visible in half precision."""
    if not has_rule(config) or label(config) != "plain":
        return config
    return replace(config, lr=family_of(config).verification.lr)


def _which(config: OptimizerConfig, backend: str, problem: Problem) -> Check:
    figure = make(backend, config, problem.start, "float32").describe()
    return Check(name="optimizer that runs", backend=backend, passed=None, figure=figure)


def _bits(name: str, backend: str, actual: Arrays, wanted: Arrays) -> Check:
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(actual, wanted, strict=True))
    figure = "identical" if same else f"off by {error(actual, wanted):.1e}"
    return Check(name=name, backend=backend, passed=same, figure=figure, bar="identical")
