"""The ten recorded metrics, on torch tensors, as Keras defines them.

Every function takes a stack of batches, float32 (batches, rows, outputs), and returns float64 (batches,): the *sum*
over each batch's rows of that metric's value for a row. Sums add across batches, so an epoch's mean is the sum over its
batches divided by its rows (`epoch_values`). Terms are computed in float32, as training is, and summed in float64.

``predictions`` are taken after the output activation, ``logits`` before it. Non-finite values pass through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from butter_etl.schema import METRICS

if TYPE_CHECKING:
    from butter_etl.engines import Loss

#: Keras' `backend.epsilon()`: the lower clip of logarithms' arguments.
EPSILON = 1e-7

#: The floor of a squared norm in TensorFlow's `l2_normalize`.
SQUARED_NORM_FLOOR = 1e-12

_LOSS = METRICS.index("loss")
_ROOT_MEAN_SQUARED_ERROR = METRICS.index("root_mean_squared_error")


def activate(loss: Loss, logits: Tensor) -> Tensor:
    """The network's predictions: softmax under categorical cross-entropy, sigmoid under every other loss."""
    if loss == "categorical_crossentropy":
        return torch.softmax(logits, dim=-1)
    return torch.sigmoid(logits)


def task_loss(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss that is minimised, without penalty; cross-entropies from logits, so that nothing is clipped."""
    if loss == "categorical_crossentropy":
        return categorical_crossentropy(logits, targets)
    if loss == "binary_crossentropy":
        return binary_crossentropy(logits, targets)
    return mean_squared_error(activate(loss, logits), targets)


def categorical_crossentropy(logits: Tensor, targets: Tensor) -> Tensor:
    """A row is -sum_k y_k log_softmax(z)_k; rows that are not one-hot simply sum."""
    return -_sum(targets * torch.log_softmax(logits, dim=-1))


def binary_crossentropy(logits: Tensor, targets: Tensor) -> Tensor:
    """A row is the mean over outputs of max(z, 0) - z y + ln(1 + e^-|z|)."""
    terms = functional.relu(logits) - logits * targets + torch.log1p(torch.exp(-logits.abs()))
    return _mean_over_outputs(terms)


def accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """One output: 1 where y equals (p > 0.5) exactly. Several: 1 where argmax y = argmax p, first index on ties."""
    if targets.shape[-1] == 1:
        return _sum(targets == (predictions > 0.5))
    return _sum((targets.argmax(dim=-1) == predictions.argmax(dim=-1)).unsqueeze(-1))


def mean_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """A row is the mean over outputs of (p - y)^2."""
    return _mean_over_outputs((predictions - targets).square())


def mean_absolute_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """A row is the mean over outputs of |p - y|."""
    return _mean_over_outputs((predictions - targets).abs())


def mean_squared_logarithmic_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """A row is the mean over outputs of (ln(1 + max(p, 1e-7)) - ln(1 + max(y, 1e-7)))^2."""
    difference = predictions.clamp(min=EPSILON).log1p() - targets.clamp(min=EPSILON).log1p()
    return _mean_over_outputs(difference.square())


def hinges(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Hinge and squared hinge: means over outputs of max(0, 1 - y' p) and of its square.

    y' = 2 y - 1 for a batch whose targets are all 0 or 1, else y' = y: Keras decides batch by batch.
    """
    binary = ((targets == 0) | (targets == 1)).all(dim=-1).all(dim=-1)[:, None, None]
    signed = torch.where(binary, 2 * targets - 1, targets)
    shortfall = functional.relu(1 - signed * predictions)
    return _mean_over_outputs(shortfall), _mean_over_outputs(shortfall.square())


def cosine_similarity(predictions: Tensor, targets: Tensor) -> Tensor:
    """A row is sum_k y_k p_k over both norms, each sqrt(max(sum of squares, 1e-12)); 1 means aligned."""
    dot = (predictions * targets).sum(dim=-1, keepdim=True)
    return _sum(dot * _inverse_norm(predictions) * _inverse_norm(targets))


def kullback_leibler_divergence(predictions: Tensor, targets: Tensor) -> Tensor:
    """A row is sum_k y_k ln(y_k / p_k), both clipped to [1e-7, 1]."""
    clipped = targets.clamp(EPSILON, 1.0)
    return _sum(clipped * torch.log(clipped / predictions.clamp(EPSILON, 1.0)))


def metric_sums(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """All ten sums, float64 (metrics, batches), in the order of `METRICS`.

    The row of ``root_mean_squared_error`` holds the sum of squared errors: `epoch_values` takes its root.
    """
    predictions = activate(loss, logits)
    squared_error = mean_squared_error(predictions, targets)
    hinge, squared_hinge = hinges(predictions, targets)
    sums = {
        "loss": squared_error if loss == "mean_squared_error" else task_loss(loss, logits, targets),
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


def epoch_values(sums: Tensor, rows: int, penalty_sum: Tensor) -> Tensor:
    """An epoch's recorded values, float32 (metrics, runs), from its sums (metrics, runs) over ``rows`` rows.

    ``penalty_sum`` (runs,) is the penalty summed over rows: ``loss`` includes it, no other metric does.
    """
    values = sums / rows
    values[_LOSS] += penalty_sum / rows
    values[_ROOT_MEAN_SQUARED_ERROR].sqrt_()
    return values.float()


def _sum(terms: Tensor) -> Tensor:
    return terms.sum(dim=(1, 2), dtype=torch.float64)


def _mean_over_outputs(terms: Tensor) -> Tensor:
    return _sum(terms) / terms.shape[-1]


def _inverse_norm(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=-1, keepdim=True).clamp(min=SQUARED_NORM_FLOOR).rsqrt()
