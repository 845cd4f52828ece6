"""Sources of an import in a format of the study: files, folders of them, and archives, read one by one.

`list_formatted` lists the files of such a source. `read_files` reads some of them on a worker, and spools their runs.
What cannot be read is named, and the others go on: as many runs are spooled or refused as there are.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.fs

from butter_etl.errors import SourceError, SpecError, counted, one_line
from butter_etl.exchange.formats import find_format
from butter_etl.exchange.gathering import spool_rows
from butter_etl.exchange.import_tasks import ImportSettings
from butter_etl.exchange.sources import FileScan, Source
from butter_etl.store import Location
from butter_etl.studies import Format, Study

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
#: Runs are spooled when they take about this many bytes.
_SPOOL_BYTES = 16 * 2**20


# --- listing -----------------------------------------------------------------------------------------------------


def list_formatted(study: Study, path: str | os.PathLike[str], name: str | None = None) -> tuple[Format, Source] | None:
    """Return the format of a source and its files, archives among them; None if its runs are in Parquet files.

    ``name`` is the format that it is said to have. Else a folder with Parquet files is none of any format. An archive
    of a folder that is there too is left out. Raises SelectError for an unknown format, SourceError where there is no
    file of the format that is named.
    """
    wanted = find_format(study, name)
    forms = [wanted] if wanted else list(study.formats.values()) if name is None else []
    location = Location(path)
    location.require_bucket()
    if not forms or location.kind("store.json") == pa.fs.FileType.File:
        return None
    if location.kind() == pa.fs.FileType.File:
        folder, file = location.folder_and_name()
        files = [(file, location.filesystem.get_file_info(location.path()).size)]
        location = Location(folder)
    else:
        files = [one for one in location.walk() if not _is_hidden(one[0])]
        if wanted is None and any(one.lower().endswith(".parquet") for one, _ in files):
            return None
    folders = {one[:place] for one, _ in files for place, letter in enumerate(one) if letter == "/"}
    for form in forms:
        own = [one for one in files if _is_of(form, one[0]) and _archived(one[0]) not in folders]
        if own:
            names = {one for one, _ in own}
            return form, Source(location.absolute, own, [one for one, _ in files if one not in names])
    if wanted is not None:
        raise SourceError(f"{location}: holds no {wanted.noun} (*{wanted.suffix}) and no archive of some")
    return None


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _is_of(form: Format, name: str) -> bool:
    """Tell whether a file goes by the name of a format's, or of an archive."""
    return name.lower().endswith((form.suffix, *_ARCHIVES))


def _archived(name: str) -> str | None:
    """Return the folder that a file is an archive of, by its name; None for other files."""
    ending = next((one for one in _ARCHIVES if name.lower().endswith(one)), None)
    return None if ending is None else name[: -len(ending)]


# --- reading -----------------------------------------------------------------------------------------------------


@dataclass
class FilesRead:
    """What became of some files: the scans of spooled runs, a line for each file that was refused, and others.

    ``files`` counts those that were read, members of archives among them. ``respelled`` has a line for each of what
    would be written otherwise. ``runs`` tells of each run its `run_id`, the place of its file, and a hash of its row.
    """

    scans: list[FileScan] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    respelled: list[str] = field(default_factory=list)
    runs: list[tuple[str, str, bytes]] = field(default_factory=list)
    files: int = 0


def said_otherwise(done: Iterable[FilesRead]) -> dict[str, str]:
    """Return the places of files whose runs other files, which were read before, tell otherwise, and of the first.

    Files that say the same of a run are not among them.
    """
    first: dict[str, tuple[str, bytes]] = {}
    found = {}
    for one in done:
        for run_id, place, content in one.runs:
            before, known = first.setdefault(run_id, (place, content))
            if content != known:
                found[place] = before
    return found


@dataclass
class _Batch:
    """Runs that wait to be spooled, with the place of the file that each table of them is of."""

    parts: list[tuple[str, pa.Table]] = field(default_factory=list)
    bytes: int = 0


def read_files(
    files: Iterable[tuple[str, int]],
    url: str,
    form: str,
    settings: ImportSettings,
    without: Mapping[str, str] | None = None,
) -> FilesRead:
    """Read some files of the source at ``url``, and spool their runs; one archive or file after the other.

    Files at the places ``without`` are refused, since others, which it names, tell of their runs otherwise. Raises
    LandingError if nothing can be spooled, StorageError if an object store fails.
    """
    location, read, wanted = Location(url), FilesRead(), settings.study.formats[form]
    batch = _Batch()
    for name, size in files:
        for place, content in _contents(location, name, size, wanted):
            try:
                found = wanted.read(_accepted(place, content, without or {}), place.rpartition("/")[2])
            except SourceError as error:
                read.refused.append(f"{place}: {error}")
                continue
            read.respelled += [f"{place}: {line}" for line in found.respelled]
            if wanted.file is None:  # in files of many runs, each is named by its file and place
                read.runs += _runs_of(place, found.rows)
            batch.parts.append((place, found.rows))
            batch.bytes += found.rows.nbytes
            if batch.bytes > _SPOOL_BYTES:
                _spool(batch, settings, read)
                batch = _Batch()
    _spool(batch, settings, read)
    return read


def _accepted(place: str, content: bytes | SourceError, without: Mapping[str, str]) -> bytes:
    """Return the content of a file that is to be read; raise SourceError for any other."""
    if isinstance(content, SourceError):
        raise content
    if place in without:
        raise SourceError(f"is of a run that {without[place]} tells of otherwise; keep one of them")
    return content


def _runs_of(place: str, rows: pa.Table) -> Iterator[tuple[str, str, bytes]]:
    """Yield the `run_id` of each row, the place of its file, and a hash of the row."""
    names = rows["run_id"].to_pylist() if "run_id" in rows.column_names else []
    for number, run_id in enumerate(names):
        (row,) = rows.slice(number, 1).combine_chunks().to_batches()
        yield run_id, place, hashlib.blake2b(row.serialize(), digest_size=16).digest()


def _spool(batch: _Batch, settings: ImportSettings, read: FilesRead) -> None:
    """Spool the runs of some files; those of each by itself, where not all of them can be."""
    if not batch.parts:
        return
    rows = pa.concat_tables([part for _, part in batch.parts])
    first = batch.parts[0][0]
    try:
        read.scans.append(spool_rows(settings.study, rows, settings.spool, first))
        read.files += len(batch.parts)
    except (SourceError, SpecError) as error:
        if len(batch.parts) == 1:
            read.refused.append(f"{first}: {str(error).removeprefix(f'{first}: ')}")
            return
        for one in batch.parts:
            _spool(_Batch([one]), settings, read)


_Content = tuple[str, bytes | SourceError]


def _contents(location: Location, name: str, size: int, form: Format) -> Iterator[_Content]:
    """Yield the place of each file, and its content or why it has none: the file itself, or members of an archive."""
    place = f"{location}/{name}"
    if _archived(name) is None:
        try:
            yield place, _too_large(size, form) or location.read_bytes(name)
        except OSError as error:
            yield place, SourceError(f"cannot be read ({one_line(error)})")
        return
    members = _of_zip if name.lower().endswith(".zip") else _of_tar
    try:
        for member, content in members(location, name, form):
            yield f"{place}/{member}", content
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
        yield place, SourceError(f"the rest of the archive cannot be read ({one_line(error)})")


def _too_large(size: int, form: Format) -> SourceError | None:
    most = form.most_bytes
    return SourceError(f"has {counted(size, 'byte')}, at most {most} will do") if size > most else None


def _is_wanted(name: str, form: Format) -> bool:
    return name.lower().endswith(form.suffix) and not _is_hidden(name)


def _of_tar(location: Location, name: str, form: Format) -> Iterator[_Content]:
    """Yield the members of a tar archive, however it is compressed; it is read once, from its start to its end."""
    with location.open_stream(name) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            if member.isdir() or not _is_wanted(member.name, form):
                continue
            if not member.isfile():
                yield member.name, SourceError("is a link in an archive, and no file")
                continue
            content = tar.extractfile(member)
            if content is None:
                raise AssertionError(member)
            yield member.name, _too_large(member.size, form) or content.read()


def _of_zip(location: Location, name: str, form: Format) -> Iterator[_Content]:
    """Yield the members of a zip archive."""
    with location.open_input(name) as file, zipfile.ZipFile(io.BufferedReader(file)) as archive:
        for member in archive.infolist():
            if member.is_dir() or not _is_wanted(member.filename, form):
                continue
            try:
                yield member.filename, _too_large(member.file_size, form) or archive.read(member)
            except (RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:  # encrypted, or torn
                yield member.filename, SourceError(f"cannot be read ({one_line(error)})")
