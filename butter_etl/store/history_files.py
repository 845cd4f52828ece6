"""Parquet files whose history columns are read in compiled code, and all else by pyarrow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.store.footers import alone, read_footer
from butter_etl.store.history_chunks import Passed, StoredLists, check_footer, is_history_field
from butter_etl.store.stored_rows import StoredRows

#: Smaller files pyarrow reads in less time.
SMALL_FILE: Final = 2**17


class HistoryFile(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file, read as pyarrow reads it, history columns in a fraction of the time.

    Pages of these are held against their checksums, those of others if it is ``checked``. With ``is_remote``, what lies
    side by side is asked for at once. It may raise what pyarrow raises, of which DamagedPageError is one.
    """

    def __init__(self, source: pa.NativeFile, *, checked: bool = False, is_remote: bool = False) -> None:
        self._source = source
        with ExitStack() as stack:
            stack.callback(source.close)
            try:
                # Each would ask for the footer.
                metadata = pq.read_metadata(pa.BufferReader(alone(self._footer))) if is_remote else None
                super().__init__(source, metadata=metadata, page_checksum_verification=checked, pre_buffer=is_remote)
            except UnicodeDecodeError as error:
                raise pa.ArrowInvalid(f"has names that are no text ({error})") from error
            stack.pop_all()
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
        self, row_groups: Iterable[int], columns: list[str] | None = None, use_threads: bool = True
    ) -> pa.Table:
        """Read some row groups, all columns or some, in their order."""
        groups = list(row_groups)
        wanted = list(self._fields) if columns is None else [name for name in columns if name in self._fields]
        found = self._histories(groups, wanted)
        if not found:
            return super().read_row_groups(groups, columns, use_threads)
        rest = [name for name in wanted if name not in found]
        if rest:
            read = super().read_row_groups(groups, rest, use_threads)
            found |= dict(zip(read.column_names, read.columns, strict=True))
        schema = pa.schema([self._field(name) for name in wanted], self._schema.metadata)
        return pa.table([found[name] for name in wanted], schema=schema)

    def _field(self, name: str) -> pa.Field:
        return self._schema.field(self._fields[name])

    def _histories(self, groups: list[int], wanted: list[str]) -> dict[str, pa.ChunkedArray]:
        """Return those of the columns that are read here; none where pyarrow reads them in less time."""
        fields = {self._fields[name]: field for name in wanted if is_history_field(field := self._field(name))}
        size = self._source.size()
        if not (fields and groups and self._is_flat and size >= SMALL_FILE):
            return {}
        share = len(groups) * len(fields) / (self._facts.num_row_groups * len(self._fields))
        # Compiled code, which most that opens files does without.
        from butter_etl.store.page_reading import are_compiled, read_histories

        kinds = {field.type for field in fields.values()}
        if not Passed.are_many(round(size * share), partial(are_compiled, kinds)):
            return {}
        return read_histories(self._source, self._footer, self._shape, groups, fields)

    def read_lengths(self, group: int, columns: Collection[str]) -> dict[str, pa.Array] | None:
        """Return the lengths of history columns in a row group, int32, null where a list is; reading takes far longer.

        All of their pages are held against their checksums. Returns None where a page of a column has none, the column
        is no history, or pyarrow reads it in less time. Raises what reading raises.
        """
        fields = {self._fields[name]: self._field(name) for name in columns if name in self._fields}
        whole = self._facts.row_group(group).total_byte_size
        if len(fields) < len(columns) or not self._is_flat or whole < SMALL_FILE:
            return None
        # Compiled code, which most that opens files does without.
        from butter_etl.store.page_reading import are_compiled, read_all_lengths

        kinds = {field.type for field in fields.values() if is_history_field(field)}
        if not kinds or not Passed.are_many(whole, partial(are_compiled, kinds)):
            return None
        found = read_all_lengths(self._source, self._footer, self._shape, group, fields)
        return found if len(found) == len(fields) else None

    def read_stored(self, group: int) -> StoredRows:
        """Return a row group to be written elsewhere: histories as the pages that hold them, where that saves time.

        Their pages are held against their checksums. Raises what reading raises.
        """
        fields = {place: field for name, place in self._fields.items() if is_history_field(field := self._field(name))}
        found: dict[str, StoredLists] = {}
        whole = self._facts.row_group(group).total_byte_size
        if fields and self._is_flat and whole >= SMALL_FILE:
            from butter_etl.store.page_reading import are_compiled, read_all_stored

            if Passed.are_many(whole, partial(are_compiled, {field.type for field in fields.values()})):
                found = read_all_stored(self._source, self._footer, self._shape, group, fields)
        rest = super().read_row_groups([group], [name for name in self._fields if name not in found], use_threads=False)
        columns = {name: found[name] if name in found else rest[name] for name in self._fields}
        return StoredRows(columns, self._facts.row_group(group).num_rows)

    @property
    def names(self) -> Collection[str]:
        """Return the names of the columns."""
        return self._fields.keys()

    @property
    def _shape(self) -> tuple[int, int]:
        return self._facts.num_row_groups, len(self._fields)

    def check_columns(self) -> None:
        """Raise DamagedPageError where the footer's chunks are not those of its schema: a name may be damaged."""
        if not self._is_flat:
            return
        from butter_etl.store.page_reading import are_compiled, find_chunks

        if Passed.are_many(len(self._footer), partial(are_compiled, [pa.list_(pa.float32())])):
            fields = dict(enumerate(self._schema))
            find_chunks(self._source.size(), self._footer, self._shape, range(self._shape[0]), fields)
        else:
            check_footer(self._footer, self._schema)

    @cached_property
    def _footer(self) -> bytes:
        """Return the footer, whose metadata pyarrow does not give without ending the process where they are damaged."""
        footer = read_footer(self._source)
        if footer is None:
            raise pa.ArrowInvalid("does not end as Parquet does")
        return footer
