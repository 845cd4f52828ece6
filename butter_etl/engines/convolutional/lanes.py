"""Instructions that the kernels for images add to those of the fused engine: tiles of sums of products, masks, blocks.

As in `butter_etl.engines.fused.lanes`, each is a plain function on NumPy arrays, its definition and what runs where
numba is switched off, followed by the LLVM instructions that compiled callers get. Arrays are one-dimensional and their
positions are not checked. A *vector* is sixteen float32 side by side.
"""

# ruff: noqa: ARG001  numba calls every emitter with the same four arguments

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core import cgutils
from numba.core import types as numba_types

from butter_etl.engines.streams import philox

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Integers = NDArray[np.int64]
    Bits = NDArray[np.uint16]

# Numba says that it is typed but leaves most of its functions untyped.
types: Any = numba_types
numba_extending: Any = extending
utilities: Any = cgutils

LANES: Final = 16

_F32, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_VECTOR, _WORDS, _WIDE_WORDS = (ir.VectorType(kind, LANES) for kind in (_F32, _I32, _I64))
_FLAGS = ir.VectorType(ir.IntType(1), LANES)

#: What a tile does with its sums: write them, write max(0, sum), or change what is there by them, with momentum or not.
WRITE: Final = 0
RELU: Final = 1
CHANGE: Final = 2
MOVE: Final = 3


def _lowered(function: Callable[..., Any], typer: Callable[..., Any]) -> Callable[[Any], Any]:
    """Register the decorated emitter ``(context, builder, sig, args) -> value`` as what ``function`` compiles to."""
    numba_extending.type_callable(function)(lambda context: typer)
    decorator: Callable[[Any], Any] = numba_extending.lower_builtin(function, types.VarArg(types.Any))
    return decorator


def _pointer(context: Any, builder: Any, sig: Any, args: Any, number: int, offset: Any, to: Any = None) -> Any:
    """Return the address of element ``offset`` of the array that is argument ``number``, as a pointer to ``to``."""
    data = context.make_array(sig.args[number])(context, builder, args[number]).data
    address = builder.gep(data, [offset])
    return address if to is None else builder.bitcast(address, to.as_pointer())


def _integer(context: Any, builder: Any, sig: Any, args: Any, number: int) -> Any:
    return context.cast(builder, args[number], sig.args[number], types.intp)


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


def _splat(builder: Any, scalar: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _is(kind: Any, dtype: Any) -> bool:
    return isinstance(kind, types.Array) and (kind.ndim, kind.layout, kind.dtype) == (1, "C", dtype)


def keep_apart() -> None:
    """Keep the function that calls this from being compiled into its callers, which would take as long as it again."""


@_lowered(keep_apart, lambda: types.none)
def _emit_keep_apart(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    builder.function.attributes.add("noinline")
    return context.get_dummy_value()


# -- tiles of sums of products


def tile(
    rows: int,
    vectors: int,
    scalars: Array,
    row_step: int,
    scalar_step: int,
    table: Integers,
    first: int,
    last: int,
    values: Array,
    value_at: int,
    value_unit: int,
    value_step: int,
    starts: Array,
    results: Array,
    to: int,
    result_step: int,
    finish: int,
    rates: Array,
    moments: Array,
    at: int,
) -> None:
    """Sum products of numbers with vectors for ``rows`` rows and ``vectors`` vectors side by side; both are literals.

    The terms are named by ``table``, three numbers each from element ``first`` to before ``last``: where a run of
    numbers begins, in units of ``value_unit`` where its vectors begin, and how many there are. The k-th number of row r
    is ``scalars[at + begin + r row_step + k scalar_step]``; its vectors begin at ``values[value_at + begin value_unit +
    k value_step]``. Every row starts from the vectors in ``starts`` and ends at ``results[to + r result_step]``, as
    ``finish`` says: `WRITE` or `RELU`; `CHANGE` adds ``rates[1]`` times g to what is there, w, for g = sum +
    ``rates[0]`` w; `MOVE` adds as much of m = ``rates[2]`` m + ``rates[3]`` g, which ``moments`` holds where
    ``results`` holds w.
    """
    width = LANES * vectors
    sums = np.tile(starts[:width], (rows, 1))
    for term in range(first, last, 3):
        begin, value, count = (int(number) for number in table[term : term + 3])
        for k in range(count):
            numbers = scalars[at + begin + k * scalar_step + np.arange(rows) * row_step]
            where = value_at + value * value_unit + k * value_step
            sums += numbers[:, np.newaxis] * values[where : where + width]
    for row in range(rows):
        place = slice(to + row * result_step, to + row * result_step + width)
        if finish in (CHANGE, MOVE):
            moved = sums[row] + rates[0] * results[place]
            if finish == MOVE:
                moved = moments[place] = rates[2] * moments[place] + rates[3] * moved
            results[place] += rates[1] * moved
        else:
            results[place] = np.where(sums[row] < 0, 0, sums[row]) if finish == RELU else sums[row]


def _type_of_tile(
    rows: Any,
    vectors: Any,
    scalars: Any,
    row_step: Any,
    scalar_step: Any,
    table: Any,
    first: Any,
    last: Any,
    values: Any,
    value_at: Any,
    value_unit: Any,
    value_step: Any,
    starts: Any,
    results: Any,
    to: Any,
    result_step: Any,
    finish: Any,
    rates: Any,
    moments: Any,
    at: Any,
) -> Any:
    literal = isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral)
    floats = all(_is(kind, types.float32) for kind in (scalars, values, starts, results, rates, moments))
    return types.none if literal and floats and _is(table, types.int64) else None


@_lowered(tile, _type_of_tile)
def _emit_tile(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    rows, vectors = sig.args[0].literal_value, sig.args[1].literal_value
    parts = (context, builder, sig, args)
    row_step, scalar_step, first, last = (_integer(*parts, number) for number in (3, 4, 6, 7))
    value_at, value_unit, value_step, to, result_step, finish, at = (
        _integer(*parts, number) for number in (9, 10, 11, 14, 15, 16, 19)
    )
    starts = [builder.load(_pointer(*parts, 12, _number(LANES * v), _VECTOR), align=4) for v in range(vectors)]
    # LLVM keeps these in registers: nothing but loads and stores of them is done here.
    sums = [[utilities.alloca_once_value(builder, starts[v]) for v in range(vectors)] for _ in range(rows)]
    row_starts = [builder.mul(row_step, _number(row)) for row in range(rows)]
    with utilities.for_range_slice(builder, first, last, _number(3), _I64) as (term, _):
        begin, value, count = (
            builder.load(_pointer(*parts, 5, builder.add(term, _number(number)))) for number in range(3)
        )
        lines = [_pointer(*parts, 2, builder.add(builder.add(at, begin), start)) for start in row_starts]
        line = _pointer(*parts, 8, builder.add(value_at, builder.mul(value, value_unit)))
        with utilities.for_range(builder, count, intp=_I64) as loop:
            place = builder.gep(line, [builder.mul(loop.index, value_step)])
            step = builder.mul(loop.index, scalar_step)
            right = [
                builder.load(builder.bitcast(builder.gep(place, [_number(LANES * v)]), _VECTOR.as_pointer()), align=4)
                for v in range(vectors)
            ]
            for row in range(rows):
                left = _splat(builder, builder.load(builder.gep(lines[row], [step])), _VECTOR)
                for v in range(vectors):
                    sum_ = builder.load(sums[row][v])
                    builder.store(_call(builder, "fmuladd", left, right[v], sum_), sums[row][v])
    _finish_tile(parts, sums, to, result_step, finish)
    return context.get_dummy_value()


def _call(builder: Any, name: str, *operands: Any) -> Any:
    function = ir.FunctionType(_VECTOR, [_VECTOR] * len(operands))
    declared = utilities.get_or_insert_function(builder.module, function, f"llvm.{name}.v{LANES}f32")
    return builder.call(declared, list(operands))


def _finish_tile(parts: tuple[Any, Any, Any, Any], sums: Any, to: Any, result_step: Any, finish: Any) -> None:
    builder, zero = parts[1], ir.Constant(_VECTOR, [0.0] * LANES)
    is_relu, is_change, is_move = (builder.icmp_signed("==", finish, _number(kind)) for kind in (RELU, CHANGE, MOVE))
    decay, factor, momentum, share = (
        _splat(builder, builder.load(_pointer(*parts, 17, _number(number))), _VECTOR) for number in range(4)
    )

    def write(place: Any, value: Any) -> None:
        is_off = builder.fcmp_ordered("<", value, zero)
        value = builder.select(is_relu, builder.select(is_off, zero, value), value)
        builder.store(value, _pointer(*parts, 13, place, _VECTOR), align=4)

    def change(place: Any, value: Any, *, moves: bool) -> None:
        weights = _pointer(*parts, 13, place, _VECTOR)
        there = builder.load(weights, align=4)
        value = _call(builder, "fmuladd", there, decay, value)
        if moves:
            moments = _pointer(*parts, 18, place, _VECTOR)
            value = _call(builder, "fmuladd", builder.load(moments, align=4), momentum, builder.fmul(value, share))
            builder.store(value, moments, align=4)
        builder.store(_call(builder, "fmuladd", value, factor, there), weights, align=4)

    def each(act: Callable[..., None], **options: bool) -> None:
        for row, group in enumerate(sums):
            line = builder.add(to, builder.mul(result_step, _number(row)))
            for v, sum_ in enumerate(group):
                act(builder.add(line, _number(LANES * v)), builder.load(sum_), **options)

    with builder.if_else(is_move) as (moved, others):
        with moved:
            each(change, moves=True)
        with others, builder.if_else(is_change) as (changed, written):
            with changed:
                each(change, moves=False)
            with written:
                each(write)


# -- blocks of weights, turned


def turn(source: Array, at: int, step: int, count: int, result: Array, to: int, result_step: int) -> None:
    """Turn a block: sixteen vectors, one every ``step`` from ``at`` on, become the columns of sixteen from ``to`` on.

    Only the first ``count`` (at least one) vectors are read; the others are zeros.
    """
    block = np.zeros((LANES, LANES), np.float32)
    for row in range(min(count, LANES)):
        block[row] = source[at + row * step : at + row * step + LANES]
    for column in range(LANES):
        result[to + column * result_step : to + column * result_step + LANES] = block[:, column]


@_lowered(
    turn,
    lambda source, at, step, count, result, to, result_step: (
        types.none if _is(source, types.float32) and _is(result, types.float32) else None
    ),
)
def _emit_turn(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    parts = (context, builder, sig, args)
    at, step, count, to, result_step = (_integer(*parts, number) for number in (1, 2, 3, 5, 6))
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    lines = []
    for row in range(LANES):
        is_there = builder.icmp_signed("<", _number(row), count)
        offset = builder.add(at, builder.mul(step, builder.select(is_there, _number(row), _number(0))))
        read = builder.load(_pointer(*parts, 0, offset, _VECTOR), align=4)
        lines.append(builder.select(is_there, read, zero))
    # Four rounds: in each, neighbours at a distance swap what lies off the diagonal.
    for distance in (1, 2, 4, 8):
        for row in range(LANES):
            if row & distance:
                continue
            a, b = lines[row], lines[row + distance]
            lanes = range(LANES)
            upper = [lane if not lane & distance else LANES + lane - distance for lane in lanes]
            lower = [lane + distance if not lane & distance else LANES + lane for lane in lanes]
            lines[row], lines[row + distance] = (
                builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, LANES), pattern))
                for pattern in (upper, lower)
            )
    for row, line in enumerate(lines):
        offset = builder.add(to, builder.mul(result_step, _number(row)))
        builder.store(line, _pointer(*parts, 4, offset, _VECTOR), align=4)
    return context.get_dummy_value()


# -- masks

_PHILOX: Final = ((0xD2511F53, 0x9E3779B9), (0xCD9E8D57, 0xBB67AE85))


def keep_bits(
    bits: Bits, at: int, block: int, step: int, stream: int, part: int, low: int, high: int, threshold: int
) -> None:
    """Write eight sixteens of bits from ``at`` on: which halves of the words of sixteen blocks are below a threshold.

    ``low`` and ``high`` are the key. Bit l of the h-th is about half h of block ``block`` + l; see
    `butter_etl.engines.convolutional.contract.dropout_mask`.
    """
    counters = np.zeros((4, LANES), np.uint64)
    counters[0] = block + np.arange(LANES)
    counters[1], counters[2], counters[3] = step, stream, part
    halves = philox(counters, (low, high)).T.copy().view("<u2")
    kept = (halves < threshold).T.astype(np.uint8)
    bits[at : at + 8] = np.packbits(kept, axis=1, bitorder="little").copy().view("<u2")[:, 0]


@_lowered(
    keep_bits,
    lambda bits, at, block, step, stream, part, low, high, threshold: types.none if _is(bits, types.uint16) else None,
)
def _emit_keep_bits(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    parts = (context, builder, sig, args)
    numbers = [builder.trunc(_integer(*parts, number), _I32) for number in range(2, 9)]
    first, *others, low, high, threshold = (_splat(builder, number, _WORDS) for number in numbers)
    words = [builder.add(first, ir.Constant(_WORDS, list(range(LANES)))), *others]
    keys = [low, high]
    for _ in range(10):
        words = _philox_round(builder, words, keys)
        keys = [
            builder.add(key, ir.Constant(_WORDS, [weyl] * LANES)) for key, (_, weyl) in zip(keys, _PHILOX, strict=True)
        ]
    at = _integer(*parts, 1)
    for half in range(8):
        word = words[half // 2]
        if half % 2:
            value = builder.lshr(word, ir.Constant(_WORDS, [16] * LANES))
        else:
            value = builder.and_(word, ir.Constant(_WORDS, [0xFFFF] * LANES))
        kept = builder.bitcast(builder.icmp_unsigned("<", value, threshold), _I16)
        builder.store(kept, _pointer(*parts, 0, builder.add(at, _number(half))))
    return context.get_dummy_value()


def _philox_round(builder: Any, words: Any, keys: Any) -> Any:
    products = []
    for word, (multiplier, _) in zip((words[0], words[2]), _PHILOX, strict=True):
        wide = builder.mul(builder.zext(word, _WIDE_WORDS), ir.Constant(_WIDE_WORDS, [multiplier] * LANES))
        high = builder.trunc(builder.lshr(wide, ir.Constant(_WIDE_WORDS, [32] * LANES)), _WORDS)
        products.append((builder.trunc(wide, _WORDS), high))
    (low_0, high_0), (low_1, high_1) = products
    return [
        builder.xor(builder.xor(high_1, words[1]), keys[0]),
        low_1,
        builder.xor(builder.xor(high_0, words[3]), keys[1]),
        low_0,
    ]


def scale_kept(array: Array, at: int, bits: Bits, number: int, scale: float) -> None:
    """Multiply the vector from ``at`` on by ``scale`` where its bit in ``bits[number]`` is set; zero it elsewhere."""
    kept = np.unpackbits(bits[number : number + 1].astype("<u2").view(np.uint8), bitorder="little").astype(bool)
    array[at : at + LANES] = np.where(kept, array[at : at + LANES] * np.float32(scale), np.float32(0))


@_lowered(
    scale_kept,
    lambda array, at, bits, number, scale: (
        types.none if _is(array, types.float32) and _is(bits, types.uint16) else None
    ),
)
def _emit_scale_kept(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    parts = (context, builder, sig, args)
    scale = _splat(builder, context.cast(builder, args[4], sig.args[4], types.float32), _VECTOR)
    kept = builder.bitcast(builder.load(_pointer(*parts, 2, _integer(*parts, 3))), _FLAGS)
    place = _pointer(*parts, 0, _integer(*parts, 1), _VECTOR)
    scaled = builder.fmul(builder.load(place, align=4), scale)
    builder.store(builder.select(kept, scaled, ir.Constant(_VECTOR, [0.0] * LANES)), place, align=4)
    return context.get_dummy_value()
