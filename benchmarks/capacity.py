"""How long a training step of a recurrent network takes, against PyTorch's and JAX's ways.

``python -m benchmarks.capacity [--rows 10k,parens] [--rounds 5] [--json]`` takes the sizes and tasks that the rows of a
table stand for, and trains each network by every contestant, all in turn in every round, on one core, batches of 64.
It prints the median over all steps in milliseconds of CPU time, our ratios to eager PyTorch and to the best library
that trains the same network, and for each row of the table the least of both.

The contestants: ``eager`` is a loop over steps in PyTorch, its gates' matrices in one and its input products hoisted;
``torch`` is `torch.nn.RNN` or `torch.nn.LSTM`, and of GRUs `torch.nn.GRU`, another cell, which counts for nothing;
``jax`` is a whole step under ``jit`` with a ``scan`` a layer; ``jax16`` is that mapped over 16 networks on the same
data, a sixteenth of it. All clip by the global norm, have L2 and Adam. What is not installed is named and left out
(``pip install -r benchmarks/requirements.txt``). Data are made up.

The *limit* is how long the products take that a step needs, at the rate of a product of 1,024 x 1,024 matrices in the
same run. One-hot inputs need none: they are sums of rows.

``--errors`` compares instead: for each architecture, depth and nonlinearity, the largest error of the loss and of each
array of the gradient, over that of PyTorch in float32, both against PyTorch in float64.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.training import PINNED, pin_and_rerun, sgemm_rate
from butter_etl.engines.recurrent.contract import (
    FORGETTING,
    GATES,
    Objective,
    RecurrentDescent,
    RecurrentNetwork,
    RecurrentStart,
    Sequences,
    Shown,
    draw_recurrent_start,
    largest_units,
    load_recurrent_trainer,
    parameter_layout,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, Any]

BATCH: Final = 64
#: How many networks ``jax16`` trains.
MAPPED: Final = 16
OURS: Final = "ours"
DESCENT: Final = RecurrentDescent("ADAM", 1e-3, 0.5, 100_000, 0.9, 1.0, 1e-5)


class Task(NamedTuple):
    """The shape of a task."""

    inputs: int
    outputs: int
    steps: int
    streams: int
    objective: Objective


TASKS: Final = {
    "arithmetic": Task(14, 14, 36, 1, Objective("softmax", 26, 36)),
    "text8": Task(27, 27, 50, 1, Objective("softmax", 13, 50, mean_over_steps=True)),
    "parens": Task(300, 100, 175, 10, Objective("softmax", 174, 175, 10)),
    "per_cap": Task(32, 1, 5, 0, Objective("logistic", 4, 5)),
}


class Row(NamedTuple):
    """A row of the table: what it stands for, and the least ratios to eager PyTorch and to the best library."""

    title: str
    tasks: tuple[str, ...]
    cells: tuple[str, ...]
    budget: int
    depth: int
    over_eager: float
    over_best: float


#: `parens` at 10,000 parameters has a row of its own.
ROWS: Final = (
    Row("10k GRU, LSTM", ("arithmetic", "text8"), ("gru", "lstm"), 10_000, 1, 9, 3),
    Row("10k UGRNN", ("arithmetic",), ("ugrnn",), 10_000, 1, 6, 2.6),
    Row("10k RNN", ("arithmetic",), ("rnn",), 10_000, 1, 5, 2.4),
    Row("10k depth 4", ("arithmetic",), ("lstm", "+rnn"), 10_000, 4, 15, 3.3),
    Row("parens 10k GRU", ("parens",), ("gru",), 10_000, 1, 25, 6),
    Row("parens 100k GRU, LSTM", ("parens",), ("gru", "lstm"), 100_000, 1, 4.5, 3.8),
    Row("parens 100k RNN", ("parens",), ("rnn",), 100_000, 1, 3.3, 2.4),
    Row("parens 100k depth 4", ("parens",), ("lstm", "+rnn"), 100_000, 4, 4, 2.5),
    Row("per_cap 10k", ("per_cap",), ("gru",), 10_000, 1, 10, 2.4),
    Row("100k GRU", ("arithmetic", "text8", "per_cap"), ("gru",), 100_000, 1, 2, 1.5),
    Row("100k LSTM", ("arithmetic",), ("lstm",), 100_000, 1, 2, 1.25),
    Row("100k RNN, UGRNN", ("arithmetic",), ("rnn", "ugrnn"), 100_000, 1, 1.5, 1.3),
    Row("100k depth 4", ("arithmetic",), ("gru", "+rnn"), 100_000, 4, 4, 2.9),
    Row("1280k, not slower", ("arithmetic",), ("gru", "lstm"), 1_280_000, 1, 1, 1),
    Row("1280k depth 4, not slower", ("text8",), ("lstm",), 1_280_000, 4, 1, 1),
)


class Case(NamedTuple):
    """A network with a task, and a batch of it."""

    task: str
    network: RecurrentNetwork
    objective: Objective
    start: dict[str, NDArray[Any]]
    batch: Sequences

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the parameters by name."""
        layout = parameter_layout(self.network)
        return {name: self.start["parameters"][place].reshape(shape) for name, (place, shape) in layout.items()}

    @property
    def scored(self) -> slice:
        """Return the steps that are scored."""
        return slice(self.objective.first, self.objective.last)

    @property
    def shown(self) -> NDArray[np.float32]:
        """Return the inputs as libraries take them: float32 (steps, rows, inputs)."""
        inputs = self.batch.inputs
        if isinstance(inputs, Shown):
            vectors = np.repeat(inputs.vectors[np.newaxis], inputs.steps, axis=0)
            vectors[1:] *= inputs.every_step
            return vectors
        one_hot = np.zeros((inputs.shape[1], inputs.shape[0], self.network.inputs), np.float32)
        step, row = np.indices(one_hot.shape[:2])
        for stream in range(inputs.shape[2]):
            np.add.at(one_hot, (step, row, inputs[row, step, stream]), 1)
        return one_hot


def make_case(task: str, cell: str, budget: int, depth: int, seed: int = 1) -> Case:
    """Return the largest network of a cell within a budget, with a batch that is made up."""
    shape = TASKS[task]
    units = largest_units(cell, depth, shape.inputs, shape.outputs, budget)  # type: ignore[arg-type]
    return _case(task, cell, units, depth, "tanh", shape, seed)


def _case(task: str, cell: Any, units: int, depth: int, nonlinearity: Any, shape: Task, seed: int) -> Case:
    biases = (1.0, 1.0)[: len(FORGETTING[cell])]
    network = RecurrentNetwork(cell, depth, units, shape.inputs, shape.outputs, nonlinearity, biases)
    scales = (0.7,) * len(network.gates)
    start = RecurrentStart("normal", scales, scales, "normal", scales)
    rng, objective = np.random.default_rng(seed), shape.objective
    if shape.streams:
        classes = shape.inputs // shape.streams
        drawn = rng.integers(0, classes, (BATCH, shape.steps, shape.streams)) + classes * np.arange(shape.streams)
        scored = (BATCH, objective.scored, objective.groups)
        batch = Sequences(drawn.astype(np.int32), rng.integers(0, shape.outputs // objective.groups, scored))
    else:
        vectors = rng.integers(0, 2, (BATCH, shape.inputs)).astype(np.float32)
        targets = rng.integers(0, 2, (BATCH, shape.outputs)).astype(np.uint8)
        batch = Sequences(Shown(vectors, shape.steps, every_step=True), targets)
    return Case(task, network, objective, draw_recurrent_start(network, start, "ADAM", seed), batch)


def needed_operations(case: Case) -> float:
    """Return the floating-point operations of the products that a step needs: forward, and two of each size back."""
    network, n = case.network, case.network.units
    below = [network.fan_in(layer) if layer or network.reads_in else 0 for layer in range(network.layers)]
    a_step = sum(len(network.gates) * n * (n + fan_in) for fan_in in below)
    products = 3.0 * (case.objective.last * a_step + case.objective.scored * n * network.outputs)
    if isinstance(case.batch.inputs, Shown):  # the same at every step, and no error goes below them
        products += 2.0 * network.inputs * len(network.gates) * n
    return 2.0 * BATCH * products


# -- contestants: each returns what takes a step and returns the loss before it


Step = Callable[[], float]


def make_ours(case: Case) -> Step:
    """Return the compiled engine."""
    trainer = load_recurrent_trainer("compiled")(case.network, case.objective, DESCENT, case.start)
    steps = 0

    def step() -> float:
        nonlocal steps
        steps += 1
        return trainer.train_batch(case.batch, steps - 1).loss

    return step


def make_eager(case: Case) -> Step:
    """Return a loop over steps in PyTorch."""
    torch: Any = import_module("torch")
    weights = {name: torch.tensor(values, requires_grad=True) for name, values in _wide(case).items()}
    x = torch.from_numpy(case.shown)
    operations = Operations(torch.tanh, torch.sigmoid, torch.relu, lambda parts: torch.cat(parts, -1))

    def forward() -> Any:
        below = x @ weights["read_in.weight"] + weights["read_in.bias"] if case.network.reads_in else x
        for layer in range(case.network.layers):
            products = below @ weights[f"layer{layer + 1}.input"] + weights[f"layer{layer + 1}.bias"]
            recurrent, up = weights[f"layer{layer + 1}.recurrent"], []
            initial = weights[f"layer{layer + 1}.initial"]
            states = [initial[number].expand(BATCH, -1) for number in range(case.network.states)]
            for product, shown in zip(products, below, strict=True):
                states, y = take_step(case.network, operations, product, recurrent, states, shown)
                up.append(y)
            below = torch.stack(up)
        return below[case.scored] @ weights["read_out.weight"] + weights["read_out.bias"]

    return _torch_step(case, list(weights.values()), forward)


def make_torch(case: Case) -> Step:
    """Return torch's own layers, where it has some of the cell. Raises ImportError where it has none."""
    torch: Any = import_module("torch")
    network = case.network
    own = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(network.architecture)
    if own is None:
        raise ImportError(f"torch has no {network.architecture}")
    layers, read_out = (
        own(network.inputs, network.units, network.layers),
        torch.nn.Linear(network.units, network.outputs),
    )
    initial = torch.zeros(network.states, network.layers, 1, network.units, requires_grad=True)
    x = torch.from_numpy(case.shown)

    def forward() -> Any:
        states = initial.expand(-1, -1, BATCH, -1).contiguous()
        up, _ = layers(x, tuple(states) if network.states == 2 else states[0])
        return read_out(up[case.scored])

    return _torch_step(case, [*layers.parameters(), *read_out.parameters(), initial], forward)


def _torch_step(case: Case, parameters: list[Any], forward: Callable[[], Any]) -> Step:
    torch: Any = import_module("torch")
    functional = torch.nn.functional
    optimizer = torch.optim.Adam(parameters, DESCENT.learning_rate, weight_decay=0.0)
    targets = torch.from_numpy(case.batch.targets)
    wanted = targets.transpose(0, 1).reshape(-1) if case.objective.kind == "softmax" else targets.float()

    def loss_of() -> Any:
        outputs = forward()
        if case.objective.kind == "logistic":
            return functional.binary_cross_entropy_with_logits(outputs[0], wanted)
        classes = case.network.outputs // case.objective.groups
        summed = functional.cross_entropy(outputs.reshape(-1, classes), wanted, reduction="sum") / BATCH
        return summed / case.objective.scored if case.objective.mean_over_steps else summed

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        with torch.no_grad():
            torch._foreach_add_([one.grad for one in parameters], parameters, alpha=DESCENT.l2)
        torch.nn.utils.clip_grad_norm_(parameters, DESCENT.clip)
        optimizer.step()
        return float(loss.detach())

    return step


class Operations(NamedTuple):
    """What PyTorch and JAX call by names of their own."""

    tanh: Callable[[Any], Any]
    sigmoid: Callable[[Any], Any]
    relu: Callable[[Any], Any]
    join: Callable[[list[Any]], Any]


def take_step(
    network: RecurrentNetwork, operations: Operations, product: Any, recurrent: Any, states: list[Any], below: Any
) -> tuple[list[Any], Any]:
    """Return the states after a step of a layer and what it hands up; gates lie side by side."""
    n, h = network.units, states[0]
    s = operations.relu if network.is_relu else operations.tanh
    if network.architecture == "gru":
        gates = operations.sigmoid(product[:, n:] + h @ recurrent[:, n:])
        r, u = gates[:, :n], gates[:, n:]
        c = s(product[:, :n] + (r * h) @ recurrent[:, :n])
        h = u * h + (1 - u) * c
        return [h], h
    z = product + h @ recurrent
    if network.architecture in ("rnn", "irnn"):
        h = s(z)
        return [h], h
    if network.architecture == "ugrnn":
        g = operations.sigmoid(z[:, n:])
        h = g * h + (1 - g) * s(z[:, :n])
        return [h], h
    if network.architecture == "lstm":
        gates = operations.sigmoid(z[:, n:])
        c = gates[:, :n] * states[1] + gates[:, n : 2 * n] * s(z[:, :n])
        h = gates[:, 2 * n :] * operations.tanh(c)
        return [h, c], h
    gates = operations.sigmoid(z[:, 2 * n :])
    gy, gh = gates[:, :n], gates[:, n:]
    y = gy * below + (1 - gy) * operations.relu(z[:, :n])
    return [gh * h + (1 - gh) * operations.tanh(z[:, n : 2 * n])], y


def _wide(case: Case) -> dict[str, NDArray[Any]]:
    """Return the parameters with the gates side by side, forget biases among the biases."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in case.arrays.items():
        if name.endswith((".input", ".recurrent")):
            found[name] = np.ascontiguousarray(values.transpose(1, 0, 2)).reshape(values.shape[1], -1)
        elif name.startswith("layer") and name.endswith(".bias"):
            found[name] = (values + np.array(case.network.gate_biases, np.float32)[:, np.newaxis]).reshape(-1)
        else:
            found[name] = values.copy()
    return found


def make_jax(case: Case, mapped: int = 1) -> Step:
    """Return a whole step in JAX, compiled; of so many networks on the same data at once where they are several."""
    jax: Any = import_module("jax")
    jnp = jax.numpy
    gradient_of = jax.value_and_grad(_jax_loss(case))

    def step(weights: Any, moments: Any, count: Any) -> Any:
        loss, gradient = gradient_of(weights)
        gradient = jax.tree.map(lambda g, w: g + DESCENT.l2 * w, gradient, weights)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradient)))
        factor = jnp.minimum(1.0, DESCENT.clip / norm)
        rate = DESCENT.learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g * factor, moments[0], gradient)
        second = jax.tree.map(lambda m, g: 0.999 * m + 0.001 * (g * factor) ** 2, moments[1], gradient)
        weights = jax.tree.map(lambda w, a, m: w - rate * a / (jnp.sqrt(m) + 1e-8), weights, first, second)
        return weights, (first, second), loss

    weights = {name: jnp.asarray(values) for name, values in _wide(case).items()}
    if mapped > 1:
        weights = {name: jnp.stack([values] * mapped) for name, values in weights.items()}
    moments = (jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights))
    quick = jax.jit(jax.vmap(step, (0, 0, None)) if mapped > 1 else step)
    count = 0

    def stepped() -> float:
        nonlocal weights, moments, count
        count += 1
        weights, moments, loss = quick(weights, moments, float(count))
        return float(jnp.mean(loss))

    return stepped


def _jax_loss(case: Case) -> Callable[[Arrays], Any]:
    jax: Any = import_module("jax")
    jnp, network = jax.numpy, case.network
    operations = Operations(jnp.tanh, jax.nn.sigmoid, jax.nn.relu, lambda parts: jnp.concatenate(parts, -1))
    x, targets = jnp.asarray(case.shown), jnp.asarray(case.batch.targets)

    def loss_of(weights: Arrays) -> Any:
        below = x @ weights["read_in.weight"] + weights["read_in.bias"] if network.reads_in else x
        for layer in range(network.layers):
            products = below @ weights[f"layer{layer + 1}.input"] + weights[f"layer{layer + 1}.bias"]
            recurrent, initial = weights[f"layer{layer + 1}.recurrent"], weights[f"layer{layer + 1}.initial"]
            states = [jnp.broadcast_to(one, (BATCH, network.units)) for one in initial]

            def scanned(states: Any, given: Any, recurrent: Any = recurrent) -> Any:
                return take_step(network, operations, given[0], recurrent, states, given[1])

            # What only +rnn reads would be carried along.
            shown = below if network.reads_in else products[..., : network.units]
            _, below = jax.lax.scan(scanned, states, (products, shown))
        outputs = below[case.scored] @ weights["read_out.weight"] + weights["read_out.bias"]
        if case.objective.kind == "logistic":
            y, t = outputs[0], targets.astype(jnp.float32)
            return jnp.mean(jnp.maximum(y, 0) - y * t + jnp.log1p(jnp.exp(-jnp.abs(y))))
        scored, groups = case.objective.scored, case.objective.groups
        logs = jax.nn.log_softmax(outputs.reshape(scored, BATCH, groups, -1))
        losses = -jnp.take_along_axis(logs, targets.transpose(1, 0, 2)[..., None], -1).sum() / BATCH
        return losses / scored if case.objective.mean_over_steps else losses

    return loss_of


#: Contestants by name, with the package that each needs, and how many networks a step of it trains.
CONTESTANTS: Final[dict[str, tuple[Callable[[Case], Step], str, int]]] = {
    "eager": (make_eager, "torch", 1),
    "torch": (make_torch, "torch", 1),
    "jax": (make_jax, "jax", 1),
    "jax16": (lambda case: make_jax(case, MAPPED), "jax", MAPPED),
    OURS: (make_ours, "numba", 1),
}


# -- measuring


@dataclass
class Result:
    """What was measured of a network: milliseconds a step by contestant, and the limit."""

    task: str
    cell: str
    depth: int
    units: int
    parameters: int
    milliseconds: dict[str, float]
    limit: float = 0.0

    @property
    def best(self) -> float:
        """Return the time of the best library that trains the same network; NaN where there is none."""
        same = [
            taken
            for name, taken in self.milliseconds.items()
            if name != OURS and not (name == "torch" and self.cell == "gru")
        ]
        return min(same, default=math.nan)

    def ratios(self) -> tuple[float, float]:
        """Return how many times as long eager PyTorch and the best library take."""
        ours = self.milliseconds[OURS]
        return self.milliseconds.get("eager", math.nan) / ours, self.best / ours


@dataclass
class Report:
    """Everything that a run of the benchmark found out; ``left_out`` says why something is missing."""

    left_out: dict[str, str] = field(default_factory=dict)
    sgemm_gflops: float = 0.0
    results: dict[str, list[Result]] = field(default_factory=dict)


def run(rows: Sequence[Row], names: Sequence[str], rounds: int, seconds: float, report: Report) -> Iterator[Row]:
    """Measure all networks of each row, in rounds in which all contestants take turns."""
    present = [name for name in names if find_spec(CONTESTANTS[name][1])]
    report.left_out |= {name: f"{CONTESTANTS[name][1]} is not installed" for name in names if name not in present}
    for row in rows:
        found = report.results.setdefault(row.title, [])
        for task in row.tasks:
            for cell in row.cells:
                case = make_case(task, cell, row.budget, row.depth)
                times, rate = _measure(case, present, row.budget, rounds, seconds)
                report.sgemm_gflops = max(report.sgemm_gflops, rate)
                network = case.network
                result = Result(task, cell, row.depth, network.units, network.parameters, times)
                result.limit = needed_operations(case) / rate / 1e6
                found.append(result)
        yield row


def _measure(
    case: Case, names: Sequence[str], budget: int, rounds: int, seconds: float
) -> tuple[dict[str, float], float]:
    """Return the milliseconds a step of each contestant, and the rate of large products in GFLOP/s."""
    made: dict[str, tuple[Step, int]] = {}
    for name in names:
        make, _, networks = CONTESTANTS[name]
        if networks > 1 and budget > 200_000:  # minutes
            continue
        try:
            made[name] = make(case), networks
        except ImportError:
            continue
    losses = {name: step() for name, (step, _) in made.items()}
    for name, loss in losses.items():
        if name != "torch" and not math.isclose(loss, losses[OURS], rel_tol=1e-4):
            raise ValueError(f"{name} has the loss {loss}, ours {losses[OURS]}")
    times: dict[str, list[float]] = {name: [] for name in made}
    rates = []
    for _ in range(rounds):
        rates.append(sgemm_rate(time.process_time) / 1e9)
        for name, (step, networks) in made.items():
            times[name] += [1e3 * taken / networks for taken in _step_seconds(step, seconds)]
    return {name: statistics.median(taken) for name, taken in times.items()}, statistics.median(rates)


def _step_seconds(step: Step, seconds: float) -> list[float]:
    """Return the CPU seconds of each step, of as many as take so many seconds."""
    taken: list[float] = []
    while not taken or sum(taken) < seconds:
        started = time.process_time()
        step()
        taken.append(time.process_time() - started)
    return taken


HEADER: Final = (
    f"{'task':<11}{'cell':<7}{'depth':>5}{'units':>6}{'eager':>9}{'torch':>9}{'jax':>9}{'jax16':>9}{'ours':>9}"
    f"{'limit':>8}{'eager/ours':>11}{'best/ours':>10}{'limit/ours':>11}"
)


def line_of(result: Result) -> str:
    """Return what is printed about a network; milliseconds a step."""
    times = [result.milliseconds.get(name) for name in CONTESTANTS]
    shown = "".join(f"{'-' if taken is None else f'{taken:.3g}':>9}" for taken in times)
    eager, best = result.ratios()
    share = result.limit / result.milliseconds[OURS]
    return (
        f"{result.task:<11}{result.cell:<7}{result.depth:>5}{result.units:>6}{shown}{result.limit:>8.3g}"
        f"{eager:>11.1f}{best:>10.2f}{share:>11.0%}"
    )


def row_line(row: Row, results: Sequence[Result]) -> str:
    """Return what is printed about a row of the table: the least ratios, and what is aimed at."""
    eager, best = (min(ratios) for ratios in zip(*(result.ratios() for result in results), strict=True))
    return f"{row.title}: {eager:.1f} x eager (aim {row.over_eager}), {best:.2f} x best library (aim {row.over_best})"


# -- errors


def error_lines(seeds: int = 6) -> Iterator[str]:
    """Compare gradients of ours and JAX's with PyTorch's in float32, all against float64: the worst array's ratio."""
    shape = Task(14, 6, 8, 1, Objective("softmax", 3, 8, 2))
    for cell in GATES:
        for depth in (1, 4):
            for nonlinearity in ("tanh", "relu"):
                ours, jax_ = _error_ratios(cell, depth, nonlinearity, shape, seeds)
                shown = f"{jax_:.2f}" if jax_ else "not installed"
                yield f"{cell:<6} depth {depth} {nonlinearity}: ours {ours:.2f}, jax {shown}"


def _error_ratios(cell: str, depth: int, nonlinearity: str, shape: Task, seeds: int) -> tuple[float, float | None]:
    torch: Any = import_module("torch")
    compiled: Any = import_module("butter_etl.engines.recurrent.engine").CompiledTrainer
    reference: Any = import_module("butter_etl.engines.recurrent.reference").ReferenceTrainer
    has_jax = find_spec("jax") is not None
    errors: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        case = _case("errors", cell, 24, depth, nonlinearity, shape, seed)
        given = (case.network, case.objective, RecurrentDescent("SGD", 1.0, 1.0, 1, 0.9, 1.0, 0.0))
        start = {name: case.start[name] for name in ("parameters", "steps")}
        exact_loss, exact = reference(*given, start, dtype=torch.float64).gradient(case.batch)
        found = [reference(*given, start).gradient(case.batch), compiled(*given, start).gradient(case.batch)]
        if has_jax:
            found.append(_jax_gradient(case))
        errors.setdefault("loss", []).append([abs(loss / exact_loss - 1) for loss, _ in found])
        for name, (place, _) in parameter_layout(case.network).items():
            of = exact.numpy()[place]
            largest = np.abs(of).max()
            errors.setdefault(name, []).append(
                [float(np.abs(np.asarray(one)[place] - of).max() / largest) for _, one in found]
            )
    means = np.array([np.mean(of, axis=0) for of in errors.values()])
    worst = (means[:, 1:] / np.maximum(means[:, :1], 2.0**-25)).max(axis=0)
    return float(worst[0]), float(worst[1]) if has_jax else None


def _jax_gradient(case: Case) -> tuple[float, NDArray[np.float32]]:
    jax: Any = import_module("jax")
    loss, gradient = jax.jit(jax.value_and_grad(_jax_loss(case)))(_wide(case))
    flat = np.zeros(case.network.parameters, np.float32)
    gates = len(case.network.gates)
    for name, (place, of) in parameter_layout(case.network).items():
        values = np.asarray(gradient[name])
        if name.endswith((".input", ".recurrent")):
            values = values.reshape(values.shape[0], gates, -1).transpose(1, 0, 2)
        flat[place] = values.reshape(of).reshape(-1)
    return float(loss), flat


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the options say, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="parts of the titles of rows, separated by commas (all)")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=5)
    # Shorter turns are mostly first steps, on memory that another's turn has pushed out of the caches.
    parser.add_argument("--seconds", type=float, default=0.8, help="about how long a turn takes")
    parser.add_argument("--errors", action="store_true", help="compare gradients, not times")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if PINNED not in os.environ:
        return pin_and_rerun(list(sys.argv[1:] if arguments is None else arguments), "benchmarks.capacity")
    import_module("torch").set_num_threads(1)
    if options.errors:
        for line in error_lines():
            print(line, flush=True)
        return 0
    rows = [row for row in ROWS if any(part in row.title for part in options.rows.split(","))]
    report = Report()
    for row in run(rows, options.contestants.split(","), options.rounds, options.seconds, report):
        if not options.json:
            if row is rows[0]:
                print(HEADER)
            for result in report.results[row.title]:
                print(line_of(result), flush=True)
    if options.json:
        print(json.dumps(asdict(report)))
        return 0
    for name, reason in report.left_out.items():
        print(f"left out: {name}, {reason}")
    for row in rows:
        print(row_line(row, report.results[row.title]))
    print(f"CPU milliseconds a step of {BATCH} sequences; sgemm at {report.sgemm_gflops:.1f} GFLOP/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
