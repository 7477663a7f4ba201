from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="runs trials with PyTorch")

from optbench import api
from optbench.execution import jobs
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.suite.load import load_suite

TIMES = ("seconds", "started", "attempts")


def content(store_path: Path) -> dict[str, tuple]:
    """Everything of a store that must not depend on how the run went: all but times and attempts."""
    with Store(store_path) as store:
        return {
            trial.trial_id: (
                trial.block_id,
                trial.status,
                dict(trial.fingerprints),
                trial.order_by_epoch,
                dict(trial.metrics),
                {
                    name: values.tobytes()
                    for name, values in trial.history.items()
                    if not name.endswith("seconds")
                },
                {epoch: array.tobytes() for epoch, array in store.predictions(trial.trial_id).items()},
            )
            for trial in store.trials()
        }


def test_a_second_run_does_only_what_is_missing(write_suite, tmp_path):
    path = write_suite()
    first = api.run(path, results=tmp_path, only=lambda trial: trial.optimizer == "adam")
    assert (first.run, first.completed) == (2, 2)
    before = content(first.store)
    second = api.run(path, results=tmp_path)
    assert (second.run, second.completed) == (2, 4)
    after = content(second.store)
    assert {key: after[key] for key in before} == before
    assert api.run(path, results=tmp_path).run == 0
    assert api.run(path, results=tmp_path, fresh=True).run == 4


def test_a_run_of_fewer_seeds_hides_no_record_of_the_others(write_suite, tmp_path):
    path = write_suite()
    api.run(path, results=tmp_path)
    one = replace(load_suite(path), seeds=load_suite(path).seeds[:1])
    outcome = api.run(one, results=tmp_path)
    assert (outcome.planned, outcome.run) == (2, 0)
    found = load_results(outcome.store)
    assert (len(found.trials), found.planned, found.unplanned) == (4, 4, 0)
    assert analyse(found, one.report_spec).boards[0].family.comparisons[0].n == 2
    assert api.run(path, results=tmp_path).run == 0
    assert load_results(outcome.store).planned == 4


def test_records_of_an_earlier_suite_file_are_left_out_and_counted(write_suite, tmp_path):
    api.run(write_suite(), results=tmp_path)
    path = write_suite(("adam: {lr: 0.01}", "adam: {lr: 0.02}"))
    found = load_results(api.run(path, results=tmp_path).store)
    assert (len(found.trials), found.unplanned) == (4, 2)
    assert any(
        "2 more records are in no plan" in text
        for text in analyse(found, load_suite(path).report_spec).warnings
    )


def test_more_seeds_and_new_labels_reuse_what_is_there(write_suite, tmp_path):
    api.run(write_suite(), results=tmp_path)
    outcome = api.run(
        write_suite(("seeds: 2", "seeds: 3"), ("adam: {lr: 0.01}", "mine: {optimizer: adam, lr: 0.01}")),
        results=tmp_path,
    )
    assert outcome.run == 2
    assert set(load_results(outcome.store).trials["optimizer"]) == {"wame", "mine"}


def test_a_diverged_trial_is_recorded_and_the_suite_goes_on(write_suite, tmp_path):
    outcome = api.run(write_suite(("adam: {lr: 0.01}", "sgd: {lr: 1.0e+9}")), results=tmp_path)
    assert (outcome.completed, outcome.diverged) == (2, 2)
    trials = load_results(outcome.store).trials.set_index("optimizer")
    assert set(trials.loc["sgd", "status"]) == {"diverged"}
    assert trials.loc["sgd", "test_accuracy"].isna().all()


def test_a_trial_that_raises_is_recorded_with_its_traceback_and_tried_again(
    write_suite, tmp_path, monkeypatch
):
    path = write_suite()
    real = jobs.run_trial

    def broken(spec, *arguments, **options):
        if spec.optimizer.optimizer == "adam" and spec.seeds.init == 1:
            raise RuntimeError("out of luck")
        return real(spec, *arguments, **options)

    monkeypatch.setattr(jobs, "run_trial", broken)
    outcome = api.run(path, results=tmp_path)
    assert (outcome.completed, outcome.crashed) == (3, 1)
    with Store(outcome.store) as store:
        (crash,) = [trial for trial in store.trials() if trial.status == "crashed"]
    assert "out of luck" in crash.error
    assert "Traceback" in crash.error
    monkeypatch.undo()
    again = api.run(path, results=tmp_path)
    assert (again.run, again.completed, again.crashed) == (1, 4, 0)


def test_smoke_uses_made_data_a_store_of_its_own_and_other_ids(write_suite, tmp_path):
    path = write_suite()
    real, dry = api.run(path, results=tmp_path), api.run(path, results=tmp_path, smoke=True)
    assert dry.store.parent.name == "tiny-smoke"
    assert load_results(dry.store).meta[0]["smoke"]
    assert not set(content(real.store)) & set(content(dry.store))


KILLED = """
suite: killed
workloads:
  - dataset: digits
    model: {name: mlp, hidden: [32]}
    batch_size: 16
    epochs: 4
  - dataset: mnist-mini
    model: small_cnn
    batch_size: 128
    epochs: 1
optimizers:
  wame: {lr: 0.05}
  adam: {lr: 0.005}
  sgd: {lr: 0.05, momentum: 0.9}
seeds: 3
"""


@pytest.mark.parametrize("shots", [2, pytest.param(5, marks=pytest.mark.nightly)])
def test_kill_9_at_random_moments_then_the_same_command_gives_the_same_store(write_suite, tmp_path, shots):
    path = write_suite(text=KILLED, name="killed.yaml")
    command = [sys.executable, "-m", "optbench.cli", "run", str(path), "--results"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}

    def start(folder: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    api.run(path, results=tmp_path / "whole")
    expected = content(tmp_path / "whole" / "killed")
    assert len(expected) == 18

    chance = random.Random(5)
    store = tmp_path / "cut" / "killed" / "store.sqlite"
    kills = 0
    while kills < shots:
        process = start(tmp_path / "cut")
        # Wait until trials run, then strike at a random moment of the two or three that come next.
        for line in process.stdout:
            if line.startswith("["):
                break
        time.sleep(chance.uniform(0, 0.5))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kills += 1
        partial = content(store)
        assert all(expected[key] == value for key, value in partial.items())
    assert kills >= min(shots, 3), "the run was over before it could be killed often enough"
    api.run(path, results=tmp_path / "cut")
    assert content(store) == expected
    with Store(store) as opened:
        assert {trial.attempts for trial in opened.trials()} == {1}


def test_ctrl_c_ends_with_130_and_keeps_what_is_finished(write_suite, tmp_path):
    path = write_suite(("seeds: 2", "seeds: 200"))
    process = subprocess.Popen(
        [sys.executable, "-m", "optbench.cli", "run", str(path), "--results", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    trials = load_results(tmp_path / "tiny").trials
    assert 1 <= len(trials) < 400
    assert np.isfinite(trials["test_accuracy"]).all()
