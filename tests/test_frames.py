"""The frames as Dask dataframes: list columns stay lists of float32, conditions and columns prune."""

import pandas as pd
import pyarrow as pa
import pytest

import butter_etl as be
from butter_etl.engines.contract import HISTORIES
from butter_etl.errors import SelectError, StoreError
from butter_etl.store import frames
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from tests.strategies import land

LIST = pd.ArrowDtype(pa.list_(pa.field("element", pa.float32())))
PENALISED = make_experiment(dataset="mnist", size=4096, depth=3, kernel_regularizer=Regularizer("l2", 0.02))


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    for experiment_id in (0, 1, 14):
        land(store, BUTTER.fixed_ids.experiment(experiment_id), experiment_id, range(3))
        land(store, BUTTER.fixed_ids.experiment(experiment_id), experiment_id, range(3, 5))
    land(store, PENALISED, BUTTER.fixed_ids.id_of(PENALISED), range(2))
    return str(tmp_path / "store")


def test_types_survive(store):
    runs = be.read_runs(store)
    for frame in (runs._meta, runs.compute(scheduler="synchronous")):
        assert list(frame.columns) == BUTTER.runs.names
        assert all(frame.dtypes[name] == LIST for name in HISTORIES)
        assert frame.dtypes["learning_rate"] == pd.ArrowDtype(pa.float32())
        assert frame.dtypes["kernel_regularizer.type"] == pd.ArrowDtype(pa.string())
        assert frame.dtypes["size"] == pd.ArrowDtype(pa.uint64())
    assert len(runs) == 17


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        (["dataset=mnist"], 2),
        (["depth=2"], 10),
        (["size=64"], 5),
        (["learning_rate=0.0001", "label_noise=0"], 17),
        (["kernel_regularizer.type=null"], 15),
        (["kernel_regularizer.l2=0.02"], 2),
        (["kernel_regularizer.l2<0.019999"], 0),
        (["experiment_id=14"], 5),
        (["experiment_id=0,1,7"], 10),
        (["experiment_id!=0", "experiment_id<14"], 5),
        (["dataset=mnist,529_pollen", "depth!=2"], 7),
        (["dataset=nursery"], 0),
    ],
)
def test_conditions(store, where, rows):
    frame = be.read_runs(store, where=where).compute(scheduler="synchronous")
    assert len(frame) == rows
    assert frame.dtypes["val_loss"] == LIST


def test_columns(store):
    frame = be.read_runs(store, where=["size=64"], columns=["val_loss", "depth", "run_id"]).compute(
        scheduler="synchronous"
    )
    assert list(frame.columns) == ["val_loss", "depth", "run_id"]
    assert set(frame["depth"]) == {2}


def test_experiments_are_never_split(store, monkeypatch):
    monkeypatch.setattr(frames, "GROUP_BYTES", 1)
    runs = be.read_runs(store)
    assert runs.npartitions == 4
    ids = [set(runs.partitions[k].compute(scheduler="synchronous")["experiment_id"]) for k in range(4)]
    assert all(len(one) == 1 for one in ids)
    assert len(set.union(*ids)) == 4


def test_an_empty_store_has_empty_frames(tmp_path):
    Store.create(tmp_path / "empty")
    assert len(be.read_runs(tmp_path / "empty").compute(scheduler="synchronous")) == 0
    assert len(be.read_summary(tmp_path / "empty").compute(scheduler="synchronous")) == 0


def test_refusals(store, tmp_path):
    with pytest.raises(SelectError, match="unknown key 'datset'"):
        be.read_runs(store, where=["datset=mnist"])
    with pytest.raises(SelectError, match=r"unknown column 'val_los' \(did you mean 'val_loss'"):
        be.read_runs(store, columns=["val_los"])
    with pytest.raises(StoreError, match="does not exist"):
        be.read_runs(tmp_path / "none")
    with pytest.raises(StoreError, match="is no exported directory"):
        be.read_export(store)


def test_the_public_names():
    assert set(be.__all__) <= set(dir(be))
    for name in be.__all__:
        assert callable(getattr(be, name))
    with pytest.raises(AttributeError, match="attribute nothing"):
        be.nothing  # noqa: B018
