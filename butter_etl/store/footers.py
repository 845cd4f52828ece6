"""Footers of Parquet files as bytes: pyarrow gives what it makes of them, which takes longer or says less."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

MAGIC: Final = b"PAR1"
#: What stands behind a footer: its length in four bytes, and `MAGIC`.
_END: Final = 8


def read_footer(file: pa.NativeFile, at_first: int = 2**16) -> bytes | None:
    """Return the footer of a Parquet file; None if it does not end like one.

    ``at_first`` is how many bytes of its end are read at first: a footer that is longer takes another read.
    """
    size = file.size()
    tail: bytes = file.read_at(min(size, at_first), max(0, size - at_first))
    length = int.from_bytes(tail[-_END:-4], "little")
    if size < _END + len(MAGIC) or tail[-4:] != MAGIC or length + _END > size:
        return None
    if length + _END <= len(tail):
        return tail[-_END - length : -_END]
    footer: bytes = file.read_at(length, size - _END - length)
    return footer


def alone(footer: bytes) -> bytes:
    """Return the bytes of a file that has nothing but a footer."""
    return MAGIC + footer + len(footer).to_bytes(4, "little") + MAGIC
