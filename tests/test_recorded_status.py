"""The status of a whole campaign, recorded every two seconds, says what is so: before, then and afterwards."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from butter_etl.campaign.stacks import Item, Stack, train_stack
from butter_etl.store.store import Store
from butter_etl.studies.butter.datasets import cached_dataset
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import plan_campaign
from butter_etl.views.facts import status_facts

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

#: How long the campaign takes, about, and how long after anything was done first the time left must be right.
CAMPAIGN_SECONDS, KNOWN_SECONDS = 85.0, 50.0
#: What a driver writes is so old at most, and so long may ending take.
SLACK_SECONDS = 8.0
SLOTS = 2
SPEC = """
name: recorded
repetitions: 4
cubes:
  - {dataset: [breast_cancer, digits], size: [256, 1024, 4096], depth: [2, 3, 4], batch_size: [32], epochs: [EPOCHS]}
  - {dataset: [breast_cancer], size: [16384], depth: [3], batch_size: [32], learning_rate: [0.001], epochs: [LONGER]}
"""


def planned(folder, epochs):
    spec = folder / "recorded.yaml"
    spec.write_text(SPEC.replace("EPOCHS", str(epochs)).replace("LONGER", str(3 * epochs)))
    return spec, plan_campaign(folder / "store", Choice(specs=(str(spec),)), engine="fused").plan


def speed(wanted):
    """How much of the estimated cost this machine does in a second, as busy as it is, with all slots."""
    stack = Stack((Item(wanted.spec, 0, "recorded", (0,)),), "fused", "cpu")
    dataset = cached_dataset(wanted.spec.dataset, Path("no-data"))
    train_stack(BUTTER, stack, dataset)  # compiles
    began, done = time.monotonic(), 0
    with ThreadPoolExecutor(SLOTS) as pool:
        while time.monotonic() < began + 10:
            done += len(list(pool.map(lambda _: train_stack(BUTTER, stack, dataset), range(SLOTS))))
    return done * wanted.core_seconds / (time.monotonic() - began)


def test_the_numbers_of_a_whole_campaign(tmp_path):
    _, plan = planned(tmp_path, 100)
    dearest = max(plan.wanted, key=lambda one: one.core_seconds / one.spec.epochs)
    seconds = plan.core_seconds / speed(dearest)
    epochs = max(10, round(100 * CAMPAIGN_SECONDS / seconds))
    while True:
        folder = tmp_path / str(epochs)
        folder.mkdir()
        records, ended, wanted = record_campaign(folder, epochs)
        check_counts(records, wanted)
        known = known_records(records, ended)
        if len(known) > 10:
            break
        epochs *= 2  # the machine was busier when its speed was measured
    check_time_left(known, ended)


def record_campaign(folder, epochs):
    """The status of a campaign every two seconds, when it was done, and how many runs it had."""
    spec, plan = planned(folder, epochs)
    command = [sys.executable, "-m", "butter_etl", "train", folder / "store", "--spec", spec, "--engine", "fused"]
    records, ended = [], None
    with subprocess.Popen([*command, "--workers", str(SLOTS), "--quiet"]) as train:
        while train.poll() is None:
            time.sleep(2)
            store = Store.find(folder / "store")
            facts = status_facts(store, Choice(specs=(str(spec),))) if store else {"running": []}
            now = time.time()
            for driver in facts["running"]:
                records.append((now, driver, facts))
                if driver.landed == plan.missing:
                    ended = ended or now
    assert train.returncode == 0
    return records, ended or time.time(), plan.missing


def check_counts(records, wanted):
    landed = failed = share = 0
    for _, driver, facts in records:
        assert driver.landed + driver.present + driver.failed + driver.in_flight + driver.waiting == wanted
        assert driver.in_flight == sum(place.runs for place in driver.places)
        assert driver.landed <= facts["runs"] == facts["selection"]["runs_there"]
        assert facts["selection"]["runs_there"] + facts["selection"]["runs_missing"] == wanted
        assert (driver.landed >= landed, driver.failed >= failed, driver.share_done >= share) == (True, True, True)
        landed, failed, share = driver.landed, driver.failed, driver.share_done
    assert any(driver.in_flight for _, driver, _ in records)


def known_records(records, ended):
    """How long after work began, and what the driver said, from when the time left must be right."""
    began = min(now for now, driver, _ in records if driver.share_done > 0)
    return [(now, now - began, driver) for now, driver, _ in records if began + KNOWN_SECONDS <= now < ended]


def check_time_left(known, ended):
    wrong = []
    for now, since, driver in known:
        left, took = driver.left_at(now), ended - now
        if left is None or not took / 2 - SLACK_SECONDS <= left <= 2 * took + SLACK_SECONDS:
            wrong.append((round(since), left, round(took)))
        print(f"after {since:.0f} s: {driver.share_done:.0%} done, {left} s left, it took {took:.0f}")
    assert not wrong
