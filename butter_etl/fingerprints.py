"""What summary rows were made from: how a store knows which of its summaries are out of date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.fs

from butter_etl.aggregations import STATISTICS_VERSION
from butter_etl.location import Location, parquet_bytes
from butter_etl.store import RunFile

_METADATA_KEY = b"butter_etl.fingerprints"
#: Experiments a row group of a summary file: small enough that a reader of one experiment's column reads little else.
_ROWS_A_GROUP = 8


def fingerprint(files: Iterable[RunFile]) -> str:
    """A hash of the names and sizes of an experiment's run files, and of the version of the statistics."""
    facts = sorted((file.path.rpartition("/")[2], file.size) for file in files)
    text = json.dumps([STATISTICS_VERSION, facts], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprints_metadata(fingerprints: Mapping[int, str]) -> dict[str, str]:
    """What a summary file's footer says of its rows, sorted so that equal fingerprints are equal text."""
    return {_METADATA_KEY.decode(): json.dumps({str(key): fingerprints[key] for key in sorted(fingerprints)})}


def read_fingerprints(location: Location, name: str) -> dict[int, str]:
    """What each row of a summary file was made from, by experiment id; empty if there is no file.

    Raises TornFileError if the file cannot be read.
    """
    if location.kind(name) != pa.fs.FileType.File:
        return {}
    with location.parquet_file(name) as file:
        text = (file.metadata.metadata or {}).get(_METADATA_KEY, b"{}")
    return {int(key): value for key, value in json.loads(text).items()}


def write_summary(location: Location, name: str, table: pa.Table, fingerprints: Mapping[int, str]) -> None:
    """Replace a summary file by rows sorted by experiment id, with what they were made from in its metadata."""
    metadata = fingerprints_metadata(fingerprints)
    ordered = table.sort_by("experiment_id").replace_schema_metadata(None)
    location.replace(name, parquet_bytes(ordered, metadata=metadata, row_group_size=_ROWS_A_GROUP))
