"""A whole suite against the loops that people write: ``python benchmarks/suite_speed.py``.

4 optimizers x 5 seeds on ``mlp`` and ``cnn_2c1d``, 20,000 28x28 images, batches of 64, 3 epochs, looking at
2,000 validation images after every epoch and at 2,000 test images at the end. The contenders take turns.
Each is a process of its own with all cores of the machine, timed from its start to its end, imports included:

optbench
    ``optbench run`` with ``--workers auto`` and ``batch_seeds: auto``, statistics, leaderboard and report.
model.fit
    A Python loop over ``model.fit`` in TensorFlow: a cached, shuffled and prefetched pipeline, 16 steps an
    execution. No statistics.
tutorial
    A Python loop over a ``DataLoader`` in PyTorch, ``.item()`` after each step. No statistics.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

OPTIMIZERS = ("sgd", "rmsprop", "adam", "nadam")
MODELS = ("mlp", "cnn_2c1d")
BATCH, EPOCHS = 64, 3
#: How many times faster the whole of optbench should be.
BARS = {"model.fit": 4, "tutorial": 3}
SUITE = """
suite: speed
workloads:
{workloads}
optimizers: {{sgd: {{lr: 0.05}}, rmsprop: {{}}, adam: {{}}, nadam: {{}}}}
seeds: {seeds}
engine: {{batch_seeds: auto}}
"""
WORKLOAD = """  - dataset: {{npz: images.npz}}
    name: {model}
    model: {{name: {model}, dropout: 0.0}}
    batch_size: {batch}
    epochs: {epochs}
    split: {{validation: 2000, how: random}}
"""


def data(folder: Path, images: int) -> None:
    """Real digits, repeated with noise until there are enough of them."""
    from optbench.datasets import registry

    small = registry.load("mnist-mini")
    random = np.random.default_rng(0)
    n = images + 4000
    rows = random.integers(0, len(small.x_train), n)
    noisy = small.x_train[rows].astype(np.int16) + random.integers(-20, 20, (n, 28, 28, 1))
    x, y = noisy.clip(0, 255).astype(np.uint8), small.y_train[rows]
    cut = images + 2000
    np.savez(folder / "images.npz", x_train=x[:cut], y_train=y[:cut], x_test=x[cut:], y_test=y[cut:])


def arrays(folder: Path) -> list[Any]:
    """Images in [0, 1] and labels: training, validation, test."""
    with np.load(folder / "images.npz") as file:
        x, y = file["x_train"] / np.float32(255), file["y_train"]
        test = file["x_test"] / np.float32(255), file["y_test"]
    return [(x[:-2000], y[:-2000]), (x[-2000:], y[-2000:]), test]


def layers(model: str) -> Any:
    from optbench.models import zoo
    from optbench.models.layers import Model, build

    made = zoo.mlp() if model == "mlp" else zoo.cnn_2c1d(dropout=0.0)
    return build(Model(name=model, layers=made), (28, 28, 1), 10)


def run_optbench(folder: Path, seeds: int, models: list[str]) -> None:
    workloads = "".join(WORKLOAD.format(model=m, batch=BATCH, epochs=EPOCHS) for m in models)
    (folder / "speed.yaml").write_text(SUITE.format(workloads=workloads, seeds=seeds))
    program = [sys.executable, "-m", "optbench.cli"]
    subprocess.run([*program, "run", "speed.yaml", "--workers", "auto", "--fresh"], cwd=folder, check=True)
    subprocess.run([*program, "report", "speed.yaml"], cwd=folder, check=True)


def run_fit(folder: Path, seeds: int, models: list[str]) -> None:
    import keras
    import tensorflow as tf

    from optbench.models.layers import Conv2D, Dense, Flatten, MaxPool2D

    train, validation, test = arrays(folder)

    def network(model: str) -> Any:
        stack: list[Any] = [keras.Input((28, 28, 1))]
        built = layers(model)
        for place in built:
            layer = place.layer
            activation = None if place is built[-1] else "relu"
            if isinstance(layer, Conv2D):
                made = keras.layers.Conv2D(place.output_shape[-1], layer.kernel, activation=activation)
            elif isinstance(layer, MaxPool2D):
                made = keras.layers.MaxPool2D(layer.size)
            elif isinstance(layer, Flatten):
                made = keras.layers.Flatten()
            elif isinstance(layer, Dense):
                made = keras.layers.Dense(place.output_shape[0], activation=activation)
            else:
                continue
            stack.append(made)
        return keras.Sequential(stack)

    optimizers = {
        "sgd": lambda: keras.optimizers.SGD(0.05),
        "rmsprop": keras.optimizers.RMSprop,
        "adam": keras.optimizers.Adam,
        "nadam": keras.optimizers.Nadam,
    }
    source = tf.data.Dataset.from_tensor_slices(train).cache().shuffle(len(train[0])).batch(BATCH).prefetch(4)
    checked = tf.data.Dataset.from_tensor_slices(validation).batch(1000).cache()
    for model in models:
        for name in OPTIMIZERS:
            for seed in range(seeds):
                keras.utils.set_random_seed(seed)
                net = network(model)
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                net.compile(optimizers[name](), loss, metrics=["accuracy"], steps_per_execution=16)
                net.fit(source, epochs=EPOCHS, validation_data=checked, verbose=0)
                print(model, name, seed, net.evaluate(*test, batch_size=1000, verbose=0))


def run_tutorial(folder: Path, seeds: int, models: list[str]) -> None:
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from optbench.models.layers import Conv2D, Dense, Flatten, MaxPool2D

    parts = [
        TensorDataset(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y))
        for x, y in arrays(folder)
    ]

    def network(model: str) -> nn.Module:
        stack: list[nn.Module] = []
        for place in layers(model):
            layer, shape = place.layer, place.input_shape
            if isinstance(layer, Conv2D):
                stack += [nn.Conv2d(shape[-1], place.output_shape[-1], layer.kernel), nn.ReLU()]
            elif isinstance(layer, MaxPool2D):
                stack.append(nn.MaxPool2d(layer.size))
            elif isinstance(layer, Flatten):
                stack.append(nn.Flatten())
            elif isinstance(layer, Dense):
                stack += [nn.Linear(shape[0], place.output_shape[0]), nn.ReLU()]
        return nn.Sequential(*stack[:-1])

    optimizers: dict[str, Any] = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
        "adam": torch.optim.Adam,
        "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    }
    loader = DataLoader(parts[0], batch_size=BATCH, shuffle=True)
    others = [DataLoader(part, batch_size=1000) for part in parts[1:]]

    def accuracy(net: nn.Module, batches: Any) -> float:
        with torch.no_grad():
            return sum((net(x).argmax(1) == y).sum().item() for x, y in batches) / 2000

    for model in models:
        for name in OPTIMIZERS:
            for seed in range(seeds):
                torch.manual_seed(seed)
                net = network(model)
                optimizer = optimizers[name](net.parameters())
                for _ in range(EPOCHS):
                    total = 0.0
                    for x, y in loader:
                        optimizer.zero_grad()
                        loss = F.cross_entropy(net(x), y)
                        loss.backward()
                        optimizer.step()
                        total += loss.item()
                    accuracy(net, others[0])
                print(model, name, seed, total, accuracy(net, others[1]))


CONTENDERS = {"optbench": run_optbench, "model.fit": run_fit, "tutorial": run_tutorial}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=MODELS, action="append", help="may be repeated")
    parser.add_argument("--only", choices=CONTENDERS, action="append", help="may be repeated")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    models = options.model or list(MODELS)
    if options.one:
        CONTENDERS[options.one](options.folder, options.seeds, models)
        return
    chosen = options.only or list(CONTENDERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data(folder, options.images)
        taken: dict[str, list[float]] = {contender: [] for contender in chosen}
        for _ in range(options.rounds):
            for contender in chosen:
                command = [sys.executable, __file__, "--one", contender, "--folder", name]
                clock = time.perf_counter()
                subprocess.run(
                    [*command, "--seeds", str(options.seeds), *(f"--model={m}" for m in models)],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                taken[contender].append(time.perf_counter() - clock)
    print("| contender | seconds | times the first | bar |")
    print("| --- | --- | --- | --- |")
    for contender, seconds in taken.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, taken[chosen[0]], strict=True))
        bar = BARS.get(contender, "") if chosen[0] == "optbench" else ""
        print(f"| {contender} | {statistics.median(seconds):.1f} | {ratio:.2f} | {bar} |")


if __name__ == "__main__":
    main()
