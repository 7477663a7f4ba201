from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from rich.console import Console

from optbench import api
from optbench.backends.base import BackendMissingError
from optbench.environment import Context
from optbench.records.reading import TrialSummary
from optbench.records.store import Store, StoreError
from optbench.report import diagnostics, plots, residuals
from optbench.report.diagnostics import _scores, _sentences
from optbench.report.trial_plots import write_trial_plots
from optbench.report.watch import _seconds_left, look, render, sparkline, watch
from optbench.task import Metrics


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with one really trained pair."""
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("trained")
    suite = folder / "tiny.yaml"
    suite.write_text(TINY.replace("seeds: 2", "seeds: 1"))
    return api.run(suite, results=folder).store


def test_scores_and_sentences_by_hand():
    confusion = np.array([[8, 2, 0], [1, 9, 0], [5, 0, 5]])
    precision, recall, f1 = _scores(confusion)
    assert recall == pytest.approx([0.8, 0.9, 0.5])
    assert precision == pytest.approx([8 / 14, 9 / 11, 1.0])
    assert f1[2] == pytest.approx(2 * 5 / 15)
    said = _sentences(confusion, recall, ("U", "V", "W"))
    assert said[0] == "22 of 30 test examples are right (73.33%)."
    assert said[1] == "The lowest recall is that of W (5 of 10): 50.0%."
    assert said[2] == "The most common error: W taken for U, 5 times."


def test_ties_are_named():
    confusion = np.array([[8, 2, 0], [2, 8, 0], [0, 0, 5]])
    said = _sentences(confusion, _scores(confusion)[1], ("U", "V", "W"))
    assert said[1] == "The lowest recall is that of U (8 of 10) and V (8 of 10): 80.0%."
    assert said[2] == "The most common errors: U taken for V and V taken for U, 2 times each."
    one_error_each = np.full((4, 4), 1) + 9 * np.eye(4, dtype=int)
    said = _sentences(one_error_each, _scores(one_error_each)[1], tuple("abcd"))
    assert said[2].endswith("and 8 more, once each.")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A store with a trial that went on for two epochs after its best one."""
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("stopped")
    text = TINY.replace("seeds: 2", "seeds: 1").replace("  wame: {lr: 0.05}\n", "")
    text = text.replace("epochs: 2", "epochs: 60\n    early_stopping: {patience: 2}")
    suite = folder / "tiny.yaml"
    suite.write_text(text.replace("adam: {lr: 0.01}", "adam: {lr: 0.1}").replace("baseline: wame", ""))
    return api.run(suite, results=folder).store


def test_under_early_stopping_the_pictures_are_of_the_leaderboards_model(stopped, tmp_path):
    with Store(stopped) as store:
        trial = next(store.trials())
        assert trial.metrics["best_epoch"] == trial.metrics["epochs"] - 2
        by_epoch = {e: diagnostics.diagnose(store, trial, epoch=e) for e in ("best", "last")}
        final = diagnostics.diagnose(store, trial)
        written = write_trial_plots(store, trial, tmp_path)
        other = write_trial_plots(store, trial, tmp_path, epoch="last")
    assert final.epoch == "best"
    assert final.confusion.trace() / final.confusion.sum() == trial.metrics["test_accuracy"]
    for epoch, found in by_epoch.items():
        assert found.confusion.trace() / found.confusion.sum() == trial.metrics[f"test_accuracy_{epoch}"]
    best, epochs = (round(trial.metrics[name]) for name in ("best_epoch", "epochs"))
    assert written.sentences[0] == f"Model of the best epoch ({best} of {epochs})."
    assert other.sentences[0] == f"Model of the last epoch ({epochs}), not the final model."


def test_training_again_gives_the_weights_of_the_epoch_asked_for(stopped):
    with Store(stopped) as store:
        trial = next(store.trials())
    final, best, last = (diagnostics.retrain(trial, Context(), epoch=e).after for e in (None, "best", "last"))
    assert all((final[name] == best[name]).all() for name in best)
    assert any((last[name] != best[name]).any() for name in best)


def test_a_diagnosis_agrees_with_the_recorded_accuracy(trained):
    with Store(trained) as store:
        for trial in store.trials():
            found = diagnostics.diagnose(store, trial)
            assert found.confusion.trace() / found.confusion.sum() == trial.metrics["test_accuracy_last"]
            assert len(found.images) == len(found.truth)


def test_training_again_gives_the_recorded_weights_path(trained):
    with Store(trained) as store:
        trial = next(store.trials())
    found = diagnostics.retrain(trial, Context())
    assert found.before.keys() == found.after.keys()
    assert any((found.before[name] != found.after[name]).any() for name in found.before)
    assert found.example.shape == (8, 8, 1)


def test_files_and_words_of_a_trial(trained, tmp_path):
    with Store(trained) as store:
        trial = next(store.trials())
        written = write_trial_plots(store, trial, tmp_path / "plots", weights=True)
    names = {path.stem.split("_")[0] for path in written.files}
    assert names == {"history", "confusion", "classes", "errors", "pairs", "weights"}, "no convolution"
    assert all(path.stat().st_size > 1000 for path in written.files)
    assert "McNemar's mid-p" in written.sentences[-1]
    assert "two trained models" in written.sentences[-1]


def test_a_missing_framework_is_named(trained, monkeypatch):
    from optbench import backends

    def missing(name, context):
        raise BackendMissingError(
            f"backend {name}: not installed; bring it with `pip install optbench[{name}]`"
        )

    with Store(trained) as store:
        trial = next(store.trials())
    monkeypatch.setattr(backends, "engine", missing)
    with pytest.raises(BackendMissingError, match="pip install"):
        diagnostics.retrain(trial, Context())


def test_a_trial_without_predictions_says_so(two_workloads):
    _, _, folder = two_workloads
    with Store(folder) as store, pytest.raises(StoreError, match="no predictions of the last epoch"):
        diagnostics.diagnose(store, next(store.trials()))


def test_a_trial_without_predictions_has_its_curves_drawn(two_workloads, tmp_path):
    _, _, folder = two_workloads
    with Store(folder) as store:
        written = write_trial_plots(store, next(store.trials()), tmp_path)
    assert {path.stem.partition("_")[0] for path in written.files} == {"history"}
    assert any("keeps no predictions" in sentence for sentence in written.sentences)


@pytest.mark.slow
def test_every_convolution_has_its_filters_and_feature_maps(tmp_path_factory, tmp_path):
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    from tests.conftest import TINY

    suite = tmp_path / "tiny.yaml"
    text = TINY.replace("{name: mlp, hidden: [8]}", "{name: small_cnn, filters: [3, 4], kernel: 2}")
    suite.write_text(
        text.replace("seeds: 2", "seeds: 1").replace("epochs: 2", "epochs: 1\n    top_k: [2, 3]")
    )
    with Store(api.run(suite, results=tmp_path).store) as store:
        trial = next(store.trials())
        written = write_trial_plots(store, trial, tmp_path / "plots", weights=True)
        found = diagnostics.retrain(trial, Context())
    names = {path.stem.rsplit("_", 1)[0] for path in written.files}
    convolutions = [f"conv2d_{k}" for k in (1, 2)]
    assert names >= {f"{kind}-{name}" for kind in ("filters", "features") for name in convolutions} | {"top"}
    (_, kernel, maps), (_, second, _) = found.convolutions()
    assert (kernel.shape, second.shape) == ((2, 2, 1, 3), (2, 2, 3, 4))
    by_hand = (found.example[:2, :2, 0, None] * kernel[:, :, 0]).sum(axis=(0, 1))
    by_hand += found.after["conv2d_1/bias"]
    assert maps[0, 0] == pytest.approx(np.maximum(by_hand, 0), rel=1e-6)


def test_violins_show_both_sides_of_every_layer():
    rng = np.random.default_rng(0)
    before = {"a/kernel": rng.normal(size=(5, 5)), "a/bias": np.zeros(5)}
    figure = plots.weight_violins(before, {name: value * 2 for name, value in before.items()})
    (axes,) = figure.axes
    assert len(axes.collections) == 2
    assert [text.get_text() for text in axes.texts] == ["moved 1"]


def test_sparkline_follows_the_numbers():
    assert sparkline([]) == ""
    assert sparkline([1, 1]) == "▁▁"
    assert sparkline([0, float("nan"), 1]) == "▁ █"
    assert len(sparkline(range(100), width=10)) == 10


def test_watching_shows_blocks_and_ends_with_the_run(two_workloads):
    _, _, folder = two_workloads
    console = Console(width=120, record=True, file=io.StringIO())
    standing = watch(
        folder,
        metric=Metrics()["test_accuracy"],
        console=console,
        sleep=lambda s: pytest.fail("it has ended"),
    )
    assert (standing.planned, standing.blocks_planned, standing.blocks_complete) == (36, 12, 12)
    assert standing.counts == {"completed": 32, "diverged": 4}
    console.print(render(standing, metric=Metrics()["test_accuracy"]))
    text = console.export_text()
    assert "means over 12 whole blocks of 12 planned" in text
    assert "no test" in text


def test_a_partly_run_store_has_time_left(made_results, tmp_path):
    made_results({"wame": [0.8, 0.9, None], "adam": [0.9, None, None]})
    with Store(tmp_path / "store") as store:
        standing = look(store, metric=Metrics()["test_accuracy"])
    assert standing.planned - sum(standing.counts.values()) == 3
    assert (standing.blocks_complete, standing.blocks_planned) == (1, 3)


@pytest.mark.parametrize("days", [-400, 0, 400])
def test_time_left_is_that_of_trials_and_not_of_a_clock_that_was_set(days):
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    jump = [timedelta(0)] * 3 + [timedelta(days=days)] * 3
    rows = [
        TrialSummary(
            trial_id=str(k),
            block_id="",
            status="completed",
            started=(start + timedelta(minutes=k) + jump[k]).isoformat(timespec="seconds"),
            metrics={},
            seconds=58.5,
        )
        for k in range(6)
    ]
    assert _seconds_left(rows, 10) == pytest.approx(600, rel=0.02)
    assert np.isnan(_seconds_left(rows[:1], 10))
    assert np.isnan(_seconds_left([rows[0], rows[0]], 10))


def test_a_regression_shows_residuals_where_classes_had_confusions(tmp_path):
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    suite = tmp_path / "numbers.yaml"
    suite.write_text(NUMBERS)
    with Store(api.run(suite, results=tmp_path).store) as store:
        (trial,) = store.trials()
        found = residuals.residuals(store, trial)
        error = float(np.sqrt(np.mean(found.errors**2)))
        assert error == pytest.approx(trial.metrics["test_rmse"], rel=1e-6)
        assert f"off by {np.abs(found.errors).mean():.4g} on average" in found.sentences[0]
        shown = write_trial_plots(store, trial, tmp_path / "plots")
    assert {path.stem for path in shown.files} == {
        f"{kind}_{trial.trial_id}" for kind in ("history", "residuals")
    }
    assert shown.sentences[1:] == found.sentences


NUMBERS = """
suite: numbers
workloads: [{dataset: diabetes, model: {name: mlp, hidden: [4]}, batch_size: 64, epochs: 2}]
optimizers: {sgd: {lr: 0.05}}
seeds: 1
"""
