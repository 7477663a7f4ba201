"""Step time of WAME against Adam, interleaved in one run, and the bars that it has to clear.

    python benchmarks/optimizer_step.py [--only torch|keras|gpu|rules] [--rounds 5] [--threads N]

``rules`` times optbench's rules on PyTorch's arrays against a library's class of the same name instead: the
column of Adam is then that class's time.

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
from pkgutil import resolve_name
from typing import Any

import torch

from optbench.backends.torch.optimizers import make_optimizer
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


#: A library's class of the same rule, and its arguments.
OTHERS: dict[str, tuple[str, dict[str, object]]] = {
    "lion": ("pytorch_optimizer:Lion", {"lr": 1e-4}),
    "lamb": ("pytorch_optimizer:Lamb", {"lr": 1e-3}),
    "rprop": ("torch.optim:Rprop", {"lr": 1e-2}),
    "muon": ("torch.optim:Muon", {"lr": 2e-2}),
}


def rule_rows(rounds: int) -> Iterator[Row]:
    for name, (reference, arguments) in OTHERS.items():
        # Muon moves matrices; the vectors of the CNN of 20 tensors are left out.
        shapes: list[Any] = [(n // 32, 32) for n in CNN if n >= 1024] if name == "muon" else list(CNN)

        def ours(params: list[torch.Tensor], name=name) -> torch.optim.Optimizer:
            return make_optimizer(FAMILIES[name].config(), params)

        def theirs(params: list[torch.Tensor], reference=reference, given=arguments) -> torch.optim.Optimizer:
            return resolve_name(reference)(params, **given)

        adam, ratios = measure(
            lambda shapes=shapes, ours=ours, theirs=theirs: torch_steps(
                {"adam": theirs, "wame": ours}, shapes
            ),
            repetitions=30,
            rounds=rounds,
        )
        yield Row(
            what=f"{name}, CNN of {len(shapes)} tensors, against {reference}",
            path="rule",
            adam=adam,
            ratios=ratios,
            bar=None,
        )


def keras_rows(rounds: int) -> Iterator[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np
    import tensorflow as tf

    from optbench.optimizers.keras import WAME as KerasWAME

    def jitted(optimizer: keras.optimizers.Optimizer, sizes: Sequence[int]) -> Callable[[], object]:
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of PyTorch; 1 where other work runs on the machine")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    parts = {
        "torch": lambda: [*torch_rows(given.rounds), *fallback_rows(min(given.rounds, 2))],
        "keras": lambda: list(keras_rows(given.rounds)),
        "gpu": lambda: list(torch_rows(given.rounds, device="cuda")),
        "rules": lambda: list(rule_rows(given.rounds)),
    }
    wanted = (
        [given.only] if given.only else ["torch", "keras", *(["gpu"] if torch.cuda.is_available() else [])]
    )
    started, missed = time.perf_counter(), False
    print("| step of | path | Adam, ms | WAME / Adam | range | bar |\n|---|---|---|---|---|---|")
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
