"""Fingerprints of the run files behind each summary row, by which a store knows which summaries are out of date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from butter_etl.store.files import Location
from butter_etl.store.footers import read_footer
from butter_etl.store.layout import RunFile
from butter_etl.store.thrift import read_varint
from butter_etl.studies import Frame

METADATA_KEY = b"butter_etl.fingerprints"
#: How much of a file's end is read at first: a footer is rarely longer.
_TAIL = 2**17


def fingerprint(files: Iterable[RunFile], frame: Frame) -> str:
    """Return a hash of the names and sizes of an experiment's run files, and of the version of a frame's statistics."""
    facts = sorted((file.path.rpartition("/")[2], file.size) for file in files)
    text = json.dumps([frame.version, facts], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprints_metadata(fingerprints: Mapping[int, str]) -> dict[str, str]:
    """Return the footer metadata with the fingerprints of a file's rows, sorted: equal fingerprints are equal text."""
    return {METADATA_KEY.decode(): json.dumps({str(key): fingerprints[key] for key in sorted(fingerprints)})}


def parse_fingerprints(text: bytes | None) -> dict[int, str]:
    """Return the fingerprint of each row of a summary file, by experiment id, from the text in its footer."""
    return {int(key): value for key, value in json.loads(text or b"{}").items()}


def read_fingerprints(location: Location, name: str) -> dict[int, str]:
    """Return the fingerprint of each row of a summary file, by experiment id; empty if there is no file.

    Raises TornFileError if the file cannot be read.
    """
    return parse_fingerprints(raw_fingerprints(location, name))


def raw_fingerprints(location: Location, name: str) -> bytes | None:
    """Return the text in a summary file's footer that `parse_fingerprints` reads; None if there is no file.

    Planning asks thousands of files for it, so it is taken from the footer's bytes: to decode what a footer says of a
    hundred and fifty columns took most of the time. Raises TornFileError if the file has no footer.
    """
    try:
        with location.open_input(name) as file, location.errors(name):
            footer = read_footer(file, _TAIL)
    except FileNotFoundError:
        return None
    found = -1 if footer is None else footer.rfind(_KEY_IN_FOOTER)
    if footer is not None and found >= 0:
        length, start = read_varint(footer, found + len(_KEY_IN_FOOTER))
        return footer[start : start + length]
    with location.parquet_file(name) as parquet:
        metadata: dict[bytes, bytes] = parquet.metadata.metadata or {}
    return metadata.get(METADATA_KEY, b"{}")


# A footer is a Thrift structure in the compact protocol. In its list of keys and values an entry has field 1, the key,
# and field 2, the value: a byte for "the next field, a string", the length as a variable-length integer, the bytes.
_STRING_FIELD = b"\x18"
_KEY_IN_FOOTER = _STRING_FIELD + bytes([len(METADATA_KEY)]) + METADATA_KEY + _STRING_FIELD
