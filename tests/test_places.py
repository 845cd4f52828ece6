"""Places that cannot be written, for every command and every output: one line, and nothing is made."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from butter_etl.campaign.claims import Claims
from butter_etl.campaign.heartbeats import Heartbeat
from butter_etl.store.store import Store
from tests.strategies import POLLEN, land

_NOBODY = 65534
#: Of `capabilities(7)`: the version of the call, and the capability that reads and searches in any folder.
_CAPABILITIES_3, _DAC_READ_SEARCH = 0x20080522, 1 << 2
SPEC = """
name: quick
repetitions: 2
cubes:
  - {dataset: [breast_cancer], size: [128], depth: [2], epochs: [2], learning_rate: [0.01]}
"""


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder that every user of the machine can enter, as pytest's own is not.

    It stays until the end: a server of processes that is started from it begins all others there.
    """
    folder = Path(tempfile.mkdtemp(prefix="places-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def good(home: Path) -> Path:
    """What the commands read: a summarised store, and files of a sweep and of a site."""
    from butter_etl.summarize import plan_summaries, run_summaries

    store = Store.create(home / "good" / "store")
    land(store, POLLEN, 0, range(3))
    run_summaries(plan_summaries(store), store)
    land(store, POLLEN, 0, [3])  # so that there is something to summarise
    for folder, mode in (("logs", 0o777), ("tls", 0o700)):
        (home / "good" / folder).mkdir()
        (home / "good" / folder).chmod(mode)
    (home / "good" / "quick.yaml").write_text(SPEC)
    (home / "good" / "pmlb.yaml").write_text(SPEC.replace("breast_cancer", "nursery"))
    return home / "good"


# --- places ------------------------------------------------------------------------------------------------------


def mount(folder: Path, options: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.decode().strip()}")


@contextmanager
def disk(home: Path, source: Path | None, options: str) -> Iterator[Path]:
    """A small disk of its own with a copy of ``source``, if any; then it is full, or mounted anew with ``options``."""
    folder = Path(tempfile.mkdtemp(dir=home, prefix="disk-"))
    mount(folder, "size=1m,mode=755")
    try:
        if source is not None:
            shutil.copytree(source, folder / "store")
        if options:
            subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
        else:
            fill(folder)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):  # until there is no space
        while True:
            file.write(bytes(4096))


@contextmanager
def file_in_the_way(home: Path, source: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=home))
    (folder / "file").write_text("mine")
    yield folder / "file"


@contextmanager
def proc(home: Path, source: Path | None) -> Iterator[Path]:
    yield Path("/proc/nope")


@contextmanager
def full(home: Path, source: Path | None) -> Iterator[Path]:
    with disk(home, source, "") as folder:
        yield folder


@contextmanager
def read_only(home: Path, source: Path | None) -> Iterator[Path]:
    with disk(home, source, "ro") as folder:
        yield folder


def _read_everywhere() -> None:
    """Let this thread, and those that it starts, read whatever root may: Python may lie where others cannot look."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the upper halves
    for call in (libc.capget, libc.capset):
        if call(header, sets):
            raise OSError(ctypes.get_errno(), call.__name__)
        sets[0] = _DAC_READ_SEARCH


@contextmanager
def forbidden(home: Path, source: Path | None) -> Iterator[Path]:
    """A folder of another user's: within the block, this process is a user who may only read it."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    folder = Path(tempfile.mkdtemp(dir=home))
    folder.chmod(0o755)
    if source is not None:
        shutil.copytree(source, folder / "store")
    os.seteuid(_NOBODY)
    try:
        _read_everywhere()
        yield folder
    finally:
        os.seteuid(0)


@contextmanager
def long_name(home: Path, source: Path | None) -> Iterator[Path]:
    yield Path(tempfile.mkdtemp(dir=home)) / ("x" * 300)


@contextmanager
def broken_link(home: Path, source: Path | None) -> Iterator[Path]:
    link = Path(tempfile.mkdtemp(dir=home)) / "link"
    link.symlink_to("gone")
    yield link


PLACES = {
    "a file in the way": file_in_the_way,
    "proc": proc,
    "full": full,
    "read-only": read_only,
    "forbidden": forbidden,
    "long name": long_name,
    "broken link": broken_link,
}
#: Places that hold a store.
HOLDING = {name: PLACES[name] for name in ("full", "read-only", "forbidden")}


# --- commands ----------------------------------------------------------------------------------------------------

#: Each output of each command; PLACE cannot be written, GOOD is a folder of what is right.
OUTPUTS = {
    "train": "train PLACE/new --spec GOOD/quick.yaml",
    "train --state": "train GOOD/new --spec GOOD/quick.yaml --state PLACE/state",
    "train there --state": "train GOOD/store --spec GOOD/quick.yaml --state PLACE/state",
    "train --data-dir": "train GOOD/new --spec GOOD/pmlb.yaml --data-dir PLACE/data",
    "demo": "demo PLACE/new",
    "import": "import GOOD/store PLACE/new",
    "import --state": "import GOOD/store GOOD/new --state PLACE/state",
    "import there --state": "import GOOD/store/all_runs GOOD/store --state PLACE/state",
    "export": "export GOOD/store PLACE/dest --all --allow-stale --tar",
    "drop --state": "drop GOOD/store --where size=32 --yes --state PLACE/state",
    "plot": "plot GOOD/store PLACE/a.png",
    "report": "report GOOD/store PLACE/a.html",
    "cluster init": "cluster init slurm PLACE/site.yaml",
    "calibrate": "calibrate",
    "logs": "train GOOD/new --spec GOOD/quick.yaml --cluster SITE",
    "shared_tmp": "train GOOD/new --spec GOOD/quick.yaml --cluster SITE",
    "scratch": "train GOOD/new --spec GOOD/quick.yaml --cluster SITE",
    "cluster check": "cluster check SITE",
}
_JOBS = "kind: slurm\ncores: 1\nmemory: 1GB\nwalltime: '00:10:00'\ninterface: lo\n"
#: Site files of which one folder cannot be written.
SITES = {
    "logs": _JOBS + "logs: PLACE/logs\nshared_tmp: GOOD/tls\n",
    "shared_tmp": _JOBS + "logs: GOOD/logs\nshared_tmp: PLACE/tls\n",
    "scratch": "kind: local\nworkers: 1\nscratch: PLACE/scratch\n",
    "cluster check": _JOBS + "logs: PLACE/logs\nshared_tmp: GOOD/tls\n",
}
#: What changes a store that lies in PLACE.
CHANGES = {
    "train": "train PLACE/store --spec GOOD/quick.yaml",
    "import": "import GOOD/store PLACE/store --prefer source",
    "summarize": "summarize PLACE/store",
    "summarize --full": "summarize PLACE/store --full",
    "drop": "drop PLACE/store --where size=32 --yes",
    "drop a part": "drop PLACE/store --where size=32 --repetitions 1 --yes",
    "verify --repair": "verify PLACE/store --repair",
}
#: What only looks.
LOOKS = {
    "status": "status PLACE/store",
    "plan": "plan PLACE/store --spec GOOD/quick.yaml",
    "verify": "verify PLACE/store",
    "status --json": "status PLACE/store --json",
    "report": "report PLACE/store OPEN/page.html",
    "plot": "plot PLACE/store OPEN/picture.png",
    "export": "export PLACE/store OPEN/dest --all --allow-stale --quiet",
}


def some(places: Iterable[str], quick: Iterable[str]) -> list[Any]:
    """The places as parameters of a test; but for the quick ones, they are for the long tests."""
    return [place if place in quick else pytest.param(place, marks=pytest.mark.long) for place in places]


def tree(*folders: Path) -> list[tuple[str, int]]:
    """All files and folders below, and the sizes of the files."""
    paths = [path for folder in folders if folder != Path("/proc") for path in sorted(folder.rglob("*"))]
    return [(str(path), path.lstat().st_size if path.is_file() else 0) for path in paths]


def arguments(command: str, place: Path, good: Path, site: Path) -> list[str]:
    named = command.replace("PLACE", str(place)).replace("GOOD", str(good)).replace("SITE", str(site))
    return named.split(" ")


def assert_one_line(code: int, out: str, err: str) -> None:
    assert (code, out) == (1, ""), err
    (line,) = err.splitlines()
    assert line.startswith("butter-etl: ")
    assert line.endswith("]")


@pytest.fixture(autouse=True)
def quiet(home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched, and what libraries keep, such as lists of fonts, is not where a test looks."""
    monkeypatch.setenv("BUTTER_ETL_PMLB_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(home)


@pytest.mark.parametrize("place", some(PLACES, quick=("a file in the way", "full", "forbidden")))
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_place_that_cannot_be_written(run, home, good, monkeypatch, output, place):
    site = home / "site.yaml"
    site.touch(mode=0o666)
    site.chmod(0o666)
    with PLACES[place](home, None) as folder:
        if output == "calibrate":
            monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        if output in SITES:
            site.write_text(SITES[output].replace("PLACE", str(folder)).replace("GOOD", str(good)))
        before = tree(good, folder.parent)
        result = run(*arguments(OUTPUTS[output], folder, good, site))
        assert_one_line(*result)
        assert tree(good, folder.parent) == before


@pytest.mark.parametrize("place", some(HOLDING, quick=("full", "forbidden")))
@pytest.mark.parametrize("change", CHANGES)
def test_a_store_that_cannot_be_written(run, home, good, change, place):
    with HOLDING[place](home, good / "store") as folder:
        before = tree(folder)
        result = run(*arguments(CHANGES[change], folder, good, home))
        assert_one_line(*result)
        assert tree(folder) == before


@pytest.mark.parametrize("place", some(HOLDING, quick=("forbidden",)))
@pytest.mark.parametrize("look", LOOKS)
def test_a_store_that_may_only_be_read_is_looked_at(run, home, good, look, place):
    dest = Path(tempfile.mkdtemp(dir=home))
    dest.chmod(0o777)
    command = LOOKS[look].replace("OPEN", str(dest))
    # What it says to the owner; and whatever it imports is imported then, which another user may not be able to.
    code, _, err = run(*arguments(command, good, good, home))
    for made in dest.iterdir():
        made.rename(home / f"{made.name}-{place}")
    with HOLDING[place](home, good / "store") as folder:
        before = tree(folder)
        seen, _, told = run(*arguments(command, folder, good, home))
        assert (seen, told) == (code, err)
        assert tree(folder) == before


def test_another_users_training_is_looked_at(run, home, good):
    """A driver's file and claims are fresh by this machine's clock where nothing can be written beside them."""
    with Heartbeat(good / "store" / "state", 7), Claims(good / "store" / "state") as claims:
        claims.take(0)
        with forbidden(home, good / "store") as folder:
            code, out, err = run("status", str(folder / "store"))
    assert (code, err) == (0, "")
    assert "7 runs" in out
