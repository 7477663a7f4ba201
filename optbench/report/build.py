"""Write a report folder: page, tables and plots."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optbench.frames import Results
from optbench.report import html
from optbench.report.leaderboard import Leaderboard, leaderboards
from optbench.report.text import leaderboard_table, markdown
from optbench.suite import Suite

CSV_COLUMNS = (
    "workload",
    "backend",
    "metric",
    "baseline",
    "rank",
    "optimizer",
    "completed",
    "diverged",
    "crashed",
    "mean",
    "sd",
    "median_best_epoch",
    "median_target_epoch",
    "target_reached",
    "seconds_per_epoch",
    "pairs",
    "missing_pairs",
    "difference",
    "difference_low",
    "difference_high",
    "d_z",
    "p",
    "p_adjusted",
    "smallest_attainable_p",
    "wins",
    "ties",
    "losses",
    "verdict",
)


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What was written."""

    folder: Path
    index: Path
    files: tuple[Path, ...]


def write_report(results: Results, suite: Suite, folder: Path) -> ReportFiles:
    """Write ``index.html``, ``leaderboard.md``, ``leaderboard.csv`` and the plots into a folder.

    Parameters
    ----------
    results : Results
        The records.
    suite : Suite
        Labels, targets and analysis.
    folder : Path
        Made where missing; files of the same names are replaced.

    Returns
    -------
    ReportFiles
        The paths.
    """
    from optbench.report import plots

    folder.mkdir(parents=True, exist_ok=True)
    boards = leaderboards(results, suite)
    tables = [leaderboard_table(board) for board in boards]
    files: list[Path] = []
    images: dict[str, Path] = {}
    for board in boards:
        epochs = results.epochs
        if len(epochs):
            mine = (epochs["workload"] == board.workload) & (epochs["backend"] == board.backend)
            epochs = epochs[mine]
        if len(epochs):
            stem = folder / f"loss_{file_name(board.title)}"
            written = plots.save(plots.loss_curves(epochs, title=board.title), stem)
            images[board.title] = written[0]
            files += written
    texts = {
        "leaderboard.md": "\n".join([f"# {suite.title}\n", *(markdown(table) for table in tables)]),
        "leaderboard.csv": _csv(boards),
        "index.html": html.render(results, suite, tables=tables, plots=images),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
        files.append(folder / name)
    return ReportFiles(folder=folder, index=folder / "index.html", files=tuple(files))


def file_name(label: str) -> str:
    """Turn a label into a file name: letters, digits, dots and dashes, at most 80 characters."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", label).strip("._")[:80] or "workload"


def _csv(boards: Sequence[Leaderboard]) -> str:
    """Write the leaderboards as numbers, in the metric's own unit, one row an optimizer."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for board in boards:
        for row in board.rows:
            c = row.comparison
            head = [board.workload, board.backend, board.metric, board.baseline, row.rank, row.optimizer]
            trials = [row.completed, row.diverged, row.crashed, row.mean, row.sd, row.best_epoch]
            cost = [row.target_epoch, row.target_reached, row.seconds_per_epoch]
            compared: list[object] = [""] * 13
            if c and c.mean and c.standardized and c.signed_rank and c.rank:
                compared = [c.n, board.blocks - c.n, c.mean.estimate, c.mean.low, c.mean.high]
                compared += [c.standardized.d_z, c.signed_rank.pvalue, c.p_adjusted, c.smallest_adjusted_p]
                compared += [c.rank.wins, c.rank.ties, c.rank.losses, c.verdict.word]
            writer.writerow([*head, *trials, *cost, *compared])
    return stream.getvalue()
