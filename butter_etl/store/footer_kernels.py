"""Compiled code for what Parquet says of pages: their headers, and what footers say of chunks.

Chunks that pyarrow has written are moved by copying what its footer says of them, with new places.
(https://github.com/apache/parquet-format, parquet.thrift.)
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from butter_etl.engines import compiled, compiled_in_place
from butter_etl.store.compact_kernels import (
    DAMAGED,
    FALSE,
    I32,
    I64,
    LIST,
    OK,
    STRUCT,
    TRUE,
    Bytes,
    Integers,
    copy_bytes,
    int64,
    next_field,
    put_signed,
    put_varint,
    signed,
    skip,
    skip_field,
    varint,
)

#: The places of what a page's header says; -1 where it does not.
KIND, UNCOMPRESSED, COMPRESSED, CRC, VALUES, ENCODING, DEFINITION, REPETITION, BODY = range(9)
HEADER_FACTS: Final = 9


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


@compiled
def read_header(data: Bytes, position: int, end: int, facts: Integers) -> int:
    """Read the header of a page: fill ``facts`` (`HEADER_FACTS`,), and return `OK` or `DAMAGED`."""
    facts[:] = -1
    number = 0
    inner = 0  # the field that holds the structure that we are in, 0 at the top
    outer = 0
    while True:
        kind, number, position = next_field(data, position, end, number)
        if position < 0:
            return DAMAGED
        if kind == 0:
            if inner == 0:
                break
            inner, number = 0, outer
            continue
        if inner == 0 and kind == STRUCT and (number == 5 or number == 7):
            inner, outer, number = number, number, 0
            continue
        if kind == I32:
            value, position = varint(data, position, end)
            if position < 0:
                return DAMAGED
            value = signed(value)
            place = -1
            if inner == 0 and 1 <= number <= 4:
                place = number - 1
            elif (inner == 5 and 1 <= number <= 4) or (inner == 7 and 1 <= number <= 2):
                place = VALUES + number - 1
            if place >= 0:
                facts[place] = value & 0xFFFFFFFF if place == CRC else value
        else:
            position = skip_field(data, position, end, kind)
            if position < 0:
                return DAMAGED
    facts[BODY] = position
    if facts[KIND] < 0 or facts[UNCOMPRESSED] < 0 or facts[COMPRESSED] < 0 or facts[COMPRESSED] > end - position:
        return DAMAGED
    return OK


@compiled_in_place
def _place_of(number: int) -> int:
    """Return where a field of what a footer says of a chunk goes; -1 where it is not wanted."""
    if number == 1:
        return CHUNK_TYPE
    if 4 <= number <= 7:
        return CHUNK_CODEC + number - 4
    if number == 9:
        return CHUNK_DATA
    return CHUNK_DICTIONARY if number == 11 else -1


@compiled
def _scan_sizes(data: Bytes, position: int, end: int, said: Integers) -> int:
    """Note of how many definition levels a chunk's statistics of sizes speak; return the position behind, or -1."""
    number = 0
    while True:
        kind, number, position = next_field(data, position, end, number)
        if kind == 0:
            return position
        if number == 3 and kind == LIST and 0 <= position < end:
            size: int = int64(data[position]) >> 4
            if size == 15:
                size, _ = varint(data, position + 1, end)
            said[CHUNK_LEVELS] = size
        position = skip_field(data, position, end, kind) if position >= 0 else -1
        if position < 0:
            return -1


@compiled
def _scan_chunk(data: Bytes, position: int, end: int, said: Integers) -> int:
    """Fill ``said`` (CHUNK_SAID,) from the chunk at ``position``; return the position behind, -1 if there is none."""
    said[:] = -1
    number, inner = 0, False
    while True:
        kind, number, position = next_field(data, position, end, number)
        if position < 0:
            return -1
        if kind == 0:
            if not inner:
                return position
            inner, number = False, 3
            continue
        if not inner and number == 3 and kind == STRUCT:
            inner, number = True, 0
            continue
        place = _place_of(number) if inner else -1
        if inner and number == 3 and kind == LIST and position < end:
            # The path of the column: what its first part is, and where that ends.
            size, begin = varint(data, position + 1, end)
            if begin >= 0 and 0 <= size <= end - begin:
                said[CHUNK_NAME], said[CHUNK_NAME_END] = begin, begin + size
        if inner and number == 16 and kind == STRUCT:
            position = _scan_sizes(data, position, end, said)
        elif place >= 0 and (kind == I32 or kind == I64):
            value, position = varint(data, position, end)
            said[place] = signed(value)
        else:
            position = skip_field(data, position, end, kind)
        if position < 0:
            return -1


@compiled
def scan_footer(data: Bytes, slots: Integers, rows: Integers, said: npt.NDArray[np.int64]) -> int:
    """Read from a footer what it says of the chunks of some columns; return `OK` or `DAMAGED`.

    ``slots`` int64 (columns,) has the place of each column in ``said`` int64 (groups, wanted, CHUNK_SAID), -1 for those
    that are not wanted; ``rows`` int64 (groups,) gets how many rows each row group has.
    """
    end, position, number = len(data), 0, 0
    while True:
        kind, number, position = next_field(data, position, end, number)
        if position < 0 or kind == 0:
            return DAMAGED
        if number != 4:
            position = skip_field(data, position, end, kind)
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


@compiled_in_place
def _list_of_structs(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """Return how many structures a list has, and where they begin; -1 for the position if it is none."""
    if position >= end or data[position] & 0x0F != STRUCT:
        return 0, -1
    size: int = int64(data[position]) >> 4
    position += 1
    if size == 15:
        size, position = varint(data, position, end)
    return size, position


@compiled
def _scan_group(
    data: Bytes, position: int, end: int, slots: Integers, rows: Integers, said: npt.NDArray[np.int64]
) -> int:
    number = 0
    rows[0] = -1
    columns = -1
    while True:
        kind, number, position = next_field(data, position, end, number)
        if position < 0:
            return -1
        if kind == 0:
            return position if rows[0] >= 0 and columns == len(slots) else -1
        if number == 1:
            columns, position = _list_of_structs(data, position, end)
            if position < 0 or columns != len(slots):
                return -1
            for column in range(columns):
                slot = slots[column]
                if slot >= 0:
                    position = _scan_chunk(data, position, end, said[slot])
                else:
                    position = skip(data, position, end, STRUCT)
                if position < 0:
                    return -1
        elif number == 3 and kind == I64:
            value, position = varint(data, position, end)
            rows[0] = signed(value)
        else:
            position = skip_field(data, position, end, kind)
        if position < 0:
            return -1


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


#: The most bytes that `put_chunk` writes behind what it is given, `put_header`, and `put_offset_index` a page.
CHUNK_ROOM: Final = 256
HEADER_ROOM: Final = 64
PAGE_ROOM: Final = 32


@compiled
def put_header(facts: Integers, out: Bytes) -> int:
    """Write the header of a page from what `read_header` would read of it; return its bytes."""
    at = 0
    for place in range(VALUES):
        out[at] = 1 << 4 | I32
        value = facts[place]
        if place == CRC and value >= 1 << 31:
            value -= 1 << 32
        at = put_signed(value, out, at + 1)
    is_dictionary = facts[DEFINITION] < 0
    out[at] = (3 if is_dictionary else 1) << 4 | STRUCT
    at += 1
    for place in range(VALUES, ENCODING + 1 if is_dictionary else BODY):
        out[at] = 1 << 4 | I32
        at = put_signed(facts[place], out, at + 1)
    out[at] = out[at + 1] = 0
    return at + 2


@compiled_in_place
def _put_field(delta: int, kind: int, value: int, out: Bytes, at: int) -> int:
    out[at] = delta << 4 | kind
    return put_signed(value, out, at + 1)


@compiled
def put_chunk(begin: Bytes, facts: Integers, out: Bytes) -> int:
    """Write what a footer says of a chunk from ``facts`` (`CHUNK_FACTS`,); return its bytes.

    ``begin`` has the fields up to its compression: of the chunk, of what it says of its column. Offsets of a dictionary
    that there is not are -1.
    """
    at = copy_bytes(begin, 0, len(begin), out, 0)
    at = _put_field(1, I64, facts[ENTRIES], out, at)
    at = _put_field(1, I64, facts[ALL_UNCOMPRESSED], out, at)
    at = _put_field(1, I64, facts[ALL_COMPRESSED], out, at)
    at = _put_field(2, I64, facts[DATA_OFFSET], out, at)
    has_dictionary = facts[DICTIONARY_OFFSET] >= 0
    if has_dictionary:
        at = _put_field(2, I64, facts[DICTIONARY_OFFSET], out, at)
    # How many pages there are of which kind, and how they are encoded.
    out[at] = (2 if has_dictionary else 4) << 4 | LIST
    out[at + 1] = (2 if has_dictionary else 1) << 4 | STRUCT
    at += 2
    for is_data in range(0 if has_dictionary else 1, 2):
        at = _put_field(1, I32, 0 if is_data else 2, out, at)
        at = _put_field(1, I32, facts[PAGE_ENCODING] if is_data else 0, out, at)
        at = _put_field(1, I32, facts[PAGES] if is_data else 1, out, at)
        out[at] = 0
        at += 1
    # How many there are of each level.
    out[at] = 3 << 4 | STRUCT
    out[at + 1] = 2 << 4 | LIST
    out[at + 2] = 2 << 4 | I64
    at = put_signed(facts[ROWS], out, at + 3)
    at = put_signed(facts[ENTRIES] - facts[ROWS], out, at)
    out[at] = 1 << 4 | LIST
    out[at + 1] = 4 << 4 | I64
    at = put_signed(facts[NULLS], out, at + 2)
    at = put_signed(facts[ENTRIES] - facts[NUMBERS] - facts[NULLS], out, at)
    at = put_signed(0, out, at)
    at = put_signed(facts[NUMBERS], out, at)
    out[at] = out[at + 1] = 0
    at += 2
    at = _put_field(1, I64, facts[INDEX_OFFSET], out, at)
    at = _put_field(1, I32, facts[INDEX_SIZE], out, at)
    out[at] = 0
    return at + 1


@compiled
def put_offset_index(pages: Integers, out: Bytes) -> int:
    """Write an offset index: of each page (pages, 3) where it lies, its bytes, its first row; return its bytes."""
    out[0] = 1 << 4 | LIST
    if len(pages) < 15:
        out[1] = len(pages) << 4 | STRUCT
        at = 2
    else:
        out[1] = 15 << 4 | STRUCT
        at = put_varint(len(pages), out, 2)
    for page in range(len(pages)):
        at = _put_field(1, I64, pages[page, 0], out, at)
        at = _put_field(1, I32, pages[page, 1], out, at)
        at = _put_field(1, I64, pages[page, 2], out, at)
        out[at] = 0
        at += 1
    out[at] = 0
    return at + 1


# --- what pyarrow wrote, moved ----------------------------------------------------------------------------------------


@compiled
def _move_offset_index(data: Bytes, position: int, end: int, shift: int, out: Bytes, at: int) -> int:
    """Copy an offset index whose pages have moved by ``shift``; return the position behind it, -1 if it is none."""
    number = 0
    while position < end:
        head = int64(data[position])
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
            at = copy_bytes(data, position, after, out, at)
            position = after
            continue
        # A list of pages: where each lies is its first field.
        size = int64(data[position]) >> 4
        begin = position
        position += 1
        if size == 15:
            size, position = varint(data, position, end)
        if position < 0:
            return -1
        at = copy_bytes(data, begin, position, out, at)
        for _ in range(size):
            if position >= end or int64(data[position]) != (1 << 4 | I64):
                return -1
            out[at] = data[position]
            value, position = varint(data, position + 1, end)
            if position < 0:
                return -1
            at = put_signed(signed(value) + shift, out, at + 1)
            after = position
            while after < end and data[after] != 0:  # the other fields of the page
                after = skip(data, after + 1, end, int64(data[after]) & 0x0F)
                if after < 0:
                    return -1
            at = copy_bytes(data, position, after + 1, out, at)
            position = after + 1
    return -1


@compiled
def _move_chunk(
    data: Bytes, position: int, end: int, shift: int, column_shift: int, index: int, size: int, out: Bytes, at: int
) -> tuple[int, int]:
    """Copy what a footer says of a chunk whose pages have moved by ``shift`` and its column index by ``column_shift``.

    Its offset index lies at ``index`` and has ``size`` bytes. Returns the positions behind the chunk and behind the
    copy; -1 if it is none.
    """
    number, inner = 0, 0
    while position < end:
        head = int64(data[position])
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
        if inner == 0 and number == 3 and kind == STRUCT:
            inner, number = 1, 0
            continue
        is_place = (inner == 0 and 4 <= number <= 6) or (inner == 1 and 9 <= number <= 11)
        if not is_place:
            if kind == TRUE or kind == FALSE:
                continue
            after = skip(data, position, end, kind)
            if after < 0:
                return -1, -1
            at = copy_bytes(data, position, after, out, at)
            position = after
            continue
        value, position = varint(data, position, end)
        if position < 0:
            return -1, -1
        value = signed(value)
        if inner == 1:
            value += shift
        elif number == 4:
            value = index
        elif number == 5:
            value = size
        else:
            value += column_shift
        at = put_signed(value, out, at)
    return -1, -1


@compiled
def _find_indexes(data: Bytes, position: int, end: int, found: Integers) -> int:
    """Fill ``found`` (4,) with places and sizes of a chunk's offset index and column index; return 0, else -1."""
    found[:] = -1
    number = 0
    while True:
        kind, number, position = next_field(data, position, end, number)
        if position < 0:
            return -1
        if kind == 0:
            return 0
        if 4 <= number <= 7:
            value, position = varint(data, position, end)
            found[number - 4] = signed(value)
        else:
            position = skip_field(data, position, end, kind)
        if position < 0:
            return -1


@compiled
def column_indexes(data: Bytes, position: int, end: int, count: int, span: Integers, found: Integers) -> int:
    """Widen ``span`` (2,), from where to where column indexes lie, to those of the chunks at ``position``.

    ``found`` (4,) is scratch. Returns the position behind them; -1 where there are not so many.
    """
    for _ in range(count):
        if _find_indexes(data, position, end, found) < 0:
            return -1
        if found[2] >= 0:
            span[0] = min(span[0], found[2])
            span[1] = max(span[1], found[2] + found[3])
        position = skip(data, position, end, STRUCT)
    return position


@compiled
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
    found: Integers,
) -> int:
    """Copy what a footer says of the chunks of a row group that has moved by ``shift``.

    ``bounds`` (chunks + 1,) get where each lies in ``out``, the copies of their offset indexes are written to
    ``indexes``, which will lie at ``base`` of the file; ``found`` (4,) is scratch. Returns how many bytes these have;
    -1 if there are not so many chunks with offset indexes.
    """
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
