"""The meaning of each column of the published frames, in a phrase: for data cards and metadata."""

from __future__ import annotations

from butter_etl.schema import EXTREMA, FLAG_COLUMNS, HISTORIES

_NAMES = {
    "loss": "loss, penalty included",
    "accuracy": "accuracy",
    "mean_squared_error": "mean squared error",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
    "mean_squared_logarithmic_error": "mean squared logarithmic error",
    "hinge": "hinge loss",
    "squared_hinge": "squared hinge loss",
    "cosine_similarity": "cosine similarity (1: aligned)",
    "kullback_leibler_divergence": "Kullback-Leibler divergence",
}
_STATISTICS = {
    "num_finite": "number of finite values",
    "avg": "mean",
    "stddev": "sample standard deviation",
    "min": "minimum",
    "max": "maximum",
    "median": "median",
    "q1": "first quartile",
    "q3": "third quartile",
}
_SPLITS = {"test": "test set", "train": "training set"}

_NOTES = {
    "experiment_id": "the experiment: every hyperparameter, the seed left out; the same id in all directories",
    "run_id": "the run: one repetition of an experiment",
    "activation": "activation of the hidden layers",
    "batch": "the sweep that first asked for the experiment",
    "dataset": "name of the data set that was learned from",
    "early_stopping": "early stopping policy; null: none",
    "input_activation": "activation of the first dense layer",
    "kernel_regularizer": "always null; the columns with a dot say what the penalty is",
    "kernel_regularizer.type": "penalty on the kernels: l1, l2, or null for none",
    "kernel_regularizer.l1": "factor of the sum of absolute weights in the loss",
    "kernel_regularizer.l2": "factor of the sum of squared weights in the loss",
    "optimizer": "optimizer",
    "momentum": "momentum of the optimizer; null for adam",
    "output_activation": "activation of the output layer",
    "shape": "shape of the network: how the widths of its layers go",
    "task": "what made the run",
    "task_version": "major version of what made the run",
    "test_split": "share of the rows that are tested on",
    "test_split_method": "how the rows were split",
    "batch_size": "rows of a training batch",
    "epochs": "epochs trained",
    "depth": "dense layers, the output layer included",
    "label_noise": "share of the training labels made wrong; for regressions, noise in standard deviations",
    "learning_rate": "learning rate",
    "size": "number of parameters asked for",
    "num_free_parameters": "number of parameters there are: weights and biases",
    "widths": "widths of the dense layers, the output layer last",
    "network_structure": "the network as nested JSON, from the output layer down",
    "python_version": "version of Python",
    "tensorflow_version": "version of TensorFlow; null where it took no part",
    "torch_version": "version of torch",
    "platform": "operating system and machine",
    "git_hash": "commit of the software; null outside a checkout",
    "hostname": "machine that trained the run",
    "command": "the whole task as JSON",
    "seed": "seed of all that is random in the run",
    "start_time": "when training began, unix seconds",
    "update_time": "when training ended, unix seconds",
    "repetition": "number of the repetition, from 0",
    "engine": "engine that trained the run",
    "device": "cpu or cuda",
    "cpu_family": "vendor, family and model of the processor",
    "stack": "runs trained side by side with this one, itself included",
    "core_seconds": "CPU time of the run, seconds",
    "job_id": "id of the job in the site's queue; null outside a job",
    "end_reason": "why training ended",
    "num_runs": "number of runs of the experiment",
    "num": "number of runs that reach the epoch",
}


def describe_column(name: str) -> str:
    """Describe a column of either frame in a phrase; raise KeyError for a column that neither frame has."""
    if name in _NOTES:
        return _NOTES[name]
    if name in FLAG_COLUMNS:
        return f"whether the experiment is part of the {name.removesuffix('_sweep').replace('_', ' ')} sweep"
    if name in HISTORIES:
        split = "test" if name.startswith("val_") else "train"
        return f"{_NAMES[name.removeprefix('val_')]}, {_SPLITS[split]}, a value an epoch"
    return _describe_extremum(name) or _describe_statistic(name)


def _describe_extremum(name: str) -> str | None:
    for extremum in EXTREMA:
        if not name.startswith((f"{extremum}_epoch_", f"{extremum}_value_")):
            continue
        part, _, statistic = name.removeprefix(f"{extremum}_").partition("_")
        metric, _, which = extremum.removeprefix("test_").rpartition("_")
        best = f"{'smallest' if which == 'min' else 'largest'} {_NAMES[metric]}, {_SPLITS['test']}"
        what = f"epoch (from 1) of the {best}" if part == "epoch" else best
        return f"{_STATISTICS[statistic]} over the runs of the {what}"
    return None


def _describe_statistic(name: str) -> str:
    for statistic, words in _STATISTICS.items():
        series = name.removesuffix(f"_{statistic}")
        split, _, metric = series.partition("_")
        if series != name and split in _SPLITS and metric in _NAMES:
            return f"{words} over the runs of the {_NAMES[metric]}, {_SPLITS[split]}, a value an epoch"
    raise KeyError(name)
