"""Files made of others row group by row group: which rows, in which groups, and what is never read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl.errors import TornFileError
from butter_etl.exchange import rewriting
from butter_etl.exchange.rewriting import filter_file, gather_files
from butter_etl.store.files import Location
from butter_etl.store.fingerprints import read_fingerprints
from butter_etl.store.parquet import parquet_bytes
from butter_etl.studies.butter.study import BUTTER
from tests.strategies import POLLEN, make_runs, write_summary


@pytest.fixture
def location(tmp_path):
    return Location(tmp_path)


def runs(*ids):
    """A run of each id."""
    return pa.concat_tables([make_runs(POLLEN, one, [one % 100], epochs=3) for one in ids])


def test_rows_of_some_experiments_with_what_they_were_made_from(location):
    write_summary(location, "all.parquet", runs(*range(20)), {one: f"hash {one}" for one in range(20)})
    filter_file(location, "all.parquet", location, "some.parquet", [3, 9, 19], BUTTER.encodings)
    table = location.read_table("some.parquet")
    assert table["experiment_id"].to_pylist() == [3, 9, 19]
    assert table.equals(location.read_table("all.parquet").take([3, 9, 19]))
    assert read_fingerprints(location, "some.parquet") == {3: "hash 3", 9: "hash 9", 19: "hash 19"}
    with location.parquet_file("some.parquet") as file:
        assert file.num_row_groups == 1  # of up to eight rows, as in the other file


def test_row_groups_of_others_are_not_read(location, tmp_path):
    write_summary(location, "all.parquet", runs(*range(24)), {})
    with location.parquet_file("all.parquet") as file:
        group = file.metadata.row_group(1)
        start = group.column(0).data_page_offset
        stop = start + sum(group.column(index).total_compressed_size for index in range(group.num_columns))
    data = bytearray((tmp_path / "all.parquet").read_bytes())
    data[start:stop] = bytes(len(data[start:stop]))
    (tmp_path / "all.parquet").write_bytes(data)
    filter_file(location, "all.parquet", location, "some.parquet", [2, 20], BUTTER.encodings)
    assert location.read_table("some.parquet")["experiment_id"].to_pylist() == [2, 20]
    with pytest.raises(TornFileError, match=r"all.parquet cannot be read"):
        filter_file(location, "all.parquet", location, "others.parquet", [2, 10], BUTTER.encodings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "some.parquet"]


def test_files_are_gathered_in_order_in_groups_of_a_size(location, monkeypatch):
    for one in range(6):
        location.replace(f"{one}.parquet", parquet_bytes(runs(2 * one, 2 * one + 1), row_group_size=1))
    size = runs(0).nbytes
    monkeypatch.setattr(rewriting, "GROUP_BYTES", int(3.5 * size))
    names = [f"{one}.parquet" for one in range(6)]
    gather_files(location, names, location, "part.parquet", BUTTER.run_files, BUTTER.encodings)
    with location.parquet_file("part.parquet") as file:
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [3, 3, 3, 3]
    assert location.read_table("part.parquet").equals(runs(*range(12)))


def test_columns_that_a_file_lacks_are_null(location):
    location.replace("new.parquet", parquet_bytes(runs(1)))
    location.replace("old.parquet", parquet_bytes(runs(0).drop_columns(["end_reason"])))
    gather_files(location, ["old.parquet", "new.parquet"], location, "part.parquet", BUTTER.run_files, BUTTER.encodings)
    assert location.read_table("part.parquet")["end_reason"].to_pylist() == [None, "completed"]


def test_the_same_input_makes_the_same_bytes(location, tmp_path):
    location.replace("a.parquet", parquet_bytes(runs(1, 2)))
    for target in ("one", "two"):
        gather_files(location, ["a.parquet"], location, target, BUTTER.run_files, BUTTER.encodings)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert pq.read_metadata(tmp_path / "one").metadata is None
