"""The checks of an optimizer: each takes a config and a backend and returns what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optbench.optimizers import (
    FAMILIES,
    SGD,
    WAME,
    Adagrad,
    Adam,
    AdamW,
    CanonicalConfig,
    Nadam,
    OptimizerConfig,
    RMSprop,
)
from optbench.verification.problems import Arrays, Problem, golden, golden_config, problems, quadratic
from optbench.verification.steppers import make

#: Steps and largest relative error of a trajectory, by precision: rounding grows chaotically after a while.
TRAJECTORY = {"float64": (50, 1e-10), "float32": (10, 1e-5)}
GOLDEN = {"float64": 1e-11, "float32": 1e-5}


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


def configs(family: str) -> tuple[CanonicalConfig, ...]:
    """List the configs that exercise every branch of a family, at learning rates where they are stable."""
    cases: dict[str, Sequence[CanonicalConfig]] = {
        "sgd": (
            SGD(lr=1e-4),
            SGD(lr=1e-4, momentum=0.9),
            SGD(lr=1e-4, momentum=0.9, nesterov=True),
            SGD(lr=1e-4, momentum=0.9, dampening=0.5),
            SGD(lr=1e-4, momentum=0.9, flavor="keras"),
        ),
        "rmsprop": (
            RMSprop(),
            RMSprop(momentum=0.9),
            RMSprop(centered=True, eps=1e-4),
            RMSprop(momentum=0.5, flavor="keras"),
        ),
        "adagrad": (Adagrad(), Adagrad(initial_accumulator=0.1, flavor="keras")),
        "adam": (Adam(), Adam(eps=1e-7, flavor="keras")),
        "adamw": (AdamW(), AdamW(weight_decay=0.1, flavor="keras")),
        "nadam": (Nadam(), Nadam(momentum_decay=1.0, eps=1e-7)),
        "wame": (
            WAME(lr=0.01),
            WAME(lr=0.01, eps_mode="outside"),
            WAME(lr=1e-6, variant="paper"),
            WAME(lr=1e-5, variant="divide"),
            WAME(lr=1e-3, variant="author"),
            WAME(lr=1e-3, variant="author_shipped"),
            WAME(lr=0.01, variant="report1_shipped"),
            WAME(lr=1e-3, variant="report2_shipped", eps=1e-12),
        ),
    }
    return tuple(cases[family])


def label(config: OptimizerConfig) -> str:
    """Name a config by what it changes: ``variant=paper``, ``momentum=0.9, nesterov=True``, or ``plain``."""
    if config.optimizer == "custom":
        return config.reference
    default = type(config)()
    names = (
        "variant",
        "eps_mode",
        "momentum",
        "nesterov",
        "dampening",
        "centered",
        "momentum_decay",
        "flavor",
    )
    changed = {n: getattr(config, n) for n in names if getattr(config, n, None) != getattr(default, n, None)}
    return ", ".join(f"{name}={value}" for name, value in changed.items()) or "plain"


def reference(config: CanonicalConfig, problem: Problem, steps: int) -> Iterator[Arrays]:
    """Run the NumPy reference in float64: the weights after each step."""
    family = FAMILIES[config.optimizer]
    weights = [w.copy() for w in problem.start]
    states = [family.start(config, w) for w in weights]
    for t in range(1, steps + 1):
        gradients = problem.gradient(weights, t)
        for k, g in enumerate(gradients):
            weights[k], states[k] = family.step(config, weights[k], g, states[k], t)
        yield list(weights)


def trajectory(config: OptimizerConfig, backend: str, problem: Problem, dtype: str, steps: int) -> Arrays:
    """Train a problem with a framework's optimizer; each step sees the gradient at its own weights."""
    stepper = make(backend, config, problem.start, dtype)
    for t in range(1, steps + 1):
        stepper.step(problem.gradient(stepper.weights(), t))
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


def golden_vectors(backend: str) -> Iterator[Check]:
    """Compare WAME with the golden vectors: weights, zeta, Z and theta after every step."""
    for dtype, bar in GOLDEN.items():
        worst = 0.0
        keys = 0
        for case in golden():
            for key, expected in case["expected"].items():
                keys += 1
                config = WAME(**golden_config(case["hyper"], key))
                stepper = make(backend, config, [np.array(w) for w in case["w0"]], dtype)
                for gradients, wanted in zip(case["grads"], expected, strict=True):
                    stepper.step([np.array(g) for g in gradients])
                    for w, state, want in zip(stepper.weights(), stepper.wame_state(), wanted, strict=True):
                        for name in ("w", "zeta", "Z", "theta"):
                            found, right = w if name == "w" else state[name], np.array(want[name])
                            slack = bar * np.abs(right) + (1e-15 if dtype == "float64" else 1e-7) * (
                                name == "w"
                            )
                            excess = np.abs(found - right) / np.where(slack > 0, slack, 1e-30)
                            worst = max(worst, float(excess.max()))
        yield Check(
            name=f"golden vectors, {keys} sequences, {dtype}",
            backend=backend,
            passed=worst <= 1,
            figure=f"{worst * bar:.1e}",
            bar=f"{bar:.0e}",
        )


def wame_traps(backend: str) -> Iterator[Check]:
    """Check what goes wrong easily: zeta's climb, signs of tiny gradients, exact and negative zeros."""

    def after(gradients: Sequence[float], dtype: str = "float32") -> list[float]:
        stepper = make(backend, WAME(lr=1e-3), [np.ones(1)], dtype)
        zetas = []
        for g in gradients:
            stepper.step([np.array([g])])
            zetas.append(float(stepper.wame_state()[0]["zeta"][0]))
        return zetas

    climb = after([1.0] * 30)
    reached = next((t for t, zeta in enumerate(climb, 1) if zeta >= 100), None)
    yield _equal("constant gradient: zeta reaches 100 at step", backend, reached, 27)
    flip = [round(zeta, 6) for zeta in after([1e-25, -1e-25, -1e-25])]
    yield _equal("gradients of 1e-25 flip and agree: zeta", backend, flip, [1.0, 0.1, 0.12])
    zero = [round(zeta, 6) for zeta in after([1.0, 1.0, 0.0, 1.0, 1.0])]
    yield _equal("an exact zero leaves zeta, and is no sign: zeta", backend, zero, [1.0, 1.2, 1.2, 1.2, 1.44])
    negative = [round(zeta, 6) for zeta in after([1.0, 1.0, -0.0, -1.0, -1.0])]
    yield _equal("-0.0 counts as zero: zeta", backend, negative, [1.0, 1.2, 1.2, 1.2, 1.44])


def invariances(config: OptimizerConfig, backend: str) -> Iterator[Check]:
    """Check what needs no reference: determinism, zeros, scale, concatenation, a state saved half-way."""
    known = config.optimizer != "custom"
    problem = quadratic()
    runs = [trajectory(config, backend, problem, "float32", 20) for _ in range(2)]
    yield _bits("the same run twice", backend, runs[0], runs[1])

    moved = sum(float(np.abs(a - b).sum()) for a, b in zip(runs[0], problem.start, strict=True))
    yield Check(
        name="steps move the weights", backend=backend, passed=moved > 0, figure=f"{moved:.2g}", bar="> 0"
    )

    still = make(backend, config, problem.start, "float64")
    still.step([np.zeros_like(w) for w in problem.start])
    decay = 1 - config.lr * config.weight_decay if isinstance(config, AdamW) else 1.0
    drift = error(still.weights(), [w * decay for w in problem.start])
    yield Check(
        name="a zero gradient leaves the weights" + (" but for the decay" if decay != 1 else ""),
        backend=backend,
        passed=drift <= 1e-15 if known else None,
        figure=f"{drift:.1e}",
        bar="1e-15" if known else "",
    )
    yield _scale(config, backend)

    one = [np.concatenate([w.ravel() for w in problem.start])]
    together, apart = make(backend, config, one, "float32"), make(backend, config, problem.start, "float32")
    for t in range(1, 21):
        gradients = problem.gradient(apart.weights(), t)
        apart.step(gradients)
        together.step([np.concatenate([g.ravel() for g in gradients])])
    joined = np.concatenate([w.ravel() for w in apart.weights()])
    gap = error(together.weights(), [joined])  # a vector loop's remainder may round otherwise than its body
    yield Check(
        name="two tensors or one concatenated",
        backend=backend,
        passed=gap <= 1e-6,
        figure=f"off by {gap:.1e}" if gap else "identical",
        bar="1e-06",
    )

    straight = make(backend, config, problem.start, "float32")
    gradients_by_step = [problem.gradient(problem.start, 1)] * 10
    for g in gradients_by_step:
        straight.step(g)
    resumed = make(backend, config, problem.start, "float32")
    resumed.restore(straight.snapshot())
    for _ in range(10):
        for stepper in (straight, resumed):
            stepper.step(problem.gradient(stepper.weights(), 1))
    yield _bits("state saved and loaded half-way", backend, resumed.weights(), straight.weights())

    for dtype in ("float16", "bfloat16"):
        yield _half_precision(config, backend, dtype, problem)

    measured = make(backend, config, [np.ones(1000)], "float32")
    measured.step([np.ones(1000)])
    yield Check(
        name="state, bytes a float32 parameter",
        backend=backend,
        passed=None,
        figure=f"{measured.state_bytes() / 1000:g}",
    )


def _scale(config: OptimizerConfig, backend: str) -> Check:
    """How the first step answers to gradients a hundred times as large."""
    lengths = []
    for factor in (1.0, 100.0):
        stepper = make(backend, config, [np.zeros(3)], "float64")
        stepper.step([factor * np.array([1.0, -2.0, 3.0])])
        lengths.append(float(np.abs(stepper.weights()[0]).sum()))
    ratio = lengths[1] / lengths[0] if lengths[0] else math.nan
    if config.optimizer == "sgd":
        expected = 100.0
    else:
        expected = 0.01 if getattr(config, "variant", None) == "paper" else 1.0
    known = config.optimizer != "custom"
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
    ours = config.optimizer == "wame" or backend == "tensorflow"
    return Check(name=name, backend=backend, passed=good if good or ours else None, figure=figure)


def torch_only(config: OptimizerConfig) -> Iterator[Check]:
    """Check PyTorch's parameter groups and learning-rate schedules."""
    import torch

    from optbench.backends.torch.optimizers import make_optimizer

    start = quadratic().start

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

    yield _bits("two groups as two optimizers", "torch", run(grouped), run(separate))
    scheduled = run(lambda build, params: steps(build(config, params), params, halve=True))
    constant = run(lambda build, params: steps(build(config, params), params, halve=False))
    gap = error(scheduled, constant)
    yield Check(
        name="a schedule that halves lr is obeyed",
        backend="torch",
        passed=gap > 0,
        figure=f"{gap:.1e}",
        bar="> 0",
    )


def torch_packing(cases: Sequence[WAME]) -> Check:
    """Compare the one-pass kernel with its fallback, bit for bit, on hostile gradients."""
    import torch

    from optbench.optimizers.torch import HYPERPARAMETERS
    from optbench.optimizers.torch import WAME as TorchWAME

    generator = np.random.default_rng(6)
    differing, path = 0, ""
    for config in cases:
        arguments = {name: getattr(config, name) for name in (*HYPERPARAMETERS, "lr")}
        start = torch.from_numpy(generator.normal(size=5003)).float()
        both = [start.clone().requires_grad_() for _ in range(2)]
        fast, plain = TorchWAME(both[:1], **arguments), TorchWAME(both[1:], **arguments, fused=False)
        path = fast.path
        for _ in range(30):
            g = generator.normal(size=5003) * 10.0 ** generator.integers(-25, 3, 5003)
            g[generator.random(5003) < 0.1] = generator.choice([0.0, -0.0])
            for w, optimizer in zip(both, (fast, plain), strict=True):
                w.grad = torch.from_numpy(g).float()
                optimizer.step()
        differing += int((both[0] != both[1]).sum())
    return Check(
        name=f"path {path} against plain PyTorch, differing weights",
        backend="torch",
        passed=differing == 0,
        figure=str(differing),
        bar="0",
    )


def settings_for_invariances(config: OptimizerConfig) -> OptimizerConfig:
    """Take a learning rate at which twenty steps on the quadratic are visible in half precision."""
    rates = {"sgd": 1e-3, "wame": 1e-2}
    if config.optimizer == "custom" or label(config) != "plain":
        return config
    return replace(config, lr=rates.get(config.optimizer, 1e-2))


def _equal(name: str, backend: str, found: Any, wanted: Any) -> Check:
    return Check(name=name, backend=backend, passed=found == wanted, figure=str(found), bar=str(wanted))


def _bits(name: str, backend: str, found: Arrays, wanted: Arrays) -> Check:
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, wanted, strict=True))
    figure = "identical" if same else f"off by {error(found, wanted):.1e}"
    return Check(name=name, backend=backend, passed=same, figure=figure, bar="identical")
