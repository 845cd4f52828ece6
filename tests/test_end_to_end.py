"""Nothing is lost or made twice: drivers and workers are killed in the middle, two drivers work at once."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import psutil
import pytest

import butter_etl as be
from butter_etl.campaign.claims import current_claims
from butter_etl.campaign.heartbeats import running_drivers
from butter_etl.errors import ButterError
from butter_etl.store.store import Store
from tests.strategies import held_back

SPEC = """
name: longer
repetitions: 6
cubes:
  - dataset: [breast_cancer]
    size: [128, 256, 512, 1024]
    depth: [2, 3]
    learning_rate: [0.01]
    batch_size: [16]
    epochs: [10]
"""
RUNS = 8 * 6
#: Seconds that anything may take on a slow machine before it counts as stuck.
PATIENCE = 500
BUTTER_ETL = [sys.executable, "-m", "butter_etl"]


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "longer.yaml"
    path.write_text(SPEC)
    return path


def start(store, spec, engine="torch", workers=2):
    command = [*BUTTER_ETL, "train", store, "--spec", spec, "--workers", str(workers), "--engine", engine]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def landed(store):
    """How often each (experiment, repetition) is there, by DuckDB from the files themselves."""
    files = list(Path(store).glob("all_runs/**/*.parquet"))
    if not files:
        return Counter()
    query = f"select experiment_id, repetition from read_parquet({[str(file) for file in files]})"
    return Counter(duckdb.sql(query).fetchall())


def wait_for_runs(store, process, some=6):
    """Wait until training is under way: some runs are there, others are not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        if Path(store).exists() and len(list(Path(store).glob("all_runs/**/*.parquet"))) >= some / 6:
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing landed in {PATIENCE} s")


def finish(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def check_complete(store):
    runs = landed(store)
    assert len(runs) == RUNS
    assert set(runs.values()) == {1}
    assert not list(Path(store).rglob("*.turn"))


def workers_of(process):
    """The Dask worker processes of a driver: those that have imported nothing yet are not among them."""

    def is_worker(child):
        with contextlib.suppress(psutil.NoSuchProcess):
            return "spawn_main" in " ".join(child.cmdline())
        return False

    return [child for child in psutil.Process(process.pid).children(recursive=True) if is_worker(child)]


@pytest.mark.parametrize(("engine", "epochs"), [("torch", 10), ("fused", 700)])
@pytest.mark.long
def test_a_killed_driver(tmp_path, spec, engine, epochs):
    spec.write_text(SPEC.replace("epochs: [10]", f"epochs: [{epochs}]"))
    store = tmp_path / "store"
    with held_back(store, spec):
        first = start(store, spec, engine)
        wait_for_runs(store, first)
        first.send_signal(signal.SIGSTOP)
        assert workers_of(first), "the test wants workers that outlive it"
        first.kill()
        first.communicate()
    assert 0 < len(landed(store)) < RUNS
    code, out, err = finish(start(store, spec, engine))
    assert code == 0, err
    assert "runs landed" in out
    check_complete(store)
    code, out, _ = finish(start(store, spec, engine))
    assert (code, out) == (0, "nothing to do: all 48 runs of 8 experiments are there\n")


@pytest.mark.long
def test_a_killed_worker(tmp_path, spec):
    store = tmp_path / "store"
    with held_back(store, spec):
        driver = start(store, spec)
        wait_for_runs(store, driver)
        victim = workers_of(driver)[0]
        victim.send_signal(signal.SIGKILL)
    code, out, err = finish(driver)
    assert code == 0, err
    assert "48 runs landed" in out or "were there" in out
    check_complete(store)


@pytest.mark.usefixtures("hears_signals")
@pytest.mark.long
def test_an_interrupt_stops_cleanly(tmp_path, spec):
    store = tmp_path / "store"
    with held_back(store, spec):
        driver = start(store, spec)
        wait_for_runs(store, driver)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
        code, out, err = finish(driver)
    assert code == 130, (out, err)
    assert "stopped; the same command goes on from here" in err
    assert "Traceback" not in err
    assert max(landed(store).values()) == 1
    assert len(landed(store)) < RUNS
    code, _, err = finish(start(store, spec))
    assert code == 0, err
    check_complete(store)


@pytest.mark.long
def test_two_drivers_at_once(tmp_path, spec):
    store = tmp_path / "store"
    drivers = [start(store, spec), start(store, spec)]
    for driver in drivers:
        code, _, err = finish(driver)
        assert code == 0, err
    check_complete(store)


@pytest.mark.long
def test_a_killed_driver_is_relieved_by_one_that_waits(tmp_path, spec):
    """The first is suspended with claims in its hands, so that the second has to wait; then the first is killed."""
    store = tmp_path / "store"
    claims = store / "state" / "claims"

    def at_work():
        return first.pid in pids(current_claims(store / "state"))

    with held_back(store, spec, experiments=8) as release:
        first = start(store, spec, workers=1)
        is_suspended = False
        while not is_suspended:  # where it is done with what was released before the signal comes, it is given more
            before = len(landed(store))
            release()
            wait_for(lambda before=before: at_work() or len(landed(store)) > before, first)
            first.send_signal(signal.SIGSTOP)
            is_suspended = at_work()
            if not is_suspended:
                first.send_signal(signal.SIGCONT)
    second = start(store, spec, workers=1)
    wait_for(lambda: second.pid in pids(running_drivers(store / "state")), second)
    assert at_work()
    first.kill()
    first.wait()  # its workers end in their own time
    code, out, err = finish(second)
    first.communicate()
    assert code == 0, err
    assert "runs landed" in out
    check_complete(store)
    assert list(claims.glob("*.json")) == []


def pids(things):
    """The processes of drivers, or of those who hold claims."""
    return {thing.holder.pid for thing in things}


def wait_for(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_whole_way_from_python(tmp_path, spec, client):
    store = tmp_path / "store"
    assert be.train(store, spec=spec, repetitions=2, client=client).landed == 16
    runs = be.read_runs(store)
    summary = be.summarize_runs(runs).compute()
    assert sorted(summary["num_runs"]) == [2] * 8
    report = be.partition_runs(runs, tmp_path / "copy")
    assert (report.landed, report.present) == (16, 0)
    assert Store.open(tmp_path / "copy").repetitions() == Store.open(store).repetitions()
    with pytest.raises(ButterError):
        be.read_export(store)


@pytest.mark.slurm
@pytest.mark.long
def test_the_same_command_trains_on_slurm(tmp_path, slurm):
    path = tmp_path / "few.yaml"
    path.write_text(SPEC.replace("repetitions: 6", "repetitions: 2").replace("epochs: [10]", "epochs: [3]"))
    store = tmp_path / "store"
    command = [*BUTTER_ETL, "train", store, "--spec", path, "--cluster", slurm]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "16 runs landed" in done.stdout
    runs = be.read_runs(store, columns=["experiment_id", "repetition", "job_id"]).compute(scheduler="synchronous")
    assert len(runs.drop_duplicates(["experiment_id", "repetition"])) == len(runs) == 16
    assert runs["job_id"].str.isdigit().all()
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert '"landed": 0' in again.stdout
