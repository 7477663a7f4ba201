"""A family of comparisons: how many share the error, who was told apart, and what is said of ranks."""

import math

import numpy as np
import pytest

from optbench.stats.families import Settings, compare_family
from optbench.stats.ranks import bonferroni_dunn_cd, mean_rank_intervals, nemenyi_cd

NAMES = ["adam", "sgd", "wame"]
BASE = np.array([0.80, 0.81, 0.83, 0.86, 0.79, 0.84, 0.88, 0.85])
STEPS = np.linspace(0.001, 0.008, 8)
#: sgd is the worst in every block, adam and wame take turns.
TABLE = np.column_stack([BASE + STEPS, BASE - 0.1 - STEPS, BASE + STEPS[::-1]])


def family(table=TABLE, kind="all", **more):
    settings = Settings("adam" if kind == "baseline" else None, kind, **more)
    return compare_family(table, NAMES, settings=settings, scope="toy")


def test_the_level_is_shared_by_the_pairs_that_can_be_compared():
    absent = TABLE.copy()
    absent[:, 2] = np.nan
    for table, count in ((TABLE, 3), (absent, 1)):
        (first, *_) = family(table).comparisons
        assert first.average.confidence == pytest.approx(1 - 0.05 / count)
        assert first.simultaneous.confidence == pytest.approx(1 - 0.05 / count)


def test_letters_and_ranks_follow_who_was_better_and_who_was_worse():
    found = family()
    words = {(c.candidate, c.baseline): c.verdict.word for c in found.comparisons}
    assert words == {
        ("adam", "sgd"): "better",
        ("adam", "wame"): "inconclusive",
        ("sgd", "wame"): "worse",
    }
    assert found.letters == ("a", "b", "a")
    assert found.rank_intervals == ((1, 2), (3, 3), (1, 2))


def test_mean_ranks_have_the_intervals_of_the_complete_blocks():
    table = TABLE.copy()
    table[3, 1] = np.nan
    complete = np.delete(table, 3, axis=0)
    low, high = mean_rank_intervals(complete)
    found = family(table)
    assert (found.n_blocks, found.n_complete_blocks) == (8, 7)
    assert found.mean_rank_low == tuple(low)
    assert found.mean_rank_high == tuple(high)
    assert found.notes == ("sgd lacks 1 of 8 blocks",)


def test_the_critical_difference_is_that_of_the_family():
    assert family().critical_difference == nemenyi_cd(3, 8, alpha=0.05)
    assert family(kind="baseline").critical_difference == bonferroni_dunn_cd(3, 8, alpha=0.05)


def test_no_complete_block_leaves_the_ranks_open_and_is_said():
    table = TABLE.copy()
    table[:4, 1] = table[4:, 2] = np.nan
    found = family(table)
    assert all(math.isnan(x) for x in (*found.mean_rank_low, *found.mean_rank_high))
    assert math.isnan(found.critical_difference)
    assert "toy: 0 complete blocks, Friedman's test needs 2" in found.notes
