"""Trials that differ in their seeds alone, trained as one program: the same trials, up to rounding."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from optbench import backends, matching
from optbench.backends.base import NotStackableError
from optbench.cli.progress import RunView
from optbench.datasets import registry
from optbench.execution import local, pool
from optbench.execution import stacks as stacked
from optbench.execution.protocol import run_trial
from optbench.models import zoo
from optbench.models.layers import (
    Activate,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    MaxPool2D,
    Model,
)
from optbench.optimizers import SGD, WAME, Adagrad, Adam, AdamW, Nadam, RMSprop, custom
from optbench.records.store import Store
from optbench.suite.load import load_suite
from optbench.trial import (
    Augment,
    CosineSchedule,
    EarlyStopping,
    ReduceOnPlateau,
    Seeds,
    StepSchedule,
    TrialSpec,
    Workload,
)
from tests.backends.rehearsal import Rehearsal

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(name not in backends.installed(), reason=f"{name} missing"))
    for name in ("torch", "jax")
]
MLP = zoo.mlp(hidden=[32], dropout=0.3, l1=1e-4, l2=1e-3)
CNN = (
    Conv2D(filters=4, kernel=3, padding="same", activation="relu"),
    MaxPool2D(padding="same"),
    Dropout(rate=0.2),
    Conv2D(filters=6, kernel=2, stride=2, padding="same"),
    BatchNorm(),
    Activate(activation="tanh"),
    Flatten(),
    Dense(units=16, activation="relu"),
    BatchNorm(),
    Dense(),
)
POOLED = (Conv2D(filters=6, kernel=3, activation="relu"), GlobalAveragePool2D(), Dense())
RULES = {"clip_norm": 0.5, "clip_value": 0.1, "weight_decay": 1e-3, "label_smoothing": 0.1}


def specs(backend, layers, optimizer, *, seeds=3, precision="float64", **workload):
    given = {"dataset": "digits", "batch_size": 32, "epochs": 2, **workload}
    return [
        TrialSpec(
            workload=Workload(model=Model(name="m", layers=layers), **given),
            optimizer=optimizer,
            seeds=Seeds(split=seed, init=seed, order=seed, dropout=seed, augment=seed),
            backend=backend,
            device="cpu",
            precision=precision,
        )
        for seed in range(seeds)
    ]


def both_ways(wanted):
    engine, dataset = backends.engine(wanted[0].backend), registry.load(wanted[0].workload.dataset)
    alone = [run_trial(spec, engine, dataset, environment={}) for spec in wanted]
    return alone, stacked.run_stack(wanted, engine, dataset, environment={})


def assert_twins(alone, together, rtol):
    for one, other in zip(alone, together, strict=True):
        assert other.trial_id == one.trial_id
        assert other.fingerprints == one.fingerprints
        assert other.status == one.status
        assert other.metrics.keys() == one.metrics.keys()
        assert other.predictions.keys() == one.predictions.keys()
        for name in ("batch_loss", "train_loss", "val_loss", "lr"):
            np.testing.assert_allclose(other.history[name], one.history[name], rtol=rtol, err_msg=name)


OPTIMIZERS = [
    *(Adam(), SGD(lr=0.05, momentum=0.9), WAME(lr=0.01)),
    *(AdamW(), Nadam(), Adagrad(), RMSprop(momentum=0.5)),
]


def cases(optimizer):
    """JAX trains the very program of a trial alone, under vmap: three rules stand for all."""
    return [
        pytest.param(
            name.values[0], optimizer, marks=name.marks, id=f"{optimizer.optimizer}-{name.values[0]}"
        )
        for name in (BACKENDS if optimizer in OPTIMIZERS[:3] else BACKENDS[:1])
    ]


@pytest.mark.parametrize(("backend", "optimizer"), [case for o in OPTIMIZERS for case in cases(o)])
@pytest.mark.parametrize("layers", [MLP, CNN, POOLED], ids=["mlp", "cnn", "pooled"])
def test_a_stacked_trial_is_its_sequential_twin(backend, layers, optimizer):
    """102 steps in float64 with every rule of a step switched on."""
    if optimizer.optimizer in ("wame", "adagrad") and layers is CNN:
        # The bias before a normalisation has a gradient of pure rounding, and these go by its sign.
        layers = tuple(layer for layer in layers if not isinstance(layer, BatchNorm))
    assert_twins(*both_ways(specs(backend, layers, optimizer, **RULES)), rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layers", [MLP, POOLED], ids=["mlp", "pooled"])
@pytest.mark.parametrize("optimizer", [Adam(), WAME(lr=0.01), SGD(lr=0.05)], ids=lambda c: c.optimizer)
def test_float32_agrees_to_1e_5_over_51_steps(backend, layers, optimizer):
    wanted = specs(backend, layers, optimizer, precision="float32", epochs=1)
    assert_twins(*both_ways(wanted), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_schedules_augmentation_and_splits_are_each_trial_s_own(backend):
    wanted = specs(
        backend, POOLED, Adam(), schedule=StepSchedule(at=(1,)), augment=Augment(rotation=10, shift=0.1)
    )
    alone, together = both_ways(wanted)
    assert_twins(alone, together, rtol=1e-9)
    assert len({record.fingerprints.split for record in together}) == 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (Adam(), CosineSchedule()),
        (WAME(), ReduceOnPlateau(patience=1, min_delta=0.1)),
        (SGD(momentum=0.9), None),
    ],
    ids=["adam cosine", "wame plateau", "sgd"],
)
def test_a_sweep_of_learning_rates_is_one_stack(backend, optimizer, schedule):
    """Each trial at its own rate, which a plateau moves for some of them alone."""
    rates = (0.03, 0.001, 0.03, 0.2, 0.001)
    wanted = [
        replace(spec, optimizer=replace(optimizer, lr=rate))
        for spec, rate in zip(
            specs(backend, MLP, optimizer, seeds=5, epochs=4, schedule=schedule, weight_decay=1e-2),
            rates,
            strict=True,
        )
    ]
    alone, together = both_ways(wanted)
    assert_twins(alone, together, rtol=1e-8)
    if schedule is not None and schedule.kind == "reduce_on_plateau":
        falls = {tuple(record.history["lr"][1:] / record.history["lr"][1]) for record in together}
        assert len(falls) > 1, "the plateau must come to some trials alone"


def test_trials_of_several_learning_rates_are_one_job(tmp_path):
    loaded = suite(tmp_path, size=4)
    (entry,) = loaded.workloads
    rates = {f"adam {rate}": Adam(lr=rate) for rate in (0.1, 0.01)}
    planned = local.plan(replace(loaded, workloads=(replace(entry, optimizers=rates),)))
    assert [len(job) for job in stacked.jobs(planned, lambda trial: 4)] == [4, 4, 2]
    assert {t.spec.optimizer.lr for t in stacked.jobs(planned, lambda trial: 4)[0]} == {0.1, 0.01}


def recorded(monkeypatch, kind):
    """Have stacks of PyTorch recorded, as on a GPU; the recorders that were used."""
    from optbench.backends.torch import branches, stack

    recorders = []

    def make(specs, built, sessions, *, requested):
        recorders.append(Rehearsal())
        if kind == "branches":
            return branches.BranchStack(sessions, recorders[-1])
        return stack.TorchStack(specs, built, sessions, recorder=recorders[-1], together=True)

    def capturable(optimizer):
        """What PyTorch's own classes have for GPUs alone, the rule on PyTorch's arrays has everywhere."""
        for group in optimizer.param_groups:
            if "config" in group:
                group["capturable"] = True

    monkeypatch.setattr("optbench.backends.torch.engine.make_stack", make)
    for module in (branches, stack):
        monkeypatch.setattr(module, "make_capturable", capturable)
    return recorders


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda c: c.optimizer)
def test_a_recorded_stack_trains_as_its_trials_alone(optimizer, monkeypatch):
    """One recording, batches read from buffers, evaluations together, the short batch outside."""
    pytest.importorskip("torch")
    recorders = recorded(monkeypatch, "batch")
    wanted = specs("torch", MLP, optimizer, batch_size=50, **RULES)
    alone, together = both_ways(wanted)
    assert_twins(alone, together, rtol=1e-9)
    (recorder,) = recorders
    assert recorder.recorded == 1
    assert recorder.replayed == alone[0].metrics["steps"] - 2 - 1, "all but a first and two short batches"


@pytest.mark.parametrize(
    ("workload", "layers"),
    [
        ({"schedule": CosineSchedule(), "augment": Augment(shift=0.1)}, POOLED),
        ({"dataset": "wine", "batch_size": 16}, zoo.mlp(hidden=[8])),
    ],
    ids=["augmented", "own pools"],
)
@pytest.mark.parametrize("kind", ["batch", "branches"])
def test_a_recording_reads_each_trial_s_own_inputs(kind, workload, layers, monkeypatch):
    pytest.importorskip("torch")
    recorded(monkeypatch, kind)
    alone, together = both_ways(specs("torch", layers, Adam(), **workload))
    assert_twins(alone, together, rtol=1e-9)


@pytest.mark.parametrize("optimizer", [Adam(), SGD(lr=0.05, momentum=0.9), RMSprop(), WAME(variant="divide")])
def test_branches_have_the_bits_of_their_trials_alone(optimizer, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("optbench.backends.torch.branches.obstacle", lambda *_, **__: None)
    recorders = recorded(monkeypatch, "branches")
    wanted = specs("torch", CNN, optimizer, precision="float32", batch_size=50, **RULES)
    alone, together = both_ways(wanted)
    for one, other in zip(alone, together, strict=True):
        for name in ("batch_loss", "train_loss", "val_loss"):
            np.testing.assert_array_equal(one.history[name], other.history[name], err_msg=name)
        assert one.metrics == other.metrics
    (recorder,) = recorders
    assert (recorder.recorded, recorder.branches) == (1, 3)


@pytest.mark.parametrize("kind", ["batch", "branches"])
def test_trials_leave_a_recorded_stack_in_halves(kind, monkeypatch):
    """An ended trial stays, unseen, until half are gone: then a smaller step is recorded."""
    pytest.importorskip("torch")
    recorders = recorded(monkeypatch, kind)
    wanted = specs(
        "torch", zoo.mlp(hidden=[16]), Adam(lr=0.02), seeds=6, epochs=14,
        early_stopping=EarlyStopping(patience=1),
    )  # fmt: skip
    alone, together = both_ways(wanted)
    ends = sorted(record.metrics["epochs"] for record in alone)
    assert len(set(ends)) > 2, "they must stop at different epochs"
    assert_twins(alone, together, rtol=1e-7)
    for one, other in zip(alone, together, strict=True):
        assert one.metrics["best_epoch"] == other.metrics["best_epoch"]
        assert one.metrics["test_loss_best"] == pytest.approx(other.metrics["test_loss_best"], rel=1e-7)
    (recorder,) = recorders
    size, sizes = 6, 1
    for epoch in range(1, int(ends[-1]) + 1):
        live = sum(end >= epoch for end in ends)
        if 2 * live <= size:
            size, sizes = live, sizes + 1
    assert recorder.recorded == sizes


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_scaled_by_each_trial_s_own_training_part(backend):
    wanted = specs(backend, zoo.mlp(hidden=[8]), Adam(), dataset="wine", batch_size=16)
    assert_twins(*both_ways(wanted), rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_trials_that_stop_early_leave_the_others_undisturbed(backend):
    wanted = specs(
        backend, zoo.mlp(hidden=[16]), Adam(lr=0.02), seeds=6, epochs=14,
        early_stopping=EarlyStopping(patience=1),
    )  # fmt: skip
    alone, together = both_ways(wanted)
    assert len({record.metrics["epochs"] for record in alone}) > 2, "they must stop at different epochs"
    assert_twins(alone, together, rtol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trial_that_diverges_leaves_the_others_undisturbed(backend, monkeypatch):
    draw = matching.initial_weights

    def spoilt(built, seed, dtype):
        weights = draw(built, seed, dtype)
        return {name: np.full_like(w, np.nan) for name, w in weights.items()} if seed == 1 else weights

    monkeypatch.setattr("optbench.matching.initial_weights", spoilt)
    alone, together = both_ways(specs(backend, MLP, Adam(), clip_norm=1.0))
    assert [record.status for record in together] == ["completed", "diverged", "completed"]
    assert_twins(alone[::2], together[::2], rtol=1e-9)


def test_a_stacked_record_says_so_and_claims_no_time():
    pytest.importorskip("torch")
    (record, _) = stacked.run_stack(
        specs("torch", MLP, Adam(), seeds=2),
        backends.engine("torch"),
        registry.load("digits"),
        environment={},
    )
    assert record.environment["stacked"] == 2
    assert not record.timings
    assert np.isnan(record.history["step_seconds"]).all()
    assert np.isnan(record.history["eval_seconds"]).all()


SUITE = """
suite: s
workloads:
  - {{dataset: digits, model: {{name: mlp, hidden: [16]}}, batch_size: 64, epochs: 2}}
optimizers: {{adam: {{}}, sgd: {{lr: 0.1}}}}
seeds: {seeds}
engine: {{batch_seeds: {size}}}
"""


def suite(folder, *, size, seeds=5):
    (folder / "s.yaml").write_text(SUITE.format(size=size, seeds=seeds))
    return load_suite(folder / "s.yaml")


def test_a_suite_runs_in_stacks_and_grows(tmp_path):
    pytest.importorskip("torch")
    assert local.run_suite(suite(tmp_path, size=3), results=tmp_path).completed == 10
    with Store(tmp_path / "s") as store:
        sizes = [trial.environment.get("stacked") for trial in store.trials()]
    assert sorted(sizes) == [2] * 4 + [3] * 6
    outcome = local.run_suite(suite(tmp_path, size=3, seeds=6), results=tmp_path)
    assert (outcome.run, outcome.completed) == (2, 12)


def test_auto_measures_once_and_remembers(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    asked = []
    monkeypatch.setattr(
        stacked, "best_size", lambda trials, *rest: asked.append(trials) or stacked.StackSize(4)
    )
    local.run_suite(suite(tmp_path, size="auto"), results=tmp_path)
    assert len(asked) == 1, "once a workload"
    local.run_suite(suite(tmp_path, size="auto", seeds=8), results=tmp_path)
    assert len(asked) == 1
    with Store(tmp_path / "s") as store:
        assert [t.environment.get("stacked") for t in store.trials()].count(4) == 8


def test_a_class_of_ones_own_is_no_measure_for_the_others(tmp_path):
    loaded = suite(tmp_path, size="auto")
    mine = custom.from_mapping({"class": "torch.optim:Adam", "lr": 0.01}, base_dir=tmp_path)
    (entry,) = loaded.workloads
    entry = replace(entry, optimizers={"mine": mine, **entry.optimizers})
    planned = local.plan(replace(loaded, workloads=(entry,)))
    asked = []
    sizes = stacked.Sizes(
        "auto", planned, known={}, measure=lambda trials: asked.append(trials) or stacked.StackSize(4)
    )
    assert [sizes(trial) for trial in planned[:3]] == [1, 4, 4]
    assert [[(t.optimizer, t.spec.seeds.init) for t in trials] for trials in asked] == [
        [("adam", seed) for seed in range(5)]
    ]


def test_workers_measure_where_they_train(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(stacked, "best_size", lambda *arguments: pytest.fail("measured in the parent"))
    loaded = suite(tmp_path, size="auto")
    assert local.run_suite(loaded, results=tmp_path, executor=lambda: pool.Pool(2)).completed == 10
    with Store(tmp_path / "s") as store:
        (size,) = json.loads(store.meta()["batch_seeds"]).values()
    assert size in (1, 2, 4)


def test_auto_chooses_a_size_that_the_trials_allow(tmp_path):
    pytest.importorskip("torch")
    trials = [t for t in local.plan(suite(tmp_path, size="auto")) if t.optimizer == "adam"]
    specs = [trial.spec for trial in trials]
    assert stacked.best_size(specs, backends.engine("torch"), registry.load("digits")).trials in (1, 2, 4)


def in_half_precision(loaded):
    """A suite whose trials PyTorch does not stack on a CPU."""
    return replace(loaded, precision="bfloat16")


def test_what_cannot_be_stacked_is_trained_alone(tmp_path):
    pytest.importorskip("torch")
    loaded = suite(tmp_path, size=5)
    outcome = local.run_suite(in_half_precision(loaded), results=tmp_path)
    assert outcome.completed == 10
    with Store(tmp_path / "s") as store:
        assert {trial.environment.get("stacked") for trial in store.trials()} == {None}
        assert all("step" in trial.timings for trial in store.trials())
        assert {trial.environment["not_stacked"] for trial in store.trials()} == {
            "bfloat16 cannot be trained in a stack"
        }


def test_a_refused_stack_is_a_line_on_the_screen(tmp_path):
    pytest.importorskip("torch")
    loaded = in_half_precision(suite(tmp_path, size=5, seeds=2))
    console = Console(file=io.StringIO(), width=200)
    with RunView(loaded, console) as view:
        local.run_suite(loaded, results=tmp_path, observer=view)
    said = console.file.getvalue()
    assert (
        said.count("trained one by one on digits/mlp, not in a stack: bfloat16 cannot be trained in a stack")
        == 1
    )


def broken_stack(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (NotStackableError("of different kinds"), "completed", "of different kinds"),
        (MemoryError("no room"), "completed", "out of memory with 5 trials at once (no room)"),
        (RuntimeError("CUDA out of memory. Tried .."), "completed", "out of memory with 5 trials"),
        (ValueError("a mistake"), "crashed", "ValueError: a mistake (in a stack of 5; `batch_seeds: off`"),
        (SystemExit(0), "crashed", "sys.exit(0) (in a stack of 5"),
    ],
    ids=["refused", "memory", "GPU memory", "unknown", "exit"],
)
def test_known_reasons_train_alone_and_others_crash(tmp_path, monkeypatch, error, status, said):
    pytest.importorskip("torch")
    monkeypatch.setattr(stacked, "run_stack", broken_stack(error))
    outcome = local.run_suite(
        suite(tmp_path, size=5), results=tmp_path, only=lambda trial: trial.optimizer == "adam"
    )
    with Store(outcome.store) as store:
        found = list(store.trials())
    assert {trial.status for trial in found} == {status}
    for trial in found:
        assert said in (trial.error if status == "crashed" else trial.environment["not_stacked"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotStackableError("not these"), "not these"),
        (MemoryError("no room"), "2 trials at once are out of memory"),
        (KeyError("moment"), "not measured: KeyError: 'moment'"),
    ],
)
def test_a_measurement_that_fails_is_told_and_remembered(tmp_path, monkeypatch, error, said):
    pytest.importorskip("torch")
    monkeypatch.setattr(stacked._OpeningEngine, "stack", broken_stack(error))
    for seeds in (2, 3):  # the second run measures nothing
        outcome = local.run_suite(suite(tmp_path, size="auto", seeds=seeds), results=tmp_path)
        assert outcome.crashed == 0
        monkeypatch.setattr(stacked, "best_size", lambda *arguments: pytest.fail("measured twice"))
    with Store(outcome.store) as store:
        assert {trial.environment["not_stacked"] for trial in store.trials()} == {said}


def test_stacks_of_an_optimizer_with_moments_are_measured(tmp_path):
    """A session that was timed alone has moments, a fresh one has none: they must not meet in a stack."""
    pytest.importorskip("torch")
    specs = [t.spec for t in local.plan(suite(tmp_path, size="auto")) if t.optimizer == "adam"]
    measured = []
    real = stacked._OpeningEngine.stack

    class Watched(stacked._OpeningEngine):
        def stack(self, specs, sessions):
            measured.append(len(specs))
            return real(self, specs, sessions)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stacked, "_OpeningEngine", Watched)
        patched.setattr(stacked, "_fastest", lambda work: work() is None or 1.0)
        patched.setattr(stacked, "_seconds", lambda work: work() is None or 0.0)
        size = stacked.best_size(specs, backends.engine("torch"), registry.load("digits"))
    assert measured == [2, 4]
    assert size == stacked.StackSize(4)


def test_a_wrong_size_is_named(tmp_path):
    with pytest.raises(Exception, match="batch_seeds"):
        suite(tmp_path, size=1)
