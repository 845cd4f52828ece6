"""Waiting for a real queue is seen from the first moment: on the driver's screen, in `status`, and by `--follow`."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_clusters import change_site, wait_until
from tests.test_docs import HOW_TO, blocks

pytestmark = [pytest.mark.slurm, pytest.mark.long, pytest.mark.timeout(1800)]

#: Seconds that anything may take on a slow machine before it counts as stuck.
PATIENCE = 600
BUTTER_ETL = [sys.executable, "-m", "butter_etl"]
SPEC = """
name: quick
repetitions: 4
cubes:
  - {dataset: [breast_cancer], size: [128, 256], depth: [2, 3], batch_size: [16], epochs: [30]}
"""


class Command:
    """A command that runs, and what it has printed so far."""

    def __init__(self, folder, name, *arguments):
        self.out = folder / f"{name}.txt"
        with self.out.open("w") as out:
            command = [*BUTTER_ETL, *map(str, arguments)]
            self.process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)

    @property
    def lines(self):
        return self.out.read_text().splitlines()

    def wait_for(self, pattern):
        """The first line that begins so, once there is one."""

        def found():
            assert self.process.poll() is None, self.lines
            return [line for line in self.lines if re.match(pattern, line)]

        wait_until(found, PATIENCE)
        return found()[0]


@pytest.fixture
def start(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SPEC)
    with contextlib.ExitStack() as commands:

        def begin(name, *arguments):
            command = Command(tmp_path, name, *arguments)
            commands.callback(command.process.wait)
            commands.callback(command.process.kill)
            return command

        yield begin


def status(folder):
    done = subprocess.run(
        [*BUTTER_ETL, "status", "store"], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stdout.splitlines()


def queue_of(folder):
    """What the driver's heartbeat has of its queue."""
    done = subprocess.run(
        [*BUTTER_ETL, "status", "store", "--json"], cwd=folder, capture_output=True, timeout=PATIENCE, check=True
    )
    (driver,) = json.loads(done.stdout)["running"]
    return driver["queue"]


def without_numbers(line):
    """A line without what differs from one machine, and one second, to another."""
    line = re.sub(r"^starting for [^:]*: [^:]*, process \d+", "starting for TIME: HOST, process N", line)
    return re.sub(r"jobs? [\d, ]+:", "jobs N:", line)


def promised(mark):
    """The lines of a transcript of the how-to, by command."""
    (block,) = (block for block in blocks(HOW_TO) if block.language == "text" and block.mark == mark)
    found = {}
    for line in block.text.splitlines():
        if line.startswith("$ "):
            lines = found.setdefault(line.removeprefix("$ butter-etl ").split()[0], [])
        else:
            lines.append(without_numbers(line))
    return found


@pytest.mark.usefixtures("hears_signals")
def test_a_job_that_can_never_start_is_named_as_promised(slurm: Path, tmp_path: Path, start) -> None:
    site = change_site(slurm, tmp_path, cores=99)
    words = promised("waiting")
    driver = start("driver", "train", "store", "--spec", "sweep.yaml", "--cluster", site, "--engine", "torch")
    assert driver.wait_for("asking the queue") == "asking the queue for 2 jobs"
    driver.wait_for(r"jobs? [\d, ]+: PENDING \(PartitionConfig\)")
    assert [line for line in map(without_numbers, driver.lines) if line in words["train"]] == words["train"]
    wait_until(lambda: len({job["hint"] for job in queue_of(tmp_path)["waiting"]}) == 1, PATIENCE)
    shown = list(map(without_numbers, status(tmp_path)))
    assert [line for line in shown if line in words["status"]] == words["status"]
    follow = start("follow", "status", "store", "--follow")
    follow.wait_for(r" +jobs? [\d, ]+: PENDING \(PartitionConfig\)")
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(PATIENCE) == 130
    assert follow.process.wait(PATIENCE) == 0
    assert not [line for line in status(tmp_path) if "PENDING" in line]


def test_a_partition_that_is_down_and_one_that_is_busy(slurm: Path, tmp_path: Path, start) -> None:
    """The same driver waits for the one, then for the other, and is followed to its end."""

    def sets(state):
        subprocess.run(["scontrol", "update", "partitionname=normal", f"state={state}"], check=True, timeout=300)

    blocker = ["sbatch", "--exclusive", "--nodes=3", "--time=5", "--output=/dev/null", "--wrap=sleep 280"]
    submitted = subprocess.run(blocker, check=True, timeout=300, capture_output=True, text=True)
    sets("DOWN")
    driver = start("driver", "train", "store", "--spec", "sweep.yaml", "--cluster", slurm, "--engine", "torch")
    down = driver.wait_for(r"jobs? [\d, ]+: PENDING \(PartitionDown\)")
    assert "does not start as things are: its partition is down" in down
    follow = start("follow", "status", "store", "--follow")
    follow.wait_for(r" +jobs? [\d, ]+: PENDING \(PartitionDown\)")
    sets("UP")
    driver.wait_for(r"job \d+: PENDING \(Resources\), start \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")
    subprocess.run(["scancel", submitted.stdout.split()[-1]], check=True, timeout=300)
    assert driver.process.wait(PATIENCE) == 0
    assert follow.process.wait(PATIENCE) == 0
    assert "16 runs landed" in driver.lines[-1]
    assert f"{'store'}: 16 runs of 4 experiments" in follow.lines
