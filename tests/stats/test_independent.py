"""Tables of independent runs: chosen by their seeds, compared as groups, against targets and records."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from optbench.records.tables import read_runs
from optbench.report.independent_terminal import render_independent
from optbench.stats.common import StatsError
from optbench.stats.independent import are_independent, compare_independent
from optbench.stats.unpaired import compare_unpaired, skewed_welch, welch
from tests.conftest import SHARED

RUNS = SHARED / "data" / "nanogpt-track3" / "runs.csv"


def runs(groups, **columns):
    rows = [("d", name, v) for name, values in groups.items() for v in values]
    frame = pd.DataFrame(rows, columns=["dataset", "optimizer", "loss"])
    return frame.assign(seed=range(len(frame)), **columns)


def test_disjoint_seeds_are_independent_and_shared_ones_pairs():
    frame = runs({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    assert are_independent(frame)
    assert not are_independent(frame.assign(seed=[0, 1, 0, 1]))
    assert not are_independent(frame.assign(seed=[0, 1, 1, 2]))  # one shared seed is a pair
    assert not are_independent(runs({"a": [1.0], "b": [2.0]}))  # one run each: a matrix
    assert not are_independent(runs({"a": [1.0, 2.0]}))


def test_groups_are_compared_as_the_functions_do_and_a_smaller_loss_is_better():
    rng = np.random.default_rng(0)
    groups = {"a": rng.normal(3.3, 0.01, 8), "b": rng.normal(3.2, 0.01, 9)}
    found = compare_independent(runs(groups), metric="loss", maximise=False, baseline="a")
    assert found.comparisons["d"] == compare_unpaired(groups, baseline="a", maximise=False)
    (c,) = found.comparisons["d"]
    assert c.verdict.word == "better"
    assert c.welch.low > 0
    json.dumps(found.to_dict(), allow_nan=False)
    frame = runs(groups)
    status = np.where(frame.index == 0, "crashed", np.where(frame.index == 9, "diverged", "completed"))
    lost = compare_independent(frame.assign(status=status), metric="loss", maximise=False, baseline="a")
    assert lost.comparisons["d"][0].n_baseline == 7
    assert "diverged" in lost.comparisons["d"][0].welch.reason
    assert any("1 of 17 runs have no loss" in note for note in lost.notes)


def test_a_long_tail_against_the_finding_takes_more():
    rng = np.random.default_rng(1)
    hits = np.zeros(2)
    for _ in range(600):
        x, y = 1 - rng.exponential(size=10), 3 * (1 - rng.exponential(size=10))
        plain, careful = welch(x, y), skewed_welch(x, y)
        hits += [plain.pvalue <= 0.05, careful.pvalue <= 0.05]
        assert careful.low <= plain.low
        assert careful.high >= plain.high
        assert (careful.pvalue <= 0.05) == (careful.low > 0 or careful.high < 0)
    assert hits[1] / 600 <= 0.05 + 3 * 0.009
    assert hits[0] > hits[1]


def test_what_records_need_is_asked_for():
    frame = runs({"a": [3.27, 3.26], "b": [3.25, 3.24]}, steps=[9, 9, 8, 8])
    asked = {"metric": "loss", "maximise": False, "loss_per_step": 0.0}
    with pytest.raises(StatsError, match="give the target and the known sd"):
        compare_independent(frame, **asked)
    asked |= {"target": 3.28, "sd": 0.001}
    assert [r.is_record for r in compare_independent(frame, **asked).records] == [True, True]
    with pytest.raises(StatsError, match="no column steps"):
        compare_independent(frame.drop(columns="steps"), **asked)
    with pytest.raises(StatsError, match="found 9, 7 in a"):
        compare_independent(frame.assign(steps=[9, 7, 8, 8]), **asked)
    with pytest.raises(StatsError, match="better larger"):
        compare_independent(frame, **(asked | {"maximise": True}))
    with pytest.raises(StatsError, match="baseline: found 'c', allowed are a, b"):
        compare_independent(frame, metric="loss", maximise=False, baseline="c")


@pytest.mark.skipif(not RUNS.exists(), reason="the shared data are not here")
def test_the_published_runs_are_judged_by_their_own_rule_from_the_file():
    from optbench.records.readers.naming import Naming

    table = read_runs(RUNS, metric="val_loss", naming=Naming(names={"group": "optimizer", "run": "seed"}))
    found = table.compare_independent(target=3.28, sd=0.0013, loss_per_step=4.5e-5, alpha=0.001)
    assert found.comparisons == {}  # nobody asked for them
    assert len(found.targets) == len(found.records) == 48
    frame = pd.read_csv(RUNS)
    for t in found.targets:
        x = frame[frame.group == t.optimizer].val_loss
        p = stats.norm.cdf((x.mean() - 3.28) / (0.0013 / len(x) ** 0.5))
        assert t.result.pvalue == pytest.approx(p)
        assert t.result.reached == (p < 0.001)
    assert [d.group for d in found.duplicates] == ["g06", "g09", "g13", "g19", "g22", "g33"]
    claimed = [r for r in found.records if r.is_record]
    assert claimed == sorted(claimed, key=lambda r: -r.steps)
    beaten = {r.group: r.beats_previous for r in claimed}
    assert beaten["g10"]
    assert not beaten["g12"]
    assert len(render_independent(found)) == 4
