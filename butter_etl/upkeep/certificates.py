"""Certificates of audits: what was drawn, compared and found, and whether one still speaks of the data it lies beside.

A certificate is JSON that `read_certificate` reads. It names its data by hashes: of the manifest where there is one, of
the names of all runs, and of the files that hold what was drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow.fs

from butter_etl.errors import ButterError, SelectError, StoreError, counted, one_line
from butter_etl.exchange import MANIFEST, hash_file
from butter_etl.store import Location
from butter_etl.upkeep.drawing import draw, names_sha256, sample_size
from butter_etl.upkeep.export_inventory import CERTIFICATE_FOLDER
from butter_etl.upkeep.findings import Finding
from butter_etl.upkeep.likening import Compared
from butter_etl.upkeep.replaying import Replayed
from butter_etl.upkeep.run_frame import NamedRun, RunFrame, name_runs

FORMAT_VERSION: Final = 1
#: The certificate itself, in whatever folder.
FILE: Final = "certificate.json"


class AuditedFile(msgspec.Struct, frozen=True):
    """A file that holds runs that were drawn: its path, relative to the data, its size, its SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


class AuditedData(msgspec.Struct, frozen=True):
    """What was audited. ``names_sha256`` is the hash of all runs' ids, ``manifest_sha256`` null for a store."""

    kind: str
    study: str
    rows: int
    names_sha256: str
    manifest_sha256: str | None
    files: tuple[AuditedFile, ...]


class Drawn(msgspec.Struct, frozen=True):
    """How runs were drawn, and which."""

    rule: str
    seed: int
    sample: str
    run_ids: tuple[str, ...]


class Method(msgspec.Struct, frozen=True):
    """How runs of other makers were compared. ``least_p`` is the least p-value that a rank can have."""

    histories: tuple[str, ...]
    repetitions: int
    level: float
    least_p: float
    correction: str
    statement: str
    sources: tuple[str, ...]


class Certificate(msgspec.Struct, frozen=True):
    """The result of an audit. ``began`` and ``ended`` are UTC, ``software`` the versions that trained, by name."""

    data: AuditedData
    drawn: Drawn
    began: str
    ended: str
    software: Mapping[str, str | int | None]
    counts: Mapping[str, int]
    is_sound: bool
    replayed: tuple[Replayed, ...] = ()
    compared: tuple[Compared, ...] = ()
    method: Method | None = None
    format: int = FORMAT_VERSION

    @property
    def faults(self) -> list[Replayed | Compared]:
        """Return the runs that are not what their rows say, or no runs of their experiment, by their ids."""
        return sorted((one for one in self.runs if one.is_fault), key=lambda one: one.run_id)

    @property
    def runs(self) -> Sequence[Replayed | Compared]:
        """Return all runs that were drawn."""
        return (*self.replayed, *self.compared)


def audited_data(frame: RunFrame, named: Sequence[NamedRun], drawn: Sequence[NamedRun]) -> AuditedData:
    """Return what certificates say of a frame's data, files that hold drawn runs hashed."""
    location = frame.location
    paths = sorted({frame.files[run.file] for run in drawn})
    has_manifest = not frame.is_store and location.kind(MANIFEST) == pyarrow.fs.FileType.File
    return AuditedData(
        kind="store" if frame.is_store else "export",
        study=frame.study.name,
        rows=len(named),
        names_sha256=names_sha256([run.run_id for run in named]),
        manifest_sha256=hash_file(location, MANIFEST) if has_manifest else None,
        files=tuple(AuditedFile(file.path, file.size, hash_file(location, file.path)) for file in paths),
    )


def certificate_bytes(certificate: Certificate) -> bytes:
    """Return the text of a certificate: indented JSON."""
    return msgspec.json.format(msgspec.json.encode(certificate)) + b"\n"


def read_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Return the certificate in a file; raise StoreError if it cannot be read as one."""
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=Certificate)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{path}: not readable as a certificate ({one_line(error)})") from error
    if found.format != FORMAT_VERSION:
        raise StoreError(f"{path}: has format {found.format}, this version reads {FORMAT_VERSION}")
    return found


# --- whether it still speaks of the data -------------------------------------------------------------------------


def find_certificate(location: Location) -> str | None:
    """Return the path of the certificate that lies beside data; None where there is none."""
    name = f"{CERTIFICATE_FOLDER}/{FILE}"
    has_one = location.is_local and location.kind(name) == pyarrow.fs.FileType.File
    return location.path(name) if has_one else None


def check_certificate(frame: RunFrame, path: str | os.PathLike[str]) -> list[Finding]:
    """Hold a certificate against the data that it speaks of; return what is wrong, or worth knowing."""
    try:
        certificate = read_certificate(path)
        named = name_runs(frame)
    except ButterError as error:
        return [Finding("wrong-certificate", str(path), one_line(error))]
    where = str(path)
    findings = [Finding("wrong-certificate", where, line) for line in _contradictions(certificate, frame)]
    findings += [Finding("outdated-certificate", where, line) for line in _changes(certificate, frame, named)]
    if not findings or all(one.is_note for one in findings):
        findings += [Finding("wrong-certificate", where, line) for line in _misdrawn(certificate, named)]
    if certificate.faults:
        first = certificate.faults[0]
        line = f"{counted(len(certificate.faults), 'run')} at fault, the first {first.run_id}: {first.outcome}"
        findings.append(Finding("failed-audit", where, line))
    return findings


def _contradictions(certificate: Certificate, frame: RunFrame) -> Iterator[str]:
    """Yield what cannot be so, whatever became of the data."""
    if certificate.data.study != frame.study.name:
        yield f"is of the study {certificate.data.study}, these data of {frame.study.name}"
    if sorted(one.run_id for one in certificate.runs) != sorted(certificate.drawn.run_ids):
        yield "the runs that it found something of are not those that it drew"
    if certificate.is_sound != (not certificate.faults):
        yield f"says that the data are {'sound' if certificate.is_sound else 'not sound'}, and its runs say otherwise"
    sizes = {file.path: file.size for file in frame.files}
    for file in certificate.data.files:
        if file.path in sizes and hash_file(frame.location, file.path) != file.sha256:
            yield f"{file.path} has other bytes than those that were audited"


def _changes(certificate: Certificate, frame: RunFrame, named: Sequence[NamedRun]) -> Iterator[str]:
    """Yield what has changed since."""
    data, location = certificate.data, frame.location
    if data.names_sha256 != names_sha256([run.run_id for run in named]):
        yield f"speaks of {counted(data.rows, 'run')}, other ones than the {len(named):,} that are here"
    present = {file.path for file in frame.files}
    if lacking := [file.path for file in data.files if file.path not in present]:
        yield f"{counted(len(lacking), 'file')} that it names are not here, the first {lacking[0]}"
    if data.manifest_sha256 is not None:
        has_one = location.kind(MANIFEST) == pyarrow.fs.FileType.File
        if not has_one or hash_file(location, MANIFEST) != data.manifest_sha256:
            yield "speaks of another manifest than the one that is here"


def _misdrawn(certificate: Certificate, named: Sequence[NamedRun]) -> Iterator[str]:
    """Yield a line where a seed does not draw what a certificate says it did, from the runs that it speaks of."""
    run_ids = [run.run_id for run in named]
    if names_sha256(run_ids) != certificate.data.names_sha256:
        return  # they are not here any more to be drawn from
    drawn = certificate.drawn
    try:
        wanted = draw(run_ids, drawn.seed, sample_size(drawn.sample, len(run_ids)))
    except SelectError as error:
        yield one_line(error)
        return
    if wanted != sorted(drawn.run_ids):
        yield f"seed {drawn.seed} draws other runs than it names"
