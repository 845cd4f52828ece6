"""Lists of numbers as plain arrays: where each ends, which are there, and all numbers in one piece."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from butter_etl.engines import numbers_in, truth_in


class Lists(NamedTuple):
    """The lists of a column: their ends (lists + 1,), which of them are there, and their numbers, all in one piece."""

    ends: npt.NDArray[np.int32]
    valid: npt.NDArray[np.uint8]
    values: npt.NDArray[Any]


def lists_of(column: pa.ListArray) -> Lists | None:
    """Return the lists of a column; None where entries are null."""
    rows = len(column)
    if column.null_count == rows:
        return Lists(
            np.zeros(rows + 1, np.int32),
            np.zeros(rows, np.uint8),
            np.zeros(0, column.type.value_type.to_pandas_dtype()),
        )
    if column.null_count:  # what lies below a null list is nobody's
        lengths = np.diff(numbers_in(column.offsets)) * truth_in(column.is_valid())
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values, valid = column.flatten(), truth_in(column.is_valid()).astype(np.uint8)
    else:
        offsets = numbers_in(column.offsets)
        ends, valid = offsets - offsets[0], np.ones(rows, np.uint8)
        values = column.values.slice(offsets[0], ends[-1])
    return None if values.null_count else Lists(ends, valid, numbers_in(values))
