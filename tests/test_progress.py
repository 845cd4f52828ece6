"""How far a campaign is, with a clock that the test holds: numbers that add up and never fall, and the time left."""

import json
import time

import pytest

from butter_etl.campaign import following
from butter_etl.campaign.claims import Claims
from butter_etl.campaign.cutting import Task, Wanted
from butter_etl.campaign.following import Following
from butter_etl.campaign.progress import Pace, TaskProgress
from butter_etl.campaign.share import Share
from butter_etl.campaign.stacks import Item
from butter_etl.campaign.tasks import TaskReport
from butter_etl.clusters.worker import Told, told_progress
from butter_etl.store.store import Store
from butter_etl.studies.butter.sweeps import make_experiment

POLLEN = make_experiment(dataset="529_pollen", size=32, depth=3)


class Clock:
    """A clock that stands until it is set forward."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_time_left_does_not_grow_while_work_goes_on_as_before():
    clock = Clock()
    pace = Pace(clock)
    pace.look(0.0, 4)
    clock.now = 30.0  # importing and compiling: nothing is done, and nothing is known
    pace.look(0.0, 4)
    assert pace.seconds_left(1000.0, 1.0, 4) is None
    lefts = []
    for step in range(1, 100):
        clock.now += 2.0
        work = 10.0 * step
        pace.look(work, 4)
        lefts.append(pace.seconds_left(1000.0 - work, 1.0, 4))
    assert lefts[0] is None  # one look is no pace
    # Four slots do 5 in a second.
    assert lefts[1:] == pytest.approx([(1000.0 - 10.0 * step) / 5 for step in range(2, 100)])


def test_the_pace_is_that_of_a_slot_so_more_workers_shorten_the_rest():
    clock = Clock()
    pace = Pace(clock)
    for work in (1.0, 2.0, 3.0):
        pace.look(work, 1)
        clock.now += 10.0
    assert pace.seconds_left(100.0, 1.0, 1) == pytest.approx(1000.0)
    assert pace.seconds_left(100.0, 1.0, 10) == pytest.approx(100.0)
    # However many there are, one run goes to one slot.
    assert pace.seconds_left(100.0, 50.0, 10) == pytest.approx(500.0)
    assert pace.seconds_left(100.0, 50.0, 0) is None


class Cluster:
    """What the workers of a cluster tell, as the test has it."""

    def __init__(self, monkeypatch, slots=2):
        self.slots, self.tasks = slots, {}
        monkeypatch.setattr(following, "told_progress", lambda _client: Told(self.tasks, self.slots))

    def tell(self, key, **progress):
        self.tasks[key] = {"host": "node1", "job_id": "7", **progress}


@pytest.fixture
def clock(monkeypatch):
    held = Clock()
    monkeypatch.setattr(time, "monotonic", held)
    monkeypatch.setattr(Pace.__init__, "__defaults__", (held,))
    return held


@pytest.fixture
def share(tmp_path):
    """Three experiments of four runs each that take 10 seconds a run, claimed."""
    store = Store.create(tmp_path / "store")
    wanted = [Wanted(POLLEN, number, "mine", (0, 1, 2, 3), 10.0, 1e4) for number in (1, 2, 3)]
    with Claims(store.state) as claims:
        share = Share(wanted, claims, store, 40.0, "cpu")
        yield share, {task.items[0].experiment_id: task for task in share.tasks()}


def numbers(progress):
    found = (progress.landed, progress.present, progress.failed, progress.in_flight, progress.waiting)
    assert sum(found) == progress.wanted
    return found


def test_numbers_add_up_and_none_of_what_is_done_falls(share, clock, monkeypatch):
    share, tasks = share
    cluster = Cluster(monkeypatch)
    followed = Following(None, share, 12)
    running = {"a": tasks[1], "b": tasks[2]}

    def look(**changes):
        clock.now += 10.0
        return followed.progress(running, (), TaskReport(**changes), failed)

    failed = 0
    assert numbers(look()) == (0, 0, 0, 0, 12)
    cluster.tell("a", training=1, share=0.5, since=5)
    assert numbers(first := look()) == (0, 0, 0, 1, 11)
    assert first.share_done == pytest.approx(0.5 / 12)
    cluster.tell("a", done=2, training=2, share=0.25, since=5)
    cluster.tell("b", training=4, share=0.1, since=5)
    assert numbers(second := look()) == (2, 0, 0, 6, 4)
    assert second.share_done == pytest.approx((2 + 0.5 + 0.4) / 12)
    assert [(place.runs, place.stacks) for place in second.places] == [(6, 2)]
    # The worker of both is lost: what was being trained is not any more, what had landed has.
    cluster.tasks.clear()
    assert numbers(third := look()) == (2, 0, 0, 0, 10)
    assert third.share_done == second.share_done
    # The first is done elsewhere, of which two runs were there already; the other one failed for good.
    share.done(1, 4)
    followed.finish("a", 40.0)
    del running["a"]
    assert numbers(look(landed=2, present=2)) == (2, 2, 0, 0, 8)
    share.done(2, 4)
    failed = 4
    followed.finish("b", 40.0)
    del running["b"]
    assert numbers(last := look(landed=2, present=2)) == (2, 2, 4, 0, 4)
    assert last.share_done == pytest.approx(8 / 12)


def test_a_long_run_shows_progress_and_the_time_left_within_it(share, clock, monkeypatch):
    share, tasks = share
    cluster = Cluster(monkeypatch, slots=1)
    followed = Following(None, share, 12)
    lefts = []
    for step in range(1, 100):
        clock.now += 10.0
        cluster.tell("a", training=1, share=step / 100, since=0)
        progress = followed.progress({"a": tasks[1]}, (), TaskReport(), 0)
        assert progress.share_done == pytest.approx(step / 100 / 12)
        lefts.append(progress.left)
    # A run takes 1,000 seconds, one after the other.
    assert lefts[1:] == pytest.approx([12_000 - 10 * step for step in range(2, 100)], rel=0.01)


def test_what_came_from_checkpoints_is_no_pace(share, clock, monkeypatch):
    share, tasks = share
    cluster = Cluster(monkeypatch, slots=1)
    followed = Following(None, share, 12)
    for step in range(1, 11):
        clock.now += 10.0
        cluster.tell("a", training=1, share=0.8 + step / 100, since=0, resumed=0.8)
        progress = followed.progress({"a": tasks[1]}, (), TaskReport(), 0)
    assert progress.left == pytest.approx((12 - 0.9) * 1000, rel=0.01)
    # Stopped at the end of its job, and gone on with: the work counts once.
    followed.finish("a", 0.0)
    cluster.tell("b", training=1, share=0.9, since=0, resumed=0.9)
    for step in range(1, 6):
        clock.now += 10.0
        cluster.tell("b", training=1, share=0.9 + step / 100, since=0, resumed=0.9)
        progress = followed.progress({"b": Task((Item(POLLEN, 1, "mine", (0, 1, 2, 3)),))}, (), TaskReport(), 0)
    assert progress.left == pytest.approx((12 - 0.95) * 1000, rel=0.01)


def tell_and_wait(release):
    """A task that tells of itself, and ends when it is told to."""
    from distributed import Event

    from butter_etl.campaign.progress import Teller

    teller = Teller()
    teller.begin(runs=2, points=20, trained=5)
    Event(release).wait(timeout=300)


def test_workers_pass_on_what_their_tasks_tell(client):
    from distributed import Event

    future = client.submit(tell_and_wait, "release", pure=False)
    deadline = time.monotonic() + 300
    while future.key not in (told := told_progress(client)).tasks:
        assert future.status != "error", future.exception()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    Event("release", client=client).set()
    future.result(timeout=300)
    progress = told.tasks[future.key]
    assert (progress["training"], progress["share"], progress["resumed"]) == (2, 0.25, 0.5)
    assert told.slots == 2
    json.dumps(progress)  # of plain types
    assert TaskProgress(**progress).done == 0


def test_workers_are_there_whoever_else_asks_for_them(client):
    """The client looks by itself too, without workers: what it finds then is never taken for theirs."""
    from threading import Event, Thread

    done = Event()

    def look():
        while not done.is_set():
            client.sync(client._update_scheduler_info)

    looking = Thread(target=look)
    looking.start()
    try:
        assert {told_progress(client).slots for _ in range(300)} == {2}
    finally:
        done.set()
        looking.join()
