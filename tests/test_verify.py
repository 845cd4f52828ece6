"""Every kind of damage to a store is found, as what it is and nothing else; repair mends what moving can mend."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl.errors import StoreError
from butter_etl.exchange.imports import run_import
from butter_etl.store.failures import Failure
from butter_etl.store.files import Location
from butter_etl.store.fingerprints import fingerprints_metadata, read_fingerprints
from butter_etl.store.layout import partition_path
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.upkeep.findings import KINDS
from butter_etl.upkeep.inventory import LEFTOVER_SECONDS
from butter_etl.upkeep.repair import run_repair
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.strategies import DIGITS, POLLEN, land, make_runs
from tests.test_imports import all_rows, foreign, write

SWEEP = "name: mine\nrepetitions: 2\ncubes:\n  - {dataset: [digits], size: [4096], depth: [3], epochs: [7]}\n"
PARTITION = partition_path(BUTTER.keys, POLLEN.parameters())
OTHER_PARTITION = partition_path(BUTTER.keys, BUTTER.fixed_ids.experiment(1).parameters())
CLAIMED = 2**24


def made_store(path):
    """Experiments 0 and 14 of one partition, 1 of another, a claimed one, its sweep; without summaries."""
    store = Store.create(path)
    for experiment_id in (0, 1, 14):
        land(store, BUTTER.fixed_ids.experiment(experiment_id), experiment_id, range(4))
    registry = Registry(store)
    registry.claim(store, {DIGITS: "mine"})
    land(store, DIGITS, registry.experiment_id(DIGITS), range(2), batch="mine")
    store.location.write_new("sweeps/mine.yaml", SWEEP.encode())
    return store


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return made_store(tmp_path_factory.mktemp("verify") / "store").location.root


@pytest.fixture
def root(template, tmp_path):
    """A sound store that has no summaries."""
    return Path(shutil.copytree(template, tmp_path / "store"))


@pytest.fixture
def summarised(root):
    """The same with summaries."""
    store = Store.open(root)
    run_summaries(plan_summaries(store), store)
    return root


def check(root, **options):
    return run_verification(plan_verification(root), threads=2, **options)


def faults(root, **options):
    """(kind, last part of the path) of each fault."""
    return [(one.kind, one.path.rpartition("/")[2]) for one in check(root, **options).faults]


def repaired(root):
    plan = plan_verification(root)
    return run_repair(plan, Store.open(root), run_verification(plan).faults)


def run_file(root, name="0-0-3.parquet"):
    return next((root / "all_runs").rglob(name))


def rewrite(path, change):
    """Write a run file anew with some columns changed: ``change`` maps rows to rows."""
    rows = pq.read_table(path, partitioning=None).to_pylist()
    for row in rows:
        change(row)
    path.write_bytes(parquet_bytes(pa.Table.from_pylist(rows, schema=BUTTER.run_files)))


def test_a_sound_store_has_no_findings(root, summarised):
    report = check(root, values=True)
    assert report.faults == []
    assert report.notes == []
    assert (report.files, report.rows, report.summaries) == (10, 22, 3)
    assert report.bytes == sum(
        path.stat().st_size
        for top in ("all_runs", "complete_summary", "complete_executive_summary")
        for path in (root / top).rglob("*=*/*.parquet")
    )


def test_without_summaries_there_is_a_note(root):
    report = check(root)
    assert report.faults == []
    assert [(note.kind, note.detail) for note in report.notes] == [
        ("missing-summary", f"experiment{ids}: no summary has been made") for ids in ("s 0, 14", " 1", f" {CLAIMED}")
    ]


# --- damage ------------------------------------------------------------------------------------------------------


def truncate(root):
    path = run_file(root)
    path.write_bytes(path.read_bytes()[:-200])


def empty(root):
    run_file(root).write_bytes(b"")


def flip_bits(root):
    path = run_file(root)
    data = bytearray(path.read_bytes())
    data[len(data) // 8] ^= 0x10
    path.write_bytes(data)


def rename_repetitions(root):
    path = run_file(root)
    path.rename(path.with_name("0-0-4.parquet"))


def rename_experiment(root):
    path = run_file(root)
    path.rename(path.with_name("15-0-3.parquet"))


def rename_foreign(root):
    path = run_file(root)
    path.rename(path.with_name("00-0-3.parquet"))


def move_to_another_partition(root):
    path = run_file(root)
    path.rename(root / "all_runs" / OTHER_PARTITION / path.name)


def move_claimed_to_another_partition(root):
    path = run_file(root, f"{CLAIMED}-0-1.parquet")
    path.rename(root / "all_runs" / OTHER_PARTITION / path.name)


def move_to_no_partition(root):
    run_file(root).rename(root / "all_runs" / "0-0-3.parquet")


def respell_partition(root):
    path = run_file(root)
    folder = root / "all_runs" / PARTITION.replace("label_noise=0/", "label_noise=0.0/")
    folder.mkdir(parents=True)
    path.rename(folder / path.name)


def foreign_parquet(root):
    pq.write_table(pa.table({"x": [1, 2]}), run_file(root))


def other_types(root):
    path = run_file(root)
    table = pq.read_table(path, partitioning=None)
    column = table.schema.get_field_index("batch_size") if "batch_size" in table.column_names else 0
    pq.write_table(table.set_column(column, table.column_names[column], table.column(column).cast(pa.int64())), path)


def alter_parameter(root):
    rewrite(run_file(root), lambda row: row.update(size=64))


def alter_run_id(root):
    rewrite(run_file(root), lambda row: row.update(run_id="5c1d9d5e-0000-5000-8000-000000000000"))


def alter_flag(root):
    rewrite(run_file(root), lambda row: row.update(primary_sweep=False))


def alter_command(root):
    rewrite(run_file(root), lambda row: row.update(command="{}"))


def alter_seed(root):
    rewrite(run_file(root), lambda row: row.update(command=row["command"].replace(str(row["seed"]), "7"), seed=7))


def exchange_experiment(root):
    run_file(root).write_bytes(parquet_bytes(replaced_id(make_runs(BUTTER.fixed_ids.experiment(14), 14, range(4)), 0)))


def replaced_id(table, experiment_id):
    return table.set_column(0, "experiment_id", pa.array([experiment_id] * table.num_rows, pa.uint32()))


def lengthen_histories(root):
    rewrite(run_file(root, f"{CLAIMED}-0-1.parquet"), lambda row: row["loss"].append(0.5))


def copy_some_repetitions(root):
    path = run_file(root)
    path.with_name("0-1-2.parquet").write_bytes(parquet_bytes(make_runs(POLLEN, 0, [1, 2])))


def overlap(root):
    path = run_file(root)
    path.with_name("0-3-5.parquet").write_bytes(parquet_bytes(make_runs(POLLEN, 0, [3, 4, 5])))


def add_notes(root):
    (root / "all_runs" / PARTITION / "notes.txt").write_text("mine")


def leave_temporary(root):
    path = root / "all_runs" / PARTITION / ".3f2a.tmp"
    path.write_bytes(b"unfinished")
    long_ago = time.time() - 2 * LEFTOVER_SECONDS
    os.utime(path, (long_ago, long_ago))


def lose_schema(root):
    (root / "all_runs" / "_common_metadata").unlink()


def alter_schema(root):
    pq.write_metadata(pa.schema([("x", pa.int8())]), root / "all_runs" / "_common_metadata")


def lose_claims(root):
    (root / "experiments" / f"{CLAIMED}.parquet").unlink()


def alter_claim(root):
    path = root / "experiments" / f"{CLAIMED}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("size"), "size", pa.array([32], pa.uint64())), path)


def rename_claim(root):
    path = root / "experiments" / f"{CLAIMED}.parquet"
    path.rename(path.with_name(f"{CLAIMED + 1}.parquet"))


def copy_claim(root):
    path = root / "experiments" / f"{CLAIMED}.parquet"
    table = pq.read_table(path)
    data = parquet_bytes(replaced_id(table, CLAIMED + 1))
    path.with_name(f"{CLAIMED + 1}.parquet").write_bytes(data)


def truncate_claim(root):
    path = root / "experiments" / f"{CLAIMED}.parquet"
    path.write_bytes(path.read_bytes()[:100])


def spoil_sweep(root):
    (root / "sweeps" / "mine.yaml").write_text("name: [")


def rename_sweep(root):
    (root / "sweeps" / "mine.yaml").rename(root / "sweeps" / "yours.yaml")


def spoil_failure(root):
    (root / "state" / "failures").mkdir(exist_ok=True)
    (root / "state" / "failures" / "0-0-1.json").write_text("{")


DAMAGE = {
    truncate: ("torn-file", "0-0-3.parquet"),
    empty: ("torn-file", "0-0-3.parquet"),
    flip_bits: ("torn-file", "0-0-3.parquet"),
    foreign_parquet: ("wrong-schema", "0-0-3.parquet"),
    other_types: ("wrong-schema", "0-0-3.parquet"),
    rename_repetitions: ("wrong-name", "0-0-4.parquet"),
    rename_experiment: ("wrong-name", "15-0-3.parquet"),
    rename_foreign: ("foreign-file", "00-0-3.parquet"),
    move_to_another_partition: ("misplaced-file", "0-0-3.parquet"),
    move_claimed_to_another_partition: ("misplaced-file", f"{CLAIMED}-0-1.parquet"),
    move_to_no_partition: ("foreign-file", "0-0-3.parquet"),
    respell_partition: ("foreign-file", "0-0-3.parquet"),
    alter_parameter: ("wrong-row", "0-0-3.parquet"),
    alter_run_id: ("wrong-row", "0-0-3.parquet"),
    alter_flag: ("wrong-row", "0-0-3.parquet"),
    alter_command: ("wrong-row", "0-0-3.parquet"),
    alter_seed: ("wrong-row", "0-0-3.parquet"),
    exchange_experiment: ("wrong-row", "0-0-3.parquet"),
    lengthen_histories: ("wrong-row", f"{CLAIMED}-0-1.parquet"),
    copy_some_repetitions: ("duplicate-run", "0-1-2.parquet"),
    overlap: ("duplicate-run", "0-3-5.parquet"),
    add_notes: ("foreign-file", "notes.txt"),
    leave_temporary: ("temporary-file", ".3f2a.tmp"),
    lose_schema: ("wrong-metadata", "_common_metadata"),
    alter_schema: ("wrong-metadata", "_common_metadata"),
    lose_claims: ("unknown-experiment", f"{CLAIMED}-0-1.parquet"),
    spoil_failure: ("wrong-record", "0-0-1.json"),
    spoil_sweep: ("wrong-sweep", "mine.yaml"),
    rename_sweep: ("wrong-sweep", "yours.yaml"),
    copy_claim: ("wrong-experiment", f"{CLAIMED + 1}.parquet"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_found_as_what_it_is_and_repaired(damage, root):
    damage(root)
    expected = DAMAGE[damage]
    assert faults(root) == [expected]
    before = every_file(root)
    report = repaired(root)
    if not KINDS[expected[0]].moves:
        assert [finding.kind for finding in report.left] == [expected[0]]
        assert every_file(root) == before
        return
    assert report.left == ()
    assert faults(root) == []
    gone = before.keys() - every_file(root).keys()
    quarantined = {str(path.relative_to(root)) for path in (root / "quarantine").rglob("*") if path.is_file()}
    assert {name.split("/", 3)[3] for name in quarantined} >= gone
    assert all(name.split("/")[2] == expected[0] for name in quarantined)


def every_file(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] != "quarantine"
    }


@pytest.mark.parametrize("damage", [alter_claim, truncate_claim, rename_claim], ids=lambda damage: damage.__name__)
def test_damaged_claims_leave_their_runs_unknown(damage, root):
    damage(root)
    assert [kind for kind, _ in faults(root)] == ["unknown-experiment", "wrong-experiment"]


def test_runs_that_are_missing_after_a_repair_are_named_and_land_again(root):
    truncate(root)
    overlap(root)
    report = repaired(root)
    assert report.missing == {0: [0, 1, 2]}  # the torn file is no partner: repetition 3 is in the other one
    assert land(Store.open(root), POLLEN, 0, range(6)).landed == 3
    assert faults(root) == []
    assert Store.open(root).quarantined() == {"torn-file": 1}


def test_of_duplicates_the_file_with_more_runs_stays(root):
    copy_some_repetitions(root)
    overlap(root)
    report = repaired(root)
    assert sorted(Path(finding.path).name for finding in report.moved) == ["0-1-2.parquet", "0-3-5.parquet"]
    assert report.missing == {0: [4, 5]}


def test_a_repair_passes_over_what_was_mended_meanwhile(root):
    truncate(root)
    plan = plan_verification(root)
    found = run_verification(plan).faults
    store = Store.open(root)
    run_repair(plan, store, found)
    land(store, POLLEN, 0, range(4))
    again = run_repair(plan, store, found)
    assert (again.moved, again.missing) == ((), {})
    assert faults(root) == []


def test_a_repair_waits_for_a_landing(root):
    truncate(root)
    store = Store.open(root)
    with store.lock(0):
        code = f"""
from pathlib import Path
from butter_etl.store import locks
from tests.test_verify import repaired
sleep = locks.time.sleep
locks.time.sleep = lambda seconds: (print("waiting", flush=True), sleep(seconds))
repaired(Path({str(root)!r}))
"""
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert [other.stdout.readline() for _ in range(5)] == [b"waiting\n"] * 5
        assert other.poll() is None
        assert run_file(root).exists()
    other.communicate(timeout=300)
    assert other.returncode == 0
    assert faults(root) == []


@pytest.mark.long
def test_a_killed_repair_is_finished_by_the_next(root):
    for damage in (truncate, add_notes, leave_temporary):
        damage(root)
    code = f"""
import os
from pathlib import Path
from butter_etl.store import Store
from tests.test_verify import repaired
move, moved = Store.quarantine, []
def stop_after_one(*arguments):
    if moved:
        os._exit(9)
    moved.append(1)
    return move(*arguments)
Store.quarantine = stop_after_one
repaired(Path({str(root)!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(faults(root)) == 2
    repaired(root)
    assert faults(root) == []
    assert sum(Store.open(root).quarantined().values()) == 3


# --- summaries ---------------------------------------------------------------------------------------------------


def summary_file(root, partition=PARTITION):
    return root / "complete_summary" / partition / "summary.parquet"


def edit_summary(root, change, frame="complete"):
    """Change a summary file's table and keep what it says it was made from."""
    location, name = Location(root), f"{frame}_summary/{PARTITION}/summary.parquet"
    made_from = read_fingerprints(location, name)
    table = change(location.read_table(name))
    location.replace(name, parquet_bytes(table, metadata=fingerprints_metadata(made_from)))


def test_summaries_out_of_date(summarised):
    store = Store.open(summarised)
    land(store, POLLEN, 0, range(5))
    shutil.rmtree(summarised / "all_runs" / OTHER_PARTITION)
    assert faults(summarised) == [("stale-summary", "summary.parquet"), ("orphaned-summary", "summary.parquet")]
    run_summaries(plan_summaries(store), store)
    assert faults(summarised) == []


def test_a_torn_summary_goes_and_is_made_again(summarised):
    path = summary_file(summarised)
    path.write_bytes(path.read_bytes()[:-100])
    assert faults(summarised) == [("torn-file", "summary.parquet")]
    repaired(summarised)
    store = Store.open(summarised)
    assert [note.kind for note in check(summarised).notes] == ["missing-summary"]
    run_summaries(plan_summaries(store), store)
    report = check(summarised, values=True)
    assert (report.faults, report.notes) == ([], [])


def test_a_summary_in_another_partition(summarised):
    summary_file(summarised).replace(summary_file(summarised, OTHER_PARTITION))
    kinds = [kind for kind, _ in faults(summarised)]
    assert kinds == ["misplaced-file", "stale-summary", "orphaned-summary"]  # and its executive summary is alone


def set_first(table, name, value):
    values = table[name].to_pylist()
    values[0] = value
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def test_altered_parameters_of_a_summary(summarised):
    edit_summary(summarised, lambda table: set_first(table, "size", 99))
    assert faults(summarised) == [("wrong-summary", "summary.parquet")]


def test_altered_values_are_found_by_recomputing(summarised):
    # every experiment of the file is changed, so that any sample shows it
    def change(table):
        name = "test_loss_median"
        lists = table[name].to_pylist()
        for values in lists:
            values[-1] = np.nextafter(np.float32(values[-1]), np.float32(0))
        field = table.schema.field(name)
        return table.set_column(table.column_names.index(name), field, pa.array(lists, field.type))

    edit_summary(summarised, change)
    assert faults(summarised) == [("wrong-summary", "summary.parquet")]  # the executive one has other values
    edit_summary(summarised, change, "complete_executive")
    assert faults(summarised) == []
    assert faults(summarised, values=True) == [("wrong-summary", "summary.parquet")]
    store = Store.open(summarised)
    run_summaries(plan_summaries(store, full=True), store)
    assert faults(summarised, values=True) == []


def test_executive_summaries_are_checked_too(summarised):
    edit_summary(summarised, lambda table: set_first(table, "size", 99), "complete_executive")
    assert [kind for kind, _ in faults(summarised)] == ["wrong-summary"] * 2  # of its experiment, and of the other file
    path = summarised / "complete_executive_summary" / PARTITION / "summary.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert faults(summarised) == [("torn-file", "summary.parquet")]
    path.unlink()
    assert faults(summarised) == [("stale-summary", "summary.parquet")]
    store = Store.open(summarised)
    run_summaries(plan_summaries(store), store)
    assert faults(summarised) == []


def test_rows_that_the_metadata_does_not_name(summarised):
    edit_summary(summarised, lambda table: table.slice(0, 1))
    assert faults(summarised) == [("wrong-summary", "summary.parquet")]


def test_a_row_that_stands_twice(summarised):
    edit_summary(summarised, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert faults(summarised) == [("wrong-summary", "summary.parquet")]


# --- notes -------------------------------------------------------------------------------------------------------


def test_notes_are_no_faults(summarised):
    store = Store.open(summarised)
    (summarised / "all_runs" / PARTITION / "14-0-3.parquet").unlink()
    spec = BUTTER.fixed_ids.experiment(14)
    land(store, spec, 14, [0, 2, 5])
    run_file(summarised, f"{CLAIMED}-0-1.parquet").unlink()
    store.record_failure(Failure(CLAIMED, "digits", [0, 1], "ValueError: no", "trace", "host", 1))
    store.record_failure(Failure(0, "529_pollen", [0, 1], "ValueError: no", "trace", "host", 1))
    run_summaries(plan_summaries(store), store)
    report = check(summarised)
    assert report.faults == []
    details = {note.kind: note.detail for note in report.notes}
    assert details == {
        "gap": "experiment 14 lacks 1, 3-4",
        "missing-runs": "2 of its 2 runs are missing",
        "recorded-failure": "digits: ValueError: no",
        "outdated-failure": "529_pollen: ValueError: no",
    }


def test_fresh_temporary_files_are_left_alone(root):
    (root / "all_runs" / PARTITION / ".3f2a.tmp").write_bytes(b"at work")
    assert faults(root) == []


def test_what_lies_in_quarantine_is_not_looked_at(root):
    truncate(root)
    repaired(root)
    report = check(root)
    assert (report.faults, report.rows) == ([], 10)
    assert Store.open(root).repetitions().keys() == {1, 14, CLAIMED}


# --- runs of others ----------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(root, tmp_path):
    """Runs of our own and of another task, in a store that they were imported into."""
    rows = all_rows(root)
    write(rows, tmp_path / "source", "own.parquet")
    write(foreign(rows), tmp_path / "source", "others.parquet")
    run_import(tmp_path / "source", tmp_path / "mixed")
    return tmp_path / "mixed"


def test_runs_of_another_task_are_checked_too(mixed):
    report = check(mixed)
    assert (report.faults, report.rows) == ([], 28)
    path = run_file(mixed, "500000-0-3.parquet")
    rewrite(path, lambda row: row.update(size=99))
    assert faults(mixed) == [("wrong-row", path.name)]
    path.rename(mixed / "all_runs" / OTHER_PARTITION / path.name)
    rewrite(mixed / "all_runs" / OTHER_PARTITION / path.name, lambda row: row.update(size=32))
    assert faults(mixed) == [("misplaced-file", path.name)]


def test_two_runs_of_one_id(mixed):
    first = pq.read_table(run_file(mixed, "500000-0-3.parquet"), partitioning=None)["run_id"].to_pylist()
    rewrite(run_file(mixed, "500014-0-3.parquet"), lambda row: row.update(run_id=first[row["repetition"]]))
    assert faults(mixed) == [("duplicate-run-id", "500014-0-3.parquet")]


# --- elsewhere ---------------------------------------------------------------------------------------------------


def test_on_a_cluster_and_by_url(root, client):
    truncate(root)
    foreign = root / "all_runs" / OTHER_PARTITION / "1-0-3.parquet"
    pq.write_table(pa.table({"x": [1]}), foreign)
    plan = plan_verification(f"file://{root}")
    seen = []
    report = run_verification(plan, client=client, on_progress=lambda one: seen.append(one.files))
    assert [finding.kind for finding in report.faults] == ["torn-file", "wrong-schema"]
    assert seen[-1] == report.files == 4
    assert run_verification(plan).findings == report.findings


def test_a_store_that_grows_meanwhile_is_sound(summarised):
    plan = plan_verification(summarised)
    store = Store.open(summarised)
    land(store, POLLEN, 0, range(6))
    run_summaries(plan_summaries(store), store)
    assert run_verification(plan).findings == ()


def test_paths_that_are_neither_store_nor_export(tmp_path):
    with pytest.raises(StoreError, match="is neither a store"):
        plan_verification(tmp_path)
    with pytest.raises(StoreError, match="is neither a store"):
        plan_verification(tmp_path / "none")


# --- intervals ---------------------------------------------------------------------------------------------------


@pytest.fixture
def precise(summarised):
    """The same with intervals at 95 %."""
    store = Store.open(summarised)
    run_summaries(plan_summaries(store, level=0.95), store)
    return summarised


def edit_precision(root, change):
    location, name = Location(root), f"complete_precision/{PARTITION}/0.95.parquet"
    made_from = read_fingerprints(location, name)
    table = change(location.read_table(name))
    location.replace(name, parquet_bytes(table, metadata=fingerprints_metadata(made_from)))


def test_sound_intervals_have_no_findings_and_are_recomputed(summarised, precise):
    report = check(precise, values=True)
    assert (report.faults, report.notes) == ([], [])
    assert report.summaries == 6  # those of three files, of either frame


def test_intervals_are_checked_like_summaries(precise):
    land(Store.open(precise), POLLEN, 0, range(5, 6))
    assert [kind for kind, _ in faults(precise)] == ["stale-summary"] * 2
    store = Store.open(precise)
    for level in (None, 0.95):
        run_summaries(plan_summaries(store, level=level), store)
    edit_precision(precise, lambda table: set_first(table, "size", 99))
    assert faults(precise) == [("wrong-summary", "0.95.parquet")]
    run_summaries(plan_summaries(store, full=True, level=0.95), store)
    edit_precision(precise, lambda table: set_first(table, "confidence_level", 0.9))
    assert faults(precise) == [("wrong-summary", "0.95.parquet")]
    run_summaries(plan_summaries(store, full=True, level=0.95), store)
    edit_precision(precise, lambda table: set_first(set_first(table, "num_runs", 1), "test_loss_end_avg", 7.0))
    assert faults(precise) == []
    for _ in range(20):  # a sample of one of two rows
        if found := faults(precise, values=True):
            break
    assert found == [("wrong-summary", "0.95.parquet")]


def test_a_file_of_intervals_with_another_name_is_foreign(precise):
    folder = precise / "complete_precision" / PARTITION
    (folder / "0.95.parquet").rename(folder / "0.950.parquet")
    assert faults(precise) == [("foreign-file", "0.950.parquet")]
    repaired(precise)
    assert faults(precise) == []
    (precise / "complete_precision" / "_common_metadata").unlink()
    assert faults(precise) == [("wrong-metadata", "_common_metadata")]
    repaired(precise)
    assert faults(precise) == []
