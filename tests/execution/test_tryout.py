"""Optimizers that cannot train are refused before the first trial."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from optbench.cli import app
from optbench.records.store import Store
from optbench.suite.load import load_suite

torch = pytest.importorskip("torch")

SUITE = """
suite: bad
workloads: [{dataset: iris, model: {name: mlp, hidden: [4]}, batch_size: 16, epochs: 1}]
seeds: 1
backends: [torch]
optimizers:
"""
SOURCE = """
import torch


class Base(torch.optim.SGD):
    def __init__(self, params, lr=0.1, scale=1.0):
        super().__init__(params, lr=lr)


class Closure(Base):
    def step(self, closure):
        closure()


class Hessian(Base):
    def step(self, closure=None):
        for w in self.param_groups[0]["params"]:
            torch.autograd.grad(w.grad.sum(), w)


class Flags(Base):
    def __init__(self, params, lr=0.1):
        groups = list(params)
        if not isinstance(groups[0], dict) or "use_muon" not in groups[0]:
            raise ValueError("give groups with use_muon")
        super().__init__(groups, lr)


class Matrices(Base):
    def step(self, closure=None):
        for w in self.param_groups[0]["params"]:
            if w.ndim != 2:
                raise ValueError("two axes are needed")
            w.data -= w.grad @ w.grad.T @ w.grad


class Raises(Base):
    def __init__(self, params, lr):
        raise KeyError("what")


class NoStep(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})


class Nothing:
    def __init__(self, params, lr):
        self.param_groups = [{"params": list(params), "lr": lr}]


class Required(Base):
    def __init__(self, params, lr, rank):
        super().__init__(params, lr)


class Diverges(Base):
    def step(self, closure=None):
        for w in self.param_groups[0]["params"]:
            w.data.fill_(float("nan"))


class Pairs(Base):
    def __init__(self, named_parameters, lr, *, roles, names):
        pairs = list(named_parameters)
        assert [name for name, _ in pairs] == list(roles) == list(names)
        assert all(isinstance(w, torch.Tensor) for _, w in pairs)
        super().__init__([w for _, w in pairs], lr)


class Second(Base):
    count = 0
    def step(self, closure=None):
        self.count += 1
        if self.count > 1:
            raise RuntimeError("not twice")


def function(params, lr=0.1):
    return None
"""
BAD = {
    "word": (
        "{class: 'mine.py:Base', lr: 0.1, momentum: 0.9}",
        "takes no argument 'momentum'; it takes lr, scale",
    ),
    "range": ("{class: 'torch.optim:SGD', lr: -1.0}", "Invalid learning rate: -1.0"),
    "kind": ("{class: 'torch.optim:Adam', betas: [0.9]}", "IndexError"),
    "closure": ("{class: 'mine.py:Closure', lr: 0.1}", "needs a closure"),
    "lbfgs": ("{class: 'torch.optim:LBFGS', lr: 0.1}", "needs a closure"),
    "hessian": ("{class: 'mine.py:Hessian', lr: 0.1}", "does not require grad"),
    "flags": ("{class: 'mine.py:Flags', lr: 0.1}", "give groups with use_muon"),
    "second": ("{class: 'mine.py:Second', lr: 0.1}", "not twice"),
    "function": ("{class: 'mine.py:function', lr: 0.1}", "makes a NoneType"),
    "twice": ("{class: 'mine.py:Base', lr: 0.1, learning_rate: 0.2}", "another word for 'lr'"),
    "group": (
        "{groups: [{match: matrix, class: 'mine.py:Second'}, {match: rest, optimizer: sgd}]}",
        "not twice",
    ),
    "raises": ("{class: 'mine.py:Raises', lr: 0.1}", "KeyError: 'what' (mine.py:"),
    "nostep": ("{class: 'mine.py:NoStep', lr: 0.1}", "NotImplementedError (optimizer.py:"),
    "nothing": ("{class: 'mine.py:Nothing', lr: 0.1}", "makes a Nothing; the torch backend needs"),
    "required": ("{class: 'mine.py:Required', lr: 0.1}", "1 required positional argument: 'rank'"),
    "import": ("{class: 'broken.py:Mine', lr: 0.1}", "broken.py cannot be imported (ModuleNotFoundError"),
    "text": ("{class: 'torch.optim:SGD', lr: fast}", "not supported between instances of 'str' and 'float'"),
}
GOOD = {
    "base": "{class: 'mine.py:Base', lr: 0.1}",
    "diverges": "{class: 'mine.py:Diverges', lr: 0.1}",
    "pairs": "{class: 'mine.py:Pairs', lr: 0.1}",
    "matrices": "{class: 'mine.py:Matrices', lr: 0.1}",  # sound, but not for every model: its trials say so
    "own-groups": "{groups: [{match: matrix, class: 'mine.py:Matrices'}, {match: rest, optimizer: sgd}]}",
}
#: Refused where the suite is read.
UNREADABLE = {
    "bound": ("{optimizer: adam, lr: -0.1}", "lr: found -0.1; must be greater than 0"),
    "huge": (
        "{optimizer: adadelta, lr: 1.0e+30}",
        "lr: found 1e+30; no step can be that large: 1e+20 at most",
    ),
    "unknown": ("{optimizer: adam, momentum: 0.9}", "unknown key 'momentum'. Known: optimizer, lr"),
    "no-rest": ("{groups: [{match: matrix, optimizer: sgd}]}", "add an entry with `match: rest`"),
    "vectors": ("{groups: [{match: bias, optimizer: muon}, {match: rest, optimizer: sgd}]}", "bias are none"),
    "matches-nothing": (
        "{optimizer: adamw, groups: [{match: conv, weight_decay: 0}]}",
        "`match: conv` matches no weight of any workload; there are bias, head, matrix",
    ),
    "no-file": ("{class: 'absent.py:Mine', lr: 0.1}", "absent.py: there is no such file"),
    "no-class": ("{class: 'mine.py:Absent', lr: 0.1}", "no 'Absent' in this file; it has"),
}


def write(folder, entries):
    (folder / "mine.py").write_text(SOURCE)
    (folder / "broken.py").write_text("import there_is_no_such_module\nclass Mine: ...\n")
    path = folder / "bad.yaml"
    path.write_text(SUITE + "".join(f"  {label}: {entry}\n" for label, (entry, _) in entries.items()))
    return path


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """What `optbench run` says of all bad configs and some good ones, once."""
    folder = tmp_path_factory.mktemp("bad")
    path = write(folder, {**BAD, **{f"good-{label}": (entry, "") for label, entry in GOOD.items()}})
    result = CliRunner().invoke(app, ["run", str(path), "--results", str(folder / "results")])
    return folder, result


@pytest.mark.parametrize("label", BAD)
def test_each_bad_config_is_named_with_its_reason_before_the_first_trial(refused, label):
    _, result = refused
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if f"optimizers.{label}:" in line]
    start = result.output.index(f"optimizers.{label}:")
    text = " ".join(result.output[start:].split())
    assert BAD[label][1] in text.partition(" optimizers.")[0], line


def test_nothing_was_trained_and_a_good_config_is_not_named(refused):
    folder, result = refused
    assert "optimizers.good-" not in result.output
    assert f"{len(BAD)} cannot train" in " ".join(result.output.split())
    with Store(folder / "results" / "bad") as store:
        assert store.statuses() == {}


@pytest.mark.parametrize("label", UNREADABLE)
def test_a_config_that_needs_no_trying_is_refused_where_it_is_read(tmp_path, label):
    path = write(tmp_path, {label: UNREADABLE[label]})
    result = CliRunner().invoke(app, ["run", str(path), "--results", str(tmp_path / "results")])
    assert result.exit_code == 2, result.output
    assert UNREADABLE[label][1] in " ".join(result.output.split())
    assert not (tmp_path / "results").exists()


def test_a_class_for_matrices_trains_a_model_of_matrices(tmp_path):
    path = write(tmp_path, {"own": ("{class: 'mine.py:Matrices', lr: 0.1}", "")})
    layers = "[{kind: dense, units: 4, bias: false}, {kind: dense, bias: false}]"
    path.write_text(path.read_text().replace("{name: mlp, hidden: [4]}", f"{{name: own, layers: {layers}}}"))
    result = CliRunner().invoke(app, ["run", str(path), "--results", str(tmp_path / "results")])
    assert result.exit_code == 0, result.output


def test_a_class_whose_weights_become_nan_diverges_and_is_no_bad_config(tmp_path):
    path = write(tmp_path, {"own": (GOOD["diverges"], "")})
    result = CliRunner().invoke(app, ["run", str(path), "--results", str(tmp_path / "results")])
    assert result.exit_code == 0, result.output
    with Store(tmp_path / "results" / "bad") as store:
        assert set(store.statuses().values()) == {"diverged"}


@pytest.mark.parametrize("command", [["plan"], ["run", "--plan"]])
def test_a_plan_refuses_them_too(tmp_path, command):
    path = write(tmp_path, {"range": BAD["range"]})
    result = CliRunner().invoke(app, [*command, str(path), "--results", str(tmp_path / "results")])
    assert result.exit_code == 2
    assert "optimizers.range: on torch: ValueError: Invalid learning rate: -1.0" in " ".join(
        result.output.split()
    )


def test_the_settings_of_a_search_are_tried_once(tmp_path, monkeypatch):
    from optbench.environment import Context
    from optbench.execution.tryout import Tryouts
    from optbench.suite.expand import trials

    path = tmp_path / "s.yaml"
    grid = "{class: 'mine.py:Base', grid: {lr: [0.1, 0.2, 0.3]}}"
    (tmp_path / "mine.py").write_text(SOURCE)
    path.write_text(SUITE + f"  own: {grid}\n")
    planned = trials(load_suite(path), lambda backend, device: "cpu")
    calls = []

    def call(function, *arguments):
        calls.append(arguments)

    tryouts = Tryouts(Context())
    tryouts.check(planned, call)
    assert len(calls) == 3
    from dataclasses import replace

    tryouts.check([replace(trial, role="tuning") for trial in planned], call)
    assert len(calls) == 4
