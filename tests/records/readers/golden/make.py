"""Make the golden files of this folder with the tools themselves: ``python make.py NAME ...``.

The tests read what lies here and need none of the tools. Each function needs its own: pip install keras
tensorflow, lightning, transformers accelerate, tensorboard, wandb, mlflow, optuna, pyarrow.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = [(optimizer, seed) for optimizer in ("adam", "sgd") for seed in (0, 1)]
EPOCHS = range(3)


def accuracy(optimizer: str, seed: int, epoch: int) -> float:
    return {"adam": 0.5, "sgd": 0.4}[optimizer] + 0.1 * epoch + 0.01 * seed


def loss(optimizer: str, seed: int, epoch: int) -> float:
    return 1.0 - accuracy(optimizer, seed, epoch)


def keras(out: Path) -> None:
    import keras as k
    import numpy as np

    x, y = np.random.default_rng(0).normal(size=(32, 4)).astype("float32"), np.arange(32) % 2
    for optimizer, seed in RUNS:
        k.utils.set_random_seed(seed)
        model = k.Sequential([k.layers.Dense(2, activation="softmax")])
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        logger = k.callbacks.CSVLogger(out / f"{optimizer}-{seed}.csv")
        history = model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[logger], verbose=0).history
        if seed == 0:
            (out.parent / "keras_history").mkdir(exist_ok=True)
            (out.parent / "keras_history" / f"{optimizer}-{seed}.json").write_text(json.dumps(history))


def lightning(out: Path) -> None:
    import lightning as L
    import torch
    from lightning.pytorch.loggers import CSVLogger

    class Model(L.LightningModule):
        def __init__(self, optimizer, seed):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(4, 2)

        def _step(self, batch, part):
            x, y = batch
            out_ = self.layer(x)
            value = torch.nn.functional.cross_entropy(out_, y)
            self.log(f"{part}_loss", value)
            if part != "train":
                self.log(f"{part}_acc", (out_.argmax(1) == y).float().mean())
            return value

        def training_step(self, batch, index):
            return self._step(batch, "train")

        def validation_step(self, batch, index):
            return self._step(batch, "val")

        def test_step(self, batch, index):
            return self._step(batch, "test")

        def configure_optimizers(self):
            kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.hparams.optimizer]
            return kind(self.parameters(), lr=0.1)

    x, y = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 2
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    for optimizer, seed in RUNS[::2]:
        L.seed_everything(seed)
        logger = CSVLogger(out, name=optimizer, version=f"seed{seed}")
        trainer = L.Trainer(
            max_epochs=3,
            logger=logger,
            log_every_n_steps=2,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        model = Model(optimizer, seed)
        trainer.fit(model, data, data)
        trainer.test(model, data, verbose=False)


def huggingface(out: Path) -> None:
    import numpy as np
    import torch
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x, labels):
            logits = self.layer(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    rows = [{"x": torch.randn(4), "labels": torch.tensor(i % 2)} for i in range(32)]
    for optimizer, seed in RUNS[::2]:
        arguments = TrainingArguments(
            output_dir=str(out / f"{optimizer}-{seed}"),
            num_train_epochs=3,
            seed=seed,
            eval_strategy="epoch",
            logging_steps=2,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            optim={"adam": "adamw_torch", "sgd": "sgd"}[optimizer],
        )
        trainer = Trainer(
            Model(),
            arguments,
            train_dataset=rows,
            eval_dataset=rows,
            compute_metrics=lambda p: {
                "accuracy": float((np.argmax(p.predictions, 1) == p.label_ids).mean())
            },
        )
        trainer.train()
        trainer.state.save_to_json(str(out / f"{optimizer}-{seed}" / "trainer_state.json"))


def tensorboard(out: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for optimizer, seed in RUNS[::2]:
        with SummaryWriter(out / f"{optimizer}-{seed}") as writer:
            for epoch in EPOCHS:
                writer.add_scalar("Accuracy/val", accuracy(optimizer, seed, epoch), epoch)
                writer.add_scalar("Loss/val", loss(optimizer, seed, epoch), epoch)


def tensorboard_keras(out: Path) -> None:
    import keras as k
    import numpy as np

    x, y = np.random.default_rng(0).normal(size=(32, 4)).astype("float32"), np.arange(32) % 2
    k.utils.set_random_seed(0)
    model = k.Sequential([k.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    board = k.callbacks.TensorBoard(out / "adam-0", write_graph=False)
    history = model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[board], verbose=0).history
    (out / "history.txt").write_text(json.dumps(history))


def wandb(out: Path) -> None:
    os.environ |= {"WANDB_MODE": "offline", "WANDB_DISABLE_GIT": "true", "WANDB_SILENT": "true"}
    import wandb as w

    out.mkdir(parents=True)
    for optimizer, seed in RUNS:
        config = {"optimizer": optimizer, "seed": seed, "dataset": "mnist", "lr": 0.001}
        run = w.init(
            project="p",
            dir=out,
            name=f"{optimizer}-{seed}",
            config=config,
            settings=w.Settings(x_disable_stats=True, x_disable_meta=True),
        )
        for epoch in EPOCHS:
            run.log(
                {
                    "epoch": epoch,
                    "val/accuracy": accuracy(optimizer, seed, epoch),
                    "val/loss": loss(optimizer, seed, epoch),
                }
            )
        run.finish(exit_code=1 if (optimizer, seed) == ("sgd", 1) else 0)
    for path in out.rglob("*"):
        if (path.is_file() and path.suffix != ".wandb") or path.is_symlink():
            path.unlink()


def mlflow(out: Path) -> None:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow as m

    m.set_tracking_uri((out / "mlruns").as_uri())
    m.set_experiment("mnist")
    for optimizer, seed in RUNS:
        with m.start_run(run_name=f"{optimizer}-{seed}") as run:
            m.log_params({"optimizer": optimizer, "seed": seed, "dataset": "mnist", "lr": 0.001})
            for epoch in EPOCHS:
                m.log_metric("val_accuracy", accuracy(optimizer, seed, epoch), step=epoch)
                m.log_metric("val_loss", loss(optimizer, seed, epoch), step=epoch)
        if (optimizer, seed) == ("sgd", 1):
            m.tracking.MlflowClient().set_terminated(run.info.run_id, "FAILED")
    runs = m.search_runs()
    runs.drop(columns=[c for c in runs if "source" in c or "user" in c]).to_csv(out / "runs.csv")
    place = (out / "mlruns").as_uri()
    for path in [*out.rglob("meta.yaml"), out / "runs.csv"]:
        path.write_text(path.read_text().replace(place, "file:///home/me/mlruns"))
    for path in out.rglob("mlflow.*"):
        if path.name != "mlflow.runName":
            path.unlink()
    for folder in [*out.rglob("artifacts"), *out.rglob(".trash"), *out.rglob("models")]:
        shutil.rmtree(folder, ignore_errors=True)


def optuna(out: Path) -> None:
    import optuna as o

    out.mkdir(parents=True)
    o.logging.set_verbosity(o.logging.ERROR)
    study = o.create_study(storage=f"sqlite:///{out / 'study.db'}", study_name="mnist", direction="maximize")
    study.set_metric_names(["val_accuracy"])

    def objective(trial):
        optimizer = trial.suggest_categorical("optimizer", ["adam", "sgd"])
        seed = trial.suggest_int("seed", 0, 9)
        trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        if (optimizer, seed) == ("sgd", 1):
            raise o.TrialPruned
        return accuracy(optimizer, seed, 2)

    for optimizer, seed in RUNS:
        study.enqueue_trial({"optimizer": optimizer, "seed": seed, "lr": 0.001})
    study.optimize(objective, n_trials=len(RUNS))
    study.trials_dataframe().to_csv(out / "trials.csv")


def benchopt(out: Path) -> None:
    import subprocess
    import tempfile

    bench = Path(tempfile.mkdtemp()) / "benchmark_tiny"
    for name in ("datasets", "solvers"):
        (bench / name).mkdir(parents=True)
    (bench / "objective.py").write_text(
        "from benchopt import BaseObjective\n"
        "class Objective(BaseObjective):\n"
        "    name = 'tiny'\n"
        "    def set_data(self, start): self.start = start\n"
        "    def get_one_result(self): return {'x': self.start}\n"
        "    def evaluate_result(self, x): return x * x\n"
        "    def get_objective(self): return {'start': self.start}\n"
    )
    (bench / "datasets" / "simulated.py").write_text(
        "from benchopt import BaseDataset\n"
        "class Dataset(BaseDataset):\n"
        "    name = 'simulated'\n"
        "    def get_data(self): return {'start': 4.0}\n"
    )
    for name, factor in (("adam", 0.5), ("sgd", 0.8)):
        (bench / "solvers" / f"{name}.py").write_text(
            "from benchopt import BaseSolver\n"
            "class Solver(BaseSolver):\n"
            f"    name = '{name}'\n"
            "    sampling_strategy = 'iteration'\n"
            "    def set_objective(self, start): self.start = start\n"
            f"    def run(self, n_iter): self.x = self.start * {factor} ** n_iter\n"
            "    def get_result(self): return {'x': self.x}\n"
        )
    tool = Path(sys.executable).with_name("benchopt")
    subprocess.run([tool, "run", bench, "-r", "2", "-n", "4", "--no-plot", "--output", "runs"], check=True)
    (path,) = (bench / "outputs").glob("*.parquet")
    shutil.copy(path, out / "runs.parquet")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if name not in ("wandb", "optuna"):
            folder.mkdir()
        globals()[name](folder)
