"""Reading tables of results: both forms, and errors that name the place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from optbench.records.tables import (
    TableError,
    compare_file,
    compare_predictions,
    profile_file,
    read_results,
)
from optbench.report.comparison_terminal import render_comparison, render_predictions
from optbench.stats.profiles import profile_score
from tests.conftest import SHARED
from tests.stats.published_tables import DEMSAR

LONG = """dataset,optimizer,seed,test_accuracy,status
mnist,adam,0,0.98,completed
mnist,wame,0,0.99,completed
mnist,adam,1,diverged,
mnist,wame,1,0.985,completed
mnist,adam,2,,crashed
mnist,wame,2,0.99,completed
"""


def write(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def shown(renderables, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for renderable in renderables:
        console.print(renderable)
    return console.export_text()


def test_long_table_with_words_in_cells(tmp_path):
    table = read_results(write(tmp_path, LONG))
    assert table.form == "long"
    assert table.metrics == ("test_accuracy",)
    assert table.frame.status.tolist()[2] == "diverged"
    result = compare_file(write(tmp_path, LONG), baseline="adam")
    assert (result.input.completed, result.input.diverged, result.input.missing) == (4, 1, 1)
    assert result.notes[0].startswith("long table with 6 trials")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_wide_matrix_in_any_common_separator(tmp_path, separator):
    path = tmp_path / "wide.csv"
    DEMSAR.to_csv(path, index=False, sep=separator)
    result = compare_file(path, maximise=True, baseline="C4.5")
    assert result.notes[0] == "wide matrix of 14 datasets x 4 methods (C4.5, C4.5+m, C4.5+cf, C4.5+m+cf)"
    assert [c.candidate for c in result.new_datasets.comparisons] == ["C4.5+m", "C4.5+cf", "C4.5+m+cf"]


def test_wide_matrix_without_a_direction_is_refused(tmp_path):
    with pytest.raises(
        TableError, match=r"wide.csv: metric 'value' is not known; .*--maximise or --minimise"
    ):
        compare_file(write(tmp_path, "d,x,y\na,1,2\nb,2,3\n", "wide.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: found 0 column"),
        ("dataset,x,y\n", "a header and no rows"),
        ("a,b\n1,2\n", r"line 1: found the columns a, b; a long table has"),
        ("d,x,x\na,1,2\n", "column x appears twice"),
        ("d,x,y\na,1,2\nb,1,oops\n", r"line 3, column 'y': found 'oops'; allowed are a number"),
        ("d,x,y\na,1,2\na,1,3\n", r"line 3: dataset 'a' appears again"),
        ("d,x,y\n,1,2\n", r"line 2, column 'd': empty"),
        ("dataset,seed,x,y\na,0,1,2\n", "seed or status but no column optimizer"),
        ("dataset,optimizer,acc\na,x,1\na,x,2\n", "no column seed, but several rows"),
        ("dataset,optimizer,seed,acc,loss\na,x,0,1,2\n", "found acc, loss; choose one with --metric"),
        ("dataset,optimizer,seed,acc\na,x,0,1\na,y,0,0,1,2\n", "every line needs 4 columns"),
        ("dataset,optimizer,seed,reached,time\na,x,0,maybe,2\n", r"line 2, column 'reached': found 'maybe'"),
        ("dataset,optimizer,seed,acc\na,x,0,1\na,x,0,2\na,y,0,2\n", r"\(a, x, 0\) appears 2 times"),
    ],
)
def test_errors_name_the_file_the_place_and_what_is_allowed(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(TableError, match=message) as caught:
        compare_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(TableError, match="file not found"):
        read_results(tmp_path / "no.csv")
    path = tmp_path / "bytes.csv"
    path.write_bytes(b"\xff\xfe\x00d,x\n")
    with pytest.raises(TableError, match="UTF-8"):
        read_results(path)


def test_times_alone_are_compared_on_the_fixed_budget(tmp_path):
    rows = [
        f"a,{o},{s},{'true' if s else 'false'},{t + s},20" for o, t in (("x", 9), ("y", 5)) for s in range(7)
    ]
    path = write(tmp_path, "dataset,optimizer,seed,reached,time,budget\n" + "\n".join(rows) + "\n")
    result = compare_file(path, baseline="x")
    assert result.input.metric == "time_to_target"
    c = result.within[0].comparisons[0]
    assert c.verdict.word == "better"
    assert c.signed_rank.n_zeros == 1
    assert c.mean.estimate == pytest.approx(4 * 6 / 7)
    assert result.time_to_target[0].budget == 20


def test_predictions_of_trained_models(tmp_path):
    # Bentur et al. in Fagerland et al. (2013): discordant 1 and 7 of 21, exact 0.070, mid-p 0.039.
    cells = [(1, 1)] * 1 + [(1, 0)] * 1 + [(0, 1)] * 7 + [(0, 0)] * 12
    path = write(
        tmp_path, "example,truth,m1,m2\n" + "".join(f"{i},1,{a},{b}\n" for i, (a, b) in enumerate(cells))
    )
    (result,) = compare_predictions(path, baseline="m2")
    assert (result.test.b, result.test.c, result.n) == (1, 7, 21)
    assert round(result.test.p_midp, 3) == 0.039
    assert round(result.test.p_exact, 3) == 0.070
    assert "0.0391" in shown([render_predictions([result])])
    with pytest.raises(TableError, match="allowed are truth and one column"):
        compare_predictions(write(tmp_path, "m1,m2\n1,1\n"))
    with pytest.raises(TableError, match="line 2, column 'm2': empty"):
        compare_predictions(write(tmp_path, "truth,m1,m2\n1,1,\n"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=2, max_size=6))
def test_a_written_matrix_is_read_back_exactly(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("round") / "wide.csv"
    lines = [f"d{i}," + ",".join(repr(v) for v in row) for i, row in enumerate(values)]
    path.write_text("dataset,a,b,c\n" + "\n".join(lines) + "\n")
    frame = read_results(path).frame
    back = frame.pivot(index="dataset", columns="optimizer", values="value").to_numpy()
    assert np.array_equal(back, np.array(values))


def test_the_rendering_says_n_ties_method_correction_smallest_p_and_verdict(tmp_path):
    text = "dataset,optimizer,seed,accuracy\n" + "".join(
        f"mnist,{o},{s},{0.9 + i / 100 + s / 1000}\n"
        for i, o in enumerate(("adam", "wame", "sgd"))
        for s in range(5)
    )
    out = shown(render_comparison(compare_file(write(tmp_path, text), baseline="adam")))
    flat = " ".join(out.split())
    for words in (
        "5 (0, 5)",
        "Holm within the family",
        "Wilcoxon signed-rank, Pratt zeros, exact (~: approximate)",
        "min p",
        "0.125",
        "inconclusive",
        "smallest attainable two-sided p is 0.0625",
        "7 with Holm over 2",
        "cannot be generalised",
        "95% CI for all 2 together",
    ):
        assert words in flat
    assert "no difference" not in flat
    narrow = shown(render_comparison(compare_file(write(tmp_path, text))), width=80)
    assert "-0.01 [unbounded]" in " ".join(narrow.split())
    assert all("inconclusive" in line for line in narrow.splitlines() if " vs " in line)


@pytest.mark.parametrize(
    ("metric", "good", "bad"),
    [
        ("brier_score", 0.1, 0.3),
        ("neg_mean_squared_error", -0.1, -0.3),
        ("steps_per_sec", 300, 100),
        ("Eval/Loss", 0.1, 0.3),
        ("test_acc_final", 0.9, 0.8),
    ],
)
def test_a_known_metric_needs_no_direction(tmp_path, metric, good, bad):
    rows = [f"d,{o},{s},{v + s / 1000}" for s in range(8) for o, v in (("good", good), ("bad", bad))]
    path = write(tmp_path, "\n".join([f"dataset,optimizer,seed,{metric}", *rows]), "t.csv")
    (comparison,) = compare_file(path, baseline="good").within[0].comparisons
    assert (comparison.candidate, comparison.verdict.word) == ("bad", "worse")


@pytest.mark.parametrize("metric", ["accuracy_std", "accuracy_drop", "my_score", "loss_ratio"])
def test_an_unknown_metric_is_asked_about(tmp_path, metric):
    rows = [f"d,{o},{s},{v + s / 1000}" for s in range(8) for o, v in (("good", 0.1), ("bad", 0.3))]
    path = write(tmp_path, "\n".join([f"dataset,optimizer,seed,{metric}", *rows]), "t.csv")
    with pytest.raises(
        TableError, match=f"t.csv: metric '{metric}' is not known; say which is better: --max"
    ):
        compare_file(path, baseline="good")
    (comparison,) = compare_file(path, baseline="good", maximise=False).within[0].comparisons
    assert comparison.verdict.word == "worse"


def test_the_brier_scores_of_the_shared_cases():
    path = SHARED / "cases" / "brier.csv"
    if not path.is_file():
        pytest.skip("no shared/cases beside the repository")
    result = compare_file(path, baseline="good")
    assert not result.input.maximise
    assert {c.verdict.word for c in result.within[0].comparisons} == {"worse"}


def test_a_matrix_of_times_is_scored_by_its_profile_with_held_out_workloads(tmp_path):
    path = write(tmp_path, "workload,adam,wame,sgd\na,10,25,\nb,5,4,20\n")
    scores = profile_file(path)
    times = [[10, 25, np.inf], [5, 4, 20]]
    assert [scores[name][0] for name in ("adam", "wame", "sgd")] == pytest.approx(profile_score(times))
    assert [s[1] for s in scores.values()] == pytest.approx(profile_score(times, grid=100))
    held = tmp_path / "held.csv"
    held.write_text("workload,adam,wame,sgd\na,90,10,20\n")
    withdrawn = [[np.inf, 25, np.inf], [5, 4, 20]]
    assert profile_file(path, held_out=held)["adam"][0] == pytest.approx(profile_score(withdrawn)[0])
    held.write_text("workload,adam,wame,sgd\nz,90,10,20\n")
    with pytest.raises(TableError, match="'z' is not in both tables"):
        profile_file(path, held_out=held)


def test_a_table_says_that_nothing_is_known_of_when_its_analysis_was_declared(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("dataset,adam,wame\nmnist,0.98,0.99\nkmnist,0.95,0.96\n")
    notes = compare_file(path, maximise=True, baseline="adam").to_dict()["notes"]
    assert any("when the analysis was declared is not recorded" in note for note in notes)
