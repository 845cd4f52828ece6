"""Data sets as networks see them, kept beside their sources: workers read these without what encodes them.

Encoding takes pandas or scikit-learn, and seconds for the largest; a job of a thousand workers would load these a
thousand times from a file system that all share. ``<name>/<name>.encoded.parquet`` in the data folder has one column,
float32: the inputs row by row, then the targets. Its footer says how many there are, of what it was made, and by which
rules.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

#: The rules of encoding: files of others are not read.
VERSION: Final = 1
_KEY: Final = b"butter_etl.encoded"
#: What is read at once takes memory twice.
_GROUP_ROWS: Final = 2**22
_LOG = logging.getLogger("butter_etl")


class Encoded(msgspec.Struct, frozen=True):
    """What a footer says: the source, the content's shape, and its SHA-256 as runs record it."""

    source: str
    rows: int
    inputs: int
    sha256: str
    version: int = VERSION


def encoded_path(name: str, directory: str | Path) -> Path:
    """Return the path of a data set's encoded file in a data folder."""
    return Path(directory) / name / f"{name}.encoded.parquet"


def read_encoded(path: Path, source: str) -> tuple[NDArray[np.float32], NDArray[np.float32], str] | None:
    """Return inputs and targets, float32 (rows, columns), C-contiguous, and the SHA-256 that they should have.

    Returns None if there is no file of that source, or it cannot be read, which the log says.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            said = msgspec.json.decode((file.metadata.metadata or {}).get(_KEY, b"null"), type=Encoded | None)
            if said is None or (said.source, said.version) != (source, VERSION):
                return None
            values = np.empty(file.metadata.num_rows, np.float32)
            end = 0
            for batch in file.iter_batches(_GROUP_ROWS):
                values[end : (end := end + len(batch))] = np.from_dlpack(batch[0])
            x, y = np.split(values, [said.rows * said.inputs])
            return x.reshape(said.rows, said.inputs), y.reshape(said.rows, -1), said.sha256
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError, msgspec.DecodeError) as error:
        _LOG.warning("%s cannot be read (%s); the data set is encoded anew", path, error)
        return None


def is_encoded(path: Path, source: str) -> bool:
    """Tell whether there is a file of that source, by its footer."""
    try:
        said = (pq.read_metadata(path).metadata or {}).get(_KEY, b"null")
        found = msgspec.json.decode(said, type=Encoded | None)
    except (pa.ArrowException, OSError, msgspec.DecodeError):
        return False
    return found is not None and (found.source, found.version) == (source, VERSION)


def write_encoded(path: Path, source: str, x: NDArray[np.float32], y: NDArray[np.float32], sha256: str) -> None:
    """Write a file, which appears whole or not at all; raise OSError where that cannot be."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    said = msgspec.json.encode(Encoded(source, x.shape[0], x.shape[1], sha256)).decode()
    table = pa.table({"values": pa.chunked_array([pa.array(part.reshape(-1)) for part in (x, y)])})
    table = table.replace_schema_metadata({_KEY.decode(): said})
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        pq.write_table(table, temporary, row_group_size=_GROUP_ROWS, compression="zstd", write_page_checksum=True)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
