"""The datasets that a suite can name, and made data in their shape for a dry run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np

from optbench.datasets.base import Dataset, DatasetInfo


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A registered dataset: its facts and how to read it."""

    info: DatasetInfo
    load: Callable[[DatasetInfo], Dataset]


def _npz(info: DatasetInfo) -> Dataset:
    with _embedded(info.name) as arrays:
        return Dataset(
            info=info,
            x_train=arrays["x_train"],
            y_train=arrays["y_train"].astype(np.int64),
            x_test=arrays["x_test"],
            y_test=arrays["y_test"].astype(np.int64),
        )


def _letters(info: DatasetInfo) -> Dataset:
    with _embedded(info.name) as arrays:
        x, y = arrays["x"].astype(np.float32), arrays["y"].astype(np.int64)
    return Dataset(
        info=info,
        x_train=x[: info.train],
        y_train=y[: info.train],
        x_test=x[info.train :],
        y_test=y[info.train :],
    )


def _digits(info: DatasetInfo) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Pixels are 0..16; stored as 0..240 they share the 8-bit scale of the other image sets.
    x = np.round(bunch.images * 15).astype(np.uint8)[..., None]
    y = bunch.target.astype(np.int64)
    # The file is ordered by writer; a fixed permutation gives both parts all of them.
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(y))
    train, test = np.sort(order[: info.train]), np.sort(order[info.train :])
    return Dataset(info=info, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])


def _embedded(name: str) -> np.lib.npyio.NpzFile:
    path = files("optbench.datasets") / "embedded" / f"{name.replace('-', '_')}.npz"
    arrays: np.lib.npyio.NpzFile = np.load(str(path), allow_pickle=False)
    return arrays


DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {
        entry.info.name: entry
        for entry in (
            Entry(
                info=DatasetInfo(
                    name="digits",
                    title="Optical digits, 8x8 (scikit-learn)",
                    shape=(8, 8, 1),
                    classes=DIGITS,
                    train=1437,
                    test=360,
                    scaling="pixels",
                    licence="CC BY 4.0",
                    source="UCI Machine Learning Repository, Optical Recognition of Handwritten Digits; "
                    "the copy inside scikit-learn; 1,437 images for training by a fixed permutation",
                    citation="E. Alpaydin and C. Kaynak (1998), doi:10.24432/C50P49",
                ),
                load=_digits,
            ),
            Entry(
                info=DatasetInfo(
                    name="mnist-mini",
                    title="MNIST, 5,000 + 1,000 images",
                    shape=(28, 28, 1),
                    classes=DIGITS,
                    train=5000,
                    test=1000,
                    scaling="pixels",
                    licence="CC BY-SA 3.0",
                    source="Y. LeCun, C. Cortes, C. J. C. Burges; 500 + 100 images a class at fixed indices",
                    citation="LeCun et al., Proc. IEEE 86(11), 1998, doi:10.1109/5.726791",
                ),
                load=_npz,
            ),
            Entry(
                info=DatasetInfo(
                    name="fashion-mini",
                    title="Fashion-MNIST, 5,000 + 1,000 images",
                    shape=(28, 28, 1),
                    classes=GARMENTS,
                    train=5000,
                    test=1000,
                    scaling="pixels",
                    licence="MIT",
                    source="Zalando Research; 500 + 100 images a class at fixed indices",
                    citation="Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747",
                ),
                load=_npz,
            ),
            Entry(
                info=DatasetInfo(
                    name="uci-letter",
                    title="UCI Letter Recognition",
                    shape=(16,),
                    classes=LETTERS,
                    train=16000,
                    test=4000,
                    scaling="standardize",
                    licence="CC BY 4.0",
                    source="UCI Machine Learning Repository, D. J. Slate; first 16,000 rows for training, "
                    "as the donor did",
                    citation="Frey and Slate, Machine Learning 6, 1991, doi:10.1007/BF00114162",
                ),
                load=_letters,
            ),
        )
    }
)


def info(name: str) -> DatasetInfo:
    """Look up the facts of a registered dataset; ``KeyError`` where there is none of that name."""
    return ENTRIES[name].info


@lru_cache(maxsize=4)
def load(name: str) -> Dataset:
    """Read a registered dataset into memory, with labels checked against its facts.

    The last four stay in memory. Their arrays are read-only, as every trial of a run shares them.
    """
    entry = ENTRIES[name]
    return _frozen(entry.load(entry.info))


@lru_cache(maxsize=4)
def made(name: str, *, train: int = 120, test: int = 60) -> Dataset:
    """Make data of a dataset's shape and classes for a dry run: noisy class prototypes, no download.

    What is trained on it says nothing about the optimizer.
    """
    facts = ENTRIES[name].info
    generator = np.random.Generator(np.random.PCG64(0))
    classes = len(facts.classes)
    prototypes = generator.uniform(0, 255, (classes, *facts.shape))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(count, dtype=np.int64) % classes
        noisy = prototypes[y] * 0.7 + generator.uniform(0, 76, (count, *facts.shape))
        return noisy.astype(np.uint8 if facts.scaling == "pixels" else np.float32), y

    x_train, y_train = draw(max(train, 4 * classes))
    x_test, y_test = draw(max(test, 2 * classes))
    return _frozen(
        Dataset(
            info=replace(facts, train=len(x_train), test=len(x_test)),
            x_train=x_train,
            y_train=y_train,
            x_test=x_test,
            y_test=y_test,
        )
    )


def _frozen(dataset: Dataset) -> Dataset:
    classes = len(dataset.info.classes)
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        array.flags.writeable = False
    for labels in (dataset.y_train, dataset.y_test):
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"dataset {dataset.info.name}: labels outside 0..{classes - 1}")
    return dataset
