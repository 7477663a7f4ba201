"""The published datasets that come as files: their facts, where the files are, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from optbench.datasets import formats
from optbench.datasets.base import DataError, Dataset, DatasetInfo
from optbench.datasets.fetch import Archive, DataFile, Source

Paths = Mapping[str, Path]

DIGITS = tuple("0123456789")
GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SIGNS = tuple(letter for letter in LETTERS if letter not in "JZ")
CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR_100 = tuple(_CIFAR_100.split())

#: Training and test images of EMNIST Letters: today's release, and the older one.
EMNIST_RELEASES = {(124_800, 20_800): "", (88_800, 14_800): "the older release of 88,800 + 14,800 images"}


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A dataset in files: its facts, its source, and the reader of the files found."""

    info: DatasetInfo
    source: Source
    read: Callable[[DatasetInfo, Paths, Source], Dataset]


def _idx(info: DatasetInfo, paths: Paths, source: Source) -> Dataset:
    arrays = []
    for file, ndim in zip(source.files, (3, 1, 3, 1), strict=True):
        path = paths[file.name]
        arrays.append(formats.idx(formats.read_bytes(path, sha256=file.sha256), path, ndim=ndim))
    x_train, y_train, x_test, y_test = arrays
    for images, labels in ((x_train, y_train), (x_test, y_test)):
        if images.shape[1:] != info.shape[:2] or len(images) != len(labels):
            raise DataError(
                f"{next(iter(paths.values())).parent}: images {images.shape} and {len(labels)} labels do not "
                f"fit together as {info.name}; fetch the files again"
            )
    return Dataset(
        info=info,
        x_train=x_train[..., None],
        y_train=y_train.astype(np.int64),
        x_test=x_test[..., None],
        y_test=y_test.astype(np.int64),
    )


def _emnist(info: DatasetInfo, paths: Paths, source: Source) -> Dataset:
    if "emnist-letters.mat" in paths:
        x_train, y_train, x_test, y_test = formats.emnist_mat(paths["emnist-letters.mat"])
    else:
        raw = _idx(info, paths, source)
        x_train, y_train, x_test, y_test = raw.x_train, raw.y_train, raw.x_test, raw.y_test
    folder = next(iter(paths.values())).parent
    release = EMNIST_RELEASES.get((len(x_train), len(x_test)))
    if release is None:
        raise DataError(
            f"{folder}: found {len(x_train):,} training and {len(x_test):,} test images; EMNIST Letters has "
            "124,800 and 20,800, or 88,800 and 14,800 in its older release"
        )
    if min(y_train.min(), y_test.min()) < 1:
        raise DataError(f"{folder}: a label is below 1; EMNIST Letters has 1 to 26")

    # The publisher stores each image column by column.
    def upright(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.reshape(-1, 28, 28).transpose(0, 2, 1)[..., None])

    return Dataset(
        info=replace(info, train=len(x_train), test=len(x_test), validation=len(x_test)),
        x_train=upright(x_train),
        y_train=y_train - 1,
        x_test=upright(x_test),
        y_test=y_test - 1,
        notes=(release,) if release else (),
    )


def _cifar(info: DatasetInfo, paths: Paths, source: Source) -> Dataset:
    label_bytes = 1 if len(info.classes) == 10 else 2
    parts = []
    for file in source.files:
        path = paths[file.name]
        parts.append(formats.cifar(formats.read_bytes(path), path, label_bytes=label_bytes))
    *train, (x_test, y_test) = parts
    x_train, y_train = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    if (len(x_train), len(x_test)) != (info.train, info.test):
        raise DataError(
            f"{next(iter(paths.values())).parent}: found {len(x_train):,} training and {len(x_test):,} test "
            f"images; {info.name} has {info.train:,} and {info.test:,}: a file is cut off, fetch it again"
        )
    return Dataset(info=info, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _signs(info: DatasetInfo, paths: Paths, source: Source) -> Dataset:
    parts, notes = [], list[str]()
    for file, published in zip(source.files, (info.train, info.test), strict=True):
        path = paths[file.name]
        x, y = formats.pixel_csv(formats.read_bytes(path), path, side=28)
        _refuse_short(path, len(x), published)
        x, y, found = sign_letters(x, y, path)
        parts.append((x, y))
        notes += found
    (x_train, y_train), (x_test, y_test) = parts
    return Dataset(
        info=replace(info, train=len(x_train), test=len(x_test)),
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        notes=tuple(notes),
    )


def sign_letters(
    x: formats.Pixels, y: formats.Labels, path: Path
) -> tuple[formats.Pixels, formats.Labels, tuple[str, ...]]:
    """Number the letters of Sign Language MNIST 0..23, drop stray labels, and note what was done.

    Kaggle's files count the whole alphabet, 0..24 with a gap at J = 9; Z = 25 and J are movements and do not
    occur. Other copies are numbered 0..23 already: they have a 9, and no 24.
    """
    if (y == 9).any() and not (y == 24).any():
        x, y, notes = formats.drop_stray(x, y, path, allowed=range(len(SIGNS)))
        return x, y, (f"{path.name}: labels are numbered 0..23 without a gap for J; taken so", *notes)
    kept = [number for number, letter in enumerate(LETTERS) if letter in SIGNS]
    x, y, notes = formats.drop_stray(x, y, path, allowed=kept)
    return x, np.searchsorted(kept, y), notes


def _kaggle_digits(info: DatasetInfo, paths: Paths, source: Source) -> Dataset:
    path = paths["train.csv"]
    x, y = formats.pixel_csv(formats.read_bytes(path), path, side=28)
    _refuse_short(path, len(x), info.train + info.test)
    x, y, notes = formats.drop_stray(x, y, path, allowed=range(10))
    train = len(x) - info.test
    return Dataset(
        info=replace(info, train=train),
        x_train=x[:train],
        y_train=y[:train],
        x_test=x[train:],
        y_test=y[train:],
        notes=notes,
    )


def _refuse_short(path: Path, rows: int, published: int) -> None:
    if rows < published:
        raise DataError(f"{path}: has {rows:,} of {published:,} rows: it is cut off; fetch it again")


_MNIST_FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
_EMNIST_FILES = tuple(
    f"emnist-letters-{part}-{kind}-ubyte"
    for part in ("train", "test")
    for kind in ("images-idx3", "labels-idx1")
)
_KRIZHEVSKY = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"


def _hashed(names: tuple[str, ...], *hashes: str) -> tuple[DataFile, ...]:
    return tuple(DataFile(name=name, sha256=sha) for name, sha in zip(names, hashes, strict=True))


def _same(folder: str, names: tuple[str, ...]) -> dict[str, str]:
    return {f"{folder}/{name}": name for name in names}


_CIFAR_10_FILES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")

FILE_ENTRIES = (
    FileEntry(
        info=DatasetInfo(
            name="mnist",
            title="MNIST",
            shape=(28, 28, 1),
            classes=DIGITS,
            train=60_000,
            test=10_000,
            scaling="pixels",
            licence="CC BY-SA 3.0",
            source="Y. LeCun, C. Cortes, C. J. C. Burges",
            citation="LeCun et al., Proc. IEEE 86(11), 1998, doi:10.1109/5.726791",
        ),
        source=Source(
            folders=("mnist", "MNIST/raw", "raw", "."),
            files=_hashed(
                _MNIST_FILES,
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "http://yann.lecun.com/exdb/mnist/",
            ),
        ),
        read=_idx,
    ),
    FileEntry(
        info=DatasetInfo(
            name="fashion-mnist",
            title="Fashion-MNIST",
            shape=(28, 28, 1),
            classes=GARMENTS,
            train=60_000,
            test=10_000,
            scaling="pixels",
            licence="MIT",
            source="Zalando Research",
            citation="Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747",
        ),
        source=Source(
            folders=("fashion-mnist", "FashionMNIST/raw", "raw", "."),
            files=_hashed(
                _MNIST_FILES,
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        ),
        read=_idx,
    ),
    FileEntry(
        info=DatasetInfo(
            name="emnist-letters",
            title="EMNIST Letters",
            shape=(28, 28, 1),
            classes=LETTERS,
            train=124_800,
            test=20_800,
            scaling="pixels",
            licence="public domain (NIST Special Database 19)",
            source="NIST; the last 20,800 training images are a balanced validation part",
            citation="Cohen, Afshar, Tapson, van Schaik (2017), arXiv:1702.05373",
            validation=20_800,
        ),
        source=Source(
            folders=("emnist-letters", "emnist", "EMNIST/raw"),
            files=tuple(DataFile(name=name) for name in _EMNIST_FILES),
            others=((DataFile(name="emnist-letters.mat"),),),
            archive=Archive(
                url="https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
                md5="58c8d27c78d21e728a6bc7b3cc06412e",
                members={f"gzip/{name}.gz": f"{name}.gz" for name in _EMNIST_FILES},
            ),
        ),
        read=_emnist,
    ),
    FileEntry(
        info=DatasetInfo(
            name="sign-mnist",
            title="Sign Language MNIST",
            shape=(28, 28, 1),
            classes=SIGNS,
            train=27_455,
            test=7_172,
            scaling="pixels",
            licence="CC0",
            source="Kaggle, datamunge/sign-language-mnist",
            citation="tecperson, Sign Language MNIST, Kaggle, 2017",
        ),
        source=Source(
            folders=("sign-mnist", "sign-language-mnist", "."),
            files=(DataFile(name="sign_mnist_train.csv"), DataFile(name="sign_mnist_test.csv")),
            page="https://www.kaggle.com/datasets/datamunge/sign-language-mnist",
        ),
        read=_signs,
    ),
    FileEntry(
        info=DatasetInfo(
            name="kaggle-digits",
            title="Kaggle's Digit Recognizer",
            shape=(28, 28, 1),
            classes=DIGITS,
            train=37_800,
            test=4_200,
            scaling="pixels",
            licence="CC BY-SA 3.0",
            source="Kaggle, competition digit-recognizer: the 42,000 labelled rows of train.csv, of which "
            "the last 4,200 serve as test part",
            citation="LeCun et al., Proc. IEEE 86(11), 1998, doi:10.1109/5.726791",
        ),
        source=Source(
            folders=("kaggle-digits", "digit-recognizer"),
            files=(DataFile(name="train.csv"),),
            page="https://www.kaggle.com/competitions/digit-recognizer/data",
        ),
        read=_kaggle_digits,
    ),
    FileEntry(
        info=DatasetInfo(
            name="cifar-10",
            title="CIFAR-10",
            shape=(32, 32, 3),
            classes=CIFAR_10,
            train=50_000,
            test=10_000,
            scaling="pixels",
            licence="none stated",
            source="A. Krizhevsky, V. Nair, G. Hinton; the binary version",
            citation=_KRIZHEVSKY,
        ),
        source=Source(
            folders=("cifar-10", "cifar-10-batches-bin"),
            files=tuple(DataFile(name=name) for name in _CIFAR_10_FILES),
            archive=Archive(
                url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                md5="c32a1d4ab5d03f1284b67883e8d87530",
                members=_same("cifar-10-batches-bin", _CIFAR_10_FILES),
            ),
        ),
        read=_cifar,
    ),
    FileEntry(
        info=DatasetInfo(
            name="cifar-100",
            title="CIFAR-100, fine labels",
            shape=(32, 32, 3),
            classes=CIFAR_100,
            train=50_000,
            test=10_000,
            scaling="pixels",
            licence="none stated",
            source="A. Krizhevsky, V. Nair, G. Hinton; the binary version",
            citation=_KRIZHEVSKY,
        ),
        source=Source(
            folders=("cifar-100", "cifar-100-binary"),
            files=(DataFile(name="train.bin"), DataFile(name="test.bin")),
            archive=Archive(
                url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                md5="03b5dce01913d631647c71ecec9e9cb8",
                members=_same("cifar-100-binary", ("train.bin", "test.bin")),
            ),
        ),
        read=_cifar,
    ),
)
