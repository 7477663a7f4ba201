from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

from optbench.datasets import registry
from optbench.datasets.bundled import BUNDLED_ENTRIES


def test_embedded_data_fit_in_six_megabytes(repository):
    files = list((repository / "optbench" / "datasets" / "embedded").iterdir())
    assert sum(path.stat().st_size for path in files) < 6_000_000


@pytest.mark.parametrize("name", [entry.info.name for entry in BUNDLED_ENTRIES])
def test_embedded_data_are_what_their_facts_say(name):
    dataset, facts = registry.load(name), registry.info(name)
    assert dataset.x_train.shape == (facts.train, *facts.shape)
    assert dataset.x_test.shape == (facts.test, *facts.shape)
    if facts.targets == "value":
        assert dataset.y_train.dtype == np.float64
        assert np.std(dataset.y_train) > 0
    else:
        seen = np.unique(np.concatenate([dataset.y_train, dataset.y_test]))
        assert set(seen) == set(range(len(facts.classes)))
    with pytest.raises(ValueError, match="read-only"):
        dataset.x_train[0] = 0


@pytest.mark.parametrize(("name", "folder"), [("mnist-mini", "mnist"), ("fashion-mini", "fashion-mnist")])
def test_the_mini_sets_are_balanced_pieces_of_the_originals(shared_data, repository, name, folder):
    embedded = repository / "optbench" / "datasets" / "embedded" / f"{name.replace('-', '_')}.npz"
    with np.load(embedded) as arrays:
        for part, stem in (("train", "train"), ("test", "t10k")):
            raw = gzip.decompress((shared_data / folder / f"{stem}-images-idx3-ubyte.gz").read_bytes())
            images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28, 1)
            raw = gzip.decompress((shared_data / folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes())
            labels = np.frombuffer(raw, np.uint8, offset=8)
            rows = arrays[f"rows_{part}"]
            assert len(np.unique(rows)) == len(rows)
            assert np.array_equal(arrays[f"x_{part}"], images[rows])
            assert np.array_equal(arrays[f"y_{part}"], labels[rows])
            assert len(np.unique(np.bincount(arrays[f"y_{part}"]))) == 1


def test_uci_letters_are_the_original_rows(shared_data):
    with gzip.open(shared_data / "uci-letter" / "letter-recognition.csv.gz", "rt") as stream:
        lines = stream.read().splitlines()[1:]
    dataset = registry.load("uci-letter")
    for row in (0, 15_999, 16_000, 19_999):
        letter, *values = lines[row].split(",")
        x, y = (
            (dataset.x_train[row], dataset.y_train[row])
            if row < 16_000
            else (dataset.x_test[row - 16_000], dataset.y_test[row - 16_000])
        )
        assert dataset.info.classes[y] == letter
        assert [float(value) for value in values] == list(x)


def test_made_data_have_the_shape_and_all_classes():
    for name in registry.ENTRIES:
        made, facts = registry.synthetic(name), registry.info(name)
        assert made.x_train.shape[1:] == facts.shape
        if facts.targets != "value":
            assert len(np.unique(made.y_train)) == len(np.unique(made.y_test)) == len(facts.classes)
        assert bool(made.info.validation) == bool(facts.validation)


def test_the_docs_and_the_notice_have_every_dataset(repository):
    """The docs have a row of each, with its size; the notice names what lies inside the package."""
    docs = (repository / "docs" / "datasets.md").read_text(encoding="utf-8")
    table = docs.split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    said = {name: row for row in rows for name in row[0].split(", ") if len(row) > 1}
    assert set(said) - {"name", "---"} == set(registry.ENTRIES)
    for name in registry.ENTRIES:
        facts = registry.info(name)
        sizes = [int(number.replace(",", "")) for number in re.findall(r"[\d,]+", said[name][1])]
        assert sizes == [facts.train, facts.test], name
    notice = (repository / "NOTICE").read_text(encoding="utf-8")
    for entry in BUNDLED_ENTRIES:
        name = entry.info.name
        assert name in notice or f"{name.replace('-', '_')}.npz" in notice
