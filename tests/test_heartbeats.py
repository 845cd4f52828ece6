"""Drivers say that they are at work, and the dead are not listed."""

import os
import time

import msgspec

from butter_etl.campaign.heartbeats import Heartbeat, RunningDriver, running_drivers
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
        heartbeat.update(landed=4, failed=1, in_flight=2)
        (driver,) = running_drivers(tmp_path)
        assert (driver.wanted, driver.landed, driver.failed, driver.in_flight) == (10, 4, 1, 2)
        assert driver.holder.pid == os.getpid()
    assert running_drivers(tmp_path) == []


def test_the_dead_are_passed_over(tmp_path):
    folder = tmp_path / "drivers"
    here = this_process()
    write(folder, "killed", msgspec.structs.replace(here, started="1"))
    write(folder, "elsewhere-fresh", Holder("t", "another machine", 1, "1", "node1"))
    write(folder, "elsewhere-silent", Holder("t", "another machine", 1, "1", "node2"), age=100)
    assert [driver.holder.host for driver in running_drivers(tmp_path)] == ["node1"]
