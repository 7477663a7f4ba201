"""Sizes of custom data, judged from headers before anything is read; what is too large is refused."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from optbench.datasets.base import DataError
from optbench.datasets.cells import COLUMNS_VARIABLE, MOST_COLUMNS
from optbench.environment import limit
from optbench.suite.validation import one_line

#: Variable that raises the limit, in gigabytes.
LIMIT_VARIABLE = "OPTBENCH_DATA_LIMIT"
#: Gigabytes that the arrays of custom data may have.
LIMIT = 2.0
#: Bytes in which the first line of a table must end.
_FIRST_LINE = 2**24

#: What a file that is no sound archive of arrays makes of the reader, by the ways that archives compress.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, OSError, EOFError),
    *(NotImplementedError, RuntimeError),
)
#: Shape and type of an array.
Header = tuple[tuple[int, ...], np.dtype]


def check_size(needed: int, place: str) -> None:
    """Refuse data that would need more memory than is allowed.

    Raises
    ------
    DataError
        The message says what is needed, what is allowed, and how to raise that.
    """
    most = limit(LIMIT_VARIABLE, LIMIT)
    if needed > most * 2**30:
        raise DataError(
            f"{place}: {needed / 2**30:.3g} GB of arrays, and {most:g} GB are allowed; give fewer or smaller "
            f"examples, or allow more, as in {LIMIT_VARIABLE}={math.ceil(needed / 2**30)}"
        )


def npz_headers(path: Path) -> dict[str, Header]:
    """Read the shapes and types of the arrays in an .npz file, and nothing of the arrays.

    Raises
    ------
    DataError
        If it is no such file, or an array is cut short.
    """
    found: dict[str, Header] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        shape, kind, begins = _header(file)
                    needed = begins + math.prod(shape) * kind.itemsize
                    if needed > member.file_size and not kind.hasobject:
                        raise DataError(
                            f"{path}: {member.filename} declares {needed:,} bytes and has "
                            f"{member.file_size:,}: the file is cut off or altered; save it again"
                        )
                    found[member.filename.removesuffix(".npy")] = shape, kind
    except _DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: not a plain .npz file ({one_line(error)}); save arrays with numpy.savez"
        ) from None
    return found


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, kind = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"arrays of format {version[0]}.{version[1]}")
    return tuple(shape), kind, file.tell()


def check_csv(path: Path) -> None:
    """Refuse a CSV file that is too wide or too large, by its first lines and its size.

    Raises
    ------
    DataError
    """
    with path.open("rb") as file:
        first = file.readline(_FIRST_LINE)
        second = file.readline(_FIRST_LINE)
    columns = first.count(b",") + 1
    if columns > (most := limit(COLUMNS_VARIABLE, MOST_COLUMNS)):
        raise DataError(
            f"{path}: {columns:,} columns, and {most:,.0f} are read of a CSV file; save wider data with "
            f"numpy.savez and declare `npz:`, or allow more, as in {COLUMNS_VARIABLE}={columns}"
        )
    if second:
        rows = max(0, path.stat().st_size - len(first)) // len(second)
        check_size(8 * columns * rows, str(path))
