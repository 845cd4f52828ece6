"""Instructions that the kernels for recurrent networks add to those of the other engines.

As in `butter_etl.engines.fused.lanes`, each is a plain function on NumPy arrays, its definition and what runs where
numba is switched off, followed by the LLVM instructions that compiled callers get.
"""

# ruff: noqa: ARG001  numba calls every emitter with the same four arguments

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core import types as numba_types

from butter_etl.engines.fused.lanes import LANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.fused.lanes import Vector

# Numba says that it is typed but leaves most of its functions untyped.
types: Any = numba_types
numba_extending: Any = extending

_WIDE = ir.VectorType(ir.DoubleType(), LANES)


def add_squares(sums: NDArray[np.float64], at: int, v: Vector) -> None:
    """Add the square of each lane, in float64, to its own sum, of the sixteen from ``at`` on."""
    sums[at : at + LANES] += v.astype(np.float64) ** 2


@numba_extending.type_callable(add_squares)  # type: ignore[untyped-decorator]
def _type_of_add_squares(context: Any) -> Any:
    return lambda sums, at, v: types.none


@numba_extending.lower_builtin(add_squares, types.VarArg(types.Any))  # type: ignore[untyped-decorator]
def _emit_add_squares(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    at = context.cast(builder, args[1], sig.args[1], types.intp)
    place = builder.bitcast(builder.gep(data, [at]), _WIDE.as_pointer())
    wide = builder.fpext(args[2], _WIDE)
    builder.store(builder.fadd(builder.load(place, align=8), builder.fmul(wide, wide)), place, align=8)
    return context.get_dummy_value()
