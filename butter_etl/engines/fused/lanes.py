"""Vectors of floats for numba kernels: sixteen rows of a batch at once, in registers.

LLVM's own vectoriser cannot be relied on to keep a tile of sums in registers, and that is what a matrix product lives
on. So kernels name their vectors. Each operation here is a plain function on NumPy arrays, its definition and what runs
where numba is switched off (``NUMBA_DISABLE_JIT=1``), followed by the LLVM instructions that compiled callers get. No
flag lets LLVM reorder or drop anything, so results are the same in every run on one CPU, and non-finite values stay.

A *vector* is float32 (16,). Arrays are one-dimensional float32, and ``at`` is the first element's position in them. A
*group* is a tuple of vectors whose length is known when compiling. Nothing is checked: positions must be in range.
"""

# ruff: noqa: ARG001  numba calls every emitter with the same four arguments

from __future__ import annotations

import operator
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core import cgutils
from numba.core import types as numba_types

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[Any]
    Group = tuple[Vector, ...]
    Tile = tuple[Group, ...]
    Array = NDArray[np.float32]

# Numba says that it is typed but leaves most of its functions untyped.
types: Any = numba_types
numba_extending: Any = extending
declared: Any = cgutils.get_or_insert_function

#: Rows in a vector: two AVX2 registers, one of AVX-512. A panel of rows is so many columns wide, too.
LANES = 16

#: Half a vector: sums of products over the rows keep more of them in registers.
HALF = 8

_F32, _I32 = ir.FloatType(), ir.IntType(32)


class _VectorType(numba_types.Type):
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"butter_etl.float32x{lanes}")


@numba_extending.register_model(_VectorType)
class _VectorModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: _VectorType) -> None:
        begin: Any = super().__init__
        begin(manager, fe_type, ir.VectorType(_F32, fe_type.lanes))


_VECTOR, _HALF_VECTOR = _VectorType(LANES), _VectorType(HALF)


def _lowered(function: Callable[..., Any], typer: Callable[..., Any]) -> Callable[[Any], Any]:
    """Register the decorated emitter ``(context, builder, sig, args) -> value`` as what ``function`` compiles to.

    ``typer`` maps the argument types to the result's type, or to None where they do not fit.
    """
    numba_extending.type_callable(function)(lambda context: typer)
    decorator: Callable[[Any], Any] = numba_extending.lower_builtin(function, types.VarArg(types.Any))
    return decorator


# -- LLVM instructions shared by the emitters


def _ir_vector(lanes: int) -> Any:
    return ir.VectorType(_F32, lanes)


def _constant(lanes: int, value: float) -> Any:
    return ir.Constant(_ir_vector(lanes), [float(np.float32(value))] * lanes)


def _integers(values: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_I32, len(values)), values)


def _pointer(context: Any, builder: Any, sig: Any, args: Any, number: int, offset: Any, to: Any = None) -> Any:
    """Return the address of element ``offset`` of the array that is argument ``number``, as a pointer to ``to``."""
    data = context.make_array(sig.args[number])(context, builder, args[number]).data
    address = builder.gep(data, [offset])
    return address if to is None else builder.bitcast(address, to.as_pointer())


def _position(context: Any, builder: Any, sig: Any, args: Any, number: int, plus: int = 0, times: Any = None) -> Any:
    """Return the integer argument ``number`` plus ``plus`` (times the value ``times``)."""
    at = context.cast(builder, args[number], sig.args[number], types.intp)
    step = ir.Constant(at.type, plus)
    return builder.add(at, step if times is None else builder.mul(times, step))


def _load(context: Any, builder: Any, sig: Any, args: Any, number: int, offset: Any, lanes: int = LANES) -> Any:
    # Addresses are promised to be multiples of 4 bytes only; aligned ones are as fast without the promise.
    return builder.load(_pointer(context, builder, sig, args, number, offset, _ir_vector(lanes)), align=4)


def _store(context: Any, builder: Any, sig: Any, args: Any, number: int, offset: Any, value: Any) -> None:
    builder.store(value, _pointer(context, builder, sig, args, number, offset, value.type), align=4)


def _broadcast(builder: Any, scalar: Any, lanes: int = LANES) -> Any:
    undefined = ir.Constant(_ir_vector(lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, _integers([0] * lanes))


def _call(builder: Any, name: str, *operands: Any) -> Any:
    """Call LLVM's intrinsic ``name`` for vectors, elementwise."""
    kind = operands[0].type
    function = ir.FunctionType(kind, [kind] * len(operands))
    return builder.call(declared(builder.module, function, f"llvm.{name}.v{kind.count}f32"), list(operands))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    # Fused where the CPU can (all with AVX2), else two instructions.
    return _call(builder, "fmuladd", a, b, c)


def _shuffle(builder: Any, a: Any, b: Any, pattern: list[int]) -> Any:
    return builder.shuffle_vector(a, b, _integers(pattern))


def _members(builder: Any, group: Any, count: int) -> list[Any]:
    return [builder.extract_value(group, j) for j in range(count)]


def _as_vector(context: Any, builder: Any, kind: Any, value: Any, lanes: int = LANES) -> Any:
    """Return a vector as it is; put a number, rounded to float32, in every lane of so many."""
    if isinstance(kind, _VectorType):
        return value
    return _broadcast(builder, context.cast(builder, value, kind, types.float32), lanes)


def _common_type(kinds: Sequence[Any]) -> Any:
    """Return the type of the vectors among the operands; None unless there is just one and the rest are numbers."""
    vectors = {kind for kind in kinds if isinstance(kind, _VectorType)}
    rest = [kind for kind in kinds if not isinstance(kind, _VectorType)]
    return vectors.pop() if len(vectors) == 1 and all(isinstance(kind, types.Number) for kind in rest) else None


def _as_vectors(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """Return the operands as vectors of the type of those among them that are vectors."""
    lanes = _common_type(sig.args).lanes
    return [_as_vector(context, builder, kind, value, lanes) for kind, value in zip(sig.args, args, strict=True)]


def _fits(array: Any, result: Any) -> Any:
    """Return ``result`` where ``array`` is a one-dimensional float32 array, else None.

    Without this check a pointer would hide the mistake.
    """
    good = isinstance(array, types.Array) and (array.ndim, array.layout, array.dtype) == (1, "C", types.float32)
    return result if good else None


def _literal(kind: Any) -> int | None:
    return kind.literal_value if isinstance(kind, types.IntegerLiteral) else None


# -- arithmetic: operators between vectors, and between a vector and a number


def _register_operator(symbol: Callable[..., Any], instruction: str) -> None:
    numba_extending.type_callable(symbol)(lambda context: lambda a, b: _common_type([a, b]))

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*_as_vectors(context, builder, sig, args))

    for kinds in ((_VectorType, _VectorType), (_VectorType, types.Number), (types.Number, _VectorType)):
        numba_extending.lower_builtin(symbol, *kinds)(emit)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


def splat(value: float) -> Vector:
    """Return the number ``value`` in every lane."""
    return np.full(LANES, value, dtype=np.float32)


@_lowered(splat, lambda value: _VECTOR if isinstance(value, types.Number) else None)
def _emit_splat(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _as_vector(context, builder, sig.args[0], args[0])


def multiply_add(a: Vector, b: Vector | float, c: Vector | float) -> Vector:
    """Return ``a b + c``, rounded once where the CPU has fused multiply-add (here: twice)."""
    return a * np.float32(b) + np.float32(c)


@_lowered(multiply_add, lambda a, b, c: _common_type([a, b, c]))
def _emit_multiply_add(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _multiply_add(builder, *_as_vectors(context, builder, sig, args))


def where_less(a: Vector | float, b: Vector | float, yes: Vector | float, no: Vector | float) -> Vector:
    """Return ``yes`` where a < b, else ``no``: also where one of them is not a number."""
    return np.where(np.less(a, b), yes, no).astype(np.float32)


def where_at_most(a: Vector | float, b: Vector | float, yes: Vector | float, no: Vector | float) -> Vector:
    """Return ``yes`` where a <= b, else ``no``: also where one of them is not a number."""
    return np.where(np.less_equal(a, b), yes, no).astype(np.float32)


def where_equal(a: Vector | float, b: Vector | float, yes: Vector | float, no: Vector | float) -> Vector:
    """Return ``yes`` where a = b, else ``no``: also where one of them is not a number."""
    return np.where(np.equal(a, b), yes, no).astype(np.float32)


def _register_selection(function: Callable[..., Any], symbol: str) -> None:
    @_lowered(function, lambda a, b, yes, no: _common_type([a, b, yes, no]))
    def _emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b, yes, no = _as_vectors(context, builder, sig, args)
        return builder.select(builder.fcmp_ordered(symbol, a, b), yes, no)


_register_selection(where_less, "<")
_register_selection(where_at_most, "<=")
_register_selection(where_equal, "==")


def all_less(a: Vector, b: Vector) -> bool:
    """Tell whether a < b in every lane; false where one of them is not a number."""
    return bool(np.less(a, b).all())


@_lowered(all_less, lambda a, b: types.boolean if _common_type([a, b]) else None)
def _emit_all_less(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    bits = builder.bitcast(builder.fcmp_ordered("<", *args), ir.IntType(sig.args[0].lanes))
    return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, -1))


def root(v: Vector) -> Vector:
    """Return the square root of each lane."""
    return np.sqrt(v)


def magnitude(v: Vector) -> Vector:
    """Return the absolute value of each lane."""
    return np.abs(v)


def _register_call(function: Callable[..., Any], name: str) -> None:
    @_lowered(function, lambda v: _common_type([v]))
    def _emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, name, args[0])


_register_call(root, "sqrt")
_register_call(magnitude, "fabs")


# -- the parts of a float, for logarithms and exponentials

#: Added to a number below 2^22 in absolute value, rounds it to an integer and leaves that in the low bits of the sum.
INTEGER_SHIFT = 1.5 * 2.0**23
_SHIFT_BITS = 0x4B400000
#: The bits of sqrt(1/2), where `mantissa` begins.
_ROOT_HALF = 0x3F3504F3


def _bits(builder: Any, v: Any) -> Any:
    return builder.bitcast(v, ir.VectorType(_I32, v.type.count))


def power_of_two(n: Vector) -> Vector:
    """Return 2^n of integers n from -126 to 127; 128 gives infinity, anything else some number but never a trap."""
    with np.errstate(invalid="ignore"):
        bits = (n + np.float32(INTEGER_SHIFT)).view(np.int32)
        return ((bits + np.int32(127 - _SHIFT_BITS)) << 23).view(np.float32)


@_lowered(power_of_two, lambda n: n)
def _emit_power_of_two(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    lanes = sig.return_type.lanes
    bits = _bits(builder, builder.fadd(args[0], _constant(lanes, INTEGER_SHIFT)))
    biased = builder.add(bits, _integers([127 - _SHIFT_BITS] * lanes))
    return builder.bitcast(builder.shl(biased, _integers([23] * lanes)), _ir_vector(lanes))


def times_power_of_two(v: Vector, shifted: Vector) -> Vector:
    """Return ``v`` 2^n of an integer n, given as ``shifted`` = n + `INTEGER_SHIFT`.

    ``v`` and the result must be normal floats.
    """
    return (v.view(np.int32) + (shifted.view(np.int32) << 23)).view(np.float32)


@_lowered(times_power_of_two, lambda v, shifted: v)
def _emit_times_power_of_two(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    # The low nine bits of the shift's own bits are 0: only n is left.
    lanes = sig.return_type.lanes
    bits, shifted = (_bits(builder, arg) for arg in args)
    return builder.bitcast(builder.add(bits, builder.shl(shifted, _integers([23] * lanes))), _ir_vector(lanes))


def exponent(v: Vector) -> Vector:
    """Return the integer e of v = m 2^e with m in [sqrt(1/2), sqrt(2)), for positive normal v."""
    return ((v.view(np.int32) - np.int32(_ROOT_HALF)) >> 23).astype(np.float32)


@_lowered(exponent, lambda v: v)
def _emit_exponent(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    lanes = sig.return_type.lanes
    above = builder.sub(_bits(builder, args[0]), _integers([_ROOT_HALF] * lanes))
    return builder.sitofp(builder.ashr(above, _integers([23] * lanes)), _ir_vector(lanes))


def mantissa(v: Vector) -> Vector:
    """Return the m of v = m 2^e with m in [sqrt(1/2), sqrt(2)), for positive normal v."""
    bits = v.view(np.int32)
    return (bits - ((bits - np.int32(_ROOT_HALF)) & np.int32(-(2**23)))).view(np.float32)


@_lowered(mantissa, lambda v: v)
def _emit_mantissa(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    lanes = sig.return_type.lanes
    bits = _bits(builder, args[0])
    above = builder.sub(bits, _integers([_ROOT_HALF] * lanes))
    shift = builder.and_(above, _integers([-(2**23)] * lanes))
    return builder.bitcast(builder.sub(bits, shift), _ir_vector(lanes))


# -- memory


def load(array: Array, at: int) -> Vector:
    """Return the sixteen elements from ``at`` on."""
    return array[at : at + LANES].copy()


@_lowered(load, lambda array, at: _fits(array, _VECTOR))
def _emit_load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _load(context, builder, sig, args, 0, _position(context, builder, sig, args, 1))


def store(array: Array, at: int, v: Vector) -> None:
    """Write ``v`` to the sixteen elements from ``at`` on."""
    array[at : at + LANES] = v


@_lowered(store, lambda array, at, v: _fits(array, types.none))
def _emit_store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _store(context, builder, sig, args, 0, _position(context, builder, sig, args, 1), args[2])
    return context.get_dummy_value()


def keep_first(v: Vector, count: int) -> Vector:
    """Return ``v`` with 0 in all lanes from ``count`` on, whatever they held."""
    return np.where(np.arange(len(v)) < count, v, np.float32(0))


@_lowered(keep_first, lambda v, count: v)
def _emit_keep_first(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    count = builder.trunc(_position(context, builder, sig, args, 1), _I32)
    lanes = sig.return_type.lanes
    undefined = ir.Constant(ir.VectorType(_I32, lanes), ir.Undefined)
    counts = builder.insert_element(undefined, count, ir.Constant(_I32, 0))
    counts = builder.shuffle_vector(counts, undefined, _integers([0] * lanes))
    kept = builder.icmp_signed("<", _integers(list(range(lanes))), counts)
    return builder.select(kept, args[0], _constant(lanes, 0))


def add_to_sums(sums: NDArray[np.float64], at: int, v: Vector) -> None:
    """Add each lane to its own float64 sum, of the sixteen from ``at`` on."""
    sums[at : at + LANES] += v


@_lowered(add_to_sums, lambda sums, at, v: types.none)
def _emit_add_to_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    wide = ir.VectorType(ir.DoubleType(), LANES)
    address = _pointer(context, builder, sig, args, 0, _position(context, builder, sig, args, 1), wide)
    builder.store(builder.fadd(builder.load(address, align=8), builder.fpext(args[2], wide)), address, align=8)
    return context.get_dummy_value()


# -- groups: tiles of a matrix product


def splat_each(array: Array, at: int, count: int) -> Group:
    """Return a group of ``count`` vectors, the j-th holding ``array[at + j]`` in every lane; ``count`` is a literal."""
    return tuple(splat(array[at + j]) for j in range(count))


def _group_type(count: Any) -> Any:
    return None if _literal(count) is None else types.UniTuple(_VECTOR, _literal(count))


@_lowered(splat_each, lambda array, at, count: _fits(array, _group_type(count)))
def _emit_splat_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    group = []
    for j in range(len(sig.return_type)):
        scalar = builder.load(
            _pointer(context, builder, sig, args, 0, _position(context, builder, sig, args, 1, plus=j))
        )
        group.append(_broadcast(builder, scalar))
    return context.make_tuple(builder, sig.return_type, group)


def zero_each(count: int) -> Group:
    """Return a group of ``count`` vectors of zeros; ``count`` is a literal."""
    return tuple(splat(0) for _ in range(count))


@_lowered(zero_each, _group_type)
def _emit_zero_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return context.make_tuple(builder, sig.return_type, [_constant(LANES, 0)] * len(sig.return_type))


def multiply_add_each(group: Group, scalars: Array, at: int, stride: int, v: Vector) -> Group:
    """Return ``group[j] + scalars[at + j stride] v`` for each j: one step of a tile of sums of products."""
    return tuple(multiply_add(v, scalars[at + j * stride], member) for j, member in enumerate(group))


@_lowered(multiply_add_each, lambda group, scalars, at, stride, v: _fits(scalars, group))
def _emit_multiply_add_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    stride = _position(context, builder, sig, args, 3)
    result = []
    for j, member in enumerate(_members(builder, args[0], len(sig.args[0]))):
        offset = _position(context, builder, sig, args, 2, plus=j, times=stride)
        scalar = builder.load(_pointer(context, builder, sig, args, 1, offset))
        result.append(_multiply_add(builder, _broadcast(builder, scalar), args[4], member))
    return context.make_tuple(builder, sig.return_type, result)


def relu_each(group: Group) -> Group:
    """Return max(0, v) of each vector; what is not a number stays so."""
    return tuple(where_less(v, 0, 0, v) for v in group)


@_lowered(relu_each, lambda group: group)
def _emit_relu_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    zero = _constant(LANES, 0)
    members = _members(builder, args[0], len(sig.args[0]))
    result = [builder.select(builder.fcmp_ordered("<", v, zero), zero, v) for v in members]
    return context.make_tuple(builder, sig.return_type, result)


def add_each(group: Group, array: Array, at: int) -> Group:
    """Return ``group[j]`` plus the j-th vector of ``array`` from ``at`` on."""
    return tuple(v + load(array, at + LANES * j) for j, v in enumerate(group))


@_lowered(add_each, lambda group, array, at: _fits(array, group))
def _emit_add_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    result = []
    for j, v in enumerate(_members(builder, args[0], len(sig.args[0]))):
        offset = _position(context, builder, sig, args, 2, plus=LANES * j)
        result.append(builder.fadd(v, _load(context, builder, sig, args, 1, offset)))
    return context.make_tuple(builder, sig.return_type, result)


def zero_each_where_off(group: Group, array: Array, at: int) -> Group:
    """Zero ``group[j]`` where the j-th vector of ``array`` from ``at`` on is at most 0: the gradient of ReLU."""
    return tuple(where_at_most(load(array, at + LANES * j), 0, 0, v) for j, v in enumerate(group))


@_lowered(zero_each_where_off, lambda group, array, at: _fits(array, group))
def _emit_zero_each_where_off(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    zero = _constant(LANES, 0)
    result = []
    for j, v in enumerate(_members(builder, args[0], len(sig.args[0]))):
        offset = _position(context, builder, sig, args, 2, plus=LANES * j)
        off = builder.fcmp_ordered("<=", _load(context, builder, sig, args, 1, offset), zero)
        result.append(builder.select(off, zero, v))
    return context.make_tuple(builder, sig.return_type, result)


def load_each(like: Group, array: Array, at: int) -> Group:
    """Return the vectors of ``array`` from ``at`` on, as many as ``like`` has."""
    return tuple(load(array, at + LANES * j) for j in range(len(like)))


@_lowered(load_each, lambda like, array, at: _fits(array, like))
def _emit_load_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    result = [
        _load(context, builder, sig, args, 1, _position(context, builder, sig, args, 2, plus=LANES * j))
        for j in range(len(sig.return_type))
    ]
    return context.make_tuple(builder, sig.return_type, result)


def store_each(array: Array, at: int, group: Group) -> None:
    """Write the vectors one after the other from ``at`` on."""
    for j, v in enumerate(group):
        store(array, at + LANES * j, v)


@_lowered(store_each, lambda array, at, group: _fits(array, types.none))
def _emit_store_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    for j, v in enumerate(_members(builder, args[2], len(sig.args[2]))):
        _store(context, builder, sig, args, 0, _position(context, builder, sig, args, 1, plus=LANES * j), v)
    return context.get_dummy_value()


def store_rows(array: Array, at: int, stride: int, group: Group) -> None:
    """Write vector j to the sixteen elements from ``at + j stride`` on."""
    for j, v in enumerate(group):
        store(array, at + j * stride, v)


@_lowered(store_rows, lambda array, at, stride, group: _fits(array, types.none))
def _emit_store_rows(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    stride = _position(context, builder, sig, args, 2)
    for j, v in enumerate(_members(builder, args[3], len(sig.args[3]))):
        _store(context, builder, sig, args, 0, _position(context, builder, sig, args, 1, plus=j, times=stride), v)
    return context.get_dummy_value()


# -- sums of products over the rows


def zero_tile(rows: int, columns: int) -> Tile:
    """Return ``rows`` groups of ``columns`` half vectors of zeros; both are literals.

    A tile of 3 x 4 fills sixteen registers, with the vectors that are multiplied.
    """
    return tuple(tuple(np.zeros(HALF, dtype=np.float32) for _ in range(columns)) for _ in range(rows))


def _tile_type(rows: Any, columns: Any) -> Any:
    if _literal(rows) is None or _literal(columns) is None:
        return None
    return types.UniTuple(types.UniTuple(_HALF_VECTOR, _literal(columns)), _literal(rows))


def _tile_members(builder: Any, sig: Any, args: Any, number: int) -> list[list[Any]]:
    kind = sig.args[number]
    return [_members(builder, group, len(kind.dtype)) for group in _members(builder, args[number], len(kind))]


def _make_tile(context: Any, builder: Any, kind: Any, tile: list[list[Any]]) -> Any:
    return context.make_tuple(builder, kind, [context.make_tuple(builder, kind.dtype, row) for row in tile])


@_lowered(zero_tile, _tile_type)
def _emit_zero_tile(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = sig.return_type
    return _make_tile(context, builder, kind, [[_constant(HALF, 0)] * len(kind.dtype)] * len(kind))


def add_products(tile: Tile, array: Array, left: int, right: int) -> Tile:
    """Add the product of vector i from ``left`` on with vector j from ``right`` on to ``tile[i][j]``, halves together.

    The tile's shape says how many vectors there are.
    """
    result = []
    for i, group in enumerate(tile):
        a = load(array, left + LANES * i)
        products = [a * load(array, right + LANES * j) for j in range(len(group))]
        result.append(tuple(v + p[:HALF] + p[HALF:] for v, p in zip(group, products, strict=True)))
    return tuple(result)


@_lowered(add_products, lambda tile, array, left, right: _fits(array, tile))
def _emit_add_products(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    tile = _tile_members(builder, sig, args, 0)
    for half in (0, HALF):
        lefts = [
            _load(context, builder, sig, args, 1, _position(context, builder, sig, args, 2, LANES * i + half), HALF)
            for i in range(len(tile))
        ]
        # One right vector at a time: together with the sums and the left ones they just fit into the registers.
        for j in range(len(tile[0])):
            offset = _position(context, builder, sig, args, 3, LANES * j + half)
            right = _load(context, builder, sig, args, 1, offset, HALF)
            for left, row in zip(lefts, tile, strict=True):
                row[j] = _multiply_add(builder, left, right, row[j])
    return _make_tile(context, builder, sig.return_type, tile)


def store_sums(array: Array, at: int, stride: int, tile: Tile) -> None:
    """Write the sum of the lanes of ``tile[i][j]`` to ``array[at + i stride + j]``."""
    for i, group in enumerate(tile):
        for j, v in enumerate(group):
            array[at + i * stride + j] = v.sum()


def _pairwise_sums(builder: Any, a: Any, b: Any) -> Any:
    """Return sums of neighbours: within each half of four, two of ``a`` and then two of ``b``."""
    evens = _shuffle(builder, a, b, [0, 2, 8, 10, 4, 6, 12, 14])
    odds = _shuffle(builder, a, b, [1, 3, 9, 11, 5, 7, 13, 15])
    return builder.fadd(evens, odds)


@_lowered(store_sums, lambda array, at, stride, tile: _fits(array, types.none))
def _emit_store_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    stride = _position(context, builder, sig, args, 2)
    for i, group in enumerate(_tile_members(builder, sig, args, 3)):
        four = [*group, *[_constant(HALF, 0)] * (4 - len(group))]
        eighths = _pairwise_sums(builder, _pairwise_sums(builder, *four[:2]), _pairwise_sums(builder, *four[2:]))
        halves = [_shuffle(builder, eighths, eighths, half) for half in ([0, 1, 2, 3], [4, 5, 6, 7])]
        sums = builder.fadd(*halves)
        offset = _position(context, builder, sig, args, 1, plus=i, times=stride)
        if len(group) == 4:
            _store(context, builder, sig, args, 0, offset, sums)
            continue
        for j in range(len(group)):
            element = builder.extract_element(sums, ir.Constant(_I32, j))
            place = builder.add(offset, ir.Constant(offset.type, j))
            builder.store(element, _pointer(context, builder, sig, args, 0, place))
    return context.get_dummy_value()


def sum_lanes(v: Vector) -> float:
    """Return the sum of the lanes, neighbours added first."""
    while len(v) > 1:
        v = v[::2] + v[1::2]
    return float(v[0])


@_lowered(sum_lanes, lambda v: types.float32)
def _emit_sum_lanes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    v, lanes = args[0], LANES
    while lanes > 1:
        evens, odds = (_shuffle(builder, v, v, list(range(first, lanes, 2))) for first in (0, 1))
        v, lanes = builder.fadd(evens, odds), lanes // 2
    return builder.extract_element(v, ir.Constant(_I32, 0))


# -- gathering

#: The number of columns of a block that is gathered.
COLUMNS = 4


def gather_columns(table: Array, starts: NDArray[np.int64], first: int, column: int, array: Array, at: int) -> None:
    """Transpose a block: four columns of sixteen rows of a table become four vectors of ``array`` from ``at`` on.

    Row j begins at ``table[starts[first + j]]``.
    """
    for k in range(COLUMNS):
        array[at + LANES * k : at + LANES * (k + 1)] = table[starts[first : first + LANES] + (column + k)]


@_lowered(gather_columns, lambda table, starts, first, column, array, at: _fits(table, _fits(array, types.none)))
def _emit_gather_columns(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    column = _position(context, builder, sig, args, 3)

    def line(j: int) -> Any:
        place = _position(context, builder, sig, args, 2, plus=j)
        start = builder.load(_pointer(context, builder, sig, args, 1, place))
        return _load(context, builder, sig, args, 0, builder.add(start, column), COLUMNS)

    for half in (0, HALF):
        # Rows j and j + 4 side by side: no shuffle has to cross the middle of a register, as loads do that.
        lines = [_shuffle(builder, line(j), line(j + 4), list(range(HALF))) for j in range(half, half + 4)]
        for k, v in enumerate(_transposed(builder, lines)):
            _store(context, builder, sig, args, 4, _position(context, builder, sig, args, 5, LANES * k + half), v)
    return context.get_dummy_value()


def _transposed(builder: Any, lines: list[Any]) -> list[Any]:
    """Transpose four half vectors, each half of which holds a row, in two rounds of shuffles."""
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    pairs = [[_shuffle(builder, lines[j], lines[j + 1], p) for j in (0, 2)] for p in (low, high)]
    left, right = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    return [_shuffle(builder, pair[0], pair[1], p) for pair in pairs for p in (left, right)]


# -- subnormal numbers

#: Bits 15 and 6 of x86's MXCSR: results too small for a normal float become 0, and such operands count as 0.
_FLUSH = 0x8040


def flush_subnormals() -> int:
    """Take subnormal floats for 0 in this thread from now on; return what `restore_subnormals` wants back.

    Decaying moments and saturated outputs are full of them, and an operation on one can take a hundred times as long.
    This works on x86 only; elsewhere, and where numba is switched off, nothing changes.
    """
    return 0


def restore_subnormals(mode: int) -> None:
    """Undo `flush_subnormals`."""


_BYTES = ir.IntType(8).as_pointer()


def _control(builder: Any, name: str, word: Any) -> None:
    function = ir.FunctionType(ir.VoidType(), [_BYTES])
    builder.call(declared(builder.module, function, name), [builder.bitcast(word, _BYTES)])


def _on_x86() -> bool:
    return platform.machine().lower() in {"x86_64", "amd64"}


@_lowered(flush_subnormals, lambda: types.int32)
def _emit_flush_subnormals(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if not _on_x86():
        return ir.Constant(_I32, 0)
    word = builder.alloca(_I32)
    _control(builder, "llvm.x86.sse.stmxcsr", word)
    mode = builder.load(word)
    builder.store(builder.or_(mode, ir.Constant(_I32, _FLUSH)), word)
    _control(builder, "llvm.x86.sse.ldmxcsr", word)
    return mode


@_lowered(restore_subnormals, lambda mode: types.none)
def _emit_restore_subnormals(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if _on_x86():
        word = builder.alloca(_I32)
        builder.store(context.cast(builder, args[0], sig.args[0], types.int32), word)
        _control(builder, "llvm.x86.sse.ldmxcsr", word)
    return context.get_dummy_value()
