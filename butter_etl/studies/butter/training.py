"""How BUTTER trains: stacks of fully connected networks of one topology, by one of two engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import (
    ON_DEVICE,
    PREFERRED,
    Device,
    Facts,
    Network,
    Optimization,
    StackData,
    Variant,
    arithmetic,
    engine_facts,
    load_engine,
    stack_starts,
)
from butter_etl.engines import State as EngineState
from butter_etl.studies.butter.costs import (
    core_seconds,
    gpu_stack_limit,
    load_rates,
    stack_bytes,
    state_bytes,
    watch_seconds,
)
from butter_etl.studies.butter.datasets import Dataset, cached_dataset, ensure_dataset, info_of, keep_encoded
from butter_etl.studies.butter.encoding import noisy_targets, split_rows
from butter_etl.studies.butter.experiments import ExperimentSpec
from butter_etl.studies.butter.sweeps import experiment_topology
from butter_etl.studies.butter.topology import find_topology, is_residual, network_structure
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.identity import Value
from butter_etl.studies.trainers import Cost, Kept, Results, State, Watch


class ButterTrainer:
    """Trains the fully connected networks of BUTTER."""

    engines: Mapping[Device, tuple[str, ...]] = {
        device: (PREFERRED[device], *(name for name in names if name != PREFERRED[device]))
        for device, names in ON_DEVICE.items()
    }
    runs_differ = False
    goes_on = True
    #: The compiled engine leaves the interpreter to others while it trains.
    threaded = ("fused",)
    buildable_by = ("dataset", "shape", "size", "depth")

    def can_build(self, one: ExperimentSpec) -> bool:
        """Tell whether there is a network within 20 % of the size that an experiment asks for."""
        return experiment_topology(one) is not None

    def derive(self, one: ExperimentSpec) -> Mapping[str, Value]:
        """Return the derived columns of an experiment; raise InfeasibleError where it has no network."""
        info = info_of(one)
        topology = find_topology(one.shape, one.size, one.depth, info.inputs, info.outputs)
        return {
            "num_free_parameters": topology.num_free_parameters,
            "widths": topology.widths,
            "network_structure": network_structure(one, info.inputs, topology.widths),
        }

    def points(self, run: RunSpec) -> int:
        """Return the number of epochs of a run."""
        return _spec(run).epochs

    def estimator(self, engine: str, device: Device) -> Callable[[RunSpec], Cost]:
        """Return a function that estimates the cost of a run on this machine's kind of core, or on a GPU."""
        rates = load_rates(engine, device)

        def estimate(run: RunSpec) -> Cost:
            spec = _spec(run)
            info, topology = info_of(spec), experiment_topology(spec)
            parameters = spec.size if topology is None else topology.num_free_parameters
            seconds = core_seconds(spec, parameters, info, rates)
            watch = watch_seconds(spec, seconds, info)
            return Cost(seconds, watch, stack_bytes(parameters, info), state_bytes(parameters, spec))

        return estimate

    def stack_key(self, run: RunSpec) -> tuple[str | int, ...]:
        """Return a key: runs of equal key can be trained in one stack."""
        return stack_key(_spec(run))

    def fitting(self, runs: Sequence[RunSpec], data: Dataset, device: Device) -> int:
        """Return how many of these runs fit side by side into the memory that is free here now; at least one."""
        if device != "cuda":
            return len(runs)
        from butter_etl.engines import free_gpu_bytes  # torch, which plans do without

        spec, info = _spec(runs[0]), data.info
        topology = find_topology(spec.shape, spec.size, spec.depth, info.inputs, info.outputs)
        return gpu_stack_limit(spec, topology, info, free_gpu_bytes())

    def fetch(self, experiments: Iterable[ExperimentSpec], folder: Path) -> None:
        """Download the data sets that are not at hand, and encode them for workers.

        Raises DatasetError for one that cannot be had.
        """
        infos = {one.dataset: info_of(one) for one in experiments}
        for name in (name for name, info in infos.items() if info.own is None):
            ensure_dataset(name, folder)
            keep_encoded(name, folder)

    def load(self, one: ExperimentSpec, folder: Path, kept: Kept) -> Dataset:
        """Return the data set of an experiment: a user's own from the store, another from the data folder."""
        if one.own is None:
            return cached_dataset(one.dataset, folder)
        found: Dataset = kept.load(one)
        return found

    def environment(self, data: Dataset, engine: str, device: Device) -> Facts:
        """Return what carries out the arithmetic, and the SHA-256 of the encoded data."""
        return {**arithmetic(), **engine_facts(engine, device), "data": data.sha256}

    def prepare(self, engine: str) -> None:
        """Make an engine ready in this process: the first use of a compiled one compiles, and says so in the log."""
        prepare_engine(engine)

    def train(
        self,
        runs: Sequence[RunSpec],
        data: Dataset,
        *,
        engine: str,
        device: Device,
        start: State | None = None,
        watch: Watch | None = None,
    ) -> Results:
        """Train runs that may differ in learning rate, momentum, penalty and label noise, side by side."""
        specs, seeds, info = [_spec(run) for run in runs], [run.seed for run in runs], data.info
        spec = specs[0]
        topology = find_topology(spec.shape, spec.size, spec.depth, info.inputs, info.outputs)
        network, optimization = network_of(spec, info.inputs, topology.widths), optimization_of(spec)

        def watch_engine(epochs: float, take_state: Callable[[], EngineState]) -> None:
            if watch is not None:
                watch(epochs, lambda: state_of(take_state()))

        trained = load_engine(engine)(
            network,
            optimization,
            stack_data(specs, data, seeds),
            seeds,
            engine_state(start) if start else stack_starts(seeds, network),
            device=device,
            variants=[variant_of(one, network) for one in specs],
            watch=watch_engine,
        )
        return Results(trained.histories)


def _spec(run: RunSpec) -> ExperimentSpec:
    if not isinstance(run.experiment, ExperimentSpec):
        raise TypeError(run.experiment)
    return run.experiment


# --- states of engines, as named arrays ---------------------------------------------------------------------------


def state_of(state: EngineState) -> State:
    """Return what an engine goes on from as named arrays: ``history NAME``, ``kernel N LAYER``, ``bias N LAYER``,
    ``sums``.

    N is 0 for weights, and counts the optimizer's moments from 1. A step is a batch.
    """
    return State(state.epochs, state.batches, dict(_arrays_of(state)))


def _arrays_of(state: EngineState) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, values in state.histories.items():
        yield f"history {name}", values
    for number, weights in enumerate((state.weights, *state.moments)):
        for layer, (kernel, bias) in enumerate(weights):
            yield f"kernel {number} {layer}", kernel
            yield f"bias {number} {layer}", bias
    if state.sums is not None:
        yield "sums", state.sums


def engine_state(state: State) -> EngineState:
    """Return the state of an engine that `state_of` made named arrays of."""
    arrays = state.arrays
    layers = sum(name.startswith("kernel 0 ") for name in arrays)
    copies = sum(name.startswith("kernel ") for name in arrays) // layers
    weights, *moments = (
        [(arrays[f"kernel {number} {layer}"], arrays[f"bias {number} {layer}"]) for layer in range(layers)]
        for number in range(copies)
    )
    histories = {name.removeprefix("history "): arrays[name] for name in arrays if name.startswith("history ")}
    return EngineState(state.points, state.steps, weights, tuple(moments), histories, arrays.get("sums"))


# --- experiments as engines take them -----------------------------------------------------------------------------


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
