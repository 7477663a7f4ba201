"""Custom datasets, as a suite declares them."""

import numpy as np
import pytest

from optbench.datasets import own, registry
from optbench.datasets.base import DataError
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

SUITE = """
suite: own
workloads:
  - dataset: {dataset}
    model: {{name: mlp, hidden: [4]}}
    batch_size: 8
    epochs: 1
optimizers: {{adam: {{lr: 0.01}}}}
seeds: 1
"""


def load(folder, declaration):
    path = folder / "suite.yaml"
    path.write_text(SUITE.format(dataset=declaration))
    return load_suite(path).workloads[0].workload.dataset


@pytest.fixture
def table(tmp_path):
    generator = np.random.default_rng(0)
    rows = [f"{a:.3f},{b},{'yes' if a > 0 else 'no'}" for a, b in generator.normal(size=(50, 2))]
    (tmp_path / "t.csv").write_text("a,b,answer\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_a_csv_gives_classes_and_a_fixed_stratified_test_part(table):
    declared = load(table, "{csv: t.csv, label: answer}")
    dataset = registry.load(declared)
    assert dataset.info.classes == ("no", "yes")
    assert (dataset.info.shape, dataset.info.train, dataset.info.test) == ((2,), 40, 10)
    assert dataset.info.scaling == "standardize"
    again = own.load(declared)
    np.testing.assert_array_equal(again.x_test, dataset.x_test)
    whole = np.bincount(np.concatenate([dataset.y_train, dataset.y_test])) / 50
    assert np.abs(np.bincount(dataset.y_test) / 10 - whole).max() < 0.06


def test_content_is_identity_and_the_place_is_not(table):
    from dataclasses import replace

    from optbench.suite.expand import trials
    from optbench.trial import trial_id

    def first_id(folder):
        (planned,) = trials(load_suite(folder / "suite.yaml"), lambda backend, device: "cpu")
        return trial_id(planned.spec)

    declared = load(table, "{csv: t.csv, label: answer}")
    here = first_id(table)
    other = table / "elsewhere"
    other.mkdir()
    (other / "t.csv").write_bytes((table / "t.csv").read_bytes())
    assert load(other, "{csv: t.csv, label: answer, name: another}") == declared
    assert first_id(other) == here
    (other / "t.csv").write_text((table / "t.csv").read_text() + "1,2,yes\n")
    load(other, "{csv: t.csv, label: answer}")
    assert first_id(other) != here
    with pytest.raises(DataError, match="have changed since the suite was read"):
        own.load(replace(declared, location=str(other / "t.csv")))


def test_a_csv_with_a_test_file_and_pixels(tmp_path):
    header = "label," + ",".join(f"p{k}" for k in range(4)) + "\n"
    (tmp_path / "a.csv").write_text(header + "7,0,1,2,3\n9,4,5,6,255\n")
    (tmp_path / "b.csv").write_text(header + "9,1,1,1,1\n")
    dataset = registry.load(load(tmp_path, "{csv: a.csv, label: label, test: b.csv, shape: [2, 2, 1]}"))
    assert dataset.x_train.dtype == np.uint8
    assert dataset.x_train[1, :, :, 0].tolist() == [[4, 5], [6, 255]]
    assert dataset.y_test.tolist() == [1]
    assert dataset.info.scaling == "pixels"


def test_npz_with_all_parts_or_one(tmp_path):
    x, y = np.arange(80, dtype=np.uint8).reshape(20, 2, 2), np.arange(20) % 4
    np.savez(tmp_path / "all.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    dataset = registry.load(load(tmp_path, "{npz: all.npz}"))
    assert dataset.x_test.shape == (4, 2, 2, 1)
    np.savez(tmp_path / "one.npz", x=x.reshape(20, 4).astype(float), y=y)
    dataset = registry.load(load(tmp_path, "{npz: one.npz, test: 0.4}"))
    assert len(dataset.x_test) == 8


def test_a_function_beside_the_suite(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef moons():\n    return np.arange(40.0).reshape(20, 2), np.arange(20) % 2\n"
    )
    declared = load(tmp_path, "{class: mine.py:moons}")
    assert declared.name == "moons"
    assert registry.load(declared).info.train == 16
    assert registry.synthetic(declared).x_train.shape[1:] == (2,)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("{csv: none.csv, label: y}", "none.csv: there is no such file"),
        ("{csv: t.csv}", "label: is missing"),
        ("{csv: t.csv, label: Answer}", "no column 'Answer'"),
        ("{csv: t.csv, label: answer, lable: x}", "unknown key 'lable'. Did you mean 'label'"),
        ("{csv: t.csv, label: answer, test: 2}", r"test: found 2; must be"),
        ("{csv: t.csv, label: answer, shape: [3]}", "2 columns do not make examples of shape"),
        ("{csv: t.csv, label: a, scaling: none}", "column 'answer' holds no numbers"),
        ("{csv: t.csv, npz: x}", "give one of npz, csv, text, class"),
        ("{npz: t.csv}", "not a plain .npz file"),
        ("{npz: pickled.npz}", "not a plain .npz file"),
        ("{class: mine.py:none}", "has no 'none'"),
        ("{class: nowhere}", "write `my_file.py:name`"),
        ("{class: mine.py:broken}", "mine.py:broken failed .ZeroDivisionError"),
        ("{class: mine.py:odd}", "gave int; return x_train"),
        ("unknown", "unknown dataset 'unknown'"),
    ],
)
def test_errors_say_file_line_and_what_to_do(table, declaration, message):
    np.savez(table / "pickled.npz", x=np.array([{}, {}], dtype=object), y=np.arange(2))
    (table / "mine.py").write_text("def broken():\n    1 / 0\ndef odd():\n    return 3\n")
    with pytest.raises(SuiteError, match=rf"suite.yaml:4: workloads\[0\].dataset.*{message}"):
        load(table, declaration)


def test_a_number_that_float32_does_not_hold_is_refused_and_not_made_infinite(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.array([[1.0], [1e300]] * 5), y=np.arange(10) % 2)
    with pytest.raises(
        DataError, match=r"own\.npz: an example holds NaN, infinity or a number beyond 3\.4e38"
    ):
        own.declare({"npz": "own.npz"}, tmp_path)


def test_a_csv_with_a_target_column_is_regression(table):
    suite = SUITE.format(dataset="{csv: t.csv, target: b}").replace("hidden: [4]", "hidden: [4]")
    (table / "t.csv").write_text("a,b\n" + "\n".join(f"{k},{k * 0.5 + 1}" for k in range(50)) + "\n")
    (table / "suite.yaml").write_text(suite)
    workload = load_suite(table / "suite.yaml").workloads[0].workload
    dataset = registry.load(workload.dataset)
    assert (workload.task, workload.monitor, workload.split.how) == ("regression", "val_rmse", "random")
    assert (dataset.info.train, dataset.info.test, dataset.info.outputs) == (40, 10, 1)
    assert set(np.concatenate([dataset.y_train, dataset.y_test])) == {k * 0.5 + 1 for k in range(50)}


def test_numbers_in_an_npz_are_targets_where_it_is_said(tmp_path):
    x, y = np.zeros((20, 3), np.float32), np.linspace(0, 1, 20)
    np.savez(tmp_path / "t.npz", x=x, y=y)
    declared = load(tmp_path, "{npz: t.npz, targets: value}")
    assert registry.load(declared).info.targets == "value"
    with pytest.raises(SuiteError, match=r"labels are float64; whole numbers .* `targets: value`"):
        load(tmp_path, "{npz: t.npz}")
    np.savez(tmp_path / "t.npz", x=x, y=np.where(y > 0.5, np.nan, y))
    with pytest.raises(SuiteError, match="targets are float64; finite numbers"):
        load(tmp_path, "{npz: t.npz, targets: value}")


TEXT = "aaab\u00e9 " * 100


@pytest.mark.parametrize(("tokens", "classes", "size"), [("", 256, 1.0), (", tokens: character", 4, 7 / 6)])
def test_a_text_gives_bytes_or_characters(tmp_path, tokens, classes, size):
    (tmp_path / "t.txt").write_text(TEXT, encoding="utf-8")
    declared = own.declare({"text": "t.txt", **({"tokens": "character"} if tokens else {})}, tmp_path)
    dataset = own.load(declared)
    assert (len(dataset.info.classes), dataset.info.bytes_per_token) == (classes, pytest.approx(size))
    whole = np.concatenate([dataset.x_train, dataset.x_test])
    assert len(whole) == (600 if tokens else 700)
    assert len(dataset.x_test) == len(whole) // 10
    if tokens:
        assert "".join(dataset.info.classes[t] for t in whole) == TEXT
    else:
        assert bytes(whole.astype(np.uint8)).decode() == TEXT


def test_a_text_that_cannot_be_read_is_refused_with_place_and_remedy(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"abc\xff" * 100)
    declared = own.declare({"text": "t.txt", "tokens": "character"}, tmp_path)
    with pytest.raises(DataError, match=r"t.txt: byte 3 is no UTF-8.*leave out `tokens: character`"):
        own.load(declared)
    (tmp_path / "t.txt").write_text("ab" * 100)
    (tmp_path / "test.txt").write_text("abz" * 100)
    declared = own.declare({"text": "t.txt", "test": "test.txt", "tokens": "character"}, tmp_path)
    with pytest.raises(DataError, match=r"test.txt: its test part has 1 characters .* 'z' the first"):
        own.load(declared)
    (tmp_path / "t.txt").write_text("")
    with pytest.raises(DataError, match="has 0 bytes"):
        own.declare({"text": "t.txt"}, tmp_path)
    (tmp_path / "t.txt").write_text("ab")
    with pytest.raises(DataError, match=r"2 tokens are too few to set 0\.\d+ of them aside .* `test: FILE`"):
        own.load(own.declare({"text": "t.txt"}, tmp_path))


def arrays(tmp_path, **parts):
    np.savez(tmp_path / "d.npz", **parts)
    return own.load(own.declare({"npz": "d.npz"}, tmp_path))


def test_an_example_that_is_not_finite_is_named(tmp_path):
    x = np.ones((40, 3))
    x[7, 2] = np.nan
    with pytest.raises(
        DataError, match=r"found nan in example 7, at \[2\]; take such examples out, or impute"
    ):
        arrays(tmp_path, x=x, y=np.arange(40) % 2)


def test_objects_are_refused_with_what_to_save(tmp_path):
    x = np.ones((40, 3))
    with pytest.raises(DataError, match=r"x holds Python objects.*x.astype.float"):
        arrays(tmp_path, x=x.astype(object), y=np.arange(40) % 2)
    assert arrays(tmp_path, x=x, y=np.array([b"a", b"b"])[np.arange(40) % 2]).info.classes == ("a", "b")


def test_many_channels_in_front_are_pointed_out(tmp_path):
    y = np.arange(40) % 2
    (note,) = arrays(tmp_path, x=np.ones((40, 5, 8, 8)), y=y).notes
    assert "numpy.transpose" in note
    assert arrays(tmp_path, x=np.ones((40, 8, 8, 5)), y=y).notes == ()


def test_columns_of_an_array_that_count_or_say_the_label_are_pointed_out(tmp_path):
    y = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 3))
    assert arrays(tmp_path, x=x, y=y).notes == ()
    x[:, 0], x[:, 2] = np.arange(40), 5 - y
    counts, says = arrays(tmp_path, x=x, y=y).notes
    assert "x[:, 0] counts the rows, as an index does" in counts
    assert "x[:, 2] says the label" in says


def test_names_of_any_length_are_shortened_in_messages(tmp_path):
    name = "9" * 900
    (tmp_path / "t.csv").write_text(f"{name},answer\n1,a\n,b\n3,a\n4,b\n")
    with pytest.raises(SuiteError) as told:
        registry.load(load(tmp_path, "{csv: t.csv, label: answer}"))
    assert "a value is missing" in str(told.value)
    assert len(str(told.value)) < 600
