"""The watch over training: checkpoints by the clock, and stopping in time."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from distributed import Client, LocalCluster

from butter_etl.campaign.attempts import attempts_at
from butter_etl.campaign.checkpoints import Checkpoints
from butter_etl.campaign.claims import Claims, bucket_of
from butter_etl.campaign.cutting import Task
from butter_etl.campaign.stacks import Item
from butter_etl.campaign.tasks import Settings, train_and_land
from butter_etl.campaign.vigil import CLAIM_SECONDS, SAFETY_SECONDS, Stopped, Vigil
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.experiments import RunSpec


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def watched(vigil, clock, times, experiment_id=7):
    """At which of some times a checkpoint was taken, and why training stopped."""
    saved = []

    def save(state):
        saved.append(state)
        return 1000

    watch = vigil.over(experiment_id, save)
    for now in times:
        clock.now = now
        try:
            watch(1, lambda now=now: now)
        except Stopped as stop:
            return saved, str(stop)
    return saved, None


def test_checkpoints_are_taken_by_the_clock(tmp_path, clock):
    vigil = Vigil(tmp_path, None, 60.0, clock=clock)
    assert watched(vigil, clock, range(1001, 1200)) == ([1060, 1120, 1180], None)


def test_training_stops_before_the_job_ends(tmp_path, clock):
    vigil = Vigil(tmp_path, None, 1e6, end=1100.0, clock=clock)
    saved, why = watched(vigil, clock, range(1001, 1200))
    assert why == "the job is about to end"
    assert saved == [pytest.approx(1100 - SAFETY_SECONDS - 2, abs=1.5)]


def test_slow_epochs_stop_earlier(tmp_path, clock):
    vigil = Vigil(tmp_path, None, 1e6, end=1200.0, clock=clock)
    saved, _ = watched(vigil, clock, range(1000, 1300, 20))
    assert saved[0] + 20 < 1200 - SAFETY_SECONDS


def test_a_task_begins_only_where_an_epoch_and_a_checkpoint_fit(tmp_path, clock):
    vigil = Vigil(tmp_path, None, 60.0, end=1100.0, clock=clock)
    assert vigil.has_time_for(1.0, 1e6)
    assert not vigil.has_time_for(50.0, 1e6)
    assert not vigil.has_time_for(1.0, 1e10)
    clock.now = 1090.0
    assert not vigil.has_time_for(0.0, 0.0)
    assert Vigil(tmp_path, None, 60.0, clock=clock).has_time_for(1e9, 1e12)


def test_a_task_begins_where_an_epoch_takes_longer_than_the_job(tmp_path, clock):
    """Training of such networks can be stopped about every second."""
    vigil = Vigil(tmp_path, None, 60.0, end=1100.0, clock=clock)
    large = RunSpec(make_experiment(dataset="nursery", size=2**25, depth=3, batch_size=1), 0)
    cost = BUTTER.trainer.estimator("torch", "cpu")(large)
    epoch = cost.seconds / BUTTER.trainer.points(large)
    assert 0 < cost.watch_seconds < epoch / 100
    assert vigil.has_time_for(cost.watch_seconds, 0.0)
    assert not vigil.has_time_for(epoch, 0.0)
    small = RunSpec(make_experiment(dataset="wine", size=32, depth=3), 0)
    cost = BUTTER.trainer.estimator("fused", "cpu")(small)
    assert cost.watch_seconds == pytest.approx(cost.seconds / BUTTER.trainer.points(small))


def test_training_stops_when_the_claim_is_lost(tmp_path, clock):
    with Claims(tmp_path) as claims:
        assert claims.take(bucket_of(7))
        vigil = Vigil(tmp_path, claims.token, 1e6, clock=clock)
        assert watched(vigil, clock, range(1001, 1100)) == ([], None)
        claims.release(bucket_of(7))
        saved, why = watched(vigil, clock, range(1100, 1300))
    assert why == "another driver has taken the experiment over"
    assert saved[0] <= 1100 + CLAIM_SECONDS


@pytest.fixture
def queue_worker(tmp_path):
    """A scheduler, and one worker as jobs of a queue start it: its client and the process of its nanny."""
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False}) as cluster:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        options = [
            "--nthreads",
            "1",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--local-directory",
            tmp_path,
        ]
        process = subprocess.Popen(
            [*command, *options, "--preload", "butter_etl.clusters.worker"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with Client(cluster) as client:
            client.wait_for_workers(1, timeout=300)
            yield client, process
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(300)


def cpu_seconds(pid):
    """What a process and its descendants have taken so far."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in processes)


@pytest.mark.long
def test_a_job_that_is_told_to_end_saves_what_it_is_at(tmp_path, queue_worker):
    """As queues do it: SIGTERM to every process of the job, and some seconds later SIGKILL."""
    client, process = queue_worker
    store = Store.create(tmp_path / "store")
    spec = make_experiment(dataset="wine", shape="rectangle", size=4096, depth=3, learning_rate=0.001, epochs=10**6)
    settings = Settings(
        study=BUTTER, store=store.location.root, state=None, data_dir=str(tmp_path), engine="fused", device="cpu"
    )
    future = client.submit(train_and_land, Task((Item(spec, 2**24, "long", (0,)),)), settings)
    while not list(attempts_at(store.state, 2**24, [0])):
        time.sleep(0.05)
    before = cpu_seconds(process.pid)
    while cpu_seconds(process.pid) < before + 1:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(300)
    del future
    (saved,) = Checkpoints(store.state, BUTTER).stacks()
    assert [item.repetitions for item in saved.items] == [(0,)]
    assert list(attempts_at(store.state, 2**24, [0])) == []
