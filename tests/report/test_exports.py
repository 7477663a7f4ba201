"""Every exported column holds the number of its name: two that are swapped fail here."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from optbench.report import leaderboard_columns
from optbench.report.analysis import analyse, side_tables
from optbench.report.build import write_report
from optbench.report.columns import number_column
from optbench.report.exports import csv_text, json_text, table_csv, write_frames
from optbench.report.leaderboard import Leaderboard, Row
from optbench.report.leaderboard_columns import leaderboard_table, told_apart
from optbench.report.side_tables import across_table, pairs_table
from optbench.report.terminal import rich_table
from optbench.report.text import TextTable
from optbench.stats.effects import mean_difference
from optbench.task import known

THREE = ("adam: {lr: 0.01}", "adam: {lr: 0.01}\n  sgd: {lr: 0.1}")
TARGET = ("epochs: 2", "epochs: 4\n    targets: {val_accuracy: 0.8}")
BASE = [0.80, 0.81, 0.83, 0.86, 0.79, 0.84, 0.88, 0.85]
#: Against the baseline adam wins 4, ties 2, loses 1 and lacks 1; sgd diverges twice.
SCORES = {
    "wame": BASE,
    "adam": [x + d for x, d in zip(BASE, (0.01, 0.02, 0.0, 0.03, 0.0, -0.01, 0.04), strict=False)]
    + ["crashed"],
    "sgd": [*(x - 0.05 - 0.003 * k * k for k, x in enumerate(BASE[:6])), "diverged", "diverged"],
}


OF_OTHER_TASKS = (
    *("train_rmse", "val_rmse", "test_rmse"),
    *("train_bits_per_byte", "val_bits_per_byte", "test_bits_per_byte"),
)
#: Metrics that a leaderboard describes beside the tested one.
DESCRIBED = (
    *("train_accuracy", "train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss"),
    *OF_OTHER_TASKS,
    "parameters",
)


def described(report, row: Row) -> dict[str, float]:
    """Means over an optimizer's completed trials, from the trials."""
    trials = report.results.trials
    mine = trials[(trials["optimizer"] == row.optimizer) & (trials["status"] == "completed")]
    return {name: mine[name].mean() for name in DESCRIBED}


@pytest.fixture
def report(made_results):
    """Three optimizers with numbers that all differ, so that no column can stand for another."""
    results, spec = made_results(SCORES, THREE, TARGET)
    steps = results.trials["optimizer"].map({"wame": 100.0, "adam": 101.0, "sgd": 102.0})
    results.trials["steps_per_epoch"] = steps
    results.trials["state_bytes"] = steps * 1000
    results.trials["tuning_seconds"] = steps / 10
    results.trials["best_epoch"] = steps / 50
    results.trials["test_accuracy_best"] = results.trials["test_accuracy"] + 0.001
    for number, name in enumerate(DESCRIBED):
        if name != "test_accuracy":
            results.trials[name] = steps * (number + 11)
    return analyse(results, spec)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def same(text: str, value: object) -> bool:
    if value is None:
        return text == ""
    if isinstance(value, float):
        return float(text) == value or (math.isnan(float(text)) and math.isnan(value))
    return text == str(value)


def shown(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def difference(d) -> str:
    """A difference of accuracies with its interval, in percent."""
    if not math.isfinite(d.estimate):
        return "-"
    ends = "" if math.isnan(d.low) else f" [{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
    ends = " [unbounded]" if math.isinf(d.low) and math.isinf(d.high) else ends
    return f"{100 * d.estimate:+.2f}{ends}"


def expected_row(board: Leaderboard, row: Row) -> dict[str, object]:
    """What each column of leaderboard.csv is, taken from the analysis by name."""
    c = row.comparison
    return {
        "workload": board.workload,
        "backend": board.backend,
        "device": board.device,
        "precision": board.precision,
        "metric": board.metric,
        "baseline": board.baseline,
        "rank": row.rank,
        "rank_high": row.rank_high,
        "group": row.letters,
        "optimizer": row.optimizer,
        "completed": row.completed,
        "diverged": row.diverged,
        "crashed": row.crashed,
        "mean": row.mean,
        "mean_low": row.mean_low,
        "mean_high": row.mean_high,
        "sd": row.sd,
        "mean_at_best_epoch": row.at_best_epoch,
        "median_best_epoch": row.best_epoch,
        "median_target_epoch": row.target_epoch,
        "median_target_seconds": row.target_seconds,
        "target_reached": row.target_reached,
        "seconds_per_epoch": row.seconds_per_epoch,
        "step_ms": row.step_ms,
        "state_bytes": row.state_bytes,
        "tuning_seconds": row.tuning_seconds,
        "pairs": c and c.n,
        "missing_pairs": c and board.blocks - c.n,
        "difference": c and c.mean.estimate,
        "difference_low": c and c.average.low,
        "difference_high": c and c.average.high,
        "d_z": c and c.standardized.d_z,
        "p": c and c.signed_rank.pvalue,
        "p_adjusted": c and c.p_adjusted,
        "smallest_attainable_p": c and c.smallest_adjusted_p,
        "wins": c and c.rank.wins,
        "ties": c and c.rank.ties,
        "losses": c and c.rank.losses,
        "verdict": c and c.verdict.word,
        "evidence": "main question" if c else "",
        "declared": "not recorded",
        "decided_at": "",
        "difference_confidence": c and c.average.confidence,
    }


def test_every_column_of_the_leaderboard_csv_is_the_number_of_its_name(report):
    (board,) = report.boards
    written = rows_of(csv_text(report.boards))
    assert [row["optimizer"] for row in written] == [row.optimizer for row in board.rows]
    for cells, row in zip(written, board.rows, strict=True):
        means = described(report, row)
        wanted = expected_row(board, row)
        wanted |= {n if n == "parameters" else f"mean_{n}": value for n, value in means.items()}
        assert list(cells) == list(wanted)
        for name, value in wanted.items():
            assert same(cells[name], value), (row.optimizer, name)


def test_the_rows_themselves_hold_the_numbers_of_the_trials(report):
    """The analysis against the made scores: ends of intervals, counts, and medians."""
    (board,) = report.boards
    rows = {row.optimizer: row for row in board.rows}
    for name, scores in SCORES.items():
        found = [score for score in scores if isinstance(score, float)]
        interval = mean_difference(found, confidence=0.95)
        row = rows[name]
        assert row.mean == pytest.approx(sum(found) / len(found))
        assert (row.mean_low, row.mean_high) == pytest.approx((interval.low, interval.high))
        assert row.mean_low < row.mean < row.mean_high
        assert (row.completed, row.diverged, row.crashed) == (
            len(found),
            scores.count("diverged"),
            scores.count("crashed"),
        )
    adam = rows["adam"].comparison
    assert (adam.n, adam.n_missing, board.blocks - adam.n) == (7, 1, 1)
    assert (adam.rank.wins, adam.rank.ties, adam.rank.losses) == (4, 2, 1)
    assert adam.mean.low < adam.mean.estimate < adam.mean.high
    assert adam.mean.estimate == pytest.approx(0.09 / 7)
    assert rows["sgd"].comparison.signed_rank.pvalue < rows["sgd"].comparison.p_adjusted
    assert rows["sgd"].state_bytes == 102_000


def test_no_two_columns_of_the_leaderboard_csv_are_alike(report):
    """Two equal columns could be swapped unseen, so the made numbers must differ."""
    written = rows_of(csv_text(report.boards))
    columns = {name: tuple(row[name] for row in written) for name in written[0]}
    assert columns.pop("mean_test_accuracy") == columns["mean"], "here it is the tested one"
    unlike = {name: cells for name, cells in columns.items() if len(set(cells)) > 1}

    names: dict[tuple[str, ...], list[str]] = {}
    for name, cells in unlike.items():
        names.setdefault(cells, []).append(name)
    assert [alike for alike in names.values() if len(alike) > 1] == []


def test_every_cell_of_the_leaderboard_table_is_the_number_of_its_heading(report):
    (board,) = report.boards
    table = leaderboard_table(board)
    for position, row in enumerate(board.rows):
        c = row.comparison
        cells = dict(zip(table.columns, table.rows[position], strict=True))
        values = dict(zip(table.columns, table.values[position], strict=True))
        means = described(report, row)
        assert cells == {
            "#": str(row.rank) if row.rank == row.rank_high else f"{row.rank}-{row.rank_high}",
            "group": row.letters,
            "optimizer": row.optimizer,
            "test accuracy, %": f"{100 * row.mean:.2f} ± {100 * row.sd:.2f}",
            "95% CI of the mean": f"[{100 * row.mean_low:.2f}, {100 * row.mean_high:.2f}]",
            "minus wame [95% CI for all 2 together]": difference(c.average) if c else "-",
            "p (Holm)": f"{c.p_adjusted:.3f}" if c else "-",
            "d_z": shown(c.standardized.d_z, 2) if c else "-",
            "W/T/L": f"{c.rank.wins}/{c.rank.ties}/{c.rank.losses}" if c else "-",
            "verdict (main question)": c.verdict.word if c else "baseline",
            "at best epoch": f"{100 * row.at_best_epoch:.2f}",
            "best epoch": f"{row.best_epoch:.1f}",
            "train accuracy, %": shown(100 * means["train_accuracy"], 2),
            "train loss": shown(means["train_loss"], 4),
            "val accuracy, %": shown(100 * means["val_accuracy"], 2),
            "val loss": shown(means["val_loss"], 4),
            "test loss": shown(means["test_loss"], 4),
            **{
                metric.heading: shown(means[metric.name], metric.digits)
                for metric in map(known, OF_OTHER_TASKS)
            },
            "parameters": shown(means["parameters"], 0),
            "epochs to target": f"{shown(row.target_epoch, 1)} ({row.target_reached})",
            "seconds to target": shown(row.target_seconds, 2),
            "s/epoch": f"{row.seconds_per_epoch:.3f}",
            "ms/step": f"{row.step_ms:.3f}",
            "state, kB": f"{row.state_bytes / 1000:.1f}",
            "tuning, s": f"{row.tuning_seconds:.1f}",
            "ended": ", ".join(
                f"{count} {word}"
                for count, word in (
                    (row.completed, "done"),
                    (row.diverged, "diverged"),
                    (row.crashed, "crashed"),
                )
                if count
            ),
        }
        assert values["test accuracy, %"] == pytest.approx(100 * row.mean)
        assert values["95% CI of the mean"] == pytest.approx(100 * row.mean_low)
        assert values["p (Holm)"] == (c.p_adjusted if c else None)
        assert values["W/T/L"] == (c.rank.wins - c.rank.losses if c else None)
        assert values["state, kB"] == row.state_bytes / 1000
        assert values["ended"] == row.completed


def test_every_column_of_the_comparisons_is_the_number_of_its_name(report):
    table = pairs_table(report.boards)
    written = rows_of(table_csv(table))
    (board,) = report.boards
    families = [("declared", c) for c in board.family.comparisons]
    families += [("all pairs", c) for c in board.all_pairs.comparisons]
    assert len(written) == len(families) == 5
    for cells, text, (kind, c) in zip(written, table.rows, families, strict=True):
        wanted = {
            "workload": board.title,
            "family": kind,
            "comparison": f"{c.candidate} vs {c.baseline}",
            "n": c.n,
            "missing": c.n_missing,
            "zeros": c.signed_rank.n_zeros,
            "ties": c.signed_rank.n_ties,
            "mean difference [CI, together]": c.average.estimate,
            "Student's t [CI]": c.mean.estimate,
            "Hodges-Lehmann [CI]": c.hodges_lehmann.estimate if c.hodges_lehmann else "-",
            "d_z": c.standardized.d_z,
            "rank-biserial": c.rank.rank_biserial,
            "P(better)": c.rank.superiority,
            "p": c.signed_rank.pvalue,
            "p adjusted": c.p_adjusted,
            "smallest p": c.smallest_adjusted_p,
            "method": f"signed-rank, Pratt, {c.signed_rank.method}",
            "verdict": c.verdict.word,
            "reason": c.verdict.reason,
            "evidence": "main question" if kind == "declared" else "exploratory",
        }
        assert list(cells) == list(wanted)
        for name, value in wanted.items():
            assert same(cells[name], value), (wanted["comparison"], name)
        as_text = dict(zip(table.columns, text, strict=True))
        assert as_text["mean difference [CI, together]"] == difference(c.average)
        assert as_text["Student's t [CI]"] == difference(c.mean)
        assert as_text["Hodges-Lehmann [CI]"] == difference(c.hodges_lehmann)


def test_json_rows_are_the_rows_and_their_comparisons_by_name(report, tmp_path):
    write_report(report.results, report.spec, tmp_path, formats=("json",))
    (written,) = json.loads((tmp_path / "report.json").read_text("utf-8"))["leaderboards"]
    (board,) = report.boards
    for cells, row in zip(written["rows"], board.rows, strict=True):
        for name in Row.__dataclass_fields__:
            if name in ("comparison", "measured"):
                continue
            assert same(str(cells[name]).replace("None", "nan"), getattr(row, name)), name
        c = row.comparison
        if c is None:
            assert cells["comparison"] is None
            continue
        found = cells["comparison"]
        for part, names in {
            "mean": ("estimate", "low", "high"),
            "rank": ("wins", "ties", "losses", "rank_biserial", "superiority"),
            "signed_rank": ("pvalue", "n_zeros", "n_ties"),
        }.items():
            for name in names:
                wanted = getattr(getattr(c, part), name)
                assert same(str(found[part][name]).replace("None", "nan"), wanted), (part, name)


def test_latex_has_the_ends_of_the_intervals_in_their_order(report, tmp_path):
    write_report(report.results, report.spec, tmp_path, formats=("latex",))
    text = (tmp_path / "leaderboard.tex").read_text("utf-8")
    (board,) = report.boards
    lines = [line.strip() for line in text.splitlines() if line.strip().endswith(r"\\")]
    assert lines[0] == r"Rank & Optimizer & Mean, \% & Difference, points & $p$ & Verdict \\"
    bold = told_apart(board)
    for line, row in zip(lines[1 : len(board.rows) + 1], board.rows, strict=True):
        rank, name, mean, difference, p, verdict = line.removesuffix(r" \\").split(" & ")
        c = row.comparison
        assert rank == (str(row.rank) if row.rank == row.rank_high else f"{row.rank}--{row.rank_high}")
        assert name == row.optimizer
        text = rf"{100 * row.mean:.2f} \pm {100 * row.sd:.2f}"
        assert mean == (rf"$\mathbf{{{text}}}$" if row.optimizer in bold else f"${text}$")
        assert verdict == (c.verdict.word if c else "baseline")
        if c is None or math.isnan(c.mean.estimate):
            assert difference == "--"
        else:
            d = c.average
            ends = f"[{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
            assert difference == rf"${100 * d.estimate:+.2f}\ {ends}$"
        assert p == ("--" if c is None else f"${c.p_adjusted:.3f}^{{{'*' * (c.p_adjusted <= 0.05)}}}$")


def test_targets_are_the_numbers_of_the_analysis_by_name(report):
    (board,) = report.boards
    table = side_tables(report)["targets"]
    compared = {c.candidate: c for c in board.times.family.comparisons}
    for text, s in zip(table.rows, board.times.summaries, strict=True):
        c = compared.get(s.optimizer)
        assert dict(zip(table.columns, text, strict=True)) == {
            "workload": board.title,
            "optimizer": s.optimizer,
            "reached": f"{s.successes} of {s.n}",
            "median": f"{s.median:.4g}" if math.isfinite(s.median) else "-",
            "mean of min(T, B)": f"{s.rmst:.4g}",
            "PAR-2": f"{s.par2:.4g}",
            "ERT": f"{s.ert:.4g}" if math.isfinite(s.ert) else "-",
            "p": f"{c.p_adjusted:.3f}" if c else "-",
            "verdict": c.verdict.word if c else "baseline",
        }


def test_across_workloads_every_column_is_the_number_of_its_name(two_workloads):
    results, spec, _ = two_workloads
    (found,) = analyse(results, spec).overall
    table = across_table(found)
    for position, row in enumerate(found.rows):
        cells = dict(zip(table.columns, table.rows[position], strict=True))
        values = dict(zip(table.columns, table.values[position], strict=True))
        assert cells["optimizer"] == row.optimizer
        interval = f" [{row.mean_rank_low:.2f}, {row.mean_rank_high:.2f}]"
        if math.isfinite(row.mean_rank_low):
            assert cells["mean rank"] == f"{row.mean_rank:.2f}{interval}"
        assert values["mean rank"] == row.mean_rank
        assert values["profile area"] == row.profile
        these, new, count = row.these, row.new, row.conjunction
        if these is None:
            assert (
                cells["verdict, these (main question)"] == cells["verdict, new (exploratory)"] == "baseline"
            )
            continue
        if math.isfinite(these.estimate):
            ends = f"[{100 * these.low:+.2f}, {100 * these.high:+.2f}]"
            assert cells["these workloads: minus wame [CI]"] == f"{100 * these.estimate:+.2f} {ends}"
        assert (values["p, these"], values["p, new"]) == (these.p_adjusted, new.p_adjusted)
        assert these.p_adjusted != new.p_adjusted
        assert (cells["verdict, these (main question)"], cells["verdict, new (exploratory)"]) == (
            these.verdict.word,
            new.verdict.word,
        )
        told = f"{row.verdicts.count('better')} better"
        single = cells["within each, against wame (exploratory)"]
        assert (told in single) == ("better" in row.verdicts)
        assert (f"(sure of {count.better_on_at_least})" in single) == ("better" in row.verdicts)


def test_a_column_that_is_declared_appears_in_every_format(made_results, monkeypatch, tmp_path):
    columns = (
        *leaderboard_columns.COLUMNS,
        number_column(
            "most_epochs",
            "most epochs, %",
            measure=lambda completed: float(completed["epochs"].max()) / 7,
            digits=5,
            convert=lambda board, share: 100 * share,
        ),
        number_column("spread", "relative spread", get=lambda board, row: row.sd / row.mean, digits=4),
    )
    monkeypatch.setattr(leaderboard_columns, "COLUMNS", columns)
    results, spec = made_results({"wame": [0.8, 0.81], "adam": [0.9, 0.93]})
    write_report(results, spec, tmp_path, formats=("html", "markdown", "latex", "csv", "json"))
    (board,) = analyse(results, spec).boards
    spread = {row.optimizer: row.sd / row.mean for row in board.rows}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rich_table(leaderboard_table(board), width=200))
    texts = {name: (tmp_path / name).read_text("utf-8") for name in ("leaderboard.md", "leaderboard.tex")}
    texts |= {"terminal": console.export_text(), "html": (tmp_path / "index.html").read_text("utf-8")}
    for name, text in texts.items():
        assert re.search(r"most epochs, \\?%", text), name
        assert text.count("57.14286") >= 2, name
        assert "relative spread" in text, name
        assert all(f"{value:.4f}" in text for value in spread.values()), name
    written = {
        row["optimizer"]: row for row in rows_of((tmp_path / "tables" / "leaderboard.csv").read_text())
    }
    (stored,) = json.loads((tmp_path / "report.json").read_text())["leaderboards"]
    for row in stored["rows"]:
        name = row["optimizer"]
        assert float(written[name]["most_epochs"]) == row["most_epochs"] == 4 / 7
        assert float(written[name]["spread"]) == row["spread"] == pytest.approx(spread[name])
    assert list(written["wame"])[-2:] == ["most_epochs", "spread"]
    assert texts["leaderboard.tex"].partition("What the optimizers cost")[0].count(" & ") == 7 * 3


def test_the_json_file_counts_trials_and_names_the_analysis(report, tmp_path):
    results = replace(report.results, planned=30)
    write_report(results, report.spec, tmp_path, formats=("json",))
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert (content["suite"], content["title"]) == (report.spec.name, report.spec.title)
    assert content["planned"] == 30
    assert content["trials"] == {"completed": 21, "diverged": 2, "crashed": 1}
    assert content["analysis"]["baseline"] == "wame"
    assert content["made_data"] is False


def test_a_table_without_values_is_written_by_its_text():
    table = TextTable(title="t", columns=("a", "b"), rows=(("x", "1.50"), ("ü", "-")))
    assert table_csv(table) == "a,b\nx,1.50\nü,-\n"


def test_frames_are_written_without_an_index_into_a_folder_that_may_exist(made_results, tmp_path):
    made_results({"wame": [0.8, 0.81], "adam": [0.9, 0.93]})
    folder = tmp_path / "new" / "frames"
    for kind in ("csv", "json", "csv"):
        written = {
            path.name: path.read_text() for path in write_frames(tmp_path / "store", folder, kind).files
        }
        assert set(written) == {f"trials.{kind}", f"epochs.{kind}"}
        if kind == "csv":
            rows = rows_of(written["trials.csv"])
            assert len(rows) == 4
            assert next(iter(rows[0])) == "trial_id"
        else:
            assert len(json.loads(written["trials.json"])) == 4


def test_letters_stay_letters_in_json(made_results):
    results, spec = made_results({"wame": [0.8, 0.81], "adam": [0.9, 0.93]})
    assert "Größe" in json_text(replace(spec, title="Größe"), results, [])
