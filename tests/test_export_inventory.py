"""Damage to an export, with and without a manifest, is found as what it is."""

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.strategies import land


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    home = tmp_path_factory.mktemp("exports")
    store = Store.create(home / "store")
    for experiment_id in (0, 1, 14):
        land(store, BUTTER.fixed_ids.experiment(experiment_id), experiment_id, range(4))
    run_summaries(plan_summaries(store), store)
    options = ExportOptions(tar=True)
    plan = plan_export(store, Registry(store).select(Choice(sweeps=("primary",))), options)
    run_export(plan, store, Location(home / "dest"), options)
    return home / "dest"


@pytest.fixture
def dest(template, tmp_path):
    """An export with a manifest."""
    copied = Path(shutil.copytree(template, tmp_path / "dest"))
    (copied / "README.md").write_text("# A data card\n")
    write_manifest(copied)
    return copied


def write_manifest(dest):
    files = []
    for path in sorted(path for path in dest.rglob("*") if path.is_file() and path.name != "manifest.json"):
        data = path.read_bytes()
        rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None
        name, sha256 = str(path.relative_to(dest)), hashlib.sha256(data).hexdigest()
        files.append({"path": name, "bytes": len(data), "rows": rows, "sha256": sha256})
    (dest / "manifest.json").write_text(json.dumps({"format": 1, "directories": [], "files": files}))


def faults(path):
    found = run_verification(plan_verification(path), threads=2).faults
    return [(one.kind, one.path.rpartition("/")[2]) for one in found]


def run_file(dest, name="0-0-3.parquet"):
    return next((dest / "primary_sweep_runs").rglob(name))


def flip(path, position=500):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.unlink()  # never through a link into the store
    path.write_bytes(data)


def test_a_sound_export(dest):
    report = run_verification(plan_verification(dest))
    assert (report.findings, report.rows) == ((), 15)
    assert faults(dest / "primary_sweep_summary") == []
    (dest / "manifest.json").unlink()
    assert faults(dest) == []


def cut(dest):
    path = run_file(dest)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-10])


def misplace(dest):
    path = run_file(dest)
    path.rename(next((dest / "primary_sweep_runs").rglob("1-0-3.parquet")).with_name(path.name))


def copy_run(dest):
    path = run_file(dest)
    shutil.copy(path, path.with_name("part-00000.parquet"))


def rename(dest):
    run_file(dest).rename(run_file(dest).with_name("0-1-4.parquet"))


def lose_schema(dest):
    path = dest / "primary_sweep_runs" / "_common_metadata"
    path.write_bytes(b"")


DAMAGE = {
    cut: ("torn-file", "0-0-3.parquet"),
    misplace: ("misplaced-file", "0-0-3.parquet"),
    copy_run: ("duplicate-run", "part-00000.parquet"),
    rename: ("wrong-name", "0-1-4.parquet"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_without_a_manifest(dest, damage):
    (dest / "manifest.json").unlink()
    damage(dest)
    assert faults(dest) == [DAMAGE[damage]]


def test_an_altered_file(dest):
    flip(run_file(dest))
    assert faults(dest) == [("altered-file", "0-0-3.parquet")]
    cut(dest)
    assert faults(dest) == [("altered-file", "0-0-3.parquet")]


def test_an_altered_card(dest):
    (dest / "README.md").write_text("# B data card\n")
    assert faults(dest) == [("altered-file", "README.md")]


def test_missing_and_unlisted_files(dest):
    path = run_file(dest)
    shutil.copy(path, dest / "copy.txt")
    path.unlink()
    assert faults(dest) == [("missing-file", "0-0-3.parquet"), ("unlisted-file", "copy.txt")]


def test_a_manifest_that_cannot_be_read(dest):
    (dest / "manifest.json").write_text("[")
    assert faults(dest) == [("wrong-manifest", "manifest.json")]


def test_a_manifest_that_counts_other_rows(dest):
    text = json.loads((dest / "manifest.json").read_text())
    entry = next(one for one in text["files"] if one["path"].endswith("0-0-3.parquet"))
    entry["rows"] = 5
    (dest / "manifest.json").write_text(json.dumps(text))
    assert faults(dest) == [("wrong-manifest", "0-0-3.parquet")]


def test_an_altered_member_of_an_archive(dest):
    archive = dest / "primary_sweep_summary.tar"
    with tarfile.open(archive) as tar:
        place = max(tar.getmembers(), key=lambda member: member.size).offset_data
    flip(archive, place + 100)
    assert faults(dest) == [("altered-file", archive.name)]
    write_manifest(dest)
    assert faults(dest) == [("wrong-archive", archive.name)]


def test_an_archive_that_lacks_a_file_or_is_cut(dest):
    archive = dest / "primary_sweep_summary.tar"
    (dest / "manifest.json").unlink()
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1].offset
    os.truncate(archive, last)
    assert faults(dest) == [("wrong-archive", archive.name)]
    os.truncate(archive, last - 600)
    assert faults(dest) == [("wrong-archive", archive.name)]


def test_the_schema_of_a_directory(dest):
    (dest / "manifest.json").unlink()
    lose_schema(dest)
    assert faults(dest) == [("wrong-metadata", "_common_metadata")]
