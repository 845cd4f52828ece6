"""Columns of users' own tables: from what a file holds to values, numbers or texts.

Every complaint is one line that names the column, the row in the file, and the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.errors import counted
from butter_etl.studies.arrow_types import plain_column
from butter_etl.studies.butter.declarations import yaml_key
from butter_etl.studies.butter.encoding import Encoding, form_of

#: What stands for a missing value in a CSV or TSV file, in columns that are not declared as ``one-hot``.
MISSING_WORDS = ("NA", "N/A", "NaN", "nan", "NULL", "null", "?")

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf(inity)?)$"
#: Numbers as many countries write them. A column of nothing else would pass for texts, and be one-hot encoded.
_DECIMAL_COMMA = r"^[+-]?\d*,\d+$"
#: Complains of a column; what it is given is a part of one line.
Refuse = Callable[[str], NoReturn]


@dataclass(frozen=True)
class Values:
    """The values of a column: numbers (rows,), or texts by their places among the distinct ones, which ascend.

    So texts take the room that they have, and not each that of the longest.
    """

    numbers: NDArray[Any]
    texts: pa.Array | None = None

    @cached_property
    def distinct(self) -> NDArray[Any]:
        """Return the distinct values, or the places of texts."""
        return np.unique(self.numbers)

    def encoding(self, declared: Encoding) -> Encoding:
        """Return the encoding of the numbers here: places are no numbers to be scaled."""
        return "one-hot" if self.texts is not None and declared == "auto" and len(self.texts) > 2 else declared

    def is_scaled(self, declared: Encoding) -> bool:
        """Tell whether the values are scaled, and no categories."""
        return form_of(self.distinct.size, self.encoding(declared), is_numeric=True) == "scaled"

    def name(self, number: Any) -> str:
        """Return what a value is called in the name of an input."""
        return f"{number}" if self.texts is None else str(self.texts[int(number)])


class TableColumn:
    """A column of a table that is to be encoded in some way; ``rows`` are the rows it is of, where that is not all."""

    def __init__(
        self,
        name: str,
        column: pa.ChunkedArray,
        encoding: Encoding,
        refuse: Refuse,
        *,
        is_target: bool = False,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._name, self._encoding, self._refuse = name, encoding, refuse
        self._is_target, self._rows = is_target, rows
        plain = plain_column(column).combine_chunks()
        is_time = encoding == "one-hot" and pa.types.is_temporal(plain.type)
        self._column = plain.cast(pa.large_string()) if is_time else plain

    def values(self) -> Values:
        """Return the values; raise DatasetError if one is missing or not finite."""
        column, name = self._column, self._name
        if column.null_count or pa.types.is_floating(column.type):
            self._refuse_missing(pc.is_null(column, nan_is_null=True), "no value")
        if pa.types.is_large_string(column.type):
            numbers = fractions(column)
            if numbers is not None and self._encoding != "one-hot":
                return Values(numbers)
            self._refuse_missing(self._is_missing_word(), "a missing value")
            return self._from_text(column)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if pa.types.is_integer(column.type):
            return Values(_numpy(column))
        if not (pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
            kind = f"column {name!r} is of type {column.type}; turn it into numbers or texts"
            self._refuse(kind if self._is_target else f"{kind}, or write `{yaml_key(name)}: drop`")
        return Values(self._finite(column.cast(pa.float64()), self._way_out()))

    # --- what is missing ---------------------------------------------------------------------------------------------

    @cached_property
    def is_missing(self) -> NDArray[np.bool_]:
        """Tell of each row whether its value is missing, bool (rows,)."""
        missing: NDArray[np.bool_] = _numpy(pc.is_null(self._column, nan_is_null=True)).astype(np.bool_)
        if pa.types.is_large_string(self._column.type):
            missing |= _numpy(pc.fill_null(self._is_missing_word(), True)).astype(np.bool_)
        return missing

    def present(self) -> TableColumn:
        """Return the column of the rows that miss no value."""
        rows = np.flatnonzero(~self.is_missing)
        kept = pa.chunked_array([self._column.take(pa.array(rows))], self._column.type)
        return TableColumn(self._name, kept, self._encoding, self._refuse, rows=rows)

    def _is_missing_word(self) -> pa.Array:
        words = () if self._encoding == "one-hot" and not self._is_target else MISSING_WORDS
        return pc.is_in(self._column, pa.array(["", *words], self._column.type))

    def _refuse_missing(self, missing: pa.Array, what: str) -> None:
        if pc.any(missing).as_py():
            self._refuse_rows(missing, what, f"{self._way_out()}{self._or_rule()}")

    def _way_out(self) -> str:
        others = "" if self._is_target else f", or write `{yaml_key(self._name)}: drop`"
        return f"fill it in, or leave the row out{others}"

    def _or_rule(self) -> str:
        """Return a declaration by which missing values would be filled in, one that goes with what is there."""
        if self._is_target or self.is_missing.all():
            return ""
        encoding = "" if self._encoding == "auto" else f"encoding: {self._encoding}, "
        rule = "median" if self.present()._are_scaled() else "most-frequent"
        return f", or `{yaml_key(self._name)}: {{{encoding}missing: {rule}}}` to have it filled in"

    def _are_scaled(self) -> bool:
        """Tell whether the values are numbers that become one input."""

        def refuse(_: str) -> NoReturn:
            raise _NoNumberError

        try:
            column = pa.chunked_array([self._column], self._column.type)
            return TableColumn(self._name, column, self._encoding, refuse).values().is_scaled(self._encoding)
        except _NoNumberError:
            return False

    # --- texts and numbers -------------------------------------------------------------------------------------------

    def _from_text(self, column: pa.Array) -> Values:
        """Return texts as numbers where all of them are, else as they are; raise DatasetError where only some are."""
        name, encoding = self._name, self._encoding
        is_number = pc.match_substring_regex(column, _NUMBER)
        if pc.all(is_number).as_py():
            numbers = self._numbers(column)
            # Codes such as 07 and 7 are two categories.
            is_number_enough = encoding != "one-hot" or _is_one_to_one(column, numbers)
            return Values(numbers) if is_number_enough else texts_of(column)
        if encoding == "numeric" or (encoding == "auto" and pc.any(is_number).as_py()):
            row = pc.index(is_number, False).as_py()
            self._refuse(
                f"column {name!r} has {column[row].as_py()!r} in row {self._row(row)}, which is no number; "
                f"correct it{self._other_encodings()}"
            )
        if encoding == "auto" and pc.all(pc.match_substring_regex(column, _DECIMAL_COMMA)).as_py():
            self._refuse(
                f"column {name!r} has {column[0].as_py()!r} in row {self._row(0)}, a decimal comma; "
                f"write numbers with a point{self._other_encodings()}"
            )
        return texts_of(column)

    def _other_encodings(self) -> str:
        if self._is_target:
            return ", or write `task: classification`"
        key = yaml_key(self._name)
        drop = f", or write `{key}: drop`"
        return drop if self._encoding == "numeric" else f"{drop}, or `{key}: one-hot` for texts"

    def _numbers(self, column: pa.Array) -> NDArray[Any]:
        plain = pc.replace_substring_regex(column, r"^\+", "")
        try:
            return _numpy(plain.cast(pa.int64()))
        except pa.ArrowInvalid:
            return self._finite(plain.cast(pa.float64()), "correct it, or leave the row out")

    def _finite(self, column: pa.Array, way_out: str) -> NDArray[np.float64]:
        self._refuse_rows(pc.invert(pc.is_finite(column)), "a value that is not finite", way_out, column)
        return _numpy(column)

    def _refuse_rows(self, wrong: pa.Array, what: str, way_out: str, column: pa.Array | None = None) -> None:
        """Raise DatasetError for the first row that is wrong; ``column`` has the values to be shown."""
        count = pc.sum(wrong).as_py()
        if count:
            row = pc.index(wrong, True).as_py()
            value = (self._column if column is None else column)[row].as_py()
            shown = "" if value in (None, "") else f" ({value})"
            more = f" (and {counted(count - 1, 'more row')})" if count > 1 else ""
            self._refuse(f"column {self._name!r} has {what}{shown} in row {self._row(row)}{more}; {way_out}")

    def _row(self, place: int) -> int:
        """Return the number of a row in the file, from 1."""
        return 1 + (place if self._rows is None else int(self._rows[place]))


class _NoNumberError(Exception):
    """Ends reading a column of which only one thing was to be known."""


def fractions(column: pa.Array) -> NDArray[np.float64] | None:
    """Return texts as numbers if all are finite and one has a fraction, else None: other texts take a longer way.

    Tables may have tens of thousands of columns of these, and Arrow compiles a pattern anew for each.
    """
    try:
        numbers = _numpy(column.cast(pa.float64()))
    except pa.ArrowInvalid:
        return None
    is_told = np.isfinite(numbers).all() and (numbers != np.floor(numbers)).any()
    return numbers if is_told else None


def texts_of(column: pa.Array) -> Values:
    """Return texts, none of them null, as their places among the distinct ones."""
    encoded = column.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary)
    places = np.empty(len(order), np.int64)
    places[order.to_numpy()] = np.arange(len(order))
    return Values(places[encoded.indices.to_numpy()], encoded.dictionary.take(order))


def _numpy(column: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _is_one_to_one(texts: pa.Array, numbers: NDArray[Any]) -> bool:
    return bool(pc.count_distinct(texts).as_py() == np.unique(numbers).size)
