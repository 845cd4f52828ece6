"""Encoded files of data sets: to the bit what encoding makes, and never what it would not make by now."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from butter_etl.studies.butter import datasets, encoded_files
from butter_etl.studies.butter.datasets import cached_dataset, keep_encoded, load_dataset
from butter_etl.studies.butter.encoded_files import encoded_path, is_encoded, read_encoded, write_encoded


@pytest.fixture(autouse=True)
def forgotten():
    """No data set is remembered from elsewhere."""
    datasets._remembered_dataset.cache_clear()
    yield
    datasets._remembered_dataset.cache_clear()


@st.composite
def contents(draw):
    rows = draw(st.integers(1, 50))
    numbers = st.integers(0, 2**32 - 1)
    return [draw(arrays(np.uint32, (rows, draw(st.integers(1, 9))), elements=numbers)).view(np.float32) for _ in "xy"]


@given(contents(), st.sampled_from([1, 7, 2**22]))
def test_what_is_read_is_what_was_written_to_the_bit(tmp_path_factory, content, group_rows):
    path = encoded_path("one", tmp_path_factory.mktemp("data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded_files, "_GROUP_ROWS", group_rows)
        write_encoded(path, "source", *content, "hash")
        x, y, sha256 = read_encoded(path, "source")
    assert sha256 == "hash"
    for found, expected in zip((x, y), content, strict=True):
        assert found.shape == expected.shape
        assert found.flags.c_contiguous
        assert found.tobytes() == expected.tobytes()
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_of_another_source_or_of_other_rules_is_not_read(tmp_path, monkeypatch):
    path = encoded_path("one", tmp_path)
    x = np.zeros((2, 3), np.float32)
    assert read_encoded(path, "now") is None
    assert not is_encoded(path, "now")
    write_encoded(path, "before", x, x, "hash")
    assert (read_encoded(path, "now"), is_encoded(path, "now")) == (None, False)
    assert is_encoded(path, "before")
    monkeypatch.setattr(encoded_files, "VERSION", 2)
    assert (read_encoded(path, "before"), is_encoded(path, "before")) == (None, False)
    pq.write_table(pa.table({"values": [1.0]}), path)
    assert (read_encoded(path, "before"), is_encoded(path, "before")) == (None, False)


def same(found, expected):
    return found.info == expected.info and all(
        one.tobytes() == other.tobytes() for one, other in ((found.x, expected.x), (found.y, expected.y))
    )


@pytest.mark.parametrize("name", ["wine", "digits", "nursery"])
def test_workers_read_what_the_driver_has_encoded(name, tmp_path, pmlb_dir, monkeypatch):
    if name == "nursery":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.tsv.gz").write_bytes(datasets.dataset_path(name, pmlb_dir).read_bytes())
    expected = load_dataset(name, tmp_path)
    keep_encoded(name, tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("it is encoded already"))
    keep_encoded(name, tmp_path)
    found = cached_dataset(name, tmp_path)
    assert same(found, expected)
    assert found.sha256 == expected.sha256


READS = """
import sys
from butter_etl.studies.butter.datasets import cached_dataset
cached_dataset("wine", sys.argv[1])
print(sorted({"pandas", "sklearn", "scipy", "pmlb"} & sys.modules.keys()))
"""


def test_reading_takes_neither_pandas_nor_scikit_learn(tmp_path):
    keep_encoded("wine", tmp_path)
    done = subprocess.run([sys.executable, "-c", READS, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("damage", ["page", "footer", "content"])
def test_a_damaged_file_is_encoded_anew_with_a_word(damage, tmp_path, caplog):
    expected = load_dataset("wine", tmp_path)
    keep_encoded("wine", tmp_path)
    path = encoded_path("wine", tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "content":
        write_encoded(path, datasets._source(expected.info, tmp_path), expected.x + 1, expected.y, expected.sha256)
    else:
        data[100 if damage == "page" else -20] ^= 0xFF
        path.write_bytes(data[:-9] if damage == "footer" else data)
    assert same(cached_dataset("wine", tmp_path), expected)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path} ")
    assert record.getMessage().endswith("the data set is encoded anew")


def test_where_nothing_can_be_written_workers_encode(tmp_path, caplog):
    (tmp_path / "wine").write_text("no folder")
    caplog.set_level("INFO", "butter_etl")
    keep_encoded("wine", tmp_path)
    (record,) = caplog.records
    assert "each worker encodes it" in record.getMessage()
    assert same(cached_dataset("wine", tmp_path), load_dataset("wine", tmp_path))
