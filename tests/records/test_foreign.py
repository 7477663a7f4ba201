from __future__ import annotations

import math

import numpy as np
import pytest
from typer.testing import CliRunner

from optbench import api, backends
from optbench.cli import app
from optbench.records import foreign, logs
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.report.build import write_report


def invoke(*words, code=0):
    done = CliRunner().invoke(app, ["import", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def table(tmp_path):
    """Seven seeds: wame is better by a point in each."""
    rows = [f"{o},{s},{0.9 + s / 1000 + g}" for s in range(7) for o, g in (("adam", 0), ("wame", 0.01))]
    path = tmp_path / "theirs.csv"
    path.write_text("\n".join(["optimizer,seed,accuracy", *rows]))
    return path


def keras_log(path, losses=(1.0, 0.5, 0.25), accuracies=(0.5, 0.9, 0.8)):
    """As keras.callbacks.CSVLogger writes it: epochs from 0, columns in alphabetical order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{e},{a},{x},{a},{x}" for e, (a, x) in enumerate(zip(accuracies, losses, strict=True))]
    path.write_text("\n".join(["epoch,accuracy,loss,val_accuracy,val_loss", *rows]) + "\n")
    return path


def test_a_table_becomes_a_report_that_says_its_pairs_are_declared(table, tmp_path):
    out = tmp_path / "theirs"
    assert "14 trials imported, 14 in" in invoke(table, "--map", "accuracy=test_accuracy", "-o", out)
    suite, results, _ = api.gather_results(out)
    report = analyse(results, suite)
    (board,) = report.boards
    (comparison,) = board.family.comparisons
    assert (comparison.n, comparison.verdict.word) == (7, "better")
    assert comparison.signed_rank.pvalue == pytest.approx(2 / 2**7)
    assert any("declared by the person who imported them, not proved" in note for note in board.notes)
    assert not any("proved by equal fingerprints" in note or "--time" in note for note in board.notes)
    assert "which no fingerprint proves" in report.methods
    page = write_report(results, suite, tmp_path / "report", formats=("html",)).index.read_text("utf-8")
    assert "not proved" in page
    assert not report.warnings


def test_importing_again_adds_what_is_new_and_refuses_other_numbers(table, tmp_path):
    out, option = tmp_path / "theirs", ("--map", "accuracy=test_accuracy")
    invoke(table, *option, "-o", out)
    table.write_text(table.read_text() + "\nsgd,0,0.8")
    assert "1 trials imported, 15 in" in invoke(table, *option, "-o", out)
    before = load_results(out).trials
    table.write_text(table.read_text().replace("0.8", "0.7"))
    assert "has other numbers" in invoke(table, *option, "-o", out, code=2)
    assert load_results(out).trials.equals(before)


def test_an_import_that_is_ended_leaves_the_store_as_it_was_or_none(table, tmp_path, monkeypatch):
    out, option = tmp_path / "theirs", ("--map", "accuracy=test_accuracy")

    def killed(self, *records):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", killed)
        invoke(table, *option, "-o", out, code=9)
    assert not list(out.glob("*.sqlite*"))
    invoke(table, *option, "-o", out)
    with Store(out) as store:
        before = store.meta(), store.plan(), store.statuses()
    table.write_text(table.read_text() + "\nadam,7,0.9\nwame,7,0.91")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", killed)
        invoke(table, *option, "-o", out, code=9)
    with Store(out) as store:
        assert (store.meta(), store.plan(), store.statuses()) == before
        assert not store.verify().misfits
    assert "2 trials imported, 16 in" in invoke(table, *option, "-o", out)


def test_a_store_of_trained_trials_is_left_alone(table, tmp_path):
    with Store(tmp_path / "trained", write=True) as store:
        store.set_meta(suite="trained")
    said = invoke(table, "--map", "accuracy=test_accuracy", "-o", tmp_path / "trained", code=2)
    assert "optbench trained" in said


def test_logs_of_keras_are_read_by_their_path(tmp_path):
    for optimizer in ("adam", "wame"):
        for seed in range(2):
            keras_log(tmp_path / "logs" / "mnist" / f"{optimizer}-{seed}.csv")
    said = invoke(
        tmp_path / "logs", "--pattern", "{dataset}/{optimizer}-{seed}.csv", "-o", tmp_path / "keras"
    )
    assert "Left out: accuracy" in said
    results = load_results(tmp_path / "keras")
    assert set(results.trials["dataset"]) == {"mnist"}
    assert sorted(results.trials["seed"]) == ["0", "0", "1", "1"]
    first = results.epochs[results.epochs["trial_id"] == results.trials["trial_id"][0]]
    assert list(first["epoch"]) == [0, 1, 2, 3]
    np.testing.assert_array_equal(first["val_accuracy"], [np.nan, 0.5, 0.9, 0.8])
    np.testing.assert_array_equal(first["batch_loss"], [np.nan, 1.0, 0.5, 0.25])
    assert first["train_loss"].isna().all()
    row = results.trials.iloc[0]
    assert (row["val_accuracy"], row["val_accuracy_best"], row["best_epoch"]) == (0.8, 0.9, 2)
    assert (row["val_loss_best"], row["epochs"]) == (0.5, 3)


def test_a_log_that_ends_without_a_number_diverged_and_ranks_worst(tmp_path):
    keras_log(tmp_path / "adam-0.csv")
    keras_log(tmp_path / "sgd-0.csv", losses=(1.0, 50.0, math.nan))
    invoke(tmp_path, "--pattern", "{optimizer}-{seed}.csv", "--dataset", "x", "-o", tmp_path / "out")
    trials = load_results(tmp_path / "out").trials.set_index("optimizer")
    assert dict(trials["status"]) == {"adam": "completed", "sgd": "diverged"}
    suite, results, _ = api.gather_results(tmp_path / "out")
    assert [row.optimizer for row in analyse(results, suite).boards[0].rows] == ["adam", "sgd"]


@pytest.fixture
def keras():
    """Keras on TensorFlow, after our engine, which takes a process before all else or not at all."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    backends.engine("tensorflow")
    import keras

    keras.utils.set_random_seed(0)  # the engine makes TensorFlow deterministic, which asks for one
    return keras


def test_the_logger_of_keras_itself(tmp_path, keras):
    x, y = np.eye(4, dtype=np.float32), np.arange(4)
    model = keras.Sequential([keras.layers.Dense(4, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[logger], verbose=0).history
    naming = logs.Naming(given={"dataset": "eye", "optimizer": "adam", "seed": "0"})
    (log,) = logs.read([tmp_path / "log.csv"], naming)
    np.testing.assert_allclose(log.history["val_loss"][1:], history["val_loss"], rtol=1e-6)
    np.testing.assert_allclose(log.history["batch_loss"][1:], history["loss"], rtol=1e-6)


def test_the_tensorboard_callback_of_keras(tmp_path, keras):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    x, y = np.eye(4, dtype=np.float32), np.arange(4)
    model = keras.Sequential([keras.layers.Dense(4, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callback = keras.callbacks.TensorBoard(tmp_path / "runs" / "adam-3", write_graph=False)
    history = model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[callback], verbose=0).history
    naming = logs.Naming(pattern="{optimizer}-{seed}", given={"dataset": "eye"})
    (log,) = logs.read([tmp_path / "runs"], naming)
    assert (log.optimizer, log.seed, log.kind) == ("adam", 3, "tensorboard")
    np.testing.assert_allclose(log.history["val_loss"][1:], history["val_loss"], rtol=1e-6)
    np.testing.assert_allclose(log.history["val_accuracy"][1:], history["val_accuracy"], rtol=1e-6)
    np.testing.assert_allclose(log.history["batch_loss"][1:], history["loss"], rtol=1e-6)


@pytest.mark.parametrize("tags", [("val_loss", "val_accuracy"), ("Loss/val", "Accuracy/val")])
def test_scalars_of_a_summary_writer(tmp_path, tags):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    torch = pytest.importorskip("torch.utils.tensorboard", reason="PyTorch is not installed")
    with torch.SummaryWriter(tmp_path / "wame" / "7") as writer:
        for step, value in enumerate((0.5, 0.25)):
            writer.add_scalar(tags[0], value, 100 * step)
            writer.add_scalar(tags[1], 1 - value, 100 * step)
            writer.add_scalar("grad_norm", value, step)
    naming = logs.Naming(pattern="{optimizer}/{seed}", given={"dataset": "x"}, first_epoch=0)
    (log,) = logs.read([tmp_path], naming)
    np.testing.assert_array_equal(log.history["val_loss"], [0.5, 0.25])
    np.testing.assert_array_equal(log.history["val_accuracy"], [0.5, 0.75])
    assert log.ignored == ("grad_norm",)


def test_a_table_of_epochs(tmp_path):
    path = tmp_path / "epochs.csv"
    rows = [f"d,{o},0,{e},{v}," for o in ("adam", "wame") for e, v in enumerate((0.1, 0.6, 0.5))]
    rows[2] += "0.55"
    rows[5] += "0.65"
    path.write_text("\n".join(["dataset,optimizer,seed,epoch,val_accuracy,test_accuracy", *rows]))
    found = logs.read([path], logs.Naming())
    assert [log.metrics for log in found] == [{"test_accuracy": 0.55}, {"test_accuracy": 0.65}]
    np.testing.assert_array_equal(found[0].history["val_accuracy"], [0.1, 0.6, 0.5])


def test_percentages_are_asked_about_and_divided(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("dataset,optimizer,seed,test_accuracy\nd,adam,0,91.5\nd,wame,0,92\n")
    assert "--percent" in invoke(path, "-o", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()
    invoke(path, "--percent", "-o", tmp_path / "out")
    assert list(load_results(tmp_path / "out").trials["test_accuracy"]) == [0.915, 0.92]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("optimizer,seed,acc\nadam,0,0.9", (), "--map accuracy=test_accuracy"),
        ("optimizer,seed,test_accuracy\nadam,x,0.9", (), "seed: found 'x'"),
        ("optimizer,seed,test_accuracy\nadam,0,0.9\nadam,0,0.8", (), "has 2 rows; add a column epoch"),
        ("epoch,val_loss\n0,1", (), "--dataset"),
        ("epoch,val_loss\n0,1", ("--pattern", "{who}.csv"), "found {who}"),
        ("epoch,val_loss\n0,1", ("--pattern", "{optimizer}-{seed}.csv"), "does not fit --pattern"),
        ("epoch,val_loss\n0,1\n1,2\n0,1", ("--dataset=d", "--optimizer=o", "--seed=0"), "found 1 after 2"),
        ("epoch,val_loss\n0,oops", ("--dataset=d", "--optimizer=o", "--seed=0"), "found 'oops'"),
        ("epoch,val_loss\n0,1", ("--map", "nothing"), "give NAME=METRIC"),
    ],
)
def test_what_does_not_fit_is_answered_in_a_line(tmp_path, text, options, words):
    path = tmp_path / "given.csv"
    path.write_text(text + "\n")
    said = invoke(path, *options, "-o", tmp_path / "out", code=2)
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_one_run_twice_is_refused(tmp_path):
    keras_log(tmp_path / "a" / "log.csv")
    keras_log(tmp_path / "b" / "log.csv")
    naming = logs.Naming(given={"dataset": "d", "optimizer": "adam", "seed": "0"})
    with pytest.raises(foreign.ImportedError, match="comes twice"):
        foreign.write(logs.read([tmp_path], naming), tmp_path / "out")


def metric_table(tmp_path, *names, values=((0.1, 0.3),)):
    """Seven seeds of two optimizers; good comes first."""
    path = tmp_path / "metrics.csv"
    rows = [
        ",".join(["d", optimizer, str(seed), *(str(pair[place] + seed / 1000) for pair in values)])
        for seed in range(7)
        for place, optimizer in enumerate(("good", "bad"))
    ]
    path.write_text("\n".join([",".join(["dataset", "optimizer", "seed", *names]), *rows]))
    return path


def verdict(out):
    suite, results, _ = api.gather_results(out)
    (board,) = analyse(results, suite).boards
    (comparison,) = board.family.comparisons
    return board.metric, comparison.candidate, comparison.verdict.word


@pytest.mark.parametrize("name", ["test_brier_score", "test_rmse", "test_error_rate"])
def test_a_known_metric_is_tested_in_its_direction(tmp_path, name):
    invoke(metric_table(tmp_path, name), "-o", tmp_path / "out")
    assert verdict(tmp_path / "out") == (name, "bad", "worse")


@pytest.mark.parametrize(("option", "word"), [("--minimise", "worse"), ("--maximise", "better")])
def test_a_metric_that_is_not_known_is_asked_about(tmp_path, option, word):
    path, out = metric_table(tmp_path, "test_my_score"), tmp_path / "out"
    said = " ".join(invoke(path, "-o", out, code=2).split())
    assert "metric 'test_my_score' is not known; say which is better: --maximise test_my_score or" in said
    assert not out.exists()
    invoke(path, option, "test_my_score", "-o", out)
    assert verdict(out) == ("test_my_score", "bad", word)
    invoke(path, "-o", out)  # it was said before
    other = "--maximise" if option == "--minimise" else "--minimise"
    assert "with the other direction" in invoke(path, other, "test_my_score", "-o", out, code=2)
    assert verdict(out) == ("test_my_score", "bad", word)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--maximise", "test_loss"), "smaller is better, as its name says"),
        (("--maximise", "test_lost"), "found 'test_lost'; the runs have the metrics test_loss"),
        (("--maximise", "test_loss", "--minimise", "test_loss"), "is in both"),
    ],
)
def test_a_direction_that_does_not_fit_is_refused(tmp_path, options, words):
    out = tmp_path / "out"
    assert words in " ".join(invoke(metric_table(tmp_path, "test_loss"), *options, "-o", out, code=2).split())
    assert not out.exists()


def test_shares_of_any_name_are_taken_as_percentages_and_named(tmp_path):
    path = metric_table(
        tmp_path, "test_accuracy", "test_auc", "test_rmse", values=((91, 90), (95, 94), (3, 4))
    )
    assert "test_accuracy: found 91" in invoke(path, "-o", tmp_path / "out", code=2)
    said = invoke(path, "--percent", "-o", tmp_path / "out")
    assert "Taken as percentages: test_accuracy, test_auc" in said
    row = load_results(tmp_path / "out").trials.iloc[0]
    assert (row["test_accuracy"], row["test_auc"], row["test_rmse"]) == (0.91, 0.95, 3)
