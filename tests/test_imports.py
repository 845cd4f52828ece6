"""Runs from other stores, exports, Parquet files of any layout, Dask dataframes, and other schemas, into a store."""

import decimal
import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid

import dask.dataframe as dd
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import butter_etl as be
from butter_etl.engines.contract import HISTORIES, METRICS
from butter_etl.errors import (
    DuplicateError,
    SelectError,
    SourceError,
    SpecError,
    StoreError,
    StudyError,
    TornFileError,
)
from butter_etl.exchange import gathering
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.exchange.imports import run_import
from butter_etl.partition import partition_runs, run_export
from butter_etl.store.files import Location
from butter_etl.store.frames import to_frame
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.columns import FLOAT_LIST
from butter_etl.studies.experiments import ForeignExperiment
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.other_study import EXPERIMENTS as FITTED
from tests.other_study import FITS, FULL, make_fits, make_store_of_fits
from tests.strategies import DIGITS, land, make_runs

SWEEP = "name: mine\nrepetitions: 1\ncubes:\n- {dataset: digits, size: 64, depth: 2}\n"
MNIST = {"dataset": "mnist", "depth": 3}
EXPERIMENTS = [
    make_experiment(**MNIST, size=4096),
    make_experiment(**MNIST, size=8192),
    make_experiment(**MNIST, size=4096, learning_rate=0.00001),
    make_experiment(**MNIST, size=4096, kernel_regularizer=Regularizer("l1", 0.32)),
    make_experiment(**MNIST, size=4096, optimizer="SGD", momentum=0.9),  # same partition as the first
]
FLAGS = [name for name in BUTTER.runs.names if name.endswith("_sweep")]


@pytest.fixture
def store(tmp_path):
    """Nine files of six experiments, 26 runs, one experiment outside the published sweeps."""
    store = Store.create(tmp_path / "store")
    for spec in EXPERIMENTS:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(3))
    land(store, EXPERIMENTS[0], BUTTER.fixed_ids.id_of(EXPERIMENTS[0]), range(5, 9))
    registry = Registry(store)
    registry.claim(store, {make_experiment(dataset="digits", size=8192, depth=3): "other", DIGITS: "mine"})
    land(store, DIGITS, registry.experiment_id(DIGITS), range(7), batch="mine")
    run_summaries(plan_summaries(store), store)
    return store


def contents(folder, *, without=("state", "sources")):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in without
    }


def export(path, dest, *, everything=True):
    store = Store.open(path)
    run_summaries(plan_summaries(store), store)
    options = ExportOptions()
    plan = plan_export(store, Registry(store).select(Choice()), options, everything=everything)
    run_export(plan, store, Location(dest), options)


def all_rows(path):
    """The rows of a store, sorted, as a table of the run schema."""
    frame = be.read_runs(path).compute(scheduler="synchronous")
    table = pa.Table.from_pandas(frame, schema=BUTTER.runs, preserve_index=False).replace_schema_metadata(None)
    return table.sort_by([("experiment_id", "ascending"), ("repetition", "ascending")])


def foreign(table, task="AspectTestTask", ids=None, version=4):
    """Rows as another task would have made them: ids of its own, no repetition numbers, none of our additions."""
    rows = table.num_rows
    numbers = np.asarray(table["experiment_id"]) + 500_000 if ids is None else np.full(rows, ids)
    changes = {
        "task": pa.array([task] * rows),
        "task_version": pa.array([version] * rows, pa.uint16()),
        "experiment_id": pa.array(numbers, pa.uint32()),
        "run_id": pa.array([hashlib.md5(name.encode()).hexdigest() for name in table["run_id"].to_pylist()]),  # noqa: S324
        "command": pa.array(["{}"] * rows),
        "repetition": pa.nulls(rows, pa.uint16()),
    }
    for name, values in changes.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table


def write(table, folder, name="runs.parquet", **options):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, **options)
    return folder


def shuffled(table, seed=0):
    return table.take(np.random.default_rng(seed).permutation(table.num_rows))


# --- stores and exports ------------------------------------------------------------------------------------------


def test_an_export_imported_into_an_empty_store_exports_to_the_same_bytes(store, tmp_path):
    export(store.location.root, tmp_path / "first")
    report = run_import(tmp_path / "first", tmp_path / "other")
    assert (report.experiments, report.landed) == (6, 26)
    export(tmp_path / "other", tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
    assert len(contents(tmp_path / "first")) > 30


def test_a_store_imported_into_an_empty_one_is_the_same_store(store, tmp_path):
    (tmp_path / "store/sweeps").mkdir()
    (tmp_path / "store/sweeps/mine.yaml").write_text("name: mine\n")
    report = run_import(tmp_path / "store", tmp_path / "other")
    assert (report.landed, report.present, report.warnings) == (26, 0, ())
    left_out = ("state", "complete_summary", "complete_executive_summary", "experiments")
    assert contents(tmp_path / "other", without=left_out) == contents(tmp_path / "store", without=left_out)
    assert Registry(Store.open(tmp_path / "other")).experiment(2**24 + 1) == DIGITS
    before = contents(tmp_path / "other")
    again = run_import(tmp_path / "store", tmp_path / "other")
    assert (again.landed, again.present) == (0, 26)
    assert contents(tmp_path / "other") == before


def test_what_a_mac_puts_beside_files_is_passed_over(store, tmp_path):
    (tmp_path / "store/sweeps").mkdir()
    (tmp_path / "store/sweeps/mine.yaml").write_text(SWEEP)
    files = sorted((tmp_path / "store").rglob("*.parquet"))
    for path in (*files, tmp_path / "store/sweeps/mine.yaml", tmp_path / "store/datasets/mine.parquet"):
        path.parent.mkdir(exist_ok=True)
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    assert Registry(store).sweep_names() == ["mine"]
    assert Registry(store).own_datasets.names() == []
    assert run_import(tmp_path / "store", tmp_path / "other").landed == 26
    assert Registry(Store.open(tmp_path / "other")).sweep_names() == ["mine"]
    assert [path.name for path in (tmp_path / "other").rglob("._*")] == []
    report = run_verification(plan_verification(tmp_path / "store"))
    assert {finding.kind for finding in report.findings if not finding.is_note} == {"foreign-file"}


def test_two_stores_are_merged(store, tmp_path):
    other = Store.create(tmp_path / "other")
    land(other, EXPERIMENTS[0], BUTTER.fixed_ids.id_of(EXPERIMENTS[0]), range(2, 6))  # 2 and 5 are in both
    mine = make_experiment(dataset="wine", size=512, depth=2)
    registry = Registry(other)
    registry.claim(other, {mine: "theirs", DIGITS: "theirs"})
    assert registry.experiment_id(mine) == 2**24
    land(other, mine, 2**24, range(2), batch="theirs")
    land(other, DIGITS, 2**24 + 1, range(7, 9), batch="theirs")
    report = run_import(tmp_path / "other", tmp_path / "store")
    assert (report.experiments, report.landed, report.present) == (3, 6, 2)
    registry = Registry(store)
    assert registry.experiment_id(DIGITS) == 2**24 + 1
    assert registry.experiment_id(mine) == 2**24 + 2  # the id that it had belongs to another one here
    assert registry.batch(2**24 + 2) == "theirs"
    masks = store.repetitions()
    assert masks[BUTTER.fixed_ids.id_of(EXPERIMENTS[0])] == 0b111111111
    assert masks[2**24 + 1] == 0b111111111
    assert masks[2**24 + 2] == 0b11
    assert (run_import(tmp_path / "other", tmp_path / "store").landed) == 0


def test_sweeps_of_the_same_name_are_told(store, tmp_path):
    other = Store.create(tmp_path / "other")
    for one, text in ((store, "name: a\n"), (other, "name: b\n")):
        one.location.write_new("sweeps/mine.yaml", text.encode())
    report = run_import(tmp_path / "store", tmp_path / "other")
    assert report.warnings == (f"{tmp_path}/other has another sweep called 'mine'; it was kept",)


# --- any layout --------------------------------------------------------------------------------------------------


def flat(table, folder):
    write(table.slice(0, 11), folder, "a.parquet")
    write(table.slice(11), folder, "b.parquet", row_group_size=4)


def hive_of_duckdb(table, folder):
    duckdb.from_arrow(table).write_parquet(str(folder), partition_by=list(BUTTER.keys))


def hive_of_pyarrow(table, folder):
    partitioning = ds.partitioning(pa.schema([BUTTER.key_schema.field("shape")]), flavor="hive")
    ds.write_dataset(table, folder, format="parquet", partitioning=partitioning)


def wide_types(table, folder):
    """What other writers make of it: 64-bit integers, doubles, large strings and lists, dictionaries."""
    wider = {pa.uint8(): pa.int64(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.float32(): pa.float64()}
    fields = []
    for field in table.schema:
        kind = wider.get(field.type, field.type)
        if field.name == "shape":
            kind = pa.dictionary(pa.int32(), pa.string())
        elif pa.types.is_string(kind):
            kind = pa.large_string()
        elif field.name in HISTORIES:
            kind = pa.large_list(pa.float64())
        fields.append(pa.field(field.name, kind))
    write(table.cast(pa.schema(fields)), folder)


def polars_file(table, folder):
    folder.mkdir()
    pl.from_arrow(table).write_parquet(folder / "one.parquet", row_group_size=5)


@pytest.mark.parametrize("layout", [flat, hive_of_duckdb, hive_of_pyarrow, wide_types, polars_file])
@pytest.mark.parametrize("spools", [False, True])
def test_parquet_in_any_layout_and_order_comes_to_the_same_store(store, tmp_path, layout, spools, monkeypatch):
    if spools:
        monkeypatch.setattr(gathering, "_MOST_REREADING", 0.0)
    expected = all_rows(tmp_path / "store")
    layout(shuffled(expected), tmp_path / "source")
    report = run_import(tmp_path / "source", tmp_path / "other")
    assert (report.experiments, report.landed, report.warnings) == (6, 26, ())
    assert all_rows(tmp_path / "other").equals(expected)
    for path in (tmp_path / "other/all_runs").rglob("*.parquet"):
        assert pc.unique(pq.read_table(path)["experiment_id"]).to_pylist() == [int(path.name.partition("-")[0])]
    before = contents(tmp_path / "other")
    assert run_import(tmp_path / "source", tmp_path / "other").present == 26
    assert contents(tmp_path / "other") == before
    assert not list((tmp_path / "other/state").rglob("*.tmp"))


def test_a_single_file(store, tmp_path):
    table = all_rows(tmp_path / "store")
    write(table.slice(0, 2), tmp_path / "source")
    assert run_import(tmp_path / "source/runs.parquet", tmp_path / "other").landed == 2


def test_any_frame_is_repartitioned(store, tmp_path, client):
    frame = be.read_runs(tmp_path / "store")
    scattered = dd.from_pandas(frame.compute().sample(frac=1, random_state=1), npartitions=4)
    report = partition_runs(scattered, tmp_path / "other")
    assert (report.landed, report.present) == (26, 0)
    assert all_rows(tmp_path / "other").equals(all_rows(tmp_path / "store"))
    before = contents(tmp_path / "other")
    again = be.partition_runs(frame, tmp_path / "other")
    assert (again.landed, again.present) == (0, 26)
    assert contents(tmp_path / "other") == before


def test_own_runs_get_their_number_from_their_command(store, tmp_path):
    table = all_rows(tmp_path / "store").drop_columns(["repetition"])
    partition_runs(dd.from_pandas(to_frame(table), npartitions=2), tmp_path / "other")
    assert all_rows(tmp_path / "other").equals(all_rows(tmp_path / "store"))


# --- other tasks -------------------------------------------------------------------------------------------------


def test_runs_of_another_task_are_experiments_of_their_own(store, tmp_path):
    rows = all_rows(tmp_path / "store")
    source = write(shuffled(foreign(rows)), tmp_path / "source")
    report = run_import(source, tmp_path / "store")
    assert (report.experiments, report.landed) == (6, 26)
    registry = Registry(store)
    there = all_rows(tmp_path / "store")
    own = there.filter(pc.equal(there["task"], "butter_etl.train"))
    others = there.filter(pc.equal(there["task"], "AspectTestTask"))
    assert own.equals(rows)
    ids = sorted({int(one) + 500_000 for one in np.asarray(rows["experiment_id"])})
    assert sorted(set(others["experiment_id"].to_pylist())) == ids  # they were free
    for one in ids:
        spec = registry.experiment(one)
        assert isinstance(spec, ForeignExperiment)
        assert '"task":"AspectTestTask"' in spec.canonical_json()
        group = others.filter(pc.equal(others["experiment_id"], one)).sort_by("run_id")
        assert group["repetition"].to_pylist() == list(range(group.num_rows))  # the rank by run_id
    run_summaries(plan_summaries(store), store)
    summary = be.read_summary(tmp_path / "store").compute(scheduler="synchronous")
    assert len(summary) == 12
    export(tmp_path / "store", tmp_path / "out")
    exported = be.read_export(tmp_path / "out/primary_sweep_runs").compute(scheduler="synchronous")
    assert set(exported["task"]) == {"butter_etl.train", "AspectTestTask"}
    run_import(tmp_path / "out", tmp_path / "again")
    export(tmp_path / "again", tmp_path / "out2")
    assert contents(tmp_path / "out2") == contents(tmp_path / "out")


def test_later_runs_of_another_task_are_counted_on(store, tmp_path):
    rows = foreign(all_rows(tmp_path / "store").slice(0, 7))
    assert len(set(rows["experiment_id"].to_pylist())) == 1
    rows = rows.sort_by("run_id")
    late = write(rows.take([0, 2, 4, 6]), tmp_path / "late")
    early = write(rows.take([1, 2, 3, 5]), tmp_path / "early")  # one of them in both
    run_import(late, tmp_path / "other")
    report = run_import(early, tmp_path / "other")
    assert (report.landed, report.present) == (3, 1)
    names = rows["run_id"].to_pylist()
    expected = [names[place] for place in (0, 2, 4, 6, 1, 3, 5)]
    assert all_rows(tmp_path / "other")["run_id"].to_pylist() == expected
    before = contents(tmp_path / "other")
    for source in (early, late):
        assert run_import(source, tmp_path / "other").landed == 0
    assert contents(tmp_path / "other") == before


def test_an_id_that_another_experiment_has_is_not_kept(store, tmp_path):
    rows = all_rows(tmp_path / "store").slice(0, 3)
    taken = BUTTER.fixed_ids.id_of(EXPERIMENTS[1])
    write(foreign(rows, "A", ids=taken), tmp_path / "source", "a.parquet")
    write(foreign(rows, "B", ids=2**24 + 1), tmp_path / "source", "b.parquet")
    two = foreign(rows, "C", ids=600_000)
    renamed = pa.array([f"{name}x" for name in two["run_id"].to_pylist()])
    write(two.set_column(1, "run_id", renamed), tmp_path / "source", "c.parquet")
    first = foreign(rows, "B", ids=2**24 + 1)["run_id"].to_pylist()
    for name in ("b", "c"):  # runs of different experiments must not share an id
        path = tmp_path / f"source/{name}.parquet"
        table = pq.read_table(path)
        ids = pa.array([f"{name}{one}" for one in first])
        pq.write_table(table.set_column(1, "run_id", ids), path)
    run_import(tmp_path / "source", tmp_path / "store")
    registry = Registry(store)
    found = {}
    for one in store.repetitions():
        spec = registry.experiment(one)
        if isinstance(spec, ForeignExperiment):
            found[spec.task] = one
    assert found == {"A": 2**24 + 2, "B": 2**24 + 3, "C": 600_000}


def test_revisions_of_another_task_share_an_experiment_and_ours_do_not(store, tmp_path):
    rows = all_rows(tmp_path / "store").slice(0, 4)
    other = [foreign(rows.slice(0, 2), version=3), foreign(rows.slice(2), version=4)]
    later = foreign(rows, task="butter_etl.train", version=2, ids=700_000)
    later = later.set_column(1, "run_id", pa.array([f"2{name}" for name in later["run_id"].to_pylist()]))
    write(pa.concat_tables([*other, later]), tmp_path / "source")
    report = run_import(tmp_path / "source", tmp_path / "other")
    assert report.experiments == 2
    registry = Registry(Store.open(tmp_path / "other"))
    assert registry.experiment(700_000).task_version == 2


def test_a_run_of_two_experiments_is_refused(store, tmp_path):
    rows = foreign(all_rows(tmp_path / "store").slice(0, 2))
    sizes = pa.array([4096, 512], pa.uint64())
    one = pa.array([rows["run_id"][0].as_py()] * 2)
    rows = rows.set_column(1, "run_id", one).set_column(rows.schema.get_field_index("size"), "size", sizes)
    write(rows, tmp_path / "source")
    with pytest.raises(DuplicateError, match=f"run {one[0]} stands in the source twice, in experiment .* size 4096"):
        run_import(tmp_path / "source", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_more_than_255_runs_are_refused(store, tmp_path):
    row = foreign(all_rows(tmp_path / "store").slice(0, 1))
    many = pa.concat_tables([row] * 256)
    many = many.set_column(1, "run_id", pa.array([f"{number:04d}" for number in range(256)]))
    with pytest.raises(SpecError, match="0 runs are there, 256 more would pass 255"):
        run_import(write(many, tmp_path / "many"), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert run_import(write(many.slice(0, 255), tmp_path / "most"), tmp_path / "other").landed == 255
    before = contents(tmp_path / "other")
    with pytest.raises(SpecError, match="255 runs are there, 1 more would pass 255"):
        run_import(tmp_path / "many", tmp_path / "other")
    assert contents(tmp_path / "other") == before


# --- duplicates --------------------------------------------------------------------------------------------------


def changed(table, row, value=9.0):
    """The table with another value in a history of one of its rows."""
    histories = table["val_loss"].to_pylist()
    histories[row] = [value, *histories[row][1:]]
    place = table.schema.get_field_index("val_loss")
    return table.set_column(place, table.schema.field(place), pa.array(histories, table.schema.field(place).type))


def with_host(table, host):
    return table.set_column(table.schema.get_field_index("hostname"), "hostname", pa.array([host] * table.num_rows))


def test_identical_runs_are_kept_once_whatever_their_host(store, tmp_path):
    rows = all_rows(tmp_path / "store")
    lost = changed(rows, 0, float("nan"))
    write(lost, tmp_path / "source", "a.parquet")
    write(with_host(lost, "elsewhere"), tmp_path / "source", "b.parquet")
    report = run_import(tmp_path / "source", tmp_path / "other")
    assert (report.landed, report.present) == (26, 26)
    assert set(all_rows(tmp_path / "other")["hostname"].to_pylist()) == {None}
    assert run_import(write(with_host(lost, "third"), tmp_path / "third"), tmp_path / "other").present == 26


def test_different_runs_within_a_source_are_refused(store, tmp_path):
    rows = all_rows(tmp_path / "store")
    write(rows, tmp_path / "source", "a.parquet")
    write(changed(rows, 3), tmp_path / "source", "b.parquet")
    name = rows["run_id"][3].as_py()
    for prefer in (None, "source", "store"):
        with pytest.raises(DuplicateError, match=f"the source has different runs of one run_id: {name}"):
            run_import(tmp_path / "source", tmp_path / "other", prefer=prefer)
    assert not (tmp_path / "other").exists()


def test_runs_that_differ_from_the_stores_are_refused_or_one_is_preferred(store, tmp_path):
    rows = all_rows(tmp_path / "store")
    source = write(changed(changed(rows, 1), 12), tmp_path / "source")
    before, stored = contents(tmp_path / "store"), all_rows(tmp_path / "store")
    with pytest.raises(DuplicateError, match=r"runs differ .*--prefer store or --prefer source \(and 1 more exp"):
        run_import(source, tmp_path / "store")
    assert contents(tmp_path / "store") == before
    report = run_import(source, tmp_path / "store", prefer="store")
    assert (report.landed, report.present, report.replaced) == (0, 26, 0)
    assert report.warnings == ("2 runs differ from those of the same run_id in the store, which kept its own",)
    assert contents(tmp_path / "store") == before
    report = run_import(source, tmp_path / "store", prefer="source")
    assert (report.landed, report.present, report.replaced) == (0, 24, 2)
    there = all_rows(tmp_path / "store")
    assert there.equals(changed(changed(stored, 1), 12))
    assert sorted(store.run_files())
    kept = sorted((tmp_path / "store/quarantine").rglob("*.parquet"))
    assert len(kept) == 2
    for path in kept:
        _, reason, *name = path.relative_to(tmp_path / "store/quarantine").parts
        assert reason == "replaced"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before["/".join(name)]
    assert plan_summaries(store).stale >= 2
    assert run_import(source, tmp_path / "store").present == 26


# --- sources that cannot be meant --------------------------------------------------------------------------------


def assert_refused(source, tmp_path, error, message, **options):
    with pytest.raises(error, match=message):
        run_import(source, tmp_path / "other", **options)
    assert not (tmp_path / "other").exists()


def test_sources_that_are_none(store, tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, SourceError, "nowhere: does not exist")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", tmp_path, SourceError, "holds no Parquet files of runs")
    assert_refused(tmp_path / "store", tmp_path, SelectError, "--profile 'sead': unknown", profile="sead")
    export(tmp_path / "store", tmp_path / "out")
    assert_refused(tmp_path / "out/complete_summary", tmp_path, SourceError, "holds no Parquet files of runs")
    with pytest.raises(SourceError, match="lies in the store"):
        run_import(tmp_path / "store/all_runs", tmp_path / "store")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("x")
    with pytest.raises(StoreError, match="is no store"):
        run_import(tmp_path / "store", tmp_path / "full")
    with pytest.raises(StoreError, match="needs --state"):
        run_import(tmp_path / "store", "mock://bucket/store")


def test_every_file_is_checked_before_anything_lands(store, tmp_path):
    rows = all_rows(tmp_path / "store")
    source = write(rows, tmp_path / "source", "a.parquet")
    bad = source / "b.parquet"
    bad.write_bytes(b"PAR1 not really")
    assert_refused(source, tmp_path, TornFileError, "b.parquet cannot be read")
    pq.write_table(rows.drop_columns(["val_hinge", "depth"]), bad)
    assert_refused(source, tmp_path, SourceError, "b.parquet: columns are missing: depth, val_hinge")
    pq.write_table(rows.set_column(0, "experiment_id", pa.array(["x"] * rows.num_rows)), bad)
    assert_refused(source, tmp_path, SourceError, "column 'experiment_id' is string, expected uint32")
    place = rows.schema.get_field_index("depth")
    pq.write_table(rows.set_column(place, "depth", pa.array([300] * rows.num_rows, pa.int64())), bad)
    assert_refused(source, tmp_path, SourceError, "column 'depth': .*300")
    pq.write_table(rows.set_column(place, "depth", pa.nulls(rows.num_rows, pa.uint8())), bad)
    assert_refused(source, tmp_path, SourceError, "column 'depth' is null in 26 of 26 rows")
    pq.write_table(rows.drop_columns(["val_loss"]), bad)
    assert_refused(source, tmp_path, SourceError, "columns are missing: val_loss")


def with_column(table, name, values):
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_one_file_that_is_wrong_in_any_way_forbids_the_whole_import(tmp_path):
    """Whatever would only come out in landing comes out before: here the file that is right sorts first."""
    good, bad = make_runs(EXPERIMENTS[0], 0, range(2)), make_runs(EXPERIMENTS[1], 1, range(2))
    source = write(whole_rows(good, EXPERIMENTS[0]), tmp_path / "source", "a.parquet")
    rows = whole_rows(bad, EXPERIMENTS[1])
    twos = [2] * rows.num_rows
    path = source / "b.parquet"
    for error, message, table in [
        (SourceError, "b.parquet: column 'val_loss' is there twice", rows.append_column("val_loss", rows["val_loss"])),
        (SourceError, "column 'run_id' is there twice", rows.append_column("run_id", rows["run_id"])),
        (SourceError, "column 'hostname' is there twice", rows.append_column("hostname", pa.array(["x", "y"]))),
        (SourceError, "column 'dataset' is there twice", rows.append_column("dataset", rows["dataset"])),
        (SourceError, "column 'stack': .*70000", with_column(rows, "stack", pa.array([70_000, 1]))),
        (SourceError, "column 'start_time': ", with_column(rows, "start_time", pa.array([2**63, 1], pa.uint64()))),
        (SourceError, "column 'hinge': ", with_column(rows, "hinge", pa.array([[2**60 + 1], [1]]))),
        (SpecError, "seed is 2, not ", with_column(rows, "seed", pa.array(twos))),
        (SpecError, "num_free_parameters is 2, not", with_column(rows, "num_free_parameters", pa.array(twos))),
        (SpecError, "batch is 'mine', not", with_column(rows, "batch", pa.array(["mine"] * 2))),
        (SpecError, "primary_sweep is False", with_column(rows, "primary_sweep", pa.array([False] * 2))),
        (SpecError, r"val_loss has 3001 entries for 3000 epochs",
         with_column(rows, "val_loss", pa.array([[0.5] * 3001, [0.5]]))),
    ]:  # fmt: skip
        pq.write_table(table, path)
        assert_refused(source, tmp_path, error, message)
    pq.write_table(rows, path, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(rows.schema.get_field_index("hinge"))
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    assert_refused(source, tmp_path, TornFileError, r"b.parquet cannot be read \(.*CRC")
    pq.write_table(rows, path)
    assert run_import(source, tmp_path / "other").landed == 4


def whole_rows(runs, spec):
    """Rows of the files of a store, with the columns that its folders say."""
    parameters = spec.parameters()
    columns = {
        name: pa.repeat(pa.scalar(parameters[name], BUTTER.key_schema.field(name).type), runs.num_rows)
        for name in BUTTER.keys
    }
    columns.update({name: runs[name] for name in runs.column_names})
    return pa.table({name: columns[name] for name in BUTTER.runs.names}, schema=BUTTER.runs)


def test_columns_that_are_not_ours_may_be_there_twice_or_be_called_alike(tmp_path):
    rows = whole_rows(make_runs(EXPERIMENTS[0], 0, range(2)), EXPERIMENTS[0])
    more = pa.array(["x", "y"])
    for name in ("mine", "mine", "Dataset", "VAL_LOSS", "loss.more"):
        rows = rows.append_column(name, more)
    report = run_import(write(rows, tmp_path / "source"), tmp_path / "other")
    assert report.landed == 2
    assert report.warnings == (
        "columns that profile 'seed' does not know are left out: mine, Dataset, VAL_LOSS, loss.more",
    )


def test_types_of_other_tools_come_to_the_same_store(tmp_path):
    rows = whole_rows(make_runs(EXPERIMENTS[3], 0, range(2)), EXPERIMENTS[3])
    run_import(write(rows, tmp_path / "plain"), tmp_path / "first")
    ids = [uuid.UUID(one).bytes for one in rows["run_id"].to_pylist()]
    packed = {
        "run_id": pa.array(ids, pa.uuid()),
        "dataset": rows["dataset"].cast(pa.string_view()),
        "shape": rows["shape"].cast(pa.large_string()).dictionary_encode(),
        "task": rows["task"].dictionary_encode(),
        "depth": rows["depth"].cast(pa.int32()).cast(pa.decimal128(10, 0)),
        "learning_rate": pa.array([decimal.Decimal("0.0001")] * 2),
        "size": rows["size"].cast(pa.int32()).cast(pa.decimal128(20, 2)),
        "widths": rows["widths"].cast(pa.large_list(pa.int64())),
        "val_loss": pa.array(rows["val_loss"].to_pylist(), pa.list_view(pa.float64())),
        "loss": rows["loss"].cast(pa.large_list(pa.float64())),
    }
    for name, column in packed.items():
        rows = with_column(rows, name, column)
    run_import(write(rows, tmp_path / "packed", "RUNS.PARQUET"), tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "first")


def test_what_import_takes_verify_does_not_condemn(tmp_path):
    """Other tasks may record a value before the first epoch, or of some histories more than of others."""
    rows = foreign(whole_rows(make_runs(EXPERIMENTS[0], 0, range(2)), EXPERIMENTS[0]))
    longer = {"val_loss": [[0.5] * 3001] * 2, "hinge": [[0.5] * 6000, None], "loss": [[], [0.5]]}
    for name, values in longer.items():
        rows = with_column(rows, name, pa.array(values, FLOAT_LIST))
    assert run_import(write(rows, tmp_path / "source"), tmp_path / "other").landed == 2
    store = Store.open(tmp_path / "other")
    run_summaries(plan_summaries(store), store)
    export(tmp_path / "other", tmp_path / "out")
    for place in ("other", "out"):
        report = run_verification(plan_verification(tmp_path / place), values=True)
        assert [finding for finding in report.findings if not finding.is_note] == []
    there = all_rows(tmp_path / "other")
    assert there["val_loss"].to_pylist() == longer["val_loss"]


def test_own_runs_must_be_what_they_say(store, tmp_path):
    rows = all_rows(tmp_path / "store")

    def replaced(name, values):
        place = rows.schema.get_field_index(name)
        changed = rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.field(place).type))
        return write(changed, tmp_path / "source")

    source = replaced("command", [text.replace("butter_etl.train", "X") for text in rows["command"].to_pylist()])
    assert_refused(source, tmp_path, SpecError, "does not know")
    source = replaced("command", [None] * rows.num_rows)
    assert_refused(source, tmp_path, SpecError, "rows of butter_etl.train need their command")
    source = replaced("epochs", [4] * rows.num_rows)
    assert_refused(source, tmp_path, SpecError, "epochs is 4, but its command says 3000")
    source = replaced("repetition", [one + 1 for one in rows["repetition"].to_pylist()])
    assert_refused(source, tmp_path, SpecError, "is not repetition 1 of")


def test_what_does_not_come_along_is_told(store, tmp_path):
    rows = all_rows(tmp_path / "store")
    source = write(rows.append_column("mood", pa.array(["good"] * rows.num_rows)), tmp_path / "source/colour=red")
    (tmp_path / "source/notes.txt").write_text("x")
    report = run_import(tmp_path / "source", tmp_path / "other")
    assert report.warnings == (
        "columns that profile 'seed' does not know are left out: mood, colour",
        "files whose names do not end in .parquet are left out: notes.txt",
    )
    assert source.is_dir()


# --- the schema of August 2022 -----------------------------------------------------------------------------------


def published_in_2022(table, folder):
    """Rows in the schema and the layout of the later release, written without our code."""
    names = {name: name.replace(".", "_") for name in table.column_names}
    for metric in METRICS:
        names[f"val_{metric}"], names[metric] = f"test_{metric}", f"train_{metric}"
    gone = ("early_stopping", "test_split_method", "repetition", "torch_version", "engine", "device", "cpu_family")
    gone += ("stack", "core_seconds", "job_id", "end_reason")
    wanted = ", ".join(f'"{name}" as "{names[name]}"' for name in table.column_names if name not in gone)
    published = duckdb.from_arrow(table).project(wanted)
    keys = ["dataset", "learning_rate", "batch_size", "kernel_regularizer_type", "label_noise"]
    keys = [*FLAGS, *keys, "epochs", "shape", "depth"]
    published.write_parquet(str(folder), partition_by=keys, compression="brotli")


def test_an_export_in_the_schema_of_2022_comes_back_by_values(store, tmp_path):
    export(tmp_path / "store", tmp_path / "out")
    hive = ds.partitioning(BUTTER.key_schema, flavor="hive")
    exported = ds.dataset(tmp_path / "out/all_runs", partitioning=hive, format="parquet").to_table()
    for task, rows in (("butter_etl.train", exported), ("AspectTestTask", foreign(exported))):
        published_in_2022(shuffled(rows), tmp_path / task)
        report = run_import(tmp_path / task, tmp_path / f"from {task}", profile="oedi-2022-08")
        assert (report.experiments, report.landed, report.warnings) == (6, 26, ())
    own, source = all_rows(tmp_path / "from butter_etl.train"), all_rows(tmp_path / "store")
    carried = [name for name in own.column_names if name != "end_reason"]  # the only one of our additions that is set
    assert own.select(carried).equals(source.select(carried))
    there = all_rows(tmp_path / "from AspectTestTask").sort_by("run_id")
    rows = foreign(exported).select(there.column_names).sort_by("run_id")
    for name in there.column_names:
        if name not in ("repetition", "end_reason"):
            assert there[name].equals(rows[name].cast(there.schema.field(name).type)), name
    assert_refused(
        tmp_path / "AspectTestTask", tmp_path, SourceError, "columns are missing: .* known: seed, oedi-2022-08"
    )


def test_rows_without_flags_get_those_of_their_parameters(store, tmp_path):
    rows = foreign(all_rows(tmp_path / "store")).drop_columns([*FLAGS, "batch", "momentum"])
    run_import(write(rows, tmp_path / "source"), tmp_path / "other")
    there = all_rows(tmp_path / "other")
    assert set(there["primary_sweep"].to_pylist()) == {True, False}
    assert there.filter(pc.equal(there["dataset"], "digits"))["primary_sweep"].to_pylist() == [False] * 7


# --- another study -----------------------------------------------------------------------------------------------


def fits_of(path):
    frame = be.read_runs(path).compute(scheduler="synchronous")
    table = pa.Table.from_pandas(frame, schema=FITS.runs, preserve_index=False).replace_schema_metadata(None)
    return table.sort_by([("experiment_id", "ascending"), ("repetition", "ascending")])


@pytest.fixture
def fits(tmp_path, monkeypatch):
    """A store of another study, which is known by its module."""
    monkeypatch.setenv("BUTTER_ETL_STUDY", "tests.other_study:FITS")
    store = make_store_of_fits(tmp_path / "fits")
    monkeypatch.delenv("BUTTER_ETL_STUDY")
    return store


def test_runs_of_another_study_come_to_the_same_store(fits, tmp_path, monkeypatch):
    monkeypatch.setenv("BUTTER_ETL_STUDY", "tests.other_study:FITS")
    export(tmp_path / "fits", tmp_path / "out")
    run_import(tmp_path / "out", tmp_path / "from out")
    export(tmp_path / "from out", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    rows = fits_of(tmp_path / "fits")
    assert rows.num_rows == 9
    run_import(write(shuffled(rows), tmp_path / "flat", row_group_size=2), tmp_path / "from flat")
    partition_runs(dd.from_pandas(to_frame(shuffled(rows)), npartitions=2), tmp_path / "from frame")
    for place in ("from flat", "from frame"):
        assert fits_of(tmp_path / place).equals(rows)
        assert Registry(Store.open(tmp_path / place)).experiment(2**24 + 1) == FULL


def test_the_study_may_be_said_instead(fits, tmp_path):
    report = run_import(tmp_path / "fits", tmp_path / "other", study=FITS)
    assert (report.experiments, report.landed) == (3, 9)
    assert Store.open(tmp_path / "other", study=FITS).repetitions() == fits.repetitions()
    table = make_fits(FULL, 2**24 + 1, range(5))
    report = partition_runs(dd.from_pandas(to_frame(table), npartitions=1), tmp_path / "other", study=FITS)
    assert (report.landed, report.present) == (2, 3)


def test_a_profile_of_another_study(fits, tmp_path):
    rows = pa.concat_tables([make_fits(one, 7, range(2)) for one in FITTED if one.shift is None])
    old = rows.drop_columns(["shift", "repetition"]).rename_columns({"error": "residual"})
    source = write(old, tmp_path / "source")
    report = run_import(source, tmp_path / "other", study=FITS, profile="old")
    assert (report.experiments, report.landed, report.warnings) == (2, 4, ())
    assert_refused(
        source, tmp_path / "none", SourceError, "columns are missing: shift, error .* known: seed, old", study=FITS
    )
    with pytest.raises(SelectError, match="known: seed, old"):
        run_import(source, tmp_path / "none", study=FITS, profile="oedi-2022-08")


def test_runs_of_another_task_in_another_study(fits, tmp_path):
    table = make_fits(FULL, 2**24 + 9, range(3))
    theirs = {
        "task": pa.array(["theirs"] * 3),
        "command": pa.nulls(3, pa.string()),
        "repetition": pa.nulls(3, pa.uint32()),
        "run_id": pa.array(["c", "a", "b"]),
        "terms": pa.array([17] * 3, pa.uint32()),
        "coarse_sweep": pa.nulls(3, pa.bool_()),
        "rejected": pa.array([[1] * 12] * 3, pa.list_(pa.int64())),  # more than there are steps
    }
    for name, values in theirs.items():
        table = with_column(table, name, values)
    assert run_import(write(table, tmp_path / "source"), tmp_path / "fits", study=FITS).landed == 3
    registry = Registry(fits)
    assert registry.experiment(2**24 + 9) == FITS.foreign("theirs", 3, FULL.parameters())
    (file,) = (file for file in fits.run_files() if file.experiment_id == 2**24 + 9)
    rows = fits.read_runs(file)
    assert rows["run_id"].to_pylist() == ["a", "b", "c"]
    assert rows["coarse_sweep"].to_pylist() == [False] * 3
    claims = pa.concat_tables([pq.read_table(path) for path in (tmp_path / "fits/experiments").glob("*.parquet")])
    assert claims.filter(pc.equal(claims["task"], "theirs"))["terms"].to_pylist() == [17]


def test_own_rows_of_another_study_must_be_what_they_say(fits, tmp_path):
    rows = make_fits(FULL, 2**24 + 1, range(2))
    for message, name, values in [
        ("rejected has 10 entries for 9 steps", "rejected", [[1] * 10] * 2),
        ("terms is 17, not 3", "terms", [17] * 2),
        ("decay is 0.3, but its command says 0.3333333333333333", "decay", [0.3] * 2),
        (r"knots is \(1, 2\), but its command says \(3, 4, 5\)", "knots", [[1, 2]] * 2),
        ("coarse_sweep is True, not False", "coarse_sweep", [True] * 2),
    ]:
        changed = with_column(rows, name, pa.array(values, rows.schema.field(name).type))
        assert_refused(write(changed, tmp_path / "source"), tmp_path, SpecError, message, study=FITS)


def test_a_store_of_another_study_is_refused(store, fits, tmp_path):
    message = "fits: is a store of the study 'fits', not of 'butter'; import it into a store of 'fits'"
    assert_refused(tmp_path / "fits", tmp_path, SourceError, message)
    assert_refused(
        tmp_path / "store", tmp_path, SourceError, "is a store of the study 'butter', not of 'fits'", study=FITS
    )
    with pytest.raises(StudyError, match="is a store of the study 'butter', not of 'fits'"):
        run_import(tmp_path / "fits", tmp_path / "store", study=FITS)


# --- killed and restarted ----------------------------------------------------------------------------------------

KILLED = """
import sys
from butter_etl.exchange import run_import
run_import(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("as_files", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_killed_import_restarted_ends_in_the_same_bytes(store, tmp_path, as_files):
    for size in range(12, 24):
        spec = make_experiment(dataset="mnist", depth=4, size=2**size)
        for start in (0, 4):
            land(store, spec, BUTTER.fixed_ids.id_of(spec), range(start, start + 3), epochs=300)
    source = tmp_path / "store"
    if not as_files:
        source = write(shuffled(all_rows(source)), tmp_path / "flat", row_group_size=9)
    run_import(source, tmp_path / "whole")
    expected = contents(tmp_path / "whole", without=("state",))
    process = subprocess.Popen([sys.executable, "-c", KILLED, source, tmp_path / "killed"])
    try:
        while process.poll() is None and not list((tmp_path / "killed").glob("all_runs/**/*.parquet")):
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    landed = len(list((tmp_path / "killed").glob("all_runs/**/*.parquet")))
    assert landed > 0
    run_import(source, tmp_path / "killed")
    there = contents(tmp_path / "killed", without=("state",))
    assert {name: one for name, one in there.items() if not name.endswith(".tmp")} == expected
    assert not list((tmp_path / "killed/state").glob("imports/*"))


def test_a_file_that_is_no_parquet_is_not_for_verify_to_mend(tmp_path, run):
    """Nothing of a store's is missing: the source is wrong."""
    (tmp_path / "noise.parquet").write_bytes(np.random.default_rng(0).bytes(300_000))
    code, out, err = run("import", tmp_path / "noise.parquet", tmp_path / "store")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "leave it out, or get it anew [torn-file]" in err
    assert "verify" not in err
