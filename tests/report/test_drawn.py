"""A plot whose content has not changed is not drawn again."""

from __future__ import annotations

import os
from functools import partial

import pytest

pytest.importorskip("matplotlib", reason="draws plots")

from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report import drawn, parallel, plots
from optbench.report.build import write_report
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from tests.report.conftest import fill_store, made_record


@pytest.fixture
def settled(monkeypatch, tmp_path):
    """Figures that are drawn, in this process, beginning with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parallel, "MOST_PROCESSES", 1)
    seen, real = [], plots.settle
    monkeypatch.setattr(plots, "settle", lambda figure: seen.append(figure) or real(figure))
    return seen


@pytest.fixture
def stored(write_suite, tmp_path):
    suite = load_suite(write_suite(("seeds: 2", "seeds: 3")))
    return suite, fill_store(suite, tmp_path / "store", lambda trial: 0.7 + trial.spec.seeds.init / 50)


def page(stored, folder):
    suite, store = stored
    return write_report(load_results(store), suite.report_spec, folder, formats=("html",)).index.read_text()


def test_the_same_records_give_the_same_page_without_a_stroke(settled, stored, tmp_path):
    first = page(stored, tmp_path / "a")
    count = len(settled)
    assert count > 3
    assert page(stored, tmp_path / "b") == first
    assert len(settled) == count


def test_an_edited_value_or_edited_code_draws_anew(settled, stored, tmp_path, monkeypatch):
    first = page(stored, tmp_path / "a")
    count = len(settled)
    suite, store = stored
    with Store(store, write=True) as opened:
        opened.add(made_record(trials(suite, lambda *_: "cpu")[0].spec, 0.9))
    again = page(stored, tmp_path / "b")
    assert len(settled) > count
    assert again != first
    count = len(settled)
    monkeypatch.setattr(drawn, "_code", lambda: ("another version",))
    assert page(stored, tmp_path / "c") == again
    assert len(settled) > count


def test_a_damaged_or_unwritable_cache_is_no_error(settled, stored, tmp_path, monkeypatch):
    first = page(stored, tmp_path / "a")
    count = len(settled)
    monkeypatch.setattr(drawn, "_place", lambda key, real=drawn._place: real(key).with_suffix(".damaged"))
    for path in drawn._place("x").parent.glob("*.json"):
        path.with_suffix(".damaged").write_text("[1")
    assert page(stored, tmp_path / "b") == first
    assert len(settled) == 2 * count
    monkeypatch.setattr(drawn, "_place", lambda key: tmp_path / "a" / "index.html" / f"{key}.json")
    assert page(stored, tmp_path / "c") == first


def test_the_oldest_of_too_many_go(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "_place", lambda key: tmp_path / f"{key}.json")
    monkeypatch.setattr(drawn, "MOST", 2)
    for age, name in enumerate("cab"):
        drawn.keep(name, ("<svg/>", None))
        os.utime(tmp_path / f"{name}.json", (age, age))
    drawn.tidy()
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "b"]
    assert drawn.read("a") == ("<svg/>", None)
    assert drawn.read("c") is None


def test_what_cannot_be_named_is_always_drawn():
    assert drawn.key_of(lambda: None, 0) is None
    assert drawn.key_of(partial(max, lambda: 0), 0) is None
    assert drawn.key_of(partial(max, [1, 2]), 0) != drawn.key_of(partial(max, [1, 3]), 0)
