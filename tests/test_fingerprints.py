"""Fingerprints in footers: the quick way of reading them finds what pyarrow finds."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import TornFileError
from butter_etl.store.files import Location
from butter_etl.store.fingerprints import (
    METADATA_KEY,
    fingerprints_metadata,
    parse_fingerprints,
    raw_fingerprints,
    read_fingerprints,
)
from butter_etl.store.parquet import parquet_bytes

IDS = st.integers(0, 2**32 - 1)
HASHES = st.text("0123456789abcdef", min_size=32, max_size=32)
TABLE = pa.table({"experiment_id": pa.array([1, 2], pa.uint32()), "text": [METADATA_KEY.decode()] * 2})


@given(fingerprints=st.dictionaries(IDS, HASHES, max_size=400))
def test_the_quick_way_finds_what_pyarrow_finds(fingerprints, tmp_path_factory):
    location = Location(tmp_path_factory.mktemp("files"))
    data = parquet_bytes(TABLE, metadata=fingerprints_metadata(fingerprints) | {"another": "key"})
    location.write_new("file.parquet", data)
    assert read_fingerprints(location, "file.parquet") == fingerprints
    text = raw_fingerprints(location, "file.parquet")
    assert text == pq.read_metadata(location.path("file.parquet")).metadata[METADATA_KEY]
    assert parse_fingerprints(text) == fingerprints


def test_footers_longer_than_the_first_read(tmp_path, monkeypatch):
    monkeypatch.setattr("butter_etl.store.fingerprints._TAIL", 64)
    location = Location(tmp_path)
    location.write_new("file.parquet", parquet_bytes(TABLE, metadata=fingerprints_metadata({7: "ab"})))
    assert read_fingerprints(location, "file.parquet") == {7: "ab"}


def test_files_without_fingerprints_and_no_file(tmp_path):
    location = Location(tmp_path)
    location.write_new("file.parquet", parquet_bytes(TABLE))
    assert read_fingerprints(location, "file.parquet") == {}
    assert raw_fingerprints(location, "nothing.parquet") is None
    assert read_fingerprints(location, "nothing.parquet") == {}


@pytest.mark.parametrize("length", [0, 3, 100, -1])
def test_torn_files_are_named(tmp_path, length):
    location = Location(tmp_path)
    data = parquet_bytes(TABLE, metadata=fingerprints_metadata({7: "ab"}))
    location.write_new("file.parquet", data[:length])
    with pytest.raises(TornFileError, match=r"file\.parquet"):
        read_fingerprints(location, "file.parquet")
