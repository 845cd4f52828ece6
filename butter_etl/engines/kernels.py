"""The compiled part of the fused engine: whole epochs of one run, without the interpreter.

Activations lie in *panels* of sixteen rows of the batch: panel p of a layer of f features is the f vectors
(`butter_etl.engines.lanes`) of rows 16 p … 16 p + 15. All panels are in one array, ``work``; a region of it is named by
where it begins and its ``step``, the distance of one panel to the next. A matrix product takes a panel, which is small
enough for the first-level cache, and keeps a *strip* of up to six features in registers while it runs along the others.
From 18 to 700 features such products of 256 rows reach 70 to 105 % of the rate at which OpenBLAS multiplies large
square matrices, where OpenBLAS itself reaches 30 to 90 %: so there is no library here, and no result depends on how
many threads one takes, or on which of its kernels.

A batch that does not fill its last panel repeats its last row there: what the extra lanes compute is then no more
special than what a row computes, and their error is 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from butter_etl.engines.lanes import (
    HALF,
    LANES,
    add_each,
    add_products,
    add_to_sums,
    flush_subnormals,
    gather_columns,
    keep_first,
    load,
    load_each,
    magnitude,
    multiply_add,
    multiply_add_each,
    relu_each,
    restore_subnormals,
    root,
    splat,
    splat_each,
    store,
    store_each,
    store_rows,
    store_sums,
    sum_lanes,
    where_at_most,
    where_equal,
    where_less,
    zero_each,
    zero_each_where_off,
    zero_tile,
)
from butter_etl.engines.vector_math import compiled, exp, log, log1p
from butter_etl.streams import shuffle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.lanes import Array, Group, Tile, Vector

    Integers = NDArray[np.int64]
    Sums = NDArray[np.float64]

#: `Plan.loss`.
SOFTMAX_CROSSENTROPY, SIGMOID_CROSSENTROPY, SQUARED_ERROR = 0, 1, 2
#: `Plan.optimizer`.
ADAM, SGD, RMSPROP = 0, 1, 2
#: `Plan.regularizer`.
NO_PENALTY, L1, L2 = 0, 1, 2

#: The ten sums of `measure`, in the order of `butter_etl.schema.METRICS`; the root's place stays empty.
LOSS, ACCURACY, SQUARED, ABSOLUTE, ROOT, LOGARITHMIC, HINGE, SQUARED_HINGE, COSINE, KULLBACK = range(10)
METRIC_COUNT = 10

#: Columns of the layer table: features in and out; where kernel and bias begin in the state's arrays; where input,
#: ReLU output and output (unlike the ReLU output where a residual is added) begin in ``work``.
FAN_IN, WIDTH, KERNEL, BIAS, INPUT, RELU, OUTPUT = range(7)
LAYER_COLUMNS = 7

#: The most features that a strip runs along at once: panel and weights of so many fit into the first-level cache.
BLOCK = 256

#: Vectors of inputs that stay in the first-level cache while a kernel's gradient takes the errors of all outputs.
INPUT_VECTORS = 256

#: From so many inputs on, a kernel's gradient is faster with the errors turned (`_transposed_gradient`).
TRANSPOSED_FROM = 24

_EPSILON, _SQUARED_NORM_FLOOR = 1e-7, 1e-12
_LOG_EPSILON, _LOG_2 = math.log(1e-7), math.log(2.0)


class Plan(NamedTuple):
    """What is the same in all runs of a stack: sizes, choices, and where things lie in ``work``."""

    depth: int
    outputs: int
    loss: int
    residual: bool
    regularizer: int
    optimizer: int
    batch_size: int
    train_count: int
    test_count: int
    shuffle: bool
    #: Columns of the tables of features and targets, at least eight.
    feature_columns: int
    target_columns: int
    #: Where the biases begin in the arrays of the state, a multiple of sixteen.
    biases: int
    #: Places in ``work``: targets, and three regions for errors on their way back.
    targets: int
    target_step: int
    error: int
    other_error: int
    upstream: int
    error_step: int
    #: Place in ``work`` for the errors of sixteen outputs, turned: a vector a row of the batch.
    transposed: int
    learning_rate: float
    momentum: float
    penalty: float


class Run(NamedTuple):
    """One run: its tables, its state, its key.

    ``features`` and the targets are float32 tables, row by row; ``train_rows`` and ``test_rows`` index the features,
    ``test_rows`` the test targets too, training targets are in the order of ``train_rows``. The arrays of the state
    are all kernels, one after the other and each (fan_in, width), zeros up to a multiple of sixteen, all biases, zeros.
    """

    features: Array
    train_targets: Array
    test_targets: Array
    train_rows: Integers
    test_rows: Integers
    weights: Array
    gradient: Array
    first_moment: Array
    second_moment: Array
    #: The seed's low and high 32 bits.
    key_low: int
    key_high: int
    #: Whether all targets are 0 or 1.
    train_binary: bool
    test_binary: bool


class Scratch(NamedTuple):
    """Memory that runs share one after the other."""

    work: Array
    #: Float64 (metrics + 2, lanes), flat: the metrics' sums, the penalty's, and one to add up in.
    sums: Sums
    order: Integers
    words: NDArray[np.uint32]
    #: Where the sixteen rows of a panel begin in a table.
    starts: Integers


@compiled
def panel_step(features: int) -> int:
    """The distance from panel to panel: an odd number of vectors, so that panels spread over all sets of a cache."""
    return LANES * (features | 1)


# -- the order of the rows

_WORD = 0xFFFFFFFF


@compiled
def fill_words(words: NDArray[np.uint32], key_low: int, key_high: int, stream: int, step: int) -> None:
    """The words of `butter_etl.streams.words`: Philox4x32-10 of counters (block, step, stream, 0)."""
    low, half = np.uint64(_WORD), np.uint64(32)
    for block in range(words.size // 4):
        c0, c1, c2, c3 = np.uint64(block), np.uint64(step), np.uint64(stream), np.uint64(0)
        k0, k1 = np.uint64(key_low), np.uint64(key_high)
        for _ in range(10):
            product_0 = c0 * np.uint64(0xD2511F53)
            product_1 = c2 * np.uint64(0xCD9E8D57)
            c0 = (product_1 >> half) ^ c1 ^ k0
            c1 = product_1 & low
            c2 = (product_0 >> half) ^ c3 ^ k1
            c3 = product_0 & low
            k0 = (k0 + np.uint64(0x9E3779B9)) & low
            k1 = (k1 + np.uint64(0xBB67AE85)) & low
        words[4 * block] = c0
        words[4 * block + 1] = c1
        words[4 * block + 2] = c2
        words[4 * block + 3] = c3


#: `butter_etl.streams.Stream.ORDER`, a plain number for compiled code.
ORDER_STREAM = 1

_shuffle = compiled(shuffle)


@compiled
def fill_order(order: Integers, words: NDArray[np.uint32], key_low: int, key_high: int, epoch: int) -> None:
    """The order of `butter_etl.streams.epoch_order`; ``words`` has room for one a row, a multiple of four."""
    for i in range(order.size):
        order[i] = i
    fill_words(words, key_low, key_high, ORDER_STREAM, epoch)
    _shuffle(order, words)


# -- rows of a table into panels


@compiled
def gather_panel(table: Array, columns: int, starts: Integers, work: Array, at: int) -> None:
    """Sixteen rows of a table become one panel; the last block of eight columns may overlap the one before."""
    for column in range(0, columns - 7, 8):
        gather_columns(table, starts, column, work, at + LANES * column)
    if columns % 8:
        gather_columns(table, starts, columns - 8, work, at + LANES * (columns - 8))


@compiled
def gather_training(plan: Plan, run: Run, scratch: Scratch, features: int, first: int, rows: int) -> None:
    """Features and targets of the ``rows`` rows from ``first`` on in the epoch's order."""
    starts, work = scratch.starts, scratch.work
    for panel in range((rows + LANES - 1) // LANES):
        for lane in range(LANES):
            place = scratch.order[first + min(panel * LANES + lane, rows - 1)]
            starts[lane] = run.train_rows[place] * plan.feature_columns
            starts[LANES + lane] = place * plan.target_columns
        at = features + panel * panel_step(plan.feature_columns)
        gather_panel(run.features, plan.feature_columns, starts, work, at)
        at = plan.targets + panel * plan.target_step
        gather_panel(run.train_targets, plan.target_columns, starts[LANES:], work, at)


@compiled
def gather_test(plan: Plan, run: Run, scratch: Scratch, features: int, first: int, rows: int) -> None:
    """Features and targets of the ``rows`` test rows from ``first`` on."""
    starts, work = scratch.starts, scratch.work
    for panel in range((rows + LANES - 1) // LANES):
        for lane in range(LANES):
            place = run.test_rows[first + min(panel * LANES + lane, rows - 1)]
            starts[lane] = place * plan.feature_columns
            starts[LANES + lane] = place * plan.target_columns
        at = features + panel * panel_step(plan.feature_columns)
        gather_panel(run.features, plan.feature_columns, starts, work, at)
        at = plan.targets + panel * plan.target_step
        gather_panel(run.test_targets, plan.target_columns, starts[LANES:], work, at)


# -- forward


@compiled
def _forward_strip(
    start: Group,
    weights: Array,
    at: int,
    width: int,
    work: Array,
    source: int,
    source_step: int,
    count: int,
    target: int,
    target_step: int,
    panels: int,
    resume: bool,
    finish: int,
    skip: int,
    output: int,
) -> None:
    """As many output features as ``start`` has vectors, in all panels: ``target[o] = start[o] + sum_i W[i, o] A[i]``.

    ``start`` is the bias; with ``resume`` the sums go on from what ``target`` holds. ``at`` is where the strip's first
    weight lies. ``finish``: 0 leaves the sums, 1 and 2 take the ReLU, 2 also writes it plus ``skip`` to ``output``.
    """
    for panel in range(panels):
        vectors, place, goal = source + panel * source_step, at, target + panel * target_step
        group = load_each(start, work, goal) if resume else start
        for _ in range(count):
            group = multiply_add_each(group, weights, place, 1, load(work, vectors))
            place += width
            vectors += LANES
        if finish > 0:
            group = relu_each(group)
        store_each(work, goal, group)
        if finish > 1:
            store_each(work, output + panel * target_step, add_each(group, work, skip + panel * source_step))


@compiled
def forward_layer(plan: Plan, weights: Array, work: Array, layer: Integers, number: int, panels: int) -> None:
    """One layer: its output panels, after the ReLU and the addition of its input where it has them."""
    fan_in, width = layer[FAN_IN], layer[WIDTH]
    source, source_step, target_step = layer[INPUT], panel_step(fan_in), panel_step(width)
    if number == 0:
        source_step = panel_step(plan.feature_columns)
    strips = (width + 5) // 6
    size = (fan_in - 1) // ((fan_in + BLOCK - 1) // BLOCK) + 1
    for block in range(0, fan_in, size):
        count, resume = min(size, fan_in - block), block > 0
        finish = 0
        if block + count == fan_in and number < plan.depth - 1:
            finish = 2 if plan.residual and number > 0 else 1
        first = 0
        for strip in range(strips):
            # As even as they can be: seven features are four and three, not six and a slow one.
            features = (width - first + strips - strip - 1) // (strips - strip)
            bias = layer[BIAS] + first
            rest: Any = (
                weights,
                layer[KERNEL] + block * width + first,
                width,
                work,
                source + LANES * block,
                source_step,
                count,
                layer[RELU] + LANES * first,
                target_step,
                panels,
                resume,
                finish,
                source + LANES * first,
                layer[OUTPUT] + LANES * first,
            )
            if features == 6:
                _forward_strip(splat_each(weights, bias, 6), *rest)
            elif features == 5:
                _forward_strip(splat_each(weights, bias, 5), *rest)
            elif features == 4:
                _forward_strip(splat_each(weights, bias, 4), *rest)
            elif features == 3:
                _forward_strip(splat_each(weights, bias, 3), *rest)
            elif features == 2:
                _forward_strip(splat_each(weights, bias, 2), *rest)
            else:
                _forward_strip(splat_each(weights, bias, 1), *rest)
            first += features


@compiled
def forward(plan: Plan, weights: Array, work: Array, layers: Integers, panels: int) -> None:
    """All layers; the logits are the last one's output."""
    for number in range(plan.depth):
        forward_layer(plan, weights, work, layers[number], number, panels)


# -- what is recorded, and the error at the logits


@compiled
def all_binary(work: Array, at: int, step: int, features: int, panels: int) -> bool:
    """Whether every value of a region is 0 or 1: the one thing that Keras' hinges decide batch by batch."""
    worst = splat(0.0)
    for panel in range(panels):
        for k in range(features):
            y = load(work, at + panel * step + LANES * k)
            excess = magnitude(y * (1.0 - y))
            worst = where_less(worst, excess, excess, worst)
    return sum_lanes(worst) == 0.0


@compiled
def _softmax_panel(work: Array, logits: int, targets: int, p: int, log_p: int, outputs: int) -> Vector:
    """Softmax of a panel to ``p``, its logarithm (from the logits) to ``log_p``; returns the rows' cross-entropies."""
    top = load(work, logits)
    for k in range(1, outputs):
        z = load(work, logits + LANES * k)
        top = where_less(top, z, z, top)
    total = splat(0.0)
    for k in range(outputs):
        power = exp(load(work, logits + LANES * k) - top)
        total = total + power
        store(work, p + LANES * k, power)
    inverse_total, log_total = 1.0 / total, log(total)
    task_loss = splat(0.0)
    for k in range(outputs):
        store(work, p + LANES * k, load(work, p + LANES * k) * inverse_total)
        log_of_p = load(work, logits + LANES * k) - top - log_total
        store(work, log_p + LANES * k, log_of_p)
        task_loss = task_loss - load(work, targets + LANES * k) * log_of_p
    return task_loss


@compiled
def _sigmoid_panel(work: Array, logits: int, targets: int, p: int, log_p: int, outputs: int) -> Vector:
    """Sigmoid of a panel to ``p``, its logarithm to ``log_p``; returns the rows' binary cross-entropies."""
    task_loss = splat(0.0)
    for k in range(outputs):
        z = load(work, logits + LANES * k)
        decay = exp(0.0 - magnitude(z))
        rest = log1p(decay)
        quotient = 1.0 / (1.0 + decay)
        store(work, p + LANES * k, where_less(z, 0.0, decay * quotient, quotient))
        store(work, log_p + LANES * k, where_less(z, 0.0, z, 0.0) - rest)
        task_loss = task_loss + (where_less(z, 0.0, 0.0, z) - z * load(work, targets + LANES * k) + rest)
    return task_loss * (1.0 / outputs)


@compiled
def _logarithmic_panel(
    work: Array, targets: int, p: int, log_p: int, outputs: int, binary: bool, rows: int, sums: Sums
) -> None:
    """Mean squared logarithmic error, Kullback-Leibler divergence."""
    squared, divergence = splat(0.0), splat(0.0)
    for k in range(outputs):
        y, log_of_p = load(work, targets + LANES * k), load(work, log_p + LANES * k)
        y = where_less(y, _EPSILON, _EPSILON, y)
        clipped = where_less(1.0, y, 1.0, y)
        if binary:
            log_of_y, log1p_of_y = where_less(y, 0.5, _LOG_EPSILON, 0.0), where_less(y, 0.5, _EPSILON, _LOG_2)
        else:
            log_of_y, log1p_of_y = log(clipped), log1p(y)
        log_of_p = where_less(log_of_p, _LOG_EPSILON, _LOG_EPSILON, log_of_p)
        log_of_p = where_less(0.0, log_of_p, 0.0, log_of_p)
        divergence = multiply_add(clipped, log_of_y - log_of_p, divergence)
        prediction = load(work, p + LANES * k)
        difference = log1p(where_less(prediction, _EPSILON, _EPSILON, prediction)) - log1p_of_y
        squared = multiply_add(difference, difference, squared)
    add_to_sums(sums, LANES * LOGARITHMIC, keep_first(squared * (1.0 / outputs), rows))
    add_to_sums(sums, LANES * KULLBACK, keep_first(divergence, rows))


@compiled
def _product_panel(work: Array, targets: int, p: int, outputs: int, binary: bool, rows: int, sums: Sums) -> None:
    """Hinge, squared hinge, cosine similarity."""
    hinge, squared_hinge = splat(0.0), splat(0.0)
    dot, prediction_norm, target_norm = splat(0.0), splat(0.0), splat(0.0)
    # y' = 2 y - 1 in a batch of 0 and 1 only, else y' = y.
    factor, offset = (2.0, -1.0) if binary else (1.0, 0.0)
    for k in range(outputs):
        prediction, y = load(work, p + LANES * k), load(work, targets + LANES * k)
        shortfall = 1.0 - multiply_add(y, factor, offset) * prediction
        shortfall = where_less(shortfall, 0.0, 0.0, shortfall)
        hinge = hinge + shortfall
        squared_hinge = multiply_add(shortfall, shortfall, squared_hinge)
        dot = multiply_add(prediction, y, dot)
        prediction_norm = multiply_add(prediction, prediction, prediction_norm)
        target_norm = multiply_add(y, y, target_norm)
    prediction_norm = where_less(prediction_norm, _SQUARED_NORM_FLOOR, _SQUARED_NORM_FLOOR, prediction_norm)
    target_norm = where_less(target_norm, _SQUARED_NORM_FLOOR, _SQUARED_NORM_FLOOR, target_norm)
    add_to_sums(sums, LANES * HINGE, keep_first(hinge * (1.0 / outputs), rows))
    add_to_sums(sums, LANES * SQUARED_HINGE, keep_first(squared_hinge * (1.0 / outputs), rows))
    add_to_sums(sums, LANES * COSINE, keep_first(dot / (root(prediction_norm) * root(target_norm)), rows))


@compiled
def _accuracy_panel(work: Array, targets: int, p: int, outputs: int, rows: int, sums: Sums) -> None:
    """Accuracy."""
    best, best_target = load(work, p), load(work, targets)
    if outputs == 1:
        hit = where_equal(where_less(0.5, best, 1.0, 0.0), best_target, 1.0, 0.0)
        add_to_sums(sums, LANES * ACCURACY, keep_first(hit, rows))
        return
    # What is not a number counts as the largest, and the first of several stays.
    best = where_at_most(best, 1.0, best, np.inf)
    predicted, expected = splat(0.0), splat(0.0)
    for k in range(1, outputs):
        prediction, y, number = load(work, p + LANES * k), load(work, targets + LANES * k), splat(k)
        prediction = where_at_most(prediction, 1.0, prediction, np.inf)
        predicted = where_less(best, prediction, number, predicted)
        best = where_less(best, prediction, prediction, best)
        expected = where_less(best_target, y, number, expected)
        best_target = where_less(best_target, y, y, best_target)
    add_to_sums(sums, LANES * ACCURACY, keep_first(where_equal(predicted, expected, 1.0, 0.0), rows))


@compiled
def _error_panel(
    work: Array, targets: int, p: int, outputs: int, loss: int, scale: float, rows: int, sums: Sums
) -> Vector:
    """Squared and absolute error; predictions become the gradient at the logits. Returns the rows' squared errors."""
    squared, absolute = splat(0.0), splat(0.0)
    for k in range(outputs):
        prediction = load(work, p + LANES * k)
        difference = prediction - load(work, targets + LANES * k)
        squared = multiply_add(difference, difference, squared)
        absolute = absolute + magnitude(difference)
        slope = difference * scale
        if loss == SQUARED_ERROR:
            slope = slope * (prediction * (1.0 - prediction))
        store(work, p + LANES * k, keep_first(slope, rows))
    squared = squared * (1.0 / outputs)
    add_to_sums(sums, LANES * SQUARED, keep_first(squared, rows))
    add_to_sums(sums, LANES * ABSOLUTE, keep_first(absolute * (1.0 / outputs), rows))
    return squared


@compiled
def _measure_panel(
    work: Array,
    logits: int,
    targets: int,
    error: int,
    spare: int,
    outputs: int,
    loss: int,
    binary: bool,
    scale: float,
    rows: int,
    sums: Sums,
) -> None:
    """The metrics of one panel with ``rows`` rows, added to ``sums``; its error at the logits is written to ``error``.

    The formulas are those of `butter_etl.metrics`, row values float32 and their sums float64. ``binary``: all targets
    of the batch are 0 or 1; ``scale`` is the factor of the error; ``spare`` is overwritten. Several short loops keep
    their sums in registers, where one long loop could not.
    """
    if loss == SOFTMAX_CROSSENTROPY:
        task_loss = _softmax_panel(work, logits, targets, error, spare, outputs)
    else:
        task_loss = _sigmoid_panel(work, logits, targets, error, spare, outputs)
    _logarithmic_panel(work, targets, error, spare, outputs, binary, rows, sums)
    _product_panel(work, targets, error, outputs, binary, rows, sums)
    _accuracy_panel(work, targets, error, outputs, rows, sums)
    squared = _error_panel(work, targets, error, outputs, loss, scale, rows, sums)
    if loss == SQUARED_ERROR:
        task_loss = squared
    add_to_sums(sums, LANES * LOSS, keep_first(task_loss, rows))


@compiled
def measure(
    plan: Plan, run_binary: bool, weights: Array, work: Array, logits: int, rows: int, panels: int, sums: Sums
) -> None:
    """Add a batch's metrics and penalty to ``sums``, and write the gradient of its mean loss at the logits."""
    step = panel_step(plan.outputs)
    binary = run_binary or all_binary(work, plan.targets, plan.target_step, plan.outputs, panels)
    # Of the cross-entropies the gradient is (p - y) / rows, of the squared error 2 (p - y) p (1 - p) / values.
    scale = 1.0 / rows
    if plan.loss == SIGMOID_CROSSENTROPY:
        scale = 1.0 / (plan.outputs * rows)
    elif plan.loss == SQUARED_ERROR:
        scale = 2.0 / (plan.outputs * rows)
    for panel in range(panels):
        _measure_panel(
            work,
            logits + panel * step,
            plan.targets + panel * plan.target_step,
            plan.error + panel * plan.error_step,
            plan.other_error,
            plan.outputs,
            plan.loss,
            binary,
            scale,
            min(rows - panel * LANES, LANES),
            sums,
        )
    if plan.regularizer != NO_PENALTY:
        sums[LANES * METRIC_COUNT] += penalty(plan, weights, sums) * rows


@compiled
def penalty(plan: Plan, weights: Array, sums: Sums) -> float:
    """L1: penalty sum|W|, L2: penalty sum W^2, over the kernels of all layers; summed in float64."""
    spare = LANES * (METRIC_COUNT + 1)
    for at in range(0, plan.biases, LANES):
        w = load(weights, at)
        add_to_sums(sums, spare, magnitude(w) if plan.regularizer == L1 else w * w)
    total = 0.0
    for lane in range(LANES):
        total += sums[spare + lane]
        sums[spare + lane] = 0.0
    return total * plan.penalty


# -- backward


@compiled
def _backward_strip(
    start: Group,
    weights: Array,
    at: int,
    width: int,
    work: Array,
    error: int,
    error_step: int,
    relu: int,
    relu_step: int,
    target: int,
    upstream: int,
    panels: int,
    keep: int,
) -> None:
    """As many input features as ``start`` has vectors: ``target[i] = sum_o W[i, o] E[o]`` where the ReLU was on.

    ``keep``: bit 1 adds what ``upstream`` holds (the gradient handed back by an addition), bit 0 writes the sum there.
    """
    for panel in range(panels):
        vectors, place = error + panel * error_step, at
        group = start
        for _ in range(width):
            group = multiply_add_each(group, weights, place, width, load(work, vectors))
            place += 1
            vectors += LANES
        if keep & 2:
            group = add_each(group, work, upstream + panel * error_step)
        if keep & 1:
            store_each(work, upstream + panel * error_step, group)
        store_each(work, target + panel * error_step, zero_each_where_off(group, work, relu + panel * relu_step))


@compiled
def backward_inputs(
    plan: Plan, weights: Array, work: Array, layer: Integers, relu: int, error: int, target: int, keep: int, panels: int
) -> None:
    """The error of the layer below, from the ``error`` of ``layer``."""
    fan_in, width = layer[FAN_IN], layer[WIDTH]
    relu_step = panel_step(fan_in)
    strips = (fan_in + 5) // 6
    first = 0
    for strip in range(strips):
        features = (fan_in - first + strips - strip - 1) // (strips - strip)
        rest: Any = (
            weights,
            layer[KERNEL] + first * width,
            width,
            work,
            error,
            plan.error_step,
            relu + LANES * first,
            relu_step,
            target + LANES * first,
            plan.upstream + LANES * first,
            panels,
            keep,
        )
        if features == 6:
            _backward_strip(zero_each(6), *rest)
        elif features == 5:
            _backward_strip(zero_each(5), *rest)
        elif features == 4:
            _backward_strip(zero_each(4), *rest)
        elif features == 3:
            _backward_strip(zero_each(3), *rest)
        elif features == 2:
            _backward_strip(zero_each(2), *rest)
        else:
            _backward_strip(zero_each(1), *rest)
        first += features


@compiled
def _kernel_tiles(
    start: Tile,
    gradient: Array,
    at: int,
    width: int,
    work: Array,
    left: int,
    left_step: int,
    right: int,
    right_step: int,
    panels: int,
    count: int,
) -> None:
    """The gradient of ``count`` tiles of the kernel, one below the other: inputs times errors, summed over the rows."""
    for _ in range(count):
        tile = start
        for panel in range(panels):
            tile = add_products(tile, work, left + panel * left_step, right + panel * right_step)
        store_sums(gradient, at, width, tile)
        at += len(start) * width
        left += len(start) * LANES


@compiled
def _any_kernel_tiles(rows: int, columns: int, rest: Any) -> None:  # noqa: PLR0912 (twelve shapes)
    """`_kernel_tiles` of a shape that is known only when running."""
    if rows == 3:
        if columns == 4:
            _kernel_tiles(zero_tile(3, 4), *rest)
        elif columns == 3:
            _kernel_tiles(zero_tile(3, 3), *rest)
        elif columns == 2:
            _kernel_tiles(zero_tile(3, 2), *rest)
        else:
            _kernel_tiles(zero_tile(3, 1), *rest)
    elif rows == 2:
        if columns == 4:
            _kernel_tiles(zero_tile(2, 4), *rest)
        elif columns == 3:
            _kernel_tiles(zero_tile(2, 3), *rest)
        elif columns == 2:
            _kernel_tiles(zero_tile(2, 2), *rest)
        else:
            _kernel_tiles(zero_tile(2, 1), *rest)
    elif columns == 4:
        _kernel_tiles(zero_tile(1, 4), *rest)
    elif columns == 3:
        _kernel_tiles(zero_tile(1, 3), *rest)
    elif columns == 2:
        _kernel_tiles(zero_tile(1, 2), *rest)
    else:
        _kernel_tiles(zero_tile(1, 1), *rest)


@compiled
def _tiled_gradient(
    plan: Plan, gradient: Array, work: Array, layer: Integers, source_step: int, error: int, panels: int, first: int
) -> None:
    """The gradient of a kernel's columns from ``first`` on, in tiles of up to 3 x 4 weights.

    A few tiles' inputs stay in the first-level cache while the errors of all outputs pass by.
    """
    fan_in, width = layer[FAN_IN], layer[WIDTH]
    tile_columns, cached = (width - first + 3) // 4, 3 * max(1, INPUT_VECTORS // (3 * panels))
    top = 0
    while top < fan_in:
        # Tiles of three inputs, and one of what remains.
        rows = min(3, fan_in - top)
        count = max(1, min(cached, fan_in - top) // 3)
        column = first
        for tile_column in range(tile_columns):
            columns = (width - column + tile_columns - tile_column - 1) // (tile_columns - tile_column)
            rest: Any = (
                gradient,
                layer[KERNEL] + top * width + column,
                width,
                work,
                layer[INPUT] + LANES * top,
                source_step,
                error + LANES * column,
                plan.error_step,
                panels,
                count,
            )
            _any_kernel_tiles(rows, columns, rest)
            column += columns
        top += rows * count


@compiled
def _gradient_strip(
    start: Group,
    gradient: Array,
    at: int,
    width: int,
    work: Array,
    source: int,
    source_step: int,
    transposed: int,
    panels: int,
) -> None:
    """Sixteen columns of the kernel's gradient in as many rows as ``start``, zeros, has vectors."""
    group = start
    for panel in range(panels):
        place, vectors = source + panel * source_step, transposed + panel * LANES * LANES
        for _ in range(LANES):
            group = multiply_add_each(group, work, place, LANES, load(work, vectors))
            place += 1
            vectors += LANES
    store_rows(gradient, at, width, group)


@compiled
def _transposed_gradient(
    plan: Plan, gradient: Array, scratch: Scratch, layer: Integers, source_step: int, error: int, panels: int, end: int
) -> None:
    """The gradient of a kernel's columns before ``end``, a multiple of sixteen.

    The errors of sixteen outputs at a time are turned, a row of the batch a vector. Then no vector's lanes have to be
    summed up, which pays where there are inputs enough to share the turning.
    """
    work, starts, fan_in, width = scratch.work, scratch.starts, layer[FAN_IN], layer[WIDTH]
    strips = (fan_in + 5) // 6
    for column in range(0, end, LANES):
        for panel in range(panels):
            for lane in range(LANES):
                starts[lane] = error + panel * plan.error_step + LANES * (column + lane)
            at = plan.transposed + panel * LANES * LANES
            gather_columns(work, starts, 0, work, at)
            gather_columns(work, starts, HALF, work, at + LANES * HALF)
        top = 0
        for strip in range(strips):
            rows = (fan_in - top + strips - strip - 1) // (strips - strip)
            rest: Any = (
                gradient,
                layer[KERNEL] + top * width + column,
                width,
                work,
                layer[INPUT] + LANES * top,
                source_step,
                plan.transposed,
                panels,
            )
            # Twenty inputs and more come in strips of five and six.
            if rows == 6:
                _gradient_strip(zero_each(6), *rest)
            else:
                _gradient_strip(zero_each(5), *rest)
            top += rows


@compiled
def kernel_gradient(
    plan: Plan, gradient: Array, scratch: Scratch, layer: Integers, source_step: int, error: int, panels: int
) -> None:
    """The mean loss's gradient of a layer's kernel: inputs times errors, summed over the rows."""
    first = 0
    if layer[FAN_IN] >= TRANSPOSED_FROM:
        first = layer[WIDTH] // LANES * LANES
        _transposed_gradient(plan, gradient, scratch, layer, source_step, error, panels, first)
    if first < layer[WIDTH]:
        _tiled_gradient(plan, gradient, scratch.work, layer, source_step, error, panels, first)


@compiled
def bias_gradient(plan: Plan, gradient: Array, work: Array, layer: Integers, error: int, panels: int) -> None:
    """The errors summed over the rows."""
    for k in range(layer[WIDTH]):
        total = splat(0.0)
        for panel in range(panels):
            total = total + load(work, error + LANES * k + panel * plan.error_step)
        gradient[layer[BIAS] + k] = sum_lanes(total)


@compiled
def backward(plan: Plan, run: Run, scratch: Scratch, layers: Integers, panels: int) -> None:
    """Fill ``run.gradient`` from the error at the logits (`measure`)."""
    work, error, below = scratch.work, plan.error, plan.other_error
    handed_back = 0
    for reverse in range(plan.depth):
        number = plan.depth - 1 - reverse
        layer = layers[number]
        source_step = panel_step(plan.feature_columns) if number == 0 else panel_step(layer[FAN_IN])
        kernel_gradient(plan, run.gradient, scratch, layer, source_step, error, panels)
        bias_gradient(plan, run.gradient, work, layer, error, panels)
        if number == 0:
            break
        # The layer below adds its input to its ReLU if it is hidden, not the first, and the network residual; then
        # the gradient of that input is this one as it is, plus what comes through the ReLU.
        hands_back = 1 if plan.residual and number > 1 else 0
        relu = layers[number - 1, RELU]
        backward_inputs(plan, run.weights, work, layer, relu, error, below, 2 * handed_back + hands_back, panels)
        handed_back = hands_back
        error, below = below, error


# -- the optimizer


@compiled
def adam_rate(learning_rate: float, step: int) -> float:
    """Adam's bias-corrected rate lr sqrt(1 - 0.999^t) / (1 - 0.9^t) at step t = 1, 2, …; rounded as Keras rounds it.

    See `butter_etl.engines.parameters.adam_rates`: 1 - 0.999^t is taken in float32.
    """
    one = np.float32(1)
    first = one - np.float32(np.float64(np.float32(0.9)) ** step)
    second = one - np.float32(np.float64(np.float32(0.999)) ** step)
    rate: float = np.float32(learning_rate) * np.sqrt(second) / first
    return rate


@compiled
def _penalized(plan: Plan, g: Vector, w: Vector, decay: float) -> Vector:
    """The gradient with the penalty's: ``decay`` sign(W) for L1, ``decay`` W for L2."""
    if plan.regularizer == L1:
        return g + where_less(0.0, w, decay, where_less(w, 0.0, -decay, 0.0))
    return multiply_add(w, decay, g)


@compiled
def update(plan: Plan, run: Run, first: int, end: int, decay: float, step: int) -> None:
    """One step of Keras' optimizers on the parameters from ``first`` to ``end``; see `butter_etl.engines.parameters`.

    ``decay`` is the factor of `_penalized`, ``step`` counts from 1.
    """
    rate = plan.learning_rate
    if plan.optimizer == ADAM:
        rate = adam_rate(plan.learning_rate, step)
    for at in range(first, end, LANES):
        w, g = load(run.weights, at), load(run.gradient, at)
        if decay != 0.0:
            g = _penalized(plan, g, w, decay)
        if plan.optimizer == ADAM:
            m, v = load(run.first_moment, at), load(run.second_moment, at)
            m = multiply_add(g - m, 1 - 0.9, m)
            v = multiply_add(g * g - v, 1 - 0.999, v)
            store(run.first_moment, at, m)
            store(run.second_moment, at, v)
            w = w - m * rate / (root(v) + _EPSILON)
        elif plan.optimizer == SGD:
            moved = multiply_add(load(run.first_moment, at), plan.momentum, g)
            store(run.first_moment, at, moved)
            w = w - moved * rate
        else:
            v = load(run.second_moment, at)
            v = multiply_add(g * g - v, 1 - 0.9, v)
            store(run.second_moment, at, v)
            moved = multiply_add(load(run.first_moment, at), plan.momentum, g / root(v + _EPSILON))
            store(run.first_moment, at, moved)
            w = w - moved * rate
        store(run.weights, at, w)


@compiled
def optimize(plan: Plan, run: Run, step: int) -> None:
    """One step on all parameters; only kernels are penalised."""
    decay = 0.0
    if plan.regularizer == L1:
        decay = plan.penalty
    elif plan.regularizer == L2:
        decay = 2.0 * plan.penalty
    update(plan, run, 0, plan.biases, decay, step)
    update(plan, run, plan.biases, run.weights.size, 0.0, step)


# -- epochs


@compiled
def train_epoch(plan: Plan, run: Run, scratch: Scratch, layers: Integers, epoch: int) -> None:
    """One pass over the training rows, a step a batch; leaves the metrics in ``scratch.sums``."""
    if plan.shuffle:
        fill_order(scratch.order, scratch.words, run.key_low, run.key_high, epoch)
    work, logits = scratch.work, layers[plan.depth - 1, OUTPUT]
    batches = (plan.train_count + plan.batch_size - 1) // plan.batch_size
    for batch in range(batches):
        first = batch * plan.batch_size
        rows = min(plan.batch_size, plan.train_count - first)
        panels = (rows + LANES - 1) // LANES
        gather_training(plan, run, scratch, layers[0, INPUT], first, rows)
        forward(plan, run.weights, work, layers, panels)
        measure(plan, run.train_binary, run.weights, work, logits, rows, panels, scratch.sums)
        backward(plan, run, scratch, layers, panels)
        optimize(plan, run, epoch * batches + batch + 1)


@compiled
def test_epoch(plan: Plan, run: Run, scratch: Scratch, layers: Integers) -> None:
    """One pass over the test rows, in batches as in training; leaves the metrics in ``scratch.sums``."""
    for first in range(0, plan.test_count, plan.batch_size):
        rows = min(plan.batch_size, plan.test_count - first)
        panels = (rows + LANES - 1) // LANES
        gather_test(plan, run, scratch, layers[0, INPUT], first, rows)
        forward(plan, run.weights, scratch.work, layers, panels)
        logits = layers[plan.depth - 1, OUTPUT]
        measure(plan, run.test_binary, run.weights, scratch.work, logits, rows, panels, scratch.sums)


@compiled
def record(sums: Sums, rows: int, histories: NDArray[np.float32], first_row: int, epoch: int) -> None:
    """Write the means of a pass to ten rows of ``histories`` (rows, epochs); clears ``sums``."""
    for metric in range(METRIC_COUNT):
        total = 0.0
        for lane in range(LANES):
            total += sums[LANES * metric + lane]
        if metric == LOSS:
            total += sums[LANES * METRIC_COUNT]
        if metric != ROOT:
            histories[first_row + metric, epoch] = total / rows
        if metric == SQUARED:
            histories[first_row + ROOT, epoch] = np.sqrt(total / rows)
    sums[:] = 0.0


@compiled
def run_epochs(
    plan: Plan,
    run: Run,
    scratch: Scratch,
    layers: Integers,
    histories: NDArray[np.float32],
    first_epoch: int,
    last_epoch: int,
) -> None:
    """Train one run from ``first_epoch`` to before ``last_epoch``; the state is all that goes from one to the next.

    ``layers`` int64 (depth, `LAYER_COLUMNS`). Epoch e fills column e of ``histories`` float32 (20, epochs): the ten
    training metrics, then the ten test metrics.
    """
    mode = flush_subnormals()
    for epoch in range(first_epoch, last_epoch):
        train_epoch(plan, run, scratch, layers, epoch)
        record(scratch.sums, plan.train_count, histories, 0, epoch)
        test_epoch(plan, run, scratch, layers)
        record(scratch.sums, plan.test_count, histories, METRIC_COUNT, epoch)
    restore_subnormals(mode)
