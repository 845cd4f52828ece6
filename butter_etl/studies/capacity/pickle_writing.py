"""Arrays of records as pickles that Python 2 and 3, NumPy 1 and 2 can load: protocol 2, and few names.

NumPy 2 itself writes names that NumPy 1.16 does not know, and Python 3 writes texts that are none of Python 2's usual
ones. So the steps are written here, one by one, as Python 2 with NumPy 1.16 writes them. They depend on nothing but the
values: equal records are equal bytes.

Source of the format: Python's modules pickle and pickletools, NumPy's ``ndarray.__reduce__`` and ``dtype.__reduce__``.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

#: The types of fields that are written: objects, int64, float64.
FieldType = Literal["O", "i8", "f8"]
_SIZE: Final = 8
#: Records that are handed to a list at once, as Python's own pickles do.
_AT_ONCE: Final = 1000
_LEAST, _MOST = -(2**31), 2**31 - 1
#: What of a type's state depends on the type: order of bytes, flags.
_STATES: Final[Mapping[str, tuple[str, int]]] = {"O": ("|", 63), "i8": ("<", 0), "f8": ("<", 0)}


class _Writer:
    """Writes the steps of one pickle; equal values become equal steps, whichever objects they are."""

    def __init__(self) -> None:
        self.steps = bytearray(b"\x80\x02")
        self._kept: dict[Any, int] = {}

    def once(self, key: Any, write: Callable[[], None]) -> None:
        """Write something that is used again: the first time itself, then where it is kept."""
        if key in self._kept:
            self._step("h", "j", self._kept[key])
            return
        write()
        self._kept[key] = len(self._kept)
        self._step("q", "r", self._kept[key])

    def _step(self, short: str, long: str, number: int) -> None:
        self.steps += (
            struct.pack("<cB", short.encode(), number) if number < 256 else struct.pack("<cI", long.encode(), number)
        )

    def name(self, module: str, name: str) -> None:
        """Write a name that means something to Python."""
        self.once((module, name), lambda: self.raw(f"c{module}\n{name}\n".encode()))

    def raw(self, steps: bytes) -> None:
        """Write steps as they are."""
        self.steps += steps

    def value(self, value: Any) -> None:
        """Write None, a truth value, a number, a text, a tuple, or a dictionary; raise TypeError for anything else."""
        match value:
            case None:
                self.steps += b"N"
            case bool():
                self.steps += b"\x88" if value else b"\x89"
            case int():
                self.steps += _whole(value)
            case float():
                self.steps += struct.pack(">cd", b"G", value)
            case str():
                self.once(value, lambda: self.raw(_spelled(value)))
            case tuple():
                self._tuple(value)
            case dict():
                self.steps += b"}("
                for key, one in value.items():
                    self.value(key)
                    self.value(one)
                self.steps += b"u"
            case _:
                raise TypeError(f"{type(value).__name__} is not written")

    def _tuple(self, values: tuple[Any, ...]) -> None:
        self.steps += b"("
        for one in values:
            self.value(one)
        self.steps += b"t"

    def type(self, code: str) -> None:
        """Write the type of a field."""
        self.once(("type", code), lambda: self._new_type(code))

    def _new_type(self, code: str) -> None:
        order, flags = _STATES[code]
        self.name("numpy", "dtype")
        self.value((f"{code}{_SIZE}" if code == "O" else code, 0, 1))
        self.steps += b"R"
        self.value((3, order, None, None, None, -1, -1, flags))
        self.steps += b"b"


def _whole(number: int) -> bytes:
    if 0 <= number < 2**8:
        return struct.pack("<cB", b"K", number)
    if 0 <= number < 2**16:
        return struct.pack("<cH", b"M", number)
    if _LEAST <= number <= _MOST:
        return struct.pack("<ci", b"J", number)
    content = pickle.encode_long(number)
    return struct.pack("<cB", b"\x8a", len(content)) + content


def _spelled(text: str) -> bytes:
    """Return the steps of a text: one of bytes where it is ASCII, which Python 2 and 3 have as their usual text."""
    if not text.isascii():
        content = text.encode("utf-8", "surrogatepass")
        return struct.pack("<cI", b"X", len(content)) + content
    content = text.encode()
    if len(content) < 2**8:
        return struct.pack("<cB", b"U", len(content)) + content
    return struct.pack("<ci", b"T", len(content)) + content


def write_columns(fields: Mapping[str, FieldType], records: Iterable[tuple[Any, ...]], count: int) -> bytes:
    """Return ``count`` records, each a tuple of a value a field, as a pickled one-dimensional array.

    It is of protocol 2, and the same for equal records. It names nothing but NumPy's ``_reconstruct``, ``ndarray`` and
    ``dtype`` where NumPy 1 has them. ASCII texts are the usual text under Python 2 as under Python 3 with
    ``encoding="latin1"``. Raises TypeError for objects that are no numbers, texts, None, tuples or dictionaries of
    these, ValueError if there are not so many records.
    """
    if "O" not in fields.values():
        raise ValueError("records without objects have another form")
    writer = _Writer()
    writer.name("numpy.core.multiarray", "_reconstruct")
    writer.name("numpy", "ndarray")
    writer.value((0,))
    writer.value("b")
    writer.raw(b"\x87R(")
    writer.value(1)
    writer.value((count,))
    _write_type(writer, fields)
    writer.raw(b"\x89]")
    written = 0
    for number, record in enumerate(records):
        writer.raw(b"(" if number % _AT_ONCE == 0 else b"")
        writer.value(record)
        written = number + 1
        writer.raw(b"e" if written % _AT_ONCE == 0 else b"")
    writer.raw(b"e" if written % _AT_ONCE else b"")
    if written != count:
        raise ValueError(f"{written} records, not {count}")
    writer.raw(b"tb.")
    return bytes(writer.steps)


def _write_type(writer: _Writer, fields: Mapping[str, FieldType]) -> None:
    size = _SIZE * len(fields)
    writer.name("numpy", "dtype")
    writer.value((f"V{size}", 0, 1))
    writer.raw(b"R(")
    for value in (3, "|", None, tuple(fields)):
        writer.value(value)
    writer.raw(b"}(")
    for number, (name, code) in enumerate(fields.items()):
        writer.value(name)
        writer.type(code)
        writer.value(number * _SIZE)
        writer.raw(b"\x86")
    writer.raw(b"u")
    for value in (size, 1, 27):
        writer.value(value)
    writer.raw(b"tb")
