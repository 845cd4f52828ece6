"""Histories that are moved as pages: to the bit what they are, whatever they are moved from and beside."""

import io
from functools import partial

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.errors import TornFileError
from butter_etl.exchange.rewriting import filter_file, gather_files
from butter_etl.store import history_files, page_reading, page_writing
from butter_etl.store.files import Location
from butter_etl.store.history_chunks import DamagedPageError, StoredLists, is_history
from butter_etl.store.history_files import HistoryFile
from butter_etl.store.page_writing import HistoryWriter
from butter_etl.store.parquet import ZSTD_LEVEL, parquet_options
from butter_etl.store.stored_rows import StoredRows, table_of
from butter_etl.store.thrift import i32, read_struct, write_struct
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.columns import LEVELS, NOISE, PageEncoding, usual_encoding
from tests.strategies import POLLEN, make_runs, write_summary
from tests.test_history_files import PYARROW, assert_same, read, tables, written


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """The codec reads files and columns of any size, and puts small pages side by side."""
    monkeypatch.setattr(history_files, "SMALL_FILE", 0)
    monkeypatch.setattr(page_reading, "_FEW_ENTRIES", 0)
    monkeypatch.setattr(page_writing, "_LARGE", 0)


def moved(files, schema, encodings=None, together=True):
    """A file of the row groups of others: all as one, or each as it is."""
    encodings = {field.name: (encodings or {}).get(field.name, usual_encoding(field.type)) for field in schema}
    memory, options = io.BytesIO(), partial(parquet_options, encodings=encodings)
    with HistoryWriter(memory, schema, encodings, options, level=ZSTD_LEVEL) as writer:
        groups = [rows for data in files for rows in stored_in(data)]
        for pieces in [groups] if together else [[rows] for rows in groups]:
            writer.write_rows([rows.conform(schema) for rows in pieces])
    return memory.getvalue()


def stored_in(data):
    with HistoryFile(pa.BufferReader(data)) as file:
        return [file.read_stored(group) for group in range(file.num_row_groups)]


def assert_is(data, table):
    """A file holds a table: by pyarrow, checksums and all, by the codec, and page by page."""
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as theirs:
        assert_same(theirs.read(), table)
    assert_same(read(data), table)
    with HistoryFile(pa.BufferReader(data)) as file:
        pieces = [file.read_stored(group).conform(table.schema) for group in range(file.num_row_groups)]
    assert_same(table_of(pieces, table.schema), table)


SIZES = st.tuples(st.sampled_from([32, 4000, 2**20]), st.integers(1, 30))


@settings(max_examples=60)
@given(tables(), SIZES, SIZES, st.sampled_from([2, 4096]), st.booleans(), st.data())
def test_rows_are_moved_to_the_bit(table, first, second, most_entries, together, data):
    """From two files of other pages, row groups and encodings, as one row group or as those that they were."""
    names = [name for name in table.column_names if is_history(table[name].type)]
    kinds = st.sampled_from([NOISE, LEVELS, PageEncoding("split", compressed=False)])
    files = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_writing, "MOST_ENTRIES", most_entries)
        for page_bytes, size in (first, second):
            patch.setattr(page_writing, "PAGE_BYTES", page_bytes)
            files.append(written(table, {name: data.draw(kinds) for name in names}, size))
        found = moved(files, table.schema, {name: data.draw(kinds) for name in names}, together)
    assert_is(found, pa.concat_tables([table, table]))
    with pq.ParquetFile(pa.BufferReader(found)) as theirs:
        groups = [-(-table.num_rows // size) for _, size in (first, second)]
        assert theirs.metadata.num_row_groups == (1 if together else sum(groups))


@settings(max_examples=60)
@given(tables(), PYARROW, st.integers(1, 30), st.booleans())
def test_rows_of_pyarrows_files_are_moved_or_decoded(table, options, size, together):
    memory = io.BytesIO()
    pq.write_table(table, memory, row_group_size=size, **options)
    with pq.ParquetFile(memory) as file:  # as pyarrow gives types back
        same = file.read().replace_schema_metadata(None)
    assert_is(moved([memory.getvalue()], same.schema, None, together), same)


def long_table():
    """Runs with losses that are split and accuracies that get a dictionary."""
    rows = pa.concat_tables([make_runs(POLLEN, 7, [one], epochs=400) for one in range(6)])
    return rows.select(["experiment_id", "run_id", *BUTTER.histories])


def test_a_row_group_is_moved_to_the_same_bytes():
    """Which say the same of it: sizes, counts of levels, where pages lie."""
    table = long_table()
    data = written(table, BUTTER.encodings, 3)
    stored = stored_in(data)
    assert all(isinstance(rows.columns[name], StoredLists) for rows in stored for name in BUTTER.histories)
    assert {rows.columns[name].dictionary > 0 for rows in stored for name in BUTTER.histories} == {True, False}
    assert moved([data], table.schema, BUTTER.encodings, together=False) == data
    for rows, start in zip(stored, (0, 3), strict=True):
        assert rows.num_rows == 3
        assert rows.select(["val_loss"]).nbytes == 4 * 3 * 400 + 4 * 3
        assert_same(table_of([rows], table.schema), table.slice(start, 3).combine_chunks())


def test_pages_of_several_are_put_side_by_side_where_they_are_large(monkeypatch):
    table = long_table()
    data = written(table, BUTTER.encodings, 1)

    def pages_of(data, name):
        (rows,) = stored_in(data)
        return len(rows.columns[name].pages)

    assert pages_of(moved([data], table.schema, BUTTER.encodings), "val_loss") == 6
    assert pages_of(moved([data], table.schema, BUTTER.encodings), "val_accuracy") == 1  # dictionaries differ
    monkeypatch.setattr(page_writing, "_LARGE", 2**16)
    assert pages_of(moved([data], table.schema, BUTTER.encodings), "val_loss") == 1


def test_other_readers_read_what_is_moved(tmp_path):
    table = long_table()
    files = [written(table, BUTTER.encodings, size) for size in (1, 4)]
    (tmp_path / "moved.parquet").write_bytes(moved(files, table.schema, BUTTER.encodings))
    expected = pa.concat_tables([table, table])["val_loss"].to_pylist()
    assert pl.read_parquet(tmp_path / "moved.parquet")["val_loss"].to_list() == expected
    found = duckdb.sql(f"select val_loss from '{tmp_path}/moved.parquet'").fetchall()
    assert [row[0] for row in found] == expected


def test_a_flipped_bit_of_a_page_is_not_moved():
    table = long_table()
    data = written(table, BUTTER.encodings)
    (rows,) = stored_in(data)
    start = data.index(rows.columns["val_loss"].data.tobytes())
    _, size, _ = rows.columns["val_loss"].pages[0]
    damaged = bytearray(data)
    damaged[start + int(size) // 2] ^= 1
    with pytest.raises(DamagedPageError, match="checksum"):
        stored_in(bytes(damaged))


def test_a_page_without_a_checksum_is_decoded():
    memory = io.BytesIO()
    pq.write_table(long_table(), memory, compression="zstd")
    (rows,) = stored_in(memory.getvalue())
    assert all(isinstance(column, pa.ChunkedArray) for column in rows.columns.values())


def test_columns_that_are_missing_or_of_another_type():
    table = long_table()
    (rows,) = stored_in(written(table, BUTTER.encodings))
    schema = pa.schema(
        [
            pa.field("val_loss", pa.list_(pa.float64())),
            pa.field("absent", pa.utf8()),
            pa.field("experiment_id", pa.int64()),
        ]
    )
    found = table_of([rows.conform(schema)], schema)
    assert found["val_loss"].to_pylist() == table["val_loss"].to_pylist()
    assert found["absent"].null_count == found.num_rows == 6
    assert found["experiment_id"].equals(table["experiment_id"].cast(pa.int64()))
    assert StoredRows.of(table).conform(table.schema).nbytes == table.nbytes


# --- files of a store ------------------------------------------------------------------------------------------------


def runs(*ids):
    return pa.concat_tables([make_runs(POLLEN, one, [one % 100], epochs=400) for one in ids])


def test_files_are_gathered_by_their_pages(tmp_path):
    location = Location(tmp_path)
    for one in range(4):
        location.replace(f"{one}.parquet", written(runs(2 * one, 2 * one + 1), BUTTER.encodings))
    names = [f"{one}.parquet" for one in range(4)]
    gather_files(location, names, location, "part.parquet", BUTTER.run_files, BUTTER.encodings)
    assert location.read_table("part.parquet").equals(runs(*range(8)))


def test_a_damaged_source_is_named(tmp_path):
    location = Location(tmp_path)
    for one in range(2):
        location.replace(f"{one}.parquet", written(runs(one), BUTTER.encodings))
    damaged = bytearray((tmp_path / "1.parquet").read_bytes())
    with HistoryFile(pa.BufferReader(bytes(damaged))) as file:
        lists = file.read_stored(0).columns["val_loss"].data.tobytes()
    damaged[bytes(damaged).index(lists) + len(lists) // 2] ^= 1
    (tmp_path / "1.parquet").write_bytes(damaged)
    with pytest.raises(TornFileError, match=r"1\.parquet cannot be read"):
        gather_files(location, ["0.parquet", "1.parquet"], location, "part.parquet", BUTTER.run_files, BUTTER.encodings)
    assert not (tmp_path / "part.parquet").exists()


def with_lying_dictionary(data, name):
    """The file with a dictionary of a column that agrees with its checksum, and says to have an entry less."""
    (rows,) = stored_in(data)
    begin = data.index(rows.columns[name].data.tobytes())
    header, body = read_struct(data, begin)
    header[7].value[1] = i32(header[7].value[1].value - 1)
    changed = bytearray()
    write_struct(header, changed)
    assert len(changed) == body - begin
    return data[:begin] + bytes(changed) + data[body:]


def test_a_page_that_agrees_with_its_checksum_but_is_none_is_named(tmp_path):
    location, name = Location(tmp_path), "val_accuracy"
    for one in range(2):
        data = written(runs(one), BUTTER.encodings)
        location.replace(f"{one}.parquet", with_lying_dictionary(data, name) if one else data)
    with pytest.raises(TornFileError, match=r"1\.parquet cannot be read"):
        gather_files(location, ["0.parquet", "1.parquet"], location, "part.parquet", BUTTER.run_files, BUTTER.encodings)
    assert not (tmp_path / "part.parquet").exists()


def test_whole_row_groups_of_a_summary_are_moved(tmp_path, monkeypatch):
    location = Location(tmp_path)
    write_summary(location, "all.parquet", runs(*range(24)), {})
    decoded = []
    monkeypatch.setattr(HistoryFile, "read_row_group", count(HistoryFile.read_row_group, decoded))
    filter_file(location, "all.parquet", location, "some.parquet", [*range(8, 16), 17], BUTTER.encodings)
    assert [columns for columns in decoded if columns != ["experiment_id"]] == [None]  # of the last row group
    expected = location.read_table("all.parquet").slice(8, 10).take([*range(8), 9])
    assert location.read_table("some.parquet").equals(expected)


def count(read_row_group, columns_seen):
    def counted(self, i, columns=None, use_threads=True):
        columns_seen.append(columns)
        return read_row_group(self, i, columns, use_threads)

    return counted
