"""Looking without a report: a notebook's cell, and a page of a run in a real browser."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from html import escape

import pandas as pd
import pytest

from optbench import api
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.report.live import HOST, page, server
from optbench.task import Metrics
from tests.report.conftest import made_record
from tests.report.test_page import driver  # noqa: F401 (a fixture)

ACCURACY = Metrics()["test_accuracy"]


def test_results_show_themselves_in_a_cell(two_workloads):
    results, spec, _ = two_workloads
    shown = results._repr_html_()
    verdict = analyse(results, spec).answer.sentences[0].text
    assert escape(verdict) in shown
    assert "<h4>second (exploratory)</h4>" in shown
    assert shown.count("<table>") == shown.count("</table>") >= 3


def test_results_of_nothing_say_so(made_results):
    results, _ = made_results({"wame": [None], "adam": [None]})
    assert results._repr_html_() == "<p>0 trials of 2 planned.</p>"


def test_a_comparison_shows_itself_in_a_cell():
    rows = [("<mnist>", o, s, v + s / 100) for o, v in (("adam", 0.9), ("wame", 0.92)) for s in range(6)]
    frame = pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "accuracy"])
    shown = api.compare(frame, metric="accuracy", baseline="adam")._repr_html_()
    assert "wame is better than adam" in shown
    assert "<td>wame vs adam</td>" in shown
    assert "&lt;mnist&gt;" in shown
    assert "<mnist>" not in shown


@pytest.fixture
def growing(made_results, tmp_path):
    """A store with one of two blocks, and what adds a trial to it."""
    made_results({"wame": [0.8, None], "adam": [0.9, None]})
    path = tmp_path / "store"

    def add(score):
        with Store(path, write=True) as store:
            lacking = [t for t in plan if trial_id(t.spec) not in store.statuses()]
            store.add(made_record(lacking[0].spec, score))

    from optbench.suite.expand import trials
    from optbench.suite.load import load_suite
    from optbench.trial import trial_id

    plan = trials(load_suite(tmp_path / "tiny.yaml"), lambda *_: "cpu")
    return path, add


def test_the_page_of_a_run_is_of_the_store_as_it_is(growing):
    path, add = growing
    before = page(path, ACCURACY, every=2.0)
    assert "2 of 4 trials" in before
    assert "means over 1 whole block of 2 planned, no test" in before
    assert 'http-equiv="refresh" content="2"' in before
    assert "In short" not in before, "a test before the end is a look"
    add(0.7)
    add(0.95)
    after = page(path, ACCURACY, every=2.0)
    assert "4 of 4 trials" in after
    assert "refresh" not in after
    assert "In short" in after


def test_only_this_machine_may_look(growing):
    path, _ = growing
    with server(path, ACCURACY) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        try:
            address = f"http://{HOST}:{made.server_port}/"
            assert b"2 of 4 trials" in urllib.request.urlopen(address, timeout=30).read()
            other = urllib.request.Request(address, headers={"Host": "evil.example"})
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(other, timeout=30)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + "store.sqlite", timeout=30)
        finally:
            made.shutdown()


def test_a_browser_follows_the_run(growing, driver):  # noqa: F811
    path, add = growing
    with server(path, ACCURACY, every=1.0) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        try:
            driver.go(f"http://{HOST}:{made.server_port}/")
            state = "return document.getElementById('state').textContent"
            assert driver.run(state).startswith("2 of 4 trials")
            add(0.7)
            add(0.95)
            for _ in range(200):
                if driver.run(state).startswith("4 of 4 trials"):
                    break
                threading.Event().wait(0.1)
            assert driver.run("return document.querySelector('.answer').children.length") >= 3
        finally:
            made.shutdown()
    assert len(load_results(path).trials) == 4
