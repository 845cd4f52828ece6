"""Columns of frames as values: name, type, sentence, and how files encode them.

Columns of summaries follow from the statistics that are declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import pyarrow as pa

from butter_etl.engines import Extremum, Reduction, Series, Statistic

FLOAT_LIST: Final = pa.list_(pa.field("element", pa.float32()))
FLOAT64_LIST: Final = pa.list_(pa.field("element", pa.float64()))
UINT8_LIST: Final = pa.list_(pa.field("element", pa.uint8()))
UINT16_LIST: Final = pa.list_(pa.field("element", pa.uint16()))
UINT32_LIST: Final = pa.list_(pa.field("element", pa.uint32()))


class PageEncoding(NamedTuple):
    """How files encode a column: its pages' layout, and whether they are compressed (by zstd).

    Columns that nobody looks values up in have no ``bounds``, the least and the greatest value, in footers.
    """

    layout: Literal["plain", "dictionary", "split"]
    compressed: bool
    bounds: bool = True


#: Losses are noise to a dictionary, so their bytes are split by significance.
NOISE: Final = PageEncoding("split", compressed=True)
#: Accuracies and counts have few distinct values.
LEVELS: Final = PageEncoding("dictionary", compressed=True)
#: Texts that are long, or differ from row to row.
LONG_TEXT: Final = PageEncoding("dictionary", compressed=True)
#: Texts that are long and the same in most rows, such as what a program says of itself.
FACTS: Final = PageEncoding("dictionary", compressed=True, bounds=False)
_TEXT: Final = PageEncoding("dictionary", compressed=False)
#: Contents such as images.
_BYTES: Final = PageEncoding("plain", compressed=True, bounds=False)
_SCALAR: Final = PageEncoding("plain", compressed=False)


def usual_encoding(kind: pa.DataType) -> PageEncoding:
    """Return the encoding of a column of which nothing but the type is known."""
    if pa.types.is_list(kind):
        return NOISE if pa.types.is_floating(kind.value_type) else LEVELS
    if pa.types.is_fixed_size_binary(kind):
        return _BYTES
    return _TEXT if pa.types.is_string(kind) else _SCALAR


@dataclass(frozen=True)
class Column:
    """A column of a frame. ``note`` says what it means, in a sentence without its period.

    Without ``special`` it is encoded as its type asks for. One that came ``later`` is the last, and null in rows of
    files that lack it.
    """

    name: str
    type: pa.DataType
    note: str
    special: PageEncoding | None = None
    later: bool = False

    @property
    def encoding(self) -> PageEncoding:
        """Return how files encode the column."""
        return self.special or usual_encoding(self.type)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of some columns."""
    return pa.schema([(column.name, column.type) for column in columns])


def series_columns(
    reduction: Reduction, which: Literal["published", "added"], histories: Mapping[str, Column]
) -> Iterator[Column]:
    """Yield the list columns of the series of a summary, the published ones or those of the later release.

    Floats are encoded as the history that they are computed from.
    """
    for one in reduction.series:
        for statistic in getattr(one, which):
            yield _list_column(reduction, one, statistic, histories[one.history])


def _list_column(reduction: Reduction, series: Series, statistic: Statistic, history: Column) -> Column:
    kind = reduction.type_of(statistic)
    special = history.special if pa.types.is_floating(kind) else None
    note = f"{statistic.note} over the runs of the {series.note}, a value {an(reduction.point)}"
    return Column(f"{series.name}_{statistic.name}", pa.list_(pa.field("element", kind)), note, special)


def extremum_columns(reduction: Reduction) -> Iterator[Column]:
    """Yield the scalar columns of the extrema of a summary."""
    for name, column in reduction.scalars.items():
        what = _best(column.extremum)
        if column.of == "epoch":
            what = f"{reduction.point} (from 1) of the {what}"
        kind = reduction.type_of(column.statistic)
        yield Column(name, kind, f"{column.statistic.note} over the runs of the {what}")


def an(word: str) -> str:
    """Return a word with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _best(extremum: Extremum) -> str:
    return f"{'smallest' if extremum.best == 'min' else 'largest'} {extremum.note}"
