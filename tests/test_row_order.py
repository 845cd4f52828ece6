"""Rows in another order are what Arrow makes of them, to the bit."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.store import row_order
from butter_etl.store.row_order import take_rows
from tests.test_history_files import assert_same, tables


@pytest.fixture(autouse=True, scope="module")
def all_by_the_kernel():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_order, "SMALL_BYTES", 0)
        yield


@settings(max_examples=80)
@given(tables(), st.data())
def test_rows_are_taken_as_arrow_takes_them(table, data):
    rows = range(table.num_rows)
    places = np.array(data.draw(st.lists(st.sampled_from(rows), max_size=40)), np.int64)
    cut = data.draw(st.integers(0, table.num_rows))
    for one in (
        table,
        pa.concat_tables([table.slice(0, cut), table.slice(cut)]),
        pa.concat_tables([table, table]).slice(cut, len(rows)),
    ):
        taken = take_rows(one, places)
        assert_same(taken, one.take(pa.array(places)))
        assert all(column.num_chunks == 1 for column in taken.columns)


def test_of_no_rows_there_are_none():
    empty = pa.table({"x": pa.array([], pa.list_(pa.field("element", pa.float32()))), "y": pa.array([], pa.string())})
    none = np.array([], np.int64)
    assert take_rows(empty, none).equals(empty)
    assert take_rows(pa.concat_tables([empty, empty]), none).equals(empty)
