"""Trials trained as one program that were cut off go on together, with the bits of ones left alone."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from optbench import backends
from optbench.datasets import registry
from optbench.environment import Context
from optbench.execution import jobs
from optbench.execution import stacks as stacked
from optbench.execution.checkpoint import Checkpoints
from optbench.models import zoo
from optbench.optimizers import SGD, WAME, Adam, Nadam
from optbench.trial import Augment, EarlyStopping, StepSchedule, trial_id
from tests.execution.test_checkpoint import ALWAYS, bits
from tests.execution.test_stacks import BACKENDS, CNN, MLP, RULES, specs


def train(wanted, checkpoints=None, cut_at=None):
    """Train a stack, or be interrupted in the midst of an epoch; the records and the epochs of each."""
    seen = [[] for _ in wanted]

    def tell(k):
        def on_epoch(epoch, row):
            if epoch == cut_at and sum(epoch in epochs for epochs in seen) > 1:
                raise KeyboardInterrupt
            seen[k].append(epoch)

        return on_epoch

    engine, dataset = backends.engine(wanted[0].backend), registry.load("digits")
    options = {"environment": {}, "on_epoch": tell, "checkpoints": checkpoints}
    if cut_at is None:
        return stacked.run_stack(wanted, engine, dataset, **options), seen
    with pytest.raises(KeyboardInterrupt):
        stacked.run_stack(wanted, engine, dataset, **options)
    return None, seen


def assert_resumes(wanted, folder, *, cut_at):
    whole, epochs = train(wanted)
    checkpoints = Checkpoints(folder, ALWAYS)
    train(wanted, checkpoints, cut_at)
    assert [path.name for path in folder.iterdir()] == [f"{trial_id(wanted[0])}.stack.npz"]
    resumed, again = train(wanted, checkpoints)
    assert again == [[e for e in one if e >= cut_at] for one in epochs], "saved epochs were trained again"
    assert {record.environment.get("checkpoint") for record in resumed} == {"resumed"}
    assert list(map(bits, resumed)) == list(map(bits, whole))
    return resumed


#: In JAX the state is one tree, whatever the network.
TORCH, JAX = BACKENDS
CASES = [
    pytest.param(
        backend.values[0], layers, optimizer, marks=backend.marks, id=f"{name}-{optimizer.optimizer}"
    )
    for name, backend, layers in (("mlp", TORCH, MLP), ("cnn", TORCH, CNN), ("jax", JAX, MLP))
    for optimizer in (Adam(), WAME(lr=0.01), SGD(lr=0.05, momentum=0.9), Nadam())
]


@pytest.mark.parametrize(("backend", "layers", "optimizer"), CASES)
def test_a_stack_goes_on_to_the_same_bits(backend, layers, optimizer, tmp_path):
    wanted = specs(
        backend, layers, optimizer, precision="float32", epochs=4, batch_size=100,
        schedule=StepSchedule(at=(2,)), augment=Augment(rotation=5), **RULES,
    )  # fmt: skip
    assert_resumes(wanted, tmp_path / "c", cut_at=3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_trials_that_have_ended_stay_so(backend, tmp_path):
    wanted = specs(
        backend, zoo.mlp(hidden=[16]), Adam(lr=0.02), seeds=6, epochs=14,
        early_stopping=EarlyStopping(patience=1),
    )  # fmt: skip
    lengths = sorted(len(epochs) - 1 for epochs in train(wanted)[1])
    assert lengths[0] < lengths[2], "some must have ended, and several not"
    cut_at = lengths[0] + 2
    assert_resumes(wanted, tmp_path / "c", cut_at=cut_at)


def test_a_part_of_a_stack_leaves_its_end_to_the_whole(tmp_path):
    pytest.importorskip("torch")
    wanted = specs("torch", MLP, Adam(), precision="float32", epochs=4)
    part = [replace(spec, workload=replace(spec.workload, stop=2)) for spec in wanted]
    checkpoints = Checkpoints(tmp_path / "c", 5)
    train(part, checkpoints)
    resumed, epochs = train(wanted, checkpoints)
    assert epochs == [[3, 4]] * 3
    assert list(map(bits, resumed)) == list(map(bits, train(wanted)[0]))


@pytest.mark.parametrize("damage", ["flip", "fewer"])
def test_what_cannot_be_used_is_ignored_with_a_note(damage, tmp_path):
    pytest.importorskip("torch")
    wanted = specs("torch", MLP, Adam(), epochs=3)
    checkpoints = Checkpoints(tmp_path, ALWAYS)
    train(wanted, checkpoints, cut_at=2)
    (path,) = tmp_path.iterdir()
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        wanted = wanted[:2]
    records, epochs = train(wanted, checkpoints)
    assert all(record.environment["checkpoint"].startswith("ignored: ") for record in records)
    assert epochs == [[0, 1, 2, 3]] * len(wanted)
    assert list(map(bits, records)) == list(map(bits, train(wanted)[0]))


def test_no_file_is_left_of_a_short_stack_and_a_full_disk_is_noted(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    wanted = specs("torch", MLP, Adam(), early_stopping=EarlyStopping(patience=1))
    train(wanted, Checkpoints(tmp_path / "c", 5))
    assert not (tmp_path / "c").exists()

    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    records, _ = train(wanted, Checkpoints(tmp_path / "c", ALWAYS))
    assert {record.environment["checkpoint"] for record in records} == {"none: no space left"}


def test_a_job_trains_its_stack_from_the_checkpoint(tmp_path):
    pytest.importorskip("torch")
    wanted = specs("torch", MLP, Adam(), epochs=3)
    checkpoints = Checkpoints(tmp_path, ALWAYS)
    train(wanted, checkpoints, cut_at=2)
    records = jobs.run_job(
        wanted, registry.load("digits"), context=Context(), facts={}, checkpoints=checkpoints
    )
    assert {record.environment["checkpoint"] for record in records} == {"resumed"}
    assert {record.environment["stacked"] for record in records} == {3}
    checkpoints.remove([record.trial_id for record in records])
    assert not tmp_path.exists()
    assert np.isfinite([record.metrics["test_accuracy"] for record in records]).all()
