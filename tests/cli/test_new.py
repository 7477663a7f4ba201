"""Files to begin with: they train as they are, and nothing is written over."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

from optbench import api, backends
from optbench.cli import app
from optbench.execution.local import smoke
from optbench.records.frames import load_results
from optbench.verification import verify

MODULES = {"torch": ("torch",), "tensorflow": ("keras", "tensorflow"), "jax": ("jax", "optax")}


def new(*arguments):
    return CliRunner().invoke(app, ["new", "optimizer", *map(str, arguments)])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def need(*modules):
    for module in modules:
        pytest.importorskip(module, reason=f"needs {module}")


@pytest.mark.parametrize("backend", MODULES)
def test_what_is_written_is_verified_and_trains(backend, folder):
    need(*MODULES[backend])
    backends.engine(backend)  # before `verify`, as TensorFlow's threads are set once a process
    done = new("my_opt.py", "--backend", backend)
    assert done.exit_code == 0, done.output
    assert "optbench run my_opt.yaml" in done.output
    assert verify.run("my_opt.py:MyOpt", backends=[backend]).passed
    suite = replace(smoke(api.load_suite("my_opt.yaml")), tuning=None)
    first = suite.workloads[0].label
    outcome = api.run(suite, only=lambda t: (t.workload, t.optimizer) == (first, "my_opt"), results="results")
    assert outcome.completed == 2
    losses = load_results(outcome.store).epochs.groupby("seed").train_loss
    assert (losses.last() < losses.first()).all()


#: TensorFlow and JAX compile anew for each learning rate that is tried.
HOW_OFTEN = {"jax": pytest.mark.nightly, "tensorflow": pytest.mark.nightly}


@pytest.mark.parametrize("backend", [pytest.param(name, marks=HOW_OFTEN.get(name, ())) for name in MODULES])
def test_the_suite_that_is_written_tunes_runs_and_reports(backend, folder):
    need(*MODULES[backend], "optuna")
    assert new("my_opt.py", "--backend", backend).exit_code == 0
    command = [sys.executable, "-m", "optbench.cli", "run", "my_opt.yaml", "--smoke", "--results", "here"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (store,) = folder.glob("here/*/store.sqlite")
    trials = load_results(store).trials
    assert set(trials.optimizer) == {"my_opt", "adam", "sgd", "wame"}
    assert set(trials.backend) == {backend}
    assert api.report(store, formats=["csv"]).files


@pytest.mark.parametrize("backend", MODULES)
def test_every_optimizer_of_the_suite_is_tuned_alike(backend, folder):
    assert new("my_opt.py", "--backend", backend).exit_code == 0
    text = (folder / "my_opt.yaml").read_text()
    space = yaml.safe_load(text)["tuning"]["space"]
    assert set(space) == {"my_opt", "adam", "sgd", "wame"}
    for axes in space.values():
        ((low, high),) = (axis["log"] for axis in axes.values())
        assert high / low == pytest.approx(1000)
    assert all(len(line) <= 110 for file in folder.iterdir() for line in file.read_text().splitlines())


@pytest.mark.parametrize("there", ["my_opt.py", "my_opt.yaml"])
def test_nothing_is_written_over_unless_asked(folder, there):
    (folder / there).write_text("mine\n")
    done = new("my_opt.py")
    assert done.exit_code == 2
    assert re.search(rf"{there}: is there already; .*--force", done.output)
    assert [path.read_text() for path in folder.iterdir()] == ["mine\n"]
    assert new("my_opt.py", "--force").exit_code == 0
    assert "MyOpt" in (folder / there).read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-opt.py", "as in my_opt.py"),
        ("my_opt", "as in my_opt.py"),
        ("my_opt.yaml", "as in my_opt.py"),
        ("2fast.py", "as in my_opt.py"),
        ("__1.py", "as in my_opt.py"),
        ("_.py", "as in my_opt.py"),
        ("none.py", "as in my_opt.py"),
        ("class.py", "as in my_opt.py"),
        (".py", "as in my_opt.py"),
        ("$(touch x).py", "as in my_opt.py"),
        ("adam.py", "'adam' is a baseline"),
        ("torch.py", "would hide Python's module 'torch'"),
        ("random.py", "would hide Python's module 'random'"),
        ("gone/my_opt.py", "there is no folder gone"),
    ],
)
def test_a_bad_name_is_refused_and_nothing_written(folder, name, message):
    done = new(name)
    assert done.exit_code == 2
    assert message in done.output
    assert name in done.output
    assert not list(folder.iterdir())


def test_the_class_is_named_after_the_file(folder):
    (folder / "sub").mkdir()
    assert "verify sub/lion_v2.py:LionV2" in new("sub/lion_v2.py").output
    assert "class LionV2(" in (folder / "sub" / "lion_v2.py").read_text()
    assert api.load_suite(folder / "sub" / "lion_v2.yaml").analysis.baseline == "lion_v2"


@pytest.mark.slow
def test_with_groups_it_moves_hidden_kernels_alone(folder):
    need("torch")
    done = new("my_opt.py", "--groups")
    assert done.exit_code == 0, done.output
    suite = api.load_suite("my_opt.yaml")
    own = suite.workloads[0].optimizers["my_opt"]
    assert [(g.match, g.config.optimizer) for g in own.groups] == [
        (("matrix", "conv"), "custom"),
        (("rest",), "adamw"),
    ]
    assert [axis.name for axis in suite.tuning.space["my_opt"]] == ["matrix.lr"]
    short = replace(smoke(suite), tuning=None)
    first = short.workloads[0].label
    outcome = api.run(short, only=lambda t: (t.workload, t.optimizer) == (first, "my_opt"), results="results")
    assert outcome.completed == 2
