"""Protocol buffers without their schema: the wire format, as far as event files need it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Field = int | bytes


class WireError(ValueError):
    """Bytes that are no message."""


def fields(message: bytes) -> Iterator[tuple[int, Field]]:
    """Walk through the fields of a message.

    Parameters
    ----------
    message : bytes

    Yields
    ------
    number : int
    value : int or bytes
        A varint as a number; fixed and length-delimited values as their bytes.

    Raises
    ------
    WireError
        If the bytes end within a field, or are of no known kind.

    Notes
    -----
    Source: protobuf.dev/programming-guides/encoding.
    """
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(message, at)
            yield number, value
            continue
        if kind == 2:
            length, at = varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise WireError(f"wire type {kind}")
        if at + length > len(message):
            raise WireError("a field is cut off")
        yield number, message[at : at + length]
        at += length


def varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte; where it ends."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise WireError("a number is cut off")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at


def signed(value: Field) -> int:
    """A varint as a signed number of 64 bits."""
    if not isinstance(value, int):
        raise WireError("bytes in place of a number")
    return value - (1 << 64) if value >= 1 << 63 else value


def floats(value: Field, size: int) -> list[float]:
    """One or several packed numbers of 4 or 8 bytes."""
    if isinstance(value, int) or len(value) % size:
        raise WireError("no packed numbers")
    return list(struct.unpack(f"<{len(value) // size}{'f' if size == 4 else 'd'}", value))


def text(value: Field) -> str:
    """Bytes as text."""
    if isinstance(value, int):
        raise WireError("a number in place of text")
    return value.decode("utf-8", errors="replace")


def message(value: Field) -> bytes:
    """Bytes of a message within a message."""
    if isinstance(value, int):
        raise WireError("a number in place of a message")
    return value
