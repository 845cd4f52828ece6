"""Compiled code for pages of history columns: headers, levels of lists, and values between bytes and numbers.

Pages are those of Parquet's format, version 1, of a column ``optional list<optional element>``. Each entry has a
repetition level, 0 where a list begins and 1 within it, and a definition level: 0 of a null list, 1 of an empty one, 2
of a null entry, 3 of a value. Levels come as runs (RLE): a value and how often, or groups of eight packed bits.
(https://github.com/apache/parquet-format, README, Encodings.md and parquet.thrift.)

Whatever is read may be damaged or made to mislead: every position is held against the end before it is used, and
nothing is written outside of what the caller gives. Functions return `OK`, or what is the matter. Threads may share
everything but what is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

    _Function = TypeVar("_Function", bound="Callable[..., Any]")

Bytes: TypeAlias = npt.NDArray[np.uint8]
Integers: TypeAlias = npt.NDArray[np.int64]
Numbers: TypeAlias = npt.NDArray[Any]

#: The source of the kernels: the cache of compiled ones is keyed by it.
SOURCES: Final = [Path(__file__)]

OK: Final = 0
#: What is there is right, but is not for this code: a null entry, an encoding that it does not know.
UNUSUAL: Final = 1
#: What is there cannot be.
DAMAGED: Final = 2

#: The places of what a page's header says; -1 where it does not.
KIND, UNCOMPRESSED, COMPRESSED, CRC, VALUES, ENCODING, DEFINITION, REPETITION, BODY = range(9)
HEADER_FACTS: Final = 9

# Numbers of a width: what numba makes of them is what Python would.
_int64: Any = np.int64
_uint64: Any = np.uint64
_uint32: Any = np.uint32
_uint8: Any = np.uint8
_int32: Any = np.int32

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DEEPEST: Final = 16


def _compiled(function: _Function) -> _Function:
    result: _Function = cast("Any", njit)(nogil=True, error_model="numpy")(function)
    return result


def _compiled_in_place(function: _Function) -> _Function:
    result: _Function = cast("Any", njit)(nogil=True, error_model="numpy", forceinline=True)(function)
    return result


# --- Thrift's compact protocol -----------------------------------------------------------------------------------


@_compiled
def varint(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """Return a whole number of at most 63 bits and the position behind it; the position is -1 where there is none."""
    value = _int64(0)
    shift = 0
    while position < end and shift < 63:
        byte = _int64(data[position])
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return value, -1


@_compiled_in_place
def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


@_compiled
def skip(data: Bytes, position: int, end: int, kind: int) -> int:
    """Return the position behind a value of a type; -1 where there is no such value."""
    # What is open: structures (-1), and lists with so many values of a type left.
    left = np.empty(_DEEPEST, np.int64)
    kinds = np.empty(_DEEPEST, np.int64)
    depth = 0
    pending = kind
    while True:
        if pending == _STRUCT or pending == _LIST or pending == _SET:
            if depth == _DEEPEST:
                return -1
            if pending == _STRUCT:
                left[depth] = -1
                kinds[depth] = 0
            else:
                if position >= end:
                    return -1
                head = _int64(data[position])
                position += 1
                size = head >> 4
                if size == 15:
                    size, position = varint(data, position, end)
                    if position < 0 or size > end - position:
                        return -1
                left[depth] = size
                kinds[depth] = head & 0x0F
            depth += 1
        elif pending == _I16 or pending == _I32 or pending == _I64:
            _, position = varint(data, position, end)
        elif pending == _BINARY:
            size, position = varint(data, position, end)
            if position < 0 or size > end - position:
                return -1
            position += size
        elif pending == _DOUBLE:
            position += 8
        elif pending == _BYTE or pending == _TRUE or pending == _FALSE:
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
            if left[depth - 1] == -1:
                if position >= end:
                    return -1
                head = _int64(data[position])
                position += 1
                if head == 0:
                    depth -= 1
                    continue
                if head >> 4 == 0:
                    _, position = varint(data, position, end)
                    if position < 0:
                        return -1
                pending = head & 0x0F
                if pending == _TRUE or pending == _FALSE:
                    pending = 0  # the value is in the head
            elif left[depth - 1] == 0:
                depth -= 1
            else:
                left[depth - 1] -= 1
                pending = kinds[depth - 1]


@_compiled
def read_header(data: Bytes, position: int, end: int, facts: Integers) -> int:
    """Read the header of a page: fill ``facts`` (`HEADER_FACTS`,), and return `OK` or `DAMAGED`."""
    facts[:] = -1
    number = 0
    inner = 0  # the field that holds the structure that we are in, 0 at the top
    outer = 0
    while True:
        if position >= end:
            return DAMAGED
        head = _int64(data[position])
        position += 1
        if head == 0:
            if inner == 0:
                break
            inner, number = 0, outer
            continue
        kind = head & 0x0F
        if head >> 4:
            number += head >> 4
        else:
            value, position = varint(data, position, end)
            if position < 0:
                return DAMAGED
            number = _signed(value)
        if inner == 0 and kind == _STRUCT and (number == 5 or number == 7):
            inner, outer, number = number, number, 0
            continue
        if kind == _I32:
            value, position = varint(data, position, end)
            if position < 0:
                return DAMAGED
            value = _signed(value)
            place = -1
            if inner == 0 and 1 <= number <= 4:
                place = number - 1
            elif (inner == 5 and 1 <= number <= 4) or (inner == 7 and 1 <= number <= 2):
                place = VALUES + number - 1
            if place >= 0:
                facts[place] = value & 0xFFFFFFFF if place == CRC else value
        elif kind != _TRUE and kind != _FALSE:
            position = skip(data, position, end, kind)
            if position < 0:
                return DAMAGED
    facts[BODY] = position
    if facts[KIND] < 0 or facts[UNCOMPRESSED] < 0 or facts[COMPRESSED] < 0 or facts[COMPRESSED] > end - position:
        return DAMAGED
    return OK


#: The places of what a footer says of a chunk; -1 where it does not.
(
    CHUNK_TYPE,
    CHUNK_CODEC,
    CHUNK_ENTRIES,
    CHUNK_UNCOMPRESSED,
    CHUNK_COMPRESSED,
    CHUNK_DATA,
    CHUNK_DICTIONARY,
    CHUNK_LEVELS,
    CHUNK_NAME,
    CHUNK_NAME_END,
) = range(10)
CHUNK_SAID: Final = 10


@_compiled_in_place
def _place_of(number: int) -> int:
    """Return where a field of what a footer says of a chunk goes; -1 where it is not wanted."""
    if number == 1:
        return CHUNK_TYPE
    if 4 <= number <= 7:
        return CHUNK_CODEC + number - 4
    if number == 9:
        return CHUNK_DATA
    return CHUNK_DICTIONARY if number == 11 else -1


@_compiled
def _scan_sizes(data: Bytes, position: int, end: int, said: Integers) -> int:
    """Note of how many definition levels a chunk's statistics of sizes speak; return the position behind, or -1."""
    number = 0
    while position < end:
        head = _int64(data[position])
        position += 1
        if head == 0:
            return position
        number += head >> 4
        kind = head & 0x0F
        if number == 3 and kind == _LIST and position < end:
            size: int = _int64(data[position]) >> 4
            if size == 15:
                size, _ = varint(data, position + 1, end)
            said[CHUNK_LEVELS] = size
        if kind > _FALSE:
            position = skip(data, position, end, kind)
        if position < 0:
            return -1
    return -1


@_compiled
def _scan_chunk(data: Bytes, position: int, end: int, said: Integers) -> int:
    """Fill ``said`` (CHUNK_SAID,) from the chunk at ``position``; return the position behind, -1 if there is none."""
    said[:] = -1
    number, inner = 0, False
    while position < end:
        head = _int64(data[position])
        position += 1
        if head == 0:
            if not inner:
                return position
            inner, number = False, 3
            continue
        kind = head & 0x0F
        if head >> 4:
            number += head >> 4
        else:
            value, position = varint(data, position, end)
            if position < 0:
                return -1
            number = _signed(value)
        if kind == _TRUE or kind == _FALSE:
            continue
        if not inner and number == 3 and kind == _STRUCT:
            inner, number = True, 0
            continue
        place = _place_of(number) if inner else -1
        if inner and number == 3 and kind == _LIST and position < end:
            # The path of the column: what its first part is, and where that ends.
            size, begin = varint(data, position + 1, end)
            if begin >= 0 and 0 <= size <= end - begin:
                said[CHUNK_NAME], said[CHUNK_NAME_END] = begin, begin + size
        if inner and number == 16 and kind == _STRUCT:
            position = _scan_sizes(data, position, end, said)
        elif place >= 0 and (kind == _I32 or kind == _I64):
            value, position = varint(data, position, end)
            said[place] = _signed(value)
        else:
            position = skip(data, position, end, kind)
        if position < 0:
            return -1
    return -1


@_compiled
def scan_footer(data: Bytes, slots: Integers, rows: Integers, said: npt.NDArray[np.int64]) -> int:
    """Read from a footer what it says of the chunks of some columns; return `OK` or `DAMAGED`.

    ``slots`` int64 (columns,) has the place of each column in ``said`` int64 (groups, wanted, CHUNK_SAID), -1 for those
    that are not wanted; ``rows`` int64 (groups,) gets how many rows each row group has.
    """
    end, position, number = len(data), 0, 0
    while position < end:
        head = _int64(data[position])
        position += 1
        if head == 0 or head >> 4 == 0:
            return DAMAGED
        number += head >> 4
        if number != 4:
            if head & 0x0F > _FALSE:
                position = skip(data, position, end, head & 0x0F)
            if position < 0:
                return DAMAGED
            continue
        count, position = _list_of_structs(data, position, end)
        if position < 0 or count != len(rows):
            return DAMAGED
        for group in range(count):
            position = _scan_group(data, position, end, slots, rows[group : group + 1], said[group])
            if position < 0:
                return DAMAGED
        return OK
    return DAMAGED


@_compiled_in_place
def _list_of_structs(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """Return how many structures a list has, and where they begin; -1 for the position if it is none."""
    if position >= end or data[position] & 0x0F != _STRUCT:
        return 0, -1
    size: int = _int64(data[position]) >> 4
    position += 1
    if size == 15:
        size, position = varint(data, position, end)
    return size, position


@_compiled
def _scan_group(
    data: Bytes, position: int, end: int, slots: Integers, rows: Integers, said: npt.NDArray[np.int64]
) -> int:
    number = 0
    rows[0] = -1
    columns = -1
    while position < end:
        head = _int64(data[position])
        position += 1
        if head == 0:
            return position if rows[0] >= 0 and columns == len(slots) else -1
        if head >> 4 == 0:
            return -1
        number += head >> 4
        kind = head & 0x0F
        if number == 1:
            columns, position = _list_of_structs(data, position, end)
            if position < 0 or columns != len(slots):
                return -1
            for column in range(columns):
                slot = slots[column]
                if slot >= 0:
                    position = _scan_chunk(data, position, end, said[slot])
                else:
                    position = skip(data, position, end, _STRUCT)
                if position < 0:
                    return -1
        elif number == 3 and kind == _I64:
            value, position = varint(data, position, end)
            rows[0] = _signed(value)
        elif kind > _FALSE:
            position = skip(data, position, end, kind)
        if position < 0:
            return -1
    return -1


# --- levels ------------------------------------------------------------------------------------------------------


@_compiled_in_place
def _next_run(data: Bytes, position: int, end: int, width: int) -> tuple[int, int, int, int]:
    """Return a run of levels: how many, their value (-1: packed), where packed ones lie, the position behind; or -1."""
    head, position = varint(data, position, end)
    if position < 0:
        return 0, 0, 0, -1
    if head & 1:
        count = (head >> 1) * 8
        if (head >> 1) > (end - position) or (head >> 1) * width > end - position:
            return 0, 0, 0, -1
        return count, -1, position, position + (head >> 1) * width
    if position >= end or head >> 1 == 0:
        return 0, 0, 0, -1
    return head >> 1, _int64(data[position]), 0, position + 1


@_compiled
def read_levels(
    data: Bytes, begin: int, end: int, count: int, ends: npt.NDArray[np.int32], valid: Bytes, state: Integers
) -> int:
    """Read the levels of a page from ``begin`` on, each preceded by its length in four bytes.

    ``ends`` int32 (rows,) gets where each list ends, ``valid`` uint8 (rows,) 0 for null lists. ``state`` int64 (4,) has
    the lists and the values before, which grow, the nulls among the lists, and on return where the values begin.
    """
    rows, values, nulls = state[0], state[1], state[2]
    if begin < 0 or begin + 4 > end:
        return DAMAGED
    size = _length(data, begin)
    at, at_end = begin + 4, begin + 4 + size
    if at_end + 4 > end:
        return DAMAGED
    other, other_end = at_end + 4, at_end + 4 + _length(data, at_end)
    if other_end > end:
        return DAMAGED
    most = len(ends)
    r_left = r_value = r_at = 0
    d_left = d_value = d_at = 0
    r_used = d_used = 0
    while count > 0:
        if r_left == 0:
            r_left, r_value, r_at, at = _next_run(data, at, at_end, 1)
            r_used = 0
            if at < 0 or r_value > 1:
                return DAMAGED
        if d_left == 0:
            d_left, d_value, d_at, other = _next_run(data, other, other_end, 2)
            d_used = 0
            if other < 0 or d_value > 3:
                return DAMAGED
        if r_value == 1 and d_value == 3:
            number = min(r_left, d_left, count)
            if rows == 0:
                return DAMAGED
            values += number
            ends[rows - 1] = values
            if values > 0x7FFFFFFF:
                return UNUSUAL
            r_left -= number
            d_left -= number
            count -= number
            continue
        number = min(r_left, d_left, count)
        for _ in range(number):
            r = r_value
            if r < 0:
                r = (_int64(data[r_at + (r_used >> 3)]) >> (r_used & 7)) & 1
            d = d_value
            if d < 0:
                d = (_int64(data[d_at + (d_used >> 2)]) >> ((d_used & 3) * 2)) & 3
            r_used += 1
            d_used += 1
            if d == 2:
                return UNUSUAL
            if r == 0:
                if rows >= most:
                    return DAMAGED
                valid[rows] = d != 0
                nulls += d == 0
                rows += 1
            elif rows == 0 or d != 3:
                return DAMAGED
            values += d == 3
            ends[rows - 1] = values
        r_left -= number
        d_left -= number
        count -= number
    state[0], state[1], state[2], state[3] = rows, values, nulls, other_end
    return OK


@_compiled_in_place
def _length(data: Bytes, position: int) -> int:
    size: int = _int64(data[position]) | _int64(data[position + 1]) << 8
    size |= _int64(data[position + 2]) << 16 | _int64(data[position + 3]) << 24
    return size


# --- values ------------------------------------------------------------------------------------------------------


@_compiled
def join_streams(data: Bytes, begin: int, end: int, out: Numbers) -> int:
    """Read numbers whose bytes are split by significance, as unsigned whole numbers of their width (values,)."""
    count, width = len(out), out.itemsize
    if begin < 0 or end > len(data) or end - begin != count * width:
        return DAMAGED
    if width == 4:
        first, second = data[begin : begin + count], data[begin + count : begin + 2 * count]
        third, fourth = data[begin + 2 * count : begin + 3 * count], data[begin + 3 * count : end]
        for place in range(count):
            out[place] = (
                _uint32(first[place])
                | _uint32(second[place]) << _uint32(8)
                | _uint32(third[place]) << _uint32(16)
                | _uint32(fourth[place]) << _uint32(24)
            )
        return OK
    for place in range(count):
        out[place] = 0
    for stream in range(width):
        part = data[begin + stream * count : begin + (stream + 1) * count]
        shift = _uint64(8 * stream)
        for place in range(count):
            out[place] |= _uint64(part[place]) << shift
    return OK


@_compiled_in_place
def _unpack(data: Bytes, begin: int, end: int, width: int, dictionary: Numbers, out: Numbers) -> bool:
    """Look up packed indices; return whether all of them are in the dictionary. All of their bits must be there."""
    count, largest = _uint64(len(out)), _uint64(0)
    bits, mask = _uint64(width), _uint64((_int64(1) << width) - 1)
    entries = _uint64(len(dictionary))
    last = _uint64(max(end - 4, 0))  # the last byte that four can be taken from
    bit = _uint64(begin) * _uint64(8)
    place = _uint64(0)
    if width <= 25 and entries > 0:
        # Four bytes at once have an index whole.
        while place < count:
            at = bit >> _uint64(3)
            if at > last:
                break
            word = (
                _uint32(data[at])
                | _uint32(data[at + _uint64(1)]) << _uint32(8)
                | _uint32(data[at + _uint64(2)]) << _uint32(16)
                | _uint32(data[at + _uint64(3)]) << _uint32(24)
            )
            value = (_uint64(word) >> (bit & _uint64(7))) & mask
            largest = max(largest, value)
            out[place] = dictionary[min(value, entries - _uint64(1))]
            bit += bits
            place += _uint64(1)
    while place < count:
        at = bit >> _uint64(3)
        have = _uint64(8) - (bit & _uint64(7))
        value = _uint64(data[at]) >> (bit & _uint64(7))
        while have < bits:
            at += _uint64(1)
            value |= _uint64(data[at]) << have
            have += _uint64(8)
        value &= mask
        if value >= entries:
            return False
        out[place] = dictionary[value]
        bit += bits
        place += _uint64(1)
    is_known: bool = largest < entries or count == 0
    return is_known


@_compiled
def look_up(data: Bytes, begin: int, end: int, dictionary: Numbers, out: Numbers) -> int:
    """Read indices into a dictionary (entries,), a byte of width and then runs, as its entries (values,)."""
    count, entries = len(out), len(dictionary)
    if count == 0:
        return OK
    if begin < 0 or begin >= end or end > len(data):
        return DAMAGED
    width = _int64(data[begin])
    if width > 32:
        return DAMAGED
    position, done = begin + 1, 0
    bytes_of = (width + 7) // 8
    while done < count:
        head, position = varint(data, position, end)
        if position < 0:
            return DAMAGED
        if head & 1:
            groups = head >> 1
            # The last group may end with the page, its last bits left out.
            number = min(groups * 8, count - done)
            if groups > (1 << 40) or number * width > (end - position) * 8:
                return DAMAGED
            if not _unpack(data, position, end, width, dictionary, out[done : done + number]):
                return DAMAGED
            done += number
            position = min(position + groups * width, end)
        else:
            number = min(head >> 1, count - done)
            if number == 0 or bytes_of > end - position:
                return DAMAGED
            value = _int64(0)
            for byte in range(bytes_of):
                value |= _int64(data[position + byte]) << (8 * byte)
            if value >= entries:
                return DAMAGED
            position += bytes_of
            entry = dictionary[value]
            for place in range(done, done + number):
                out[place] = entry
            done += number
    return OK


@_compiled
def copy_lists(
    values: Numbers, offsets: npt.NDArray[np.int32], places: Integers, out: Numbers, out_offsets: npt.NDArray[np.int32]
) -> None:
    """Copy the lists at some places, in their order: list p has ``values`` from ``offsets[p]`` to ``offsets[p + 1]``.

    ``out`` has room for all of their numbers, ``out_offsets`` int32 (places + 1,) gets where they lie.
    """
    at = 0
    out_offsets[0] = 0
    for number in range(len(places)):
        begin, end = offsets[places[number]], offsets[places[number] + 1]
        out[at : at + end - begin] = values[begin:end]
        at += end - begin
        out_offsets[number + 1] = at


# --- writing -----------------------------------------------------------------------------------------------------


@_compiled
def _put_varint(value: int, out: Bytes, at: int) -> int:
    """Write a whole number that is not negative; return the position behind it."""
    left = _uint64(value)
    while left >= 0x80:
        out[at] = left & _uint64(0x7F) | _uint64(0x80)
        left >>= _uint64(7)
        at += 1
    out[at] = left
    return at + 1


@_compiled_in_place
def _copy(data: Bytes, begin: int, end: int, out: Bytes, at: int) -> int:
    for position in range(begin, end):
        out[at + position - begin] = data[position]
    return at + end - begin


@_compiled_in_place
def _put_signed(value: int, out: Bytes, at: int) -> int:
    return _put_varint(value << 1 if value >= 0 else (-value << 1) - 1, out, at)


@_compiled_in_place
def _put_run(value: int, count: int, width: int, out: Bytes, at: int) -> int:
    """Write a value so many times, as one run."""
    at = _put_varint(count << 1, out, at)
    for byte in range((width + 7) // 8):
        out[at] = value >> (8 * byte) & 0xFF
        at += 1
    return at


@_compiled
def _put_levels(ends: npt.NDArray[np.int32], valid: Bytes, width: int, out: Bytes, at: int) -> int:
    """Write the levels of lists that end at ``ends``, the first of which is where the first list begins.

    A ``width`` of 1 writes repetition levels, of 2 definition levels. Runs of fewer than eight are packed.
    """
    begin = at
    at += 4
    group = _int64(0)  # the levels of a group of eight that is not complete
    filled = 0
    head = -1  # where the head of a run of groups stands, whose number of groups is not known yet
    value, count = -1, 0  # a run that may go on
    rows = len(ends) - 1
    for row in range(rows + 1):
        for part in range(2):
            if row == rows:
                level, more = -1, 1  # the end
            elif width == 1:
                entries = max(ends[row + 1] - ends[row], 1)
                level, more = (0, 1) if part == 0 else (1, entries - 1)
            elif part == 1:
                continue
            elif ends[row + 1] == ends[row]:
                level, more = (1 if valid[row] else 0), 1
            else:
                level, more = 3, ends[row + 1] - ends[row]
            if more == 0:
                continue
            if level == value:
                count += more
                continue
            # The run before has come to its end: what completes a group is packed, eight and more are a run.
            while count > 0:
                if filled == 0 and count >= 8:
                    at = _put_run(value, count, width, out, at)
                    head, count = -1, 0
                    break
                group |= value << (filled * width)
                filled += 1
                count -= 1
                if filled == 8:
                    at, head = _put_group(group, width, out, at, head)
                    group, filled = 0, 0
            value, count = level, more
    if filled:
        at, head = _put_group(group, width, out, at, head)
    size = at - begin - 4
    for byte in range(4):
        out[begin + byte] = size >> (8 * byte) & 0xFF
    return at


@_compiled_in_place
def _put_group(group: int, width: int, out: Bytes, at: int, head: int) -> tuple[int, int]:
    """Write eight packed levels, into the run of groups whose head stands at ``head`` if it has room."""
    if head < 0 or out[head] == 127:  # 63 groups
        head = at
        out[head] = 1
        at += 1
    out[head] += 2
    for byte in range(width):
        out[at] = group >> (8 * byte) & 0xFF
        at += 1
    return at, head


@_compiled
def put_levels(ends: npt.NDArray[np.int32], valid: Bytes, out: Bytes) -> int:
    """Write the levels of a page's lists, each kind preceded by its length; return how many bytes they are.

    ``ends`` int32 (lists + 1,) is where each list ends, the first of them where the first list begins; ``valid`` uint8
    (lists,) is 0 for null lists. ``out`` has room for `levels_room`.
    """
    return _put_levels(ends, valid, 2, out, _put_levels(ends, valid, 1, out, 0))


@_compiled
def count_entries(ends: npt.NDArray[np.int32]) -> int:
    """Return how many entries the levels of lists speak of: each list that is empty or null has one."""
    count: int = _int64(0)
    for row in range(len(ends) - 1):
        count += max(ends[row + 1] - ends[row], 1)
    return count


def levels_room(rows: int) -> int:
    """Return the bytes that levels of so many lists may take."""
    # Of a list: a run of each kind, of 6 bytes, and what is packed before it, of 3.
    return 64 + 24 * rows


@_compiled
def split_streams(values: Numbers, out: Bytes) -> None:
    """Write the bytes of whole numbers (values,) split by significance, to ``out`` (values * width,)."""
    count, width = len(values), values.itemsize
    if width == 4:
        first, second = out[:count], out[count : 2 * count]
        third, fourth = out[2 * count : 3 * count], out[3 * count : 4 * count]
        for place in range(count):
            value = _uint32(values[place])
            first[place] = _uint8(value)
            second[place] = _uint8(value >> _uint32(8))
            third[place] = _uint8(value >> _uint32(16))
            fourth[place] = _uint8(value >> _uint32(24))
        return
    for stream in range(width):
        part = out[stream * count : (stream + 1) * count]
        shift = _uint64(8 * stream)
        for place in range(count):
            part[place] = _uint8(_uint64(values[place]) >> shift)


@_compiled
def find_entries(
    values: Numbers, table: npt.NDArray[np.int32], dictionary: Numbers, known: int, out: npt.NDArray[np.int32]
) -> int:
    """Find the entry of a dictionary for each number, as ``out`` int32 (values,), and add those that are new.

    ``table`` int32 (a power of two,) has the entries by hash, -1 where there is none; of ``dictionary`` (most,), which
    is at most half as long, the first ``known`` are there. Returns how many are then; -1 if there are too many.
    """
    mask = _uint64(len(table) - 1)
    most = len(dictionary)
    for place in range(len(values)):
        value = values[place]
        at = (_uint64(value) * _uint64(0x9E3779B97F4A7C15)) >> _uint64(32) & mask
        entry = table[at]
        while entry >= 0 and dictionary[entry] != value:
            at = (at + _uint64(1)) & mask
            entry = table[at]
        if entry < 0:
            if known == most:
                return -1
            entry = _int32(known)
            table[at] = entry
            dictionary[entry] = value
            known += 1
        out[place] = entry
    return known


@_compiled
def put_indices(indices: npt.NDArray[np.int32], width: int, out: Bytes, at: int) -> int:
    """Write indices (values,): a byte that is their ``width`` in bits, then runs of them; return the position behind.

    Sixteen and more of one index are a run, others are packed in groups of eight. ``out`` has room for
    `indices_room`.
    """
    count = len(indices)
    out[at] = width
    at += 1
    place = 0
    while place < count:
        # How far packed groups go: to where a run begins.
        stop = place
        run = 0
        while stop < count:
            run = 1
            while stop + run < count and indices[stop + run] == indices[stop]:
                run += 1
            if run >= 16:
                break
            stop += 8
            run = 0
        stop = min(stop, count)
        if stop > place:
            groups = (stop - place + 7) // 8
            at = _put_varint(groups << 1 | 1, out, at)
            at = _pack(indices[place:stop], groups * 8, width, out, at)
            place = stop
        if run >= 16:
            at = _put_run(indices[place], run, width, out, at)
            place += run
    return at


def indices_room(count: int, width: int) -> int:
    """Return the bytes that so many indices may take."""
    return 64 + (count // 8 + 2) * (width + 6)


@_compiled_in_place
def _pack(indices: npt.NDArray[np.int32], count: int, width: int, out: Bytes, at: int) -> int:
    """Write indices packed, followed by zeros up to ``count``, a multiple of eight."""
    held, bits = _uint64(0), _uint64(0)
    known = len(indices)
    for place in range(count):
        value = _uint64(indices[place]) if place < known else _uint64(0)
        held |= value << bits
        bits += _uint64(width)
        if bits >= _uint64(32):
            out[at] = _uint8(held & _uint64(0xFF))
            out[at + 1] = _uint8(held >> _uint64(8) & _uint64(0xFF))
            out[at + 2] = _uint8(held >> _uint64(16) & _uint64(0xFF))
            out[at + 3] = _uint8(held >> _uint64(24) & _uint64(0xFF))
            held >>= _uint64(32)
            bits -= _uint64(32)
            at += 4
    while bits > _uint64(0):  # whole bytes: a multiple of eight of them are packed
        out[at] = _uint8(held & _uint64(0xFF))
        held >>= _uint64(8)
        bits -= _uint64(8)
        at += 1
    return at


@_compiled
def put_split_page(ends: npt.NDArray[np.int32], valid: Bytes, values: Numbers, out: Bytes) -> int:
    """Write a page: the levels of its lists, and whole numbers (values,) split by significance; return its bytes."""
    at = put_levels(ends, valid, out)
    split_streams(values, out[at : at + len(values) * values.itemsize])
    return at + len(values) * values.itemsize


@_compiled
def put_indexed_page(
    ends: npt.NDArray[np.int32], valid: Bytes, indices: npt.NDArray[np.int32], width: int, out: Bytes
) -> int:
    """Write a page: the levels of its lists, and indices (values,) into a dictionary; return its bytes."""
    return put_indices(indices, width, out, put_levels(ends, valid, out))


@_compiled
def put_header(facts: Integers, out: Bytes) -> int:
    """Write the header of a page from what `read_header` would read of it; return its bytes."""
    at = 0
    for place in range(VALUES):
        out[at] = 1 << 4 | _I32
        value = facts[place]
        if place == CRC and value >= 1 << 31:
            value -= 1 << 32
        at = _put_signed(value, out, at + 1)
    is_dictionary = facts[DEFINITION] < 0
    out[at] = (3 if is_dictionary else 1) << 4 | _STRUCT
    at += 1
    for place in range(VALUES, ENCODING + 1 if is_dictionary else BODY):
        out[at] = 1 << 4 | _I32
        at = _put_signed(facts[place], out, at + 1)
    out[at] = out[at + 1] = 0
    return at + 2


#: The places of what `put_chunk` writes of a chunk, besides its path and its type.
(
    ROWS,
    NULLS,
    ENTRIES,
    NUMBERS,
    ALL_UNCOMPRESSED,
    ALL_COMPRESSED,
    DATA_OFFSET,
    DICTIONARY_OFFSET,
    PAGES,
    PAGE_ENCODING,
    INDEX_OFFSET,
    INDEX_SIZE,
) = range(12)
CHUNK_FACTS: Final = 12


@_compiled_in_place
def _put_field(delta: int, kind: int, value: int, out: Bytes, at: int) -> int:
    out[at] = delta << 4 | kind
    return _put_signed(value, out, at + 1)


@_compiled
def put_chunk(begin: Bytes, facts: Integers, out: Bytes) -> int:
    """Write what a footer says of a chunk from ``facts`` (`CHUNK_FACTS`,); return its bytes.

    ``begin`` has the fields up to its compression: of the chunk, of what it says of its column. Offsets of a dictionary
    that there is not are -1.
    """
    at = _copy(begin, 0, len(begin), out, 0)
    at = _put_field(1, _I64, facts[ENTRIES], out, at)
    at = _put_field(1, _I64, facts[ALL_UNCOMPRESSED], out, at)
    at = _put_field(1, _I64, facts[ALL_COMPRESSED], out, at)
    at = _put_field(2, _I64, facts[DATA_OFFSET], out, at)
    has_dictionary = facts[DICTIONARY_OFFSET] >= 0
    if has_dictionary:
        at = _put_field(2, _I64, facts[DICTIONARY_OFFSET], out, at)
    # How many pages there are of which kind, and how they are encoded.
    out[at] = (2 if has_dictionary else 4) << 4 | _LIST
    out[at + 1] = (2 if has_dictionary else 1) << 4 | _STRUCT
    at += 2
    for is_data in range(0 if has_dictionary else 1, 2):
        at = _put_field(1, _I32, 0 if is_data else 2, out, at)
        at = _put_field(1, _I32, facts[PAGE_ENCODING] if is_data else 0, out, at)
        at = _put_field(1, _I32, facts[PAGES] if is_data else 1, out, at)
        out[at] = 0
        at += 1
    # How many there are of each level.
    out[at] = 3 << 4 | _STRUCT
    out[at + 1] = 2 << 4 | _LIST
    out[at + 2] = 2 << 4 | _I64
    at = _put_signed(facts[ROWS], out, at + 3)
    at = _put_signed(facts[ENTRIES] - facts[ROWS], out, at)
    out[at] = 1 << 4 | _LIST
    out[at + 1] = 4 << 4 | _I64
    at = _put_signed(facts[NULLS], out, at + 2)
    at = _put_signed(facts[ENTRIES] - facts[NUMBERS] - facts[NULLS], out, at)
    at = _put_signed(0, out, at)
    at = _put_signed(facts[NUMBERS], out, at)
    out[at] = out[at + 1] = 0
    at += 2
    at = _put_field(1, _I64, facts[INDEX_OFFSET], out, at)
    at = _put_field(1, _I32, facts[INDEX_SIZE], out, at)
    out[at] = 0
    return at + 1


#: The most bytes that `put_chunk` writes behind what it is given, `put_header`, and `put_offset_index` a page.
CHUNK_ROOM: Final = 256
HEADER_ROOM: Final = 64
PAGE_ROOM: Final = 32


@_compiled
def put_offset_index(pages: Integers, out: Bytes) -> int:
    """Write an offset index: of each page (pages, 3) where it lies, its bytes, its first row; return its bytes."""
    out[0] = 1 << 4 | _LIST
    if len(pages) < 15:
        out[1] = len(pages) << 4 | _STRUCT
        at = 2
    else:
        out[1] = 15 << 4 | _STRUCT
        at = _put_varint(len(pages), out, 2)
    for page in range(len(pages)):
        at = _put_field(1, _I64, pages[page, 0], out, at)
        at = _put_field(1, _I32, pages[page, 1], out, at)
        at = _put_field(1, _I64, pages[page, 2], out, at)
        out[at] = 0
        at += 1
    out[at] = 0
    return at + 1


# --- what pyarrow wrote, moved -----------------------------------------------------------------------------------


@_compiled
def _move_offset_index(data: Bytes, position: int, end: int, shift: int, out: Bytes, at: int) -> int:
    """Copy an offset index whose pages have moved by ``shift``; return the position behind it, -1 if it is none."""
    number = 0
    while position < end:
        head = _int64(data[position])
        if head == 0:
            out[at] = 0
            return at + 1
        kind = head & 0x0F
        if head >> 4 == 0:
            return -1
        number += head >> 4
        out[at] = head
        at += 1
        position += 1
        if number != 1:
            after = skip(data, position, end, kind)
            if after < 0:
                return -1
            at = _copy(data, position, after, out, at)
            position = after
            continue
        # A list of pages: where each lies is its first field.
        size = _int64(data[position]) >> 4
        begin = position
        position += 1
        if size == 15:
            size, position = varint(data, position, end)
        if position < 0:
            return -1
        at = _copy(data, begin, position, out, at)
        for _ in range(size):
            if position >= end or _int64(data[position]) != (1 << 4 | _I64):
                return -1
            out[at] = data[position]
            value, position = varint(data, position + 1, end)
            if position < 0:
                return -1
            at = _put_signed(_signed(value) + shift, out, at + 1)
            after = position
            while after < end and data[after] != 0:  # the other fields of the page
                after = skip(data, after + 1, end, _int64(data[after]) & 0x0F)
                if after < 0:
                    return -1
            at = _copy(data, position, after + 1, out, at)
            position = after + 1
    return -1


@_compiled
def _move_chunk(
    data: Bytes, position: int, end: int, shift: int, column_shift: int, index: int, size: int, out: Bytes, at: int
) -> tuple[int, int]:
    """Copy what a footer says of a chunk whose pages have moved by ``shift`` and its column index by ``column_shift``.

    Its offset index lies at ``index`` and has ``size`` bytes. Returns the positions behind the chunk and behind the
    copy; -1 if it is none.
    """
    number, inner = 0, 0
    while position < end:
        head = _int64(data[position])
        out[at] = head
        at += 1
        position += 1
        if head == 0:
            if inner == 0:
                return position, at
            inner, number = 0, 3
            continue
        if head >> 4 == 0:
            return -1, -1
        number += head >> 4
        kind = head & 0x0F
        if inner == 0 and number == 3 and kind == _STRUCT:
            inner, number = 1, 0
            continue
        is_place = (inner == 0 and 4 <= number <= 6) or (inner == 1 and 9 <= number <= 11)
        if not is_place:
            if kind == _TRUE or kind == _FALSE:
                continue
            after = skip(data, position, end, kind)
            if after < 0:
                return -1, -1
            at = _copy(data, position, after, out, at)
            position = after
            continue
        value, position = varint(data, position, end)
        if position < 0:
            return -1, -1
        value = _signed(value)
        if inner == 1:
            value += shift
        elif number == 4:
            value = index
        elif number == 5:
            value = size
        else:
            value += column_shift
        at = _put_signed(value, out, at)
    return -1, -1


@_compiled
def _find_indexes(data: Bytes, position: int, end: int, found: Integers) -> int:
    """Fill ``found`` (4,) with places and sizes of a chunk's offset index and column index; return 0, else -1."""
    found[:] = -1
    number = 0
    while position < end:
        head = _int64(data[position])
        position += 1
        if head == 0:
            return 0
        number += head >> 4
        if 4 <= number <= 7:
            value, position = varint(data, position, end)
            found[number - 4] = _signed(value)
        else:
            position = skip(data, position, end, head & 0x0F)
        if position < 0:
            return -1
    return -1


@_compiled
def column_indexes(data: Bytes, position: int, end: int, count: int, span: Integers) -> int:
    """Widen ``span`` (2,), from where to where column indexes lie, to those of the chunks at ``position``.

    Returns the position behind them; -1 where there are not so many.
    """
    found = np.empty(4, np.int64)
    for _ in range(count):
        if _find_indexes(data, position, end, found) < 0:
            return -1
        if found[2] >= 0:
            span[0] = min(span[0], found[2])
            span[1] = max(span[1], found[2] + found[3])
        position = skip(data, position, end, _STRUCT)
    return position


@_compiled
def move_chunks(
    data: Bytes,
    position: int,
    end: int,
    shift: int,
    column_shift: int,
    base: int,
    out: Bytes,
    bounds: Integers,
    indexes: Bytes,
) -> int:
    """Copy what a footer says of the chunks of a row group that has moved by ``shift``.

    ``bounds`` (chunks + 1,) get where each lies in ``out``, the copies of their offset indexes are written to
    ``indexes``, which will lie at ``base`` of the file. Returns how many bytes these have; -1 if there are not so many
    chunks with offset indexes.
    """
    found = np.empty(4, np.int64)
    at = used = 0
    bounds[0] = 0
    for number in range(len(bounds) - 1):
        if _find_indexes(data, position, end, found) < 0 or found[0] < 0:
            return -1
        after = _move_offset_index(data, found[0], end, shift, indexes, used)
        if after < 0:
            return -1
        position, at = _move_chunk(data, position, end, shift, column_shift, base + used, after - used, out, at)
        if position < 0:
            return -1
        used = after
        bounds[number + 1] = at
    return used
