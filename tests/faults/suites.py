"""Sorts of suites that are disturbed, each with every backend; their trials last some tenths of a second."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

BACKENDS = ("torch", "tensorflow", "jax")
#: Many short epochs, each of which may leave a checkpoint.
EPOCHS = 40
SUITE = """
suite: s
workloads:
  - dataset: digits
    model: {{name: mlp, hidden: [32]}}
    batch_size: 256
    epochs: {epochs}
    {more}
optimizers:
  wame: {{lr: 0.05}}
  {other}
seeds: 3
backends: [{backend}]
{end}
"""
#: An optimizer of the user's own, as each framework has them.
CLASSES = {
    "torch": "import torch\nclass Mine(torch.optim.SGD):\n    pass\n",
    "tensorflow": "import keras\nclass Mine(keras.optimizers.SGD):\n"
    "    def __init__(self, lr=0.1, **others):\n        super().__init__(learning_rate=lr, **others)\n",
    "jax": "import optax\ndef Mine(lr=0.1):\n    return optax.sgd(lr)\n",
}
SORTS = {
    "plain": {},
    "stack": {"end": "engine: {batch_seeds: 2}"},
    "tuned": {
        "end": "tuning: {sampler: random, trials: 2, seeds: 1, space: {wame: {lr: {log: [0.01, 0.1]}}, "
        "other: {lr: {log: [0.001, 0.1]}}}}"
    },
    "augmented": {"more": "augment: {rotation: 10}"},
    "custom class": {"other": 'other: {class: "mine.py:Mine", lr: 0.1}'},
}


def backends_here() -> list[str]:
    """Backends that this interpreter has."""
    return [name for name in BACKENDS if find_spec(name) is not None]


def sorts_here() -> list[str]:
    """Sorts of suites that can run here: a search needs Optuna."""
    return [name for name in SORTS if name != "tuned" or find_spec("optuna") is not None]


def write_suite(folder: Path, sort: str, backend: str) -> Path:
    """Write a suite, with what it names, into a folder that is made."""
    parts = {"more": "", "other": "other: {optimizer: adam, lr: 0.01}", "end": "", **SORTS[sort]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(CLASSES[backend])
    path = folder / "s.yaml"
    path.write_text(SUITE.format(**parts, epochs=EPOCHS, backend=backend))
    return path
