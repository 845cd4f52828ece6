"""Exports in the published layout, and archives."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import butter_etl as be
from butter_etl.errors import StaleSummaryError, StoreError
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.exchange.rewriting import write_archive
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import PUBLISHED, make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from tests.strategies import DIGITS, land

#: Published experiments that overlap in sweeps in different ways, two of them in one partition.
MNIST = {"dataset": "mnist", "depth": 3}
EXPERIMENTS = [
    make_experiment(**MNIST, size=4096),  # in all sweeps of core values
    make_experiment(**MNIST, size=8192),
    make_experiment(**MNIST, size=4096, learning_rate=0.01),
    make_experiment(**MNIST, size=4096, label_noise=0.2),
    make_experiment(**MNIST, size=4096, batch_size=32),
    make_experiment(**MNIST, size=4096, kernel_regularizer=Regularizer("l1", 0.32)),
    make_experiment(dataset="mnist", size=4096, depth=6),  # primary only, and optimizer
    make_experiment(**MNIST, size=4096, optimizer="SGD", momentum=0.9),  # same partition as the first
]


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    for spec in EXPERIMENTS:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(3))
    registry = Registry(store)
    registry.claim(store, {DIGITS: "mine"})
    land(store, DIGITS, registry.experiment_id(DIGITS), range(2), batch="mine")
    run_summaries(plan_summaries(store), store)
    return store


def export(store, dest, choice=Choice(), options=ExportOptions(), **kwargs):
    location = Location(dest)
    return run_export(plan_export(store, Registry(store).select(choice), options, **kwargs), store, location, options)


def ids_of(folder):
    query = f"select distinct experiment_id from read_parquet('{folder}/**/*.parquet', hive_partitioning=true)"
    return {row[0] for row in duckdb.sql(query).fetchall()}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_sweep_exports_exactly_its_experiments(store, tmp_path, name):
    expected = {BUTTER.fixed_ids.id_of(spec) for spec in EXPERIMENTS if spec in PUBLISHED[name]}
    report = export(store, tmp_path / "out", Choice(sweeps=(name,)))
    assert [directory[0] for directory in report.directories] == [f"{name}_sweep_runs", f"{name}_sweep_summary"]
    for directory, _, experiments in report.directories:
        assert experiments == len(expected)
        folder = tmp_path / "out" / directory
        assert (ids_of(folder) if expected else set()) == expected
        schema = BUTTER.runs if directory.endswith("runs") else BUTTER.summary
        assert ds.dataset(folder / "_common_metadata").schema.equals(schema)


def test_expected_membership():
    """The sweeps of the experiments above, by hand."""
    members = {name: [spec in sweep for spec in EXPERIMENTS] for name, sweep in PUBLISHED.items()}
    assert members["primary"] == [True, True, False, False, False, False, True, False]
    assert members["learning_rate"] == [True, True, True, False, False, False, False, False]
    assert members["label_noise"] == [True, True, False, True, False, False, False, False]
    assert members["batch_size"] == [True, True, False, False, True, False, False, False]
    assert members["regularization"] == [True, True, False, False, False, True, False, False]
    assert members["optimizer"] == [True, True, True, False, True, False, True, True]


def test_exported_values_and_types(store, tmp_path):
    export(store, tmp_path / "out", Choice(sweeps=("primary",)))
    exported = be.read_export(tmp_path / "out/primary_sweep_runs").compute(scheduler="synchronous")
    source = be.read_runs(store.location.root).compute(scheduler="synchronous")
    assert list(exported.dtypes) == list(source.dtypes)
    source = source[source["primary_sweep"]]
    assert rows(exported) == rows(source)
    summary = be.read_export(tmp_path / "out/primary_sweep_summary").compute(scheduler="synchronous")
    stored = be.read_summary(store.location.root).compute(scheduler="synchronous")
    assert rows(summary) == rows(stored[stored["primary_sweep"]])
    hive = ds.partitioning(BUTTER.key_schema, flavor="hive")
    table = ds.dataset(tmp_path / "out/primary_sweep_runs", partitioning=hive, format="parquet").to_table()
    assert table.num_rows == 9
    assert table["kernel_regularizer.type"].null_count == 9
    frame = pl.read_parquet(tmp_path / "out/primary_sweep_summary/**/*.parquet", hive_partitioning=True)
    assert frame.height == 3


def rows(frame):
    schema = BUTTER.runs if "run_id" in frame.columns else BUTTER.summary
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    return sorted(map(repr, table.to_pylist()))


def test_whole_files_are_linked_and_mixed_summaries_are_filtered(store, tmp_path):
    export(store, tmp_path / "out", Choice(sweeps=("primary",)))
    for path in (tmp_path / "out/primary_sweep_runs").rglob("*.parquet"):
        assert path.samefile(
            Path(store.location.path("all_runs")) / path.relative_to(tmp_path / "out/primary_sweep_runs")
        )
    shared = [path for path in (tmp_path / "out/primary_sweep_summary").rglob("*.parquet") if path.stat().st_nlink == 1]
    assert len(shared) == 1


def test_the_same_export_again_changes_nothing_and_others_are_taken_away(store, tmp_path):
    choice = Choice(sweeps=("primary",))
    export(store, tmp_path / "out", choice)
    first = contents(tmp_path / "out")
    export(store, tmp_path / "out", choice)
    assert contents(tmp_path / "out") == first
    export(store, tmp_path / "out", Choice(sweeps=("primary",), where=("size=8192",)))
    assert ids_of(tmp_path / "out/primary_sweep_runs") == {BUTTER.fixed_ids.id_of(EXPERIMENTS[1])}
    assert ids_of(tmp_path / "out/primary_sweep_summary") == {BUTTER.fixed_ids.id_of(EXPERIMENTS[1])}


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_conditions_alone_export_a_part_of_the_whole(store, tmp_path):
    report = export(store, tmp_path / "out", Choice(where=("dataset=digits",)))
    assert [directory for directory, _, _ in report.directories][:2] == ["all_runs", "complete_summary"]
    assert ids_of(tmp_path / "out/all_runs") == ids_of(tmp_path / "out/complete_summary") == {2**24}


def test_everything(store, tmp_path):
    report = export(store, tmp_path / "out", options=ExportOptions(tar=True), everything=True)
    names = [directory for directory, _, _ in report.directories]
    assert "30k_epoch_sweep_runs" not in names
    assert {"all_runs", "complete_summary"} <= set(names)
    assert set(report.archives) == {f"{name}.tar" for name in names if name.endswith("_summary")}
    assert len(report.archives) >= 7
    assert len(ids_of(tmp_path / "out/complete_summary")) == 9


def test_parts(store, tmp_path):
    choice = Choice(sweeps=("primary",))
    only_runs = export(store, tmp_path / "a", choice, ExportOptions(summary=False))
    only_summary = export(store, tmp_path / "b", choice, ExportOptions(runs=False, tar=True))
    assert [one[0] for one in only_runs.directories] == ["primary_sweep_runs"]
    assert [one[0] for one in only_summary.directories] == ["primary_sweep_summary"]
    assert only_summary.archives == ("primary_sweep_summary.tar",)


def test_compact_gathers_partitions(store, tmp_path):
    export(store, tmp_path / "out", Choice(sweeps=("optimizer",)), ExportOptions(compact=True))
    folder = tmp_path / "out/optimizer_sweep_runs"
    partitions = {path.parent for path in folder.rglob("*.parquet")}
    assert len(partitions) == len(list(folder.rglob("*.parquet"))) == 4
    exported = be.read_export(folder).compute(scheduler="synchronous")
    source = be.read_runs(store.location.root).compute(scheduler="synchronous")
    assert rows(exported) == rows(source[source["optimizer_sweep"]])


def test_stale_summaries_are_refused(store, tmp_path):
    land(store, EXPERIMENTS[0], BUTTER.fixed_ids.id_of(EXPERIMENTS[0]), range(4))
    choice = Choice(sweeps=("primary",))
    with pytest.raises(StaleSummaryError, match="the summaries of 1 experiment are missing or out of date"):
        export(store, tmp_path / "out", choice)
    assert not (tmp_path / "out").exists()
    export(store, tmp_path / "out", choice, ExportOptions(allow_stale=True))
    export(store, tmp_path / "out", choice, ExportOptions(summary=False))
    export(store, tmp_path / "fresh", Choice(sweeps=("primary",), where=("size=8192",)))


def test_destinations_that_cannot_be_meant(store, tmp_path):
    choice = Choice(sweeps=("primary",))
    with pytest.raises(StoreError, match="lies in the store"):
        export(store, Path(store.location.root) / "out", choice)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        export(store, tmp_path / "file", choice)
    (tmp_path / "mine/primary_sweep_runs").mkdir(parents=True)
    (tmp_path / "mine/primary_sweep_runs/notes.txt").write_text("x")
    with pytest.raises(StoreError, match="holds other things"):
        export(store, tmp_path / "mine", choice)
    assert (tmp_path / "mine/primary_sweep_runs/notes.txt").read_text() == "x"


def test_archives_are_deterministic_and_extract_safely(store, tmp_path):
    choice, options = Choice(sweeps=("primary",)), ExportOptions(tar=True)
    export(store, tmp_path / "a", choice, options)
    export(store, tmp_path / "b", choice, options)
    first, second = (tmp_path / one / "primary_sweep_summary.tar" for one in "ab")
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        names = tar.getnames()
        assert names == sorted(names)
        assert {(member.mtime, member.uid, member.gid, member.mode) for member in tar} == {(315_619_200, 0, 0, 0o644)}
        tar.extractall(tmp_path / "x", filter="data")
    shutil.make_archive(str(tmp_path / "again"), "zip", tmp_path / "x")  # which knows no time before 1980
    assert contents(tmp_path / "x/primary_sweep_summary") == contents(tmp_path / "a/primary_sweep_summary")
    assert not list((tmp_path / "a").glob(".*.tmp"))


def test_an_archive_of_nothing_is_an_archive(tmp_path):
    (tmp_path / "empty").mkdir()
    write_archive(Location(tmp_path), "empty", [])
    with tarfile.open(tmp_path / "empty.tar") as tar:
        assert tar.getnames() == []
