"""A store's copies of users' own data sets: the content of each, once, so that any worker finds it.

``datasets/<name>.parquet`` has the rows that the study's `DataKind` makes of a content, and its footer says what it was
made from. In a store, a name stands for one content, for good; the file is never replaced.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.fs

from butter_etl.errors import DatasetError, one_line, writing
from butter_etl.store.files import Location
from butter_etl.store.layout import DATA
from butter_etl.store.locks import FileLock
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.studies import DataKind, DataSource, OwnInfo

_KEY = b"butter_etl.dataset"
_MEND = "`butter-etl verify --repair` moves it away; then train with --spec and the data set's file"
_LOADING = threading.Lock()


def copy_path(name: str) -> str:
    """Return the path of a data set's copy in a store."""
    return f"{DATA}/{name}.parquet"


def copy_names(location: Location) -> list[str]:
    """Return the names of the data sets that a store keeps; files that a Mac puts beside others (``._…``) are none."""
    names = (name for name in location.names(DATA) if name.endswith(".parquet") and not name.startswith("."))
    return [name.removesuffix(".parquet") for name in names]


def read_kept(location: Location, name: str, kind: DataKind | None) -> Any:
    """Return the footer of the copy that a store keeps under a name, a `Footer`; None if it keeps nothing.

    Without a kind, which a study of no such data has none of, a store keeps nothing. Raises TornFileError if the copy
    cannot be read, DatasetError if it is no copy of that data set.
    """
    path = copy_path(name)
    if kind is None or location.kind(path) != pa.fs.FileType.File:
        return None
    with location.parquet_file(path) as file:
        text = (file.metadata.metadata or {}).get(_KEY, b"")
    try:
        kept = msgspec.json.decode(text, type=kind.footer)
    except msgspec.DecodeError as error:
        raise DatasetError(f"{location}/{path}: is no copy of a data set ({error}); {_MEND}") from error
    if kept.name != name:
        raise DatasetError(f"{location}/{path}: is the copy of {kept.name!r}; {_MEND}")
    return kept


def keep(store: Store, content: Any, declaration: Any, path: Path, kind: DataKind) -> None:
    """Write to a store the copy of a data set that was read from the file at ``path``, unless there is one.

    Raises DatasetError if it keeps other content under that name, PlaceError or FullDiskError if it cannot be written.
    """
    _write_copy(store, content.info.name, _encode(content, declaration, path, kind))
    require_copy(store.location, content.info, kind)


def adopt_copy(store: Store, source: Location, name: str) -> None:
    """Take over the copy of another store, as it is, unless there is one."""
    _write_copy(store, name, source.read_bytes(copy_path(name)))


def _write_copy(store: Store, name: str, data: bytes) -> None:
    with writing(store), FileLock(store.state / "locks" / "datasets.lock") as lock, lock.kept_fresh():
        store.location.write_new(copy_path(name), data)


def require_copy(location: Location, info: OwnInfo, kind: DataKind) -> None:
    """Raise DatasetError unless a store keeps that very data set, by the footer of its copy."""
    kept = read_kept(location, info.name, kind)
    if kept is None:
        raise DatasetError(
            f"{location}: keeps no copy of data set {info.name}; train with --spec and a sweep file that declares it"
        )
    if kept.info != info:
        raise DatasetError(other_content(info, kept.info, str(location)))


def other_content(info: OwnInfo, known: OwnInfo, place: str) -> str:
    """Return the message for a store that knows other content under a name."""
    return (
        f"data set {info.name}: {place} has that name for other content (SHA-256 {known.content[:12]}…, "
        f"not {info.content[:12]}…); use another name or another store"
    )


def _encode(content: Any, declaration: Any, path: Path, kind: DataKind) -> bytes:
    try:
        with path.open("rb") as file:
            source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"data set {content.info.name}: {path} cannot be read ({one_line(error)})") from error
    footer, table, rows = kind.encode(content, declaration, DataSource(path.name, source_sha256))
    said = msgspec.json.encode(footer, order="sorted").decode()
    return parquet_bytes(table, metadata={_KEY.decode(): said}, row_group_size=rows)


# --- reading -----------------------------------------------------------------------------------------------------


def read_copy(location: Location, info: OwnInfo, kind: DataKind) -> Any:
    """Read a data set from a store's copy and check its content; raise DatasetError or TornFileError."""
    require_copy(location, info, kind)
    table = location.read_table(copy_path(info.name))
    try:
        found = kind.decode(info, table)
        sha256 = found.sha256
    except (ValueError, KeyError) as error:
        raise DatasetError(f"{location}/{copy_path(info.name)}: has another shape ({error}); {_MEND}") from error
    if sha256 != info.content:
        raise DatasetError(f"{location}/{copy_path(info.name)}: has content {sha256}, not {info.content}; {_MEND}")
    return found


def cached_copy(location: Location, info: OwnInfo, kind: DataKind) -> Any:
    """Call `read_copy`, remembering the last few data sets.

    There is one copy for all threads of a worker process: do not write to it.
    """
    with _LOADING:  # else two threads would load the same one
        return _remembered_copy(location.absolute, info, kind)


@lru_cache(maxsize=3)
def _remembered_copy(url: str, info: OwnInfo, kind: DataKind) -> Any:
    return read_copy(Location(url), info, kind)


def difference(location: Location, known: OwnInfo, content: Any, kind: DataKind) -> str:
    """Say in a few words how a content differs from that which a store knows under its name."""
    kept = read_kept(location, known.name, kind)
    found = kind.differences(known, content, kept, lambda: read_copy(location, known, kind))
    return next(found, "its numbers differ")
