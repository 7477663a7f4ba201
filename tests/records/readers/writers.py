"""The same results in every shape: each writer makes files of one format, and says how to read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tests.records.readers.binary_writers import Results, optuna_study, tensorboard, wandb_offline


def rows(results: Results) -> list[tuple[Any, ...]]:
    return [(d, o, s, repr(v)) for (d, o, s), v in results.items()]


def _write(
    path: Path, names: list[str], lines: list[tuple[Any, ...]], sep: str = ",", encoding: str = "utf-8"
) -> Path:
    text = "\n".join([sep.join(names), *(sep.join(map(str, line)) for line in lines)]) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


LONG = ["dataset", "optimizer", "seed", "val_accuracy"]


def long_table(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    return _write(folder / "long.csv", LONG, rows(results)), {}


def shuffled_with_index(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    frame = pd.DataFrame(rows(results), columns=LONG).sample(frac=1, random_state=0).reset_index(drop=True)
    frame.to_csv(folder / "pandas.csv")
    return folder / "pandas.csv", {}


def european(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = [(d, o, s, v.replace(".", ",")) for d, o, s, v in rows(results)]
    return _write(folder / "eu.csv", LONG, lines, ";", "utf-16"), {}


def mlflow_table(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    names = ["run_id", "status", "params.dataset", "params.optimizer", "params.seed", "metrics.val_accuracy"]
    return _write(
        folder / "runs.csv", names, [(f"id{k}", "FINISHED", *r) for k, r in enumerate(rows(results))]
    ), {}


def wandb_table(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    names = ["Name", "State", "Notes", *LONG[:3], "lr", "val_accuracy"]
    lines = [(f"run {k}", "finished", "-", *r[:3], 0.1, r[3]) for k, r in enumerate(rows(results))]
    return _write(folder / "wandb.csv", names, lines), {}


def epoch_table(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = [(*r[:3], e, r[3] if e == 2 else "0.5") for r in rows(results) for e in (1, 2)]
    return _write(folder / "epochs.csv", [*LONG[:3], "epoch", "val_accuracy"], lines), {}


PATTERN = {"pattern": "{dataset}/{optimizer}/seed{seed}*"}


def _each(
    results: Results, folder: Path, name: str, write: Callable[[Path, str, dict[str, Any]], None]
) -> Path:
    for d, o, s, v in rows(results):
        path = folder / name / d / o / f"seed{s}"
        path.mkdir(parents=True)
        write(path, v, {"dataset": d, "optimizer": o, "seed": s})
    return folder / name


def keras(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    def one(path: Path, value: str, facts: dict[str, Any]) -> None:
        _write(path / "log.csv", ["epoch", "loss", "val_accuracy"], [(0, 1.0, 0.5), (1, 0.5, value)])

    return _each(results, folder, "keras", one), PATTERN


def keras_history(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    def one(path: Path, value: str, facts: dict[str, Any]) -> None:
        (path / "history.json").write_text(
            json.dumps({"loss": [1.0, 0.5], "val_accuracy": [0.5, float(value)]})
        )

    return _each(results, folder, "history", one), PATTERN


def lightning(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    def one(path: Path, value: str, facts: dict[str, Any]) -> None:
        lines = [(0, 9, 1.0, ""), (0, 9, "", 0.5), (1, 19, 0.5, ""), (1, 19, "", value)]
        _write(path / "metrics.csv", ["epoch", "step", "train_loss", "val_acc"], lines)

    return _each(results, folder, "lightning", one), PATTERN


def huggingface(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    def one(path: Path, value: str, facts: dict[str, Any]) -> None:
        log = [
            {"epoch": 0.5, "step": 5, "loss": 1.0},
            {"epoch": 1.0, "step": 10, "eval_accuracy": float(value)},
        ]
        (path / "trainer_state.json").write_text(json.dumps({"log_history": log}))

    return _each(results, folder, "hf", one), PATTERN


def text_log(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    def one(path: Path, value: str, facts: dict[str, Any]) -> None:
        (path / "train.log").write_text(f"step:100/200 val_accuracy:0.5\nstep:200/200 val_accuracy:{value}\n")

    return _each(results, folder, "text", one), PATTERN


def mlflow_store(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    def one(path: Path, value: str, facts: dict[str, Any]) -> None:
        for part in ("params", "metrics"):
            (path / part).mkdir()
        for name, fact in facts.items():
            (path / "params" / name).write_text(str(fact))
        (path / "metrics" / "val_accuracy").write_text(f"1 0.5 0\n2 {value} 1\n")
        (path / "meta.yaml").write_text("run_id: x\nstatus: 3\n")

    return _each(results, folder, "mlruns", one), {}


def deepobs(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    def one(path: Path, value: str, facts: dict[str, Any]) -> None:
        content = {"train_losses": [1.0, 0.5], "valid_accuracies": [0.5, float(value)]}
        content |= {"optimizer_name": facts["optimizer"], "testproblem": facts["dataset"]}
        content["random_seed"] = facts["seed"]
        (path / f"random_seed__{facts['seed']}__x.json").write_text(json.dumps(content))

    return _each(results, folder, "deepobs", one), {}


def algoperf(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    for d, o, s, v in rows(results):
        path = folder / "algoperf" / o / f"study_{s}" / f"{d}_jax" / "trial_1" / "eval_measurements.csv"
        _write(path, ["global_step", "score", "validation/accuracy"], [(1, 1, 0.5), (100, 2, v)])
    return folder / "algoperf", {}


def chart_of_wandb(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    runs = {f"{d}/{o}/seed{s}": v for d, o, s, v in rows(results)}
    names = ["Step", *(f"{run} - val_accuracy{x}" for run in runs for x in ("", "__MIN", "__MAX"))]
    lines = [(1, *(0.5 for _ in names[1:])), (2, *(v for v in runs.values() for _ in range(3)))]
    return _write(folder / "chart" / "export.csv", names, lines).parent, PATTERN


def optuna_table(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    names = ["number", "value", "state", "user_attrs_dataset", "user_attrs_optimizer", "user_attrs_seed"]
    lines = [(k, v, "COMPLETE", d, o, s) for k, (d, o, s, v) in enumerate(rows(results))]
    return _write(folder / "trials.csv", names, lines), {"names": {"value": "val_accuracy"}}


def downloads_of_tensorboard(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    for d, o, s, v in rows(results):
        path = folder / "scalars" / f"run-{d}_{o}_{s}-tag-val_accuracy.csv"
        _write(path, ["Wall time", "Step", "Value"], [(1.5, 1, 0.5), (2.5, 2, v)])
    return folder / "scalars", {"pattern": "{dataset}_{optimizer}_{seed}"}


def benchopt(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    names = ["solver_name", "data_name", "idx_rep", "stop_val", "objective_val_accuracy"]
    lines = [(o, d, s, k, v if k == 2 else "0.5") for d, o, s, v in rows(results) for k in (1, 2)]
    path = _write(folder / "benchopt.csv", names, lines)
    return path, {"names": {"objective_val_accuracy": "val_accuracy"}}


#: Format that the documentation lists, by the writer of its fixture.
WRITERS: Mapping[Callable[[Results, Path], tuple[Path, dict[str, Any]]], str] = {
    long_table: "table",
    shuffled_with_index: "table, shuffled, with an index",
    european: "table, UTF-16, decimal commas",
    epoch_table: "table, a row an epoch",
    wandb_table: "table of wandb's runs",
    mlflow_table: "table of MLflow's search_runs",
    optuna_table: "table of Optuna's trials",
    benchopt: "table of benchopt",
    keras: "keras (CSVLogger)",
    lightning: "keras (Lightning's metrics.csv)",
    keras_history: "keras-history",
    huggingface: "huggingface",
    tensorboard: "tensorboard",
    downloads_of_tensorboard: "tensorboard-csv",
    wandb_offline: "wandb",
    chart_of_wandb: "wandb-history",
    mlflow_store: "mlflow",
    optuna_study: "optuna",
    deepobs: "deepobs",
    algoperf: "algoperf",
    text_log: "text",
}
