"""Datasets in files: made ones read in full, the real ones where they lie, and what is missing."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from optbench.datasets import fetch, formats, registry
from optbench.datasets.base import DataError, cut
from optbench.datasets.fetch import MissingDataError
from optbench.datasets.published import FILE_ENTRIES, SIGNS, sign_letters
from optbench.trial import Seeds, Split

FILE_NAMES = [entry.info.name for entry in FILE_ENTRIES]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of the test's own; no other place, and no way to the net."""
    folder = tmp_path / "cache" / "data"
    folder.mkdir(parents=True)
    monkeypatch.setattr(fetch.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "DEBIAN", tmp_path / "debian")

    def refuse(url, path, **options):
        raise fetch.DownloadError("no net here")

    monkeypatch.setattr(fetch, "download", refuse)
    registry.load.cache_clear()
    yield folder
    registry.load.cache_clear()


@pytest.fixture
def shared(shared_data, monkeypatch):
    monkeypatch.setattr(fetch, "DEBIAN", shared_data)
    registry.load.cache_clear()
    yield shared_data
    registry.load.cache_clear()


@pytest.mark.parametrize("name", ["wine", "breast-cancer", "iris"])
def test_tables_keep_their_rows_and_class_shares(name):
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")()
    assert [str(n) for n in bunch.target_names] == list(registry.info(name).classes)
    dataset = registry.load(name)
    both = np.concatenate([dataset.x_train, dataset.x_test])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(bunch.data.astype(np.float32), axis=0))
    shares = np.bincount(dataset.y_test) / np.bincount(bunch.target)
    assert np.abs(shares - 0.2).max() < 0.02


@pytest.mark.parametrize("name", FILE_NAMES)
def test_what_is_missing_says_how_to_get_it(name, data):
    source = registry.ENTRIES[name].source
    with pytest.raises(MissingDataError) as caught:
        registry.load(name)
    assert caught.value.address == source.address
    assert caught.value.address.startswith("http")
    assert caught.value.folder == data / source.folders[0]
    assert set(caught.value.files) == {file.name for file in source.files}
    with pytest.raises(DataError, match=f"optbench data fetch {name}"):
        registry.verify(name)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_images(name, shared):
    dataset = registry.load(name)
    assert dataset.x_train.shape == (60_000, 28, 28, 1)
    assert np.bincount(dataset.y_test).tolist() == (
        [1000] * 10 if name == "fashion-mnist" else [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )
    assert all(check.ok for check in registry.verify(name))


def test_an_altered_file_is_named(data, shared_data):
    folder = data / "mnist"
    folder.mkdir()
    for path in (shared_data / "mnist").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    altered = bytearray(gzip.decompress(labels.read_bytes()))
    altered[100] ^= 1
    labels.write_bytes(gzip.compress(bytes(altered)))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz: not the published file"):
        registry.load("mnist")
    checks = {check.path.name: check.ok for check in registry.verify("mnist")}
    assert checks == {
        "train-images-idx3-ubyte.gz": True,
        "train-labels-idx1-ubyte.gz": True,
        "t10k-images-idx3-ubyte.gz": True,
        "t10k-labels-idx1-ubyte.gz": False,
    }


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


def letter_images(n):
    """Images with a mark at row 3, column 20 as seen; stored column by column, as EMNIST does."""
    stored = np.zeros((n, 28, 28), np.uint8)
    stored[:, 20, 3] = np.arange(n) % 251
    return stored, (np.arange(n) % 26 + 1).astype(np.uint8)


def test_emnist_idx_is_turned_upright_and_numbered_from_zero(data):
    folder = data / "emnist-letters"
    folder.mkdir()
    for part, n in (("train", 124_800), ("test", 20_800)):
        images, labels = letter_images(n)
        write_idx(folder / f"emnist-letters-{part}-images-idx3-ubyte", images)
        write_idx(folder / f"emnist-letters-{part}-labels-idx1-ubyte", labels)
    dataset = registry.load("emnist-letters")
    assert (dataset.x_train[:, 3, 20, 0] == np.arange(124_800) % 251).all()
    assert dataset.x_train.sum(dtype=np.int64) == (np.arange(124_800) % 251).sum()
    assert dataset.y_test[:27].tolist() == [*range(26), 0]
    parts = cut(dataset, Split(how="published"), Seeds(), train_eval=10)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (104_000, 20_800, 20_800)
    assert parts.validation.rows[0] == 104_000
    assert dataset.notes == ()


def test_the_older_emnist_release_as_a_matlab_file_is_noted(data):
    from scipy.io import savemat

    folder = data / "emnist-letters"
    folder.mkdir()
    parts = {}
    for part, n in (("train", 88_800), ("test", 14_800)):
        images, labels = letter_images(n)
        parts[part] = {"images": images.reshape(n, 784), "labels": labels[:, None].astype(float)}
    savemat(folder / "emnist-letters.mat", {"dataset": parts})
    dataset = registry.load("emnist-letters")
    assert dataset.notes == ("the older release of 88,800 + 14,800 images",)
    assert dataset.info.validation == 14_800
    assert (dataset.x_test[:, 3, 20, 0] == np.arange(14_800) % 251).all()
    assert dataset.y_train.max() == 25


def test_emnist_of_another_size_is_refused(data):
    folder = data / "emnist"
    folder.mkdir()
    for part in ("train", "test"):
        images, labels = letter_images(26)
        write_idx(folder / f"emnist-letters-{part}-images-idx3-ubyte", images)
        write_idx(folder / f"emnist-letters-{part}-labels-idx1-ubyte", labels)
    with pytest.raises(DataError, match="found 26 training and 26 test images"):
        registry.load("emnist-letters")


def test_the_sign_language_sample_reads(shared):
    path = shared / "sign-mnist-sample" / "sign_mnist_sample.csv"
    x, y, notes = sign_letters(*formats.pixel_csv(path.read_bytes(), path, side=28), path)
    assert x.shape == (120, 28, 28, 1)
    # This copy is numbered 0..23 already, and says so: five images of each letter.
    assert np.bincount(y).tolist() == [5] * 24
    assert notes == ("sign_mnist_sample.csv: labels are numbered 0..23 without a gap for J; taken so",)


def test_a_nine_beside_the_last_letter_is_a_stray():
    y = np.array([*range(9), *range(10, 25)] * 20)
    y[7] = 9
    _, letters, notes = sign_letters(np.zeros((len(y), 1, 1, 1), np.uint8), y, Path("f.csv"))
    assert notes == ("f.csv:9: row 8 has the stray label 9; dropped",)
    assert sorted(set(letters)) == list(range(24))
    assert SIGNS[letters[-1]] == "Y"


def repeat_rows(lines, count):
    return "".join([lines[0], *(lines[1 + k % (len(lines) - 1)] for k in range(count))])


def test_sign_language_letters_close_the_gap_at_j_and_drop_a_stray(data):
    header = "label," + ",".join(f"pixel{k}" for k in range(1, 785)) + "\n"
    rows = [f"{label}" + f",{label}" * 784 + "\n" for label in (0, 8, 10, 24)]
    folder = data / "sign-mnist"
    folder.mkdir()
    train = repeat_rows([header, *rows], 27_455).splitlines(keepends=True)
    train[5] = "200" + ",1" * 784 + "\n"
    (folder / "sign_mnist_train.csv").write_text("".join(train))
    (folder / "sign_mnist_test.csv").write_text(repeat_rows([header, *rows], 7_172))
    dataset = registry.load("sign-mnist")
    assert dataset.notes == ("sign_mnist_train.csv:6: row 5 has the stray label 200; dropped",)
    assert len(dataset.x_train) == 27_454
    assert [SIGNS[y] for y in dataset.y_test[:4]] == ["A", "I", "K", "Y"]
    assert dataset.x_test[3].max() == 24

    (folder / "sign_mnist_test.csv").write_text(repeat_rows([header, *rows], 7_000))
    registry.load.cache_clear()
    with pytest.raises(DataError, match=r"sign_mnist_test.csv: has 7,000 of 7,172 rows"):
        registry.load("sign-mnist")


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_cifar_reads_fine_labels(name, data):
    entry = registry.ENTRIES[name]
    folder = data / name
    folder.mkdir()
    width = 1 if name == "cifar-10" else 2
    files = [file.name for file in entry.source.files]
    for number, file in enumerate(files):
        n = 10_000 if name == "cifar-10" or file == "test.bin" else 50_000
        records = np.zeros((n, width + 3072), np.uint8)
        records[:, 0] = 1
        records[:, width - 1] = (np.arange(n) + number) % len(entry.info.classes)
        records[:, width] = 9  # the red value of the first pixel
        (folder / file).write_bytes(records.tobytes())
    dataset = registry.load(name)
    assert dataset.x_train.shape == (50_000, 32, 32, 3)
    assert dataset.x_train[0, 0, 0].tolist() == [9, 0, 0]
    assert dataset.y_test[0] == len(files) - 1
    assert len(set(entry.info.classes)) == len(entry.info.classes) == len(set(dataset.y_train))
    path = folder / files[-1]
    path.write_bytes(path.read_bytes()[: -(width + 3072)])
    registry.load.cache_clear()
    with pytest.raises(DataError, match="9,999 test images"):
        registry.load(name)


def test_kaggle_digits_keeps_the_last_rows_for_testing(data):
    header = "label," + ",".join(f"pixel{k}" for k in range(784)) + "\n"
    rows = [f"{k % 10}" + ",0" * 783 + f",{k % 256}\n" for k in range(42_000)]
    folder = data / "kaggle-digits"
    folder.mkdir()
    (folder / "train.csv").write_text(header + "".join(rows))
    dataset = registry.load("kaggle-digits")
    assert (len(dataset.x_train), len(dataset.x_test)) == (37_800, 4_200)
    assert dataset.x_test[0, 27, 27, 0] == 37_800 % 256


def test_labels_outside_the_classes_are_refused(data):
    folder = data / "emnist-letters"
    folder.mkdir()
    for part, n in (("train", 88_800), ("test", 14_800)):
        write_idx(folder / f"emnist-letters-{part}-images-idx3-ubyte", np.zeros((n, 28, 28), np.uint8))
        write_idx(folder / f"emnist-letters-{part}-labels-idx1-ubyte", np.full(n, 27, np.uint8))
    with pytest.raises(DataError, match="found labels 26 to 26 where 0 to 25 are allowed"):
        registry.load("emnist-letters")
