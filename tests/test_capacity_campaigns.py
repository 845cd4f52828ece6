"""Searches as campaigns: killed, cancelled and gone on with, each trial lands once, with the bits of a quiet search."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import butter_etl as be
from butter_etl.studies.capacity.columns import HISTORIES
from butter_etl.studies.capacity.training import CapacityTrainer
from tests.test_campaigns import PATIENCE, cancel_a_job, job_ids, kill_a_worker, landed, wait_for_progress
from tests.test_clusters import change_site, wait_until
from tests.test_docs import ROOT, blocks

#: Eight cells; of two, rounds are proposed of what has landed.
SWEEP = """
name: searched
study: rnn_capacity
repetitions: TRIALS
cubes:
  - task_type: [per_cap, mem_thru, arithmetic]
    architecture: [rnn, lstm]
    n_layers: 1
    max_params: 2000
    min_train_steps: STEPS
    max_train_steps: STEPS
    n_points: 5
    batch_size: 16
    eval_size: 40
  - task_type: parens_counting
    architecture: gru
    n_layers: [1, 2]
    max_params: 6000
    unroll_steps: 20
    min_train_steps: STEPS
    max_train_steps: STEPS
    n_points: 5
    batch_size: 16
    eval_size: 40
    search: gp
"""
CELLS = 8
#: What a trial is, whenever and wherever it was trained.
OF_TRIALS = ("run_id", "seed", "command", "hparams", "infeasible", "accuracy", "mutual_information_bits", "end_reason")


@pytest.fixture
def begin():
    """Start the command of a driver; what still runs when the test ends is killed."""
    with contextlib.ExitStack() as drivers:

        def start(store, spec, *options):
            command = [sys.executable, "-m", "butter_etl", "train", store, "--spec", spec, "--study", "rnn_capacity"]
            driver = subprocess.Popen(
                [*command, "--checkpoint-minutes", "0.02", "--batch", "15", "--quiet", *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            drivers.enter_context(driver)
            drivers.callback(driver.kill)
            return driver

        yield start


def assert_done(driver):
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, (out, err)


def sweep_of(folder, trials, steps):
    path = folder / "searched.yaml"
    path.write_text(SWEEP.replace("TRIALS", str(trials)).replace("STEPS", str(steps)))
    return path


def assert_same_trials(ours, theirs, count):
    """Every trial is there once in both, with the same bits."""
    assert len(landed(ours)) == len(landed(theirs)) == count
    frames = [be.read_runs(store).compute().sort_values("run_id").reset_index(drop=True) for store in (ours, theirs)]
    for name in (*OF_TRIALS, *HISTORIES):
        mine, others = (frame[name].map(repr).tolist() for frame in frames)
        assert mine == others, name
    proposals = [
        {path.relative_to(store): path.read_text() for path in Path(store).glob("proposals/*/*.json")}
        for store in (ours, theirs)
    ]
    assert proposals[0] == proposals[1]
    assert proposals[0]


@pytest.mark.long
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(tmp_path, begin, hears_signals):
    spec, trials = sweep_of(tmp_path, 26, 60), 26 * CELLS
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    assert_done(begin(quiet, spec, "--workers", "2"))
    kills = 0
    for patience in (0.0, 3.0):
        driver = begin(disturbed, spec, "--workers", "2")
        begun = time.monotonic()
        while driver.poll() is None and time.monotonic() - begun < PATIENCE:
            there = sum(1 for _ in disturbed.glob("all_runs/**/*.parquet"))
            if (there or any(disturbed.glob("state/checkpoints/*"))) and time.monotonic() - begun > patience:
                os.killpg(driver.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        driver.communicate(timeout=60)
    assert kills
    assert_done(begin(disturbed, spec, "--workers", "2"))
    assert_same_trials(disturbed, quiet, trials)


@pytest.mark.slurm
@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.usefixtures("hears_signals")
def test_a_disturbed_search_on_a_queue_ends_as_a_quiet_one(slurm, tmp_path, begin):
    """400 trials of 8 cells on two workers: a worker killed, jobs cancelled, the driver killed."""
    CapacityTrainer().prepare("compiled")  # on a slow machine, compiling alone takes longer than the jobs here do
    spec, trials = sweep_of(tmp_path, 50, 400), 50 * CELLS
    store = tmp_path / "store"
    site = change_site(slurm, tmp_path, workers=2, death_timeout="300s")
    driver = begin(store, spec, "--cluster", site)
    wait_for_progress(store, driver)
    kill_a_worker("")
    wait_for_progress(store, driver)
    cancel_a_job()
    wait_for_progress(store, driver)
    driver.kill()
    driver.communicate()
    assert len(landed(store)) < trials
    second = begin(store, spec, "--cluster", site)
    wait_for_progress(store, second)
    cancel_a_job()
    assert_done(second)
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=True, timeout=300)
    wait_until(lambda: not job_ids("PD,R,CG"), PATIENCE)
    assert list((store / "state" / "checkpoints").glob("*.checkpoint")) == []
    quiet = tmp_path / "quiet"
    assert_done(begin(quiet, spec, "--workers", "2"))
    assert_same_trials(store, quiet, trials)


@pytest.mark.long
def test_the_documented_way(tmp_path):
    """The commands of the study's page, one after the other, on fewer and shorter trials."""
    page = blocks(ROOT / "docs" / "capacity.md")
    (spec,) = (block.text for block in page if block.language == "yaml" and block.text.startswith("# capacity.yaml"))
    for said, fewer in (("repetitions: 40", "repetitions: 4"), ("20000", "100"), ("50000", "200")):
        assert said in spec
        spec = spec.replace(said, fewer)
    (tmp_path / "capacity.yaml").write_text(spec)
    (shell,) = (block.text for block in page if block.language == "sh" and "capacity.yaml" in block.text)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    settings = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": PATIENCE}
    done = subprocess.run(["bash", "-euc", shell], check=False, **settings)
    assert done.returncode == 0, done.stderr
    (script,) = (
        block.text for block in page if block.language == "python" and 'read_summary("capacity")' in block.text
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, **settings)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 6
    assert (tmp_path / "bits.png").stat().st_size > 1000
    assert len(be.read_runs(tmp_path / "capacity").compute()) == 24
