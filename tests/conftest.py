"""What several test modules share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Compiling on first use and busy machines make single examples slow; pytest-timeout guards the tests.
settings.register_profile("butter_etl", deadline=None)
settings.load_profile("butter_etl")

#: A folder in the layout of PMLB's cache, with real files; tests that need one which is not there are skipped.
PMLB = Path(os.environ.get("BUTTER_ETL_TEST_PMLB") or Path(__file__).parents[2] / "shared" / "pmlb")

CLUSTER = Path(__file__).parents[1] / "cluster"
_SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes run the tests, those of queues, which mostly wait, stay one after the other in one."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture(scope="session")
def pmlb_dir() -> Path:
    """The folder of PMLB files; skips the test if there is none."""
    if not PMLB.is_dir():
        pytest.skip(f"no PMLB folder at {PMLB}; name one by BUTTER_ETL_TEST_PMLB")
    return PMLB


@pytest.fixture(scope="session")
def client():
    """A client of a real cluster of two worker processes on this machine, encrypted as always."""
    from butter_etl.clusters.start import start_cluster

    with start_cluster(workers=2) as client:
        yield client


@pytest.fixture
def run(capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""

    from butter_etl.cli.group import main

    def invoke(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return invoke


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The site file of a real, throw-away Slurm, which runs during the test; squeue and the like see it.

    Mark tests that use it with ``pytest.mark.slurm``. They are skipped where no Slurm can be started.
    """
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name, path=_SYSTEM_PATH) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (packages slurm-wlm, slurm-client, munge)")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm")
    home = tmp_path / "slurm"
    script = CLUSTER / "test-slurm.sh"
    subprocess.run([script, "start", home], check=True, timeout=240)
    monkeypatch.setenv("SLURM_CONF", str(home / "slurm.conf"))
    monkeypatch.setenv("SLURM_TEST_DIR", str(home))
    yield CLUSTER / "slurm-test.yaml"
    subprocess.run([script, "stop", home], check=True, timeout=240)
