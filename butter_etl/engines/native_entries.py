"""Entries of compiled functions, as `butter_etl.engines.native_code` calls them: numba makes them, for a processor."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec
import numba as untyped_numba
import numba.extending as untyped_extending
import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba.core import cgutils
from numba.core import types as untyped_types
from numba.core.registry import cpu_target

from butter_etl.engines.native_code import (
    BOOL,
    DTYPES,
    FLOAT,
    FROM_C,
    INT,
    NEVER_CALLED,
    NONE,
    OTHER_NUMBER,
    RESULTS,
    Header,
    Signature,
)

# It says that it is typed but leaves most of its functions untyped.
numba: Any = untyped_numba
types: Any = untyped_types
intrinsic: Any = untyped_extending.intrinsic

#: The bytes that every object of Python's begins with, the last eight of which say its type.
_HEAD: Final = object.__basicsize__
_TYPE: Final = _HEAD - 8
#: From there on, where an array's object has its data, how many dimensions, their extents, its dtype and its flags.
_DATA, _DIMENSIONS, _EXTENTS, _DTYPE, _FLAGS = (_HEAD + offset for offset in (0, 8, 16, 40, 48))
#: Where a dtype's object has four letters, the third of which is its byte order, and its number in four bytes.
_LETTERS: Final = _HEAD + 8
_SWAPPED: Final = ord(">")
#: An array's flags: its elements lie one after the other in the order of C, and where their type may lie.
_PLAIN: Final = 0x0001 | 0x0100


@intrinsic  # type: ignore[untyped-decorator]
def _read(_context: Any, _address: Any, _offset: Any) -> Any:
    """Read the whole number, int64, that lies some bytes behind an address."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(builder.add(*arguments), ir.IntType(64).as_pointer())
        return builder.load(place)

    return types.int64(types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_context: Any, _address: Any) -> Any:
    """Return an address as a pointer."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(forceinline=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _is_array(kind: int, address: int, number: int, dimensions: int) -> bool:
    """Tell whether an object is of NumPy's array type, plain, and of a dtype and so many dimensions."""
    if _read(address, _TYPE) != kind or _read(address, _DIMENSIONS) & 0xFFFFFFFF != dimensions:
        return False
    letters = _read(_read(address, _DTYPE), _LETTERS)
    if letters >> 32 != number or letters >> 16 & 0xFF == _SWAPPED:
        return False
    is_plain: bool = _read(address, _FLAGS) & _PLAIN == _PLAIN
    return is_plain


def build(function: Any, signature: Signature) -> bytes:
    """Return the machine code of a function that numba compiles, for arguments of these types, and how to call it.

    Raises TypeError for a function that raises, allocates, calls what is not in its machine code, or returns what
    entries do not.
    """
    result = _result_of(function, signature)
    if result not in RESULTS:
        raise TypeError(f"{function.__name__} returns {result}, which an entry cannot")
    entry = _compile_entry(function, signature, result)
    header = msgspec.json.encode(Header(entry._wrapper_name, signature, result))
    return len(header).to_bytes(4, "little") + header + _machine_code(entry._library, entry._wrapper_name)


class _Argument(NamedTuple):
    """An argument of an entry: numba's type of it, and lines of Python about it."""

    takes: Any
    #: Whether it is of the right type, what makes an array of it, and what the function gets.
    check: str
    array: str
    given: str


def _argument(kind: str, name: str) -> _Argument:
    if kind == BOOL:
        return _Argument(types.int64, f"0 <= {name} <= 1", "", f"{name} != 0")
    if kind == NONE:
        return _Argument(types.int64, f"{name} == 0", "", "None")
    if kind in (INT, FLOAT):
        return _Argument(types.float64 if kind == FLOAT else types.int64, "", "", name)
    code, dimensions = kind.split()
    extents = "".join(f"_read(_read({name}, EXTENTS), {8 * place}), " for place in range(int(dimensions)))
    return _Argument(
        types.int64,
        f"_is_array(kind, {name}, {np.dtype(code).num}, {dimensions})",
        f"array_{name} = carray(_pointer(_read({name}, DATA)), ({extents}), {code})",
        f"array_{name}",
    )


def _compile_entry(function: Any, signature: Signature, result: str) -> Any:
    """Return numba's C function that calls a function, or returns `OTHER_NUMBER` for arguments of other types."""
    arguments = {f"a{number}": _argument(kind, f"a{number}") for number, kind in enumerate(signature)}
    call = f"function({', '.join(one.given for one in arguments.values())})"
    lines = [
        f"def entry({', '.join(['kind', *arguments])}):",
        f"    if not ({' and '.join(one.check for one in arguments.values() if one.check) or 'True'}):",
        f"        return {OTHER_NUMBER}",
        *(f"    {one.array}" for one in arguments.values() if one.array),
        *([f"    {call}", "    return 0"] if result == "none" else [f"    return {call}"]),
    ]
    names = {"function": function, "_is_array": _is_array, "_read": _read, "_pointer": _pointer, "carray": numba.carray}
    names |= {"EXTENTS": _EXTENTS, "DATA": _DATA, **{code: numba.from_dtype(np.dtype(code)) for code in DTYPES}}
    exec("\n".join(lines), names)  # noqa: S102 (nothing in it comes from outside)
    takes = types.int64(types.int64, *(one.takes for one in arguments.values()))
    return numba.cfunc(takes, error_model="numpy")(names["entry"])


def _result_of(function: Any, signature: Signature) -> str:
    """Return numba's name of the type of a function's result."""
    kinds = {INT: types.int64, BOOL: types.boolean, FLOAT: types.float64, NONE: types.none}
    takes = tuple(kinds[one] if one in kinds else _array_type(one) for one in signature)
    function.compile(takes)
    return str(function.overloads[takes].signature.return_type)


def _array_type(kind: str) -> Any:
    code, dimensions = kind.split()
    return types.Array(numba.from_dtype(np.dtype(code)), int(dimensions), "C")


#: What code may call that is not in it: the processor's and C's own, Python's and, where it would raise, numba's.
_KNOWN: Final = re.compile(
    r"llvm\.|_?Py|mem(cpy|move|set)$|sqrt$|" + "|".join(f"{name}$" for name in (*NEVER_CALLED, *FROM_C))
)


def _machine_code(library: Any, entry: str) -> bytes:
    """Return the machine code of a library, in which nothing but an entry is seen from outside.

    Numba numbers functions of one name in the order in which a process compiles them. Code from two processes may have
    one number for different functions, and where both are loaded, the first would be called for the other too.
    """
    module = binding.parse_assembly(library.get_llvm_str())
    others = [one.name for one in module.functions if one.is_declaration and not _KNOWN.match(one.name)]
    if "picklebuf" in str(module):
        others.append("an exception")
    if others:
        raise TypeError(f"a kernel that raises, allocates or calls other code: {', '.join(others)}")
    for one in module.functions:
        if not one.is_declaration and one.name != entry:
            one.linkage = "internal"
    code: bytes = cpu_target.target_context.codegen()._tm.emit_object(module)
    return code
