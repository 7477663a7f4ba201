"""Pairs whose trials ran under different settings are said to, and not called proved without more."""

from __future__ import annotations

import pytest

from optbench.records.frames import load_results
from optbench.records.machines import mixed_settings, settings_of
from optbench.report.analysis import analyse
from optbench.suite.load import load_suite
from tests.report.conftest import FACTS, fill_store


@pytest.fixture
def report_of(write_suite, tmp_path):
    """Report a store of six blocks in which ``facts(optimizer, seed)`` changes the environment."""

    def make(facts):
        suite = load_suite(write_suite(("seeds: 2", "seeds: 6")))
        folder = tmp_path / "store"
        for seed in range(6):
            for name in ("wame", "adam"):
                fill_store(
                    suite,
                    folder,
                    lambda t, s=seed, n=name: (
                        0.8 + s / 100 + (n == "wame") / 10
                        if (t.optimizer, t.spec.seeds.init) == (n, s)
                        else None
                    ),
                    facts={**FACTS, **facts(name, seed)},
                )
        return analyse(load_results(folder), suite.report_spec)

    return make


CHANGED = {
    "threads": 2,
    "processor": "another",
    "framework": "torch 3",
    "deterministic": False,
    "machine": "arm64",
    "packages": {"numpy": "9"},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_that_differs_with_the_optimizer_is_said_above_and_below(report_of, name):
    plain = {"machine": "x86", "deterministic": True, "packages": {"numpy": "2"}}
    report = report_of(
        lambda optimizer, seed: {**plain, name: CHANGED[name]} if optimizer == "adam" else plain
    )
    (board,) = report.boards
    notes = " ".join(board.notes)
    assert "Every pair was proved" not in notes
    assert "6 of 6 blocks mix settings" in notes
    assert "(adam)" in notes
    assert "cannot be told" in notes
    assert any("ran under different settings" in warning for warning in report.warnings)
    if name == "threads":
        assert "different numbers of threads (1, 2): their times are not pooled" in notes
        assert "different machines" not in notes


def test_a_few_mixed_blocks_are_counted(report_of):
    report = report_of(lambda optimizer, seed: {"threads": 2} if (optimizer, seed) == ("adam", 3) else {})
    notes = " ".join(report.boards[0].notes)
    assert "1 of 6 blocks mix settings" in notes
    assert "threads 1 (wame) and 2 (adam)" in notes
    assert "cannot be told" not in notes
    assert not any("different settings" in warning for warning in report.warnings)


def test_machines_that_differ_between_blocks_alone_mix_nothing(report_of):
    report = report_of(lambda optimizer, seed: {"processor": f"number {seed}"})
    notes = " ".join(report.boards[0].notes)
    assert "Every pair was proved" in notes
    assert "mix settings" not in notes


STACKED = {"step": "stacked", "optimizer": "Adam", "kernel": "fused"}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({**STACKED, "step": "autograd"}, "(adam: stacked 4, autograd 2)"),
        ({**STACKED, "kernel": "foreach"}, "(adam: fused 4, foreach 2)"),
        (
            {"step": "graph", "optimizer": "NAdam", "kernel": "foreach"},
            "(adam: stacked, Adam, fused 4, graph, NAdam, foreach 2)",
        ),
    ],
)
def test_an_optimizer_whose_trials_round_differently_is_named(report_of, other, said):
    report = report_of(lambda optimizer, seed: other if optimizer == "adam" and seed > 3 else STACKED)
    (note,) = [note for note in report.boards[0].notes if "round differently" in note]
    assert said in note
    assert "wame:" not in note


@pytest.mark.parametrize("other", [{"step": "graph"}, {"step": "hand-written"}, {}])
def test_ways_of_the_same_bits_round_alike(report_of, other):
    report = report_of(lambda optimizer, seed: other if seed > 3 else {"step": "autograd", "kernel": "fused"})
    assert not any("round differently" in note for note in report.boards[0].notes)


def test_a_setting_that_was_not_recorded_agrees_with_all():
    full, empty = settings_of({"threads": 1, "packages": {"numpy": "2"}}, "torch"), settings_of({}, "torch")
    assert full == {"threads": "1", "numpy": "2"}
    assert mixed_settings([[("a", full), ("b", empty)]]).mixed == 0
