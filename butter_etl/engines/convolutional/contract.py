"""The contract of the engines for image networks: what a network is, and what an engine takes and gives.

An engine trains one network, batch by batch, and says all that is needed to go on elsewhere, to the same bits: a
`State`. Engines know nothing of experiments, files or Dask. Start weights (`draw_start`) and dropout masks
(`dropout_mask`) are functions of the run's seed and of where they are used, so no generator has a state.

A network is built as PyTorch builds one: blocks of a convolution and, where the block's code has them, ReLU, dropout
and max-pooling, in this order; then fully connected layers, of which the last gives the logits of a softmax
cross-entropy. A fully connected layer is a convolution whose kernel is as large as its input, so `ConvNetwork.layers`
has one kind of layer only.

Images are (rows, size, size, channels), float32, or uint8 for values of k / 255; labels are int64 (rows,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from butter_etl.engines.streams import Stream, uniforms, words
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device
    from butter_etl.engines.host import Facts

#: The bits of a block's code.
RELU: Final = 1
POOL: Final = 2
DROPOUT: Final = 4

#: The arrays that training changes, by name: for each layer ``<layer>.weight`` float32 (filters, channels, kernel,
#: kernel), of a fully connected layer (width, inputs), and ``<layer>.bias`` float32 (filters,). With momentum, each has
#: ``<name>.momentum``, of zeros before the first step. ``steps`` int64 () counts the batches so far.
State = Mapping[str, "NDArray[Any]"]
STEPS: Final = "steps"
MOMENTUM: Final = ".momentum"


@dataclass(frozen=True)
class Pool:
    """A max-pooling: windows of ``kernel`` x ``kernel``, every ``stride``, over a frame of ``padding`` at -infinity."""

    kernel: int
    stride: int
    padding: int = 0

    def size(self, size: int) -> int:
        """Return the size of the output for an input of a ``size``."""
        return _slid(size, self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class Block:
    """A convolution and what follows it: ``code`` is a mask of `RELU`, `POOL` and `DROPOUT`.

    ``pool`` is there if, and only if, the code has `POOL`.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    code: int = RELU
    pool: Pool | None = None


@dataclass(frozen=True)
class Layer:
    """A layer with weights, and what is done to its output: ReLU, then dropout at a rate, then pooling.

    Its input is ``size`` x ``size`` of so many ``channels``. ``name`` is ``conv1``, ``conv2``, … or ``fc1``, …; the
    layers of a network are numbered from 0, the fully connected ones after the others.
    """

    name: str
    number: int
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int
    padding: int
    relu: bool
    dropout: float
    pool: Pool | None

    @cached_property
    def conv_size(self) -> int:
        """Return the size of what the convolution gives: floor((H + 2 p - k) / s) + 1."""
        return _slid(self.size, self.kernel, self.stride, self.padding)

    @property
    def out_size(self) -> int:
        """Return the size of what the layer gives, after pooling."""
        return self.pool.size(self.conv_size) if self.pool else self.conv_size

    @property
    def is_dense(self) -> bool:
        """Tell whether this is a fully connected layer."""
        return self.name.startswith("fc")

    @property
    def fan_in(self) -> int:
        """Return the number of inputs of each output."""
        return self.channels * self.kernel**2

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Return the shape of the weights as a state has them."""
        dense = (self.filters, self.fan_in)
        return dense if self.is_dense else (self.filters, self.channels, self.kernel, self.kernel)


@dataclass(frozen=True)
class ConvNetwork:
    """A network of ``blocks`` and of fully connected layers of some ``widths``, the output's last.

    Its images are ``size`` x ``size`` of so many ``channels``. Blocks drop at ``dropout_rate``, if their code says so;
    hidden fully connected layers at ``fc_dropout_rate``, if their flag of ``fc_dropout`` says so (no flags: none does).
    """

    channels: int
    size: int
    blocks: tuple[Block, ...]
    widths: tuple[int, ...]
    dropout_rate: float = 0.0
    fc_dropout: tuple[bool, ...] = ()
    fc_dropout_rate: float = 0.0
    fc_activation: Literal["none", "relu"] = "none"

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return self.widths[-1]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Return all layers with their shapes. Raises UsageError for a network that cannot be built."""
        self._check()
        layers: list[Layer] = []
        size, channels = self.size, self.channels
        for number, block in enumerate(self.blocks):
            layer = self._convolution(number, channels, size, block)
            _check_layer(layer)
            layers.append(layer)
            size, channels = layer.out_size, layer.filters
        for place, width in enumerate(self.widths):
            layers.append(self._dense(len(self.blocks), place, channels, size, width))
            size, channels = 1, width
        return tuple(layers)

    def _convolution(self, number: int, channels: int, size: int, block: Block) -> Layer:
        rate = self.dropout_rate if block.code & DROPOUT else 0.0
        shape = (block.filters, block.kernel, block.stride, block.padding)
        return Layer(f"conv{number + 1}", number, channels, size, *shape, bool(block.code & RELU), rate, block.pool)

    def _dense(self, before: int, place: int, channels: int, size: int, width: int) -> Layer:
        hidden = place + 1 < len(self.widths)
        rate = self.fc_dropout_rate if hidden and self.fc_dropout and self.fc_dropout[place] else 0.0
        relu = hidden and self.fc_activation == "relu"
        return Layer(f"fc{place + 1}", before + place, channels, size, width, size, 1, 0, relu, rate, None)

    @property
    def parameters(self) -> int:
        """Return the exact number of weights and biases."""
        return sum((layer.fan_in + 1) * layer.filters for layer in self.layers)

    def _check(self) -> None:
        if min(self.channels, self.size, *self.widths, *(block.filters for block in self.blocks)) < 1:
            raise UsageError("a network needs channels, a size, filters and widths of at least 1")
        if self.fc_dropout and len(self.fc_dropout) != len(self.widths) - 1:
            raise UsageError(f"{len(self.fc_dropout)} dropout flags for {len(self.widths) - 1} hidden layers")
        for rate in (self.dropout_rate, self.fc_dropout_rate):
            if not 0 <= rate < 1:
                raise UsageError(f"a dropout rate is at least 0 and below 1, not {rate}")
        for number, block in enumerate(self.blocks, start=1):
            if not 0 <= block.code <= RELU | POOL | DROPOUT or bool(block.code & POOL) != (block.pool is not None):
                raise UsageError(f"block {number} has code {block.code} and pool {block.pool}")


def _slid(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _check_layer(layer: Layer) -> None:
    """Refuse what PyTorch refuses."""
    windows = [(layer.kernel, layer.stride, layer.padding, layer.size)]
    if layer.pool:
        windows.append((layer.pool.kernel, layer.pool.stride, layer.pool.padding, layer.conv_size))
        if 2 * layer.pool.padding > layer.pool.kernel:
            raise UsageError(f"{layer.name}: pool padding {layer.pool.padding} is above half its kernel")
    for kernel, stride, padding, size in windows:
        if kernel < 1 or stride < 1 or padding < 0 or kernel > size + 2 * padding:
            raise UsageError(f"{layer.name}: kernel {kernel}, stride {stride}, padding {padding} on size {size}")


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent as `torch.optim.SGD` has it.

    g = gradient + weight_decay w; in the first step b = g, later b = momentum b + (1 - dampening) g; with momentum 0,
    b = g always; w = w - learning_rate b.
    """

    learning_rate: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0


class ConvTrainer(Protocol):
    """A network in training."""

    def train_batch(self, images: NDArray[Any], labels: NDArray[np.int64], step: int) -> float:
        """Take a step on a batch and return its mean loss before the step, in training mode.

        ``step`` is the number of batches before it, which names the dropout masks. Raises UsageError where the state is
        at another step, or the batch is not what the network takes.
        """
        ...

    def evaluate(self, images: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of the losses of some images, and how many have the largest logit at their label.

        Nothing is dropped. The first of equal logits counts, NaN as the largest. Raises UsageError where the images are
        not what the network takes.
        """
        ...

    def state(self) -> State:
        """Return a copy of all that is needed to go on."""
        ...


class MakeTrainer(Protocol):
    """The function that an engine module exports as ``trainer``."""

    def __call__(
        self, network: ConvNetwork, descent: Descent, seed: int, start: State, *, device: Device = "cpu"
    ) -> ConvTrainer:
        """Return a trainer of a network from a start, or from a state that an earlier one left."""
        ...


ENGINES: Final[Mapping[str, str]] = {
    "reference": "butter_etl.engines.convolutional.reference",
    "compiled": "butter_etl.engines.convolutional.engine",
}


def load_trainer(name: str) -> MakeTrainer:
    """Import the engine called ``name`` and return its ``trainer``; importing it is what loads torch or numba."""
    made: MakeTrainer = import_module(ENGINES[name]).trainer
    return made


def trainer_facts(name: str, device: Device) -> Facts:
    """Return what the bits of an engine's results depend on here, besides the versions of packages."""
    found: Facts = import_module(ENGINES[name]).facts(device)
    return found


def draw_start(network: ConvNetwork, descent: Descent, seed: int) -> dict[str, NDArray[Any]]:
    """Return the state before the first step: weights and biases uniform within 1 / sqrt(fan_in).

    So does PyTorch initialise both kinds of layers (`torch.nn.Conv2d`, `torch.nn.Linear`: Kaiming's rule with a = √5).
    A layer's numbers come from step ``number`` of the stream of weights: first the weights in the order of their
    shape, then the biases.
    """
    state: dict[str, NDArray[Any]] = {}
    for layer in network.layers:
        count = prod(layer.weight_shape)
        draws = uniforms(seed, Stream.WEIGHTS, count + layer.filters, step=layer.number)
        values = ((2.0 * draws - 1.0) / sqrt(layer.fan_in)).astype(np.float32)
        state[f"{layer.name}.weight"] = values[:count].reshape(layer.weight_shape)
        state[f"{layer.name}.bias"] = values[count:]
    if descent.momentum:
        state |= {name + MOMENTUM: np.zeros_like(values) for name, values in state.items()}
    return state | {STEPS: np.array(0, np.int64)}


def checked_state(network: ConvNetwork, descent: Descent, state: State) -> State:
    """Return a state. Raises UsageError where its arrays are not those of a network and its descent."""
    expected = {f"{layer.name}.weight": layer.weight_shape for layer in network.layers}
    expected |= {f"{layer.name}.bias": (layer.filters,) for layer in network.layers}
    if descent.momentum:
        expected |= {name + MOMENTUM: shape for name, shape in expected.items()}
    expected |= {STEPS: ()}
    found = {name: np.shape(values) for name, values in state.items()}
    if found != expected:
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise UsageError(f"the state is of another network or descent: {', '.join(odd)}")
    return state


def check_training_batch(network: ConvNetwork, images: NDArray[Any], labels: NDArray[np.int64]) -> None:
    """Call `check_batch`; raise UsageError for a batch without images too, which has no mean loss."""
    check_batch(network, images, labels)
    if not len(labels):
        raise UsageError("a batch has no image to learn from")


def check_batch(network: ConvNetwork, images: NDArray[Any], labels: NDArray[np.int64]) -> None:
    """Raise UsageError where images or labels are not what a network takes: kernels would read beyond them."""
    shape = (len(labels), network.size, network.size, network.channels)
    if images.shape != shape or images.dtype not in (np.float32, np.uint8):
        raise UsageError(f"images are float32 or uint8 {shape}, not {images.dtype} {images.shape}")
    if labels.dtype != np.int64 or (labels.size and not 0 <= labels.min() <= labels.max() < network.classes):
        raise UsageError(f"labels are int64 from 0 to {network.classes - 1}")


# -- dropout

#: Channels are counted in such multiples where masks are drawn, and where the compiled engine keeps them.
LANES: Final = 16
#: Elements of a mask that sixteen blocks of words decide about: eight halves of words a block.
MASK_GROUP: Final = 8 * LANES
_HALF: Final = 1 << 16


def padded(channels: int) -> int:
    """Return a number of channels, rounded up to a multiple of `LANES`."""
    return -(-channels // LANES) * LANES


def keep_threshold(rate: float) -> int:
    """Return how many of 65,536 random halves of words keep an element: the nearest to the rate, at least one."""
    return max(1, round((1.0 - rate) * _HALF))


def keep_scale(rate: float) -> float:
    """Return what kept elements are multiplied by: one through the probability that `keep_threshold` gives them."""
    return _HALF / keep_threshold(rate)


def dropout_mask(seed: int, step: int, layer: Layer, rows: int) -> NDArray[np.bool_]:
    """Return which outputs of a layer, before pooling, are kept in a step, bool (rows, size, size, filters).

    Element i = (position rows + row) padded(filters) + channel, position = y size + x, belongs to half h = i // 16 mod
    8 of block 16 (i // 128) + i mod 16 of the words of stream MASKS at this step, part ``layer.number``: bits 16 (h mod
    2) and up of the block's word h // 2. It is kept where that is below `keep_threshold`.
    """
    size, width = layer.conv_size, padded(layer.filters)
    elements = size * size * rows * width
    groups = -(-elements // MASK_GROUP)
    drawn = words(seed, Stream.MASKS, groups * MASK_GROUP // 2, step, layer.number)
    halves = drawn.astype("<u4").view("<u2").reshape(groups, LANES, 8).transpose(0, 2, 1).reshape(-1)
    kept = halves[:elements] < keep_threshold(layer.dropout)
    return kept.reshape(size, size, rows, width)[..., : layer.filters].transpose(2, 0, 1, 3)


#: A function that tells which outputs of a layer are kept, of so many rows: `dropout_mask` with what it is bound to.
Masks = Callable[[Layer, int], "NDArray[np.bool_]"]
