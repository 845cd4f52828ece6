"""The publication of a data set: everything is made aside and takes its place at the end, the manifest last.

On a local disk, files are made in ``DEST/.unfinished/<key>/``, where the key stands for the whole plan and its sources.
An export that was killed goes on in the same folder, and until the last moment DEST is what it was. An object store has
no renames: there, objects are put in place at once, and the manifest that says "complete" is gone until all of them are
there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import msgspec
import pyarrow.fs

from butter_etl.errors import StoreError
from butter_etl.exchange.manifest import (
    MANIFEST,
    Manifest,
    ManifestDirectory,
    ManifestFile,
    ManifestSource,
    hash_file,
    manifest_bytes,
    merged_sources,
    read_manifest,
)
from butter_etl.store import COMMON_METADATA, FileLock, Location
from butter_etl.studies import Attribution, Study

UNFINISHED = ".unfinished"
_WRITABLE = 0o222
#: A second export into the same place waits this long for the lock, and is then refused.
_LOCK_SECONDS = 2.0

Cards = Callable[
    [Iterable[ManifestDirectory], Iterable[ManifestFile], Attribution, Iterable[ManifestSource]], Mapping[str, bytes]
]


class Publication:
    """A data set that is being published.

    ::

        with Publication(study, dest, names, key) as publication:
            …  # add files
            publication.publish(…)

    ``names`` are the directories that are made. Directories that an earlier export made stay, and stay in the manifest.
    They must be of the same study. Hashes of files that are the same as before are taken from the former manifest.
    Files are read-only.
    """

    def __init__(self, study: Study, dest: Location, names: Iterable[str], key: str) -> None:
        self.dest, self._names = dest, frozenset(names)
        self._card = study.card
        #: The study as manifests say it.
        self._study = study.name if study.is_declared_by_stores else None
        #: Where files are made.
        self.location = Location(f"{dest.root}/{UNFINISHED}/{key}") if dest.is_local else dest
        self._former = Manifest()
        self._hashes: dict[tuple[int, int], str] = {}
        self._copies: dict[tuple[int, int], Path] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Publication:
        with self._cleanup as cleanup:
            if self.dest.is_local:
                folder = Path(self.dest.path(UNFINISHED))
                cleanup.callback(_remove_empty, folder)
                self._lock = cleanup.enter_context(FileLock(folder / "lock", _LOCK_SECONDS))
                self._remove_others(folder)
            self._former = self._read_former()
            self._refuse_other_study()
            self._entries = self._former.by_path()
            if not self.dest.is_local:
                self._set_manifest_aside()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _remove_others(self, folder: Path) -> None:
        """Remove what other exports left behind when they were killed."""
        for path in folder.iterdir():
            if path.is_dir() and path != Path(self.location.root):
                shutil.rmtree(path)

    def _read_former(self) -> Manifest:
        """Return the manifest of what is published now.

        If an export was killed while it published, this has only the directories that are not made now. Raises
        StoreError if one of them is not what the manifest says.
        """
        if (manifest := read_manifest(self.dest)) is not None:
            return manifest
        former = read_manifest(self.dest, UNFINISHED) or Manifest()
        directories = tuple(one for one in former.directories if one.name not in self._names)
        kept = tuple(file for file in former.files if _top(file.path) in {one.name for one in directories})
        for one in directories:
            entries = {file.path: file for file in kept if _top(file.path) == one.name}
            paths = {f"{one.name}/{path}" for path, _ in self.dest.walk(one.name)}
            is_kept = paths == {path for path in entries if "/" in path} and all(
                self.dest.kind(path) == pyarrow.fs.FileType.File and hash_file(self.dest, path) == entries[path].sha256
                for path in entries
            )
            if not is_kept:
                raise StoreError(f"{self.dest}: an export was killed while it published {one.name}; finish it first")
        return msgspec.structs.replace(former, directories=directories, files=kept)

    def _refuse_other_study(self) -> None:
        """Raise StoreError if directories of another study would stay: one card cannot describe both."""
        if self._former.directories and self._former.study != self._study:
            what = f"the study {self._former.study!r}" if self._former.study else "another study"
            raise StoreError(f"{self.dest}: holds an export of {what}; export to another folder")

    def _set_manifest_aside(self) -> None:
        if self.dest.kind(MANIFEST) == pyarrow.fs.FileType.File:
            self.dest.replace(f"{UNFINISHED}/{MANIFEST}", self.dest.read_bytes(MANIFEST))
            self.dest.remove(MANIFEST)

    def beat(self) -> None:
        """Renew the lock to show that the export is alive; a lock that is not renewed is broken by the next export."""
        if self.dest.is_local:
            self._lock.path.touch()

    # --- files --------------------------------------------------------------------------------------------------

    def add_whole(self, source: Location, name: str, target: str, rows: int | None) -> ManifestFile:
        """Add a file of the source as it is: as a hard link where that can be, else as a copy."""
        if self.dest.is_local and source.is_local:
            self._link_or_copy(Path(source.path(name)), target)
            return self._entry(target, rows)
        info = source.filesystem.get_file_info(source.path(name))
        entry = ManifestFile(target, info.size, rows, hash_file(source, name))
        if self.dest.is_local:
            self.location.copy(target, source, name)
            _freeze(Path(self.location.path(target)))
        elif not self._is_there(entry):
            self.dest.copy(target, source, name)
        return entry

    def _is_there(self, entry: ManifestFile) -> bool:
        """Tell whether the wanted object is there already, as the former manifest says."""
        return self._entries.get(entry.path) == entry and self.dest.kind(entry.path) == pyarrow.fs.FileType.File

    def add_made(self, target: str, rows: int | None, make: Callable[[Location, str], object]) -> ManifestFile:
        """Add a file that ``make(location, name)`` writes whole or not at all; one that is there already is kept."""
        if not self.dest.is_local or self.location.kind(target) != pyarrow.fs.FileType.File:
            make(self.location, target)
        return self._entry(target, rows)

    def add_bytes(self, target: str, data: bytes, rows: int | None = None) -> ManifestFile:
        """Add a small file with the given content."""
        entry = ManifestFile(target, len(data), rows, hashlib.sha256(data).hexdigest())
        if self.dest.is_local:
            self.location.replace(target, data)
            _freeze(Path(self.location.path(target)))
        elif not self._is_there(entry):
            self.dest.replace(target, data)
        return entry

    def _link_or_copy(self, origin: Path, target: str) -> None:
        final = Path(self.location.path(target))
        if origin.is_symlink():
            origin = origin.resolve()  # what it leads to, else the export would lead into the store
        try:
            _link(origin, final)
        except OSError as refusal:  # another file system, or one without hard links
            if not origin.is_file():
                raise
            facts = origin.stat()
            same = (facts.st_dev, facts.st_ino)
            known = self._copies.setdefault(same, final)
            if _is_copy(final, facts):
                return  # made before this export was killed
            published = Path(self.dest.path(target))
            at_hand = next((path for path in (known, published) if _is_copy(path, facts)), origin)
            try:
                _link(at_hand, final)
            except OSError:
                _copy(origin, final, refusal)
        _freeze(final)

    def _entry(self, target: str, rows: int | None) -> ManifestFile:
        """Return the manifest's entry of a file that was made; it is hashed unless its content is known."""
        if not self.dest.is_local:
            info = self.dest.filesystem.get_file_info(self.dest.path(target))
            return ManifestFile(target, info.size, rows, hash_file(self.dest, target))
        path = Path(self.location.path(target))
        _freeze(path)
        facts = path.stat()
        key = (facts.st_dev, facts.st_ino)
        if key not in self._hashes:
            self._hashes[key] = self._former_hash(target, facts) or hash_file(self.location, target)
        return ManifestFile(target, facts.st_size, rows, self._hashes[key])

    def _former_hash(self, target: str, facts: os.stat_result) -> str | None:
        """Return the hash in the former manifest if the file published under this name is this very file, else None."""
        entry = self._entries.get(target)
        if entry is None or entry.bytes != facts.st_size:
            return None
        try:
            published = os.stat(self.dest.path(target))  # noqa: PTH116 (hundreds of thousands of them)
        except FileNotFoundError:
            return None
        return entry.sha256 if os.path.samestat(published, facts) else None

    # --- the end ------------------------------------------------------------------------------------------------

    def publish(
        self,
        directories: Iterable[ManifestDirectory],
        files: Iterable[ManifestFile],
        attribution: Attribution,
        sources: Iterable[ManifestSource],
        cards: Cards,
    ) -> bool:
        """Give everything its place and write the manifest; return False if nothing had changed.

        What ``attribution`` leaves open stays as in the former export. ``sources`` are those of imported runs; one
        that says just what the attribution does is not named beside it. ``cards`` makes the files
        that describe the data set, of all directories that it will have.
        """
        attribution = attribution.completed(self._former.attribution())
        all_directories = [*directories, *(one for one in self._former.directories if one.name not in self._names)]
        all_files = [*files, *self._kept_files(all_directories)]
        all_directories.sort(key=lambda one: one.name)
        kept = {one.name for one in all_directories} - self._names
        named = [
            one
            for one in merged_sources(sources, self._former.sources, kept)
            if not one.origin.says_the_same(self._card, attribution)
        ]
        for name, data in cards(all_directories, all_files, attribution, named).items():
            all_files.append(self.add_bytes(name, data))
        manifest = manifest_bytes(all_directories, all_files, attribution, self._study, named)
        if self._is_published(manifest, all_files):
            shutil.rmtree(self.location.root)
            return False
        if self.dest.is_local:
            self._set_manifest_aside()
            self._swap()
        self._remove_strangers({file.path for file in all_files})
        self.dest.replace(MANIFEST, manifest)
        if self.dest.is_local:
            _freeze(Path(self.dest.path(MANIFEST)))
            shutil.rmtree(self.location.root)
        self.dest.remove(f"{UNFINISHED}/{MANIFEST}")
        return True

    def _kept_files(self, directories: list[ManifestDirectory]) -> list[ManifestFile]:
        kept = {one.name for one in directories} - self._names
        return [file for file in self._former.files if _top(file.path) in kept]

    def _is_published(self, manifest: bytes, files: list[ManifestFile]) -> bool:
        if not self.dest.is_local or self.dest.kind(MANIFEST) != pyarrow.fs.FileType.File:
            return False
        there = {name: size for name, size in self.dest.walk() if not name.startswith(f"{UNFINISHED}/")}
        expected = {file.path: file.bytes for file in files}
        same_files = {name: size for name, size in there.items() if name in expected or _top(name) in self._names}
        return same_files == expected and self.dest.read_bytes(MANIFEST) == manifest

    def _swap(self) -> None:
        """Rename what was made into its place; directories that were there are moved away first."""
        old = Path(self.dest.path(UNFINISHED)) / "old"
        old.mkdir(exist_ok=True)
        for path in sorted(Path(self.location.root).iterdir()):
            final = Path(self.dest.path(path.name))
            if path.is_dir() and final.exists():
                final.rename(old / f"{path.name}-{uuid.uuid4().hex}")
            path.replace(final)
        shutil.rmtree(old)

    def _remove_strangers(self, belongs: set[str]) -> None:
        """Remove what an earlier export had in these directories, or as their archives, and this one has not."""
        for name in self._names:
            present = [f"{name}/{path}" for path, _ in self.dest.walk(name)] if not self.dest.is_local else []
            if self.dest.kind(f"{name}.tar") == pyarrow.fs.FileType.File:
                present.append(f"{name}.tar")
            for path in present:
                if path not in belongs:
                    self.dest.remove(path)


def check_place(dest: Location, names: Iterable[str], cards: Iterable[str]) -> None:
    """Raise StoreError if something is in the way at ``dest`` that no export made."""
    if dest.kind() == pyarrow.fs.FileType.File:
        raise StoreError(f"{dest}: is a file; name a folder")
    file = pyarrow.fs.FileType.File
    former = read_manifest(dest) or read_manifest(dest, UNFINISHED) or Manifest()
    known = {one.name for one in former.directories}
    for name in names:
        is_other = name not in known and dest.kind(f"{name}/{COMMON_METADATA}") != file
        if is_other and next(dest.walk(name), None) is not None:
            raise StoreError(f"{dest}/{name}: holds other things (it has no {COMMON_METADATA}); move it away")
    if dest.kind(MANIFEST) == file or dest.kind(UNFINISHED) != pyarrow.fs.FileType.NotFound:
        return
    for name in cards:
        if dest.kind(name) == file:
            raise StoreError(f"{dest}/{name}: is in the way, and no export made it; move it away")


def _top(path: str) -> str:
    """Return the directory that a file of a data set belongs to; its archive belongs to it too."""
    return path.partition("/")[0].removesuffix(".tar")


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _link(origin: Path, final: Path) -> None:
    try:
        os.link(origin, final)
    except FileExistsError:
        if not final.samefile(origin):
            raise
    except FileNotFoundError:
        final.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.link(origin, final)


def _is_copy(path: Path, facts: os.stat_result) -> bool:
    """Tell whether a file is a copy that `_copy` made of a file of these facts: same size, same time of writing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)


def _copy(origin: Path, final: Path, refusal: OSError) -> None:
    """Make a copy with the time of writing of the original, seen whole or not at all."""
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{uuid.uuid4().hex}.tmp")
    facts = origin.stat()
    try:
        shutil.copyfile(origin, aside)
        os.utime(aside, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(final)
    except OSError as error:
        raise error from refusal
    finally:
        aside.unlink(missing_ok=True)


def _freeze(path: Path) -> None:
    """Make a file read-only; a hard link shares its mode with the store's file, which is never changed in place."""
    mode = path.stat().st_mode
    if mode & _WRITABLE:
        with suppress(PermissionError):  # somebody else's store
            path.chmod(mode & ~_WRITABLE)
