"""The contract of an engine: what every engine takes and gives.

An engine trains a *stack*: several runs of networks of one topology side by side. It is a function
``train(network, optimization, data, seeds, start) -> Trained``; the table `ENGINES` names the functions. Engines know
nothing of experiments, files or Dask, so any two can be held against each other and against Keras.

Training can be stopped between any two batches and go on later, in another process or on another machine of the same
CPU family, to the same bits: a *watch* is called every second or so and may take a `State`, and a `State` is what an
engine starts from in place of start weights. Order, split and noise are functions of the seeds, so no generator has a
state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from butter_etl.engines.host import Facts

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Network:
    """A fully connected network: ReLU layers, then softmax (categorical cross-entropy) or sigmoid (all other losses).

    ``widths`` holds one width a dense layer, the output layer last. With ``residual``, every hidden layer but the first
    adds its input after the ReLU. ``penalty`` is the L1 or L2 factor on the kernels of all layers.
    """

    inputs: int
    widths: tuple[int, ...]
    loss: Loss
    residual: bool = False
    regularizer: Literal["l1", "l2"] | None = None
    penalty: float = 0.0


@dataclass(frozen=True)
class Optimization:
    """The settings by which a network is trained. ``optimizer`` is spelled as the published files spell it.

    ``shuffle`` false feeds the rows in the order given in every epoch.
    """

    optimizer: OptimizerName
    learning_rate: float
    batch_size: int
    epochs: int
    momentum: float = 0.0
    shuffle: bool = True


@dataclass(frozen=True)
class Variant:
    """The settings in which the runs of one stack may differ, besides their data."""

    learning_rate: float
    momentum: float
    regularizer: Literal["l1", "l2"] | None
    penalty: float

    @classmethod
    def of(cls, network: Network, optimization: Optimization) -> Variant:
        """Return the variant of a run that is as ``network`` and ``optimization`` say."""
        return cls(optimization.learning_rate, optimization.momentum, network.regularizer, network.penalty)


@dataclass(frozen=True)
class StackData:
    """The rows that each run of a stack learns from and is tested on.

    ``x`` float32 (rows, inputs) and ``y`` float32 (rows, outputs) are shared by all runs; ``train_rows`` int64
    (runs, n_train) and ``test_rows`` int64 (runs, n_test) index them; ``train_targets`` float32
    (runs, n_train, outputs) are the training targets with label noise, in the order of ``train_rows``.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    train_rows: NDArray[np.int64]
    test_rows: NDArray[np.int64]
    train_targets: NDArray[np.float32]


#: One (kernel, bias) pair a layer: float32 (runs, fan_in, width) and (runs, width).
Weights = list[tuple["NDArray[np.float32]", "NDArray[np.float32]"]]


@dataclass(frozen=True)
class Trained:
    """The result of an engine; ``histories`` maps each of `HISTORIES` to float32 (runs, epochs)."""

    histories: dict[str, NDArray[np.float32]]
    weights: Weights


@dataclass(frozen=True)
class State:
    """A stack between two batches: all that the engine that made it needs to go on, to the same bits.

    ``epochs`` int64 (runs,) are the epochs that each run has behind it: one number for all in the torch engine, while
    the fused engine has finished runs, one in progress, and runs not begun. ``batches`` int64 (runs,) are those that
    each run has behind it in its next epoch, of the training rows and then of the test rows; ``sums`` float64
    (runs, numbers) are what the engine has added up of that epoch, None where no run is within one. ``moments`` are
    what the optimizer remembers, each shaped like ``weights``; of a finished run they are of no use, and zero.
    ``histories`` are those of `Trained`, NaN from each run's ``epochs`` on.
    """

    epochs: NDArray[np.int64]
    batches: NDArray[np.int64]
    weights: Weights
    moments: tuple[Weights, ...]
    histories: dict[str, NDArray[np.float32]]
    sums: NDArray[np.float64] | None = None


#: ``watch(epochs, take_state)`` is called with the number of epochs trained so far, added up over the stack's runs
#: (fractions count), and a function that copies the stack's `State` out: between epochs, and within those that take
#: longer about once a second. The fused engine, whose epochs may take microseconds, calls it about once a second.
#: Training ends where it is by the watch raising: the exception passes through the engine, and nothing but the states
#: that were taken is left. Neither watching nor stopping and going on changes a bit of the result.
Watch = Callable[[float, Callable[[], State]], None]


class Engine(Protocol):
    """The one function that an engine module exports as ``train``."""

    def __call__(
        self,
        network: Network,
        optimization: Optimization,
        data: StackData,
        seeds: Sequence[int],
        start: Weights | State,
        *,
        device: Device = "cpu",
        variants: Sequence[Variant] | None = None,
        watch: Watch | None = None,
    ) -> Trained:
        """Train ``len(seeds)`` runs and return their histories and final weights.

        ``start`` are the weights that training starts from, or a state that the same engine left earlier, of the same
        network, optimization, data and seeds. ``variants`` has one a run, which counts in place of what ``network`` and
        ``optimization`` say; without it all runs are as those say. A run's result does not depend on which others it is
        trained with: bit for bit in the fused engine, in the torch engine but for the rounding of matrix products.
        """
        ...


ENGINES: dict[str, str] = {
    "torch": "butter_etl.engines.batched.engine",
    "fused": "butter_etl.engines.fused.engine",
}
#: The engine that ``auto`` takes on each device, whatever the network: see docs/performance.md.
PREFERRED: dict[Device, str] = {"cpu": "fused", "cuda": "torch"}
ON_DEVICE: dict[Device, tuple[str, ...]] = {"cpu": ("fused", "torch"), "cuda": ("torch",)}


def engine_facts(name: str, device: Device) -> Facts:
    """Return what the bits of the results of an engine depend on here, besides the versions of packages.

    ``threads`` is how many share in one sum; null where that is not known to matter.
    """
    facts: Facts = import_module(ENGINES[name]).facts(device)
    return facts


def load_engine(name: str) -> Engine:
    """Import the engine called ``name`` and return its ``train``; importing it is what loads torch or numba."""
    engine: Engine = import_module(ENGINES[name]).train
    return engine


#: The ten metrics, by the names under which the summary frame and the published document speak of them.
METRICS = (
    "loss",
    "accuracy",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "mean_squared_logarithmic_error",
    "hinge",
    "squared_hinge",
    "cosine_similarity",
    "kullback_leibler_divergence",
)
#: The twenty list columns of the run frame, one value an epoch: `val_` is the test set, the bare name the training set.
HISTORIES = tuple(name for metric in METRICS for name in (f"val_{metric}", metric))
OptimizerName = Literal["adam", "RMSprop", "SGD"]
Loss = Literal["categorical_crossentropy", "binary_crossentropy", "mean_squared_error"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
