"""Custom datasets, declared in the suite: ``{npz: path}``, ``{csv: path, label: column}`` or with ``target``,
``{text: path}``, ``{class: module:function}``.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.datasets import own_table, own_text
from optbench.datasets.base import DataError, Dataset, DatasetInfo, hold_out
from optbench.datasets.bounds import check_csv, check_size, npz_headers
from optbench.datasets.cells import look_alike
from optbench.suite.isolated import EndedError, call_isolated
from optbench.suite.references import ImportProblem, identify, load_object
from optbench.suite.validation import one_line, parse, shown
from optbench.task import TargetName
from optbench.trial import OwnData, to_plain

DEFAULT_TEST = 0.2

#: What may stand in a declaration besides its kind, by kind.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "npz": ("name", "test", "scaling", "targets"),
    "csv": ("label", "target", "name", "test", "shape", "scaling", "encode", "drop"),
    "text": ("name", "test", "tokens"),
    "class": ("name", "test", "scaling", "targets"),
}

#: Arrays of an .npz file: with a test part of its own, or without one.
_NPZ_KEYS = (("x_train", "y_train", "x_test", "y_test"), ("x", "y"))
_Parts = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def declare(entry: Mapping[str, Any], folder: Path) -> OwnData:
    """Read a declaration and note what the data hold.

    Parameters
    ----------
    entry : mapping
        One of ``npz`` (keys x_train, y_train, x_test, y_test, or x and y), ``csv`` (one example a row, with
        ``label`` naming the column of the classes, or ``target`` that of the numbers to predict), ``text``
        (bytes, or ``tokens: character``) and ``class`` (a function without arguments that returns the arrays
        in either form). ``test`` is the share of examples that becomes the test part where there is none (.2;
        .1 of a text, its end), or for ``csv`` and ``text`` another file. ``shape`` turns columns into images.
        ``encode`` names columns of words that are one-hot encoded, ``drop`` those that are left out.
        With ``targets: value`` the y of arrays are numbers to predict.
    folder : Path
        Folder of the suite file, at which relative paths start.

    Raises
    ------
    DataError
        If the file is missing or not such data.
    """
    kind = next(kind for kind in OPTIONS if kind in entry)
    reference, test = entry[kind], entry.get("test")
    own = OwnData(
        kind=kind,  # type: ignore[arg-type]
        name=entry.get("name") or _short_name(kind, reference),
        location=reference if kind == "class" else str(folder / reference),
        test_location=str(folder / test) if isinstance(test, str) else None,
        digest="",
        label=entry.get("label") or entry.get("target"),
        test=test if isinstance(test, float) else None,
        shape=tuple(entry["shape"]) if entry.get("shape") else None,
        scaling=entry.get("scaling"),
        encode=tuple(entry["encode"]) if entry.get("encode") else None,
        drop=tuple(entry["drop"]) if entry.get("drop") else None,
        targets=_targets(kind, entry),
        tokens="character" if entry.get("tokens") == "character" else None,
    )
    if kind == "class" and reference.partition(":")[0].endswith(".py"):
        own = replace(own, location=str(folder / reference))
    if kind == "class":
        with contextlib.suppress(ImportProblem):  # reading it says what is wrong
            own = replace(own, file_digest=identify(own.location, Path()))
    digest, parts = _read(own)
    if own.kind == "text" and own.test is None and own.test_location is None:
        own = replace(own, test=own_text.DEFAULT_TEST)
    elif len(parts) == 2 and own.test is None and own.test_location is None:
        own = replace(own, test=DEFAULT_TEST)
    return replace(own, digest=digest)


def load(own: OwnData) -> Dataset:
    """Read a declared dataset.

    Raises
    ------
    DataError
        If it is missing, has changed since the suite was read, or is not usable as data.
    """
    digest, parts = _read(own)
    if digest != own.digest:
        raise DataError(
            f"{own.location}: the data have changed since the suite was read ({digest[:12]}, then "
            f"{own.digest[:12]}); run the suite again"
        )
    if own.targets == "token":
        return own_text.load(own)
    x_train, y_train, x_test, y_test = parts if len(parts) == 4 else _with_test(own, *parts)
    numbers = own.targets == "value"
    names = np.unique(np.concatenate([y_train, y_test])) if not numbers else np.empty(0)
    if len(names) < 2 and not numbers:
        raise DataError(f"{own.location}: found {len(names)} classes; at least two are needed")
    x_train, x_test = _inputs(own, x_train), _inputs(own, x_test)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{own.location}: training and test examples differ: {x_train.shape}, {x_test.shape}")
    images = x_train.ndim == 4 and x_train.dtype == np.uint8
    info = DatasetInfo(
        name=own.name,
        title=own.name,
        shape=x_train.shape[1:],
        classes=tuple(str(name) for name in names),
        train=len(x_train),
        test=len(x_test),
        scaling=own.scaling or ("pixels" if images else "standardize"),
        licence="the user's own",
        source=own.location,
        citation="",
        targets=own.targets or "label",
    )
    if not numbers:
        y_train, y_test = np.searchsorted(names, y_train), np.searchsorted(names, y_test)
    notes = list(own_table.read(own).notes if own.kind == "csv" else own_table.array_notes(own, *parts[:2]))
    notes += _odd_shape(own, x_train.shape[1:])
    look_alike("class", info.classes, notes)
    return Dataset(
        info=info, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, notes=tuple(notes)
    )


def _odd_shape(own: OwnData, shape: tuple[int, ...]) -> list[str]:
    """Point out images that may have their channels first, though more of them than a picture has."""
    if len(shape) != 3 or not shape[0] < shape[1] == shape[2]:
        return []
    return [
        f"{own.location}: examples of shape {shape} are taken as [height, width, channels]; if the first is "
        "the channels, save numpy.transpose(x, (0, 2, 3, 1))"
    ]


def _targets(kind: str, entry: Mapping[str, Any]) -> TargetName | None:
    """Kind of the targets as declared; None for classes, which leave no trace in a trial's identity."""
    if kind == "text":
        return "token"
    return "value" if entry.get("target") or entry.get("targets") == "value" else None


def _short_name(kind: str, reference: str) -> str:
    return reference.rpartition(":")[2] if kind == "class" else Path(reference).stem


def _read(own: OwnData) -> tuple[str, tuple[NDArray[Any], ...]]:
    """Digest of the data, and x_train, y_train, x_test, y_test or x, y."""
    if own.kind == "class":
        parts = _call(own)
        return matching.fingerprint(*parts), parts
    paths = [Path(own.location), *([Path(own.test_location)] if own.test_location else [])]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; paths in a suite start at the suite's folder")
    check_size(sum(path.stat().st_size for path in paths), str(paths[0]))
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
    if own.kind == "text":
        return digest.hexdigest(), tuple(np.frombuffer(raw, np.uint8) for raw in own_text.read(own))
    if own.kind == "csv":
        for path in paths:
            check_csv(path)
        table = own_table.read(own)
        digest.update("".join(table.identity).encode())
        parts = _checked(own, table.parts, own.location)
    else:
        parts = _npz(own, paths[0])
    return digest.hexdigest(), parts


def _npz(own: OwnData, path: Path) -> tuple[NDArray[Any], ...]:
    headers = npz_headers(path)
    keys = next((keys for keys in _NPZ_KEYS if all(key in headers for key in keys)), ())
    for key in keys:
        if headers[key][1].hasobject:
            how = (
                "whole numbers or words, as y.astype(str)" if key[0] == "y" else "numbers, as x.astype(float)"
            )
            raise DataError(f"{path}: not a plain .npz file: {key} holds Python objects; save {how}")
    sizes = [math.prod(shape) * kind.itemsize for shape, kind in map(headers.__getitem__, keys)]
    check_size(sum(sizes), str(path))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for keys in _NPZ_KEYS:
                if all(key in arrays for key in keys):
                    return _checked(own, tuple(arrays[key] for key in keys), str(path))
            found = shown(arrays.files)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes of the reader
        raise DataError(
            f"{path}: not a plain .npz file ({one_line(error)}); save arrays with numpy.savez"
        ) from None
    raise DataError(f"{path}: has {found}; save x_train, y_train, x_test and y_test, or x and y")


def _call(own: OwnData) -> tuple[NDArray[Any], ...]:
    """Call a function for its arrays, in a process that it may end."""
    try:
        arrays, wrong = call_isolated("optbench.datasets.own:arrays_of", own.location, own=to_plain(own))
    except EndedError as error:
        raise DataError(f"{own.location}: {error}; look in its code, and return arrays") from None
    if wrong is not None:
        raise DataError(wrong)
    return arrays


def arrays_of(own: Mapping[str, Any]) -> tuple[tuple[NDArray[Any], ...], str | None]:
    """Call the function of a declaration here; its arrays, or what is wrong."""
    try:
        return _arrays(parse(OwnData, dict(own))), None
    except DataError as error:
        return (), str(error)


def _arrays(own: OwnData) -> tuple[NDArray[Any], ...]:
    try:
        result = load_object(own.location, Path())()
    except ImportProblem as error:
        raise DataError(str(error)) from None
    except SystemExit as error:
        raise DataError(f"{own.location} called sys.exit({error.code!r}); return arrays") from None
    except Exception as error:  # the user's code may fail in any way
        raise DataError(f"{own.location} failed ({type(error).__name__}: {one_line(error)})") from error
    if not isinstance(result, tuple) or len(result) not in (2, 4):
        raise DataError(
            f"{own.location} gave {type(result).__name__}; return x_train, y_train, x_test, y_test, or x, y"
        )
    try:
        arrays = tuple(np.asarray(array) for array in result)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{own.location} gave what is no array ({one_line(error)}); return NumPy arrays"
        ) from None
    return _checked(own, arrays, own.location)


def _checked(own: OwnData, parts: tuple[NDArray[Any], ...], place: str) -> tuple[NDArray[Any], ...]:
    parts = tuple(
        _as_numbers(part) if k % 2 == 0 else _as_labels(own, part, place) for k, part in enumerate(parts)
    )
    for x, y in zip(parts[::2], parts[1::2], strict=True):
        if not x.ndim or y.ndim != 1 or len(x) != len(y) or not len(y):
            raise DataError(
                f"{place}: {x.shape} examples and {y.shape} labels; one label an example is needed"
            )
        if x.dtype.kind not in "uifb" or x.ndim not in (2, 3, 4):
            raise DataError(
                f"{place}: examples are {x.dtype} {x.shape}; numbers [n, features], [n, height, width] or "
                "[n, height, width, channels] are needed"
            )
        if x.ndim == 4 and x.shape[1] <= 4 < min(x.shape[2:]):
            raise DataError(
                f"{place}: examples of shape {x.shape[1:]} have their channels first; [n, height, width, "
                "channels] is needed: save numpy.transpose(x, (0, 2, 3, 1))"
            )
        # Inputs become float32.
        if x.dtype.kind == "f" and not (fits := np.abs(x) <= np.finfo(np.float32).max).all():
            at = tuple(int(i) for i in np.argwhere(~fits)[0])
            raise DataError(
                f"{place}: an example holds NaN, infinity or a number beyond 3.4e38: found {x[at]:g} in "
                f"example {at[0]}, at {list(at[1:])}; take such examples out, or impute the value"
            )
        if own.targets == "value":
            if y.dtype.kind not in "uifb" or not np.isfinite(y).all():
                raise DataError(f"{place}: targets are {y.dtype}; finite numbers are needed")
        elif y.dtype.kind not in "uiUb" and not (y.dtype == object and all(isinstance(v, str) for v in y)):
            raise DataError(
                f"{place}: labels are {y.dtype}; whole numbers or words are needed, "
                "or `targets: value` where numbers are to be predicted"
            )
    if own.targets == "value":
        return tuple(part if k % 2 == 0 else part.astype(np.float64) for k, part in enumerate(parts))
    return tuple(part.astype(str) if part.dtype == object else part for part in parts)


def _as_numbers(x: NDArray[Any]) -> NDArray[Any]:
    """Booleans beside floats, as a table of both gives them, are numbers."""
    if x.dtype == object and all(isinstance(v, bool | int | float | np.number | np.bool_) for v in x.flat):
        return x.astype(np.float64)
    return x


def _as_labels(own: OwnData, y: NDArray[Any], place: str) -> NDArray[Any]:
    """One label an example: a column of them, one-hot rows, and floats that are whole numbers are read."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "S" and all(label.isascii() for label in y.flat):
        y = y.astype(str)
    if own.targets == "value":
        return y
    if y.ndim == 2 and y.dtype.kind in "uifb" and len(y):
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(
                f"{place}: labels of shape {y.shape} are not one-hot; give one label an example, [n]"
            )
        return np.asarray(y.argmax(axis=1))
    if y.dtype.kind == "f" and y.ndim == 1 and len(y) and np.isfinite(y).all() and not (y % 1).any():
        return y.astype(np.int64)
    return y


def _with_test(own: OwnData, x: NDArray[Any], y: NDArray[Any]) -> _Parts:
    numbers = own.targets == "value"
    codes = y if numbers else np.unique(y, return_inverse=True)[1]
    count = round((own.test or DEFAULT_TEST) * len(y))
    if not 0 < count < len(y):
        raise DataError(f"{own.location}: {len(y)} examples are too few to set {own.test} of them aside")
    train, test = hold_out(codes, count, how="random" if numbers else "stratified")
    return x[train], y[train], x[test], y[test]


def _inputs(own: OwnData, x: NDArray[Any]) -> NDArray[Any]:
    x = x[..., None] if x.ndim == 3 else x
    return np.ascontiguousarray(x if x.dtype == np.uint8 else x.astype(np.float32))
