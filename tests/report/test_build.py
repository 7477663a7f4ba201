from __future__ import annotations

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

from optbench import api
from optbench.records.frames import load_results
from optbench.report.build import file_name, write_report
from optbench.report.exports import ExportError, write_parquet
from optbench.report.latex import escape_latex
from tests.report.conftest import ODD_NAMES, fill_store, renamed

TEXTS = ("html", "markdown", "latex", "csv", "json")


@pytest.fixture(scope="module")
def odd_report(two_workloads, tmp_path_factory):
    results, suite, _ = two_workloads
    names = dict(zip(("wame", "adam", "sgd"), (ODD_NAMES[0], ODD_NAMES[1], ODD_NAMES[4]), strict=True))
    suite = replace(renamed(suite, names), title=ODD_NAMES[0] + ODD_NAMES[3])
    workloads = tuple(replace(w, label=ODD_NAMES[2 + i]) for i, w in enumerate(suite.workloads))
    labels = {old.label: new.label for old, new in zip(suite.workloads, workloads, strict=True)}

    def change(frame):
        return frame.assign(
            optimizer=frame["optimizer"].astype(str).map(names),
            workload=frame["workload"].astype(str).map(labels),
        )

    results = replace(results, trials=change(results.trials), epochs=change(results.epochs))
    return write_report(
        results, replace(suite, workloads=workloads), tmp_path_factory.mktemp("odd"), formats=(*TEXTS,)
    )


def test_the_page_escapes_names_and_needs_nothing_from_outside(odd_report):
    page = odd_report.index.read_text("utf-8")
    assert page.count("<script") == 1
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "default-src 'none'" in page
    assert "smallest attainable" in page
    assert "ümlaut" in page


def test_odd_names_keep_every_table_whole(odd_report):
    folder = odd_report.folder
    lines = (folder / "leaderboard.md").read_text("utf-8").splitlines()
    blocks: list[set[int]] = [set()]
    for line in lines:
        if line.startswith("|"):
            blocks[-1].add(len(re.findall(r"(?<!\\)\|", line)))
        elif blocks[-1]:
            blocks.append(set())
    assert all(len(counts) <= 1 for counts in blocks)
    tex = (folder / "leaderboard.tex").read_text("utf-8")
    for environment in ("table", "tabular"):
        assert tex.count(rf"\begin{{{environment}}}") == tex.count(rf"\end{{{environment}}}") == 4
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", tex, re.DOTALL)
    assert len(tables) == 4
    for align, body in tables:
        rows = [line for line in body.splitlines() if line.strip().endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(align) - 1}
    labels = re.findall(r"\\label\{([^}]*)\}", tex)
    assert len(set(labels)) == len(labels) == len(tables)
    assert set(pd.read_csv(folder / "tables" / "leaderboard.csv")["optimizer"]) == {
        ODD_NAMES[i] for i in (0, 1, 4)
    }
    assert json.loads((folder / "report.json").read_text("utf-8"))["leaderboards"][0]["rows"]
    assert all(len(path.name) < 120 and path.name.isascii() for path in folder.iterdir())


def test_tables_carry_the_same_numbers_as_the_store(two_workloads, tmp_path):
    results, suite, _ = two_workloads
    write_report(results, suite, tmp_path, formats=("csv", "json", "latex", "markdown"))
    table = pd.read_csv(tmp_path / "tables" / "leaderboard.csv").set_index(["workload", "optimizer"])
    done = results.trials[results.trials["status"] == "completed"]
    for key, mean in done.groupby(["workload", "optimizer"])["test_accuracy"].mean().items():
        assert table.loc[key, "mean"] == pytest.approx(mean)
        assert f"{mean * 100:.2f}" in (tmp_path / "leaderboard.tex").read_text("utf-8")
    assert table.loc[("second", "sgd"), "diverged"] == 2
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))
    adam = next(r for r in content["leaderboards"][0]["rows"] if r["optimizer"] == "adam")
    assert adam["comparison"]["verdict"]["word"] == table.loc[("second", "adam"), "verdict"]
    pairs = pd.read_csv(tmp_path / "tables" / "comparisons.csv")
    assert len(pairs) == 2 * (2 + 3)
    assert len(pd.read_csv(tmp_path / "tables" / "trials.csv")) == 36


def test_the_best_mean_is_bold_and_p_values_are_marked(made_results, tmp_path):
    wame = [0.80 + i / 100 for i in range(8)]
    results, suite = made_results({"wame": wame, "adam": [x + 0.05 + i / 500 for i, x in enumerate(wame)]})
    write_report(results, suite, tmp_path / "r", formats=("latex",))
    tex = (tmp_path / "r" / "leaderboard.tex").read_text("utf-8")
    bold = [line for line in tex.splitlines() if r"\mathbf" in line]
    assert len(bold) == 1
    assert "& adam &" in bold[0]
    assert "^{**}" in bold[0]
    assert r"\toprule" in tex


def test_plots_are_written_as_png_svg_and_pdf(made_results, tmp_path):
    results, suite = made_results({"wame": [0.8, 0.9], "adam": [0.85, 0.9]})
    written = write_report(results, suite, tmp_path / "r", formats=("plots",))
    endings = {path.suffix for path in written.files}
    assert endings == {".png", ".svg", ".pdf"}
    stems = {path.stem for path in written.files}
    assert {"differences_digits_mlp", "loss_digits_mlp", "pairs_digits_mlp"} <= stems
    assert len(written.files) == 3 * len(stems)
    with Image.open(written.folder / "plots" / "loss_digits_mlp.png") as image:
        assert image.width > 1000
        assert len(image.convert("L").getcolors(256)) > 10


def test_labels_that_become_the_same_file_name_do_not_overwrite_each_other(tmp_path):
    from optbench.report.build import _unique

    taken: dict[str, str] = {}
    assert file_name("a/b") == file_name("a:b") == "a_b"
    assert _unique("a_b", "a/b", taken) == "a_b"
    assert _unique("a_b", "a:b", taken) == "a_b-2"
    assert _unique("a_b", "a/b", taken) == "a_b"


def test_an_unknown_format_is_answered_with_the_known_ones(made_results, tmp_path):
    results, suite = made_results({"wame": [0.8], "adam": [0.85]})
    with pytest.raises(ExportError, match=r"'word': not known; choose among html, markdown"):
        write_report(results, suite, tmp_path / "r", formats=("word",))


def test_parquet_needs_pyarrow_and_says_so(made_results, tmp_path, monkeypatch):
    results, _ = made_results({"wame": [0.8], "adam": [0.85]})
    monkeypatch.setattr("optbench.report.exports.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install .*\[parquet\]"):
        write_parquet(results, tmp_path)


def test_parquet_reads_back(made_results, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra named parquet is not installed")
    results, _ = made_results({"wame": [0.8], "adam": [0.85]})
    paths = write_parquet(results, tmp_path)
    assert [path.name for path in paths] == ["trials.parquet", "epochs.parquet"]
    assert len(pd.read_parquet(paths[1])) == len(results.epochs)


def test_latex_escapes_give_every_character_as_it_stands():
    assert escape_latex("a_b & 5% #1 $x$ {y} ~ ^ \\") == (
        r"a\_b \& 5\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert escape_latex("🚀é\n") == "[U+1F680]é "


def test_several_stores_are_analysed_together(write_suite, tmp_path):
    from optbench.suite.load import load_suite

    first = load_suite(write_suite(("suite: tiny", "suite: one"), name="one.yaml"))
    second = load_suite(
        write_suite(
            ("suite: tiny", "suite: two"),
            ("adam: {lr: 0.01}", "adam: {lr: 0.02}\n  sgd: {lr: 0.1}"),
            name="two.yaml",
        )
    )
    a = fill_store(first, tmp_path / "one", lambda t: 0.8)
    b = fill_store(second, tmp_path / "two", lambda t: 0.9)
    suite, results, folder = api.gather_results(a, b)
    assert folder.name == "one_two"
    assert set(results.trials["optimizer"]) == {"wame", "adam [one]", "adam [two]", "sgd"}
    assert (results.trials["optimizer"] == "wame").sum() == 2, "a trial of both stores counts once"
    assert set(results.epochs["optimizer"].astype(str)) == set(results.trials["optimizer"])
    assert set(suite.optimizers) == {"wame", "adam [one]", "adam [two]", "sgd"}
    written = api.report(a, b, out=tmp_path / "out", formats=("csv",), baseline="sgd", alpha=0.1)
    table = pd.read_csv(written.folder / "tables" / "leaderboard.csv")
    assert set(table["baseline"]) == {"sgd"}


def test_a_crash_in_one_store_gives_way_to_the_record_in_another(write_suite, tmp_path):
    from optbench.suite.load import load_suite

    suite = load_suite(write_suite())
    a = fill_store(suite, tmp_path / "a", lambda t: "crashed")
    b = fill_store(suite, tmp_path / "b", lambda t: 0.9)
    for order in ((a, b), (b, a)):
        assert set(load_results(*order).trials["status"]) == {"completed"}
