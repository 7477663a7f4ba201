"""A custom text, ``{text: path}``: its bytes or characters as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.base import DataError, Dataset, DatasetInfo
from optbench.trial import OwnData

#: Share of a text that becomes the test part, at its end, where no file does.
DEFAULT_TEST = 0.1
#: Characters of a text, at most: more are no alphabet.
MOST_CHARACTERS = 2**16

Tokens = NDArray[Any]


def load(own: OwnData) -> Dataset:
    """Read a declared text.

    Raises
    ------
    DataError
        If it is empty, or its characters are not UTF-8, or the test part has characters that the training
        part lacks.
    """
    texts = read(own)
    if own.tokens == "character":
        train, test, classes, bytes_per_token = _characters(own, texts)
    else:
        train, test = _parts(own, [np.frombuffer(raw, np.uint8) for raw in texts])
        classes, bytes_per_token = tuple(f"{byte:02x}" for byte in range(256)), 1.0
    info = DatasetInfo(
        name=own.name,
        title=own.name,
        shape=(),
        classes=classes,
        train=len(train),
        test=len(test),
        scaling="none",
        licence="the user's own",
        source=own.location,
        citation="",
        targets="token",
        bytes_per_token=bytes_per_token,
    )
    return Dataset(info=info, x_train=train, y_train=train, x_test=test, y_test=test)


def read(own: OwnData) -> list[bytes]:
    """The bytes of its files: one, or one for training and one for testing."""
    paths = [Path(own.location), *([Path(own.test_location)] if own.test_location else [])]
    texts = [path.read_bytes() for path in paths]
    for path, raw in zip(paths, texts, strict=True):
        if len(raw) < 2:
            raise DataError(f"{path}: has {len(raw)} bytes; a text of some thousands is needed")
    return texts


def _characters(own: OwnData, texts: Sequence[bytes]) -> tuple[Tokens, Tokens, tuple[str, ...], float]:
    """Characters by their number among those of the training part."""
    decoded = []
    for location, raw in zip((own.location, own.test_location), texts, strict=False):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{location}: byte {error.start} is no UTF-8; save the text as UTF-8, or leave out "
                "`tokens: character` to take bytes"
            ) from None
        decoded.append(np.frombuffer(text.encode("utf-32-le"), np.uint32))
    train, test = _parts(own, decoded)
    known = np.unique(train)
    if len(known) > MOST_CHARACTERS:
        raise DataError(f"{own.location}: {len(known):,} different characters; take bytes instead")
    if len(new := np.setdiff1d(test, known)):
        raise DataError(
            f"{own.test_location or own.location}: its test part has {len(new)} characters that the training "
            f"part lacks, {chr(new[0])!r} the first; take them out, or leave out `tokens: character` to take "
            "bytes"
        )
    small = np.uint8 if len(known) <= 256 else np.uint16
    numbers = [np.searchsorted(known, part).astype(small) for part in (train, test)]
    size = sum(len(raw) for raw in texts) / (len(train) + len(test))
    names = tuple(chr(c) if chr(c).isprintable() else chr(c).encode("unicode_escape").decode() for c in known)
    return numbers[0], numbers[1], names, size


def _parts(own: OwnData, texts: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Training and test part: two files, or the end of one cut off."""
    if len(texts) == 2:
        return list(texts)
    count = round((own.test or DEFAULT_TEST) * len(texts[0]))
    if not 0 < count < len(texts[0]):
        share = own.test or DEFAULT_TEST
        raise DataError(
            f"{own.location}: {len(texts[0])} tokens are too few to set {share:g} of them aside to test on; "
            "give a longer text, or a text for the test as `test: FILE`"
        )
    return [texts[0][:-count], texts[0][-count:]]
