"""Campaigns of nn_lifespans: killed and gone on with to the same bits, and all that comes after training."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import butter_etl as be
from butter_etl.errors import DatasetError, SpecError
from butter_etl.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.lifespans.images import load_images
from butter_etl.studies.sweep_files import text_of_one
from butter_etl.studies.user_folders import data_folder
from tests.test_docs import ROOT, blocks

DRAWS = """
name: lives
study: nn_lifespans
repetitions: 1
draws:
  - {dataset: digits, networks: 6, seed: 5, epochs: 5, max_multiplications: 1000000}
"""
#: Columns that tell when, where and how fast a run was trained.
OF_THE_TIME = ("hostname", "start_time", "update_time", "core_seconds", "stack", "job_id", "git_hash")


def train(store, spec, **more):
    command = [sys.executable, "-m", "butter_etl", "train", store, "--spec", spec, "--study", "nn_lifespans"]
    return subprocess.Popen(
        [*command, "--workers", "2", "--checkpoint-minutes", "0.01", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def assert_done(process):
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def rows(store):
    frame = be.read_runs(store).compute().sort_values("run_id").reset_index(drop=True)
    return frame.drop(columns=[name for name in OF_THE_TIME if name in frame])


@pytest.mark.long
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(tmp_path, hears_signals):
    spec = tmp_path / "lives.yaml"
    spec.write_text(DRAWS)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert_done(train(undisturbed, spec))
    kills = 0
    for patience in (0, 6):
        process = train(disturbed, spec)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 120:
            landed = sum(1 for _ in disturbed.glob("all_runs/**/*.parquet"))
            is_begun = any(disturbed.glob("state/checkpoints/*")) or landed
            if is_begun and landed < 6 and time.monotonic() - begun > patience:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        process.communicate(timeout=60)
    assert kills
    assert_done(train(disturbed, spec))
    ours, theirs = rows(disturbed), rows(undisturbed)
    assert len(ours) == len(theirs) == 6
    for name in ours:
        assert ours[name].map(repr).tolist() == theirs[name].map(repr).tolist(), name


def has_fashion():
    """Whether the images of FashionMNIST are at hand, such as from Debian's package."""
    try:
        load_images("FashionMNIST", data_folder(None))
    except DatasetError:
        return False
    return True


@pytest.mark.long
@pytest.mark.skipif(not has_fashion(), reason="FashionMNIST is not at hand: install dataset-fashion-mnist")
def test_the_tutorial(tmp_path):
    """All of the tutorial on FashionMNIST, on fewer networks and images."""
    texts = blocks(ROOT / "docs" / "fashion.md")
    (spec,) = (block.text for block in texts if block.language == "yaml")
    fewer = {"networks: 24": "networks: 4", "epochs: 5": "epochs: 1", "6000": "400", "2000000": "300000"}
    for usual, few in fewer.items():
        assert spec.count(usual) == 1
        spec = spec.replace(usual, few)
    (tmp_path / "fashion.yaml").write_text(spec)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MPLBACKEND": "agg"}
    for text in (block for block in texts if block.language in ("sh", "python")):
        run_id = be.read_runs(tmp_path / "lives").compute()["run_id"].iloc[0] if "RUN_ID" in text.text else ""
        shell = ["bash", "-euc"] if text.language == "sh" else [sys.executable, "-c"]
        command = [*shell, text.text.replace("RUN_ID", run_id)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr
    for picture in ("accuracy.png", "parameters.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    assert len(list((tmp_path / "published" / "FashionMNIST_models").glob("*.txt"))) == 6
    assert sorted(be.read_summary(tmp_path / "lives").compute()["num_runs"]) == [1, 1, 1, 3]
    assert len(be.read_runs(tmp_path / "again").compute()) == 6


@pytest.mark.long
def test_the_documented_way(tmp_path):
    """The commands of the study's page, one after the other, in a shell."""
    texts = blocks(ROOT / "docs" / "lifespans.md")
    (spec,) = (block.text for block in texts if block.language == "yaml" and "name: lives" in block.text)
    (tmp_path / "lives.yaml").write_text(spec)
    shell = [block.text for block in texts if block.language == "sh"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for number, text in enumerate(shell):
        run_id = be.read_runs(tmp_path / "lives").compute()["run_id"].iloc[0] if number else ""
        done = subprocess.run(
            ["bash", "-euc", text.replace("RUN_ID", run_id)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert len(shell) == 2
    assert (tmp_path / "published" / "manifest.json").exists()
    assert len(be.read_runs(tmp_path / "lives").compute()) == 14


@pytest.mark.long
def test_the_whole_way(tmp_path, run, monkeypatch):
    """Planned, trained, summarised, verified, drawn, exported and imported by the commands."""
    monkeypatch.setenv("BUTTER_ETL_STUDY", "nn_lifespans")
    spec, store = tmp_path / "lives.yaml", tmp_path / "store"
    spec.write_text(DRAWS.replace("epochs: 5", "epochs: 1").replace("networks: 6", "networks: 3"))
    for arguments in (
        ("plan", store, "--spec", spec),
        ("train", store, "--spec", spec, "--workers", "1", "--quiet"),
        ("summarize", store, "--quiet"),
        ("status", store),
        ("verify", store, "--quiet"),
        ("plot", store, tmp_path / "curves.png"),
        ("report", store, tmp_path / "page.html"),
        ("export", store, tmp_path / "dest", "--all", "--tar", "--quiet"),
        ("verify", tmp_path / "dest", "--quiet"),
        ("import", tmp_path / "dest" / "all_runs", tmp_path / "again", "--quiet"),
        ("sweeps", "nn_lifespans_2021"),
    ):
        code, out, err = run(*arguments)
        assert code == 0, (arguments, out, err)
    summary = be.read_summary(store).compute()
    assert summary["epoch"].map(list).tolist() == [[0.5, 1.0]] * 3
    assert summary["num_runs"].tolist() == [1, 1, 1]
    assert all(len(one) == 16 for one in summary["network_id"])
    assert Store.open(tmp_path / "again").study.name == "nn_lifespans"
    found = be.read_runs(tmp_path / "again").compute()
    assert sorted(found["run_id"]) == sorted(be.read_runs(store).compute()["run_id"])
    assert Path(tmp_path / "curves.png").stat().st_size > 1000


def test_a_twin_is_chosen_by_a_run_and_by_nothing_else(tmp_path, run):
    store = Store.create(tmp_path / "store", study="nn_lifespans")
    for options, message in (
        (("--like", "no-such-run"), "--like no-such-run: .* has no such run"),
        (("--like", "one", "--sweep", "nn_lifespans_2021"), "leave --sweep, --spec and --where out"),
    ):
        code, out, err = run("plan", store.location.root, *options)
        assert (code, out) == (2, "")
        assert re.search(message, err)
        assert err.count("\n") == 1


def test_sweep_files_that_spell_otherwise_than_runs_are_not_written():
    with pytest.raises(
        SpecError, match=r"study butter: sweep files spell '[\w.]+' otherwise than runs do; write one by"
    ):
        text_of_one(BUTTER.reader, "like", make_experiment(dataset="wine", size=512, depth=3).parameters(), 1)
