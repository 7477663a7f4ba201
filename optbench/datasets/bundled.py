"""The datasets that come with the package: no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    with _embedded(info.name) as arrays:
        pixels, y = arrays["x"], arrays["y"].astype(np.int64)
    # Pixels are 0..16; stored as 0..240 they share the 8-bit scale of the other image sets. The file is
    # ordered by writer; held out at random, both parts have all of them.
    return _parted(info, (pixels * np.uint8(15))[..., None], y, how="stratified")


def _embedded_table(info: DatasetInfo) -> Dataset:
    with _embedded(info.name) as arrays:
        x, y = arrays["x"], arrays["y"]
    if info.targets == "value":
        return _parted(info, x, y, how="random")
    return _parted(info, x, y.astype(np.int64), how="stratified")


def _parted(info: DatasetInfo, x: NDArray[Any], y: NDArray[Any], *, how: str) -> Dataset:
    train, test = hold_out(y, info.test, how=how)
    return Dataset(info=info, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])


def _characters(info: DatasetInfo) -> Dataset:
    with _embedded(info.name) as arrays:
        train, test = (np.searchsorted(CHARACTERS, arrays[part]).astype(np.uint8) for part in _PARTS)
    return Dataset(info=info, x_train=train, y_train=train, x_test=test, y_test=test)


def _embedded(name: str) -> np.lib.npyio.NpzFile:
    path = files("optbench.datasets") / "embedded" / f"{name.replace('-', '_')}.npz"
    arrays: np.lib.npyio.NpzFile = np.load(str(path), allow_pickle=False)
    return arrays


#: The bytes that occur in the plays, as the tokens' numbers have them.
CHARACTERS = np.frombuffer(
    b"\n !\"&'(),-./12345:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz{}", np.uint8
)
_PARTS = ("train", "test")
_RANDOM = "a fifth, drawn once from a fixed seed, for testing"
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
        read=_embedded_table,
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
        read=_embedded_table,
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
        read=_embedded_table,
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
    BundledEntry(
        info=DatasetInfo(
            name="diabetes",
            title="Diabetes progression",
            shape=(10,),
            classes=(),
            train=354,
            test=88,
            scaling="standardize",
            licence="BSD-3-Clause, as a part of scikit-learn",
            source=f"the copy inside scikit-learn, {_RANDOM}; target: disease progression after a year",
            citation="Efron, Hastie, Johnstone, Tibshirani, Annals of Statistics 32, 2004",
            targets="value",
        ),
        read=_embedded_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="approval",
            title="Presidential approval, from five polls",
            shape=(6,),
            classes=(),
            train=801,
            test=200,
            scaling="standardize",
            licence="CC BY 4.0",
            source=f"FiveThirtyEight; the copy inside the package river, {_RANDOM}",
            citation="FiveThirtyEight, Trump Approval Ratings, 2017 to 2019",
            targets="value",
            unit="%",
        ),
        read=_embedded_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="doctor-visits",
            title="RAND Health Insurance Experiment, visits to a doctor",
            shape=(9,),
            classes=(),
            train=16152,
            test=4038,
            scaling="standardize",
            licence="public domain",
            source=f"RAND Corporation; the copy inside the package statsmodels, {_RANDOM}",
            citation="Cameron and Trivedi, Microeconometrics, 2005",
            targets="value",
            unit="visits",
        ),
        read=_embedded_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="phishing",
            title="Website phishing",
            shape=(9,),
            classes=("legitimate", "phishing"),
            train=1000,
            test=250,
            scaling="standardize",
            licence="CC BY 4.0",
            source=f"UCI Machine Learning Repository; the copy inside the package river, {_SPLIT}",
            citation="N. Abdelhamid (2014), doi:10.24432/C5B301",
        ),
        read=_embedded_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="image-segments",
            title="Statlog image segmentation",
            shape=(18,),
            classes=("brickface", "cement", "foliage", "grass", "path", "sky", "window"),
            train=1848,
            test=462,
            scaling="standardize",
            licence="CC BY 4.0",
            source=f"UCI Machine Learning Repository; the copy inside the package river, {_SPLIT}",
            citation="Vision Group, University of Massachusetts (1990), doi:10.24432/C5P01G",
        ),
        read=_embedded_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="party",
            title="American National Election Study 1996, party identification",
            shape=(9,),
            classes=(
                *("strong Democrat", "weak Democrat", "independent Democrat", "independent"),
                *("independent Republican", "weak Republican", "strong Republican"),
            ),
            train=755,
            test=189,
            scaling="standardize",
            licence="public domain",
            source=f"American National Election Studies; the copy inside the package statsmodels, {_SPLIT}",
            citation="American National Election Study, 1996",
        ),
        read=_embedded_table,
    ),
    BundledEntry(
        info=DatasetInfo(
            name="shakespeare",
            title="Nine plays of Shakespeare, by character",
            shape=(),
            classes=tuple("\\n" if c == 10 else chr(c) for c in CHARACTERS.tolist()),
            train=1052520,
            test=98308,
            scaling="none",
            licence="public domain; the edition CC BY 2.5",
            source="Project Gutenberg; the copy of the Open Knowledge Foundation inside the package "
            "shakespeare; eight tragedies and comedies for training, The Tempest for testing",
            citation="W. Shakespeare, Plays",
            targets="token",
        ),
        read=_characters,
    ),
)
