"""Links, and what other tools leave beside data: followed or named, and passed over."""

import os
import shutil
import subprocess
from itertools import product

import pyarrow.parquet as pq
import pytest

import butter_etl as be
from butter_etl.errors import PlaceError
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.exchange.imports import run_import
from butter_etl.exchange.sources import list_source
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.selection import Choice, Selection
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.train_tasks import claim_ids, open_campaign, plan_campaign
from butter_etl.upkeep.drop import plan_drop, run_drop
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.strategies import POLLEN, land

PARTITION = "dataset=529_pollen"


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, 0, range(3))
    return store


def summarised(store):
    run_summaries(plan_summaries(store), store)
    return store


def move_away(tmp_path, name):
    """Move a folder or file of the store to another place, and leave a link."""
    there = tmp_path / "elsewhere" / name
    there.parent.mkdir(parents=True, exist_ok=True)
    here = tmp_path / "store" / name
    here.rename(there)
    here.symlink_to(there)
    return there


def names(location):
    return [name for name, _ in Location(location).walk()]


# --- links that are followed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [f"all_runs/{PARTITION}", "all_runs", "complete_summary", "experiments", "state"])
def test_what_was_moved_elsewhere_is_seen_through_its_link(store, tmp_path, moved):
    (tmp_path / "store" / "experiments").mkdir()
    summarised(store)
    move_away(tmp_path, moved)
    again = Store.create(tmp_path / "store")
    assert again.repetitions() == {0: 0b111}
    assert len(be.read_runs(tmp_path / "store").compute(scheduler="sync")) == 3
    assert plan_summaries(again).stale == 0
    assert run_verification(plan_verification(str(tmp_path / "store"), None)).faults == []
    land(again, POLLEN, 0, range(5))
    assert again.repetitions() == {0: 0b11111}
    run_summaries(plan_summaries(again), again)
    assert be.read_summary(tmp_path / "store").compute(scheduler="sync")["num_runs"].tolist() == [5]


def test_run_files_that_are_links_are_read_and_exported_as_files(store, tmp_path):
    (file,) = store.run_files()
    move_away(tmp_path, f"all_runs/{file.path}")
    assert store.repetitions() == {0: 0b111}
    plan = plan_export(store, Selection((), (), None, 0), ExportOptions(summary=False), everything=True)
    run_export(plan, store, Location(tmp_path / "dest"), ExportOptions(summary=False))
    shutil.rmtree(tmp_path / "store")
    (exported,) = (tmp_path / "dest" / "all_runs").rglob("0-*.parquet")
    assert not exported.is_symlink()
    assert pq.read_metadata(exported).num_rows == 3


def test_an_import_follows_the_links_of_its_source(store, tmp_path):
    move_away(tmp_path, f"all_runs/{PARTITION}")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "theirs").symlink_to(tmp_path / "elsewhere" / "all_runs")
    assert run_import(tmp_path / "store", tmp_path / "one").landed == 3
    assert run_import(tmp_path / "source", tmp_path / "two").landed == 3


def test_an_export_of_which_a_directory_was_moved_is_checked_and_made_again(store, tmp_path):
    options = ExportOptions(summary=False)
    plan = plan_export(store, Selection((), (), None, 0), options, everything=True)
    dest = tmp_path / "dest"
    assert run_export(plan, store, Location(dest), options).changed
    (dest / "all_runs").rename(tmp_path / "moved")
    (dest / "all_runs").symlink_to(tmp_path / "moved")
    assert run_verification(plan_verification(str(dest), None)).faults == []
    assert not run_export(plan, store, Location(dest), options).changed
    assert len(be.read_export(dest / "all_runs").compute(scheduler="sync")) == 3


def test_runs_on_another_file_system_are_withdrawn(store, tmp_path, request):
    disk, here = tmp_path / "disk", tmp_path / "store" / "all_runs" / PARTITION
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system takes root")
    request.addfinalizer(lambda: subprocess.run(["umount", disk], check=True))
    shutil.move(here, disk)
    here.symlink_to(disk / PARTITION)
    assert run_drop(plan_drop(store, Selection((), (), None, 0)), store) == 3
    assert store.repetitions() == {}
    assert store.quarantined() == {"dropped": 1}


# --- links that are named ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [f"all_runs/{PARTITION}", "all_runs", "experiments", "file"])
def test_a_link_that_leads_nowhere_is_named(store, run, tmp_path, moved):
    (tmp_path / "store" / "experiments").mkdir()
    (file,) = store.run_files()
    gone = move_away(tmp_path, f"all_runs/{file.path}" if moved == "file" else moved)
    gone.rename(tmp_path / "taken-away")
    path = str(tmp_path / "store")
    for command in (["status", path], ["plan", path, "--sweep", "primary", "--where", "size=32"], ["verify", path]):
        code, out, err = run(*command)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert f"links to {gone}, which is not there; bring that back, or remove the link [place]" in line
    if moved != "experiments":  # which a landing does not look at
        with pytest.raises(PlaceError, match="which is not there"):
            land(store, POLLEN, 0, range(5))


def test_a_store_that_is_a_link_to_nowhere_is_not_made_anew(tmp_path):
    (tmp_path / "store").symlink_to(tmp_path / "unmounted")
    with pytest.raises(PlaceError, match=r"store: links to .*unmounted, which is not there"):
        Store.create(tmp_path / "store")
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_in_a_circle_is_named(store, tmp_path, target):
    (tmp_path / "store" / "all_runs" / PARTITION / "up").symlink_to(target)
    with pytest.raises(PlaceError, match=r"up: links to .*, which it is in; remove the link"):
        store.repetitions()


def test_links_that_lead_to_each_other_are_named(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    with pytest.raises(PlaceError, match="which it is in; remove the link"):
        names(tmp_path)
    (tmp_path / "itself").symlink_to("itself")
    with pytest.raises(PlaceError, match="itself"):
        Location(tmp_path).names("")


def test_two_links_to_one_folder_are_no_circle(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    for name in "ab":
        (tmp_path / name).symlink_to("real")
    assert names(tmp_path) == ["a/file", "b/file", "real/file"]


def test_locks_of_editors_are_no_broken_links(store, tmp_path):
    (tmp_path / "store" / "all_runs" / ".#notes").symlink_to("me@here.4711:1700000000")
    assert store.repetitions() == {0: 0b111}


# --- hidden folders ----------------------------------------------------------------------------------------------

HIDDEN = [
    "_temporary/0/attempt_1",
    ".spark-staging-7",
    "_delta_log",
    ".Trash-1000/files",
    ".ipynb_checkpoints",
    ".git/objects",
    "lost+found",
    "$RECYCLE.BIN",
    "@eaDir",
]


def test_hidden_folders_are_passed_over(store, tmp_path):
    """In a source, in a store and its frames, in an export, and where a store is made."""
    summarised(store)
    (file,) = store.run_files()
    (tmp_path / "source").mkdir()
    shutil.copy(tmp_path / "store" / "all_runs" / file.path, tmp_path / "source" / "a.parquet")
    plan = plan_export(store, Selection((), (), None, 0), ExportOptions(), everything=True)
    run_export(plan, store, Location(tmp_path / "dest"), ExportOptions())
    frames = ("store/all_runs", f"store/all_runs/{file.partition}", "store/complete_summary", "dest/all_runs")
    for place, folder in product(("source", "new", "dest", *frames), HIDDEN):
        hidden = tmp_path / place / folder
        hidden.mkdir(parents=True)
        for name in ("0-0-9.parquet", "summary.parquet"):
            (hidden / name).write_bytes(b"PAR1 cut short")
    assert [name for name, _ in list_source(BUTTER, tmp_path / "source").files] == ["a.parquet"]
    assert list_source(BUTTER, tmp_path / "source").left_out == []
    assert store.repetitions() == {0: 0b111}
    assert len(be.read_runs(tmp_path / "store").compute(scheduler="sync")) == 3
    assert len(be.read_summary(tmp_path / "store").compute(scheduler="sync")) == 1
    assert plan_summaries(store).stale == 0
    assert run_verification(plan_verification(str(tmp_path / "store"), None)).faults == []
    assert len(be.read_export(tmp_path / "dest" / "all_runs").compute(scheduler="sync")) == 3
    assert run_verification(plan_verification(str(tmp_path / "dest"), None)).faults == []
    assert not run_export(plan, store, Location(tmp_path / "dest"), ExportOptions()).changed
    assert run_import(tmp_path / "store", tmp_path / "new").landed == 3


def test_an_exported_directory_may_begin_with_an_underscore(tmp_path):
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        "name: _x\nrepetitions: 1\ncubes:\n  - {dataset: [digits], size: [4096], depth: [3], epochs: [7]}\n"
    )
    campaign = plan_campaign(tmp_path / "store", Choice(specs=(str(spec),)))
    store, _ = open_campaign(campaign, tmp_path)
    (wanted,) = claim_ids(campaign.plan, campaign.registry, store)
    land(store, wanted.spec, wanted.experiment_id, [0])
    summarised(store)
    plan = plan_export(store, Registry(store).select(Choice(sweeps=("_x",))), ExportOptions())
    run_export(plan, store, Location(tmp_path / "dest"), ExportOptions())
    assert (tmp_path / "dest" / "_x_sweep_runs").is_dir()
    assert run_verification(plan_verification(str(tmp_path / "dest"), None)).faults == []
    assert not run_export(plan, store, Location(tmp_path / "dest"), ExportOptions()).changed
    assert run_import(tmp_path / "dest", tmp_path / "back").landed == 1


def test_files_of_a_mac_are_no_rows(store, tmp_path):
    (file,) = store.run_files()
    for name in ("._0-0-2.parquet", "._x.parquet"):
        (tmp_path / "store" / "all_runs" / file.partition / name).write_bytes(b"\0\5\26\7 of a Mac")
    assert len(be.read_runs(tmp_path / "store").compute(scheduler="sync")) == 3
    assert store.repetitions() == {0: 0b111}
