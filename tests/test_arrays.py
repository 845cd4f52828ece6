"""Arrow arrays made without pandas: what pyarrow would make, to the bit."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from butter_etl.engines import array_of, column_of, empty_table, numbers_in, truth_in

NUMBERS = [np.int8, np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
WHOLE = [pa.int8(), pa.uint8(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]


def maybe(values):
    return st.lists(st.none() | values, max_size=20)


def bits(array):
    """All that an array is: type, nulls, and the bytes of what is there."""
    array.validate(full=True)
    there = array.drop_null()
    if pa.types.is_list(array.type):
        return array.type, array.is_valid().to_pylist(), pa.compute.list_value_length(array), bits(there.flatten())
    if pa.types.is_floating(array.type):
        return array.type, array.is_valid().to_pylist(), there.to_numpy().tobytes()
    return array.type, array.is_valid().to_pylist(), there.to_pylist()


@given(st.data(), st.sampled_from([*NUMBERS, np.bool_]))
def test_arrays_of_numpy(data, kind):
    values = data.draw(arrays(kind, st.integers(0, 20)))
    missing = data.draw(st.none() | arrays(np.bool_, len(values)))
    step = data.draw(st.sampled_from([1, 2]))
    values, missing = values[::step], None if missing is None else missing[::step]
    assert bits(array_of(values, missing)) == bits(pa.array(values, mask=missing, from_pandas=False))


@given(st.data(), st.sampled_from(NUMBERS))
def test_numbers_of_arrays(data, kind):
    values = data.draw(arrays(kind, st.integers(0, 20)))
    start = data.draw(st.integers(0, len(values)))
    found = numbers_in(pa.array(values, from_pandas=False).slice(start))
    assert found.dtype == kind
    assert found.tobytes() == values[start:].tobytes()
    assert not found.flags.writeable


@given(arrays(np.bool_, st.integers(1, 40)), st.integers(0, 39))
def test_truth_of_arrays(values, start):
    assert truth_in(pa.array(values).slice(start)).tolist() == values[start:].tolist()


@given(st.data(), st.sampled_from(WHOLE))
def test_columns_of_whole_numbers(data, kind):
    info = np.iinfo(kind.to_pandas_dtype())
    values = data.draw(maybe(st.integers(int(info.min), int(info.max))))
    assert bits(column_of(values, kind)) == bits(pa.array(values, kind))
    nested = data.draw(maybe(maybe(st.integers(int(info.min), int(info.max)))))
    kind = pa.list_(pa.field("element", kind))
    assert bits(column_of(nested, kind)) == bits(pa.array(nested, kind))


@given(maybe(st.floats()), st.sampled_from([pa.float32(), pa.float64()]))
def test_columns_of_fractions(values, kind):
    assert bits(column_of(values, kind)) == bits(pa.array(values, kind))


@given(maybe(st.text()), maybe(st.booleans()))
def test_columns_of_texts_and_truth(texts, truth):
    assert bits(column_of(texts, pa.string())) == bits(pa.array(texts, pa.string()))
    assert bits(column_of(truth, pa.bool_())) == bits(pa.array(truth, pa.bool_()))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([300], pa.uint8()),
        ([-1], pa.uint32()),
        ([2**64], pa.uint64()),
        (["a"], pa.int32()),
        ([1], pa.string()),
        ([[1, "a"]], pa.list_(pa.int32())),
        ([1], pa.bool_()),
    ],
)
def test_what_is_no_value_of_a_type_is_refused_as_pyarrow_does(values, kind):
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (whatever it is)
        pa.array(values, kind)
    with pytest.raises(type(theirs.value)):
        column_of(values, kind)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5], pa.float64()),
        ([np.float32(0.1)], pa.float32()),
        ([np.int64(3), None], pa.uint8()),
        ([1.5], pa.int32()),
        (["ab"], pa.list_(pa.string())),
        ([True], pa.bool_()),
    ],
)
def test_other_numbers_are_taken_as_pyarrow_does(values, kind):
    assert bits(column_of(values, kind)) == bits(pa.array(values, kind))


def test_tables_without_rows():
    schema = pa.schema([pa.field("a", pa.int32()), pa.field("b", pa.list_(pa.float32()), nullable=False)])
    assert empty_table(schema).equals(schema.empty_table())
    assert empty_table(schema).schema.equals(schema)


LOADS = """
import sys
import numpy as np
import pyarrow as pa
from butter_etl.engines import array_of, column_of, empty_table, numbers_in, truth_in
numbers_in(array_of(np.arange(3), np.arange(3) > 5))
truth_in(array_of(np.arange(3) > 1))
column_of([1, None], pa.int32()), column_of(["a"], pa.string()), column_of([[1]], pa.list_(pa.uint32()))
empty_table(pa.schema([("a", pa.int32())]))
print("pandas" in sys.modules)
pa.array([1])
print("pandas" in sys.modules)
"""


def test_pandas_is_not_loaded_and_would_be_by_pyarrow():
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            with open(os.environ["LOADED"], "a") as file:
                print(*sys.argv, file=file)
sys.meta_path.insert(0, Watch())
"""
SPEC = "name: small\nrepetitions: 2\ncubes:\n  - {dataset: [wine], size: [512], depth: [3], epochs: [2]}\n"


@pytest.mark.long
def test_training_and_summaries_load_no_pandas(tmp_path):
    """Neither the command nor its workers; the first that encodes a data set does."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "small.yaml").write_text(SPEC)
    loaded = tmp_path / "loaded"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "LOADED": str(loaded), "BUTTER_ETL_DATA": str(tmp_path)}
    for store, arguments in (
        ("first", ["train", "--spec", "small.yaml", "--workers", "1", "--quiet"]),
        ("store", ["train", "--spec", "small.yaml", "--workers", "1", "--quiet"]),
        ("store", ["summarize", "--quiet"]),
        ("store", ["status", "--json"]),
    ):
        command, *rest = arguments
        line = [sys.executable, "-m", "butter_etl", command, store, *rest]
        subprocess.run(line, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=200)
        assert loaded.exists() == (store == "first")
        loaded.unlink(missing_ok=True)
