"""Machine code of compiled functions, called without numba: to load it takes a twentieth of importing that.

Numba compiles a function for arguments of some types, together with an entry of its own: a C function of whole numbers
and floats, which gets the address of each array's object. What an array is, the entry reads from the structure that
NumPy declares for C (``PyArrayObject_fields`` and the start of its dtype's, the same in NumPy 1 and 2): an argument of
another type is found out before anything is read. LLVM alone, by llvmlite, loads the code and finds the entry.

Functions that are called so raise nothing, allocate nothing, and return a whole number, a bool or None.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from operator import index
from typing import Any, Final, cast

import msgspec
import numpy as np

#: A type for each argument: of an array its elements' and its dimensions, such as ``u1 1``, or one of these.
Signature = tuple[str, ...]
INT, BOOL, FLOAT, NONE = "int", "bool", "float", "none"

#: What an entry returns where an argument is of another type, and what a call then returns.
OTHER_NUMBER: Final = -(2**63)
OTHER: Final = object()
#: The types of arrays' elements.
DTYPES: Final = frozenset(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"])
#: The most dimensions of an array.
_MOST_DIMENSIONS: Final = 3
#: What entries call only where a function raises or has memory from numba, as none does.
NEVER_CALLED: Final = (
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_unpickle",
    "numba_do_raise",
    "numba_runtime_build_excinfo_struct",
    "NRT_MemInfo_call_dtor",
    "NRT_Free",
)
#: What numba calls functions of C's mathematics.
FROM_C: Final = {"numba_frexp": "frexp", "numba_ldexp": "ldexp"}


class Header(msgspec.Struct, frozen=True):
    """How to call what follows it: the entry's name, and the types of arguments and of the result."""

    entry: str
    signature: Signature
    result: str


#: A function for arguments of some types. It returns `OTHER` for others, or raises TypeError.
Native = Callable[..., Any]


def _flag(value: Any) -> int:
    """Return 0 or 1 for a bool, 2 for everything else."""
    return int(value) if isinstance(value, (bool, np.bool_)) else 2


#: How arguments are given, by their types; of an array it is the address of its object.
_GIVEN: Final = {INT: "index({})", BOOL: "flag({})", FLOAT: "float({})", NONE: "{} is not None"}
#: How results come back, by numba's names of their types.
RESULTS: Final = {"int64": "found", "bool": "found != 0", "none": "None"}
_ARRAY_TYPE: Final = id(np.ndarray)


def signature_of(arguments: tuple[Any, ...]) -> Signature | None:
    """Return the types of arguments; None where one is of a type that entries do not take."""
    found = []
    for one in arguments:
        kind = _type_of(one)
        if kind is None:
            return None
        found.append(kind)
    return tuple(found)


def _type_of(argument: Any) -> str | None:
    if type(argument) is np.ndarray:
        plain = argument.flags.c_contiguous and argument.flags.aligned and argument.dtype.isnative
        is_number = argument.dtype.str[1:] in DTYPES and 0 < argument.ndim <= _MOST_DIMENSIONS
        return f"{argument.dtype.str[1:]} {argument.ndim}" if plain and is_number else None
    if isinstance(argument, (bool, np.bool_)):
        return BOOL
    if isinstance(argument, (int, np.integer)):
        return INT
    if isinstance(argument, (float, np.floating)):
        return FLOAT
    return NONE if argument is None else None


def load(content: bytes) -> Native:
    """Return a function that `butter_etl.engines.native_entries.build` returned the code of; it stays loaded."""
    end = 4 + int.from_bytes(content[:4], "little")
    header = msgspec.json.decode(content[4:end], type=Header)
    address = _linker().add(header.entry, content[end:])
    takes = [ctypes.c_double if kind == FLOAT else ctypes.c_int64 for kind in header.signature]
    # Without the lock of the interpreter: threads compute side by side.
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, *takes)(address)
    names = [f"a{number}" for number in range(len(takes))]
    given = [_GIVEN.get(kind, "id({})").format(name) for kind, name in zip(header.signature, names, strict=True)]
    # Written out, since kernels may take less time than a loop over their arguments.
    called: dict[str, Any] = {"entry": entry, "index": index, "flag": _flag, "OTHER": OTHER}
    exec(  # noqa: S102 (of what is read here, nothing is in it)
        f"def native({', '.join(names)}):\n    found = entry({', '.join([str(_ARRAY_TYPE), *given])})\n"
        f"    return OTHER if found == {OTHER_NUMBER} else {RESULTS[header.result]}",
        called,
    )
    return cast("Native", called["native"])


#: C's library and its mathematics, of which this process has them.
_C: Final = ctypes.CDLL(None)


class _Linker:
    """LLVM, as far as it places machine code into memory."""

    def __init__(self) -> None:
        from llvmlite import binding  # type: ignore[import-untyped]

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        symbols = {**dict.fromkeys(NEVER_CALLED, "abort"), **FROM_C}
        for name, meant in symbols.items():
            # Symbols are the whole process's: where numba is, its own stay, and where it comes later, it sets them.
            if not binding.address_of_symbol(name):
                binding.add_symbol(name, ctypes.cast(getattr(_C, meant), ctypes.c_void_p).value)
        machine = binding.Target.from_default_triple().create_target_machine()
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        self._object_file = binding.object_file.ObjectFileRef

    def add(self, entry: str, code: bytes) -> int:
        """Place machine code into memory, for as long as the process lives; return the address of its entry."""
        self._engine.add_object_file(self._object_file.from_data(code))
        self._engine.finalize_object()
        address: int = self._engine.get_function_address(entry)
        return address


_linker = cache(_Linker)
