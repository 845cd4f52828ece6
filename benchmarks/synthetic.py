"""Stores of made-up runs, for benchmarks of what comes after training: curves as noisy as those of real trainings.

Losses fall like a power of the epoch towards a floor and are noisy at every scale; accuracies are shares of a number of
rows, so that they have few distinct values. Everything is drawn from a generator of the experiment's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from butter_etl.engines.contract import HISTORIES
from butter_etl.store.layout import partition_path, run_file_name
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import ExperimentSpec
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.frames import RUNS

#: Rows that accuracies are shares of.
TEST_ROWS = 980


def curves(name: str, runs: int, epochs: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """One history of every run of an experiment, of shape (runs, epochs)."""
    epoch = np.arange(1, epochs + 1, dtype=np.float32)
    floor, fall = rng.uniform(0.2, 0.6, (runs, 1)), rng.uniform(0.3, 0.9, (runs, 1))
    noise = rng.standard_normal((runs, epochs), dtype=np.float32)
    curve = (floor + epoch**-fall) * (1 + 0.02 * noise)
    if "accuracy" in name:
        curve = np.round(np.clip(1 - curve, 0, 1) * TEST_ROWS) / TEST_ROWS
    return curve.astype(np.float32)


def run_table(experiment_id: int, spec: ExperimentSpec, runs: int, epochs: int) -> pa.Table:
    """The rows of one experiment: its parameters, and made-up histories; what no benchmark reads is null."""
    rng = np.random.default_rng(experiment_id)
    values: Mapping[str, object] = {"experiment_id": experiment_id, **spec.parameters()}
    columns: dict[str, pa.Array] = {}
    for field in BUTTER.run_files:
        if field.name in HISTORIES:
            offsets = pa.array(np.arange(runs + 1, dtype=np.int32) * epochs)
            flat = curves(field.name, runs, epochs, rng).ravel()
            columns[field.name] = pa.ListArray.from_arrays(offsets, flat, type=field.type)
        elif field.name == "repetition":
            columns[field.name] = pa.array(range(runs), field.type)
        else:
            columns[field.name] = pa.array([values.get(field.name)] * runs, field.type)
    return pa.table(columns, schema=BUTTER.run_files)


def make_store(folder: Path, partitions: int, experiments: int, runs: int, epochs: int) -> Store:
    """A new store of ``partitions`` x ``experiments`` of ``runs`` runs each, one file an experiment.

    Experiments of a partition differ in the factor of their penalty, which needs not be one of a published sweep.
    """
    store = Store.create(folder)
    for number in range(partitions * experiments):
        partition, _ = divmod(number, experiments)
        spec = make_experiment(dataset="wine_quality_white", size=1024, depth=3 + partition, epochs=epochs)
        target = Path(store.location.path(RUNS)) / partition_path(BUTTER.keys, spec.parameters())
        target.mkdir(parents=True, exist_ok=True)
        rows = run_table(number, spec, runs, epochs)
        (target / run_file_name(number, 0, runs - 1)).write_bytes(parquet_bytes(rows))
    return store
