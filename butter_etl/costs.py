"""What training is estimated to cost, for plans and for cutting tasks of even length."""

from __future__ import annotations

import math

from butter_etl.datasets import DatasetInfo
from butter_etl.spec import ExperimentSpec

#: Floating-point operations a core-second that the torch engine reaches on large layers, and the fixed cost of one
#: batch step: defaults of the order of a current server core. They steer packing and estimates, never results.
DEFAULT_FLOPS = 2.0e10
STEP_SECONDS = 2.5e-4
#: A stack of runs keeps about this many float32 copies of each run's weights (weights, gradient, two moments, …).
_WEIGHT_COPIES = 6
_STACK_BYTES = 1.5e9


def flops(parameters: int, info: DatasetInfo, epochs: int) -> float:
    """Operations of one run: 6 per weight and training row (forward, two backward products), 2 per test row."""
    return float(epochs) * (6 * info.train_rows + 2 * info.test_rows) * parameters


def core_seconds(spec: ExperimentSpec, parameters: int, info: DatasetInfo) -> float:
    """The estimated cost of one run of an experiment, in seconds of one core."""
    batches = math.ceil(info.train_rows / spec.batch_size) + math.ceil(info.test_rows / spec.batch_size)
    return flops(parameters, info, spec.epochs) / DEFAULT_FLOPS + spec.epochs * batches * STEP_SECONDS


def stack_limit(parameters: int, info: DatasetInfo) -> int:
    """How many runs of an experiment may be trained side by side in a worker's memory; at least one."""
    bytes_a_run = 4 * (_WEIGHT_COPIES * parameters + info.train_rows * (info.outputs + 2))
    return max(1, int(_STACK_BYTES / bytes_a_run))
