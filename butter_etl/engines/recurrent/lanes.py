"""Instructions that the kernels for recurrent networks add to those of the other engines.

As in `butter_etl.engines.fused.lanes`, each is a plain function on NumPy arrays, its definition and what runs where
numba is switched off, followed by the LLVM instructions that compiled callers get. A *vector* is sixteen float32 side
by side. Positions are not checked.
"""

# ruff: noqa: ARG001  numba calls every emitter with the same four arguments

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core import cgutils
from numba.core import types as numba_types

from butter_etl.engines.fused.lanes import LANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.fused.lanes import Array, Vector

    Integers = NDArray[np.int64]

# Numba says that it is typed but leaves most of its functions untyped.
types: Any = numba_types
numba_extending: Any = extending
utilities: Any = cgutils

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _WIDE = ir.VectorType(_F32, LANES), ir.VectorType(ir.DoubleType(), LANES)

#: The numbers of a term of a sum of products: where its numbers begin, where its vectors do, and how many there are.
TERM: Final = 3


def _pointer(context: Any, builder: Any, sig: Any, args: Any, number: int, offset: Any, to: Any = None) -> Any:
    """Return the address of element ``offset`` of the array that is argument ``number``, as a pointer to ``to``."""
    data = context.make_array(sig.args[number])(context, builder, args[number]).data
    address = builder.gep(data, [offset])
    return address if to is None else builder.bitcast(address, to.as_pointer())


def _integer(context: Any, builder: Any, sig: Any, args: Any, number: int) -> Any:
    return context.cast(builder, args[number], sig.args[number], types.intp)


def _is(kind: Any, dtype: Any) -> bool:
    return isinstance(kind, types.Array) and (kind.ndim, kind.layout, kind.dtype) == (1, "C", dtype)


def tiles(
    rows: int,
    vectors: int,
    count: int,
    scalars: Array,
    row_step: int,
    scalar_step: int,
    table: Integers,
    terms: int,
    values: Array,
    value_step: int,
    results: Array,
    to: int,
    result_step: int,
    adds: int,
    at: int,
) -> None:
    """Sum products of numbers with vectors, for ``count`` tiles of ``rows`` rows and ``vectors`` vectors side by side.

    The latter two are literals. The table has `TERM` numbers for each of so many terms. The k-th number of a term that
    begins at b in row r is ``scalars[at + b + r row_step + k scalar_step]``; its vectors, where the term's begin at v,
    begin at ``values[v + k value_step]``. Row r's sums are written to ``results[to + r result_step]``, or, with
    ``adds``, added to what is there.
    """
    width = LANES * vectors
    for row in range(count * rows):
        place = slice(to + row * result_step, to + row * result_step + width)
        sums = np.zeros(width, np.float32)
        for term in range(terms):
            begin, value, length = (int(number) for number in table[TERM * term : TERM * (term + 1)])
            for k in range(length):
                number = scalars[at + begin + row * row_step + k * scalar_step]
                sums += number * values[value + k * value_step : value + k * value_step + width]
        results[place] = results[place] + sums if adds else sums


def _type_of_tiles(
    rows: Any,
    vectors: Any,
    count: Any,
    scalars: Any,
    row_step: Any,
    scalar_step: Any,
    table: Any,
    terms: Any,
    values: Any,
    value_step: Any,
    results: Any,
    to: Any,
    result_step: Any,
    adds: Any,
    at: Any,
) -> Any:
    literal = isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral)
    floats = all(_is(kind, types.float32) for kind in (scalars, values, results))
    return types.none if literal and floats and _is(table, types.int64) else None


numba_extending.type_callable(tiles)(lambda context: _type_of_tiles)


@numba_extending.lower_builtin(tiles, types.VarArg(types.Any))  # type: ignore[untyped-decorator]
def _emit_tiles(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    rows, vectors = sig.args[0].literal_value, sig.args[1].literal_value
    parts = (context, builder, sig, args)
    count, row_step, scalar_step, terms, value_step, to, result_step, adds, at = (
        _integer(*parts, number) for number in (2, 4, 5, 7, 9, 11, 12, 13, 14)
    )
    # LLVM keeps these in registers: nothing but loads and stores of them is done here.
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    sums = [[utilities.alloca_once_value(builder, zero) for _ in range(vectors)] for _ in range(rows)]
    is_added = builder.icmp_signed("!=", adds, ir.Constant(_I64, 0))
    with utilities.for_range(builder, count, intp=_I64) as tile:
        first = builder.mul(tile.index, ir.Constant(_I64, rows))
        origin = builder.add(at, builder.mul(first, row_step))
        goal = builder.add(to, builder.mul(first, result_step))
        places = [place for row in range(rows) for place in _places(parts, goal, result_step, row, vectors)]
        for sum_ in chain.from_iterable(sums):
            builder.store(zero, sum_)
        with utilities.for_range(builder, terms, intp=_I64) as term:
            _add_term(parts, term.index, origin, (row_step, scalar_step, value_step), sums)
        # Added last, not first: sums of many steps' products are then as exact as those of a step, added up.
        with builder.if_else(is_added) as (added, written):
            with added:
                for sum_, place in zip(chain.from_iterable(sums), places, strict=True):
                    total = builder.fadd(builder.load(place, align=4), builder.load(sum_))
                    builder.store(total, place, align=4)
            with written:
                for sum_, place in zip(chain.from_iterable(sums), places, strict=True):
                    builder.store(builder.load(sum_), place, align=4)
    return context.get_dummy_value()


def _places(parts: tuple[Any, Any, Any, Any], goal: Any, result_step: Any, row: int, vectors: int) -> list[Any]:
    """Return where the vectors of a row of results lie."""
    builder = parts[1]
    line = builder.add(goal, builder.mul(result_step, ir.Constant(_I64, row)))
    return [_pointer(*parts, 10, builder.add(line, ir.Constant(_I64, LANES * v)), _VECTOR) for v in range(vectors)]


def _add_term(
    parts: tuple[Any, Any, Any, Any], term: Any, origin: Any, steps: tuple[Any, Any, Any], sums: list[list[Any]]
) -> None:
    """Add the products of a term to the sums of a tile."""
    builder, (row_step, scalar_step, value_step) = parts[1], steps
    entry = builder.mul(term, ir.Constant(_I64, TERM))
    begin, value, length = (
        builder.load(_pointer(*parts, 6, builder.add(entry, ir.Constant(_I64, number)))) for number in range(TERM)
    )
    begin = builder.add(origin, begin)
    lines = [
        _pointer(*parts, 3, builder.add(begin, builder.mul(row_step, ir.Constant(_I64, row))))
        for row in range(len(sums))
    ]
    line = _pointer(*parts, 8, value)
    declared = utilities.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{LANES}f32"
    )
    with utilities.for_range(builder, length, intp=_I64) as loop:
        place = builder.gep(line, [builder.mul(loop.index, value_step)])
        step = builder.mul(loop.index, scalar_step)
        right = [
            builder.load(
                builder.bitcast(builder.gep(place, [ir.Constant(_I64, LANES * v)]), _VECTOR.as_pointer()), align=4
            )
            for v in range(len(sums[0]))
        ]
        for row, group in enumerate(sums):
            left = _splat(builder, builder.load(builder.gep(lines[row], [step])))
            for sum_, vector in zip(group, right, strict=True):
                builder.store(builder.call(declared, [left, vector, builder.load(sum_)]), sum_)


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def add_squares(sums: NDArray[np.float64], at: int, v: Vector) -> None:
    """Add the square of each lane, in float64, to its own sum, of the sixteen from ``at`` on."""
    sums[at : at + LANES] += v.astype(np.float64) ** 2


@numba_extending.type_callable(add_squares)  # type: ignore[untyped-decorator]
def _type_of_add_squares(context: Any) -> Any:
    return lambda sums, at, v: types.none if _is(sums, types.float64) else None


@numba_extending.lower_builtin(add_squares, types.VarArg(types.Any))  # type: ignore[untyped-decorator]
def _emit_add_squares(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = _pointer(context, builder, sig, args, 0, _integer(context, builder, sig, args, 1), _WIDE)
    wide = builder.fpext(args[2], _WIDE)
    builder.store(builder.fadd(builder.load(place, align=8), builder.fmul(wide, wide)), place, align=8)
    return context.get_dummy_value()
