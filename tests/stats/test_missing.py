"""Missing runs, mixed budgets and stored precision: what must not change a verdict, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from optbench.records.tables import TableError, compare_file
from optbench.stats.common import StatsError, to_plain
from optbench.stats.compare import compare_table
from optbench.stats.missing import Sensitivity
from tests.conftest import SHARED

CASES = SHARED / "cases"


def table(datasets=7, n=5, k=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (f"d{d}", name, s, 0.8 + 0.02 * d + 0.01 * s * (d % 2) + 0.003 * i + 0.004 * rng.normal())
        for d in range(datasets)
        for s in range(n)
        for i, name in enumerate("abc"[:k])
    ]
    return pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "accuracy"])


def compared(frame, **more):
    return compare_table(frame, metric="accuracy", baseline="a", correction="none", **more)


def test_runs_that_a_third_optimizer_lacks_change_nothing_about_two_others():
    frame = table()
    whole = compared(frame)
    rng = np.random.default_rng(1)
    lost = frame[~((frame.optimizer == "c") & (rng.random(len(frame)) < 0.4))]
    frame["status"] = "completed"
    diverged = frame.copy()
    diverged.loc[(frame.optimizer == "c") & (frame.seed == 1), "status"] = "diverged"
    for changed in (compared(lost), compared(diverged)):
        assert to_plain(changed.these_datasets[0]) == to_plain(whole.these_datasets[0])
        pairs = [(whole.new_datasets, changed.new_datasets), *zip(whole.within, changed.within, strict=True)]
        for before, after in pairs:
            assert to_plain(before.comparisons[0]) == to_plain(after.comparisons[0])


def test_missing_runs_get_the_verdict_at_worst_and_at_best():
    frame = table(datasets=1, n=12, k=2)
    frame.loc[frame.optimizer == "b", "accuracy"] += 0.05
    few = compared(frame[~((frame.optimizer == "b") & (frame.seed < 1))]).within[0].comparisons[0]
    assert (few.sensitivity.worst, few.sensitivity.best) == ("better", "better")
    assert "is better whether what is missing was all worst or all best" in few.sensitivity.sentence
    many = compared(frame[~((frame.optimizer == "b") & (frame.seed < 5))]).within[0].comparisons[0]
    assert many.verdict.word == "better"
    assert (many.sensitivity.worst, many.sensitivity.best) == ("inconclusive", "better")
    assert many.sensitivity.n_missing == 5
    theirs = compared(frame[~((frame.optimizer == "a") & (frame.seed < 5))]).within[0].comparisons[0]
    assert theirs.sensitivity == many.sensitivity
    assert compared(frame).within[0].comparisons[0].sensitivity is None


def test_the_sentence_names_both_ends():
    assert Sensitivity(2, "worse", 0.01, "better", 0.02).sentence == (
        "2 pairs lack a run; its typical run would be worse if what is missing was all worst for it, better "
        "if all best"
    )


def test_two_budgets_in_one_dataset_are_refused_with_both_named():
    frame = table(datasets=2, n=6, k=2).assign(reached=True, time=5.0, budget=10.0)
    compared(frame)
    compared(frame.assign(budget=np.where(frame.dataset == "d0", 10.0, 20.0)))
    frame.loc[frame.optimizer == "b", "budget"] = 100.0
    with pytest.raises(StatsError, match="budget: found 10, 100 on dataset d0"):
        compared(frame)


@pytest.mark.skipif(not CASES.exists(), reason="the shared input files are not here")
def test_the_real_file_with_two_budgets_is_refused():
    with pytest.raises(TableError, match=r"bud.csv: budget: found 10, 100 on dataset t"):
        compare_file(CASES / "bud.csv")


def test_a_table_in_32_bits_and_counts_of_a_test_part_keep_their_ties():
    rng = np.random.default_rng(0)
    frame = table(datasets=1, n=12, k=2)
    counts = 9000 + np.round(10 * rng.normal(size=len(frame))) + 4 * (frame.optimizer == "b")
    exact = compare_table(frame.assign(accuracy=counts), metric="accuracy", baseline="a")
    for n in (10_000, 9_973):
        short = frame.assign(accuracy=(counts / n).astype(np.float32))
        found = compare_table(short, metric="accuracy", baseline="a", examples=n)
        assert found.within[0].comparisons[0].signed_rank == exact.within[0].comparisons[0].signed_rank
    said = compare_table(frame.assign(accuracy=(counts / 10_000).astype(np.float32)), metric="accuracy")
    assert (
        said.within[0].comparisons[0].signed_rank.n_ties == exact.within[0].comparisons[0].signed_rank.n_ties
    )
    assert any("32-bit floats: differences are rounded to 0.0001" in note for note in said.notes)
    odd = compare_table(frame, metric="accuracy", baseline="a", examples=10_000)
    assert any("no shares of 10000 test examples" in note for note in odd.notes)
