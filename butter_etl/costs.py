"""What training costs: estimates for plans, and for cutting tasks of even length. They never touch results.

An epoch of one run costs, in seconds of one core::

    rows * parameters flops / rate + batches * (step + depth * layer) + rows * outputs * metric

The four rates of each engine have defaults of the order of a current server core; `butter-etl calibrate` measures them
and keeps them in the user's cache, by processor family.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec

from butter_etl.datasets import DatasetInfo
from butter_etl.provenance import cpu_family
from butter_etl.spec import ExperimentSpec

#: A stack keeps about this many float32 copies of each run's weights (weights, gradient, two moments, …).
_WEIGHT_COPIES = 6
_STACK_BYTES = 1.5e9


class Rates(msgspec.Struct, frozen=True):
    """What an engine costs on a kind of core.

    ``flops`` are floating-point operations a second in matrix products; ``step_seconds`` a batch takes whatever it
    holds, ``layer_seconds`` a batch and layer, ``metric_seconds`` a row and output.
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


def features(spec: ExperimentSpec, parameters: int, info: DatasetInfo) -> tuple[float, float, float, float]:
    """One run of an experiment in the units of `Rates`: operations, batches, batches times layers, row outputs."""
    batches = math.ceil(info.train_rows / spec.batch_size) + math.ceil(info.test_rows / spec.batch_size)
    operations = float(spec.epochs) * (6 * info.train_rows + 2 * info.test_rows) * parameters
    steps = float(spec.epochs) * batches
    return operations, steps, steps * spec.depth, float(spec.epochs) * info.rows * info.outputs


def core_seconds(spec: ExperimentSpec, parameters: int, info: DatasetInfo, rates: Rates) -> float:
    """The estimated cost of one run of an experiment, in seconds of one core."""
    operations, steps, layers, outputs = features(spec, parameters, info)
    return (
        operations / rates.flops
        + steps * rates.step_seconds
        + layers * rates.layer_seconds
        + outputs * rates.metric_seconds
    )


def stack_bytes(parameters: int, info: DatasetInfo) -> float:
    """What one run of a stack needs in a worker's memory: weights and their companions, its rows and targets."""
    return 4.0 * (_WEIGHT_COPIES * parameters + info.train_rows * (info.outputs + 2))


def stack_limit(parameters: int, info: DatasetInfo) -> int:
    """How many runs of an experiment may be trained side by side in a worker's memory; at least one."""
    return max(1, int(_STACK_BYTES / stack_bytes(parameters, info)))


def load_rates(engine: str) -> Rates:
    """The rates of an engine on this kind of core: measured, where `butter-etl calibrate` has run; else the default."""
    path = rates_path(engine)
    if not path.exists():
        return DEFAULT_RATES[engine]
    try:
        return msgspec.json.decode(path.read_bytes(), type=Rates)
    except msgspec.DecodeError:  # written by another version: an estimate is not worth an error
        return DEFAULT_RATES[engine]


def save_rates(engine: str, rates: Rates) -> Path:
    """Keep measured rates for this user and kind of core; returns the file."""
    path = rates_path(engine)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rates)) + b"\n")
    return path


def rates_path(engine: str) -> Path:
    """Where measured rates lie."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "butter_etl" / f"rates-{engine}-{cpu_family()}.json"
