"""The compiled part of the fast engine for images: what is not a product, and batches as a whole.

A batch may be done in parts of some rows each, so that a part's numbers stay near the processor; gradients add up over
the parts, and the mean loss is that of the batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from butter_etl.engines.compiling import compiled, compiled_inside
from butter_etl.engines.convolutional.lanes import keep_bits, scale_kept
from butter_etl.engines.convolutional.memory import (
    AT,
    BIASES,
    BITS,
    COPIES,
    ERROR,
    FILTERS,
    IS_RELU,
    ONCE,
    OUT_WIDTH,
    OUTPUT_COLUMNS,
    OUTPUTS,
    OUTPUTS_END,
    POOL_ERROR,
    POOL_PLACE,
    POOLED,
    POOLED_COLUMNS,
    POOLED_END,
    POSITION,
    THRESHOLD,
    VARIES,
    WEIGHTS,
)
from butter_etl.engines.convolutional.products import (
    forward_products,
    gradient_products,
    input_products,
    takes_one_block,
)
from butter_etl.engines.fused.lanes import (
    LANES,
    flush_subnormals,
    keep_first,
    load,
    multiply_add,
    restore_subnormals,
    splat,
    store,
    sum_lanes,
    where_at_most,
    where_equal,
)
from butter_etl.engines.fused.vector_math import exp_of_negative

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.convolutional.lanes import Array, Bits, Integers

#: `butter_etl.engines.streams.Stream.MASKS`, a plain number for compiled code.
MASKS_STREAM: Final = 6
#: Vectors that sixteen blocks of words decide about.
_GROUP: Final = 8
#: Up to so large a window, the gradient of pooling is written for whole vectors; above, number by number.
_SMALL_WINDOW: Final = 16


# -- images


@compiled
def gather_images(
    images: Array, first: int, rows: int, size: int, channels: int, work: Array, step: int, frame: int
) -> None:
    """Copy images, one after the other in memory, line by line into frames of zeros."""
    length, margin = size * channels, frame * channels
    whole = length - length % LANES
    for row in range(rows):
        for y in range(size):
            at, from_ = (y * rows + row) * step, ((first + row) * size + y) * length
            for lane in range(margin):
                work[at + lane] = 0
            for lane in range(0, whole, LANES):
                store(work, at + margin + lane, load(images, from_ + lane))
            for lane in range(whole, length):
                work[at + margin + lane] = images[from_ + lane]
            for lane in range(margin + length, step):
                work[at + lane] = 0


@compiled
def gather_bytes(
    images: NDArray[np.uint8], first: int, rows: int, size: int, channels: int, work: Array, step: int, frame: int
) -> None:
    """Copy images as `gather_images` does, bytes as 255ths."""
    length, margin = size * channels, frame * channels
    for row in range(rows):
        for y in range(size):
            at, from_ = (y * rows + row) * step, ((first + row) * size + y) * length
            line, pixels = work[at : at + step], images[from_ : from_ + length]
            for lane in range(margin):
                line[lane] = 0
            for lane in range(length):
                line[margin + lane] = np.float32(pixels[lane]) / np.float32(255)
            for lane in range(margin + length, step):
                line[lane] = 0


# -- dropout


@compiled
def draw_masks(layers: Integers, positions: Integers, batch: int, bits: Bits, low: int, high: int, step: int) -> None:
    """Draw the masks of a step for all layers that have dropout: a bit an element of a batch.

    ``positions`` are those of each layer's outputs. See `butter_etl.engines.convolutional.contract.dropout_mask`.
    """
    for number in range(len(layers)):
        layer = layers[number]
        if layer[THRESHOLD] > 0:
            vectors = positions[number] * batch * layer[OUT_WIDTH] // LANES
            for group in range((vectors + _GROUP - 1) // _GROUP):
                at = layer[BITS] + _GROUP * group
                keep_bits(bits, at, LANES * group, step, MASKS_STREAM, number, low, high, layer[THRESHOLD])


@compiled_inside
def _drop(
    layer: Integers, tables: Integers, scale: float, work: Array, bits: Bits, first: int, rows: int, batch: int
) -> None:
    """Drop outputs, of the ``rows`` rows from ``first`` on of a batch; first copy those that have one row for all."""
    width = layer[OUT_WIDTH]
    for output in range(layer[OUTPUTS], layer[OUTPUTS_END], OUTPUT_COLUMNS):
        at = tables[output + AT]
        if tables[output + COPIES] >= 0:
            at = tables[output + COPIES]
            for row in range(rows):
                for lane in range(0, width, LANES):
                    store(work, at + row * width + lane, load(work, tables[output + AT] + lane))
        _scale(layer, tables[output + POSITION], at, scale, work, bits, first, rows, batch)


@compiled_inside
def _scale(
    layer: Integers, position: int, at: int, scale: float, work: Array, bits: Bits, first: int, rows: int, batch: int
) -> None:
    vectors = layer[OUT_WIDTH] // LANES
    bit = layer[BITS] + (position * batch + first) * vectors
    for vector in range(rows * vectors):
        scale_kept(work, at + LANES * vector, bits, bit + vector, scale)


@compiled_inside
def _drop_errors(
    layer: Integers, tables: Integers, scale: float, work: Array, bits: Bits, first: int, rows: int, batch: int
) -> None:
    """Take the gradient of dropout; errors of copies are added up."""
    width = layer[OUT_WIDTH]
    for output in range(layer[OUTPUTS], layer[OUTPUTS_END], OUTPUT_COLUMNS):
        is_copied = tables[output + COPIES] >= 0
        at = layer[ERROR] + (tables[output + COPIES] if is_copied else tables[output + AT])
        _scale(layer, tables[output + POSITION], at, scale, work, bits, first, rows, batch)
        if is_copied:
            for lane in range(0, width, LANES):
                total = load(work, at + lane)
                for row in range(1, rows):
                    total = total + load(work, at + row * width + lane)
                store(work, layer[ERROR] + tables[output + AT] + lane, total)


# -- pooling


@compiled_inside
def _pool(layer: Integers, tables: Integers, work: Array, rows: int) -> None:
    """Take maxima, and note which of its window each was: the first of equals, by row; what is not a number passes."""
    width = layer[OUT_WIDTH]
    for pooled in range(layer[POOLED], layer[POOLED_END], POOLED_COLUMNS):
        to, first, last = tables[pooled], tables[pooled + 2], tables[pooled + 3]
        for row in range(rows if tables[pooled + 1] else 1):
            for lane in range(0, width, LANES):
                most = load(work, tables[first] + row * tables[first + 1] + lane)
                place, number = splat(0.0), 0.0
                for entry in range(first + 2, last, 2):
                    number += 1.0
                    value = load(work, tables[entry] + row * tables[entry + 1] + lane)
                    # Where value <= most nothing changes; nor where the largest is not a number.
                    there = where_equal(most, most, splat(number), place)
                    larger = where_equal(most, most, value, most)
                    place = where_at_most(value, most, place, there)
                    most = where_at_most(value, most, most, larger)
                at = to + row * width + lane
                store(work, at, most)
                store(work, layer[POOL_PLACE] + at, place)


@compiled_inside
def _pool_errors(layer: Integers, tables: Integers, work: Array, rows: int) -> None:
    """Hand the errors of maxima to where the maxima were."""
    width = layer[OUT_WIDTH]
    for pooled in range(layer[POOLED], layer[POOLED_END], POOLED_COLUMNS):
        at, first, last = tables[pooled], tables[pooled + 2], tables[pooled + 3]
        count = rows if tables[pooled + 1] else 1
        if last - first <= 2 * _SMALL_WINDOW:
            for entry in range(first, last, 2):
                number = splat(float((entry - first) // 2))
                for row in range(count):
                    to = layer[ERROR] + tables[entry] + row * tables[entry + 1]
                    from_ = at + row * width
                    for lane in range(0, width, LANES):
                        place = load(work, layer[POOL_PLACE] + from_ + lane)
                        error = load(work, layer[POOL_ERROR] + from_ + lane)
                        store(work, to + lane, load(work, to + lane) + where_equal(place, number, error, 0.0))
        else:
            for row in range(count):
                from_ = at + row * width
                for lane in range(width):
                    entry = first + 2 * np.int64(work[layer[POOL_PLACE] + from_ + lane])
                    to = layer[ERROR] + tables[entry] + row * tables[entry + 1] + lane
                    work[to] += work[layer[POOL_ERROR] + from_ + lane]


@compiled_inside
def _clear_errors(layer: Integers, tables: Integers, is_copied: bool, work: Array, rows: int) -> None:
    width = layer[OUT_WIDTH]
    for output in range(layer[OUTPUTS], layer[OUTPUTS_END], OUTPUT_COLUMNS):
        at, count = tables[output + AT], rows
        if is_copied and tables[output + COPIES] >= 0:
            at = tables[output + COPIES]
        elif not tables[output + VARIES]:
            count = 1
        at += layer[ERROR]
        for lane in range(at, at + count * width, LANES):
            store(work, lane, splat(0.0))


# -- what is left of a layer


@compiled_inside
def _finish_errors(layer: Integers, tables: Integers, work: Array, gradient: Array, rows: int) -> None:
    """Take the gradient of ReLU, add to that of the biases, and add errors up over the batch where that is wanted."""
    width = layer[OUT_WIDTH]
    for output in range(layer[OUTPUTS], layer[OUTPUTS_END], OUTPUT_COLUMNS):
        varies = tables[output + VARIES] != 0
        for lane in range(0, width, LANES):
            total = splat(0.0)
            for row in range(rows if varies else 1):
                at = tables[output + AT] + row * width + lane
                error = load(work, layer[ERROR] + at)
                if layer[IS_RELU]:
                    error = where_at_most(load(work, at), 0.0, 0.0, error)
                    store(work, layer[ERROR] + at, error)
                total = total + error
            store(gradient, layer[BIASES] + lane, load(gradient, layer[BIASES] + lane) + total)
            if varies and tables[output + ONCE] >= 0:
                store(work, tables[output + ONCE] + lane, total)


@compiled_inside
def _losses(
    layer: Integers, work: Array, logits: int, errors: int, labels: NDArray[np.int64], first: int, rows: int, batch: int
) -> float:
    """Return the sum of the cross-entropies of some rows, and write the errors of their logits: (p - y) / batch."""
    width, classes = layer[OUT_WIDTH], layer[FILTERS]
    loss, share = 0.0, np.float32(1.0 / batch)
    for row in range(rows):
        at, label = logits + row * width, labels[first + row]
        most = work[at]
        for lane in range(1, classes):
            most = max(most, work[at + lane])
        total = splat(0.0)
        for lane in range(0, width, LANES):
            power = keep_first(exp_of_negative(load(work, at + lane) - most), min(LANES, classes - lane))
            store(work, errors + row * width + lane, power)
            total = total + power
        sum_ = sum_lanes(total)
        loss += math.log(np.float64(sum_)) + np.float64(most) - np.float64(work[at + label])
        for lane in range(0, width, LANES):
            at = errors + row * width + lane
            store(work, at, load(work, at) * (share / sum_))
        work[errors + row * width + label] -= share
    return loss


@compiled_inside
def _correct(layer: Integers, work: Array, logits: int, labels: NDArray[np.int64], first: int, rows: int) -> int:
    """Return how many rows have their largest logit, the first of equals, at the label; NaN is the largest."""
    correct = 0
    for row in range(rows):
        at, best = logits + row * layer[OUT_WIDTH], 0
        for lane in range(1, layer[FILTERS]):
            value, most = work[at + lane], work[at + best]
            if value > most or (value != value and most == most):  # noqa: PLR0124 (that is how NaN is known)
                best = lane
        correct += best == labels[first + row]
    return correct


@compiled_inside
def _forward(
    layers: Integers,
    tables: Integers,
    scales: NDArray[np.float64],
    work: Array,
    weights: Array,
    bits: Bits,
    line: Array,
    other: Array,
    first: int,
    rows: int,
    batch: int,
) -> None:
    for number in range(len(layers)):
        layer = layers[number]
        forward_products(layer, tables, work, weights, line, other, rows)
        if layer[THRESHOLD] > 0:
            _drop(layer, tables, scales[number], work, bits, first, rows, batch)
        _pool(layer, tables, work, rows)


@compiled_inside
def is_stepped_at_once(layer: Integers, tables: Integers, rates: Array, rows: int, batch: int) -> bool:
    """Tell whether a layer's weights are changed when their gradient is known, which then need not be kept.

    That is so in a batch of one part, where each gradient is one sum.
    """
    return rates[1] < 0.0 and rows == batch and takes_one_block(layer, tables, rows)


@compiled
def train_rows(
    layers: Integers,
    tables: Integers,
    scales: NDArray[np.float64],
    work: Array,
    weights: Array,
    gradient: Array,
    bits: Bits,
    turned: Array,
    line: Array,
    other: Array,
    labels: NDArray[np.int64],
    logits: int,
    errors: int,
    first: int,
    rows: int,
    batch: int,
    rates: Array,
    moments: Array,
    sums: NDArray[np.float64],
) -> None:
    """Add to the gradient that of the ``rows`` rows from ``first`` on of a batch, and their losses to ``sums[0]``.

    ``rates`` (weight decay, -learning rate, momentum, 1 - dampening) are what weights are changed by where that can be
    done at once (`is_stepped_at_once`), with ``moments`` if there are any.
    """
    mode = flush_subnormals()
    _forward(layers, tables, scales, work, weights, bits, line, other, first, rows, batch)
    sums[0] += _losses(layers[len(layers) - 1], work, logits, errors, labels, first, rows, batch)
    line[:] = 0
    for back in range(len(layers)):
        number = len(layers) - 1 - back
        layer = layers[number]
        if layer[POOLED] < layer[POOLED_END]:
            _clear_errors(layer, tables, layer[THRESHOLD] > 0, work, rows)
            _pool_errors(layer, tables, work, rows)
        if layer[THRESHOLD] > 0:
            _drop_errors(layer, tables, scales[number], work, bits, first, rows, batch)
        _finish_errors(layer, tables, work, gradient, rows)
        if number > 0:
            input_products(layer, tables, work, weights, turned, line, rows)
        if is_stepped_at_once(layer, tables, rates, rows, batch):
            gradient_products(layer, tables, work, weights, line, rates, moments, rows)
        else:
            other[0], other[1] = 0, 1
            gradient_products(layer, tables, work, gradient, line, other, other[:0], rows)
    restore_subnormals(mode)


@compiled
def look_at_rows(
    layers: Integers,
    tables: Integers,
    scales: NDArray[np.float64],
    work: Array,
    weights: Array,
    bits: Bits,
    line: Array,
    other: Array,
    labels: NDArray[np.int64],
    logits: int,
    errors: int,
    first: int,
    rows: int,
    sums: NDArray[np.float64],
) -> None:
    """Add the losses of the ``rows`` rows from ``first`` on to ``sums[0]``, and how many are right to ``sums[1]``."""
    mode = flush_subnormals()
    _forward(layers, tables, scales, work, weights, bits, line, other, first, rows, rows)
    last = layers[len(layers) - 1]
    sums[1] += _correct(last, work, logits, labels, first, rows)
    sums[0] += _losses(last, work, logits, errors, labels, first, rows, rows)
    restore_subnormals(mode)


# -- descent


@compiled
def descend(
    layers: Integers,
    tables: Integers,
    weights: Array,
    gradient: Array,
    moments: Array,
    rates: Array,
    rows: int,
    batch: int,
) -> None:
    """Take a step of `butter_etl.engines.convolutional.contract.Descent`, and clear the gradient.

    ``rates`` are those of `train_rows`. ``moments`` has no elements where there is no momentum. Of layers that are
    stepped at once, only the biases are left.
    """
    mode = flush_subnormals()
    for number in range(len(layers)):
        layer = layers[number]
        first, last = layer[WEIGHTS], layer[BIASES] + layer[OUT_WIDTH]
        if is_stepped_at_once(layer, tables, rates, rows, batch):
            first = layer[BIASES]
        for at in range(first, last, LANES):
            value = load(weights, at)
            moved = multiply_add(value, rates[0], load(gradient, at))
            if moments.size > 0:
                moved = multiply_add(load(moments, at), rates[2], moved * rates[3])
                store(moments, at, moved)
            store(weights, at, multiply_add(moved, rates[1], value))
            store(gradient, at, splat(0.0))
    restore_subnormals(mode)
