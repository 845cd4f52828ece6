"""Dask's settings of the user's own do not hold for our clusters."""

import subprocess
import sys

import dask
import distributed  # noqa: F401 (its defaults are part of the settings)
import pytest

from butter_etl.clusters import nanny
from butter_etl.clusters.dask_settings import apart_from_users
from butter_etl.clusters.start import start_cluster
from butter_etl.errors import ClusterError
from tests.strategies import POLLEN, land

THEIRS = {
    "distributed.worker.lifetime.duration": "1s",
    "distributed.worker.preload": ["my_old_preload"],
    "distributed.nanny.preload": ["my_old_preload"],
    "distributed.comm.default-scheme": "tcp",
    "dataframe.query-planning": False,
    "scheduler-address": "tcp://10.255.255.1:8786",
    "mine": {"own": 1},
}


def test_defaults_hold_in_the_block_and_the_users_after_it(tmp_path):
    with dask.config.set(THEIRS | {"temporary-directory": str(tmp_path)}):
        before = dask.config.merge(dask.config.config)
        with apart_from_users():
            assert dask.config.get("distributed.worker.lifetime.duration") is None
            assert dask.config.get("distributed.worker.preload") == []
            assert dask.config.get("scheduler-address", None) is None
            assert dask.config.get("mine", None) is None
            assert dask.config.get("temporary-directory") == str(tmp_path)
        assert dask.config.config == before


def worker_settings():
    return dask.config.get("distributed.worker.lifetime.duration"), dask.config.get("distributed.nanny.preload")


def test_workers_have_them_too():
    with dask.config.set(THEIRS), start_cluster(workers=1) as client:
        assert client.submit(worker_settings).result(timeout=300) == (None, [nanny.__name__])


def test_a_job_has_the_defaults_whatever_its_environment_says(tmp_path):
    """The program of a job, run as one: files and variables of the user are there."""
    home = tmp_path / ".config" / "dask"
    home.mkdir(parents=True)
    (home / "distributed.yaml").write_text("distributed: {worker: {preload: [my_old_preload]}}\n")
    program = (
        "import dask\nfrom butter_etl.clusters.dask_settings import apart_from_users\n"
        "with apart_from_users():\n"
        "    worker = dask.config.get('distributed.worker')\n"
        "    print(worker['preload'], worker['lifetime']['duration'], dask.config.get('temporary-directory'))"
    )
    environment = {"HOME": str(tmp_path), "DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION": "1s"}
    environment["DASK_TEMPORARY_DIRECTORY"] = "/spill"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[] None /spill\n"


def test_a_folder_to_spill_to_that_cannot_be_made_is_one_line(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("kind: local\nworkers: 1\n")
    with (
        dask.config.set({"temporary-directory": "/proc/nope/scratch"}),
        pytest.raises(ClusterError, match="/proc/nope"),
        start_cluster(site),
    ):
        pass


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n"])
def test_malformed_files_are_one_line(tmp_path, text):
    home = tmp_path / ".config" / "dask"
    home.mkdir(parents=True)
    (home / "mine.yaml").write_text(text)
    program = "from butter_etl.clusters.dask_settings import import_dask\nimport_dask()"
    environment = {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "UsageError: Dask cannot be started with its settings here" in done.stderr.splitlines()[-1]
    assert "mine.yaml" in done.stderr.splitlines()[-1]


def test_frames_do_not_mind_the_planner(tmp_path):
    from butter_etl.store.store import Store

    land(Store.create(tmp_path / "store"), POLLEN, 0, range(3))
    program = (
        "import sys, dask\ndask.config.set({'dataframe.query-planning': False, 'dataframe.convert-string': True})\n"
        "import butter_etl\n"
        "print(len(butter_etl.read_runs(sys.argv[1]).compute(scheduler='sync')))"
    )
    command = [sys.executable, "-c", program, tmp_path / "store"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
