"""A store's copies of users' own data sets: the encoded content of each, once, so that any worker finds it.

``datasets/<name>.parquet`` has a row a row of the data set, inputs in ``x`` and targets in ``y``, and its footer says
what it was made from. In a store, a name stands for one content, for good; the file is never replaced.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.fs
from numpy.typing import NDArray

from butter_etl.errors import DatasetError, counted, one_line, writing
from butter_etl.store.files import Location
from butter_etl.store.layout import DATA
from butter_etl.store.locks import FileLock
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.studies import (
    Dataset,
    DatasetInfo,
    Declaration,
    EncodedColumn,
    OwnData,
    Task,
    content_sha256,
    own_info,
)

if TYPE_CHECKING:
    from butter_etl.studies import Content

_KEY = b"butter_etl.dataset"
_NUMBERS = pa.list_(pa.field("element", pa.float32()))
_SCHEMA = pa.schema([pa.field("x", _NUMBERS), pa.field("y", _NUMBERS)])
_MEND = "`butter-etl verify --repair` moves it away; then train with --spec and the data set's file"
#: Lists of Arrow count their elements in 32 bits.
_CHUNK_ELEMENTS = 2**24
_LOADING = threading.Lock()


class Kept(msgspec.Struct, frozen=True):
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


def copy_path(name: str) -> str:
    """Return the path of a data set's copy in a store."""
    return f"{DATA}/{name}.parquet"


def copy_names(location: Location) -> list[str]:
    """Return the names of the data sets that a store keeps; files that a Mac puts beside others (``._…``) are none."""
    names = (name for name in location.names(DATA) if name.endswith(".parquet") and not name.startswith("."))
    return [name.removesuffix(".parquet") for name in names]


def read_kept(location: Location, name: str) -> Kept | None:
    """Return the footer of the copy that a store keeps under a name; None if it keeps nothing.

    Raises TornFileError if the copy cannot be read, DatasetError if it is no copy of that data set.
    """
    path = copy_path(name)
    if location.kind(path) != pa.fs.FileType.File:
        return None
    with location.parquet_file(path) as file:
        text = (file.metadata.metadata or {}).get(_KEY, b"")
    try:
        kept = msgspec.json.decode(text, type=Kept)
    except msgspec.DecodeError as error:
        raise DatasetError(f"{location}/{path}: is no copy of a data set ({error}); {_MEND}") from error
    if kept.name != name:
        raise DatasetError(f"{location}/{path}: is the copy of {kept.name!r}; {_MEND}")
    return kept


def keep(store: Store, content: Content, declaration: Declaration, path: Path) -> None:
    """Write to a store the copy of a data set that was read from the file at ``path``, unless there is one.

    Raises DatasetError if it keeps other content under that name, PlaceError or FullDiskError if it cannot be written.
    """
    _write_copy(store, content.info.name, _encode(content, declaration, path))
    require_copy(store.location, content.info)


def adopt_copy(store: Store, source: Location, name: str) -> None:
    """Take over the copy of another store, as it is, unless there is one."""
    _write_copy(store, name, source.read_bytes(copy_path(name)))


def _write_copy(store: Store, name: str, data: bytes) -> None:
    with writing(store), FileLock(store.state / "locks" / "datasets.lock") as lock, lock.kept_fresh():
        store.location.write_new(copy_path(name), data)


def require_copy(location: Location, info: DatasetInfo) -> None:
    """Raise DatasetError unless a store keeps that very data set, by the footer of its copy."""
    kept = read_kept(location, info.name)
    if kept is None:
        raise DatasetError(
            f"{location}: keeps no copy of data set {info.name}; train with --spec and a sweep file that declares it"
        )
    if kept.info != info:
        raise DatasetError(other_content(info, kept.info, str(location)))


def other_content(info: DatasetInfo, known: DatasetInfo, place: str) -> str:
    """Return the message for a store that knows other content under a name."""
    return (
        f"data set {info.name}: {place} has that name for other content (SHA-256 {known.sha256[0][:12]}…, "
        f"not {info.sha256[0][:12]}…); use another name or another store"
    )


def _encode(content: Content, declaration: Declaration, path: Path) -> bytes:
    info = content.info
    if info.own is None:
        raise AssertionError(info)
    try:
        with path.open("rb") as file:
            source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"data set {info.name}: {path} cannot be read ({one_line(error)})") from error
    kept = Kept(
        info.name,
        info.task,
        info.own,
        content.inputs,
        content.outputs,
        declaration,
        path.name,
        source_sha256,
        columns=content.columns,
    )
    table = pa.table([_lists(content.x), _lists(content.y)], schema=_SCHEMA)
    rows = max(1, _CHUNK_ELEMENTS // info.inputs)
    return parquet_bytes(
        table, metadata={_KEY.decode(): msgspec.json.encode(kept, order="sorted").decode()}, row_group_size=rows
    )


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


# --- reading -----------------------------------------------------------------------------------------------------


def read_copy(location: Location, info: DatasetInfo) -> Dataset:
    """Read a data set from a store's copy and check its content; raise DatasetError or TornFileError."""
    require_copy(location, info)
    table = location.read_table(copy_path(info.name))
    try:
        x, y = _array(table["x"], info.inputs), _array(table["y"], info.outputs)
        found = content_sha256(info.task, x, y)
    except (ValueError, KeyError) as error:
        raise DatasetError(f"{location}/{copy_path(info.name)}: has another shape ({error}); {_MEND}") from error
    if found != info.sha256[0]:
        raise DatasetError(f"{location}/{copy_path(info.name)}: has content {found}, not {info.sha256[0]}; {_MEND}")
    return Dataset(info, x, y)


def cached_copy(location: Location, info: DatasetInfo) -> Dataset:
    """Call `read_copy`, remembering the last few data sets.

    There is one copy for all threads of a worker process: do not write to it.
    """
    with _LOADING:  # else two threads would load the same one
        return _remembered_copy(location.absolute, info)


@lru_cache(maxsize=3)
def _remembered_copy(url: str, info: DatasetInfo) -> Dataset:
    return read_copy(Location(url), info)


# --- comparing ---------------------------------------------------------------------------------------------------


def difference(location: Location, known: DatasetInfo, content: Content) -> str:
    """Say in a few words how a content differs from that which a store knows under its name."""
    return next(_differences(location, known, content), "its numbers differ")


def _differences(location: Location, known: DatasetInfo, content: Content) -> Iterator[str]:
    info = content.info
    if info.task != known.task:
        yield f"it is a {info.task}, not a {known.task}"
    if info.rows != known.rows:
        yield f"it has {counted(info.rows, 'row')}, not {known.rows:,}"
    kept = read_kept(location, known.name)
    if kept is None or kept.info != known:
        return
    for what, names, others in (("input", content.inputs, kept.inputs), ("target", content.outputs, kept.outputs)):
        if len(names) != len(others):
            new = next((name for name in names if name not in others), None)
            old = next((name for name in others if name not in names), None)
            example = f" ({new!r} is new)" if new else f" ({old!r} is gone)" if old else ""
            yield f"it has {len(names)} {what}s, not {len(others)}{example}"
            return
    there = read_copy(location, known)
    for what, names, ours, theirs in (
        ("column", content.inputs, content.x, there.x),
        ("target", content.outputs, content.y, there.y),
    ):
        rows, columns = np.nonzero(ours != theirs)
        if rows.size:
            first = int(columns.min())
            yield f"{what} {names[first]!r} differs in row {int(rows[columns == first].min()) + 1}"
