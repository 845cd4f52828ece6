"""The products of recurrent networks: rows of sums, in tiles of up to six rows and four vectors.

A tile's sums stay in registers while it walks along its terms; products forward, back and of gradients are all of this
kind. From 17 units on, they take about as long as OpenBLAS takes for large square matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from butter_etl.engines.compiling import compiled_inside
from butter_etl.engines.convolutional.lanes import keep_apart
from butter_etl.engines.recurrent.lanes import tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from butter_etl.engines.fused.lanes import Array
    from butter_etl.engines.recurrent.memory import Integers

#: The most rows of a tile.
TILE_ROWS: Final = 6


def _tiles_of(rows: int, vectors: int) -> Callable[..., None]:
    """Return `tiles` for a number of rows and of vectors."""

    def multiply(
        count: int,
        scalars: Array,
        row_step: int,
        scalar_step: int,
        table: Integers,
        terms: int,
        values: Array,
        value_step: int,
        results: Array,
        to: int,
        result_step: int,
        adds: int,
        at: int,
    ) -> None:
        keep_apart()
        tiles(
            rows,
            vectors,
            count,
            scalars,
            row_step,
            scalar_step,
            table,
            terms,
            values,
            value_step,
            results,
            to,
            result_step,
            adds,
            at,
        )

    # Kernels from different processes meet in one, where functions of one name are taken for the same.
    multiply.__name__ = multiply.__qualname__ = f"multiply_tiles_{rows}_{vectors}"
    return compiled_inside(multiply)


_tiles_11, _tiles_12, _tiles_13, _tiles_14 = (_tiles_of(1, vectors) for vectors in range(1, 5))
_tiles_21, _tiles_22, _tiles_23, _tiles_24 = (_tiles_of(2, vectors) for vectors in range(1, 5))
_tiles_31, _tiles_32, _tiles_33, _tiles_34 = (_tiles_of(3, vectors) for vectors in range(1, 5))
_tiles_41, _tiles_42, _tiles_43, _tiles_44 = (_tiles_of(4, vectors) for vectors in range(1, 5))
_tiles_51, _tiles_52, _tiles_53, _tiles_54 = (_tiles_of(5, vectors) for vectors in range(1, 5))
_tiles_61, _tiles_62, _tiles_63, _tiles_64 = (_tiles_of(6, vectors) for vectors in range(1, 5))


@compiled_inside
def _any_tiles(rows: int, vectors: int, rest: Any) -> None:  # noqa: PLR0912, PLR0915 (24 shapes)
    """Call `tiles` for a shape that is known only when running."""
    keep_apart()
    which = 4 * rows + vectors
    if which == 28:
        _tiles_64(*rest)
    elif which == 27:
        _tiles_63(*rest)
    elif which == 26:
        _tiles_62(*rest)
    elif which == 25:
        _tiles_61(*rest)
    elif which == 24:
        _tiles_54(*rest)
    elif which == 23:
        _tiles_53(*rest)
    elif which == 22:
        _tiles_52(*rest)
    elif which == 21:
        _tiles_51(*rest)
    elif which == 20:
        _tiles_44(*rest)
    elif which == 19:
        _tiles_43(*rest)
    elif which == 18:
        _tiles_42(*rest)
    elif which == 17:
        _tiles_41(*rest)
    elif which == 16:
        _tiles_34(*rest)
    elif which == 15:
        _tiles_33(*rest)
    elif which == 14:
        _tiles_32(*rest)
    elif which == 13:
        _tiles_31(*rest)
    elif which == 12:
        _tiles_24(*rest)
    elif which == 11:
        _tiles_23(*rest)
    elif which == 10:
        _tiles_22(*rest)
    elif which == 9:
        _tiles_21(*rest)
    elif which == 8:
        _tiles_14(*rest)
    elif which == 7:
        _tiles_13(*rest)
    elif which == 6:
        _tiles_12(*rest)
    elif which == 5:
        _tiles_11(*rest)


@compiled_inside
def multiply(
    rows: int,
    vectors: int,
    scalars: Array,
    row_step: int,
    scalar_step: int,
    table: Integers,
    terms: int,
    values: Array,
    value_step: int,
    results: Array,
    to: int,
    result_step: int,
    adds: int,
) -> None:
    """Sum products as `tiles` does for any number of rows, in tiles as even as they can be: n rows and n - 1."""
    keep_apart()
    count = (rows + TILE_ROWS - 1) // TILE_ROWS
    if count > 0:
        fewer = rows // count
        larger = rows - fewer * count
        done = larger * (fewer + 1)
        rest: Any = (
            larger, scalars, row_step, scalar_step, table, terms, values, value_step, results, to, result_step, adds,
            0 * done,
        )  # fmt: skip
        if larger > 0:
            _any_tiles(fewer + 1, vectors, rest)
        others: Any = (
            count - larger, scalars, row_step, scalar_step, table, terms, values, value_step, results,
            to + done * result_step, result_step, adds, done * row_step,
        )  # fmt: skip
        _any_tiles(fewer, vectors, others)
