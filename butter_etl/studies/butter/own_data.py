"""Users' own data sets: from a table in a file, as a sweep file declares it, to the numbers that networks see.

What an experiment is trained on is the encoded content, so that is what its identity holds (`content_sha256`): the same
rows as CSV and as Parquet, or under another path, are the same data set; what no network sees makes no difference.
Every complaint is one line that names the declaration, the file, the column, and the way out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, NoReturn

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from butter_etl.errors import DatasetError, SpecError, counted, one_line, suggestion
from butter_etl.studies.butter.datasets import (
    DatasetInfo,
    content_sha256,
    own_info,
)
from butter_etl.studies.butter.declarations import DELIMITERS, ColumnChoice, Declaration, file_format, yaml_key
from butter_etl.studies.butter.doubts import Target, doubt_of, doubt_of_texts
from butter_etl.studies.butter.encoded_columns import EncodedColumn, rule_name
from butter_etl.studies.butter.encoding import Encoding, encode_column, encode_target, form_of
from butter_etl.studies.butter.experiments import OwnData
from butter_etl.studies.butter.imputation import Filled, fill_in
from butter_etl.studies.butter.table_columns import TableColumn, Values
from butter_etl.studies.butter.text_tables import read_text_table

#: A text column of more distinct values is a name or an id: it is not one-hot encoded unless that is asked for.
MAX_TEXT_CATEGORIES = 100
#: The fewest rows of a data set: a fifth of them is tested on.
MIN_ROWS = 5
#: The most bytes of encoded inputs: every process that trains holds them in memory.
MAX_BYTES = 2**35
_AUTO = ColumnChoice()
#: What pandas calls an index without a name in Parquet.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")
#: What pandas, R and readers of their files call row numbers. A column of such a name that counts up is one.
_ROW_NUMBER = re.compile(r"Unnamed: \d+|level_\d+|X|\.\.\.1|(?i:index|id|row[._]?(?:names?|numbers?|id))")


@dataclass(frozen=True)
class Content:
    """An encoded data set: ``x`` float32 (rows, inputs), ``y`` float32 (rows, outputs), and what columns stand for.

    ``columns`` says what became of each column of the table, the target left out.
    """

    info: DatasetInfo
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    columns: tuple[EncodedColumn, ...] = ()


# --- from a file to its content ----------------------------------------------------------------------------------


def describe(name: str, declaration: Declaration, path: Path, place: str) -> DatasetInfo:
    """Describe a declared data set; the answer is remembered while the file has the same size and time.

    Raises what `load_content` raises.
    """
    return _remembered(name, declaration, path, place)[0]


def encoded_columns(name: str, declaration: Declaration, path: Path, place: str) -> tuple[EncodedColumn, ...]:
    """Say what becomes of each column of a declared data set; remembered as `describe` does, and raises the same."""
    return _remembered(name, declaration, path, place)[1]


def _remembered(name: str, declaration: Declaration, path: Path, place: str) -> _Described:
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"{place}: {path} cannot be read ({one_line(error)})") from error
    declared = msgspec.json.encode(declaration, order="deterministic")
    return _described(name, declared, str(path), place, (stat.st_size, stat.st_mtime_ns, stat.st_ino))


_Described = tuple[DatasetInfo, tuple[EncodedColumn, ...]]


@lru_cache(maxsize=256)
def _described(name: str, declared: bytes, path: str, place: str, version: tuple[int, ...]) -> _Described:  # noqa: ARG001 (of the key)
    content = load_content(name, msgspec.json.decode(declared, type=Declaration), Path(path), place)
    return content.info, content.columns


def load_content(name: str, declaration: Declaration, path: Path, place: str) -> Content:
    """Read, check and encode the file of a declaration that `check_declaration` has passed.

    Raises DatasetError for what is wrong with the file, SpecError for a declaration that does not fit it.
    """
    try:
        table = _Table(_read(path, declaration, place), path.name, place, declaration)
        table.check_names()
        y, outputs, target = table.encode_target()
        x, inputs, columns = table.encode_inputs(Target(target))
    except MemoryError as error:
        raise DatasetError(f"{place}: {path.name}: there is not memory enough to read and encode it") from error
    own = OwnData(content_sha256(declaration.task, x, y), *x.shape)
    return Content(own_info(name, declaration.task, y.shape[1], own), x, y, inputs, outputs, columns)


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
class _Encoded:
    """An encoded column: arrays of float32 (rows, width), what each of their columns stands for, and how it came."""

    parts: list[NDArray[np.float32]]
    names: list[str]
    column: EncodedColumn


class _Table:
    """A table that is read by a declaration; every method complains of it in one line."""

    def __init__(self, table: pa.Table, file: str, place: str, declaration: Declaration) -> None:
        self._table, self._file, self._place, self._declared = table, file, place, declaration
        self._choices = declaration.choices
        said = table.schema.pandas_metadata or {}
        self._indexes = {name for name in said.get("index_columns", ()) if isinstance(name, str)}

    def _refuse(self, what: str) -> NoReturn:
        raise DatasetError(f"{self._place}: {self._file}: {what}")

    def _refuse_rule(self, what: str) -> NoReturn:
        raise SpecError(f"{self._place}.columns: {self._file}: {what}")

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

    def encode_inputs(self, target: Target) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[EncodedColumn, ...]]:
        """Return the inputs, float32 (rows, inputs) in the order of the columns, and what each stands for.

        The third is what became of each column.
        """
        parts: list[NDArray[np.float32]] = []
        names: list[str] = []
        columns: list[EncodedColumn] = []
        for name in self._table.column_names:
            if name == self._declared.target:
                continue
            if (left_out := self._left_out(name)) is not None:
                columns.append(EncodedColumn(name=name, encoding=left_out, inputs=0))
                continue
            encoded = self._encode(name, len(names), target)
            parts += encoded.parts
            names += encoded.names
            columns.append(encoded.column)
        if not names:
            self._refuse("has no column to learn from: all are dropped or have one value only")
        x = np.ascontiguousarray(np.concatenate(parts, axis=1))
        x += 0  # there is one zero
        return x, tuple(names), tuple(columns)

    def _left_out(self, name: str) -> Literal["dropped", "row numbers"] | None:
        """Return why a column is no input, whatever its values are; None if it may be one."""
        if self._choices.get(name, _AUTO).encoding == "drop":
            return "dropped"
        return "row numbers" if self._is_unnamed_index(name) else None

    def _encode(self, name: str, so_far: int, target: Target) -> _Encoded:
        """Encode a column that comes after ``so_far`` inputs."""
        choice = self._choices.get(name, _AUTO)
        encoding = choice.encoding
        column = TableColumn(name, self._table[name], encoding, self._refuse)
        filled = fill_in(name, column, choice, self._refuse_rule)
        values = filled.values
        self._check_index(name, values)
        self._check_width(name, encoding, values, so_far)
        with np.errstate(all="ignore"):
            parts = [encode_column(values.numbers, values.encoding(encoding))]
        self._check_scaled(name, parts[0])
        names = _input_names(name, values, encoding, parts[0].shape[1])
        if choice.indicator and filled.is_filled is not None:
            parts.append(filled.is_filled.astype(np.float32)[:, np.newaxis])
            names.append(f"{name} is missing")
        return _Encoded(parts, names, _told(name, choice, filled, len(names), target))

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

    def _check_index(self, name: str, values: Values) -> None:
        """Raise DatasetError for an index that became a column, unless it is declared.

        Rows are often sorted by what is to be predicted: then their number gives it away.
        """
        if name in self._declared.columns:
            return
        numbers = values.numbers
        counts_up = values.texts is None and numbers.dtype.kind in "iu" and bool((numbers[1:] > numbers[:-1]).all())
        if name in self._indexes or (counts_up and _ROW_NUMBER.fullmatch(name)):
            what = "is the index of a pandas frame" if name in self._indexes else "counts the rows"
            key = yaml_key(name)
            self._refuse(f"column {name!r} {what}; write `{key}: drop`, or `{key}: numeric` to learn from it")

    def _check_width(self, name: str, encoding: Encoding, values: Values, so_far: int) -> None:
        """Raise DatasetError for a column that tells nothing though it is declared, or becomes too many inputs."""
        distinct, key = values.distinct, yaml_key(name)
        if encoding != "auto" and distinct.size == 1:
            self._refuse(f"column {name!r} has one value only; write `{key}: drop`")
        if encoding == "auto" and values.texts is not None and distinct.size > MAX_TEXT_CATEGORIES:
            self._refuse(
                f"column {name!r} has {distinct.size} distinct texts{self._taken_for(values)}; "
                f"write `{key}: drop`, or `{key}: one-hot` to make as many inputs"
            )
        if encoding == "one-hot" and (so_far + distinct.size) * self._table.num_rows * 4 > MAX_BYTES:
            self._refuse(f"column {name!r} has {distinct.size} distinct values, too many inputs; write `{key}: drop`")

    def _taken_for(self, values: Values) -> str:
        """Say what texts probably are, of which there are too many."""
        doubt = doubt_of_texts(values)
        if doubt == "dates":
            return ", all of them dates or times"
        return ", nearly one for each row, as names and ids are" if doubt == "names" else ""

    def _check_scaled(self, name: str, encoded: NDArray[np.float32]) -> None:
        if not np.isfinite(encoded).all():
            self._refuse(f"column {name!r} cannot be scaled: its values are too large or too close to each other")

    def encode_target(self) -> tuple[NDArray[np.float32], tuple[str, ...], Values]:
        """Return the targets, float32 (rows, outputs), what each stands for, and the target's values."""
        name, task = self._declared.target, self._declared.task
        encoding: Encoding = "numeric" if task == "regression" else "one-hot"
        values = TableColumn(name, self._table[name], encoding, self._refuse, is_target=True).values()
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
        return y, tuple(_input_names(name, values, "auto", y.shape[1])), values


def _input_names(name: str, values: Values, encoding: Encoding, width: int) -> list[str]:
    """Name what each of the ``width`` columns stands for that a column (rows,) is encoded as."""
    distinct = values.distinct
    if width != 1:
        return [f"{name}={values.name(value)}" for value in distinct[:width]]
    is_flag = encoding != "numeric" and distinct.size == 2
    return [f"{name}={values.name(values.numbers[0])}" if is_flag else name]


def _told(name: str, choice: ColumnChoice, filled: Filled, inputs: int, target: Target) -> EncodedColumn:
    """Say what became of a column that is encoded as ``inputs`` columns, and whether it is probably no feature."""
    values, encoding = filled.values, choice.encoding
    doubt = doubt_of(values, filled.present, target) if values.distinct.size > 1 else None
    return EncodedColumn(
        name=name,
        encoding=form_of(values.distinct.size, values.encoding(encoding), is_numeric=True),
        inputs=inputs,
        filled=filled.count,
        missing=rule_name(choice),
        value=filled.value,
        indicator=choice.indicator and filled.count > 0,
        doubt=doubt if encoding == "auto" or doubt == "target" else None,
    )
