"""Comparisons of two versions: that they find what differs, and that a version is compared at all."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import differences, regression, versions
from benchmarks.checkouts import WORKING_TREE, RevisionError, Said, Version

OTHER_NAN = struct.unpack("<f", struct.pack("<I", 0x7FC00001))[0]


@pytest.fixture
def pair(tmp_path):
    """Two equal folders of a Parquet file and a text."""
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        (folder / "runs").mkdir(parents=True)
        write(folder)
        (folder / "text").write_text("as ever")
    return folders


def write(folder, losses=((1.0, float("nan")), (0.0,)), seconds=1.0, name="loss", **options):
    columns = {name: pa.array([list(one) for one in losses], pa.list_(pa.float32())), "seconds": [seconds] * 2}
    pq.write_table(pa.table(columns), folder / "runs" / "1.parquet", **options)


def difference(folders):
    return differences.folders(*folders, rows=("runs/*",), columns=("seconds",))


def test_nothing_differs(pair):
    write(pair[1], seconds=2.0)
    assert difference(pair) is None
    assert differences.folders(*pair).startswith("runs/1.parquet: byte ")
    assert differences.folders(*pair, but=("runs/*",)) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"losses": ((1.0, float("nan")), (-0.0,))}, "loss of row 1, entry of row 0: 0.0 and -0.0"),
        ({"losses": ((1.0, OTHER_NAN), (0.0,))}, "loss of row 0, entry of row 1: nan and nan"),
        ({"losses": ((1.0,), (float("nan"), 0.0))}, "loss of row 0: [1.0, nan] and [1.0]"),
        ({"name": "val_loss"}, "another schema"),
        ({"compression": "zstd"}, "other Parquet settings: "),
    ],
)
def test_rows_that_differ(pair, changes, expected):
    write(pair[1], **changes)
    assert difference(pair).startswith(f"runs/1.parquet: {expected}")


def test_files_that_differ(pair):
    (pair[1] / "text").write_text("as never")
    assert difference(pair) == "text: byte 3 (of 7 and 8)"
    (pair[1] / "text").unlink()
    assert difference(pair) == "text: only in old"
    assert differences.texts("a\nb\n", "a\nc\n") == "line 2: 'b' and 'c'"
    assert differences.texts("a\n", "a\nc\n") == "line 2: nothing and 'c'"


def test_times_in_names_are_no_difference(pair):
    for folder, time in zip(pair, ("20260101T000000", "20260101T000001"), strict=True):
        (folder / "quarantine" / time / "dropped").mkdir(parents=True)
        (folder / "quarantine" / time / "dropped" / "it").touch()
    assert difference(pair) is None


def test_a_version_runs_from_its_own_folder(tmp_path):
    """Whatever is installed: a package that only its checkout has."""
    package = tmp_path / "checkout" / "butter_etl"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; print('hello'); sys.exit('broken')")
    version = Version("old", tmp_path / "checkout", tmp_path)
    assert version.check(tmp_path) == package / "__init__.py"
    with pytest.raises(RevisionError, match="old: butter-etl status it: exit code 1: broken"):
        version.butter(tmp_path, "status", "it")
    with pytest.raises(RevisionError, match="the package is not that of"):
        Version("new", tmp_path, tmp_path).check(tmp_path)
    assert list(tmp_path.glob("*.log")) == []


def test_an_unknown_revision_is_refused(capsys):
    assert versions.main(["no-such-revision"]) == 2
    assert regression.main(["no-such-revision"]) == 2
    assert (
        "no-such-revision"
        not in subprocess.run(
            ["git", "-C", WORKING_TREE, "worktree", "list"], capture_output=True, text=True, check=False
        ).stdout
    )
    assert capsys.readouterr().err.count("\n") == 2


def test_ratios_of_turns(tmp_path, monkeypatch):
    order = []

    def run(version, command, folder):
        order.append(version.name)
        return Said(0, json.dumps([{"cpu_seconds": 1.0 if version.name == "old" else 1.1}]), "", 5.0)

    monkeypatch.setattr(Version, "run", run)
    both = [Version(name, tmp_path, tmp_path) for name in ("old", "new")]
    slower, same = regression.measure(both, ["scheduling", "startup"], 3, tmp_path, lambda line: None)
    assert slower.ratios == pytest.approx([1.1] * 3)
    assert slower.is_slower
    assert slower.line().endswith("SLOWER")
    assert (same.old, same.new, same.is_slower) == ([5.0] * 3, [5.0] * 3, False)
    assert order[4:] == ["old", "new"] * 2 + ["new", "old"] * 2 + ["old", "new"] * 2


@pytest.fixture
def commit_of_all(tmp_path):
    """A commit, on no branch, of all files of the working tree as they are."""
    if not (WORKING_TREE / ".git").exists():
        pytest.skip("not in a git checkout")
    environment = os.environ | {"GIT_INDEX_FILE": str(tmp_path / "index")}

    def git(*arguments):
        command = ["git", "-C", WORKING_TREE, "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    git("add", "--all")
    return git("commit-tree", git("write-tree"), "-p", "HEAD", "-m", "All files of a working tree")


@pytest.mark.long
def test_the_working_tree_is_like_itself(commit_of_all):
    command = [sys.executable, "-m", "benchmarks.versions", commit_of_all, "--only", "words", "side_by_side"]
    done = subprocess.run(command, cwd=WORKING_TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok       side by side: each run is trained once" in done.stdout.splitlines()
