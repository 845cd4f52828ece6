"""The columns of both frames, declared once: the published names, order and Arrow types, then our additions.

Partition columns are part of the full schemas (and of `_common_metadata`) but not of the files, whose schemas are
`RUN_FILE_SCHEMA`, `SUMMARY_FILE_SCHEMA` and `EXECUTIVE_FILE_SCHEMA`.
"""

from __future__ import annotations

import pyarrow as pa

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

FLOAT_LIST = pa.list_(pa.field("element", pa.float32()))
UINT8_LIST = pa.list_(pa.field("element", pa.uint8()))
UINT32_LIST = pa.list_(pa.field("element", pa.uint32()))

#: The hive keys of the layout, outermost first.
PARTITION_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("shape", pa.string()),
        ("learning_rate", pa.float32()),
        ("batch_size", pa.uint32()),
        ("kernel_regularizer.type", pa.string()),
        ("label_noise", pa.float32()),
        ("depth", pa.uint8()),
        ("epochs", pa.uint32()),
    ]
)
PARTITION_KEYS = tuple(PARTITION_SCHEMA.names)

_FLAGS = (
    "primary_sweep",
    "300_epoch_sweep",
    "30k_epoch_sweep",
    "learning_rate_sweep",
    "label_noise_sweep",
    "batch_size_sweep",
    "regularization_sweep",
)
#: The sweep flags of both frames; `optimizer_sweep` is an addition and stands after the document's columns.
FLAG_COLUMNS = (*_FLAGS, "optimizer_sweep")

_STRINGS = (
    "activation",
    "batch",
    "dataset",
    "early_stopping",
    "input_activation",
    "kernel_regularizer",
    "kernel_regularizer.type",
    "optimizer",
    "output_activation",
    "shape",
    "task",
    "test_split_method",
)
_PARAMETERS = [
    *((name, pa.string()) for name in _STRINGS),
    ("batch_size", pa.uint32()),
    ("epochs", pa.uint32()),
    ("depth", pa.uint8()),
    ("kernel_regularizer.l1", pa.float32()),
    ("kernel_regularizer.l2", pa.float32()),
    ("label_noise", pa.float32()),
    ("learning_rate", pa.float32()),
    ("test_split", pa.float32()),
    ("size", pa.uint64()),
]
_TOPOLOGY = [("num_free_parameters", pa.uint64()), ("widths", UINT32_LIST), ("network_structure", pa.string())]
_BOTH_ADDITIONS = [("momentum", pa.float32()), ("optimizer_sweep", pa.bool_())]

#: The columns of the run frame, a row a run.
RUN_SCHEMA = pa.schema(
    [
        ("experiment_id", pa.uint32()),
        ("run_id", pa.string()),
        *((flag, pa.bool_()) for flag in _FLAGS),
        *_PARAMETERS,
        ("num_free_parameters", pa.uint64()),
        *((name, pa.string()) for name in ("python_version", "tensorflow_version", "platform", "git_hash", "hostname")),
        ("task_version", pa.uint16()),
        ("widths", UINT32_LIST),
        ("network_structure", pa.string()),
        ("command", pa.string()),
        ("seed", pa.int64()),
        ("start_time", pa.int64()),
        ("update_time", pa.int64()),
        *((name, FLOAT_LIST) for name in HISTORIES),
        *_BOTH_ADDITIONS,
        ("repetition", pa.uint16()),
        ("torch_version", pa.string()),
        ("engine", pa.string()),
        ("device", pa.string()),
        ("cpu_family", pa.string()),
        ("stack", pa.uint16()),
        ("core_seconds", pa.float32()),
        ("job_id", pa.string()),
        ("end_reason", pa.string()),
    ]
)

#: The eight series of the summary frame and the run column each is computed from.
SERIES = {
    "test_loss": "val_loss",
    "train_loss": "loss",
    "test_accuracy": "val_accuracy",
    "train_accuracy": "accuracy",
    "test_mean_squared_error": "val_mean_squared_error",
    "train_mean_squared_error": "mean_squared_error",
    "test_kullback_leibler_divergence": "val_kullback_leibler_divergence",
    "train_kullback_leibler_divergence": "kullback_leibler_divergence",
}
_LOSSES = ("test_loss", "train_loss")
_LOSS_STATISTICS = ("avg", "stddev", "min", "max", "median")
_OTHER_STATISTICS = ("avg", "stddev", "median")
#: Each run's best epoch and value of these series; their distribution over the runs is one extremum block each.
EXTREMA = (
    "test_loss_min",
    "test_accuracy_max",
    "test_mean_squared_error_min",
    "test_kullback_leibler_divergence_min",
)
_DISTRIBUTION = ("min", "q1", "median", "q3", "max", "avg")


def _series_columns(series: str) -> list[tuple[str, pa.DataType]]:
    counts = [(f"{series}_num_finite", UINT8_LIST)] if series in _LOSSES else []
    statistics = _LOSS_STATISTICS if series in _LOSSES else _OTHER_STATISTICS
    return counts + [(f"{series}_{statistic}", FLOAT_LIST) for statistic in statistics]


def _extremum_columns(extremum: str) -> list[tuple[str, pa.DataType]]:
    integers = ("epoch_min", "epoch_max")
    names = [f"{part}_{statistic}" for part in ("epoch", "value") for statistic in _DISTRIBUTION]
    return [(f"{extremum}_{name}", pa.uint32() if name in integers else pa.float32()) for name in names]


#: The columns of the summary frame, a row an experiment.
SUMMARY_SCHEMA = pa.schema(
    [
        ("experiment_id", pa.uint32()),
        *((flag, pa.bool_()) for flag in _FLAGS),
        *_PARAMETERS,
        *_TOPOLOGY,
        ("num_runs", pa.uint8()),
        ("num", UINT8_LIST),
        *(column for series in SERIES for column in _series_columns(series)),
        *_BOTH_ADDITIONS,
        *((f"{series}_{quartile}", FLOAT_LIST) for series in SERIES for quartile in ("q1", "q3")),
        *(column for extremum in EXTREMA for column in _extremum_columns(extremum)),
    ]
)

#: The executive summary has these per-epoch lists only, and all columns of the summary frame that are no such lists.
EXECUTIVE_LISTS = ("test_loss_q1", "test_loss_median", "test_loss_q3")
EXECUTIVE_SCHEMA = pa.schema(
    [
        field
        for field in SUMMARY_SCHEMA
        if not pa.types.is_list(field.type) or field.name in ("widths", *EXECUTIVE_LISTS)
    ]
)


def without_keys(schema: pa.Schema) -> pa.Schema:
    """Return the schema of the files, without the partition columns, which are in the path."""
    return pa.schema([field for field in schema if field.name not in PARTITION_KEYS])


RUN_FILE_SCHEMA = without_keys(RUN_SCHEMA)
SUMMARY_FILE_SCHEMA = without_keys(SUMMARY_SCHEMA)
EXECUTIVE_FILE_SCHEMA = without_keys(EXECUTIVE_SCHEMA)

#: The columns of both frames that are one value an experiment, as the summary frame has them.
EXPERIMENT_COLUMNS = tuple(name for name in SUMMARY_SCHEMA.names if name in RUN_SCHEMA.names)

#: The columns of STORE/experiments, which lists the experiments that have no fixed id.
EXPERIMENTS_SCHEMA = pa.schema(
    [
        ("experiment_id", pa.uint32()),
        ("canonical_json", pa.string()),
        *_PARAMETERS,
        ("momentum", pa.float32()),
        *_TOPOLOGY,
    ]
)
