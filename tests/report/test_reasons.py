"""What is said below a table of its words."""

import numpy as np

from optbench.report.reasons import left_open, unseen
from optbench.stats.families import Settings, compare_family
from optbench.stats.verdict import Verdict


def test_what_words_leave_open_is_told_once_where_it_is_the_same_and_else_by_name():
    same = Verdict("better", "", "in the typical run", "no run of 9 collapsed")
    other = Verdict("worse", "", "in the typical run", "collapsed runs: 1 of 9 of e, 0 of 9 of b")
    assert left_open([("c", same), ("d", same)]) == "no run of 9 collapsed"
    assert left_open([("c", same), ("e", other), ("d", same)]) == (
        "c and d (no run of 9 collapsed); e (collapsed runs: 1 of 9 of e, 0 of 9 of b)"
    )
    assert left_open([("x", Verdict("inconclusive", ""))]) == ""


def test_the_note_is_about_the_typical_run_and_names_who_collapsed():
    rng = np.random.default_rng(0)
    base = rng.normal(0.8, 0.01, 12)
    lost = base - 0.1 + rng.normal(0, 0.001, 12)
    lost[3] = 0.1
    table = np.column_stack([base, base + 0.05 + rng.normal(0, 0.001, 12), lost, base])
    names = ["adam", "good", "lost", "same"]
    family = compare_family(table, names, settings=Settings("adam", "baseline"), scope="d")
    assert [c.verdict.word for c in family.comparisons] == ["better", "worse", "inconclusive"]
    (note,) = unseen(family.comparisons)
    assert note.startswith("Better and worse are about the typical run: good (no run of 12 collapsed, which ")
    assert "lost (collapsed runs: 1 of 12 of lost, 0 of 12 of adam)" in note
    assert unseen(family.comparisons[2:]) == []
