"""Chunks of history columns read into Arrow: what pyarrow makes of them, in a fraction of its time.

A chunk is the part of a column in a row group: pages, one after the other. Only the usual is read here: lists of plain
numbers, pages of version 1, zstd or no compression, plain, split or dictionary encoding, no null entry. All else is
left to pyarrow, a column at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from isal import isal_zlib

from butter_etl.engines import Call, KernelSet, array_of
from butter_etl.store import compact_kernels, footer_kernels
from butter_etl.store import page_kernels as kernels
from butter_etl.store.history_chunks import (
    BYTE_STREAM_SPLIT,
    DATA_PAGE,
    DICTIONARY_PAGE,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE,
    RLE_DICTIONARY,
    STORED_AS,
    Chunk,
    DamagedPageError,
    StoredLists,
    Unusual,
    check_column,
    chunk_of,
    is_history_field,
)

_Read = TypeVar("_Read")

_ZSTD: Final = pa.Codec("zstd")
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
#: Columns of fewer entries pyarrow reads in less time.
_FEW_ENTRIES: Final = 2**14
#: Chunks with at most so many bytes between them are read at once, so many in all.
_GAP: Final = 2**16
_AT_ONCE: Final = 2**23
#: The first so many bytes of a page have all of its levels, most often.
_LEVELS: Final = 2**12


def read_lists(data: Any, chunk: Chunk, kind: pa.DataType, rows: int, *, checked: bool = True) -> pa.Array:
    """Return the lists of a chunk, given its bytes: an array of ``kind`` (rows,).

    Pages are held against their checksums, where they have any and it is ``checked``. Raises `Unusual` for what is for
    pyarrow to read, DamagedPageError for what cannot be.
    """
    return _Lists(np.frombuffer(data, np.uint8), chunk, kind, rows, checked=checked).read()


def read_lengths(data: Any, chunk: Chunk, kind: pa.DataType, rows: int) -> pa.Array:
    """Return the lengths of the lists of a chunk, int32 (rows,), null where a list is, without most of its decoding.

    All pages are held against their checksums. Raises `Unusual` also where pages have none, since then only their
    decoding tells whether they are sound, and what `read_lists` raises.
    """
    return _Lists(np.frombuffer(data, np.uint8), chunk, kind, rows, checked=True).lengths()


def read_stored(data: Any, chunk: Chunk, kind: pa.DataType, rows: int) -> StoredLists:
    """Return the lists of a chunk as the pages that hold them, to be written elsewhere as they are.

    Raises `Unusual` also where a page has no checksum, a list goes on in the next, or pages are encoded differently;
    and what `read_lists` raises.
    """
    return _Lists(np.frombuffer(data, np.uint8), chunk, kind, rows, checked=True).stored()


class _Lists:
    """The lists of a chunk, as far as they are read."""

    def __init__(
        self, data: npt.NDArray[np.uint8], chunk: Chunk, kind: pa.DataType, rows: int, *, checked: bool
    ) -> None:
        if rows > chunk.entries:
            raise DamagedPageError(f"has {chunk.entries} entries for {rows} rows")
        self._data, self._chunk, self._kind, self._rows, self._checked = data, chunk, kind, rows, checked
        self._numbers = np.dtype(kind.value_type.to_pandas_dtype())
        _, stored, self._whole = STORED_AS[kind.value_type]
        self._stored = np.dtype(stored)
        self._offsets = pa.allocate_buffer(4 * (rows + 1))
        self._ends = np.frombuffer(self._offsets, np.int32)
        self._ends[0] = 0
        self._valid = np.empty(rows, np.uint8)
        self._state = np.zeros(4, np.int64)
        self._entries = 0
        self._dictionary: npt.NDArray[Any] | None = None
        self._values: pa.Buffer | None = None
        self._width = _width_of(kind)
        KERNELS.ready(self._width)

    def read(self) -> pa.Array:
        """Return the lists."""
        for _, facts, page in self._pages():
            content = self._content(facts, page)
            if facts[footer_kernels.KIND] == DICTIONARY_PAGE:
                self._read_dictionary(facts, content)
            else:
                self._read_values(facts, content)
        self._require_all()
        return self._array()

    def lengths(self) -> pa.Array:
        """Return the lengths of the lists."""
        for _, facts, page in self._pages():
            self._read_levels_of(facts, page)
        self._require_all()
        valid = self._valid.view(bool)
        return array_of(np.diff(self._ends), ~valid)

    def stored(self) -> StoredLists:
        """Return the lists as the pages that hold them."""
        pages, encodings, uncompressed, dictionary = [], set(), 0, 0
        for begin, facts, page in self._pages():
            rows = int(self._state[0])
            end = self._ends[rows]
            self._read_levels_of(facts, page)
            if self._ends[rows] != end:  # a list that began in the page before
                raise Unusual
            body = int(facts[footer_kernels.BODY])
            size = body - begin + int(facts[footer_kernels.COMPRESSED])
            uncompressed += body - begin + int(facts[footer_kernels.UNCOMPRESSED])
            if facts[footer_kernels.KIND] == DICTIONARY_PAGE:
                dictionary += size
            else:
                encodings.add(int(facts[footer_kernels.ENCODING]))
                pages.append((begin, size, rows))
        self._require_all()
        if len(encodings) != 1 or bool(dictionary) != (encodings == {RLE_DICTIONARY}):
            raise Unusual
        return StoredLists(
            self._data,
            self._chunk._replace(uncompressed=uncompressed),
            self._kind,
            self._rows,
            nulls=int(self._state[2]),
            numbers=int(self._state[1]),
            encoding=encodings.pop(),
            dictionary=dictionary,
            pages=np.array(pages, np.int64),
            decode=partial(read_lists, self._data, self._chunk, self._kind, self._rows, checked=False),
        )

    def _read_levels_of(self, facts: npt.NDArray[np.int64], page: npt.NDArray[np.uint8]) -> None:
        """Read the levels of a page, if it has any; only its checksum tells that it is sound."""
        if facts[footer_kernels.CRC] < 0:
            raise Unusual
        if facts[footer_kernels.KIND] == DATA_PAGE and self._read_levels(facts, self._beginning(page)):
            _require(self._read_levels(facts, self._content(facts, page)), "levels of lists")

    def _require_all(self) -> None:
        entries = self._entries
        if entries != self._chunk.entries or self._state[0] != self._rows:
            raise DamagedPageError(
                f"has {entries} entries in {self._state[0]} rows, not {self._chunk.entries} in {self._rows}"
            )

    def _array(self) -> pa.Array:
        count, nulls = int(self._state[1]), int(self._state[2])
        values = pa.Array.from_buffers(self._kind.value_type, count, [None, self._values or pa.py_buffer(b"")])
        validity = pa.py_buffer(np.packbits(self._valid, bitorder="little")) if nulls else None
        return pa.Array.from_buffers(self._kind, self._rows, [validity, self._offsets], nulls, 0, [values])

    # --- pages -------------------------------------------------------------------------------------------------

    def _pages(self) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        """Yield where each page begins, what its header says, and the page, held against its checksum."""
        position, end = 0, len(self._data)
        while position < end:
            begin = position
            facts = np.empty(footer_kernels.HEADER_FACTS, np.int64)
            if footer_kernels.read_header(self._data, position, end, facts):
                raise DamagedPageError(f"has no page where one should begin, at byte {self._chunk.start + position}")
            body = int(facts[footer_kernels.BODY])
            position = body + int(facts[footer_kernels.COMPRESSED])
            page, checksum = self._data[body:position], int(facts[footer_kernels.CRC])
            if facts[footer_kernels.KIND] not in (DATA_PAGE, DICTIONARY_PAGE):
                raise Unusual
            if self._checked and checksum >= 0 and isal_zlib.crc32(page) != checksum:
                raise DamagedPageError("has a page that does not agree with its checksum")
            yield begin, facts, page

    def _content(self, facts: npt.NDArray[np.int64], page: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return what a page holds, decompressed."""
        if not self._chunk.is_compressed:
            return page
        size = int(facts[footer_kernels.UNCOMPRESSED])
        if _content_size(page) not in (None, size):
            raise DamagedPageError(f"has a page of {size} bytes that does not hold so many")
        if size > self._chunk.uncompressed:  # more than the file has reason to ask for
            raise Unusual
        try:
            return np.frombuffer(_ZSTD.decompress(page, decompressed_size=size), np.uint8)
        except (OSError, ValueError) as error:
            raise DamagedPageError(f"has a page that cannot be decompressed ({error})") from error

    def _beginning(self, page: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the first bytes of what a page holds: most often all of its levels; none where it is damaged."""
        if not self._chunk.is_compressed:
            return page
        with suppress(OSError), pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(page)), "zstd") as stream:
            return np.frombuffer(stream.read(_LEVELS), np.uint8)
        return page[:0]

    def _read_dictionary(self, facts: npt.NDArray[np.int64], page: npt.NDArray[np.uint8]) -> None:
        if facts[footer_kernels.ENCODING] not in (PLAIN, PLAIN_DICTIONARY):
            raise Unusual
        if len(page) != facts[footer_kernels.VALUES] * self._stored.itemsize:
            raise DamagedPageError(f"has a dictionary of {facts[footer_kernels.VALUES]} entries in {len(page)} bytes")
        self._dictionary = self._converted(page.view(self._stored))

    def _converted(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return numbers as files store them as whole numbers of the width of the column's type."""
        if self._stored.itemsize == self._numbers.itemsize:
            return stored.view(self._whole)
        if stored.size and (stored.min() < 0 or stored.max() > np.iinfo(self._numbers).max):
            raise Unusual
        return stored.astype(self._numbers)

    def _read_levels(self, facts: npt.NDArray[np.int64], content: npt.NDArray[np.uint8]) -> int:
        """Read the levels of a page, with which its content begins; return what `kernels.read_levels` does."""
        if facts[footer_kernels.DEFINITION] != RLE or facts[footer_kernels.REPETITION] != RLE:
            raise Unusual
        count = int(facts[footer_kernels.VALUES])
        if count < 0 or self._entries + count > self._chunk.entries:
            raise DamagedPageError(f"has {self._entries + count} entries, not {self._chunk.entries}")
        found = kernels.read_levels(content, 0, len(content), count, self._ends[1:], self._valid, self._state)
        if found == compact_kernels.OK:
            self._entries += count
        return found

    def _read_values(self, facts: npt.NDArray[np.int64], page: npt.NDArray[np.uint8]) -> None:
        before = int(self._state[1])
        _require(self._read_levels(facts, page), "levels of lists")
        end, begin = int(self._state[1]), int(self._state[3])
        if end == before:
            return
        encoding = int(facts[footer_kernels.ENCODING])
        size = len(page) - begin
        if encoding in (BYTE_STREAM_SPLIT, PLAIN) and size != (end - before) * self._stored.itemsize:
            raise DamagedPageError(f"has {end - before} values in {size} bytes")
        out = self._room()[before:end]
        if encoding == BYTE_STREAM_SPLIT:
            if self._stored.itemsize != self._numbers.itemsize:
                raise Unusual
            _require(kernels.join_streams(page, begin, len(page), out), "values")
        elif encoding == PLAIN:
            out[:] = self._converted(page[begin:].view(self._stored))
        elif encoding in (RLE_DICTIONARY, PLAIN_DICTIONARY):
            if self._dictionary is None:
                raise DamagedPageError("has no dictionary")
            _require(kernels.look_up(page, begin, len(page), self._dictionary, out), "indices")
        else:
            raise Unusual

    def _room(self) -> npt.NDArray[Any]:
        """Return the numbers of all entries that the chunk may have, as whole numbers of their width."""
        if self._values is None:
            self._values = pa.allocate_buffer(self._chunk.entries * self._numbers.itemsize)
        return np.frombuffer(self._values, self._width)


def _require(found: int, what: str) -> None:
    if found == compact_kernels.UNUSUAL:
        raise Unusual
    if found:
        raise DamagedPageError(f"has a page whose {what} cannot be read")


def _content_size(page: npt.NDArray[np.uint8]) -> int | None:
    """Return how many bytes a frame of zstd says that it holds; None where it does not (RFC 8878, section 3.1.1)."""
    head = page[:18].tobytes()
    if len(head) < 6 or head[:4] != _ZSTD_MAGIC:
        return None
    descriptor = head[4]
    is_single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (1 if is_single else 0) if flag == 0 else 1 << flag
    begin = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    if width == 0 or len(head) < begin + width:
        return None
    return int.from_bytes(head[begin : begin + width], "little") + (256 if width == 2 else 0)


# --- files -------------------------------------------------------------------------------------------------------


class _Placed(NamedTuple):
    """A chunk of a column in a row group of so many rows; they sort by where they lie."""

    start: int
    chunk: Chunk
    name: str
    group: int
    rows: int


def read_histories(
    source: pa.NativeFile,
    footer: bytes,
    shape: tuple[int, int],
    groups: Sequence[int],
    columns: Mapping[int, pa.Field],
) -> dict[str, pa.ChunkedArray]:
    """Return history columns of some row groups of a file: those that can be read here in less time than by pyarrow.

    ``shape`` is how many row groups and columns the file has, ``columns`` are those that are wanted, histories or not,
    by their numbers. Raises DamagedPageError for what cannot be, of all of them.
    """
    chunks = find_chunks(source.size(), footer, shape, groups, columns)
    if sum(one.chunk.entries for one in chunks) < _FEW_ENTRIES * len(chunks):
        return {}
    kinds = {field.name: field.type for field in columns.values() if is_history_field(field)}
    found = _read_chunks(source, chunks, kinds, read_lists)
    return {
        name: pa.chunked_array([found[name][group] for group in groups], kind)
        for name, kind in kinds.items()
        if all(group in found[name] for group in groups)
    }


def read_all_lengths(
    source: pa.NativeFile, footer: bytes, shape: tuple[int, int], group: int, columns: Mapping[int, pa.Field]
) -> dict[str, pa.Array]:
    """Return the lengths of history columns in a row group: of those whose checksums tell that they are sound.

    Takes what `read_histories` takes, and raises what it raises.
    """
    chunks = find_chunks(source.size(), footer, shape, [group], columns)
    kinds = {field.name: field.type for field in columns.values() if is_history_field(field)}
    found = _read_chunks(source, chunks, kinds, read_lengths)
    return {name: arrays[group] for name, arrays in found.items() if group in arrays}


def read_all_stored(
    source: pa.NativeFile, footer: bytes, shape: tuple[int, int], group: int, columns: Mapping[int, pa.Field]
) -> dict[str, StoredLists]:
    """Return history columns of a row group as the pages that hold them: those that can be moved as they are.

    Takes what `read_histories` takes, and raises what it raises.
    """
    chunks = find_chunks(source.size(), footer, shape, [group], columns)
    kinds = {field.name: field.type for field in columns.values() if is_history_field(field)}
    found = _read_chunks(source, chunks, kinds, read_stored)
    return {name: stored[group] for name, stored in found.items() if group in stored}


def _read_chunks(
    source: pa.NativeFile,
    chunks: Iterable[_Placed],
    kinds: Mapping[str, pa.DataType],
    read: Callable[[memoryview, Chunk, pa.DataType, int], _Read],
) -> dict[str, dict[int, _Read]]:
    """Return what ``read`` makes of chunks, by column and row group, but for those that are for pyarrow to read."""
    arrays: dict[str, dict[int, _Read]] = {name: {} for name in kinds}
    for some in _together(sorted(chunks)):
        first, last = some[0].start, max(one.start + one.chunk.size for one in some)
        data = memoryview(source.read_at(last - first, first))
        for one in some:
            part = data[one.start - first : one.start - first + one.chunk.size]
            with suppress(Unusual):
                arrays[one.name][one.group] = read(part, one.chunk, kinds[one.name], one.rows)
    return arrays


def find_chunks(
    file_size: int, footer: bytes, shape: tuple[int, int], groups: Sequence[int], columns: Mapping[int, pa.Field]
) -> list[_Placed]:
    """Return the chunks of history columns in some row groups, as the footer has them: those that may be read here.

    Raises DamagedPageError for what cannot be, of any of the columns.
    """
    KERNELS.ready(np.dtype(np.uint32))
    slots = np.full(shape[1], -1, np.int64)
    slots[list(columns)] = np.arange(len(columns))
    rows, said = np.empty(shape[0], np.int64), np.empty((shape[0], len(columns), footer_kernels.CHUNK_SAID), np.int64)
    if footer_kernels.scan_footer(np.frombuffer(footer, np.uint8), slots, rows, said):
        raise DamagedPageError("the footer is not one")
    found = []
    for group in groups:
        for field, facts in zip(columns.values(), said[group].tolist(), strict=True):
            name = footer[facts[footer_kernels.CHUNK_NAME] : facts[footer_kernels.CHUNK_NAME_END]]
            check_column(name, facts[footer_kernels.CHUNK_LEVELS], field)
            chunk = chunk_of(facts, field.type, file_size) if is_history_field(field) else None
            if chunk is not None:
                found.append(_Placed(chunk.start, chunk, field.name, group, int(rows[group])))
    return found


def _together(chunks: list[_Placed]) -> Iterator[list[_Placed]]:
    """Yield chunks that are worth one read: those that lie side by side, up to `_AT_ONCE` bytes."""
    some: list[_Placed] = []
    for one in chunks:
        if some:
            end = some[-1].start + some[-1].chunk.size
            if one.start - end > _GAP or one.start + one.chunk.size - some[0].start > _AT_ONCE:
                yield some
                some = []
        some.append(one)
    if some:
        yield some


def are_compiled(kinds: Iterable[pa.DataType]) -> bool:
    """Tell whether the kernels that read lists of these types are at hand, and need not be compiled."""
    return KERNELS.are_at_hand(map(_width_of, kinds))


def _width_of(kind: pa.DataType) -> np.dtype[Any]:
    """Return whole numbers as wide as those of lists of a type."""
    return np.dtype(f"u{kind.value_type.bit_width // 8}")


def _calls(numbers: np.dtype[Any]) -> list[Call]:
    """Return the kernels that read whole numbers of a width, each with arguments as it will have."""
    data, facts, empty = np.zeros(1, np.uint8), np.zeros(footer_kernels.HEADER_FACTS, np.int64), np.zeros(0, numbers)
    place, said = facts[:1], np.zeros((1, 1, footer_kernels.CHUNK_SAID), np.int64)
    found: list[Call] = [
        (footer_kernels.scan_footer, (data, place, place, said)),
        (footer_kernels.read_header, (data, 0, 0, facts)),
        (kernels.read_levels, (data, 0, 0, 0, np.zeros(0, np.int32), data, facts)),
        (kernels.look_up, (data, 0, 0, empty, empty)),
    ]
    if numbers.itemsize >= np.dtype(np.uint32).itemsize:
        found.append((kernels.join_streams, (data, 0, 0, empty)))
    return found


KERNELS: Final = KernelSet(_calls, compact_kernels.SOURCES)
