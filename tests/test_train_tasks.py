"""Planning, cutting, the unit of work, and the driver on a real Dask cluster."""

import duckdb
import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.campaign import tasks
from butter_etl.campaign.cutting import (
    LONGEST_TASK,
    SHORTEST_TASK,
    End,
    Task,
    Wanted,
    cut_tasks,
    stack_limit,
    target_task_seconds,
)
from butter_etl.campaign.stacks import Item
from butter_etl.campaign.tasks import Settings, TaskStopped, train_and_land
from butter_etl.engines.batched import engine
from butter_etl.errors import DatasetError, SelectError
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter import costs
from butter_etl.studies.butter.datasets import DATASETS
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import experiment_topology, make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.studies.sweeps import FIRST_CLAIMED_ID
from butter_etl.train_tasks import open_campaign, plan_campaign, plan_runs, run_training, train
from tests.strategies import POLLEN, land

RATES = costs.DEFAULT_RATES["torch"]
SWEEP = """
name: tiny
repetitions: 3
cubes:
  - dataset: [breast_cancer, diabetes]
    size: [128, 256]
    depth: [2, 3]
    learning_rate: [0.01]
    batch_size: [64]
    epochs: [3]
  - {dataset: [diabetes], size: [32], depth: [20], epochs: [3]}
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SWEEP)
    return Choice(specs=(str(path),))


def landed(path):
    query = f"select experiment_id, repetition from read_parquet('{path}/all_runs/**/*.parquet') order by all"
    return duckdb.sql(query).fetchall()


def test_plan_counts_what_is_missing(tmp_path, tiny):
    campaign = plan_campaign(tmp_path / "store", tiny)
    plan = campaign.plan
    assert (plan.experiments, plan.infeasible, plan.there, plan.missing) == (8, 1, 0, 24)
    assert plan.groups == ["breast_cancer", "diabetes"]
    assert plan.core_seconds > 0
    assert campaign.store is None
    assert not (tmp_path / "store").exists()
    assert set(plan.tallies) == {("tiny", "breast_cancer"), ("tiny", "diabetes")}
    assert [tally.missing for tally in plan.tallies.values()] == [12, 12]
    most = max(wanted.core_seconds for wanted in plan.wanted)
    assert plan.seconds(1) == pytest.approx(sum(w.core_seconds * len(w.repetitions) for w in plan.wanted))
    assert plan.seconds(10**6) == most


def test_an_experiment_of_several_sweeps_is_planned_once(tmp_path):
    where = ("dataset=529_pollen", "shape=rectangle", "size=32", "depth=2", "batch_size=256", "learning_rate=0.0001")
    plan = plan_campaign(tmp_path / "store", Choice(sweeps=("learning_rate", "primary"), where=where)).plan
    alone = plan_campaign(tmp_path / "store", Choice(sweeps=("primary",), where=where)).plan
    assert (alone.experiments, alone.missing) == (1, 30)
    assert {sweep: tally.experiments for (sweep, _), tally in plan.tallies.items()} == {"learning_rate": 1}


def test_plan_leaves_out_what_is_there(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, 0, [1, 2, 7])
    where = ("dataset=529_pollen", "shape=rectangle", "size=32", "depth=2")
    plan = plan_campaign(tmp_path / "store", Choice(sweeps=("primary",), where=where, repetitions=5)).plan
    assert (plan.there, plan.missing) == (2, 3)
    assert plan.wanted[0].repetitions == (0, 3, 4)
    later = Choice(sweeps=("primary",), where=where, repetitions=4, first_repetition=6)
    assert plan_campaign(tmp_path / "store", later).plan.wanted[0].repetitions == (6, 8, 9)


def test_plan_refuses_more_runs_than_counts_can_hold(tmp_path):
    selection = Registry(None).select(Choice(sweeps=("primary",), where=("dataset=529_pollen", "size=32", "depth=2")))
    with pytest.raises(SelectError, match="529_pollen rectangle size 32 depth 2: 250 runs there, 30 more"):
        plan_runs(selection, Registry(None), {0: (1 << 250) - 1 << 100})


def test_plan_wants_a_sweep(tmp_path):
    with pytest.raises(SelectError, match="name what to train"):
        plan_campaign(tmp_path / "store", Choice(where=("dataset=mnist",)))


def wanted_of(costs_and_runs):
    return [
        Wanted(make_experiment(dataset="digits", size=1000 + k, depth=2), k, "b", tuple(range(runs)), cost, 1e5)
        for k, (cost, runs) in enumerate(costs_and_runs)
    ]


@given(st.lists(st.tuples(st.floats(0.01, 5000), st.integers(1, 40)), max_size=20), st.floats(5, 600))
def test_tasks_hold_every_run_once_and_are_even(costs_and_runs, target):
    wanted = wanted_of(costs_and_runs)
    tasks = list(cut_tasks(wanted, BUTTER, target, "cpu"))
    runs = [(item.experiment_id, rep) for task in tasks for item in task.items for rep in item.repetitions]
    assert sorted(runs) == [(one.experiment_id, rep) for one in wanted for rep in one.repetitions]
    cost = {one.experiment_id: one.core_seconds for one in wanted}
    for task in tasks:
        seconds = sum(cost[item.experiment_id] * len(item.repetitions) for item in task.items)
        assert seconds <= target * 1.0001 or task.runs == 1


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=80), st.integers(1, 5))
def test_workers_that_are_told_of_the_end_are_done_together(costs, workers):
    """Where the last task to end holds the others up, it is a single run, or as short as tasks get."""
    wanted = wanted_of((cost, 1) for cost in sorted(costs, reverse=True))
    cost, total = {one.experiment_id: one.core_seconds for one in wanted}, sum(costs)
    end = End(total, workers)
    tasks = list(cut_tasks(wanted, BUTTER, target_task_seconds(total, workers), "cpu", end=end))
    assert [item.experiment_id for task in tasks for item in task.items] == [one.experiment_id for one in wanted]
    ends = [(0.0, 0, 0.0)] * workers
    for task in tasks:  # each goes to the worker that is done first
        seconds = sum(cost[item.experiment_id] for item in task.items)
        ends.sort()
        ends[0] = ends[0][0] + seconds, task.runs, seconds
    makespan, runs, seconds = max(ends)
    assert makespan <= total / workers * (1 + 1e-9) or runs == 1 or seconds <= SHORTEST_TASK


def test_target_length_shares_the_work_out():
    assert target_task_seconds(1, 2) == SHORTEST_TASK
    assert target_task_seconds(1e9, 100) == LONGEST_TASK
    assert target_task_seconds(800, 10) == 20


def test_costs_grow_with_the_work():
    info = DATASETS["wine_quality_white"]
    small = costs.core_seconds(make_experiment(dataset=info.name, size=1024, depth=4), 1033, info, RATES)
    large = costs.core_seconds(make_experiment(dataset=info.name, size=2**20, depth=4), 2**20, info, RATES)
    assert large > 10 * small
    ten = make_experiment(dataset=info.name, size=1024, depth=4, epochs=10)
    assert costs.features(ten, 1000, info) == (10 * (6 * 3918 + 2 * 980) * 1000, 200, 800, 10 * 4898 * 7)
    assert costs.core_seconds(ten, 1000, info, costs.Rates(1e9, 1, 2, 3)) == pytest.approx(1030380.25468)
    assert stack_limit(costs.stack_bytes(1000, info), "cpu") > 255
    assert stack_limit(costs.stack_bytes(2**27, info), "cpu") == 1


@given(st.lists(st.tuples(st.floats(0.01, 50), st.integers(1, 40)), max_size=20), st.floats(5, 600))
def test_tasks_for_a_gpu_have_neighbours_that_fit_together(costs_and_runs, target):
    wanted = [
        msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, size=k % 2, learning_rate=0.1 * k))
        for k, one in enumerate(wanted_of(costs_and_runs))
    ]
    tasks = list(cut_tasks(wanted, BUTTER, target, "cuda"))
    runs = [(item.experiment_id, rep) for task in tasks for item in task.items for rep in item.repetitions]
    assert sorted(runs) == [(one.experiment_id, rep) for one in wanted for rep in one.repetitions]
    assert [run[0] % 2 for run in runs] == sorted(run[0] % 2 for run in runs)


def test_costs_on_a_gpu():
    info = DATASETS["wine_quality_white"]
    assert costs.load_rates("torch", "cuda") == costs.GPU_RATES
    large = costs.stack_bytes(2**20, info)
    assert stack_limit(large, "cuda") > stack_limit(large, "cpu")
    taken = []
    for size in (2**8, 2**12, 2**16, 2**20):
        spec = make_experiment(dataset=info.name, size=size, depth=4)
        topology = experiment_topology(spec)
        taken.append(costs.gpu_run_bytes(spec, topology, info))
        assert taken[-1] > 4 * (4 * topology.num_free_parameters + info.train_rows * info.outputs)
        limits = [costs.gpu_stack_limit(spec, topology, info, free) for free in (0, 1e9, 8e9, 80e9)]
        assert limits[0] == 1
        assert limits == sorted(limits)
        assert limits[3] * taken[-1] < 80e9
        assert costs.gpu_stack_limit(spec, topology, info, 1e15) == 2**16 - 1
    assert taken == sorted(taken)


def settings_of(store, tmp_path):
    return Settings(
        study=BUTTER, store=store.location.root, state=None, data_dir=str(tmp_path), engine="torch", device="cpu"
    )


def items_of(tmp_path, tiny):
    campaign = plan_campaign(tmp_path / "store", tiny)
    store = Store.create(tmp_path / "store")
    registry = campaign.registry
    registry.claim(store, {one.spec: "tiny" for one in campaign.plan.wanted})
    return store, [Item(one.spec, registry.experiment_id(one.spec), "tiny", (0, 1)) for one in campaign.plan.wanted]


def test_the_unit_of_work_trains_and_lands_what_is_missing(tmp_path, tiny):
    store, items = items_of(tmp_path, tiny)
    first = train_and_land(Task(tuple(items[:2])), settings_of(store, tmp_path))
    assert (first.landed, first.present) == (4, 0)
    again = train_and_land(Task(tuple(items[:3])), settings_of(store, tmp_path))
    assert (again.landed, again.present) == (2, 4)
    assert landed(tmp_path / "store") == [(FIRST_CLAIMED_ID + k, rep) for k in range(3) for rep in range(2)]
    (batch,) = {row["batch"] for file in store.run_files() for row in store.read_runs(file, ["batch"]).to_pylist()}
    assert batch == "tiny"


@pytest.fixture
def small_device(monkeypatch):
    """A CPU that runs out of memory, as a GPU does, where more than two runs are trained side by side."""
    run_backward = engine.run_backward

    def with_little_memory(layers, *arguments, **keywords):
        if layers.kernels[0].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        run_backward(layers, *arguments, **keywords)

    monkeypatch.setattr(engine, "run_backward", with_little_memory)


def test_a_stack_that_is_too_large_is_trained_in_halves(tmp_path, tiny, small_device, caplog):
    store, items = items_of(tmp_path, tiny)
    item = msgspec.structs.replace(items[0], repetitions=tuple(range(7)))
    report = train_and_land(Task((item, items[1])), settings_of(store, tmp_path))
    assert (report.landed, report.present) == (9, 0)
    expected = [(items[0].experiment_id, rep) for rep in range(7)] + [(items[1].experiment_id, rep) for rep in (0, 1)]
    assert landed(tmp_path / "store") == expected
    stacks = f"select distinct stack from read_parquet('{tmp_path}/store/all_runs/**/*.parquet')"
    assert {stack for (stack,) in duckdb.sql(stacks).fetchall()} <= {1, 2}
    assert "a stack of 7, layers" in caplog.text
    assert "trying halves" in caplog.text


def test_a_run_that_does_not_fit_alone_is_an_error(tmp_path, tiny, monkeypatch):
    def out_of_memory(*arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    store, items = items_of(tmp_path, tiny)
    monkeypatch.setattr(engine, "run_backward", out_of_memory)
    with pytest.raises(TaskStopped, match="a stack of 1, layers"):
        train_and_land(Task(tuple(items)), settings_of(store, tmp_path))


def test_neighbours_of_one_topology_train_side_by_side_on_a_gpu(tmp_path, tiny):
    _, items = items_of(tmp_path, tiny)
    sibling = msgspec.structs.replace(items[0], spec=msgspec.structs.replace(items[0].spec, learning_rate=0.1))
    task = [items[0], sibling, *items[1:3]]
    assert list(tasks._side_by_side(BUTTER, task, "cuda")) == [task[:2], [task[2]], [task[3]]]
    assert list(tasks._side_by_side(BUTTER, task, "cpu")) == [[item] for item in task]


def test_training_from_python_on_a_cluster(tmp_path, tiny, client):
    (spec,) = tiny.specs
    report = train(tmp_path / "store", spec=spec, client=client)
    assert (report.landed, report.present, report.failed, report.interrupted) == (24, 0, 0, False)
    assert report.core_seconds > 0
    expected = [(FIRST_CLAIMED_ID + k, rep) for k in range(8) for rep in range(3)]
    assert landed(tmp_path / "store") == expected
    again = train(tmp_path / "store", sweep="tiny", client=client)
    assert (again.landed, again.failed) == (0, 0)
    more = train(tmp_path / "store", sweep="tiny", repetitions=4, where=["dataset=diabetes"], client=client)
    assert more.landed == 4
    assert len(landed(tmp_path / "store")) == 28


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path, tiny, client):
    campaign = plan_campaign(tmp_path / "store", tiny)
    store, settings = open_campaign(campaign, tmp_path)
    registry = campaign.registry
    registry.claim(store, {one.spec: "tiny" for one in campaign.plan.wanted})
    blocked = campaign.plan.wanted[0].spec
    block = store.location.path(f"all_runs/dataset={blocked.dataset}/shape={blocked.shape}/learning_rate=0.01")
    from pathlib import Path

    Path(block).parent.mkdir(parents=True)
    Path(block).write_text("a file where a folder should be")
    seen = []
    report = run_training(campaign, store, settings, client, seen.append)
    assert (report.landed, report.present, report.failed) == (12, 0, 12)
    assert seen[-1].failed == 12
    assert {failure.experiment_id for failure in report.failures} == {FIRST_CLAIMED_ID + k for k in range(4)}
    recorded = store.failures(store.repetitions())
    assert [failure.repetitions for failure in recorded] == [[0, 1, 2]] * 4
    assert "landing in" in recorded[0].error
    assert "Traceback" in recorded[0].details
    Path(block).unlink()
    assert run_training(plan_campaign(tmp_path / "store", tiny), store, settings, client).landed == 12
    assert store.failures(store.repetitions()) == []


def test_a_missing_data_set_is_an_error_before_anything_is_written(tmp_path, client, monkeypatch):
    monkeypatch.setenv("BUTTER_ETL_PMLB_URL", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match=r"nursery.*\.tsv\.gz"):
        train(
            tmp_path / "store",
            sweep="primary",
            where=["dataset=nursery", "size=1024"],
            client=client,
            data_dir=tmp_path / "data",
        )
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("size", "sizes"), [(2**14, [200]), (2**20, [36, 36, 36, 36, 36, 20])])
def test_a_gpu_is_planned_by_its_own_rates(tmp_path, monkeypatch, size, sizes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sweep = tmp_path / "one.yaml"
    cube = f"{{dataset: [wine_quality_white], size: [{size}], depth: [4]}}"
    sweep.write_text(f"name: one\nrepetitions: 200\ncubes: [{cube}]\n")
    choice = Choice(specs=(str(sweep),))
    runs = {}
    for device in ("cpu", "cuda"):
        plan = plan_campaign(tmp_path / "store", choice, engine="torch", device=device).plan
        wanted = [msgspec.structs.replace(one, experiment_id=0) for one in plan.wanted]
        runs[device] = [task.runs for task in cut_tasks(wanted, BUTTER, LONGEST_TASK, device)]
    assert runs["cuda"] == sizes
    assert len(runs["cpu"]) > 5 * len(sizes)
