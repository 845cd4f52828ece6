"""Statistics over all runs of groups of experiments: what NumPy makes of the same runs, and never of what is apart."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import butter_etl as be
from butter_etl.errors import UsageError
from butter_etl.exchange.imports import run_import
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.groups import groups_of, in_order
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from butter_etl.studies.lifespans.tables import read_table
from butter_etl.summarize import group_rows
from tests.strategies import land
from tests.test_lifespan_formats import FILES, FOLDER

TABLES = [read_table(data) for data in FILES.values()]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    path = tmp_path_factory.mktemp("groups") / "networks"
    run_import(FOLDER, path, study=NN_LIFESPANS)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two data sets of two depths each, of different numbers of runs, some of them shorter."""
    store = Store.create(tmp_path_factory.mktemp("groups") / "store")
    rng = np.random.default_rng(1)
    for dataset in ("529_pollen", "banana"):
        for size, count in ((64, 2), (128, 3)):
            for depth in (2, 3):
                spec = make_experiment(dataset=dataset, size=size, depth=depth)
                lengths = [40 if repetition else 30 for repetition in range(count)]
                histories = {("val_loss", one): rng.random(lengths[one]).tolist() for one in range(count)}
                land(store, spec, BUTTER.fixed_ids.id_of(spec), list(range(count)), epochs=40, histories=histories)
    return store


@pytest.mark.parametrize("by", [["dataset", "n_conv_layers"], ["dataset", "val_mode", "train_images", "task"]])
def test_published_networks_are_summarised_by_what_they_share(networks, by):
    frame = be.read_curves(networks, by=by, series=["val_accuracy_percent", "val_loss"])
    assert set(frame["experiments"]) == {3}
    for name in ("val_accuracy_percent", "val_loss"):
        values = np.array([getattr(one, name) for one in TABLES])
        for statistic, wanted in (
            ("avg", values.mean(axis=0)),
            ("stddev", values.std(axis=0, ddof=1)),
            ("median", np.median(values, axis=0)),
            ("q1", np.quantile(values, 0.25, axis=0)),
            ("max", values.max(axis=0)),
        ):
            found = frame[(frame["series"] == name) & (frame["statistic"] == statistic)].sort_values("epoch")
            assert found["epoch"].tolist() == TABLES[0].epochs.tolist()
            np.testing.assert_allclose(found["value"].to_numpy(), wanted, rtol=1e-12)


def test_layer_types_make_groups(networks, tmp_path, run):
    code, out, err = run("curves", networks, tmp_path / "kinds.csv", "--by", "dataset", "--by", "layer_types")
    assert (code, err) == (0, "")
    assert "of 3 groups" in out
    with (tmp_path / "kinds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["layer_types"] for row in rows} == {" ".join(map(str, one.layer_types)) for one in TABLES}
    for one in TABLES:
        own = [row for row in rows if row["layer_types"] == " ".join(map(str, one.layer_types))]
        medians = [float(row["value"]) for row in own if row["statistic"] == "median"]
        assert medians == one.val_accuracy_percent.tolist()


def test_data_sets_are_apart_whatever_is_asked_for(store):
    frame = be.read_curves(store.location.root, by="depth")
    assert set(zip(frame["dataset"], frame["depth"], strict=True)) == {
        (dataset, depth) for dataset in ("529_pollen", "banana") for depth in (2, 3)
    }
    assert set(frame["experiments"]) == {2}
    runs = be.read_runs(store.location.root).compute()
    of = runs[(runs["dataset"] == "banana") & (runs["depth"] == 3)]["val_loss"].map(np.array).tolist()
    found = frame[(frame["dataset"] == "banana") & (frame["depth"] == 3)].set_index(["statistic", "epoch"])["value"]
    assert len(of) == 5
    for epoch in (1, 30, 31, 40):
        there = [float(one[epoch - 1]) for one in of if len(one) >= epoch]
        assert found["num_finite", epoch] == len(there) == (5 if epoch <= 30 else 3)
        assert found["median", epoch] == pytest.approx(np.median(there), rel=1e-6)


def test_what_cannot_be_grouped_is_one_line(store, networks, tmp_path, run):
    code, _, err = run("curves", store.location.root, tmp_path / "x.csv", "--by", "dept")
    assert (code, err.count("\n")) == (2, 1)
    assert "unknown column 'dept' (did you mean 'depth'?); known: activation, " in err
    for name in ("experiment_id", "epoch", "canonical_json"):
        with pytest.raises(UsageError, match=f"unknown column '{name}'"):
            be.read_curves(networks, by=name)
    runs = be.read_runs(networks).compute()
    points = runs["epoch"].map(lambda one: [point * 2 for point in one[:3]])
    columns = ["experiment_id", "dataset", "val_mode", "train_images", "task", "loss", "val_loss"]
    wanted = [*columns, "val_accuracy_percent"]
    table = pa.Table.from_pandas(runs[wanted], preserve_index=False)
    mixed = [points.iloc[0], *runs["epoch"].iloc[1:].map(list)]
    with pytest.raises(UsageError, match=r"dataset CIFAR100, .*: runs were measured at other epochs"):
        group_rows(NN_LIFESPANS, table.append_column("epoch", pa.array(mixed)), ["dataset"])


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 2)), st.lists(st.integers(0, 1), max_size=2)), min_size=1)
)
def test_every_row_is_in_the_group_of_its_values(rows):
    table = pa.table(
        {
            "number": pa.array([one for one, _ in rows], pa.int64()),
            "list": pa.array([one for _, one in rows], pa.list_(pa.int64())),
            "row": pa.array(range(len(rows))),
        }
    )
    found = groups_of(table, ["number", "list"])
    assert sorted(row for _, some in found for row in some["row"].to_pylist()) == list(range(len(rows)))
    for (number, values), some in found:
        assert set(some["number"].to_pylist()) == {number}
        assert {tuple(one) for one in some["list"].to_pylist()} == {values}
    assert [values for values, _ in found] == in_order((number, tuple(one)) for number, one in rows)
    assert groups_of(table, []) == [((), table)]
