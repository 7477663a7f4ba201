"""Tables beside the leaderboards: every column is the number of its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optbench.records.step_times import PassTimes, median
from optbench.report.across import settings_compared
from optbench.report.exports import table_csv
from optbench.report.side_tables import settings_table, trials_table
from optbench.report.timing_table import pass_table
from optbench.report.tuning import tuning_table, untuned_table
from optbench.stats.effects import mean_difference
from optbench.task import TASKS, known
from optbench.tuning.journal import Journal, Setting, Study, Training
from optbench.tuning.space import Axis
from tests.report.test_exports import BASE, difference, rows_of
from tests.report.test_exports import report as report  # a fixture


def by_name(table) -> list[tuple[dict[str, str], dict[str, object]]]:
    """Cells and exact values of every row, by heading."""
    values = table.values or [(None,) * len(table.columns)] * len(table.rows)
    return [
        (dict(zip(table.columns, text, strict=True)), dict(zip(table.columns, exact, strict=True)))
        for text, exact in zip(table.rows, values, strict=True)
    ]


def test_every_column_of_the_timing_table_is_the_number_of_its_name(report):
    entry = PassTimes(
        config="key",
        machine="one",
        facts={"framework": "torch 2"},
        measured="2026-01-01",
        steps=5,
        steps_per_epoch=50,
        step_seconds=(0.004, 0.001, 0.002),
        eval_seconds=(0.3, 0.5, 0.4),
        warm_up_seconds=7.0,
        state_bytes=8000,
        host_bytes=900_000_000,
        host_start_bytes=300_000_000,
        device_bytes=20_000_000,
    )
    trials = report.results.trials.assign(config="key").head(1)
    table = pass_table(replace(report.results, trials=trials, passes=(entry,)))
    ((cells, values),) = by_name(table)
    step = median(entry.step_seconds)
    assert (step.low, step.value, step.high) == (0.001, 0.002, 0.004)
    wanted = {
        "ms/step": (2.0, "2.0000"),
        "low": (1.0, "1.0000"),
        "high": (4.0, "4.0000"),
        "s/epoch": (0.1, "0.100"),
        "evaluation, s": (0.4, "0.4000"),
        "compile, s": (7.0, "7.0"),
        "state, kB": (8.0, "8.0"),
        "host peak, MB": (900.0, "900.0"),
        "of it the model, MB": (600.0, "600.0"),
        "device peak, MB": (20.0, "20.0"),
    }
    assert list(cells) == ["workload", "optimizer", *wanted]
    for name, (number, text) in wanted.items():
        assert (values[name], cells[name]) == (pytest.approx(number), text), name
    (written,) = rows_of(table_csv(table))
    assert {name: float(written[name]) for name in wanted} == pytest.approx(
        {name: number for name, (number, _) in wanted.items()}
    )


def test_every_column_of_the_tuning_tables_is_the_number_of_its_name(report):
    axis = Axis(name="lr", kind="log", low=0.001, high=0.1)
    settings = (
        Setting(values={"lr": 0.01}, trainings=(Training(epochs=4, trials=("a",), score=0.7),)),
        Setting(values={"lr": 0.02}, trainings=(Training(epochs=4, trials=("b",), score=0.9),)),
        Setting(values={"lr": 0.05}, trainings=(Training(epochs=4, trials=("c",), score=None),)),
    )
    study = Study(
        workload="digits/mlp",
        optimizer="adam",
        stage="optimizer",
        epochs=4,
        searches=((axis,),),
        settings=settings,
        winner=1,
    )
    journal = Journal(
        of="x", sampler="random", monitor="val_accuracy", budget={"trials": 3}, seeds=(9,), studies=(study,)
    )
    searched = report.results.trials.head(3).assign(
        optimizer="adam", stage="optimizer", setting=range(3), setting_epochs=4, resumed=False
    )
    searched["total_seconds"] = [10.0, 20.0, 30.0]
    results = replace(report.results, journals=(journal,), tuning=searched)
    ((cells, values),) = by_name(tuning_table(results))
    assert cells == {
        "workload": "digits/mlp",
        "optimizer": "adam",
        "searched": "lr 0.001 to 0.1",
        "settings": "3",
        "lost": "1",
        "trained, s": "60.00",
        "validation": "90.00",
        "winner": "lr=0.02",
    }
    assert (values["settings"], values["lost"], values["trained, s"]) == (3, 1, 60.0)
    assert values["validation"] == 0.9

    trials = report.results.trials
    seeds = trials["seed"].astype(int)
    before = trials.assign(test_accuracy=trials["test_accuracy"] - 0.1 - 0.001 * seeds * seeds)
    table = untuned_table(replace(report.results, untuned=before), report.boards)
    rows = {cells["optimizer"]: (cells, values) for cells, values in by_name(table)}
    mean, gain = sum(BASE) / 8, mean_difference([0.1 + 0.001 * k * k for k in range(8)])
    cells, values = rows["wame"]
    assert cells == {
        "workload": "digits/mlp",
        "optimizer": "wame",
        "tuned: test accuracy, %": f"{100 * mean:.2f}",
        "declared": f"{100 * (mean - gain.estimate):.2f}",
        "gain [95% CI]": difference(gain),
        "pairs": "8",
    }
    assert (values["tuned: test accuracy, %"], values["declared"]) == pytest.approx(
        (mean, mean - gain.estimate)
    )
    assert (values["gain [95% CI]"], values["pairs"]) == (pytest.approx(gain.estimate), 8)
    assert rows["adam"][0]["pairs"] == "7"
    assert rows["sgd"][0]["declared"] == "diverged"


def test_every_column_of_the_table_of_settings_is_the_number_of_its_name(report):
    trials = report.results.trials
    other = trials.assign(backend="jax", trial_id=trials["trial_id"] + "j")
    other["test_accuracy"] += [0.01 + 0.001 * k for k in range(len(other))]
    both = trials.__class__(trials.to_dict("records") + other.to_dict("records"))
    found = settings_compared(replace(report.results, trials=both), report.spec)
    assert len(found) == 3
    rows = [(item, c) for item in found for c in item.family.comparisons]
    for (cells, _), (item, c) in zip(
        by_name(settings_table(found, known("test_accuracy"))), rows, strict=True
    ):
        assert cells == {
            "workload": item.workload,
            "optimizer": item.optimizer,
            "comparison": f"{c.candidate} vs {c.baseline}",
            "n": str(c.n),
            "test accuracy, % [CI]": difference(c.average),
            "p": f"{c.p_adjusted:.3f}",
            "verdict": c.verdict.word,
        }


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_table_of_trials_has_every_metric_of_the_task_and_what_is_tested(report, task):
    trials = report.results.trials.assign(elegance=0.625)
    for number, name in enumerate(task.metrics):
        trials[f"test_{name}"] = number + 0.5
    rows = by_name(trials_table(trials, tested=["elegance"], limit=3))
    assert len(rows) == 3
    for cells, _ in rows:
        assert cells["elegance"] == "0.625"
        assert [cells[f"test_{name}"] for name in task.metrics] == [
            f"{number + 0.5}" for number in range(len(task.metrics))
        ]
