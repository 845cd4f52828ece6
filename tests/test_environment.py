"""The column `environment`: what it says of a run, when it is null, and stores of before, which lack it."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import butter_etl as be
from butter_etl.campaign.checkpoints import Checkpoints
from butter_etl.campaign.stacks import Item, Stack, train_stack
from butter_etl.engines import host
from butter_etl.engines.contract import ENGINES, HISTORIES
from butter_etl.engines.fused import engine as fused
from butter_etl.exchange.imports import run_import
from butter_etl.store.parquet import common_metadata
from butter_etl.store.store import Store
from butter_etl.studies.butter.datasets import content_sha256, load_dataset
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.frames import RUNS
from butter_etl.studies.identity import to_json
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.descents import DESCENTS
from tests.exports import contents, export, make_store
from tests.strategies import land
from tests.test_other_study import ONES, data_of, stack_of

SPEC = make_experiment(dataset="wine", size=128, depth=3, batch_size=64, epochs=3)


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("wine", None)


def stack(engine):
    return Stack((Item(SPEC, 7, "b", (0, 2)),), engine, "cpu")


def environments(rows):
    return rows["environment"].to_pylist()


def stopped(dataset, engine, resume=None):
    """A stack as it is when an epoch, or another one, of it is trained."""
    taken = []

    def watch(_done, take):
        taken.append(take())
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_stack(BUTTER, stack(engine), dataset, resume=resume, watch=watch)
    return taken[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_it_says_what_bits_depend_on(dataset, engine):
    (rows,) = train_stack(BUTTER, stack(engine), dataset)
    first, second = environments(rows)
    assert first == second
    said = json.loads(first)
    assert first == to_json(said)
    assert set(said) == {"blas", "butter-etl", "data", "llvmlite", "numba", "numpy", "target", "threads"}
    assert said["data"] == content_sha256("classification", dataset.x, dataset.y)
    assert said["numpy"] == host.package_version("numpy")
    assert said["blas"].split()[0] in ("openblas", "mkl", "blis", "flexiblas")
    assert said["threads"] >= 1
    assert isinstance(said["target"], str)


def test_other_data_are_another_environment(dataset):
    other = replace(dataset, x=dataset.x + 1e-3)
    (ours,), (theirs,) = (train_stack(BUTTER, stack("fused"), one) for one in (dataset, other))
    ours, theirs = json.loads(environments(ours)[0]), json.loads(environments(theirs)[0])
    assert {name for name in ours if ours[name] != theirs[name]} == {"data"}


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_that_of_all_parts_of_a_run(dataset, engine, tmp_path, monkeypatch):
    """Where a run went on under another version, no environment would make the same bits."""
    monkeypatch.setattr(fused, "SECONDS_PER_CALL", 0.0)
    kept = Checkpoints(tmp_path, BUTTER)
    kept.write(stopped(dataset, engine))
    (whole,), (again,) = (
        train_stack(BUTTER, stack(engine), dataset, resume=one) for one in (None, kept.read(stack(engine)))
    )
    assert environments(again) == environments(whole)
    elsewhere = replace(kept.read(stack(engine)), environment=environments(whole)[0].replace("numpy", "number"))
    unsaid = replace(elsewhere, environment=None)  # a checkpoint of before
    for earlier in (elsewhere, unsaid):
        kept.write(stopped(dataset, engine, resume=earlier))
        (rows,) = train_stack(BUTTER, stack(engine), dataset, resume=kept.read(stack(engine)))
        assert environments(rows) == [None, None]
        assert all(rows[name].equals(whole[name]) for name in HISTORIES)


def test_a_study_without_the_column_does_without():
    (rows,) = train_stack(DESCENTS, stack_of(ONES[0], [0]), data_of(stack_of(ONES[0], [0])))
    assert "environment" not in rows.schema.names


def test_footers_do_not_repeat_it(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, BUTTER.fixed_ids.experiment(0), 0, range(2))
    (file,) = store.run_files()
    group = pq.read_metadata(Path(store.location.root, RUNS, file.path)).row_group(0)
    columns = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
    assert not columns["environment"].is_stats_set
    assert columns["command"].is_stats_set
    assert list(columns)[-1] == "environment"


# --- stores of before --------------------------------------------------------------------------------------------


def make_old(root):
    """Make the store at ``root`` one that a version before the column made."""
    for path in Path(root, RUNS).rglob("*.parquet"):
        with pq.ParquetFile(path) as file:
            table, metadata = file.read(), file.metadata.metadata
        path.unlink()
        pq.write_table(table.drop_columns("environment").replace_schema_metadata(metadata), path, store_schema=False)
    schema = BUTTER.without_later(BUTTER.runs)
    Path(root, RUNS, "_common_metadata").write_bytes(common_metadata(schema))


@pytest.fixture
def old(tmp_path):
    """A store of before, summarised."""
    store = make_store(tmp_path / "store")
    make_old(store.location.root)
    run_summaries(plan_summaries(store), store)  # sizes of files changed
    return Store.open(tmp_path / "store")


def faults(place):
    return run_verification(plan_verification(str(place)), threads=2).faults


def test_stores_of_before_are_sound_and_go_on(old):
    assert not faults(old.location.root)
    frame = be.read_runs(old.location.root).compute()
    assert frame["environment"].isna().all()
    assert len(frame) > 0
    store = Store.create(old.location.root)
    land(store, BUTTER.fixed_ids.experiment(1), 1, range(2))
    schema = pq.read_schema(Path(store.location.root, RUNS, "_common_metadata"))
    assert schema.remove_metadata().equals(BUTTER.runs)
    run_summaries(plan_summaries(store), store)
    assert not faults(store.location.root)
    assert len(be.read_runs(store.location.root).compute()) == len(frame) + 2


def test_another_column_that_is_missing_is_a_fault(old):
    path = next(Path(old.location.root, RUNS).rglob("*.parquet"))
    pq.write_table(pq.ParquetFile(path).read().drop_columns("device"), path, store_schema=False)
    Path(old.location.root, RUNS, "_common_metadata").write_bytes(
        common_metadata(pa.schema([one for one in BUTTER.runs if one.name != "device"]))
    )
    Store.create(old.location.root)
    found = {(one.kind, one.detail.split(",")[0]) for one in faults(old.location.root)}
    assert ("wrong-schema", "lacks device") in found
    assert ("wrong-metadata", "lacks device") in found


@pytest.mark.parametrize("compact", [False, True])
def test_they_are_exported_and_come_back(old, tmp_path, compact):
    land(old, BUTTER.fixed_ids.experiment(1), 1, range(2))
    run_summaries(plan_summaries(old), old)
    export(old, tmp_path / "dest", everything=True, compact=compact)
    assert not faults(tmp_path / "dest")
    back = tmp_path / "back"
    run_import(str(tmp_path / "dest"), back)
    assert len(be.read_runs(tmp_path / "back").compute()) == len(be.read_runs(old.location.root).compute())
    assert not faults(tmp_path / "back")
    again = run_import(str(tmp_path / "dest"), back)
    assert again.landed == 0


def test_whole_files_of_before_are_taken_over_as_they_are(old, tmp_path):
    run_import(old.location.root, tmp_path / "back")
    assert contents(Path(old.location.root, RUNS)).items() >= {
        (name, digest) for name, digest in contents(tmp_path / "back" / RUNS).items() if name != "_common_metadata"
    }
