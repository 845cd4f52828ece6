"""``croissant.json``: valid by its own tool, and enough for that tool to read the data."""

import json

import pytest

from butter_etl.errors import UsageError
from butter_etl.exchange.croissant import croissant_json, publication_day
from butter_etl.exchange.manifest import read_manifest
from butter_etl.store.files import Location
from butter_etl.studies.butter.columns import PARTITION_KEYS, RUN_SCHEMA, SUMMARY_SCHEMA
from tests.exports import export, make_store

mlcroissant = pytest.importorskip("mlcroissant")
#: Of the graph library that the validator uses, and of what it does with pandas.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    home = tmp_path_factory.mktemp("croissant")
    export(make_store(home / "store"), home / "dest", "primary", tar=True)
    return home / "dest"


@pytest.fixture(scope="module")
def dataset(published):
    return mlcroissant.Dataset(str(published / "croissant.json"))


def test_it_is_valid(dataset):
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert [warning for warning in issues.warnings if "datePublished" not in warning] == []
    assert "http://mlcommons.org/croissant/1.1" in str(dataset.metadata.ctx.conforms_to.value)


def test_mistakes_are_found(published, tmp_path):
    """That the validator would say so."""
    document = json.loads((published / "croissant.json").read_text())
    document["recordSet"][0]["field"][0]["source"]["fileSet"]["@id"] = "nowhere"
    (tmp_path / "croissant.json").write_text(json.dumps(document))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(str(tmp_path / "croissant.json"))


@pytest.mark.parametrize(("name", "schema"), [("runs", RUN_SCHEMA), ("summary", SUMMARY_SCHEMA)])
def test_its_records_are_the_rows(published, dataset, name, schema):
    directory = f"primary_sweep_{name}"
    (facts,) = (one for one in read_manifest(Location(published)).directories if one.name == directory)
    records = list(dataset.records(directory))
    assert len(records) == facts.rows
    assert {key.partition("/")[2] for key in records[0]} == set(schema.names)
    (rate,) = {record[f"{directory}/learning_rate"] for record in records}
    assert rate == pytest.approx(0.0001)
    assert all(record[f"{directory}/dataset"] == b"mnist" for record in records)
    assert {record[f"{directory}/size"] for record in records} == {4096, 8192}
    lists = "val_loss" if name == "runs" else "test_loss_median"
    assert all(len(record[f"{directory}/{lists}"]) == 4 for record in records)


def test_every_column_and_archive_is_described(published):
    document = json.loads((published / "croissant.json").read_text())
    files = {file.path: file for file in read_manifest(Location(published)).files}
    objects = {one["@id"]: one for one in document["distribution"] if one["@type"] == "cr:FileObject"}
    assert "primary_sweep_summary.tar" in objects
    assert all(one["sha256"] == files[name].sha256 for name, one in objects.items())
    (runs,) = (one for one in document["recordSet"] if one["@id"] == "primary_sweep_runs")
    fields = {one["name"]: one for one in runs["field"]}
    assert list(fields) == RUN_SCHEMA.names
    assert fields["val_loss"] | {"dataType": "cr:Float32", "isArray": True, "arrayShape": "-1"} == fields["val_loss"]
    assert fields["seed"]["dataType"] == "cr:Int64"
    assert fields["stack"]["dataType"] == "cr:UInt16"
    assert all(one["description"] for one in fields.values())
    keys = [name for name, one in fields.items() if "transform" in one["source"]]
    assert set(keys) == set(PARTITION_KEYS)
    assert len([key for key in document if key.startswith("rai:")]) >= 12


def test_the_date_is_what_the_environment_says(monkeypatch):
    assert "datePublished" not in json.loads(croissant_json([], [], {}))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1654214400")
    assert json.loads(croissant_json([], [], {}))["datePublished"] == "2022-06-03"


@pytest.mark.parametrize("epoch", ["yesterday", "1.5", "9" * 30])
def test_a_date_that_is_no_time_is_refused(monkeypatch, epoch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UsageError, match=r"SOURCE_DATE_EPOCH: wants a whole number of seconds"):
        publication_day()
