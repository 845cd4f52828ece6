"""Record runs of Keras in the schema of the enlarged release of 2022, for tests of audits.

``python -m benchmarks.keras_runs OUT.parquet`` trains ten runs of each of three small experiments by ``Model.fit``,
each with its own split, start and order from NumPy's and Keras' generators, and writes a row a run with all twenty
histories. One run is spoiled: it was trained at five times the learning rate that its row says. The file that tests use
is ``tests/recorded/keras_runs.parquet``; it was recorded once, by Keras 3.15 on TensorFlow 2.21.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers import load_keras
from butter_etl.engines.contract import HISTORIES
from butter_etl.studies.butter.datasets import Dataset, load_dataset
from butter_etl.studies.butter.experiments import ExperimentSpec
from butter_etl.studies.butter.profiles import PROFILES
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import experiment_topology, make_experiment
from butter_etl.studies.user_folders import data_folder

RUNS = 10
EPOCHS = 12
EXPERIMENTS = tuple(
    make_experiment(dataset=name, size=size, depth=depth, learning_rate=0.01, batch_size=32, epochs=EPOCHS)
    for name, size, depth in (("wine", 256, 2), ("diabetes", 128, 3), ("breast_cancer", 128, 2))
)
#: The run that is spoiled: its experiment and its number, and what its learning rate is multiplied by.
SPOILED = (0, 4)
FACTOR = 5.0
_NAMES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "mean_squared_error": "mean_squared_error",
    "mean_absolute_error": "mean_absolute_error",
    "root_mean_squared_error": "root_mean_squared_error",
    "mean_squared_logarithmic_error": "mean_squared_logarithmic_error",
    "hinge": "hinge",
    "squared_hinge": "squared_hinge",
    "cosine_similarity": "cosine_similarity",
    "kullback_leibler_divergence": "kl_divergence",
}


def train(keras: Any, spec: ExperimentSpec, data: Dataset, seed: int, learning_rate: float) -> dict[str, list[float]]:
    """Train one run as Keras' users do; return its histories by our names."""
    keras.utils.set_random_seed(seed)
    topology = experiment_topology(spec)
    if topology is None:
        raise ValueError(f"{spec.describe()}: no network")
    rows = np.random.default_rng(seed).permutation(len(data.x))
    test, learned = np.split(rows, [int(np.ceil(0.2 * len(rows)))])
    last = "softmax" if spec.loss == "categorical_crossentropy" else "sigmoid"
    hidden = [keras.layers.Dense(width, activation="relu") for width in topology.widths[:-1]]
    model = keras.Sequential(
        [keras.Input((data.x.shape[1],)), *hidden, keras.layers.Dense(topology.widths[-1], activation=last)]
    )
    metrics: list[Any] = ["accuracy", *(name for name in _NAMES.values() if name not in ("loss", "accuracy"))]
    metrics[metrics.index("root_mean_squared_error")] = keras.metrics.RootMeanSquaredError()
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=spec.loss, metrics=metrics)
    done = model.fit(
        data.x[learned],
        data.y[learned],
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        validation_data=(data.x[test], data.y[test]),
        verbose=0,
    )
    said = {f"{part}{ours}": f"{part}{theirs}" for ours, theirs in _NAMES.items() for part in ("", "val_")}
    return {ours: list(map(float, done.history[theirs])) for ours, theirs in said.items()}


def row_of(spec: ExperimentSpec, number: int, seed: int, histories: dict[str, list[float]]) -> dict[str, Any]:
    """Return a run as the release has it, by our names."""
    topology = experiment_topology(spec)
    return {
        **spec.parameters(),
        **histories,
        "run_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"keras {spec.dataset} {number}")),
        "task": "AspectTestTask",
        "task_version": 3,
        "batch": "keras",
        "seed": seed,
        "num_free_parameters": topology.num_free_parameters if topology else None,
        "widths": list(topology.widths) if topology else None,
    }


def main(arguments: list[str] | None = None) -> int:
    """Record the runs; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args(arguments).out
    keras, rows = load_keras(), []
    for place, spec in enumerate(EXPERIMENTS):
        data = load_dataset(spec.dataset, data_folder())
        for number in range(RUNS):
            seed = 1000 * place + number
            rate = spec.learning_rate * (FACTOR if (place, number) == SPOILED else 1.0)
            rows.append(row_of(spec, number, seed, train(keras, spec, data, seed, rate)))
            print(f"{spec.describe()}: run {number + 1} of {RUNS}", file=sys.stderr)
    profile = PROFILES["oedi-2022-08"]
    schema = pa.schema(
        [field for field in BUTTER.runs if field.name in rows[0] and field.name not in profile.constants]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table.rename_columns([*map(profile.theirs, table.column_names)]), out, compression="zstd")
    print(f"{out}: {len(rows)} runs with {len(HISTORIES)} histories")
    return 0


if __name__ == "__main__":
    sys.exit(main())
