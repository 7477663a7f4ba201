"""The suites that come with the package: each loads, says where it is from, and runs dry and offline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from optbench.datasets import fetch, registry
from optbench.environment import Context
from optbench.execution.local import run_suite, smoke
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

FOLDER = Path(__file__).resolve().parents[2] / "suites"
SUITES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
#: Suites whose dry run takes more than some seconds; here their first seed and optimizer stand for the rest.
LARGE = ("emnist", "fashion_mnist", "sign_mnist", "wame_paper")
#: How often a suite's dry run is made: one of these takes as long as ten of the others.
MARKS = {
    **dict.fromkeys(LARGE, pytest.mark.nightly),
    **dict.fromkeys(("resnet_cifar10", "tiny_gpt"), pytest.mark.slow),
}


def load(name):
    return load_suite(FOLDER / f"{name}.yaml")


def planned(suite):
    return trials(suite, lambda backend, device: "cpu")


def test_all_published_set_ups_are_there():
    assert set(SUITES) >= {
        *("emnist", "fashion_mnist", "digits_augmented", "mnist_mlp", "sign_mnist", "wame_paper", "deepobs"),
        "optimizers_offline",
    }


@pytest.mark.parametrize("name", [name for name in SUITES if name != "quick"])
def test_a_header_says_where_from_what_and_how_long(name):
    header = (FOLDER / f"{name}.yaml").read_text().split("suite:")[0]
    for word in ("# From: ", "# Compares: ", "# Needs: ", "# Takes: ", "2 cores"):
        assert word in header


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No data anywhere, and no way to the net."""
    monkeypatch.setattr(fetch.platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.setattr(fetch, "DEBIAN", tmp_path)
    monkeypatch.setattr(fetch, "download", lambda *a, **k: pytest.fail("a dry run goes to the net"))
    registry.load.cache_clear()
    return tmp_path


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in SUITES])
def test_a_dry_run_goes_through_offline(name, offline):
    pytest.importorskip("torch")
    outcome = run_suite(smoke(load(name)), results=offline / "results")
    assert outcome.crashed == 0
    assert outcome.completed + outcome.diverged == outcome.planned == outcome.run


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_dry_run_of_a_large_suite_trains_every_network(name, offline):
    pytest.importorskip("torch")
    suite = smoke(load(name))
    first = {entry.label: next(iter(entry.optimizers)) for entry in suite.workloads}
    outcome = run_suite(
        replace(suite, seeds=suite.seeds[:1]),
        results=offline / "results",
        only=lambda t: t.optimizer == first[t.workload],
    )
    assert (outcome.run, outcome.crashed) == (len(suite.workloads), 0)


def test_emnist_trains_each_network_at_the_rate_that_was_found_for_it():
    suite = load("emnist")
    for label, variant in (("wame", "adjusted"), ("wame-shipped", "report1_shipped")):
        configs = [w.optimizers[label] for w in suite.workloads]
        assert [config.lr for config in configs] == [0.0755, 0.0524, 0.0217, 0.0229, 0.0725]
        assert {config.variant for config in configs} == {variant}
    assert {w.optimizers["adam"].lr for w in suite.workloads} == {0.001}
    assert all(w.workload.split.how == "published" for w in suite.workloads)


def test_sign_mnist_keeps_its_budget_and_the_plan_enforces_it(tmp_path):
    assert len(planned(load("sign_mnist"))) == 36
    path = tmp_path / "more.yaml"
    path.write_text((FOLDER / "sign_mnist.yaml").read_text().replace("seeds: 1", "seeds: 2"))
    with pytest.raises(SuiteError, match=r"max_trials: the suite declares 72 trials .* budget is 50"):
        load_suite(path)


def test_sign_mnist_has_momentum_where_the_reports_code_has_it():
    momentum = {
        (t.workload, t.optimizer)
        for t in planned(load("sign_mnist"))
        if t.spec.optimizer.optimizer == "sgd" and t.spec.optimizer.momentum
    }
    assert momentum == {("cnn", "sgd-momentum"), ("baseline", "sgd-momentum")}


def test_mnist_mlp_takes_the_last_fifth_unshuffled():
    for entry in load("mnist_mlp").workloads:
        workload, best = entry.workload, entry.label == "best-of-search"
        assert (workload.split.validation, workload.split.how) == (0.2, "tail")
        assert (workload.shuffle, workload.batch_size == 32) == (best, best)


def test_fashion_mnist_keeps_its_pixels_as_stored():
    assert {entry.workload.scale for entry in load("fashion_mnist").workloads} == {"none"}


def test_deepobs_uses_its_seeds_and_no_validation_part():
    suite = load("deepobs")
    assert [seeds.init for seeds in suite.seeds] == list(range(42, 52))
    assert suite.workloads[0].workload.split.validation == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "workload", "optimizer", "accuracy"),
    [("mnist_mlp", "batch-256", "adam", 0.93), ("fashion_mnist", "head head=128", "adam", 0.75)],
)
def test_a_published_suite_starts_on_the_real_files(
    name, workload, optimizer, accuracy, shared_data, tmp_path
):
    from optbench.records.frames import load_results

    suite = load(name)
    short = [replace(w, workload=replace(w.workload, epochs=1)) for w in suite.workloads]
    suite = replace(suite, workloads=tuple(short), seeds=suite.seeds[:1])
    outcome = run_suite(
        suite,
        results=tmp_path,
        only=lambda t: (t.workload, t.optimizer) == (workload, optimizer),
        context=Context(data_dir=shared_data),
    )
    (row,) = load_results(outcome.store).trials.to_dict("records")
    assert row["test_accuracy"] > accuracy
