"""What docs/howto/import.md shows is what the commands print, on shapes of AlgoPerf, DeepOBS and wandb."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optbench.cli import app
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "howto" / "import.md"


def noise(seed, size):
    """Numbers between 0 and a size, by the seed."""
    return size * (7 * seed % 5) / 4 + size * (3 * seed % 7) / 30


def keras(folder):
    """Twelve logs of CSVLogger, one without its last validation cells."""
    for optimizer, level in (("adam", 0.90), ("sgd", 0.91)):
        for seed in range(6):
            lines = ["epoch,accuracy,loss,val_accuracy,val_loss"]
            for epoch in range(3):
                top = level + noise(seed, 0.004) - 0.1 / (epoch + 1)
                lines.append(f"{epoch},{top + 0.01:.4f},{0.9 - top:.4f},{top:.4f},{1 - top:.4f}")
            if (optimizer, seed) == ("sgd", 5):
                lines[-1] = ",".join([*lines[-1].split(",")[:3], "", ""])
            path = folder / "logs" / "mnist" / f"{optimizer}-{seed}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")


def algoperf(folder):
    """Six studies of two submissions on one workload."""
    head = "accumulated_submission_time,global_step,preemption_count,score,test/accuracy,test/num_examples,"
    for optimizer, level in (("adamw", 0.270), ("shampoo", 0.284)):
        for study in range(6):
            lines = [head + "validation/accuracy,validation/loss"]
            for step in (1, 740, 1486):
                part = step / 1486
                test = part * (level + noise(study if optimizer == "adamw" else study + 2, 0.009))
                cells = (f"{step / 3:.2f}", step, 0, f"{step / 3:.2f}", f"{test:.4f}", 43793)
                lines.append(",".join(map(str, (*cells, f"{test + 0.004:.4f}", f"{0.07 - 0.02 * part:.4f}"))))
            path = folder / "algoperf" / optimizer / f"study_{study}" / "ogbg_jax" / "trial_1"
            path.mkdir(parents=True)
            (path / "eval_measurements.csv").write_text("\n".join(lines) + "\n")


def deepobs(folder):
    """Eight seeds of two optimizers on one test problem."""
    for optimizer, level in (("MomentumOptimizer", 0.921), ("AdamOptimizer", 0.916)):
        for seed in range(42, 50):
            top = level + noise(seed if optimizer == "MomentumOptimizer" else seed + 3, 0.003)
            content = {
                "train_losses": [2.30, 0.31, 0.24],
                "test_losses": [2.30, 0.33, 0.29],
                "minibatch_train_losses": [2.3, 0.3],
                "train_accuracies": [0.1, 0.91, 0.93],
                "test_accuracies": [0.1, 0.90, round(top, 4)],
                "optimizer": optimizer,
                "testproblem": "fmnist_2c2d",
                "random_seed": seed,
            }
            path = folder / "deepobs" / "fmnist_2c2d" / optimizer / "num_epochs__2__batch_size__128"
            path.mkdir(parents=True, exist_ok=True)
            (path / f"random_seed__{seed}__2026-01-01-10-00-00.json").write_text(json.dumps(content))


def wandb(folder):
    """The table of sixteen runs, two of which crashed early."""
    lines = ["Name,State,Notes,User,Tags,Created,Runtime,Sweep,dataset,optimizer,seed,lr,val_acc,val_loss"]
    for k, (optimizer, seed) in enumerate((o, s) for o in ("adam", "sgd") for s in range(8)):
        crashed = (optimizer, seed) in {("sgd", 2), ("sgd", 6)}
        level = 0.41 if crashed else {"adam": 0.90, "sgd": 0.91}[optimizer] + noise(seed + k // 8, 0.002)
        state = "crashed" if crashed else "finished"
        lines.append(
            f"run-{optimizer}-{seed},{state},-,me,,2026-01-{k + 1:02d}T00:00:00.000Z,{100 + k},,mnist,"
            f"{optimizer},{seed},0.001,{level:.4f},{1 - level:.4f}"
        )
    (folder / "wandb_runs.csv").write_text("\n".join(lines) + "\n")


def screens():
    """Commands of the page and what it shows of them: parts, where it leaves lines out."""
    text = PAGE.read_text("utf-8")
    found = [
        (command.strip(), block)
        for command, block in re.findall(r"```text\n\$ (optbench [^\n]*)\n(.*?)```", text, re.DOTALL)
    ]
    dry = re.search(
        r"```console\n(optbench import [^\n]*--dry-run)\n```\s*```text\n(.*?)```", text, re.DOTALL
    )
    assert dry is not None
    return [(dry[1], dry[2]), *found]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for make in (keras, algoperf, deepobs, wandb):
        make(folder)
    return folder


def plain(text):
    return " ".join(text.split())


def printed(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "110")
    return CliRunner().invoke(app, shlex.split(command)[1:]).output


@pytest.mark.parametrize("number", range(len(screens())))
def test_the_page_shows_what_the_command_prints(number, inputs, monkeypatch):
    command, block = screens()[number]
    output = plain(printed(command, inputs, monkeypatch))
    at = 0
    for part in re.split(r"^\s*\.\.\.\s*$", block, flags=re.MULTILINE):
        at = output.find(plain(part), at)
        assert at >= 0, f"{command}\nprints\n{output}\nand the page shows\n{plain(part)}"


def test_the_page_shows_each_of_the_shapes():
    commands = [command for command, _ in screens()]
    assert [any(word in c for c in commands) for word in ("algoperf", "deepobs", "wandb", "--dry-run")] == [
        True
    ] * 4


if __name__ == "__main__":  # python -m tests.records.readers.test_screens FOLDER prints them all
    import sys

    target = Path(sys.argv[1])
    for make in (keras, algoperf, deepobs, wandb):
        make(target)
    os.chdir(target)
    os.environ["COLUMNS"] = "110"
    for line, _ in screens():
        print(f"$ {line}\n{CliRunner().invoke(app, shlex.split(line)[1:]).output}")
