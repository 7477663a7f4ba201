"""A task is declared once: what it names exists, and nothing else speaks for it."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

import optbench
from optbench.datasets import registry
from optbench.datasets.targets import TARGETS
from optbench.execution.evaluation import MEASURES
from optbench.models.layers import Dense, Model
from optbench.optimizers import Adam
from optbench.suite import entries
from optbench.suite.report_spec import Targets
from optbench.suite.validation import InvalidError
from optbench.task import (
    CLASSIFICATION,
    DEFAULT_TASK,
    METRICS,
    TASKS,
    LossName,
    MonitorName,
    TaskName,
    UndeclaredError,
    known,
    sign_of,
)
from optbench.trial import EarlyStopping, Seeds, TrialSpec, Workload, block_id, to_plain, trial_id

PACKAGE = Path(optbench.__file__).parent


def workload(**more):
    model = Model(name="m", layers=(Dense(),))
    return Workload(dataset="digits", model=model, batch_size=32, epochs=1, **more)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_a_task_names_is_there(task):
    assert task.targets in TARGETS
    assert set(task.metrics) <= set(MEASURES[task.name].metrics)
    assert set(task.headline) <= set(task.metrics)
    assert set(task.monitors) <= set(task.history)
    assert task.monitor in task.monitors
    assert task.primary in task.primaries
    assert set(task.losses) <= set(get_args(LossName))
    assert {f.name for f in fields(Targets)} >= {f"val_{name}" for name in ("loss", *task.metrics)}
    assert {*task.loss_options, *task.options} <= {f.name for f in fields(Workload)}
    for name in (*task.monitors, *task.history, task.primary):
        assert name in METRICS or known(name) is not None, name


def test_the_tables_and_the_names_know_the_same_tasks():
    assert set(MEASURES) == set(TASKS) == set(get_args(TaskName))
    assert set(TARGETS) == {task.targets for task in TASKS.values()}
    assert set(get_args(MonitorName)) == {name for task in TASKS.values() for name in task.monitors}


def test_the_history_of_classification_has_the_columns_that_stores_hold():
    assert CLASSIFICATION.history == (
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1"),
        *("batch_loss", "lr", "step_seconds", "eval_seconds"),
    )
    assert CLASSIFICATION.final == ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1")


def test_every_monitor_is_turned_by_its_declared_direction():
    rising = {"val_accuracy", "val_r2"}
    assert {name for name in get_args(MonitorName) if sign_of(name) == 1} == rising
    with pytest.raises(UndeclaredError, match="'val_elegance' is not known"):
        sign_of("val_elegance")


def test_the_default_task_leaves_no_trace_in_a_trial_and_another_one_does():
    trial = TrialSpec(
        workload=workload(),
        optimizer=Adam(),
        seeds=Seeds(),
        backend="torch",
        device="cpu",
        precision="float32",
    )
    assert "task" not in to_plain(trial.workload)
    assert trial.workload == workload(task=DEFAULT_TASK.name)
    other = replace(trial, workload=replace(trial.workload, task="another"))
    assert to_plain(other.workload)["task"] == "another"
    assert trial_id(other) != trial_id(trial)
    assert block_id(other) != block_id(trial)


def test_what_belongs_to_another_task_is_refused_with_its_field(monkeypatch):
    other = replace(
        CLASSIFICATION, name="another", monitors=("val_loss",), monitor="val_loss", options=("clip_norm",)
    )
    monkeypatch.setattr(entries, "TASKS", {"classification": CLASSIFICATION, "another": other})
    facts = registry.info("digits")

    def refusal(facts=facts, **more):
        with pytest.raises(InvalidError) as caught:
            entries._refuse_other_tasks(workload(**more), facts, ("workloads", 0))
        return str(caught.value)

    mine = {"task": "another", "monitor": "val_loss"}
    entries._refuse_other_tasks(workload(**mine, clip_norm=1.0), facts, ())
    assert refusal(task="another") == "workloads[0].monitor: found val_accuracy; another has val_loss"
    stopping = EarlyStopping(monitor="val_accuracy")
    assert "workloads[0].early_stopping.monitor: found val_acc" in refusal(**mine, early_stopping=stopping)
    assert "workloads[0].top_k: belongs to classification" in refusal(**mine, top_k=(2,))
    assert "workloads[0].clip_norm: belongs to another" in refusal(clip_norm=1.0)
    assert "workloads[0].task: found classification" in refusal(replace(facts, targets="value"))


#: The rooms in which each task has files of its name, and the words that stand in those alone.
ROOMS = ("backends", "models", "execution", "datasets", "trial.py", "matching.py")
WORDS = re.compile(r"accurac|cross.?entropy|confusion|rmse|perplexity", re.IGNORECASE)
TABLE_ENTRY = re.compile(rf'"\w+": ({"|".join(TASKS)})\.')


def test_the_words_of_a_task_stand_in_its_own_files_alone():
    """A name in a table (``"cross_entropy": ...``) and its import are how the others find them."""
    paths = [path for room in ROOMS for path in sorted(PACKAGE.glob(f"{room}/**/*.py"))]
    paths += [PACKAGE / room for room in ROOMS if room.endswith(".py")]
    spoken = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in paths
        if path.stem not in TASKS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if WORDS.search(line) and not TABLE_ENTRY.search(line)
    ]
    assert len(paths) > 60
    assert spoken == []
