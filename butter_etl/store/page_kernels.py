"""Compiled code for pages of history columns: levels of lists, and values between bytes and numbers.

Pages are those of Parquet's format, version 1, of a column ``optional list<optional element>``. Each entry has a
repetition level, 0 where a list begins and 1 within it, and a definition level: 0 of a null list, 1 of an empty one, 2
of a null entry, 3 of a value. Levels come as runs (RLE): a value and how often, or groups of eight packed bits.
(https://github.com/apache/parquet-format, README, Encodings.md.) Functions return `OK`, or what is the matter.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from butter_etl.engines import compiled, compiled_in_place
from butter_etl.store.compact_kernels import (
    DAMAGED,
    OK,
    UNUSUAL,
    Bytes,
    Integers,
    int32,
    int64,
    put_varint,
    uint8,
    uint32,
    uint64,
    varint,
)

Numbers: TypeAlias = npt.NDArray[Any]


@compiled_in_place
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
    return head >> 1, int64(data[position]), 0, position + 1


@compiled
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
                r = (int64(data[r_at + (r_used >> 3)]) >> (r_used & 7)) & 1
            d = d_value
            if d < 0:
                d = (int64(data[d_at + (d_used >> 2)]) >> ((d_used & 3) * 2)) & 3
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


@compiled_in_place
def _length(data: Bytes, position: int) -> int:
    size: int = int64(data[position]) | int64(data[position + 1]) << 8
    size |= int64(data[position + 2]) << 16 | int64(data[position + 3]) << 24
    return size


# --- values -----------------------------------------------------------------------------------------------------------


@compiled
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
                uint32(first[place])
                | uint32(second[place]) << uint32(8)
                | uint32(third[place]) << uint32(16)
                | uint32(fourth[place]) << uint32(24)
            )
        return OK
    for place in range(count):
        out[place] = 0
    for stream in range(width):
        part = data[begin + stream * count : begin + (stream + 1) * count]
        shift = uint64(8 * stream)
        for place in range(count):
            out[place] |= uint64(part[place]) << shift
    return OK


@compiled_in_place
def _unpack(data: Bytes, begin: int, end: int, width: int, dictionary: Numbers, out: Numbers) -> bool:
    """Look up packed indices; return whether all of them are in the dictionary. All of their bits must be there."""
    count, largest = uint64(len(out)), uint64(0)
    bits, mask = uint64(width), uint64((int64(1) << width) - 1)
    entries = uint64(len(dictionary))
    last = uint64(max(end - 4, 0))  # the last byte that four can be taken from
    bit = uint64(begin) * uint64(8)
    place = uint64(0)
    if width <= 25 and entries > 0:
        # Four bytes at once have an index whole.
        while place < count:
            at = bit >> uint64(3)
            if at > last:
                break
            word = (
                uint32(data[at])
                | uint32(data[at + uint64(1)]) << uint32(8)
                | uint32(data[at + uint64(2)]) << uint32(16)
                | uint32(data[at + uint64(3)]) << uint32(24)
            )
            value = (uint64(word) >> (bit & uint64(7))) & mask
            largest = max(largest, value)
            out[place] = dictionary[min(value, entries - uint64(1))]
            bit += bits
            place += uint64(1)
    while place < count:
        at = bit >> uint64(3)
        have = uint64(8) - (bit & uint64(7))
        value = uint64(data[at]) >> (bit & uint64(7))
        while have < bits:
            at += uint64(1)
            value |= uint64(data[at]) << have
            have += uint64(8)
        value &= mask
        if value >= entries:
            return False
        out[place] = dictionary[value]
        bit += bits
        place += uint64(1)
    is_known: bool = largest < entries or count == 0
    return is_known


@compiled
def look_up(data: Bytes, begin: int, end: int, dictionary: Numbers, out: Numbers) -> int:
    """Read indices into a dictionary (entries,), a byte of width and then runs, as its entries (values,)."""
    count, entries = len(out), len(dictionary)
    if count == 0:
        return OK
    if begin < 0 or begin >= end or end > len(data):
        return DAMAGED
    width = int64(data[begin])
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
            value = int64(0)
            for byte in range(bytes_of):
                value |= int64(data[position + byte]) << (8 * byte)
            if value >= entries:
                return DAMAGED
            position += bytes_of
            entry = dictionary[value]
            for place in range(done, done + number):
                out[place] = entry
            done += number
    return OK


@compiled
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
        for place in range(end - begin):
            out[at + place] = values[begin + place]
        at += end - begin
        out_offsets[number + 1] = at


# --- writing ----------------------------------------------------------------------------------------------------------


@compiled_in_place
def _put_run(value: int, count: int, width: int, out: Bytes, at: int) -> int:
    """Write a value so many times, as one run."""
    at = put_varint(count << 1, out, at)
    for byte in range((width + 7) // 8):
        out[at] = value >> (8 * byte) & 0xFF
        at += 1
    return at


@compiled
def _put_levels(ends: npt.NDArray[np.int32], valid: Bytes, width: int, out: Bytes, at: int) -> int:
    """Write the levels of lists that end at ``ends``, the first of which is where the first list begins.

    A ``width`` of 1 writes repetition levels, of 2 definition levels. Runs of fewer than eight are packed.
    """
    begin = at
    at += 4
    group = int64(0)  # the levels of a group of eight that is not complete
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


@compiled_in_place
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


@compiled
def put_levels(ends: npt.NDArray[np.int32], valid: Bytes, out: Bytes) -> int:
    """Write the levels of a page's lists, each kind preceded by its length; return how many bytes they are.

    ``ends`` int32 (lists + 1,) is where each list ends, the first of them where the first list begins; ``valid`` uint8
    (lists,) is 0 for null lists. ``out`` has room for `levels_room`.
    """
    return _put_levels(ends, valid, 2, out, _put_levels(ends, valid, 1, out, 0))


@compiled
def count_entries(ends: npt.NDArray[np.int32]) -> int:
    """Return how many entries the levels of lists speak of: each list that is empty or null has one."""
    count: int = int64(0)
    for row in range(len(ends) - 1):
        count += max(ends[row + 1] - ends[row], 1)
    return count


def levels_room(rows: int) -> int:
    """Return the bytes that levels of so many lists may take."""
    # Of a list: a run of each kind, of 6 bytes, and what is packed before it, of 3.
    return 64 + 24 * rows


@compiled
def split_streams(values: Numbers, out: Bytes) -> None:
    """Write the bytes of whole numbers (values,) split by significance, to ``out`` (values * width,)."""
    count, width = len(values), values.itemsize
    if width == 4:
        first, second = out[:count], out[count : 2 * count]
        third, fourth = out[2 * count : 3 * count], out[3 * count : 4 * count]
        for place in range(count):
            value = uint32(values[place])
            first[place] = uint8(value)
            second[place] = uint8(value >> uint32(8))
            third[place] = uint8(value >> uint32(16))
            fourth[place] = uint8(value >> uint32(24))
        return
    for stream in range(width):
        part = out[stream * count : (stream + 1) * count]
        shift = uint64(8 * stream)
        for place in range(count):
            part[place] = uint8(uint64(values[place]) >> shift)


@compiled
def find_entries(
    values: Numbers, table: npt.NDArray[np.int32], dictionary: Numbers, known: int, out: npt.NDArray[np.int32]
) -> int:
    """Find the entry of a dictionary for each number, as ``out`` int32 (values,), and add those that are new.

    ``table`` int32 (a power of two,) has the entries by hash, -1 where there is none; of ``dictionary`` (most,), which
    is at most half as long, the first ``known`` are there. Returns how many are then; -1 if there are too many.
    """
    mask = uint64(len(table) - 1)
    most = len(dictionary)
    for place in range(len(values)):
        value = values[place]
        at = (uint64(value) * uint64(0x9E3779B97F4A7C15)) >> uint64(32) & mask
        entry = table[at]
        while entry >= 0 and dictionary[entry] != value:
            at = (at + uint64(1)) & mask
            entry = table[at]
        if entry < 0:
            if known == most:
                return -1
            entry = int32(known)
            table[at] = entry
            dictionary[entry] = value
            known += 1
        out[place] = entry
    return known


@compiled
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
            at = put_varint(groups << 1 | 1, out, at)
            at = _pack(indices[place:stop], groups * 8, width, out, at)
            place = stop
        if run >= 16:
            at = _put_run(indices[place], run, width, out, at)
            place += run
    return at


def indices_room(count: int, width: int) -> int:
    """Return the bytes that so many indices may take."""
    return 64 + (count // 8 + 2) * (width + 6)


@compiled_in_place
def _pack(indices: npt.NDArray[np.int32], count: int, width: int, out: Bytes, at: int) -> int:
    """Write indices packed, followed by zeros up to ``count``, a multiple of eight."""
    held, bits = uint64(0), uint64(0)
    known = len(indices)
    for place in range(count):
        value = uint64(indices[place]) if place < known else uint64(0)
        held |= value << bits
        bits += uint64(width)
        if bits >= uint64(32):
            out[at] = uint8(held & uint64(0xFF))
            out[at + 1] = uint8(held >> uint64(8) & uint64(0xFF))
            out[at + 2] = uint8(held >> uint64(16) & uint64(0xFF))
            out[at + 3] = uint8(held >> uint64(24) & uint64(0xFF))
            held >>= uint64(32)
            bits -= uint64(32)
            at += 4
    while bits > uint64(0):  # whole bytes: a multiple of eight of them are packed
        out[at] = uint8(held & uint64(0xFF))
        held >>= uint64(8)
        bits -= uint64(8)
        at += 1
    return at


@compiled
def put_split_page(ends: npt.NDArray[np.int32], valid: Bytes, values: Numbers, out: Bytes) -> int:
    """Write a page: the levels of its lists, and whole numbers (values,) split by significance; return its bytes."""
    at = put_levels(ends, valid, out)
    split_streams(values, out[at : at + len(values) * values.itemsize])
    return at + len(values) * values.itemsize


@compiled
def put_indexed_page(
    ends: npt.NDArray[np.int32], valid: Bytes, indices: npt.NDArray[np.int32], width: int, out: Bytes
) -> int:
    """Write a page: the levels of its lists, and indices (values,) into a dictionary; return its bytes."""
    return put_indices(indices, width, out, put_levels(ends, valid, out))
