"""The compiled part of the fused engine: batches and epochs of one run, without the interpreter.

An epoch is the rows' order, and for each batch the gathering of its rows into panels
(`butter_etl.engines.fused.memory`), the forward and backward products (`butter_etl.engines.fused.products`) with what
is recorded in between (`butter_etl.engines.fused.measures`), and the step of the optimizer; then the same without steps
for the test rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from butter_etl.engines.compiling import compiled
from butter_etl.engines.fused.lanes import (
    COLUMNS,
    LANES,
    flush_subnormals,
    gather_columns,
    load,
    multiply_add,
    restore_subnormals,
    root,
    store,
    where_less,
)
from butter_etl.engines.fused.measures import measure
from butter_etl.engines.fused.memory import (
    ADAM,
    INPUT,
    L1,
    L2,
    LOSS,
    METRIC_COUNT,
    ONE_HOT,
    OUTPUT,
    ROOT,
    SGD,
    SQUARED,
    Plan,
    Run,
    Scratch,
    panel_step,
)
from butter_etl.engines.fused.products import backward, forward
from butter_etl.engines.streams import shuffle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.fused.lanes import Array, Vector
    from butter_etl.engines.fused.memory import Integers, Rows, Sums

_EPSILON = 1e-7

# -- the order of the rows

_WORD = 0xFFFFFFFF


@compiled
def fill_words(words: NDArray[np.uint32], key_low: int, key_high: int, stream: int, step: int) -> None:
    """Fill ``words`` as `butter_etl.engines.streams.words` does: Philox4x32-10 of counters (block, step, stream, 0)."""
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


#: `butter_etl.engines.streams.Stream.ORDER`, a plain number for compiled code.
ORDER_STREAM = 1

_shuffle = compiled(shuffle)


@compiled
def fill_order(order: Rows, words: NDArray[np.uint32], key_low: int, key_high: int, epoch: int) -> None:
    """Fill ``order`` as `streams.epoch_order` does; ``words`` has room for one a row, a multiple of four."""
    for i in range(order.size):
        order[i] = i
    fill_words(words, key_low, key_high, ORDER_STREAM, epoch)
    rows: Any = order
    _shuffle(rows, words)


# -- rows of a table into panels


@compiled
def gather_panel(table: Array, columns: int, starts: Integers, first: int, work: Array, at: int) -> None:
    """Gather sixteen rows of a table, from ``starts[first]`` on, into a panel; the last columns may be done twice."""
    for column in range(0, columns - COLUMNS + 1, COLUMNS):
        gather_columns(table, starts, first, column, work, at + LANES * column)
    if columns % COLUMNS:
        gather_columns(table, starts, first, columns - COLUMNS, work, at + LANES * (columns - COLUMNS))


@compiled
def _gather_panels(
    plan: Plan, scratch: Scratch, features: Array, targets: Array, kind: int, region: int, rows: int
) -> None:
    """Gather the batch of the ``rows`` rows that ``scratch`` names; one-hot targets, classes, are in place already."""
    panels, work = (rows + LANES - 1) // LANES, scratch.work
    for row in range(rows, LANES * panels):
        scratch.feature_starts[row] = scratch.feature_starts[rows - 1]
        scratch.target_starts[row] = scratch.target_starts[rows - 1]
        if kind == ONE_HOT:
            work[plan.targets + row] = work[plan.targets + rows - 1]
    for panel in range(panels):
        first, at = panel * LANES, region + panel * panel_step(plan.feature_columns)
        gather_panel(features, plan.feature_columns, scratch.feature_starts, first, work, at)
        if kind != ONE_HOT:
            at = plan.targets + panel * plan.target_step
            gather_panel(targets, plan.target_columns, scratch.target_starts, first, work, at)


@compiled
def gather_training(plan: Plan, run: Run, scratch: Scratch, region: int, first: int, rows: int) -> None:
    """Gather features, to ``region``, and targets of the ``rows`` rows from ``first`` on in the epoch's order."""
    for row in range(rows):
        place = scratch.order[first + row]
        scratch.feature_starts[row] = run.train_rows[place] * plan.feature_columns
        if run.train_kind == ONE_HOT:
            scratch.work[plan.targets + row] = run.train_targets[place]
        else:
            scratch.target_starts[row] = place * plan.target_columns
    _gather_panels(plan, scratch, run.features, run.train_targets, run.train_kind, region, rows)


@compiled
def gather_test(plan: Plan, run: Run, scratch: Scratch, region: int, first: int, rows: int) -> None:
    """Gather features, to ``region``, and targets of the ``rows`` test rows from ``first`` on."""
    for row in range(rows):
        place = run.test_rows[first + row]
        scratch.feature_starts[row] = place * plan.feature_columns
        if run.test_kind == ONE_HOT:
            scratch.work[plan.targets + row] = run.test_targets[place]
        else:
            scratch.target_starts[row] = place * plan.target_columns
    _gather_panels(plan, scratch, run.features, run.test_targets, run.test_kind, region, rows)


# -- the optimizer


@compiled
def adam_rate(learning_rate: float, step: int) -> float:
    """Return Adam's bias-corrected rate lr sqrt(1 - 0.999^t) / (1 - 0.9^t) at step t = 1, 2, …, rounded as by Keras.

    See `butter_etl.engines.batched.parameters.adam_rates`: 1 - 0.999^t is taken in float32.
    """
    one = np.float32(1)
    first = one - np.float32(np.float64(np.float32(0.9)) ** step)
    second = one - np.float32(np.float64(np.float32(0.999)) ** step)
    rate: float = np.float32(learning_rate) * np.sqrt(second) / first
    return rate


@compiled
def _penalized(plan: Plan, g: Vector, w: Vector, decay: float) -> Vector:
    """Add the penalty's gradient to ``g``: ``decay`` sign(W) for L1, ``decay`` W for L2."""
    if plan.regularizer == L1:
        return g + where_less(0.0, w, decay, where_less(w, 0.0, -decay, 0.0))
    return multiply_add(w, decay, g)


@compiled
def update(plan: Plan, run: Run, first: int, end: int, decay: float, step: int) -> None:
    """Take one step of Keras' optimizers on the parameters from ``first`` to before ``end``.

    The formulas are those of `butter_etl.engines.batched.parameters`. ``decay`` is the factor of `_penalized`, ``step``
    counts from 1.
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
    """Take one step on all parameters; only kernels are penalised."""
    decay = 0.0
    if plan.regularizer == L1:
        decay = plan.penalty
    elif plan.regularizer == L2:
        decay = 2.0 * plan.penalty
    update(plan, run, 0, plan.biases, decay, step)
    update(plan, run, plan.biases, run.weights.size, 0.0, step)


# -- batches and epochs


@compiled
def batches_of(count: int, batch_size: int) -> int:
    """Return the number of batches of ``count`` rows; the last one may be partial."""
    return (count + batch_size - 1) // batch_size


@compiled
def train_batches(
    plan: Plan, run: Run, scratch: Scratch, layers: Integers, epoch: int, first_batch: int, last_batch: int
) -> None:
    """Take a step a batch of the training rows, from ``first_batch`` to before ``last_batch`` of an epoch.

    Adds the batches' metrics to ``scratch.sums``.
    """
    if plan.shuffle:
        fill_order(scratch.order, scratch.words, run.key_low, run.key_high, epoch)
    work, logits = scratch.work, layers[plan.depth - 1, OUTPUT]
    batches = batches_of(plan.train_count, plan.batch_size)
    for batch in range(first_batch, last_batch):
        first = batch * plan.batch_size
        rows = min(plan.batch_size, plan.train_count - first)
        panels = (rows + LANES - 1) // LANES
        gather_training(plan, run, scratch, layers[0, INPUT], first, rows)
        forward(plan, run.weights, work, layers, panels)
        measure(plan, run.train_kind, run.weights, work, logits, rows, panels, scratch.sums)
        backward(plan, run, scratch, layers, panels)
        optimize(plan, run, epoch * batches + batch + 1)


@compiled
def test_batches(plan: Plan, run: Run, scratch: Scratch, layers: Integers, first_batch: int, last_batch: int) -> None:
    """Add the metrics of the test rows' batches from ``first_batch`` to before ``last_batch`` to `Scratch.test_sums`.

    The batches are as large as in training.
    """
    for batch in range(first_batch, last_batch):
        first = batch * plan.batch_size
        rows = min(plan.batch_size, plan.test_count - first)
        panels = (rows + LANES - 1) // LANES
        gather_test(plan, run, scratch, layers[0, INPUT], first, rows)
        forward(plan, run.weights, scratch.work, layers, panels)
        logits = layers[plan.depth - 1, OUTPUT]
        measure(plan, run.test_kind, run.weights, scratch.work, logits, rows, panels, scratch.test_sums)


@compiled
def record(sums: Sums, rows: int, histories: NDArray[np.float32], first_row: int, epoch: int) -> None:
    """Write the means of a pass to ten rows of ``histories`` (rows, epochs), and clear ``sums``."""
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
def run_batches(
    plan: Plan,
    run: Run,
    scratch: Scratch,
    layers: Integers,
    histories: NDArray[np.float32],
    first: int,
    last: int,
) -> None:
    """Train one run from batch ``first`` to before batch ``last``, the batches of all epochs counted on.

    An epoch's batches are those of the training rows, then those of the test rows. What goes from one batch to the next
    is the run's state and the sums in ``scratch``. ``layers`` is int64 (depth, `LAYER_COLUMNS`). Epoch e, when it is
    over, fills column e of ``histories`` float32 (20, epochs): the ten training metrics, then the ten test metrics.
    """
    mode = flush_subnormals()
    training = batches_of(plan.train_count, plan.batch_size)
    both = training + batches_of(plan.test_count, plan.batch_size)
    for epoch in range(first // both, batches_of(last, both)):
        begin, end = max(first - epoch * both, 0), min(last - epoch * both, both)
        if begin < training:
            train_batches(plan, run, scratch, layers, epoch, begin, min(end, training))
        if end > training:
            test_batches(plan, run, scratch, layers, max(begin - training, 0), end - training)
        if end == both:
            record(scratch.sums, plan.train_count, histories, 0, epoch)
            record(scratch.test_sums, plan.test_count, histories, METRIC_COUNT, epoch)
    restore_subnormals(mode)
