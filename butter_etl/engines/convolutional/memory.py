"""Where the numbers of a network lie in memory, and the tables by which kernels walk over them.

Every layer is a convolution (`butter_etl.engines.convolutional.contract`), and its arithmetic a list of *links*: output
position p sees input position q through tap k. Only links exist that multiply something: none through padding, none of
an output that nothing reads. A position is a matrix (rows, channels), its channels rounded up to a multiple of 16 with
zeros; so a link is a product of matrices, and no patch is ever copied. What cannot differ between the images of a batch
(an output that sees only padding is its bias, and so on from there until dropout) has one row in place of all.

Images lie line by line: (size, rows, (size + 2 padding) channels), with a frame of zeros at the left and right. A
kernel's line of taps over them is one run of numbers.

Weights lie in strips of up to `STRIP` filters: (strips, taps channels, filters of the strip). Tables hold positions in
the work array, and are for a fixed number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from butter_etl.engines.convolutional.contract import LANES, keep_scale, keep_threshold, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.convolutional.contract import ConvNetwork, Layer

    Integers = NDArray[np.int64]
    Flags = NDArray[np.bool_]

#: The most filters in a strip of weights.
STRIP: Final = 64

#: The columns of a layer: whole numbers.
(
    CHANNELS,  # of the input, and rounded up to vectors
    IN_WIDTH,
    TAPS,
    FILTERS,  # and rounded up
    OUT_WIDTH,
    WEIGHTS,  # where its weights and biases begin
    BIASES,
    IS_RELU,
    THRESHOLD,  # of dropout, 0 without
    BITS,  # where its mask begins
    ERROR,  # from outputs, before pooling, to their errors
    SCALAR_STEP,  # from a row of the input to the next
    OUTPUTS,  # tables, each with its end: what convolution gives
    OUTPUTS_END,
    POOLED,  # what pooling gives
    POOLED_END,
    POOL_ERROR,  # from pooled outputs to their errors, and to where their maxima were
    POOL_PLACE,
    GRADIENTS,  # taps, with the links through each
    GRADIENTS_END,
    INPUTS,  # inputs whose errors are wanted
    INPUTS_END,
) = range(22)
LAYER_COLUMNS: Final = 22

#: The columns of an output: where it lies, whether it varies over a batch, its terms from what varies and from what
#: does not, where its error summed over the batch lies (or -1), where its copies for dropout lie (or -1), its position.
AT, VARIES, VARYING, VARYING_END, CONSTANT, CONSTANT_END, ONCE, COPIES, POSITION = range(9)
OUTPUT_COLUMNS: Final = 9
#: The columns of a pooled output: where it lies, whether it varies, its window: pairs of a place and the step to the
#: next row (0 where there is one row only).
POOLED_COLUMNS: Final = 4
#: The columns of a tap: its first row of weights, how many there are, its links between what varies, and the others.
GRADIENT_COLUMNS: Final = 6
#: The columns of an input: where its error lies, whether it varies, its terms.
INPUT_COLUMNS: Final = 4


class Shape(NamedTuple):
    """How many numbers the arrays have that a plan's tables speak of."""

    work: int
    bits: int
    turned: int


@dataclass(frozen=True)
class Plan:
    """The tables for a number of rows; ``layers`` int64 (layers, `LAYER_COLUMNS`), ``tables`` int64 (numbers,).

    ``scales`` float64 (layers,) are those of `keep_scale`. ``image_step`` is the length of a line of an image, and
    ``frame`` its frame's; ``logits`` is where the last outputs begin, ``errors`` their errors.
    """

    rows: int
    layers: Integers
    tables: Integers
    scales: NDArray[np.float64]
    image_step: int
    frame: int
    shape: Shape
    logits: int
    errors: int


@dataclass
class _Places:
    """Positions of a layer's input: where each lies, whether it varies, and where from there its error lies."""

    at: Integers
    vary: Flags
    error: int


class _Tables:
    """Tables, one after the other."""

    def __init__(self) -> None:
        self._parts: list[Integers] = []
        self._size = 0

    def add(self, part: Integers) -> int:
        """Add numbers, and return where they begin."""
        flat = np.ascontiguousarray(part, np.int64).reshape(-1)
        self._parts.append(flat)
        self._size += flat.size
        return self._size - flat.size

    def add_groups(self, keys: Integers, count: int, rows: Integers) -> tuple[Integers, Integers]:
        """Add rows, sorted by their key below ``count``; return where the rows of each key begin and end."""
        order = np.argsort(keys, kind="stable")
        at, width = self.add(rows[order]), rows.shape[1]
        ends = np.cumsum(np.bincount(keys, minlength=count))
        starts = np.concatenate([[0], ends[:-1]])
        return at + width * starts, at + width * ends

    def joined(self) -> Integers:
        return np.concatenate([*self._parts, np.zeros(1, np.int64)])


class _Memory:
    """Memory that is given away piece by piece, each at the start of a cache line."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, count: int) -> int:
        at = self.size
        self.size += padded(count)
        return at


class Links(NamedTuple):
    """Pairs of an output and an input position, with the tap between them; int64 arrays of one length."""

    output: Integers
    source: Integers
    tap: Integers


def links_of(size: int, out_size: int, kernel: int, stride: int, padding: int) -> Links:
    """Return which position of an input each of an output sees through which tap of a window; by output, then tap."""
    outputs, taps = (grid.reshape(-1) for grid in np.meshgrid(np.arange(out_size), np.arange(kernel), indexing="ij"))
    sources = outputs * stride + taps - padding
    inside = (sources >= 0) & (sources < size)
    output, source, tap = outputs[inside], sources[inside], taps[inside]

    def crossed(axis: Integers, extent: int) -> Integers:
        return (axis[:, np.newaxis] * extent + axis[np.newaxis, :]).reshape(-1)

    found = Links(crossed(output, out_size), crossed(source, size), crossed(tap, kernel))
    order = np.lexsort((found.tap, found.output))
    return Links(*(part[order] for part in found))


class _Geometry(NamedTuple):
    """The links of a layer's convolution and pooling, and which outputs before and after pooling are read."""

    links: Links
    windows: Links | None
    convolved: Flags
    pooled: Flags


def _geometries(network: ConvNetwork) -> list[_Geometry]:
    """Return the geometry of each layer, found from the last one backwards."""
    found: list[_Geometry] = []
    wanted = np.ones(1, np.bool_)
    for layer in reversed(network.layers):
        links = links_of(layer.size, layer.conv_size, layer.kernel, layer.stride, layer.padding)
        windows, convolved = None, wanted
        if layer.pool and layer.pool.kernel > 1:
            pool = layer.pool
            windows = links_of(layer.conv_size, layer.out_size, pool.kernel, pool.stride, pool.padding)
            windows = _kept(windows, wanted[windows.output])
            convolved = _marked(windows.source, layer.conv_size**2)
        links = _kept(links, convolved[links.output])
        found.append(_Geometry(links, windows, convolved, wanted))
        wanted = _marked(links.source, layer.size**2)
    return found[::-1]


def _kept(links: Links, keep: Flags) -> Links:
    return Links(*(part[keep] for part in links))


def _marked(places: Integers, count: int) -> Flags:
    marks = np.zeros(count, np.bool_)
    marks[places] = True
    return marks


def weight_places(network: ConvNetwork) -> list[tuple[int, int]]:
    """Return where each layer's weights and biases begin; last, where the array ends."""
    places, at = [], 0
    for layer in network.layers:
        width = padded(layer.filters)
        places.append((at, at + layer.fan_in * width))
        at += (layer.fan_in + 1) * width
    return [*places, (at, at)]


def make_plan(network: ConvNetwork, rows: int, *, training: bool, batch: int) -> Plan:
    """Return the tables for so many rows of batches of ``batch`` rows."""
    return _Planner(network, rows, training, batch).plan()


class _Planner:
    """What makes a plan: it goes through the layers and gives each its memory and its tables."""

    def __init__(self, network: ConvNetwork, rows: int, training: bool, batch: int) -> None:
        self._network, self._rows, self._training, self._batch = network, rows, training, batch
        self._memory, self._tables = _Memory(), _Tables()
        self._bits = self._turned = 0
        self._layers = np.zeros((len(network.layers), LAYER_COLUMNS), np.int64)
        first = network.layers[0]
        self._frame = first.padding
        self._image_step = padded((first.size + 2 * first.padding) * first.channels)

    def plan(self) -> Plan:
        """Return the plan."""
        images = self._memory.take(network_lines(self._network) * self._rows * self._image_step)
        places = _Places(np.array([images]), np.ones(1, np.bool_), 0)
        scales = np.ones(len(self._layers))
        weights = weight_places(self._network)
        for layer, geometry in zip(self._network.layers, _geometries(self._network), strict=True):
            row = self._layers[layer.number]
            row[[CHANNELS, IN_WIDTH, TAPS]] = layer.channels, padded(layer.channels), layer.kernel**2
            row[[FILTERS, OUT_WIDTH, IS_RELU]] = layer.filters, padded(layer.filters), layer.relu
            row[[WEIGHTS, BIASES]] = weights[layer.number]
            row[SCALAR_STEP] = self._image_step if layer.number == 0 else padded(layer.channels)
            if self._drops(layer):
                row[THRESHOLD], scales[layer.number] = keep_threshold(layer.dropout), keep_scale(layer.dropout)
            places = self._add_layer(layer, geometry, places, row)
        shape = Shape(self._memory.size, self._bits, self._turned)
        return Plan(
            self._rows,
            self._layers,
            self._tables.joined(),
            scales,
            self._image_step,
            self._frame,
            shape,
            int(places.at[0]),
            int(places.at[0]) + places.error,
        )

    def _drops(self, layer: Layer) -> bool:
        return self._training and layer.dropout > 0

    def _add_layer(self, layer: Layer, geometry: _Geometry, source: _Places, row: Integers) -> _Places:
        links = geometry.links
        varying = np.ones(links.output.size, np.bool_) if layer.number == 0 else source.vary[links.source]
        vary = _marked(links.output[varying], layer.conv_size**2)
        outputs, copies = self._place_outputs(layer, geometry.convolved, vary, row)
        once = self._place_sums(layer, outputs, links.output[~varying], vary)
        if layer.number == 0:
            terms = self._image_terms(layer, source, outputs, row)
        else:
            terms = self._terms(layer, links, varying, source, outputs, once, row)
        table = np.full((layer.conv_size**2, OUTPUT_COLUMNS), -1, np.int64)
        table[:, AT], table[:, VARIES], table[:, ONCE] = outputs.at, vary, once
        table[:, VARYING : CONSTANT_END + 1] = np.stack(terms, axis=1)
        table[:, COPIES], table[:, POSITION] = copies, np.arange(len(table))
        row[OUTPUTS] = self._tables.add(table[geometry.convolved])
        row[OUTPUTS_END] = row[OUTPUTS] + table[geometry.convolved].size
        if self._drops(layer):
            # From here on all varies: of what does not, there are copies.
            outputs = _Places(np.where(copies >= 0, copies, outputs.at), geometry.convolved, outputs.error)
        return outputs if geometry.windows is None else self._pool(layer, geometry, outputs, row)

    def _place_outputs(self, layer: Layer, wanted: Flags, vary: Flags, row: Integers) -> tuple[_Places, Integers]:
        """Give the outputs of a convolution their memory; return their places, and those of copies (or -1)."""
        width, drops = padded(layer.filters), self._drops(layer)
        full = wanted if drops else wanted & vary
        single = wanted & ~vary
        matrix = self._rows * width
        size = int(full.sum()) * matrix + int(single.sum()) * width
        at = self._memory.take(size)
        error = self._memory.take(size) - at
        places = np.full(wanted.size, -1, np.int64)
        places[full] = at + matrix * np.arange(full.sum())
        copies = np.where(single, places, -1) if drops else np.full(wanted.size, -1, np.int64)
        places[single] = at + matrix * int(full.sum()) + width * np.arange(single.sum())
        row[ERROR] = error
        if drops:
            row[BITS] = self._bits
            self._bits += padded(wanted.size * self._batch * width // LANES)
        return _Places(places, vary, error), copies

    def _place_sums(self, layer: Layer, outputs: _Places, of_constants: Integers, vary: Flags) -> Integers:
        """Return where the error of each output lies, summed over the batch; -1 where that is of no use."""
        once = np.where(vary, -1, outputs.at + outputs.error)
        summed = _marked(of_constants, vary.size) & vary
        width = padded(layer.filters)
        at = self._memory.take(int(summed.sum()) * width)
        once[summed] = at + width * np.arange(summed.sum())
        return once

    def _terms(
        self,
        layer: Layer,
        links: Links,
        varying: Flags,
        source: _Places,
        outputs: _Places,
        once: Integers,
        row: Integers,
    ) -> list[Integers]:
        """Add the terms of outputs, of gradients and of the inputs' errors; return where those of outputs lie."""
        count = layer.conv_size**2
        from_, tap, length = source.at[links.source], links.tap, np.full(links.tap.size, layer.channels)
        products = np.stack([from_, tap * layer.channels, length], axis=1)
        error = np.where(varying, outputs.at[links.output] + outputs.error, once[links.output])
        rows = np.where(varying, self._rows, 1)
        gradients = np.stack([from_, error, rows], axis=1)
        parts = [links.output[varying], links.output[~varying]]
        forward = [
            *self._tables.add_groups(parts[0], count, products[varying]),
            *self._tables.add_groups(parts[1], count, products[~varying]),
        ]
        first_rows = np.arange(layer.kernel**2) * layer.channels
        lengths = np.full(layer.kernel**2, layer.channels)
        taps = [
            *self._tables.add_groups(tap[varying], layer.kernel**2, gradients[varying]),
            *self._tables.add_groups(tap[~varying], layer.kernel**2, gradients[~varying]),
        ]
        self._add_table(row, GRADIENTS, np.stack([first_rows, lengths, *taps], axis=1))
        back = np.stack([error, tap * layer.filters, np.full(tap.size, layer.filters)], axis=1)
        order = np.lexsort((tap, links.source))
        starts, ends = self._tables.add_groups(links.source[order], layer.size**2, back[order])
        wanted = _marked(links.source, layer.size**2)
        inputs = np.stack([source.at + source.error, source.vary, starts, ends], axis=1)
        self._add_table(row, INPUTS, inputs[wanted])
        self._turned = max(self._turned, (layer.kernel**2 * layer.filters + LANES) * STRIP)
        return forward

    def _add_table(self, row: Integers, column: int, table: Integers) -> None:
        row[column] = self._tables.add(table)
        row[column + 1] = row[column] + table.size

    def _image_terms(self, layer: Layer, source: _Places, outputs: _Places, row: Integers) -> list[Integers]:
        """Add the terms of the first layer's outputs and gradients; return where those of outputs lie."""
        out, kernel, channels = layer.conv_size, layer.kernel, layer.channels
        line = self._rows * self._image_step
        # Along one axis: the first tap of each output that is inside, the last, and where it lies in framed lines.
        starts = np.arange(out) * layer.stride
        first = np.maximum(layer.padding - starts, 0)
        last = np.minimum(layer.size + layer.padding - starts, kernel)
        y, tap_y, x = (g.reshape(-1) for g in np.meshgrid(*map(np.arange, (out, kernel, out)), indexing="ij"))
        is_there = (tap_y >= first[y]) & (tap_y < last[y]) & (first[x] < last[x]) & (outputs.at[y * out + x] >= 0)
        y, tap_y, x = y[is_there], tap_y[is_there], x[is_there]
        base = source.at[0] + (starts[y] + tap_y - layer.padding) * line + starts[x] * channels
        place = y * out + x
        products = np.stack(
            [
                base + first[x] * channels,
                (tap_y * kernel + first[x]) * channels,
                (last[x] - first[x]) * channels,
            ],
            axis=1,
        )
        error = outputs.at[place] + outputs.error
        nothing = np.zeros(0, np.int64)
        empty = self._tables.add_groups(nothing, out * out, np.zeros((0, 3), np.int64))
        forward = [*self._tables.add_groups(place, out * out, products), *empty]
        groups = []
        for begin, end in _spans(first, last, kernel):
            sees = (first[x] <= begin) & (last[x] >= end) if end - begin < kernel else np.ones(x.size, np.bool_)
            pairs = np.stack([base + begin * channels, error, np.full(x.size, self._rows)], axis=1)
            from_, to = self._tables.add_groups(tap_y[sees], kernel, pairs[sees])
            first_rows = (np.arange(kernel) * kernel + begin) * channels
            count = np.full(kernel, (end - begin) * channels)
            groups.append(np.stack([first_rows, count, from_, to, from_ * 0, from_ * 0], axis=1))
        self._add_table(row, GRADIENTS, np.concatenate(groups))
        return forward

    def _pool(self, layer: Layer, geometry: _Geometry, outputs: _Places, row: Integers) -> _Places:
        """Give what pooling gives its memory and tables; return its places."""
        assert geometry.windows is not None  # noqa: S101
        windows, width, count = geometry.windows, padded(layer.filters), layer.out_size**2
        vary = _marked(windows.output[outputs.vary[windows.source]], count)
        full, single = geometry.pooled & vary, geometry.pooled & ~vary
        matrix = self._rows * width
        size = int(full.sum()) * matrix + int(single.sum()) * width
        at = self._memory.take(size)
        row[POOL_ERROR], row[POOL_PLACE] = self._memory.take(size) - at, self._memory.take(size) - at
        places = np.full(count, -1, np.int64)
        places[full] = at + matrix * np.arange(full.sum())
        places[single] = at + matrix * int(full.sum()) + width * np.arange(single.sum())
        steps = np.where(outputs.vary[windows.source], width, 0)
        pairs = np.stack([outputs.at[windows.source], steps], axis=1)
        starts, ends = self._tables.add_groups(windows.output, count, pairs)
        self._add_table(row, POOLED, np.stack([places, vary, starts, ends], axis=1)[geometry.pooled])
        return _Places(places, vary, int(row[POOL_ERROR]))


#: Splitting the taps of the first layer's gradient where they meet padding pays from such a share of work saved on.
_SAVED_FROM: Final = 0.12


def _spans(first: Integers, last: Integers, kernel: int) -> list[tuple[int, int]]:
    """Return spans of taps, along one axis, each of which an output sees in whole or not at all; or only one span."""
    there = first < last
    seen = int((last - first)[there].sum())
    if seen >= (1 - _SAVED_FROM) * kernel * int(there.sum()):
        return [(0, kernel)]
    bounds = np.unique(np.concatenate([[0, kernel], first[there], last[there]]))
    return [(int(begin), int(end)) for begin, end in pairwise(bounds)]


def network_lines(network: ConvNetwork) -> int:
    """Return the number of lines of an image."""
    return network.layers[0].size


def pack(layer: Layer, weights: NDArray[Any]) -> NDArray[np.float32]:
    """Return weights as a state has them, in strips: float32 (taps channels padded(filters),)."""
    shape = (layer.filters, layer.channels, layer.kernel**2)
    table = np.zeros((layer.fan_in, padded(layer.filters)), np.float32)
    table[:, : layer.filters] = weights.reshape(shape).transpose(2, 1, 0).reshape(layer.fan_in, layer.filters)
    return np.concatenate([table[:, at : at + STRIP].reshape(-1) for at in range(0, table.shape[1], STRIP)])


def unpack(layer: Layer, strips: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weights in strips as a state has them."""
    width = padded(layer.filters)
    cuts = np.cumsum([layer.fan_in * min(STRIP, width - at) for at in range(0, width, STRIP)])[:-1]
    table = np.concatenate([part.reshape(layer.fan_in, -1) for part in np.split(strips, cuts)], axis=1)
    taps = table[:, : layer.filters].reshape(layer.kernel**2, layer.channels, layer.filters)
    return np.ascontiguousarray(taps.transpose(2, 1, 0)).reshape(layer.weight_shape)
