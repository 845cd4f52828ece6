"""Arrays of records in pickles, read as data: nothing that a pickle names is imported, nothing of it is called.

A pickle is a program. Of what such programs can do, an array of records needs little: texts, numbers, tuples, lists,
dictionaries, and a few names. For these names there are stand-ins here that only note what they are given; NumPy itself
never sees it before it has been checked. Any other name is refused where it is met, before it means anything, and so is
every step that protocols 0 to 2 do not have.

`read_columns` reads what Python 2 and 3, NumPy 1 and 2 write by these protocols; texts of Python 2 are read as Latin-1.

Source of the format: Python's modules pickle and pickletools, NumPy's ``ndarray.__reduce__`` and ``dtype.__reduce__``.
"""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np

from butter_etl.errors import SourceError, counted, one_line

#: What is read: the protocols that Python 2 has.
_PROTOCOLS: Final = (0, 1, 2)
_NUMBER: Final = re.compile(r"[|<>=]?(?:b1|[iu][1248]|f(?:2|4|8|12|16))")
_TEXT: Final = re.compile(r"[|<>=]?[SU][0-9]{1,9}")
_OBJECT: Final = re.compile(r"[|<>=]?O[48]?")
#: Letters of a file's text that a message shows, at most.
_SHOWN: Final = 80
#: Numbers of records, and of bytes of a record, that NumPy can have.
_MOST: Final = 2**31
#: A string of protocol 0 between its quotes, as Python 2 spells it.
_SPELLED: Final = re.compile(rb"(?:[^\\]|\\[\\'\"nrt]|\\x[0-9a-fA-F]{2})*", re.DOTALL)
_QUOTES: Final = (b"'", b'"')


# --- stand-ins ---------------------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """A name that arrays need: ``call`` stands in for what it means, None where it is never called."""

    name: str
    call: Callable[[tuple[Any, ...]], Any] | None = None


@dataclass(slots=True, eq=False)
class _Array:
    """An array that is being read: its state, as ``ndarray.__reduce__`` gives it."""

    state: Any = None


@dataclass(slots=True, eq=False)
class _Type:
    """A type that is being read: its code and its state, as ``dtype.__reduce__`` gives them."""

    code: Any
    state: Any = None
    made: np.dtype[Any] | None = None


def _array(_arguments: tuple[Any, ...]) -> _Array:
    return _Array()


def _type(arguments: tuple[Any, ...]) -> _Type:
    if not arguments:
        raise SourceError("has a type without its code")
    return _Type(arguments[0])


def _scalar(arguments: tuple[Any, ...]) -> Any:
    """Return the number or text of a NumPy scalar, as Python has it."""
    if len(arguments) != 2 or not isinstance(arguments[0], _Type):
        raise SourceError("has a scalar that is none of NumPy's")
    kind, raw = arguments
    content = raw.encode("latin1") if isinstance(raw, str) else raw
    made = _made(kind)
    if not isinstance(content, bytes) or len(content) != made.itemsize:
        raise SourceError(f"has a scalar of {made} that does not have {counted(made.itemsize, 'byte')}")
    return _values(np.frombuffer(content, made))[0]


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """Return the bytes that a text of Python 3 stands for; protocols up to 2 have no other way to write them."""
    text = arguments[0] if arguments else None
    if not isinstance(text, str) or arguments[1:] != ("latin1",):
        raise SourceError("has an encoding that is not latin1")
    return text.encode("latin1")


def _no_bytes(arguments: tuple[Any, ...]) -> bytes:
    """Return the bytes that Python 3 writes for none."""
    if arguments:
        raise SourceError("has bytes that are made of something")
    return b""


_ARRAYS: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_RECORDS: Final = ("numpy", "numpy.core.records", "numpy._core.records", "numpy.rec")
#: Every name that is admitted, with what stands in for it.
_ADMITTED: Final[Mapping[tuple[str, str], _Name]] = {
    **dict.fromkeys([(module, "_reconstruct") for module in _ARRAYS], _Name("_reconstruct", _array)),
    **dict.fromkeys([(module, "scalar") for module in _ARRAYS], _Name("scalar", _scalar)),
    **dict.fromkeys([(module, "record") for module in _RECORDS], _Name("record")),
    **dict.fromkeys([(module, "recarray") for module in _RECORDS], _Name("recarray")),
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype", _type),
    ("_codecs", "encode"): _Name("encode", _encoded),
    ("__builtin__", "bytes"): _Name("bytes", _no_bytes),
}


# --- the machine -------------------------------------------------------------------------------------------------


class _Steps(dict[int, Callable[[Any], None]]):
    """What is done at each step of a pickle, by its code; steps that are not admitted are refused by name."""

    def __missing__(self, code: int) -> NoReturn:
        known = next((one for one in pickletools.opcodes if ord(one.code) == code), None)
        if known is None:
            raise SourceError(f"is no pickle: {code:#04x} is none of its steps")
        if known.proto > max(_PROTOCOLS):
            raise SourceError(f"has the step {known.name} of protocol {known.proto}; write it by protocol 2")
        raise SourceError(f"has the step {known.name}, which no array of records needs")


class _Lines(io.BytesIO):
    """The bytes of a pickle; a line without its end is torn."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError("a line without its end")
        return line


# Python's own machine, the one that is written in Python: the other one makes room for what a file says that it will
# remember, where ten bytes can ask for 64 GiB. Mypy knows neither its methods nor what it is.
class _Machine(pickle._Unpickler):
    """Reads one pickle; whatever it names is a stand-in, and it does nothing else with these than hand them over."""

    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    dispatch = _Steps(
        {
            ord(step): pickle._Unpickler.dispatch[ord(step)]
            for step in "N\x88\x89IJKMLGF\x8a\x8bTUVX()t\x85\x86\x87]lae}pqrghjc.0"
        }
    )

    def __init__(self, data: bytes) -> None:
        self.file = _Lines(data)
        super().__init__(self.file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _refused(module, name)
        return _ADMITTED[module, name]

    def load_proto(self) -> None:
        protocol = self.read(1)[0]
        if protocol not in _PROTOCOLS:
            raise SourceError(f"is a pickle of protocol {protocol}; write it by protocol 2")

    def load_inst(self) -> None:
        """Refuse an instance by the name of its class."""
        module, name = (self.readline()[:-1].decode("latin1") for _ in range(2))
        raise _refused(module, name)

    def load_string(self) -> None:
        line = self.readline()
        quote, text = line[:1], line[1:-2]
        if quote not in _QUOTES or line[-2:] != quote + b"\n" or not _SPELLED.fullmatch(text):
            raise SourceError("has a text that Python 2 does not spell so")
        self.append(codecs.escape_decode(text)[0].decode("latin1"))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_setitems(self) -> None:
        self._put(self.pop_mark())

    def _put(self, items: list[Any]) -> None:
        into = self.stack[-1]
        keys = items[::2]
        # Other keys are of no use, and a hash of nested tuples can take forever.
        if type(into) is not dict or len(items) % 2 or not all(type(key) is str for key in keys):
            raise SourceError("has a dictionary whose keys are not all texts")
        into.update(zip(keys, items[1::2], strict=True))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(function, _Name) or function.call is None or type(arguments) is not tuple:
            raise SourceError(f"calls {_kind(function)}, which is no function of arrays")
        self.stack[-1] = function.call(arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        built = self.stack[-1]
        if not isinstance(built, _Array | _Type):
            raise SourceError(f"gives {_kind(built)} a state, which only arrays and their types have")
        built.state = state

    dispatch |= {
        pickle.PROTO[0]: load_proto,
        pickle.INST[0]: load_inst,
        pickle.STRING[0]: load_string,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
    }


def _refused(module: str, name: str) -> SourceError:
    what = shown(f"{module}.{name}")
    return SourceError(f"names {what}, which no array of records needs: nothing of the file was run")


def shown(text: str) -> str:
    """Return a text of a file as a line can show it: short, and without what is not printed."""
    printed = text if text.isprintable() else ascii(text)[1:-1]
    return printed if len(printed) <= _SHOWN else f"{printed[:_SHOWN]}…"


#: What the machine raises where steps do not fit together.
_UNFIT: Final = (
    pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError,
    struct.error,
)  # fmt: skip


def _run(data: bytes) -> Any:
    """Return what a pickle leaves, stand-ins in place of arrays and types; raise SourceError for what is none."""
    machine = _Machine(data)
    try:
        left = machine.load()
    except SourceError:
        raise
    except _UNFIT as error:
        place = machine.file.tell()
        if place >= len(data):
            raise SourceError(f"is torn: it ends after {counted(len(data), 'byte')}, before the array does") from error
        raise SourceError(f"is no pickle that can be read: at byte {place}: {shown(one_line(error))}") from error
    if more := len(data) - machine.file.tell():
        raise SourceError(f"has {counted(more, 'byte')} behind the end of its array")
    return left


def _kind(value: Any) -> str:
    """Return in a word or two what kind of thing a value of a pickle is."""
    if isinstance(value, _Name):
        return value.name
    names = {_Array: "an array", _Type: "a type"}
    return names.get(type(value), f"a {type(value).__name__}")


# --- from the machine to columns ---------------------------------------------------------------------------------


class _Field(NamedTuple):
    """A field of records: its name, its type (None for objects), and at which byte of a record it is."""

    name: str
    type: np.dtype[Any] | None
    offset: int


def read_columns(data: bytes) -> dict[str, list[Any]]:
    """Return the fields of a pickled array of records, a list of one value a record each, by name.

    Values are what Python 3 has for them: numbers, texts, None, and within objects dictionaries, lists and tuples of
    these. Raises SourceError, one line, for all else: other names than arrays need, other protocols, a torn file, a
    type or a number of records that is not what is there, anything that is no array of records.
    """
    left = _run(data)
    if not isinstance(left, _Array):
        raise SourceError(f"is a pickle of {_kind(left)}, not of an array of records")
    kind, records, content = _parts(left)
    fields, size = _fields(kind)
    if isinstance(content, list):
        return _from_tuples(fields, records, content)
    return _from_bytes(fields, records, size, content)


def _parts(array: _Array) -> tuple[_Type, int, list[Any] | bytes]:
    """Return the type of an array, its number of records, and its content: tuples, or bytes."""
    state = array.state
    if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], _Type):
        raise SourceError("has an array without a state that NumPy gives")
    _, shape, kind, _, content = state
    if type(shape) is not tuple or len(shape) != 1 or not _is_count(shape[0]):
        raise SourceError("has an array that is not of one dimension, or of no number of records that a file can have")
    if isinstance(content, str):
        content = content.encode("latin1")
    if not isinstance(content, list | bytes):
        raise SourceError(f"has an array whose content is {_kind(content)}")
    return kind, shape[0], content


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _fields(kind: _Type) -> tuple[list[_Field], int]:
    """Return the fields of the type of a record, and how many bytes a record has."""
    names, places, size = _declared(kind)
    fields = []
    for name in names:
        place = places.get(name)
        if type(place) is not tuple or len(place) not in (2, 3) or not isinstance(place[0], _Type):
            raise SourceError(f"has no type for the field '{shown(name)}'")
        inner, offset = place[:2]
        of = None if _is_object(inner) else _made(inner, name)
        if not _is_count(offset) or offset > size - (0 if of is None else of.itemsize):
            raise SourceError(f"has the field '{shown(name)}' outside of its records")
        fields.append(_Field(name, of, offset))
    return fields, size


def _declared(kind: _Type) -> tuple[list[str], dict[str, Any], int]:
    """Return the names of a record's fields, where they are, and how many bytes it has."""
    state = kind.state
    if type(state) is not tuple or len(state) not in (8, 9):
        raise SourceError("has a type without a state that NumPy gives")
    _, _, inner, names, places, size = state[:6]
    if inner is not None or type(names) is not tuple or type(places) is not dict:
        raise SourceError("is an array, but not of records with named fields")
    if not names or not all(type(name) is str for name in names) or len(set(names)) < len(names):
        raise SourceError("has an array whose fields have no names, or not each its own")
    if not _is_count(size) or size < 1:
        raise SourceError("has records without a size")
    return list(names), places, size


def _is_object(kind: _Type) -> bool:
    return type(kind.code) is str and _OBJECT.fullmatch(kind.code) is not None


def _made(kind: _Type, name: str = "") -> np.dtype[Any]:
    """Return the type of plain numbers or texts that is meant; raise SourceError for any other."""
    if kind.made is None:
        code, state = kind.code, kind.state
        is_plain = type(code) is str and (_NUMBER.fullmatch(code) or _TEXT.fullmatch(code))
        of = f"has the field '{shown(name)}' of a type" if name else "has a scalar of a type"
        is_array = type(state) is tuple and len(state) > 2 and state[2] is not None
        if not is_plain or is_array:
            raise SourceError(f"{of} that is neither numbers, texts nor objects")
        order = state[1] if type(state) is tuple and len(state) > 1 else "="
        try:
            kind.made = np.dtype(code).newbyteorder(order if order in ("<", ">", "=", "|") else "=")
        except (TypeError, ValueError) as error:
            raise SourceError(f"{of} that is not known here ({one_line(error)})") from error
    return kind.made


def _from_tuples(fields: Sequence[_Field], records: int, content: list[Any]) -> dict[str, list[Any]]:
    if len(content) != records:
        raise SourceError(f"says that it has {counted(records, 'record')}, but has {len(content):,}")
    width = len(fields)
    for number, record in enumerate(content):
        if type(record) is not tuple or len(record) != width:
            raise SourceError(f"record {number} is no tuple of {counted(width, 'value')}, one a field")
    columns = zip(*content, strict=True) if content else [()] * width
    return {field.name: list(map(_text, column)) for field, column in zip(fields, columns, strict=True)}


def _from_bytes(fields: Sequence[_Field], records: int, size: int, content: bytes) -> dict[str, list[Any]]:
    if objects := [field.name for field in fields if field.type is None]:
        raise SourceError(f"has the field '{shown(objects[0])}' of objects, but no objects")
    if len(content) != records * size:
        said = f"{counted(records, 'record')} of {counted(size, 'byte')}"
        raise SourceError(f"says that it has {said}, but has {counted(len(content), 'byte')}")
    if not records:
        return {field.name: [] for field in fields}
    kind = np.dtype(
        {
            "names": [field.name for field in fields],
            "formats": [field.type for field in fields],
            "offsets": [field.offset for field in fields],
            "itemsize": size,
        }
    )
    array = np.frombuffer(content, kind)
    return {field.name: _values(array[field.name]) for field in fields}


def _values(array: np.ndarray[Any, np.dtype[Any]]) -> list[Any]:
    """Return the numbers or texts of an array, as Python has them; wider floats than float64 are rounded to it."""
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    values: list[Any] = array.tolist()
    return list(map(_text, values)) if array.dtype.kind == "S" else values


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value
