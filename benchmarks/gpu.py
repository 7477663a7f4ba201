"""What a GPU makes of it: ``python benchmarks/gpu.py`` prints Markdown for docs/performance.md.

1. Milliseconds a training step in PyTorch on ``mlp``, ``cnn_2c1d`` and ``mosca_cnn``: eager, compiled, as a
   CUDA graph; in float32, tf32 and bfloat16.
2. Stacks of seeds, and a sweep of learning rates, against the same trials one by one: steps alone, then whole
   trials with their evaluations.
3. A step of WAME's kernel and of fused Adam over 1e5 to 1e9 weights, with the bytes a second that it reaches,
   against the bandwidth that a copy reaches on the same device.
4. The loss curve of 50 steps against the CPU's.

On a CPU it runs with small sizes, to show that it works, and says what it could not measure.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from optbench import backends, matching
from optbench.backends.base import is_out_of_memory
from optbench.backends.torch.optimizers import make_optimizer
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.environment import Context
from optbench.execution.protocol import run_trial
from optbench.execution.stacks import run_stack
from optbench.models import zoo
from optbench.models.layers import Model, build
from optbench.optimizers import WAME, Adam
from optbench.trial import Seeds, TrialSpec, Workload

BATCH = 64
MODELS = {
    "mlp": zoo.mlp(hidden=[128, 256]),
    "cnn_2c1d": zoo.cnn_2c1d(dropout=0.0),
    "mosca_cnn": zoo.mosca_cnn(dropout=0.0),
}
STACKED = ("torch", "jax")
WAYS = ("eager", "compiled", "graph")
PRECISIONS = ("float32", "tf32", "bfloat16")
#: Bytes that a step moves a weight: weights, gradients and state read; weights and state written.
MOVED = {"wame": 4 * (5 + 4), "adam": 4 * (4 + 3)}


def trial(
    model: str,
    device: str,
    *,
    dataset: str,
    precision: str = "float32",
    seed: int = 0,
    lr: float = 1e-3,
    backend: str = "torch",
    epochs: int = 1,
) -> TrialSpec:
    return TrialSpec(
        workload=Workload(
            dataset=dataset, model=Model(name=model, layers=MODELS[model]), batch_size=BATCH, epochs=epochs
        ),
        optimizer=Adam(lr=lr),
        seeds=Seeds(init=seed, order=seed),
        backend=backend,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
    )


def opened(spec: TrialSpec, steps: int, way: str = "auto") -> tuple[Any, Any]:
    """Open a trial whose steps are taken so; its session and the rows of so many full batches."""
    dataset = registry.load(spec.workload.dataset)
    data = cut(dataset, spec.workload.split, spec.seeds, train_eval=10)
    built = build(spec.workload.model, dataset.info.shape, dataset.info.outputs)
    weights = matching.initial_weights(built, spec.seeds.init, spec.precision)
    session = backends.engine(spec.backend, Context(step=way)).open(spec, built, data, weights)
    return session, np.resize(data.train.rows, steps * BATCH)


def seconds(work: Callable[[], object], device: str, *, rounds: int) -> float:
    """Median seconds over rounds, after a first one; the device is waited for."""
    taken = []
    for _ in range(rounds + 1):
        wait(device)
        clock = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - clock)
    return statistics.median(taken[1:])


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def table(title: str, *header: str) -> None:
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{' --- |' * len(header)}", flush=True)


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def engines(options: argparse.Namespace) -> None:
    table(
        f"Milliseconds a step, batch {BATCH}, Adam, of {options.steps} steps",
        *("model", "precision", *WAYS, "chosen by auto"),
    )
    for model, precision in itertools.product(MODELS, PRECISIONS):
        if precision == "tf32" and options.device != "cuda":
            row(model, precision, "not measured: needs an NVIDIA GPU", "", "", "")
            continue
        cells = []
        for way in (*WAYS, "auto"):
            spec = trial(model, options.device, precision=precision, dataset=options.dataset)
            session, rows = opened(spec, options.steps, way)
            session.warm_up()
            facts = session.facts()
            if way == "auto":
                cells.append(f"{facts['step']} ({facts['step_because']})")
            elif way in ("compiled", "graph") and facts["step"] != way:
                cells.append(f"not measured: {facts['step_because']}")
            else:
                taken = seconds(
                    lambda s=session, r=rows: s.train_epoch(r, 1), options.device, rounds=options.rounds
                )
                cells.append(f"{taken / options.steps * 1e3:.3f}")
        row(model, precision, *cells)


def stacks(options: argparse.Namespace) -> None:
    sizes = [size for size in (1, 8, 32, 64, 128) if size <= options.seeds]
    for backend in STACKED:
        if backend not in backends.installed():
            print(f"\n{backend}: not installed, not measured")
            continue
        table(
            f"{backend}, {options.precision}: a stack's step in ms, and how many times more trials an hour "
            "than one by one; Adam",
            *("model", "one trial, ms", *map(str, sizes)), "sweep of 16 rates",
        )  # fmt: skip
        for model in MODELS:
            steps = options.steps if model == "mlp" else max(2, options.steps // 4)
            session, rows = opened(
                trial(
                    model,
                    options.device,
                    dataset=options.dataset,
                    backend=backend,
                    precision=options.precision,
                ),
                steps,
            )
            session.warm_up()
            alone = seconds(
                lambda s=session, r=rows: s.train_epoch(r, 1), options.device, rounds=options.rounds
            )
            cells = [f"{alone / steps * 1e3:.3f}"]
            for size, rates in [*((size, 1) for size in sizes), (min(64, sizes[-1]), 16)]:
                taken = stacked(model, backend, size, rates, steps, options)
                cells.append(
                    "out of memory"
                    if taken is None
                    else f"{taken / steps * 1e3:.3f}: {alone * size / taken:.1f}"
                )
            row(model, *cells)


def stacked(
    model: str, backend: str, size: int, rates: int, steps: int, options: argparse.Namespace
) -> float | None:
    """Seconds of so many steps of a stack of seeds, or of a sweep; None where the memory is short."""
    each = size // min(rates, size)
    specs = [
        trial(
            model, options.device, seed=k % each, lr=1e-3 * (1 + k // each), dataset=options.dataset,
            backend=backend, precision=options.precision,
        )
        for k in range(size)
    ]  # fmt: skip
    try:
        sessions, rows = zip(*(opened(spec, steps) for spec in specs), strict=True)
        built = build(specs[0].workload.model, registry.info(options.dataset).shape, 10)
        stack = backends.engine(backend).stack(specs, built, sessions)  # type: ignore[attr-defined]
        return seconds(
            lambda: stack.train_epoch(sessions, list(rows), None), options.device, rounds=options.rounds
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def whole(options: argparse.Namespace) -> None:
    """Time trials from spec to record: opening, evaluations and metrics of each are in it."""
    table(
        f"Whole trials of {options.epochs} epochs on {options.dataset}, Adam",
        *("backend", "model", "one by one, s each", f"{options.seeds} stacked, s", "times more an hour"),
    )
    dataset = registry.load(options.dataset)
    for backend, model in itertools.product(STACKED, ("mlp",)):
        if backend not in backends.installed():
            continue
        engine = backends.engine(backend)
        specs = [
            trial(
                model, options.device, seed=k, dataset=options.dataset, backend=backend, epochs=options.epochs
            )
            for k in range(options.seeds)
        ]
        few = specs[: min(4, len(specs))]
        run_trial(specs[0], engine, dataset, environment={})
        run_stack(specs, engine, dataset, environment={})  # both compile what they need
        clock = time.perf_counter()
        for spec in few:
            run_trial(spec, engine, dataset, environment={})
        alone = (time.perf_counter() - clock) / len(few)
        clock = time.perf_counter()
        run_stack(specs, engine, dataset, environment={})
        together = time.perf_counter() - clock
        row(backend, model, f"{alone:.3f}", f"{together:.3f}", f"{alone * len(specs) / together:.1f}")


def kernels(options: argparse.Namespace) -> None:
    device, top = options.device, options.weights
    source = torch.empty(min(top, 2**26), device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / seconds(lambda: target.copy_(source), device, rounds=20)
    table(
        f"A step over all weights; a copy of {source.nbytes / 2**20:.0f} MiB reaches {copied / 1e9:.0f} GB/s",
        *(
            "weights",
            "WAME, ms",
            "GB/s",
            "of the copy",
            "fused Adam, ms",
            "GB/s",
            "of the copy",
            "WAME / Adam",
        ),
    )
    for size in (10**k for k in range(5, 10) if 10**k <= top):
        cells: list[str] = []
        times = []
        for config in (WAME(), Adam()):
            try:
                w = torch.zeros(size, device=device, requires_grad=True)
                w.grad = torch.randn(size, device=device)
                optimizer = make_optimizer(config, [w])
                repeats = max(1, min(100, 10**7 // size))

                def steps(optimizer: Any = optimizer, repeats: int = repeats) -> None:
                    for _ in range(repeats):
                        optimizer.step()

                taken = seconds(steps, device, rounds=options.rounds) / repeats
                rate = MOVED[config.optimizer] * size / taken
                cells += [f"{taken * 1e3:.3f}", f"{rate / 1e9:.0f}", f"{rate / copied:.2f}"]
                times.append(taken)
                del w, optimizer, steps
            except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
                cells += [f"not measured: {str(error).partition(chr(10))[0][:60]}", "", ""]
        row(f"{size:.0e}", *cells, f"{times[0] / times[1]:.2f}" if len(times) == 2 else "")


def parity(options: argparse.Namespace) -> None:
    table("Largest relative difference of a batch's loss from the CPU's, 50 steps", "model", *WAYS)
    for model in MODELS:
        steps = 50 if options.device == "cuda" else 5
        session, rows = opened(trial(model, "cpu", dataset=options.dataset), steps, "eager")
        expected = session.train_epoch(rows, 1)
        cells = []
        for way in WAYS:
            session, _ = opened(trial(model, options.device, dataset=options.dataset), steps, way)
            session.warm_up()
            found = session.train_epoch(rows, 1)
            step = session.facts()["step"]
            note = "" if way == "eager" or step == way else f" ({step})"
            cells.append(f"{np.abs(found / expected - 1).max():.1e}{note}")
        row(model, *cells)


PARTS = {"engines": engines, "stacks": stacks, "whole": whole, "kernels": kernels, "parity": parity}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="may be repeated; all if not given")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=best)
    parser.add_argument("--dataset", default="mnist-mini", help="28x28 images in ten classes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of a timed epoch: 100, 4 on a CPU")
    parser.add_argument("--seeds", type=int, help="of the largest stack: 64, 2 on a CPU")
    parser.add_argument("--epochs", type=int, default=5, help="of whole trials")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS[:2],
        default="float32",
        help="of the stacks: frameworks default to tf32",
    )
    parser.add_argument("--weights", type=int, help="at most, for the kernels: 1e9, 1e6 on a CPU")
    options = parser.parse_args()
    gpu = options.device == "cuda"
    for name, large, small in (("steps", 100, 4), ("seeds", 64, 2), ("weights", 10**9, 10**6)):
        if getattr(options, name) is None:
            setattr(options, name, large if gpu else small)
    facts = backends.engine("torch").describe(options.device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="")
    print(f"; medians of {options.rounds} rounds.")
    if not gpu:
        print("No GPU: small sizes, to show that this script works. No figure of a GPU was measured.")
    for part in options.part or PARTS:
        PARTS[part](options)


if __name__ == "__main__":
    main()
