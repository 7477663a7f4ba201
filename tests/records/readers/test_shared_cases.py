"""Each of the real inputs beside the repository that concerns reading, with what must come out."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app
from optbench.records import logs
from optbench.records.tables import compare_file, compare_predictions
from optbench.report.analysis import analyse
from tests.conftest import SHARED

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no shared/cases beside the repository")


def command(*words, code=0):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def one(name, **options):
    (comparison,) = compare_file(CASES / name, **options).within[0].comparisons
    return comparison


def test_a_row_of_averages_is_no_dataset():
    assert "line 7: 'Average' is a statistic" in command("compare", CASES / "average.csv", code=2)


def test_an_unnamed_index_is_left_out():
    result = compare_file(CASES / "index_long.csv", baseline="a")
    assert result.input.metric == "accuracy"
    assert any("is an index of the rows and is left out" in note for note in result.notes)


def test_leading_zeros_make_another_dataset():
    assert compare_file(CASES / "lead0.csv").input.datasets == ("007", "7")


def test_decimal_commas_are_read():
    assert one("eu_long.csv", baseline="adam").mean.estimate == pytest.approx(0.01)


@pytest.mark.parametrize("optimizer", ["None"])
def test_an_optimizer_may_be_called_none(optimizer, tmp_path):
    assert compare_file(CASES / "none_opt.csv").input.optimizers == (optimizer, "adam")
    command("import", CASES / "none_opt.csv", "--map", "accuracy=test_accuracy", "-o", tmp_path / "out")
    _, results, _ = api.gather_results(tmp_path / "out")
    assert set(results.trials["optimizer"]) == {optimizer, "adam"}


def test_labels_of_predictions_are_text():
    (result,) = compare_predictions(CASES / "p_odd.csv")
    assert (result.accuracy_candidate, result.accuracy_baseline) == (1.0, 0.8)


@pytest.mark.parametrize("name", ["keraslog.csv", "tb_scalar.csv"])
def test_the_log_of_a_run_is_no_matrix(name):
    assert "optbench import" in command("compare", CASES / name, code=2)


def test_crashed_runs_of_wandb_are_missing(tmp_path):
    result = compare_file(CASES / "wandb_runs.csv", metric="val_acc", baseline="adam")
    assert result.input.missing == 2
    assert result.within[0].comparisons[0].verdict.word == "better"
    assert "2 crashed" in command("import", CASES / "wandb_runs.csv", "-o", tmp_path / "out")
    _, results, _ = api.gather_results(tmp_path / "out")
    assert (results.trials["status"] == "crashed").sum() == 2


def test_rows_of_one_epoch_with_disjoint_cells_are_one_row():
    naming = logs.Naming(given={"dataset": "d", "optimizer": "adam", "seed": "0"})
    (log,) = logs.read([CASES / "lightning.csv"], naming)
    assert log.history["val_accuracy"][1:].tolist() == [0.5, 0.55, 0.6, 0.65]
    assert log.history["train_loss"][1:].tolist() == [1.0, 0.5, 0.333, 0.25]


def test_a_log_without_its_last_cells_changes_no_metric(tmp_path):
    folder = tmp_path / "logs"
    shutil.copytree(CASES / "logs-blank", folder)
    short = folder / "adam-0.csv"
    short.chmod(0o644)
    lines = short.read_text().splitlines()
    short.write_text("\n".join([*lines[:-1], ",".join([*lines[-1].split(",")[:2], "", ""])]) + "\n")
    said = command(
        "import", folder, "--pattern", "{optimizer}-{seed}.csv", "--dataset", "d", "-o", tmp_path / "out"
    )
    assert "val_accuracy: 1 of 12 runs lack their last values" in said
    spec, results, _ = api.gather_results(tmp_path / "out")
    (board,) = analyse(results, spec).boards
    assert board.metric == "val_accuracy"
    assert any("val_accuracy: 1 of 12 runs lack their last values" in note for note in board.notes)
    assert board.family.comparisons[0].n == 5
    assert board.family.comparisons[0].mean.estimate < 0


@pytest.mark.slow
def test_what_crashed_in_every_seed_is_called_so_and_the_others_have_their_times(tmp_path):
    pytest.importorskip("torch", reason="trains")
    shutil.copy(CASES / "crash.yaml", tmp_path)
    said = command("run", tmp_path / "crash.yaml", "--results", tmp_path / "results", code=4)
    assert "muon crashed in every trial" in said
    assert "Of 9 planned trials 6 completed, 3 crashed (muon)" in said
    assert "Time of a step, adam's as 1: sgd" in said
    assert "ran on different machines" not in said


@pytest.mark.slow
def test_a_target_that_nobody_reaches_in_220_trials(tmp_path):
    pytest.importorskip("torch", reason="trains")
    shutil.copy(CASES / "targets.yaml", tmp_path)
    said = command("run", tmp_path / "targets.yaml", "--results", tmp_path / "results")
    assert "220 trials" in said or "220 results" in said
    assert "ValueError" not in said
