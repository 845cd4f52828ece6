"""The compiled part of the fast engine for recurrent networks: panels as a whole, losses, and steps of descent.

Time is the outer loop, layers the inner one, forward and back: what a step leaves is still near the processor when it
is read. Gradients of some steps are added up by one product; those of biases lane by lane, which is as fast and exact.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from butter_etl.engines.compiling import compiled, compiled_in_place, compiled_inside
from butter_etl.engines.convolutional.lanes import keep_apart, turn
from butter_etl.engines.fused.lanes import (
    LANES,
    flush_subnormals,
    keep_first,
    load,
    magnitude,
    multiply_add,
    restore_subnormals,
    root,
    splat,
    store,
    sum_lanes,
    where_less,
)
from butter_etl.engines.fused.vector_math import exp_of_negative, log1p_ratio, sigmoid
from butter_etl.engines.recurrent.cells import (
    gru_back,
    gru_forward,
    gru_reset,
    gru_reset_back,
    intersection_back,
    intersection_forward,
    lstm_back,
    lstm_forward,
    rnn_back,
    rnn_forward,
    ugrnn_back,
    ugrnn_forward,
)
from butter_etl.engines.recurrent.lanes import TERM, add_squares
from butter_etl.engines.recurrent.memory import (
    BIAS_SUMS,
    BIAS_SUMS_OF_LAYER,
    CELL,
    CELL_ERROR,
    CELL_TANH,
    COLUMNS,
    ERROR,
    EVERY_STEP,
    FAN_IN,
    FEATURES,
    FIRST,
    FIRST_STEP,
    FRONT,
    FRONT_WIDE,
    GATES,
    GATES_STEP,
    GROUPS,
    GRU,
    HIDDEN,
    INDICES,
    INITIAL,
    INPUT_KIND,
    INPUTS,
    INTERSECTION,
    IS_RELU,
    KIND,
    LAYERS,
    LOGISTIC,
    LOGITS,
    LSTM,
    OBJECTIVE,
    OUTPUT_WIDE,
    OUTPUTS,
    READ,
    READ_BIAS_SUMS,
    READ_ERROR,
    READ_OUT,
    READ_OUT_TURNED,
    READ_OUT_TURNED_STEP,
    RESET,
    RNN,
    SCORED,
    SECOND,
    SOFTMAX,
    STEPS,
    STREAMS,
    STRIP,
    SUMMED,
    SUMMED_STEPS,
    SUMS,
    TURNED,
    TURNED_ERRORS,
    TURNED_LOGITS,
    TURNED_STEP,
    UGRNN,
    UNITS,
    UP,
    UP_ERROR,
    VECTORS,
    WEIGHTS,
    WIDE,
)
from butter_etl.engines.recurrent.products import multiply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.fused.lanes import Array
    from butter_etl.engines.recurrent.memory import Integers

    Indices = NDArray[np.int32]

#: The optimizers as kernels know them.
SGD, MOMENTUM, RMSPROP, ADAM = range(4)
#: The numbers of ``rates``: L2, what gradients are multiplied by, -rate, and what moments keep and take.
L2, CLIPPED, RATE, KEEP, TAKE, KEEP_SQUARE, TAKE_SQUARE, EPSILON = range(8)


# -- products


@compiled_in_place
def _set_term(table: Integers, number: int, begin: int, value: int, count: int) -> None:
    at = TERM * number
    table[at], table[at + 1], table[at + 2] = begin, value, count


@compiled_inside
def _turn_rows(
    source: Array, at: int, step: int, rows: int, columns: int, result: Array, to: int, to_step: int
) -> None:
    """Turn a matrix of so many rows, and columns of whole vectors; its rows come to be filled up to whole vectors."""
    keep_apart()
    for row in range(0, rows, LANES):
        for column in range(0, columns, LANES):
            turn(source, at + row * step + column, step, rows - row, result, to + column * to_step + row, to_step)


@compiled_inside
def turn_weights(shape: Integers, layers: Integers, weights: Array, turned: Array) -> None:
    """Write the matrices that products forward read: a row for each feature."""
    keep_apart()
    n = shape[UNITS]
    for number in range(shape[LAYERS]):
        layer = layers[number]
        rows = layer[FAN_IN] + n + 1
        _turn_rows(weights, layer[WEIGHTS], shape[WIDE], rows, shape[WIDE], turned, layer[TURNED], layer[TURNED_STEP])
    _turn_rows(
        weights, shape[READ_OUT], shape[OUTPUT_WIDE], n + 1, shape[OUTPUT_WIDE], turned, shape[READ_OUT_TURNED],
        shape[READ_OUT_TURNED_STEP],
    )  # fmt: skip


# -- before the first step


@compiled_in_place
def _fill(work: Array, at: int, count: int, value: float) -> None:
    filling = splat(value)
    for place in range(at, at + count, LANES):
        store(work, place, filling)


@compiled_inside
def begin(shape: Integers, layers: Integers, weights: Array, work: Array) -> None:
    """Write the initial states, and the rows of ones."""
    keep_apart()
    n, columns, steps = shape[UNITS], shape[COLUMNS], shape[STEPS]
    block = (n + 1) * columns
    for number in range(shape[LAYERS]):
        layer = layers[number]
        for unit in range(n):
            _fill(work, layer[HIDDEN] + unit * columns, columns, weights[layer[INITIAL] + unit])
            if shape[KIND] == LSTM:
                _fill(work, layer[CELL] + unit * columns, columns, weights[layer[INITIAL] + n + unit])
        for step in range(steps + 1):
            _fill(work, layer[HIDDEN] + step * block + n * columns, columns, 1.0)
        for step in range(steps):
            if shape[KIND] == GRU:
                _fill(work, layer[RESET] + step * block + n * columns, columns, 1.0)
            if shape[KIND] == INTERSECTION:
                _fill(work, layer[UP] + step * block + n * columns, columns, 1.0)


@compiled_inside
def _gather_vectors(shape: Integers, vectors: Array, first: int, rows: int, work: Array) -> None:
    """Write vectors with the numbers of a feature side by side, and a row of ones; columns without a row get zeros."""
    keep_apart()
    inputs, columns = shape[INPUTS], shape[COLUMNS]
    for feature in range(inputs):
        line = work[shape[VECTORS] + feature * columns : shape[VECTORS] + (feature + 1) * columns]
        for row in range(rows):
            line[row] = vectors[(first + row) * inputs + feature]
        for row in range(rows, columns):
            line[row] = 0
    _fill(work, shape[VECTORS] + inputs * columns, columns, 1.0)


@compiled_inside
def _add_up_rows(
    shape: Integers, indices: Indices, first: int, rows: int, steps: int, step: int, weights: Array, work: Array
) -> None:
    """Write, for each sequence, the sum of the rows of the front that its indices of a step name."""
    keep_apart()
    streams, wide, front = shape[STREAMS], shape[FRONT_WIDE], shape[FRONT]
    has_bias = shape[KIND] == INTERSECTION
    for row in range(rows):
        named = ((first + row) * steps + step) * streams
        to = shape[SUMS] + row * wide
        for lane in range(0, wide, LANES):
            total = load(weights, front + shape[INPUTS] * wide + lane) if has_bias else splat(0.0)
            for stream in range(streams):
                total = total + load(weights, front + indices[named + stream] * wide + lane)
            store(work, to + lane, total)
    for row in range(rows, shape[COLUMNS]):
        _fill(work, shape[SUMS] + row * wide, wide, 0.0)


@compiled_inside
def read_step(
    shape: Integers,
    layers: Integers,
    indices: Indices,
    vectors: Array,
    first: int,
    rows: int,
    steps: int,
    step: int,
    weights: Array,
    work: Array,
    table: Integers,
) -> None:
    """Write the products of a step's inputs: to what is read in, or to the first layer's gates."""
    keep_apart()
    columns, wide, n = shape[COLUMNS], shape[FRONT_WIDE], shape[UNITS]
    reads_in = shape[KIND] == INTERSECTION
    features = n if reads_in else shape[FEATURES]
    origin, block = shape[READ], (n + 1) * columns
    if not reads_in:
        origin, block = layers[0, GATES], layers[0, GATES_STEP]
    to = origin + step * block
    if shape[INPUT_KIND] == INDICES:
        _add_up_rows(shape, indices, first, rows, steps, step, weights, work)
        # What is turned has whole vectors of features: the first part's last ones are written over by the second's.
        part = shape[SECOND] or wide
        _turn_rows(work, shape[SUMS], wide, columns, part, work, to, columns)
        if shape[SECOND]:
            _turn_rows(work, shape[SUMS] + part, wide, columns, wide - part, work, to + n * columns, columns)
    elif step == 0:
        _gather_vectors(shape, vectors, first, rows, work)
        _multiply_vectors(shape, features, to, weights, work, table)
    elif shape[INPUT_KIND] == EVERY_STEP:
        for at in range(0, features * columns, LANES):
            store(work, to + at, load(work, shape[SUMMED] + at))
    elif reads_in:
        for feature in range(n):
            _fill(work, to + feature * columns, columns, weights[shape[FRONT] + shape[INPUTS] * wide + feature])


@compiled_inside
def _multiply_vectors(shape: Integers, features: int, to: int, weights: Array, work: Array, table: Integers) -> None:
    """Write the products of vectors with the front, here and, for further steps, to where errors are summed later."""
    keep_apart()
    columns, wide, n = shape[COLUMNS], shape[FRONT_WIDE], shape[UNITS]
    one: Any = np.int64(1)
    adds: Any = np.int64(0)
    count = shape[INPUTS] + (1 if shape[KIND] == INTERSECTION else 0)
    parts = 2 if shape[SECOND] else 1
    for part in range(parts):
        begin_ = shape[FRONT] + (shape[SECOND] if part else 0)
        rows = features if parts == 1 else (features - n if part else n)
        at = part * n * columns
        _set_term(table, 0, begin_, shape[VECTORS], count)
        multiply(
            rows, columns // LANES, weights, one, wide, table, one, work, columns, work, shape[SUMMED] + at,
            columns, adds,
        )  # fmt: skip
    for at in range(0, features * columns, LANES):
        store(work, to + at, load(work, shape[SUMMED] + at))


# -- forward


@compiled_inside
def _forward_step(
    shape: Integers,
    layers: Integers,
    number: int,
    step: int,
    biases: Array,
    work: Array,
    turned: Array,
    table: Integers,
) -> None:
    """Compute a layer at a step."""
    keep_apart()
    layer, n, columns, kind = layers[number], shape[UNITS], shape[COLUMNS], shape[KIND]
    size, block, is_relu = n * columns, (n + 1) * columns, shape[IS_RELU]
    gates = layer[GATES] + step * layer[GATES_STEP]
    before = layer[HIDDEN] + step * block
    hidden, fan_in, row_step = before + block, layer[FAN_IN], layer[TURNED_STEP]
    below = shape[READ] + step * block if number == 0 else layers[number - 1, UP] + step * block
    reset = layer[RESET] + step * block
    one: Any = np.int64(1)
    adds: Any = np.int64(1 if fan_in == 0 and (step == 0 or shape[INPUT_KIND] != FIRST_STEP) else 0)
    # The gates that are multiplied by h are r and u of a gru; else all.
    skipped = n if kind == GRU else 0
    weights = layer[TURNED] + (shape[SECOND] * row_step if kind == GRU else 0)
    terms = 0
    if fan_in:
        _set_term(table, 0, weights, below, fan_in)
        terms = 1
    _set_term(table, terms, weights + fan_in, before, n + 1)
    multiply(
        shape[FEATURES] - skipped, columns // LANES, turned, row_step, one, table, terms + 1, work, columns,
        work, gates + skipped * columns, columns, adds,
    )  # fmt: skip
    if kind == RNN:
        rnn_forward(is_relu, work, size, gates, hidden)
    elif kind == UGRNN:
        ugrnn_forward(is_relu, biases, work, size, gates, before, hidden)
    elif kind == LSTM:
        cell = layer[CELL] + step * size
        lstm_forward(is_relu, biases, work, size, gates, cell, layer[CELL_TANH] + step * size, hidden)
    elif kind == INTERSECTION:
        intersection_forward(biases, work, size, gates, below, before, hidden, layer[UP] + step * block)
    else:
        gru_reset(biases, work, size, gates, before, reset)
        weights = layer[TURNED]
        if fan_in:
            _set_term(table, 0, weights, below, fan_in)
        _set_term(table, terms, weights + fan_in, reset, n + 1)
        multiply(
            n, columns // LANES, turned, row_step, one, table, terms + 1, work, columns, work, gates, columns,
            adds,
        )  # fmt: skip
        gru_forward(is_relu, work, size, gates, before, hidden)


@compiled_inside
def forward(
    shape: Integers,
    layers: Integers,
    indices: Indices,
    vectors: Array,
    first: int,
    rows: int,
    steps: int,
    biases: Array,
    weights: Array,
    work: Array,
    turned: Array,
    table: Integers,
) -> None:
    """Compute all layers at all steps that matter, and the outputs of those that are scored."""
    keep_apart()
    n, columns, outputs = shape[UNITS], shape[COLUMNS], shape[OUTPUTS]
    one: Any = np.int64(1)
    adds: Any = np.int64(0)
    begin(shape, layers, weights, work)
    for step in range(shape[STEPS]):
        read_step(shape, layers, indices, vectors, first, rows, steps, step, weights, work, table)
        for number in range(shape[LAYERS]):
            _forward_step(shape, layers, number, step, biases, work, turned, table)
        scored = step - shape[FIRST]
        if scored >= 0:
            up = layers[shape[LAYERS] - 1, UP] + step * (n + 1) * columns
            _set_term(table, 0, shape[READ_OUT_TURNED], up, n + 1)
            multiply(
                outputs, columns // LANES, turned, shape[READ_OUT_TURNED_STEP], one, table, one, work, columns,
                work, shape[LOGITS] + scored * outputs * columns, columns, adds,
            )  # fmt: skip


# -- losses


@compiled_inside
def _softmax(
    shape: Integers, work: Array, labels: Integers, first: int, rows: int, share: float, sums: NDArray[np.float64]
) -> None:
    """Add cross-entropies to ``sums[0]``, and turn outputs into their errors: ``share`` (p - y)."""
    keep_apart()
    columns, groups, scored = shape[COLUMNS], shape[GROUPS], shape[SCORED]
    classes = shape[OUTPUTS] // groups
    for step in range(scored):
        for group in range(groups):
            at = shape[LOGITS] + (step * shape[OUTPUTS] + group * classes) * columns
            for lane in range(0, columns, LANES):
                count = min(LANES, rows - lane)
                most = load(work, at + lane)
                for one in range(1, classes):
                    value = load(work, at + one * columns + lane)
                    most = where_less(most, value, value, most)
                for row in range(max(count, 0)):
                    label = labels[((first + lane + row) * scored + step) * groups + group]
                    sums[0] -= np.float64(work[at + label * columns + lane + row])
                total = splat(0.0)
                for one in range(classes):
                    place = at + one * columns + lane
                    power = exp_of_negative(load(work, place) - most)
                    store(work, place, power)
                    total = total + power
                store(work, shape[SUMS], most)
                store(work, shape[SUMS] + LANES, total)
                for row in range(max(count, 0)):
                    sums[0] += math.log(np.float64(work[shape[SUMS] + LANES + row])) + np.float64(
                        work[shape[SUMS] + row]
                    )
                factor = keep_first(splat(share) / total, max(count, 0))
                for one in range(classes):
                    place = at + one * columns + lane
                    store(work, place, load(work, place) * factor)
                for row in range(max(count, 0)):
                    label = labels[((first + lane + row) * scored + step) * groups + group]
                    work[at + label * columns + lane + row] -= np.float32(share)


@compiled_inside
def _single_step(
    shape: Integers, work: Array, wanted: Array, first: int, rows: int, share: float, sums: NDArray[np.float64]
) -> None:
    """Add the losses of objectives with one scored step to ``sums[0]``, and turn outputs into their errors."""
    keep_apart()
    columns, outputs, at = shape[COLUMNS], shape[OUTPUTS], shape[SUMS]
    for output in range(outputs):
        for lane in range(0, columns, LANES):
            place, count = shape[LOGITS] + output * columns + lane, max(min(LANES, rows - lane), 0)
            store(work, at, splat(0.0))
            for row in range(count):
                work[at + row] = wanted[(first + lane + row) * outputs + output]
            y, target = load(work, place), load(work, at)
            if shape[OBJECTIVE] == LOGISTIC:
                power = exp_of_negative(0.0 - magnitude(y))
                loss = where_less(y, 0.0, 0.0, y) - y * target + log1p_ratio(power) * power
                error = sigmoid(y) - target
            else:
                loss = (y - target) * (y - target)
                error = (y - target) * 2.0
            store(work, at, loss)
            for row in range(count):
                sums[0] += np.float64(work[at + row])
            store(work, place, keep_first(error * share, count))


@compiled_inside
def _answers(
    shape: Integers, work: Array, labels: Integers, wanted: Array, first: int, rows: int, sums: NDArray[np.float64]
) -> None:
    """Add the number of right answers to ``sums[1]``."""
    keep_apart()
    columns, groups, scored, outputs = shape[COLUMNS], shape[GROUPS], shape[SCORED], shape[OUTPUTS]
    classes = outputs // groups
    for row in range(rows):
        if shape[OBJECTIVE] == SOFTMAX:
            for step in range(scored):
                for group in range(groups):
                    at, best = shape[LOGITS] + (step * outputs + group * classes) * columns + row, 0
                    for one in range(1, classes):
                        value, most = work[at + one * columns], work[at + best * columns]
                        if value > most or (value != value and most == most):  # noqa: PLR0124 (so NaN is known)
                            best = one
                    sums[1] += best == labels[((first + row) * scored + step) * groups + group]
        elif shape[OBJECTIVE] == LOGISTIC:
            for output in range(outputs):
                is_above = work[shape[LOGITS] + output * columns + row] > 0
                sums[1] += is_above == (wanted[(first + row) * outputs + output] > 0)


@compiled_inside
def _losses(
    shape: Integers,
    work: Array,
    labels: Integers,
    wanted: Array,
    first: int,
    rows: int,
    share: float,
    sums: NDArray[np.float64],
) -> None:
    keep_apart()
    if shape[OBJECTIVE] == SOFTMAX:
        _softmax(shape, work, labels, first, rows, share, sums)
    else:
        _single_step(shape, work, wanted, first, rows, share, sums)


# -- back


@compiled_inside
def _turn_errors(
    work: Array, at: int, rows: int, columns: int, errors: Array, to: int, first: int, slots: int, slot: int, wide: int
) -> None:
    """Write errors, whose features are rows, with the features of a sequence side by side, in strips.

    They become the features from ``first`` on of ``wide``. A strip has so many `STRIP` features of ``slots`` steps, of
    which this is number ``slot``; the last strip has as many as are left.
    """
    keep_apart()
    for row in range(0, rows, LANES):
        feature = first + row
        strip = feature // STRIP
        width = min(STRIP, wide - strip * STRIP)
        place = to + strip * STRIP * slots * columns + slot * columns * width + feature - strip * STRIP
        for column in range(0, columns, LANES):
            turn(work, at + row * columns + column, columns, rows - row, errors, place + column * width, width)


@compiled_inside
def _gradient(
    rows: int,
    columns: int,
    work: Array,
    at: int,
    at_step: int,
    errors: Array,
    from_: int,
    first: int,
    last: int,
    wide: int,
    slots: int,
    gradient: Array,
    to: int,
    table: Integers,
) -> None:
    """Add products of rows with errors over some steps: to the columns from ``first`` to before ``last`` of a matrix.

    Both are multiples of a vector. The rows of the k-th step lie at ``at + k at_step``.
    """
    keep_apart()
    one: Any = np.int64(1)
    column = first
    while column < last:
        strip = column // STRIP
        width = min(STRIP, wide - strip * STRIP)
        inside = column - strip * STRIP
        part = min(width - inside, last - column)
        base = from_ + strip * STRIP * slots * columns + inside
        for slot in range(slots):
            _set_term(table, slot, at + slot * at_step, base + slot * columns * width, columns)
        multiply(
            rows, part // LANES, work, columns, one, table, slots, errors, width, gradient, to + column, wide,
            one,
        )  # fmt: skip
        column += part


@compiled_inside
def _back_step(
    shape: Integers,
    layers: Integers,
    number: int,
    step: int,
    weights: Array,
    work: Array,
    table: Integers,
) -> None:
    """Compute the errors of a layer's sums at a step, and of what it was computed from."""
    keep_apart()
    layer, n, columns, kind = layers[number], shape[UNITS], shape[COLUMNS], shape[KIND]
    size, block, is_relu, wide = n * columns, (n + 1) * columns, shape[IS_RELU], shape[WIDE]
    gates = layer[GATES] + step * layer[GATES_STEP]
    before = layer[HIDDEN] + step * block
    fan_in, error = layer[FAN_IN], layer[ERROR]
    one: Any = np.int64(1)
    write: Any = np.int64(0)
    below = shape[READ] + step * block if number == 0 else layers[number - 1, UP] + step * block
    below_error = shape[READ_ERROR] if number == 0 else layers[number - 1, UP_ERROR]
    recurrent = layer[WEIGHTS] + fan_in * wide
    if kind == RNN:
        rnn_back(is_relu, work, size, gates, before + block, error)
    elif kind == UGRNN:
        ugrnn_back(is_relu, work, size, gates, before, error)
    elif kind == LSTM:
        cell, cell_tanh = layer[CELL] + step * size, layer[CELL_TANH] + step * size
        lstm_back(is_relu, work, size, gates, cell, cell_tanh, error, layer[CELL_ERROR])
    elif kind == INTERSECTION:
        intersection_back(work, size, gates, below, before, error, layer[UP_ERROR], below_error)
    else:
        gru_back(is_relu, work, size, gates, before, error)
        _set_term(table, 0, recurrent, gates, n)
        multiply(
            n, columns // LANES, weights, wide, one, table, one, work, columns, work, layer[CELL_ERROR], columns,
            write,
        )  # fmt: skip
        gru_reset_back(work, size, gates, before, layer[CELL_ERROR], error)
    _sum_rows(work, gates, shape[FEATURES], columns, layer[BIAS_SUMS_OF_LAYER])
    skipped = n if kind == GRU else 0
    adds: Any = np.int64(1 if kind in (UGRNN, GRU, INTERSECTION) else 0)
    _set_term(table, 0, recurrent + shape[SECOND], gates + skipped * columns, shape[FEATURES] - skipped)
    multiply(n, columns // LANES, weights, wide, one, table, one, work, columns, work, error, columns, adds)
    if fan_in:
        _set_term(table, 0, layer[WEIGHTS], gates, shape[FEATURES] - 2 * skipped)
        terms = 1
        if kind == GRU:
            _set_term(table, 1, layer[WEIGHTS] + shape[SECOND], gates + size, 2 * n)
            terms = 2
        multiply(
            fan_in, columns // LANES, weights, wide, one, table, terms, work, columns, work, below_error,
            columns, one,
        )  # fmt: skip


@compiled_inside
def _layer_gradient(
    shape: Integers,
    layers: Integers,
    number: int,
    step: int,
    slots: int,
    work: Array,
    errors: Array,
    gradient: Array,
    table: Integers,
) -> None:
    """Add the gradient of a layer's matrix, of ``slots`` steps from ``step`` on."""
    keep_apart()
    layer, n, columns, wide = layers[number], shape[UNITS], shape[COLUMNS], shape[WIDE]
    block, at, fan_in = (n + 1) * columns, shape[TURNED_ERRORS], layer[FAN_IN]
    nothing: Any = np.int64(0)
    for slot in range(slots):
        gates = layer[GATES] + (step + slot) * layer[GATES_STEP]
        skipped = n if shape[SECOND] else 0
        if shape[SECOND]:
            _turn_errors(work, gates, n, columns, errors, at, nothing, slots, slot, wide)
        _turn_errors(
            work, gates + skipped * columns, shape[FEATURES] - skipped, columns, errors, at, shape[SECOND], slots, slot,
            wide,
        )  # fmt: skip
    recurrent = layer[WEIGHTS] + fan_in * wide
    if fan_in:
        below = shape[READ] if number == 0 else layers[number - 1, UP]
        _gradient(
            fan_in, columns, work, below + step * block, block, errors, at, nothing, wide, wide, slots, gradient,
            layer[WEIGHTS], table,
        )  # fmt: skip
    before = layer[HIDDEN] + step * block
    _gradient(
        n, columns, work, before, block, errors, at, shape[SECOND], wide, wide, slots, gradient, recurrent, table,
    )  # fmt: skip
    if shape[SECOND]:
        _gradient(
            n, columns, work, layer[RESET] + step * block, block, errors, at, nothing, shape[SECOND], wide, slots,
            gradient, recurrent, table,
        )  # fmt: skip


@compiled_inside
def _front_gradient(
    shape: Integers,
    indices: Indices,
    first: int,
    rows: int,
    steps: int,
    step: int,
    slots: int,
    errors: Array,
    gradient: Array,
) -> None:
    """Add the errors of ``slots`` steps from ``step`` on to the rows of the front that their indices name."""
    keep_apart()
    streams, wide, front, columns = shape[STREAMS], shape[FRONT_WIDE], shape[FRONT], shape[COLUMNS]
    for slot in range(slots):
        for row in range(rows):
            named = ((first + row) * steps + step + slot) * streams
            for strip in range(0, wide, STRIP):
                width = min(STRIP, wide - strip)
                at = shape[TURNED_ERRORS] + strip * slots * columns + (slot * columns + row) * width
                for lane in range(0, width, LANES):
                    error = load(errors, at + lane)
                    for stream in range(streams):
                        to = front + indices[named + stream] * wide + strip + lane
                        store(gradient, to, load(gradient, to) + error)


@compiled_inside
def _vector_gradient(shape: Integers, work: Array, errors: Array, gradient: Array, table: Integers) -> None:
    """Add the gradient of the front where inputs are vectors, from the errors summed over the steps they are shown."""
    keep_apart()
    n, columns, wide, at = shape[UNITS], shape[COLUMNS], shape[FRONT_WIDE], shape[TURNED_ERRORS]
    nothing: Any = np.int64(0)
    one: Any = np.int64(1)
    reads_in = shape[KIND] == INTERSECTION
    features, skipped = n if reads_in else shape[FEATURES], n if shape[SECOND] else 0
    if shape[SECOND]:
        _turn_errors(work, shape[SUMMED], n, columns, errors, at, nothing, one, nothing, wide)
    _turn_errors(
        work, shape[SUMMED] + skipped * columns, features - skipped, columns, errors, at, shape[SECOND], one, nothing,
        wide,
    )  # fmt: skip
    _gradient(
        shape[INPUTS], columns, work, shape[VECTORS], nothing, errors, at, nothing, wide, wide, one, gradient,
        shape[FRONT], table,
    )  # fmt: skip


@compiled_inside
def _read_back(
    shape: Integers,
    layers: Integers,
    indices: Indices,
    first: int,
    rows: int,
    steps: int,
    step: int,
    work: Array,
    errors: Array,
    gradient: Array,
) -> None:
    """Hand the error of a step's inputs on: to the front, or to sums over the steps where inputs are vectors."""
    keep_apart()
    n, columns = shape[UNITS], shape[COLUMNS]
    reads_in = shape[KIND] == INTERSECTION
    nothing: Any = np.int64(0)
    one: Any = np.int64(1)
    at = shape[READ_ERROR] if reads_in else layers[0, GATES] + step * layers[0, GATES_STEP]
    size = n * columns if reads_in else shape[FEATURES] * columns
    if reads_in and shape[INPUT_KIND] == INDICES:
        wide = shape[FRONT_WIDE]
        _turn_errors(work, at, n, columns, errors, shape[TURNED_ERRORS], nothing, one, nothing, wide)
        _front_gradient(shape, indices, first, rows, steps, step, one, errors, gradient)
    elif shape[INPUT_KIND] == EVERY_STEP or (shape[INPUT_KIND] == FIRST_STEP and step == 0):
        for lane in range(0, size, LANES):
            store(work, shape[SUMMED] + lane, load(work, shape[SUMMED] + lane) + load(work, at + lane))
    if reads_in:
        _sum_rows(work, at, n, columns, shape[READ_BIAS_SUMS])


@compiled_inside
def back(
    shape: Integers,
    layers: Integers,
    indices: Indices,
    first: int,
    rows: int,
    steps: int,
    weights: Array,
    work: Array,
    errors: Array,
    gradient: Array,
    table: Integers,
) -> None:
    """Add the gradient of a panel, from the errors of its outputs."""
    keep_apart()
    n, columns, outputs, last = shape[UNITS], shape[COLUMNS], shape[OUTPUTS], shape[LAYERS] - 1
    size, block, scored = n * columns, (n + 1) * columns, shape[SCORED]
    nothing: Any = np.int64(0)
    one: Any = np.int64(1)
    _fill(work, shape[BIAS_SUMS], outputs * LANES, 0.0)
    for step in range(scored):
        at = shape[LOGITS] + step * outputs * columns
        _turn_errors(
            work, at, outputs, columns, errors, shape[TURNED_LOGITS], nothing, scored, step, shape[OUTPUT_WIDE]
        )
        _sum_rows(work, at, outputs, columns, shape[BIAS_SUMS])
    _gradient(
        n, columns, work, layers[last, UP] + shape[FIRST] * block, block, errors, shape[TURNED_LOGITS], nothing,
        shape[OUTPUT_WIDE], shape[OUTPUT_WIDE], scored, gradient, shape[READ_OUT], table,
    )  # fmt: skip
    for number in range(shape[LAYERS]):
        _fill(work, layers[number, BIAS_SUMS_OF_LAYER], shape[FEATURES] * LANES, 0.0)
        _fill(work, layers[number, ERROR], size, 0.0)
        _fill(work, layers[number, CELL_ERROR], size, 0.0)
    _fill(work, shape[READ_BIAS_SUMS], n * LANES, 0.0)
    _fill(work, shape[SUMMED], shape[FEATURES] * columns, 0.0)
    for later in range(shape[STEPS]):
        step = shape[STEPS] - 1 - later
        if step >= shape[FIRST]:
            at = shape[LOGITS] + (step - shape[FIRST]) * outputs * columns
            _set_term(table, 0, shape[READ_OUT], at, outputs)
            adds: Any = np.int64(0 if shape[KIND] == INTERSECTION else 1)
            multiply(
                n, columns // LANES, weights, shape[OUTPUT_WIDE], one, table, one, work, columns, work,
                layers[last, UP_ERROR], columns, adds,
            )  # fmt: skip
        elif shape[KIND] == INTERSECTION:
            _fill(work, layers[last, UP_ERROR], size, 0.0)
        for back_number in range(shape[LAYERS]):
            _back_step(shape, layers, last - back_number, step, weights, work, table)
        _read_back(shape, layers, indices, first, rows, steps, step, work, errors, gradient)
        if step % SUMMED_STEPS == 0:
            slots = min(SUMMED_STEPS, shape[STEPS] - step)
            for number in range(shape[LAYERS]):
                _layer_gradient(shape, layers, last - number, step, slots, work, errors, gradient, table)
            if shape[KIND] != INTERSECTION and shape[INPUT_KIND] == INDICES:
                _front_gradient(shape, indices, first, rows, steps, step, slots, errors, gradient)
    if shape[INPUT_KIND] != INDICES:
        _vector_gradient(shape, work, errors, gradient, table)
    _finish_sums(shape, layers, work, gradient)


@compiled_inside
def _sum_rows(work: Array, at: int, rows: int, columns: int, sums: int) -> None:
    """Add the vectors of each row to a vector of sums."""
    keep_apart()
    for row in range(rows):
        total = load(work, sums + row * LANES)
        for lane in range(0, columns, LANES):
            total = total + load(work, at + row * columns + lane)
        store(work, sums + row * LANES, total)


@compiled_inside
def _add_sums(work: Array, sums: int, rows: int, gradient: Array, to: int) -> None:
    """Add sums of lanes to a gradient."""
    keep_apart()
    for row in range(rows):
        gradient[to + row] += sum_lanes(load(work, sums + row * LANES))


@compiled_inside
def _finish_sums(shape: Integers, layers: Integers, work: Array, gradient: Array) -> None:
    """Add the gradients of biases and of initial states."""
    keep_apart()
    n, columns = shape[UNITS], shape[COLUMNS]
    _add_sums(work, shape[BIAS_SUMS], shape[OUTPUTS], gradient, shape[READ_OUT] + n * shape[OUTPUT_WIDE])
    if shape[KIND] == INTERSECTION:
        bias = shape[FRONT] + shape[INPUTS] * shape[FRONT_WIDE]
        _add_sums(work, shape[READ_BIAS_SUMS], n, gradient, bias)
    for number in range(shape[LAYERS]):
        layer = layers[number]
        sums, bias = layer[BIAS_SUMS_OF_LAYER], layer[WEIGHTS] + (layer[FAN_IN] + n) * shape[WIDE]
        skipped = n if shape[SECOND] else 0
        _add_sums(work, sums, skipped, gradient, bias)
        _add_sums(work, sums + skipped * LANES, shape[FEATURES] - skipped, gradient, bias + shape[SECOND])
        for state in range(2 if shape[KIND] == LSTM else 1):
            at = layer[CELL_ERROR] if state else layer[ERROR]
            _fill(work, sums, n * LANES, 0.0)
            _sum_rows(work, at, n, columns, sums)
            _add_sums(work, sums, n, gradient, layer[INITIAL] + state * n)


# -- panels


@compiled
def train_panel(
    shape: Integers,
    layers: Integers,
    indices: Indices,
    vectors: Array,
    labels: Integers,
    wanted: Array,
    first: int,
    rows: int,
    steps: int,
    share: float,
    biases: Array,
    weights: Array,
    gradient: Array,
    work: Array,
    turned: Array,
    errors: Array,
    table: Integers,
    sums: NDArray[np.float64],
) -> None:
    """Add the gradient of the ``rows`` sequences from ``first`` on of a batch, and their losses to ``sums[0]``.

    ``share`` is what the error of an output is multiplied by. ``steps`` are those that indices have. The gradient is
    left alone where the sum of the losses is not finite.
    """
    mode = flush_subnormals()
    if first == 0:
        turn_weights(shape, layers, weights, turned)
    forward(shape, layers, indices, vectors, first, rows, steps, biases, weights, work, turned, table)
    _losses(shape, work, labels, wanted, first, rows, share, sums)
    if math.isfinite(sums[0]):
        back(shape, layers, indices, first, rows, steps, weights, work, errors, gradient, table)
    restore_subnormals(mode)


@compiled
def look_at_panel(
    shape: Integers,
    layers: Integers,
    indices: Indices,
    vectors: Array,
    labels: Integers,
    wanted: Array,
    first: int,
    rows: int,
    steps: int,
    biases: Array,
    weights: Array,
    work: Array,
    turned: Array,
    table: Integers,
    sums: NDArray[np.float64],
) -> None:
    """Add the losses of the ``rows`` sequences from ``first`` on to ``sums[0]``, right answers to ``sums[1]``."""
    mode = flush_subnormals()
    if first == 0:
        turn_weights(shape, layers, weights, turned)
    forward(shape, layers, indices, vectors, first, rows, steps, biases, weights, work, turned, table)
    _answers(shape, work, labels, wanted, first, rows, sums)
    _losses(shape, work, labels, wanted, first, rows, 1.0, sums)
    restore_subnormals(mode)


# -- descent


@compiled
def finish_gradient(gradient: Array, weights: Array, l2: float, sums: NDArray[np.float64]) -> None:
    """Add L2 to a gradient, and the squares of its elements to sixteen sums in float64."""
    mode = flush_subnormals()
    for at in range(0, gradient.size, LANES):
        g = multiply_add(load(weights, at), l2, load(gradient, at))
        store(gradient, at, g)
        add_squares(sums, 0, g)
    restore_subnormals(mode)


@compiled
def descend(
    optimizer: int, gradient: Array, weights: Array, moment1: Array, moment2: Array, rates: NDArray[np.float64]
) -> None:
    """Take a step of `butter_etl.engines.recurrent.contract.RecurrentDescent`, and clear the gradient.

    ``rates`` are the numbers named above. A moment that the optimizer has not, has no elements.
    """
    mode = flush_subnormals()
    clipped, rate, keep, take = rates[CLIPPED], rates[RATE], rates[KEEP], rates[TAKE]
    keep_square, take_square, epsilon = rates[KEEP_SQUARE], rates[TAKE_SQUARE], rates[EPSILON]
    for at in range(0, gradient.size, LANES):
        g = load(gradient, at) * clipped
        if optimizer == MOMENTUM:
            g = multiply_add(load(moment1, at), keep, g)
            store(moment1, at, g)
        elif optimizer == RMSPROP:
            square = load(moment2, at) * keep_square + g * g * take_square
            store(moment2, at, square)
            g = g / root(square + epsilon)
        elif optimizer == ADAM:
            mean = load(moment1, at) * keep + g * take
            square = load(moment2, at) * keep_square + g * g * take_square
            store(moment1, at, mean)
            store(moment2, at, square)
            g = mean / (root(square) + epsilon)
        store(weights, at, multiply_add(g, rate, load(weights, at)))
        store(gradient, at, splat(0.0))
    restore_subnormals(mode)
