"""The ten recorded metrics, on torch tensors, as Keras defines them.

Every function takes a stack of batches, float32 (batches, outputs, rows), and returns float64 (batches,): the *sum*
over each batch's rows of that metric's value for a row. Sums add across batches, so an epoch's mean is the sum over its
batches divided by its rows (`epoch_values`). Row values are computed in float32, as training is, and summed in float64.
Rows come last because outputs are few: reductions over them then run along the rows, several times faster.

``predictions`` are taken after the output activation, ``logits`` before it. Non-finite values pass through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from butter_etl.engines.contract import METRICS

if TYPE_CHECKING:
    from butter_etl.engines.contract import Loss

#: Keras' `backend.epsilon()`: the lower bound to which arguments of logarithms are clipped.
EPSILON = 1e-7

#: The floor of a squared norm in TensorFlow's `l2_normalize`.
SQUARED_NORM_FLOOR = 1e-12


def activate(loss: Loss, logits: Tensor) -> Tensor:
    """Return the network's predictions: softmax under categorical cross-entropy, sigmoid under every other loss.

    They are float32 (batches, outputs, rows), as the logits are.
    """
    if loss == "categorical_crossentropy":
        return torch.softmax(logits, dim=1)
    return torch.sigmoid(logits)


def categorical_crossentropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum -sum_k y_k log_softmax(z)_k over the rows, from logits and so without clipping.

    The targets of a row need not be one-hot: the same sum is taken.
    """
    return -_sum_of_rows((targets * torch.log_softmax(logits, dim=1)).sum(dim=1))


def binary_crossentropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows the mean over outputs of max(z, 0) - z y + ln(1 + e^-|z|), from logits and so without clipping."""
    terms = functional.relu(logits) - logits * targets + torch.log1p(torch.exp(-logits.abs()))
    return _sum_of_rows(terms.mean(dim=1))


def accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """Count the rows that are predicted correctly.

    With one output, a row counts where y equals (p > 0.5) exactly; with several, where argmax y = argmax p, each the
    first index on ties.
    """
    if targets.shape[1] == 1:
        return _sum_of_rows((targets == (predictions > 0.5)).squeeze(1))
    # `max` and `argmax` agree, but along this axis `max` is six times faster.
    return _sum_of_rows(targets.max(dim=1).indices == predictions.max(dim=1).indices)


def mean_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows the mean over outputs of (p - y)^2."""
    return _sum_of_rows((predictions - targets).square().mean(dim=1))


def mean_absolute_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows the mean over outputs of |p - y|."""
    return _sum_of_rows((predictions - targets).abs().mean(dim=1))


def mean_squared_logarithmic_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows the mean over outputs of (ln(1 + max(p, 1e-7)) - ln(1 + max(y, 1e-7)))^2."""
    difference = predictions.clamp(min=EPSILON).log1p() - targets.clamp(min=EPSILON).log1p()
    return _sum_of_rows(difference.square().mean(dim=1))


def hinges(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum hinge and squared hinge over rows: the means over outputs of max(0, 1 - y' p), and of its square.

    y' = 2 y - 1 in a batch whose targets are all 0 or 1, else y' = y: Keras decides batch by batch.
    """
    # y (1 - y) is 0 for 0 and 1 alone; far faster than comparing twice.
    all_binary = (targets * (1 - targets)).abs().amax(dim=(1, 2), keepdim=True) == 0
    shortfall = functional.relu(1 - (targets * (1 + all_binary.float()) - all_binary.float()) * predictions)
    return _sum_of_rows(shortfall.mean(dim=1)), _sum_of_rows(shortfall.square().mean(dim=1))


def cosine_similarity(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows sum_k y_k p_k over both norms, each sqrt(max(sum of squares, 1e-12)); 1 means aligned."""
    dot = (predictions * targets).sum(dim=1)
    return _sum_of_rows(dot * _inverse_norm(predictions) * _inverse_norm(targets))


def _inverse_norm(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1).clamp(min=SQUARED_NORM_FLOOR).rsqrt()


def kullback_leibler_divergence(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows sum_k y_k ln(y_k / p_k), both clipped to [1e-7, 1]."""
    clipped = targets.clamp(EPSILON, 1.0)
    return _sum_of_rows((clipped * torch.log(clipped / predictions.clamp(EPSILON, 1.0))).sum(dim=1))


def _sum_of_rows(values: Tensor) -> Tensor:
    """Sum values (batches, rows) over the rows, as float64 (batches,)."""
    return values.sum(dim=1, dtype=torch.float64)


def metric_sums(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """Return all ten sums, float64 (metrics, batches), in the order of `METRICS`; the loss without penalty.

    The row of ``root_mean_squared_error`` holds the sum of squared errors: `epoch_values` takes its root.
    """
    predictions = activate(loss, logits)
    squared_error = mean_squared_error(predictions, targets)
    hinge, squared_hinge = hinges(predictions, targets)
    sums = {
        "loss": _task_loss(loss, logits, targets, squared_error),
        "accuracy": accuracy(predictions, targets),
        "mean_squared_error": squared_error,
        "mean_absolute_error": mean_absolute_error(predictions, targets),
        "root_mean_squared_error": squared_error,
        "mean_squared_logarithmic_error": mean_squared_logarithmic_error(predictions, targets),
        "hinge": hinge,
        "squared_hinge": squared_hinge,
        "cosine_similarity": cosine_similarity(predictions, targets),
        "kullback_leibler_divergence": kullback_leibler_divergence(predictions, targets),
    }
    return torch.stack([sums[name] for name in METRICS])


def _task_loss(loss: Loss, logits: Tensor, targets: Tensor, squared_error: Tensor) -> Tensor:
    if loss == "categorical_crossentropy":
        return categorical_crossentropy(logits, targets)
    if loss == "binary_crossentropy":
        return binary_crossentropy(logits, targets)
    return squared_error


def epoch_values(sums: Tensor, penalties: Tensor, rows: int) -> Tensor:
    """Return an epoch's values, float32 (metrics, runs), from the `metric_sums` (metrics, runs) over its ``rows``.

    ``penalties`` (runs,) is each row's penalty summed: ``loss`` includes it, no other metric does.
    """
    values = sums / rows
    values[METRICS.index("loss")] += penalties / rows
    values[METRICS.index("root_mean_squared_error")].sqrt_()
    return values.float()
