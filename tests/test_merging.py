"""Runs that arrive meet those of a store: comparing bits, and repetition numbers, by Hypothesis."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.errors import DuplicateError, SpecError
from butter_etl.exchange.gathering import Arrival
from butter_etl.exchange.merging import compare, merge
from butter_etl.exchange.profiles import conform
from butter_etl.store.layout import partition_path
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from tests.strategies import POLLEN, land, make_runs

FOREIGN = BUTTER.foreign("other", 1, POLLEN.parameters())
PARTITION = partition_path(BUTTER.keys, POLLEN.parameters())


def arriving(names, histories=None, numbers=None):
    """Rows of the run schema of one experiment, with these run ids."""
    table = make_runs(POLLEN, 7, range(len(names)), histories=histories)
    for key, value in POLLEN.parameters().items():
        if key not in table.column_names:
            table = table.append_column(key, pa.array([value] * len(names), BUTTER.runs.field(key).type))
    table = table.set_column(1, "run_id", pa.array(names))
    place = table.schema.get_field_index("repetition")
    numbers = pa.array(numbers or [None] * len(names), pa.uint16())
    return conform(table.set_column(place, "repetition", numbers), {}, BUTTER.profiles["seed"], BUTTER.runs, "it")


def numbers_of(store):
    rows = [row for file in store.run_files() for row in store.read_runs(file, ["run_id", "repetition"]).to_pylist()]
    return {row["run_id"]: row["repetition"] for row in rows}


@settings(max_examples=20)
@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=1, max_size=4))
def test_runs_of_another_task_are_ranked_and_counted_on(tmp_path_factory, sources):
    store = Store.create(tmp_path_factory.mktemp("store"))
    arrival = Arrival(FOREIGN, 500_000, PARTITION)
    expected = {}
    for source in sources:
        names = [f"{number:02d}" for number in source]
        np.random.default_rng(0).shuffle(names)
        new = sorted(set(names) - expected.keys())
        histories = {("val_loss", row): [float(name)] for row, name in enumerate(names)}
        rows = arriving(names, {("loss", row): [0.5] for row in range(len(names))} | histories)
        rows = same_noise(rows)
        merged = merge(store, arrival, rows, None)
        assert merged == (len(new), len(names) - len(new), 0)
        expected |= {name: len(expected) + rank for rank, name in enumerate(new)}
        assert numbers_of(store) == expected


def same_noise(rows):
    """Histories that depend on nothing but the id, as those of the same run do."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_list(field.type) and field.name not in ("val_loss", "widths"):
            rows = rows.set_column(place, field, pa.array([[0.5]] * rows.num_rows, field.type))
    return rows


def test_numbers_are_kept_if_all_are_free(tmp_path):
    store = Store.create(tmp_path)
    arrival = Arrival(FOREIGN, 500_000, PARTITION)
    merge(store, arrival, arriving(["b", "a"], numbers=[4, 9]), None)
    assert numbers_of(store) == {"b": 4, "a": 9}
    merge(store, arrival, arriving(["d", "c"], numbers=[4, 5]), None)  # one is taken: counted on
    assert numbers_of(store) == {"b": 4, "a": 9, "c": 10, "d": 11}
    merge(store, arrival, arriving(["e"], numbers=[65535]), None)
    with pytest.raises(SpecError, match="repetitions go up to 65535, not 65536"):
        merge(store, arrival, arriving(["f"]), None)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ([1.0, float("nan")], [1.0, float("nan")], True),
        ([1.0, None], [1.0, None], True),
        ([1.0, None], [1.0, 0.0], False),
        ([1.0, float("nan")], [1.0, None], False),
        ([0.0], [-0.0], False),
        ([1.0], [1.0, 2.0], False),
        ([], None, False),
        (None, None, True),
        ([1.0], [np.nextafter(np.float32(1), np.float32(2))], False),
    ],
)
def test_histories_are_compared_bit_by_bit(first, second, same):
    rows = [same_noise(arriving(["x", "y"], {("val_loss", 0): one, ("val_loss", 1): [3.0]})) for one in (first, second)]
    found = compare(BUTTER, None, Arrival(FOREIGN, None, PARTITION), pa.concat_tables(rows), None)
    assert found.new.num_rows == 2
    assert found.ambiguous == ([] if same else ["x"])


def test_a_repetition_of_ours_under_another_id_is_refused(tmp_path):
    store = Store.create(tmp_path)
    land(store, POLLEN, 0, range(3))
    with pytest.raises(DuplicateError, match="repetition 1 is there under another run_id"):
        merge(store, Arrival(POLLEN, 0, PARTITION), arriving(["x"], numbers=[1]), None)
