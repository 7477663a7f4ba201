"""Stores of a tuned suite as one: the labels of a tuned suite stand for what its search found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optbench.records.frames import load_results
from optbench.records.merge import merge
from optbench.report.analysis import analyse
from optbench.suite.load import load_suite
from tests import made_store

pytest.importorskip("optuna", reason="the searches are made for real")
SPACE = "{wame: {lr: {log: [0.001, 0.1]}}, adam: {lr: {log: [0.001, 0.1]}}}"


@pytest.fixture
def suite(write_suite):
    tuning = f"tuning: {{trials: 6, seeds: 1, space: {SPACE}}}"
    return load_suite(write_suite(("seeds: 2", f"seeds: 4\ndevice: cpu\n{tuning}")))


def losing(word):
    """Every second tuning trial diverges, which ones the word decides."""

    def fate(trial):
        chance = made_store.drawn(word, made_store.trial_id(trial.spec)).random()
        return "diverged" if trial.role == "tuning" and chance < 0.5 else "usual"

    return fate


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_searches_with_other_winners_one_is_kept_and_the_rest_is_named(suite, tmp_path, turned):
    stores = [made_store.fill(suite, tmp_path / word, losing(word)) for word in ("a", "b")]
    first, second = (load_results(store) for store in stores)
    assert set(first.trials["trial_id"]) != set(second.trials["trial_id"]), "the winners are the same"
    merged = merge(stores[::-1] if turned else stores, tmp_path / "both")
    results = load_results(merged.store)
    kept = second if turned else first
    assert list(results.trials["trial_id"]) == list(kept.trials["trial_id"])
    lost = set(first.trials["trial_id"]) ^ set(second.trials["trial_id"])
    assert results.unplanned == len(lost - set(kept.trials["trial_id"])) > 0
    assert any(f"{results.unplanned} trials of" in line and "no table" in line for line in merged.conflicts)
    assert not analyse(results, suite.report_spec).failures


def test_seeds_that_two_machines_share_out_are_one_evaluation(suite, tmp_path):
    halves = [replace(suite, seeds=part) for part in (suite.seeds[:2], suite.seeds[2:])]
    stores = [made_store.fill(half, tmp_path / str(k), losing("a")) for k, half in enumerate(halves)]
    merged = merge(stores, tmp_path / "both")
    whole = load_results(made_store.fill(suite, tmp_path / "whole", losing("a")))
    results = load_results(merged.store)
    assert merged.conflicts == ()
    for name in ("trials", "tuning", "untuned"):
        assert set(getattr(results, name)["trial_id"]) == set(getattr(whole, name)["trial_id"])
    assert results.unplanned == 0
    assert len(results.untuned) == len(whole.untuned) > 0
