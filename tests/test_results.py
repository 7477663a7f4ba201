"""The result sets that come with the repository: each is of its suite as it stands, and reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optbench.execution import local
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import trial_id
from optbench.tuning import journal as journals
from optbench.tuning.search import tuned

ROOT = Path(__file__).resolve().parent.parent
TRACKED = (
    "mnist_mlp",
    "fashion_mnist",
    "optimizers_offline",
    "fashion_mnist_mini",
    "digits_augmented_mini",
    "wame_variants",
    "tiny_gpt",
)
TRACKED = tuple(name for name in TRACKED if (ROOT / "results" / name).is_dir())


@pytest.mark.parametrize("name", TRACKED)
def test_a_result_set_is_of_its_suite_and_reports(name):
    suite = load_suite(ROOT / "suites" / f"{name}.yaml")
    with Store(ROOT / "results" / name) as store:
        assert store.meta()["hash"] == suite.hash
        statuses = store.statuses()
        lacking = {key for key, _, _ in store.plan()} - statuses.keys()
        devices = {trial.spec["device"] for trial in store.trials()}
        journal = journals.read(store.meta())
    if suite.tuning is None:
        (device,) = devices
        planned = trials(suite, lambda backend, declared: device)
        assert statuses.keys() <= {trial_id(trial.spec) for trial in planned}
        assert set(statuses.values()) == {"completed"}
    else:
        best = tuned(suite, journal)
        evaluated = {trial_id(trial.spec) for trial in local.plan(best)}
        assert evaluated <= statuses.keys()
        searched = {key for key, *_ in journal.trials()}
        assert statuses.keys() == evaluated | searched | set(journal.untuned)
        sizes = {(s.workload, len(s.settings)) for s in journal.studies}
        assert len(sizes) == len(suite.workloads)
    origin = json.loads((ROOT / "results" / name / "environment.json").read_text())
    assert origin["suite_hash"] == suite.hash
    assert sum(origin["not_run"].values()) == len(lacking)
    assert origin["trials"] == len(statuses) == sum(place["trials"] for place in origin["environments"])
    boards = analyse(load_results(ROOT / "results" / name), suite.report_spec).boards
    assert {board.workload for board in boards} <= {entry.label for entry in suite.workloads}
    assert all("proved" in " ".join(board.notes) for board in boards if len(board.rows) > 1)


def test_what_the_page_says_of_mnist_mlp_is_in_its_store():
    page = (ROOT / "results" / "mnist_mlp" / "README.md").read_text()
    results = load_results(ROOT / "results" / "mnist_mlp")
    trials = results.trials
    assert f"**{len(trials)} of {results.planned} planned trials completed" in page
    for (_, _), rows in trials.groupby(["workload", "optimizer"]):
        if rows["optimizer"].iloc[0] != "sgd" and rows["workload"].iloc[0] != "batch-256":
            assert f"{100 * rows['test_accuracy'].mean():.2f}" in page


def test_what_the_page_says_of_fashion_mnist_mini_is_in_its_store():
    page = (ROOT / "results" / "fashion_mnist_mini" / "README.md").read_text()
    trials = load_results(ROOT / "results" / "fashion_mnist_mini").trials
    for _, scores in (100 * trials["test_accuracy"]).groupby(trials["optimizer"]):
        assert f"{scores.mean():.2f} ± {scores.std():.2f}" in page
