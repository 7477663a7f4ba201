"""Everything wrong in a file is said at once; other words for a choice are understood."""

from __future__ import annotations

import pytest

import optbench
from optbench.cli.listing import rows
from optbench.suite.load import DEVICES, known_choice, load_suite
from optbench.suite.shipped import find_shipped, shipped_suites
from optbench.suite.spec import SuiteError


def test_mistakes_in_different_parts_are_told_together(write_suite):
    path = write_suite(
        ("adam: {lr: 0.01}", "adam: {learning: 0.01}\n  sgd: {lr: -1}"),
        ("epochs: 2", "epoch: 2"),
        ("seeds: 2", "seeds: none\ndevise: cpu"),
        ("{baseline: wame}", "{baseline: wame, alpha: 7}"),
    )
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    lines = str(caught.value).splitlines()
    for place in (
        "optimizers.adam.learning",
        "optimizers.sgd.lr",
        "workloads[0].epoch",
        "seeds",
        "analysis.alpha",
        "devise",
    ):
        assert any(f": {place}: " in line for line in lines), (place, lines)
    assert len(lines) == 6


def test_a_misspelt_key_is_one_mistake_and_not_a_missing_one_too(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("suite: x\nworkload: []\noptimizers: {adam: {}}\n")
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "Did you mean 'workloads'" in str(caught.value)


def test_what_a_workload_says_of_a_wrong_optimizer_is_no_second_mistake(write_suite):
    path = write_suite(
        ("adam: {lr: 0.01}", "adam: {lr: -1}"), ("epochs: 2", "epochs: 2\n    optimizers: [adam, wame]")
    )
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert len(str(caught.value).splitlines()) == 1


def test_gpu_means_cuda():
    assert known_choice("--device", "gpu", DEVICES) == "cuda"
    with pytest.raises(SuiteError, match="CUDA_VISIBLE_DEVICES=1, with cuda"):
        known_choice("--device", "cuda:1", DEVICES)


def test_the_suites_of_the_package_are_found_and_listed_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_suite("lecture").name == "lecture"
    _, found = rows("suites")
    names = [row[0] for row in found]
    assert {"quick", "lecture"} <= set(names)
    assert all(row[1] != "not usable" for row in found)


def test_a_file_of_ones_own_goes_before_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.yaml").write_text("suite: [x\n")
    with pytest.raises(SuiteError, match=r"quick\.yaml"):
        load_suite("quick.yaml")
    assert find_shipped(tmp_path / "no" / "quick") == tmp_path / "no" / "quick"


def test_an_installed_package_has_its_suites_inside(tmp_path, monkeypatch):
    package = tmp_path / "site" / "optbench"
    (package / "suites").mkdir(parents=True)
    (package / "suites" / "quick.yaml").write_text("")
    monkeypatch.setattr(optbench, "__file__", str(package / "__init__.py"))
    assert shipped_suites() == package / "suites"
