"""How functions are compiled: without the interpreter, so that other threads run meanwhile; dividing as NumPy does.

Numba, which takes long to import, is imported when something is compiled, or called with arguments that no machine code
is at hand for (`butter_etl.engines.kernel_cache.ready`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, TypeVar, cast

from butter_etl.engines.native_code import OTHER, Native, Signature, signature_of

_Function = TypeVar("_Function", bound="Callable[..., Any]")


class Kernel:
    """A function that is compiled when it is needed; compiled functions call it as one of theirs."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self._options = options
        self.py_func = function
        update_wrapper(self, function)
        #: The machine code that is at hand, and that which was called last.
        self.natives: dict[Signature, Native] = {}
        self._last: Native | None = None

    @cached_property
    def dispatcher(self) -> Any:
        """Return the function as numba has it."""
        from numba import njit

        made: Any = cast("Any", njit)(nogil=True, error_model="numpy", **self._options)(self.py_func)
        return made

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, by machine code that is at hand or else by numba."""
        if self._last is None:
            return self.dispatcher(*arguments)
        try:
            found = self._last(*arguments)
        except TypeError:
            found = OTHER
        return self._call_other(arguments) if found is OTHER else found

    def _call_other(self, arguments: tuple[Any, ...]) -> Any:
        """Call the function with arguments of other types than the last ones."""
        signature = signature_of(arguments)
        native = None if signature is None else self.natives.get(signature)
        if native is not None:
            found = native(*arguments)
            if found is not OTHER:
                self._last = native
                return found
        return self.dispatcher(*arguments)

    def add(self, signature: Signature, native: Native) -> None:
        """Have machine code at hand for arguments of these types."""
        self.natives[signature] = self._last = native


def is_switched_off() -> bool:
    """Tell whether the interpreter runs what would be compiled, as ``NUMBA_DISABLE_JIT=1`` says to numba."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def _kernel(function: _Function, **options: Any) -> _Function:
    return function if is_switched_off() else cast("_Function", Kernel(function, **options))


def compiled(function: _Function) -> _Function:
    """Compile a function for calls from other compiled functions, and from outside."""
    return _kernel(function)


def compiled_in_place(function: _Function) -> _Function:
    """Compile a function into its callers, where a call takes longer than the work, or moves vectors to memory."""
    return _kernel(function, forceinline=True)


def compiled_inside(function: _Function) -> _Function:
    """Compile a function for calls from other compiled functions only: it has no entry from outside, and takes half."""
    return _kernel(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)
