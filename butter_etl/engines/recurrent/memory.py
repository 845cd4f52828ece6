"""Where the compiled engine for recurrent networks keeps what, as whole numbers that its kernels read.

A batch is done in *panels* of up to 64 sequences. In a panel, numbers of one feature lie side by side: a *row* has one
for each sequence, so many `COLUMNS` as fill whole vectors. A *block* is the rows of one step: of h, its units and one
row of ones, by which the biases are multiplied.

Weights lie as products read them: for each layer a matrix whose rows are the inputs from below, the units of the step
before, and the ones; and whose columns are the gates' features, filled up with zeros to whole vectors. ``gru`` begins
those of its r and u at a vector of their own, since what c's are multiplied by differs. The input matrix of the first
layer, or the read-in, is the *front*: its rows are added up where inputs are indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from butter_etl.engines.convolutional.lanes import LANES
from butter_etl.engines.recurrent.contract import Shown, parameter_layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.recurrent.contract import Objective, RecurrentNetwork, Sequences

    Integers = NDArray[np.int64]

#: The most sequences of a panel: four vectors.
PANEL: Final = 64
#: The features that a strip of a gradient has at most.
STRIP: Final = 64
#: The steps whose gradients are added up at once.
SUMMED_STEPS: Final = 1

#: The architectures as kernels know them.
RNN, UGRNN, GRU, LSTM, INTERSECTION = range(5)
KINDS: Final = {"rnn": RNN, "irnn": RNN, "ugrnn": UGRNN, "gru": GRU, "lstm": LSTM, "+rnn": INTERSECTION}
SOFTMAX, LOGISTIC, SQUARED = range(3)
OBJECTIVES: Final = {"softmax": SOFTMAX, "logistic": LOGISTIC, "squared": SQUARED}
INDICES, EVERY_STEP, FIRST_STEP = range(3)

# The numbers of a plan: what is computed, and where its arrays begin.
(
    KIND,
    IS_RELU,
    LAYERS,
    UNITS,
    #: Features of all gates, and columns of their matrices; where the columns of the second part begin (`GRU`), else 0.
    FEATURES,
    WIDE,
    SECOND,
    INPUTS,
    INPUT_KIND,
    STREAMS,
    STEPS,
    FIRST,
    SCORED,
    OBJECTIVE,
    GROUPS,
    OUTPUTS,
    OUTPUT_WIDE,
    COLUMNS,
    #: Weights: the front, with rows of so many columns, and the read-out, whose turned copy has so long rows.
    FRONT,
    FRONT_WIDE,
    READ_OUT,
    READ_OUT_TURNED,
    READ_OUT_TURNED_STEP,
    #: Work: what is read in (of `INTERSECTION`), outputs and then their errors, inputs as vectors, errors summed over
    #: steps, sums of rows of the front, the error of what is read in, and sums by lane for the biases' gradients.
    READ,
    LOGITS,
    VECTORS,
    SUMMED,
    SUMS,
    READ_ERROR,
    READ_BIAS_SUMS,
    BIAS_SUMS,
    #: Errors with the features of a sequence side by side: of gates, and of outputs.
    TURNED_ERRORS,
    TURNED_LOGITS,
    SHAPE_SIZE,
) = range(34)

# The numbers of a layer.
(
    FAN_IN,
    WEIGHTS,
    INITIAL,
    TURNED,
    TURNED_STEP,
    #: Blocks by step: gates; h before the first step and after each; what is handed up; c and tanh(c) of `LSTM`; r h.
    GATES,
    GATES_STEP,
    HIDDEN,
    UP,
    CELL,
    CELL_TANH,
    RESET,
    #: Errors of h, of c, and of what is handed up; sums by lane for the gradient of the biases.
    ERROR,
    CELL_ERROR,
    UP_ERROR,
    BIAS_SUMS_OF_LAYER,
    LAYER_SIZE,
) = range(17)


@dataclass(frozen=True)
class Plan:
    """What kernels are told of a network, an objective and a panel; sizes of the arrays they work in."""

    shape: Integers
    layers: Integers
    work: int
    turned: int
    errors: int


@dataclass(frozen=True)
class Places:
    """Where parameters lie in the engine's weights: for each of those of a state, and how many there are in all."""

    numbers: Integers
    size: int
    front: int
    layers: tuple[tuple[int, int], ...]
    read_out: int


def filled(count: int) -> int:
    """Return a number of features, rounded up to whole vectors."""
    return -(-count // LANES) * LANES


def gate_columns(network: RecurrentNetwork) -> list[int]:
    """Return the column in which each gate begins."""
    n = network.units
    if network.architecture == "gru":
        return [0, filled(n), filled(n) + n]
    return [n * gate for gate in range(len(network.gates))]


def wide_of(network: RecurrentNetwork) -> int:
    """Return the number of columns of a layer's matrix."""
    return filled(gate_columns(network)[-1] + network.units)


def weight_places(network: RecurrentNetwork) -> Places:
    """Return where the engine keeps a network's parameters."""
    n, wide, columns = network.units, wide_of(network), np.array(gate_columns(network))
    layout = parameter_layout(network)
    numbers = np.zeros(network.parameters, np.int64)
    front_wide = filled(n) if network.reads_in else wide
    units = np.arange(n)

    def place(name: str, positions: Any) -> None:
        part, shape = layout[name]
        numbers[part] = np.broadcast_to(positions, shape).reshape(-1)

    at = (network.inputs + network.reads_in) * front_wide
    if network.reads_in:
        place("read_in.weight", np.arange(network.inputs)[:, None] * front_wide + units)
        place("read_in.bias", network.inputs * front_wide + units)
    layers = []
    for layer in range(network.layers):
        fan_in = network.fan_in(layer) if layer or network.reads_in else 0
        first = at if fan_in else 0  # without a read-in, the front is the first layer's input matrix
        gates = columns[:, None, None] + units
        inputs = np.arange(network.fan_in(layer))[:, None] * (wide if fan_in else front_wide)
        place(f"layer{layer + 1}.input", first + gates + inputs)
        place(f"layer{layer + 1}.recurrent", at + gates + (fan_in + units)[:, None] * wide)
        place(f"layer{layer + 1}.bias", at + columns[:, None] + units + (fan_in + n) * wide)
        initial = at + (fan_in + n + 1) * wide
        place(f"layer{layer + 1}.initial", initial + np.arange(network.states)[:, None] * n + units)
        layers.append((at, initial))
        at = initial + filled(network.states * n)
    output_wide = filled(network.outputs)
    place("read_out.weight", at + units[:, None] * output_wide + np.arange(network.outputs))
    place("read_out.bias", at + n * output_wide + np.arange(network.outputs))
    return Places(numbers, at + (n + 1) * output_wide, 0, tuple(layers), at)


class _Room:
    """Counts what an array needs to have."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, count: int) -> int:
        """Return where so many numbers begin."""
        at = self.size
        self.size += filled(count)
        return at


def make_plan(network: RecurrentNetwork, objective: Objective, places: Places, batch: Sequences, rows: int) -> Plan:
    """Return the plan of a panel of so many rows of batches like this one."""
    shape, layers = np.zeros(SHAPE_SIZE, np.int64), np.zeros((network.layers, LAYER_SIZE), np.int64)
    work, turned, errors = _Room(), _Room(), _Room()
    n, wide, steps = network.units, wide_of(network), objective.last
    features, columns = n * len(network.gates), filled(rows)
    front_wide = filled(n) if network.reads_in else wide
    shape[[KIND, IS_RELU, LAYERS, UNITS]] = KINDS[network.architecture], network.is_relu, network.layers, n
    shape[[FEATURES, WIDE, INPUTS]] = features, wide, network.inputs
    shape[SECOND] = gate_columns(network)[1] if network.architecture == "gru" else 0
    if isinstance(batch.inputs, Shown):
        shape[INPUT_KIND] = EVERY_STEP if batch.inputs.every_step else FIRST_STEP
    else:
        shape[[INPUT_KIND, STREAMS]] = INDICES, batch.inputs.shape[2]
    shape[[STEPS, FIRST, SCORED, COLUMNS]] = steps, objective.first, objective.scored, columns
    shape[[OBJECTIVE, GROUPS]] = OBJECTIVES[objective.kind], objective.groups
    shape[[OUTPUTS, OUTPUT_WIDE]] = network.outputs, filled(network.outputs)
    shape[[FRONT, FRONT_WIDE, READ_OUT]] = places.front, front_wide, places.read_out

    for layer, (weights, initial) in enumerate(places.layers):
        row = layers[layer]
        fan_in = network.fan_in(layer) if layer or network.reads_in else 0
        row[[FAN_IN, WEIGHTS, INITIAL]] = fan_in, weights, initial
        row[TURNED_STEP] = filled(fan_in + n + 1)
        row[TURNED] = turned.take(wide * int(row[TURNED_STEP]))
        # What is turned of the front may be some rows longer than the features.
        row[GATES_STEP] = (features + LANES) * columns
        row[GATES] = work.take(steps * int(row[GATES_STEP]))
        row[HIDDEN] = work.take((steps + 1) * (n + 1) * columns)
        row[UP] = row[HIDDEN] + (n + 1) * columns
        if network.reads_in:
            row[UP] = work.take(steps * (n + 1) * columns)
        if network.architecture == "lstm":
            row[CELL] = work.take((steps + 1) * n * columns)
            row[CELL_TANH] = work.take(steps * n * columns)
        if network.architecture == "gru":
            row[RESET] = work.take(steps * (n + 1) * columns)
        row[ERROR], row[CELL_ERROR] = work.take(n * columns), work.take(n * columns)
        row[UP_ERROR] = work.take(n * columns) if network.reads_in else row[ERROR]
        row[BIAS_SUMS_OF_LAYER] = work.take(features * LANES)
    shape[READ_OUT_TURNED_STEP] = filled(n + 1)
    shape[READ_OUT_TURNED] = turned.take(filled(network.outputs) * filled(n + 1))
    shape[READ] = work.take(steps * (filled(n) + 1) * columns)
    shape[LOGITS] = work.take(objective.scored * network.outputs * columns)
    shape[VECTORS] = work.take((network.inputs + 1) * columns)
    shape[SUMMED] = work.take((max(features, filled(n)) + LANES) * columns)
    shape[SUMS] = work.take(front_wide * columns)
    shape[READ_ERROR] = work.take((n + LANES) * columns)
    shape[READ_BIAS_SUMS], shape[BIAS_SUMS] = work.take(n * LANES), work.take(network.outputs * LANES)
    shape[TURNED_ERRORS] = errors.take(SUMMED_STEPS * columns * max(wide, front_wide))
    shape[TURNED_LOGITS] = errors.take(objective.scored * columns * filled(network.outputs))
    return Plan(shape, layers, work.size, turned.size, errors.size)
