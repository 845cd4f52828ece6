"""Files on a local disk or an object store: listing, reading, and writing so that readers see whole files only."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.errors import (
    WAYS_OUT,
    ButterError,
    PlaceError,
    StorageError,
    StoreError,
    TornFileError,
    one_line,
    refused,
    writing,
)
from butter_etl.store.changes import PUT, REMOVED, Changes
from butter_etl.store.history_files import HistoryFile
from butter_etl.store.s3 import S3Prefix, Upload, service_error

#: The full schema of a frame, partition columns included, in the frame's root.
COMMON_METADATA = "_common_metadata"
#: Files are copied and streamed in pieces of about this many bytes.
CHUNK_BYTES = 8 * 2**20
#: S3 copies larger objects only in parts.
LARGEST_SERVER_COPY = 5 * 2**30
#: Folders that systems keep beside anybody's data: what `fsck` found, bins, previews and snapshots.
_SYSTEM_FOLDERS = frozenset(
    {"lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle", "#snapshot", "~snapshot"}
)
#: Whatever stands before the last @ of an address: a secret can have a slash in it.
_CREDENTIALS = re.compile(r"(?<=:)//[^?\s]*@")
#: An address that went through `pathlib`, which takes two slashes for one: a folder of that name is not what was meant.
_LOST_SLASH = re.compile(r"(?:s3|gs|gcs|abfss?|hdfs):/(?!/)")


def is_utf8(path: str) -> bool:
    """Tell whether a path's bytes are text: Python carries others through as lone surrogates."""
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_utf8(path: str) -> None:
    """Raise StoreError for a path that pyarrow cannot open."""
    if not is_utf8(path):
        raise StoreError(f"{path!a}: is no UTF-8 text, which the paths of Parquet files must be; rename it")


class Location:
    """A folder: a local path, or a URL such as ``s3://bucket/prefix`` (see `S3Prefix` for its options).

    On a local file system a write is seen whole or not at all (a temporary file of a unique name in the same folder,
    fsync, link or rename). So it is on an object store (one upload, completed at the end or never). But there, nothing
    can be created exclusively: what must not be written twice is written under a lock.
    Errors of an object store are StorageError, in one line; a missing file is FileNotFoundError everywhere.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fspath(path)
        require_utf8(given)
        self._s3: S3Prefix | None = None
        #: Notes that make up for lists which are behind, where the store that this belongs to has some.
        self.changes: Changes | None = None
        #: The address to show to people, without options; never with credentials. See `address`.
        self.url = _CREDENTIALS.sub("//", given).partition("?")[0] if "://" in given else given
        #: The same place for a process with another working directory and other defaults.
        self.absolute = given
        if given.startswith("s3://"):
            self._s3 = S3Prefix(given)
            self._filesystem, self.root = None, self._s3.root
            self.url, self.absolute = str(self._s3), self._s3.url
        elif "://" in given:
            try:
                self._filesystem, root = pa.fs.FileSystem.from_uri(given)
            except (pa.ArrowInvalid, OSError) as error:
                reason = _CREDENTIALS.sub("//", one_line(error).replace(given, self.url))
                raise StoreError(f"{self.url}: not a usable location ({reason})") from error
            self.root = root.rstrip("/")
        elif _LOST_SLASH.match(given):
            scheme, _, rest = given.partition(":/")
            raise StoreError(f"{given}: a URL has two slashes: give {scheme}://{rest}, as text and not as a Path")
        else:
            self._filesystem, self.root = pa.fs.LocalFileSystem(), str(Path(given).absolute())
            require_utf8(self.root)
            self.absolute = self.root
        self.is_local = isinstance(self._filesystem, pa.fs.LocalFileSystem)

    def __str__(self) -> str:
        return self.url

    @property
    def filesystem(self) -> pa.fs.FileSystem:
        """Return the file system that this is on."""
        return self._filesystem if self._s3 is None else self._s3.filesystem

    def address(self, name: str = "") -> str:
        """Return where ``name`` is, as a command takes it: with the options that the URL was given."""
        if self._s3 is not None:
            return self._s3.address(name)
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def path(self, name: str = "") -> str:
        """Return the file system's own path of ``name``."""
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def errors(self, name: str = "") -> Iterator[None]:
        """Raise what goes wrong with ``name`` on an object store as StorageError, in one line."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if self.is_local:
                if error.errno in WAYS_OUT:
                    raise refused(error, f"{self.path(name)}: cannot be used") from error
                raise
            raise self._refused(name, error) from error
        if self._s3 is not None:
            self._s3.service.has_answered()

    def _refused(self, name: str, error: OSError) -> StorageError:
        reason = one_line(error) if self._s3 is None else self._s3.explain(error)
        return StorageError(f"{self.url}/{name}: {reason}" if name else f"{self.url}: {reason}")

    def require_bucket(self) -> None:
        """Raise StoreError if an object store has no such bucket; it would look like an empty folder otherwise."""
        if self._s3 is not None:
            with self.errors():
                self._s3.require_bucket()

    def folder_and_name(self) -> tuple[str, str]:
        """Return the address of the folder that this is in, spelled like `absolute`, and the name that it has there."""
        folder, _, name = self.root.rpartition("/")
        if "://" in self.absolute:
            address, mark, options = self.absolute.partition("?")
            folder = f"{address.rstrip('/').rpartition('/')[0]}{mark}{options}"
        return folder or "/", name

    def contains(self, other: Location) -> bool:
        """Tell whether another location is this one or below it."""
        inside = f"{other.root}/".startswith(f"{self.root}/")
        return inside and self._is_beside(other)

    def _is_beside(self, other: Location) -> bool:
        """Tell whether the other is on the same file system."""
        if self._s3 is not None and other._s3 is not None:
            return self._s3.service == other._s3.service
        return bool(self.filesystem.equals(other.filesystem))

    # --- looking -------------------------------------------------------------------------------------------------

    def kind(self, name: str = "") -> pa.fs.FileType:
        """Tell whether ``name`` is a file, a directory, or not there."""
        with self.errors(name):
            return self.filesystem.get_file_info(self.path(name)).type

    def walk(self, folder: str = "", *, temporary: bool = False, starting: str = "") -> Iterator[tuple[str, int]]:
        """Yield every file below ``folder`` in the order of the names, as (path relative to it, size in bytes).

        Nothing comes if the folder is not there. Temporary files of unfinished writes are left out unless
        ``temporary``; hidden folders (`is_hidden`) are passed over. So are files whose own names do not begin with
        ``starting``: on a disk, nothing but their names is looked at. On an object store this is one recursive
        listing, a request for each thousand objects, and a request for each change noted (`Changes`) that it does not
        show. On a disk links are followed; PlaceError is raised for one that leads nowhere or in a circle.
        """
        if self.is_local:
            yield from _scan(self.path(folder), "", temporary=temporary, starting=starting)
            return
        base = self.path(folder)
        with self.errors(folder):
            infos = self.filesystem.get_file_info(pa.fs.FileSelector(base, recursive=True, allow_not_found=True))
        files = {info.path[len(base) + 1 :]: info.size for info in infos if info.type == pa.fs.FileType.File}
        del infos
        if self.changes is not None:
            files = self.changes.corrected(folder, files, self._size)
        wanted = (file for file in files.items() if file[0].rpartition("/")[2].startswith(starting))
        seen = [file for file in wanted if _is_seen(file[0], files.keys())]
        yield from sorted(seen, key=lambda file: file[0].split("/"))  # as on a disk, folder by folder

    def _size(self, name: str) -> int | None:
        """Ask for the size of a file itself, not of a list; None if it is not there."""
        with self.errors(name):
            info = self.filesystem.get_file_info(self.path(name))
        return info.size if info.type == pa.fs.FileType.File else None

    def note_there(self, name: str) -> None:
        """Note that a file is there, which a list did not show."""
        self._note(name, PUT)

    def _note(self, name: str, change: bytes) -> None:
        if self.changes is not None:
            self.changes.note(name, change)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in ``folder``, sorted; empty if it is not there.

        Links are followed; PlaceError is raised for one that leads nowhere.
        """
        if self.is_local:
            return [entry.name for entry in _entries(self.path(folder)) if not entry.is_dir()]
        selector = pa.fs.FileSelector(self.path(folder), allow_not_found=True)
        try:
            with self.errors(folder):
                infos = self.filesystem.get_file_info(selector)
        except FileNotFoundError:  # pyarrow looks, then lists: it came, or went, in between
            infos = []
        files = {info.base_name: info.size for info in infos if info.type == pa.fs.FileType.File}
        if self.changes is not None:
            files = self.changes.corrected(folder, files, self._size)
        return sorted(name for name in files if "/" not in name)

    # --- reading -------------------------------------------------------------------------------------------------

    def read_bytes(self, name: str) -> bytes:
        """Return the content of a file."""
        with self.errors(name), self.open_input(name) as file:
            data: bytes = file.read()
        return data

    def open_input(self, name: str) -> Any:
        """Open a file for reading at any place; on an object store each read is a request."""
        with self.errors(name):
            return self.filesystem.open_input_file(self.path(name))

    def open_stream(self, name: str) -> Any:
        """Open a file for reading from its start to its end, some megabytes at a time."""
        with self.errors(name):
            return self.filesystem.open_input_stream(self.path(name), compression=None, buffer_size=CHUNK_BYTES)

    def read_table(
        self,
        name: str,
        columns: list[str] | None = None,
        *,
        keep_group: Callable[[pq.RowGroupMetaData], bool] | None = None,
        use_threads: bool = True,
    ) -> pa.Table:
        """Read a Parquet file (of the columns given, those that it has); raise TornFileError if it cannot be read.

        Row groups that ``keep_group`` does not want are not read. Without ``use_threads`` the file is decoded on the
        calling thread, which costs less where others are busy anyway.
        """
        with self.parquet_file(name) as file:
            try:
                names = file.names
                present = None if columns is None else [name for name in columns if name in names]
                # Partition keys stand in the path. Whatever else is missing may be there under a damaged name.
                if any(column not in names and f"{column}=" not in name for column in columns or ()):
                    file.check_columns()
                if keep_group is None:
                    return file.read(columns=present, use_threads=use_threads)
                groups = [k for k in range(file.num_row_groups) if keep_group(file.metadata.row_group(k))]
                return file.read_row_groups(groups, columns=present, use_threads=use_threads)
            except (pa.ArrowException, OSError) as error:
                raise self.torn(name, error) from error

    def parquet_file(self, name: str, *, checked: bool = False) -> HistoryFile:
        """Open a Parquet file; raise TornFileError if its footer cannot be read.

        If it is ``checked``, what is read of it is held against the checksums of its pages.
        """
        try:
            return HistoryFile(
                self.filesystem.open_input_file(self.path(name)),
                # Over a network, column chunks that lie together are worth one request; on a disk, each costs less.
                is_remote=not self.is_local,
                checked=checked,
            )
        except (pa.ArrowException, OSError) as error:
            raise self.torn(name, error) from error

    def torn(self, name: str, error: Exception) -> ButterError:
        """Return the error for an unreadable file: TornFileError, unless the store or a permission is to blame."""
        if isinstance(error, OSError) and service_error(error):
            return self._refused(name, error)
        if isinstance(error, PermissionError):
            return refused(error, f"{self.path(name)}: cannot be read")
        if isinstance(error, FileNotFoundError) and not self.is_local:
            return StorageError(
                f"{self.url}/{name}: was listed and is not there; it has just been taken away, or the server's lists "
                "are behind: give the same command again"
            )
        reason = one_line(error)
        return TornFileError(
            f"{self.url}/{name} cannot be read ({reason}); "
            "`butter-etl verify --repair` moves it away, and what it held is missing"
        )

    # --- writing -------------------------------------------------------------------------------------------------

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a file that must not be there yet; return False, with nothing changed, if it is.

        This is exclusive on a local disk. On an object store it is not: whoever must not lose a race holds a lock.
        """
        with Pending(self, {name: data}) as pending:
            return pending.publish()

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, replacing the one that is there: readers see the old or the new one, whole."""
        with self.open_output(name) as file:
            file.write(data)

    @contextmanager
    def open_output(self, name: str) -> Iterator[BinaryIO | Upload]:
        """Open a file to be written piece by piece: it is there, whole, when the block is left without an exception.

        It replaces the one that is there. On a local disk it is durable then.
        """
        if not self.is_local:
            self._note(name, PUT)
            with Upload(lambda: self.filesystem.open_output_stream(self.path(name)), partial(self.errors, name)) as new:
                yield new
            return
        final = Path(self.path(name))
        with new_folder(final.parent) as folder:
            temporary = _temporary_name(folder)
            try:
                with temporary.open("xb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(final)
            finally:
                temporary.unlink(missing_ok=True)

    def copy(self, name: str, source: Location, source_name: str) -> None:
        """Copy a file of any location to ``name``, as it is and whole or not at all; memory is bounded.

        Within one object store, the server copies. Raises FileNotFoundError if the file is not there.
        """
        if self._s3 is not None and self._is_beside(source):
            with source.errors(source_name):
                info = self.filesystem.get_file_info(source.path(source_name))
                if info.type == pa.fs.FileType.File and info.size <= LARGEST_SERVER_COPY:
                    self._note(name, PUT)
                    self.filesystem.copy_file(info.path, self.path(name))
                    return
        with source.open_stream(source_name) as content, self.open_output(name) as new:
            while True:
                with source.errors(source_name):
                    data = content.read(CHUNK_BYTES)
                if not data:
                    return
                new.write(data)

    def move(self, name: str, target: str) -> bool:
        """Give a file another name, which must be new; return False if the file is not there any more.

        Raises FileExistsError if the new name is taken. An object store has no renames: the file is copied, then
        deleted.
        """
        if self.kind(target) != pa.fs.FileType.NotFound:
            raise FileExistsError(f"{self.url}/{target} is there already")
        try:
            if not self.is_local:
                self.copy(target, self, name)
                self.remove(name)
                return True
            source, final = Path(self.path(name)), Path(self.path(target))
            with new_folder(final.parent):
                self._rename(name, target)
        except FileNotFoundError:
            return False
        for folder in (final.parent, source.parent):
            sync_folder(folder)
        return True

    def _rename(self, name: str, target: str) -> None:
        try:
            Path(self.path(name)).rename(self.path(target))
        except OSError as error:
            if error.errno != errno.EXDEV:  # a link leads to another file system
                raise
            self.copy(target, self, name)
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file; do nothing if it is not there."""
        self._note(name, REMOVED)
        with suppress(FileNotFoundError), self.errors(name):
            if self._s3 is not None:
                self._s3.delete(self.path(name))
            else:
                self.filesystem.delete_file(self.path(name))


class Pending:
    """Files that are written but not there yet: ``with Pending(location, files) as pending: … pending.publish()``.

    On a local disk they lie, fsynced, under temporary names beside their final ones, so that publishing is quick; what
    is not published is removed on leaving. On an object store they are in memory.
    """

    def __init__(self, location: Location, files: Mapping[str, bytes]) -> None:
        self._location, self._files = location, files
        self._aside: dict[str, Path] = {}
        self._folders = ExitStack()

    def __enter__(self) -> Pending:
        if self._location.is_local:
            with self._folders as folders, ExitStack() as written:
                written.callback(self._remove)
                for name, data in self._files.items():
                    folder = folders.enter_context(new_folder(Path(self._location.path(name)).parent))
                    self._aside[name] = write_durably(folder, partial(_write, data))
                written.pop_all()
                self._folders = folders.pop_all()
        return self

    def publish(self) -> bool:
        """Give the files their names, exclusively and in order; return False as soon as one is taken."""
        if not self._location.is_local:
            for name, data in self._files.items():
                if self._location.kind(name) != pa.fs.FileType.NotFound:
                    self._location.note_there(name)
                    return False
                self._location.replace(name, data)
            return True
        for name, aside in self._aside.items():
            try:
                os.link(aside, self._location.path(name))
            except FileExistsError:
                return False
        for folder in {aside.parent for aside in self._aside.values()}:
            sync_folder(folder)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        self._folders.__exit__(kind, error, trace)

    def _remove(self) -> None:
        for aside in self._aside.values():
            aside.unlink(missing_ok=True)


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder, with those that it is in, unless it is there; yield it.

    If the block raises, those of them that it made are removed again, as far as they are empty.
    """
    made = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BaseException:  # Ctrl-C too: nothing is left, and all is raised again
        for one in made:
            with suppress(OSError):
                one.rmdir()
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of the user's, in place of one that is there: it is written whole, or nothing has changed.

    What is no plain file (a device, a pipe) is written to as it is. Raises PlaceError or FullDiskError.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        final = path.resolve()  # a link stays one
        write_durably(final.parent, partial(_write, data)).replace(final)


def require_writable(folder: Path) -> None:
    """Raise OSError unless files can be made in a folder, which is made unless it is there."""
    with new_folder(folder):
        write_durably(folder, partial(_write, b"\n")).unlink()


def write_durably(folder: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Write and fsync a new file of a unique temporary name in ``folder``; remove it again if writing fails."""
    temporary = _temporary_name(folder)
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # likewise
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _temporary_name(folder: Path) -> Path:
    return folder / f".{uuid.uuid4().hex}.tmp"


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Return the files directly in a folder whose names end in ``suffix``, sorted; none if it is not there.

    Raises PlaceError if it cannot be listed: `Path.glob` would find nothing there, without a word.
    """
    return [Path(entry.path) for entry in _entries(str(folder)) if entry.name.endswith(suffix) and entry.is_file()]


def is_hidden(name: str, has_schema: Callable[[], bool]) -> bool:
    """Tell whether a folder of this name holds nothing of ours, but what other tools keep beside data.

    That are names with a dot or an underscore in front (trash, snapshots, what is not committed, logs of tables,
    version control), and a few of systems, such as the ``lost+found`` of a volume. A hive key may begin so, and an
    exported directory, which ``has_schema``: it has a ``_common_metadata``.
    """
    if name.startswith("_"):
        return "=" not in name and not has_schema()
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _is_seen(path: str, present: Set[str]) -> bool:
    """Tell whether no folder in the path of an object is hidden, given all paths that there are."""
    folders = path.split("/")[:-1]
    schemas = ["/".join([*folders[: depth + 1], COMMON_METADATA]) for depth in range(len(folders))]
    return not any(
        is_hidden(name, partial(present.__contains__, schema)) for name, schema in zip(folders, schemas, strict=True)
    )


def _scan(
    folder: str, prefix: str, *, temporary: bool, starting: str, followed: tuple[str, ...] = ()
) -> Iterator[tuple[str, int]]:
    """Yield the files below a folder whose names begin so.

    ``followed`` are the real paths of the folders whose links led to it.
    """
    for entry in _entries(folder):
        name = f"{prefix}{entry.name}"
        try:
            if entry.is_dir():
                if is_hidden(entry.name, partial(_has_schema, entry.path)):
                    continue
                chain = _follow(folder, entry, followed) if entry.is_symlink() else followed
                yield from _scan(entry.path, f"{name}/", temporary=temporary, starting=starting, followed=chain)
            elif entry.name.startswith(starting) and (temporary or not entry.name.endswith(".tmp")):
                if not is_utf8(name):
                    if name.endswith(".parquet"):
                        require_utf8(entry.path)
                    continue  # no file of a store or a source is called so, and nothing here could open it
                yield name, entry.stat().st_size
        except FileNotFoundError:  # taken away while listing
            continue


def _has_schema(folder: str) -> bool:
    return Path(folder, COMMON_METADATA).exists()


def _follow(folder: str, link: os.DirEntry[str], followed: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``followed`` with the folder of a link added; raise PlaceError if it leads to one that it is in."""
    chain = (*followed, os.path.realpath(folder))
    target = os.path.realpath(link.path)
    if any(f"{one}/".startswith(f"{target}/") for one in chain):
        raise PlaceError(f"{link.path}: links to {target}, which it is in; remove the link")
    return chain


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return what is directly in a folder, in the order of the names; nothing if it is not there.

    Raises PlaceError for a link that leads nowhere: what it stands for would count as missing. Hidden ones are left
    out, which editors make as locks.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        return [entry for entry in entries if not entry.is_symlink() or _leads_somewhere(entry)]
    except (FileNotFoundError, NotADirectoryError):
        _refuse_broken_link(Path(folder))
        return []
    except OSError as error:
        if error.errno not in WAYS_OUT:
            raise
        raise refused(error, f"{folder}: cannot be listed") from error


def _leads_somewhere(link: os.DirEntry[str]) -> bool:
    path = Path(link.path)
    if path.exists():
        return True
    if not link.name.startswith("."):
        _refuse_broken_link(path)
    return False


def _refuse_broken_link(path: Path) -> None:
    """Raise PlaceError if the path, or one above it, is a link that leads nowhere."""
    for one in (path, *path.parents):
        if one.exists():
            return
        if one.is_symlink():
            raise PlaceError(
                f"{one}: links to {one.readlink()}, which is not there; bring that back, or remove the link"
            )
