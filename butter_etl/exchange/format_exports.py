"""Files of an export in a format of the study: those of the runs that a file of the store has."""

from __future__ import annotations

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
    """Make the files of all runs in one file of the store, and return their entries in the manifest.

    Row groups are read one by one. Raises TornFileError if the file of the store cannot be read, SourceError if its
    values do not fit into their types, or tell no name of a file.
    """
    made = []
    for source in file.sources:
        name = f"{directory.frame.folder}/{source}"
        reader = Reader(store.study, store.location.absolute, "", SEED.name)
        for group in range(_row_groups(store.location, name)):
            made += [_add(publication, directory, one) for one in form.write(reader.read(Group(name, group)))]
    return made


def _add(publication: Publication, directory: ExportDirectory, written: Written) -> ManifestFile:
    if not written.name or "/" in written.name or written.name.startswith("."):
        raise SourceError(f"{directory.name}: a run cannot have a file called {written.name!r}")
    return publication.add_bytes(f"{directory.name}/{written.name}", written.data, written.rows)


def _row_groups(location: Location, name: str) -> int:
    with location.parquet_file(name) as file:
        return int(file.num_row_groups)
