"""What a store keeps of users' own data sets: written once, read by workers, damage found."""

import duckdb
import numpy as np
import pytest

from butter_etl.errors import DatasetError, TornFileError
from butter_etl.store.copies import cached_copy, copy_names, difference, keep, read_copy, read_kept, require_copy
from butter_etl.store.store import Store
from butter_etl.studies.butter.declarations import Declaration
from butter_etl.studies.butter.kept_tables import TABLES
from butter_etl.studies.butter.own_data import load_content

DECLARED = Declaration(
    file="mine.csv", task="classification", target="kind", columns={"size": "numeric", "area": "numeric"}
)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def make(folder, rows=20, extra=0.0, kinds=("a", "b", "c")):
    """A content and the file that it was read from."""
    path = folder / "mine.csv"
    lines = [f"{k},{k * k + (extra if k == 3 else 0)},{kinds[k % len(kinds)]}" for k in range(rows)]
    path.write_text("\n".join(["size,area,kind", *lines]) + "\n")
    return load_content("mine", DECLARED, path, "place"), path


def test_a_copy_is_what_was_kept(store, tmp_path):
    content, path = make(tmp_path)
    assert read_kept(store.location, "mine", TABLES) is None
    keep(store, content, DECLARED, path, TABLES)
    keep(store, content, DECLARED, path, TABLES)
    assert copy_names(store.location) == ["mine"]
    read = read_copy(store.location, content.info, TABLES)
    assert (read.x.dtype, read.x.flags.c_contiguous) == (np.float32, True)
    assert (read.info, read.x.tobytes(), read.y.tobytes()) == (content.info, content.x.tobytes(), content.y.tobytes())
    assert cached_copy(store.location, content.info, TABLES) is cached_copy(store.location, content.info, TABLES)
    kept = read_kept(store.location, "mine", TABLES)
    assert (kept.declaration, kept.source, kept.inputs) == (DECLARED, "mine.csv", ("size", "area"))
    file = store.location.path("datasets/mine.parquet")
    rows = duckdb.sql(f"select x, y from '{file}'").fetchall()
    assert rows == list(zip(content.x.tolist(), content.y.tolist(), strict=True))


def test_a_name_stands_for_one_content(store, tmp_path):
    first, path = make(tmp_path)
    keep(store, first, DECLARED, path, TABLES)
    other, path = make(tmp_path, rows=21)
    with pytest.raises(DatasetError, match=r"data set mine: .*store has that name for other content \(SHA-256"):
        keep(store, other, DECLARED, path, TABLES)
    assert read_copy(store.location, first.info, TABLES).info == first.info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 21}, "it has 21 rows, not 20"),
        ({"extra": 0.5}, "column 'area' differs in row 4"),
        ({"kinds": ("a", "b")}, "it has 1 targets, not 3 ('kind=b' is gone)"),
        ({"kinds": ("b", "a", "c")}, "target 'kind=a' differs in row 1"),
    ],
)
def test_differences_are_named(store, tmp_path, change, message):
    first, path = make(tmp_path)
    keep(store, first, DECLARED, path, TABLES)
    other, _ = make(tmp_path, **change)
    assert difference(store.location, first.info, other, TABLES) == message


def test_what_is_not_there_or_damaged_is_named(store, tmp_path):
    content, path = make(tmp_path)
    with pytest.raises(DatasetError, match="keeps no copy of data set mine; train with --spec"):
        require_copy(store.location, content.info, TABLES)
    keep(store, content, DECLARED, path, TABLES)
    file = tmp_path / "store/datasets/mine.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:-30])
    with pytest.raises(TornFileError, match=r"datasets/mine.parquet cannot be read .*verify --repair"):
        read_copy(store.location, content.info, TABLES)
    other, other_path = make(tmp_path, extra=0.5)
    file.unlink()
    keep(store, other, DECLARED, other_path, TABLES)
    file.rename(file.with_name("renamed.parquet"))
    with pytest.raises(DatasetError, match=r"renamed.parquet: is the copy of 'mine'; .*verify --repair"):
        read_kept(store.location, "renamed", TABLES)
    footer = content.info.sha256[0].encode()
    forged = file.with_name("renamed.parquet").read_bytes().replace(other.info.sha256[0].encode(), footer)
    file.write_bytes(forged)
    with pytest.raises(DatasetError, match=r"mine.parquet: has content .*, not .*verify --repair"):
        read_copy(store.location, content.info, TABLES)
