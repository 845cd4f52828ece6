"""How functions are compiled: without the interpreter, so that other threads run meanwhile; dividing as NumPy does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

    _Function = TypeVar("_Function", bound="Callable[..., Any]")


def compiled(function: _Function) -> _Function:
    """Compile a function for calls from other compiled functions, and from outside."""
    result: _Function = cast("Any", njit)(nogil=True, error_model="numpy")(function)
    return result


def compiled_in_place(function: _Function) -> _Function:
    """Compile a function into its callers, where a call takes longer than the work, or moves vectors to memory."""
    result: _Function = cast("Any", njit)(nogil=True, error_model="numpy", forceinline=True)(function)
    return result
