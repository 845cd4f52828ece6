"""Other schemas of run frames: every column of ours has its place, and types that cannot be meant are refused."""

import pyarrow as pa
import pytest

from butter_etl.engines.contract import HISTORIES
from butter_etl.errors import SelectError, SourceError
from butter_etl.exchange.profiles import PROFILES, REQUIRED, check_columns, conform, find_profile
from butter_etl.studies.butter.columns import RUN_SCHEMA

V2 = PROFILES["oedi-2022-08"]


def schema_of(profile):
    fields = [field for field in RUN_SCHEMA if field.name not in profile.constants]
    return pa.schema([pa.field(profile.theirs(field.name), field.type) for field in fields])


def test_the_names_of_2022():
    assert V2.theirs("val_loss") == "test_loss"
    assert V2.theirs("loss") == "train_loss"
    assert V2.theirs("kernel_regularizer.l1") == "kernel_regularizer_l1"
    assert V2.theirs("kernel_regularizer") == "kernel_regularizer"
    assert {V2.theirs(name) for name in HISTORIES} & set(HISTORIES) == set()
    assert "test_split_method" not in V2.required()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_a_profile_maps_every_column_to_another(profile):
    schema = schema_of(profile)
    assert len(set(schema.names)) == len(schema.names)
    assert check_columns(schema, (), profile, "it") == []
    rows = conform(schema.empty_table(), {}, profile, RUN_SCHEMA, "it")
    assert rows.schema.equals(RUN_SCHEMA)


def test_unknown_profiles_are_refused():
    with pytest.raises(SelectError, match="known: seed, oedi-2022-08"):
        find_profile("v3")


@pytest.mark.parametrize("name", REQUIRED)
def test_each_required_column_is_missed(name):
    profile = PROFILES["seed"]
    schema = pa.schema([field for field in RUN_SCHEMA if field.name != name])
    with pytest.raises(SourceError, match=f"it: columns are missing: {name} "):
        check_columns(schema, (), profile, "it")
    assert check_columns(schema, [name], profile, "it") == []  # it may stand in the path


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
    place = RUN_SCHEMA.get_field_index(name)
    schema = RUN_SCHEMA.set(place, pa.field(name, kind))
    if fits:
        check_columns(schema, (), PROFILES["seed"], "it")
    else:
        with pytest.raises(SourceError, match=f"it: column '{name}' is .*, expected"):
            check_columns(schema, (), PROFILES["seed"], "it")


def test_keys_in_the_path_get_their_types():
    names = ["learning_rate", "depth", "primary_sweep", "kernel_regularizer.type", "early_stopping", "shape"]
    wanted = pa.schema([RUN_SCHEMA.field(name) for name in names])
    keys = {"learning_rate": "0.0001", "depth": "3", "primary_sweep": "true", "kernel_regularizer_type": None}
    table = pa.table({"shape": ["rectangle", "trapezoid"]})
    rows = conform(table, {**keys, "shape": "exponential"}, V2, wanted, "it").to_pylist()
    expected = {"learning_rate": pytest.approx(0.0001), "depth": 3, "primary_sweep": True}
    expected |= {"kernel_regularizer.type": None, "early_stopping": None}
    assert rows == [{**expected, "shape": shape} for shape in ("rectangle", "trapezoid")]  # the file goes first
    with pytest.raises(SourceError, match=r"it: column 'depth': .*three"):
        conform(table, {"depth": "three"}, V2, wanted, "it")
