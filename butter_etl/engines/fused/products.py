"""The matrix products of a network, forward and back, on panels (`butter_etl.engines.fused.memory`).

A product takes a panel, which is small enough for the first-level cache, and keeps a *strip* of up to six features in
registers while it runs along the others. From 18 to 700 features such products of 256 rows reach 70 to 105 % of the
rate at which OpenBLAS multiplies large square matrices, where OpenBLAS itself reaches 30 to 90 %: so there is no
library here, and no result depends on how many threads one takes, or on which of its kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from butter_etl.engines.compiling import compiled
from butter_etl.engines.fused.lanes import (
    COLUMNS,
    LANES,
    add_each,
    add_products,
    gather_columns,
    load,
    load_each,
    multiply_add_each,
    relu_each,
    splat,
    splat_each,
    store_each,
    store_rows,
    store_sums,
    sum_lanes,
    zero_each,
    zero_each_where_off,
    zero_tile,
)
from butter_etl.engines.fused.memory import (
    BIAS,
    FAN_IN,
    INPUT,
    KERNEL,
    OUTPUT,
    RELU,
    WIDTH,
    Plan,
    Run,
    Scratch,
    panel_step,
)

if TYPE_CHECKING:
    from butter_etl.engines.fused.lanes import Array, Group, Tile
    from butter_etl.engines.fused.memory import Integers

#: The most features that a strip runs along at once: panel and weights of so many fit into the first-level cache.
BLOCK = 256

#: Vectors of inputs that stay in the first-level cache while a kernel's gradient takes the errors of all outputs.
INPUT_VECTORS = 256

#: From so many inputs on, a kernel's gradient is faster with the errors transposed (`_transposed_gradient`).
TRANSPOSED_FROM = 24


# -- forward


@compiled
def _forward_strip(
    start: Group,
    weights: Array,
    at: int,
    width: int,
    work: Array,
    source: int,
    source_step: int,
    count: int,
    target: int,
    target_step: int,
    panels: int,
    resume: bool,
    finish: int,
    skip: int,
    output: int,
) -> None:
    """Compute one strip of output features in all panels: ``target[o] = start[o] + sum_i W[i, o] A[i]``.

    There are as many features as ``start`` has vectors. ``start`` is the bias; with ``resume`` the sums go on from what
    ``target`` holds. ``at`` is where the strip's first weight lies. ``finish``: 0 leaves the sums, 1 and 2 take the
    ReLU, 2 also writes it plus ``skip`` to ``output``.
    """
    for panel in range(panels):
        vectors, place, goal = source + panel * source_step, at, target + panel * target_step
        group = load_each(start, work, goal) if resume else start
        for _ in range(count):
            group = multiply_add_each(group, weights, place, 1, load(work, vectors))
            place += width
            vectors += LANES
        if finish > 0:
            group = relu_each(group)
        store_each(work, goal, group)
        if finish > 1:
            store_each(work, output + panel * target_step, add_each(group, work, skip + panel * source_step))


@compiled
def forward_layer(plan: Plan, weights: Array, work: Array, layer: Integers, number: int, panels: int) -> None:
    """Fill the output panels of one layer, after the ReLU and the addition of its input where it has them."""
    fan_in, width = layer[FAN_IN], layer[WIDTH]
    source, source_step, target_step = layer[INPUT], panel_step(fan_in), panel_step(width)
    if number == 0:
        source_step = panel_step(plan.feature_columns)
    strips = (width + 5) // 6
    size = (fan_in - 1) // ((fan_in + BLOCK - 1) // BLOCK) + 1
    for block in range(0, fan_in, size):
        count, resume = min(size, fan_in - block), block > 0
        finish = 0
        if block + count == fan_in and number < plan.depth - 1:
            finish = 2 if plan.residual and number > 0 else 1
        first = 0
        for strip in range(strips):
            # As even as they can be: seven features are four and three, not six and a slow one.
            features = (width - first + strips - strip - 1) // (strips - strip)
            bias = layer[BIAS] + first
            rest: Any = (
                weights,
                layer[KERNEL] + block * width + first,
                width,
                work,
                source + LANES * block,
                source_step,
                count,
                layer[RELU] + LANES * first,
                target_step,
                panels,
                resume,
                finish,
                source + LANES * first,
                layer[OUTPUT] + LANES * first,
            )
            if features == 6:
                _forward_strip(splat_each(weights, bias, 6), *rest)
            elif features == 5:
                _forward_strip(splat_each(weights, bias, 5), *rest)
            elif features == 4:
                _forward_strip(splat_each(weights, bias, 4), *rest)
            elif features == 3:
                _forward_strip(splat_each(weights, bias, 3), *rest)
            elif features == 2:
                _forward_strip(splat_each(weights, bias, 2), *rest)
            else:
                _forward_strip(splat_each(weights, bias, 1), *rest)
            first += features


@compiled
def forward(plan: Plan, weights: Array, work: Array, layers: Integers, panels: int) -> None:
    """Compute all layers; the logits are the last one's output."""
    for number in range(plan.depth):
        forward_layer(plan, weights, work, layers[number], number, panels)


# -- backward


@compiled
def _backward_strip(
    start: Group,
    weights: Array,
    at: int,
    width: int,
    work: Array,
    error: int,
    error_step: int,
    relu: int,
    relu_step: int,
    target: int,
    upstream: int,
    panels: int,
    keep: int,
) -> None:
    """Compute one strip of input features: ``target[i] = sum_o W[i, o] E[o]`` where the ReLU was on, else 0.

    There are as many features as ``start``, zeros, has vectors. ``keep``: bit 1 adds what ``upstream`` holds (the
    gradient handed back by an addition), bit 0 writes the sum there.
    """
    for panel in range(panels):
        vectors, place = error + panel * error_step, at
        group = start
        for _ in range(width):
            group = multiply_add_each(group, weights, place, width, load(work, vectors))
            place += 1
            vectors += LANES
        if keep & 2:
            group = add_each(group, work, upstream + panel * error_step)
        if keep & 1:
            store_each(work, upstream + panel * error_step, group)
        store_each(work, target + panel * error_step, zero_each_where_off(group, work, relu + panel * relu_step))


@compiled
def backward_inputs(
    plan: Plan, weights: Array, work: Array, layer: Integers, relu: int, error: int, target: int, keep: int, panels: int
) -> None:
    """Compute the error of the layer below, from the ``error`` of ``layer``."""
    fan_in, width = layer[FAN_IN], layer[WIDTH]
    relu_step = panel_step(fan_in)
    strips = (fan_in + 5) // 6
    first = 0
    for strip in range(strips):
        features = (fan_in - first + strips - strip - 1) // (strips - strip)
        rest: Any = (
            weights,
            layer[KERNEL] + first * width,
            width,
            work,
            error,
            plan.error_step,
            relu + LANES * first,
            relu_step,
            target + LANES * first,
            plan.upstream + LANES * first,
            panels,
            keep,
        )
        if features == 6:
            _backward_strip(zero_each(6), *rest)
        elif features == 5:
            _backward_strip(zero_each(5), *rest)
        elif features == 4:
            _backward_strip(zero_each(4), *rest)
        elif features == 3:
            _backward_strip(zero_each(3), *rest)
        elif features == 2:
            _backward_strip(zero_each(2), *rest)
        else:
            _backward_strip(zero_each(1), *rest)
        first += features


@compiled
def _kernel_tiles(
    start: Tile,
    gradient: Array,
    at: int,
    width: int,
    work: Array,
    left: int,
    left_step: int,
    right: int,
    right_step: int,
    panels: int,
    count: int,
) -> None:
    """Compute the gradient of ``count`` tiles of the kernel, one below the other.

    It is inputs times errors, summed over the rows.
    """
    for _ in range(count):
        tile = start
        for panel in range(panels):
            tile = add_products(tile, work, left + panel * left_step, right + panel * right_step)
        store_sums(gradient, at, width, tile)
        at += len(start) * width
        left += len(start) * LANES


@compiled
def _any_kernel_tiles(rows: int, columns: int, rest: Any) -> None:  # noqa: PLR0912 (twelve shapes)
    """Call `_kernel_tiles` for a shape that is known only when running."""
    if rows == 3:
        if columns == 4:
            _kernel_tiles(zero_tile(3, 4), *rest)
        elif columns == 3:
            _kernel_tiles(zero_tile(3, 3), *rest)
        elif columns == 2:
            _kernel_tiles(zero_tile(3, 2), *rest)
        else:
            _kernel_tiles(zero_tile(3, 1), *rest)
    elif rows == 2:
        if columns == 4:
            _kernel_tiles(zero_tile(2, 4), *rest)
        elif columns == 3:
            _kernel_tiles(zero_tile(2, 3), *rest)
        elif columns == 2:
            _kernel_tiles(zero_tile(2, 2), *rest)
        else:
            _kernel_tiles(zero_tile(2, 1), *rest)
    elif columns == 4:
        _kernel_tiles(zero_tile(1, 4), *rest)
    elif columns == 3:
        _kernel_tiles(zero_tile(1, 3), *rest)
    elif columns == 2:
        _kernel_tiles(zero_tile(1, 2), *rest)
    else:
        _kernel_tiles(zero_tile(1, 1), *rest)


@compiled
def _tiled_gradient(
    plan: Plan, gradient: Array, work: Array, layer: Integers, source_step: int, error: int, panels: int, first: int
) -> None:
    """Compute the gradient of a kernel's columns from ``first`` on, in tiles of up to 3 x 4 weights.

    A few tiles' inputs stay in the first-level cache while the errors of all outputs pass by.
    """
    fan_in, width = layer[FAN_IN], layer[WIDTH]
    tile_columns, cached = (width - first + 3) // 4, 3 * max(1, INPUT_VECTORS // (3 * panels))
    top = 0
    while top < fan_in:
        # Tiles of three inputs, and one of what remains.
        rows = min(3, fan_in - top)
        count = max(1, min(cached, fan_in - top) // 3)
        column = first
        for tile_column in range(tile_columns):
            columns = (width - column + tile_columns - tile_column - 1) // (tile_columns - tile_column)
            rest: Any = (
                gradient,
                layer[KERNEL] + top * width + column,
                width,
                work,
                layer[INPUT] + LANES * top,
                source_step,
                error + LANES * column,
                plan.error_step,
                panels,
                count,
            )
            _any_kernel_tiles(rows, columns, rest)
            column += columns
        top += rows * count


@compiled
def _gradient_strip(
    start: Group,
    gradient: Array,
    at: int,
    width: int,
    work: Array,
    source: int,
    source_step: int,
    transposed: int,
    panels: int,
) -> None:
    """Compute sixteen columns of the kernel's gradient in as many rows as ``start``, zeros, has vectors."""
    group = start
    for panel in range(panels):
        place, vectors = source + panel * source_step, transposed + panel * LANES * LANES
        for _ in range(LANES):
            group = multiply_add_each(group, work, place, LANES, load(work, vectors))
            place += 1
            vectors += LANES
    store_rows(gradient, at, width, group)


@compiled
def _transposed_gradient(
    plan: Plan, gradient: Array, scratch: Scratch, layer: Integers, source_step: int, error: int, panels: int, end: int
) -> None:
    """Compute the gradient of a kernel's columns before ``end``, a multiple of sixteen.

    The errors of sixteen outputs at a time are transposed, a row of the batch a vector. Then no vector's lanes have to
    be summed up, which pays where there are inputs enough to share the transposing.
    """
    work, starts, fan_in, width = scratch.work, scratch.feature_starts, layer[FAN_IN], layer[WIDTH]
    strips = (fan_in + 5) // 6
    for column in range(0, end, LANES):
        for panel in range(panels):
            for lane in range(LANES):
                starts[lane] = error + panel * plan.error_step + LANES * (column + lane)
            at = plan.transposed + panel * LANES * LANES
            for row in range(0, LANES, COLUMNS):
                gather_columns(work, starts, 0, row, work, at + LANES * row)
        top = 0
        for strip in range(strips):
            rows = (fan_in - top + strips - strip - 1) // (strips - strip)
            rest: Any = (
                gradient,
                layer[KERNEL] + top * width + column,
                width,
                work,
                layer[INPUT] + LANES * top,
                source_step,
                plan.transposed,
                panels,
            )
            # Twenty inputs and more come in strips of five and six.
            if rows == 6:
                _gradient_strip(zero_each(6), *rest)
            else:
                _gradient_strip(zero_each(5), *rest)
            top += rows


@compiled
def kernel_gradient(
    plan: Plan, gradient: Array, scratch: Scratch, layer: Integers, source_step: int, error: int, panels: int
) -> None:
    """Compute the gradient of the mean loss for a layer's kernel: inputs times errors, summed over the rows."""
    first = 0
    if layer[FAN_IN] >= TRANSPOSED_FROM:
        first = layer[WIDTH] // LANES * LANES
        _transposed_gradient(plan, gradient, scratch, layer, source_step, error, panels, first)
    if first < layer[WIDTH]:
        _tiled_gradient(plan, gradient, scratch.work, layer, source_step, error, panels, first)


@compiled
def bias_gradient(plan: Plan, gradient: Array, work: Array, layer: Integers, error: int, panels: int) -> None:
    """Write the gradient of a layer's biases: the errors summed over the rows."""
    for k in range(layer[WIDTH]):
        total = splat(0.0)
        for panel in range(panels):
            total = total + load(work, error + LANES * k + panel * plan.error_step)
        gradient[layer[BIAS] + k] = sum_lanes(total)


@compiled
def backward(plan: Plan, run: Run, scratch: Scratch, layers: Integers, panels: int) -> None:
    """Fill ``run.gradient`` from the error at the logits (`measure`)."""
    work, error, below = scratch.work, plan.error, plan.other_error
    handed_back = 0
    for reverse in range(plan.depth):
        number = plan.depth - 1 - reverse
        layer = layers[number]
        source_step = panel_step(plan.feature_columns) if number == 0 else panel_step(layer[FAN_IN])
        kernel_gradient(plan, run.gradient, scratch, layer, source_step, error, panels)
        bias_gradient(plan, run.gradient, work, layer, error, panels)
        if number == 0:
            break
        # The layer below adds its input to its ReLU if it is hidden, not the first, and the network residual; then
        # the gradient of that input is this one as it is, plus what comes through the ReLU.
        hands_back = 1 if plan.residual and number > 1 else 0
        relu = layers[number - 1, RELU]
        backward_inputs(plan, run.weights, work, layer, relu, error, below, 2 * handed_back + hands_back, panels)
        handed_back = hands_back
        error, below = below, error
