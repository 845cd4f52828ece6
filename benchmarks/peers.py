"""The contestants of `benchmarks.training`: this package's engines, and what people would write otherwise.

A contestant is made of a `Problem`, compiles in its first epochs, and then trains as many more as it is told, timing
itself. The peers record the training loss and accuracy and the test loss of every epoch; the engines record everything.
Peers are imported when they are made: `ImportError` means that one is not installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from butter_etl.engines.contract import ENGINES, Network, Optimization, StackData, Weights, load_engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


@dataclass(frozen=True)
class Problem:
    """A stack of runs to train: what every contestant is given, and the clock that times them."""

    name: str
    network: Network
    optimization: Optimization
    data: StackData
    seeds: tuple[int, ...]
    start: Weights
    clock: Callable[[], float] = time.perf_counter

    @property
    def runs(self) -> int:
        """How many runs the stack holds."""
        return len(self.seeds)

    def first_run(self) -> tuple[NDArray[np.float32], ...]:
        """(x_train, y_train, x_test, y_test) of the first run, for contestants that train one run at a time."""
        data = self.data
        train, test = data.train_rows[0], data.test_rows[0]
        return data.x[train], data.train_targets[0], data.x[test], data.y[test]


class Contestant(Protocol):
    """Something that trains ``runs`` runs of a problem side by side."""

    runs: int

    def train(self, epochs: int) -> float:
        """Train ``epochs`` more epochs; the seconds that they took."""
        ...


class EngineContestant:
    """An engine of this package with the whole stack; what a call costs once is in its time."""

    def __init__(self, name: str, problem: Problem) -> None:
        if name not in ENGINES:
            raise ImportError(f"there is no engine {name!r}")
        self.runs = problem.runs
        self._engine = load_engine(name)
        self._problem = problem

    def train(self, epochs: int) -> float:
        """Train ``epochs`` epochs from the start weights."""
        problem = self._problem
        optimization = replace(problem.optimization, epochs=epochs)
        started = problem.clock()
        self._engine(problem.network, optimization, problem.data, problem.seeds, problem.start)
        return problem.clock() - started


class KerasContestant:
    """Keras' ``fit`` as in its guides, one run at a time: shuffled, with test data in every epoch."""

    def __init__(self, problem: Problem) -> None:
        keras = load_keras()
        self.runs = 1
        self._model = keras_model(keras, problem.network, problem.optimization)
        set_keras_weights(self._model, problem.start, run=0)
        self._x, self._y, *self._test = problem.first_run()
        self._batch_size = problem.optimization.batch_size
        self._ends: list[float] = []
        self._clock = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self._ends.append(problem.clock())
        )

    def train(self, epochs: int) -> float:
        """Train one epoch more than is timed: what starting ``fit`` costs is not counted."""
        self._ends.clear()
        self._model.fit(
            self._x,
            self._y,
            batch_size=self._batch_size,
            epochs=epochs + 1,
            validation_data=tuple(self._test),
            callbacks=[self._clock],
            verbose=0,
        )
        return self._ends[-1] - self._ends[0]


def load_keras() -> Any:
    """Keras on one thread of TensorFlow, or of the backend that KERAS_BACKEND names."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return import_module("keras")


def keras_model(keras: Any, network: Network, optimization: Optimization) -> Any:
    """A plain ``Sequential`` of the network, compiled with Adam and accuracy."""
    if network.residual or network.regularizer or optimization.optimizer != "adam":
        raise ValueError("only plain networks trained with Adam are built in Keras here")
    last = "softmax" if network.loss == "categorical_crossentropy" else "sigmoid"
    hidden = [keras.layers.Dense(width, activation="relu") for width in network.widths[:-1]]
    model = keras.Sequential(
        [keras.Input((network.inputs,)), *hidden, keras.layers.Dense(network.widths[-1], activation=last)]
    )
    adam = keras.optimizers.Adam(optimization.learning_rate)
    model.compile(optimizer=adam, loss=network.loss, metrics=["accuracy"])
    return model


def set_keras_weights(model: Any, start: Weights, run: int) -> None:
    """Give a model the start weights of one run of a stack."""
    model.set_weights([part[run] for layer in start for part in layer])


class TorchLoopContestant:
    """The loop of PyTorch's tutorials, one run at a time, with the batches cut from tensors in memory."""

    def __init__(self, problem: Problem) -> None:
        import torch

        self.runs = 1
        self._torch, self._now = torch, problem.clock
        self._batch_size = problem.optimization.batch_size
        self._rows = [torch.from_numpy(part) for part in problem.first_run()]
        self._model = self._sequential(problem)
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), lr=problem.optimization.learning_rate, betas=(BETA_1, BETA_2), eps=EPSILON
        )
        self.history: list[tuple[float, float, float]] = []

    def _sequential(self, problem: Problem) -> Any:
        torch = self._torch
        layers: list[Any] = []
        for kernel, bias in problem.start:
            linear = torch.nn.Linear(kernel.shape[1], kernel.shape[2])
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(kernel[0].T))
                linear.bias.copy_(torch.from_numpy(bias[0]))
            layers += [linear, torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    def train(self, epochs: int) -> float:
        """Train ``epochs`` more epochs."""
        started = self._now()
        for _ in range(epochs):
            loss, accuracy = self._train_epoch()
            self.history.append((loss, accuracy, self._test_loss()))
        return self._now() - started

    def _train_epoch(self) -> tuple[float, float]:
        torch = self._torch
        x, y, _, _ = self._rows
        # Sums stay tensors: reading a number after every batch would be slower.
        loss_sum, hits = torch.zeros(()), torch.zeros(())
        for rows in torch.split(torch.randperm(len(x)), self._batch_size):
            targets = y[rows]
            logits = self._model(x[rows])
            loss = torch.nn.functional.cross_entropy(logits, targets)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            loss_sum += loss.detach() * len(rows)
            hits += (logits.argmax(1) == targets.argmax(1)).sum()
        return float(loss_sum) / len(x), float(hits) / len(x)

    def _test_loss(self) -> float:
        torch = self._torch
        _, _, x, y = self._rows
        with torch.no_grad():
            batches = zip(torch.split(x, self._batch_size), torch.split(y, self._batch_size), strict=True)
            losses = [
                torch.nn.functional.cross_entropy(self._model(some_x), some_y, reduction="sum")
                for some_x, some_y in batches
            ]
        return float(sum(losses)) / len(x)


class JaxContestant:
    """JAX with the whole stack: runs under ``vmap``, an epoch's batches under ``scan``, all of it compiled.

    The orders are drawn with NumPy, which is faster than JAX's sorting on a CPU.
    """

    def __init__(self, problem: Problem) -> None:
        jax = import_module("jax")
        data = problem.data
        self.runs = problem.runs
        self._jax, self._now = jax, problem.clock
        self._random = np.random.default_rng(0)
        self._train_rows = data.train_rows
        self._test_rows = jax.numpy.asarray(data.test_rows.astype(np.int32))
        self._data = tuple(map(jax.numpy.asarray, (data.x, data.y, data.train_targets)))
        parameters = jax.tree.map(jax.numpy.asarray, problem.start)
        zeros = jax.tree.map(jax.numpy.zeros_like, parameters)
        counts = jax.numpy.zeros(problem.runs)
        self._state = (parameters, zeros, jax.tree.map(jax.numpy.copy, zeros), counts)
        self._epoch = self._compiled_epoch(problem.optimization)
        self.history: list[tuple[Any, Any, Any]] = []

    def _compiled_epoch(self, optimization: Optimization) -> Callable[..., Any]:
        """The function (state, order, rows, test rows, data) -> (state, (loss, accuracy, test loss)) of an epoch."""
        jax = self._jax
        epoch = partial(_jax_epoch, jax, optimization.batch_size, optimization.learning_rate)
        # x and y are shared by the runs; the training targets are each run's own.
        stacked = jax.vmap(epoch, in_axes=(0, 0, 0, 0, (None, None, 0)))
        compiled: Callable[..., Any] = jax.jit(stacked, donate_argnums=0)
        return compiled

    def train(self, epochs: int) -> float:
        """Train ``epochs`` more epochs."""
        started = self._now()
        count = self._train_rows.shape[1]
        for _ in range(epochs):
            order = self._random.permuted(np.tile(np.arange(count, dtype=np.int32), (self.runs, 1)), axis=1)
            rows = np.take_along_axis(self._train_rows, order, axis=1).astype(np.int32)
            self._state, recorded = self._epoch(self._state, order, rows, self._test_rows, self._data)
            self.history.append(recorded)
        self._jax.block_until_ready((self._state, self.history))
        return self._now() - started


def _jax_epoch(
    jax: Any, batch_size: int, learning_rate: float, state: Any, order: Any, rows: Any, test_rows: Any, data: Any
) -> Any:
    """An epoch of one run: full batches under ``scan``, then the partial one, then the test rows."""
    x, y, targets = data
    step = partial(_jax_step, jax, learning_rate, x, targets)
    full = len(rows) // batch_size * batch_size
    batches = tuple(part[:full].reshape(-1, batch_size) for part in (order, rows))
    state, sums = jax.lax.scan(step, state, batches)
    loss, hits = (part.sum() for part in sums)
    if full < len(rows):
        state, (last_loss, last_hits) = step(state, (order[full:], rows[full:]))
        loss, hits = loss + last_loss, hits + last_hits
    test_loss, _ = _jax_loss(jax, state[0], x[test_rows], y[test_rows])
    return state, (loss / len(rows), hits / len(rows), test_loss)


def _jax_step(jax: Any, learning_rate: float, x: Any, targets: Any, state: Any, batch: Any) -> Any:
    """One step of Keras' Adam; the batch's summed loss and hits."""
    order, rows = batch
    parameters, mean, square, count = state
    y = targets[order]
    (loss, logits), gradient = jax.value_and_grad(partial(_jax_loss, jax), has_aux=True)(parameters, x[rows], y)
    count = count + 1
    rate = learning_rate * jax.numpy.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
    mean = jax.tree.map(lambda m, g: m + (1 - BETA_1) * (g - m), mean, gradient)
    square = jax.tree.map(lambda v, g: v + (1 - BETA_2) * (g * g - v), square, gradient)
    parameters = jax.tree.map(lambda w, m, v: w - rate * m / (jax.numpy.sqrt(v) + EPSILON), parameters, mean, square)
    hits = (logits.argmax(1) == y.argmax(1)).sum()
    return (parameters, mean, square, count), (loss * len(rows), hits)


def _jax_loss(jax: Any, parameters: Any, x: Any, y: Any) -> Any:
    """The mean cross-entropy and the logits."""
    *hidden, (kernel, bias) = parameters
    for hidden_kernel, hidden_bias in hidden:
        x = jax.nn.relu(x @ hidden_kernel + hidden_bias)
    logits = x @ kernel + bias
    return -(y * jax.nn.log_softmax(logits)).sum(1).mean(), logits


#: The peers by the names that options and tables use.
PEERS: dict[str, Callable[[Problem], Contestant]] = {
    "keras": KerasContestant,
    "pytorch": TorchLoopContestant,
    "jax": JaxContestant,
}


def make_contestant(name: str, problem: Problem) -> Contestant:
    """The peer or engine called ``name``; raises ImportError if it is not installed."""
    return PEERS[name](problem) if name in PEERS else EngineContestant(name, problem)


def synthetic_rows(
    rows: int, outputs: int, groups: tuple[int, ...], seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows with something to learn: inputs x (rows, inputs) and one-hot classes y (rows, outputs) of a noisy rule.

    Each of ``groups`` is a feature's number of columns: 1 makes a number in [0, 1], more a one-hot category.
    """
    random = np.random.default_rng(seed)
    x = np.zeros((rows, sum(groups)), dtype=np.float32)
    for first, last in pairwise(np.cumsum([0, *groups]).tolist()):
        if last - first == 1:
            x[:, first] = random.random(rows, dtype=np.float32)
        else:
            x[np.arange(rows), random.integers(first, last, rows)] = 1
    scores = x @ random.standard_normal((x.shape[1], outputs), dtype=np.float32)
    scores += 0.1 * scores.std() * random.standard_normal(scores.shape, dtype=np.float32)
    return x, np.eye(outputs, dtype=np.float32)[scores.argmax(axis=1)]
