"""The spool: the rows of a source, sorted by experiment, in portions of bounded size."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl.exchange import gathering, sources
from butter_etl.exchange.gathering import spool_groups
from butter_etl.exchange.sources import Reader, scan_file
from butter_etl.studies.butter.study import BUTTER
from tests.strategies import DIGITS, POLLEN
from tests.test_sources import rows_of


@pytest.mark.parametrize(("most", "files"), [(sources.SLICE_BYTES, 1), (1, 9)])
def test_spooled_rows_are_the_rows(tmp_path, monkeypatch, most, files):
    monkeypatch.setattr(gathering, "SLICE_BYTES", most)
    rows = pa.concat_tables([rows_of(POLLEN, 0, range(5)), rows_of(DIGITS, 1, range(4))])
    order = np.random.default_rng(1).permutation(rows.num_rows)
    pq.write_table(rows.take(order), tmp_path / "a.parquet", row_group_size=6)
    scan = scan_file(BUTTER, str(tmp_path), "a.parquet", 0, BUTTER.profiles["seed"])
    assert [group.keys.size for group in scan.groups] == [6, 3]
    reader = Reader(BUTTER, str(tmp_path), str(tmp_path), "seed")
    spooled = spool_groups(reader, scan.groups, str(tmp_path))
    assert len({one.group.file for one in spooled}) == files
    for code, example in enumerate(scan.examples):
        own = [one for one in spooled if one.keys.tolist() == [code] * one.keys.size]
        back = pa.concat_tables([reader.read(one.group) for one in own])
        if files == 1:
            assert back["repetition"].to_pylist() == list(range(back.num_rows))
        back = back.sort_by("repetition")
        whole = rows.filter(pa.array(np.asarray(rows["experiment_id"]) == example.experiment_id))
        assert back.equals(whole)
        assert sum(one.bytes for one in own) > 0
    assert sum(one.keys.size for one in spooled) == rows.num_rows
