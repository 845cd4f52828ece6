"""Filling in what columns of users' own tables miss, where their declaration says by what.

A column comes out as if the file had had the value in every cell that misses one; all other cells stay as they are.
What is filled in follows from all rows, those that runs are tested on too, as the encodings do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.studies.butter.declarations import ColumnChoice, Fill, yaml_key
from butter_etl.studies.butter.encoding import MAX_CATEGORIES
from butter_etl.studies.butter.table_columns import Refuse, TableColumn, Values, texts_of

#: What the category of missing values is called in the names of inputs.
_OWN_CATEGORY = "(missing)"


@dataclass(frozen=True)
class Filled:
    """A column without missing values: ``is_filled``, bool (rows,), says where ``value`` stands in place of none.

    ``is_filled`` is None where nothing was missing, ``value`` where missing values are a category of their own.
    ``present`` are the values that were there.
    """

    values: Values
    present: Values
    is_filled: NDArray[np.bool_] | None = None
    value: float | int | str | None = None

    @property
    def count(self) -> int:
        """Return how many cells were filled in."""
        return 0 if self.is_filled is None else int(self.is_filled.sum())


def fill_in(name: str, column: TableColumn, choice: ColumnChoice, refuse: Refuse) -> Filled:
    """Read a column and fill in what it misses as is declared; refuse a rule that does not go with what is there."""
    if choice.missing is None or not column.is_missing.any():
        values = column.values()
        return Filled(values, values)
    key = yaml_key(name)
    if column.is_missing.all():
        refuse(f"column {name!r} has no value in any row, so nothing can be filled in; write `{key}: drop`")
    present = column.present().values()
    if choice.missing == "own-category":
        if present.is_scaled(choice.encoding):
            refuse(
                f"column {name!r} has numbers to be scaled, and no categories; write `{key}: {{missing: median}}`, "
                "with `indicator: true` to tell which were missing"
            )
        return Filled(_with_own_category(present, column.is_missing), present, column.is_missing)
    value = _value(name, present, choice, refuse)
    return Filled(_with_value(present, column.is_missing, value), present, column.is_missing, value)


def _value(name: str, present: Values, choice: ColumnChoice, refuse: Refuse) -> float | int | str:
    """Return what is to be filled in."""
    rule, key = choice.missing, yaml_key(name)
    if rule == "most-frequent":
        return _most_frequent(present)
    if rule in ("median", "mean"):
        if present.texts is not None:
            refuse(f"column {name!r} has texts, which have no {rule}; write `{key}: {{missing: most-frequent}}`")
        if present.distinct.size > 1 and not present.is_scaled(choice.encoding):
            refuse(
                f"column {name!r} has {present.distinct.size} different numbers, which become categories "
                f"(up to {MAX_CATEGORIES} do), and a {rule} may be none of them; write "
                f"`{key}: {{missing: most-frequent}}`, or `{key}: {{encoding: numeric, missing: {rule}}}`"
            )
        return _average(name, present.numbers, str(rule), refuse)
    value = rule.value if isinstance(rule, Fill) else rule
    if value is None:
        raise AssertionError(choice)
    if present.texts is None and isinstance(value, str):
        refuse(f"column {name!r} has numbers, and {value!r} is none; write `{key}: {{missing: 0}}` or another number")
    if present.texts is not None and not isinstance(value, str):
        refuse(f"column {name!r} has texts; write `{key}: {{missing: {{value: '{value}'}}}}` to fill in that one")
    return value


def _most_frequent(present: Values) -> float | int | str:
    """Return the value of most rows, of several the lowest."""
    distinct, counts = np.unique(present.numbers, return_counts=True)
    found = distinct[counts.argmax()]
    value: float | int | str = found.item() if present.texts is None else present.name(found)
    return value


def _average(name: str, numbers: NDArray[Any], rule: str, refuse: Refuse) -> float | int:
    """Return the median or the mean, the same on every machine: sums are rounded once."""
    exact = numbers.astype(np.float64)
    try:
        with np.errstate(all="ignore"):
            found = float(np.median(exact)) if rule == "median" else math.fsum(exact) / exact.size
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        refuse(f"column {name!r} has values that are too large for a {rule}; write `{yaml_key(name)}: drop`")
    return int(found) if numbers.dtype.kind in "iu" and found.is_integer() else found


def _with_value(present: Values, is_missing: NDArray[np.bool_], value: float | int | str) -> Values:
    if present.texts is not None:
        spread = np.zeros(is_missing.size, np.int64)
        spread[~is_missing] = present.numbers
        texts = present.texts.take(pa.array(spread, mask=is_missing))
        return texts_of(pc.fill_null(texts, pa.scalar(str(value), texts.type)))
    own = present.numbers.dtype
    is_whole = own.kind in "iu" and float(value).is_integer()
    kind = np.result_type(own, np.min_scalar_type(int(value))) if is_whole else np.dtype(np.float64)
    numbers = np.empty(is_missing.size, kind)
    numbers[~is_missing] = present.numbers
    numbers[is_missing] = value
    return Values(numbers)


def _with_own_category(present: Values, is_missing: NDArray[np.bool_]) -> Values:
    """Return categories with one more, the last: that of missing values."""
    names = [present.name(one) for one in present.distinct]
    places = np.full(is_missing.size, len(names), np.int64)
    places[~is_missing] = np.searchsorted(present.distinct, present.numbers)
    return Values(places, pa.array([*names, _OWN_CATEGORY], pa.large_string()))
