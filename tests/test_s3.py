"""Stores and exports in buckets, against a real S3 server on HTTP: the same bytes as on a disk, whole or not at all."""

import gc
import os
import re
import subprocess
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import butter_etl as be
from butter_etl.cli.group import main
from butter_etl.engines.contract import HISTORIES
from butter_etl.errors import ButterError, LandingError, StorageError, StoreError
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.exchange.imports import run_import
from butter_etl.exchange.rewriting import write_archive
from butter_etl.partition import run_export
from butter_etl.store.changes import PUT, REMOVED, Changes
from butter_etl.store.copies import adopt_copy, keep, read_copy, read_kept
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.s3 import Service
from butter_etl.store.store import Store
from butter_etl.studies.butter.declarations import Declaration
from butter_etl.studies.butter.kept_tables import TABLES
from butter_etl.studies.butter.own_data import load_content
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice, Selection
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.train_tasks import train
from butter_etl.upkeep.drop import plan_drop, run_drop
from butter_etl.upkeep.repair import run_repair
from butter_etl.upkeep.verify import plan_verification, run_verification
from butter_etl.views.facts import status_facts
from tests.s3_server import REGION, S3Server
from tests.strategies import DIGITS, POLLEN, land

SPEC = """
name: tiny
repetitions: 2
cubes:
  - dataset: [wine]
    size: [64, 128]
    depth: [2]
    epochs: [3]
"""
PART = 2**20
HOW_TO = Path(__file__).parents[1] / "docs/how-to.md"


@pytest.fixture(scope="module")
def server(request):
    """A server in a thread, that counts and refuses; for tests `on_every_server` a real Swift too."""
    if getattr(request, "param", "thread") == "swift":
        yield request.getfixturevalue("swift")
        return
    server = S3Server()
    yield server
    server.close()


on_every_server = pytest.mark.parametrize(
    "server", ["thread", pytest.param("swift", marks=pytest.mark.long)], indirect=True, scope="module"
)


@pytest.fixture(scope="module", autouse=True)
def environment(server):
    """Credentials, and none of the settings of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        server.give_credentials(patch)
        yield patch


@pytest.fixture
def bucket(server, request):
    """A new bucket, without anything that a test has told the server."""
    name = server.new_bucket(request.node.name)
    server.begin_anew()
    yield name
    server.begin_anew()
    assert [key for key in server.keys(name) if key.endswith("/")] == [], "no directory markers, whatever was done"


@pytest.fixture
def location(server, bucket):
    return Location(server.url(f"{bucket}/some/prefix"))


def local_files(folder):
    """Every file below a folder and its content, but for state."""
    paths = {path.relative_to(folder): path for path in Path(folder).rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in paths.items() if name.parts[0] != "state"}


def objects(server, bucket, prefix):
    every = server.objects(bucket)
    return {key.removeprefix(f"{prefix}/"): data for key, data in every.items() if key.startswith(f"{prefix}/")}


def fill(store):
    """Made-up runs of published experiments, of one with odd keys, and of a custom one; and their summaries."""
    noisy = make_experiment(dataset="mnist", size=4096, depth=3, label_noise=0.2)
    for spec in (POLLEN, noisy, make_experiment(dataset="mnist", size=4096, depth=3)):
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(3))
    registry = Registry(store)
    registry.claim(store, {DIGITS: "mine"})
    land(store, DIGITS, registry.experiment_id(DIGITS), range(2), batch="mine")
    run_summaries(plan_summaries(store), store)


def export(store, dest, choice=Choice(), **kwargs):
    options = ExportOptions(tar=True)
    return run_export(
        plan_export(store, Registry(store).select(choice), options, **kwargs), store, Location(dest), options
    )


# --- own data ----------------------------------------------------------------------------------------------------


@on_every_server
def test_own_data_are_kept_and_read_there(server, bucket, tmp_path):
    lines = ["size,kind", *(f"{k},{'abc'[k % 3]}" for k in range(30))]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    declared = Declaration(file="mine.csv", task="classification", target="kind")
    content = load_content("mine", declared, tmp_path / "mine.csv", "mine")
    store = Store.create(server.url(f"{bucket}/study"), tmp_path / "state")
    assert read_kept(store.location, "mine", TABLES) is None
    keep(store, content, declared, tmp_path / "mine.csv", TABLES)
    assert read_copy(Location(store.location.absolute), content.info, TABLES).x.tobytes() == content.x.tobytes()
    local = Store.create(tmp_path / "local")
    adopt_copy(local, store.location, "mine")
    assert (
        objects(server, bucket, "study")["datasets/mine.parquet"]
        == local_files(tmp_path / "local")["datasets/mine.parquet"]
    )


# --- the whole way -----------------------------------------------------------------------------------------------


@on_every_server
@pytest.mark.long
def test_the_whole_way_on_a_cluster(server, bucket, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    url, state = server.url(f"{bucket}/study"), tmp_path / "state"
    with be.start_cluster(workers=1, threads_per_worker=2) as client:
        first, again = (
            train(url, spec=tmp_path / "tiny.yaml", client=client, engine="torch", state=state) for _ in range(2)
        )
        assert (first.landed, first.failed, again.landed) == (4, 0, 0)
        store = Store.open(url)
        assert run_summaries(plan_summaries(store), store, client).computed == 2
    assert (status_facts(store, Choice())["runs"], status_facts(store, Choice())["sweeps"]) == (4, ["tiny"])
    assert list((state / "locks").iterdir()) == []
    export(store, tmp_path / "out", Choice(sweeps=("tiny",)))
    kept = objects(server, bucket, "study")
    exported = local_files(tmp_path / "out")
    assert len(exported) == 1 + 2 + 1 + 1 + 1 + 5  # with the card, the manifest and what else describes the whole
    for name, data in exported.items():
        if name.startswith("tiny_sweep_runs/"):
            assert data == kept[f"all_runs/{name.removeprefix('tiny_sweep_runs/')}"]
    summary = be.read_summary(url, columns=["num_runs"]).compute(scheduler="synchronous")
    assert list(summary["num_runs"]) == [2, 2]


@pytest.mark.long
@on_every_server
def test_a_bucket_holds_the_same_bytes_as_a_disk(server, bucket, tmp_path):
    url = server.url(f"{bucket}/study")
    remote, local = Store.create(url, tmp_path / "state"), Store.create(tmp_path / "study")
    fill(remote)
    fill(local)
    assert objects(server, bucket, "study") == local_files(tmp_path / "study")
    whole = {"everything": True}
    reports = [
        export(local, tmp_path / "on-disk", **whole),
        export(local, server.url(f"{bucket}/from-disk"), **whole),
        export(remote, tmp_path / "from-bucket", **whole),
        export(remote, server.url(f"{bucket}/from-bucket"), **whole),
    ]
    assert len({repr(report) for report in reports}) == 1
    expected = local_files(tmp_path / "on-disk")
    assert "complete_summary.tar" in expected
    assert objects(server, bucket, "from-disk") == expected
    assert local_files(tmp_path / "from-bucket") == expected
    assert objects(server, bucket, "from-bucket") == expected


@on_every_server
def test_another_export_takes_away_what_does_not_belong(server, bucket, tmp_path):
    store = Store.create(tmp_path / "study")
    fill(store)
    for dest in (tmp_path / "out", server.url(f"{bucket}/out")):
        export(store, dest, Choice(sweeps=("primary",)))
        export(store, dest, Choice(sweeps=("primary",), where=("dataset=mnist",)))
    assert objects(server, bucket, "out") == local_files(tmp_path / "out")


@on_every_server
def test_summaries_whose_runs_are_gone_are_taken_away(server, bucket, tmp_path):
    store = Store.create(server.url(f"{bucket}/study"), tmp_path / "state")
    fill(store)
    for file in list(store.run_files()):
        store.location.remove(f"all_runs/{file.path}")
    assert run_summaries(plan_summaries(store), store).dropped == 4
    assert not [key for key in server.keys(bucket) if key.endswith("summary.parquet")]


@on_every_server
def test_every_reader_sees_the_same(server, bucket, tmp_path):
    url = server.url(f"{bucket}/study")
    store = Store.create(url, tmp_path / "state")
    fill(store)
    export(store, server.url(f"{bucket}/out"), Choice(sweeps=("primary",)))
    folder = server.url(f"{bucket}/out/primary_sweep_runs")
    by_dask = be.read_export(folder, where=["dataset=mnist"]).compute(scheduler="synchronous")
    expected = [list(history) for history in by_dask["val_loss"]]
    hive = ds.partitioning(BUTTER.key_schema, flavor="hive")
    place = Location(folder)
    by_arrow = ds.dataset(place.root, filesystem=place.filesystem, partitioning=hive, format="parquet")
    assert by_arrow.to_table(filter=ds.field("dataset") == "mnist")["val_loss"].to_pylist() == expected
    options = {
        "aws_endpoint_url": f"http://{server.host}",
        "aws_region": REGION,
        "aws_access_key_id": server.key,
        "aws_secret_access_key": server.secret,
        "aws_allow_http": "true",
    }
    by_polars = pl.scan_parquet(f"s3://{place.root}/**/*.parquet", hive_partitioning=True, storage_options=options)
    assert by_polars.filter(pl.col("dataset") == "mnist").collect()["val_loss"].to_list() == expected
    runs = be.read_runs(url).compute(scheduler="synchronous")
    assert len(runs) == 11


def histories(seed):
    """Noise for every history of two repetitions: other numbers for each seed, as of runs that differ."""
    rng = np.random.default_rng(seed)
    return {(name, rep): rng.random(3000).astype(np.float32) for name in HISTORIES for rep in range(2)}


def test_one_column_of_one_experiment_is_a_small_part_of_the_file(server, bucket, tmp_path):
    store = Store.create(tmp_path / "study")
    specs = [
        make_experiment(dataset="digits", size=2**size, depth=3, epochs=3000, optimizer=name, momentum=momentum)
        for size in (12, 13, 14, 15)
        for name, momentum in (("adam", None), *(("SGD", momentum) for momentum in (0.0, 0.5, 0.6, 0.7, 0.9)))
    ]
    registry = Registry(store)
    registry.claim(store, dict.fromkeys(specs, "mine"))
    noise = {registry.experiment_id(spec): histories(number) for number, spec in enumerate(specs)}
    for spec in specs:
        own = registry.experiment_id(spec)
        land(store, spec, own, range(2), epochs=3000, histories=noise[own], batch="mine")
    run_summaries(plan_summaries(store), store)
    export(store, server.url(f"{bucket}/out"), Choice(where=("dataset=digits",)))
    exported = objects(server, bucket, "out/complete_summary")
    (file,) = (data for name, data in exported.items() if name.endswith("summary.parquet"))
    wanted = registry.experiment_id(specs[17])
    server.requests.clear()
    frame = be.read_export(
        server.url(f"{bucket}/out/complete_summary"),
        where=[f"experiment_id={wanted}"],
        columns=["experiment_id", "test_loss_median"],
    ).compute(scheduler="synchronous")
    assert server.sent < 0.02 * len(file)
    assert list(frame["experiment_id"]) == [wanted]
    median = np.mean(
        [noise[wanted][BUTTER.reduction.histories["test_loss"], repetition] for repetition in range(2)], axis=0
    )
    assert np.allclose(list(frame["test_loss_median"][0]), median)


def test_the_snippet_of_the_documents(server, bucket, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python no-run\n([^`]*s3://my-bucket[^`]*)```", HOW_TO.read_text())
    spec = make_experiment(dataset="nursery", size=512, depth=3)
    store = Store.create(tmp_path / "study")
    land(store, spec, BUTTER.fixed_ids.id_of(spec), range(3))
    run_summaries(plan_summaries(store), store)
    export(store, server.url(f"{bucket}/published"), Choice(sweeps=("primary",)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.host}")
    names = {}
    exec(code.replace("my-bucket", bucket), names)  # noqa: S102 (our own document)
    assert [len(history) for history in names["curve"]["test_loss_median"]] == [7]


# --- whole or not at all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 25 * PART], ids=["one request", "several parts"])
def test_a_put_that_fails_leaves_what_was_there(server, bucket, location, size):
    location.replace("file", b"old")
    server.refuses = lambda request: request.method == "PUT" and "partNumber=1" not in request.target
    with pytest.raises(StorageError, match=r"some/prefix/file: .* refuses it"):
        location.replace("file", bytes(size))
    with pytest.raises(StorageError, match=r"some/prefix/new: .* refuses it"):
        location.write_new("new", bytes(size))
    server.refuses = lambda request: False
    gc.collect()
    assert server.objects(bucket) == {"some/prefix/file": b"old"}


def write_and_stop(location, size):
    with location.open_output("file") as file:
        for _ in range(size):
            file.write(bytes(PART))
        raise KeyboardInterrupt


def test_an_exception_abandons_the_upload(server, bucket, location):
    location.replace("file", b"old")
    for size in (10, 25):
        with pytest.raises(KeyboardInterrupt):
            write_and_stop(location, size)
    gc.collect()
    assert server.objects(bucket) == {"some/prefix/file": b"old"}
    assert any("partNumber=1" in request.target for request in server.requests)


def test_a_process_that_ends_in_the_middle_leaves_nothing(server, bucket, location):
    code = f"""
from butter_etl.store import Location
with Location({location.absolute!r}).open_output("file") as file:
    file.write(bytes({25 * PART}))
    raise SystemExit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    assert any("partNumber=1" in request.target for request in server.requests)
    assert server.objects(bucket) == {}


def test_landing_that_fails_is_complete_the_next_time(server, bucket, tmp_path):
    store = Store.create(server.url(f"{bucket}/study"), tmp_path / "state")
    land(store, POLLEN, 0, [2])
    server.refuses = lambda request: request.method == "PUT"
    with pytest.raises(StorageError, match="refuses it"):
        land(store, POLLEN, 0, range(5))
    server.refuses = lambda request: False
    assert store.repetitions() == {0: 0b100}
    assert land(store, POLLEN, 0, range(5)).landed == 4
    assert store.repetitions() == {0: 0b11111}
    assert list((store.state / "locks").iterdir()) == []


@on_every_server
def test_landings_at_once_under_one_state_folder(server, bucket, tmp_path):
    url = server.url(f"{bucket}/study")
    Store.create(url, tmp_path / "state")
    landings = []

    def land_some(first):
        landings.append(land(Store.open(url, tmp_path / "state"), POLLEN, 0, range(first, first + 4)))

    threads = [threading.Thread(target=land_some, args=(first,)) for first in (0, 1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    repetitions = [rep for file in Store.open(url).run_files() for rep in file.repetitions]
    assert sorted(repetitions) == list(range(7))
    assert sum(landing.landed for landing in landings) == 7


# --- what a location does ----------------------------------------------------------------------------------------

NAMES = ["a=0/x", "a=0.1/x", "a=0-1/x", "a=0/b c/é", "a%2Fb=%25/x", "top", "a=0/b+c&d/x"]


@on_every_server
def test_names_and_their_order_are_those_of_a_disk(location, tmp_path):
    disk = Location(tmp_path)
    for place in (location, disk):
        for name in NAMES:
            assert place.write_new(name, name.encode())
        assert not place.write_new(NAMES[0], b"other")
    assert list(location.walk()) == list(disk.walk())
    assert list(location.walk("a=0")) == list(disk.walk("a=0"))
    assert list(location.walk(starting="x")) == list(disk.walk(starting="x"))
    assert location.names("a=0") == disk.names("a=0") == ["x"]
    assert [location.read_bytes(name).decode() for name in NAMES] == NAMES
    assert [kind(location, name) for name in ("a=0", "top", "none")] == ["Directory", "File", "NotFound"]


def kind(location, name):
    return location.kind(name).name


def test_files_are_copied_moved_and_removed_between_any_two_places(server, bucket, location, tmp_path, monkeypatch):
    disk, other = Location(tmp_path / "a"), Location(server.url(f"{bucket}/other"))
    with server.checking_credentials() as credentials:
        for name, value in credentials.items():
            monkeypatch.setenv(name, value)
        places = [Location(place.absolute) for place in (disk, location, other)]
        for size, name in zip([25 * PART, *range(len(NAMES) - 1)], NAMES, strict=True):
            data = os.urandom(size)
            places[0].replace(name, data)
            for source, dest in ((0, 1), (1, 2), (2, 0)):
                places[dest].copy(f"{name}-{source}", places[source], name if source == 0 else f"{name}-{source - 1}")
            assert places[1].move(f"{name}-0", f"moved/{name}")
            with pytest.raises(FileExistsError, match="is there already"):
                places[2].move(f"{name}-1", f"{name}-1")
            assert not places[1].move(f"{name}-0", f"moved/{name}-1")
            places[2].remove(f"{name}-1")
            places[2].remove(f"{name}-1")
            assert disk.read_bytes(f"{name}-2") == data
        with pytest.raises(FileNotFoundError):
            places[0].copy("x", places[1], "none")
        with pytest.raises(FileNotFoundError):
            places[2].copy("x", places[1], "none")
    assert all(request.signed for request in server.requests if request.method in {"DELETE", "HEAD"})


def test_a_whole_listing_is_one_request_for_each_thousand(server, bucket, location):
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["aws"]
    names = [f"a={number % 7}/b={number % 5}/{number}" for number in range(2500)]
    for name in names:
        backend.put_object(bucket, f"some/prefix/{name}", b"")
    server.requests.clear()
    assert sorted(name for name, _ in location.walk()) == sorted(names)
    assert len(server.requests) == 3
    assert not any("delimiter" in request.target for request in server.requests)


def test_archives_are_streamed_in_parts_and_checked(server, bucket, location, tmp_path):
    disk = Location(tmp_path)
    members = {f"d=1/{number}": os.urandom(9 * PART + number) for number in range(3)} | {"small": b"x"}
    for place in (disk, location):
        for name, data in members.items():
            place.replace(f"frame/{name}", data)
        write_archive(place, "frame", list(members))
    archive = location.read_bytes("frame.tar")
    assert archive == disk.read_bytes("frame.tar")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == {
            f"frame/{name}": data for name, data in members.items()
        }
    assert sum("frame.tar?partNumber" in request.target for request in server.requests) == 3
    server.requests.clear()
    write_archive(location, "frame", ["small"])
    smaller = server.client().get_object(Bucket=bucket, Key="some/prefix/frame.tar")["Body"].read()

    def spoil(request):
        if request.method == "POST" and "frame.tar?uploadId" in request.target:
            server.client().put_object(Bucket=bucket, Key="some/prefix/frame.tar", Body=smaller)

    server.answered = spoil
    with pytest.raises(LandingError, match=r"frame\.tar: what was written differs from its 4 files"):
        write_archive(location, "frame", list(members))
    assert kind(location, "frame.tar") == "NotFound"


# --- addresses and access ----------------------------------------------------------------------------------------


def test_options_come_from_the_url_or_the_environment(server, bucket, location, monkeypatch):
    location.replace("file", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.host}")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    short = Location(f"s3://{bucket}/some/prefix")
    assert short.read_bytes("file") == b"x"
    assert str(short) == str(location) == f"s3://{bucket}/some/prefix"
    address = quote(server.host, safe="")
    assert short.absolute == f"s3://{bucket}/some/prefix?endpoint_override={address}&scheme=http&region=eu-central-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere.example")
    assert Location(short.absolute).read_bytes("file") == b"x"


@pytest.mark.parametrize(
    ("variable", "in_file", "are_sent"),
    [
        (None, "", False),
        ("when_supported", "", True),
        ("when_required", "", False),
        (None, "[default]\nrequest_checksum_calculation = when_supported\n", True),
        (None, "[profile other]\nrequest_checksum_calculation = when_supported\n", False),
        ("when_required", "[default]\nrequest_checksum_calculation = when_supported\n", False),
        (None, "no file of AWS", False),
    ],
)
def test_checksums_in_trailers_are_sent_where_the_user_says_so(
    server, bucket, environment, tmp_path, variable, in_file, are_sent
):
    (tmp_path / "config").write_text(in_file)
    with environment.context() as patch:
        patch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        if variable:
            patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", variable)
        place = Location(server.url(f"{bucket}/x"))
        place.replace("file", b"x")
        assert os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION") == variable
    assert [bool(request.trailer) for request in server.requests if request.method == "PUT"] == [are_sent]


def test_aws_itself_is_known_by_any_of_its_addresses():
    def is_aws(endpoint):
        return Service.of({"region": "eu-west-1", "endpoint_override": endpoint}, "bucket").is_aws

    endpoints = ["", "s3.eu-west-1.amazonaws.com", "https://s3.dualstack.eu-west-1.amazonaws.com:443"]
    assert all(map(is_aws, [*endpoints, "s3.cn-north-1.amazonaws.com.cn"]))
    assert not any(map(is_aws, ["127.0.0.1:9000", "amazonaws.com.example.org", "storage.example.org"]))


def test_addresses_that_are_printed_can_be_given_back(server, bucket, tmp_path):
    store = Store.create(server.url(f"{bucket}/a study"), tmp_path / "state")
    assert store.location.address() == server.url(f"{bucket}/a%20study")
    assert store.location.address("a=0/b%2Fc d") == server.url(f"{bucket}/a%20study/a=0/b%252Fc%20d")
    store.location.replace("a=0/b%2Fc d", b"x")
    assert Location(store.location.address("a=0")).read_bytes("b%2Fc d") == b"x"
    assert status_facts(store, Choice())["store"] == server.url(f"{bucket}/a%20study")
    assert Location("/runs/").address("x") == "/runs/x"
    assert Location("runs").address() == "runs"


def test_lists_are_corrected_by_what_was_noted(server, bucket, location, tmp_path):
    location.changes = Changes(tmp_path)
    location.replace("a/1", b"1")
    location.replace("b", b"22")
    server.client().delete_object(Bucket=bucket, Key="some/prefix/a/1")
    location.changes.note("a/1", PUT)
    assert list(location.walk()) == [("b", 2)]
    server.client().put_object(Bucket=bucket, Key="some/prefix/c", Body=b"333")
    location.changes.note("c", REMOVED)
    assert list(location.walk()) == [("b", 2), ("c", 3)]
    assert location.names("") == ["b", "c"]
    location.remove("b")
    server.requests.clear()
    assert [name for name, _ in location.walk()] == ["c"]
    assert sum(request.method == "HEAD" for request in server.requests) == 2


def test_anonymous_reading(server, bucket, location, monkeypatch):
    location.replace("public", b"x")
    location.replace("private", b"x")
    server.client().put_object_acl(Bucket=bucket, Key="some/prefix/public", ACL="public-read")
    server.requests.clear()
    anonymous = Location(server.url(f"{bucket}/some/prefix", anonymous="true"))
    assert anonymous.read_bytes("public") == b"x"
    assert not any(request.signed for request in server.requests)
    assert anonymous.absolute.endswith("&anonymous=true")
    with pytest.raises(StorageError, match=r"some/prefix/private: .* refuses it \(ACCESS_DENIED\); set AWS_ACCESS_KEY"):
        anonymous.read_bytes("private")
    for name in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "YES")
            assert Location(server.url(bucket)).absolute.endswith("&anonymous=true")


def test_wrong_credentials(server, bucket, location, monkeypatch):
    with server.checking_credentials() as credentials:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials["AWS_ACCESS_KEY_ID"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StorageError, match="SIGNATURE_DOES_NOT_MATCH"):
            Location(location.absolute).replace("file", b"x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    server.refuses = lambda request: not request.signed
    with pytest.raises(StorageError, match=r"refuses it \(ACCESS_DENIED\); set AWS_ACCESS_KEY_ID"):
        Location(location.absolute).replace("file", b"x")


def test_a_torn_file_is_not_an_unreachable_one(server, bucket, tmp_path):
    store = Store.create(server.url(f"{bucket}/study"), tmp_path / "state")
    land(store, POLLEN, 0, range(2))
    (file,) = store.run_files()
    server.refuses = lambda request: request.method == "GET"
    with pytest.raises(StorageError, match=r"0-0-1\.parquet: .* refuses it"):
        store.read_runs(file)


@pytest.fixture
def run(capsys):
    """Run the command in this process: its exit code and the lines on standard error."""

    def invoke(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return stop.value.code or 0, capsys.readouterr().err.splitlines()

    return invoke


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("s3://AKIA:hush@{bucket}/x", 2, "s3://{bucket}/x: no credentials in a URL; set AWS_ACCESS_KEY_ID"),
        ("s3://AKIA:hu/hush@{bucket}/x?region=a", 2, "s3://{bucket}/x: no credentials in a URL"),
        ("s3://AKIA:hush/x", 2, "s3://…: no credentials in a URL"),
        ("s3://{bucket}/x?colour=red", 2, "unknown option 'colour' in the URL; known: endpoint_override"),
        ("s3:///x", 2, "no bucket"),
        ("s3:/{bucket}/x", 2, "a URL has two slashes: give s3://{bucket}/x, as text and not as a Path"),
        ("s3://{bucket}/x?endpoint_override=http://AKIA:hush@{host}", 2, "s3://{bucket}: no credentials in a URL"),
        ("gopher://user:hu/sh@host/x?secret=hush", 2, "gopher://host/x: not a usable location"),
        ("s3://none/x?endpoint_override={host}&scheme=http", 2, "no bucket 'none' at http://{host}; create it first"),
        ("s3://{bucket}/x?endpoint_override={host}&scheme=http", 2, "s3://{bucket}/x: does not exist"),
        ("s3://{bucket}/x?endpoint_override=127.0.0.1:1&scheme=http", 1, "cannot be reached (Could not connect"),
        ("gopher://user:hush@host/x", 2, "gopher://host/x: not a usable location"),
    ],
)
def test_bad_addresses_are_one_clear_line(server, bucket, run, url, code, message):
    status, lines = run("status", url.format(bucket=bucket, host=server.host))
    assert (status, len(lines)) == (code, 1)
    assert message.format(bucket=bucket, host=server.host) in lines[0]
    assert "hush" not in lines[0]


def test_what_cannot_be_written_is_one_clear_line(server, bucket, run, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    url = server.url(f"{bucket}/study")
    command = ["train", url, "--spec", tmp_path / "tiny.yaml", "--engine", "torch", "--quiet"]
    status, (line,) = run(*command)
    assert (status, "an object store needs --state DIR" in line) == (2, True)
    status, (line,) = run(*command, "--state", server.url(f"{bucket}/state"))
    assert (status, "locks need a folder on a POSIX file system, not a URL" in line) == (2, True)
    server.refuses = lambda request: request.method in {"PUT", "POST"}
    status, (line,) = run(*command, "--state", tmp_path / "state")
    assert (status, f"http://{server.host} refuses it (ACCESS_DENIED)" in line) == (1, True)
    local = Store.create(tmp_path / "store")
    fill(local)
    status, (line,) = run("export", tmp_path / "store", server.url(f"{bucket}/out"), "--sweep", "primary", "--quiet")
    assert (status, "refuses it" in line) == (1, True)
    status, (line,) = run("export", tmp_path / "store", server.url("none/out"), "--sweep", "primary", "--quiet")
    assert (status, "there is no bucket 'none'" in line) == (2, True)
    assert server.objects(bucket) == {}


@on_every_server
def test_an_export_into_its_own_store_is_refused(server, bucket, tmp_path):
    store = Store.create(server.url(f"{bucket}/study"), tmp_path / "state")
    fill(store)
    with pytest.raises(StoreError, match="lies in the store"):
        export(store, server.url(f"{bucket}/study/out"), Choice(sweeps=("primary",)))
    export(store, server.url(f"{bucket}/study-out"), Choice(sweeps=("primary",)))


def shuffled_runs(url):
    """All runs of a store, keys included, in another order."""
    rows = pa.Table.from_pandas(be.read_runs(url).compute(scheduler="synchronous"), preserve_index=False)
    return rows.cast(BUTTER.runs).take(np.random.default_rng(0).permutation(rows.num_rows))


def runs_of(files):
    return {name: data for name, data in files.items() if name.startswith("all_runs/")}


@on_every_server
def test_imports_from_and_into_buckets(server, bucket, tmp_path):
    store = Store.create(server.url(f"{bucket}/study"), tmp_path / "state")
    land(store, POLLEN, 0, range(3))
    land(store, BUTTER.fixed_ids.experiment(14), 14, range(2))
    runs = runs_of(objects(server, bucket, "study"))
    assert len(runs) == 1 + 2
    pq.write_table(shuffled_runs(store.location.absolute), tmp_path / "runs.parquet", row_group_size=4)
    mixed = Location(server.url(f"{bucket}/in any order"))
    mixed.replace("some runs=1.parquet", (tmp_path / "runs.parquet").read_bytes())
    for number, source in enumerate(("study", "in any order", "in any order/some runs=1.parquet")):
        assert run_import(server.url(f"{bucket}/{source}"), tmp_path / f"local-{number}").landed == 5
        assert runs_of(local_files(tmp_path / f"local-{number}")) == runs
    other = server.url(f"{bucket}/other")
    for source, landed in ((mixed.absolute, 5), (store.location.absolute, 0), (tmp_path / "local-0", 0)):
        assert run_import(source, other, state=tmp_path / "other-state").landed == landed
        assert runs_of(objects(server, bucket, "other")) == runs


def test_sources_that_cannot_be_imported_are_one_clear_line(server, bucket, tmp_path):
    store = Store.create(server.url(f"{bucket}/study"), tmp_path / "state")
    land(store, POLLEN, 0, range(2))
    (file,) = store.run_files()

    def refusal(source, dest):
        with pytest.raises(ButterError) as refused:
            run_import(server.url(source), server.url(dest), state=tmp_path / "state")
        assert "\n" not in str(refused.value)
        return str(refused.value)

    study, new = f"{bucket}/study", f"{bucket}/new"
    for part in ("all_runs", f"all_runs/{file.path}"):
        assert f"lies in the store s3://{study}; name another source" in refusal(f"{study}/{part}", study)
    assert refusal(f"{bucket}/nothing", new).startswith(f"s3://{bucket}/nothing: does not exist")
    assert "there is no bucket 'none'" in refusal("none/study", new)
    assert "there is no bucket 'none'" in refusal(study, "none/study")
    before = server.objects(bucket)
    server.refuses = lambda request: request.method in {"PUT", "POST"}
    assert "refuses it (ACCESS_DENIED)" in refusal(study, new)
    assert server.objects(bucket) == before


@on_every_server
def test_checking_repairing_and_withdrawing(server, bucket, tmp_path):
    url, state = server.url(f"{bucket}/store"), tmp_path / "state"
    store = Store.create(url, state)
    land(store, POLLEN, 0, range(6))
    land(store, BUTTER.fixed_ids.experiment(14), 14, range(3))
    run_summaries(plan_summaries(store), store)
    report = run_verification(plan_verification(url), values=True, threads=2)
    assert (report.findings, report.rows, report.summaries) == ((), 13, 1)
    (key,) = [key for key in server.keys(bucket) if key.endswith("/14-0-2.parquet")]
    server.client().put_object(Bucket=bucket, Key=key, Body=b"PAR1")
    plan = plan_verification(url, state)
    found = run_verification(plan).faults
    assert [one.kind for one in found] == ["torn-file", "stale-summary"]
    repaired = run_repair(plan, store, found)
    assert repaired.missing == {14: [0, 1, 2]}
    assert run_drop(plan_drop(store, Selection(first_repetition=2, repetitions=2)), store) == 2
    assert store.repetitions() == {0: 0b110011}
    assert store.quarantined() == {"dropped": 1, "torn-file": 1}
    run_summaries(plan_summaries(store), store)
    assert run_verification(plan_verification(url, state)).faults == []
