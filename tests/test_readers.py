"""What readers make of an export when they are told nothing: the table and the traps of docs/recipes.md.

What a reader learns to do better fails here, so that the page need not warn of it any more. Scripts in findings/ do the
same for readers that the tests do not install.
"""

import re

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from butter_etl.studies.butter.study import BUTTER
from tests.exports import export, make_store
from tests.test_docs import RECIPES, ROOT, table_after

WRAPPED = 3 - 4 + 2**8
TYPES = {field.name: field.type for field in BUTTER.key_schema}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs in two partitions, of depth 3: in the path of one the penalty is null, in that of the other `l1`."""
    home = tmp_path_factory.mktemp("readers")
    where = ["dataset=mnist", "label_noise=0", "batch_size=256"]
    export(make_store(home / "store"), home / "dest", where=where)
    paths = [str(path) for path in (home / "dest/all_runs").rglob("*.parquet")]
    assert {re.search(r"/kernel_regularizer\.type=(\w+)/", path)[1] for path in paths} == {
        "l1",
        "__HIVE_DEFAULT_PARTITION__",
    }
    return home / "dest/all_runs"


@pytest.fixture(scope="module")
def schema(runs):
    return pq.read_schema(runs / "_common_metadata")


@pytest.fixture(scope="module")
def of_polars(runs):
    kinds = pl.from_arrow(BUTTER.key_schema.empty_table()).schema
    return pl.scan_parquet(runs / "**/*.parquet", hive_schema=kinds)


@pytest.fixture(scope="module")
def of_duckdb(runs):
    kinds = "{'depth': utinyint, 'learning_rate': float}"
    return duckdb.sql(f"from read_parquet('{runs}/**/*.parquet', hive_partitioning = true, hive_types = {kinds})")


# --- the table ---------------------------------------------------------------------------------------------------


def test_every_reader_of_the_table_is_shown_by_the_tests_or_by_a_script_of_its_version():
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    rows = table_after(RECIPES, "<!-- table: readers -->")
    assert len(rows) == 11
    for reader, version, works, instead, shown_by in rows:
        assert works
        assert instead
        if shown_by == "the tests":
            assert f"{reader.lower()}=={version}" in constraints, reader
            continue
        scripts = re.findall(r"\w+\.sh", shown_by)
        assert scripts, reader
        for number in version.replace("chDB", "").split():
            assert all(number.strip("()") in (ROOT / "findings" / name).read_text() for name in scripts), reader


def test_every_finding_about_readers_is_named_by_the_page():
    about = re.compile(
        r"pip\" install .*(?:datafusion|daft|chdb|fastparquet|pandas|pylance)==|hyparquet@", flags=re.DOTALL
    )
    scripts = {path.name for path in (ROOT / "findings").glob("*.sh") if about.search(path.read_text())}
    scripts -= {"pyarrow_loads_pandas.sh"}  # of processes that start, and read nothing
    assert scripts == set(re.findall(r"\w+\.sh", RECIPES.read_text()))


# --- the directory -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # Dask's
def test_a_key_that_is_null_in_some_paths_stops_plain_pandas_and_dask(runs, schema):
    with pytest.raises(pa.ArrowInvalid, match="Cannot yet unify dictionaries with nulls"):
        pd.read_parquet(runs)
    lazy = dd.read_parquet(runs)
    with pytest.raises(
        pa.ArrowInvalid, match=r"No non-null segments were available for field 'kernel_regularizer.type'"
    ):
        lazy.compute(scheduler="synchronous")
    frame = pd.read_parquet(runs, schema=schema, dtype_backend="pyarrow")
    assert {name: frame.dtypes[name].pyarrow_dtype for name in TYPES} == TYPES
    assert set(frame["kernel_regularizer.type"].dropna()) == {"l1"}
    assert frame["kernel_regularizer.type"].isna().sum() == 9


def test_pandas_overlooks_nulls_of_keys_that_it_guesses(runs):
    guessed = pd.read_parquet(runs, dtype_backend="pyarrow")
    assert sum(value is pd.NA for value in guessed["kernel_regularizer.type"]) == 9
    assert guessed["kernel_regularizer.type"].isna().sum() == 0
    with pytest.raises(pa.ArrowInvalid, match="Cannot yet unify dictionaries with nulls"):
        guessed.groupby("kernel_regularizer.type").size()


def test_pyarrow_reads_it_with_keys_of_its_own_types(runs):
    table = ds.dataset(runs, partitioning="hive").to_table()
    assert (table.schema.field("learning_rate").type, table.schema.field("depth").type) == (pa.string(), pa.int32())
    assert table["kernel_regularizer.type"].null_count == 9


def test_polars_stops_at_the_file_of_the_schema(runs):
    with pytest.raises(pl.exceptions.InvalidOperationError, match="_common_metadata"):
        pl.read_parquet(runs)
    assert "depth" not in pl.read_parquet_schema(next(runs.rglob("*.parquet")))
    assert "depth" not in pl.scan_parquet(runs / "**/*.parquet").collect_schema()
    guessed = pl.read_parquet(runs / "**/*.parquet", hive_partitioning=True)
    assert (guessed.schema["learning_rate"], guessed.schema["depth"]) == (pl.Float64, pl.Int64)
    assert guessed["kernel_regularizer.type"].null_count() == 9


@pytest.mark.parametrize("below", ["", "/**/*.parquet"])
def test_duckdb_reads_it_with_keys_of_its_own_types(runs, below):
    guessed = duckdb.sql(f"from read_parquet('{runs}{below}')")
    kinds = dict(zip(guessed.columns, map(str, guessed.types), strict=True))
    assert (kinds["learning_rate"], kinds["depth"]) == ("VARCHAR", "BIGINT")
    assert guessed.filter('"kernel_regularizer.type" is null').count("*").fetchall() == [(9,)]


# --- values ------------------------------------------------------------------------------------------------------


def test_differences_of_unsigned_numbers_in_pandas(runs, schema):
    numpy = pd.read_parquet(runs, schema=schema)
    assert set(numpy["depth"] - 4) == {WRAPPED}
    assert set(numpy["num_free_parameters"] - numpy["size"]) == {2**64 - 81, 2**64 - 122}
    arrow = pd.read_parquet(runs, schema=schema, dtype_backend="pyarrow")
    assert set(arrow["depth"] - 4) == {-1}
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        arrow["num_free_parameters"] - arrow["size"]
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        arrow["size"].diff()
    signed = arrow["num_free_parameters"].astype("int64[pyarrow]") - arrow["size"].astype("int64[pyarrow]")
    assert set(signed) == {-81, -122}


def test_differences_of_unsigned_numbers_in_pyarrow(runs, schema):
    table = ds.dataset(runs, schema=schema, partitioning="hive").to_table()
    assert set(pc.subtract(table["depth"], 4).to_pylist()) == {-1}
    assert set(pc.subtract(table["num_free_parameters"], table["size"]).to_pylist()) == {2**64 - 81, 2**64 - 122}


def test_differences_of_unsigned_numbers_in_polars(of_polars):
    assert set(of_polars.select(pl.col("depth") - 4).collect()["depth"]) == {WRAPPED}
    assert set(of_polars.select(pl.col("depth").cast(pl.Int64) - 4).collect()["depth"]) == {-1}


def test_differences_of_unsigned_numbers_in_duckdb(of_duckdb):
    with pytest.raises(duckdb.OutOfRangeException, match="Overflow in subtraction of UINT8"):
        of_duckdb.project("depth - 4").fetchall()
    assert set(of_duckdb.project("depth::bigint - 4").fetchall()) == {(-1,)}


def test_a_float64_is_not_the_float32_of_a_key(runs, schema, of_polars, of_duckdb):
    dataset = ds.dataset(runs, schema=schema, partitioning="hive")
    assert dataset.count_rows(filter=ds.field("learning_rate") == 0.0001) == 0
    assert dataset.count_rows(filter=ds.field("learning_rate") == pa.scalar(0.0001, pa.float32())) == 12
    frame = pd.read_parquet(runs, schema=schema, dtype_backend="pyarrow")
    assert (frame["learning_rate"] == 0.0001).sum() == 0
    assert (frame["learning_rate"] == np.float32(0.0001)).all()
    assert len(pd.read_parquet(runs, schema=schema, filters=[("learning_rate", "==", 0.0001)])) == 0
    assert of_polars.filter(pl.col("learning_rate") == 0.0001).collect().height == 12
    assert of_duckdb.filter("learning_rate = 0.0001").count("*").fetchall() == [(12,)]
    assert of_duckdb.filter("learning_rate = 0.0001::double").count("*").fetchall() == [(0,)]
