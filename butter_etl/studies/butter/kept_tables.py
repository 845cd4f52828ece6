"""How a store keeps users' own tables: as networks see them, a row a row, inputs in ``x`` and targets in ``y``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from butter_etl.errors import counted
from butter_etl.studies.butter.datasets import Dataset, DatasetInfo, info_of, own_info
from butter_etl.studies.butter.declarations import Declaration, fetch_source, find_source
from butter_etl.studies.butter.encoded_columns import EncodedColumn, describe_columns, doubt_lines
from butter_etl.studies.butter.encoding import Task
from butter_etl.studies.butter.experiments import ExperimentSpec, OwnData
from butter_etl.studies.data_kinds import DataSource, Encoded
from butter_etl.studies.experiments import Experiment

if TYPE_CHECKING:
    from butter_etl.studies.butter.own_data import Content

_NUMBERS: Final = pa.list_(pa.field("element", pa.float32()))
_SCHEMA: Final = pa.schema([pa.field("x", _NUMBERS), pa.field("y", _NUMBERS)])
#: Lists of Arrow count their elements in 32 bits.
_CHUNK_ELEMENTS: Final = 2**24


class KeptTable(msgspec.Struct, frozen=True):
    """The contents of a copy's footer. ``inputs`` and ``outputs`` name the columns of ``x`` and ``y``.

    ``source`` is the name of the file that the copy was made from, ``source_sha256`` that of its bytes.
    ``columns`` says what became of the columns of that file; copies of before do not have it.
    """

    name: str
    task: Task
    own: OwnData
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    declaration: Declaration
    source: str
    source_sha256: str
    version: Literal[1] = 1
    columns: tuple[EncodedColumn, ...] = ()

    @property
    def info(self) -> DatasetInfo:
        """Return the description of the data set."""
        return own_info(self.name, self.task, len(self.outputs), self.own)

    @property
    def details(self) -> tuple[EncodedColumn, ...]:
        """Return what became of the columns."""
        return self.columns


class TableKind:
    """Tables of users' own; what reads and encodes their files is imported where that is done."""

    footer: type[Any] = KeptTable
    heads = ("columns", "encoding")

    def info_of(self, one: Experiment) -> DatasetInfo | None:
        """Return the user's own data set that an experiment is trained on; None for those of the package."""
        return info_of(one) if isinstance(one, ExperimentSpec) and one.own else None

    def find_source(self, declaration: Declaration, folder: Path, directory: str | Path | None) -> Path | None:
        """Return the file of a declaration in a sweep file in ``folder``; None if it is not there."""
        return find_source(declaration, folder, directory)

    def fetch_source(self, declaration: Declaration, folder: Path, directory: str | Path | None, place: str) -> Path:
        """Return the file of a declaration; download it to ``directory`` where it is PMLB's and absent."""
        return fetch_source(declaration, folder, directory, place)

    def describe(self, name: str, declaration: Declaration, path: Path, place: str) -> DatasetInfo:
        """Describe a declared data set; the answer is remembered while the file has the same size and time."""
        from butter_etl.studies.butter.own_data import describe

        return describe(name, declaration, path, place)

    def details(self, name: str, declaration: Declaration, path: Path, place: str) -> tuple[EncodedColumn, ...]:
        """Say what becomes of each column of a declared data set."""
        from butter_etl.studies.butter.own_data import encoded_columns

        return encoded_columns(name, declaration, path, place)

    def load_content(self, name: str, declaration: Declaration, path: Path, place: str) -> Content:
        """Read, check and encode the file of a declaration."""
        from butter_etl.studies.butter.own_data import load_content

        return load_content(name, declaration, path, place)

    def encode(self, content: Content, declaration: Declaration, source: DataSource) -> Encoded:
        """Return a content as a copy has it."""
        info = content.info
        if info.own is None:
            raise AssertionError(info)
        kept = KeptTable(
            info.name,
            info.task,
            info.own,
            content.inputs,
            content.outputs,
            declaration,
            *source,
            columns=content.columns,
        )
        table = pa.table([_lists(content.x), _lists(content.y)], schema=_SCHEMA)
        return Encoded(kept, table, max(1, _CHUNK_ELEMENTS // info.inputs))

    def decode(self, info: DatasetInfo, table: pa.Table) -> Dataset:
        """Return the data set of a copy's rows; raise ValueError or KeyError for those of another shape."""
        return Dataset(info, _array(table["x"], info.inputs), _array(table["y"], info.outputs))

    def differences(
        self, known: DatasetInfo, content: Content, kept: KeptTable | None, read: Callable[[], Dataset]
    ) -> Iterator[str]:
        """Say how a content differs from the data set ``known``, the most telling difference first."""
        info = content.info
        if info.task != known.task:
            yield f"it is a {info.task}, not a {known.task}"
        if info.rows != known.rows:
            yield f"it has {counted(info.rows, 'row')}, not {known.rows:,}"
        if kept is None or kept.info != known:
            return
        for what, names, others in (("input", content.inputs, kept.inputs), ("target", content.outputs, kept.outputs)):
            if len(names) != len(others):
                new = next((name for name in names if name not in others), None)
                old = next((name for name in others if name not in names), None)
                example = f" ({new!r} is new)" if new else f" ({old!r} is gone)" if old else ""
                yield f"it has {len(names)} {what}s, not {len(others)}{example}"
                return
        there = read()
        for what, names, ours, theirs in (
            ("column", content.inputs, content.x, there.x),
            ("target", content.outputs, content.y, there.y),
        ):
            rows, columns = np.nonzero(ours != theirs)
            if rows.size:
                first = int(columns.min())
                yield f"{what} {names[first]!r} differs in row {int(rows[columns == first].min()) + 1}"

    def spoken(self, info: DatasetInfo) -> str:
        """Return a data set's extent for people."""
        what = "a response" if info.task == "regression" else counted(max(info.outputs, 2), "class")
        return f"{counted(info.rows, 'row')}, {counted(info.inputs, 'input')}, {what}"

    def facts(self, info: DatasetInfo, details: Sequence[EncodedColumn]) -> Mapping[str, Any]:
        """Return task, outputs, content and extent of a data set, and what became of each column."""
        return {
            "task": info.task,
            "outputs": info.outputs,
            **(msgspec.structs.asdict(info.own) if info.own else {}),
            "columns": [msgspec.structs.asdict(one) for one in details],
        }

    def describe_details(self, details: Sequence[EncodedColumn]) -> list[tuple[str, str]]:
        """Return for people what became of columns: pairs of which, and how."""
        return describe_columns(details)

    def doubt_lines(self, name: str, details: Sequence[EncodedColumn]) -> Iterator[str]:
        """Yield a warning for each column that is probably no feature."""
        return doubt_lines(name, details)


#: The kind of users' own data sets of BUTTER.
TABLES: Final = TableKind()


def _lists(values: NDArray[np.float32]) -> pa.ChunkedArray:
    """Return a float32 array (rows, columns) as a list column."""
    columns = values.shape[1]
    step = max(1, _CHUNK_ELEMENTS // columns)
    return pa.chunked_array(
        [
            pa.ListArray.from_arrays(
                np.arange(len(part) + 1, dtype=np.int32) * np.int32(columns), pa.array(part.reshape(-1), pa.float32())
            ).cast(_NUMBERS)
            for part in (values[start : start + step] for start in range(0, len(values), step))
        ],
        type=_NUMBERS,
    )


def _array(column: pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    return np.ascontiguousarray(flat.reshape(len(column), width))
