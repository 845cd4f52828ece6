"""Files of an export in a format of the study: those of the runs that files of the store have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from butter_etl.errors import SourceError
from butter_etl.exchange.export_plan import ExportDirectory, ExportFile
from butter_etl.exchange.manifest import ManifestFile
from butter_etl.exchange.publication import Publication
from butter_etl.exchange.sources import Group, Reader
from butter_etl.store import Location, Store
from butter_etl.studies import SEED, Format, Written


def export_formatted(
    store: Store, publication: Publication, directory: ExportDirectory, form: Format, file: ExportFile
) -> list[ManifestFile]:
    """Make the files of all runs in some files of the store, and return their entries in the manifest.

    Row groups are read and written one by one, or all of them as one file where the format names it. Raises
    TornFileError if a file of the store cannot be read, SourceError if values do not fit into their types, or tell no
    name of a file.
    """
    groups = _groups(store, [f"{directory.frame.folder}/{source}" for source in file.sources])
    if form.file is not None:
        (written,) = form.write(pa.concat_tables(groups))
        return [_add(publication, directory, written._replace(name=file.name))]
    return [_add(publication, directory, one) for rows in groups for one in form.write(rows)]


def _groups(store: Store, names: Iterable[str]) -> Iterator[pa.Table]:
    """Yield the rows of each row group of some files."""
    for name in names:
        reader = Reader(store.study, store.location.absolute, "", SEED.name)
        for group in range(_row_groups(store.location, name)):
            yield reader.read(Group(name, group))


def _add(publication: Publication, directory: ExportDirectory, written: Written) -> ManifestFile:
    if not written.name or "/" in written.name or written.name.startswith("."):
        raise SourceError(f"{directory.name}: a run cannot have a file called {written.name!r}")
    return publication.add_bytes(f"{directory.name}/{written.name}", written.data, written.rows)


def _row_groups(location: Location, name: str) -> int:
    with location.parquet_file(name) as file:
        return int(file.num_row_groups)
