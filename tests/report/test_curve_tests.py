"""The table of whole curves: the epochs of the max-T test, at a level for all of them."""

from __future__ import annotations

import numpy as np
import pytest

from optbench.report.analysis import analyse
from optbench.report.curve_tests import _ranges, curves_table
from optbench.stats.curves import max_t


def test_the_table_has_the_test_of_the_curves_of_completed_pairs(made_results):
    low = [0.80, 0.81, 0.82, 0.79, 0.80, 0.815, 0.83]
    results, spec = made_results({"wame": low, "adam": [v + 0.05 for v in low[:6]] + ["diverged"]})
    report = analyse(results, spec)
    table = curves_table(report.boards, report.results)
    (row,) = table.rows
    cells = dict(zip(table.columns, row, strict=True))
    wide = results.epochs.pivot(index=["optimizer", "seed"], columns="epoch", values="val_accuracy")
    d = (wide.loc["adam"] - wide.loc["wame"]).dropna().drop(index="6", errors="ignore")
    test = max_t(d.to_numpy()[:, 1:])
    assert table.values[0][4] == pytest.approx(test.pvalue)
    assert (cells["pairs"], cells["epochs"]) == ("6", "1-4")
    assert cells["better at"] == _ranges(list(np.flatnonzero(test.adjusted_p <= 0.05) + 1), [1, 2, 3, 4])
    assert cells["worse at"] == "-"


def test_neighbouring_epochs_are_ranges_and_long_lists_are_counted():
    assert _ranges([1, 2, 3, 7], [1, 2, 3, 5, 7]) == "1-3, 7"
    assert _ranges([], [1, 2]) == "-"
    assert _ranges([1, 3, 5, 7, 9], list(range(1, 10))) == "1, 3, 5, 7 and 1 more"
