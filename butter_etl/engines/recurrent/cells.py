"""The cells of recurrent networks between their products, forward and back, a vector at a time.

Each function takes the rows of one layer at one step; a row has ``columns`` numbers. Gates come as sums and are left as
what the nonlinearities make of them; back, they are left as the errors of the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from butter_etl.engines.compiling import compiled_in_place, compiled_inside
from butter_etl.engines.convolutional.lanes import keep_apart
from butter_etl.engines.fused.lanes import LANES, load, splat, store, where_at_most, where_less
from butter_etl.engines.fused.vector_math import sigmoid, tanh

if TYPE_CHECKING:
    from butter_etl.engines.fused.lanes import Array, Vector


@compiled_in_place
def _bend(is_relu: int, z: Vector) -> Vector:
    """Return s(z)."""
    return where_less(z, 0.0, 0.0, z) if is_relu else tanh(z)


@compiled_in_place
def _bent_back(is_relu: int, value: Vector, error: Vector) -> Vector:
    """Return the error of z from that of ``value`` = s(z)."""
    return where_at_most(value, 0.0, 0.0, error) if is_relu else error * (1.0 - value * value)


@compiled_in_place
def _gate_back(gate: Vector, error: Vector) -> Vector:
    """Return the error of a gate's sum from that of the gate."""
    return error * gate * (1.0 - gate)


# -- rnn, irnn


@compiled_inside
def rnn_forward(is_relu: int, work: Array, size: int, gates: int, hidden: int) -> None:
    """Compute h."""
    keep_apart()
    for at in range(0, size, LANES):
        store(work, hidden + at, _bend(is_relu, load(work, gates + at)))


@compiled_inside
def rnn_back(is_relu: int, work: Array, size: int, gates: int, hidden: int, error: int) -> None:
    """Compute the errors of the sums from that of h."""
    keep_apart()
    for at in range(0, size, LANES):
        store(work, gates + at, _bent_back(is_relu, load(work, hidden + at), load(work, error + at)))


# -- ugrnn


@compiled_inside
def ugrnn_forward(is_relu: int, biases: Array, work: Array, size: int, gates: int, before: int, hidden: int) -> None:
    """Compute h from the gates c, g and from h before."""
    keep_apart()
    bias = splat(biases[1])
    for at in range(0, size, LANES):
        c = _bend(is_relu, load(work, gates + at))
        g = sigmoid(load(work, gates + size + at) + bias)
        store(work, gates + at, c)
        store(work, gates + size + at, g)
        store(work, hidden + at, g * load(work, before + at) + (1.0 - g) * c)


@compiled_inside
def ugrnn_back(is_relu: int, work: Array, size: int, gates: int, before: int, error: int) -> None:
    """Compute the errors of the sums from that of h, and what of it goes to h before directly."""
    keep_apart()
    for at in range(0, size, LANES):
        c, g, e = load(work, gates + at), load(work, gates + size + at), load(work, error + at)
        into = e * (1.0 - g)
        store(work, gates + at, _bent_back(is_relu, c, into))
        store(work, gates + size + at, _gate_back(g, e * (load(work, before + at) - c)))
        store(work, error + at, e * g)


# -- gru


@compiled_inside
def gru_reset(biases: Array, work: Array, size: int, gates: int, before: int, reset: int) -> None:
    """Compute the gates r, u and r h."""
    keep_apart()
    bias = splat(biases[2])
    for at in range(0, size, LANES):
        r = sigmoid(load(work, gates + size + at))
        store(work, gates + size + at, r)
        store(work, gates + 2 * size + at, sigmoid(load(work, gates + 2 * size + at) + bias))
        store(work, reset + at, r * load(work, before + at))


@compiled_inside
def gru_forward(is_relu: int, work: Array, size: int, gates: int, before: int, hidden: int) -> None:
    """Compute h from the gates c, u and from h before."""
    keep_apart()
    for at in range(0, size, LANES):
        c = _bend(is_relu, load(work, gates + at))
        u = load(work, gates + 2 * size + at)
        store(work, gates + at, c)
        store(work, hidden + at, u * load(work, before + at) + (1.0 - u) * c)


@compiled_inside
def gru_back(is_relu: int, work: Array, size: int, gates: int, before: int, error: int) -> None:
    """Compute the errors of the sums of c and u from that of h, and what of it goes to h before directly."""
    keep_apart()
    for at in range(0, size, LANES):
        c, u, e = load(work, gates + at), load(work, gates + 2 * size + at), load(work, error + at)
        into = e * (1.0 - u)
        store(work, gates + at, _bent_back(is_relu, c, into))
        store(work, gates + 2 * size + at, _gate_back(u, e * (load(work, before + at) - c)))
        store(work, error + at, e * u)


@compiled_inside
def gru_reset_back(work: Array, size: int, gates: int, before: int, reset_error: int, error: int) -> None:
    """Compute the error of r's sums from that of r h, and add what of it goes to h before."""
    keep_apart()
    for at in range(0, size, LANES):
        r, e = load(work, gates + size + at), load(work, reset_error + at)
        store(work, error + at, load(work, error + at) + e * r)
        store(work, gates + size + at, _gate_back(r, e * load(work, before + at)))


# -- lstm


@compiled_inside
def lstm_forward(
    is_relu: int, biases: Array, work: Array, size: int, gates: int, cell: int, cell_tanh: int, hidden: int
) -> None:
    """Compute c, which lies ``size`` behind c before, its tanh, and h."""
    keep_apart()
    bias = splat(biases[1])
    for at in range(0, size, LANES):
        into = _bend(is_relu, load(work, gates + at))
        g = sigmoid(load(work, gates + size + at) + bias)
        i = sigmoid(load(work, gates + 2 * size + at))
        o = sigmoid(load(work, gates + 3 * size + at))
        c = g * load(work, cell + at) + i * into
        bent = tanh(c)
        store(work, gates + at, into)
        store(work, gates + size + at, g)
        store(work, gates + 2 * size + at, i)
        store(work, gates + 3 * size + at, o)
        store(work, cell + size + at, c)
        store(work, cell_tanh + at, bent)
        store(work, hidden + at, o * bent)


@compiled_inside
def lstm_back(
    is_relu: int, work: Array, size: int, gates: int, cell: int, cell_tanh: int, error: int, cell_error: int
) -> None:
    """Compute the errors of the sums from those of h and c, and that of c before."""
    keep_apart()
    for at in range(0, size, LANES):
        into, g = load(work, gates + at), load(work, gates + size + at)
        i, o = load(work, gates + 2 * size + at), load(work, gates + 3 * size + at)
        bent, e = load(work, cell_tanh + at), load(work, error + at)
        c_error = load(work, cell_error + at) + e * o * (1.0 - bent * bent)
        into_error = c_error * i
        store(work, gates + at, _bent_back(is_relu, into, into_error))
        store(work, gates + size + at, _gate_back(g, c_error * load(work, cell + at)))
        store(work, gates + 2 * size + at, _gate_back(i, c_error * into))
        store(work, gates + 3 * size + at, _gate_back(o, e * bent))
        store(work, cell_error + at, c_error * g)


# -- +rnn


@compiled_inside
def intersection_forward(
    biases: Array, work: Array, size: int, gates: int, below: int, before: int, hidden: int, up: int
) -> None:
    """Compute h, and y, which goes up, from what comes from ``below`` and from h before."""
    keep_apart()
    up_bias, bias = splat(biases[2]), splat(biases[3])
    for at in range(0, size, LANES):
        z = load(work, gates + at)
        y = where_less(z, 0.0, 0.0, z)
        h = tanh(load(work, gates + size + at))
        gy = sigmoid(load(work, gates + 2 * size + at) + up_bias)
        gh = sigmoid(load(work, gates + 3 * size + at) + bias)
        store(work, gates + at, y)
        store(work, gates + size + at, h)
        store(work, gates + 2 * size + at, gy)
        store(work, gates + 3 * size + at, gh)
        store(work, up + at, gy * load(work, below + at) + (1.0 - gy) * y)
        store(work, hidden + at, gh * load(work, before + at) + (1.0 - gh) * h)


@compiled_inside
def intersection_back(
    work: Array, size: int, gates: int, below: int, before: int, error: int, up_error: int, below_error: int
) -> None:
    """Compute the errors of the sums, and what goes directly to h before and to what comes from below."""
    keep_apart()
    for at in range(0, size, LANES):
        y, h = load(work, gates + at), load(work, gates + size + at)
        gy, gh = load(work, gates + 2 * size + at), load(work, gates + 3 * size + at)
        e, up = load(work, error + at), load(work, up_error + at)
        store(work, gates + at, where_at_most(y, 0.0, 0.0, up * (1.0 - gy)))
        store(work, gates + size + at, e * (1.0 - gh) * (1.0 - h * h))
        store(work, gates + 2 * size + at, _gate_back(gy, up * (load(work, below + at) - y)))
        store(work, gates + 3 * size + at, _gate_back(gh, e * (load(work, before + at) - h)))
        store(work, below_error + at, up * gy)
        store(work, error + at, e * gh)
