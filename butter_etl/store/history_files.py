"""Parquet files whose history columns are read in compiled code, and all else by pyarrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.store.history_chunks import Chunk, Unusual, chunk_of, is_history

#: Columns of fewer entries pyarrow reads in less time.
_FEW_ENTRIES: Final = 2**12
#: Chunks with at most so many bytes between them are read at once, so many in all.
_GAP: Final = 2**16
_AT_ONCE: Final = 2**23


class _Placed(NamedTuple):
    """A chunk of a column in a row group of so many rows; they sort by where they lie."""

    start: int
    chunk: Chunk
    name: str
    group: int
    rows: int


class HistoryFile(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file, read as pyarrow reads it, history columns in a fraction of the time.

    Pages of these are held against their checksums, those of others if it is ``checked``. It may raise what pyarrow
    raises, and DamagedPageError.
    """

    def __init__(self, source: pa.NativeFile, *, checked: bool = False, pre_buffer: bool = False) -> None:
        self._source = source
        try:
            super().__init__(source, page_checksum_verification=checked, pre_buffer=pre_buffer)
        except BaseException:
            source.close()
            raise
        # Each of these is made anew when it is asked for.
        self._schema, self._facts = self.schema_arrow, self.metadata
        self._fields = {name: place for place, name in enumerate(self._schema.names)}
        # A column of the file for each of the schema: whoever nests otherwise is read by pyarrow.
        self._is_flat = self._facts.num_columns == len(self._schema) == len(self._fields)

    def close(self, force: bool = False) -> None:
        """Close the file."""
        super().close(force)
        self._source.close()

    def read(self, columns: list[str] | None = None, use_threads: bool = True) -> pa.Table:
        """Read all rows, of all columns or of some, in their order."""
        return self.read_row_groups(range(self.num_row_groups), columns, use_threads)

    def read_row_group(self, i: int, columns: list[str] | None = None, use_threads: bool = True) -> pa.Table:
        """Read one row group, all columns or some, in their order."""
        return self.read_row_groups([i], columns, use_threads)

    def read_row_groups(
        self,
        row_groups: Iterable[int],
        columns: list[str] | None = None,
        use_threads: bool = True,
    ) -> pa.Table:
        """Read some row groups, all columns or some, in their order."""
        groups = list(row_groups)
        wanted = [name for name in (self._fields if columns is None else columns) if name in self._fields]
        chunks = self._chunks(groups, wanted)
        found = self._lists(chunks)
        rest = [name for name in wanted if name not in found]
        if not found:
            return super().read_row_groups(groups, columns, use_threads)
        if rest:
            read = super().read_row_groups(groups, rest, use_threads)
            found |= dict(zip(read.column_names, read.columns, strict=True))
        schema = self._schema
        kept = pa.schema([schema.field(self._fields[name]) for name in wanted], schema.metadata)
        return pa.table([found[name] for name in wanted], schema=kept)

    def _chunks(self, groups: list[int], wanted: list[str]) -> list[_Placed]:
        """Return the chunks that are read here, in the order of the file; none if pyarrow reads so few in less time."""
        names = [name for name in wanted if is_history(self._type(name))] if self._is_flat else []
        chunks, rows_of = [], {}
        for group in groups if names else ():
            facts = self._facts.row_group(group)
            rows_of[group] = facts.num_rows
            for name in names:
                chunk = chunk_of(facts.column(self._fields[name]), self._type(name))
                if chunk is not None:
                    chunks.append(_Placed(chunk.start, chunk, name, group, facts.num_rows))
        if sum(one.chunk.entries for one in chunks) < _FEW_ENTRIES * len(chunks):
            return []
        return sorted(chunks)

    def _type(self, name: str) -> pa.DataType:
        return self._schema.field(self._fields[name]).type

    def _lists(self, chunks: list[_Placed]) -> dict[str, pa.ChunkedArray]:
        """Return the columns all of whose chunks could be read here."""
        if not chunks:
            return {}
        # Compiled code, which most that opens files does without.
        from butter_etl.store.page_reading import read_lists

        arrays: dict[str, dict[int, pa.Array]] = {one.name: {} for one in chunks}
        counts = Counter(one.name for one in chunks)
        for some in _together(chunks):
            first, last = some[0].chunk.start, some[-1].chunk
            data = self._source.read_at(last.start + last.size - first, first)
            for one in some:
                begin = one.chunk.start - first
                part = memoryview(data)[begin : begin + one.chunk.size]
                with suppress(Unusual):
                    arrays[one.name][one.group] = read_lists(part, one.chunk, self._type(one.name), one.rows)
        groups = {name: sorted(some) for name, some in arrays.items() if len(some) == counts[name]}
        return {
            name: pa.chunked_array([arrays[name][group] for group in some], self._type(name))
            for name, some in groups.items()
        }


def _together(chunks: list[_Placed]) -> Iterator[list[_Placed]]:
    """Yield chunks that are worth one read: those that lie side by side, up to `_AT_ONCE` bytes."""
    some: list[_Placed] = []
    for one in chunks:
        if some:
            end, first = some[-1].chunk.start + some[-1].chunk.size, some[0].chunk.start
            if one.chunk.start - end > _GAP or one.chunk.start + one.chunk.size - first > _AT_ONCE:
                yield some
                some = []
        some.append(one)
    if some:
        yield some
