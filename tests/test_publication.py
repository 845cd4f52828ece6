"""Data sets are made aside and published whole: after a kill, on a full disk, beside earlier exports."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from butter_etl.errors import LandingError, StoreError
from butter_etl.exchange import publication
from butter_etl.exchange.manifest import hash_file, read_manifest
from butter_etl.store.files import Location
from butter_etl.store.locks import FileLock
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.summarize import plan_summaries, run_summaries
from tests.exports import EXPERIMENTS, contents, export, make_store
from tests.other_study import make_store_of_fits
from tests.strategies import land


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("original") / "store")


@pytest.fixture
def store(original, tmp_path):
    shutil.copytree(original.location.root, tmp_path / "store")
    return Store.open(tmp_path / "store")


# --- killed ------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from butter_etl import partition
from butter_etl.exchange import publication
from butter_etl.store import Store
from tests.exports import export

partition._BATCH = 1
here = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
after, place = int(sys.argv[3]), sys.argv[4]
if place != "files":
    setattr(publication.Publication, place, here)
export(
    Store.open(sys.argv[1]), sys.argv[2], "primary", "optimizer", tar=True, compact=len(sys.argv) > 5,
    on_progress=lambda files: here() if place == "files" and files == after else None,
)
"""


def export_killed(store, dest, after, place, *extra):
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", KILLED, store.location.root, str(dest), str(after), place, *extra]
    done = subprocess.run(command, check=False, cwd=root, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("after", "place"), [(5, "files"), (0, "_swap"), (0, "_remove_strangers")])
def test_a_killed_export_goes_on_to_the_same_bytes(store, tmp_path, after, place):
    export(store, tmp_path / "clean", "primary", "optimizer", tar=True)
    dest = tmp_path / "dest"
    export_killed(store, dest, after, place)
    assert not (dest / "manifest.json").exists()
    if place == "files":
        assert [path.name for path in dest.iterdir()] == [".unfinished"]
    export(store, dest, "primary", "optimizer", tar=True)
    assert contents(dest) == contents(tmp_path / "clean")


def test_files_that_were_rewritten_before_the_kill_are_kept(store, tmp_path):
    export_killed(store, tmp_path / "dest", 2, "files", "compact")
    (stage,) = (path for path in (tmp_path / "dest/.unfinished").iterdir() if path.is_dir())
    before = {path.stat().st_ino for path in stage.rglob("part-*.parquet")}
    export(store, tmp_path / "dest", "primary", "optimizer", tar=True, compact=True)
    after = {path.stat().st_ino for path in (tmp_path / "dest").rglob("part-*.parquet")}
    assert before
    assert before <= after


def test_a_killed_re_export_leaves_the_old_one_alone(store, tmp_path):
    dest = tmp_path / "dest"
    export(store, dest, "primary", "optimizer", tar=True)
    before = contents(dest)
    land(store, EXPERIMENTS[0], BUTTER.fixed_ids.id_of(EXPERIMENTS[0]), range(4), epochs=4)
    run_summaries(plan_summaries(store), store)
    export_killed(store, dest, 5, "files")
    there = contents(dest)
    assert {name: there[name] for name in before} == before


def test_what_a_killed_export_left_is_taken_away_by_another(store, tmp_path):
    export_killed(store, tmp_path / "dest", 3, "files")
    export(store, tmp_path / "dest", "batch_size")
    export(store, tmp_path / "clean", "batch_size")
    assert contents(tmp_path / "dest") == contents(tmp_path / "clean")


def test_what_was_there_before_a_kill_while_publishing_stays_known(store, tmp_path):
    dest, clean = tmp_path / "dest", tmp_path / "clean"
    for folder in (dest, clean):
        export(store, folder, "batch_size", "primary", tar=True)
    land(store, EXPERIMENTS[0], BUTTER.fixed_ids.id_of(EXPERIMENTS[0]), range(4), epochs=4)
    run_summaries(plan_summaries(store), store)
    export_killed(store, dest, 0, "_remove_strangers")
    with pytest.raises(StoreError, match="killed while it published primary_sweep_runs; finish it first"):
        export(store, dest, "label_noise")
    for folder in (dest, clean):
        export(store, folder, "primary", "optimizer", tar=True)
    assert contents(dest) == contents(clean)
    assert {one.name for one in read_manifest(Location(dest)).directories} == {
        f"{sweep}_sweep_{frame}" for sweep in ("batch_size", "primary", "optimizer") for frame in ("runs", "summary")
    }


# --- disks -------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder, size):
    """A file system of its own with ``size`` bytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize("compact", [False, True])
def test_a_full_disk_is_one_line_and_nothing_is_published(store, tmp_path, compact):
    export(store, tmp_path / "clean", everything=True, tar=True, compact=compact)
    with small_disk(tmp_path / "disk", "300k"):
        dest = tmp_path / "disk/dest"
        with pytest.raises(LandingError, match="No space left on device") as refusal:
            export(store, dest, everything=True, tar=True, compact=compact)
        assert "\n" not in str(refusal.value)
        assert [path.name for path in dest.iterdir()] == [".unfinished"]
        remount(tmp_path / "disk", "size=100m")
        export(store, dest, everything=True, tar=True, compact=compact)
        assert contents(dest) == contents(tmp_path / "clean")


def test_a_destination_that_cannot_be_written_is_one_line(store, tmp_path):
    with small_disk(tmp_path / "disk", "1m"):
        remount(tmp_path / "disk", "ro")
        with pytest.raises(LandingError, match="Read-only file system") as refusal:
            export(store, tmp_path / "disk/dest", "primary")
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "disk/dest").exists()


def test_copies_are_made_once_and_kept(store, tmp_path):
    """Across file systems: files of several directories are copied once, and again only when they changed."""
    with small_disk(tmp_path / "disk", "100m"):
        dest = tmp_path / "disk/dest"
        export(store, dest, "primary", "optimizer", tar=True)
        first = {path: path.stat().st_ino for path in dest.rglob("*-*.parquet")}
        assert len(set(first.values())) < len(first)
        assert not export(store, dest, "primary", "optimizer", tar=True).changed
        export(store, dest, "primary", tar=True, where=["size=4096"])
        again = {path: path.stat().st_ino for path in dest.rglob("*-*.parquet")}
        assert again.items() <= first.items()
        export(store, tmp_path / "clean", "primary", "optimizer", tar=True)
        export(store, tmp_path / "clean", "primary", tar=True, where=["size=4096"])
        assert contents(dest) == contents(tmp_path / "clean")


# --- again -------------------------------------------------------------------------------------------------------


def counted_hashes(monkeypatch):
    hashed = []

    def count(location, name):
        hashed.append(name)
        return hash_file(location, name)

    monkeypatch.setattr(publication, "hash_file", count)
    return hashed


def test_what_has_not_changed_is_not_hashed_again(store, tmp_path, monkeypatch):
    hashed = counted_hashes(monkeypatch)
    export(store, tmp_path / "dest", "optimizer", "primary", where=["dataset=mnist"])
    linked = [name for name in hashed if "_runs/" in name]
    assert len(linked) == 2 * 4  # files that both sweeps have, once
    hashed.clear()
    land(store, EXPERIMENTS[0], BUTTER.fixed_ids.id_of(EXPERIMENTS[0]), range(5), epochs=4)
    run_summaries(plan_summaries(store), store)
    report = export(store, tmp_path / "dest", "optimizer", "primary", where=["dataset=mnist"])
    assert report.changed
    assert [name for name in hashed if "_runs/" in name] == [name for name in hashed if name.endswith("-3-4.parquet")]
    manifest = read_manifest(Location(tmp_path / "dest"))
    actual = contents(tmp_path / "dest")
    del actual["manifest.json"]
    assert {file.path: file.sha256 for file in manifest.files} == actual


def test_the_same_again_touches_nothing(store, tmp_path):
    export(store, tmp_path / "dest", "primary", tar=True)
    before = {path: path.stat().st_ino for path in (tmp_path / "dest").rglob("*")}
    assert not export(store, tmp_path / "dest", "primary", tar=True).changed
    assert {path: path.stat().st_ino for path in (tmp_path / "dest").rglob("*")} == before


def test_damage_is_mended(store, tmp_path):
    export(store, tmp_path / "dest", "primary", tar=True)
    before = contents(tmp_path / "dest")
    next((tmp_path / "dest").rglob("*-*.parquet")).unlink()
    (tmp_path / "dest/primary_sweep_runs/extra.parquet").write_text("x")
    assert export(store, tmp_path / "dest", "primary", tar=True).changed
    assert contents(tmp_path / "dest") == before


def test_exports_into_one_place_add_up(store, tmp_path):
    export(store, tmp_path / "a", "primary", tar=True)
    export(store, tmp_path / "a", "batch_size", tar=True)
    export(store, tmp_path / "b", "batch_size", "primary", tar=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    export(store, tmp_path / "a", "batch_size")  # takes its archive away, and no other
    assert sorted(path.name for path in (tmp_path / "a").glob("*.tar")) == ["primary_sweep_summary.tar"]


def test_files_are_read_only(store, tmp_path):
    export(store, tmp_path / "dest", "primary", tar=True)
    files = [path for path in (tmp_path / "dest").rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o222 for path in files)
    land(store, EXPERIMENTS[0], BUTTER.fixed_ids.id_of(EXPERIMENTS[0]), range(4), epochs=4)
    run_summaries(plan_summaries(Store.open(store.location.root)), store)  # a store is still one


def test_two_at_once_are_refused(store, tmp_path):
    with FileLock(tmp_path / "dest/.unfinished/lock"):
        with pytest.raises(LandingError, match="still locked by"):
            export(store, tmp_path / "dest", "primary")


def test_things_in_the_way_are_left_alone(store, tmp_path):
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest/README.md").write_text("mine")
    with pytest.raises(StoreError, match=r"README.md: is in the way, and no export made it; move it away"):
        export(store, tmp_path / "dest", "primary")
    assert (tmp_path / "dest/README.md").read_text() == "mine"


def test_studies_do_not_share_a_place(store, tmp_path):
    fits = make_store_of_fits(tmp_path / "fits")
    for first, second, message in (
        (store, fits, "holds an export of another study; export to another folder"),
        (fits, store, "holds an export of the study 'fits'; export to another folder"),
    ):
        dest = tmp_path / f"of {Path(first.location.root).name}"
        export(first, dest, summary=False)
        before = contents(dest)
        with pytest.raises(StoreError, match=message):
            export(second, dest, summary=False)
        assert contents(dest) == before
        export(first, dest)
