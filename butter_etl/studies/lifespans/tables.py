"""The published table of a network: a text file with its learning curves and, on the first data line, its parameters.

A table is lines of 28 fields, each separated by one space, below a line of column names. Each data line has the
measures of one point. Parameters stand on the first data line alone; on the others their fields are empty. Lists of
whole numbers are joined by dashes. Floats are the shortest decimals that give float64 again, as Python writes them; a
rate that is not used is written ``0``.

`read_table` and `write_table` are inverse to each other, byte for byte, for tables as they are published. Where a table
says the same in another spelling, `Table.respelled` says what would be written otherwise.

Source of the format: https://github.com/TauferLab/PENGUIN, its three sample tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, zip_longest
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.errors import SourceError, counted, suggestion

Float64s: TypeAlias = NDArray[np.float64]

_MARK = "\ufeff"
_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_WHOLES = re.compile(r"[0-9]{1,18}(?:-[0-9]{1,18})*", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE
)
#: A name that can be that of a file, wherever it is: neither hidden nor in another folder.
_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.+-]*", re.ASCII)
#: What differs where nothing else does: fields at the end of a line that an editor took away, or lines without any.
_OTHER_SPACES: Final = "spaces or empty lines would stand where the published tables have them"
_TRUTH: Final = {"True": True, "False": False}


class Table(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A network as its table tells it.

    ``network_id`` is its time stamp, ``random_seed`` its seed, from 0 on. ``pool_*`` have an entry for each block that
    pools, ``fc_dropout_layers`` one, 0 or 1, for each fully connected layer but the last. ``epochs``, ``train_loss``,
    ``val_loss`` and ``val_accuracy_percent`` are float64 of equal length, a value a measuring point; ``epochs`` are
    finite and increase. ``respelled`` says, line by line, what of the text that was read would be written otherwise.
    """

    network_id: str
    random_seed: int
    train_gpu: bool
    torch_set_deterministic: bool
    dataset: str
    batch_size: int
    loss_fn: str
    optimizer: str
    learning_rate: float
    momentum: float
    dampening: float
    weight_decay: float
    layer_types: tuple[int, ...]
    dropout_rate: float
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    conv_paddings: tuple[int, ...]
    pool_kernels: tuple[int, ...]
    pool_strides: tuple[int, ...]
    pool_paddings: tuple[int, ...]
    conv_filters: tuple[int, ...]
    fc_dropout_rate: float
    fc_dropout_layers: tuple[int, ...]
    fc_filters: tuple[int, ...]
    epochs: Float64s
    train_loss: Float64s
    val_loss: Float64s
    val_accuracy_percent: Float64s
    respelled: tuple[str, ...] = ()


# --- cells -------------------------------------------------------------------------------------------------------


def _measure(text: str) -> float:
    """Return the number that a cell of a measure has; an empty one, as pandas writes it, is NaN."""
    if not text:
        return float("nan")
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no number")
    return float(text)


def _finite(text: str) -> float:
    if _NUMBER.fullmatch(text) is None or not isfinite(number := float(text)):
        raise ValueError(f"{text!r} is no finite number")
    return number


def _rate_text(rate: float) -> str:
    return repr(rate) if rate else "0"


def _whole(text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _wholes(text: str) -> tuple[int, ...]:
    if text and _WHOLES.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no list of whole numbers, joined by dashes")
    return tuple(map(int, text.split("-"))) if text else ()


def _wholes_text(numbers: Sequence[int]) -> str:
    return "-".join(map(str, numbers))


def _truth(text: str) -> bool:
    if text not in _TRUTH:
        raise ValueError(f"{text!r} is neither True nor False")
    return _TRUTH[text]


def _text(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} cannot be the name of a file")
    return text


class _Column(NamedTuple):
    """A column of parameters: its name in a table, the field of `Table`, and how a cell is read and written.

    ``read`` raises ValueError for a text that it has no value for.
    """

    name: str
    field: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


#: The columns of measures, and the fields of `Table` that have them.
MEASURES: Final = {
    "epochs": "epochs",
    "trainLoss": "train_loss",
    "valLoss": "val_loss",
    "valAcc": "val_accuracy_percent",
}
_PARAMETERS: Final = (
    _Column("ID", "network_id", _name, str),
    _Column("random_seed", "random_seed", _whole, str),
    _Column("train_GPU", "train_gpu", _truth, str),
    _Column("torch_set_deterministic", "torch_set_deterministic", _truth, str),
    _Column("dataset", "dataset", _text, str),
    _Column("batch_size", "batch_size", _whole, str),
    _Column("loss_fn", "loss_fn", _text, str),
    _Column("optimizer", "optimizer", _text, str),
    _Column("learning_rate", "learning_rate", _finite, repr),
    _Column("momentum", "momentum", _finite, _rate_text),
    _Column("dampening", "dampening", _finite, _rate_text),
    _Column("weight_decay", "weight_decay", _finite, _rate_text),
    _Column("layer_types", "layer_types", _wholes, _wholes_text),
    _Column("dropout_rate", "dropout_rate", _finite, _rate_text),
    _Column("convKernels", "conv_kernels", _wholes, _wholes_text),
    _Column("convStrides", "conv_strides", _wholes, _wholes_text),
    _Column("convPaddings", "conv_paddings", _wholes, _wholes_text),
    _Column("poolKernels", "pool_kernels", _wholes, _wholes_text),
    _Column("poolStrides", "pool_strides", _wholes, _wholes_text),
    _Column("poolPaddings", "pool_paddings", _wholes, _wholes_text),
    _Column("convFilters", "conv_filters", _wholes, _wholes_text),
    _Column("FC_dropout_rate", "fc_dropout_rate", _finite, _rate_text),
    _Column("FC_dropout_layers", "fc_dropout_layers", _wholes, _wholes_text),
    _Column("FCFilters", "fc_filters", _wholes, _wholes_text),
)
#: The names of all columns, in their order.
COLUMNS: Final = (*MEASURES, *(column.name for column in _PARAMETERS))
_HEADER: Final = " ".join(COLUMNS)
_NO_PARAMETERS: Final = " " * len(_PARAMETERS)


def is_table(head: bytes) -> bool:
    """Tell by its first line whether a file is such a table, if not of all columns: it names the first measures."""
    first = head.removeprefix(_MARK.encode()).split(b"\n", 1)[0].strip()
    return {b"epochs", b"valAcc"} <= set(first.split(b" "))


# --- reading -----------------------------------------------------------------------------------------------------


class _Lines(NamedTuple):
    """The lines of a text, cut into fields: the names of columns, and the fields of each data line."""

    names: list[str]
    rows: list[list[str]]


def read_table(data: bytes) -> Table:
    """Return the network whose table ``data`` is, of any number of data lines but none.

    Data lines may stand in any order, as may columns; lines may end in CRLF, the last one in nothing; a measure may be
    empty, which is NaN. Raises SourceError, one line that names column and line, for all else that is no such table.
    """
    text = _decoded(data)
    lines = _cut(text)
    place_of = _places(lines.names)
    measures = _measures(lines.rows, place_of)
    order = _order(measures["epochs"])
    fields = _parameters(lines.rows, place_of)
    fields |= {MEASURES[name]: values if order is None else values[order] for name, values in measures.items()}
    table = Table(**fields)
    if (written := write_table(table)) == data:
        return table
    found = tuple(_respelled(text, written.decode(), lines, place_of, order))
    return msgspec.structs.replace(table, respelled=found or (_OTHER_SPACES,))


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"byte {error.start} is {data[error.start]:#04x}, which is no UTF-8") from None


def _cut(text: str) -> _Lines:
    """Return the lines of a text in fields; raise SourceError where their number is wrong or the last one is torn."""
    lines = text.removeprefix(_MARK).replace("\r\n", "\n").split("\n")
    is_ended = not lines[-1]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise SourceError("is empty")
    names = lines[0].split(" ")
    rows = [line.split(" ") for line in lines[1:]]
    if not is_ended and (len(rows) < 2 or len(rows[-1]) < len(names)):
        raise SourceError(f"line {len(lines)} is torn: it has no end")
    for number, row in enumerate(rows, 2):
        if len(row) == len(MEASURES):
            row.extend([""] * (len(names) - len(row)))  # an editor took the spaces away at its end
        if len(row) != len(names):
            raise SourceError(f"line {number} has {counted(len(row), 'field')}, expected {len(names)}")
    return _Lines(names, rows)


def _places(names: list[str]) -> dict[str, int]:
    """Return where each column stands; raise SourceError for columns that are missing, there twice or not known."""
    places = {name: place for place, name in enumerate(names)}
    missing = [name for name in COLUMNS if name not in places]
    if missing:
        raise SourceError(f"columns are missing: {', '.join(missing)}")
    if len(places) < len(names):
        twice = next(name for place, name in enumerate(names) if places[name] != place)
        raise SourceError(f"column {twice!r} is there twice")
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise SourceError(f"column {unknown[0]!r} is not known{suggestion(unknown[0], COLUMNS)}")
    return places


def _measures(rows: list[list[str]], place_of: dict[str, int]) -> dict[str, Float64s]:
    """Return the columns of measures by name, in the order of the lines."""
    found = {}
    for name in MEASURES:
        place = place_of[name]
        values = [_cell(_measure, row[place], name, line) for line, row in enumerate(rows, 2)]
        found[name] = np.array(values, np.float64)
    return found


def _cell(read: Callable[[str], Any], text: str, name: str, line: int) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise SourceError(f"line {line}: {name} {error}") from None


def _order(epochs: Float64s) -> NDArray[np.intp] | None:
    """Return the order of the lines by their epochs, None if they stand in it.

    Raises SourceError if there are none, or if one has no epoch, or that of another.
    """
    if not epochs.size:
        raise SourceError("has no data lines")
    if not np.isfinite(epochs).all():
        line = int(np.flatnonzero(~np.isfinite(epochs))[0]) + 2
        raise SourceError(f"line {line}: epochs is not finite")
    if (np.diff(epochs) > 0).all():
        return None
    order = np.argsort(epochs, kind="stable")
    for one, other in pairwise(order.tolist()):
        if epochs[one] == epochs[other]:
            raise SourceError(f"epoch {epochs[one].item()} stands twice, in lines {one + 2} and {other + 2}")
    return order


def _parameters(rows: list[list[str]], place_of: dict[str, int]) -> dict[str, Any]:
    """Return the parameters by field, from the line that has them; others have none, or the same again."""
    places = [place_of[column.name] for column in _PARAMETERS]
    of_lines = [(line, [row[place] for place in places]) for line, row in enumerate(rows, 2)]
    filled = [(line, texts) for line, texts in of_lines if any(texts)]
    if not filled:
        raise SourceError("no line has the network's parameters")
    first, texts = filled[0]
    for line, other in filled[1:]:
        if other != texts:
            name = next(one.name for one, a, b in zip(_PARAMETERS, texts, other, strict=True) if a != b)
            raise SourceError(f"lines {first} and {line} differ in {name}: a table is of one network")
    cells = zip(_PARAMETERS, texts, strict=True)
    return {column.field: _cell(column.read, text, column.name, first) for column, text in cells}


# --- writing -----------------------------------------------------------------------------------------------------


def write_table(table: Table) -> bytes:
    """Return the table of a network as it is published; raises ValueError for measures of different lengths."""
    measures = [map(repr, getattr(table, field).tolist()) for field in MEASURES.values()]
    lines = [*map(" ".join, zip(*measures, strict=True))]
    parameters = " ".join(column.write(getattr(table, column.field)) for column in _PARAMETERS)
    first = f"{lines[0]} {parameters}" if lines else ""
    others = [f"{line}{_NO_PARAMETERS}" for line in lines[1:]]
    return "\n".join([_HEADER, first, *others, ""]).encode()


def _respelled(
    text: str, written: str, lines: _Lines, place_of: dict[str, int], order: NDArray[np.intp] | None
) -> Iterator[str]:
    """Yield a line for each kind of difference between a text and what would be written of it."""
    if text.startswith(_MARK):
        yield "the byte order mark would be left out"
    if "\r\n" in text:
        yield "lines end in CRLF, and would end in LF"
    if not text.endswith("\n"):
        yield "the last line has no end, and would have one"
    if lines.names != list(COLUMNS):
        yield "columns stand in another order, and would stand in the published one"
    if order is not None:
        yield "lines stand in another order, and would stand in that of epochs"
    places = [place_of[name] for name in COLUMNS]
    rows = lines.rows if order is None else [lines.rows[one] for one in order]
    spelled = [[row[place] for place in places] for row in rows]
    yield from _respelled_cells(spelled, [line.split(" ") for line in written.split("\n")[1:-1]])


def _respelled_cells(spelled: list[list[str]], written: list[list[str]]) -> Iterator[str]:
    """Yield a line for each column that has cells which would be written otherwise, with the first of them."""
    for name, before, after in zip_longest(COLUMNS, zip(*spelled, strict=True), zip(*written, strict=True)):
        cells = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        if cells:
            more = f", and {counted(len(cells) - 1, 'more cell')} of it" if len(cells) > 1 else ""
            yield f"{name} {cells[0][0]!r} would be written {cells[0][1]!r}{more}"
