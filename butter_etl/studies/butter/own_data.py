"""Users' own data sets: from a table in a file, as a sweep file declares it, to the numbers that networks see.

What an experiment is trained on is the encoded content, so that is what its identity holds (`content_sha256`): the same
rows as CSV and as Parquet, or under another path, are the same data set; what no network sees makes no difference.
Every complaint is one line that names the declaration, the file, the column, and the way out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from butter_etl.errors import DatasetError, SpecError, counted, one_line, suggestion
from butter_etl.studies.arrow_types import plain_column
from butter_etl.studies.butter.datasets import (
    DatasetInfo,
    content_sha256,
    own_info,
)
from butter_etl.studies.butter.declarations import DELIMITERS, Declaration, file_format
from butter_etl.studies.butter.encoding import Encoding, encode_column, encode_target
from butter_etl.studies.butter.experiments import OwnData
from butter_etl.studies.butter.text_tables import read_text_table

#: A text column of more distinct values is a name or an id: it is not one-hot encoded unless that is asked for.
MAX_TEXT_CATEGORIES = 100
#: The fewest rows of a data set: a fifth of them is tested on.
MIN_ROWS = 5
#: The most bytes of encoded inputs: every process that trains holds them in memory.
MAX_BYTES = 2**35
#: What stands for a missing value in a CSV or TSV file, in columns that are not declared as ``one-hot``.
MISSING_WORDS = ("NA", "N/A", "NaN", "nan", "NULL", "null", "?")

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf(inity)?)$"
#: Numbers as many countries write them. A column of nothing else would pass for texts, and be one-hot encoded.
_DECIMAL_COMMA = r"^[+-]?\d*,\d+$"
#: What pandas calls an index without a name in Parquet.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")
#: What pandas, R and readers of their files call row numbers. A column of such a name that counts up is one.
_ROW_NUMBER = re.compile(r"Unnamed: \d+|level_\d+|X|\.\.\.1|(?i:index|id|row[._]?(?:names?|numbers?|id))")


@dataclass(frozen=True)
class Content:
    """An encoded data set: ``x`` float32 (rows, inputs), ``y`` float32 (rows, outputs), and what columns stand for."""

    info: DatasetInfo
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


# --- from a file to its content ----------------------------------------------------------------------------------


def describe(name: str, declaration: Declaration, path: Path, place: str) -> DatasetInfo:
    """Describe a declared data set; the answer is remembered while the file has the same size and time.

    Raises what `load_content` raises.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"{place}: {path} cannot be read ({one_line(error)})") from error
    declared = msgspec.json.encode(declaration, order="deterministic")
    return _described(name, declared, str(path), place, (stat.st_size, stat.st_mtime_ns, stat.st_ino))


@lru_cache(maxsize=256)
def _described(name: str, declared: bytes, path: str, place: str, version: tuple[int, ...]) -> DatasetInfo:  # noqa: ARG001 (of the key)
    return load_content(name, msgspec.json.decode(declared, type=Declaration), Path(path), place).info


def load_content(name: str, declaration: Declaration, path: Path, place: str) -> Content:
    """Read, check and encode the file of a declaration that `check_declaration` has passed.

    Raises DatasetError for what is wrong with the file, SpecError for a declaration that does not fit it.
    """
    try:
        table = _Table(_read(path, declaration, place), path.name, place, declaration)
        table.check_names()
        x, inputs = table.encode_inputs()
        y, outputs = table.encode_target()
    except MemoryError as error:
        raise DatasetError(f"{place}: {path.name}: there is not memory enough to read and encode it") from error
    own = OwnData(content_sha256(declaration.task, x, y), *x.shape)
    return Content(own_info(name, declaration.task, y.shape[1], own), x, y, inputs, outputs)


def _read(path: Path, declaration: Declaration, place: str) -> pa.Table:
    """Read the table of a file. Of CSV and TSV, all columns are text, and nothing is null."""
    kind = file_format(path, place)
    try:
        if kind == ".parquet":
            with pq.ParquetFile(path) as file:
                return file.read()
        return read_text_table(path, DELIMITERS[kind])
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        hint = "; delete it to have it downloaded again" if declaration.pmlb else ""
        raise DatasetError(f"{place}: {path} cannot be read as {kind[1:]} ({one_line(error)}){hint}") from error


@dataclass(frozen=True)
class _Values:
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

    def name(self, number: Any) -> str:
        """Return what a value is called in the name of an input."""
        return f"{number}" if self.texts is None else str(self.texts[int(number)])


class _Table:
    """A table that is read by a declaration; every method complains of it in one line."""

    def __init__(self, table: pa.Table, file: str, place: str, declaration: Declaration) -> None:
        self._table, self._file, self._place, self._declared = table, file, place, declaration
        said = table.schema.pandas_metadata or {}
        self._indexes = {name for name in said.get("index_columns", ()) if isinstance(name, str)}

    def _refuse(self, what: str) -> NoReturn:
        raise DatasetError(f"{self._place}: {self._file}: {what}")

    def check_names(self) -> None:
        """Raise SpecError for columns that are declared and not there, DatasetError for names and rows.

        A column without a name may be the first alone: the row numbers or names that tools write.
        """
        names = self._table.column_names
        twice = [one for one, other in pairwise(sorted(names)) if one == other != ""]
        if twice:
            self._refuse(f"column {twice[0]!r} is there twice; rename one")
        if "" in names[1:]:
            self._refuse(f"column {names.index('', 1) + 1} has no name; name it, or take it out")
        for key, name in [("target", self._declared.target), *(("columns", name) for name in self._declared.columns)]:
            if name not in names:
                known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
                hint = suggestion(name, names)
                raise SpecError(f"{self._place}.{key}: {self._file} has no column {name!r}{hint}; it has {known}")
        if self._table.num_rows < MIN_ROWS:
            self._refuse(
                f"has {counted(self._table.num_rows, 'row')}; {MIN_ROWS} are the least, a fifth of them is tested on"
            )

    def encode_inputs(self) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Return the inputs, float32 (rows, inputs) in the order of the columns, and what each stands for."""
        parts: list[NDArray[np.float32]] = []
        names: list[str] = []
        for name in self._table.column_names:
            encoding = self._declared.columns.get(name, "auto")
            if name == self._declared.target or encoding == "drop" or self._is_unnamed_index(name):
                continue
            values = self._column(name, encoding)
            self._check_index(name, values)
            self._check_width(name, encoding, values, len(names))
            with np.errstate(all="ignore"):
                parts.append(encode_column(values.numbers, values.encoding(encoding)))
            self._check_scaled(name, parts[-1])
            names += _input_names(name, values, encoding, parts[-1].shape[1])
        if not names:
            self._refuse("has no column to learn from: all are dropped or have one value only")
        x = np.ascontiguousarray(np.concatenate(parts, axis=1))
        x += 0  # there is one zero
        return x, tuple(names)

    def _is_unnamed_index(self, name: str) -> bool:
        """Tell whether a column is an index that has no name, and is not declared: it is no input.

        Raises DatasetError for a column without a name whose values are not all different.
        """
        if name in self._declared.columns:
            return False
        if name:
            return bool(_UNNAMED_INDEX.fullmatch(name))
        if pc.count_distinct(self._table[name]).as_py() < self._table.num_rows:
            self._refuse("column 1 has no name, and is no row number; name it, or write `'': drop`")
        return True

    def _check_index(self, name: str, values: _Values) -> None:
        """Raise DatasetError for an index that became a column, unless it is declared.

        Rows are often sorted by what is to be predicted: then their number gives it away.
        """
        if name in self._declared.columns:
            return
        numbers = values.numbers
        counts_up = values.texts is None and numbers.dtype.kind in "iu" and bool((numbers[1:] > numbers[:-1]).all())
        if name in self._indexes or (counts_up and _ROW_NUMBER.fullmatch(name)):
            what = "is the index of a pandas frame" if name in self._indexes else "counts the rows"
            key = f"'{name}'" if re.search(r"\W", name) else name
            self._refuse(f"column {name!r} {what}; write `{key}: drop`, or `{key}: numeric` to learn from it")

    def _check_width(self, name: str, encoding: Encoding, values: _Values, so_far: int) -> None:
        """Raise DatasetError for a column that tells nothing though it is declared, or becomes too many inputs."""
        distinct = values.distinct
        if encoding != "auto" and distinct.size == 1:
            self._refuse(f"column {name!r} has one value only; write `{name}: drop`")
        if encoding == "auto" and values.texts is not None and distinct.size > MAX_TEXT_CATEGORIES:
            self._refuse(
                f"column {name!r} has {distinct.size} distinct texts; write `{name}: drop`, "
                f"or `{name}: one-hot` to make as many inputs"
            )
        if encoding == "one-hot" and (so_far + distinct.size) * self._table.num_rows * 4 > MAX_BYTES:
            self._refuse(f"column {name!r} has {distinct.size} distinct values, too many inputs; write `{name}: drop`")

    def _check_scaled(self, name: str, encoded: NDArray[np.float32]) -> None:
        if not np.isfinite(encoded).all():
            self._refuse(f"column {name!r} cannot be scaled: its values are too large or too close to each other")

    def encode_target(self) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Return the targets, float32 (rows, outputs), and what each stands for."""
        name, task = self._declared.target, self._declared.task
        values = self._column(name, "numeric" if task == "regression" else "one-hot", is_target=True)
        distinct = values.distinct
        if distinct.size == 1:
            self._refuse(f"target {name!r} has one value only; there is nothing to learn")
        if task == "classification" and distinct.size > values.numbers.size // 2:
            self._refuse(
                f"target {name!r} has {distinct.size} classes in {values.numbers.size} rows; "
                "if it is a response, write `task: regression`"
            )
        with np.errstate(all="ignore"):
            y = encode_target(values.numbers, task) + np.float32(0)
        self._check_scaled(name, y)
        return y, tuple(_input_names(name, values, "auto", y.shape[1]))

    def _column(self, name: str, encoding: Encoding, *, is_target: bool = False) -> _Values:
        """Return a column's values; raise DatasetError if one is missing or not finite."""
        column = plain_column(self._table[name]).combine_chunks()
        way_out = "fill it in, or leave the row out" + ("" if is_target else f", or write `{name}: drop`")
        if encoding == "one-hot" and pa.types.is_temporal(column.type):
            column = column.cast(pa.large_string())
        if column.null_count or pa.types.is_floating(column.type):
            self._refuse_rows(pc.is_null(column, nan_is_null=True), column, name, "no value", way_out)
        if pa.types.is_large_string(column.type):
            numbers = _fractions(column)
            if numbers is not None and encoding != "one-hot":
                return _Values(numbers)
            words = () if encoding == "one-hot" and not is_target else MISSING_WORDS
            is_missing = pc.is_in(column, pa.array(["", *words], column.type))
            self._refuse_rows(is_missing, column, name, "a missing value", way_out)
            return self._from_text(column, name, encoding)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if pa.types.is_integer(column.type):
            return _Values(_numpy(column))
        if not (pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
            kind = f"column {name!r} is of type {column.type}; turn it into numbers or texts"
            self._refuse(kind if is_target else f"{kind}, or write `{name}: drop`")
        return _Values(self._finite(column.cast(pa.float64()), name, way_out))

    def _from_text(self, column: pa.Array, name: str, encoding: Encoding) -> _Values:
        """Return texts as numbers where all of them are, else as they are; raise DatasetError where only some are."""
        is_number = pc.match_substring_regex(column, _NUMBER)
        if pc.all(is_number).as_py():
            numbers = self._numbers(column, name)
            # Codes such as 07 and 7 are two categories.
            is_number_enough = encoding != "one-hot" or _is_one_to_one(column, numbers)
            return _Values(numbers) if is_number_enough else _texts(column)
        if encoding == "numeric" or (encoding == "auto" and pc.any(is_number).as_py()):
            row = pc.index(is_number, False).as_py()
            self._refuse(
                f"column {name!r} has {column[row].as_py()!r} in row {row + 1}, which is no number; "
                f"correct it{self._other_encodings(name, encoding)}"
            )
        if encoding == "auto" and pc.all(pc.match_substring_regex(column, _DECIMAL_COMMA)).as_py():
            self._refuse(
                f"column {name!r} has {column[0].as_py()!r} in row 1, a decimal comma; "
                f"write numbers with a point{self._other_encodings(name, encoding)}"
            )
        return _texts(column)

    def _other_encodings(self, name: str, encoding: Encoding) -> str:
        if name == self._declared.target:
            return ", or write `task: classification`"
        drop = f", or write `{name}: drop`"
        return drop if encoding == "numeric" else f"{drop}, or `{name}: one-hot` for texts"

    def _numbers(self, column: pa.Array, name: str) -> NDArray[Any]:
        plain = pc.replace_substring_regex(column, r"^\+", "")
        try:
            return _numpy(plain.cast(pa.int64()))
        except pa.ArrowInvalid:
            return self._finite(plain.cast(pa.float64()), name, "correct it, or leave the row out")

    def _finite(self, column: pa.Array, name: str, way_out: str) -> NDArray[np.float64]:
        self._refuse_rows(pc.invert(pc.is_finite(column)), column, name, "a value that is not finite", way_out)
        return _numpy(column)

    def _refuse_rows(self, wrong: pa.Array, column: pa.Array, name: str, what: str, way_out: str) -> None:
        """Raise DatasetError for the first row that is wrong."""
        count = pc.sum(wrong).as_py()
        if count:
            row = pc.index(wrong, True).as_py()
            value = column[row].as_py()
            shown = "" if value in (None, "") else f" ({value})"
            more = f" (and {counted(count - 1, 'more row')})" if count > 1 else ""
            self._refuse(f"column {name!r} has {what}{shown} in row {row + 1}{more}; {way_out}")


def _fractions(column: pa.Array) -> NDArray[np.float64] | None:
    """Return texts as numbers if all are finite and one has a fraction, else None: other texts take a longer way.

    Tables may have tens of thousands of columns of these, and Arrow compiles a pattern anew for each.
    """
    try:
        numbers = _numpy(column.cast(pa.float64()))
    except pa.ArrowInvalid:
        return None
    is_told = np.isfinite(numbers).all() and (numbers != np.floor(numbers)).any()
    return numbers if is_told else None


def _numpy(column: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _texts(column: pa.Array) -> _Values:
    encoded = column.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary)
    places = np.empty(len(order), np.int64)
    places[order.to_numpy()] = np.arange(len(order))
    return _Values(places[encoded.indices.to_numpy()], encoded.dictionary.take(order))


def _is_one_to_one(texts: pa.Array, numbers: NDArray[Any]) -> bool:
    return bool(pc.count_distinct(texts).as_py() == np.unique(numbers).size)


def _input_names(name: str, values: _Values, encoding: Encoding, width: int) -> list[str]:
    """Name what each of the ``width`` columns stands for that a column (rows,) is encoded as."""
    distinct = values.distinct
    if width != 1:
        return [f"{name}={values.name(value)}" for value in distinct[:width]]
    is_flag = encoding != "numeric" and distinct.size == 2
    return [f"{name}={values.name(values.numbers[0])}" if is_flag else name]
