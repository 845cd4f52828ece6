"""Types of other tools: what they mean is the same."""

import math
import struct
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.studies.arrow_types import plain_column, plain_type, rows_differ

TEXTS = ["b", None, "a", "b"]
IDS = [uuid.UUID(int=3), None, uuid.UUID(int=2**100), uuid.UUID(int=3)]
PACKED = {
    "string": pa.array(TEXTS),
    "large string": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of views": pa.DictionaryArray.from_arrays([0, None, 1, 0], pa.array(["b", "a"], pa.string_view())),
    "runs": pc.run_end_encode(pa.array(TEXTS)),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_texts_are_texts(name):
    chunks = pa.chunked_array([PACKED[name], PACKED[name].slice(2)])
    plain = plain_column(chunks)
    assert plain.to_pylist() == [*TEXTS, *TEXTS[2:]]
    assert (plain.type, plain_type(chunks.type)) == (pa.large_string(), pa.string())
    none = plain_column(pa.chunked_array([], PACKED[name].type))
    assert (none.type, len(none)) == (pa.large_string(), 0)


def test_uuids_are_texts():
    column = pa.chunked_array([pa.array([one and one.bytes for one in IDS], pa.uuid())])
    assert plain_column(column).to_pylist() == [one and str(one) for one in IDS]
    assert plain_type(column.type) == pa.string()


def test_lists_and_numbers_stay_but_for_their_names():
    for kind in (pa.large_list, pa.list_view, pa.large_list_view):
        assert plain_type(kind(pa.string_view())) == pa.list_(pa.string())
    assert plain_type(pa.list_(pa.float64(), 3)) == pa.list_(pa.float64())
    lists = [[1.0], None, [], [2.0, 3.0]]
    for kind in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view):
        values = pa.array(lists, kind(pa.float64()))
        column = plain_column(pa.chunked_array([values, values.slice(1, 2)])).cast(pa.list_(pa.float32()))
        column.validate(full=True)
        assert column.to_pylist() == lists + lists[1:3]
    for kind in (pa.int8(), pa.decimal128(4, 2), pa.float16(), pa.date32()):
        assert plain_type(kind) == kind
        assert plain_column(pa.chunked_array([], kind)).type == kind
    numbers = pa.chunked_array([pc.run_end_encode(pa.array([1, 1, 2]))])
    assert plain_column(numbers).to_pylist() == [1, 1, 2]


FLOATS = {pa.float32(): "f", pa.float64(): "d"}
SPECIAL = [0.0, -0.0, 1.0, 1 + 2**-23, 1 + 2**-52, math.nan, -math.nan, math.inf, None]


def as_bits(value, kind):
    """A value of a column with its floats as their bytes."""
    if isinstance(value, list):
        return [as_bits(one, kind) for one in value]
    return value if value is None else struct.pack(FLOATS[kind], value)


@pytest.mark.parametrize("kind", FLOATS)
@given(data=st.data())
def test_rows_of_floats_differ_where_their_bits_do(kind, data):
    value = st.sampled_from(SPECIAL) | st.floats(width=kind.bit_width)
    rows, column = data.draw(
        st.sampled_from(
            [
                (value, kind),
                (st.none() | st.lists(value, max_size=3), pa.list_(kind)),
                (st.none() | st.lists(value, max_size=3), pa.large_list(kind)),
                (st.none() | st.lists(st.none() | st.lists(value, max_size=2), max_size=2), pa.list_(pa.list_(kind))),
            ]
        )
    )
    pairs = data.draw(st.lists(st.tuples(rows, rows) | rows.map(lambda row: (row, row)), max_size=6))
    begin = data.draw(st.integers(0, len(pairs)))
    one, other = (
        (pa.array(list(side), column).slice(begin) for side in zip(*pairs, strict=True))
        if pairs
        else (pa.array([], column),) * 2
    )
    values = list(zip(one.to_pylist(), other.to_pylist(), strict=True))
    assert rows_differ(one, other).tolist() == [as_bits(ours, kind) != as_bits(theirs, kind) for ours, theirs in values]


def test_doubles_that_are_close_differ():
    close = [1.0, 1.0 + 1e-12]
    assert rows_differ(pa.array(close[:1]), pa.array(close[1:])).tolist() == [True]
    assert rows_differ(pa.array([close, close]), pa.array([close, close[::-1]])).tolist() == [False, True]


def test_rows_of_other_types_differ_where_their_values_do():
    texts = [pa.array(side) for side in (["a", None, None, "b"], ["a", None, "b", "c"])]
    assert rows_differ(*texts).tolist() == [False, False, True, True]
    numbers = [pa.array(side, pa.list_(pa.uint32())) for side in ([[1, 2], None, []], [[1, 3], [], []])]
    assert rows_differ(*numbers).tolist() == [True, True, False]
    flags = [pa.array(side) for side in ([True, None], [True, False])]
    assert rows_differ(*flags).tolist() == [False, True]


def test_what_lies_under_a_null_does_not_count():
    one, other = (pa.array(np.array([1.0, value]), mask=np.array([False, True])) for value in (2.0, 3.0))
    assert not rows_differ(one, other).any()


def test_other_types_and_lengths_are_not_compared():
    with pytest.raises(ValueError, match=r"^1 rows of float are not compared with 1 of double$"):
        rows_differ(pa.array([1.5], pa.float32()), pa.array([1.5], pa.float64()))
    with pytest.raises(ValueError, match=r"^1 rows of double are not compared with 2 of double$"):
        rows_differ(pa.array([1.5]), pa.array([1.5, 2.5]))
