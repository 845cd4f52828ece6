"""Rows that are read to be written again: histories are moved as the pages that hold them, without being decoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import pyarrow as pa

from butter_etl.store.history_chunks import StoredLists

#: A column of such rows.
Column: TypeAlias = "pa.ChunkedArray | StoredLists"


class StoredRows:
    """A row group, or some of its columns: histories as pages where they can be moved, all others decoded."""

    def __init__(self, columns: Mapping[str, Column], num_rows: int) -> None:
        self.columns, self.num_rows = columns, num_rows

    @classmethod
    def of(cls, table: pa.Table) -> StoredRows:
        """Return the rows of a table."""
        return cls(dict(zip(table.column_names, table.columns, strict=True)), table.num_rows)

    @property
    def nbytes(self) -> int:
        """Return the bytes that they take once they are decoded."""
        return sum(column.nbytes for column in self.columns.values())

    def select(self, names: Collection[str]) -> StoredRows:
        """Return some of the columns."""
        return StoredRows({name: self.columns[name] for name in names}, self.num_rows)

    def conform(self, schema: pa.Schema) -> StoredRows:
        """Return exactly the columns of ``schema``, in its types; columns that are not there are null."""
        return StoredRows({field.name: self._column(field) for field in schema}, self.num_rows)

    def _column(self, field: pa.Field) -> Column:
        column = self.columns.get(field.name)
        if column is None:
            return pa.chunked_array([pa.nulls(self.num_rows, field.type)])
        if isinstance(column, StoredLists):
            return column if is_same(column.kind, field.type) else column.read().cast(field.type)
        return column if column.type.equals(field.type) else column.cast(field.type)


def is_same(kind: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether lists of a type are those of another: what their entries are called says nothing."""
    return bool(pa.types.is_list(other) and kind.value_type.equals(other.value_type))


def table_of(pieces: Sequence[StoredRows], schema: pa.Schema) -> pa.Table:
    """Return rows of ``schema``, decoded, in one table."""
    columns = [decoded([piece.columns[field.name] for piece in pieces], field.type) for field in schema]
    return pa.table(columns, schema=schema)


def decoded(columns: Sequence[Column], kind: pa.DataType) -> pa.ChunkedArray:
    """Return one column of rows that follow each other, decoded."""
    chunks: list[pa.Array] = []
    for column in columns:
        lists = column.read().cast(kind) if isinstance(column, StoredLists) else column
        chunks += lists.chunks
    return pa.chunked_array(chunks, kind)
