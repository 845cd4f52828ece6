"""A changed byte of a run file is found, or changes nothing that anybody reads."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from butter_etl.store.layout import RunFile, partition_path
from butter_etl.store.parquet import parquet_bytes
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.columns import FLOAT_LIST
from butter_etl.upkeep.files import Flaw, decode
from butter_etl.upkeep.rows import check_run_rows, same_statistics
from tests.strategies import POLLEN, make_runs

PARTITION = partition_path(BUTTER.keys, POLLEN.parameters())
RUNS = make_runs(POLLEN, 0, range(3))
DATA = parquet_bytes(RUNS)
FILE = RunFile(f"{PARTITION}/0-0-2.parquet", 0, 0, 2, len(DATA))


def check(data):
    rows, lengths = decode(data, BUTTER.run_files, BUTTER.derived)
    return check_run_rows(BUTTER, rows, lengths, PARTITION, file=FILE, known={})


def test_a_sound_file():
    assert [(run.experiment_id, run.repetition) for run in check(DATA)] == [(0, 0), (0, 1), (0, 2)]


def flaw_of(data):
    try:
        check(data)
    except Flaw as flaw:
        return flaw
    return None


@settings(max_examples=300)
@example(283, 14)  # the number of values in the header of a page
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found_or_changes_nothing(position, mask):
    damaged = bytearray(DATA)
    damaged[position] ^= mask
    flaw = flaw_of(bytes(damaged))
    if flaw is not None:
        assert flaw.kind in ("torn-file", "wrong-schema", "wrong-row", "wrong-name")
        assert "\n" not in flaw.detail
        return
    with pq.ParquetFile(pa.BufferReader(bytes(damaged)), pre_buffer=False) as file:
        assert file.read(use_threads=False).equals(RUNS)


@settings(max_examples=50)
@given(st.integers(0, len(DATA) - 1))
def test_a_file_cut_short_is_torn(size):
    assert flaw_of(DATA[:size]).kind == "torn-file"


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ([1.0, float("nan"), None], [1.0, float("nan"), None]),
        ([0.0], [-0.0]),
        ([0.0], [None]),
        ([1.0], [1.0 + 2**-23]),
        ([1.0, 2.0], [1.0]),
        ([], None),
        ([1.0], [1.0 + 2**-52]),
    ],
)
@pytest.mark.parametrize("kind", [FLOAT_LIST, pa.list_(pa.float64())])
def test_statistics_are_compared_bit_by_bit(stored, computed, kind):
    pair = pa.array([stored, computed], kind)
    rows = [pa.table({"experiment_id": [7], "test_loss_avg": pair.slice(row, 1)}) for row in (0, 1)]
    same_statistics(rows[0], rows[0])
    if len({repr(row) for row in pair.to_pylist()}) == 1:
        same_statistics(*rows)
        return
    with pytest.raises(Flaw, match="experiment 7: test_loss_avg is not what the runs give"):
        same_statistics(*rows)
