"""Readers of the published file formats: idx, CIFAR's binary records, MATLAB, CSV of pixels.

Nothing here unpickles. Sizes are checked against the header before memory is taken, and every error names the
file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.base import DataError
from optbench.suite.isolated import EndedError, call_isolated
from optbench.suite.validation import one_line

if TYPE_CHECKING:
    import pandas as pd

#: No published file here comes near this size, decompressed.
MAX_BYTES = 2**30
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


def read_csv(source: Any, **options: Any) -> pd.DataFrame:
    """Read a CSV table as ``pandas.read_csv`` does, every number to its last bit.

    So does pandas from 3.1 on by default; 2.1 changes the last bit of a third of them by default.
    """
    import pandas as pd

    return pd.read_csv(source, **_exactly(), **options)


@cache
def _exactly() -> dict[str, str]:
    """Options for exact numbers, which pandas deprecates where it reads them exactly anyway."""
    import pandas as pd

    (read,) = pd.read_csv(io.StringIO("x\n1.0000076293949887\n"))["x"]
    return {} if read == 1.0000076293949887 else {"float_precision": "round_trip"}


def read_bytes(path: Path, *, sha256: str | None = None, limit: int = MAX_BYTES) -> bytes:
    """Read a file, decompressed where its name ends in .gz.

    Parameters
    ----------
    path : Path
        The file.
    sha256 : str, optional
        What the decompressed bytes must hash to.
    limit : int
        Bytes, decompressed; more is refused.

    Raises
    ------
    DataError
        If it cannot be read, is cut off, too large, or not the file that the hash names.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                raw = stream.read(limit + 1)
        else:
            with path.open("rb") as plain:
                raw = plain.read(limit + 1)
    except EOFError:
        raise DataError(f"{path}: the file is cut off; delete it and fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: not a sound gzip file ({one_line(error)}); delete it and fetch it again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(raw) > limit:
        raise DataError(f"{path}: holds more than {limit:,} bytes, which this file never does; delete it")
    if sha256 is not None and (found := hashlib.sha256(raw).hexdigest()) != sha256:
        raise DataError(
            f"{path}: not the published file: its content has SHA-256 {found}, expected {sha256}; "
            "delete it and fetch it again"
        )
    return raw


def idx(raw: bytes, path: Path, *, ndim: int) -> NDArray[Any]:
    """Decode an idx file (the format of MNIST): magic, big-endian axis lengths, values in C order.

    Parameters
    ----------
    raw : bytes
        The file, decompressed.
    path : Path
        For errors.
    ndim : int
        Axes that it must have.

    Returns
    -------
    array
        Of the shape and type that the header declares, native byte order.
    """
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise DataError(f"{path}: not an idx file: it begins with {raw[:4]!r}; fetch it again")
    if raw[3] != ndim:
        raise DataError(f"{path}: the idx file has {raw[3]} axes, {ndim} are expected; is the name right?")
    dtype = np.dtype(_IDX_TYPES[raw[2]])
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise DataError(f"{path}: the file is cut off in its header; delete it and fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", ndim, 4))
    expected = dtype.itemsize
    for axis in shape:
        expected *= axis
    if len(raw) - start != expected:
        state = "cut off" if len(raw) - start < expected else "followed by something else"
        raise DataError(
            f"{path}: its header declares {shape}, {expected:,} bytes, but {len(raw) - start:,} follow: "
            f"the file is {state}; delete it and fetch it again"
        )
    values = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def cifar(raw: bytes, path: Path, *, label_bytes: int) -> tuple[Pixels, Labels]:
    """Decode CIFAR's binary records: label bytes, then 1,024 red, green and blue values in row order.

    Of several labels (CIFAR-100 has a coarse one first) the last is taken.

    Returns
    -------
    images : array of uint8, [n, 32, 32, 3]
    labels : array of int64, [n]
    """
    size = label_bytes + 3072
    if not raw or len(raw) % size:
        raise DataError(
            f"{path}: {len(raw):,} bytes are no whole number of {size}-byte records: the file is cut off "
            "or not CIFAR's binary version; delete it and fetch it again"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, size)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, label_bytes - 1].astype(np.int64)


def emnist_mat(path: Path) -> tuple[Pixels, Labels, Pixels, Labels]:
    """Read EMNIST's MATLAB file: training images and labels, then those of the test part, as stored.

    Returns
    -------
    tuple of array
        Images [n, 784] with the columns of each image one after the other, labels [n].
    """
    try:
        # A damaged file can end the process, by a fault in SciPy's compiled reader.
        found, wrong = call_isolated("optbench.datasets.formats:mat_arrays", "", path=str(path))
    except EndedError as error:
        found, wrong = (), str(error)
    if wrong is not None:
        raise DataError(f"{path}: not EMNIST's MATLAB file ({wrong}); fetch it again")
    arrays = (found[:2], found[2:])
    for images, labels in arrays:
        fits = (
            labels.dtype.kind in "uif"
            and images.ndim == 2
            and images.shape[1] == 784
            and labels.size == len(images)
        )
        if not fits or images.dtype != np.uint8:
            raise DataError(
                f"{path}: found images {images.dtype}{images.shape} with {labels.size} labels; "
                "uint8 [n, 784] and one label an image are expected"
            )
    (x_train, y_train), (x_test, y_test) = arrays
    return x_train, y_train.ravel().astype(np.int64), x_test, y_test.ravel().astype(np.int64)


def mat_arrays(path: str) -> tuple[tuple[NDArray[Any], ...], str | None]:
    """Read images and labels of the training part, and of the test part, here; or what is wrong."""
    from scipy.io import loadmat

    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes are too many")
        content = loadmat(path, variable_names=["dataset"])["dataset"][0, 0]
        parts = [content[part][0, 0] for part in ("train", "test")]
        arrays = tuple(part[name] for part in parts for name in ("images", "labels"))
        if any(array.dtype.hasobject for array in arrays):
            raise ValueError("objects in place of numbers")
    except Exception as error:  # whatever a damaged file makes of the reader
        return (), f"{type(error).__name__}: {one_line(error)}"
    return arrays, None


def pixel_csv(raw: bytes, path: Path, *, side: int) -> tuple[Pixels, Labels]:
    """Decode Kaggle's layout: a header ``label,pixel...``, then a label and side x side pixels a row.

    Parameters
    ----------
    raw : bytes
        The file.
    path : Path
        For errors.
    side : int
        Height and width.

    Returns
    -------
    images : array of uint8, [n, side, side, 1]
    labels : array of int64, [n]
        As stored, whatever they are.

    Raises
    ------
    DataError
        If it is not such a table, a row is short, or a pixel lies outside 0..255.
    """
    import pandas as pd

    try:
        table = read_csv(io.BytesIO(raw))
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not a readable CSV file ({one_line(error)}); fetch it again") from None
    if list(table.columns[:1]) != ["label"] or table.shape[1] != 1 + side * side:
        raise DataError(
            f"{path}: found {table.shape[1]} columns beginning with {list(table.columns[:3])}; "
            f"`label` and {side * side} pixels are expected"
        )
    missing = table.isna().any(axis=1)
    if missing.any():
        line = int(np.flatnonzero(missing)[0]) + 2
        raise DataError(f"{path}:{line}: the row is short: the file is cut off or altered; fetch it again")
    values = table.to_numpy()
    if values.dtype.kind not in "iu":
        odd = next(name for name, kind in table.dtypes.items() if kind.kind not in "iu")
        raise DataError(f"{path}: column {odd} holds something other than whole numbers; fetch it again")
    outside = ((values[:, 1:] < 0) | (values[:, 1:] > 255)).any(axis=1)
    if outside.any():
        line = int(np.flatnonzero(outside)[0]) + 2
        raise DataError(f"{path}:{line}: a pixel lies outside 0..255: the file is altered; fetch it again")
    return values[:, 1:].astype(np.uint8).reshape(-1, side, side, 1), values[:, 0].astype(np.int64)


def drop_stray(
    images: Pixels, labels: Labels, path: Path, *, allowed: Collection[int]
) -> tuple[Pixels, Labels, tuple[str, ...]]:
    """Drop the rows of a CSV file whose label the dataset does not have, with a note for each.

    Raises
    ------
    DataError
        If more than one row in a hundred is such: then it is another file.
    """
    stray = np.flatnonzero(~np.isin(labels, list(allowed)))
    if len(stray) * 100 > len(labels):
        raise DataError(
            f"{path}: {len(stray)} of {len(labels)} rows have labels that this dataset does not have, "
            f"such as {labels[stray[0]]}; is it the right file?"
        )
    notes = tuple(
        f"{path.name}:{row + 2}: row {row + 1} has the stray label {labels[row]}; dropped" for row in stray
    )
    return np.delete(images, stray, axis=0), np.delete(labels, stray), notes
