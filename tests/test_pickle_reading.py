"""Pickles of arrays are read as data: what NumPy writes by protocols 0 to 2, and nothing that does anything."""

from __future__ import annotations

import collections
import datetime as dt
import os
import pickle
import pickletools
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.errors import SourceError
from butter_etl.studies.capacity.pickle_reading import read_columns

GENUINE = sorted((Path(__file__).parent / "records").glob("*.p"))
PROTOCOLS = (0, 1, 2)
FIELDS = [
    ("architecture", "O"),
    ("eval_loss", "<f8"),
    ("hparams", "O"),
    ("n_layers", "<i8"),
]
RECORDS = [("lstm", 1.5, {"optimizer": "ADAM", "train_steps": 7, "lr_init": 0.25}, 4), ("+rnn", np.inf, {}, 1)]


def records(fields=FIELDS, rows=RECORDS):
    return np.array(rows, dtype=fields)


def columns(array):
    """Return what NumPy's own array has, as Python has it."""
    values = {name: array[name].tolist() for name in array.dtype.names}
    return {
        name: [one.decode("latin1") if isinstance(one, bytes) else one for one in column]
        for name, column in values.items()
    }


def plain(value):
    """Return a value with Python's numbers in place of NumPy's."""
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("latin1") if isinstance(value, bytes) else value


def refusal(data):
    """Return the line that data are refused by."""
    with pytest.raises(SourceError) as caught:
        read_columns(data)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 300
    return line


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", GENUINE, ids=lambda file: file.stem)
def test_files_of_python_2_are_read_as_numpy_reads_them(file):
    data = file.read_bytes()
    wanted = np.load(file, allow_pickle=True, encoding="latin1")
    found = read_columns(data)
    assert list(found) == list(wanted.dtype.names)
    assert found == {name: list(map(plain, column)) for name, column in columns(wanted).items()}
    assert {type(one) for row in found["hparams"] for one in row.values()} == {str, int, float}
    assert {type(one) for one in found["architecture"]} == {str}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_record_array", [False, True])
def test_arrays_that_this_numpy_pickles_are_read(protocol, is_record_array):
    array = records()
    written = pickle.dumps(array.view(np.recarray) if is_record_array else array, protocol)
    assert read_columns(written) == columns(array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", "<>")
def test_numbers_of_every_width_and_order_are_read_from_their_bytes(protocol, order):
    kinds = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "S4", "U4"]
    fields = [(f"of_{kind}", order + kind) for kind in kinds]
    rows = [tuple(str(number) if kind[0] in "SU" else number for kind in kinds) for number in (0, 1, 100)]
    array = np.array(rows, fields)
    assert read_columns(pickle.dumps(array, protocol)) == columns(array)


def test_long_doubles_become_doubles():
    array = np.array([(1.5, "a")], [("wide", np.longdouble), ("text", "U1")])
    found = read_columns(pickle.dumps(array, 2))
    assert found == {"wide": [1.5], "text": ["a"]}
    assert type(found["wide"][0]) is float


def test_padded_records_are_read_from_their_places():
    kind = np.dtype({"names": ["b", "a"], "formats": ["<i2", "S3"], "offsets": [7, 1], "itemsize": 12})
    array = np.array([(5, b"xy"), (-1, b"abc")], kind)
    assert read_columns(pickle.dumps(array, 2)) == {"b": [5, -1], "a": ["xy", "abc"]}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_of_numpy_within_objects_become_pythons(protocol):
    values = {"a": np.float32(0.5), "b": np.int16(-3), "c": np.bool_(True), "d": np.str_("é"), "e": np.bytes_(b"\xe9")}
    found = read_columns(pickle.dumps(records(rows=[("gru", 1.0, values, 1)]), protocol))
    assert found["hparams"] == [{"a": 0.5, "b": -3, "c": True, "d": "é", "e": "é"}]
    assert [type(one) for one in found["hparams"][0].values()] == [float, int, bool, str, str]


@pytest.mark.parametrize("fields", [FIELDS, [("x", "<f8"), ("y", "S3")]], ids=["objects", "bytes"])
def test_an_array_of_no_records_is_read(fields):
    assert read_columns(pickle.dumps(records(fields, []), 2)) == {name: [] for name, _ in fields}


def test_a_text_of_no_width_is_read():
    array = np.zeros(2, [("x", "S0"), ("y", "<i8")])
    assert read_columns(pickle.dumps(array, 2)) == {"x": ["", ""], "y": [0, 0]}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.none()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.floats(), st.dictionaries(TEXTS, TEXTS | NUMBERS), st.integers(-9, 9))),
    st.sampled_from(PROTOCOLS),
)
def test_whatever_numpy_pickles_is_read(rows, protocol):
    array = np.empty(len(rows), FIELDS)
    array[:] = rows
    found = read_columns(pickle.dumps(array, protocol))
    assert repr(found) == repr(columns(array))  # NaN is no equal of itself


# --- what is refused ---------------------------------------------------------------------------------------------


class Told:
    """Something that notes that it is made."""

    made = 0

    def __reduce__(self):
        return note_it, ()


def note_it():
    Told.made += 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Told(), "tests.test_pickle_reading.note_it"),
        (collections.OrderedDict(a=1), "OrderedDict"),
        (dt.date(2020, 1, 1), "datetime.date"),
        (os.getcwd, "getcwd"),
        (Told, "tests.test_pickle_reading.Told"),
        (1j, "complex"),
        ({1, 2}, "set"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_thing_within_a_record_is_refused_by_its_name_before_it_is_made(thing, name, protocol):
    data = pickle.dumps(records(rows=[("gru", 1.0, {"lr_init": thing}, 1)]), protocol)
    line = refusal(data)
    assert line.startswith("names ")
    assert name in line
    assert line.endswith("which no array of records needs: nothing of the file was run")
    assert Told.made == 0


def test_the_instance_of_an_old_class_is_refused_by_its_name():
    assert refusal(b"(ios\nsystem\n.").startswith("names os.system, which no array of records needs")


def test_a_name_that_is_no_line_is_shown_as_one():
    assert "names m.a\\tb" in refusal(b"cm\na\tb\n.")
    assert len(refusal(b"cm\n" + b"x" * 100_000 + b"\n.")) < 300


@pytest.mark.parametrize("name", ["ndarray", "recarray", "record"])
def test_admitted_names_are_not_called_as_functions(name):
    assert refusal(f"cnumpy\n{name}\n(I9\ntR.".encode()) == f"calls {name}, which is no function of arrays"


def test_bytes_are_made_of_nothing():
    assert refusal(b"c__builtin__\nbytes\n(J\xff\xff\xff\x7ftR.") == "has bytes that are made of something"


def test_stand_ins_cannot_be_given_a_state():
    lines = {refusal(f"c{one}\n}}(S'call'\nS'x'\nub.".encode()) for one in ("numpy\ndtype", "_codecs\nencode")}
    assert lines == {f"gives {one} a state, which only arrays and their types have" for one in ("dtype", "encode")}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_later_protocols_are_refused_by_their_number(protocol):
    assert refusal(pickle.dumps(records(), protocol)) == f"is a pickle of protocol {protocol}; write it by protocol 2"


def test_steps_of_later_protocols_are_refused_by_their_names():
    assert refusal(b"\x8f.") == "has the step EMPTY_SET of protocol 4; write it by protocol 2"
    assert refusal(b"\x82\x01.") == "has the step EXT1, which no array of records needs"
    assert refusal(b"Pid\n.") == "has the step PERSID, which no array of records needs"
    assert refusal(b"PAR1").startswith("has the step PERSID")
    assert refusal(b"\x00\x01") == "is no pickle: 0x00 is none of its steps"


@pytest.mark.parametrize("file", GENUINE, ids=lambda file: file.stem)
def test_a_torn_file_is_refused_wherever_it_ends(file):
    data = file.read_bytes()
    for end in [*range(0, 600, 7), *range(600, len(data), 41), len(data) - 1]:
        assert refusal(data[:end]).startswith(f"is torn: it ends after {end:,} byte"), end


def test_what_stands_behind_the_array_is_not_passed_over():
    data = pickle.dumps(records(), 2)
    assert refusal(data + data) == f"has {len(data)} bytes behind the end of its array"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("thing", [3, "text", {"a": 1}, [("lstm", 1.0)], None])
def test_pickles_of_other_things_are_refused(thing, protocol):
    assert f"is a pickle of a {type(thing).__name__}" in refusal(pickle.dumps(thing, protocol))


def test_arrays_of_other_things_are_refused():
    def of(array):
        return refusal(pickle.dumps(array, 2))

    assert of(np.arange(3)) == "is an array, but not of records with named fields"
    assert "not of one dimension" in of(records().reshape(2, 1))
    assert (
        of(np.zeros(2, [("x", "<f8", 3)])) == "has the field 'x' of a type that is neither numbers, texts nor objects"
    )
    assert "field 'x'" in of(np.zeros(2, [("x", [("y", "<f8")])]))
    assert "field 'x'" in of(np.zeros(2, [("x", "<c16")]))
    assert "field 'x'" in of(np.zeros(2, [("x", "<M8[s]")]))


def changed(data, old, new):
    assert data.count(old) == 1, data.count(old)
    return data.replace(old, new)


def test_numbers_of_records_that_are_not_so_are_refused():
    plainly = pickle.dumps(np.zeros(2, [("x", "<f8")]), 2)
    objects = pickle.dumps(records(), 2)
    more = b"K\x03\x85"
    line = refusal(changed(plainly, b"K\x02\x85", more))
    assert line == "says that it has 3 records of 8 bytes, but has 16 bytes"
    assert refusal(changed(objects, b"K\x02\x85", more)) == "says that it has 3 records, but has 2"
    huge = b"\x8a\x08" + struct.pack("<q", 2**62) + b"\x85"
    assert "of no number of records" in refusal(changed(objects, b"K\x02\x85", huge))


def test_a_type_that_is_too_wide_is_refused():
    data = pickle.dumps(np.zeros(1, [("x", "U1")]), 2)
    assert refusal(changed(data, b"X\x02\x00\x00\x00U1", b"X\x0a\x00\x00\x00U999999999")).startswith(
        "has the field 'x'"
    )
    huge = b"\x8a\x08" + struct.pack("<q", 2**40) + b"K\x01K\x18tq"
    assert refusal(changed(data, b"K\x04K\x01K\x18tq", huge)) == "has records without a size"


def test_a_field_outside_of_its_records_is_refused():
    data = pickle.dumps(np.zeros(2, [("x", "<i4"), ("y", "<f8")]), 2)
    assert refusal(changed(data, b"K\x04\x86", b"K\x05\x86")) == "has the field 'y' outside of its records"


def test_lengths_and_places_that_are_not_so_take_no_memory():
    """Python's quick machine would make room for 2**32 things, and NumPy for as many records as it is told."""
    lies = [
        b"Nr\xff\xff\xff\xff.",
        b"Np4294967295\n.",
        b"T\xff\xff\xff\x7fabc",
        b"X\xff\xff\xff\x7fabc",
        b"\x8b\xff\xff\xff\x7fabc",
        changed(pickle.dumps(np.zeros(2, [("x", "<f8")]), 2), b"K\x02\x85", b"J\xff\xff\xff\x7f\x85"),
    ]
    tracemalloc.start()
    try:
        for lie in lies:
            refusal(lie)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**20


def test_nested_tuples_are_no_keys():
    """A dictionary would take 2**60 steps to find the place of this one."""
    nested = b")" + b"q\x00h\x00\x86" * 60
    assert refusal(b"}" + nested + b"Ns.") == "has a dictionary whose keys are not all texts"


def test_steps_that_do_not_fit_together_are_one_line():
    for data in (
        b"(t0.",
        b"0.",
        b"h\x05.",
        b"R.",
        b"Ix\n.",
        b"S'a\n.",
        b"S'\\q'\n.",
        b"V\\u12\n.",
        b"}N.",
        b"e.",
        b"Na.",
    ):
        assert refusal(data)


KINDS = [op.code.encode("latin1") for op in pickletools.opcodes]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_read_or_refused(data):
    genuine = bytearray(data.draw(st.sampled_from(GENUINE)).read_bytes()[:1200])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(genuine) - 1))
        genuine[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from(KINDS) | st.binary(max_size=6)
        )
    with suppress(SourceError):
        columns = read_columns(bytes(genuine))
        assert len({len(values) for values in columns.values()}) <= 1
