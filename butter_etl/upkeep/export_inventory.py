"""The inventory of an export for a check: its directories, what its manifest says of each file, its archives."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping

import msgspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from butter_etl.errors import StoreError, StudyError, counted, one_line
from butter_etl.exchange import MANIFEST, Manifest, ManifestFile, hash_file, read_manifest
from butter_etl.store import CHUNK_BYTES, COMMON_METADATA, Location
from butter_etl.studies import EXECUTIVE, LEVEL, Study, default_study, find_study
from butter_etl.upkeep.files import Flaw
from butter_etl.upkeep.findings import CheckReport, Finding
from butter_etl.upkeep.inventory import Inventory, Listed, Unit, is_partition, schema_findings

#: Where an audit leaves its certificate beside the data.
CERTIFICATE_FOLDER = "certificate"


def take_export_inventory(location: Location) -> Inventory | None:
    """List an export, one exported directory or a folder of them; return None if the location is neither.

    An export in a format of the study's, without Parquet files, is known by its manifest alone.
    """
    audited = f"{CERTIFICATE_FOLDER}/"  # is no part of the export, and is checked by itself
    files = [Listed(name, size) for name, size in location.walk() if not name.startswith(audited)]
    roots = [file.path.removesuffix(COMMON_METADATA) for file in files if _is_schema(file.path)]
    if not roots and not _has_manifest(location):
        return None
    inventory = Inventory(location.absolute, is_store=False)
    manifests = _read_manifests(location, files, inventory.findings)
    study = _study_of(location, manifests)
    manifest = {_join(folder, entry.path): entry for folder, one in manifests.items() for entry in one.files}
    inventory.findings.extend(_differences(files, manifest, list(manifests)))
    groups: dict[str, list[Listed]] = {}
    others = []
    for file in files:
        if file.path.rpartition("/")[2] == MANIFEST:
            continue
        root = next((root for root in roots if file.path.startswith(root)), None)
        if root is None or not file.path.endswith(".parquet"):
            others.append(file)
        elif is_partition(study, file.path.rpartition("/")[0].removeprefix(root)):
            groups.setdefault(file.path.rpartition("/")[0], []).append(file)
        else:
            inventory.findings.append(Finding("foreign-file", file.path, "is not in a partition of the layout"))
    schemas = {root: _frame_schema(study, location, root, inventory.findings) for root in roots}
    for folder, members in sorted(groups.items()):
        root = next(root for root in roots if f"{folder}/".startswith(root))
        said = {file.path: manifest[file.path] for file in members if file.path in manifest}
        unit = Unit(study, folder.removeprefix(root), manifest=said, schema=schemas[root])
        files_of = "runs" if schemas[root] is study.runs else "summaries"
        inventory.units.append(msgspec.structs.replace(unit, **{files_of: tuple(members)}))
    for file in others:
        said = {file.path: manifest[file.path]} if file.path in manifest else {}
        inventory.units.append(Unit(study, "", others=(file,), manifest=said))
    return inventory


def _is_schema(path: str) -> bool:
    """Tell whether a file is the schema of an exported directory: of the location itself, or of a folder in it."""
    return path.rpartition("/")[2] == COMMON_METADATA and path.count("/") <= 1


def _has_manifest(location: Location) -> bool:
    """Tell whether there is a manifest of an export: others' files may have its name too."""
    try:
        manifest = read_manifest(location)
    except StoreError:
        return False
    return manifest is not None and bool(manifest.directories)


def _frame_schema(study: Study, location: Location, root: str, findings: list[Finding]) -> pa.Schema:
    """Return the schema of an exported directory: of runs, of summaries, of executive summaries, or of intervals."""
    path = f"{root}{COMMON_METADATA}"
    try:
        with location.open_input(path) as file:
            names = pq.read_schema(file).names
    except (pa.ArrowException, OSError):
        names = []
    is_runs = "run_id" in names or (not names and root.rstrip("/").endswith("runs"))
    is_executive = f"{location.root}/{root}".rstrip("/").endswith(f"/{EXECUTIVE}") and bool(study.executive.names)
    schema = study.runs if is_runs else study.executive if is_executive else study.summary
    if LEVEL.name in names:
        schema = study.precision
    findings.extend(schema_findings(study, location, path, schema))
    return schema


# --- manifests ---------------------------------------------------------------------------------------------------


def _read_manifests(location: Location, files: list[Listed], findings: list[Finding]) -> dict[str, Manifest]:
    """Return the manifests that can be read, by their folders."""
    manifests: dict[str, Manifest] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if name != MANIFEST:
            continue
        try:
            manifests[folder] = msgspec.json.decode(location.read_bytes(file.path), type=Manifest)
        except msgspec.DecodeError as error:
            findings.append(Finding("wrong-manifest", file.path, f"cannot be read ({error})"))
    return manifests


def _study_of(location: Location, manifests: Mapping[str, Manifest]) -> Study:
    """Return the study of an export, as its manifests say; where there is none, that of new stores.

    Raises StudyError for a study that is not known here, or for several.
    """
    if not manifests:
        return default_study()
    studies = {find_study(manifest.study, f"{location}") for manifest in manifests.values()}
    if len(studies) > 1:
        names = ", ".join(sorted(study.name for study in studies))
        raise StudyError(f"{location}: holds exports of several studies ({names}); check each by itself")
    return studies.pop()


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _differences(files: list[Listed], manifest: Mapping[str, ManifestFile], folders: list[str]) -> Iterator[Finding]:
    """Yield findings for files that the manifests name and that are not there, and the other way round."""
    present = {file.path for file in files}
    for path in sorted(manifest.keys() - present):
        yield Finding("missing-file", path, "is in the manifest and not there")
    for path in sorted(present - manifest.keys()):
        is_covered = any(not folder or path.startswith(f"{folder}/") for folder in folders)
        if is_covered and path.rpartition("/")[2] != MANIFEST:
            yield Finding("unlisted-file", path, "is not in the manifest")


def check_entry(data: bytes, entry: ManifestFile | None) -> None:
    """Raise Flaw ``altered-file`` unless a file has the bytes that a manifest says, if it names the file."""
    if entry is not None:
        _compare_entry(len(data), hashlib.sha256(data).hexdigest(), entry)


def check_row_count(rows: int, entry: ManifestFile | None) -> None:
    """Raise Flaw ``wrong-manifest`` unless a Parquet file has the rows that a manifest says, if it does."""
    if entry is not None and entry.rows is not None and entry.rows != rows:
        raise Flaw("wrong-manifest", f"the manifest says {entry.rows:,} rows, there are {rows:,}")


def _compare_entry(size: int, sha256: str, entry: ManifestFile) -> None:
    if size != entry.bytes:
        raise Flaw("altered-file", f"has {size:,} bytes, {entry.bytes:,} in the manifest")
    if sha256 != entry.sha256:
        raise Flaw("altered-file", f"has SHA-256 {sha256[:12]}…, {entry.sha256[:12]}… in the manifest")


# --- files of no partition ---------------------------------------------------------------------------------------


def check_other(location: Location, listed: Listed, entry: ManifestFile | None) -> CheckReport:
    """Check a file of no partition against the manifest, and an archive against the directory that it archives."""
    findings = []
    try:
        if entry is not None:
            _compare_entry(listed.size, hash_file(location, listed.path), entry)
        folder = listed.path.removesuffix(".tar")
        if folder != listed.path and location.kind(folder) == pa.fs.FileType.Directory:
            _check_archive(location, listed.path, folder)
    except Flaw as flaw:
        findings.append(Finding(flaw.kind, listed.path, flaw.detail))
    except FileNotFoundError:  # gone since it was listed
        return CheckReport()
    rows = 0 if entry is None or findings else entry.rows or 0
    return CheckReport(1, rows, listed.size, findings=tuple(findings))


def _check_archive(location: Location, path: str, folder: str) -> None:
    """Raise Flaw ``wrong-archive`` unless an archive's members are its directory's files, byte for byte."""
    base = folder.rpartition("/")[2]
    wanted = {f"{base}/{name}" for name, _ in location.walk(folder) if name != MANIFEST}
    found = set()
    try:
        with (
            location.open_stream(path) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                if member.name in found or member.name not in wanted or not member.isfile():
                    raise Flaw("wrong-archive", f"member {member.name} is not one of the directory's files")
                found.add(member.name)
                _check_member(location, tar, member, f"{folder}/{member.name.removeprefix(f'{base}/')}")
    except (tarfile.TarError, EOFError) as error:
        raise Flaw("wrong-archive", f"cannot be read ({one_line(error)})") from error
    if lacking := sorted(wanted - found):
        raise Flaw("wrong-archive", f"lacks {counted(len(lacking), 'file')}, the first {lacking[0]}")


def _check_member(location: Location, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    content = tar.extractfile(member)
    if content is None:
        raise AssertionError(member)
    with location.open_stream(path) as stream:
        while True:
            ours, theirs = stream.read(CHUNK_BYTES), content.read(CHUNK_BYTES)
            if ours != theirs:
                raise Flaw("wrong-archive", f"member {member.name} differs from the file")
            if not ours:
                return
