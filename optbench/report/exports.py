"""The report in other formats: LaTeX, CSV, JSON, Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optbench.errors import UserError
from optbench.records.frames import Results, load_results
from optbench.records.step_times import median
from optbench.report.across import Across, SettingComparison
from optbench.report.failures import Failure
from optbench.report.leaderboard import Leaderboard, Row
from optbench.report.text import TextTable, number
from optbench.stats.common import to_plain
from optbench.suite.spec import Suite

#: Version of the JSON export's keys.
SCHEMA = "optbench-report-1"

CSV_COLUMNS = (
    "workload",
    "backend",
    "device",
    "precision",
    "metric",
    "baseline",
    "rank",
    "rank_high",
    "group",
    "optimizer",
    "completed",
    "diverged",
    "crashed",
    "mean",
    "mean_low",
    "mean_high",
    "sd",
    "mean_at_best_epoch",
    "median_best_epoch",
    "median_target_epoch",
    "median_target_seconds",
    "target_reached",
    "seconds_per_epoch",
    "step_ms",
    "state_bytes",
    "tuning_seconds",
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
_COMPARED = 13
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "±": r"\ensuremath{\pm}",
    "–": "--",
    "—": "---",
    "µ": r"\ensuremath{\mu}",
}


class ExportError(UserError):
    """A format that cannot be written here; the message says what brings it."""


def csv_text(boards: Sequence[Leaderboard]) -> str:
    """Write the leaderboards as numbers, in the metric's own unit, one row an optimizer."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for board in boards:
        where = [board.workload, board.backend, board.device, board.precision, board.metric, board.baseline]
        for row in board.rows:
            head = [row.rank, row.rank_high, row.letters, row.optimizer]
            trials = [row.completed, row.diverged, row.crashed, row.mean, row.mean_low, row.mean_high, row.sd]
            best = [row.at_best_epoch, row.best_epoch]
            cost = [row.target_epoch, row.target_seconds, row.target_reached, row.seconds_per_epoch]
            cost += [row.step_ms, row.state_bytes, row.tuning_seconds]
            writer.writerow([*where, *head, *trials, *best, *cost, *_compared(board, row)])
    return stream.getvalue()


def _compared(board: Leaderboard, row: Row) -> list[object]:
    c = row.comparison
    if c is None:
        return [""] * _COMPARED
    if not (c.mean and c.standardized and c.signed_rank and c.rank):
        return [c.n, board.blocks - c.n, *[""] * (_COMPARED - 3), c.verdict.word]
    found: list[object] = [c.n, board.blocks - c.n, c.mean.estimate, c.mean.low, c.mean.high]
    found += [c.standardized.d_z, c.signed_rank.pvalue, c.p_adjusted, c.smallest_adjusted_p]
    return [*found, c.rank.wins, c.rank.ties, c.rank.losses, c.verdict.word]


def json_text(
    suite: Suite,
    results: Results,
    boards: Sequence[Leaderboard],
    *,
    overall: Iterable[Across] = (),
    settings: Iterable[SettingComparison] = (),
    methods: str = "",
    missing: Iterable[Failure] = (),
) -> str:
    """Write everything computed as JSON: NaN becomes null, infinities the strings "inf" and "-inf".

    ``missing`` names what could not be made, and is only there where something could not.
    """
    counts = results.trials["status"].value_counts().to_dict() if len(results.trials) else {}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "suite": suite.name,
        "title": suite.title,
        "made_data": any(meta.get("smoke") for meta in results.meta),
        "planned": results.planned,
        "trials": counts,
        "analysis": suite.analysis,
        "leaderboards": [_fields(board, {"table", "reached", "measure"}) for board in boards],
        "across": [_fields(item, {"times", "cells", "measure"}) for item in overall],
        "settings": list(settings),
        "refusals": results.refusals,
        "methods": methods,
        "timing": [{"entry": entry, "step": median(entry.step_seconds)} for entry in results.passes],
        "environments": results.environments,
    }
    if failed := [{"part": found.part, "reason": found.reason} for found in missing]:
        content["missing"] = failed
    return json.dumps(to_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _fields(item: Any, leave_out: set[str]) -> dict[str, Any]:
    names = (*item.__dataclass_fields__, "all_pairs")
    return {name: getattr(item, name) for name in names if name not in leave_out}


def latex_text(boards: Sequence[Leaderboard]) -> str:
    r"""Write the leaderboards as LaTeX tables; the document needs ``\usepackage{booktabs}`` and T1 fonts.

    Returns
    -------
    str
        One ``table`` environment a leaderboard. The best mean is bold; ``*``, ``**`` and ``***`` mark
        adjusted p-values up to 0.05, 0.01 and 0.001 (the declared level decides the verdict, not the marks).
    """
    head = (
        "% Written by optbench. Preamble: \\usepackage[T1]{fontenc} \\usepackage{booktabs} "
        "\\usepackage{textcomp}\n"
    )
    return head + "\n".join(_latex_table(board, number) for number, board in enumerate(boards, start=1))


def _latex_table(board: Leaderboard, position: int) -> str:
    factor, digits = board.measure.factor, board.measure.digits
    means = [row.mean for row in board.rows if math.isfinite(row.mean)]
    best = (max if board.maximise else min)(means, default=math.nan)
    lines = []
    for row in board.rows:
        mean = "--"
        if math.isfinite(row.mean):
            text = number(row.mean * factor, digits)
            spread = rf" \pm {row.sd * factor:.{digits}f}" if math.isfinite(row.sd) else ""
            mean = rf"$\mathbf{{{text}{spread}}}$" if row.mean == best else f"${text}{spread}$"
        rank = f"{row.rank}" if row.rank == row.rank_high else f"{row.rank}--{row.rank_high}"
        cells = [rank, escape_latex(row.optimizer), mean, *_latex_comparison(board, row, factor, digits)]
        lines.append(" & ".join(cells) + r" \\")
    used = sorted({c.n for c in board.family.comparisons})
    pairs = f"{used[0]}" if len(used) == 1 else f"{used[0]} to {used[-1]}" if used else "0"
    smallest = [c.smallest_adjusted_p for c in board.family.comparisons if c.n]
    correction = "uncorrected" if board.correction == "none" else f"after {board.correction.title()}"
    caption = (
        f"{escape_latex(board.title)}: {escape_latex(board.measure.heading)}, mean $\\pm$ standard "
        f"deviation over completed trials; difference to {escape_latex(board.baseline)} with "
        f"{(1 - board.alpha) * 100:g}\\,\\% interval, positive is better; {pairs} pairs, signed-rank test, "
        f"$p$ {correction}"
        + (f" (smallest attainable {max(smallest):.3g})" if smallest else "")
        + r". $^{*}\,p\le .05$, $^{**}\,p\le .01$, $^{***}\,p\le .001$."
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{{_label(board, position)}}}",
            r"  \begin{tabular}{rlrrrl}",
            r"    \toprule",
            r"    Rank & Optimizer & Mean & Difference & $p$ & Verdict \\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_comparison(board: Leaderboard, row: Row, factor: float, digits: int) -> list[str]:
    c = row.comparison
    if c is None:
        return ["--", "--", "baseline" if row.optimizer == board.baseline else "--"]
    if c.mean is None:
        return ["--", "--", c.verdict.word]
    difference = "--"
    if math.isfinite(c.mean.estimate):
        difference = f"${c.mean.estimate * factor:+.{digits}f}"
        if math.isfinite(c.mean.low):
            difference += f"\\ [{c.mean.low * factor:+.{digits}f}, {c.mean.high * factor:+.{digits}f}]"
        difference += "$"
    p = "--"
    if not math.isnan(c.p_adjusted):
        marks = "*" * sum(c.p_adjusted <= level for level in (0.05, 0.01, 0.001))
        p = ("${<}.001" if c.p_adjusted < 0.001 else f"${c.p_adjusted:.3f}") + f"^{{{marks}}}$"
    return [difference, p, c.verdict.word]


def _label(board: Leaderboard, position: int) -> str:
    """Letters, digits and dashes only; the number keeps labels apart."""
    word = "".join(c if c.isascii() and c.isalnum() else "-" for c in board.title).strip("-")[:60]
    return f"tab:{word or 'workload'}-{position}"


def escape_latex(text: str) -> str:
    r"""Write a text so that LaTeX sets it as it stands.

    Letters up to Latin Extended-A pass; what a standard font lacks (an emoji) is written as its code point.

    Examples
    --------
    >>> escape_latex("50% of a_b & c")
    '50\\% of a\\_b \\& c'
    """

    def one(character: str) -> str:
        if character in _LATEX:
            return _LATEX[character]
        code = ord(character)
        if code < 32 or code == 127:
            return " "
        if code < 127 or 0xC0 <= code <= 0x17F:
            return character
        return rf"[U+{code:04X}]"

    return "".join(map(one, text))


def table_csv(table: TextTable) -> str:
    """Write any of the report's tables as CSV: exact values where the table has them, else its text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    for position, row in enumerate(table.rows):
        values = table.values[position] if table.values else [None] * len(row)
        writer.writerow([text if value is None else value for text, value in zip(row, values, strict=True)])
    return stream.getvalue()


def write_parquet(results: Results, folder: Path) -> list[Path]:
    """Write ``trials.parquet``, ``epochs.parquet``, and where there was tuning those tables too.

    Raises
    ------
    ExportError
        If pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise ExportError(
            "parquet: pyarrow is not installed; bring it with `pip install optbench[parquet]`, or ask for csv"
        )
    written = []
    for name in ("trials", "epochs", "tuning", "untuned"):
        frame = getattr(results, name)
        if len(frame):
            path = folder / f"{name}.parquet"
            frame.to_parquet(path, engine="pyarrow", index=False)
            written.append(path)
    return written


def write_frames(store: Path, folder: Path, kind: str) -> list[Path]:
    """Write a store's tables as files: trials and epochs, and where it was tuned tuning and untuned.

    JSON is a list of records. Raises :class:`ExportError` where pyarrow is missing.
    """
    results = load_results(store)
    folder.mkdir(parents=True, exist_ok=True)
    frames = {name: getattr(results, name) for name in ("trials", "epochs", "tuning", "untuned")}
    if kind == "parquet":
        return write_parquet(results, folder)
    written = []
    for name, frame in frames.items():
        if len(frame):
            path = folder / f"{name}.{kind}"
            if kind == "csv":
                frame.to_csv(path, index=False, lineterminator="\n")
            else:
                frame.to_json(path, orient="records", indent=1)
            written.append(path)
    return written
