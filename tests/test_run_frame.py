"""The run frame of a store or an export: its files, its rows' names, what lies around a file."""

import pickle

import pytest

from butter_etl.errors import SelectError, StoreError
from butter_etl.store.store import Store
from butter_etl.upkeep.run_frame import RunFrame, name_runs
from tests.exports import export, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("frames") / "store")


def all_ids(store):
    return sorted(one for file in store.run_files() for one in store.read_runs(file, ["run_id"])["run_id"].to_pylist())


def test_runs_are_named_once_in_the_order_of_their_ids(store, client):
    frame = RunFrame.open(store.location.root)
    named = name_runs(frame)
    assert [run.run_id for run in named] == all_ids(store)
    assert name_runs(frame, client=client) == named
    assert {run.task for run in named} == {"butter_etl.train"}
    for run in named:
        part = frame.around(run.file)
        assert part.read_run(run.run_id)["run_id"].to_pylist() == [run.run_id]
    with pytest.raises(SelectError, match="has no run x any more"):
        frame.around(0).read_run("x")


def test_conditions_choose_by_partitions_and_by_rows(store):
    frame = RunFrame.open(store.location.root)
    assert len(name_runs(frame, ["label_noise=0.05"])) == 3
    assert len(name_runs(frame, ["kernel_regularizer.l1=0.32"])) == 3
    assert len(name_runs(frame, ["dataset=digits"])) == 2
    assert len(name_runs(frame, ["experiment_id>=16777216"])) == 2
    with pytest.raises(SelectError):
        name_runs(frame, ["size"])


def test_around_a_file_are_those_of_its_experiment(store):
    frame = RunFrame.open(store.location.root)
    sizes = {len(frame.around(place).files) for place in range(len(frame.files))}
    assert sizes == {1, 2}
    for place, file in enumerate(frame.files):
        part = pickle.loads(pickle.dumps(frame.around(place)))  # noqa: S301 (its own)
        assert part.files[0] == file
        ids = {one for other in part.files for one in part.read(other, ["experiment_id"])["experiment_id"].to_pylist()}
        assert len(ids) == 1


def test_exports_have_theirs(store, tmp_path):
    export(Store.open(store.location.root), tmp_path / "dest", "primary", compact=True)
    export(Store.open(store.location.root), tmp_path / "dest", where=["dataset=mnist"])
    named = name_runs(RunFrame.open(tmp_path / "dest"))
    assert len(named) == 18
    assert len(name_runs(RunFrame.open(tmp_path / "dest" / "primary_sweep_runs"))) == 6
    assert not RunFrame.open(tmp_path / "dest").is_store
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="is neither"):
        RunFrame.open(tmp_path / "empty")
