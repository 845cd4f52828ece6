"""Rows of tables in another order, histories as bytes: ten times as fast as by Arrow's builders of lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.store.history_chunks import Passed, is_history


def take_rows(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """Return the rows of a table at some places, in their order, each column in one piece."""
    columns = [_take(column.combine_chunks(), places) for column in table.columns]
    return pa.table(columns, schema=table.schema)


def _take(column: pa.Array, places: NDArray[np.int64]) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):  # without any rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    is_usual = is_history(column.type) and len(column) and not column.values.null_count
    if not (is_usual and Passed.are_many(column.nbytes)):
        return column.take(pa.array(places))
    if column.null_count:
        offsets, values, validity = _packed(column)
        validity = pa.array(validity[places])
        nulls = len(validity) - validity.true_count
    else:
        offsets, values, validity, nulls = column.offsets.to_numpy(), column.values, None, 0
    width = values.type.bit_width // 8
    numbers = values.to_numpy(zero_copy_only=True).view(f"u{width}")
    count = int((offsets[places + 1] - offsets[places].astype(np.int64)).sum())
    room, ends = pa.allocate_buffer(count * width), pa.allocate_buffer(4 * (len(places) + 1))
    out, out_offsets = np.frombuffer(room, f"u{width}"), np.frombuffer(ends, np.int32)
    # Compiled code, which most that imports this does without.
    from butter_etl.engines import ready
    from butter_etl.store import compact_kernels
    from butter_etl.store import page_kernels as kernels

    arguments = numbers, offsets, places, out, out_offsets
    ready(kernels.copy_lists, arguments, compact_kernels.SOURCES)
    kernels.copy_lists(*arguments)
    taken = pa.Array.from_buffers(values.type, count, [None, room])
    mask = None if validity is None else validity.buffers()[1]
    return pa.Array.from_buffers(column.type, len(places), [mask, ends], nulls, 0, [taken])


def _packed(column: pa.ListArray) -> tuple[NDArray[np.int32], pa.Array, NDArray[np.bool_]]:
    """Return where the lists of a column lie, null ones empty, their numbers, and which are not null."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return offsets, column.flatten(), column.is_valid().to_numpy(zero_copy_only=False)
