"""A trial's wall time over the same training written by hand: ``python benchmarks/trial_overhead.py``.

Both sides do the same work in one process, one after the other: the same model, data, number of steps,
optimizer and evaluations (training subset and validation each epoch, test at the end), data resident in
memory, no loader, no synchronisation in an epoch. The hand-written side takes no fingerprints and keeps no
record. Printed is the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from optbench.backends import engine
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.execution.protocol import run_trial
from optbench.models.layers import Model
from optbench.models.zoo import mlp, small_cnn
from optbench.optimizers import Adam
from optbench.trial import Seeds, TrialSpec, Workload

CASES = {
    "mlp 64, digits": ("digits", Model(name="mlp", layers=mlp(hidden=[64])), 32, 20),
    "mlp 128-256, mnist-mini": ("mnist-mini", Model(name="mlp", layers=mlp()), 64, 5),
    "small_cnn, mnist-mini": ("mnist-mini", Model(name="small_cnn", layers=small_cnn()), 64, 3),
}


def by_hand(spec: TrialSpec) -> float:
    """Train as a careful person would by hand; returns the test accuracy."""
    torch.manual_seed(spec.seeds.init)  # by chance accuracies part by as much as is asserted
    dataset = registry.load(spec.workload.dataset)
    data = cut(dataset, spec.workload.split, spec.seeds, train_eval=1000)
    x_train, x_test = (
        torch.from_numpy((x * np.float32(1 / 255)).astype(np.float32))
        for x in (dataset.x_train, dataset.x_test)
    )
    if spec.workload.model.name == "mlp":
        x_train, x_test = x_train.flatten(1), x_test.flatten(1)
        sizes = [x_train.shape[1], *(layer.units for layer in spec.workload.model.layers[:-1])]
        layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    else:
        x_train, x_test = (
            x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last) for x in (x_train, x_test)
        )
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)
        )
        net = nn.Sequential(net, nn.Flatten(), nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 10))
        net = net.to(memory_format=torch.channels_last)
    y_train, y_test = torch.from_numpy(dataset.y_train.copy()), torch.from_numpy(dataset.y_test.copy())
    optimizer = torch.optim.Adam(net.parameters(), lr=spec.optimizer.lr, fused=True)
    rows = torch.from_numpy(data.train.rows)
    subset, validation = torch.from_numpy(data.train_eval.rows), torch.from_numpy(data.validation.rows)

    def evaluate(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
        net.eval()
        with torch.inference_mode():
            logits = net(x)
            loss = F.cross_entropy(logits, y).item()
            accuracy = (logits.argmax(1) == y).float().mean().item()
        net.train()
        return loss, accuracy

    generator = np.random.default_rng(0)
    for epoch in range(spec.workload.epochs + 1):
        if epoch:
            losses = []
            for batch in rows[torch.from_numpy(generator.permutation(len(rows)))].split(
                spec.workload.batch_size
            ):
                loss = F.cross_entropy(net(x_train.index_select(0, batch)), y_train.index_select(0, batch))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss.detach())
            torch.stack(losses).mean().item()
        evaluate(x_train.index_select(0, subset), y_train.index_select(0, subset))
        evaluate(x_train.index_select(0, validation), y_train.index_select(0, validation))
    return evaluate(x_test, y_test)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch_engine = engine("torch")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {repeats} interleaved pairs")
    print(f"{'case':28} {'ours / by hand':>15} {'quartiles':>15} {'by hand, s':>11}")
    for name, (dataset, model, batch, epochs) in CASES.items():
        workload = Workload(dataset=dataset, model=model, batch_size=batch, epochs=epochs)
        spec = TrialSpec(
            workload=workload,
            optimizer=Adam(lr=0.002),
            seeds=Seeds(),
            backend="torch",
            device="cpu",
            precision="float32",
        )
        sides = (
            lambda spec=spec: run_trial(
                spec, torch_engine, registry.load(spec.workload.dataset), environment={}
            ).metrics["test_accuracy"],
            lambda spec=spec: by_hand(spec),
        )
        accuracies = [side() for side in sides]
        assert abs(accuracies[0] - accuracies[1]) < 0.03, "the two sides do not train the same thing"
        ratios, hands = [], []
        for repeat in range(repeats):
            seconds = [0.0, 0.0]
            for which in (0, 1) if repeat % 2 else (1, 0):
                clock = time.perf_counter()
                sides[which]()
                seconds[which] = time.perf_counter() - clock
            ratios.append(seconds[0] / seconds[1])
            hands.append(seconds[1])
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:28} {middle:15.3f} {f'{low:.3f}-{high:.3f}':>15} {statistics.median(hands):11.3f}")


if __name__ == "__main__":
    main()
