"""Signals end a command, or a script with a cluster, in order: nothing is left, and one line says how to go on."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from butter_etl.clusters.stopping import Stop
from tests.strategies import POLLEN, land
from tests.test_clusters import wait_until

BUTTER_ETL = [sys.executable, "-m", "butter_etl"]
#: Seconds that anything may take on a slow machine before it counts as stuck.
PATIENCE = 1200
SPEC = """
name: waiting
repetitions: 2
cubes:
  - {dataset: [breast_cancer], size: [16384], depth: [3], batch_size: [32], learning_rate: [0.001], epochs: [3000]}
"""


pytestmark = pytest.mark.usefixtures("hears_signals")


# --- without a queue ---------------------------------------------------------------------------------------------

SCRIPT = """
import time
from butter_etl.clusters import start_cluster

def say(word):
    print(word, flush=True)

if __name__ == "__main__":
    with start_cluster(workers=1) as client:
        try:
            say("started")
            client.submit(time.sleep, 600).result()
        finally:
            say("unwound")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_script_is_unwound(tmp_path, number, code):
    program = tmp_path / "program.py"
    program.write_text(SCRIPT)
    command = [sys.executable, program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as script:
        assert script.stdout.readline() == "started\n"
        script.send_signal(number)
        out, err = script.communicate(timeout=PATIENCE)
    assert (script.returncode, out, err) == (code, "unwound\n", "")


def test_a_second_signal_does_not_disturb_the_ending(capfd):
    """What `timeout` and shells send in quick succession, and what people press."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    stop.listen(signal.SIGTERM, signal.SIGHUP)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    finally:
        stop.leave()
    assert (stop.exit_code, stop.words) == (143, "stopped by SIGTERM")
    assert capfd.readouterr().err.count("still stopping") == 1
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_late_signal_interrupts_again():
    stop = Stop()
    stop.listen(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        stop._until = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        stop.leave()


def test_an_ignored_signal_stays_ignored():
    """So a driver that was started by nohup outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    try:
        stop.listen(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop.number is None
    finally:
        stop.leave()
        assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def waiting_command(tmp_path, number, **options):
    """Send a signal to a command that waits for the reader of a named pipe; return its exit code and last words."""
    os.mkfifo(tmp_path / "spec.yaml")
    command = [*BUTTER_ETL, "plan", tmp_path / "store", "--spec", tmp_path / "spec.yaml"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
        with (tmp_path / "spec.yaml").open("w"):  # returns as soon as the command reads
            for _ in range(PATIENCE // 10):
                # One that comes between two instructions, just before the command waits, is noticed after the next.
                process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    _, err = process.communicate(timeout=10)
                    return process.returncode, err.strip()
    raise AssertionError("the command goes on")


@pytest.mark.usefixtures("hears_signals")
@pytest.mark.parametrize(("number", "by"), [("INT", ""), ("TERM", " by SIGTERM"), ("HUP", " by SIGHUP")])
def test_any_command_says_how_to_go_on(tmp_path, number, by):
    number = signal.Signals[f"SIG{number}"]
    assert waiting_command(tmp_path, number) == (128 + number, f"stopped{by}; the same command goes on from here")


# --- on a real Slurm ---------------------------------------------------------------------------------------------


def queue():
    """The states of the jobs that have not ended."""
    command = ["squeue", "--noheader", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.split()


@pytest.fixture
def site(slurm, tmp_path):
    """A function that writes a site file: the throw-away Slurm's, changed."""

    def change(**values):
        lines = [line for line in slurm.read_text().splitlines() if line.partition(":")[0] not in values]
        path = tmp_path / "site.yaml"
        path.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in values.items())]) + "\n")
        return path

    return change


@pytest.fixture
def study(tmp_path):
    """A store with runs that have no summaries yet."""
    from butter_etl.store.store import Store

    land(Store.create(tmp_path / "study"), POLLEN, 0, range(3))
    return tmp_path / "study"


def assert_ended_by(number, command, seen):
    """Start a command, send it a signal once something is seen; check that no job and no key is left."""
    keys = Path(os.environ["SLURM_TEST_DIR"], "tls")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        try:
            wait_until(lambda: seen() or driver.poll() is not None, PATIENCE)
            assert list(keys.glob("*/key.pem")), driver.stderr.read() if driver.poll() else "no key"
            driver.send_signal(number)
            _, err = driver.communicate(timeout=PATIENCE)
        finally:
            driver.kill()
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert err.strip().splitlines()[-1] == f"stopped{by}; the same command goes on from here"
    assert "Traceback" not in err
    assert driver.returncode == 128 + number
    wait_until(lambda: set(queue()) <= {"COMPLETING"}, PATIENCE)
    assert not list(keys.iterdir())


COMMANDS = {
    "train": ("train", "new", "--spec", "waiting.yaml", "--engine", "torch"),
    "check": ("cluster", "check"),
    "summarize": ("summarize", "study"),
    "import": ("import", "study", "new"),
    "verify": ("verify", "study"),
}


@pytest.mark.long
@pytest.mark.slurm
@pytest.mark.usefixtures("study")
def test_whatever_waits_for_jobs_is_ended(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("waiting.yaml").write_text(SPEC)
    held = site(workers=2, job_extra='["--hold"]')
    for name, words in COMMANDS.items():
        cluster = [held] if name == "check" else ["--cluster", held]
        for number in (signal.SIGTERM, signal.SIGHUP) if name in ("train", "check") else (signal.SIGTERM,):
            assert_ended_by(number, [*BUTTER_ETL, *words, *cluster], lambda: "PENDING" in queue())


@pytest.mark.long
@pytest.mark.slurm
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_driver_is_ended_while_some_jobs_run_and_others_wait(site, tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    Path("waiting.yaml").write_text(SPEC)
    # Room for one job of two cores.
    crowded = site(workers=3, cores=2, job_extra='["--nodelist=n1"]')
    command = [*BUTTER_ETL, *COMMANDS["train"], "--cluster", crowded]

    def trains():
        return {"RUNNING", "PENDING"} <= set(queue()) and list(Path("new/state").glob("attempts/**/*.json"))

    assert_ended_by(number, command, trains)


@pytest.mark.long
@pytest.mark.slurm
def test_what_an_outright_death_leaves_is_cleared_by_the_next_driver(site, tmp_path, monkeypatch):
    """As the how-to says: the keys go with the next driver on that machine, the jobs by the queue's own command."""
    monkeypatch.chdir(tmp_path)
    held = site(workers=1, job_extra='["--hold"]')
    keys = Path(os.environ["SLURM_TEST_DIR"], "tls")
    with subprocess.Popen([*BUTTER_ETL, "cluster", "check", held], stderr=subprocess.DEVNULL) as driver:
        wait_until(queue, PATIENCE)
        driver.kill()
    assert (queue(), len(list(keys.iterdir()))) == (["PENDING"], 1)
    subprocess.run(["scancel", "--me", "--name=butter-etl"], check=True, timeout=300)
    wait_until(lambda: not queue(), PATIENCE)
    assert_ended_by(signal.SIGTERM, [*BUTTER_ETL, "cluster", "check", held], lambda: "PENDING" in queue())
