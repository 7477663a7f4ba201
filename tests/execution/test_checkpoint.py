"""A trial that was cut off and went on from its checkpoint has the bits of one that was left alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from optbench import api
from optbench.backends import engine
from optbench.datasets import registry
from optbench.execution.checkpoint import CheckpointError, Checkpoints, Saved, TrialCheckpoint
from optbench.execution.protocol import run_trial
from optbench.optimizers import (
    SGD,
    WAME,
    Adagrad,
    Adam,
    AdamW,
    Group,
    Grouped,
    Lamb,
    Lion,
    Muon,
    Nadam,
    RMSprop,
    Rprop,
    custom,
)
from optbench.records.store import Store
from optbench.trial import Augment, Divergence, EarlyStopping, ReduceOnPlateau, StepSchedule, trial_id
from tests.backends.contract import BACKENDS, CNN, spec

ALWAYS = 1e-9  # minutes


@pytest.fixture(params=BACKENDS)
def backend(request):
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def train(trial, *, checkpoints=None, stop_after=None):
    """Train, or be interrupted once so many epochs are saved; the record and the epochs trained."""
    seen = []

    def on_epoch(epoch, row):
        if stop_after is not None and epoch > stop_after:
            raise KeyboardInterrupt
        seen.append(epoch)

    options = {"environment": {}, "on_epoch": on_epoch, "checkpoints": checkpoints}
    dataset = registry.load(trial.workload.dataset)
    if stop_after is None:
        return run_trial(trial, engine(trial.backend), dataset, **options), seen
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, engine(trial.backend), dataset, **options)
    return None, seen


def bits(record):
    history = {
        name: values.tobytes() for name, values in record.history.items() if not name.endswith("seconds")
    }
    predictions = {name: values.tobytes() for name, values in record.predictions.items()}
    return record.status, record.fingerprints, record.metrics, history, predictions


def assert_resumes(trial, folder, *, at=3):
    checkpoints = Checkpoints(folder, ALWAYS)
    whole, all_epochs = train(trial)
    train(trial, checkpoints=checkpoints, stop_after=at)
    resumed, epochs = train(trial, checkpoints=checkpoints)
    assert resumed.environment.get("checkpoint") == "resumed"
    assert epochs == all_epochs[at + 1 :], "the saved epochs were trained again"
    assert bits(resumed) == bits(whole)


OPTIMIZERS = {
    "wame": WAME(lr=0.01),
    "wame-shipped": WAME(lr=1e-3, variant="author_shipped"),
    "adam": Adam(lr=0.002),
    "adamw": AdamW(lr=0.002),
    "nadam": Nadam(lr=0.002),
    "rmsprop": RMSprop(lr=0.001, momentum=0.5, centered=True),
    "rmsprop-keras": RMSprop(lr=0.001, flavor="keras"),
    "adagrad": Adagrad(lr=0.01),
    "sgd": SGD(lr=0.05, momentum=0.9, nesterov=True),
    "lion": Lion(lr=0.001, cautious=True),
    "rprop": Rprop(lr=0.001, variant="irprop+"),
    "groups": Grouped(
        groups=(
            Group(match=("matrix",), config=Muon(lr=0.02)),
            Group(match=("bias",), config=WAME(lr=0.01), scheduled=False),
            Group(match=("rest",), config=Lamb(lr=0.01)),
        )
    ),
}


#: The compiled engines take seconds for each; the quick run holds them to two.
CASES = [
    pytest.param(name, case, marks=[pytest.mark.slow] * (name != "torch" and case not in ("wame", "sgd")))
    for name in BACKENDS
    for case in OPTIMIZERS
]


@pytest.mark.parametrize(("backend", "case"), CASES, indirect=["backend"])
def test_every_optimizer_goes_on_to_the_same_bits(backend, case, tmp_path):
    optimizer = OPTIMIZERS[case]
    trial = spec(backend, optimizer, precision="float32", epochs=5, batch_size=100, clip_norm=1.0)
    assert_resumes(trial, tmp_path)


def test_dropout_batch_norm_augmentation_schedule_and_patience_go_on_too(backend, tmp_path):
    trial = spec(
        backend,
        Adam(lr=0.02),
        CNN,
        precision="float32",
        epochs=9,
        batch_size=200,
        augment=Augment(rotation=10, shift=0.1),
        schedule=ReduceOnPlateau(patience=1, min_delta=0.5, factor=0.5),
        early_stopping=EarlyStopping(patience=5, min_delta=0.2),
        weight_decay=0.01,
    )
    whole, _ = train(trial)
    assert len(set(whole.history["lr"])) > 2, "the schedule moved before and after the checkpoint"
    assert_resumes(trial, tmp_path, at=4)


def test_the_best_weights_before_the_checkpoint_are_kept(tmp_path):
    pytest.importorskip("torch")
    worse = {"schedule": StepSchedule(at=(3,), factor=100), "divergence": Divergence(factor=1e6)}
    trial = spec("torch", SGD(lr=0.1), epochs=9, early_stopping=EarlyStopping(patience=9), **worse)
    whole, _ = train(trial)
    at = int(whole.metrics["best_epoch"]) + 1
    assert at < 9, "the case needs a best epoch before the last"
    assert_resumes(trial, tmp_path, at=at)


LOOKS_BACK = """
import torch

class Momentum(torch.optim.Optimizer):
    '''Keeps numbers in its groups, in its state and in an attribute.'''

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "k": 0})
        self.calls = 0
        KEPT

    @torch.no_grad()
    def step(self, closure=None):
        self.calls += 1
        for group in self.param_groups:
            group["k"] += 1
            for w in group["params"]:
                state = self.state[w]
                state.setdefault("recent", []).append(w.grad.clone())
                del state["recent"][:-3]
                rate = group["lr"] / (1 + 0.1 * group["k"] + 0.01 * self.calls)
                for g in state["recent"]:
                    w.sub_(rate * g)
"""


def own(folder, text):
    (folder / "mine.py").write_text(text)
    return custom.from_mapping({"class": "mine.py:Momentum", "lr": 0.05}, base_dir=folder)


@pytest.mark.parametrize("kept", ["", "self.kept = [torch.float64, torch.device('cpu')]"])
def test_a_users_optimizer_of_plain_values_resumes(kept, tmp_path):
    pytest.importorskip("torch")
    assert_resumes(spec("torch", own(tmp_path, LOOKS_BACK.replace("KEPT", kept)), epochs=5), tmp_path)


@pytest.mark.parametrize("kept", ["self.kept = lambda: 0", "self.kept = [torch.zeros(3)]"])
def test_a_users_optimizer_that_keeps_more_starts_again_and_says_why(kept, tmp_path):
    pytest.importorskip("torch")
    trial = spec("torch", own(tmp_path, LOOKS_BACK.replace("KEPT", kept)), epochs=4)
    checkpoints = Checkpoints(tmp_path / "checkpoints", ALWAYS)
    train(trial, checkpoints=checkpoints, stop_after=2)
    assert not checkpoints.folder.exists()
    record, epochs = train(trial, checkpoints=checkpoints)
    assert epochs == [0, 1, 2, 3, 4]
    assert record.environment["checkpoint"].startswith("none: the optimizer")


NOISY = """
import optax

def Momentum(lr):
    return optax.chain(optax.add_noise(0.01, 0.5, seed=3), optax.adam(lr, mu_dtype="bfloat16"))
"""


def test_an_optax_chain_with_random_keys_and_half_precision_resumes(tmp_path):
    pytest.importorskip("optax")
    assert_resumes(spec("jax", own(tmp_path, NOISY), precision="float32", epochs=5), tmp_path)


def cut_off(folder, trial):
    checkpoints = Checkpoints(folder, ALWAYS)
    train(trial, checkpoints=checkpoints, stop_after=2)
    return checkpoints, folder / f"{trial_id(trial)}.npz"


def rewrite(path):
    """Another number in a sound file."""
    with np.load(path) as saved:
        arrays = {name: saved[name] for name in saved.files}
    arrays["session/weights/dense_1/kernel"] = arrays["session/weights/dense_1/kernel"] + 1
    np.savez(path, **arrays)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        rewrite,
        lambda path: path.write_bytes(path.read_bytes()[:-300]),
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, meta=np.array({"identity": {}}, dtype=object)),
        lambda path: np.savez(path, x=np.zeros(3)),
    ],
    ids=["one bit", "rewritten", "cut", "empty", "pickled", "another file"],
)
def test_a_damaged_checkpoint_is_ignored_with_a_note(damage, tmp_path):
    pytest.importorskip("torch")
    trial = spec("torch", epochs=4)
    checkpoints, path = cut_off(tmp_path, trial)
    damage(path)
    record, epochs = train(trial, checkpoints=checkpoints)
    assert record.environment["checkpoint"].startswith("ignored: damaged")
    assert epochs == [0, 1, 2, 3, 4]
    assert bits(record) == bits(train(trial)[0])


def test_a_checkpoint_of_another_framework_or_trial_is_ignored(tmp_path):
    pytest.importorskip("torch")
    trial = spec("torch", epochs=4)
    checkpoints, path = cut_off(tmp_path, trial)
    engine_of_old = engine("torch")
    facts = engine_of_old.describe("cpu")

    class Old:
        def __getattr__(self, name):
            return getattr(engine_of_old, name)

        def describe(self, device):
            return {**facts, "framework": "torch 0.1"}

    dataset = registry.load("digits")
    record = run_trial(trial, Old(), dataset, environment={}, checkpoints=checkpoints)
    assert "framework is torch 2" in record.environment["checkpoint"]
    other = replace(trial, optimizer=Adam(lr=0.5))
    path.rename(path.with_name(f"{trial_id(other)}.npz"))
    record, _ = train(other, checkpoints=checkpoints)
    assert "ignored: its trial is" in record.environment["checkpoint"]


def test_arrays_that_do_not_fit_start_again(tmp_path):
    pytest.importorskip("torch")
    trial = spec("torch", epochs=4)
    checkpoints, _ = cut_off(tmp_path, trial)
    file = checkpoints.of(trial_id(trial), {})
    with pytest.raises(CheckpointError):
        file.load()
    whole, _ = train(trial)
    with np.load(tmp_path / f"{trial_id(trial)}.npz") as saved:
        arrays = {name: saved[name] for name in saved.files}
    arrays["session/weights/dense_1/kernel"] = np.zeros((2, 2))
    meta = json.loads(arrays.pop("meta").tobytes())
    TrialCheckpoint(path=file.path, identity=meta["identity"], seconds=1).save(
        Saved(progress=meta["progress"], arrays=arrays)
    )
    record, epochs = train(trial, checkpoints=checkpoints)
    assert record.environment["checkpoint"].startswith("ignored: cannot be restored")
    assert epochs == [0, 1, 2, 3, 4]
    assert bits(record) == bits(whole)


def test_a_file_is_whole_or_absent_and_its_time_is_kept(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c", 5)
    file = checkpoints.of("abc", {"framework": "x", "cores": 2})
    assert not file.due()
    file.save(Saved(progress={"lr": 0.1}, arrays={"a": np.arange(3)}))

    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        file.save(Saved(progress={"lr": 0.2}, arrays={"a": np.arange(3)}))
    monkeypatch.undo()
    assert checkpoints.of("abc", {"framework": "x", "cores": 8}).load().progress == {"lr": 0.1}
    assert not Checkpoints(tmp_path, 0).of("abc", {}).due(), "0 is never"
    checkpoints.remove(["abc"])
    assert not checkpoints.folder.exists(), "the half-written file goes too"


def test_a_full_disk_ends_the_checkpoints_and_not_the_trial(tmp_path, monkeypatch):
    pytest.importorskip("torch")

    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    record, _ = train(spec("torch"), checkpoints=Checkpoints(tmp_path, ALWAYS))
    assert record.status == "completed"
    assert record.environment["checkpoint"] == "none: no space left"


def test_orphans_go_with_fresh_and_with_their_records(write_suite, tmp_path):
    pytest.importorskip("torch")
    outcome = api.run(write_suite(), results=tmp_path)
    folder = tmp_path / "tiny" / "checkpoints"
    assert not folder.exists()
    folder.mkdir()
    with Store(outcome.store) as store:
        done = next(iter(store.statuses()))
    for name in (f"{done}.npz", f"{done}.npz.tmp", "planned-elsewhere.npz"):
        (folder / name).write_bytes(b"x")
    api.run(write_suite(), results=tmp_path)
    assert [path.name for path in folder.iterdir()] == ["planned-elsewhere.npz"]
    api.run(write_suite(), results=tmp_path, fresh=True)
    assert not folder.exists()


def test_a_short_trial_writes_none_and_a_part_of_one_leaves_its_end(tmp_path):
    trial = spec("torch", epochs=3)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 5)
    train(trial, checkpoints=checkpoints)
    assert not checkpoints.folder.exists()
    part = replace(trial, workload=replace(trial.workload, stop=1))
    train(part, checkpoints=checkpoints)
    assert [path.name for path in checkpoints.folder.iterdir()] == [f"{trial_id(trial)}.npz"]
