"""What several test modules share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from butter_etl.store.history_chunks import Passed
from tests.mirror import mirror  # noqa: F401 (a fixture)

if TYPE_CHECKING:
    from tests.swift import Swift

# Several processes test at once: threads of libraries that spin for each other would take the cores from them.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

# Tests that move the home, or run another copy of the package, still find what was compiled before.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path("~/.cache/butter_etl/kernels").expanduser()))

# Files here are small: compiled code reads and writes them as it does large ones.
Passed.worth_loading = Passed.worth_compiling = 0

# Compiling on first use and busy machines make single examples slow; pytest-timeout guards the tests.
settings.register_profile("butter_etl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("butter_etl")

#: A folder in the layout of PMLB's cache, with real files; tests that need one which is not there are skipped.
PMLB = Path(os.environ.get("BUTTER_ETL_TEST_PMLB") or Path(__file__).parents[2] / "shared" / "pmlb")

CLUSTER = Path(__file__).parents[1] / "cluster"
_SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


#: Files whose tests stay in one process where several run the tests, by a name for each lot: they share what is dear to
#: make, or mostly wait for a queue. The longest lot stands first. (Groups by mark, of `--dist=loadgroup`, xdist 3.8
#: loses under pytest 9.2.)
_TOGETHER = {
    "test_campaigns.py": "queue",
    "test_probing.py": "queue",
    "test_stopping.py": "queue",
    "test_batched_engine.py": "engines",  # the first to need the kernels: whoever else did would wait for them, too
    "test_fused_engine.py": "engines",
    "test_own_campaigns.py": "own campaigns",
    "test_page.py": "browser",
    "test_twins.py": "twins",
}


_TEMPORARY = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give each run of the tests a folder of its own.

    pytest's own are numbered, and each run removes older ones: what a killed run left there, such as a mounted disk,
    would make it fail.
    """
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.stash[_TEMPORARY] = Path(tempfile.mkdtemp(prefix="butter-etl-tests-"))
        config.option.basetemp = str(config.stash[_TEMPORARY] / "t")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remove that folder where nothing failed that one would look into."""
    if _TEMPORARY in session.config.stash and exitstatus != pytest.ExitCode.TESTS_FAILED:
        shutil.rmtree(session.config.stash[_TEMPORARY], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Tests go to whichever process is free, in their order, one by one but for those that stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _lot(nodeid) or nodeid

    config.option.loadscopereorder = False  # by the number of tests, which says nothing
    return Scheduler(config, log)


def _lot(nodeid: str) -> str | None:
    return _TOGETHER.get(nodeid.partition("::")[0].rpartition("/")[2])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes test, the longest come first: at the end there are short ones to share."""
    if hasattr(config, "workerinput"):
        lots = list(dict.fromkeys(_TOGETHER.values()))
        items.sort(key=lambda item: lots.index(lot) if (lot := _lot(item.nodeid)) else len(lots) + (not _is_long(item)))


def _is_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is not None


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
def hears_signals() -> Iterator[None]:
    """Signals do what they do in a new process, in children too.

    Interrupts and the end of a terminal are ignored in the background of some shells and under nohup; a command that
    was stopped in this process has kept its handlers.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class _Slurm:
    """A real, throw-away Slurm: started when it is first wanted, and anew where a test left it broken."""

    script = CLUSTER / "test-slurm.sh"

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> dict[str, str]:
        """Start it where it is not running; the variables that make commands see it."""
        if self._folder is None:
            # Its jobs' sockets lie there: beyond about a hundred characters no job starts, and each is queued for ever.
            self._folder = tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")
            subprocess.run([self.script, "start", self._folder.name], check=True, timeout=240)
        return {"SLURM_CONF": f"{self._folder.name}/slurm.conf", "SLURM_TEST_DIR": self._folder.name}

    def clear(self) -> None:
        """End what a test left there; stop it all where that does not bring all nodes back."""
        ended = self._says("scancel", f"--user={os.geteuid()}") is not None
        patience = time.monotonic() + 60
        while ended and time.monotonic() < patience:
            if self._says("squeue", "--noheader") == "" and self._says(*_BUSY_NODES) == "":
                return
            time.sleep(0.1)
        self.stop()

    def stop(self) -> None:
        """Stop it, with all its processes."""
        if self._folder is not None:
            subprocess.run([self.script, "stop", self._folder.name], check=True, timeout=240)
            self._folder.cleanup()
            self._folder = None

    def _says(self, *command: str) -> str | None:
        """What one of its commands prints; None if it fails, as where the controller is down."""
        environment = os.environ | self.start()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        return done.stdout.strip() if done.returncode == 0 else None


_BUSY_NODES = ("sinfo", "--noheader", "--Node", "--format=%T", "--states=alloc,mix,comp,down,drain,unk,no_respond")


@pytest.fixture(scope="session")
def shared_slurm() -> Iterator[_Slurm]:
    """The Slurm of this process's tests."""
    slurm = _Slurm()
    yield slurm
    slurm.stop()


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, shared_slurm: _Slurm) -> Iterator[Path]:
    """The site file of a real, throw-away Slurm without jobs; squeue and the like see it.

    Mark tests that use it with ``pytest.mark.slurm``. They are skipped where no Slurm can be started.
    """
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name, path=_SYSTEM_PATH) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (packages slurm-wlm, slurm-client, munge)")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm")
    for name, value in shared_slurm.start().items():
        monkeypatch.setenv(name, value)
    yield CLUSTER / "slurm-test.yaml"
    shared_slurm.clear()


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
