"""Seeds as one program against one by one: ``python benchmarks/stacked_seeds.py``.

Printed is how many times more trials an hour a stack of so many seeds trains than the same trials one after
the other: an epoch of each, in turns in one process, median over the rounds. Compilation and evaluation are
outside.
"""

from __future__ import annotations

import argparse
import statistics
import time

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.models import zoo
from optbench.models.layers import Model, build
from optbench.optimizers import Adam
from optbench.trial import Seeds, TrialSpec, Workload

#: Layers, batch size and steps of an epoch.
CASES = {
    "mlp 32": (zoo.mlp(hidden=[32]), 32, 40),
    "mlp 128-256": (zoo.mlp(hidden=[128, 256]), 64, 20),
    "mlp": (zoo.mlp(), 64, 10),
    "cnn_2c1d": (zoo.cnn_2c1d(dropout=0.0), 32, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", action="append", help="torch or jax; may be repeated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--sizes", default="2,4,8,16,32,64")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dataset = registry.load("mnist-mini")
    for backend in options.backend or [name for name in backends.installed() if name != "tensorflow"]:
        engine = backends.engine(backend)
        for case in options.case or CASES:
            layers, batch, steps = CASES[case]
            print(f"{backend:6} {case:12}", end="", flush=True)
            for size in map(int, options.sizes.split(",")):
                specs = [
                    TrialSpec(
                        workload=Workload(
                            dataset="mnist-mini", model=Model(name="m", layers=layers),
                            batch_size=batch, epochs=1,
                        ),
                        optimizer=Adam(),
                        seeds=Seeds(init=seed, order=seed),
                        backend=backend,  # type: ignore[arg-type]
                        device=options.device,  # type: ignore[arg-type]
                        precision="float32",
                    )
                    for seed in range(size)
                ]  # fmt: skip
                built = build(specs[0].workload.model, dataset.info.shape, 10)
                sessions = []
                for spec in specs:
                    data = cut(dataset, spec.workload.split, spec.seeds, train_eval=10)
                    weights = matching.initial_weights(built, spec.seeds.init, "float32")
                    sessions.append(engine.open(spec, built, data, weights))
                stack = engine.stack(specs, built, sessions)  # type: ignore[attr-defined]
                rows = data.train.rows[: batch * steps]
                ratios = []
                for turn in range(options.rounds + 1):
                    clock = time.perf_counter()
                    for session in sessions:
                        session.train_epoch(rows, 1)
                    alone = time.perf_counter() - clock
                    clock = time.perf_counter()
                    stack.train_epoch(sessions, [rows] * size, None)
                    if turn:
                        ratios.append(alone / (time.perf_counter() - clock))
                print(f"   {size}: {statistics.median(ratios):.2f}x", end="", flush=True)
            print()


if __name__ == "__main__":
    main()
