"""The LaTeX of a report in a two-column article, compiled."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from optbench.report.analysis import analyse
from optbench.report.build import latex_text
from optbench.report.leaderboard_columns import told_apart
from optbench.report.paper import cost_table
from tests.report.conftest import ODD_NAMES

DOCS = Path(__file__).parents[2] / "docs" / "howto" / "paper.md"


def preamble() -> str:
    """The article of the documentation."""
    return re.search(r"```latex\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)[1]


def compiled(tex: str, folder: Path) -> str:
    """Compile the article with these tables; return the log."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("no pdflatex (Debian: texlive-latex-extra)")
    (folder / "leaderboard.tex").write_text(tex, encoding="utf-8")
    (folder / "paper.tex").write_text(preamble(), encoding="utf-8")
    done = subprocess.run(
        [program, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, log[-3000:]
    return log


def test_the_first_line_names_what_the_documented_preamble_loads(two_workloads):
    results, spec, _ = two_workloads
    head = next(line for line in latex_text(analyse(results, spec)).splitlines() if "Preamble" in line)
    named = set(re.findall(r"\\usepackage(?:\[\w+\])?\{\w+\}", head))
    assert named == set(re.findall(r"\\usepackage(?:\[\w+\])?\{\w+\}", preamble()))


@pytest.mark.parametrize("both", [False, True])
def test_it_compiles_and_no_table_is_wider_than_its_column(two_workloads, tmp_path, both):
    results, spec, _ = two_workloads
    tex = latex_text(analyse(results, spec), both_columns=both)
    assert tex.count(r"\begin{table*}" if both else r"\begin{table}") == tex.count(r"\caption{")
    log = compiled(tex, tmp_path)
    wide = [float(found) for found in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert max(wide, default=0) < 10  # a long word of the text; a table would be wider by far


def test_odd_names_compile(made_results, tmp_path):
    names = [name for name in ODD_NAMES if len(name) < 100]
    title = names[0].replace("'", "''")
    results, spec = made_results(
        {"wame": [0.8, 0.81], "adam": [0.82, 0.9]},
        ("adam: {lr: 0.01}", f"adam: {{lr: 0.01, title: '{title}'}}"),
    )
    compiled(latex_text(analyse(results, spec)), tmp_path)


def test_nothing_is_bold_where_nothing_was_told_apart(made_results):
    results, spec = made_results({"wame": [0.80, 0.81, 0.80], "adam": [0.80, 0.82, 0.79]})
    report = analyse(results, spec)
    assert told_apart(report.boards[0]) == set()
    tex = latex_text(report)
    assert r"\mathbf" not in tex
    assert "Bold" not in tex


def test_a_baseline_that_beats_all_is_bold(made_results):
    high = [0.9 + i / 200 for i in range(8)]
    results, spec = made_results({"wame": high, "adam": [x - 0.1 - i / 500 for i, x in enumerate(high)]})
    report = analyse(results, spec)
    assert told_apart(report.boards[0]) == {"wame"}
    assert latex_text(report).count(r"\mathbf") == 1


def test_there_are_tables_over_workloads_and_of_cost(two_workloads):
    results, spec, _ = two_workloads
    report = analyse(results, spec)
    tex = latex_text(report)
    assert r"\caption{Across 2 workloads (main question)}" in tex
    cost = cost_table(report.boards, results)
    if cost is not None:
        assert r"\caption{What the optimizers cost}" in tex
        assert "ms/step" in cost.columns
