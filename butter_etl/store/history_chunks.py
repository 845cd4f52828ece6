"""Chunks of history columns, as footers speak of them, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from butter_etl.store.thrift import read_struct

#: How Parquet numbers the types of stored numbers, compressions, encodings and pages.
INT32, FLOAT, DOUBLE = 1, 4, 5
UNCOMPRESSED, ZSTD = 0, 6
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 2, 3, 8, 9
DATA_PAGE, DICTIONARY_PAGE = 0, 2
#: Offsets of lists are int32.
_MOST_ENTRIES: Final = 2**31 - 1
#: The numbers that lists are read of: as files store them, and as whole numbers of the same width.
STORED_AS: Final[dict[pa.DataType, tuple[int, npt.DTypeLike, npt.DTypeLike]]] = {
    pa.float32(): (FLOAT, np.float32, np.uint32),
    pa.float64(): (DOUBLE, np.float64, np.uint64),
    pa.uint8(): (INT32, np.int32, np.uint32),
    pa.uint16(): (INT32, np.int32, np.uint32),
}
_LIST: Final = pa.list_(pa.float32()).id


class Passed:
    """How many bytes of histories this process has read and written by pyarrow.

    Compiled code saves about a millisecond a megabyte. To load it takes some milliseconds, to compile it, once for a
    processor, twenty seconds. So it is loaded or compiled once that pays, now or for others that come.
    """

    #: Of so many bytes, to load it, and to compile it, pays.
    worth_loading: ClassVar[int] = 2**22
    worth_compiling: ClassVar[int] = 2**26
    total: ClassVar[int] = 0

    @classmethod
    def are_many(cls, more: int, is_compiled: Callable[[], bool]) -> bool:
        """Count ``more`` bytes; tell whether compiled code pays by now, given whether it is to be compiled."""
        cls.total += more
        return cls.total >= cls.worth_compiling or (cls.total >= cls.worth_loading and is_compiled())


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


@dataclass(frozen=True)
class StoredLists:
    """The lists of a chunk, still as the pages that hold them; these agree with their checksums.

    ``data`` are the bytes of the chunk, of which a dictionary, if there is one, takes the first ``dictionary``.
    ``pages`` int64 (pages, 3) has of each other page where it begins in ``data``, its bytes, and its first list.
    ``encoding`` is that of these pages, ``numbers`` and ``nulls`` count numbers and null lists. ``decode`` gives the
    lists.
    """

    data: npt.NDArray[np.uint8]
    chunk: Chunk
    kind: pa.DataType
    rows: int
    nulls: int
    numbers: int
    encoding: int
    dictionary: int
    pages: npt.NDArray[np.int64]
    decode: Callable[[], pa.Array]

    @property
    def nbytes(self) -> int:
        """Return the bytes that they take once they are read."""
        return 4 * self.rows + self.numbers * int(self.kind.value_type.bit_width) // 8

    def read(self) -> pa.ChunkedArray:
        """Return the lists; raise DamagedPageError where pages cannot be decoded after all."""
        return pa.chunked_array([self.decode()])


def is_history(kind: pa.DataType) -> bool:
    """Tell whether columns of a type may be read here: nullable lists of nullable numbers."""
    return kind.id == _LIST and kind.value_type in STORED_AS and bool(kind.value_field.nullable)


def is_history_field(field: pa.Field) -> bool:
    """Tell whether a column may be read and written here."""
    return bool(field.nullable) and is_history(field.type)


def check_column(name: bytes, found: int, field: pa.Field) -> None:
    """Raise DamagedPageError where what a footer says of a chunk does not go with its schema.

    It says a name, and of how many definition levels it has counts, -1 where it does not. Nobody could tell from pages:
    a name that is damaged makes a column that is not there, levels that are make nulls of values.
    """
    if name != field.name.encode():
        raise DamagedPageError(f"column {field.name} is called {name.decode(errors='replace')!r}, too")
    wanted = _definition_levels(field)
    if wanted is not None and found >= 0 and found != wanted and not (wanted == 1 and found == 0):
        raise DamagedPageError(f"column {field.name} has {found} definition levels, not {wanted}")


def check_footer(footer: bytes, schema: pa.Schema) -> None:
    """Hold all chunks of a footer against the schema, as `check_column` does one; it takes milliseconds.

    Raises DamagedPageError, also for a footer that is none.
    """
    try:
        said, _ = read_struct(footer)
        for group in said[4].value.values:
            for field, chunk in zip(schema, group[1].value.values, strict=True):
                column = chunk[3].value
                sizes = column[16].value if 16 in column else {}
                levels = len(sizes[3].value.values) if 3 in sizes else -1
                check_column(column[3].value.values[0], levels, field)
    except DamagedPageError:
        raise
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise DamagedPageError(f"the footer is not one ({error})") from error


def _definition_levels(field: pa.Field) -> int | None:
    """Return how many definition levels a column has; None for one that may be nested otherwise than a list."""
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        return None
    if not pa.types.is_nested(kind):
        return 1 + bool(field.nullable)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or pa.types.is_nested(kind.value_type):
        return None
    return 2 + bool(field.nullable) + bool(kind.value_field.nullable)


def chunk_of(said: Sequence[int], kind: pa.DataType, file_size: int) -> Chunk | None:
    """Return a chunk as the footer has it; None for one that is for pyarrow to read.

    ``said`` is what `butter_etl.store.footer_kernels.scan_footer` fills in. Raises DamagedPageError for what cannot be.
    """
    stored, codec, entries, uncompressed, size, start, dictionary = said[:7]
    if stored != STORED_AS[kind.value_type][0]:
        raise DamagedPageError(f"a column of {kind} is stored as type {stored}")
    if codec not in (UNCOMPRESSED, ZSTD) or entries == 0:
        return None
    if 0 < dictionary < start:
        start = dictionary
    if start < len(b"PAR1") or size <= 0 or start + size > file_size or entries < 0:
        raise DamagedPageError(f"a column of {entries} entries at bytes {start} to {start + size} of {file_size}")
    return Chunk(start, size, entries, uncompressed, codec == ZSTD) if entries <= _MOST_ENTRIES else None
