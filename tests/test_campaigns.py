"""Campaigns on a real Slurm: whatever is killed, cut off or taken away, every run lands once, with the same bits."""

import contextlib
import functools
import getpass
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl import train_tasks
from butter_etl.campaign.checkpoints import Checkpoints
from butter_etl.campaign.stacks import Item, Stack, train_stack
from butter_etl.campaign.vigil import SAFETY_SECONDS
from butter_etl.clusters.sites import load_site
from butter_etl.clusters.start import start_cluster
from butter_etl.clusters.supervisor import Supervisor
from butter_etl.engines.contract import HISTORIES
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.datasets import cached_dataset
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice
from tests.strategies import held_back
from tests.test_clusters import change_site, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.long, pytest.mark.timeout(5400)]

#: Seconds that anything may take on a slow machine before it counts as stuck.
PATIENCE = 1800
BUTTER_ETL = [sys.executable, "-m", "butter_etl"]
SPEC = """
name: disturbed
repetitions: 3
cubes:
  - {dataset: [diabetes], size: [32, 64], depth: [2, 3], batch_size: [64], learning_rate: [0.01], epochs: [200]}
  - {dataset: [breast_cancer], size: [16384], depth: [3], batch_size: [32], learning_rate: [0.001], epochs: [EPOCHS]}
"""


@functools.cache
def compile_kernels():
    """Have compiled kernels at hand: on a slow machine that alone may take longer than the jobs here do."""
    experiment = make_experiment(dataset="diabetes", size=32, depth=2, epochs=1)
    stack = Stack((Item(experiment, 0, "compiled", (0,)),), "fused", "cpu")
    train_stack(BUTTER, stack, cached_dataset(experiment.dataset, Path("no-data")))


@pytest.fixture
def spec(tmp_path):
    compile_kernels()
    path = tmp_path / "disturbed.yaml"
    path.write_text(SPEC.replace("EPOCHS", "18000"))
    return path


@pytest.fixture
def start():
    """Start the command of a driver; what still runs when the test ends is killed."""
    with contextlib.ExitStack() as drivers:

        def begin(store, spec, site, *options):
            command = [*BUTTER_ETL, "train", store, "--spec", spec, "--cluster", site, "--engine", "fused", *options]
            driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            drivers.enter_context(driver)
            drivers.callback(driver.kill)
            return driver

        yield begin


def landed(store):
    """The run files' rows, by (experiment, repetition), read by DuckDB: each must be there once."""
    files = sorted(map(str, Path(store).glob("all_runs/**/*.parquet")))
    rows = duckdb.sql(f"select experiment_id, repetition from read_parquet({files})").fetchall() if files else []
    assert len(rows) == len(set(rows))
    return set(rows)


def check_against_undisturbed(store, spec):
    """Every run is there once, with the bits that training it here, without anything in between, gives."""
    opened = Store.open(store)
    campaign = train_tasks.plan_campaign(store, Choice(specs=(str(spec),)))
    assert campaign.plan.missing == 0
    assert len(landed(store)) == campaign.plan.there

    def compare(file):
        table = pq.ParquetFile(opened.location.path(f"all_runs/{file.path}")).read()
        experiment = campaign.registry.experiment(file.experiment_id)
        item = Item(experiment, file.experiment_id, "disturbed", tuple(file.repetitions))
        (alone,) = train_stack(
            BUTTER, Stack((item,), "fused", "cpu"), cached_dataset(experiment.dataset, Path("no-data"))
        )
        for name in HISTORIES:
            assert table[name].equals(alone[name]), (file.path, name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compare, opened.run_files()))


def job_ids(state="R"):
    command = ["squeue", "--noheader", f"--states={state}", "--format=%A"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout.split()


def a_worker(spared=""):
    """A process of this Slurm's jobs that trains, once there is one; not its nanny, and not of the spared job."""

    def workers():
        for process in psutil.process_iter(["cmdline"]):
            try:
                environment = process.environ() if "spawn_main" in " ".join(process.info["cmdline"] or []) else {}
            except psutil.NoSuchProcess:
                continue
            if environment.get("SLURM_CONF") != os.environ["SLURM_CONF"]:
                continue
            # A job that is being cancelled has processes for a while that nobody need disturb.
            job_id = environment.get("SLURM_JOB_ID", spared)
            if job_id != spared and job_id in job_ids():
                yield process, job_id

    found = []
    wait_until(lambda: found.extend(workers()) or found, PATIENCE)
    return random.choice(found)


def there(store):
    """When each checkpoint and each file of runs was written."""
    found = {}
    for path in [*store.glob("state/checkpoints/*.checkpoint"), *store.glob("all_runs/**/*.parquet")]:
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found


def wait_for_progress(store, driver):
    """Return when something has been landed, or kept in a checkpoint, since the call; the driver must be at work."""
    before = there(store)
    wait_until(lambda: driver.poll() is not None or there(store).items() - before.items(), PATIENCE)
    assert driver.poll() is None, driver.communicate()


def run_for(*command):
    """The output of a command; None where it failed, as what was to be hit may be gone before it is."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def end_the_walltime():
    """Have the queue end a job for its time, which it does at its next round, within half a minute."""
    hit = []

    def end():
        _, job_id = a_worker()
        if run_for("scontrol", "update", f"jobid={job_id}", "endtime=now") is not None:
            hit.append(job_id)
        return hit

    wait_until(end, PATIENCE)
    return hit[0]


def ended_for_its_time(job_id):
    """Whether the queue's own record of ended jobs says so of this one."""
    record = Path(os.environ["SLURM_TEST_DIR"], "log", "jobcomp.log")
    return re.search(rf"^JobId={job_id} .*JobState=TIMEOUT ", record.read_text(), re.MULTILINE)


def kill_a_worker(spared):
    """As the kernel does when memory runs out: the process is gone, its nanny is not."""

    def kill():
        process, _ = a_worker(spared)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            return True
        return False

    wait_until(kill, PATIENCE)


def cancel_a_job(spared=""):
    wait_until(lambda: run_for("scancel", a_worker(spared)[1]) is not None, PATIENCE)


def lose_a_node():
    lost = []

    def lose():
        node = run_for("squeue", "--noheader", f"--jobs={a_worker()[1]}", "--format=%N")
        if node and run_for("scontrol", "update", f"nodename={node}", "state=down", "reason=test") is not None:
            lost.append(node)
        return lost

    wait_until(lose, PATIENCE)
    return lost[0]


def stop_the_controller():
    home = os.environ["SLURM_TEST_DIR"]

    def command_line(process):
        with contextlib.suppress(psutil.NoSuchProcess):  # one of an earlier Slurm, that has ended
            return " ".join(process.cmdline())
        return ""

    (controller,) = [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] == "slurmctld" and home in command_line(process)
    ]
    controller.terminate()
    gone, _ = psutil.wait_procs([controller], 60)
    assert gone


@pytest.fixture
def asked_in_vain(tmp_path, monkeypatch):
    """How often anybody has asked the queue for its jobs and got no answer."""
    program, record = tmp_path / "bin" / "squeue", tmp_path / "asked-in-vain"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{shutil.which("squeue")} "$@" || {{ echo >>{record}; exit 1; }}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return lambda: record.stat().st_size if record.exists() else 0


def start_the_controller():
    configuration = f"{os.environ['SLURM_TEST_DIR']}/slurm.conf"
    subprocess.run(["/usr/sbin/slurmctld", "-f", configuration], check=True, timeout=300)


def histories(store):
    """The histories of every run, in the order of (experiment, repetition), by Parquet readers of their own."""
    paths = sorted(Path(store).glob("all_runs/**/*.parquet"))
    columns = ["experiment_id", "repetition", *HISTORIES]
    rows = pa.concat_tables([pq.ParquetFile(path).read(columns=columns) for path in paths])
    return rows.sort_by([("experiment_id", "ascending"), ("repetition", "ascending")]).combine_chunks()


#: More than is done while it is disturbed, on whatever machine: the test says when it is enough.
ENDLESS = f"""
name: endless
repetitions: 3
cubes:
  - {{dataset: [diabetes], size: [32, 64], depth: [2, 3], batch_size: [64], learning_rate: [0.01], epochs: [200]}}
  - dataset: [breast_cancer]
    size: [16384]
    depth: [3]
    batch_size: [32]
    learning_rate: [{", ".join(f"{number / 1e6:.6f}" for number in range(1, 2001))}]
    epochs: [EPOCHS]
"""


def begun(store):
    """A selection of all that was begun, and of the small ones: what has landed, has a checkpoint, or an attempt."""
    opened = Store.open(store)
    ids = {experiment_id for experiment_id, _ in landed(store)}
    ids |= {item.experiment_id for stack in Checkpoints(opened.state, BUTTER).stacks() for item in stack.items}
    ids |= {json.loads(path.read_text())["experiment_id"] for path in opened.state.glob("attempts/*/*.json")}
    registry = Registry(opened)
    rates = {0.01, *(registry.experiment(experiment_id).learning_rate for experiment_id in ids)}
    return ["--where", f"learning_rate={','.join(map(repr, sorted(rates)))}"], 3 * (3 + len(rates))


@pytest.mark.usefixtures("hears_signals")
def test_a_disturbed_campaign_ends_as_an_undisturbed_one(slurm, tmp_path, spec, start, asked_in_vain):
    """Jobs cancelled, one out of time, a worker killed, a node down, the controller away, the driver killed.

    There is more work than is ever done: whatever happens, happens while others train. What was begun by then is ended.
    """
    spec.write_text(ENDLESS.replace("EPOCHS", "1500"))
    store = tmp_path / "store"
    site = change_site(slurm, tmp_path, workers=3, death_timeout="300s")
    driver = start(store, spec, site, "--checkpoint-minutes", "0.02")
    wait_for_progress(store, driver)
    # Its end comes while the others are disturbed.
    timed = end_the_walltime()
    kill_a_worker(timed)
    wait_for_progress(store, driver)
    cancel_a_job(timed)
    wait_for_progress(store, driver)
    wait_until(lambda: driver.poll() is not None or ended_for_its_time(timed), PATIENCE)
    wait_for_progress(store, driver)
    node = lose_a_node()
    wait_for_progress(store, driver)
    before = asked_in_vain()
    stop_the_controller()
    wait_until(lambda: driver.poll() is not None or asked_in_vain() > before, PATIENCE)
    start_the_controller()
    cancel_a_job()
    # Refused where the controller, starting anew, has taken the node back by itself.
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False, timeout=300)
    wait_for_progress(store, driver)
    driver.kill()
    driver.communicate()
    second = start(store, spec, site, "--checkpoint-minutes", "0.02")
    for _ in range(3):
        wait_for_progress(store, second)
        cancel_a_job()
    wait_for_progress(store, second)
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 130, (out, err)
    # Workers of the killed driver, too, keep what they were at when they end; some may never have found it.
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=True, timeout=300)
    wait_until(lambda: not job_ids("PD,R,CG"), PATIENCE)
    enough, runs = begun(store)
    third = start(store, spec, site, *enough)
    out, err = third.communicate(timeout=PATIENCE)
    assert third.returncode == 0, (out, err)
    assert list((store / "state" / "checkpoints").glob("*.checkpoint")) == []
    assert list((store / "state" / "claims").glob("*.json")) == []
    assert len(landed(store)) == runs

    campaign = train_tasks.plan_campaign(tmp_path / "quiet", Choice(specs=(str(spec),)))
    opened, _ = train_tasks.open_campaign(campaign, tmp_path)
    train_tasks.claim_ids(campaign.plan, campaign.registry, opened)  # the same, though fewer are trained
    quiet = start(tmp_path / "quiet", spec, change_site(slurm, tmp_path, workers=2), *enough)
    out, err = quiet.communicate(timeout=PATIENCE)
    assert quiet.returncode == 0, (out, err)
    assert landed(store) == landed(tmp_path / "quiet")
    assert histories(store).equals(histories(tmp_path / "quiet"))


LONG = """
name: long
repetitions: 1
cubes:
  - {dataset: [digits], size: [16384], depth: [3], batch_size: [32], epochs: [EPOCHS]}
"""
#: How many jobs the one run of the test below takes at most, but for those that get nowhere: as many as one likes.
JOBS = int(os.environ.get("BUTTER_ETL_TEST_JOBS", "3"))
EPOCHS_A_JOB = 600


def train_in_short_jobs(slurm, folder, store, spec):
    """Train in jobs that end soon. The ids of the jobs, and of those that left a checkpoint for another.

    The queue's own limit is a minute at least: these jobs believe in a shorter one. It is longer after a job that got
    nowhere: on a slow machine it takes one long to begin. Once as many got further as are wanted, a job has its time.
    """
    limit, seconds = folder / "walltime", int(SAFETY_SECONDS) + 12
    limit.write_text(str(seconds))
    site = change_site(slurm, folder, workers=1, prologue=(f"export BUTTER_ETL_JOB_WALLTIME=$(cat {limit})",))
    jobs, got_further, done = [], set(), threading.Event()

    def checkpoints():
        return {path: written for path, written in there(store).items() if path.suffix == ".checkpoint"}

    def watch():
        nonlocal seconds
        before, began = {}, 0.0
        while not done.wait(0.2):
            if jobs and checkpoints().items() - before.items():
                got_further.add(jobs[-1])
            if len(got_further) >= JOBS - 1:
                limit.write_text("600")
            for job in sorted(set(job_ids()) - set(jobs), key=int):
                # One that was cancelled at once, as there was another, says nothing.
                if jobs and jobs[-1] not in got_further and time.monotonic() - began > seconds / 2:
                    seconds += seconds // 2
                    limit.write_text(str(seconds))
                before, began = checkpoints(), time.monotonic()
                jobs.append(job)

    with start_cluster(site) as client, ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            report = train_tasks.train(store, spec=spec, client=client, engine="fused")
        finally:
            done.set()
            watching.result()
    assert (report.landed, report.failed) == (1, 0)
    return jobs, got_further - {jobs[-1]}


def test_a_task_of_many_walltimes_finishes_through_checkpoints(slurm, tmp_path, spec, monkeypatch, capsys):
    """One run that takes several times as long as a job may: each job goes on where the one before stopped."""
    monkeypatch.setattr(Supervisor, "first_pause", 0.5)
    epochs, got_further = EPOCHS_A_JOB * JOBS, set()
    while not got_further:  # a fast machine may be done within one job
        spec.write_text(LONG.replace("EPOCHS", str(epochs)))
        store = tmp_path / str(epochs)
        jobs, got_further = train_in_short_jobs(slurm, tmp_path, store, spec)
        epochs *= 4
    assert len(jobs) > 1
    with capsys.disabled():
        print(f"\na run that ended in job {len(jobs)}, checkpoints by {len(got_further)} before")
    check_against_undisturbed(store, spec)


def test_two_drivers_share_the_work(slurm, tmp_path, spec, start):
    """Each run is trained once, and both end well; so they do when one of them is killed."""
    spec.write_text(SPEC.replace("EPOCHS", "400").replace("repetitions: 3", "repetitions: 4"))
    store = tmp_path / "store"
    site = change_site(slurm, tmp_path, workers=1)
    drivers = [start(store, spec, site, "--json") for _ in range(2)]
    reports = []
    for driver in drivers:
        out, err = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 0, err
        reports.append(json.loads(out))
    runs = 5 * 4
    assert sum(report["landed"] for report in reports) == runs
    assert len(landed(store)) == runs
    assert load_site(site).workers == 1


def test_two_kinds_of_jobs_share_a_campaign(slurm, tmp_path, spec, start):
    """Small networks in jobs of one core, large ones in jobs of two processes: a command for each, on one store."""
    spec.write_text(SPEC.replace("EPOCHS", "20").replace("[200]", "[20]").replace("repetitions: 3", "repetitions: 2"))
    store = tmp_path / "store"
    kinds = {"size<1000": {"cores": 1}, "size>=1000": {"cores": 2, "processes": 2}}
    drivers = []
    for number, (where, shape) in enumerate(kinds.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        drivers.append(start(store, spec, change_site(slurm, folder, workers=1, **shape), "--where", where))
    for driver in drivers:
        out, err = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 0, (out, err)
    files = sorted(map(str, store.glob("all_runs/**/*.parquet")))
    query = f"select size < 1000, job_id, count(*) from read_parquet({files}) group by all"
    rows = duckdb.sql(query).fetchall()
    assert {small: runs for small, _, runs in rows} == {True: 8, False: 2}
    assert len({job for _, job, _ in rows}) == 2


def test_the_driver_as_a_job_submits_itself_again(slurm, tmp_path, spec, monkeypatch):
    """Stopped by the queue's signal before its time is over, it goes on as another job, and summarises at the end."""
    spec.write_text(SPEC.replace("EPOCHS", "300").replace("[200]", "[20]").replace("repetitions: 3", "repetitions: 1"))
    store, script = tmp_path / "store", tmp_path / "campaign.sbatch"
    shipped = (Path(__file__).parents[1] / "cluster" / "campaign.sbatch").read_text()
    script.write_text(shipped.replace("--mem=8G", "--mem=1G").replace("2-00:00:00", "00:10:00"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    command = ["sbatch", "--parsable", script, store, change_site(slurm, tmp_path, workers=1), "--spec", spec]
    with held_back(store, spec):
        submitted = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path)
        first = submitted.stdout.strip()
        wait_until(lambda: list(store.glob("state/attempts/*/*.json")), PATIENCE)
        subprocess.run(["scancel", "--signal=INT", "--batch", first], check=True, timeout=300)
        wait_until(lambda: first not in job_ids(), PATIENCE)
    wait_until((store / "complete_summary/_common_metadata").exists, PATIENCE)
    wait_until(lambda: not job_ids("PD,R,CG"), PATIENCE)
    logs = sorted(tmp_path.glob("butter-etl-driver-*.log"))
    assert len(logs) == 2, [log.read_text() for log in logs]
    assert "stopped; the same command goes on from here" in logs[0].read_text()
    assert len(landed(store)) == 5
