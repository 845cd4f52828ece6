"""The metrics of a batch, and the error at its logits: ten metrics in a few passes over the outputs of a panel.

The formulas are those of `butter_etl.engines.batched.metrics`; a panel's row values are float32, and so are their sums
over up to sixteen panels, which go on to float64. Softmax outputs with one-hot targets, the common case, have a way of
their own: there each metric is a function of the true class's output and of two sums over the others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from butter_etl.engines.compiling import compiled, compiled_in_place
from butter_etl.engines.fused.lanes import (
    LANES,
    add_to_sums,
    all_less,
    keep_first,
    load,
    magnitude,
    multiply_add,
    root,
    splat,
    store,
    sum_lanes,
    where_at_most,
    where_equal,
    where_less,
)
from butter_etl.engines.fused.memory import (
    ABSOLUTE,
    ACCURACY,
    COSINE,
    HINGE,
    KULLBACK,
    L1,
    LOGARITHMIC,
    LOSS,
    METRIC_COUNT,
    NO_PENALTY,
    ONE_HOT,
    SIGMOID_CROSSENTROPY,
    SOFTMAX_CROSSENTROPY,
    SPREAD,
    SQUARED,
    SQUARED_ERROR,
    SQUARED_HINGE,
    Plan,
    panel_step,
)
from butter_etl.engines.fused.vector_math import exp_of_negative, log, log1p, log1p_ratio

if TYPE_CHECKING:
    from butter_etl.engines.fused.lanes import Array, Vector
    from butter_etl.engines.fused.memory import Sums

_EPSILON, _SQUARED_NORM_FLOOR = 1e-7, 1e-12
#: Number of panels whose row values are summed in float32 before they go on to float64.
PANELS_A_SUM = 16

_LOG_EPSILON, _LOG_2 = math.log(1e-7), math.log(2.0)


@compiled
def _add(work: Array, partial: int, metric: int, rows: int, values: Vector) -> None:
    """Add the values of the first ``rows`` rows of a panel to the metric's partial sums."""
    at = partial + LANES * metric
    store(work, at, load(work, at) + keep_first(values, rows))


@compiled
def _flush(work: Array, partial: int, sums: Sums) -> None:
    """Move the partial sums to ``sums``."""
    for at in range(0, LANES * METRIC_COUNT, LANES):
        add_to_sums(sums, at, load(work, partial + at))
        store(work, partial + at, splat(0.0))


@compiled_in_place
def _one_hot_panel(  # noqa: PLR0915 (several short loops keep their sums in registers)
    work: Array, logits: int, labels: int, error: int, outputs: int, scale: float, rows: int, partial: int
) -> bool:
    """Add the metrics of one panel of softmax outputs, ``labels`` holding each row's class; see `_measure_panel`.

    With p the outputs and q the true class's: sum |p - y| = (1 - q) + sum of the other p, and so on. That keeps all
    digits of small errors, as sums over everything would not. Where a logit is not finite, it adds nothing and returns
    false.

    It is compiled in place, since a call would set up the polynomials' constants for every panel.
    """
    label, top = load(work, labels), load(work, logits)
    for k in range(1, outputs):
        z = load(work, logits + LANES * k)
        top = where_less(top, z, z, top)
    total, true_logit, number = splat(0.0), splat(0.0), splat(0.0)
    for k in range(outputs):
        z = load(work, logits + LANES * k) - top
        power = exp_of_negative(z)
        store(work, error + LANES * k, power)
        total = total + power
        # Of a logit that is not finite, 0 times it is no number.
        true_logit = multiply_add(where_equal(label, number, 1.0, 0.0), z, true_logit)
        number = number + 1.0
    if not all_less(0.0 * true_logit, total):
        return False
    highest, log_total = 1.0 / total, log(total)
    predicted, true, others, squares, number = splat(0.0), splat(0.0), splat(0.0), splat(0.0), splat(outputs)
    # Backwards: of several equal outputs the first one is predicted.
    for reverse in range(outputs):
        at = error + LANES * (outputs - 1 - reverse)
        number = number - 1.0
        p = load(work, at) * highest
        predicted = where_less(p, highest, predicted, number)
        true = where_equal(label, number, p, true)
        residual = p - where_equal(label, number, 1.0, 0.0)
        # The true class's residual is at most 0, the others' are the outputs themselves.
        other = where_less(0.0, residual, residual, 0.0)
        others = others + other
        squares = multiply_add(other, other, squares)
        store(work, at, residual)
    missing, share, logarithmic = 1.0 - true, 1.0 / outputs, splat(0.0)
    # Kullback and Leibler's p is at least 1e-7.
    floor, clipped = log_total + _LOG_EPSILON, splat(0.0)
    for k in range(outputs):
        residual = load(work, error + LANES * k)
        store(work, error + LANES * k, residual * scale)
        other = where_less(0.0, residual, residual, 0.0)
        difference = multiply_add(other, log1p_ratio(other), -_EPSILON)
        difference = where_less(0.0, difference, difference, 0.0)
        logarithmic = multiply_add(difference, difference, logarithmic)
        z = load(work, logits + LANES * k) - top
        clipped = clipped + where_less(floor, z, z, floor)
    loss = log_total - true_logit
    # The other targets count as 1e-7, too.
    divergence = multiply_add(floor, outputs - 1.0, where_less(floor, true_logit, true_logit, floor)) - clipped
    divergence = multiply_add(divergence, _EPSILON, where_less(loss, -_LOG_EPSILON, loss, -_LOG_EPSILON))
    absolute, square = missing + others, multiply_add(missing, missing, squares)
    difference = multiply_add(true, log1p_ratio(true), -_LOG_2)
    norm = multiply_add(true, true, squares)
    norm = where_less(norm, _SQUARED_NORM_FLOOR, _SQUARED_NORM_FLOOR, norm)
    _add(work, partial, LOSS, rows, loss)
    _add(work, partial, ACCURACY, rows, where_equal(predicted, label, 1.0, 0.0))
    _add(work, partial, SQUARED, rows, square * share)
    _add(work, partial, ABSOLUTE, rows, absolute * share)
    _add(work, partial, LOGARITHMIC, rows, multiply_add(difference, difference, logarithmic) * share)
    _add(work, partial, HINGE, rows, (absolute + (outputs - 1.0)) * share)
    _add(work, partial, SQUARED_HINGE, rows, multiply_add(others, 2.0, square + (outputs - 1.0)) * share)
    _add(work, partial, COSINE, rows, true / root(norm))
    _add(work, partial, KULLBACK, rows, divergence)
    if rows < LANES:
        for k in range(outputs):
            store(work, error + LANES * k, keep_first(load(work, error + LANES * k), rows))
    return True


@compiled
def _spread_labels(work: Array, labels: int, targets: int, outputs: int) -> None:
    """Write the one-hot targets of a panel, given its classes."""
    label = load(work, labels)
    for k in range(outputs):
        store(work, targets + LANES * k, where_equal(label, splat(k), 1.0, 0.0))


@compiled
def all_binary(work: Array, at: int, step: int, features: int, panels: int) -> bool:
    """Tell whether every value of a region is 0 or 1: the one thing that Keras' hinges decide batch by batch."""
    worst = splat(0.0)
    for panel in range(panels):
        for k in range(features):
            y = load(work, at + panel * step + LANES * k)
            excess = magnitude(y * (1.0 - y))
            worst = where_less(worst, excess, excess, worst)
    return sum_lanes(worst) == 0.0


@compiled
def _softmax_panel(work: Array, logits: int, targets: int, p: int, log_p: int, outputs: int) -> Vector:
    """Write the softmax of a panel to ``p`` and its logarithm to ``log_p``; return the rows' cross-entropies.

    The logarithm is taken from the logits.
    """
    top = load(work, logits)
    for k in range(1, outputs):
        z = load(work, logits + LANES * k)
        top = where_less(top, z, z, top)
    total = splat(0.0)
    for k in range(outputs):
        power = exp_of_negative(load(work, logits + LANES * k) - top)
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
    """Write the sigmoid of a panel to ``p`` and its logarithm to ``log_p``; return the rows' binary cross-entropies."""
    task_loss = splat(0.0)
    for k in range(outputs):
        z = load(work, logits + LANES * k)
        decay = exp_of_negative(0.0 - magnitude(z))
        rest = decay * log1p_ratio(decay)
        quotient = 1.0 / (1.0 + decay)
        store(work, p + LANES * k, where_less(z, 0.0, decay * quotient, quotient))
        store(work, log_p + LANES * k, where_less(z, 0.0, z, 0.0) - rest)
        task_loss = task_loss + (where_less(z, 0.0, 0.0, z) - z * load(work, targets + LANES * k) + rest)
    return task_loss * (1.0 / outputs)


@compiled
def _logarithmic_panel(
    work: Array, targets: int, p: int, log_p: int, outputs: int, binary: bool, rows: int, partial: int
) -> None:
    """Add mean squared logarithmic error and Kullback-Leibler divergence to the partial sums."""
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
        prediction = where_less(prediction, _EPSILON, _EPSILON, prediction)
        difference = multiply_add(prediction, log1p_ratio(prediction), 0.0 - log1p_of_y)
        squared = multiply_add(difference, difference, squared)
    _add(work, partial, LOGARITHMIC, rows, squared * (1.0 / outputs))
    _add(work, partial, KULLBACK, rows, divergence)


@compiled
def _product_panel(work: Array, targets: int, p: int, outputs: int, binary: bool, rows: int, partial: int) -> None:
    """Add hinge, squared hinge and cosine similarity to the partial sums."""
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
    _add(work, partial, HINGE, rows, hinge * (1.0 / outputs))
    _add(work, partial, SQUARED_HINGE, rows, squared_hinge * (1.0 / outputs))
    _add(work, partial, COSINE, rows, dot / (root(prediction_norm) * root(target_norm)))


@compiled
def _accuracy_panel(work: Array, targets: int, p: int, outputs: int, rows: int, partial: int) -> None:
    """Add accuracy to the partial sums."""
    best, best_target = load(work, p), load(work, targets)
    if outputs == 1:
        hit = where_equal(where_less(0.5, best, 1.0, 0.0), best_target, 1.0, 0.0)
        _add(work, partial, ACCURACY, rows, hit)
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
    _add(work, partial, ACCURACY, rows, where_equal(predicted, expected, 1.0, 0.0))


@compiled
def _error_panel(
    work: Array, targets: int, p: int, outputs: int, loss: int, scale: float, rows: int, partial: int
) -> Vector:
    """Add squared and absolute error to the partial sums, and return the rows' squared errors.

    The predictions at ``p`` are overwritten by the gradient at the logits.
    """
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
    _add(work, partial, SQUARED, rows, squared)
    _add(work, partial, ABSOLUTE, rows, absolute * (1.0 / outputs))
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
    partial: int,
) -> None:
    """Add the metrics of one panel with ``rows`` rows to the partial sums; write its error at the logits to ``error``.

    ``binary`` tells that all targets of the batch are 0 or 1; ``scale`` is the factor of the error; ``spare`` is
    overwritten. Several short loops keep their sums in registers, where one long loop could not.
    """
    if loss == SOFTMAX_CROSSENTROPY:
        task_loss = _softmax_panel(work, logits, targets, error, spare, outputs)
    else:
        task_loss = _sigmoid_panel(work, logits, targets, error, spare, outputs)
    _logarithmic_panel(work, targets, error, spare, outputs, binary, rows, partial)
    _product_panel(work, targets, error, outputs, binary, rows, partial)
    _accuracy_panel(work, targets, error, outputs, rows, partial)
    squared = _error_panel(work, targets, error, outputs, loss, scale, rows, partial)
    if loss == SQUARED_ERROR:
        task_loss = squared
    _add(work, partial, LOSS, rows, task_loss)


@compiled
def measure(
    plan: Plan, kind: int, weights: Array, work: Array, logits: int, rows: int, panels: int, sums: Sums
) -> None:
    """Add a batch's metrics and penalty to ``sums``, and write the gradient of its mean loss at the logits.

    ``kind`` says what the region of the targets holds: `ONE_HOT` classes, else targets, `BINARY` ones of 0 and 1 only.
    """
    step = panel_step(plan.outputs)
    binary = kind != SPREAD or all_binary(work, plan.targets, plan.target_step, plan.outputs, panels)
    # Of the cross-entropies the gradient is (p - y) / rows, of the squared error 2 (p - y) p (1 - p) / values.
    scale = 1.0 / rows
    if plan.loss == SIGMOID_CROSSENTROPY:
        scale = 1.0 / (plan.outputs * rows)
    elif plan.loss == SQUARED_ERROR:
        scale = 2.0 / (plan.outputs * rows)
    for panel in range(panels):
        source, targets = logits + panel * step, plan.targets + panel * plan.target_step
        error, count = plan.error + panel * plan.error_step, min(rows - panel * LANES, LANES)
        done = False
        if kind == ONE_HOT:
            labels = plan.targets + panel * LANES
            done = _one_hot_panel(work, source, labels, error, plan.outputs, scale, count, plan.partial)
            if not done:
                targets = plan.upstream
                _spread_labels(work, labels, targets, plan.outputs)
        if not done:
            _measure_panel(
                work,
                source,
                targets,
                error,
                plan.other_error,
                plan.outputs,
                plan.loss,
                binary,
                scale,
                count,
                plan.partial,
            )
        if panel % PANELS_A_SUM == PANELS_A_SUM - 1 or panel == panels - 1:
            _flush(work, plan.partial, sums)
    if plan.regularizer != NO_PENALTY:
        sums[LANES * METRIC_COUNT] += penalty(plan, weights, sums) * rows


@compiled
def penalty(plan: Plan, weights: Array, sums: Sums) -> float:
    """Return the penalty, penalty sum|W| for L1 or penalty sum W^2 for L2, over the kernels of all layers.

    It is summed in float64.
    """
    spare = LANES * (METRIC_COUNT + 1)
    for at in range(0, plan.biases, LANES):
        w = load(weights, at)
        add_to_sums(sums, spare, magnitude(w) if plan.regularizer == L1 else w * w)
    total = 0.0
    for lane in range(LANES):
        total += sums[spare + lane]
        sums[spare + lane] = 0.0
    return total * plan.penalty
