"""What a store keeps of whose data it holds: it is given to an export once, and stays for those that follow."""

from __future__ import annotations

import logging
from typing import Final

import msgspec
import pyarrow.fs

from butter_etl.errors import PlaceError, StoreError, writing
from butter_etl.store.files import Location
from butter_etl.studies import NOBODY, Attribution

FILE: Final = "attribution.json"

logger = logging.getLogger(__name__)


def read_attribution(location: Location) -> Attribution:
    """Return what a store keeps; raise StoreError for a file that cannot be read as that."""
    if location.kind(FILE) != pyarrow.fs.FileType.File:
        return NOBODY
    try:
        return msgspec.json.decode(location.read_bytes(FILE), type=Attribution)
    except msgspec.DecodeError as error:
        raise StoreError(f"{location}/{FILE}: cannot be read ({error}); correct it, or remove it") from error


def keep_attribution(location: Location, given: Attribution) -> Attribution:
    """Return what was given, completed by what a store keeps; the store keeps the result.

    Of a store that cannot be written nothing changes, and the log says so: what is exported keeps in its manifest what
    was given.
    """
    kept = read_attribution(location)
    completed = given.completed(kept)
    if completed != kept:
        try:
            with writing(location):
                location.replace(FILE, msgspec.json.format(msgspec.json.encode(completed), indent=1) + b"\n")
        except PlaceError as error:
            logger.warning("%s: it does not keep authors, title, licence and DOI for exports that follow", error)
    return completed
