"""Files on a local disk or an object store: listing, reading, and writing so that readers see whole files only."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from butter_etl.errors import StoreError, TornFileError, one_line

#: The full schema of a frame, partition columns included, in the frame's root.
COMMON_METADATA = "_common_metadata"


class Location:
    """A folder on any pyarrow file system: a local path or a URL such as ``s3://bucket/prefix``.

    On a local file system a write is seen whole or not at all (a temporary file of a unique name in the same folder,
    fsync, link or rename); on an object store a file is built in memory and put once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.url = os.fspath(path)
        #: The same place for a process with another working directory.
        self.absolute = self.url if "://" in self.url else str(Path(self.url).absolute())
        if "://" in self.url:
            try:
                self.filesystem, root = pa.fs.FileSystem.from_uri(self.url)
            except (pa.ArrowInvalid, OSError) as error:
                raise StoreError(f"{self.url}: not a usable location ({one_line(error)})") from error
            self.root = root.rstrip("/")
        else:
            self.filesystem, self.root = pa.fs.LocalFileSystem(), self.absolute
        self.is_local = isinstance(self.filesystem, pa.fs.LocalFileSystem)

    def __str__(self) -> str:
        return self.url

    def path(self, name: str = "") -> str:
        """The file system's own path of ``name``."""
        return f"{self.root}/{name}" if name else self.root

    def kind(self, name: str = "") -> pa.fs.FileType:
        """Whether ``name`` is a file, a directory, or not there."""
        return self.filesystem.get_file_info(self.path(name)).type

    def walk(self, folder: str = "", *, temporary: bool = False) -> Iterator[tuple[str, int]]:
        """Every file below ``folder`` in the order of the names, as (path relative to it, size).

        Nothing if the folder is not there. Temporary files of unfinished writes are left out
        unless ``temporary``.
        """
        if self.is_local:
            yield from _scan(self.path(folder), "", temporary=temporary)
            return
        base = self.path(folder)
        selector = pa.fs.FileSelector(base, recursive=True, allow_not_found=True)
        for info in sorted(self.filesystem.get_file_info(selector), key=lambda info: info.path):
            if info.type == pa.fs.FileType.File:
                yield info.path.removeprefix(f"{base}/"), info.size

    def names(self, folder: str) -> list[str]:
        """The names of the files directly in ``folder``; empty if it is not there."""
        selector = pa.fs.FileSelector(self.path(folder), allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == pa.fs.FileType.File)

    def read_bytes(self, name: str) -> bytes:
        """The content of a file."""
        with self.filesystem.open_input_file(self.path(name)) as file:
            data: bytes = file.read()
        return data

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file (of the columns given, those that it has); raises TornFileError if it cannot be read."""
        with self.parquet_file(name) as file:
            try:
                present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
                return file.read(columns=present)
            except (pa.ArrowException, OSError) as error:
                raise self._torn(name, error) from error

    def parquet_file(self, name: str) -> pq.ParquetFile:
        """A Parquet file opened; raises TornFileError if its footer cannot be read."""
        try:
            return pq.ParquetFile(self.path(name), filesystem=self.filesystem)
        except (pa.ArrowException, OSError) as error:
            raise self._torn(name, error) from error

    def _torn(self, name: str, error: Exception) -> TornFileError:
        reason = one_line(error)
        return TornFileError(
            f"{self.url}/{name} cannot be read ({reason}); "
            "`butter-etl verify --repair` moves it away, and what it held is missing"
        )

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a file that must not be there yet; False, and nothing changed, if it is."""
        with Pending(self, {name: data}) as pending:
            return pending.publish()

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, replacing the one that is there: readers see the old or the new one, whole."""
        if self.is_local:
            self.write_aside(name, data).replace(self.path(name))
        else:
            self.put(name, data)

    def put(self, name: str, data: bytes) -> None:
        """Write a file in one piece on an object store, where a put is seen whole or not at all."""
        with self.filesystem.open_output_stream(self.path(name)) as stream:
            stream.write(data)

    def move(self, name: str, target: str) -> bool:
        """Give a file another name, which must be new; False if the file is not there any more."""
        if not self.is_local:
            if self.kind(name) != pa.fs.FileType.File:
                return False
            self.filesystem.move(self.path(name), self.path(target))
            return True
        source, final = Path(self.path(name)), Path(self.path(target))
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            raise FileExistsError(f"{final} is there already")
        try:
            source.rename(final)
        except FileNotFoundError:
            return False
        for folder in (final.parent, source.parent):
            _sync_folder(folder)
        return True

    def write_aside(self, name: str, data: bytes) -> Path:
        """Write ``data`` durably under a temporary name in the folder that ``name`` will be in."""
        folder = Path(self.path(name)).parent
        folder.mkdir(parents=True, exist_ok=True)
        return write_durably(folder, lambda file: file.write(data))


class Pending:
    """Files that are written but not there yet: ``with Pending(location, files) as pending: … pending.publish()``.

    On a local disk they lie, fsynced, under temporary names beside their final ones, so that publishing is quick; what
    is not published is removed on leaving. On an object store they are in memory.
    """

    def __init__(self, location: Location, files: Mapping[str, bytes]) -> None:
        self._location, self._files = location, files
        self._aside: dict[str, Path] = {}

    def __enter__(self) -> Pending:
        if self._location.is_local:
            try:
                for name, data in self._files.items():
                    self._aside[name] = self._location.write_aside(name, data)
            except BaseException:
                self._remove()
                raise
        return self

    def publish(self) -> bool:
        """Give the files their names, exclusively and in order; False as soon as one is taken."""
        if not self._location.is_local:
            for name, data in self._files.items():
                if self._location.kind(name) != pa.fs.FileType.NotFound:
                    return False
                self._location.put(name, data)
            return True
        for name, aside in self._aside.items():
            try:
                os.link(aside, self._location.path(name))
            except FileExistsError:
                return False
        for folder in {aside.parent for aside in self._aside.values()}:
            _sync_folder(folder)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for aside in self._aside.values():
            aside.unlink(missing_ok=True)


def write_durably(folder: Path, write: Callable[[BinaryIO], object]) -> Path:
    """A new file of a unique temporary name in ``folder``, fsynced; removed again if writing fails."""
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    """Make new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _scan(folder: str, prefix: str, *, temporary: bool) -> Iterator[tuple[str, int]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _scan(entry.path, f"{name}/", temporary=temporary)
        elif temporary or not entry.name.endswith(".tmp"):
            with suppress(FileNotFoundError):  # taken away while listing
                yield name, entry.stat().st_size


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How every file of the store is written.

    Losses are noise to a dictionary, so their bytes are split by significance; accuracies have few distinct values,
    so they and everything else get dictionaries. The leaf path is what pyarrow takes column settings by.
    """
    lists = [field.name for field in schema if pa.types.is_list(field.type)]
    split = [f"{name}.list.element" for name in lists if _is_noise(name, schema.field(name).type)]
    plain = set(split)
    dictionary = [_leaf(field) for field in schema if _leaf(field) not in plain]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": dictionary,
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        "store_schema": False,
        "write_page_index": True,
        "write_page_checksum": True,  # without them, a flipped bit of a loss is just another loss
    }


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _is_noise(name: str, kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind.value_type)) and "accuracy" not in name


def parquet_bytes(
    table: pa.Table, *, metadata: dict[str, str] | None = None, row_group_size: int | None = None
) -> bytes:
    """A table as the bytes of a Parquet file with the store's settings; ``metadata`` goes into its footer."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **parquet_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=row_group_size)
        if metadata:
            writer.add_key_value_metadata(metadata)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_common_metadata(location: Location, root: str, schema: pa.Schema) -> None:
    """The full schema of a frame, partition columns included, as readers look for it in the frame's root."""
    sink = pa.BufferOutputStream()
    pq.write_metadata(schema, sink)
    name = f"{root}/{COMMON_METADATA}" if root else COMMON_METADATA
    location.write_new(name, sink.getvalue().to_pybytes())
