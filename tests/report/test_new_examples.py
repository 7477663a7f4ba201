"""Verdicts over new test examples: read from real predictions, refused where they would mislead."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from optbench import api
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.report.build import json_text
from optbench.report.new_examples import new_examples, new_examples_table
from optbench.stats.crossed import two_way_examples
from tests.conftest import write_changed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Four seeds of two optimizers on one fixed test part, really trained. Only to be read."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("trained")
    suite = write_changed(folder, ("seeds: 2", "seeds: {init: 4}"))
    return api.run(suite, results=folder).store


@pytest.fixture
def report(trained):
    spec, results, _ = api.gather_results(trained)
    return analyse(results, spec)


def test_the_verdict_over_new_examples_is_that_of_the_stored_predictions(trained, report):
    (found,) = report.new_examples
    (row,) = found.rows
    (board,) = report.boards
    trials = report.results.trials
    truth = None
    with Store(trained) as store:
        from optbench.report.diagnostics import diagnose

        scores = {}
        for name in ("adam", "wame"):
            mine = trials[trials["optimizer"] == name].sort_values("seed_init")["trial_id"]
            diagnoses = [diagnose(store, next(store.trials([key]))) for key in mine]
            scores[name] = np.array([d.predicted == d.truth for d in diagnoses], dtype=float)
            truth = diagnoses[0].truth
    wanted = two_way_examples(scores["adam"], scores["wame"])
    assert row.mean == replace(wanted, confidence=row.mean.confidence)
    assert row.mean.estimate == pytest.approx(board.family.comparisons[0].mean.estimate)
    assert found.examples == board.examples == len(truth)
    assert sum(row.mean.shares) == pytest.approx(1)
    table = new_examples_table(report.new_examples)
    assert table.rows[0][2:4] == (f"{len(truth):,}", "4")
    assert any(f"about these {len(truth):,} test examples" in note for note in board.notes)
    assert board.resolution == pytest.approx(1 / len(truth))


def test_what_would_mislead_is_refused_and_said(report, monkeypatch):
    (board,) = report.boards
    results = report.results
    wrong = replace(board, examples=board.examples + 1)
    (found,) = new_examples([wrong], results)
    assert "not those that were predicted" in found.reason
    assert "not made, as the data on this machine" in new_examples_table([found]).notes[-1]
    monkeypatch.setattr("optbench.report.new_examples.MOST_PREDICTIONS", 10)
    assert "too many" in new_examples([board], results)[0].reason
    assert new_examples([replace(board, metric="test_loss")], results) == []
    assert new_examples_table([]) is None


def test_a_comparison_without_predictions_of_both_sides_is_named(report, monkeypatch):
    trials = report.results.trials
    without = set(trials[trials["optimizer"] == "adam"]["trial_id"])
    read = Store.predictions
    monkeypatch.setattr(Store, "predictions", lambda store, key: {} if key in without else read(store, key))
    (found,) = new_examples(report.boards, report.results)
    assert (found.rows, found.left_out) == ((), ("adam",))
    note = new_examples_table([found]).notes[-1]
    assert "not made for adam: fewer than two blocks hold predictions of both sides" in note
    (written,) = json.loads(json_text(replace(report, new_examples=(found,))))["new_examples"]
    assert (written["title"], written["left_out"]) == (found.board.title, ["adam"])


def test_test_parts_of_their_own_are_new_examples_already(tmp_path):
    pytest.importorskip("torch")
    store = api.run(
        write_changed(tmp_path, ("epochs: 2", "epochs: 1\n    split: {source: test}")), results=tmp_path
    ).store
    spec, results, _ = api.gather_results(store)
    (found,) = analyse(results, spec).new_examples
    assert found.rows == ()
    assert "over new ones already" in found.reason
    assert load_results(store).examples_of(results.trials) == found.examples
