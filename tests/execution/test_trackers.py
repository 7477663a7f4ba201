from __future__ import annotations

import subprocess
import sys

import pytest

import optbench
from optbench.errors import UserError
from optbench.execution import trackers

pytest.importorskip("torch", reason="trials are trained with PyTorch")


def run(write_suite, results, *names):
    path = write_suite(
        ("seeds: 2", "seeds: 1"), ("  wame: {lr: 0.05}\n", ""), ("baseline: wame", "alpha: 0.05")
    )
    outcome = optbench.run(path, results=results, log=names)
    trials = optbench.load_results(outcome.store)
    return trials.trials.iloc[0], trials.epochs


def test_tensorboard_holds_what_the_store_holds(write_suite, tmp_path):
    pytest.importorskip("tensorboard", reason="needs optbench[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trial, epochs = run(write_suite, tmp_path, "tensorboard")
    (file,) = (tmp_path / "tiny" / "tensorboard").rglob("events.*")
    read = EventAccumulator(str(file)).Reload()
    losses = [event.value for event in read.Scalars("train_loss")]
    assert losses == pytest.approx(list(epochs["train_loss"]), rel=1e-6)
    assert [event.step for event in read.Scalars("train_loss")] == [0, 1, 2]
    assert read.Scalars("final/test_accuracy")[0].value == pytest.approx(trial["test_accuracy"], rel=1e-6)


def test_mlflow_holds_what_the_store_holds(write_suite, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs optbench[mlflow]")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    trial, epochs = run(write_suite, tmp_path, "mlflow")
    client = MlflowClient(tracking_uri=(tmp_path / "tiny" / "mlflow").as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    history = client.get_metric_history(found.info.run_id, "val_loss")
    assert {m.step: m.value for m in history} == dict(zip(epochs["epoch"], epochs["val_loss"], strict=True))
    assert found.data.params["trial_id"] == trial["trial_id"]
    assert float(found.data.params["optimizer.lr"]) == trial["lr"]
    assert found.data.metrics["final/test_accuracy"] == trial["test_accuracy"]
    assert found.info.status == "FINISHED"


def offline_records(raw):
    """Records of an offline run: LevelDB's log format behind a header of 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(raw):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(raw[place + 4 : place + 6], "little"), raw[place + 6]
        parts += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or last part
            yield parts
            parts = b""


def test_wandb_holds_what_the_store_holds(write_suite, tmp_path):
    pytest.importorskip("wandb", reason="needs optbench[wandb]")
    from wandb.proto.wandb_internal_pb2 import Record

    trial, epochs = run(write_suite, tmp_path, "wandb")
    (file,) = (tmp_path / "tiny" / "wandb").rglob("*.wandb")
    rows, config, summary = [], {}, {}
    for data in offline_records(file.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            rows.append({item.key or item.nested_key[0]: item.value_json for item in record.history.item})
        for item in record.run.config.update if kind == "run" else ():
            config[item.key] = item.value_json
        for item in record.summary.update if kind == "summary" else ():
            summary[item.key or ".".join(item.nested_key)] = item.value_json
    assert [float(row["train_loss"]) for row in rows] == list(epochs["train_loss"])
    assert trial["trial_id"] in config["trial_id"]
    assert float(summary["final/test_accuracy"]) == trial["test_accuracy"]


def test_a_tracker_that_fails_costs_one_warning_and_no_trial(write_suite, tmp_path, monkeypatch):
    class Broken:
        def __init__(self, suite, folder):
            self.calls = 0

        def log(self, trial):
            raise OSError("no space left")

    monkeypatch.setattr(trackers, "TRACKERS", {"broken": Broken})
    with pytest.warns(UserWarning, match="--log broken: failed at trial .*no space left") as caught:
        outcome = optbench.run(write_suite(), results=tmp_path, log=["broken"])
    assert outcome.completed == 4
    assert len([w for w in caught if "--log" in str(w.message)]) == 1


def test_an_unknown_or_missing_tracker_stops_before_anything_is_trained(write_suite, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="Did you mean 'mlflow'"):
        optbench.run(write_suite(), results=tmp_path / "out", log=["mflow"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install .*\[wandb\]"):
        optbench.run(write_suite(), results=tmp_path / "out", log=["wandb"])
    assert not (tmp_path / "out").exists()


def test_no_tracker_is_imported_unless_asked_for(write_suite, tmp_path):
    code = (
        "import sys, optbench; optbench.run(sys.argv[1], results=sys.argv[2]);"
        "print(sorted({'tensorboard', 'mlflow', 'wandb', 'optbench.execution.trackers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, write_suite(), tmp_path], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_label_does_not_lead_out_of_the_folder(write_suite, tmp_path):
    pytest.importorskip("tensorboard", reason="needs optbench[tensorboard]")
    name = ("- dataset: digits", "- name: ../../../out\n    dataset: digits")
    path = write_suite(name, ("seeds: 2", "seeds: 1"))
    optbench.run(path, results=tmp_path / "deep" / "results", log=["tensorboard"])
    inside = tmp_path / "deep" / "results" / "tiny" / "tensorboard"
    events = set(tmp_path.rglob("events.out.*"))
    assert events
    assert events == set(inside.rglob("events.out.*"))
