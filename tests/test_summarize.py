"""Summaries: against an independent computation from the raw rows; incremental, exact, and the same everywhere."""

import io
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import butter_etl as be
import butter_etl.clusters
import butter_etl.summarize
from benchmarks.synthetic import make_store
from butter_etl.engines.contract import HISTORIES
from butter_etl.errors import SpecError, TornFileError
from butter_etl.store.fingerprints import fingerprint
from butter_etl.store.layout import RunFile
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.frames import SUMMARY
from butter_etl.studies.selection import Choice
from butter_etl.summarize import SummaryReport, plan_summaries, run_summaries, summarize_partition
from tests.strategies import land

#: Experiment ids and their repetitions; 0 and 14 share a partition.
CONTENT = {0: range(5), 1: range(1), 14: range(4), 15: range(30)}
NAN, INF = float("nan"), float("inf")
RAGGED = {
    ("val_loss", 0): [0.5, 0.4, NAN],
    ("val_loss", 1): [0.7, INF],
    ("val_loss", 2): [],
    ("val_loss", 3): None,
    ("val_loss", 4): [0.6, 0.3, 0.2, 0.1],
    ("loss", 0): [1.0, -INF, 3e38],
    ("loss", 1): [1.0, None, 1.0],
    ("loss", 2): [1.0],
    ("loss", 3): [5.0, 5.0, 5.0, 5.0, 5.0],
    ("loss", 4): [2.0, 2.0, -3e38, 1e-45],
}


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    for experiment_id, repetitions in CONTENT.items():
        histories = RAGGED if experiment_id == 0 else None
        land(store, BUTTER.fixed_ids.experiment(experiment_id), experiment_id, repetitions, histories=histories)
    return store


def summarize(store, **kwargs):
    return run_summaries(plan_summaries(store, **kwargs), store)


def summary_rows(store):
    """Every summary row with its hive keys, by Polars."""
    files = f"{store.location.root}/complete_summary/**/summary.parquet"
    rows = pl.read_parquet(files, hive_partitioning=True, try_parse_hive_dates=False).to_dicts()
    return {row["experiment_id"]: row for row in rows}


def raw_rows(store):
    rows = [row for file in store.run_files() for row in store.read_runs(file).to_pylist()]
    return {one: [row for row in rows if row["experiment_id"] == one] for one in CONTENT}


def expected_statistics(lists, epochs):
    """Straight from the definitions, epoch by epoch."""
    result = {name: [] for name in ("num_finite", "avg", "stddev", "min", "max", "q1", "median", "q3")}
    for epoch in range(epochs):
        entries = [values[epoch] for values in lists if values is not None and len(values) > epoch]
        entries = [NAN if value is None else float(value) for value in entries]
        finite = np.array([value for value in entries if np.isfinite(value)], dtype=np.float64)
        ranked = np.concatenate([np.sort(finite), np.full(len(entries) - len(finite), NAN)])
        result["num_finite"].append(len(finite))
        result["avg"].append(finite.mean() if len(finite) else None)
        result["stddev"].append(finite.std(ddof=1) if len(finite) > 1 else None)
        result["min"].append(finite.min() if len(finite) else None)
        result["max"].append(finite.max() if len(finite) else None)
        for name, q in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
            result[name].append(interpolate(ranked, q) if entries else None)
    return result


def interpolate(ranked, q):
    position = q * (len(ranked) - 1)
    low = int(np.floor(position))
    if position == low:
        return ranked[low]
    return ranked[low] + (ranked[low + 1] - ranked[low]) * (position - low)


def assert_close(found, expected, what):
    assert len(found) == len(expected), what
    for epoch, (one, other) in enumerate(zip(found, expected, strict=True)):
        if other is None:
            assert one is None, (what, epoch)
        else:
            with np.errstate(over="ignore"):
                np.testing.assert_array_max_ulp(np.float32(one), np.float32(other), maxulp=1)


def test_values_equal_an_independent_computation(store):
    assert summarize(store) == SummaryReport(computed=4, kept=0, dropped=0, partitions=2)
    summaries = summary_rows(store)
    for experiment_id, runs in raw_rows(store).items():
        row = summaries[experiment_id]
        lengths = [len(run["val_loss"] or []) for run in runs]
        epochs = max(lengths)
        assert row["num_runs"] == len(runs)
        assert row["num"] == [sum(length > epoch for length in lengths) for epoch in range(epochs)]
        for series, column in BUTTER.reduction.histories.items():
            expected = expected_statistics([run[column] for run in runs], epochs)
            for statistic, values in expected.items():
                name = f"{series}_{statistic}"
                if name in BUTTER.summary.names:
                    assert_close(row[name], values, (experiment_id, name))


def test_extremum_blocks(store):
    summarize(store)
    runs = raw_rows(store)[15]
    row = summary_rows(store)[15]
    for name, column, best in (
        ("test_loss_min", "val_loss", np.argmin),
        ("test_accuracy_max", "val_accuracy", np.argmax),
        ("test_mean_squared_error_min", "val_mean_squared_error", np.argmin),
        ("test_kullback_leibler_divergence_min", "val_kullback_leibler_divergence", np.argmin),
    ):
        epochs = np.array([best(run[column]) + 1 for run in runs], dtype=np.float64)
        values = np.array([run[column][int(epoch) - 1] for run, epoch in zip(runs, epochs, strict=True)])
        for part, data in (("epoch", epochs), ("value", values)):
            found = [row[f"{name}_{part}_{statistic}"] for statistic in ("min", "q1", "median", "q3", "max", "avg")]
            expected = [*np.quantile(data, [0, 0.25, 0.5, 0.75, 1]), data.mean()]
            np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_rows_carry_the_experiment(store):
    summarize(store)
    row = summary_rows(store)[14]
    parameters = BUTTER.fixed_ids.experiment(14).parameters()
    for name, value in parameters.items():
        found = row[name]
        if name in BUTTER.keys and isinstance(value, float):
            found = float(found)
        assert found == pytest.approx(value) if isinstance(value, float) else found == value, name
    assert (row["widths"], row["num_free_parameters"]) == ([10, 1], 61)
    assert row["primary_sweep"] is True


def test_independent_readers_see_both_frames_with_their_keys(store):
    summarize(store)
    root = store.location.root
    runs, summary = (f"read_parquet('{root}/{name}/**/*.parquet', hive_partitioning=true)" for name in
                     ("all_runs", "complete_summary"))  # fmt: skip
    by_depth = duckdb.sql(f"select depth, count(*), sum(len(loss)) from {runs} group by 1 order by 1").fetchall()
    assert by_depth == [(2, 9, 16 + 28), (3, 31, 217)]
    keys = duckdb.sql(f'select dataset, "kernel_regularizer.type", learning_rate, epochs from {summary}').fetchall()
    assert len(keys) == 4
    assert {(key[0], key[1], float(key[2]), key[3]) for key in keys} == {("529_pollen", None, 0.0001, 3000)}
    frame = pl.scan_parquet(f"{root}/all_runs/**/*.parquet", hive_partitioning=True).filter(pl.col("depth") == 3)
    assert frame.collect().height == 31
    assert frame.collect_schema()["val_loss"] == pl.List(pl.Float32)


def test_nothing_to_do_the_second_time(store):
    summarize(store)
    before = {path: path.stat().st_mtime_ns for path in Path(store.location.root).rglob("summary.parquet")}
    plan = plan_summaries(store)
    assert (plan.partitions, plan.stale, plan.fresh) == ([], 0, 4)
    run_summaries(plan, store)
    assert {path: path.stat().st_mtime_ns for path in Path(store.location.root).rglob("summary.parquet")} == before


def all_bytes(store):
    root = Path(store.location.root) / "complete_summary"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("summary.parquet"))}


def test_only_the_experiment_with_new_runs_is_recomputed(store):
    summarize(store)
    untouched = summary_rows(store)[0]
    land(store, BUTTER.fixed_ids.experiment(14), 14, range(14))
    plan = plan_summaries(store)
    assert [list(one.stale) for one in plan.partitions] == [[14]]
    assert [one.fresh for one in plan.partitions] == [1]
    assert run_summaries(plan, store) == SummaryReport(computed=1, kept=1, dropped=0, partitions=1)
    rows = summary_rows(store)
    assert rows[14]["num_runs"] == 14
    assert str(rows[0]) == str(untouched)
    incremental = all_bytes(store)
    assert summarize(store, full=True).computed == 4
    assert all_bytes(store) == incremental


def test_orphans_are_dropped(store):
    summarize(store)
    for file in list(store.run_files()):
        if file.experiment_id in (1, 14, 15):
            Path(store.location.path(f"all_runs/{file.path}")).unlink()
    plan = plan_summaries(store)
    assert (plan.stale, plan.orphans) == (0, 3)
    assert run_summaries(plan, store).dropped == 3
    assert list(summary_rows(store)) == [0]
    assert plan_summaries(store).partitions == []


def test_a_selection_leaves_the_other_rows_alone(store):
    only = Registry(store).select(Choice(where=("depth=3",)))
    plan = plan_summaries(store, only)
    assert sorted(one for part in plan.partitions for one in part.stale) == [1, 15]
    run_summaries(plan, store)
    assert sorted(summary_rows(store)) == [1, 15]
    assert plan_summaries(store, only).partitions == []
    assert plan_summaries(store).stale == 2


def test_a_torn_run_file_leaves_the_old_summary(store):
    summarize(store)
    before = all_bytes(store)
    land(store, BUTTER.fixed_ids.experiment(14), 14, range(14))
    newest = max(Path(store.location.root).rglob("14-*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-10])
    (plan,) = plan_summaries(store).partitions
    with pytest.raises(TornFileError, match=newest.name):
        summarize_partition(store, plan)
    assert all_bytes(store) == before


def test_fingerprints_change_with_names_and_sizes():
    files = [RunFile("a/1-0-4.parquet", 1, 0, 4, 100), RunFile("a/1-5-9.parquet", 1, 5, 9, 100)]
    frame = BUTTER.frames[SUMMARY]
    base = fingerprint(files, frame)
    assert fingerprint(files[::-1], frame) == base
    assert fingerprint(files[:1], frame) != base
    assert fingerprint([files[0], files[1]._replace(size=101)], frame) != base


def test_statistics_of_another_version_are_computed_anew(store):
    """Each frame has a version of its own: raising it makes all of its rows out of date, and no other file changes."""
    run_summaries(plan_summaries(store), store)
    study = replace(BUTTER, reduction=replace(BUTTER.reduction, version=BUTTER.reduction.version + 1))
    later = Store(store.location, None, study)
    assert plan_summaries(later).stale == len(CONTENT)
    before = all_bytes(store)
    run_summaries(plan_summaries(later), later)
    assert not plan_summaries(later).stale
    assert plan_summaries(store).stale == len(CONTENT)
    assert {name for name in before if all_bytes(store)[name] != before[name]} <= {
        name for name in before if "summary" in name
    }


def test_frames_are_declared():
    assert {one.kind: (one.folder, one.version) for one in BUTTER.frames.values()} == {
        "runs": ("all_runs", None),
        "summary": ("complete_summary", 2),
        "executive": ("complete_executive_summary", 2),
        "precision": ("complete_precision", None),
    }
    assert [one.kind for one in BUTTER.frames.values() if one.optional] == ["precision"]
    kinds = [one.kind for one in replace(BUTTER, executive_names=()).frames.values()]
    assert kinds == ["runs", "summary", "precision"]


def test_on_a_cluster_the_same_bytes(store, client):
    seen = []
    report = run_summaries(plan_summaries(store), store, client, seen.append)
    assert report == SummaryReport(computed=4, kept=0, dropped=0, partitions=2)
    assert seen[-1] == report
    distributed = all_bytes(store)
    summarize(store, full=True)
    assert all_bytes(store) == distributed


def test_large_partitions_are_summarised_by_processes_to_the_same_bytes(run, store, monkeypatch):
    started, start_cluster = [], butter_etl.clusters.start_cluster

    def start(*args, **kwargs):
        started.append(kwargs)
        return start_cluster(*args, **kwargs)

    monkeypatch.setattr("butter_etl.clusters.start_cluster", start)
    command = ("summarize", store.location.root, "--full", "--quiet", "--workers", 2)
    assert run(*command)[0] == 0
    in_threads = all_bytes(store)
    assert started == []
    monkeypatch.setattr("butter_etl.cli.summarize._BYTES_FOR_PROCESSES", 1)
    assert run(*command)[1] == "4 experiments summarised, 0 were up to date\n"
    assert started == [{"workers": 2, "threads_per_worker": 1}]
    assert all_bytes(store) == in_threads


def test_the_distributed_groupby_gives_the_same_rows(store, client):
    summarize(store)
    runs = be.read_runs(store.location.root)
    stored = be.read_summary(store.location.root).compute().sort_values("experiment_id").reset_index(drop=True)
    together = be.summarize_runs(runs).compute().sort_values("experiment_id").reset_index(drop=True)
    pieces = runs.repartition(npartitions=1).shuffle("run_id", npartitions=3)
    assert pieces.npartitions > 1
    shuffled = be.summarize_runs(pieces).compute().sort_values("experiment_id").reset_index(drop=True)
    for frame in (together, shuffled):
        assert list(frame.dtypes) == list(stored.dtypes)
        assert as_text(frame) == as_text(stored)


def as_text(frame):
    """Every value of a frame, NaN equal to NaN."""
    return repr(pa.Table.from_pandas(frame, schema=BUTTER.summary, preserve_index=False).to_pylist())


def test_colocation_is_seen(store):
    from butter_etl.store.frames import is_colocated

    runs = be.read_runs(store.location.root)
    assert is_colocated(runs)
    assert is_colocated(runs[runs["num_free_parameters"] > 3])
    assert is_colocated(runs[["experiment_id", "val_loss"]])
    assert not is_colocated(runs.shuffle("run_id"))


def test_summary_file_schema_has_no_history_columns():
    assert not set(HISTORIES) & set(BUTTER.summary_files.names)


# --- streaming ---------------------------------------------------------------------------------------------------


@pytest.fixture
def wide(tmp_path):
    """A store of one partition that fills several row groups."""
    store = Store.create(tmp_path / "wide")
    for size, repetitions in zip(WIDE, (2, 3, 1, 4) * 5, strict=True):
        spec = make_experiment(dataset="529_pollen", size=2**size, depth=2)
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(repetitions))
    return store


#: Exponents of sizes; at this depth pollen has a network for all of them.
WIDE = range(5, 25)


def executive_rows(store):
    files = f"{store.location.root}/complete_executive_summary/**/summary.parquet"
    return {row["experiment_id"]: row for row in pl.read_parquet(files, hive_partitioning=True).to_dicts()}


@pytest.mark.parametrize("threads", [1, 3])
def test_row_groups_are_of_eight_experiments_in_the_order_of_their_ids(wide, threads):
    run_summaries(plan_summaries(wide), wide, threads=threads)
    (path,) = Path(wide.location.path("complete_summary")).rglob("summary.parquet")
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [8, 8, 4]
    ids = file.read(columns=["experiment_id"])["experiment_id"].to_pylist()
    assert ids == sorted(ids)


@pytest.mark.parametrize("added", [(0,), (3, 9, 19), tuple(range(20))])
@pytest.mark.parametrize("threads", [1, 2])
def test_incremental_equals_full_byte_by_byte(wide, added, threads):
    summarize(wide)
    for number in added:
        spec = make_experiment(dataset="529_pollen", size=2 ** WIDE[number], depth=2)
        land(wide, spec, BUTTER.fixed_ids.id_of(spec), range(4, 7))
    report = run_summaries(plan_summaries(wide), wide, threads=threads)
    assert report == SummaryReport(computed=len(added), kept=20 - len(added), dropped=0, partitions=1)
    incremental = all_bytes(wide)
    assert plan_summaries(wide).partitions == []
    summarize(wide, full=True)
    assert all_bytes(wide) == incremental


def test_runs_that_land_meanwhile_are_for_the_next_pass(wide, monkeypatch):
    spec = make_experiment(dataset="529_pollen", size=2 ** WIDE[12], depth=2)
    read, landed = butter_etl.summarize._read_experiment, []

    def read_and_land(store, files, **columns):
        if not landed:
            landed.append(land(store, spec, BUTTER.fixed_ids.id_of(spec), range(9)))
        return read(store, files, **columns)

    monkeypatch.setattr("butter_etl.summarize._read_experiment", read_and_land)
    assert summarize(wide).computed == 20
    assert summary_rows(wide)[BUTTER.fixed_ids.id_of(spec)]["num_runs"] == 2
    (plan,) = plan_summaries(wide).partitions
    assert plan.stale == [BUTTER.fixed_ids.id_of(spec)]
    assert summarize(wide).computed == 1
    assert summary_rows(wide)[BUTTER.fixed_ids.id_of(spec)]["num_runs"] == 9


def test_what_somebody_else_summarised_meanwhile_is_kept(wide):
    plan = plan_summaries(wide)
    assert summarize(wide).computed == 20
    assert run_summaries(plan, wide) == SummaryReport(computed=0, kept=20, dropped=0, partitions=1)


def test_one_column_of_one_experiment_is_read_alone(wide):
    summarize(wide)
    (path,) = Path(wide.location.path("complete_summary")).rglob("summary.parquet")
    metadata = pq.read_metadata(path)
    group = metadata.row_group(1)
    chunks = {group.column(i).path_in_schema: group.column(i).total_compressed_size for i in range(group.num_columns)}
    with CountingFile(path) as counted:
        file = pq.ParquetFile(counted, metadata=metadata)
        file.read_row_group(1, columns=["test_loss_median"])
        assert 0 < counted.taken <= chunks["test_loss_median.list.element"] + 512  # and what pyarrow looks ahead
    assert chunks["test_loss_median.list.element"] < path.stat().st_size / 50


class CountingFile(io.FileIO):
    """A file that counts the bytes that are taken from it."""

    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.taken += count
        return count


MEMORY = """
import resource, sys
from butter_etl.store import Store
from butter_etl.summarize import plan_summaries, run_summaries, summarize_partition
small, large = map(Store.open, sys.argv[1:])
run_summaries(plan_summaries(small), small, threads=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run_summaries(plan_summaries(large), large, threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_partition(tmp_path):
    """With 3 MB of needed histories in each experiment, 64 of them take no more memory than 16 do."""
    stores = [make_store(tmp_path / str(number), 1, 1, 30, 3000) for number in (16, 64)]
    for store, count in zip(stores, (16, 64), strict=True):
        (path,) = Path(store.location.path("all_runs")).rglob("0-0-29.parquet")
        for number in range(1, count):
            os.link(path, path.with_name(f"{number}-0-29.parquet"))
    command = [sys.executable, "-c", MEMORY, *(store.location.root for store in stores)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30_000  # kB; the difference in histories is 138 MB


# --- crashes, and two at once ------------------------------------------------------------------------------------

KILLED = """
import sys
from butter_etl.store import Store
from butter_etl.summarize import plan_summaries, run_summaries
store = Store.open(sys.argv[1])
plan = plan_summaries(store, full=True)
print("ready", flush=True)
while True:
    run_summaries(plan, store, threads=2)
"""


@pytest.mark.long
def test_killed_at_any_point_the_files_are_whole(wide):
    summarize(wide)
    expected = all_bytes(wide), executive_rows(wide)
    for delay in (0.0, 0.01, 0.03, 0.07):
        process = subprocess.Popen([sys.executable, "-c", KILLED, wide.location.root], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.kill()
        process.wait()
        process.stdout.close()
        assert (all_bytes(wide), executive_rows(wide)) == expected
    assert plan_summaries(wide).partitions == []


def test_killed_between_the_two_files_the_next_pass_writes_both(wide, monkeypatch):
    class Killed(BaseException):
        pass

    replace = Path.replace

    def killed_at_the_second(self, target):
        if "executive" in str(target):
            raise Killed
        return replace(self, target)

    summarize(wide)
    spec = make_experiment(dataset="529_pollen", size=2 ** WIDE[2], depth=2)
    land(wide, spec, BUTTER.fixed_ids.id_of(spec), range(5))
    monkeypatch.setattr(Path, "replace", killed_at_the_second)
    with pytest.raises(Killed):
        summarize(wide)
    monkeypatch.setattr(Path, "replace", replace)
    assert executive_rows(wide)[BUTTER.fixed_ids.id_of(spec)]["num_runs"] == 1
    assert [one.stale for one in plan_summaries(wide).partitions] == [[]]
    assert summarize(wide) == SummaryReport(computed=0, kept=20, dropped=0, partitions=1)
    assert executive_rows(wide)[BUTTER.fixed_ids.id_of(spec)]["num_runs"] == 5
    assert plan_summaries(wide).partitions == []
    assert not list(Path(wide.location.root).rglob("*.tmp"))


@pytest.mark.long
def test_two_at_once(wide):
    command = [sys.executable, "-c", KILLED.replace("while True:", "for _ in range(5):"), wide.location.root]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() for process in both] == [(b"ready\n", b"")] * 2
    assert [process.returncode for process in both] == [0, 0]
    together = all_bytes(wide)
    assert plan_summaries(wide).partitions == []
    summarize(wide, full=True)
    assert all_bytes(wide) == together


# --- the executive summary ---------------------------------------------------------------------------------------


def test_the_executive_summary_is_a_part_of_the_summary(store):
    summarize(store)
    complete, executive = summary_rows(store), executive_rows(store)
    assert complete.keys() == executive.keys()
    for experiment_id, row in executive.items():
        assert set(row) == set(BUTTER.executive.names)
        assert str(row) == str({name: complete[experiment_id][name] for name in row})
    lists = [field.name for field in BUTTER.executive if pa.types.is_list(field.type)]
    assert lists == ["widths", "test_loss_median", "test_loss_q1", "test_loss_q3"]


def test_the_executive_summary_as_a_dask_dataframe(store):
    summarize(store)
    frame = be.read_executive_summary(store.location.root, where=["depth=3"]).compute()
    assert sorted(frame["experiment_id"]) == [1, 15]
    assert list(frame.columns) == BUTTER.executive.names
    assert str(frame["test_loss_median"].dtype).startswith("list<")
    exported = be.read_export(f"{store.location.root}/complete_executive_summary").compute()
    assert list(exported.columns) == BUTTER.executive.names
    assert len(exported) == 4


def test_orphans_leave_both(store):
    summarize(store)
    for file in list(store.run_files()):
        Path(store.location.path(f"all_runs/{file.path}")).unlink()
    assert summarize(store).dropped == 4
    assert not list(Path(store.location.root).rglob("summary.parquet"))


def test_a_store_of_before_gets_its_executive_summary(store):
    summarize(store)
    before = all_bytes(store)
    shutil.rmtree(store.location.path("complete_executive_summary"))
    assert summarize(store) == SummaryReport(computed=0, kept=4, dropped=0, partitions=2)
    assert len(be.read_executive_summary(store.location.root)) == 4
    assert all_bytes(store) == before


# --- intervals ---------------------------------------------------------------------------------------------------


def precision_rows(store, level="0.95"):
    """Every row of the intervals at a level with its hive keys, by Polars."""
    files = f"{store.location.root}/complete_precision/**/{level}.parquet"
    rows = pl.read_parquet(files, hive_partitioning=True, try_parse_hive_dates=False).to_dicts()
    return {row["experiment_id"]: row for row in rows}


def bytes_of(store, folder):
    root = Path(store.location.path(folder))
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_intervals_change_no_byte_of_summaries_and_are_computed_where_runs_were_added(store, monkeypatch):
    summarize(store)
    before = bytes_of(store, "complete_summary"), bytes_of(store, "complete_executive_summary")
    assert summarize(store, level=0.95) == SummaryReport(computed=4, kept=0, dropped=0, partitions=2)
    assert (bytes_of(store, "complete_summary"), bytes_of(store, "complete_executive_summary")) == before
    assert plan_summaries(store).partitions == plan_summaries(store, level=0.95).partitions == []
    assert [plan.stale for plan in plan_summaries(store, level=0.99).partitions] == [[0, 14], [1, 15]]
    untouched = precision_rows(store)[15]
    land(store, BUTTER.fixed_ids.experiment(14), 14, range(4, 7))
    assert [plan.stale for plan in plan_summaries(store, level=0.95).partitions] == [[14]]
    seen = []
    compute = butter_etl.summarize.precise_experiment
    monkeypatch.setattr(
        butter_etl.summarize,
        "precise_experiment",
        lambda of, level, runs: seen.append(runs.num_rows) or compute(of, level, runs),
    )
    assert summarize(store, level=0.95) == SummaryReport(computed=1, kept=1, dropped=0, partitions=1)
    assert seen == [7]
    assert precision_rows(store)[15] == untouched
    assert bytes_of(store, "complete_summary") == before[0]


def test_intervals_are_those_of_all_runs_whatever_the_files(store, tmp_path):
    summarize(store, level=0.95)
    row = precision_rows(store)[15]
    assert (row["confidence_level"], row["num_runs"], row["dataset"]) == (0.95, 30, "529_pollen")
    assert set(row) == set(BUTTER.precision.names)
    losses = np.sort([run["val_loss"] for run in raw_rows(store)[15]], axis=0)
    assert row["test_loss_median_low"] == losses[9].tolist()  # rank 10 of 30 at 95 %
    assert row["test_loss_median_high"] == losses[20].tolist()
    other = Store.create(tmp_path / "other")
    for first in (20, 0, 10):
        land(other, BUTTER.fixed_ids.experiment(15), 15, range(first, first + 10))
    summarize(other, level=0.95)
    assert precision_rows(other)[15] == row


def test_levels_of_before_are_kept_up_to_date(store):
    root = store.location.root
    assert be.summarize_store(root, levels=[0.99, 0.9]) == SummaryReport(12, 0, 0, 6)
    assert be.summarize_store(root, levels=[], full=True).computed == 12
    frame = be.read_precision(root, where=["confidence_level=0.99", "depth=3"]).compute(scheduler="synchronous")
    assert (len(frame), set(frame["confidence_level"])) == (2, {0.99})
    assert len(be.read_precision(root)) == 8
    assert list(frame.columns) == BUTTER.precision.names
    assert be.summarize_store(root) == SummaryReport(0, 12, 0, 0)


def test_summarising_renews_intervals_where_they_are_and_makes_no_others(store):
    root = store.location.root
    summarize(store)
    selected = Registry(store).select(Choice(where=("depth=3",)))
    plan = plan_summaries(store, selected, level=0.9)
    assert run_summaries(plan, store).computed == 2
    assert list(precision_rows(store, "0.9")) == (with_intervals := sorted(precision_rows(store, "0.9")))
    for experiment in (0, 1, 14, 15):
        land(store, BUTTER.fixed_ids.experiment(experiment), experiment, range(40, 42))
    assert be.summarize_store(root).computed == 4 + 2
    assert list(precision_rows(store, "0.9")) == with_intervals
    assert sorted(row["num_runs"] for row in precision_rows(store, "0.9").values()) == [3, 32]
    assert plan_summaries(store, level=0.9, renewed=True).partitions == []
    assert be.summarize_store(root) == SummaryReport(0, 6, 0, 0)


def test_intervals_of_experiments_without_runs_are_dropped(store):
    summarize(store, level=0.95)
    for path in Path(store.location.path("all_runs")).rglob("1*-*.parquet"):
        path.unlink()
    assert summarize(store, level=0.95).dropped == 3
    assert list(precision_rows(store)) == [0]
    shutil.rmtree(store.location.path("all_runs/dataset=529_pollen"))
    assert summarize(store, level=0.95).dropped == 1
    assert not list(Path(store.location.path("complete_precision")).rglob("*=*/*.parquet"))


def test_new_stores_have_no_intervals(store):
    assert not Path(store.location.path("complete_precision")).exists()
    assert len(be.read_precision(store.location.root)) == 0


@pytest.mark.parametrize("level", [1.0, 0.2, float("nan")])
def test_what_is_no_level_is_refused(store, level):
    with pytest.raises(SpecError, match="confidence levels lie between"):
        be.summarize_store(store.location.root, levels=[level])
