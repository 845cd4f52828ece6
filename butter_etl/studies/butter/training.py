"""Train a stack of runs and make rows of the run frame of them. No files, no Dask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from butter_etl.engines import Network, Optimization, StackData, Variant, load_engine, stack_starts
from butter_etl.studies.butter.datasets import Dataset
from butter_etl.studies.butter.encoding import noisy_targets, split_rows
from butter_etl.studies.butter.experiments import ExperimentSpec
from butter_etl.studies.butter.topology import is_residual


def network_of(spec: ExperimentSpec, inputs: int, widths: tuple[int, ...]) -> Network:
    """Return the network of an experiment, as engines take it."""
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
    """Return the settings by which an experiment trains its network, as engines take them."""
    return Optimization(
        optimizer=spec.optimizer,
        learning_rate=spec.learning_rate,
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        momentum=spec.momentum or 0.0,
    )


def stack_data(specs: Sequence[ExperimentSpec], dataset: Dataset, seeds: Sequence[int]) -> StackData:
    """Draw each run's split and noisy training targets from the named streams of its seed; a spec and a seed a run."""
    splits = [split_rows(seed, dataset.x.shape[0]) for seed in seeds]
    targets = [
        noisy_targets(seed, dataset.y[train], spec.label_noise, spec.loss)
        for spec, seed, (train, _) in zip(specs, seeds, splits, strict=True)
    ]
    return StackData(
        x=dataset.x,
        y=dataset.y,
        train_rows=np.stack([train for train, _ in splits]),
        test_rows=np.stack([test for _, test in splits]),
        train_targets=np.stack(targets),
    )


def prepare_engine(engine: str) -> None:
    """Make an engine ready in this process: the first use of a compiled one compiles, and says so in the log."""
    network = Network(inputs=2, widths=(2, 1), loss="mean_squared_error")
    optimization = Optimization(optimizer="adam", learning_rate=0.1, batch_size=2, epochs=1)
    rows = np.arange(2, dtype=np.int64)[None]
    x, y = np.eye(2, dtype=np.float32), np.zeros((2, 1), dtype=np.float32)
    data = StackData(x=x, y=y, train_rows=rows, test_rows=rows, train_targets=y[None])
    load_engine(engine)(network, optimization, data, [0], stack_starts([0], network))


def stack_key(spec: ExperimentSpec) -> tuple[str | int, ...]:
    """Return a key: experiments of equal key can be trained in one stack."""
    content = spec.own.sha256 if spec.own else ""
    return spec.dataset, content, spec.shape, spec.size, spec.depth, spec.optimizer, spec.batch_size, spec.epochs


def variant_of(spec: ExperimentSpec, network: Network) -> Variant:
    """Return that in which an experiment may differ from others of its stack."""
    return Variant.of(network_of(spec, network.inputs, network.widths), optimization_of(spec))
