"""Published tables of networks: read and written byte for byte, and what is wrong with one named in a line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import SourceError
from butter_etl.studies.lifespans.tables import COLUMNS, MEASURES, Table, is_table, read_table, write_table

GENUINE = sorted((Path(__file__).parent / "networks").glob("*.txt"))
DATA = GENUINE[0].read_bytes()
LINES = DATA.decode().split("\n")


@pytest.mark.parametrize("path", GENUINE, ids=lambda path: path.stem)
def test_genuine_tables_are_written_as_they_were_read(path):
    data = path.read_bytes()
    table = read_table(data)
    assert write_table(table) == data
    assert table.respelled == ()
    assert table.network_id == path.stem
    assert table.epochs.tolist() == [half / 2 for half in range(1, 81)]
    assert is_table(data[:100])


def test_a_genuine_table_says_what_it_says():
    table = read_table(DATA)
    assert (table.random_seed, table.train_gpu, table.torch_set_deterministic) == (2476382228, True, False)
    assert (table.dataset, table.batch_size, table.loss_fn, table.optimizer) == (
        "CIFAR100", 25, "CrossEntropyLoss", "SGD",
    )  # fmt: skip
    assert (table.learning_rate, table.momentum, table.dampening) == (0.11464760689500715, 4.877743709660678e-05, 0.0)
    assert (table.layer_types, table.conv_kernels, table.conv_filters) == ((3, 3, 1), (24, 2, 2), (301, 297, 345))
    assert (table.fc_dropout_layers, table.fc_filters) == ((), (100,))
    assert (table.train_loss[0], table.val_loss[0], table.val_accuracy_percent[0]) == (
        4.253769808530808, 3.8971090102730845, 9.68,
    )  # fmt: skip


FLOATS = st.floats(allow_nan=True, allow_infinity=True)
RATES = st.floats(allow_nan=False, allow_infinity=False).map(abs)
WHOLES = st.lists(st.integers(0, 400), max_size=4).map(tuple)
WORDS = st.text("abcXYZ019_", min_size=1, max_size=9)


@st.composite
def tables(draw):
    points = draw(st.integers(1, 5))
    kinds = {int: st.integers(0, 2**32 - 1), bool: st.booleans(), str: WORDS, float: RATES}
    hints = {field.name: field.type for field in msgspec.structs.fields(Table)}
    values = {name: draw(kinds.get(kind, WHOLES)) for name, kind in hints.items() if name not in MEASURES.values()}
    for name in MEASURES.values():
        values[name] = np.array(draw(st.lists(FLOATS, min_size=points, max_size=points)))
    return Table(**{**values, "epochs": np.arange(points) + 0.5, "respelled": ()})


@given(tables())
def test_whatever_is_written_is_read_and_written_again(table):
    data = write_table(table)
    again = read_table(data)
    assert again.respelled == ()
    assert write_table(again) == data
    for field in msgspec.structs.fields(Table):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(table, field.name))


def cell(name, text, line=1):
    """The first table with another text in a cell."""
    fields = [one.split(" ") for one in LINES]
    fields[line][COLUMNS.index(name)] = text
    return "\n".join(map(" ".join, fields)).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DATA.replace(b"\n", b"\r\n"), "lines end in CRLF"),
        (DATA[:-1], "the last line has no end"),
        (DATA + b"\n", "spaces or empty lines"),
        ("\n".join(line.rstrip() for line in LINES).encode(), "spaces or empty lines"),
        (b"\xef\xbb\xbf" + DATA, "the byte order mark"),
        ("\n".join([LINES[0], LINES[2], LINES[1], *LINES[3:]]).encode(), "lines stand in another order"),
        ("\n".join(" ".join(line.split(" ")[::-1]) for line in LINES).encode(), "columns stand in another order"),
        (cell("dropout_rate", "0.0"), "dropout_rate '0.0' would be written '0'"),
        (cell("valAcc", ""), "valAcc '' would be written 'nan'"),
        (cell("valLoss", "NaN", 3), "valLoss 'NaN' would be written 'nan'"),
        (cell("valLoss", "3.50", 3), "valLoss '3.50' would be written '3.5'"),
        (cell("poolKernels", "01-1"), "poolKernels '01-1' would be written '1-1'"),
    ],
)
def test_other_spellings_are_read_and_named(data, said):
    table = read_table(data)
    assert len(table.respelled) == 1
    assert table.respelled[0].startswith(said)
    again = write_table(table)
    assert read_table(again).respelled == ()
    if "valAcc" not in said and "valLoss" not in said:
        assert again == DATA or "01-1" in said


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (LINES[0].encode() + b"\n", "has no data lines"),
        (DATA.replace(b" momentum", b"", 1), "line 2 has 28 fields, expected 27"),
        (DATA.replace(b" momentum ", b" momentun ", 1), "columns are missing: momentum"),
        (DATA.replace(b"FCFilters", b"FCFilters momentum", 1), "line 2 has 28 fields, expected 29"),
        (DATA[:-2], "line 81 is torn: it has no end"),
        (DATA[:-26], "line 81 is torn: it has no end"),
        ("\n".join(LINES[:2]).encode(), "line 2 is torn: it has no end"),
        ("\n".join([*LINES[:3], LINES[2], *LINES[3:]]).encode(), "epoch 1.0 stands twice, in lines 3 and 4"),
        ("\n".join([LINES[0], *LINES[2:]]).encode(), "no line has the network's parameters"),
        ("\n".join([*LINES[:3], "", *LINES[3:]]).encode(), "line 4 has 1 field, expected 28"),
        (cell("epochs", "nan", 5), "line 6: epochs is not finite"),
        (cell("valAcc", "1_0", 5), "line 6: valAcc '1_0' is no number"),
        (cell("valAcc", "0x1", 5), "line 6: valAcc '0x1' is no number"),
        (cell("learning_rate", "inf"), "line 2: learning_rate 'inf' is no finite number"),
        (cell("momentum", ""), "line 2: momentum '' is no finite number"),
        (cell("batch_size", "25.0"), "line 2: batch_size '25.0' is no whole number from 0 on"),
        (cell("random_seed", "9" * 19), f"line 2: random_seed '{'9' * 19}' is no whole number from 0 on"),
        (cell("FCFilters", "343-"), "line 2: FCFilters '343-' is no list of whole numbers, joined by dashes"),
        (cell("train_GPU", "true"), "line 2: train_GPU 'true' is neither True nor False"),
        (cell("dataset", ""), "line 2: dataset is empty"),
        (cell("ID", "../etc"), "line 2: ID '../etc' cannot be the name of a file"),
        (cell("dampening", "1", 4), "lines 2 and 5 differ in ID: a table is of one network"),
        (b"\xff" + DATA, "byte 0 is 0xff, which is no UTF-8"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(data, reason):
    with pytest.raises(SourceError) as error:
        read_table(data)
    assert str(error.value) == reason


def test_a_column_that_is_not_known_is_refused():
    data = DATA.replace(b"\n", b" x\n")
    with pytest.raises(SourceError, match="column 'x' is not known"):
        read_table(data)
    with pytest.raises(SourceError, match="column 'x' is there twice"):
        read_table(data.replace(b" x\n", b" x x\n"))


def test_parameters_may_stand_on_every_line():
    parameters = LINES[1].split(" ")[4:]
    lines = [LINES[0], *(" ".join([*line.split(" ")[:4], *parameters]) for line in LINES[1:-1]), ""]
    table = read_table("\n".join(lines).encode())
    assert write_table(table) == DATA
    assert table.respelled[0].startswith("ID '2021_02_15_13_55_26_539263' would be written '', and 78 more cells")


def test_measures_of_other_lengths_are_not_written():
    table = msgspec.structs.replace(read_table(DATA), val_loss=np.zeros(3))
    with pytest.raises(ValueError, match="zip"):
        write_table(table)


@pytest.mark.parametrize("head", [b"", b"epochs valLoss", b"PAR1", b"a b c\nepochs valAcc"])
def test_other_files_are_told_from_tables(head):
    assert not is_table(head)
