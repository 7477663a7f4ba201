"""What people's tables look like: each kind is read right, with a word, or refused with the place."""

from __future__ import annotations

import numpy as np
import pytest

from optbench.datasets.cells import TableError
from optbench.errors import UserError
from optbench.records import foreign, logs
from optbench.records.readers.naming import Naming
from optbench.records.tables import compare_file, compare_predictions, read_results

SEEDS = range(8)
ROWS = [("d", o, str(s), v + s / 1000) for o, v in (("adam", 0.90), ("sgd", 0.91)) for s in SEEDS]
NAMES = ["dataset", "optimizer", "seed", "accuracy"]


def long_text(rows=ROWS, names=NAMES, sep=",", show=str):
    lines = [sep.join(names), *(sep.join(map(show, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def write(tmp_path, text, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def verdict(path, **options):
    (comparison,) = compare_file(path, baseline="adam", **options).within[0].comparisons
    return comparison.candidate, comparison.verdict.word, comparison.n, round(comparison.mean.estimate, 9)


CLEAN = ("sgd", "better", 8, 0.01)


def comma(value):
    return str(value).replace(".", ",")


WAYS = {
    "UTF-16 with a mark": long_text().encode("utf-16"),
    "UTF-16 without a mark": long_text().encode("utf-16-le"),
    "UTF-8 with a mark": long_text().encode("utf-8-sig"),
    "CRLF": long_text().replace("\n", "\r\n").encode(),
    "CR": long_text().replace("\n", "\r").encode(),
    "a line sep=": ("sep=;\n" + long_text(sep=";")).encode(),
    "tabs": long_text(sep="\t").encode(),
    "bars": long_text(sep="|").encode(),
    "a Markdown table": "\n".join(
        f"| {' | '.join(map(str, row))} |" for row in (NAMES, ["---"] * 4, *ROWS)
    ).encode(),
    "spaces": long_text(sep="   ").encode(),
    "decimal commas": long_text(sep=";", show=comma).encode(),
    "quoted decimal commas": long_text(show=lambda c: f'"{comma(c)}"').encode(),
    "trailing separators": long_text().replace("\n", ",,\n").encode(),
    "percent signs": long_text(show=lambda c: f"{100 * c:.1f}%" if isinstance(c, float) else c).encode(),
    "a row of units": long_text([("", "", "", "[-]"), *ROWS]).encode(),
    "comments above": ("# made by us\n#\n" + long_text()).encode(),
    "a header with #": ("# " + long_text()).encode(),
    "blank lines": long_text().replace("\n", "\n\n").encode(),
    "spaces around cells": long_text(sep=" , ").encode(),
    "an index": long_text([(i, *r) for i, r in enumerate(ROWS)], ["", *NAMES]).encode(),
    "an index of pandas": long_text([(i, *r) for i, r in enumerate(ROWS)], ["Unnamed: 0", *NAMES]).encode(),
    "a counted column": long_text([(i + 1, *r) for i, r in enumerate(ROWS)], ["case", *NAMES]).encode(),
    "an index at the end": long_text([(*r, i) for i, r in enumerate(ROWS)], [*NAMES, "index"]).encode(),
    "row names of R": long_text([(i + 1, *r) for i, r in enumerate(ROWS)], NAMES).encode(),
    "capitals": long_text(names=["Dataset", "Optimizer", "SEED", "accuracy"]).encode(),
    "MLflow's names": long_text(
        names=["params.dataset", "params.optimizer", "params.seed", "metrics.accuracy"]
    ).encode(),
    "Optuna's names": long_text(
        names=["user_attrs_dataset", "params_optimizer", "user_attrs_seed", "user_attrs_accuracy"]
    ).encode(),
    "benchmarks' names": long_text(names=["problem", "solver", "random_seed", "accuracy"]).encode(),
    "a header in the middle": (long_text(ROWS[:8]) + long_text(ROWS[8:])).encode(),
    "a setting": long_text([(*r, 0.001) for r in ROWS], [*NAMES, "lr"]).encode(),
    "an epoch column": long_text(
        [(d, o, s, e, v - (1 - e) / 2) for d, o, s, v in ROWS for e in (0, 1)],
        ["dataset", "optimizer", "seed", "epoch", "accuracy"],
    ).encode(),
    "validation every second epoch": long_text(
        [(d, o, s, e, v if e == 1 else "") for d, o, s, v in ROWS for e in (0, 1)],
        ["dataset", "optimizer", "seed", "epoch", "accuracy"],
    ).encode(),
}
METRIC = {"MLflow's names": "accuracy"}


@pytest.mark.parametrize("way", [way for way in WAYS if way != "Optuna's names"])
def test_the_same_numbers_have_the_same_verdict_in_every_way_of_writing(tmp_path, way):
    assert verdict(write(tmp_path, WAYS[way]), metric=METRIC.get(way)) == CLEAN


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("decimal commas", "decimal commas"),
        ("percent signs", "percentages"),
        ("a row of units", "units"),
        ("an index", "is an index of the rows and is left out"),
        ("a counted column", "counts the rows and is left out"),
        ("UTF-16 with a mark", "UTF-16"),
        ("a header in the middle", "line 10 repeats the header"),
        ("benchmarks' names", "column solver is taken as the optimizer"),
        ("a line sep=", "names the separator"),
        ("spaces around cells", "spaces around cells are left out"),
    ],
)
def test_what_was_decided_is_said(tmp_path, way, words):
    notes = compare_file(write(tmp_path, WAYS[way]), baseline="adam").notes
    assert any(words in note for note in notes), notes


@pytest.mark.parametrize("label", [" sgd", "sgd ", '" sgd"'])
def test_space_around_a_label_is_stripped_and_said(tmp_path, label):
    rows = [(d, label if (o, s) == ("sgd", "3") else o, s, v) for d, o, s, v in ROWS]
    path = write(tmp_path, long_text(rows))
    assert verdict(path) == CLEAN
    assert any("spaces around cells are left out" in note for note in compare_file(path).notes)
    assert not any("spaces" in note for note in compare_file(write(tmp_path, long_text())).notes)


def test_an_attribute_is_a_metric_where_that_is_said(tmp_path):
    path = write(tmp_path, WAYS["Optuna's names"])
    with pytest.raises(TableError, match="metrics: found none"):
        compare_file(path)
    naming = Naming(names={"user_attrs_accuracy": "test_accuracy"})
    assert verdict(path, naming=naming, metric="user_attrs_accuracy", maximise=True) == CLEAN


@pytest.mark.parametrize("cell", ["", "NA", "n/a", "None", "null", "-", "missing", "#N/A", "crashed", "?"])
def test_a_blank_is_a_gap_and_its_pair_is_missing(tmp_path, cell):
    rows = [*ROWS[:-1], (*ROWS[-1][:3], cell)]
    result = compare_file(write(tmp_path, long_text(rows)), baseline="adam")
    assert (result.input.missing, result.input.diverged) == (1, 0)
    assert result.within[0].comparisons[0].n == 7


@pytest.mark.parametrize("cell", ["nan", "NaN", "-inf", "diverged", "Diverged"])
def test_a_written_nan_diverged_and_ranks_worst(tmp_path, cell):
    rows = [*ROWS[:-1], (*ROWS[-1][:3], cell)]
    result = compare_file(write(tmp_path, long_text(rows)), baseline="adam")
    assert (result.input.missing, result.input.diverged) == (0, 1)


def test_an_infinity_diverged_whichever_way_it_points(tmp_path):
    rows = [*ROWS[:-1], (*ROWS[-1][:3], "inf")]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], "test_accuracy"]))
    assert compare_file(path, baseline="adam").input.diverged == 1
    assert sum("test_accuracy" in log.diverged for log in logs.read([path], Naming())) == 1


def test_a_run_that_is_shorter_than_the_others_is_pointed_out(tmp_path):
    rows = [
        (d, o, s, e, v - 1 + e / 4)
        for d, o, s, v in ROWS
        for e in range(4)
        if (o, s) != ("sgd", "3") or e < 2
    ]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], "epoch", "accuracy"]))
    assert any("runs have from 2 to 4 epochs, the fewest (d, sgd, 3)" in n for n in compare_file(path).notes)


def test_a_loss_that_is_not_finite_is_a_diverged_run_whatever_is_compared(tmp_path):
    rows = [(*row, "inf" if row[1:3] == ("sgd", "3") else "0.3") for row in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES, "val_loss"]))
    assert compare_file(path, metric="accuracy", baseline="adam").input.diverged == 1


@pytest.mark.parametrize("label", ["None", "NA", "nan", "true", "007", "0.10", "1e-3", "N/A", "null"])
def test_labels_are_text(tmp_path, label):
    rows = [(d, label if o == "sgd" else o, s, v) for d, o, s, v in ROWS]
    result = compare_file(write(tmp_path, long_text(rows)), baseline="adam")
    assert result.input.optimizers == ("adam", label)
    rows = [*ROWS, *((label, o, s, v) for _, o, s, v in ROWS)]
    assert compare_file(write(tmp_path, long_text(rows)), baseline="adam").input.datasets == ("d", label)


@pytest.mark.parametrize(("one", "other"), [("7", "007"), ("0.1", "0.10"), ("Adam", "adam"), ("a b", "ab")])
def test_labels_that_look_alike_stay_apart_and_are_pointed_out(tmp_path, one, other):
    rows = [(label, o, s, v) for label in (one, other) for _, o, s, v in ROWS]
    result = compare_file(write(tmp_path, long_text(rows)), baseline="adam")
    assert result.input.datasets == (one, other)
    assert any(f"{one!r}, {other!r} look alike" in note for note in result.notes)


REFUSED = {
    "a log of epochs": ("epoch,adam,sgd\n0,1,2\n1,2,3\n2,3,4\n", "'epoch'.*optbench import"),
    "a log of steps": ("Step,adam,sgd\n10,1,2\n20,2,3\n", "'Step'.*optbench import"),
    "wall times": ("Wall time,Step,Value\n1.5,0,1\n2.5,1,2\n", "'Wall time'.*optbench import"),
    "times of day": (
        "when,a,b\n2024-01-01 10:00,1,2\n2024-01-01 10:01,1,2\n2024-01-01 10:02,2,1\n",
        "rises from row to row",
    ),
    "rising numbers": ("k,adam,sgd\n0.5,1,2\n1.5,2,3\n9,3,4\n", "rises from row to row"),
    "an index alone": (",adam,sgd\n0,.1,.2\n1,.2,.3\n2,.3,.4\n", "rises from row to row"),
    "extremes": ("d,adam,adam__MIN,adam__MAX\na,1,0,2\nb,1,0,2\n", "adam__MIN' holds a statistic"),
    "spreads": ("d,adam_mean,adam_std,sgd_mean,sgd_std\na,1,0,2,0\nb,1,0,2,0\n", "holds a statistic"),
    "means of rows": ("d,adam,sgd,Average\na,1,3,2\nb,2,4,3\n", "'Average' holds a statistic"),
    "a mean row": ("d,adam,sgd\na,1,3\nb,2,4\nAverage,1.5,3.5\n", "line 4: 'Average' is a statistic"),
    "a rank row": ("d,adam,sgd\na,1,3\nb,2,4\nAvg. rank,2,1\n", "line 4: 'Avg. rank' is a statistic"),
    "two such rows": ("d,adam,sgd\na,1,3\nmean,2,4\nstd,1,1\n", "line 3: 'mean' is a statistic"),
    "a maximum at the end": ("d,adam,sgd\na,1,3\nb,2,4\nmax,2,4\n", "line 4: 'max' is a statistic"),
    "describe()": ("d,adam,sgd\na,1,3\n25%,2,4\n50%,2,4\n", "line 3: '25%' is a statistic"),
    "a mean by another name": (
        "d,adam,sgd\na,0.10,0.30\nb,0.20,0.45\nc,0.60,0.75\nGesamt,0.30,0.50\n",
        "line 5: 'Gesamt' is the mean of the rows above it",
    ),
    "a mean among trials": (
        "dataset,optimizer,seed,acc\nd,a,0,1\nd,a,1,2\nd,a,mean,1.5\nd,b,0,1\n",
        "line 4: seed: found 'mean'",
    ),
    "metrics": ("d,accuracy,loss\na,1,2\nb,2,3\n", "accuracy, loss are metrics and no methods"),
    "facts": ("d,n_samples,adam,sgd\na,100,1,2\nb,200,2,3\n", "'n_samples' is a fact about the datasets"),
    "no header": ("mnist,0.91,0.92\nkmnist,0.81,0.82\nd,0.7,0.8\n", "a row of results where the names"),
    "spreads in cells": ("d,a,b\nm,0.91±0.02,0.93±0.01\n", "a mean with its spread"),
    "brackets in cells": ("d,a,b\nm,0.91 (0.02),0.93 (0.01)\n", "a mean with its spread"),
    "two seeds": (
        "dataset,optimizer,seed,Seed,acc\nd,a,0,1,0.5\nd,b,0,2,0.6\n",
        "'seed' and 'Seed' both name the seed and differ",
    ),
    "both marks": ("d;a;b\nm;0,91;0.92\nn;0,81;0.82\n", "decimal points and decimal commas"),
    "either mark": ('d,a,b\nm,"1,234","2,345"\n', r"may be 1.234 or 1234; say --decimal"),
    "unquoted commas": (
        "dataset,optimizer,seed,acc\nd,a,0,0,91\nd,a,1,0,92\nd,b,0,0,93\n",
        "line 2: found 5 cells; every line needs 4 columns; numbers with decimal commas",
    ),
    "signs here and there": ("d,a,b\nm,91%,92%\nn,0.8,92%\n", "without a percent sign"),
    "an open quote": ('d,a,b\n"m,1,2\nn,1,2\n', "line"),
    "Excel": (b"PK\x03\x04\x14\x00\x06\x00", "an Excel or zip file"),
    "spreads in a long table": (
        "dataset,optimizer,seed,accuracy\nd,a,0,0.91±0.02\nd,b,0,0.92±0.01\n",
        "line 2, column 'accuracy': .*a mean with its spread",
    ),
    "errors of a spreadsheet": ("d,a,b\nm,#DIV/0!,1\n", "found '#DIV/0!'"),
    "beyond a computer's numbers": ("d,a,b\nm,1e999,1\n", "beyond the numbers of a computer"),
    "a row a seed": ("seed,adam,sgd\n0,.1,.2\n1,.2,.3\n2,.1,.4\n", "'seed': rows are runs and no datasets"),
    "JSON": ('[{"optimizer": "a", "acc": 1},\n{"optimizer": "b", "acc": 1}]\n', "line 1: it is JSON"),
    "a web page": ("<!DOCTYPE html>\n<html><table></table></html>\n", "line 1: it is a web page"),
    "frames that do not rise": ("episode,adam,sgd\n30,1,2\n10,2,3\n20,3,4\n", "'episode'.*optbench import"),
    "a time with its unit": ("Time (s),adam,sgd\n30,1,2\n10,2,3\n20,3,4\n", "'Time .s.'.*optbench import"),
    "a mean among optimizers": (
        "dataset,optimizer,seed,acc\nd,a,0,1\nd,b,0,2\nd,average,0,1.5\n",
        "line 4: optimizer: found 'average', a statistic",
    ),
    "a currency": (
        "dataset,optimizer,seed,accuracy\nd,a,0,$0.9\nd,b,0,$0.8\n",
        r"line 2, column 'accuracy': found '.0.9'",
    ),
    "objects of Python": (
        "dataset,optimizer,seed,accuracy\nd,a,0,np.float64(0.9)\nd,b,0,np.float64(0.8)\n",
        "line 2, column 'accuracy': .*an object as Python prints it",
    ),
    "words for a metric": (
        "dataset,optimizer,seed,score\nd,a,0,good\nd,b,0,bad\n",
        "metrics: found none .columns of words are left out: score",
    ),
    "an arrow against a name": (
        "dataset,optimizer,seed,accuracy ↓\nd,a,0,0.9\nd,b,0,0.8\n",
        "its arrow and its name say opposites",
    ),
}
for _row in (
    "avg rank (lower is better)",
    "Mean Rank ↓",
    "Rank sum",
    "Avg all datasets",
    "Friedman",
    "Wilcoxon p",
    "Average (macro)",
    "Gain",
):
    REFUSED[f"a row {_row}"] = (
        f"d,adam,sgd\na,0.7,0.8\nb,0.72,0.79\n{_row},1.5,1.4\n",
        "line 4: '.*' is a statistic over other rows",
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_of_results_is_refused_with_the_place(tmp_path, case):
    text, words = REFUSED[case]
    path = write(tmp_path, text)
    with pytest.raises(TableError, match=words) as caught:
        compare_file(path, maximise=True)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["", "Unnamed: 3", "index", "no"])
def test_an_index_at_the_end_of_a_matrix_is_no_method(tmp_path, name):
    text = f"dataset,adam,sgd,{name}\n" + "".join(f"x{k},0.{k}1,0.{k}2,{k}\n" for k in range(6))
    result = compare_file(write(tmp_path, text), maximise=True)
    assert result.input.optimizers == ("adam", "sgd")
    assert any("is an index of the rows and is left out" in note for note in result.notes)


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_accuracy (%)", 100), ("test acc. [%]", 100), ("test_accuracy ↑", 1), ("my_score ↑", 1),
     ("accuracy (higher is better)", 1)],
)  # fmt: skip
def test_a_header_may_say_unit_and_direction(tmp_path, name, size):
    rows = [(d, o, s, round(v * size, 6)) for d, o, s, v in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], name]))
    assert verdict(path) == CLEAN
    if name.startswith("test"):
        (log, *_) = logs.read([path], Naming())
        assert log.metrics == {"test_accuracy": 0.9}


def test_a_mark_behind_a_name_that_says_more_is_part_of_it(tmp_path):
    path = write(tmp_path, long_text(names=[*NAMES[:3], "val_accuracy (ema)"]))
    with pytest.raises(TableError, match="not known"):
        compare_file(path)


@pytest.mark.parametrize("twin", ["Seed", "SEED", "random_seed"])
def test_two_equal_columns_are_one(tmp_path, twin):
    rows = [(*row[:3], row[2], row[3]) for row in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], twin, "accuracy"]))
    assert verdict(path) == CLEAN


def test_seeds_of_whole_numbers_are_equal_with_a_point_and_else_as_written(tmp_path):
    rows = [(d, o, f"{s}.0" if o == "sgd" else s, v) for d, o, s, v in ROWS]
    path = write(tmp_path, long_text(rows))
    assert verdict(path) == CLEAN
    assert "seed: 0.0 is read as 0" in compare_file(path).notes
    rows = [(d, o, f"0{s}" if o == "sgd" and s == "3" else s, v) for d, o, s, v in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], "test_accuracy"]))
    assert any("'3', '03' look alike" in note for note in compare_file(path).notes)
    with pytest.raises(UserError, match="the seed '3' is the same number; write both in one way"):
        list(logs.read([path], Naming()))


@pytest.mark.parametrize("cell", ["nan%", "inf %"])
def test_a_nan_in_percent_diverged(tmp_path, cell):
    rows = [(*r[:3], f"{1 - r[3]:.1%}") for r in ROWS[:-1]] + [(*ROWS[-1][:3], cell)]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], "error_rate"]))
    assert compare_file(path, baseline="adam").input.diverged == 1


@pytest.mark.parametrize("column", ["Name", "run", "tags.mlflow.runName", "run_name"])
def test_names_of_runs_say_what_a_pattern_finds_in_them(tmp_path, column):
    rows = [(f"{o}_s{s}", "finished", v) for _, o, s, v in ROWS]
    path = write(tmp_path, long_text(rows, [column, "State", "test_accuracy"]))
    naming = Naming(pattern="{optimizer}_s{seed}", given={"dataset": "d"})
    assert verdict(path, naming=naming) == CLEAN
    assert sorted({(log.optimizer, log.dataset) for log in logs.read([path], naming)}) == [
        ("adam", "d"),
        ("sgd", "d"),
    ]
    odd = write(tmp_path, long_text([*rows[:-1], ("other", "finished", 1)], [column, "State", "accuracy"]))
    with pytest.raises(TableError, match=rf"line 17, column '{column}': found 'other', which does not fit"):
        compare_file(odd, naming=naming)


def test_a_table_for_each_optimizer_is_told_apart_by_its_path(tmp_path):
    for optimizer in ("adam", "sgd"):
        rows = [(s, v) for _, o, s, v in ROWS if o == optimizer]
        write(tmp_path, long_text(rows, ["seed", "val_accuracy"]), f"{optimizer}.csv")
    naming = Naming(pattern="{optimizer}.csv", given={"dataset": "d"})
    assert verdict(tmp_path, naming=naming) == CLEAN
    with pytest.raises(UserError, match="does not fit --pattern"):
        compare_file(tmp_path, naming=Naming(pattern="{optimizer}-{seed}.csv"))


def test_a_pattern_that_a_table_with_columns_of_its_own_does_not_fit_is_pointed_out(tmp_path):
    result = compare_file(write(tmp_path, long_text()), naming=Naming(pattern="{optimizer}-{seed}.csv"))
    assert any("does not fit its path: its columns are taken" in note for note in result.notes)


@pytest.mark.parametrize("first", ["dataset", "task", "problem", "name", ""])
def test_datasets_may_be_called_anything_but_rising_numbers(tmp_path, first):
    text = f"{first},adam,sgd\n" + "".join(f"x{k},0.{k}1,0.{k}2\n" for k in range(1, 7))
    assert compare_file(write(tmp_path, text), maximise=True).input.datasets[0] == "x1"


def test_numbers_are_names_where_the_column_says_so(tmp_path):
    result = compare_file(write(tmp_path, "dataset,adam,sgd\n3,.1,.2\n11,.2,.3\n31,.3,.5\n"), maximise=True)
    assert result.input.datasets == ("3", "11", "31")


@pytest.mark.parametrize("point", [".", ","])
def test_the_decimal_mark_may_be_said(tmp_path, point):
    path = write(tmp_path, 'd,a,b\nm,"1,234","2,345"\n')
    values = read_results(path, naming=Naming(point=point)).frame["value"].tolist()
    assert values == ([1234.0, 2345.0] if point == "." else [1.234, 2.345])


@pytest.mark.parametrize(
    ("cells", "value"),
    [("1,234.5", 1234.5), ("1 234.5", 1234.5), ("1'234.5", 1234.5), ("1_234.5", 1234.5), ("−0.5", -0.5),
     (".5", 0.5), ("5.", 5.0), ("+1e-3", 0.001), ("1E5", 1e5)],
)  # fmt: skip
def test_thousands_and_signs_are_read(tmp_path, cells, value):
    path = write(tmp_path, f'd;a;b\nm;"{cells}";0.25\n')
    assert read_results(path).frame["value"].tolist() == [value, 0.25]


def test_a_table_that_was_cut_short_says_so(tmp_path):
    path = write(tmp_path, long_text()[:-12])
    result = compare_file(path, baseline="adam")
    assert result.within[0].comparisons[0].n == 7
    assert any("cut short" in note for note in result.notes)


@pytest.mark.parametrize(
    ("size", "words"), [("3e200", "write inf where a run diverged"), ("1e-300", "multiply")]
)
def test_numbers_that_cannot_be_squared_are_refused_with_a_word(tmp_path, size, words):
    rows = [(d, o, s, repr((1 + int(s) + (o == "adam")) * float(size))) for d, o, s, _ in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], "test_loss"]))
    with pytest.raises(TableError, match=f"column 'test_loss', dataset 'd': .*{words}"):
        compare_file(path)
    with pytest.raises(foreign.ImportedError, match=f"metric 'test_loss', dataset 'd': .*{words}"):
        foreign.write(logs.read([path], Naming()), tmp_path / "out")


def test_several_models_are_several_workloads(tmp_path):
    rows = [(*row, m) for row in ROWS for m in ("mlp", "cnn")]
    result = compare_file(write(tmp_path, long_text(rows, [*NAMES, "model"])), baseline="adam")
    assert result.input.datasets == ("d/mlp", "d/cnn")


@pytest.mark.parametrize(
    ("truth", "b", "right"),
    [
        (["0", "1", "2", "1"], ["0", "1", "unknown", "1"], 0.75),
        (["0", "1", "2", "1"], ["0.0", "1.0", "unknown", "1.0"], 0.75),
        (["cat", "dog", "NA", "dog"], ["cat", "dog", "NA", "cat"], 0.75),
        (["007", "7", "7", "1"], ["7", "7", "7", "1"], 0.75),
        (["None", "a", "a", "a"], ["None", "a", "a", "a"], 1.0),
        (["1.0", "1", "2", "1"], ["1.0", "1.0", "2", "1"], 0.75),
    ],
)
def test_predictions_are_compared_as_text(tmp_path, truth, b, right):
    lines = ["truth,a,b", *(f"{t},{t},{p}" for t, p in zip(truth, b, strict=True))]
    (result,) = compare_predictions(write(tmp_path, "\n".join(lines) + "\n"))
    assert (result.accuracy_candidate, result.accuracy_baseline) == (1.0, right)


def test_predictions_in_other_words_than_the_truth_are_refused(tmp_path):
    with pytest.raises(TableError, match=r"column 'b'.*none of its labels is a true one"):
        compare_predictions(write(tmp_path, "truth,a,b\ncat,cat,Cat\ndog,dog,Dog\n"))


def test_a_big_table_is_read_in_little_time(tmp_path):
    rows = [(f"d{k % 50}", f"o{k % 4}", str(k // 200), repr(float(np.sin(k)))) for k in range(40_000)]
    frame = read_results(write(tmp_path, long_text(rows))).frame
    assert len(frame) == 40_000
    assert frame["accuracy"].notna().all()
