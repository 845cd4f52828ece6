"""Tables in text files: CSV, TSV, and what goes by those names.

The file's content tells how it is compressed, and its first line what separates values. Quotes that are not what they
should be are refused, since each would swallow rows that nobody misses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

#: What a compressed file begins with.
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEPARATORS = (",", "\t", ";", "|")
#: A row must fit into a block. So a file is one block, up to what a block may be.
_MOST_BYTES_A_BLOCK = 2**30


def read_text_table(path: Path, separator: str) -> pa.Table:
    """Return the table of a text file: all columns are text, without spaces around, and nothing is null.

    Where the first line does not have the ``separator`` that the name promises, it may have another. Raises ValueError,
    OSError or an error of Arrow's for what cannot be read, also for a quote that does not close where its row ends.
    """
    data = _read_bytes(path)
    if not data.strip():
        raise ValueError("it is empty")
    header = _header(data, separator)
    separator = header.separator
    _check_quotes(data, separator.encode(), len(header.names))
    if not data[header.stop :].strip(b"\r\n"):
        return pa.table([pa.array([], pa.large_string())] * len(header.names), names=header.names)
    # Only the whole of a column tells its type, so all of it is read as text.
    places = [f"{place}" for place in range(len(header.names))]
    table = pa_csv.read_csv(
        pa.BufferReader(pa.py_buffer(data)[header.stop :]),
        read_options=pa_csv.ReadOptions(block_size=min(len(data), _MOST_BYTES_A_BLOCK), column_names=places),
        parse_options=pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(places, pa.large_string()), strings_can_be_null=False
        ),
    )
    return pa.table([pc.utf8_trim_whitespace(column) for column in table.columns], names=header.names)


class _Header(NamedTuple):
    """The line of column names: what separates them, the names, and where the next line begins."""

    separator: str
    names: list[str]
    stop: int


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(max(map(len, _MAGIC)))
    compression = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    with pa.input_stream(str(path), compression=compression) as stream:
        data: bytes = stream.read()
    return data.removeprefix(_BYTE_ORDER_MARK)


def _header(data: bytes, promised: str) -> _Header:
    """Return the line of column names, split by the separator that is promised, or else by the only one it has."""
    found = _split_header(data, promised)
    if len(found.names) > 1:
        return found
    others = [_split_header(data, separator) for separator in _SEPARATORS]
    others = [other for other in others if len(other.names) > 1]
    return others[0] if len(others) == 1 else found


def _split_header(data: bytes, separator: str) -> _Header:
    mark = re.escape(separator.encode())
    name = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"[ ]*|([^%s\r\n]*))(%s|\r?\n|\r|\Z)' % (mark, mark))
    names, place = [], len(data) - len(data.lstrip(b"\r\n"))
    while match := name.match(data, place):
        text = match[2] if match[1] is None else match[1].replace(b'""', b'"')
        names.append(text.decode("utf-8").strip())
        place = match.end()
        if match[3] != separator.encode():
            break
    return _Header(separator, names, place)


def _check_quotes(data: bytes, separator: bytes, columns: int) -> None:
    """Raise ValueError for a quote that swallows what follows: it does not close, or closes in the midst of a value.

    A quote opens a value where it stands first in it; anywhere else it is an ordinary character. A value may go over
    several lines. But where each of these lines has as many values as the table has columns, the quotes at both its
    ends are strays, and the lines are rows.
    """
    if b'"' not in data:
        return
    ends = re.compile(rb"[ ]*(?:[%s\r\n]|\Z)" % re.escape(separator))
    quoted = re.compile(rb'(?:\A|[%s\r\n])"[^"]*(?:""[^"]*)*("?)' % re.escape(separator))
    for match in quoted.finditer(data):
        opened = data.index(b'"', match.start())
        if not match[1]:
            raise ValueError(f"the quote in line {_line(data, opened)} is never closed; close it, or take it out")
        if not ends.match(data, match.end()):
            lines = f"line {_line(data, opened)} goes on after the quote in line {_line(data, match.end() - 1)}"
            raise ValueError(f"the quoted value in {lines}; a quote within a quoted value is written twice")
        if data.find(b"\n", opened, match.end()) >= 0 and _are_rows(data, opened, match.end(), separator, columns):
            lines = f"{_line(data, opened)} is closed in line {_line(data, match.end() - 1)}"
            raise ValueError(f"the quote in line {lines} only, and the lines between are rows; take both out")


def _are_rows(data: bytes, start: int, stop: int, separator: bytes, columns: int) -> bool:
    first = data.rfind(b"\n", 0, start) + 1
    last = data.find(b"\n", stop)
    lines = data[first : last if last >= 0 else len(data)].split(b"\n")
    return all(line.count(separator) == columns - 1 for line in lines)


def _line(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1
