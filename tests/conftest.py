"""What several test modules share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.swift import Swift

# Several processes test at once: threads of libraries that spin for each other would take the cores from them.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

# Compiling on first use and busy machines make single examples slow; pytest-timeout guards the tests.
settings.register_profile("butter_etl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("butter_etl")

#: A folder in the layout of PMLB's cache, with real files; tests that need one which is not there are skipped.
PMLB = Path(os.environ.get("BUTTER_ETL_TEST_PMLB") or Path(__file__).parents[2] / "shared" / "pmlb")

CLUSTER = Path(__file__).parents[1] / "cluster"
_SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


#: Files whose tests stay in one process where several run the tests, by a name for each lot: they share what is dear to
#: make, or mostly wait for a queue. (Groups by mark, of `--dist=loadgroup`, xdist 3.8 loses under pytest 9.2.)
_TOGETHER = {
    "test_campaigns.py": "queue",
    "test_probing.py": "queue",
    "test_own_campaigns.py": "own campaigns",
    "test_page.py": "browser",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Tests go to whichever process is free, one by one but for those that stay together, which come first."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _TOGETHER.get(nodeid.partition("::")[0].rpartition("/")[2], nodeid)

    return Scheduler(config, log)


@pytest.fixture(scope="session")
def pmlb_dir() -> Path:
    """The folder of PMLB files; skips the test if there is none."""
    if not PMLB.is_dir():
        pytest.skip(f"no PMLB folder at {PMLB}; name one by BUTTER_ETL_TEST_PMLB")
    return PMLB


@pytest.fixture(scope="session")
def shared_client():
    """A function that gives `client`, whose cluster starts when it is first asked for."""
    from butter_etl.clusters.start import start_cluster

    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(start_cluster(workers=2)))


@pytest.fixture(scope="session")
def client(shared_client):
    """A client of a real cluster of two worker processes on this machine, encrypted as always."""
    return shared_client()


@pytest.fixture
def run(capsys, monkeypatch, shared_client):
    """Run the command in this process: (exit code, standard output, standard error).

    Where it would start a cluster on this machine, which takes seconds, it is given `client`'s, which is one.
    """
    from butter_etl import clusters
    from butter_etl.cli.group import main

    start = clusters.start_cluster

    def start_or_share(file=None, **options):
        return nullcontext(shared_client()) if file is None else start(file, **options)

    monkeypatch.setattr(clusters, "start_cluster", start_or_share)

    def invoke(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return invoke


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Children hear interrupts, though the tests may run in the background of a shell that has them ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The site file of a real, throw-away Slurm, which runs during the test; squeue and the like see it.

    Mark tests that use it with ``pytest.mark.slurm``. They are skipped where no Slurm can be started.
    """
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name, path=_SYSTEM_PATH) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (packages slurm-wlm, slurm-client, munge)")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm")
    script = CLUSTER / "test-slurm.sh"
    # Its jobs' sockets lie there: beyond about a hundred characters no job starts, and each is queued again for ever.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        home = Path(folder)
        subprocess.run([script, "start", home], check=True, timeout=240)
        monkeypatch.setenv("SLURM_CONF", str(home / "slurm.conf"))
        monkeypatch.setenv("SLURM_TEST_DIR", str(home))
        yield CLUSTER / "slurm-test.yaml"
        subprocess.run([script, "stop", home], check=True, timeout=240)


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    """A real OpenStack Swift, which runs during the session and has an S3 interface.

    Mark tests that use it with ``pytest.mark.long``. They are skipped where no Swift can be started.
    """
    from tests.swift import PACKAGES, Swift, missing_programs

    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not installed (packages {PACKAGES})")
    with Swift() as server:
        if not server.has_attributes:
            pytest.skip(f"{server.folder} has no extended attributes, which Swift needs")
        server.start()
        yield server
