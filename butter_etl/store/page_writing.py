"""Parquet files with history columns, written in a fraction of pyarrow's time: the same columns, settings and footers.

Lists of plain numbers are encoded here, pages of version 1: split by significance, or indices into a dictionary where
that is asked for and few numbers differ. All other columns pyarrow writes into memory, a row group at a time; their
chunks are moved into the file, and what pyarrow's footer says of them goes into ours.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from isal import isal_zlib

from butter_etl.engines import Call, KernelSet
from butter_etl.store import compact_kernels, footer_kernels
from butter_etl.store import page_kernels as kernels
from butter_etl.store.footers import MAGIC
from butter_etl.store.history_chunks import (
    BYTE_STREAM_SPLIT,
    DATA_PAGE,
    DICTIONARY_PAGE,
    INT32,
    PLAIN,
    RLE,
    RLE_DICTIONARY,
    STORED_AS,
    UNCOMPRESSED,
    ZSTD,
    StoredLists,
    is_history_field,
)
from butter_etl.store.lists import Lists, lists_of
from butter_etl.store.stored_rows import StoredRows, decoded, table_of
from butter_etl.store.thrift import (
    BINARY,
    I32,
    I64,
    LIST,
    STRUCT,
    Field,
    List,
    Struct,
    i32,
    i64,
    read_struct,
    read_varint,
    write_field_head,
    write_fields,
    write_list_head,
    write_value,
)
from butter_etl.studies import PageEncoding

#: A page holds lists of about so many bytes, or one list that is longer.
PAGE_BYTES: Final = 2**20
#: Pages of fewer bytes on average are not put side by side: a reader of a column would have very many.
_LARGE: Final = 2**16
#: Dictionaries have at most so many entries: beyond, splitting is as small and quicker.
MOST_ENTRIES: Final = 2**12


class Sink(Protocol):
    """What a file is written to."""

    def write(self, data: Any, /) -> Any:
        """Append bytes."""
        ...


class _Chunk(NamedTuple):
    """A chunk that was encoded here, as its footer speaks of it.

    ``facts`` int64 (CHUNK_FACTS,) are those of `footer_kernels.put_chunk`, ``pages`` int64 (pages, 3) those of its
    offset index.
    """

    begin: npt.NDArray[np.uint8]
    facts: npt.NDArray[np.int64]
    pages: npt.NDArray[np.int64]


# --- chunks that are encoded here --------------------------------------------------------------------------------


class ChunkEncoder:
    """Encodes the chunks of one column."""

    def __init__(self, name: str, kind: pa.DataType, encoding: PageEncoding, level: int) -> None:
        self._codec = pa.Codec("zstd", compression_level=level) if encoding.compressed else None
        self._stored = STORED_AS[kind.value_type][0]
        self._numbers = np.dtype(kind.value_type.to_pandas_dtype())
        self._whole = np.dtype(f"u{self._numbers.itemsize}")
        self._layout = encoding.layout
        self._begin = partial(_begin_of_chunk, name, self._stored, UNCOMPRESSED if self._codec is None else ZSTD)
        KERNELS.ready(self._whole)

    def encode(self, lists: Lists, offset: int, put: Callable[[Any], object]) -> _Chunk:
        """Write the lists as a chunk, from ``offset`` of the file on: pieces of bytes, given to ``put``."""
        values, facts = lists.values.view(self._whole), np.empty(footer_kernels.CHUNK_FACTS, np.int64)
        dictionary, indices = self._dictionary(values) if self._layout == "dictionary" else (None, None)
        known = 0 if dictionary is None else len(dictionary)
        size = uncompressed = entries = 0
        facts[footer_kernels.DICTIONARY_OFFSET] = -1
        encoding = PLAIN if self._stored == INT32 else BYTE_STREAM_SPLIT
        if dictionary is not None:
            encoding, facts[footer_kernels.DICTIONARY_OFFSET] = RLE_DICTIONARY, offset
            stored = dictionary.astype(np.int32) if self._stored == INT32 else dictionary
            size, uncompressed = self._put(put, stored.view(np.uint8), DICTIONARY_PAGE, len(dictionary), PLAIN)
        facts[footer_kernels.DATA_OFFSET] = offset + size
        pages = []
        for first, last in _page_bounds(lists.ends, self._numbers.itemsize):
            ends, valid = lists.ends[first : last + 1], lists.valid[first:last]
            part = values if indices is None else indices
            body = self._body(ends, valid, part[ends[0] : ends[-1]], encoding, known)
            count = kernels.count_entries(ends)
            page = self._put(put, body, DATA_PAGE, count, encoding)
            pages.append((offset + size, page[0], first))
            size, uncompressed, entries = size + page[0], uncompressed + page[1], entries + count
        rows = len(lists.valid)
        facts[footer_kernels.ROWS], facts[footer_kernels.NULLS] = rows, rows - np.count_nonzero(lists.valid)
        facts[footer_kernels.ENTRIES], facts[footer_kernels.NUMBERS] = entries, lists.ends[-1]
        facts[footer_kernels.ALL_UNCOMPRESSED], facts[footer_kernels.ALL_COMPRESSED] = uncompressed, size
        facts[footer_kernels.PAGES], facts[footer_kernels.PAGE_ENCODING] = len(pages), encoding
        return _Chunk(self._begin(encoding), facts, np.array(pages, np.int64))

    def takes(self, column: Sequence[StoredLists]) -> bool:
        """Tell whether pages may be moved into a chunk as they are: of one chunk, or large ones of several."""
        alike = {(one.encoding, one.chunk.is_compressed, one.kind.value_type.to_pandas_dtype()) for one in column}
        if alike != {(column[0].encoding, self._codec is not None, self._numbers.type)}:
            return False
        return len(column) == 1 or all(
            not one.dictionary and one.chunk.size >= _LARGE * len(one.pages) for one in column
        )

    def move(self, column: Sequence[StoredLists], offset: int, put: Callable[[Any], object]) -> _Chunk:
        """Write pages as a chunk, from ``offset`` of the file on, as they are: `takes` must allow it."""
        facts, pages = np.zeros(footer_kernels.CHUNK_FACTS, np.int64), []
        first = column[0]
        facts[footer_kernels.DICTIONARY_OFFSET] = offset if first.dictionary else -1
        facts[footer_kernels.DATA_OFFSET] = offset + first.dictionary
        for one in column:
            shift = offset + facts[footer_kernels.ALL_COMPRESSED], 0, facts[footer_kernels.ROWS]
            pages.append(one.pages + np.array(shift, np.int64))
            for place, value in (
                (footer_kernels.ROWS, one.rows),
                (footer_kernels.NULLS, one.nulls),
                (footer_kernels.ENTRIES, one.chunk.entries),
                (footer_kernels.NUMBERS, one.numbers),
                (footer_kernels.ALL_UNCOMPRESSED, one.chunk.uncompressed),
                (footer_kernels.ALL_COMPRESSED, one.chunk.size),
                (footer_kernels.PAGES, len(one.pages)),
            ):
                facts[place] += value
            put(one.data)
        facts[footer_kernels.PAGE_ENCODING] = first.encoding
        return _Chunk(self._begin(first.encoding), facts, np.concatenate(pages))

    def _dictionary(self, values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.int32] | None]:
        """Return the numbers that there are, and which of them each is; None where they are too many, or none."""
        table = np.full(2 * MOST_ENTRIES, -1, np.int32)
        dictionary, indices = np.empty(MOST_ENTRIES, values.dtype), np.empty(len(values), np.int32)
        count = kernels.find_entries(values, table, dictionary, 0, indices)
        return (dictionary[:count], indices) if count > 0 else (None, None)

    def _body(
        self,
        ends: npt.NDArray[np.int32],
        valid: npt.NDArray[np.uint8],
        part: npt.NDArray[Any],
        encoding: int,
        known: int,
    ) -> npt.NDArray[np.uint8]:
        """Return the content of a page: levels, then values, or indices of a dictionary of so many entries."""
        room = kernels.levels_room(len(valid))
        if encoding == RLE_DICTIONARY:
            width = max(1, (known - 1).bit_length())
            body = np.empty(room + kernels.indices_room(len(part), width), np.uint8)
            return body[: kernels.put_indexed_page(ends, valid, part, width, body)]
        if encoding == BYTE_STREAM_SPLIT:
            body = np.empty(room + part.nbytes, np.uint8)
            return body[: kernels.put_split_page(ends, valid, part, body)]
        body = np.empty(room, np.uint8)
        return np.concatenate([body[: kernels.put_levels(ends, valid, body)], part.astype(np.int32).view(np.uint8)])

    def _put(
        self, put: Callable[[Any], object], body: npt.NDArray[np.uint8], kind: int, count: int, encoding: int
    ) -> tuple[int, int]:
        """Write a page; return its bytes, and what they would be uncompressed."""
        content: Any = body.data if self._codec is None else self._codec.compress(body)
        length = memoryview(content).nbytes
        levels = RLE if kind == DATA_PAGE else -1
        facts = np.array([kind, body.nbytes, length, isal_zlib.crc32(content), count, encoding, levels, levels, 0])
        header = np.empty(footer_kernels.HEADER_ROOM, np.uint8)
        used = footer_kernels.put_header(facts, header)
        put(header[:used].data)
        put(content)
        return used + length, used + body.nbytes


@lru_cache(maxsize=1024)
def _begin_of_chunk(name: str, stored: int, compression: int, encoding: int) -> npt.NDArray[np.uint8]:
    """Return what footers say of all chunks of a column that are encoded alike, up to the compression."""
    out = bytearray()
    write_fields({2: i64(0)}, out)
    write_field_head(3, 2, STRUCT, out)
    column = {
        1: i32(stored),
        2: Field(LIST, List(I32, [PLAIN, RLE, encoding] if encoding == RLE_DICTIONARY else [RLE, encoding])),
        3: Field(LIST, List(BINARY, [name.encode(), b"list", b"element"])),
        4: i32(compression),
    }
    write_fields(column, out)
    return np.frombuffer(bytes(out), np.uint8)


def _page_bounds(ends: npt.NDArray[np.int32], width: int) -> Iterator[tuple[int, int]]:
    """Yield the first list of each page and the one behind its last: about `PAGE_BYTES`, lists whole."""
    rows, first, most = len(ends) - 1, 0, PAGE_BYTES // width
    while first < rows:
        last = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


# --- chunks that pyarrow has written -----------------------------------------------------------------------------


class _Group(NamedTuple):
    """A row group that pyarrow has written into memory: which of its file, and how far its pages move."""

    part: _Part
    number: int
    shift: int


class _Part:
    """Columns that pyarrow writes into memory, as a file of their own, to be moved into another."""

    def __init__(self, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self.columns: list[str] = schema.names
        self._memory = io.BytesIO()
        self._writer = pq.ParquetWriter(self._memory, schema, **options)
        self._groups = 0
        self._end = len(MAGIC)

    def write(self, table: pa.Table, offset: int) -> tuple[bytes, _Group]:
        """Write a row group; return its bytes, which shall lie at ``offset`` of the other file."""
        self._writer.write_table(table, row_group_size=table.num_rows)
        start, self._end = self._end, self._memory.tell()
        with self._memory.getbuffer() as written:
            data = bytes(written[start : self._end])
        self._groups += 1
        return data, _Group(self, self._groups - 1, offset - start)

    def close(self) -> None:
        """Have pyarrow write what it says of the file."""
        self._writer.close()
        self._data = self._memory.getvalue()
        self._bytes = np.frombuffer(self._data, np.uint8)
        self._footer_end = len(self._data) - 8
        self._lists: list[tuple[int, Struct]] = []
        length = int.from_bytes(self._data[self._footer_end : self._footer_end + 4], "little")
        position = self._field(self._footer_end - length, 4)
        _, position = _list_head(self._data, position)
        span = np.array([2**62, -1])
        for _ in range(self._groups):
            _, chunks = _list_head(self._data, position + 1)  # behind the head of the first field
            behind = footer_kernels.column_indexes(
                self._bytes, chunks, self._footer_end, len(self.columns), span, np.empty(4, np.int64)
            )
            said, position = read_struct(self._data, behind, after=1)
            self._lists.append((chunks, said))
        self._column_indexes = (int(span[0]), int(span[1])) if span[1] >= 0 else (0, 0)

    def abandon(self) -> None:
        """Let go of what is in memory; pyarrow must have ended its file for that."""
        self._writer.close()

    def _field(self, position: int, wanted: int) -> int:
        """Return where the value of a field of the structure at ``position`` begins."""
        number = 0
        while True:
            head = self._data[position]
            number += head >> 4
            if number == wanted:
                return position + 1
            position = compact_kernels.skip(self._bytes, position + 1, self._footer_end, head & 0x0F)

    def column_indexes(self, offset: int) -> bytes:
        """Return the column indexes of all chunks, which shall lie at ``offset``."""
        first, last = self._column_indexes
        self._column_shift = offset - first
        return self._data[first:last]

    def moved(self, group: _Group, offset: int) -> tuple[dict[str, bytes], bytes]:
        """Return what the footer says of a row group's chunks, and their offset indexes, to lie at ``offset``."""
        position, _ = self._lists[group.number]
        count = len(self.columns)
        # Numbers grow by some bytes, of which there are at most four a chunk and one a page.
        out, indexes = np.empty(2 * len(self._data) + 64 * count, np.uint8), np.empty(2 * len(self._data), np.uint8)
        bounds = np.empty(count + 1, np.int64)
        used = footer_kernels.move_chunks(
            self._bytes,
            position,
            self._footer_end,
            group.shift,
            self._column_shift,
            offset,
            out,
            bounds,
            indexes,
            np.empty(4, np.int64),
        )
        if used < 0:
            raise AssertionError(f"pyarrow {pa.__version__} writes footers of another kind")
        text, ends = out.tobytes(), bounds.tolist()
        said = {name: text[begin:end] for name, (begin, end) in zip(self.columns, pairwise(ends), strict=True)}
        return said, indexes[:used].tobytes()

    def sizes(self, group: _Group) -> tuple[int, int]:
        """Return the bytes of a row group, uncompressed and as they are."""
        said = self._lists[group.number][1]
        return said[2].value, said[6].value


def _list_head(data: bytes, position: int) -> tuple[int, int]:
    """Return how many values the list at ``position`` has, and where they begin."""
    size = data[position] >> 4
    return read_varint(data, position + 1) if size == 15 else (size, position + 1)


# --- files -------------------------------------------------------------------------------------------------------


class _RowGroup(NamedTuple):
    """What is known of a row group that is written: of each column either a chunk, or where pyarrow's has gone."""

    rows: int
    offset: int
    own: dict[str, _Chunk]
    moved: list[_Group]


class HistoryWriter:
    """Writes a Parquet file of a schema with history columns, row group by row group, to a sink.

    ``encodings`` has each column's, ``options(schema)`` are pyarrow's for others, ``level`` is that of zstd.
    """

    def __init__(
        self,
        sink: Sink,
        schema: pa.Schema,
        encodings: Mapping[str, PageEncoding],
        options: Callable[[pa.Schema], Mapping[str, Any]],
        *,
        level: int,
    ) -> None:
        self._sink, self._schema, self._options = sink, schema, options
        self._encoders = {
            field.name: ChunkEncoder(field.name, field.type, encodings[field.name], level)
            for field in schema
            if is_history_field(field)
        }
        others = pa.schema([field for field in schema if field.name not in self._encoders])
        self._part = _Part(others, options(others)) if others.names else None
        self._parts = [self._part] if self._part else []
        self._groups: list[_RowGroup] = []
        self._metadata: dict[str, str] = {}
        self._position = 0
        self._put(MAGIC)

    def __enter__(self) -> HistoryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Let go of what is in memory: the file has no end."""
        for part in self._parts:
            part.abandon()

    def add_key_value_metadata(self, metadata: Mapping[str, str]) -> None:
        """Put texts into the footer."""
        self._metadata |= metadata

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write rows as row groups of ``row_group_size``, by default as one; without rows, nothing is written."""
        if not table.schema.equals(self._schema):
            raise ValueError(f"rows of another schema: {table.schema}, not {self._schema}")
        size = row_group_size or table.num_rows
        for start in range(0, table.num_rows, max(1, size)):
            self.write_rows([StoredRows.of(table.slice(start, size))])

    def write_rows(self, pieces: Sequence[StoredRows]) -> None:
        """Write rows of the schema, which follow each other, as one row group; pages as they are where they may be."""
        start, moved, own = self._position, [], {}
        if self._part is not None:
            others = pa.schema([self._schema.field(name) for name in self._part.columns])
            moved.append(self._move(self._part, table_of(pieces, others)))
        for name, encoder in self._encoders.items():
            columns = [piece.columns[name] for piece in pieces]
            stored = [one for one in columns if isinstance(one, StoredLists)]
            if len(stored) == len(columns) and encoder.takes(stored):
                own[name] = encoder.move(stored, self._position, self._put)
                continue
            column = decoded(columns, self._schema.field(name).type)
            lists = lists_of(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())
            if lists is None:
                schema = pa.schema([self._schema.field(name)])
                part = _Part(schema, self._options(schema))
                self._parts.append(part)
                moved.append(self._move(part, pa.table([column], schema=schema)))
                continue
            own[name] = encoder.encode(lists, self._position, self._put)
        self._groups.append(_RowGroup(sum(piece.num_rows for piece in pieces), start, own, moved))

    def _move(self, part: _Part, table: pa.Table) -> _Group:
        data, group = part.write(table, self._position)
        self._put(data)
        return group

    def _put(self, data: Any) -> None:
        self._sink.write(data)
        self._position += memoryview(data).nbytes

    def close(self) -> None:
        """Write page indexes and footer."""
        for part in self._parts:
            part.close()
            self._put(part.column_indexes(self._position))
        footer = bytearray()
        before, after = _file_facts(self._schema)
        footer += before
        write_field_head(3, 2, I64, footer)
        write_value(I64, sum(group.rows for group in self._groups), footer)
        write_field_head(4, 3, LIST, footer)
        write_list_head(STRUCT, len(self._groups), footer)
        for group in self._groups:
            self._put_group(group, footer)
        last = 4
        if self._metadata:
            pairs = [
                {1: Field(BINARY, key.encode()), 2: Field(BINARY, value.encode())}
                for key, value in self._metadata.items()
            ]
            write_field_head(5, 4, LIST, footer)
            write_value(LIST, List(STRUCT, pairs), footer)
            last = 5
        write_fields(after, footer, after=last)
        footer.append(0)
        self._put(bytes(footer) + len(footer).to_bytes(4, "little") + MAGIC)

    def _put_group(self, group: _RowGroup, footer: bytearray) -> None:
        """Write the offset indexes of a row group; append what the footer says of it."""
        said: dict[str, bytes] = {}
        uncompressed = compressed = 0
        for moved in group.moved:
            chunks, indexes = moved.part.moved(moved, self._position)
            said |= chunks
            self._put(indexes)
            sizes = moved.part.sizes(moved)
            uncompressed, compressed = uncompressed + sizes[0], compressed + sizes[1]
        for name, chunk in group.own.items():
            out = np.empty(
                len(chunk.begin) + footer_kernels.CHUNK_ROOM + footer_kernels.PAGE_ROOM * len(chunk.pages), np.uint8
            )
            size = footer_kernels.put_offset_index(chunk.pages, out)
            chunk.facts[footer_kernels.INDEX_OFFSET], chunk.facts[footer_kernels.INDEX_SIZE] = self._position, size
            self._put(out[:size].tobytes())
            said[name] = out[: footer_kernels.put_chunk(chunk.begin, chunk.facts, out)].tobytes()
            uncompressed += int(chunk.facts[footer_kernels.ALL_UNCOMPRESSED])
            compressed += int(chunk.facts[footer_kernels.ALL_COMPRESSED])
        write_field_head(1, 0, LIST, footer)
        write_list_head(STRUCT, len(self._schema), footer)
        for name in self._schema.names:
            footer += said[name]
        rest = {2: i64(uncompressed), 3: i64(group.rows), 5: i64(group.offset), 6: i64(compressed)}
        write_fields(rest, footer, after=1)
        footer.append(0)


@lru_cache(maxsize=64)
def _file_facts(schema: pa.Schema) -> tuple[bytes, Struct]:
    """Return how pyarrow's footers of a schema begin, as bytes, and the fields that follow the metadata."""
    memory = pa.BufferOutputStream()
    pq.write_metadata(schema, memory)
    data = memory.getvalue().to_pybytes()
    length = int.from_bytes(data[-8:-4], "little")
    said, _ = read_struct(data[-8 - length : -8])
    before = bytearray()
    write_fields({number: said[number] for number in (1, 2)}, before)
    return bytes(before), {number: said[number] for number in said if number > 5}


def are_compiled(kinds: Iterable[pa.DataType]) -> bool:
    """Tell whether the kernels that write lists of these types are at hand, and need not be compiled."""
    return KERNELS.are_at_hand(map(_width_of, kinds))


def _width_of(kind: pa.DataType) -> np.dtype[Any]:
    """Return the whole numbers that those of lists of a type are encoded as."""
    return np.dtype(STORED_AS[kind.value_type][2])


def _calls(whole: np.dtype[Any]) -> list[Call]:
    """Return the kernels that write whole numbers of a width, each with arguments as it will have."""
    ends, places, data = np.zeros(1, np.int32), np.zeros(2, np.int64), np.zeros(8, np.uint8)
    empty, table = np.zeros(0, whole), np.zeros(1, np.int32)
    found: list[Call] = [
        (kernels.put_levels, (ends, data, data)),
        (kernels.count_entries, (ends,)),
        (kernels.find_entries, (empty, table, empty, 0, table)),
        (kernels.put_indexed_page, (ends, data, table, 1, data)),
        (footer_kernels.put_header, (places, data)),
        (footer_kernels.put_chunk, (data, places, data)),
        (footer_kernels.put_offset_index, (places[None], data)),
        (compact_kernels.skip, (data, 0, 0, 0)),
        (footer_kernels.column_indexes, (data, 0, 0, 0, places, places)),
        (footer_kernels.move_chunks, (data, 0, 0, 0, 0, 0, data, places, data, places)),
    ]
    if whole.itemsize >= np.dtype(np.uint32).itemsize:
        found.append((kernels.put_split_page, (ends, data, empty, data)))
    return found


KERNELS: Final = KernelSet(_calls, compact_kernels.SOURCES)
