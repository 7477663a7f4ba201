"""The datasets that come with the package or with scikit-learn: no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from optbench.datasets.base import Dataset, DatasetInfo, hold_out
from optbench.datasets.published import DIGITS, GARMENTS, LETTERS


@dataclass(frozen=True, kw_only=True)
class BundledEntry:
    """A bundled dataset: its facts and how to read it."""

    info: DatasetInfo
    read: Callable[[DatasetInfo], Dataset]


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
        x, y, n = arrays["x"].astype(np.float32), arrays["y"].astype(np.int64), info.train
    return Dataset(info=info, x_train=x[:n], y_train=y[:n], x_test=x[n:], y_test=y[n:])


def _digits(info: DatasetInfo) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Pixels are 0..16; stored as 0..240 they share the 8-bit scale of the other image sets.
    x = np.round(bunch.images * 15).astype(np.uint8)[..., None]
    y = bunch.target.astype(np.int64)
    # The file is ordered by writer; held out at random, both parts have all of them.
    train, test = hold_out(y, info.test)
    return Dataset(info=info, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])


def _table(info: DatasetInfo) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{info.name.replace('-', '_')}")()
    x, y = bunch.data.astype(np.float32), bunch.target.astype(np.int64)
    train, test = hold_out(y, info.test)
    return Dataset(info=info, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])


def _embedded(name: str) -> np.lib.npyio.NpzFile:
    path = files("optbench.datasets") / "embedded" / f"{name.replace('-', '_')}.npz"
    arrays: np.lib.npyio.NpzFile = np.load(str(path), allow_pickle=False)
    return arrays


_SPLIT = "a fifth of each class, drawn once from a fixed seed, for testing"

BUNDLED_ENTRIES = (
    BundledEntry(
        info=DatasetInfo(
            name="digits",
            title="Optical digits, 8x8",
            shape=(8, 8, 1),
            classes=DIGITS,
            train=1437,
            test=360,
            scaling="pixels",
            licence="CC BY 4.0",
            source="UCI Machine Learning Repository, Optical Recognition of Handwritten Digits; "
            "the copy inside scikit-learn, 360 images held out at random for the test part",
            citation="E. Alpaydin and C. Kaynak (1998), doi:10.24432/C50P49",
        ),
        read=_digits,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="wine",
            title="Wine",
            shape=(13,),
            classes=("class_0", "class_1", "class_2"),
            train=142,
            test=36,
            scaling="standardize",
            licence="CC BY 4.0",
            source=f"UCI Machine Learning Repository, Wine; the copy inside scikit-learn, {_SPLIT}",
            citation="S. Aeberhard and M. Forina (1992), doi:10.24432/C5PC7J",
        ),
        read=_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="breast-cancer",
            title="Breast Cancer Wisconsin (Diagnostic)",
            shape=(30,),
            classes=("malignant", "benign"),
            train=455,
            test=114,
            scaling="standardize",
            licence="CC BY 4.0",
            source="UCI Machine Learning Repository, Breast Cancer Wisconsin (Diagnostic); the copy inside "
            f"scikit-learn, {_SPLIT}",
            citation="W. Wolberg, O. Mangasarian, N. Street, W. Street (1993), doi:10.24432/C5DW2B",
        ),
        read=_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="iris",
            title="Iris",
            shape=(4,),
            classes=("setosa", "versicolor", "virginica"),
            train=120,
            test=30,
            scaling="standardize",
            licence="CC BY 4.0",
            source=f"UCI Machine Learning Repository, Iris; the copy inside scikit-learn, {_SPLIT}",
            citation="R. A. Fisher (1936), doi:10.24432/C56C76",
        ),
        read=_table,
    ),
    BundledEntry(
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
        read=_npz,
    ),
    BundledEntry(
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
        read=_npz,
    ),
    BundledEntry(
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
        read=_letters,
    ),
)
