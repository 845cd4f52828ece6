"""Stores in a bucket of a real OpenStack Swift, by URL alone: all commands, and what servers like it do to them."""

import html
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import butter_etl as be
from butter_etl.cli.group import main
from butter_etl.errors import StorageError
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Selection
from butter_etl.upkeep.drop import plan_drop, run_drop
from tests.strategies import DIGITS, POLLEN, land

pytestmark = pytest.mark.long

SPEC = """
name: tiny
repetitions: 2
cubes:
  - dataset: [wine]
    size: [64, 128]
    depth: [2, 3]
    epochs: [3]
"""
RUNS = 8
#: Experiments of as many partitions, for files enough to be killed between.
SPECS = [make_experiment(dataset="mnist", size=4096, depth=depth) for depth in (2, 3, 4, 5, 6, 7, 8)]
#: What is not the same in two trainings of one run: how long, when, and (after a death, fewer) how many side by side.
VOLATILE = ["core_seconds", "start_time", "update_time", "stack"]
PART = 2**20


@pytest.fixture(autouse=True)
def environment(swift, monkeypatch):
    """Credentials, and nothing else that says where the server is or how to speak to it."""
    swift.give_credentials(monkeypatch)
    return monkeypatch


@pytest.fixture
def bucket(swift, request):
    name = swift.new_bucket(request.node.name)
    yield name
    swift.begin_anew()


@pytest.fixture
def butter_etl(capsys):
    """Run the command in this process, which must succeed: the lines on standard output."""

    def invoke(*words, code=0):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        assert (stop.value.code or 0) == code, captured.err
        return captured.out.splitlines() if code == 0 else captured.err.splitlines()

    return invoke


def killed_in_the_middle(swift, bucket, appears, *words):
    """Start a command and kill it, with all of its processes, when an object of such a name has appeared.

    The server answers nothing from then on, until it is dead: what it was doing is not done. (If it was quicker than
    the look at the bucket, it had ended: nothing that follows is different then.)
    """
    command = [sys.executable, "-m", "butter_etl", *map(str, words), "--quiet"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not any(appears in key for key in swift.keys(bucket)):
            time.sleep(0.2)
        swift.freeze()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        swift.thaw()
    assert process.returncode in (-signal.SIGKILL, 0), errors


def files_of(folder):
    """Every file below a folder and its content, but for state and what was in the middle of being made."""
    paths = {path.relative_to(folder): path for path in Path(folder).rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes() for name, path in paths.items() if name.parts[0] not in ("state", "quarantine")
    }


def objects_of(swift, bucket, prefix):
    every = swift.objects(bucket)
    inside = {key.removeprefix(f"{prefix}/"): data for key, data in every.items() if key.startswith(f"{prefix}/")}
    return {key: data for key, data in inside.items() if not key.startswith("quarantine/")}


def rows_of(place):
    """What was trained, in the order of the runs."""
    rows = be.read_runs(place).compute(scheduler="synchronous").drop(columns=VOLATILE)
    return rows.sort_values("run_id", ignore_index=True)


def test_training_killed_and_begun_again(swift, bucket, butter_etl, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    url, state = swift.url(f"{bucket}/study"), ("--state", tmp_path / "state")
    training = ("--spec", tmp_path / "tiny.yaml", "--engine", "torch", "--workers", 1)
    killed_in_the_middle(swift, bucket, "study/all_runs/dataset", "train", url, *training, *state)
    butter_etl("train", url, *training, *state, "--quiet")
    assert f"{url}: {RUNS} runs of {RUNS // 2} experiments" in butter_etl("status", url, "--sweep", "tiny")
    assert "nothing to do" in butter_etl("train", url, *training, *state, "--quiet")[0]
    butter_etl("train", tmp_path / "trained", *training, "--quiet")
    assert rows_of(url).equals(rows_of(tmp_path / "trained"))


def test_every_command_by_url_alone_killed_and_begun_again(swift, bucket, butter_etl, tmp_path):
    disk, state = tmp_path / "study", ("--state", tmp_path / "state")
    url, out = swift.url(f"{bucket}/study"), swift.url(f"{bucket}/out")
    store = Store.create(disk)
    for spec in SPECS:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(3))
    bring = ("import", disk, url, *state, "--workers", 1)
    killed_in_the_middle(swift, bucket, "study/all_runs/dataset", *bring)
    butter_etl(*bring, "--quiet")
    assert objects_of(swift, bucket, "study") == files_of(disk)
    butter_etl("import", url, tmp_path / "back", "--workers", 1, "--quiet")
    assert files_of(tmp_path / "back") == files_of(disk)

    killed_in_the_middle(swift, bucket, "study/complete_summary/dataset", "summarize", url, *state)
    butter_etl("summarize", url, "--quiet")
    butter_etl("summarize", disk, "--quiet")
    assert objects_of(swift, bucket, "study") == files_of(disk)

    export = ("--all", "--tar")
    killed_in_the_middle(swift, bucket, "out/all_runs/dataset", "export", url, out, *export)
    told = butter_etl("export", url, out, *export, "--quiet")
    assert f"archive: {swift.url(f'{bucket}/out/complete_summary.tar')}" in told
    for source, dest in ((url, tmp_path / "from-bucket"), (disk, tmp_path / "from-disk")):
        butter_etl("export", source, dest, *export, "--quiet")
    assert objects_of(swift, bucket, "out") == files_of(tmp_path / "from-bucket") == files_of(tmp_path / "from-disk")
    for place in (url, out):
        assert "as they should be" in butter_etl("verify", place, "--quiet")[0]
    assert f"{url}: {3 * len(SPECS)} runs of {len(SPECS)} experiments" in butter_etl("status", url)

    butter_etl("plot", url, tmp_path / "curves.svg")
    for place, page in ((url, "a.html"), (disk, "b.html")):
        butter_etl("report", place, tmp_path / page)
    of_url, of_disk = (html.unescape((tmp_path / page).read_text()) for page in ("a.html", "b.html"))
    assert of_url.replace(url, "HERE") == of_disk.replace(str(disk), "HERE")
    for read in (be.read_runs, be.read_summary, be.read_executive_summary):
        ours, theirs = (read(place).compute(scheduler="synchronous") for place in (url, disk))
        assert len(ours)
        assert ours.equals(theirs)
    exported = be.read_export(swift.url(f"{bucket}/out/all_runs")).compute(scheduler="synchronous")
    assert len(exported) == 3 * len(SPECS)

    drop = ("--repetitions", 1, "--yes")
    killed_in_the_middle(swift, bucket, "study/quarantine", "drop", url, *drop, *state)
    told = butter_etl("drop", url, *drop, *state, "--quiet")
    assert told[0].endswith(f"moved to {swift.url(f'{bucket}/study/quarantine')}") or "nothing to do" in told[0]
    butter_etl("drop", disk, *drop, "--quiet")
    for place in (url, disk):
        butter_etl("summarize", place, "--quiet")
    assert objects_of(swift, bucket, "study") == files_of(disk)


# --- what the server lacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 25 * PART], ids=["one", "parts"])
def test_what_the_user_chose_holds_and_is_named(swift, bucket, environment, tmp_path, size):
    place = Location(swift.url(f"{bucket}/x"))
    place.replace("file", bytes(size))
    environment.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    with pytest.raises(StorageError, match="takes no checksums in trailers; unset AWS_REQUEST_CHECKSUM_CALCULATION"):
        Location(place.absolute).replace("file", b"other")
    environment.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    (tmp_path / "config").write_text("[profile mine]\nrequest_checksum_calculation = when_supported\n")
    environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    Location(place.absolute).replace("file", bytes(size))
    environment.setenv("AWS_PROFILE", "mine")
    with pytest.raises(StorageError, match="takes no checksums in trailers"):
        Location(place.absolute).replace("file", b"other")
    assert place.read_bytes("file") == bytes(size)
    assert "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ


def test_another_region_is_named(swift, bucket):
    with pytest.raises(StorageError, match="is in region us-east-1; add region=us-east-1 to the URL"):
        Location(swift.url(f"{bucket}/x", region="elsewhere")).replace("file", b"x")


def write_and_stop(place, data):
    with place.open_output("file") as file:
        file.write(data)
        raise KeyboardInterrupt


def test_parts_and_what_is_left_of_them(swift, bucket):
    place = Location(swift.url(f"{bucket}/x"))
    data = os.urandom(25 * PART)
    place.replace("file", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(place, data)
    assert place.read_bytes("file") == b"old"
    place.replace("file", data)
    place.copy("copy", place, "file")
    assert place.move("file", "moved")
    assert place.read_bytes("copy") == place.read_bytes("moved") == data
    assert dict(place.walk()) == {"copy": len(data), "moved": len(data)}


def test_a_list_of_more_than_a_thousand(swift, bucket):
    place, client = Location(swift.url(f"{bucket}/x")), swift.client()
    names = [f"a={number % 7}/{number}" for number in range(1200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: client.put_object(Bucket=bucket, Key=f"x/{name}", Body=b"1"), names))
    assert sorted(place.walk()) == sorted((name, 1) for name in names)
    assert len(place.names("a=3")) == sum(number % 7 == 3 for number in range(1200))


# --- lists that are behind -----------------------------------------------------------------------------------------


def test_runs_land_once_though_the_list_is_behind(swift, bucket, tmp_path):
    url, state = swift.url(f"{bucket}/study"), tmp_path / "state"
    store = Store.create(url, state)
    swift.let_listings_lag()
    assert land(store, POLLEN, 0, range(3)).landed == 3
    assert Store.open(url).repetitions() == {}, "the list is behind"
    again = Store.open(url, state)
    assert again.repetitions() == {0: 0b111}
    assert land(again, POLLEN, 0, range(5)) == (
        ["/".join([*next(store.run_files()).partition.split("/"), "0-3-4.parquet"])],
        2,
        3,
    )
    registry = Registry(again)
    registry.claim(again, {DIGITS: "mine"})
    assert Registry(Store.open(url, state)).experiment_id(DIGITS) == registry.experiment_id(DIGITS)
    assert run_drop(plan_drop(again, Selection(repetitions=1)), again) == 1
    told = store.repetitions(), [file.path for file in store.run_files()]
    assert told[0] == {0: 0b11110}
    swift.catch_up()
    assert (store.repetitions(), [file.path for file in store.run_files()]) == told
    assert Store.open(url).repetitions() == told[0]


def test_what_another_state_folder_put_is_found_by_its_name(swift, bucket, tmp_path):
    url = swift.url(f"{bucket}/study")
    store = Store.create(url, tmp_path / "state")
    swift.let_listings_lag()
    land(store, POLLEN, 0, range(3))
    assert land(Store.open(url, tmp_path / "other"), POLLEN, 0, range(3))[1:] == (0, 3)


def test_what_is_listed_and_gone_is_named(swift, bucket, tmp_path):
    url = swift.url(f"{bucket}/study")
    store = Store.create(url, tmp_path / "state")
    land(store, POLLEN, 0, range(3))
    swift.let_listings_lag()
    assert run_drop(plan_drop(store, Selection()), store) == 3
    assert store.repetitions() == {}
    behind = Store.open(url)
    (file,) = behind.run_files()
    with pytest.raises(StorageError, match="was listed and is not there"):
        behind.read_runs(file)


# --- a server that goes away ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("leaves", "comes"), [("freeze", "thaw"), ("go_away", "come_back")])
def test_what_was_begun_goes_on_when_the_server_is_back(swift, bucket, tmp_path, leaves, comes):
    store = Store.create(swift.url(f"{bucket}/study"), tmp_path / "state")
    getattr(swift, leaves)()
    landed = []
    thread = threading.Thread(target=lambda: landed.append(land(store, POLLEN, 0, range(3)).landed))
    thread.start()
    thread.join(timeout=4)
    assert thread.is_alive(), "it waits"
    getattr(swift, comes)()
    thread.join(timeout=300)
    assert landed == [3]
    assert store.repetitions() == {0: 0b111}
