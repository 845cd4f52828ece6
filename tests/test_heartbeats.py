"""Drivers say that they are at work, and the dead are not listed."""

import os
import time

import msgspec

from butter_etl.campaign.heartbeats import Heartbeat, RunningDriver, running_drivers
from butter_etl.campaign.progress import Place, Progress
from butter_etl.clusters.listing import QueuedJob, QueueState
from butter_etl.store.locks import Holder, this_process


def write(folder, name, holder, age=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.encode(RunningDriver(holder, 5, 100)))
    os.utime(path, (time.time() - age,) * 2)


def test_a_driver_is_listed_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("butter_etl.campaign.heartbeats._BEAT_SECONDS", 0.0)
    assert running_drivers(tmp_path) == []
    with Heartbeat(tmp_path, 10) as heartbeat:
        heartbeat.update(Progress(10, landed=4, present=0, failed=1, in_flight=2, waiting=3))
        (driver,) = running_drivers(tmp_path)
        assert (driver.wanted, driver.landed, driver.failed, driver.in_flight, driver.waiting) == (10, 4, 1, 2, 3)
        assert driver.holder.pid == os.getpid()
    assert running_drivers(tmp_path) == []


def test_the_dead_are_passed_over(tmp_path):
    folder = tmp_path / "drivers"
    here = this_process()
    write(folder, "killed", msgspec.structs.replace(here, started="1"))
    write(folder, "elsewhere-fresh", Holder("t", "another machine", 1, "1", "node1"))
    write(folder, "elsewhere-silent", Holder("t", "another machine", 1, "1", "node2"), age=100)
    assert [driver.holder.host for driver in running_drivers(tmp_path)] == ["node1"]


def test_numbers_and_their_time_are_renewed_together(tmp_path, monkeypatch):
    """What the queue says in between changes neither; the time that is left falls from one look to the next."""
    now = 1000.0
    with Heartbeat(tmp_path, 10, clock=lambda: now) as heartbeat:
        now = 1010.0
        heartbeat.tell_queue(QueueState(now, 2, 0, (QueuedJob("7", "PENDING", "Resources"),)))
        (driver,) = running_drivers(tmp_path)
        assert (driver.time, driver.waiting, driver.left, driver.queue.waiting[0].job_id) == (1000.0, 10, None, "7")
        monkeypatch.setattr("butter_etl.campaign.heartbeats._BEAT_SECONDS", 0.0)
        places = (Place("node1", "7", 1, 2, 990, 0.5),)
        now = 1100.0
        heartbeat.update(Progress(10, 4, 0, 0, 2, 4, seconds=80.0, left=60.0, places=places))
        now = 1130.0
        heartbeat.tell_queue(QueueState(now, 2, 2))
        (driver,) = running_drivers(tmp_path)
    assert (driver.time, driver.landed, driver.places) == (1100.0, 4, places)
    assert [driver.left_at(moment) for moment in (1099.0, 1100.0, 1130.0, 1200.0)] == [60.0, 60.0, 30.0, 0.0]


def test_a_driver_that_has_ended_does_not_come_back(tmp_path):
    with Heartbeat(tmp_path, 10) as heartbeat:
        pass
    heartbeat.tell_queue(QueueState(0.0, 2))
    assert running_drivers(tmp_path) == []
