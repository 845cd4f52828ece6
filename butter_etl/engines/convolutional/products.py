"""The products of image networks: outputs, gradients of weights, and errors of inputs, all by tiles of one kind.

A tile keeps the sums of up to six rows and four vectors of filters in registers, and walks along the links of a
position or a tap (`butter_etl.engines.convolutional.memory`). Outputs are rows of images times weights; a gradient's
rows are channels, and what is summed over are images; errors of inputs take the weights turned, strip by strip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from butter_etl.engines.compiling import compiled_inside
from butter_etl.engines.convolutional.lanes import CHANGE, LANES, MOVE, RELU, WRITE, keep_apart, tile, turn
from butter_etl.engines.convolutional.memory import (
    AT,
    BIASES,
    CHANNELS,
    CONSTANT,
    CONSTANT_END,
    FILTERS,
    GRADIENT_COLUMNS,
    GRADIENTS,
    GRADIENTS_END,
    IN_WIDTH,
    INPUT_COLUMNS,
    INPUTS,
    INPUTS_END,
    IS_RELU,
    OUT_WIDTH,
    OUTPUT_COLUMNS,
    OUTPUTS,
    OUTPUTS_END,
    SCALAR_STEP,
    STRIP,
    TAPS,
    VARIES,
    VARYING,
    VARYING_END,
    WEIGHTS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from butter_etl.engines.convolutional.lanes import Array, Integers

#: The most rows of a tile.
TILE_ROWS: Final = 6

#: A gradient's sums go to memory after so many images, positions counted on: they stay exact and near the processor.
SUMMED: Final = 512


def _tile_of(rows: int, vectors: int) -> Callable[..., None]:
    """Return `tile` for a number of rows and of vectors."""

    def multiply(
        scalars: Array,
        row_step: int,
        scalar_step: int,
        table: Integers,
        first: int,
        last: int,
        values: Array,
        value_at: int,
        value_unit: int,
        value_step: int,
        starts: Array,
        results: Array,
        to: int,
        result_step: int,
        finish: int,
        rates: Array,
        moments: Array,
        at: int,
    ) -> None:
        keep_apart()
        tile(
            rows,
            vectors,
            scalars,
            row_step,
            scalar_step,
            table,
            first,
            last,
            values,
            value_at,
            value_unit,
            value_step,
            starts,
            results,
            to,
            result_step,
            finish,
            rates,
            moments,
            at,
        )

    # Kernels from different processes meet in one, where functions of one name are taken for the same.
    multiply.__name__ = multiply.__qualname__ = f"multiply_{rows}_{vectors}"
    return compiled_inside(multiply)


_tile_11, _tile_12, _tile_13, _tile_14 = (_tile_of(1, vectors) for vectors in range(1, 5))
_tile_21, _tile_22, _tile_23, _tile_24 = (_tile_of(2, vectors) for vectors in range(1, 5))
_tile_31, _tile_32, _tile_33, _tile_34 = (_tile_of(3, vectors) for vectors in range(1, 5))
_tile_41, _tile_42, _tile_43, _tile_44 = (_tile_of(4, vectors) for vectors in range(1, 5))
_tile_51, _tile_52, _tile_53, _tile_54 = (_tile_of(5, vectors) for vectors in range(1, 5))
_tile_61, _tile_62, _tile_63, _tile_64 = (_tile_of(6, vectors) for vectors in range(1, 5))


@compiled_inside
def multiply_rows(  # noqa: PLR0912, PLR0915 (compiled code; a call for each kind of tile)
    rows: int,
    vectors: int,
    scalars: Array,
    row_step: int,
    scalar_step: int,
    table: Integers,
    first: int,
    last: int,
    values: Array,
    value_at: int,
    value_unit: int,
    value_step: int,
    starts: Array,
    results: Array,
    to: int,
    result_step: int,
    finish: int,
    rates: Array,
    moments: Array,
) -> None:
    """Sum products as `tile` does for any number of rows, in tiles as even as they can be."""
    keep_apart()
    tiles, done = (rows + TILE_ROWS - 1) // TILE_ROWS, 0
    for number in range(tiles):
        count = (rows - done + tiles - number - 1) // (tiles - number)
        rest: Any = (
            scalars,
            row_step,
            scalar_step,
            table,
            first,
            last,
            values,
            value_at,
            value_unit,
            value_step,
            starts,
            results,
            to + done * result_step,
            result_step,
            finish,
            rates,
            moments,
            done * row_step,
        )
        which = 4 * count + vectors
        if which == 28:
            _tile_64(*rest)
        elif which == 27:
            _tile_63(*rest)
        elif which == 26:
            _tile_62(*rest)
        elif which == 25:
            _tile_61(*rest)
        elif which == 24:
            _tile_54(*rest)
        elif which == 23:
            _tile_53(*rest)
        elif which == 22:
            _tile_52(*rest)
        elif which == 21:
            _tile_51(*rest)
        elif which == 20:
            _tile_44(*rest)
        elif which == 19:
            _tile_43(*rest)
        elif which == 18:
            _tile_42(*rest)
        elif which == 17:
            _tile_41(*rest)
        elif which == 16:
            _tile_34(*rest)
        elif which == 15:
            _tile_33(*rest)
        elif which == 14:
            _tile_32(*rest)
        elif which == 13:
            _tile_31(*rest)
        elif which == 12:
            _tile_24(*rest)
        elif which == 11:
            _tile_23(*rest)
        elif which == 10:
            _tile_22(*rest)
        elif which == 9:
            _tile_21(*rest)
        elif which == 8:
            _tile_14(*rest)
        elif which == 7:
            _tile_13(*rest)
        elif which == 6:
            _tile_12(*rest)
        elif which == 5:
            _tile_11(*rest)
        done += count


@compiled_inside
def forward_products(
    layer: Integers, tables: Integers, work: Array, weights: Array, line: Array, other: Array, rows: int
) -> None:
    """Fill the outputs of a layer's convolution, after ReLU where it has one.

    ``line`` and ``other`` have room for a strip.
    """
    keep_apart()
    # Whatever is a literal would be compiled for, each on its own: these are not.
    one: Any = np.int64(1)
    nothing: Any = np.int64(0)
    write: Any = np.int64(WRITE)
    finish: Any = np.int64(RELU if layer[IS_RELU] else WRITE)
    inputs, width = layer[CHANNELS] * layer[TAPS], layer[OUT_WIDTH]
    for strip in range(0, width, STRIP):
        filters = min(STRIP, width - strip)
        vectors, at = filters // LANES, layer[WEIGHTS] + strip * inputs
        for output in range(layer[OUTPUTS], layer[OUTPUTS_END], OUTPUT_COLUMNS):
            to = tables[output + AT] + strip
            for lane in range(filters):
                line[lane] = weights[layer[BIASES] + strip + lane]
            first, last = tables[output + CONSTANT], tables[output + CONSTANT_END]
            if first < last:
                multiply_rows(
                    one, vectors, work, nothing, one, tables, first, last, weights, at, filters, filters, line, other,
                    nothing, nothing, write, other, other,
                )  # fmt: skip
                for lane in range(filters):
                    line[lane] = other[lane]
            first, last, count = tables[output + VARYING], tables[output + VARYING_END], rows
            if not tables[output + VARIES]:
                last, count = first, one
            multiply_rows(
                count, vectors, work, layer[SCALAR_STEP], one, tables, first, last, weights, at, filters, filters,
                line, work, to, width, finish, other, other,
            )  # fmt: skip


@compiled_inside
def takes_one_block(layer: Integers, tables: Integers, rows: int) -> bool:
    """Tell whether the gradient of each of a layer's weights is one sum, of at most `SUMMED` terms."""
    for tap in range(layer[GRADIENTS], layer[GRADIENTS_END], GRADIENT_COLUMNS):
        varying = (tables[tap + 3] - tables[tap + 2]) // 3
        constant = (tables[tap + 5] - tables[tap + 4]) // 3
        if varying * rows > SUMMED or constant > SUMMED or (varying > 0 and constant > 0):
            return False
    return True


@compiled_inside
def gradient_products(
    layer: Integers,
    tables: Integers,
    work: Array,
    results: Array,
    line: Array,
    rates: Array,
    moments: Array,
    rows: int,
) -> None:
    """Change ``results``, laid out as weights are, by the gradient of a layer's weights, from inputs and errors.

    How, ``rates`` says to `butter_etl.engines.convolutional.lanes.tile`, with ``moments`` if there are any; ``line``
    holds zeros.
    """
    keep_apart()
    one: Any = np.int64(1)
    change: Any = np.int64(MOVE if moments.size > 0 else CHANGE)
    inputs, width = layer[CHANNELS] * layer[TAPS], layer[OUT_WIDTH]
    varying = 3 * max(1, SUMMED // rows)
    for tap in range(layer[GRADIENTS], layer[GRADIENTS_END], GRADIENT_COLUMNS):
        row, count = tables[tap], tables[tap + 1]
        for kind in range(2):
            begin, end = tables[tap + 2 + 2 * kind], tables[tap + 3 + 2 * kind]
            step, stop = varying if kind == 0 else 3 * SUMMED, end
            if kind == 0 and begin == end and tables[tap + 4] == tables[tap + 5]:
                stop = begin + 1  # weights that see nothing may still decay
            for first in range(begin, stop, step):
                last = min(first + step, end)
                for strip in range(0, width, STRIP):
                    filters = min(STRIP, width - strip)
                    to = layer[WEIGHTS] + strip * inputs + row * filters
                    multiply_rows(
                        count, filters // LANES, work, one, layer[SCALAR_STEP], tables, first, last, work, strip, one,
                        width, line, results, to, filters, change, rates, moments,
                    )  # fmt: skip


@compiled_inside
def input_products(
    layer: Integers, tables: Integers, work: Array, weights: Array, turned: Array, line: Array, rows: int
) -> None:
    """Fill the errors of a layer's inputs, from those of its outputs; ``line`` holds zeros.

    ``turned`` has room for a strip of the weights, turned: (taps, filters, channels of the strip).
    """
    keep_apart()
    one: Any = np.int64(1)
    nothing: Any = np.int64(0)
    write: Any = np.int64(WRITE)
    inputs, width = layer[CHANNELS] * layer[TAPS], layer[IN_WIDTH]
    for strip in range(0, width, STRIP):
        channels = min(STRIP, width - strip)
        for tap in range(layer[TAPS]):
            _turn_tap(layer, weights, turned, inputs, tap, strip, channels)
        for place in range(layer[INPUTS], layer[INPUTS_END], INPUT_COLUMNS):
            count = rows if tables[place + 1] else one
            multiply_rows(
                count, channels // LANES, work, layer[OUT_WIDTH], one, tables, tables[place + 2], tables[place + 3],
                turned, nothing, channels, channels, line, work, tables[place] + strip, width, write, line, line,
            )  # fmt: skip


@compiled_inside
def _turn_tap(layer: Integers, weights: Array, turned: Array, inputs: int, tap: int, strip: int, channels: int) -> None:
    """Turn the weights of a tap for the ``channels`` from ``strip`` on; of channels that there are not, zeros."""
    keep_apart()
    width, filters = layer[OUT_WIDTH], layer[FILTERS]
    for vector in range(0, width, LANES):
        of_strip = vector - vector % STRIP
        step = min(STRIP, width - of_strip)
        for lane in range(0, channels, LANES):
            row = tap * layer[CHANNELS] + strip + lane
            at = layer[WEIGHTS] + of_strip * inputs + row * step + vector - of_strip
            count = layer[CHANNELS] - strip - lane
            turn(weights, at, step, count, turned, (tap * filters + vector) * channels + lane, channels)
