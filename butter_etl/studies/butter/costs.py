"""Estimates of the cost of training, for plans and for cutting tasks of even length. They never touch results.

An epoch of one run costs, in seconds of one core::

    rows * parameters flops / rate + batches * (step + depth * layer) + rows * outputs * metric

The four rates of each engine have defaults of the order of a current server core; `butter-etl calibrate` measures them
and keeps them in the user's cache, by processor family. On a GPU a stack takes about as long as one run until the
device is full; there the rates are of a run's share in a large stack, and a guess.
"""

from __future__ import annotations

import math
import uuid
from pathlib import Path

import msgspec

from butter_etl.engines import HISTORIES, Device, cpu_family
from butter_etl.errors import UsageError, writing
from butter_etl.studies.butter.datasets import DatasetInfo
from butter_etl.studies.butter.experiments import ExperimentSpec
from butter_etl.studies.butter.topology import Topology
from butter_etl.studies.user_folders import NO_HOME, user_cache

#: A stack keeps about this many float32 copies of each run's weights (weights, gradient, two moments, …).
_WEIGHT_COPIES = 6

#: Share of a GPU's free memory that a stack may take: the estimate is rough, and libraries need some too.
_GPU_SHARE = 0.7
#: The most runs in a stack: the run frame's ``stack`` is a uint16.
_LARGEST_STACK = 2**16 - 1
#: Memory that the torch engine takes on a GPU whatever the stack: metrics are computed for up to 2^22 outputs at once.
_GPU_FIXED_BYTES = 4.0 * 2**22 * 14


class Rates(msgspec.Struct, frozen=True):
    """The cost rates of an engine on a kind of core.

    ``flops`` are floating-point operations a second in matrix products. ``step_seconds`` are taken by each batch
    whatever it holds, ``layer_seconds`` by each layer of each batch, ``metric_seconds`` by each output of each row.
    """

    flops: float
    step_seconds: float
    layer_seconds: float
    metric_seconds: float


DEFAULT_RATES = {
    "fused": Rates(flops=4e10, step_seconds=5e-6, layer_seconds=2e-6, metric_seconds=5e-9),
    # a stack of about ten runs
    "torch": Rates(flops=1.5e10, step_seconds=5e-5, layer_seconds=2e-5, metric_seconds=1.2e-8),
}
#: Of the order of a data centre's GPU with some hundred runs in a stack: a guess, not a measurement.
GPU_RATES = Rates(flops=5e12, step_seconds=1e-6, layer_seconds=5e-7, metric_seconds=2e-10)


def features(spec: ExperimentSpec, parameters: int, info: DatasetInfo) -> tuple[float, float, float, float]:
    """Count one run's work in the units of `Rates`: operations, batches, batches times layers, rows times outputs."""
    batches = math.ceil(info.train_rows / spec.batch_size) + math.ceil(info.test_rows / spec.batch_size)
    operations = float(spec.epochs) * (6 * info.train_rows + 2 * info.test_rows) * parameters
    steps = float(spec.epochs) * batches
    return operations, steps, steps * spec.depth, float(spec.epochs) * info.rows * info.outputs


def core_seconds(spec: ExperimentSpec, parameters: int, info: DatasetInfo, rates: Rates) -> float:
    """Estimate the cost of one run of an experiment, in seconds of one core."""
    operations, steps, layers, outputs = features(spec, parameters, info)
    return (
        operations / rates.flops
        + steps * rates.step_seconds
        + layers * rates.layer_seconds
        + outputs * rates.metric_seconds
    )


def watch_seconds(spec: ExperimentSpec, seconds: float, info: DatasetInfo) -> float:
    """Estimate how long a run, of so many seconds, goes on between two calls of the watch: an epoch, or about a second.

    A batch that takes longer is finished first.
    """
    batches = math.ceil(info.train_rows / spec.batch_size) + math.ceil(info.test_rows / spec.batch_size)
    epoch = seconds / spec.epochs
    return min(epoch, max(1.0, epoch / batches))


def stack_bytes(parameters: int, info: DatasetInfo) -> float:
    """Estimate a worker's memory for one run of a stack, in bytes: weights and their copies, its rows and targets."""
    return 4.0 * (_WEIGHT_COPIES * parameters + info.train_rows * (info.outputs + 2))


def state_bytes(parameters: int, spec: ExperimentSpec) -> float:
    """Estimate what a run adds to a checkpoint, in bytes: weights, two moments, histories."""
    return 4.0 * (3 * parameters + len(HISTORIES) * spec.epochs)


def gpu_run_bytes(spec: ExperimentSpec, topology: Topology, info: DatasetInfo) -> float:
    """Return the bytes that the torch engine holds on a GPU for each run of a stack, at most.

    They hold weights, their gradient, two moments and two temporaries; a batch with its activations on the way forth
    and back; the training targets; the row numbers of an epoch in order; a batch's outputs with what metrics take.
    """
    batch = min(spec.batch_size, info.train_rows)
    activations = info.inputs + 4 * sum(topology.widths) + 14 * info.outputs
    row_numbers = 2 * (5 * info.train_rows + 3 * info.test_rows)  # int64, so two floats each
    floats = _WEIGHT_COPIES * topology.num_free_parameters + batch * activations + info.train_rows * info.outputs
    return 4.0 * (floats + row_numbers)


def gpu_stack_limit(spec: ExperimentSpec, topology: Topology, info: DatasetInfo, free_bytes: float) -> int:
    """Return how many runs to train side by side on a GPU that has so much memory free; at least one."""
    shared = 4.0 * info.rows * (info.inputs + info.outputs) + _GPU_FIXED_BYTES
    fitting = int((_GPU_SHARE * free_bytes - shared) / gpu_run_bytes(spec, topology, info))
    return min(max(1, fitting), _LARGEST_STACK)


def default_rates(engine: str, device: Device) -> Rates:
    """Return the rates that an engine has on a device where nothing was measured."""
    return GPU_RATES if device == "cuda" else DEFAULT_RATES[engine]


def load_rates(engine: str, device: Device) -> Rates:
    """Return an engine's rates on this kind of core: measured where `butter-etl calibrate` has run, else the default.

    Of a GPU they are always the default, `GPU_RATES`.
    """
    default, path = default_rates(engine, device), rates_path(engine)
    if device == "cuda" or path is None or not path.exists():
        return default
    try:
        return msgspec.json.decode(path.read_bytes(), type=Rates)
    except msgspec.DecodeError:  # written by another version: an estimate is not worth an error
        return default


def save_rates(engine: str, rates: Rates) -> Path:
    """Keep measured rates for this user and kind of core; return the file.

    Raises PlaceError or FullDiskError if it cannot be written.
    """
    path = require_rates_path(engine)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(msgspec.json.format(msgspec.json.encode(rates)) + b"\n")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return path


def rates_path(engine: str) -> Path | None:
    """Return the path of an engine's measured rates for this user and kind of core; None for users without a home."""
    cache = user_cache()
    return None if cache is None else cache / f"rates-{engine}-{cpu_family()}.json"


def require_rates_path(engine: str) -> Path:
    """Return the path of an engine's measured rates. Raises UsageError for users without a home."""
    path = rates_path(engine)
    if path is None:
        raise UsageError(f"no folder is known to keep rates in: {NO_HOME}")
    return path
