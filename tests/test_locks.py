"""Locks: one holder at a time, across processes; the dead and the slow do not block the living."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from butter_etl.errors import LandingError
from butter_etl.store import locks
from butter_etl.store.locks import FileLock, Holder


def count_up(path, counter, times):
    for _ in range(times):
        with FileLock(path):
            value = int(counter.read_text())
            counter.write_text(str(value + 1))


def test_one_holder_at_a_time(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=count_up, args=(tmp_path / "a.lock", counter, 50)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter.read_text() == "150"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_waits_and_gives_up_naming_the_holder(tmp_path):
    with FileLock(tmp_path / "a.lock") as lock:
        assert lock.is_held()
        with pytest.raises(LandingError, match=f"pid={os.getpid()}"), FileLock(tmp_path / "a.lock", timeout=0.05):
            pass
        assert lock.is_held()
    assert not lock.is_held()


def test_the_lock_of_a_killed_process_is_broken_at_once(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from butter_etl.store.locks import FileLock\n"
        "FileLock(Path(sys.argv[1])).__enter__(); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "a.lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with FileLock(tmp_path / "a.lock", timeout=0):
        pass
    assert list(tmp_path.iterdir()) == []


def foreign_lock(path, age=0.0):
    """A lock of another machine, ``age`` seconds old."""
    path.write_bytes(msgspec.json.encode(Holder("token", "another machine", 1, "1", "node7")))
    then = time.time() - age
    os.utime(path, (then, then))


def test_a_lock_of_another_machine_is_broken_only_when_it_is_old(tmp_path):
    path = tmp_path / "a.lock"
    foreign_lock(path)
    with pytest.raises(LandingError, match="node7"), FileLock(path, timeout=0.05):
        pass
    foreign_lock(path, age=locks.STALE_SECONDS + 1)
    with FileLock(path, timeout=5) as lock:
        assert lock.is_held()


def test_a_holder_that_lost_its_lock_does_not_take_the_new_one_away(tmp_path):
    path = tmp_path / "a.lock"
    with FileLock(path) as lock:
        path.unlink()
        foreign_lock(path)
        assert not lock.is_held()
    assert path.exists()


def test_a_lock_is_renewed_while_long_work_is_done_under_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.04)
    with FileLock(tmp_path / "a.lock") as lock:
        os.utime(lock.path, (0, 0))
        with lock.kept_fresh():
            while lock.path.stat().st_mtime == 0:
                time.sleep(0.01)
        assert lock.is_held()
    assert list(tmp_path.iterdir()) == []
