"""Thrift's compact protocol, in which Parquet spells page headers, page indexes and footers.

A structure is a dict: the number of a field -> its value, in the order of the file. What is read is written back to the
same bytes, fields that nobody here knows included.
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

#: The types of values, as the first half of a byte has them.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_INTEGERS: Final = (I16, I32, I64)
#: Structures within structures: more than Parquet has.
_DEEPEST: Final = 16


class Field(NamedTuple):
    """A value of a structure, and its type."""

    type: int
    value: Any


#: A structure: fields by their numbers.
Struct = dict[int, Field]


@dataclass(frozen=True)
class List:
    """A list or a set of values of one type; those of a list of structures are `Struct`."""

    type: int
    values: list[Any]


class ThriftError(ValueError):
    """Bytes that are no structure; the message says why."""


def i32(value: int) -> Field:
    """Return a whole number of 32 bits."""
    return Field(I32, value)


def i64(value: int) -> Field:
    """Return a whole number of 64 bits."""
    return Field(I64, value)


def structs(values: list[Struct]) -> Field:
    """Return a list of structures."""
    return Field(LIST, List(STRUCT, values))


# --- reading -----------------------------------------------------------------------------------------------------


def read_struct(data: bytes, position: int = 0, *, after: int = 0) -> tuple[Struct, int]:
    """Return the structure that begins at ``position``, or what follows its field ``after``; and the position behind.

    Raises ThriftError if there is none.
    """
    try:
        return _struct(data, position, 0, after)
    except IndexError as error:
        raise ThriftError("ends within a structure") from error


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a whole number, seven bits a byte, and the position behind it; raise IndexError where it has no end."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ThriftError("has a number of more than 64 bits")


def _struct(data: bytes, position: int, depth: int, number: int = 0) -> tuple[Struct, int]:
    if depth > _DEEPEST:
        raise ThriftError("has structures too deep within structures")
    fields: Struct = {}
    while head := data[position]:
        position += 1
        kind, delta = head & 0x0F, head >> 4
        if delta:
            number += delta
        else:
            number, position = _zigzag(data, position)
        if kind in (TRUE, FALSE):
            fields[number] = Field(kind, kind == TRUE)
        else:
            value, position = _value(data, position, kind, depth)
            fields[number] = Field(kind, value)
    return fields, position + 1


def _zigzag(data: bytes, position: int) -> tuple[int, int]:
    value, position = read_varint(data, position)
    return (value >> 1) ^ -(value & 1), position


def _value(data: bytes, position: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _zigzag(data, position)
    if kind == BINARY:
        length, position = read_varint(data, position)
        return _bytes(data, position, length)
    if kind == STRUCT:
        return _struct(data, position, depth + 1)
    if kind in (LIST, SET):
        return _list(data, position, depth)
    if kind == DOUBLE:
        return _bytes(data, position, 8)
    if kind in (BYTE, TRUE, FALSE):  # a bool in a list is a byte
        return data[position], position + 1
    raise ThriftError(f"has a value of type {kind}")


def _bytes(data: bytes, position: int, length: int) -> tuple[bytes, int]:
    end = position + length
    if end > len(data):
        raise ThriftError("ends within a value")
    return data[position:end], end


def _list(data: bytes, position: int, depth: int) -> tuple[List, int]:
    head = data[position]
    position += 1
    kind, size = head & 0x0F, head >> 4
    if size == 15:
        size, position = read_varint(data, position)
    if size > len(data) - position:  # each value takes a byte
        raise ThriftError("ends within a list")
    values = []
    for _ in range(size):
        value, position = _value(data, position, kind, depth)
        values.append(value)
    return List(kind, values), position


# --- writing -----------------------------------------------------------------------------------------------------


def write_struct(fields: Struct, out: bytearray) -> None:
    """Append a structure; its fields must stand in the order of their numbers."""
    write_fields(fields, out)
    out.append(0)


def write_fields(fields: Struct, out: bytearray, *, after: int = 0) -> None:
    """Append fields of a structure whose last one so far is ``after``, without its end."""
    for number, (kind, value) in fields.items():
        write_field_head(number, after, kind, out)
        after = number
        if kind not in (TRUE, FALSE):
            write_value(kind, value, out)


def write_field_head(number: int, after: int, kind: int, out: bytearray) -> None:
    """Append what stands before the value of a field, which follows the field ``after``."""
    if 0 < number - after < 16:
        out.append((number - after) << 4 | kind)
    else:
        out.append(kind)
        _write_zigzag(number, out)


def write_list_head(kind: int, size: int, out: bytearray) -> None:
    """Append what stands before the values of a list."""
    if size < 15:
        out.append(size << 4 | kind)
    else:
        out.append(0xF0 | kind)
        write_varint(size, out)


def write_varint(value: int, out: bytearray) -> None:
    """Append a whole number that is not negative, seven bits a byte."""
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _write_zigzag(value: int, out: bytearray) -> None:
    write_varint(value << 1 if value >= 0 else (-value << 1) - 1, out)


def write_value(kind: int, value: Any, out: bytearray) -> None:
    """Append a value of a type."""
    if kind in _INTEGERS:
        _write_zigzag(value, out)
    elif kind == BINARY:
        write_varint(len(value), out)
        out += value
    elif kind == STRUCT:
        write_struct(value, out)
    elif kind in (LIST, SET):
        _write_list(value, out)
    elif kind == DOUBLE:
        out += value
    else:
        out.append(value)


def _write_list(value: List, out: bytearray) -> None:
    write_list_head(value.type, len(value.values), out)
    for one in value.values:
        write_value(value.type, one, out)
