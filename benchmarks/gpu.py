"""What a GPU makes of it: ``python benchmarks/gpu.py`` prints Markdown for docs/performance.md.

1. Milliseconds a training step in PyTorch on ``mlp``, ``cnn_2c1d`` and ``mosca_cnn``: eager, compiled, as a
   CUDA graph; in float32, tf32 and bfloat16.
2. Trials an hour of stacks of seeds against the same trials one by one.
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
from optbench.backends.torch.optimizers import make_optimizer
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.environment import Context
from optbench.models import zoo
from optbench.models.layers import Model, build
from optbench.optimizers import WAME, Adam
from optbench.trial import Seeds, TrialSpec, Workload

BATCH = 64
MODELS = {
    "mlp": zoo.mlp(),
    "cnn_2c1d": zoo.cnn_2c1d(dropout=0.0),
    "mosca_cnn": zoo.mosca_cnn(dropout=0.0),
}
WAYS = ("eager", "compiled", "graph")
PRECISIONS = ("float32", "tf32", "bfloat16")
#: Bytes that a step moves a weight: weights, gradients and state read; weights and state written.
MOVED = {"wame": 4 * (5 + 4), "adam": 4 * (4 + 3)}


def trial(model: str, device: str, *, precision: str = "float32", seed: int = 0, dataset: str) -> TrialSpec:
    return TrialSpec(
        workload=Workload(
            dataset=dataset, model=Model(name=model, layers=MODELS[model]), batch_size=BATCH, epochs=1
        ),
        optimizer=Adam(),
        seeds=Seeds(init=seed, order=seed),
        backend="torch",
        device=device,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
    )


def opened(spec: TrialSpec, steps: int, way: str = "auto") -> tuple[Any, Any]:
    """Open a trial whose steps are taken so; its session and the rows of so many full batches."""
    dataset = registry.load(spec.workload.dataset)
    data = cut(dataset, spec.workload.split, spec.seeds, train_eval=10)
    built = build(spec.workload.model, dataset.info.shape, dataset.info.outputs)
    weights = matching.initial_weights(built, spec.seeds.init, spec.precision)
    session = backends.engine("torch", Context(step=way)).open(spec, built, data, weights)
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
    sizes = [2**k for k in range(7) if 2**k <= options.seeds]
    table(
        f"Trials an hour of a stack of seeds over those of the same trials one by one, {options.steps} steps",
        "model", *map(str, sizes),
    )  # fmt: skip
    for model in MODELS:
        ratios = []
        for size in sizes:
            specs = [trial(model, options.device, seed=k, dataset=options.dataset) for k in range(size)]
            sessions, rows = zip(*(opened(spec, options.steps) for spec in specs), strict=True)
            built = build(specs[0].workload.model, registry.info(options.dataset).shape, 10)
            try:
                stack = backends.engine("torch").stack(specs, built, sessions)  # type: ignore[attr-defined]

                def one_by_one(sessions: Any = sessions, rows: Any = rows) -> None:
                    for session, own in zip(sessions, rows, strict=True):
                        session.train_epoch(own, 1)

                alone = seconds(one_by_one, options.device, rounds=options.rounds)
                together = seconds(
                    lambda t=stack, s=sessions, r=rows: t.train_epoch(s, list(r), None),
                    options.device,
                    rounds=options.rounds,
                )
                ratios.append(f"{alone / together:.2f}")
            except torch.cuda.OutOfMemoryError:
                ratios.append("out of memory")
        row(model, *ratios)


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


PARTS = {"engines": engines, "stacks": stacks, "kernels": kernels, "parity": parity}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="may be repeated; all if not given")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=best)
    parser.add_argument("--dataset", default="mnist-mini", help="28x28 images in ten classes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of a timed epoch: 100, 4 on a CPU")
    parser.add_argument("--seeds", type=int, help="of the largest stack: 64, 2 on a CPU")
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
