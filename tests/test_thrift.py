"""Thrift's compact protocol: what is read is written back, and what is no structure is refused."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.store.thrift import (
    BINARY,
    FALSE,
    I16,
    I32,
    I64,
    LIST,
    STRUCT,
    TRUE,
    Field,
    List,
    ThriftError,
    read_struct,
    read_varint,
    write_struct,
    write_varint,
)

NUMBERS = st.integers(-(2**63), 2**63 - 1)
BYTES = st.binary(max_size=20)


def fields(value):
    return st.dictionaries(st.integers(1, 40), value, max_size=6).map(lambda d: dict(sorted(d.items())))


PLAIN = st.one_of(
    st.tuples(st.sampled_from([I32, I64, I16]), NUMBERS).map(lambda pair: Field(*pair)),
    BYTES.map(lambda value: Field(BINARY, value)),
    st.booleans().map(lambda value: Field(TRUE if value else FALSE, value)),
    st.lists(NUMBERS, max_size=20).map(lambda values: Field(LIST, List(I64, values))),
    st.lists(BYTES, max_size=20).map(lambda values: Field(LIST, List(BINARY, values))),
)
STRUCTS = fields(
    st.recursive(
        PLAIN,
        lambda inner: st.one_of(
            fields(inner).map(lambda value: Field(STRUCT, value)),
            st.lists(fields(inner), max_size=3).map(lambda values: Field(LIST, List(STRUCT, values))),
        ),
        max_leaves=12,
    )
)


@given(STRUCTS, BYTES)
def test_what_is_written_is_read(struct, behind):
    out = bytearray()
    write_struct(struct, out)
    assert read_struct(bytes(out) + behind) == (struct, len(out))


@given(st.integers(0, 2**63 - 1))
def test_whole_numbers(value):
    out = bytearray()
    write_varint(value, out)
    assert read_varint(bytes(out), 0) == (value, len(out))


@given(st.binary(max_size=60))
def test_whatever_bytes_are_a_structure_or_refused(data):
    try:
        struct, end = read_struct(data)
    except ThriftError:
        return
    assert end <= len(data)
    assert isinstance(struct, dict)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends within a structure"),
        (b"\x15", "ends within a structure"),
        (b"\x18\x05ab", "ends within a value"),
        (b"\x19\xfc\xff\xff\x03", "ends within a list"),
        (b"\x16" + b"\xff" * 12, "a number of more than 64 bits"),
        (b"\x1c" * 40, "structures too deep"),
        (b"\x1b\x00", "has a value of type 11"),
    ],
)
def test_what_is_no_structure(data, message):
    with pytest.raises(ThriftError, match=message):
        read_struct(data)


def test_footers_of_pyarrow_are_written_back_to_the_same_bytes():
    memory = io.BytesIO()
    columns = {"a": [1, None], "b": ["x", "y"], "c": [[1.0], None], "d": [True, False], "e": [{"f": 1}, None]}
    pq.write_table(pa.table(columns), memory, write_page_index=True)
    data = memory.getvalue()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    struct, end = read_struct(footer)
    out = bytearray()
    write_struct(struct, out)
    assert (bytes(out), end) == (footer, len(footer))
