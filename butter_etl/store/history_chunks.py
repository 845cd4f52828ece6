"""Chunks of history columns, as footers speak of them, and what may be wrong with them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

#: Offsets of lists are int32.
_MOST_ENTRIES: Final = 2**31 - 1
#: The numbers that lists are read of: as files store them, and as whole numbers of the same width.
STORED_AS: Final[dict[pa.DataType, tuple[str, npt.DTypeLike, npt.DTypeLike]]] = {
    pa.float32(): ("FLOAT", np.float32, np.uint32),
    pa.float64(): ("DOUBLE", np.float64, np.uint64),
    pa.uint8(): ("INT32", np.int32, np.uint32),
    pa.uint16(): ("INT32", np.int32, np.uint32),
}


class DamagedPageError(pa.ArrowInvalid):  # type: ignore[misc]
    """A page is not what its file says; the message says how.

    It is what pyarrow raises for others of that kind.
    """


class Unusual(Exception):  # noqa: N818 (no error: somebody else reads it)
    """A chunk that is for pyarrow to read."""


class Chunk(NamedTuple):
    """Where a chunk lies in its file, and what the footer says of it."""

    start: int
    size: int
    entries: int
    uncompressed: int
    is_compressed: bool


def is_history(kind: pa.DataType) -> bool:
    """Tell whether columns of a type may be read here."""
    return bool(pa.types.is_list(kind)) and kind.value_type in STORED_AS


def stored_type(kind: pa.DataType) -> str:
    """Return how Parquet calls the type by which files store the numbers of a column that `is_history`."""
    return STORED_AS[kind.value_type][0]


def chunk_of(facts: pq.ColumnChunkMetaData, kind: pa.DataType) -> Chunk | None:
    """Return a chunk as the footer has it; None for one that is for pyarrow to read."""
    compression = facts.compression
    if compression not in ("ZSTD", "UNCOMPRESSED") or facts.physical_type != stored_type(kind):
        return None
    start, dictionary = facts.data_page_offset, facts.dictionary_page_offset
    if dictionary is not None and 0 < dictionary < start:
        start = dictionary
    size, entries = facts.total_compressed_size, facts.num_values
    if start < 4 or size <= 0 or not 0 <= entries <= _MOST_ENTRIES:
        return None
    return Chunk(start, size, entries, facts.total_uncompressed_size, compression == "ZSTD")
