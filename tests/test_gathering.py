"""Experiments of a source: gathered from its groups, packed to tasks, spooled where reading again would be dear."""

import numpy as np
import pytest

from butter_etl.exchange import gathering
from butter_etl.exchange.gathering import gather, must_spool, pack, without
from butter_etl.exchange.sources import Example, FileScan, Group, GroupScan
from butter_etl.store.registry import Registry
from butter_etl.studies.butter.study import BUTTER

SPECS = [BUTTER.fixed_ids.experiment(number) for number in range(0, 400, 4)]


def scans(groups, size):
    """Files of one group each; a group is a list of places in `SPECS`, a row each."""
    found = []
    for number, places in enumerate(groups):
        own = sorted(set(places))
        keys = np.array([own.index(place) for place in places], np.int32)
        ids = np.arange(len(places), dtype=np.uint64) + np.uint64(1000 * number)
        group = GroupScan(Group(f"{number}.parquet", 0), size, keys, ids)
        examples = [Example(SPECS[place], number, "b") for place in own]
        found.append(FileScan([group], examples, []))
    return found


def bytes_of(found):
    return {group.group: group.bytes for scan in found for group in scan.groups}


def test_every_row_belongs_to_one_experiment():
    groups = [[3, 1, 3], [1, 1], [2]]
    items = gather(scans(groups, 600), Registry(None))
    assert [item.arrival.experiment for item in items] == [SPECS[1], SPECS[3], SPECS[2]]
    assert [item.rows for item in items] == [3, 2, 1]
    assert [item.bytes for item in items] == [200 + 600, 400, 600]
    assert [item.example.experiment_id for item in items] == [0, 0, 2]
    assert sorted(np.concatenate([item.run_ids for item in items])) == [0, 1, 2, 1000, 1001, 2000]
    assert [piece.places if piece.places is None else piece.places.tolist() for piece in items[0].pieces] == [[1], None]
    assert without(items[0], frozenset(["0.parquet"])).rows == 2
    assert not any(item.repeats for item in items)


@pytest.mark.parametrize(("groups", "spools"), [("sorted", False), ("scattered", True)])
def test_scattered_rows_are_spooled_and_sorted_ones_are_not(groups, spools, monkeypatch):
    monkeypatch.setattr(gathering, "_TASK_BYTES", 10_000)
    places = np.sort(np.tile(np.arange(100), 10))
    if groups == "scattered":
        places = np.random.default_rng(0).permutation(places)
    found = scans([part.tolist() for part in np.array_split(places, 25)], 4_000)
    items = gather(found, Registry(None))
    tasks = list(pack(items))
    assert [item for task in tasks for item in task] == items
    assert all(sum(item.bytes for item in task) <= 10_000 for task in tasks)
    assert bool(must_spool(items, bytes_of(found))) == spools


def test_large_groups_of_several_experiments_are_spooled():
    found = scans([[1, 2], [3]], 2**30)
    assert must_spool(gather(found, Registry(None)), bytes_of(found)) == {Group("0.parquet", 0)}
