"""``manifest.json``: true of the files, the same for the same data, refused if it is not readable."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from butter_etl.errors import StoreError
from butter_etl.exchange.manifest import Manifest, manifest_bytes, read_manifest
from butter_etl.store.files import Location
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.cards import citation
from tests.exports import contents, export, make_store
from tests.other_study import make_store_of_fits


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("manifest")
    store = make_store(home / "store")
    export(store, home / "dest", "primary", "optimizer", tar=True)
    export(store, home / "again", "primary", "optimizer", tar=True)
    export(store, home / "compact", "optimizer", compact=True)
    return home


@pytest.mark.parametrize("folder", ["dest", "compact"])
def test_it_lists_every_file_with_its_bytes_rows_and_hash(home, folder):
    dest = home / folder
    manifest = read_manifest(Location(dest))
    hashes = contents(dest)
    del hashes["manifest.json"]
    assert {file.path: file.sha256 for file in manifest.files} == hashes
    for file in manifest.files:
        path = dest / file.path
        assert file.bytes == path.stat().st_size
        rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None
        assert file.rows == rows
    for one in manifest.directories:
        own = [file for file in manifest.files if file.path.startswith(f"{one.name}/")]
        assert one.bytes == sum(file.bytes for file in own)
        assert one.rows == sum(file.rows or 0 for file in own)
        assert one.files == len([file for file in own if file.rows is not None])


def test_it_is_sorted_has_a_line_a_file_and_is_the_same_for_the_same_data(home):
    text = (home / "dest/manifest.json").read_text()
    assert (home / "again/manifest.json").read_text() == text
    manifest = read_manifest(Location(home / "dest"))
    paths = [file.path for file in manifest.files]
    assert paths == sorted(paths)
    assert text.count("\n") == len(manifest.files) + len(manifest.directories) + 7
    assert str(home) not in text
    assert json.loads(text)["format"] == 1
    assert manifest_bytes(manifest.directories, reversed(manifest.files)).decode() == text


def test_nothing_is_a_manifest_too(tmp_path):
    (tmp_path / "manifest.json").write_bytes(manifest_bytes([], []))
    assert read_manifest(Location(tmp_path)) == Manifest()
    assert read_manifest(Location(tmp_path / "none")) is None


@pytest.mark.parametrize(("text", "message"), [("{", "not readable as a manifest"), ('{"format": 9}', "has format 9")])
def test_others_are_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        read_manifest(Location(tmp_path))


def test_the_citation_file_is_one(home):
    text = (home / "dest/CITATION.cff").read_text()
    assert text == citation(BUTTER.card)
    cited = yaml.safe_load(text)
    assert {"cff-version", "message", "title", "authors", "type", "license"} <= cited.keys()
    assert cited["type"] == "dataset"
    assert cited["references"][0]["doi"] == "10.25984/1872441"
    ours = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text())
    assert cited["references"][0]["authors"] == ours["references"][0]["authors"]
    assert cited["license"] in (home / "dest/LICENSE").read_text()


def test_it_names_every_study_but_the_published_one(home, tmp_path):
    assert "study" not in json.loads((home / "dest/manifest.json").read_text())
    export(make_store_of_fits(tmp_path / "store"), tmp_path / "dest")
    manifest = read_manifest(Location(tmp_path / "dest"))
    assert manifest.study == "fits"
    assert manifest.directories[0].values["knots"] == [(1, 2), (3, 4, 5)]
    text = (tmp_path / "dest/manifest.json").read_bytes()
    assert manifest_bytes(manifest.directories, manifest.files, study="fits") == text
