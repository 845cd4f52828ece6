"""Train a stack of repetitions of one experiment and make rows of the run frame of it. No files, no Dask."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from butter_etl.datasets import Dataset, noisy_targets, split_rows
from butter_etl.engines import Device, Network, Optimization, StackData, Trained, load_engine
from butter_etl.engines.initialization import stack_starts
from butter_etl.provenance import host_facts
from butter_etl.schema import HISTORIES, RUN_FILE_SCHEMA
from butter_etl.spec import TASK, TASK_VERSION, ExperimentSpec, RunSpec
from butter_etl.sweeps import sweep_flags
from butter_etl.topology import find_topology, is_residual, network_structure

COMPLETED = "completed"


def network_of(spec: ExperimentSpec, inputs: int, widths: tuple[int, ...]) -> Network:
    """The network of an experiment, as engines take it."""
    regularizer = spec.kernel_regularizer
    return Network(
        inputs=inputs,
        widths=widths,
        loss=spec.loss,
        residual=is_residual(spec.shape),
        regularizer=regularizer.type if regularizer else None,
        penalty=regularizer.factor if regularizer else 0.0,
    )


def optimization_of(spec: ExperimentSpec) -> Optimization:
    """How an experiment trains its network, as engines take it."""
    return Optimization(
        optimizer=spec.optimizer,
        learning_rate=spec.learning_rate,
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        momentum=spec.momentum or 0.0,
    )


def stack_data(spec: ExperimentSpec, dataset: Dataset, seeds: Sequence[int]) -> StackData:
    """Each run's own split and noisy training targets, from the named streams of its seed."""
    splits = [split_rows(seed, dataset.x.shape[0]) for seed in seeds]
    targets = [
        noisy_targets(seed, dataset.y[train], spec.label_noise, spec.loss)
        for seed, (train, _) in zip(seeds, splits, strict=True)
    ]
    return StackData(
        x=dataset.x,
        y=dataset.y,
        train_rows=np.stack([train for train, _ in splits]),
        test_rows=np.stack([test for _, test in splits]),
        train_targets=np.stack(targets),
    )


def prepare_engine(engine: str) -> None:
    """Have an engine ready in this process: the first use of a compiled one compiles, and says so in the log."""
    network = Network(inputs=2, widths=(2, 1), loss="mean_squared_error")
    optimization = Optimization(optimizer="adam", learning_rate=0.1, batch_size=2, epochs=1)
    rows = np.arange(2, dtype=np.int64)[None]
    x, y = np.eye(2, dtype=np.float32), np.zeros((2, 1), dtype=np.float32)
    data = StackData(x=x, y=y, train_rows=rows, test_rows=rows, train_targets=y[None])
    load_engine(engine)(network, optimization, data, [0], stack_starts([0], network))


def train_stack(
    spec: ExperimentSpec,
    repetitions: Sequence[int],
    dataset: Dataset,
    *,
    experiment_id: int,
    batch: str,
    engine: str,
    device: Device = "cpu",
) -> pa.Table:
    """Train ``repetitions`` of an experiment side by side: one row each, in `RUN_FILE_SCHEMA`.

    Raises InfeasibleError for an experiment that has no topology.
    """
    runs = [RunSpec(spec, repetition) for repetition in repetitions]
    seeds = [run.seed for run in runs]
    info = dataset.info
    topology = find_topology(spec.shape, spec.size, spec.depth, info.inputs, info.outputs)
    network = network_of(spec, info.inputs, topology.widths)
    train = load_engine(engine)
    started, cpu_started = time.time(), time.thread_time()
    data = stack_data(spec, dataset, seeds)
    trained = train(network, optimization_of(spec), data, seeds, stack_starts(seeds, network), device=device)
    core_seconds = (time.thread_time() - cpu_started) / len(runs)
    constant: dict[str, object] = {
        "experiment_id": experiment_id,
        **sweep_flags(spec),
        "batch": batch,
        "task": TASK,
        **spec.parameters(),
        **host_facts(),
        "num_free_parameters": topology.num_free_parameters,
        "widths": list(topology.widths),
        "network_structure": network_structure(spec, info.inputs, topology.widths),
        "task_version": TASK_VERSION,
        "start_time": int(started),
        "update_time": int(time.time()),
        "engine": engine,
        "device": device,
        "stack": len(runs),
        "core_seconds": core_seconds,
        "end_reason": COMPLETED,
    }
    return _run_rows(constant, runs, batch, trained)


def _run_rows(constant: dict[str, object], runs: list[RunSpec], batch: str, trained: Trained) -> pa.Table:
    varying: dict[str, list[object]] = {
        "run_id": [run.run_id for run in runs],
        "seed": [run.seed for run in runs],
        "repetition": [run.repetition for run in runs],
        "command": [run.command(batch) for run in runs],
    }
    columns = {}
    for field in RUN_FILE_SCHEMA:
        if field.name in HISTORIES:
            columns[field.name] = _list_column(trained.histories[field.name])
        elif field.name in varying:
            columns[field.name] = pa.array(varying[field.name], type=field.type)
        else:
            columns[field.name] = pa.array([constant[field.name]] * len(runs), type=field.type)
    return pa.table(columns, schema=RUN_FILE_SCHEMA)


def _list_column(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> pa.ListArray:
    """A float32 array (runs, epochs) as a list column, NaN kept as NaN."""
    runs, epochs = values.shape
    offsets = np.arange(runs + 1, dtype=np.int32) * np.int32(epochs)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1), type=pa.float32())
    return pa.ListArray.from_arrays(offsets, flat).cast(RUN_FILE_SCHEMA.field(HISTORIES[0]).type)
