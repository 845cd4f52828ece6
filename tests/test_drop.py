"""Withdrawn runs lie in quarantine and are missing; what stays is never lost, wherever a drop is killed."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.selection import Choice
from butter_etl.upkeep.drop import plan_drop, run_drop
from butter_etl.upkeep.repair import run_repair
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.strategies import POLLEN, land, make_runs


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, 0, range(6))
    land(store, BUTTER.fixed_ids.experiment(14), 14, range(3))
    return store


def drop(store, **choice):
    return run_drop(plan_drop(store, Registry(store).select(Choice(**choice))), store)


def quarantined(store):
    return sorted(path.name for path in Path(store.location.path("quarantine")).rglob("*.parquet"))


def test_whole_experiments(store):
    assert drop(store, where=("size=32",)) == 6
    assert store.repetitions() == {14: 0b111}
    assert quarantined(store) == ["0-0-5.parquet"]
    assert store.quarantined() == {"dropped": 1}
    assert drop(store, where=("size=32",)) == 0
    assert land(store, POLLEN, 0, range(6)).landed == 6
    assert drop(store, where=("size=32",)) == 6  # a second time under another time stamp
    assert store.quarantined() == {"dropped": 2}


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ({"repetitions": 2}, {0: 0b111100, 14: 0b100}),
        ({"first_repetition": 2}, {0: 0b11, 14: 0b11}),
        ({"repetitions": 2, "first_repetition": 1}, {0: 0b111001, 14: 0b001}),
        ({"sweeps": ("primary",), "where": ("size=64",)}, {0: 0b111111}),
        ({"where": ("dataset=mnist",)}, {0: 0b111111, 14: 0b111}),
    ],
)
def test_repetitions_that_stay_are_landed_anew(store, choice, left):
    plan = plan_drop(store, Registry(store).select(Choice(**choice)))
    before = sum(mask.bit_count() for mask in store.repetitions().values())
    assert run_drop(plan, store) == plan.runs == before - sum(mask.bit_count() for mask in left.values())
    assert store.repetitions() == left
    rows = pa.concat_tables([store.read_runs(file) for file in store.run_files(plan_partition())]).sort_by("repetition")
    kept = [repetition for repetition in range(6) if left[0] >> repetition & 1]
    own = rows.filter(pa.compute.equal(rows["experiment_id"], 0))
    assert own.equals(make_runs(POLLEN, 0, kept))
    assert run_verification(plan_verification(store.location.root)).faults == []


def plan_partition():
    from butter_etl.store.layout import partition_path

    return partition_path(BUTTER.keys, POLLEN.parameters())


#: Dropping 2-3 of 0-5 makes names with two links and moves one file: where a drop can be killed between them.
KILL = """
import os, sys
from tests.test_drop import drop
from butter_etl.store import Store
store = Store.open(sys.argv[1])
step, calls = int(sys.argv[2]), []
link, rename = os.link, Store.quarantine
def counted(act):
    def stop_or(*arguments, **options):
        if ".lock" not in str(arguments[1]) and len(calls) == step:
            os._exit(9)
        if ".lock" not in str(arguments[1]):
            calls.append(1)
        return act(*arguments, **options)
    return stop_or
os.link, Store.quarantine = counted(link), counted(rename)
drop(store, repetitions=2, first_repetition=2, where=("size=32",))
"""


def killed(store, step):
    arguments = [sys.executable, "-c", KILL, store.location.root, str(step)]
    assert subprocess.run(arguments, check=False, timeout=300).returncode == 9


@pytest.mark.parametrize("step", [*(pytest.param(step, marks=pytest.mark.long) for step in (0, 1)), 2])
def test_a_killed_drop_loses_nothing_and_is_finished_or_undone(store, step):
    killed(store, step)
    assert store.repetitions()[0] == 0b111111
    kinds = [finding.kind for finding in run_verification(plan_verification(store.location.root)).faults]
    assert kinds == ["duplicate-run"] * step
    assert drop(store, repetitions=2, first_repetition=2, where=("size=32",)) == 2
    assert store.repetitions()[0] == 0b110011
    assert run_verification(plan_verification(store.location.root)).faults == []


def test_repairing_after_a_killed_drop_undoes_it(store):
    killed(store, 2)
    plan = plan_verification(store.location.root)
    report = run_repair(plan, store, run_verification(plan).faults)
    assert report.missing == {}
    assert [file.path.rpartition("/")[2] for file in store.run_files() if file.experiment_id == 0] == ["0-0-5.parquet"]
    assert run_verification(plan_verification(store.location.root)).faults == []


@settings(max_examples=15)
@given(st.sets(st.integers(0, 9), min_size=1), st.integers(0, 9), st.integers(1, 10))
def test_what_a_drop_leaves_is_what_it_does_not_name(tmp_path_factory, held, first, count):
    store = Store.create(tmp_path_factory.mktemp("drop") / "store")
    land(store, POLLEN, 0, sorted(held), epochs=1)
    gone = held & set(range(first, first + count))
    assert drop(store, repetitions=count, first_repetition=first) == len(gone)
    assert {number for number in range(10) if store.repetitions().get(0, 0) >> number & 1} == held - gone
