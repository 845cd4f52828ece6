"""Other schemas of run frames: every column of ours has its place, and types that cannot be meant are refused."""

import pyarrow as pa
import pytest

from butter_etl.engines.contract import HISTORIES
from butter_etl.errors import SelectError, SourceError
from butter_etl.exchange.profiles import check_columns, conform, find_profile, required
from butter_etl.studies.butter.study import BUTTER

SEED, V2 = BUTTER.profiles["seed"], BUTTER.profiles["oedi-2022-08"]


def schema_of(profile):
    fields = [field for field in BUTTER.runs if field.name not in profile.constants]
    return pa.schema([pa.field(profile.theirs(field.name), field.type) for field in fields])


def test_the_names_of_2022():
    assert V2.theirs("val_loss") == "test_loss"
    assert V2.theirs("loss") == "train_loss"
    assert V2.theirs("kernel_regularizer.l1") == "kernel_regularizer_l1"
    assert V2.theirs("kernel_regularizer") == "kernel_regularizer"
    assert {V2.theirs(name) for name in HISTORIES} & set(HISTORIES) == set()
    assert "test_split_method" not in required(BUTTER, V2)


@pytest.mark.parametrize("profile", BUTTER.profiles.values(), ids=list(BUTTER.profiles))
def test_a_profile_maps_every_column_to_another(profile):
    schema = schema_of(profile)
    assert len(set(schema.names)) == len(schema.names)
    assert check_columns(BUTTER, schema, (), profile, "it") == []
    rows = conform(schema.empty_table(), {}, profile, BUTTER.runs, "it")
    assert rows.schema.equals(BUTTER.runs)


def test_unknown_profiles_are_refused():
    with pytest.raises(SelectError, match="known: seed, oedi-2022-08"):
        find_profile(BUTTER, "v3")


@pytest.mark.parametrize("name", required(BUTTER, SEED))
def test_each_required_column_is_missed(name):
    schema = pa.schema([field for field in BUTTER.runs if field.name != name])
    with pytest.raises(SourceError, match=f"it: columns are missing: {name} "):
        check_columns(BUTTER, schema, (), SEED, "it")
    assert check_columns(BUTTER, schema, [name], SEED, "it") == []  # it may stand in the path


@pytest.mark.parametrize(
    ("name", "kind", "fits"),
    [
        ("depth", pa.int64(), True),
        ("depth", pa.float64(), False),
        ("depth", pa.string(), False),
        ("learning_rate", pa.float64(), True),
        ("learning_rate", pa.int32(), True),
        ("learning_rate", pa.string(), False),
        ("shape", pa.dictionary(pa.int8(), pa.large_string()), True),
        ("shape", pa.binary(), False),
        ("shape", pa.null(), True),
        ("primary_sweep", pa.int8(), False),
        ("val_loss", pa.large_list(pa.float64()), True),
        ("val_loss", pa.list_(pa.float32(), 3), True),
        ("val_loss", pa.list_(pa.string()), False),
        ("val_loss", pa.float32(), False),
    ],
)
def test_types(name, kind, fits):
    place = BUTTER.runs.get_field_index(name)
    schema = BUTTER.runs.set(place, pa.field(name, kind))
    if fits:
        check_columns(BUTTER, schema, (), SEED, "it")
    else:
        with pytest.raises(SourceError, match=f"it: column '{name}' is .*, expected"):
            check_columns(BUTTER, schema, (), SEED, "it")


def test_keys_in_the_path_get_their_types():
    names = ["learning_rate", "depth", "primary_sweep", "kernel_regularizer.type", "early_stopping", "shape"]
    wanted = pa.schema([BUTTER.runs.field(name) for name in names])
    keys = {"learning_rate": "0.0001", "depth": "3", "primary_sweep": "true", "kernel_regularizer_type": None}
    table = pa.table({"shape": ["rectangle", "trapezoid"]})
    rows = conform(table, {**keys, "shape": "exponential"}, V2, wanted, "it").to_pylist()
    expected = {"learning_rate": pytest.approx(0.0001), "depth": 3, "primary_sweep": True}
    expected |= {"kernel_regularizer.type": None, "early_stopping": None}
    assert rows == [{**expected, "shape": shape} for shape in ("rectangle", "trapezoid")]  # the file goes first
    with pytest.raises(SourceError, match=r"it: column 'depth': .*three"):
        conform(table, {"depth": "three"}, V2, wanted, "it")
