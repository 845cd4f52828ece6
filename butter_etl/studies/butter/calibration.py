"""Measure what an engine costs on this machine's cores, for estimates and for packing tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import Engine, StackData, load_engine, stack_starts
from butter_etl.studies.butter.costs import Rates, features
from butter_etl.studies.butter.datasets import DatasetInfo
from butter_etl.studies.butter.experiments import ExperimentSpec
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.butter.topology import Topology, closest_topology
from butter_etl.studies.butter.training import network_of, optimization_of

#: Row counts, inputs and outputs of published data sets of different kinds; the rows themselves are noise.
_SHAPES = (
    DatasetInfo("wine_quality_white", "pmlb", "classification", 4898, 11, 11, 7),
    DatasetInfo("nursery", "pmlb", "classification", 12958, 8, 26, 4),
    DatasetInfo("529_pollen", "pmlb", "regression", 3848, 4, 4, 1),
)
_SIZES = (2**6, 2**9, 2**12, 2**15, 2**17)
_DEPTHS = (2, 6)
_BATCH_SIZES = (64, 256)
_STACK = 5
_SECONDS_EACH = 0.3


def measure_rates(engine: str) -> Rates:
    """Measure the rates of ``engine`` on one core of this machine, by about half a minute of training.

    They are the non-negative rates with the least sum of squared relative errors (Lawson & Hanson), over networks of
    different sizes, depths, batch sizes and data.
    """
    from scipy.optimize import nnls

    train = load_engine(engine)
    rows, seconds = [], []
    for spec, topology, info in _problems():
        rows.append(features(spec, topology.num_free_parameters, info))
        seconds.append(_measure(train, spec, topology, info))
    relative = np.array(rows) / np.array(seconds)[:, None]
    scale = relative.max(axis=0)
    solution: NDArray[np.float64] = nnls(relative / scale, np.ones(len(rows)))[0] / scale
    return Rates(1.0 / max(float(solution[0]), 1e-13), *map(float, solution[1:]))


def _problems() -> Iterator[tuple[ExperimentSpec, Topology, DatasetInfo]]:
    for number, size in enumerate(_SIZES):
        for depth in _DEPTHS:
            for batch_size in _BATCH_SIZES:
                info = _SHAPES[(number + depth + batch_size) % len(_SHAPES)]
                spec = make_experiment(dataset=info.name, size=size, depth=depth, batch_size=batch_size, epochs=1)
                yield spec, closest_topology(spec.shape, size, depth, info.inputs, info.outputs), info


def _measure(train: Engine, spec: ExperimentSpec, topology: Topology, info: DatasetInfo) -> float:
    """Measure the core-seconds of one epoch of one run, the compiling of a first call left out."""
    network = network_of(spec, info.inputs, topology.widths)
    seeds = list(range(_STACK))
    data, start = _noise(info), stack_starts(seeds, network)
    best, spent = np.inf, 0.0
    train(network, optimization_of(spec), data, seeds, start)
    while True:
        began = time.thread_time()
        train(network, optimization_of(spec), data, seeds, start)
        took = time.thread_time() - began
        best, spent = min(best, took), spent + took
        if spent >= _SECONDS_EACH:
            break
    return float(best) / _STACK


def _noise(info: DatasetInfo) -> StackData:
    generator = np.random.default_rng(0)
    y = np.zeros((info.rows, info.outputs), dtype=np.float32)
    y[np.arange(info.rows), generator.integers(0, info.outputs, info.rows)] = 1.0
    order = np.tile(np.arange(info.rows, dtype=np.int64), (_STACK, 1))
    train_rows, test_rows = order[:, info.test_rows :], order[:, : info.test_rows]
    return StackData(
        x=generator.random((info.rows, info.inputs), dtype=np.float32),
        y=y,
        train_rows=np.ascontiguousarray(train_rows),
        test_rows=np.ascontiguousarray(test_rows),
        train_targets=y[train_rows],
    )
