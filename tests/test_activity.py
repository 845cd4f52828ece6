"""What goes on in a store, told from its state folder: who drives, what runs where, what failed."""

import os
import pty
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from butter_etl.campaign.activity import Activity, current_activity
from butter_etl.campaign.attempts import begin_attempt
from butter_etl.campaign.claims import Claims, bucket_of
from butter_etl.campaign.heartbeats import Heartbeat, RunningDriver, running_drivers
from butter_etl.campaign.progress import Progress, TaskProgress, places_of
from butter_etl.cli import status
from butter_etl.clusters.listing import QueuedJob, QueueState
from butter_etl.store.failures import Failure
from butter_etl.store.locks import Holder
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
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


def test_what_is_begun_and_has_no_living_claim_was_left(tmp_path):
    begin_attempt(tmp_path, 1, (0, 1, 2))
    left = current_activity(tmp_path)
    assert (left.drivers, left.left_behind) == ([], 3)
    assert list(activity_lines(BUTTER, left)) == [
        "begun and left: 3 runs, by drivers that are gone; `train` goes on with them"
    ]
    with Heartbeat(tmp_path, 10), Claims(tmp_path) as claims:
        assert claims.take(bucket_of(2))
        begin_attempt(tmp_path, 2, (0, 1))
        now = current_activity(tmp_path)
    assert (len(now.drivers), now.left_behind) == (1, 3)


def test_what_trains_is_told_by_host_and_job():
    tasks = [
        TaskProgress("node1", "4711", done=1, training=3, share=0.5, since=int(time.time()) - 60),
        TaskProgress("node1", "4711", training=1, share=0.1, since=int(time.time())),
        TaskProgress("node1", "4712", done=5),
    ]
    driver = RunningDriver(HOLDER, 1000, 400, places=places_of(tasks))
    _, line = activity_lines(BUTTER, Activity([driver], 0))
    assert line.startswith("training on node1, job 4711: 4 runs in 2 stacks, the oldest for 1 min")
    assert line.endswith(", 40% of their epochs done")


def test_rate_and_time_left():
    driver = RunningDriver(HOLDER, 1000, 400, 1600.0, 100, 5, 2, 30, 263, share_done=0.25, seconds=600.0, left=1800.0)
    assert driver_line(driver, 1600.0 + 60) == (
        "running: login1, process 7: 100 of 400 runs landed, 5 landed by others, 2 failed, 30 in flight, 263 waiting, "
        "10 runs a minute, 25% of the work done, about 29 min left"
    )
    new = RunningDriver(HOLDER, 1000, 400, waiting=400)
    assert driver_line(new, 1007) == (
        "starting for 7 s: login1, process 7: 0 of 400 runs landed, 0 failed, 0 in flight, 400 waiting"
    )


def test_a_driver_that_waits_for_its_queue_says_what_the_queue_says():
    queue = QueueState(time.time(), 2, 0, (QueuedJob("7", "PENDING", "PartitionDown", hint="wait"),))
    _, *lines = activity_lines(BUTTER, Activity([RunningDriver(HOLDER, 1000, 400, waiting=400, queue=queue)], 0))
    assert lines == [
        "    waiting for the queue: 0 of 2 jobs have a worker",
        "    job 7: PENDING (PartitionDown); does not start as things are: wait",
    ]


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
    assert f": {socket.gethostname()}, process {train.pid}: 0 of 16 runs landed" in first
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
        heartbeat.update(Progress(10, 3, 0, 0, 7, 0))
        assert b"3 of 10 runs landed, 0 failed, 7 in flight" in read_terminal(terminal, until=b"7 in flight")
    rest = read_terminal(terminal).decode()
    os.close(terminal)
    assert process.wait() == 0
    assert "\x1b[2K" in rest  # a line that is erased
    assert rest.rpartition("\x1b[2K")[2].count("0 runs of 0 experiments") == 1


def test_nothing_to_follow_ends_at_once(run, tmp_path):
    store = Store.create(tmp_path / "store")
    assert current_activity(store.state) == Activity([], 0)
    assert run("status", store, "--follow")[1].splitlines()[0] == f"{store}: 0 runs of 0 experiments"
