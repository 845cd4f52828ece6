"""The driver: its share of the work, what it tries again, and when it gives up."""

import os
import subprocess
import threading
from collections import Counter
from pathlib import Path

import duckdb
import msgspec
import pytest

from butter_etl.campaign import driver
from butter_etl.campaign.checkpoints import Checkpoints
from butter_etl.campaign.claims import Claims, bucket_of
from butter_etl.campaign.cutting import Wanted
from butter_etl.campaign.driver import TrainReport
from butter_etl.campaign.share import Share
from butter_etl.campaign.stacks import Item, Stack
from butter_etl.errors import CampaignError
from butter_etl.store.store import Store
from butter_etl.studies.butter.datasets import cached_dataset
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import claim_ids, open_campaign, plan_campaign, run_training
from tests.strategies import POLLEN, land
from tests.test_checkpoints import stop

SPEC = """
name: tiny
repetitions: 3
cubes:
  - dataset: [breast_cancer, diabetes]
    size: [128, 256]
    depth: [2, 3]
    learning_rate: [0.01]
    batch_size: [64]
    epochs: [3]
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return Choice(specs=(str(path),))


def landed(store):
    """How often each (experiment, repetition) is there, by DuckDB from the files themselves."""
    query = f"select experiment_id, repetition from read_parquet('{store}/all_runs/**/*.parquet')"
    return Counter(duckdb.sql(query).fetchall())


def wanted(experiment_id, spec=POLLEN, repetitions=(0, 1)):
    return Wanted(spec, experiment_id, "primary", repetitions, 1.0, 1e4)


# --- shares ------------------------------------------------------------------------------------------------------


def test_a_share_claims_as_it_goes_and_gives_back_what_is_done(tmp_path):
    store = Store.create(tmp_path / "store")
    with Claims(store.state) as ours, Claims(store.state) as theirs:
        share = Share([wanted(1), wanted(2)], ours, store, 0.5, "cpu")
        task_items = [item for task in share.tasks() for item in task.items]
        assert sorted((item.experiment_id, item.repetitions) for item in task_items) == [
            (1, (0,)),
            (1, (1,)),
            (2, (0,)),
            (2, (1,)),
        ]
        assert not share.is_waiting
        assert not theirs.take(bucket_of(1))
        share.done(1, 1)
        assert not theirs.take(bucket_of(1))
        share.done(1, 1)
        assert theirs.take(bucket_of(1))
        assert not theirs.take(bucket_of(2))


def test_a_share_begins_with_what_takes_long_and_ends_with_short_tasks(tmp_path):
    store = Store.create(tmp_path / "store")
    costs = {number: 64.0 / 2**number for number in range(8)}
    some = [
        msgspec.structs.replace(wanted(number, repetitions=(0,)), core_seconds=cost) for number, cost in costs.items()
    ]
    with Claims(store.state) as claims:
        share = Share(reversed(some), claims, store, 64.0, "cpu", workers=2)
        found = [[item.experiment_id for item in task.items] for task in share.tasks()]
    assert found[0] == [0]
    assert [number for one in found for number in one] == list(costs)


def test_a_share_comes_back_to_what_others_have(tmp_path):
    store = Store.create(tmp_path / "store")
    with Claims(store.state) as ours, Claims(store.state) as theirs:
        assert theirs.take(bucket_of(0))
        share = Share([wanted(0, repetitions=(0, 1, 2)), wanted(2)], ours, store, 60.0, "cpu")
        assert [item.experiment_id for task in share.tasks() for item in task.items] == [2]
        assert share.is_waiting
        land(store, POLLEN, 0, [0, 2])
        theirs.release(bucket_of(0))
        items = [item for task in share.tasks() for item in task.items]
        assert [(item.experiment_id, item.repetitions) for item in items] == [(0, (1,))]
        assert share.present == 2
        assert not share.is_waiting


def test_what_was_taken_over_is_waited_for(tmp_path):
    store = Store.create(tmp_path / "store")
    item = Item(POLLEN, 0, "primary", (0, 1))
    with Claims(store.state) as ours, Claims(store.state) as theirs:
        share = Share([wanted(0), wanted(2)], ours, store, 60.0, "cpu")
        assert len(list(share.tasks())) == 1
        (store.state / "claims" / f"{bucket_of(0)}.json").unlink()
        assert theirs.take(bucket_of(0))
        assert share.again([item]) == []
        assert share.is_waiting
        still_ours = Item(POLLEN, 2, "primary", (1,))
        assert [task.items for task in share.again([still_ours])] == [(still_ours,)]


def test_own_runs_of_what_was_taken_over_are_counted_once(tmp_path):
    store = Store.create(tmp_path / "store")
    with Claims(store.state) as ours, Claims(store.state) as theirs:
        share = Share([wanted(0, repetitions=(0, 1, 2))], ours, store, 60.0, "cpu")
        (task,) = share.tasks()
        (item,) = task.items
        cost = share.run_cost(item)
        land(store, POLLEN, 0, [0])
        share.done(0, 1)
        (store.state / "claims" / f"{bucket_of(0)}.json").unlink()
        assert theirs.take(bucket_of(0))
        assert share.again([item]) == []
        assert share.dearest_run() == cost
        land(store, POLLEN, 0, [1])
        theirs.release(bucket_of(0))
        assert [one.repetitions for task in share.tasks() for one in task.items] == [(2,)]
        assert (share.present, share.cost_done, share.cost) == (1, 2 * cost, 3 * cost)
        share.done(0, 1)
        assert (share.present, share.cost_done, share.dearest_run()) == (1, 3 * cost, 0.0)


# --- campaigns ---------------------------------------------------------------------------------------------------


def test_two_drivers_train_each_run_once(tmp_path, tiny, client):
    store = tmp_path / "store"
    open_campaign(plan_campaign(store, tiny), tmp_path)
    reports: list[TrainReport] = []

    def drive():
        campaign = plan_campaign(store, tiny)
        opened, settings = open_campaign(campaign, tmp_path)
        reports.append(run_training(campaign, opened, settings, client))

    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.landed for report in reports) == 24
    assert [report.failed for report in reports] == [0, 0]
    assert set(landed(store).values()) == {1}
    assert len(landed(store)) == 24


def test_checkpoints_of_what_has_landed_are_removed(tmp_path, tiny, client):
    """One of a stack that nobody trains any more, since another engine was chosen; that of missing runs is kept."""
    campaign = plan_campaign(tmp_path / "store", tiny)
    opened, settings = open_campaign(campaign, tmp_path)
    first = claim_ids(campaign.plan, campaign.registry, opened)[0]
    checkpoints, kept = Checkpoints(opened.state, BUTTER), []
    for repetitions in ((0, 1), (2, 3)):
        stack = Stack((Item(first.spec, first.experiment_id, first.batch, repetitions),), "torch", "cpu")
        checkpoints.write(stop(cached_dataset(first.spec.dataset, tmp_path), stack, epochs=1))
        kept.append(stack)
    assert settings.engine == "fused"
    report = run_training(campaign, opened, settings, client)
    assert report.landed == 24
    assert checkpoints.stacks() == kept[1:]


def test_a_campaign_in_which_everything_fails_is_stopped(tmp_path, tiny, client, monkeypatch):
    monkeypatch.setattr(driver, "_FAILURES_IN_A_ROW", 6)
    campaign = plan_campaign(tmp_path / "store", tiny)
    store, settings = open_campaign(campaign, tmp_path)
    Path(store.location.path("all_runs/dataset=diabetes")).write_text("a file where a folder should be")
    Path(store.location.path("all_runs/dataset=breast_cancer")).write_text("a file where a folder should be")
    with pytest.raises(CampaignError, match=r"^stopped: \d+ tasks in a row failed, .*landing in") as caught:
        run_training(campaign, store, settings, client)
    assert "\n" not in str(caught.value)
    assert list((store.state / "claims").glob("*.json")) == []


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many kilobytes of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(kilobytes):
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
        return disk

    yield mount
    subprocess.run(["umount", "-l", disk], check=False, capture_output=True)


def fill(disk, kilobytes_left):
    """A file that leaves so much space on a disk."""
    filler, space = disk / "filler", os.statvfs(disk)
    filler.write_bytes(bytes(max(0, space.f_bavail * space.f_frsize - kilobytes_left * 1024)))
    return filler


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@needs_root
def test_a_full_disk_stops_a_campaign_and_more_space_lets_it_go_on(tmp_path, tiny, client, small_disk):
    disk = small_disk(2048)
    campaign = plan_campaign(disk / "store", tiny)
    store, settings = open_campaign(campaign, tmp_path)
    filler = fill(disk, 200)
    with pytest.raises(CampaignError, match=r"^stopped: .*No space left.*make space, then"):
        run_training(campaign, store, settings, client)
    assert store.failures(store.repetitions()) == []
    filler.unlink()
    again = plan_campaign(disk / "store", tiny)
    report = run_training(again, store, settings, client)
    assert report.failed == 0
    assert set(landed(disk / "store").values()) == {1}
    assert len(landed(disk / "store")) == 24


@needs_root
@pytest.mark.long
def test_a_disk_that_fills_while_saving_loses_nothing(tmp_path, client, small_disk):
    """There is space to land, not to save: what landed stays, and the rest is trained once there is space."""
    disk = small_disk(24 * 1024)
    spec = tmp_path / "saved.yaml"
    spec.write_text(
        "name: saved\nrepetitions: 3\ncubes:\n"
        "  - {dataset: [diabetes], size: [128], depth: [2, 3], epochs: [1]}\n"
        "  - {dataset: [breast_cancer], size: [131072], depth: [2, 3], epochs: [3]}\n"
    )
    choice = Choice(specs=(str(spec),))
    open_campaign(plan_campaign(disk / "store", choice), tmp_path)
    small = Choice(specs=(str(spec),), where=("size=128",))
    campaign = plan_campaign(disk / "store", small)
    store, settings = open_campaign(campaign, tmp_path)
    assert run_training(campaign, store, settings, client).landed == 6
    kept = {path: path.stat().st_mtime_ns for path in (disk / "store").glob("all_runs/**/*.parquet")}
    campaign = plan_campaign(disk / "store", choice, engine="torch")
    store, settings = open_campaign(campaign, tmp_path, checkpoint_seconds=1e-6)
    filler = fill(disk, 1024)
    stopped = r"^stopped: .*\.checkpoint: cannot be written \(.*No space left.*\); make space, then start"
    with pytest.raises(CampaignError, match=stopped) as caught:
        run_training(campaign, store, settings, client)
    assert "\n" not in str(caught.value)
    assert store.failures(store.repetitions()) == []
    assert list((store.state / "claims").glob("*.json")) == []
    filler.unlink()
    report = run_training(plan_campaign(disk / "store", choice, engine="torch"), store, settings, client)
    assert (report.landed, report.failed) == (6, 0)
    assert set(landed(disk / "store").values()) == {1}
    assert len(landed(disk / "store")) == 12
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert list((store.state / "checkpoints").iterdir()) == []


@needs_root
def test_a_driver_without_space_for_its_claims_says_so(tmp_path, tiny, client, small_disk):
    disk = small_disk(1024)
    campaign = plan_campaign(disk / "store", tiny)
    store, settings = open_campaign(campaign, tmp_path)
    campaign.registry.claim(store, {one.spec: one.batch for one in campaign.plan.wanted})
    fill(disk, 0)
    with pytest.raises(CampaignError, match=r"^stopped: .*No space left.*make space, then"):
        run_training(campaign, store, settings, client)


def test_an_experiment_that_kills_its_workers_is_recorded(tmp_path, tiny, client, monkeypatch):
    """What was begun too often is not begun again, and the record says where it died."""
    from butter_etl.campaign.attempts import MOST_ATTEMPTS, attempts_at, begin_attempt

    campaign = plan_campaign(tmp_path / "store", tiny)
    store, settings = open_campaign(campaign, tmp_path)
    campaign.registry.claim(store, {one.spec: one.batch for one in campaign.plan.wanted})
    victim = campaign.registry.experiment_id(campaign.plan.wanted[0].spec)
    for _ in range(MOST_ATTEMPTS):
        begin_attempt(store.state, victim, (0, 1, 2))
    report = run_training(campaign, store, settings, client)
    assert (report.landed, report.failed) == (21, 3)
    (failure,) = report.failures
    assert failure.experiment_id == victim
    assert "were begun 3 times and ended without a word" in failure.error
    assert failure.host
    assert list(attempts_at(store.state, victim, (0, 1, 2))) == []
    assert run_training(plan_campaign(tmp_path / "store", tiny), store, settings, client).landed == 3
