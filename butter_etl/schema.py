"""The columns of both frames, declared once: names, order and Arrow types of the published data set, then our additions."""

from __future__ import annotations

#: The ten metrics, by the names under which the summary frame and the published document speak of them.
METRICS = (
    "loss",
    "accuracy",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "mean_squared_logarithmic_error",
    "hinge",
    "squared_hinge",
    "cosine_similarity",
    "kullback_leibler_divergence",
)

#: The twenty list columns of the run frame, one value an epoch: `val_` is the test set, the bare name the training set.
HISTORIES = tuple(name for metric in METRICS for name in (f"val_{metric}", metric))
