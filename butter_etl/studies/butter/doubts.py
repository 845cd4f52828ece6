"""Columns that are probably no feature: row numbers, dates, names, and what gives the target away.

They are judged by their values over all rows, each in one pass or two. A judgement changes nothing of the encoding.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.studies.butter.encoded_columns import Doubt
from butter_etl.studies.butter.table_columns import Values

_CLOCK = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?"
_ZONE = r"( ?(Z|UTC|GMT|[+-]\d{2}:?(\d{2})?))?"
_MONTH = r"(?i:jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*\.?"
_DAYS = (
    r"\d{4}-\d{2}(-\d{2})?",  # ISO 8601, with or without the day
    r"\d{4}[/.]\d{1,2}[/.]\d{1,2}",
    r"\d{1,2}([/.-])\d{1,2}[/.-](\d{4}|\d{2})",
    rf"\d{{1,2}}\.?[ -]{_MONTH}[ -](\d{{4}}|\d{{2}})",
    rf"{_MONTH} \d{{1,2}},? \d{{4}}",
    rf"({_MONTH} )\d{{4}}",
)
_DATE = rf"^(({'|'.join(_DAYS)})([T ]+{_CLOCK}{_ZONE})?|{_CLOCK}{_ZONE})$"
#: Dates as whole numbers, such as 20240131.
_FIRST_DATE, _LAST_DATE = 1900_01_01, 2100_12_31
#: Texts of which this share of rows has one of its own are names.
_NAMES_SHARE = 0.9
_ROWS_AT_FIRST = 1000


class Target:
    """The values of the target, by which columns are told that give it away."""

    def __init__(self, values: Values) -> None:
        self._values = values

    @cached_property
    def _codes(self) -> NDArray[np.int64]:
        return np.searchsorted(self._values.distinct, self._values.numbers)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._values.numbers, kind="stable")

    def is_told_by(self, values: Values) -> bool:
        """Tell whether each value of a column goes with one value of the target, and the other way round.

        Where most rows have a value of their own, as of responses, only an order that is the same, or the opposite one,
        tells.
        """
        count = self._values.distinct.size
        if values.distinct.size != count:
            return False
        if count > values.numbers.size // 2:
            return self._has_the_order_of(values.numbers)
        codes = np.searchsorted(values.distinct, values.numbers)
        partner = np.zeros(count, np.int64)
        partner[codes] = self._codes
        return bool((partner[codes] == self._codes).all() and np.unique(partner).size == count)

    def _has_the_order_of(self, numbers: NDArray[Any]) -> bool:
        """Tell whether numbers rise where the target does, and stay where it does, or fall where it rises."""
        for rows in (self._order[:_ROWS_AT_FIRST], self._order):  # most columns do not, as a few rows show
            target, own = self._values.numbers[rows], numbers[rows]
            steps = target[1:] > target[:-1]
            rises, falls = own[1:] > own[:-1], own[1:] < own[:-1]
            if not any((one == steps).all() and not other.any() for one, other in ((rises, falls), (falls, rises))):
                return False
        return True


def doubt_of(values: Values, present: Values, target: Target) -> Doubt | None:
    """Return what a column is taken for; None for a feature. ``present`` are its values that were in the file."""
    if target.is_told_by(values):
        return "target"
    if present.texts is not None:
        return doubt_of_texts(present)
    numbers = values.numbers
    if _are_dates(present.distinct):
        return "dates"
    return "row-numbers" if values.distinct.size == numbers.size and _number_rows(numbers, values.distinct) else None


def doubt_of_texts(values: Values) -> Doubt | None:
    """Return what a column of texts is taken for by itself."""
    if values.texts is None or not len(values.texts):
        return None
    if pc.match_substring_regex(values.texts[0:1], _DATE)[0].as_py() and _all_match(values.texts):
        return "dates"
    return "names" if values.distinct.size >= _NAMES_SHARE * values.numbers.size else None


def _all_match(texts: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, _DATE)).as_py())


def _are_dates(distinct: NDArray[Any]) -> bool:
    """Tell whether all numbers, ascending, are dates such as 20240131."""
    if distinct.size < 2 or not _FIRST_DATE <= distinct[0] <= distinct[-1] <= _LAST_DATE or not _are_whole(distinct):
        return False
    month, day = distinct // 100 % 100, distinct % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _number_rows(numbers: NDArray[Any], distinct: NDArray[Any]) -> bool:
    """Tell whether numbers, all different, count up or down, or are consecutive in any order."""
    if not _are_whole(distinct):
        return False
    goes_up = numbers[1:] > numbers[:-1]
    return bool(goes_up.all() or not goes_up.any() or float(distinct[-1]) - float(distinct[0]) == distinct.size - 1)


def _are_whole(numbers: NDArray[Any]) -> bool:
    return numbers.dtype.kind in "iu" or bool((numbers == np.floor(numbers)).all())
