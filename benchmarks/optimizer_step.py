"""Step time of WAME against Adam, interleaved in one run, and the bars that it has to clear.

    python benchmarks/optimizer_step.py [--only torch|keras|gpu|rules] [--rounds 5] [--threads N]
    python benchmarks/optimizer_step.py --only rules [--framework torch|keras|optax] [--device cuda]

``rules`` times every canonical optimizer, as trials have it, against a library's class of the same name with
its own default form: the column of Adam is then that class's time. Families without such a class are named.

Prints a Markdown table: the median over rounds of the ratio of two medians, and its range. Every optimizer
steps on tensors of its own, in turns, after a warm-up; a GPU is synchronised after every step. Exit code 1 if
a bar is missed.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch

from optbench.backends.torch.optimizers import kernel_of, make_optimizer, parts_of
from optbench.optimizers import FAMILIES
from optbench.optimizers.torch import WAME
from optbench.verification.step_time import CNN, fused_adam, interleaved, torch_steps


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table; seconds and ratios."""

    what: str
    path: str
    adam: float
    ratios: tuple[float, ...]
    bar: float | None

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.ratios)


def measure(build: Callable[[], dict[str, Callable[[], object]]], *, repetitions: int, rounds: int) -> tuple:
    """Time "wame" against "adam" in fresh rounds: Adam's median seconds, and the ratio of each round."""
    adam, ratios = [], []
    for _ in range(rounds):
        seconds = interleaved(build(), repetitions=repetitions)
        adam.append(seconds["adam"])
        ratios.append(seconds["wame"] / seconds["adam"])
    return statistics.median(adam), tuple(ratios)


def torch_rows(rounds: int, *, device: str = "cpu") -> Iterator[Row]:
    large = [(f"1 tensor of {n:.0e}", [n], 1.35) for n in (10**6, 10**8, 10**9)]
    cpu = [("1 tensor of 10M", [10**7], 1.35), ("CNN, 20 tensors, 505k", list(CNN), 1.1)]
    for what, sizes, bar in large if device == "cuda" else cpu:
        for state_dtype in (None, torch.bfloat16):
            made = []

            def wame(params: list[torch.Tensor], dtype=state_dtype, made=made) -> torch.optim.Optimizer:
                made.append(WAME(params, lr=1e-2, state_dtype=dtype))
                made[-1].warm_up()
                return made[-1]

            def build(sizes=sizes, wame=wame) -> dict[str, Callable[[], object]]:
                return torch_steps({"adam": fused_adam, "wame": wame}, sizes, device=device)

            total = sum(sizes)
            repetitions = 300 if total < 2e6 else 40 if total < 2e7 else 10
            adam, ratios = measure(build, repetitions=repetitions, rounds=rounds)
            name = f"{what}, state {'bfloat16' if state_dtype else 'float32'}"
            limit = 1.1 if state_dtype else bar
            yield Row(what=name, path=made[-1].path, adam=adam, ratios=ratios, bar=limit)


def fallback_rows(rounds: int) -> Iterator[Row]:
    def plain(params: list[torch.Tensor]) -> torch.optim.Optimizer:
        return WAME(params, lr=1e-2, fused=False)

    for what, sizes in (("1 tensor of 10M", [10**7]), ("CNN, 20 tensors, 505k", list(CNN))):
        adam, ratios = measure(
            lambda sizes=sizes: torch_steps({"adam": fused_adam, "wame": plain}, sizes),
            repetitions=5,
            rounds=rounds,
        )
        yield Row(what=f"{what}, without a compiler", path="plain", adam=adam, ratios=ratios, bar=None)


#: A library's class of the same rule by framework and family, and its arguments beside the learning rate.
OTHERS: dict[str, dict[str, tuple[str, dict[str, object]]]] = {
    "torch": {
        "adam": ("torch.optim:Adam", {}),
        "adamw": ("torch.optim:AdamW", {}),
        "nadam": ("torch.optim:NAdam", {}),
        "radam": ("torch.optim:RAdam", {}),
        "adamax": ("torch.optim:Adamax", {}),
        "lamb": ("pytorch_optimizer:Lamb", {}),
        "lion": ("pytorch_optimizer:Lion", {}),
        "muon": ("torch.optim:Muon", {"weight_decay": 0.0}),
        "rmsprop": ("torch.optim:RMSprop", {}),
        "adagrad": ("torch.optim:Adagrad", {}),
        "adadelta": ("torch.optim:Adadelta", {}),
        "rprop": ("torch.optim:Rprop", {}),
        "sgd": ("torch.optim:SGD", {}),
    },
    "keras": {
        "adam": ("keras.optimizers:Adam", {}),
        "adamw": ("keras.optimizers:AdamW", {}),
        "nadam": ("keras.optimizers:Nadam", {}),
        "adamax": ("keras.optimizers:Adamax", {}),
        "lamb": ("keras.optimizers:Lamb", {}),
        "lion": ("keras.optimizers:Lion", {}),
        "muon": ("keras.optimizers:Muon", {"weight_decay": 0.0}),
        "rmsprop": ("keras.optimizers:RMSprop", {}),
        "adagrad": ("keras.optimizers:Adagrad", {}),
        "adadelta": ("keras.optimizers:Adadelta", {}),
        "sgd": ("keras.optimizers:SGD", {}),
    },
    "optax": {
        "adam": ("optax:adam", {}),
        "adamw": ("optax:adamw", {"weight_decay": 0.01}),
        "nadam": ("optax:nadam", {}),
        "radam": ("optax:radam", {}),
        "adamax": ("optax:adamax", {}),
        "lamb": ("optax:lamb", {"weight_decay": 0.01}),
        "lion": ("optax:lion", {"weight_decay": 0.0}),
        "muon": ("optax.contrib:muon", {}),
        "rmsprop": ("optax:rmsprop", {}),
        "adagrad": ("optax:adagrad", {}),
        "adadelta": ("optax:adadelta", {}),
        "rprop": ("optax:rprop", {}),
        "sgd": ("optax:sgd", {}),
    },
}
#: A step of a CNN of 20 tensors takes some tenths of a millisecond.
REPETITIONS = 100


def rule_rows(rounds: int, *, framework: str, device: str = "cpu") -> Iterator[Row]:
    """Time every family with a class to compare with; the others, and classes that are absent, are named."""
    for name, family in FAMILIES.items():
        other = OTHERS[framework].get(name)
        if other is None:
            print(f"# {name}: {framework} has no class of this rule", file=sys.stderr)
            continue
        reference, arguments = other
        try:
            theirs = resolve_name(reference)
        except (ImportError, AttributeError) as error:
            print(f"# {name}: {reference} is not here ({error})", file=sys.stderr)
            continue
        # Muon moves matrices; the vectors of the CNN are left out.
        shapes: list[Any] = [(n // 32, 32) for n in CNN if n >= 1024] if name == "muon" else list(CNN)
        config = family.config()
        step, path = _stepping(framework, config, shapes, device)

        def build(theirs=theirs, given=arguments, config=config, step=step, shapes=shapes) -> dict:
            return {"adam": step(partial(theirs, **given), shapes), "wame": step(None, shapes)}

        adam, ratios = measure(build, repetitions=REPETITIONS, rounds=rounds)
        what = f"{framework}: {name}, CNN of {len(shapes)} tensors, against {reference}"
        yield Row(what=what, path=path, adam=adam, ratios=ratios, bar=None)


def _stepping(framework: str, config: Any, shapes: Sequence[Any], device: str) -> tuple[Any, str]:
    """Return what builds a step of a library's class, or of ours for None, and how ours computes."""
    if framework == "torch":

        def torch_step(theirs: Any, shapes: Sequence[Any]) -> Callable[[], object]:
            def build(params: list[torch.Tensor]) -> torch.optim.Optimizer:
                return make_optimizer(config, params) if theirs is None else theirs(params, lr=config.lr)

            return torch_steps({"one": build}, shapes, device=device)["one"]

        ours = make_optimizer(config, [torch.zeros(n, device=device, requires_grad=True) for n in shapes[:1]])
        return torch_step, " and ".join(kernel_of(part).replace("plain", "rule") for part in parts_of(ours))
    if framework == "keras":
        from optbench.optimizers import keras as rules

        def keras_step(theirs: Any, shapes: Sequence[Any]) -> Callable[[], object]:
            return jitted(rules.make_optimizer(config) if theirs is None else theirs(config.lr), shapes)

        return keras_step, "XLA"
    from optbench.optimizers import optax as solvers

    def optax_step(theirs: Any, shapes: Sequence[Any]) -> Callable[[], object]:
        solver = solvers.make_optimizer(config) if theirs is None else theirs(config.lr)
        return compiled(solver, shapes)

    return optax_step, "XLA"


def compiled(solver: Any, shapes: Sequence[Any]) -> Callable[[], object]:
    """Build a step of an optax transformation under ``jax.jit``, its buffers given back."""
    import jax
    import numpy as np
    import optax

    generator = np.random.default_rng(0)
    weights, gradients = (
        [jax.numpy.asarray(generator.normal(size=n), "float32") for n in shapes] for _ in range(2)
    )

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any) -> Any:
        updates, state = solver.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    held = [(weights, solver.init(weights))]

    def step() -> None:
        held[0] = update(*held[0])
        jax.block_until_ready(held[0])

    return step


def jitted(optimizer: Any, sizes: Sequence[Any]) -> Callable[[], object]:
    """Build a step of a Keras optimizer on TensorFlow under ``jit_compile``."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np
    import tensorflow as tf

    generator = np.random.default_rng(0)
    weights = [keras.Variable(generator.normal(size=n).astype("float32")) for n in sizes]
    gradients = [tf.constant(generator.normal(size=n).astype("float32")) for n in sizes]
    optimizer.build(weights)

    @tf.function(jit_compile=True)
    def step() -> None:
        optimizer.apply(gradients, weights)

    def finished() -> None:
        step()
        optimizer.iterations.numpy()

    finished()
    return finished


def keras_rows(rounds: int) -> Iterator[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from optbench.optimizers.keras import WAME as KerasWAME

    cases = (("CNN, 20 tensors, 505k", list(CNN), 100), ("1 tensor of 10M", [10**7], 15))
    for what, sizes, repetitions in cases:

        def build(sizes=sizes) -> dict[str, Callable[[], object]]:
            adam, wame = keras.optimizers.Adam(1e-3), KerasWAME(1e-2)
            return {"adam": jitted(adam, sizes), "wame": jitted(wame, sizes)}

        adam, ratios = measure(build, repetitions=repetitions, rounds=rounds)
        yield Row(what=f"Keras under jit, {what}", path="XLA", adam=adam, ratios=ratios, bar=1.5)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("torch", "keras", "gpu", "rules"))
    parser.add_argument("--framework", choices=tuple(OTHERS), default="torch", help="of the rules")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of PyTorch's rules")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of PyTorch; 1 where other work runs on the machine")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    parts = {
        "torch": lambda: [*torch_rows(given.rounds), *fallback_rows(min(given.rounds, 2))],
        "keras": lambda: list(keras_rows(given.rounds)),
        "gpu": lambda: list(torch_rows(given.rounds, device="cuda")),
        "rules": lambda: list(rule_rows(given.rounds, framework=given.framework, device=given.device)),
    }
    wanted = (
        [given.only] if given.only else ["torch", "keras", *(["gpu"] if torch.cuda.is_available() else [])]
    )
    started, missed = time.perf_counter(), False
    head = "theirs, ms | ours / theirs" if given.only == "rules" else "Adam, ms | WAME / Adam"
    print(f"| step of | path | {head} | range | bar |\n|---|---|---|---|---|---|")
    for part in wanted:
        for row in parts[part]():
            bar = "" if row.bar is None else f"{row.bar:g}" + ("" if row.ratio <= row.bar else " **missed**")
            missed = missed or "missed" in bar
            spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
            print(f"| {row.what} | {row.path} | {row.adam * 1e3:.2f} | {row.ratio:.2f} | {spread} | {bar} |")
            sys.stdout.flush()
    threads = torch.get_num_threads()
    print(f"\ntorch {torch.__version__}, {threads} threads, {time.perf_counter() - started:.0f} s")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
