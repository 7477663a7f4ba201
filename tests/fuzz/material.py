"""What the cases damage: a store of synthetic records, a trained one, checkpoints and event files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

from optbench.execution.checkpoint import Checkpoints
from optbench.records.store import Store
from optbench.suite.load import load_suite
from tests.conftest import REPOSITORY, TINY
from tests.fuzz.sandbox import Sandbox
from tests.report.conftest import fill_store

TUNED = """
suite: tuned
workloads:
  - dataset: iris
    model: {name: mlp, hidden: [4], dropout: [0.1]}
    batch_size: 64
    epochs: 2
    early_stopping: {monitor: val_loss, patience: 1}
optimizers:
  adam: {lr: 0.01}
  momentum: {optimizer: sgd, lr: 0.05, momentum: 0.9}
seeds: [0, 1]
device: cpu
tuning:
  sampler: random
  trials: 2
  seeds: 1
  monitor: val_loss
  widen: 1
  untuned: true
  space:
    adam: {lr: {log: [1.0e-3, 1.0e-1]}, beta1: [0.8, 0.9]}
    momentum: {lr: {log: [1.0e-3, 1.0e-1]}, momentum: {decay: [0.5, 0.99]}}
  network: {model.hidden: [[4], [8]]}
analysis: {baseline: adam, primary: test_loss, alpha: 0.1, margin: 0.01, correction: bonferroni}
"""

RICH = """
suite: rich
title: Everything
workloads:
  - name: layered
    dataset: digits
    model:
      layers:
        - {kind: conv2d, filters: 2, kernel: 3}
        - {kind: flatten}
        - {kind: dense, units: 4, activation: relu}
        - {kind: dropout, rate: 0.2}
    batch_size: 512
    epochs: 1
    schedule: {kind: cosine}
    label_smoothing: 0.1
    clip_norm: 1.0
    augment: {rotation: 10, shift: 0.1}
    top_k: [2]
    per_class: true
    divergence: {factor: 5, epochs: 2}
    weight_decay: 0.001
    split: {validation: 0.2, how: stratified}
    targets: {val_accuracy: 0.9}
    optimizers: [sgd]
  - name: tabular
    dataset: wine
    model: {name: mlp}
    batch_size: full
    epochs: 1
    grid: {batch_size: [32, 64], model.hidden: [[4], [8]]}
optimizers:
  wame: {lr: 0.05, grid: {alpha: [0.9, 0.8]}}
  sgd: {}
seeds: {init: [0, 1], order: [0]}
backends: [torch]
device: cpu
precision: float64
engine: {batch_seeds: 2}
max_trials: 100
"""


class Material:
    """Sound inputs, made once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.suites = [
            TINY,
            TUNED,
            RICH,
            *(p.read_text() for p in sorted((REPOSITORY / "suites").glob("*.yaml"))),
        ]
        self.stores = [_made_store(folder), _trained_store(folder)]
        self.checkpoints, self.numbers = _checkpoints(folder)
        self.events = _events(folder)


def _made_store(folder: Path) -> Path:
    path = folder / "made.yaml"
    path.write_text(TINY.replace("seeds: 2", "seeds: 3"))
    fill_store(load_suite(path), folder / "made", lambda t: (0.9, 0.8, "diverged")[t.spec.seeds.init])
    return folder / "made" / "store.sqlite"


def _trained_store(folder: Path) -> Path:
    sandbox = Sandbox(folder / "training")
    (sandbox.work / "tuned.yaml").write_text(TUNED.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    outcome = sandbox.run("run", "tuned.yaml", "--smoke", limit=300)
    assert outcome.complaint() is None, outcome
    assert outcome.code == 0, outcome
    return sandbox.results / "tuned-smoke" / "store.sqlite"


def _checkpoints(folder: Path) -> tuple[list[Path], dict[str, tuple[str, dict[str, float]]]]:
    """What trials leave while they are under way, and the numbers that they come to."""
    sandbox = Sandbox(folder / "checkpoints")
    suite = sandbox.work / "tiny.yaml"
    suite.write_text(TINY)
    with patch.object(Checkpoints, "remove"):
        outcome = sandbox.run("run", suite, "--smoke", "--checkpoint-minutes", "1e-9", limit=300)
    assert outcome.code == 0, outcome
    store = sandbox.results / "tiny-smoke"
    found = sorted((store / "checkpoints").glob("*.npz"))
    assert found
    return found, numbers_of(store)


def _events(folder: Path) -> bytes:
    """An event file of TensorBoard; nothing where it is not installed."""
    if find_spec("tensorboard") is None:
        return b""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = folder / "events"
    with path.open("wb") as file:
        records = RecordWriter(file)
        records.write(Event(file_version="brain.Event:2", wall_time=1.0).SerializeToString())
        for step in range(6):
            values = [
                Summary.Value(tag=tag, simple_value=(step + 1) / 10)
                for tag in ("val_accuracy", "val_loss", "loss", "odd/tag")
            ]
            event = Event(step=step, wall_time=2.0 + step, summary=Summary(value=values))
            records.write(event.SerializeToString())
        records.flush()
    return path.read_bytes()


def numbers_of(folder: Path) -> dict[str, tuple[str, dict[str, float]]]:
    with Store(folder) as store:
        return {trial.trial_id: (trial.status, dict(trial.metrics)) for trial in store.trials()}
