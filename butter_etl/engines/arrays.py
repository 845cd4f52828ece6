"""Arrow arrays of what is in memory, and the reverse, without pandas, which pyarrow loads for each.

That takes a fifth of a second and hundreds of files, once a process.

What is not made here is left to pyarrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def array_of(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return an array of numbers or truth values (length,), null where it is ``missing``.

    Numbers are not copied where they lie side by side: nobody may write to them afterwards. NaN stays NaN.
    """
    kind = pa.from_numpy_dtype(values.dtype)
    is_bits = kind == pa.bool_()
    data = np.packbits(values, bitorder="little") if is_bits else np.ascontiguousarray(values)
    validity, nulls = None, 0
    if missing is not None and (nulls := int(np.count_nonzero(missing))):
        validity = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(data)], nulls)


def numbers_in(array: pa.Array) -> npt.NDArray[Any]:
    """Return the numbers (length,) of an array that has no null, as a view that may not be written to."""
    view: npt.NDArray[Any] = np.from_dlpack(array)
    view.flags.writeable = False
    return view


def truth_in(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return the truth values (length,) of an array that has no null."""
    bits = np.frombuffer(array.buffers()[1], np.uint8)
    first = array.offset
    return np.unpackbits(bits, bitorder="little", count=first + len(array))[first:].view(np.bool_)


def column_of(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Return Python's values as an array of a type; None is null. Raises what ``pyarrow.array`` does."""
    missing = np.array([one is None for one in values], np.bool_)
    if missing.all():
        return pa.nulls(len(values), kind)
    made = _made(values, kind, missing)
    return pa.array(values, type=kind) if made is None else made


def empty_table(schema: pa.Schema) -> pa.Table:
    """Return a table without rows."""
    return pa.table([pa.nulls(0, field.type) for field in schema], schema=schema)


def _made(values: Sequence[object], kind: pa.DataType, missing: npt.NDArray[np.bool_]) -> pa.Array | None:
    """Return an array of values that are of just the type's kind; None where some are not."""
    if pa.types.is_list(kind):
        return _lists(values, kind, missing)
    if pa.types.is_string(kind):
        return _texts(values, missing) if _are(values, str) else None
    if pa.types.is_boolean(kind) and _are(values, bool):
        return array_of(np.array([bool(one) for one in values]), missing)
    is_whole = pa.types.is_integer(kind)
    if not (is_whole and _are(values, int)) and not (pa.types.is_floating(kind) and _are(values, float)):
        return None
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 is infinity, as pyarrow has it
            return array_of(np.array([0 if one is None else one for one in values], kind.to_pandas_dtype()), missing)
    except OverflowError:
        return None


def _are(values: Sequence[object], kind: type) -> bool:
    return all(one is None or type(one) is kind for one in values)


def _texts(values: Sequence[Any], missing: npt.NDArray[np.bool_]) -> pa.Array:
    parts = [b"" if one is None else one.encode() for one in values]
    buffers = [pa.py_buffer(_ends(parts)), pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(pa.string(), len(values), [_validity(missing), *buffers], int(missing.sum()))


def _lists(values: Sequence[Any], kind: pa.DataType, missing: npt.NDArray[np.bool_]) -> pa.Array | None:
    if not all(one is None or type(one) in (list, tuple) for one in values):
        return None
    parts = [() if one is None else one for one in values]
    entries = [entry for part in parts for entry in part]
    inner = _made(entries, kind.value_type, np.array([entry is None for entry in entries], np.bool_))
    if inner is None:
        return None
    buffers = [_validity(missing), pa.py_buffer(_ends(parts))]
    return pa.Array.from_buffers(kind, len(values), buffers, int(missing.sum()), children=[inner])


def _ends(parts: Sequence[Any]) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *map(len, parts)], dtype=np.int64).astype(np.int32)


def _validity(missing: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    return pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
