"""The example of a study of one's own, by commands: stopped, gone on with, summarised, shown, published; on Slurm."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

import butter_etl as be
from butter_etl.store.frames import to_arrow
from butter_etl.studies.known import load_study
from tests.test_end_to_end import BUTTER_ETL, PATIENCE, finish, landed, wait_for, workers_of

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[1] / "examples"
STUDY = ("--study", "own_study:STUDY", "--study-path", EXAMPLES)
SPEC = """
name: few
study: activations
repetitions: 3
cubes: {activation: [ReLU, Tanh], width: [8, 32], epochs: [EPOCHS]}
"""


@pytest.fixture
def spec(tmp_path):
    """Write a sweep of twelve runs of so many epochs."""

    def write(epochs):
        (tmp_path / "few.yaml").write_text(SPEC.replace("EPOCHS", str(epochs)))
        return tmp_path / "few.yaml"

    return write


def command(name, *arguments):
    return [*BUTTER_ETL, *name.split(), *arguments, *STUDY]


def call(name, *arguments):
    return subprocess.run(command(name, *arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)


def start(*arguments):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command("train", *arguments), text=True, start_new_session=True, **pipes)


def histories(path):
    """The histories of each run of a store, by its id; the study need not be known for that."""
    rows = be.read_runs(path).compute(scheduler="synchronous").to_dict("records")
    return {row["run_id"]: [list(row[name]) for name in ("loss", "val_loss", "val_accuracy")] for row in rows}


def test_it_is_killed_and_goes_on_and_is_published(tmp_path, spec):
    path, file = tmp_path / "store", spec(12)
    planned = call("plan", path, "--spec", file, "--json")
    assert json.loads(planned.stdout)["runs_missing"] == 12, planned.stderr
    first = start(path, "--spec", file, "--workers", "2", "--checkpoint-minutes", "0.002")
    checkpoints = path / "state" / "checkpoints"
    wait_for(lambda: landed(path) and any(checkpoints.glob("*.checkpoint")), first)
    first.send_signal(signal.SIGSTOP)
    for process in (*workers_of(first), first):
        process.kill()
    first.communicate()
    assert 0 < len(landed(path)) < 12
    code, out, err = finish(start(path, "--spec", file, "--workers", "2"))
    assert (code, "runs landed" in out) == (0, True), err
    whole = call("train", tmp_path / "whole", "--spec", file, "--workers", "2", "--quiet")
    assert whole.returncode == 0, whole.stderr
    assert histories(path) == histories(tmp_path / "whole")
    for name, *arguments in (
        ("status", path),
        ("summarize", path),
        ("plot", path, tmp_path / "curves.pdf", "--by", "width", "--where", "activation=ReLU"),
        ("plot", path, tmp_path / "map.png", "--kind", "map"),
        ("report", path, tmp_path / "page.html"),
        ("export", path, tmp_path / "dest", "--all", "--tar"),
        ("verify", path, "--summaries"),
        ("verify", tmp_path / "dest"),
        ("import", tmp_path / "dest" / "all_runs", tmp_path / "back"),
    ):
        done = call(name, *arguments)
        assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), (name, done.stdout, done.stderr)
    assert histories(tmp_path / "back") == histories(path)
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("curves.pdf", "map.png", "page.html"))
    study = load_study("own_study:STUDY", str(EXAMPLES))
    (row, *_) = to_arrow(be.read_summary(path).compute(scheduler="synchronous"), study.summary).to_pylist()
    assert (row["num_runs"], len(row["val_loss_median"])) == (3, 12)
    assert 0.8 < row["val_accuracy_max_value_median"] <= 1


@pytest.mark.slurm
def test_it_trains_on_slurm(tmp_path, spec, slurm):
    path = tmp_path / "store"
    done = call("train", path, "--spec", spec(3), "--cluster", slurm)
    assert done.returncode == 0, done.stderr
    assert "12 runs landed" in done.stdout
    runs = be.read_runs(path, columns=["run_id", "job_id"]).compute(scheduler="synchronous")
    assert len(set(runs["run_id"])) == len(runs) == 12
    assert runs["job_id"].str.isdigit().all()
    done = call("cluster check", slurm)
    assert (done.returncode, "activations was imported there" in done.stdout) == (0, True), done.stdout
