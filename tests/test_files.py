"""Files on a disk: written whole or not at all, copied, moved, removed. Buckets are in test_s3."""

import os
import threading

import pytest

from butter_etl.errors import StoreError
from butter_etl.store.files import Location
from butter_etl.store.s3 import S3Prefix, Service


@pytest.fixture
def location(tmp_path):
    return Location(tmp_path / "store")


def files(location):
    return {name: location.read_bytes(name) for name, _ in location.walk()}


def write_and_stop(location):
    with location.open_output("a/file") as file:
        file.write(b"new")
        raise KeyboardInterrupt


def test_an_exception_leaves_what_was_there(location, tmp_path):
    location.replace("a/file", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(location)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]
    assert files(location) == {"a/file": b"old"}


def test_output_replaces_what_was_there(location):
    location.replace("a/file", b"old")
    with location.open_output("a/file") as file:
        file.write(b"ne")
        file.write(b"w")
        assert location.read_bytes("a/file") == b"old"
    assert files(location) == {"a/file": b"new"}


def test_copies_moves_and_removals(location, tmp_path):
    other = Location(tmp_path / "other")
    location.replace("a/file", b"x")
    other.copy("copy", location, "a/file")
    assert files(other) == {"copy": b"x"}
    with pytest.raises(FileNotFoundError):
        other.copy("none", location, "none")
    assert location.move("a/file", "b/c/file")
    assert not location.move("a/file", "b/c/another")
    location.replace("a/file", b"y")
    with pytest.raises(FileExistsError, match="b/c/file is there already"):
        location.move("a/file", "b/c/file")
    location.remove("a/file")
    location.remove("a/file")
    assert files(location) == {"b/c/file": b"x"}
    assert files(other) == {"copy": b"x"}


def test_what_contains_what(tmp_path):
    store = Location(tmp_path / "store")
    assert store.contains(store)
    assert store.contains(Location(tmp_path / "store" / "out"))
    assert not store.contains(Location(tmp_path / "store-out"))
    assert not store.contains(Location(tmp_path))


@pytest.fixture
def no_settings(monkeypatch):
    """None of the settings of whoever runs the tests."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ("region=eu-west-1", {}, Service("", "https", "eu-west-1", anonymous=False)),
        ("", {"AWS_DEFAULT_REGION": "a", "AWS_REGION": "b"}, Service("", "https", "b", anonymous=False)),
        ("region=c", {"AWS_REGION": "b"}, Service("", "https", "c", anonymous=False)),
        ("anonymous=true", {"AWS_REGION": "b"}, Service("", "https", "b", anonymous=True)),
        (
            "anonymous=false",
            {"AWS_REGION": "b", "AWS_SKIP_SIGNATURE": "true"},
            Service("", "https", "b", anonymous=False),
        ),
        ("endpoint_override=h:9", {}, Service("h:9", "https", "us-east-1", anonymous=False)),
        ("endpoint_override=http://h:9/", {}, Service("h:9", "http", "us-east-1", anonymous=False)),
        ("endpoint_override=h:9&scheme=http", {}, Service("h:9", "http", "us-east-1", anonymous=False)),
        ("", {"AWS_ENDPOINT_URL": "http://e"}, Service("e", "http", "us-east-1", anonymous=False)),
        (
            "",
            {"AWS_ENDPOINT_URL": "http://e", "AWS_ENDPOINT_URL_S3": "https://f"},
            Service("f", "https", "us-east-1", anonymous=False),
        ),
    ],
)
def test_the_url_goes_before_the_environment(no_settings, options, environment, expected):
    for name, value in environment.items():
        no_settings.setenv(name, value)
    prefix = S3Prefix(f"s3://bucket/a/b?{options}")
    assert prefix.service == expected
    for name in environment:
        no_settings.delenv(name)
    again = S3Prefix(prefix.url)
    assert (again.root, again.service) == (prefix.root, expected), "the whole URL needs no environment"


def test_names_in_urls_are_decoded():
    prefix = S3Prefix("s3://bucket/my%20study/?region=us-east-1")
    assert (prefix.root, str(prefix)) == ("bucket/my study", "s3://bucket/my study")
    assert prefix.url == "s3://bucket/my%20study?region=us-east-1"


def test_servers_of_aws_are_named(no_settings):
    assert str(S3Prefix("s3://b?region=eu-west-1").service) == "https://s3.eu-west-1.amazonaws.com"
    assert str(S3Prefix("s3://b?region=cn-north-1").service) == "https://s3.cn-north-1.amazonaws.com.cn"


def test_options_are_checked():
    with pytest.raises(
        StoreError, match="unknown option 'regoin' in the URL; known: endpoint_override, scheme, region"
    ):
        S3Prefix("s3://bucket?regoin=x")


def test_a_folder_that_comes_and_goes_while_it_is_listed_is_empty(tmp_path):
    location, folder = Location(tmp_path), tmp_path / "some"
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            folder.mkdir()
            folder.rmdir()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert all(location.names("some") == [] for _ in range(3000))
    finally:
        over.set()
        other.join()


def test_paths_that_are_no_text_are_refused_or_passed_over(tmp_path):
    """Python carries their bytes through as lone surrogates; pyarrow opens none of them."""
    odd = os.fsdecode(b"\xff")
    with pytest.raises(StoreError, match=r"\\udcff.*is no UTF-8 text"):
        Location(tmp_path / odd)
    (tmp_path / f"notes{odd}.txt").touch()
    (tmp_path / "a.parquet").touch()
    assert list(Location(tmp_path).walk()) == [("a.parquet", 0)]
    (tmp_path / f"b{odd}.parquet").touch()
    with pytest.raises(StoreError, match="is no UTF-8 text"):
        list(Location(tmp_path).walk())
