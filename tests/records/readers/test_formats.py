"""Formats of other tools: golden files that the tools made themselves, and the layouts of those pip lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from optbench.cli import app
from optbench.errors import UserError
from optbench.records import logs
from optbench.records.readers.formats import FORMATS
from optbench.records.readers.naming import LogError, Naming
from optbench.records.tables import compare_file
from tests.records.readers.golden.make import RUNS, accuracy, loss

GOLDEN = Path(__file__).parent / "golden"
PATTERN = "{optimizer}-{seed}"


def read(path, kind=None, **options):
    notes: list[str] = []
    found = logs.read([path], Naming(**options), notes=notes)
    if kind is not None:
        assert {log.kind for log in found} == {kind}
    return {(log.optimizer, log.seed): log for log in found}


def same_curves(found, runs):
    assert sorted(found) == sorted(runs)
    for (optimizer, seed), log in found.items():
        for metric, rule in (("val_accuracy", accuracy), ("val_loss", loss)):
            wanted = [rule(optimizer, seed, epoch) for epoch in range(3)]
            np.testing.assert_allclose(log.history[metric][1:], wanted, rtol=1e-6)


def test_offline_runs_of_wandb():
    found = read(GOLDEN / "wandb", "wandb")
    same_curves({k: v for k, v in found.items() if k != ("sgd", 1)}, RUNS[:-1])
    assert found["sgd", 1].status == "crashed"
    assert {log.dataset for log in found.values()} == {"mnist"}
    assert {log.lr for log in found.values()} == {0.001}


def test_an_offline_run_that_was_cut_short_has_no_end(tmp_path):
    (path, *_) = sorted((GOLDEN / "wandb").rglob("*.wandb"))
    (tmp_path / path.name).write_bytes(path.read_bytes()[:-40])
    (log,) = read(tmp_path).values()
    assert log.status == "crashed"
    assert any("cut short" in note for note in log.notes)


def test_the_file_store_of_mlflow():
    found = read(GOLDEN / "mlflow" / "mlruns", "mlflow")
    same_curves({k: v for k, v in found.items() if k != ("sgd", 1)}, RUNS[:-1])
    assert found["sgd", 1].status == "crashed"
    assert found["adam", 0].dataset == "mnist"


def test_search_runs_of_mlflow_and_trials_of_optuna():
    found = read(GOLDEN / "mlflow" / "runs.csv", "table")
    assert found["sgd", 1].status == "crashed"
    for (optimizer, seed), log in found.items():
        if log.status == "completed":
            assert log.metrics["val_accuracy"] == pytest.approx(accuracy(optimizer, seed, 2))
    table, study = (
        read(GOLDEN / "optuna" / "trials.csv", "table"),
        read(GOLDEN / "optuna" / "study.db", "optuna"),
    )
    assert sorted(table) == sorted(study) == sorted(RUNS)
    for key, log in study.items():
        assert log.dataset == "mnist"
        assert log.status == table[key].status == ("crashed" if key == ("sgd", 1) else "completed")
        assert log.metrics == table[key].metrics
    assert study["adam", 1].metrics == {"val_accuracy": pytest.approx(accuracy("adam", 1, 2))}
    result = compare_file(GOLDEN / "optuna" / "study.db", baseline="adam")
    assert (result.input.metric, result.input.maximise, result.input.missing) == ("val_accuracy", True, 1)


def test_scalars_of_tensorboard():
    same_curves(
        read(GOLDEN / "tensorboard", "tensorboard", pattern=PATTERN, given={"dataset": "d"}), RUNS[::2]
    )


def test_the_parts_of_a_run_of_keras_in_tensorboard():
    folder = GOLDEN / "tensorboard_keras"
    (log,) = read(folder, "tensorboard", pattern=PATTERN, given={"dataset": "d"}).values()
    history = json.loads((folder / "history.txt").read_text())
    np.testing.assert_allclose(log.history["val_loss"][1:], history["val_loss"], rtol=1e-6)
    np.testing.assert_allclose(log.history["val_accuracy"][1:], history["val_accuracy"], rtol=1e-6)
    np.testing.assert_allclose(log.history["batch_loss"][1:], history["loss"], rtol=1e-6)


def test_two_runs_in_one_folder_of_tensorboard_are_refused(tmp_path):
    for path in (GOLDEN / "tensorboard").rglob("*tfevents*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(LogError, match="are they two runs"):
        read(tmp_path, given={"dataset": "d", "optimizer": "o", "seed": "0"})


def test_event_files_that_are_cut_or_damaged(tmp_path):
    (path, *_) = (GOLDEN / "tensorboard").rglob("*tfevents*")
    given = {"dataset": "d", "optimizer": "o", "seed": "0"}
    raw = path.read_bytes()
    (tmp_path / path.name).write_bytes(raw[:-10])
    (log,) = read(tmp_path, given=given).values()
    assert any("cut short" in note for note in log.notes)
    assert log.unfinished == {"val_loss"}
    (tmp_path / path.name).write_bytes(raw[:100] + bytes([raw[100] ^ 1]) + raw[101:])
    with pytest.raises(LogError, match="a damaged event file"):
        read(tmp_path, given=given)


@pytest.mark.parametrize(("folder", "kind"), [("keras", "keras"), ("keras_history", "keras-history")])
def test_logs_and_histories_of_keras(folder, kind):
    found = read(GOLDEN / folder, kind, pattern="{optimizer}-{seed}.*", given={"dataset": "d"})
    other = read(GOLDEN / "keras", pattern="{optimizer}-{seed}.*", given={"dataset": "d"})
    for key, log in found.items():
        for metric in ("val_loss", "val_accuracy", "batch_loss"):
            np.testing.assert_allclose(log.history[metric][1:], other[key].history[metric][1:], rtol=1e-6)
    assert len(found) == (4 if kind == "keras" else 2)


def test_metrics_of_lightning():
    found = read(GOLDEN / "lightning", "keras", pattern="{optimizer}/seed{seed}", given={"dataset": "d"})
    assert sorted(found) == [("adam", 0), ("sgd", 0)]
    log = found["adam", 0]
    assert np.isfinite(log.history["val_accuracy"][1:4]).all()
    assert set(log.metrics) == {"test_loss", "test_accuracy"}
    assert sorted(read(GOLDEN / "lightning", given={"dataset": "d"})) == sorted(found)  # by its hparams.yaml
    assert not log.unfinished
    assert any("several values an epoch" in note for note in log.notes)


def test_the_state_of_a_trainer_of_hugging_face():
    found = read(GOLDEN / "huggingface", "huggingface", pattern=PATTERN, given={"dataset": "d"})
    assert sorted(found) == [("adam", 0), ("sgd", 0)]
    state = json.loads((GOLDEN / "huggingface" / "adam-0" / "trainer_state.json").read_text())
    evaluated = [row for row in state["log_history"] if "eval_loss" in row]
    log = found["adam", 0]
    np.testing.assert_array_equal(log.history["val_loss"][1:], [row["eval_loss"] for row in evaluated])
    assert log.ends["val_accuracy"] == evaluated[-1]["eval_accuracy"]
    assert "train_loss" not in log.ends


def deepobs(folder, optimizer, seed, *, old=True):
    content = {
        "train_losses": [2.3, 1.0, 0.5],
        "test_losses": [2.3, 1.1, 0.6],
        "minibatch_train_losses": [2.3] * 5,
        "train_accuracies": [0.1, 0.6, 0.8],
        "test_accuracies": [0.1, 0.5, 0.7 + seed / 100],
    }
    if old:
        content |= {
            "optimizer": optimizer,
            "testproblem": "mnist_mlp",
            "learning_rate": 0.01,
            "random_seed": seed,
        }
        content["hyperparams"] = {"momentum": 0.9}
    else:
        content |= {"valid_losses": [2.3, 1.1, 0.6], "valid_accuracies": [0.1, 0.5, 0.7], "random_seed": seed}
        content |= {
            "optimizer_name": optimizer,
            "optimizer_hyperparams": {"lr": 0.01},
            "testproblem": "mnist_mlp",
        }
    path = (
        folder / "mnist_mlp" / optimizer / "num_epochs__2" / f"random_seed__{seed}__2026-01-01-10-00-00.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("old", [True, False])
def test_results_of_deepobs(tmp_path, old):
    for optimizer, seed in RUNS:
        deepobs(tmp_path, optimizer, seed, old=old)
    found = read(tmp_path, "deepobs")
    assert sorted(found) == sorted(RUNS)
    log = found["sgd", 1]
    assert (log.dataset, log.lr) == ("mnist_mlp", 0.01)
    assert log.history["train_loss"].tolist() == [2.3, 1.0, 0.5]
    assert log.metrics["test_accuracy"] == 0.71


def algoperf(folder, optimizer, study, trial=1, both=True):
    place = folder / optimizer / f"study_{study}" / "ogbg_jax" / f"trial_{trial}"
    place.mkdir(parents=True)
    rows = [(1, 0.7, 0.50), (740, 0.08, 0.98), (1486, 0.06, 0.983 + study / 1000)]
    head = "accumulated_submission_time,global_step,preemption_count,score,test/accuracy,test/num_examples,"
    lines = [head + "train/loss,validation/accuracy,validation/loss"]
    lines += [f"{s / 3:.2f},{s},0,{s / 3:.2f},{a},43793,{x},{a},{x}" for s, x, a in rows]
    (place / "eval_measurements.csv").write_text("\n".join(lines) + "\n")
    if both:
        steps = [f"{s},0.3,{1 / (s + 1):.4f},," for s in (0, 100, 200)]
        (place / "measurements.csv").write_text("\n".join(["global_step,grad_norm,loss,a,b", *steps]) + "\n")


def test_measurements_of_algoperf(tmp_path):
    for optimizer, seed in RUNS:
        algoperf(tmp_path, optimizer, seed)
    found = read(tmp_path, "algoperf")
    assert sorted(found) == sorted(RUNS)
    log = found["adam", 1]
    assert (log.dataset, log.backend) == ("ogbg", "jax")
    assert log.history["val_accuracy"][1:].tolist() == [0.5, 0.98, 0.984]
    assert log.metrics == {"test_accuracy": 0.984}
    algoperf(tmp_path, "adam", 0, trial=2)
    with pytest.raises(LogError, match="2 trials, which are settings tried out"):
        read(tmp_path)
    assert sorted(read(tmp_path, pattern="{optimizer}/study_{seed}/{dataset}_*/trial_1")) == sorted(RUNS)


def test_downloads_of_tensorboard(tmp_path):
    for optimizer, seed in RUNS:
        for tag, rule in (("epoch_accuracy", accuracy), ("epoch_loss", loss)):
            rows = [f"17000000{e}.5,{e},{rule(optimizer, seed, e)}" for e in range(3)]
            path = tmp_path / f"run-{optimizer}-{seed}_validation-tag-{tag}.csv"
            path.write_text("\n".join(["Wall time,Step,Value", *rows]) + "\n")
    same_curves(read(tmp_path, "tensorboard-csv", pattern=PATTERN, given={"dataset": "d"}), RUNS)


def chart(mean=False):
    names = ["Step"]
    for optimizer, seed in RUNS:
        name = f"{optimizer}-{seed} - val_accuracy"
        names += [name, f"{name}__MIN", f"{name}__MAX"]
    rows = [
        [str(e)]
        + [repr(accuracy(o, s, e) + extra) for o, s in RUNS for extra in (0, -0.1 * mean, 0.1 * mean)]
        for e in range(3)
    ]
    return "\n".join(",".join(f'"{cell}"' for cell in row) for row in [names, *rows]) + "\n"


def test_the_history_of_a_chart_of_wandb(tmp_path):
    path = tmp_path / "wandb_export.csv"
    path.write_text(chart())
    found = read(path, "wandb-history", pattern=PATTERN, given={"dataset": "d"})
    assert sorted(found) == sorted(RUNS)
    assert found["adam", 1].history["val_accuracy"][1:].tolist() == [accuracy("adam", 1, e) for e in range(3)]
    path.write_text(chart(mean=True))
    with pytest.raises(LogError, match="a mean over runs or steps"):
        read(path, pattern=PATTERN, given={"dataset": "d"})


LINES = {
    "step:{e}00/300 val_loss:{x} train_time:1000ms step_avg:10.1ms": {},
    "step={e}00 | val_loss={x} | lr=1e-3": {},
    "Epoch {e}/3 - loss: 9.9 - val_loss: {x} - val_accuracy: {a}": {},
    "[Epoch {e}] validation loss: {x}, validation accuracy: {a}": {},
    "epoch {e}: train loss = 1.5, val loss = {x} (3.2 s)": {},
    "2026-01-01 10:00:00,123 INFO iter {e}00, Val_Loss: {x}": {},
    "step {e}00: train loss 1.5, val loss {x}": {},
    "iter {e}00: loss 9.9, val_loss {x}, time 3.2ms": {},
    '{{"epoch": {e}, "val_loss": {x}, "lr": 0.1}}': {},
    "Epoch {e}: val_loss: {x}, best val_loss: 0.1": {},
    "Epoch {e}: val_loss {x} (best 0.1) Val Acc@1 {a}": {},
    "E{e} {x} {a}": {"line": "E{epoch} {val_loss} {val_accuracy}"},
    "at {e}00 of 300, held out {x} nats": {"line": "at {step} of * held out {val_loss}"},
}


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("suffix", [".txt", ".log", ".jsonl"])
def test_lines_of_a_plain_text_log(tmp_path, form, suffix):
    for optimizer, seed in RUNS:
        rows = [
            form.format(e=e + 1, x=loss(optimizer, seed, e), a=accuracy(optimizer, seed, e)) for e in range(3)
        ]
        path = tmp_path / optimizer / f"seed{seed}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["starting", *rows, "done"]) + "\n")
    options = {"pattern": "{optimizer}/seed{seed}.*", "given": {"dataset": "d"}, **LINES[form]}
    if "line" in options:
        naming = Naming(**options, kind="text")
        found = {(r.optimizer, r.seed): r for r in logs.read([tmp_path], naming)}
    else:
        found = read(tmp_path, "text", **options)
    assert sorted(found) == sorted(RUNS)
    for (optimizer, seed), log in found.items():
        wanted = [loss(optimizer, seed, e) for e in range(3)]
        np.testing.assert_allclose(log.history["val_loss"][1:], wanted)


def test_a_text_without_steps_is_asked_about(tmp_path):
    for name in ("a.log", "b.txt"):
        path = tmp_path / name
        path.write_text("starting\ndone, 3 of 4\n")
        with pytest.raises(LogError, match="say what a line looks like, as in --line"):
            read(path, given={"dataset": "d", "optimizer": "o", "seed": "0"})
    with pytest.raises(LogError, match=r"found no table or log.*with --line"):
        read(tmp_path, given={"dataset": "d", "optimizer": "o", "seed": "0"})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda lists: {"history": lists, "params": {"epochs": 3}, "epoch": [0, 1, 2]},
        lambda lists: {"params": {"epochs": 3}, "history": lists},
        lambda lists: {name: {str(e): v for e, v in enumerate(values)} for name, values in lists.items()},
    ],
)
def test_other_ways_in_which_people_save_a_history(tmp_path, wrap):
    lists = {"val_loss": [loss("adam", 0, e) for e in range(3)], "loss": [1.0, 0.5, 0.2]}
    (tmp_path / "h.json").write_text(json.dumps(wrap(lists)))
    (log,) = read(tmp_path, "keras-history", given={"dataset": "d", "optimizer": "o", "seed": "0"}).values()
    assert log.history["val_loss"][1:].tolist() == lists["val_loss"]


def test_a_download_of_a_chart_has_the_runs_of_a_table_where_a_pattern_tells_them_apart(tmp_path):
    path = tmp_path / "wandb_export.csv"
    path.write_text(chart())
    result = compare_file(path, naming=Naming(pattern=PATTERN))
    assert result.input.optimizers == ("adam", "sgd")
    with pytest.raises(UserError, match="optbench import"):
        compare_file(path)


def test_one_text_log_appended_to_another_is_refused(tmp_path):
    rows = [f"step:{s} val_loss:{1 / s}" for s in (100, 200, 300)]
    (tmp_path / "a.log").write_text("\n".join(rows * 2) + "\n")
    with pytest.raises(LogError, match="two runs"):
        read(tmp_path, given={"dataset": "d", "optimizer": "o", "seed": "0"})


@pytest.mark.parametrize("again", ["epoch,val_loss\n0,1\n1,.5\n", "0,1\n1,.5\n", "1,.4\n2,.3\n"])
def test_one_csv_log_appended_to_another_is_refused(tmp_path, again):
    (tmp_path / "a.csv").write_text("epoch,val_loss\n0,1\n1,.5\n" + again)
    with pytest.raises(LogError, match="two runs"):
        read(tmp_path, given={"dataset": "d", "optimizer": "o", "seed": "0"})


def test_a_table_of_benchopt():
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = GOLDEN / "benchopt" / "runs.parquet"
    found = read(path, "table")
    assert sorted(found) == sorted(RUNS)
    assert found["sgd", 1].metrics["val_objective_value"] == pytest.approx((4 * 0.8**4) ** 2)
    assert found["adam", 0].dataset == "simulated"
    result = compare_file(path, baseline="adam")
    assert (result.input.metric, result.input.maximise) == ("objective_value", False)
    assert result.within[0].comparisons[0].mean.estimate == pytest.approx(0.0625 - (4 * 0.8**4) ** 2)


def test_every_format_is_documented_and_tested():
    page = Path(__file__).parents[3] / "docs" / "howto" / "import.md"
    tests = Path(__file__).read_text("utf-8")
    for name, one in FORMATS.items():
        assert f"`{name}`" in page.read_text("utf-8"), name
        assert f'"{name}"' in tests, name
        assert one.title


def test_a_dry_run_shows_what_was_understood_and_writes_nothing(tmp_path):
    folder = tmp_path / "logs"
    shutil.copytree(GOLDEN / "keras", folder)
    (folder / "plot.png").write_bytes(b"\x89PNG")
    words = ["import", str(folder), "--pattern", "{optimizer}-{seed}.csv", "--dataset", "d", "--dry-run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for part in (
        "4 of format keras",
        "Runs: 4, of which 4 completed",
        "Optimizers: adam (2 runs), sgd (2 runs)",
        "Seeds: 0, 1",
        "val_accuracy: larger is better, 4 of 4 runs have a last value: tested by the report",
        "val_loss: smaller is better",
        "Left out: accuracy",
        "1 other files are left out (1 .png)",
    ):
        assert part in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["logs"]
    assert "--out (-o) is missing" in CliRunner().invoke(app, words[:-1]).output
