"""Types of other tools: what they mean is the same."""

import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from butter_etl.studies.arrow_types import plain_column, plain_type

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
