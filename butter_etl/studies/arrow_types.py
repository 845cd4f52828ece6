"""The types in which other tools write columns, brought to those that computing knows.

The same texts may come as views, in dictionaries, or run-end encoded, the same lists as large ones or views, and UUIDs
as a type of their own. What they mean is the same. `rows_differ` tells where two columns of one type do not.
"""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the plain type of what a type holds: text, bytes, a list of a plain type; any other is plain itself."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if isinstance(kind, pa.UuidType) else plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if _is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return _PLAIN.get(kind, kind)


#: Text and bytes in types that have no types inside.
_PLAIN = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


def _is_list(kind: pa.DataType) -> bool:
    of = pa.types
    kinds = (of.is_list, of.is_large_list, of.is_fixed_size_list, of.is_list_view, of.is_large_list_view)
    return any(is_kind(kind) for is_kind in kinds)


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without dictionaries, run-end encoding, extensions and list views; texts are large ones.

    What lists hold stays as it is: a cast of the list brings it along.
    """
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) or isinstance(kind, pa.BaseExtensionType):
        chunks = [_unpacked(chunk) for chunk in column.chunks]
        inner = chunks[0].type if chunks else plain_type(kind)
        return plain_column(pa.chunked_array(chunks, inner))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.chunked_array([_lists(chunk) for chunk in column.chunks], pa.large_list(kind.value_type))
    is_other_text = kind != pa.large_string() and plain_type(kind) == pa.string()
    return column.cast(pa.large_string()) if is_other_text else column


def _lists(chunk: pa.Array) -> pa.LargeListArray:
    """Return list views as lists. A cast would get their last offset wrong (Arrow 26)."""
    lengths = pc.fill_null(pc.list_value_length(chunk), 0)
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), chunk.flatten(), mask=pc.is_null(chunk)).cast(
        pa.large_list(chunk.type.value_type)
    )


def _unpacked(chunk: pa.Array) -> pa.Array:
    if pa.types.is_run_end_encoded(chunk.type):
        return pc.run_end_decode(chunk)
    if pa.types.is_dictionary(chunk.type):
        values = chunk.dictionary
        values = values.cast(pa.large_string()) if plain_type(values.type) == pa.string() else values
        return values.take(chunk.indices)
    if isinstance(chunk.type, pa.UuidType):
        return pa.array([None if one is None else str(uuid.UUID(bytes=one)) for one in chunk.storage.to_pylist()])
    return chunk.storage


def rows_differ(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """Tell for each row whether two columns of one type and length have different values, bool (rows,).

    Floats of every width, in lists too, are compared by their bits: NaN equals itself, and 0 is not -0. Null equals
    null only. Raises ValueError if types or lengths differ: a cast could make equal what is not.
    """
    if one.type != other.type or len(one) != len(other):
        raise ValueError(f"{len(one)} rows of {one.type} are not compared with {len(other)} of {other.type}")
    differing = _as_bool(pc.not_equal(pc.is_null(one), pc.is_null(other)))
    if _is_list(one.type):
        return differing | _lists_differ(one, other)
    if pa.types.is_floating(one.type):
        kind = _BITS[one.type.bit_width]
        one, other = one.view(kind), other.view(kind)
    return differing | _as_bool(pc.fill_null(pc.not_equal(one, other), False))


_BITS = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


def _lists_differ(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """Tell where lists differ in length or in an element; a null list is like an empty one."""
    lengths, others = (
        pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False) for lists in (one, other)
    )
    differing = np.asarray(lengths != others)
    same = pa.array(~differing)
    elements = rows_differ(one.filter(same).flatten(), other.filter(same).flatten())
    row_of_element = np.repeat(np.flatnonzero(~differing), lengths[~differing])
    differing[row_of_element[elements]] = True
    return differing


def _as_bool(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.bool_)
