"""What a checkpoint costs: seconds to write it to the disk and to go back to it, and its size.

    python benchmarks/checkpoints.py [--backend torch] [--repetitions 5] [--folder DIR]

DIR should be on the disk that holds results; the default is a temporary folder under the working directory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.execution.checkpoint import MINUTES, Checkpoints, Saved
from optbench.models import zoo
from optbench.models.layers import Model, build
from optbench.optimizers import WAME
from optbench.trial import Seeds, TrialSpec, Workload

MODELS = {
    "small_cnn": zoo.small_cnn(),
    "mlp 512-512": zoo.mlp(hidden=(512, 512)),
    "mosca_cnn 4096": zoo.mosca_cnn(dense=(4096,)),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--backend", nargs="+", default=[n for n in ("torch", "tensorflow", "jax") if find_spec(n)]
    )
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--folder", default=".")
    chosen = options.parse_args()
    dataset = registry.load("mnist-mini")
    for backend in chosen.backend:
        for name, layers in MODELS.items():
            model = Model(name=name, layers=layers)
            workload = Workload(dataset="mnist-mini", model=model, batch_size=64, epochs=1)
            spec = TrialSpec(
                workload=workload,
                optimizer=WAME(),
                seeds=Seeds(),
                backend=backend,
                device="cpu",
                precision="float32",
            )
            data = cut(dataset, workload.split, spec.seeds, train_eval=100)
            built = build(model, dataset.info.shape, dataset.info.outputs)
            weights = matching.initial_weights(built, 0, "float32")
            session = backends.engine(backend).open(spec, built, data, weights)
            session.warm_up()
            session.train_epoch(data.train.rows[:128], 1)
            saves, restores = [], []
            with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
                file = Checkpoints(Path(folder)).of("trial", {})
                for _ in range(chosen.repetitions):
                    clock = time.perf_counter()
                    file.save(Saved(progress={}, arrays=session.state()))
                    saves.append(time.perf_counter() - clock)
                    clock = time.perf_counter()
                    session.restore(file.load().arrays)
                    restores.append(time.perf_counter() - clock)
                size = file.path.stat().st_size
            parameters = sum(w.size for w in weights.values())
            save = statistics.median(saves)
            print(
                f"{backend}, {name} ({parameters:,} weights, WAME): {size / 1e6:.1f} MB, "
                f"write {1000 * save:.0f} ms ({1000 * min(saves):.0f} to {1000 * max(saves):.0f}), "
                f"go back {1000 * statistics.median(restores):.0f} ms; "
                f"every {MINUTES:g} minutes {save / (60 * MINUTES):.3%} of a trial"
            )


if __name__ == "__main__":
    main()
