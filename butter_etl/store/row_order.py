"""Rows of tables in another order, histories as bytes in place of Arrow's builders of lists."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from butter_etl.engines import array_of
from butter_etl.store.history_chunks import Passed, is_history
from butter_etl.store.lists import lists_of

#: Fewer bytes of a column Arrow orders in less time.
SMALL_BYTES: Final = 2**18


def take_rows(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """Return the rows of a table at some places, in their order, each column in one piece."""
    columns = [_take(column.combine_chunks(), places) for column in table.columns]
    return pa.table(columns, schema=table.schema)


def _take(column: pa.Array, places: NDArray[np.int64]) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):  # without any rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
    is_long = is_history(column.type) and len(column) and column.nbytes >= SMALL_BYTES
    lists = lists_of(column) if is_long else None
    if lists is None:
        return column.take(array_of(places))
    width = lists.values.itemsize
    count = int(np.diff(lists.ends)[places].sum(dtype=np.int64))
    room, ends = pa.allocate_buffer(count * width), pa.allocate_buffer(4 * (len(places) + 1))
    out, out_ends = np.frombuffer(room, f"u{width}"), np.frombuffer(ends, np.int32)
    # Compiled code, which most that imports this does without.
    from butter_etl.engines import are_at_hand, ready
    from butter_etl.store import compact_kernels
    from butter_etl.store import page_kernels as kernels

    arguments = lists.values.view(f"u{width}"), lists.ends, places, out, out_ends
    call = kernels.copy_lists, arguments
    if not Passed.are_many(column.nbytes, partial(are_at_hand, [call], compact_kernels.SOURCES)):
        return column.take(array_of(places))
    ready(*call, compact_kernels.SOURCES)
    kernels.copy_lists(*arguments)
    taken = pa.Array.from_buffers(column.type.value_type, count, [None, room])
    valid = lists.valid[places]
    nulls = len(valid) - np.count_nonzero(valid)
    mask = pa.py_buffer(np.packbits(valid, bitorder="little")) if nulls else None
    return pa.Array.from_buffers(column.type, len(places), [mask, ends], nulls, 0, [taken])
