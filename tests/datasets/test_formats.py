"""Readers on made files in the exact formats: what was written comes back, and damage is named."""

import gzip
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from optbench.datasets import formats
from optbench.datasets.base import DataError

PATH = Path("some-file")
FEW = settings(max_examples=25, deadline=None)


def write_idx(array):
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@FEW
@given(
    hnp.arrays(
        st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False},
    )
)
def test_idx_round_trip(array):
    found = formats.idx(write_idx(array), PATH, ndim=array.ndim)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@FEW
@given(st.binary(max_size=40))
def test_idx_of_any_bytes_is_an_array_or_an_error_that_names_the_file(raw):
    if raw[:4] == b"\0\0\x08\x01" and len(raw) == 8 + int.from_bytes(raw[4:8], "big"):
        formats.idx(raw, PATH, ndim=1)
    else:
        with pytest.raises(DataError, match="some-file"):
            formats.idx(raw, PATH, ndim=1)


def test_idx_cut_off_or_too_long_is_named():
    raw = write_idx(np.zeros((5, 2, 2), np.uint8))
    for damaged, word in ((raw[:-1], "cut off"), (raw + b"x", "followed"), (raw[:9], "header")):
        with pytest.raises(DataError, match=f"some-file.*{word}"):
            formats.idx(damaged, PATH, ndim=3)
    with pytest.raises(DataError, match="3 axes, 1 are expected"):
        formats.idx(raw, PATH, ndim=1)


@FEW
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(32), st.just(32), st.just(3))), st.data())
def test_cifar_round_trip(images, data):
    labels = data.draw(hnp.arrays(np.uint8, (len(images), 2)))
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    for width in (1, 2):
        raw = np.concatenate([labels[:, :width], planes], axis=1).tobytes()
        x, y = formats.cifar(raw, PATH, label_bytes=width)
        np.testing.assert_array_equal(x, images)
        np.testing.assert_array_equal(y, labels[:, width - 1])
        with pytest.raises(DataError, match="no whole number"):
            formats.cifar(raw[:-1], PATH, label_bytes=width)


def csv(labels, pixels):
    lines = ["label," + ",".join(f"pixel{i + 1}" for i in range(pixels.shape[1]))]
    lines += [f"{y}," + ",".join(map(str, row)) for y, row in zip(labels, pixels, strict=True)]
    return ("\n".join(lines) + "\n").encode()


@FEW
@given(st.data())
def test_csv_round_trip(data):
    n = data.draw(st.integers(1, 4))
    pixels = data.draw(hnp.arrays(np.uint8, (n, 9)))
    labels = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 5)))
    x, y = formats.pixel_csv(csv(labels, pixels), PATH, side=3)
    np.testing.assert_array_equal(x, pixels.reshape(n, 3, 3, 1))
    np.testing.assert_array_equal(y, labels)


def test_a_stray_label_is_dropped_and_noted_with_its_line():
    labels = np.arange(200) % 5
    labels[17] = 200
    pixels = np.arange(200)[:, None].repeat(4, 1)
    x, y = formats.pixel_csv(csv(labels, pixels), PATH, side=2)
    x, y, notes = formats.drop_stray(x, y, PATH, allowed=range(5))
    assert notes == ("some-file:19: row 18 has the stray label 200; dropped",)
    assert len(x) == len(y) == 199
    assert 17 not in x
    with pytest.raises(DataError, match=r"40 of 199 rows have labels.*such as 4"):
        formats.drop_stray(x, y, PATH, allowed=range(4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw.rsplit(b",", 2)[0], "some-file:5: the row is short"),
        (lambda raw: raw.replace(b",7,", b",x,"), "pixel2 holds something other"),
        (lambda raw: raw.replace(b",7,", b",300,"), "some-file:3: a pixel lies outside"),
        (lambda raw: raw.replace(b"label", b"class"), "`label` and 4 pixels are expected"),
        (lambda raw: b"", "not a readable CSV"),
    ],
)
def test_damage_in_a_csv_is_named(damage, message):
    raw = csv(np.arange(4), np.array([[1, 2, 3, 4], [5, 7, 6, 8], [1, 1, 1, 1], [2, 2, 2, 2]]))
    with pytest.raises(DataError, match=message):
        formats.pixel_csv(damage(raw), PATH, side=2)


@settings(max_examples=5, deadline=None)
@given(hnp.arrays(np.uint8, (3, 784)))
def test_mat_round_trip(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("mat") / "emnist-letters.mat"
    write_mat(path, images, np.array([1, 2, 26]))
    x_train, y_train, x_test, y_test = formats.emnist_mat(path)
    np.testing.assert_array_equal(x_train, images)
    np.testing.assert_array_equal(x_test, images[:1])
    assert y_train.tolist() == [1, 2, 26]
    assert y_test.tolist() == [1]


def write_mat(path, images, labels):
    from scipy.io import savemat

    def part(n):
        return {"images": images[:n], "labels": labels[:n, None].astype(float), "writers": labels[:n, None]}

    dataset = {"train": part(len(images)), "test": part(1), "mapping": np.ones((26, 3), np.uint8)}
    savemat(path, {"dataset": dataset}, do_compression=True)


def test_a_damaged_mat_file_is_named(tmp_path):
    path = tmp_path / "emnist-letters.mat"
    for content in (b"", b"no matlab", b"MATLAB 5.0 MAT-file" + bytes(200)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"emnist-letters\.mat: not EMNIST's"):
            formats.emnist_mat(path)


def test_read_bytes_checks_the_decompressed_content(tmp_path):
    content = bytes(range(256)) * 50
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content))
    assert formats.read_bytes(path, sha256=hashlib.sha256(content).hexdigest()) == content
    with pytest.raises(DataError, match=r"a.gz: not the published file"):
        formats.read_bytes(path, sha256="0" * 64)
    with pytest.raises(DataError, match=r"a.gz: holds more than 1,000 bytes"):
        formats.read_bytes(path, limit=1000)
    path.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match=r"a.gz: the file is cut off"):
        formats.read_bytes(path)
    path.write_bytes(b"plain")
    with pytest.raises(DataError, match=r"a.gz: not a sound gzip"):
        formats.read_bytes(path)
    with pytest.raises(DataError, match="cannot be read"):
        formats.read_bytes(tmp_path / "none")


def test_numbers_of_a_csv_table_are_read_to_their_last_bit():
    rng = np.random.default_rng(0)
    numbers = [*rng.random(1000), *rng.normal(scale=1e200, size=1000), 1.0000076293949887]
    text = "x\n" + "\n".join(repr(float(x)) for x in numbers)
    assert formats.read_csv(io.StringIO(text))["x"].tolist() == numbers
