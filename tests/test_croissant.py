"""``croissant.json``: valid by its own tool, and enough for that tool to read the data."""

import json

import pyarrow as pa
import pytest

from butter_etl.errors import UsageError
from butter_etl.exchange.croissant import croissant_json, publication_day
from butter_etl.exchange.manifest import read_manifest
from butter_etl.store.files import Location
from butter_etl.store.layout import NULL
from butter_etl.studies.butter.study import BUTTER
from tests.exports import export, make_store
from tests.other_study import FITS, make_store_of_fits

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


@pytest.mark.parametrize(("name", "schema"), [("runs", BUTTER.runs), ("summary", BUTTER.summary)])
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
    assert list(fields) == BUTTER.runs.names
    assert fields["val_loss"] | {"dataType": "cr:Float32", "isArray": True, "arrayShape": "-1"} == fields["val_loss"]
    assert fields["seed"]["dataType"] == "cr:Int64"
    assert fields["stack"]["dataType"] == "cr:UInt16"
    assert all(one["description"] for one in fields.values())
    keys = [name for name, one in fields.items() if "transform" in one["source"]]
    assert set(keys) == set(BUTTER.keys)
    assert len([key for key in document if key.startswith("rai:")]) >= 12


def test_a_null_key_comes_out_as_its_text_and_its_description_says_so(tmp_path):
    dest = tmp_path / "dest"
    export(make_store(tmp_path / "store"), dest, where=["dataset=mnist", "label_noise=0", "batch_size=256"])
    kinds = {
        record["all_runs/kernel_regularizer.type"]
        for record in mlcroissant.Dataset(str(dest / "croissant.json")).records("all_runs")
    }
    assert kinds == {b"l1", b"__HIVE_DEFAULT_PARTITION__"}
    fields = fields_of(dest, "all_runs")
    note = "penalty on the kernels: l1, l2, or null for none; a null comes out as the text __HIVE_DEFAULT_PARTITION__"
    assert fields["kernel_regularizer.type"]["description"] == note
    assert [name for name, one in fields.items() if "HIVE" in one["description"]] == ["kernel_regularizer.type"]


def test_nothing_is_said_of_nulls_that_are_not_there(tmp_path):
    dest = tmp_path / "dest"
    export(make_store(tmp_path / "store"), dest, "regularization", where=["kernel_regularizer.type=l1"])
    fields = fields_of(dest, "regularization_sweep_runs")
    assert fields["kernel_regularizer.type"]["description"] == "penalty on the kernels: l1, l2, or null for none"


def test_numbers_that_are_null_in_some_paths_are_text(tmp_path):
    """The reader would stop at a number whose text is none."""
    dest = tmp_path / "dest"
    export(make_store_of_fits(tmp_path / "store"), dest, where=["steps=4"])
    records = list(mlcroissant.Dataset(str(dest / "croissant.json")).records("all_runs"))
    assert {(record["all_runs/order"], float(record["all_runs/rate"])) for record in records} == {
        (b"__HIVE_DEFAULT_PARTITION__", 0.25)
    }
    order, rate = (fields_of(dest, "all_runs")[name] for name in ("order", "rate"))
    text = "a null comes out as the text __HIVE_DEFAULT_PARTITION__, every other value as the text of a uint8"
    assert (order["dataType"], order["description"]) == ("sc:Text", f"parameter order; {text}")
    assert (rate["dataType"], rate["description"]) == ("cr:Float32", "parameter rate")


@pytest.mark.parametrize(
    ("where", "text", "note"),
    [
        ("decay>0", b"True", "comes out as the text True or False"),
        ("steps=4", NULL.encode(), f"comes out as the text True or False, a null as {NULL}"),
    ],
)
def test_keys_that_are_true_or_false_are_text(tmp_path, where, text, note):
    """The reader would take any text for true, `False` too."""
    dest = tmp_path / "dest"
    export(make_store_of_fits(tmp_path / "store"), dest, where=[where])
    field = fields_of(dest, "all_runs")["centred"]
    assert (field["dataType"], field["description"]) == ("sc:Text", f"parameter centred; {note}")
    records = mlcroissant.Dataset(str(dest / "croissant.json")).records("all_runs")
    assert {record["all_runs/centred"] for record in records} == {text}


def fields_of(dest, directory):
    (records,) = (
        one for one in json.loads((dest / "croissant.json").read_text())["recordSet"] if one["@id"] == directory
    )
    return {one["name"]: one for one in records["field"]}


def test_the_date_is_what_the_environment_says(monkeypatch):
    assert "datePublished" not in json.loads(croissant_json(BUTTER, [], [], {}))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1654214400")
    assert json.loads(croissant_json(BUTTER, [], [], {}))["datePublished"] == "2022-06-03"


@pytest.mark.parametrize("epoch", ["yesterday", "1.5", "9" * 30])
def test_a_date_that_is_no_time_is_refused(monkeypatch, epoch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UsageError, match=r"SOURCE_DATE_EPOCH: wants a whole number of seconds"):
        publication_day()


def test_types_of_another_study(tmp_path):
    dest = tmp_path / "dest"
    export(make_store_of_fits(tmp_path / "store"), dest, where=["decay>0"])
    assert not mlcroissant.Dataset(str(dest / "croissant.json")).metadata.ctx.issues.errors
    document = json.loads((dest / "croissant.json").read_text())
    assert (document["name"], document["description"]) == ("Fits", "Curves that were fitted.")
    assert not {"isBasedOn", "keywords"} & document.keys()
    (runs,) = (one for one in document["recordSet"] if one["@id"] == "all_runs")
    kinds = {one["name"]: (one["dataType"], one.get("isArray", False)) for one in runs["field"]}
    assert list(kinds) == FITS.runs.names
    assert [kinds[key][0].partition(":")[2] for key in FITS.keys] == [
        *("Text", "Text", "Int8", "Int16", "Int32", "Int64"),
        *("UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"),
    ]
    assert (kinds["seconds"], kinds["error"]) == (("cr:Float64", False), ("cr:Float64", True))
    assert (kinds["rejected"], kinds["knots"]) == (("cr:Int64", True), ("cr:UInt32", True))


def test_columns_that_are_declared_no_more_have_no_description(published):
    (one,) = (one for one in read_manifest(Location(published)).directories if one.frame == "runs")
    schema = pa.schema([("gone", pa.float64()), ("seed", pa.int64())])
    (records,) = json.loads(croissant_json(BUTTER, [one], [], {one.name: schema}))["recordSet"]
    assert [field.get("description") for field in records["field"]] == [None, "seed of all that is random in the run"]
