"""What goes on in a store, told from its state folder: who drives, what runs where, what failed."""

import os
import pty
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import msgspec
import pytest

from butter_etl.campaign.activity import Activity, current_activity
from butter_etl.campaign.attempts import begin_attempt
from butter_etl.campaign.claims import Claims, bucket_of
from butter_etl.campaign.heartbeats import Heartbeat, RunningDriver, running_drivers
from butter_etl.cli import status
from butter_etl.clusters.worker import host_facts
from butter_etl.store.failures import Failure
from butter_etl.store.locks import Holder
from butter_etl.store.store import Store
from butter_etl.views import facts
from butter_etl.views.facts import activity_lines, driver_line, failure_lines
from tests.strategies import held_back

SPEC = """
name: followed
repetitions: 4
cubes:
  - {dataset: [breast_cancer], size: [128, 256], depth: [2, 3], batch_size: [16], epochs: [30]}
"""
HOLDER = Holder("t", "machine", 7, "1", "login1")


@pytest.fixture
def job(monkeypatch):
    """This process as one of a job of the queue."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    host_facts.cache_clear()
    yield "4711"
    host_facts.cache_clear()


def test_what_is_begun_under_a_living_claim_runs_and_the_rest_was_left(tmp_path, job):
    begin_attempt(tmp_path, 1, (0, 1, 2))
    left = current_activity(tmp_path)
    assert (left.drivers, left.places, left.left_behind) == ([], [], 3)
    assert list(activity_lines(left)) == ["begun and left: 3 runs, by drivers that are gone; `train` goes on with them"]
    with Heartbeat(tmp_path, 10), Claims(tmp_path) as claims:
        assert claims.take(bucket_of(2))
        begin_attempt(tmp_path, 2, (0, 1))
        begin_attempt(tmp_path, 2, (5, 6))
        now = current_activity(tmp_path)
    (place,) = now.places
    assert (place.host, place.job_id, place.stacks, place.runs) == (socket.gethostname(), job, 2, 4)
    assert now.left_behind == 3
    assert f"training on {place.host}, job 4711: 4 runs in 2 stacks" in list(activity_lines(now))[1]


def test_what_a_driver_found_begun_does_not_run_until_it_begins_it(tmp_path):
    begin_attempt(tmp_path, 2, (0, 1))
    with Heartbeat(tmp_path, 10) as heartbeat, Claims(tmp_path) as claims:
        assert claims.take(bucket_of(2))
        heartbeat._driver = msgspec.structs.replace(heartbeat._driver, started=int(time.time()) + 100)
        heartbeat._write()
        assert current_activity(tmp_path).places == []


def test_rate_and_time_left():
    driver = RunningDriver(HOLDER, 1000, 400, landed=100, failed=2, in_flight=30, present=5, share_done=0.25)
    assert driver_line(driver, 1000 + 600) == (
        "running: login1, process 7: 100 of 400 runs landed, 30 in flight, 5 landed by others, 2 failed, "
        "10 runs a minute, about 30 min left"
    )
    assert driver_line(RunningDriver(HOLDER, 1000, 400), 1000).endswith("0 of 400 runs landed, 0 in flight, 0 failed")


def test_failures_have_their_place_and_last_words():
    failures = [Failure(n, "digits", [0, 1], "worse", "a\nb\nc\nd\n", "node1", n, "4711") for n in range(12)]
    lines = list(failure_lines(failures))
    assert lines[0] == "failed: 2 more, older than these (--json has all)"
    assert lines[1] == "failed: experiment 2 (digits), repetitions 0-1: worse"
    assert lines[2:6] == ["    on node1, job 4711", "    | b", "    | c", "    | d"]


@pytest.mark.long
def test_a_campaign_is_followed_to_its_end(run, tmp_path, monkeypatch):
    """It begins when something has been said of it."""
    monkeypatch.setattr(status, "_REFRESH_SECONDS", 0.1)
    store, spec = tmp_path / "store", tmp_path / "followed.yaml"
    spec.write_text(SPEC)
    held = ExitStack()
    held.enter_context(held_back(store, spec, experiments=4))

    def say_and_begin(driver, now):
        held.close()
        return driver_line(driver, now)

    monkeypatch.setattr(facts, "driver_line", say_and_begin)
    command = [sys.executable, "-m", "butter_etl", "train", store, "--spec", spec, "--workers", "1"]
    with held, subprocess.Popen([*command, "--engine", "torch", "--json"], stdout=subprocess.PIPE) as train:
        while train.poll() is None and not running_drivers(store / "state"):
            time.sleep(0.05)
        code, out, err = run("status", store, "--follow", "--sweep", "followed")
        train.communicate()
    assert (code, err, train.returncode) == (0, "", 0)
    first, *lines = out.splitlines()
    assert first.startswith(f"running: {socket.gethostname()}, process {train.pid}: 0 of 16 runs landed")
    assert f"{store}: 16 runs of 4 experiments" in lines
    assert "selection: 4 experiments, 16 runs there, 0 missing" in lines
    assert run("status", store, "--follow", "--json")[0] == 2


def read_terminal(terminal, until=None):
    """What a terminal shows from now on, up to some words, or to the end of who writes to it."""
    shown = b""
    deadline = time.monotonic() + 300
    while until is None or until not in shown:
        assert time.monotonic() < deadline, shown
        try:
            some = os.read(terminal, 4096)
        except OSError:  # how Linux says that nobody has the other side open any more
            break
        if not some:
            break
        shown += some
    return shown


def test_on_a_terminal_the_picture_is_refreshed_and_wiped_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("butter_etl.campaign.heartbeats._BEAT_SECONDS", 0.0)
    store = Store.create(tmp_path / "store")
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "butter_etl", "status", tmp_path / "store", "--follow"]
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm", "PYTHONWARNINGS": "error"}
    with ExitStack() as stack:
        heartbeat = stack.enter_context(Heartbeat(store.state, 10))
        process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=environment)
        os.close(side)
        assert b"0 of 10 runs landed" in read_terminal(terminal, until=b"0 of 10 runs landed")
        heartbeat.update(landed=3, in_flight=7)
        assert b"3 of 10 runs landed, 7 in flight" in read_terminal(terminal, until=b"7 in flight")
    rest = read_terminal(terminal).decode()
    os.close(terminal)
    assert process.wait() == 0
    assert "\x1b[2K" in rest  # a line that is erased
    assert rest.rpartition("\x1b[2K")[2].count("0 runs of 0 experiments") == 1


def test_nothing_to_follow_ends_at_once(run, tmp_path):
    store = Store.create(tmp_path / "store")
    assert current_activity(store.state) == Activity([], [], 0)
    assert run("status", store, "--follow")[1].splitlines()[0] == f"{store}: 0 runs of 0 experiments"
