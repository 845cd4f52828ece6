"""What a source has: its files, their keys, and whose the rows are."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl.errors import SourceError, SpecError
from butter_etl.exchange.imports import run_import
from butter_etl.exchange.sources import list_source, path_keys, row_keys, scan_file
from butter_etl.store.layout import partition_path
from butter_etl.store.parquet import write_common_metadata
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from tests.other_study import FITS, FULL, MANY, Fit, make_fits
from tests.strategies import DIGITS, POLLEN, land, make_runs

SEED = BUTTER.profiles["seed"]


def rows_of(spec, experiment_id, repetitions):
    table = make_runs(spec, experiment_id, repetitions)
    for name, value in spec.parameters().items():
        if name not in table.column_names:
            column = pa.array([value] * table.num_rows, BUTTER.runs.field(name).type)
            table = table.append_column(name, column)
    return table.select(BUTTER.runs.names)


def test_keys_of_a_path():
    path = "colour=red/a%3Db=c%2Fd/plain/kernel_regularizer.type=__HIVE_DEFAULT_PARTITION__/x=1.parquet"
    assert path_keys(path) == {"colour": "red", "a=b": "c/d", "kernel_regularizer.type": None}


def test_a_store_lists_its_runs_and_an_export_leaves_its_summaries_out(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, 0, range(2))
    source = list_source(BUTTER, tmp_path / "store")
    assert source.is_store
    path = f"all_runs/{partition_path(BUTTER.keys, POLLEN.parameters())}/0-0-1.parquet"
    assert [name for name, _ in source.files] == [path]
    write_common_metadata(store.location, "", BUTTER.runs)
    for folder, schema in (("x_sweep_summary", BUTTER.summary), ("x_sweep_runs", BUTTER.runs)):
        write_common_metadata(store.location, f"out/{folder}", schema)
        pq.write_table(schema.empty_table(), tmp_path / f"store/out/{folder}/a.parquet")
    (tmp_path / "store/out/README.md").write_text("x")
    source = list_source(BUTTER, tmp_path / "store/out")
    assert [name for name, _ in source.files] == ["x_sweep_runs/a.parquet"]
    assert source.left_out == ["README.md"]
    with pytest.raises(SourceError, match="holds no Parquet files of runs"):
        list_source(BUTTER, tmp_path / "store/out/x_sweep_summary")


def test_only_a_file_that_is_what_its_name_says_is_whole(tmp_path):
    store = Store.create(tmp_path)
    land(store, POLLEN, 0, range(3, 5))
    (file,) = store.run_files()
    name = f"all_runs/{file.path}"
    assert scan_file(BUTTER, str(tmp_path), name, file.size, SEED).whole == file
    for other in ("0-3-5.parquet", "1-3-4.parquet", "runs.parquet"):
        (tmp_path / name).rename(tmp_path / name.replace("0-3-4.parquet", other))
        assert scan_file(BUTTER, str(tmp_path), name.replace("0-3-4.parquet", other), file.size, SEED).whole is None
        (tmp_path / name.replace("0-3-4.parquet", other)).rename(tmp_path / name)


def test_rows_of_one_experiment_share_a_key():
    other = rows_of(POLLEN, 0, [7])
    place = other.schema.get_field_index("task_version")
    version = other.set_column(place, other.schema.field(place), pa.array([2], pa.uint16()))
    rows = pa.concat_tables([rows_of(POLLEN, 0, range(2)), rows_of(DIGITS, 1, range(2)), other, version])
    assert row_keys(BUTTER, rows).indices.to_pylist() == [0, 0, 1, 1, 0, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "dataset: '' would be read back as null; give it another name"),
        ("__HIVE_DEFAULT_PARTITION__", "would be read back as null"),
        ("long_" + "ä" * 80, r"dataset: 'long_ä+'… takes 485 bytes as the name of a folder, at most 24[79] will do"),
    ],
)
@pytest.mark.parametrize("other_key", [False, True])
def test_names_that_no_folder_can_have_are_refused_before_anything_is_made(tmp_path, name, message, other_key):
    key = "shape" if other_key else "dataset"
    rows = rows_of(POLLEN, 0, [0])
    columns = {"task": "theirs", "dataset": "theirs", key: name}
    for column, value in columns.items():
        position = rows.schema.get_field_index(column)
        rows = rows.set_column(position, column, pa.array([value], pa.string()))
    pq.write_table(rows, tmp_path / "theirs.parquet")
    with pytest.raises(SpecError, match=message.replace("dataset:", f"{key}:")):
        run_import(tmp_path / "theirs.parquet", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.parquet"]


def test_experiments_differ_by_lists_too():
    others = [Fit(**{**FULL.parameters(), "knots": knots}) for knots in ((3, 4), (34, 5), ())]
    tables = [make_fits(one, 0, range(2)) for one in (FULL, *others, MANY, FULL)]
    codes = row_keys(FITS, pa.concat_tables(tables)).indices.to_pylist()
    assert codes == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0]
