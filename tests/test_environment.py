"""Settings are read once, at the edge, and passed on from there."""

from __future__ import annotations

import ast
import os

import pytest

from optbench import api, environment
from optbench.backends import engine
from optbench.environment import Context
from optbench.errors import UserError
from optbench.execution import estimate
from optbench.records.store import Store
from optbench.suite.expand import trials
from optbench.suite.load import load_suite


def reads_environment(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv"):
            yield node.lineno


def test_one_module_reads_and_sets_environment_variables(repository):
    found = {p.name for p in (repository / "optbench").rglob("*.py") if any(reads_environment(p))}
    assert found == {"environment.py"}


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OPTBENCH_THREADS", "two", "OPTBENCH_THREADS: found 'two'; give a whole number from 1"),
        ("OPTBENCH_THREADS", "0", "OPTBENCH_THREADS: found '0'"),
        ("OPTBENCH_STEP", "fast", "OPTBENCH_STEP: found 'fast'; choose one of auto, eager"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=said):
        Context.from_environment()


def test_what_is_given_goes_before_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OPTBENCH_THREADS", "3")
    monkeypatch.setenv("OPTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("OPTBENCH_STEP", "eager")
    assert Context.from_environment() == Context(threads=3, data_dir=tmp_path, step="eager")
    given = Context.from_environment(threads=2, data_dir="here")
    assert (given.threads, str(given.data_dir)) == (2, "here")
    assert (given.with_step("auto").step, given.with_step("graph").step) == ("eager", "graph")


@pytest.mark.parametrize("fields", [{"threads": 0}, {"threads": True}, {"threads": 1.5}, {"step": "fast"}])
def test_a_context_of_wrong_values_cannot_be_made(fields):
    with pytest.raises(UserError, match=f"{next(iter(fields))}: found"):
        Context(**fields)


def test_a_framework_s_variable_leaves_the_user_s_alone(monkeypatch):
    monkeypatch.setenv("OPTBENCH_TEST_A", "theirs")
    monkeypatch.delenv("OPTBENCH_TEST_B", raising=False)
    environment.set_framework_variables({"OPTBENCH_TEST_A": "ours", "OPTBENCH_TEST_B": "ours"})
    assert (os.environ["OPTBENCH_TEST_A"], os.environ["OPTBENCH_TEST_B"]) == ("theirs", "ours")
    before = environment.set_framework_variables({"OPTBENCH_TEST_A": "ours"}, override=True)
    assert os.environ["OPTBENCH_TEST_A"] == "ours"
    environment.set_framework_variables({**before, "OPTBENCH_TEST_B": None}, override=True)
    assert os.environ["OPTBENCH_TEST_A"] == "theirs"
    assert "OPTBENCH_TEST_B" not in os.environ


def test_two_runs_of_one_process_compute_with_the_threads_that_each_was_given(write_suite, tmp_path):
    pytest.importorskip("torch")
    path = write_suite()
    before = ours()
    for folder, options, expected in (
        ("two", {"threads": 2}, 2),
        ("one", {"threads": 1}, 1),
        ("workers", {"threads": 2, "workers": 2}, 2),
        ("default", {}, 1),
    ):
        outcome = api.run(path, results=tmp_path / folder, **options)
        assert outcome.completed == 4
        with Store(outcome.store) as store:
            assert {trial.environment["threads"] for trial in store.trials()} == {expected}, folder
    assert ours() == before, "a run has left a setting behind"


def ours():
    """Variables by which settings could travel."""
    return {k: v for k, v in os.environ.items() if k.startswith("OPTBENCH") or k.endswith("_NUM_THREADS")}


def test_a_suite_s_way_of_steps_is_its_own(write_suite, tmp_path):
    pytest.importorskip("torch")
    ways = []
    for step in ("eager", "auto"):
        path = write_suite(("seeds: 2", f"seeds: 1\nengine: {{step: {step}}}"))
        outcome = api.run(path, results=tmp_path / step)
        with Store(outcome.store) as store:
            ways += {trial.environment["step"] for trial in store.trials()}
    assert ways == ["autograd", "hand-written"]


def test_wrong_threads_are_refused_before_anything_is_made(write_suite, tmp_path):
    with pytest.raises(UserError, match="threads: found 0; give a whole number from 1"):
        api.run(write_suite(), results=tmp_path / "results", threads=0)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_threads_that_a_started_framework_cannot_change_are_refused(backend):
    pytest.importorskip(backend)
    engine(backend)
    with pytest.raises(UserError, match=f"threads is 2, but in this process {backend} has started with"):
        engine(backend, Context(threads=2))
    assert engine(backend).describe("cpu")["threads"] == 1


def test_a_calibration_takes_the_threads_of_its_context(write_suite):
    pytest.importorskip("torch")
    import torch

    spec = trials(load_suite(write_suite()), lambda backend, device: "cpu")[0].spec
    estimate.calibrate(spec, Context(threads=2))
    assert torch.get_num_threads() == 2
    engine("torch")
    assert torch.get_num_threads() == 1


def test_the_data_folder_of_a_run_is_looked_in_first(write_suite, tmp_path, monkeypatch, shared_data):
    """The same call without it finds nothing: neither a variable nor an earlier run leaves it behind."""
    pytest.importorskip("torch")
    from optbench.datasets import fetch

    monkeypatch.setattr(fetch.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(fetch, "download", lambda *a, **k: pytest.fail("looks in the net"))
    monkeypatch.delenv("OPTBENCH_DATA", raising=False)
    path = write_suite(
        ("dataset: digits", "dataset: mnist"), ("epochs: 2", "epochs: 1"), ("seeds: 2", "seeds: 1")
    )

    def first(trial):
        return trial.optimizer == "adam"

    assert api.run(path, results=tmp_path, only=first, data_dir=shared_data).completed == 1
    with pytest.raises(BaseException, match="looks in the net"):
        api.run(path, results=tmp_path, fresh=True, only=first)
