"""Errors by class, goals, and the two best trained models, of really trained trials."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app
from optbench.datasets import registry
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report.analysis import analyse, by_class_tables, side_tables
from optbench.report.build import write_report
from optbench.report.trained import Confusions
from optbench.stats.classifiers import mcnemar_predictions

SUITE = """
suite: classes
workloads:
  - name: small
    dataset: digits
    model: {name: mlp, hidden: [8]}
    batch_size: 256
    epochs: 3
    per_class: true
    top_k: [3]
    goals: {accuracy: 0.5, recall: 0.999}
  - name: large
    dataset: digits
    model: {name: mlp, hidden: [32]}
    batch_size: 64
    epochs: 3
    early_stopping: {patience: 2}
optimizers:
  wame: {lr: 0.05}
  adam: {lr: 0.01}
seeds: 2
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    folder = tmp_path_factory.mktemp("classes")
    path = folder / "classes.yaml"
    path.write_text(SUITE)
    suite = api.load_suite(path)
    store = api.run(suite, results=folder).store
    return store, suite.report_spec


@pytest.fixture(scope="module")
def report(trained):
    store, spec = trained
    return analyse(load_results(store), spec)


def predictions(store, **labels):
    """Final predictions of the trials with these labels, and their test accuracy."""
    trials = load_results(store).trials
    for name, value in labels.items():
        trials = trials[trials[name] == value]
    with Store(store) as opened:
        for trial in opened.trials(list(trials["trial_id"])):
            kept = "best" if labels.get("workload") == "large" else "last"
            yield opened.predictions(trial.trial_id)[kept], trial


def test_confusions_are_those_of_the_stored_predictions(trained, report):
    store, _ = trained
    truth = registry.load("digits").y_test
    found = report.trained.confusions["small", "adam"]
    wanted = sum(
        confusion_matrix(truth, predicted, labels=range(10))
        for predicted, _ in predictions(store, workload="small", optimizer="adam")
    )
    assert (found.counts == wanted).all()
    assert found.trials == 2
    assert ("large", "adam") not in report.trained.confusions, "it did not ask for scores by class"


def test_commonest_errors_come_with_all_that_tie():
    counts = np.array([[5, 2, 0], [2, 5, 1], [0, 1, 5]])
    found = Confusions(classes=("a", "b", "c"), counts=counts, trials=1)
    assert found.commonest(1) == [("a", "b", 2), ("b", "a", 2)]
    assert found.commonest(3) == [("a", "b", 2), ("b", "a", 2), ("b", "c", 1), ("c", "b", 1)]


def test_the_two_best_models_are_chosen_by_validation_over_all_networks(trained, report):
    store, _ = trained
    (test,) = report.trained.tests
    scores = {}
    for workload, suffix in (("small", ""), ("large", "_best")):
        for optimizer in ("wame", "adam"):
            found = list(predictions(store, workload=workload, optimizer=optimizer))
            scores[workload, optimizer] = max(t.metrics[f"val_accuracy{suffix}"] for _, t in found)
    ranked = sorted(scores, key=lambda key: -scores[key])
    assert [(m.workload, m.optimizer) for m in (test.best, test.second)] == ranked[:2]
    truth = registry.load("digits").y_test
    both = []
    for model in (test.best, test.second):
        (found,) = (p for p, t in predictions(store, workload=model.workload) if t.trial_id == model.trial_id)
        assert (found == truth).mean() == model.accuracy
        both.append(found)
    assert test.test == mcnemar_predictions(truth, *both)


def test_recall_among_the_likeliest_is_recorded_by_class(trained):
    store, _ = trained
    truth = registry.load("digits").y_test
    for predicted, trial in predictions(store, workload="small"):
        recalls = recall_score(truth, predicted, average=None)
        for label, recall in enumerate(recalls):
            assert trial.metrics[f"test_recall[{label}]"] == pytest.approx(recall)
            assert trial.metrics[f"test_top3_recall[{label}]"] >= recall
        among = sum(trial.metrics[f"test_top3_recall[{k}]"] * (truth == k).mean() for k in range(10))
        assert among == pytest.approx(trial.metrics["test_top3_accuracy"])


def test_tables_say_the_lowest_class_and_which_goals_hold(report):
    tables = side_tables(report)
    rows = {row[1]: row for row in tables["errors"].rows}
    trials = report.results.trials
    for optimizer, row in rows.items():
        mine = trials[(trials["optimizer"] == optimizer) & (trials["workload"] == "small")]
        recalls = {k: mine[f"test_recall[{k}]"].mean() for k in range(10)}
        least = min(recalls.values())
        assert row[3] == " and ".join(str(k) for k, recall in recalls.items() if recall == least)
        assert row[4] == f"{100 * least:.2f}"
        reached = int((mine["test_accuracy"] >= 0.5).sum())
        assert row[6] == f"{reached} of 2 (>= 50 %)"
        assert row[7].startswith("0 of 2 (>= 99.9 %); on average 10 below: ")
    (by_class,) = by_class_tables(report)
    assert by_class.columns == ("class", "precision, %", "recall, %", "F1, %", "top-3 recall, %")
    assert [float(row[2]) for row in by_class.rows] == sorted(float(row[2]) for row in by_class.rows)


def test_every_format_has_the_classes(trained, report, tmp_path):
    _, spec = trained
    write_report(report.results, spec, tmp_path, formats=("markdown", "latex", "csv", "html"), report=report)
    title = by_class_tables(report)[0].title
    for name in ("leaderboard.md", "leaderboard.tex", "index.html"):
        text = (tmp_path / name).read_text()
        assert title in text, name
        assert "top-3 recall" in text or r"top-3 \\ recall" in text, name
    assert len((tmp_path / "tables" / "per_class.csv").read_text().splitlines()) == 1 + 2 * 10
    assert "Best against second best trained model" in (tmp_path / "leaderboard.md").read_text()
    assert (tmp_path / "tables" / "models.csv").is_file()


def test_data_that_are_not_here_are_named_not_fetched(trained, monkeypatch):
    store, spec = trained
    monkeypatch.setattr(registry, "is_present", lambda dataset, **options: False)
    tables = side_tables(analyse(load_results(store), spec))
    assert "digits is not here, so errors are not counted" in " ".join(tables["errors"].notes)
    assert "models" not in tables


@pytest.mark.parametrize("how", ["variable", "argument", "command"])
def test_true_classes_are_looked_for_where_the_user_says(how, trained, monkeypatch, tmp_path):
    store, _ = trained
    monkeypatch.setattr(registry, "is_present", lambda dataset, *, data_dir=None: data_dir == tmp_path)
    monkeypatch.delenv("OPTBENCH_DATA", raising=False)
    if how == "command":
        options = ["--data-dir", str(tmp_path), "--format", "terminal"]
        shown = CliRunner().invoke(app, ["report", str(store), *options]).output
        assert "Best against second best" in shown
        return
    if how == "variable":
        monkeypatch.setenv("OPTBENCH_DATA", str(tmp_path))
    _, found, _ = api.gather_results(store, data_dir=tmp_path if how == "argument" else None)
    tables = side_tables(analyse(found, trained[1]))
    assert "models" in tables
    assert "not here" not in " ".join(tables["errors"].notes)


def test_a_goal_for_every_class_needs_scores_by_class(write_suite):
    path = write_suite(("per_class: true\n    top_k: [3]\n", "top_k: [3]\n"), text=SUITE)
    with pytest.raises(api.SuiteError, match=r"goals.recall: needs the recall of every class"):
        api.load_suite(path)
