"""Custom tables as data: what is left out, encoded, warned of and refused."""

import numpy as np
import pytest

from optbench.datasets import own
from optbench.datasets.base import DataError
from optbench.records.single import _dataset


def table(tmp_path, rows, names="a,b,y", name="t.csv"):
    lines = [names, *(",".join(map(str, row)) for row in rows)]
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def rows(count=40):
    generator = np.random.default_rng(0)
    return [
        (f"{a:.3f}", f"{b:.3f}", "cd"[k % 2]) for k, (a, b) in enumerate(generator.normal(size=(count, 2)))
    ]


def load(folder, **entry):
    return own.load(own.declare({"csv": "t.csv", "label": "y", **entry}, folder))


def test_numbers_are_read_to_their_last_bit_and_the_digest_is_that_of_the_file(tmp_path):
    import hashlib

    declared = own.declare({"csv": "t.csv", "label": "y"}, table(tmp_path, rows()))
    assert declared.digest == hashlib.sha256((tmp_path / "t.csv").read_bytes()).hexdigest()
    dataset = own.load(declared)
    wanted = sorted(np.float32(a) for a, _, _ in rows())
    assert sorted(np.concatenate([dataset.x_train, dataset.x_test])[:, 0]) == wanted
    assert dataset.notes == ()


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "id", "case"])
@pytest.mark.parametrize("first", [0, 1])
def test_an_index_column_is_left_out_with_a_note_and_another_id(tmp_path, name, first):
    indexed = [(k + first, *row) for k, row in enumerate(rows())]
    folder = table(tmp_path, indexed, f"{name},a,b,y")
    dataset = load(folder)
    assert dataset.info.shape == (2,)
    assert any("is an index of the rows: left out" in note for note in dataset.notes)
    plain = own.declare({"csv": "t.csv", "label": "y", "drop": ["a"]}, folder)
    assert own.declare({"csv": "t.csv", "label": "y"}, folder).digest == plain.digest


def test_a_column_that_says_the_label_is_pointed_out(tmp_path):
    said = [(a, {"c": 10, "d": 20}[y], y) for a, _, y in rows()]
    assert any("column b says the label" in note for note in load(table(tmp_path, said)).notes)
    ordered = [(a, k + {"c": 0.5, "d": 100.25}[y], y) for k, (a, _, y) in enumerate(rows())]
    assert any(
        "column b orders the labels perfectly" in note for note in load(table(tmp_path, ordered)).notes
    )


@pytest.mark.parametrize(
    "words", [("None", "NA"), ("007", "7"), ("0.1", "0.10"), ("1e-3", "1e-4"), ("true", "false")]
)
def test_labels_are_text(tmp_path, words):
    named = [(a, b, words[k % 2]) for k, (a, b, _) in enumerate(rows())]
    assert load(table(tmp_path, named)).info.classes == tuple(sorted(words))


def test_whole_numbers_are_ordered_as_numbers_however_they_are_written(tmp_path):
    for shape in ("{}", "{}.0"):
        named = [(a, b, shape.format((k % 3) * 5)) for k, (a, b, _) in enumerate(rows())]
        assert load(table(tmp_path, named)).info.classes == ("0", "5", "10")


def test_words_are_encoded_when_asked_named_when_not_and_left_out(tmp_path):
    region = [(("north", "south", "NA")[k % 3], b, y) for k, (_, b, y) in enumerate(rows())]
    folder = table(tmp_path, region, "region,b,y")
    with pytest.raises(
        DataError, match=r"column 'region' holds no numbers .north, south, NA.*encode: \[region\]"
    ):
        load(folder)
    dataset = load(folder, encode=["region"])
    assert dataset.info.shape == (4,)
    assert (dataset.x_train[:, :3].sum(axis=1) == 1).all()
    assert load(folder, drop=["region"]).info.shape == (1,)
    ids = {own.declare({"csv": "t.csv", "label": "y", key: ["region"]}, folder) for key in ("encode", "drop")}
    assert len(ids) == 2
    recorded = {"kind": "csv", "location": "t.csv", "label": "y", "encode": ["region"]}
    assert _dataset(recorded)["encode"] == ["region"]
    with pytest.raises(DataError, match="encode: no column 'area' of inputs"):
        load(folder, encode=["area"])


def test_booleans_beside_floats_are_numbers(tmp_path):
    mixed = [("True" if k % 2 else "False", b, y) for k, (_, b, y) in enumerate(rows())]
    dataset = load(table(tmp_path, mixed))
    assert set(dataset.x_train[:, 0]) == {0.0, 1.0}


@pytest.mark.parametrize("cell", ["", "NA", "?", "null"])
def test_a_missing_value_names_line_column_and_the_ways_out(tmp_path, cell):
    holed = [(cell if k == 5 else a, b, y) for k, (a, b, y) in enumerate(rows())]
    with pytest.raises(DataError, match=r"t.csv:7: column 'a': a value is missing; .*drop: \[a\].*impute"):
        load(table(tmp_path, holed))


def test_a_column_of_answers_is_no_column_of_classes(tmp_path):
    folder = table(tmp_path, [(a, b, f"{k * 1.37:.3f}") for k, (a, b, _) in enumerate(rows())])
    with pytest.raises(DataError, match="no classes; name it with target:"):
        load(folder)


def arrays(tmp_path, x, y):
    np.savez(tmp_path / "t.npz", x=x, y=y)
    return own.load(own.declare({"npz": "t.npz"}, tmp_path))


@pytest.mark.parametrize("shape", [(20, 3, 8, 8), (20, 1, 28, 28), (20, 3, 32, 16)])
def test_channels_first_are_recognised_with_the_remedy(tmp_path, shape):
    with pytest.raises(DataError, match=r"channels first.*numpy.transpose\(x, \(0, 2, 3, 1\)\)"):
        arrays(tmp_path, np.zeros(shape, np.uint8), np.arange(20) % 2)


def test_labels_in_a_column_one_hot_and_as_floats(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 3
    wanted = arrays(tmp_path, x, y)
    for labels in (
        y[:, None],
        np.eye(3)[y],
        np.eye(3, dtype=bool)[y],
        y.astype(float),
        y.astype(float)[:, None],
    ):
        found = arrays(tmp_path, x, labels)
        assert found.info.classes == ("0", "1", "2")
        assert found.y_train.tolist() == wanted.y_train.tolist()
    with pytest.raises(DataError, match="not one-hot"):
        arrays(tmp_path, x, np.ones((20, 3)))


def test_a_column_may_not_be_encoded_and_left_out(tmp_path):
    region = [(("north", "south")[k % 2], b, y) for k, (_, b, y) in enumerate(rows())]
    with pytest.raises(DataError, match="encode, drop: column 'region' is in both"):
        load(table(tmp_path, region, "region,b,y"), encode=["region"], drop=["region"])


@pytest.mark.parametrize("words", [("007", "7"), ("0.1", "0.10"), ("True", "true"), ("a b", "ab")])
def test_classes_that_look_alike_are_pointed_out(tmp_path, words):
    named = [(a, b, words[k % 2]) for k, (a, b, _) in enumerate(rows())]
    notes = load(table(tmp_path, named)).notes
    assert any(f"class: {words[0]!r}, {words[1]!r} look alike" in note for note in notes)
    x = np.arange(80.0).reshape(40, 2)
    np.savez(tmp_path / "d.npz", x=x, y=np.array(words)[np.arange(40) % 2])
    assert any("look alike" in note for note in own.load(own.declare({"npz": "d.npz"}, tmp_path)).notes)


def test_space_around_a_class_is_stripped_and_said(tmp_path):
    named = [(a, b, f"{y} " if k == 3 else y) for k, (a, b, y) in enumerate(rows())]
    dataset = load(table(tmp_path, named))
    assert dataset.info.classes == ("c", "d")
    assert any("spaces around" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("cell", "words"),
    [(lambda k: f'"{1000 + k:,}.5"', "is read as"), (lambda k: f"{k}%", "percentages, read as shares")],
)
def test_how_inputs_were_read_is_said(tmp_path, cell, words):
    priced = [(cell(k), b, y) for k, (_, b, y) in enumerate(rows())]
    assert any(words in note for note in load(table(tmp_path, priced)).notes)


@pytest.mark.parametrize("cell", ["inf", "nan", "-inf"])
def test_an_input_that_is_not_finite_names_its_place_and_the_ways_out(tmp_path, cell):
    odd = [(cell if k == 3 else a, b, y) for k, (a, b, y) in enumerate(rows())]
    with pytest.raises(DataError, match=r"line 5, column 'a': .*drop: \[a\], or impute"):
        load(table(tmp_path, odd))


def test_what_may_be_an_index_is_pointed_out_and_kept(tmp_path):
    for name, number in (("user_id", lambda k: 1000 + 7 * k), ("left", lambda k: 40 - k)):
        keyed = [(number(k), b, y) for k, (_, b, y) in enumerate(rows())]
        dataset = load(table(tmp_path, keyed, f"{name},b,y"))
        assert dataset.info.shape == (2,)
        assert any(f"column {name} has another whole number in every row" in note for note in dataset.notes)
