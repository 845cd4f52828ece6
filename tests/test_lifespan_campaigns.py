"""Campaigns of nn_lifespans: killed and gone on with to the same bits, and all that comes after training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import butter_etl as be
from butter_etl.store import Store

DRAWS = """
name: lives
study: nn_lifespans
repetitions: 1
draws:
  - {dataset: digits, networks: 8, seed: 5, epochs: 6, max_multiplications: 3000000}
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
    for patience in (4, 6):
        process = train(disturbed, spec)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 120:
            checkpoints = list(disturbed.glob("state/checkpoints/*"))
            if checkpoints and time.monotonic() - begun > patience:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        process.communicate(timeout=60)
    assert kills
    assert_done(train(disturbed, spec))
    ours, theirs = rows(disturbed), rows(undisturbed)
    assert len(ours) == len(theirs) == 8
    for name in ours:
        assert ours[name].map(repr).tolist() == theirs[name].map(repr).tolist(), name


@pytest.mark.long
def test_the_whole_way(tmp_path, run, monkeypatch):
    """Planned, trained, summarised, verified, drawn, exported and imported by the commands."""
    monkeypatch.setenv("BUTTER_ETL_STUDY", "nn_lifespans")
    spec, store = tmp_path / "lives.yaml", tmp_path / "store"
    spec.write_text(DRAWS.replace("epochs: 6", "epochs: 1").replace("networks: 8", "networks: 3"))
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
