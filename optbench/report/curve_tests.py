"""Where whole training curves differ: one test over all epochs, each optimizer against the baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from optbench.records.frames import Results
from optbench.records.pairing import counted_block
from optbench.report.leaderboard import Leaderboard, of_board
from optbench.report.text import TextTable, Value, p_value
from optbench.stats.common import FloatArray
from optbench.stats.curves import max_t

#: Longer curves are tested at this many epochs, evenly spread.
MOST_POINTS = 200


def curves_table(boards: Sequence[Leaderboard], results: Results) -> TextTable | None:
    """Lay out the tests of whole validation curves; None where there are none.

    Parameters
    ----------
    boards : sequence of Leaderboard
    results : Results
        With the epochs.

    Returns
    -------
    TextTable or None
        By sign flips of whole curves (max-T), so that an epoch is called better only at a level that holds
        for all epochs and all comparisons of a workload. Pairs with a diverged trial are left out.
    """
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value, ...]] = []
    for board in boards if len(results.epochs) else ():
        column = board.metric.replace("test_", "val_", 1)
        if column not in results.epochs or board.crossing is not None:
            continue
        curves = _curves(board, results, column)
        names = [c.candidate for c in board.family.comparisons if c.n > 1]
        level = board.alpha / (1 if board.correction in ("none", "bh") else max(1, len(names)))
        for name in names:
            d = _differences(curves, name, board)
            if d is None:
                continue
            epochs, pairs = d
            test = max_t(pairs, alpha=level)
            p = min(1.0, test.pvalue * board.alpha / level)
            found = test.adjusted_p <= level
            sides = [
                _ranges(epochs[found & (sign * test.mean > 0)].tolist(), epochs.tolist()) for sign in (1, -1)
            ]
            cells = (board.title, name, str(len(pairs)), f"{epochs[0]}-{epochs[-1]}", p_value(p), *sides)
            rows.append(cells)
            values.append((board.title, name, len(pairs), None, p, None, None))
    if not rows:
        return None
    return TextTable(
        title="Whole curves (exploratory)",
        columns=("workload", "optimizer", "pairs", "epochs", "p, anywhere", "better at", "worse at"),
        always=frozenset({"workload", "optimizer", "p, anywhere", "better at", "worse at"}),
        rows=tuple(rows),
        notes=(
            "Differences of the validation curves to the baseline's, tested at all epochs at once by sign "
            "flips of whole curves (max-T); p and epochs hold for all epochs and all comparisons of a "
            "workload together (Bonferroni). It describes the way; the verdicts above are about its end.",
        ),
        values=tuple(values),
    )


def _curves(board: Leaderboard, results: Results, column: str) -> pd.DataFrame:
    """The curves of completed trials, larger is better: rows (optimizer, block), columns epochs."""
    trials = of_board(results.trials, board)
    trials = trials[trials["status"] == "completed"]
    keys = pd.DataFrame(
        {
            "trial_id": trials["trial_id"].astype(object),
            "name": trials["optimizer"],
            "block": counted_block(trials),
        }
    )
    epochs = results.epochs[results.epochs["trial_id"].isin(keys["trial_id"])]
    part = epochs[["trial_id", "epoch", column]].astype({"trial_id": object})
    table = part.merge(keys, on="trial_id").pivot(index=["name", "block"], columns="epoch", values=column)
    sign = 1.0 if results.metrics[column].maximised else -1.0
    return sign * table


def _differences(
    curves: pd.DataFrame, name: str, board: Leaderboard
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], FloatArray] | None:
    """Differences of the pairs over the epochs that all of them trained, after epoch 0."""
    known = set(curves.index.get_level_values("name"))
    if not {name, board.baseline} <= known:
        return None
    d = (curves.loc[name] - curves.loc[board.baseline]).dropna(how="all")
    d = d.loc[:, d.notna().all()]
    d = d.loc[:, [epoch for epoch in d.columns if epoch > 0]]
    if len(d) < 2 or d.shape[1] < 2 or not np.isfinite(d.to_numpy(dtype=float)).all():
        return None
    chosen = np.unique(np.linspace(0, d.shape[1] - 1, min(d.shape[1], MOST_POINTS)).round().astype(int))
    d = d.iloc[:, chosen]
    return d.columns.to_numpy(dtype=np.int64), d.to_numpy(dtype=np.float64)


def _ranges(different: Sequence[int], epochs: Sequence[int]) -> str:
    """Write epochs as ranges of neighbours among those tested."""
    place = {epoch: i for i, epoch in enumerate(epochs)}
    runs: list[list[int]] = []
    for epoch in different:
        if runs and place[epoch] == place[runs[-1][-1]] + 1:
            runs[-1].append(epoch)
        else:
            runs.append([epoch])
    ranges = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    most = 4
    return ", ".join(ranges[:most]) + (f" and {len(ranges) - most} more" if len(ranges) > most else "") or "-"
