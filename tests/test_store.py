"""The layout's names, and landing: durably, once, whoever else lands the same."""

import functools
import itertools
import multiprocessing
import operator
import os

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import LandingError, StoreError, TornFileError
from butter_etl.store.failures import Failure
from butter_etl.store.files import Location
from butter_etl.store.layout import RunFile, consecutive, parse_partition, partition_path
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from tests.strategies import DIGITS, POLLEN, land, make_runs

FEASIBLE = [0, 1, 14, 15, 16]
POLLEN_PARTITION = (
    "dataset=529_pollen/shape=rectangle/learning_rate=0.0001/batch_size=256/"
    "kernel_regularizer.type=__HIVE_DEFAULT_PARTITION__/label_noise=0/depth=2/epochs=3000"
)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def landed(store):
    """Every (experiment, repetition) of a store, by an independent reader of the files."""
    files = f"{store.location.root}/all_runs/**/*.parquet"
    query = f"select experiment_id, repetition from read_parquet('{files}', hive_partitioning=false) order by all"
    return duckdb.sql(query).fetchall()


def test_partition_paths_are_spelled_one_way():
    assert partition_path(BUTTER.keys, POLLEN.parameters()) == POLLEN_PARTITION
    noisy = make_experiment(
        dataset="banana",
        size=32,
        depth=2,
        learning_rate=0.00001,
        label_noise=0.15,
        kernel_regularizer=Regularizer("l1", 0.32),
    )
    path = partition_path(BUTTER.keys, noisy.parameters())
    assert "/learning_rate=0.00001/" in path
    assert "/kernel_regularizer.type=l1/label_noise=0.15/" in path


@given(st.integers(0, 200_000))
def test_partition_paths_round_trip(experiment_id):
    parameters = BUTTER.fixed_ids.experiment(experiment_id).parameters()
    parsed = parse_partition(BUTTER.key_schema, partition_path(BUTTER.keys, parameters))
    assert parsed == {key: parameters[key] for key in parsed}


def test_names_are_percent_encoded():
    odd = {**POLLEN.parameters(), "dataset": "a/b=c %"}
    path = partition_path(BUTTER.keys, odd)
    assert path.startswith("dataset=a%2Fb%3Dc%20%25/shape=")
    assert parse_partition(BUTTER.key_schema, path)["dataset"] == "a/b=c %"


@pytest.mark.parametrize(
    "path", ["", "dataset=x", POLLEN_PARTITION + "/more=1", POLLEN_PARTITION.replace("depth=2", "depth=two")]
)
def test_foreign_partitions_are_refused(path):
    with pytest.raises(StoreError):
        parse_partition(BUTTER.key_schema, path)


def test_run_file_names():
    file = RunFile.parse(f"{POLLEN_PARTITION}/12-0-29.parquet", 5)
    assert file == (f"{POLLEN_PARTITION}/12-0-29.parquet", 12, 0, 29, 5)
    assert file.partition == POLLEN_PARTITION
    assert list(file.repetitions) == list(range(30))
    assert RunFile.parse("x/12-0-29.parquet.tmp", 5) is None
    assert RunFile.parse("x/summary.parquet", 5) is None


@given(st.sets(st.integers(0, 40)))
def test_consecutive_groups_cover_everything(numbers):
    ordered = sorted(numbers)
    groups = [ordered[start:stop] for start, stop in consecutive(ordered)]
    assert functools.reduce(operator.iadd, groups, []) == ordered
    assert all(group == list(range(group[0], group[-1] + 1)) for group in groups)
    assert all(first[-1] + 1 < second[0] for first, second in itertools.pairwise(groups))


def test_landing_writes_one_file_named_by_what_it_holds(store):
    landing = land(store, POLLEN, 0, range(3))
    assert landing == ([f"{POLLEN_PARTITION}/0-0-2.parquet"], 3, 0)
    assert landed(store) == [(0, 0), (0, 1), (0, 2)]
    assert store.repetitions() == {0: 0b111}
    assert list((store.state / "locks").iterdir()) == []
    (file,) = store.run_files()
    assert store.read_runs(file).equals(make_runs(POLLEN, 0, range(3)))


def test_run_files_of_one_experiment_are_no_others(store):
    for experiment_id, repetitions in ((1, range(2)), (11, range(1)), (111, range(4)), (1, [5])):
        land(store, POLLEN, experiment_id, repetitions)
    for experiment_id in (0, 1, 11, 111):
        expected = [file for file in store.run_files(POLLEN_PARTITION) if file.experiment_id == experiment_id]
        assert list(store.run_files(POLLEN_PARTITION, experiment_id)) == expected
    assert store.repetitions_of(1, POLLEN_PARTITION) == {0, 1, 5}


def test_landing_drops_what_is_there_and_keeps_files_consecutive(store):
    land(store, POLLEN, 0, [2, 3])
    landing = land(store, POLLEN, 0, range(6))
    assert sorted(landing.files) == [f"{POLLEN_PARTITION}/0-0-1.parquet", f"{POLLEN_PARTITION}/0-4-5.parquet"]
    assert (landing.landed, landing.present) == (4, 2)
    assert land(store, POLLEN, 0, range(6)) == ([], 0, 6)
    assert landed(store) == [(0, repetition) for repetition in range(6)]


def test_experiments_of_one_partition_do_not_mix(store):
    other = make_experiment(dataset="529_pollen", size=64, depth=2)
    land(store, POLLEN, 0, range(2))
    land(store, other, 14, range(3))
    assert store.repetitions() == {0: 0b11, 14: 0b111}


def land_often(path, barrier, first):
    store = Store.open(path)
    for experiment_id in FEASIBLE:
        spec = BUTTER.fixed_ids.experiment(experiment_id)
        barrier.wait()
        land(store, spec, experiment_id, range(first, first + 6))


@pytest.mark.long
def test_overlapping_landings_at_the_same_moment(store):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=land_often, args=(store.location.root, barrier, first)) for first in (0, 2, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert landed(store) == [(one, repetition) for one in FEASIBLE for repetition in range(10)]
    leftovers = [name for _, _, names in os.walk(store.location.root) for name in names if name.endswith(".tmp")]
    assert leftovers == []


def test_two_rows_of_one_repetition_are_refused(store):
    twice = pa.concat_tables([make_runs(POLLEN, 0, [0, 1]), make_runs(POLLEN, 0, [1])])
    with pytest.raises(LandingError, match="experiment 0: 3 rows for 2 repetitions"):
        store.land(POLLEN_PARTITION, 0, twice)
    assert store.repetitions() == {}


def test_landing_wants_the_schema(store):
    with pytest.raises(LandingError, match="experiment 0: the rows do not have the run schema"):
        store.land(POLLEN_PARTITION, 0, pa.table({"repetition": [0]}))


@pytest.mark.skipif(os.geteuid() != 0, reason="filling a file system needs a mount")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k tmpfs {small} 2>/dev/null"):  # noqa: S605
        pytest.skip("no tmpfs can be mounted here")
    try:
        store = Store.create(small / "store")
        with pytest.raises(LandingError, match=r"experiment 0: landing in .* failed: .*No space left"):
            land(store, POLLEN, 0, range(20), epochs=3000)
        assert store.repetitions() == {}
        assert not list(small.rglob("*.tmp"))
    finally:
        os.system(f"umount {small}")  # noqa: S605


def test_a_store_is_made_once_and_found_again(tmp_path):
    assert Store.find(tmp_path / "new") is None
    Store.create(tmp_path / "new")
    assert Store.find(tmp_path / "new") is not None
    land(Store.create(tmp_path / "new"), POLLEN, 0, [0])
    assert Store.open(tmp_path / "new").repetitions() == {0: 1}


def test_paths_that_are_no_store(tmp_path):
    file = tmp_path / "file"
    file.write_text("hello")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is a file, not a store"):
        Store.create(file)
    with pytest.raises(StoreError, match="is a file, not a store"):
        Store.open(file)
    with pytest.raises(StoreError, match="is no store"):
        Store.open(full)
    with pytest.raises(StoreError, match="not empty"):
        Store.create(full)
    assert [path.name for path in full.iterdir()] == ["notes.txt"]
    with pytest.raises(StoreError, match="does not exist"):
        Store.open(tmp_path / "none")
    with pytest.raises(StoreError, match="not a usable location"):
        Store.open("gopher://host/store")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not readable"), ('{"format":2,"study":"butter"}', "format 2, this version"), ("[]", "not readable")],
)
def test_store_files_of_others(store, content, message):
    (store.state.parent / "store.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        Store.open(store.location.root)


def test_a_torn_file_is_named(store):
    land(store, POLLEN, 0, range(3))
    (file,) = store.run_files()
    path = store.state.parent / "all_runs" / file.path
    for size in (0, 100, path.stat().st_size - 3):
        content = make_bytes(store, file)
        path.write_bytes(content[:size])
        with pytest.raises(TornFileError, match=r"0-0-2.parquet cannot be read"):
            store.read_runs(file)
        path.write_bytes(content)
    assert store.read_runs(file).num_rows == 3


def make_bytes(store, file):
    return (store.state.parent / "all_runs" / file.path).read_bytes()


def test_failures_are_kept_until_the_repetitions_have_landed(store):
    failure = Failure(0, "529_pollen", [0, 1], "ValueError: no", "trace", "host", 1)
    store.record_failure(failure)
    store.record_failure(failure)
    assert store.failures({}) == [failure]
    assert store.failures({0: 0b01}) == [failure]
    assert store.failures({0: 0b11}) == []


def test_unpublished_experiments_land_like_others(store):
    land(store, DIGITS, 2**24, range(2))
    assert store.repetitions() == {2**24: 0b11}
    assert BUTTER.run_files.equals(store.read_runs(next(store.run_files())).schema)


def test_a_file_url_is_a_path(tmp_path):
    store = Store.create(f"file://{tmp_path}/store")
    land(store, POLLEN, 0, range(2))
    assert Store.open(tmp_path / "store").repetitions() == {0: 0b11}
    assert Store.open(f"file://{tmp_path}/store").repetitions() == {0: 0b11}


def test_a_store_that_is_made_while_another_looks_is_found(tmp_path, monkeypatch):
    """Two commands at once on a new folder: one sees no store.json, and then what the other has made."""
    walk = Location.walk

    def make_and_walk(location, *args, **kwargs):
        monkeypatch.undo()
        Store.create(tmp_path / "store")
        return walk(location, *args, **kwargs)

    monkeypatch.setattr(Location, "walk", make_and_walk)
    assert list(Store.create(tmp_path / "store").run_files()) == []
    assert Store.open(tmp_path / "store").location.absolute == str(tmp_path / "store")
