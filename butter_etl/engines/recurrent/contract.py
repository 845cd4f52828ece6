"""The contract of the engines for recurrent networks: what a network is, and what an engine takes and gives.

An engine trains one network, batch by batch, and says all that is needed to go on elsewhere, to the same bits: a
`State`. Engines know nothing of experiments, files or Dask. Start values (`draw_recurrent_start`) are a function of a
seed. A network is layers of one kind of cell, each with as many units, and a linear read-out of the last one; its cells
are those of Collins, Sohl-Dickstein and Sussillo, "Capacity and trainability in recurrent neural networks", ICLR 2017.

With x the input of a layer, h what it hands on in time, s the nonlinearity and sigm the logistic function:

- ``rnn``, ``irnn``: h = s(W x + U h₋ + b); of ``irnn``, s is ReLU.
- ``ugrnn``: c = s(…), g = sigm(… + forget bias), h = g h₋ + (1 - g) c, each … being a W x + U h₋ + b of its own.
- ``gru``: r = sigm(…), u = sigm(… + forget bias), c = s(W x + U (r h₋) + b), h = u h₋ + (1 - u) c.
- ``lstm``: i = sigm(…), g = sigm(… + forget bias), o = sigm(…), c = g c₋ + i s(…), h = o tanh(c).
- ``+rnn``: y' = ReLU(…), h' = tanh(…), gy = sigm(… + first forget bias), gh = sigm(… + second forget bias);
  y = gy x + (1 - gy) y' goes to the next layer, h = gh h₋ + (1 - gh) h'. A linear read-in makes x of the inputs.

The values before the first step, h and of ``lstm`` also c, are learned.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from butter_etl.engines.streams import Stream, normals
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device
    from butter_etl.engines.host import Facts

Architecture = Literal["rnn", "irnn", "ugrnn", "gru", "lstm", "+rnn"]
Nonlinearity = Literal["tanh", "relu"]
Optimizer = Literal["SGD", "Momentum", "RMSProp", "ADAM"]

#: The sums W x + U h + b of each cell, in the order in which parameters have them. ``c`` is what is to be let in, ``g``
#: of ``ugrnn`` and ``lstm`` is the forget gate.
GATES: Final[Mapping[Architecture, tuple[str, ...]]] = {
    "rnn": ("h",),
    "irnn": ("h",),
    "ugrnn": ("c", "g"),
    "gru": ("c", "r", "u"),
    "lstm": ("c", "g", "i", "o"),
    "+rnn": ("y", "h", "gy", "gh"),
}
#: The gates that have a forget bias added, which is not learned.
FORGETTING: Final[Mapping[Architecture, tuple[str, ...]]] = {
    "rnn": (),
    "irnn": (),
    "ugrnn": ("g",),
    "gru": ("u",),
    "lstm": ("g",),
    "+rnn": ("gy", "gh"),
}

#: The arrays that training changes: ``parameters``, float32 (network.parameters,), in the order of `parameter_layout`;
#: ``moment1`` (of Momentum and ADAM) and ``moment2`` (of RMSProp and ADAM), of the same shape; ``steps``, int64 ().
State = Mapping[str, "NDArray[Any]"]
PARAMETERS: Final = "parameters"
MOMENT1: Final = "moment1"
MOMENT2: Final = "moment2"
STEPS: Final = "steps"

#: The moments that each optimizer keeps, with their values before the first step.
MOMENTS: Final[Mapping[Optimizer, Mapping[str, float]]] = {
    "SGD": {},
    "Momentum": {MOMENT1: 0.0},
    "RMSProp": {MOMENT2: 1.0},
    "ADAM": {MOMENT1: 0.0, MOMENT2: 0.0},
}
#: What RMSProp adds to the mean square before its root, and ADAM to the root, as TensorFlow 1 does by default.
RMSPROP_EPSILON: Final = 1e-10
ADAM_EPSILON: Final = 1e-8
ADAM_SECOND_DECAY: Final = 0.999


@dataclass(frozen=True)
class RecurrentNetwork:
    """``layers`` layers of so many ``units``, from ``inputs`` numbers a step to ``outputs`` numbers.

    ``nonlinearity`` is that of the cells whose equation has an s; ``irnn`` takes ReLU whatever it says. ``forget_bias``
    has a value for each gate of `FORGETTING`. Raises UsageError for a network that cannot be built.
    """

    architecture: Architecture
    layers: int
    units: int
    inputs: int
    outputs: int
    nonlinearity: Nonlinearity = "tanh"
    forget_bias: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.architecture not in GATES:
            raise UsageError(f"no architecture {self.architecture!r}; there are {', '.join(GATES)}")
        if min(self.layers, self.units, self.inputs, self.outputs) < 1:
            raise UsageError("a recurrent network needs layers, units, inputs and outputs of at least 1")
        if self.nonlinearity not in ("tanh", "relu"):
            raise UsageError(f"no nonlinearity {self.nonlinearity!r}; there are tanh and relu")
        wanted = FORGETTING[self.architecture]
        if len(self.forget_bias) != len(wanted):
            raise UsageError(f"{self.architecture} takes {len(wanted)} forget biases, not {len(self.forget_bias)}")

    @property
    def gates(self) -> tuple[str, ...]:
        """Return the names of the gates."""
        return GATES[self.architecture]

    @property
    def states(self) -> int:
        """Return how many vectors a layer hands on in time: h, and of ``lstm`` c after it."""
        return 2 if self.architecture == "lstm" else 1

    @property
    def reads_in(self) -> bool:
        """Tell whether a linear read-in comes before the first layer."""
        return self.architecture == "+rnn"

    @property
    def is_relu(self) -> bool:
        """Tell whether s is ReLU."""
        return self.architecture == "irnn" or self.nonlinearity == "relu"

    @property
    def gate_biases(self) -> tuple[float, ...]:
        """Return what is added to each gate besides its learned bias."""
        biases = dict(zip(FORGETTING[self.architecture], self.forget_bias, strict=True))
        return tuple(biases.get(gate, 0.0) for gate in self.gates)

    def fan_in(self, layer: int) -> int:
        """Return how many inputs a layer, counted from 0, has."""
        return self.inputs if layer == 0 and not self.reads_in else self.units

    @property
    def parameters(self) -> int:
        """Return the exact number of parameters.

        It is Σ over layers of G (n d + n² + n) + S n, plus n n_out + n_out, and of ``+rnn`` n_in n + n.
        """
        gates, n = len(self.gates), self.units
        layers = sum(gates * n * (self.fan_in(layer) + n + 1) + self.states * n for layer in range(self.layers))
        read_in = (self.inputs + 1) * n if self.reads_in else 0
        return read_in + layers + (n + 1) * self.outputs

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the parameters by name, in their order; products are row vectors times matrices."""
        gates, n = len(self.gates), self.units
        shapes: dict[str, tuple[int, ...]] = {}
        if self.reads_in:
            shapes |= {"read_in.weight": (self.inputs, n), "read_in.bias": (n,)}
        for layer in range(self.layers):
            shapes |= {
                f"layer{layer + 1}.recurrent": (gates, n, n),
                f"layer{layer + 1}.input": (gates, self.fan_in(layer), n),
                f"layer{layer + 1}.bias": (gates, n),
                f"layer{layer + 1}.initial": (self.states, n),
            }
        return shapes | {"read_out.weight": (n, self.outputs), "read_out.bias": (self.outputs,)}


def parameter_layout(network: RecurrentNetwork) -> dict[str, tuple[slice, tuple[int, ...]]]:
    """Return where each array of parameters lies in the flat vector of a state, and its shape."""
    layout, first = {}, 0
    for name, shape in network.shapes.items():
        layout[name] = (slice(first, first + prod(shape)), shape)
        first += prod(shape)
    return layout


def largest_units(architecture: Architecture, layers: int, inputs: int, outputs: int, budget: int) -> int:
    """Return the most units with which a network has at most ``budget`` parameters; 0 if there is no such network."""
    biases = (0.0,) * len(FORGETTING[architecture])

    def parameters(units: int) -> int:
        return RecurrentNetwork(architecture, layers, units, inputs, outputs, forget_bias=biases).parameters

    return bisect_right(range(1, max(budget, 0) + 1), budget, key=parameters)


# -- starts


@dataclass(frozen=True)
class RecurrentStart:
    """How start values are drawn; scales have a value for each gate.

    Recurrent matrices are the identity, which is never scaled; or orthogonal; or normal over √n. Input matrices are
    normal over √inputs. Biases are all equal to their scale, or normal times it.
    """

    matrix: Literal["identity", "orthogonal", "normal"]
    matrix_scale: tuple[float, ...]
    input_scale: tuple[float, ...]
    bias: Literal["constant", "normal"]
    bias_scale: tuple[float, ...]


#: The parts of the stream of weights that a gate's numbers come from: three each, of step ``layer``, counted from 1.
_MATRIX_PART, _INPUT_PART, _BIAS_PART, _GATE_PARTS = 0, 1, 2, 3


def draw_recurrent_start(
    network: RecurrentNetwork, start: RecurrentStart, optimizer: Optimizer, seed: int
) -> dict[str, NDArray[Any]]:
    """Return the state before the first step.

    Orthogonal matrices are uniformly distributed, each on its own: Q of a normal matrix's QR decomposition, its columns
    times the signs of R's diagonal (Mezzadri, "How to generate random matrices from the classical compact groups",
    2007). Read-in and read-out are normal over the root of their inputs, their biases and the initial states are 0.
    Raises UsageError where there is not a scale for each gate.
    """
    counts = [len(scales) for scales in (start.matrix_scale, start.input_scale, start.bias_scale)]
    if counts != [len(network.gates)] * 3:
        raise UsageError(f"{network.architecture} takes {len(network.gates)} scales of each kind, not {counts}")
    layout = parameter_layout(network)
    flat = np.zeros(network.parameters, np.float32)

    def fill(name: str, values: NDArray[np.float64]) -> None:
        flat[layout[name][0]] = values.reshape(-1)

    for layer in range(network.layers):
        gates = range(len(network.gates))
        fill(f"layer{layer + 1}.recurrent", np.stack([_matrix(network, start, seed, layer, gate) for gate in gates]))
        fill(f"layer{layer + 1}.input", np.stack([_input(network, start, seed, layer, gate) for gate in gates]))
        fill(f"layer{layer + 1}.bias", np.stack([_bias(network, start, seed, layer, gate) for gate in gates]))
    for part, name in enumerate(("read_in.weight", "read_out.weight")):
        if name in layout:
            shape = layout[name][1]
            fill(name, normals(seed, Stream.WEIGHTS, prod(shape), part=part) / sqrt(shape[0]))
    moments = {name: np.full_like(flat, value) for name, value in MOMENTS[optimizer].items()}
    return {PARAMETERS: flat, **moments, STEPS: np.array(0, np.int64)}


def _normals(seed: int, layer: int, gate: int, part: int, count: int) -> NDArray[np.float64]:
    return normals(seed, Stream.WEIGHTS, count, step=layer + 1, part=_GATE_PARTS * gate + part)


def _matrix(network: RecurrentNetwork, start: RecurrentStart, seed: int, layer: int, gate: int) -> NDArray[np.float64]:
    n = network.units
    if start.matrix == "identity":
        return np.eye(n)
    drawn = _normals(seed, layer, gate, _MATRIX_PART, n * n).reshape(n, n)
    if start.matrix == "normal":
        return drawn * (start.matrix_scale[gate] / sqrt(n))
    # By one thread: the last digits depend on how many there are.
    with threadpool_limits(1):
        q, r = np.linalg.qr(drawn)
    return np.asarray(q * (np.copysign(1.0, np.diag(r)) * start.matrix_scale[gate]), np.float64)


def _input(network: RecurrentNetwork, start: RecurrentStart, seed: int, layer: int, gate: int) -> NDArray[np.float64]:
    inputs, n = network.fan_in(layer), network.units
    return _normals(seed, layer, gate, _INPUT_PART, inputs * n) * (start.input_scale[gate] / sqrt(inputs))


def _bias(network: RecurrentNetwork, start: RecurrentStart, seed: int, layer: int, gate: int) -> NDArray[np.float64]:
    if start.bias == "constant":
        return np.full(network.units, start.bias_scale[gate])
    return _normals(seed, layer, gate, _BIAS_PART, network.units) * start.bias_scale[gate]


# -- tasks


class Shown(NamedTuple):
    """Inputs that are vectors, float32 (rows, inputs), shown at every one of so many steps, or at the first only.

    Where nothing is shown, inputs are 0.
    """

    vectors: NDArray[np.float32]
    steps: int
    every_step: bool


class Sequences(NamedTuple):
    """A batch of sequences and what is wanted of them.

    ``inputs`` are indices, int32 (rows, steps, streams), from 0 to the network's inputs - 1: at each step the inputs
    are 1 there, added up where two streams have the same, and 0 elsewhere. Or they are `Shown` vectors. ``targets`` are
    what the `Objective` says.
    """

    inputs: NDArray[np.int32] | Shown
    targets: NDArray[Any]

    @property
    def rows(self) -> int:
        """Return the number of sequences."""
        return len(self.targets)

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return self.inputs.steps if isinstance(self.inputs, Shown) else int(self.inputs.shape[1])


@dataclass(frozen=True)
class Objective:
    """The loss of a row, in nats, from the outputs after steps ``first`` to before ``last``, counted from 0.

    - ``softmax``: the outputs are ``groups`` groups of as many classes; cross-entropies are added up over groups, and
      over the steps added up or, with ``mean_over_steps``, averaged. Targets are int64 (rows, last - first, groups).
    - ``logistic``: the mean of the binary cross-entropies of all outputs at one step; targets are uint8 or float32
      (rows, outputs), 0 or 1.
    - ``squared``: the mean of the squared errors at one step; targets are float32 (rows, outputs).

    The loss of a batch is the mean over its rows. Raises UsageError for what cannot be.
    """

    kind: Literal["softmax", "logistic", "squared"]
    first: int
    last: int
    groups: int = 1
    mean_over_steps: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.kind not in ("softmax", "logistic", "squared"):
            raise UsageError(f"no objective {self.kind!r}; there are softmax, logistic and squared")
        if not 0 <= self.first < self.last or self.groups < 1:
            raise UsageError(f"no objective scores {self.groups} groups at steps {self.first} to {self.last}")
        if self.kind != "softmax" and (self.last - self.first, self.groups) != (1, 1):
            raise UsageError(f"{self.kind} scores one group at one step")

    @property
    def scored(self) -> int:
        """Return the number of steps that are scored."""
        return self.last - self.first


@dataclass(frozen=True)
class RecurrentDescent:
    """Gradient descent as TensorFlow 1 has it; w are all parameters, of which the t-th step changes each.

    g = gradient of the loss + ``l2`` w; where the norm of g over all parameters is above ``clip``, g is multiplied by
    ``clip`` over the norm. The rate is r = ``learning_rate`` ``decay``^(t / ``steps``), t steps having been taken.

    - ``SGD``: w = w - r g.
    - ``Momentum``: a = ``momentum`` a + g, w = w - r a.
    - ``RMSProp``: m = ``momentum`` m + (1 - ``momentum``) g², from 1 at the start; w = w - r g / √(m + 1e-10).
    - ``ADAM``: a = ``momentum`` a + (1 - ``momentum``) g, m = .999 m + .001 g²;
      w = w - r √(1 - .999^(t + 1)) / (1 - ``momentum``^(t + 1)) a / (√m + 1e-8).
    """

    optimizer: Optimizer
    learning_rate: float
    decay: float
    steps: int
    momentum: float
    clip: float
    l2: float

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.optimizer not in MOMENTS:
            raise UsageError(f"no optimizer {self.optimizer!r}; there are {', '.join(MOMENTS)}")
        if self.steps < 1 or not self.clip > 0 or not self.decay > 0:
            raise UsageError(f"a descent needs steps, a clip and a decay above 0, not {self}")

    def rate(self, step: int) -> float:
        """Return the factor of a step that so many steps came before; of ADAM with what makes up for its start."""
        rate: float = self.learning_rate * self.decay ** (step / self.steps)
        if self.optimizer == "ADAM":
            rate *= sqrt(1.0 - ADAM_SECOND_DECAY ** (step + 1)) / (1.0 - self.momentum ** (step + 1))
        return rate


class Taken(NamedTuple):
    """A step: the batch's mean loss before it, without L2, and the gradient's norm before clipping, with L2."""

    loss: float
    norm: float


class Measured(NamedTuple):
    """The sum of the losses of some rows, how many answers are right, and how many there are.

    An answer of ``softmax`` is the class with the largest output, the first of equals, in each group at each scored
    step; of ``logistic`` it is 1 where an output is above 0, else 0; ``squared`` has none.
    """

    loss: float
    right: int
    answers: int


class RecurrentTrainer(Protocol):
    """A network in training."""

    def train_batch(self, batch: Sequences, step: int) -> Taken:
        """Take a step on a batch; ``step`` is the number of steps before it.

        Where loss or norm is not finite, nothing is changed, and the same step may be tried again. The norm is taken in
        float64: squares of large float32 would overflow and a clipped gradient become 0. Raises UsageError where the
        state is at another step, or the batch is not what the network takes.
        """
        ...

    def evaluate(self, batch: Sequences) -> Measured:
        """Return losses and answers of a batch. Raises UsageError where it is not what the network takes."""
        ...

    def state(self) -> State:
        """Return a copy of all that is needed to go on."""
        ...


class MakeRecurrentTrainer(Protocol):
    """The function that an engine module exports as ``trainer``."""

    def __call__(
        self,
        network: RecurrentNetwork,
        objective: Objective,
        descent: RecurrentDescent,
        start: State,
        *,
        device: Device = "cpu",
    ) -> RecurrentTrainer:
        """Return a trainer of a network from a start, or from a state that an earlier one left."""
        ...


RECURRENT_ENGINES: Final[Mapping[str, str]] = {
    "reference": "butter_etl.engines.recurrent.reference",
    "compiled": "butter_etl.engines.recurrent.engine",
}


def load_recurrent_trainer(name: str) -> MakeRecurrentTrainer:
    """Import the engine called ``name`` and return its ``trainer``; importing it is what loads torch or numba."""
    made: MakeRecurrentTrainer = import_module(RECURRENT_ENGINES[name]).trainer
    return made


def recurrent_facts(name: str, device: Device) -> Facts:
    """Return what the bits of an engine's results depend on here, besides the versions of packages."""
    found: Facts = import_module(RECURRENT_ENGINES[name]).facts(device)
    return found


# -- checks


def check_objective(network: RecurrentNetwork, objective: Objective) -> None:
    """Raise UsageError where a network's outputs are not those of an objective."""
    if network.outputs % objective.groups:
        raise UsageError(f"{network.outputs} outputs are not {objective.groups} groups of as many classes")


def checked_recurrent_state(network: RecurrentNetwork, descent: RecurrentDescent, state: State) -> State:
    """Return a state. Raises UsageError where its arrays are not those of a network and its descent."""
    flat = (np.dtype(np.float32), (network.parameters,))
    expected: dict[str, Any] = dict.fromkeys((PARAMETERS, *MOMENTS[descent.optimizer]), flat)
    expected[STEPS] = (np.dtype(np.int64), ())
    found = {name: (np.asarray(values).dtype, np.shape(values)) for name, values in state.items()}
    if found != expected:
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise UsageError(f"the state is of another network or descent: {', '.join(odd)}")
    return state


def check_sequences(network: RecurrentNetwork, objective: Objective, batch: Sequences) -> None:
    """Raise UsageError where a batch is not what a network and its objective take: kernels would read beyond it."""
    rows = batch.rows
    if isinstance(batch.inputs, Shown):
        vectors = batch.inputs.vectors
        if vectors.dtype != np.float32 or vectors.shape != (rows, network.inputs):
            raise UsageError(
                f"vectors are float32 {(rows, network.inputs)}, not {vectors.dtype} {vectors.shape} for {rows} rows"
            )
    else:
        indices = batch.inputs
        if indices.dtype != np.int32 or indices.ndim != 3 or len(indices) != rows:
            raise UsageError(f"indices are int32 ({rows}, steps, streams), not {indices.dtype} {indices.shape}")
        if indices.size and not 0 <= indices.min() <= indices.max() < network.inputs:
            raise UsageError(f"indices are from 0 to {network.inputs - 1}, not {indices.min()} to {indices.max()}")
    if batch.steps < objective.last:
        raise UsageError(f"sequences of {batch.steps} steps have no step {objective.last - 1} to be scored at")
    _check_targets(network, objective, batch)


def _check_targets(network: RecurrentNetwork, objective: Objective, batch: Sequences) -> None:
    targets = batch.targets
    kinds: tuple[type, ...] = {"softmax": (np.int64,), "logistic": (np.uint8, np.float32), "squared": (np.float32,)}[
        objective.kind
    ]
    is_softmax = objective.kind == "softmax"
    shape = (batch.rows, *((objective.scored, objective.groups) if is_softmax else (network.outputs,)))
    if targets.dtype not in kinds or targets.shape != shape:
        names = " or ".join(np.dtype(kind).name for kind in kinds)
        raise UsageError(f"targets of {objective.kind} are {names} {shape}, not {targets.dtype} {targets.shape}")
    most = network.outputs // objective.groups - 1 if is_softmax else 1
    if objective.kind != "squared" and targets.size and not 0 <= targets.min() <= targets.max() <= most:
        raise UsageError(f"targets of {objective.kind} are from 0 to {most}, not {targets.min()} to {targets.max()}")
