"""Compiled code for Thrift's compact protocol, in which Parquet spells headers and footers.

Whatever is read may be damaged or made to mislead: every position is held against the end before it is used, and
nothing is written outside of what the caller gives. Threads may share everything but what is written. `thrift` has the
same for few values at a time. With ``NUMBA_DISABLE_JIT=1`` the same functions run in the interpreter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from butter_etl.engines import compiled, compiled_in_place

Bytes: TypeAlias = npt.NDArray[np.uint8]
Integers: TypeAlias = npt.NDArray[np.int64]

#: The sources of all kernels of the codec: the cache of compiled ones is keyed by them.
SOURCES: Final = [Path(__file__).with_name(f"{name}_kernels.py") for name in ("compact", "footer", "page")]

OK: Final = 0
#: What is there is right, but is not for this code: a null entry, an encoding that it does not know.
UNUSUAL: Final = 1
#: What is there cannot be.
DAMAGED: Final = 2

#: Numbers of a width: what numba makes of them is what Python would.
int64: Any = np.int64
uint64: Any = np.uint64
uint32: Any = np.uint32
uint8: Any = np.uint8
int32: Any = np.int32

#: The types of values.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
#: What Parquet's headers and footers hold is in six others at most.
_DEEPEST: Final = 8


@compiled
def varint(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """Return a whole number of at most 63 bits and the position behind it; the position is -1 where there is none."""
    value = int64(0)
    shift = 0
    while position < end and shift < 63:
        byte = int64(data[position])
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return value, -1


@compiled_in_place
def signed(value: int) -> int:
    """Return the number that a varint spells in zigzag."""
    return (value >> 1) ^ -(value & 1)


@compiled_in_place
def next_field(data: Bytes, position: int, end: int, number: int) -> tuple[int, int, int]:
    """Return type and number of the field after ``number``, and where its value begins.

    The type is 0 at the end of the structure, which the position is behind; the position is -1 where there is neither.
    """
    if position >= end:
        return 0, number, -1
    head = int64(data[position])
    kind = head & 0x0F
    if head == 0:
        return 0, number, position + 1
    if kind == 0:
        return 0, number, -1
    if head >> 4:
        return kind, number + (head >> 4), position + 1
    value, position = varint(data, position + 1, end)
    return kind, signed(value), position


@compiled
def skip(data: Bytes, position: int, end: int, kind: int) -> int:
    """Return the position behind a value of a type; -1 where there is no such value, or others are too deep in it."""
    # What is open, the innermost first: structures (-1), and lists with so many values of a type left.
    zero = int64(0)
    inside = (zero, zero, zero, zero, zero, zero, zero, zero)
    depth = 0
    pending = kind
    while True:
        if pending == STRUCT or pending == LIST or pending == SET:
            if depth == _DEEPEST:
                return -1
            opened = int64(-1)
            if pending != STRUCT:
                if position >= end:
                    return -1
                head = int64(data[position])
                position += 1
                size = head >> 4
                if size == 15:
                    size, position = varint(data, position, end)
                    if position < 0 or size > end - position:
                        return -1
                opened = size << 4 | head & 0x0F
            inside = (opened,) + inside[:-1]  # noqa: RUF005 (here and below: numba has no other way)
            depth += 1
        elif pending == I16 or pending == I32 or pending == I64:
            _, position = varint(data, position, end)
        elif pending == BINARY:
            size, position = varint(data, position, end)
            if position < 0 or size > end - position:
                return -1
            position += size
        elif pending == DOUBLE:
            position += 8
        elif pending == BYTE or pending == TRUE or pending == FALSE:
            position += 1
        else:
            return -1
        if position < 0 or position > end:
            return -1
        # The next value, of whatever is open innermost.
        pending = 0
        while pending == 0:
            if depth == 0:
                return position
            if inside[0] == -1:
                if position >= end:
                    return -1
                head = int64(data[position])
                position += 1
                if head == 0:
                    depth -= 1
                    inside = inside[1:] + (zero,)  # noqa: RUF005
                    continue
                if head >> 4 == 0:
                    _, position = varint(data, position, end)
                    if position < 0:
                        return -1
                pending = head & 0x0F
                if pending == TRUE or pending == FALSE:
                    pending = 0  # the value is in the head
                elif pending == 0:
                    return -1
            elif inside[0] >> 4 == 0:
                depth -= 1
                inside = inside[1:] + (zero,)  # noqa: RUF005
            else:
                pending = inside[0] & 0x0F
                inside = (inside[0] - 16,) + inside[1:]  # noqa: RUF005
                if pending == 0:
                    return -1


@compiled_in_place
def skip_field(data: Bytes, position: int, end: int, kind: int) -> int:
    """Return the position behind the value of a field of a structure, -1 where there is none: a bool has no bytes."""
    return position if kind == TRUE or kind == FALSE else skip(data, position, end, kind)


@compiled
def put_varint(value: int, out: Bytes, at: int) -> int:
    """Write a whole number that is not negative; return the position behind it."""
    left = uint64(value)
    while left >= 0x80:
        out[at] = left & uint64(0x7F) | uint64(0x80)
        left >>= uint64(7)
        at += 1
    out[at] = left
    return at + 1


@compiled_in_place
def copy_bytes(data: Bytes, begin: int, end: int, out: Bytes, at: int) -> int:
    """Copy bytes to a position; return the one behind them."""
    for position in range(begin, end):
        out[at + position - begin] = data[position]
    return at + end - begin


@compiled_in_place
def put_signed(value: int, out: Bytes, at: int) -> int:
    """Write a whole number in zigzag; return the position behind it."""
    return put_varint(value << 1 if value >= 0 else (-value << 1) - 1, out, at)
