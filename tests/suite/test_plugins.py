"""What installed packages offer by name: the package of docs/howto/plugin.md, installed and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optbench import api
from optbench.cli import listing
from optbench.records.frames import load_results
from optbench.records.single import planned
from optbench.records.store import Store
from optbench.suite.expand import trials
from optbench.suite.json_schema import suite_schema
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from optbench.trial import trial_id

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "plugin.md"


def write_package(folder):
    """Write the files that the page shows."""
    for name, text in re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', PAGE.read_text(), re.M | re.S):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "moonlab" / "__init__.py").touch()


def install(folder, version="1.0", **more):
    """Write beside the package what an installer would: its metadata and entry points."""
    text = (folder / "pyproject.toml").read_text()
    groups = {
        group: dict(re.findall(r'^([\w-]+) = "(.+)"$', entries, re.M))
        for group, entries in re.findall(r'^\[project.entry-points."(.+?)"\]\n((?:.+\n)+)', text, re.M)
    }
    for kind, entries in more.items():
        groups[f"optbench.{kind}"] |= entries
    for old in folder.glob("*.dist-info"):
        old.rename(folder / f"moonlab-{version}.dist-info")
    info = folder / f"moonlab-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: moonlab\nVersion: {version}\n")
    (info / "RECORD").write_text("moonlab/__init__.py,,\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def package(tmp_path, monkeypatch):
    write_package(tmp_path)
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "moonlab"]:
        del sys.modules[name]


def ids(path):
    return [trial_id(t.spec) for t in trials(load_suite(path), lambda backend, device: "cpu")]


@pytest.mark.slow
def test_a_suite_names_all_four_and_runs(package):
    pytest.importorskip("torch")
    suite = load_suite(package / "moons.yaml")
    workload = suite.workloads[0].workload
    parts = (workload.dataset, workload.model, *workload.metrics, suite.workloads[0].optimizers["fast"])
    assert [part.code for part in parts] == ["moonlab==1.0"] * 4
    assert suite.workloads[0].label == "moons/two-layers"
    outcome = api.run(suite, results=package / "results")
    assert (outcome.completed, outcome.planned) == (21, 21)
    frame = load_results(outcome.store).trials
    assert frame.test_brier_score.between(0, 0.5).all()
    assert set(frame.dataset) == {"moons"}
    with Store(outcome.store) as store:
        for trial in store.trials():
            _, found = planned(trial, folder=package)
            assert trial_id(found.spec) == trial.trial_id


def test_another_version_is_another_trial(package):
    before = ids(package / "moons.yaml")
    assert before == ids(package / "moons.yaml")
    install(package, "1.1")
    assert not set(before) & set(ids(package / "moons.yaml"))


def test_a_dataset_or_a_model_alone_names_the_trial_by_its_package(package, write_suite):
    for old, new in (("dataset: digits", "dataset: moons"), ("{name: mlp, hidden: [8]}", "two-layers")):
        path = write_suite((old, new))
        before = ids(path)
        install(package, "1.1")
        assert not set(before) & set(ids(path))
        install(package, "1.0")
        assert before == ids(path)


def test_the_lists_show_them_with_their_package(package):
    for kind, name, reference in (
        ("datasets", "moons", "moonlab.data:moons"),
        ("models", "two-layers", "moonlab.models:two_layers"),
        ("optimizers", "sign-momentum", "moonlab.optimizers:SignMomentum"),
    ):
        columns, rows = listing.rows(kind)
        assert (name, reference) in [row[:2] for row in rows]
        (row,) = (row for row in rows if row[0] == name)
        assert row[-1] == "moonlab==1.0"
        assert {len(row) for row in rows} == {len(columns)}


def test_names_of_optbench_cannot_be_taken(package, write_suite):
    path = write_suite()
    before = ids(path)
    install(
        package,
        datasets={"digits": "moonlab.data:moons"},
        models={"mlp": "moonlab.models:two_layers"},
        optimizers={"adam": "moonlab.optimizers:SignMomentum"},
    )
    assert ids(path) == before
    for kind in ("datasets", "models", "optimizers"):
        assert any("not used, as" in row[-1] for row in listing.rows(kind)[1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset: digits", "dataset: moon", "dataset: unknown dataset 'moon'. Did you mean 'moons'"),
        ("name: mlp, hidden: [8]", "name: two-layer", "model.name: unknown model .*'two-layers'"),
        ("name: mlp, hidden: [8]", "name: two-layers, unit: 3", "model: .*two_layers failed .*unit"),
        ("adam: {lr: 0.01}", "sign-moment: {lr: 1}", "unknown optimizer .*'sign-momentum'"),
        ("seeds: 2", "seeds: 2\nmetrics: [briar]", "one of the installed brier_score"),
        ("dataset: digits", "dataset: lost", "'lost' of an installed package: .*no module 'moonlab.lost'"),
        ("name: mlp, hidden: [8]", "name: empty", "'empty' of an installed package: .*no 'none' in this"),
    ],
)
def test_a_mistake_is_answered_with_what_is_installed(package, write_suite, old, new, message):
    install(package, datasets={"lost": "moonlab.lost:f"}, models={"empty": "moonlab.models:none"})
    with pytest.raises(SuiteError, match=message):
        load_suite(write_suite((old, new)))


def test_an_editor_is_told_the_names(package):
    text = json.dumps(suite_schema())
    assert '"moons"' in text
    assert '"two-layers"' in text


@pytest.mark.slow
def test_the_package_is_built_installed_and_listed(tmp_path):
    write_package(tmp_path)
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, tmp_path]
    subprocess.run(command, check=True)
    listed = subprocess.run(
        [sys.executable, "-m", "optbench.cli", "list", "datasets"],
        env={
            **os.environ,
            "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        },
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert re.search(r"moons .*moonlab==1.0", listed.stdout)
