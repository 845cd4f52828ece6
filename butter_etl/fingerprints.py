"""What summary rows were made from: how a store knows which of its summaries are out of date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import pyarrow.fs

from butter_etl.aggregations import STATISTICS_VERSION
from butter_etl.location import Location
from butter_etl.store import RunFile

METADATA_KEY = b"butter_etl.fingerprints"


def fingerprint(files: Iterable[RunFile]) -> str:
    """A hash of the names and sizes of an experiment's run files, and of the version of the statistics."""
    facts = sorted((file.path.rpartition("/")[2], file.size) for file in files)
    text = json.dumps([STATISTICS_VERSION, facts], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprints_metadata(fingerprints: Mapping[int, str]) -> dict[str, str]:
    """What a summary file's footer says of its rows, sorted so that equal fingerprints are equal text."""
    return {METADATA_KEY.decode(): json.dumps({str(key): fingerprints[key] for key in sorted(fingerprints)})}


def parse_fingerprints(metadata: Mapping[bytes, bytes]) -> dict[int, str]:
    """What each row of a summary file was made from, by experiment id, of the metadata in its footer."""
    return {int(key): value for key, value in json.loads(metadata.get(METADATA_KEY, b"{}")).items()}


def read_fingerprints(location: Location, name: str) -> dict[int, str]:
    """What each row of a summary file was made from, by experiment id; empty if there is no file.

    Raises TornFileError if the file cannot be read.
    """
    return parse_fingerprints({METADATA_KEY: raw_fingerprints(location, name) or b"{}"})


def raw_fingerprints(location: Location, name: str) -> bytes | None:
    """The text in a summary file's footer that `parse_fingerprints` reads; None if there is no file.

    Raises TornFileError if the file cannot be read.
    """
    if location.kind(name) != pyarrow.fs.FileType.File:
        return None
    with location.parquet_file(name) as file:
        metadata: dict[bytes, bytes] = file.metadata.metadata or {}
    return metadata.get(METADATA_KEY, b"{}")
