"""From an experiment to rows: provenance, identity, and independence of the stack."""

import json
import platform

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.campaign.stacks import Item, Stack, cut_stack, fitting_stacks, train_stack
from butter_etl.clusters.worker import host_facts
from butter_etl.engines.contract import HISTORIES
from butter_etl.engines.host import cpu_family
from butter_etl.errors import InfeasibleError
from butter_etl.studies.butter import costs
from butter_etl.studies.butter.datasets import load_dataset
from butter_etl.studies.butter.encoding import split_rows
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.butter.topology import find_topology
from butter_etl.studies.butter.training import network_of, optimization_of, stack_data, stack_key
from butter_etl.studies.experiments import RunSpec

SPEC = make_experiment(dataset="breast_cancer", size=256, depth=3, learning_rate=0.01, batch_size=64, epochs=4)


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("breast_cancer", None)


def train(spec, repetitions, dataset):
    (rows,) = train_stack(BUTTER, Stack((Item(spec, 7, "b", tuple(repetitions)),), "torch", "cpu"), dataset)
    return rows


def test_rows_hold_everything(dataset):
    rows = train(SPEC, [3, 4], dataset)
    assert rows.schema.equals(BUTTER.run_files)
    first, second = rows.to_pylist()
    assert first["run_id"] == RunSpec(SPEC, 3).run_id != second["run_id"]
    assert first["seed"] == RunSpec(SPEC, 3).seed
    assert (first["repetition"], second["repetition"]) == (3, 4)
    assert BUTTER.parse_command(first["command"]) == SPEC
    assert json.loads(first["command"])["repetition"] == 3
    assert first["python_version"] == platform.python_version()
    assert first["tensorflow_version"] is None
    assert first["torch_version"].startswith("2.")
    assert (first["engine"], first["device"], first["stack"], first["end_reason"]) == ("torch", "cpu", 2, "completed")
    assert first["core_seconds"] > 0
    assert first["start_time"] <= first["update_time"]
    assert sum(first["widths"]) > 0
    assert json.loads(first["network_structure"])["activation"] == "sigmoid"
    for name in HISTORIES:
        assert len(first[name]) == 4
        assert np.isfinite(first[name]).all()
        assert first[name] != second[name]


def test_a_run_does_not_depend_on_its_stack(dataset):
    together, alone = train(SPEC, [0, 1, 2], dataset), train(SPEC, [1], dataset)
    for name in HISTORIES:
        np.testing.assert_allclose(together[name][1].as_py(), alone[name][0].as_py(), rtol=2e-4, atol=1e-6)


def test_the_same_run_twice_is_the_same_to_the_bit(dataset):
    first, second = train(SPEC, [0, 1], dataset), train(SPEC, [0, 1], dataset)
    for name in HISTORIES:
        assert first[name].equals(second[name])


def test_each_run_has_its_own_split_and_noise(dataset):
    spec = make_experiment(dataset="breast_cancer", size=256, depth=3, label_noise=0.1)
    seeds = [RunSpec(spec, repetition).seed for repetition in range(2)]
    data = stack_data([spec, spec], dataset, seeds)
    train_rows, test_rows = split_rows(seeds[1], dataset.x.shape[0])
    np.testing.assert_array_equal(data.train_rows[1], train_rows)
    np.testing.assert_array_equal(data.test_rows[1], test_rows)
    changed = (data.train_targets[1] != dataset.y[train_rows]).sum()
    assert changed == int(0.1 * len(train_rows))
    assert not np.array_equal(data.train_rows[0], data.train_rows[1])


def test_parameters_reach_the_engine():
    spec = make_experiment(
        dataset="digits",
        size=1024,
        depth=4,
        shape="rectangle_residual",
        kernel_regularizer=Regularizer("l1", 0.01),
        optimizer="SGD",
        momentum=0.9,
    )
    network, optimization = network_of(spec, 884, (1, 1, 10)), optimization_of(spec)
    assert (network.residual, network.regularizer, network.penalty) == (True, "l1", 0.01)
    assert (network.loss, optimization.optimizer, optimization.momentum) == ("categorical_crossentropy", "SGD", 0.9)
    assert optimization_of(SPEC).momentum == 0.0


def test_infeasible_experiments_are_refused(dataset):
    with pytest.raises(InfeasibleError, match="within 20% of 32"):
        train(make_experiment(dataset="breast_cancer", size=32, depth=20), [0], dataset)


def test_learning_happens(dataset):
    spec = make_experiment(dataset="breast_cancer", size=1024, depth=3, learning_rate=0.01, batch_size=64, epochs=30)
    rows = train(spec, range(3), dataset).to_pylist()
    for row in rows:
        assert row["loss"][-1] < 0.3 * row["loss"][0]
        assert row["val_accuracy"][-1] > 0.9


def test_host_facts(monkeypatch):
    assert cpu_family()
    host_facts.cache_clear()
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert host_facts()["job_id"] == "4711"
    host_facts.cache_clear()


# -- stacks of several experiments


def sibling(**changes):
    """An experiment that differs from SPEC in what stacks may differ in."""
    settings = {"dataset": "breast_cancer", "size": 256, "depth": 3, "batch_size": 64, "epochs": 4}
    return make_experiment(**settings, **{"learning_rate": 0.01, **changes})


SIBLINGS = (
    Item(SPEC, 7, "b", (0, 3)),
    Item(sibling(learning_rate=0.001), 8, "b", (0,)),
    Item(sibling(kernel_regularizer=Regularizer("l1", 0.01), label_noise=0.2), 9, "other", (1, 2)),
    Item(sibling(kernel_regularizer=Regularizer("l2", 0.1)), 10, "b", (5,)),
)


@pytest.mark.parametrize("engine", ["torch", "fused"])
def test_experiments_of_equal_topology_train_as_one_stack(dataset, engine):
    assert len({stack_key(item.spec) for item in SIBLINGS}) == 1
    tables = train_stack(BUTTER, Stack(SIBLINGS, engine, "cpu"), dataset)
    for item, table in zip(SIBLINGS, tables, strict=True):
        assert table.schema.equals(BUTTER.run_files)
        assert set(table["stack"].to_pylist()) == {6}
        (alone,) = train_stack(BUTTER, Stack((item,), engine, "cpu"), dataset)
        own = {"stack", "core_seconds", "start_time", "update_time", *HISTORIES}
        constant = [name for name in table.schema.names if name not in own]
        assert table.select(constant).equals(alone.select(constant))
        for name in HISTORIES:
            tolerance = {"rtol": 2e-5, "atol": 1e-6} if engine == "torch" else {"rtol": 0}
            np.testing.assert_allclose(table[name].to_pylist(), alone[name].to_pylist(), **tolerance)


def test_experiments_of_other_topologies_are_no_stack(dataset):
    other = make_experiment(dataset="breast_cancer", size=512, depth=3)
    with pytest.raises(
        ValueError, match=r"breast_cancer .* and 1 more experiment: they cannot be trained side by side"
    ):
        train_stack(BUTTER, Stack((SIBLINGS[0], Item(other, 9, "b", (0,))), "torch", "cpu"), dataset)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 40))
def test_a_stack_is_cut_into_even_parts(sizes, most):
    items = tuple(Item(SIBLINGS[k % 4].spec, k, "b", tuple(range(k, k + size))) for k, size in enumerate(sizes))
    stack = Stack(items, "torch", "cuda")
    parts = cut_stack(stack, most)
    assert [run for part in parts for run in part.runs()] == stack.runs()
    counts = [len(part.runs()) for part in parts]
    assert max(counts) <= most
    assert max(counts) - min(counts) <= 1
    assert len(parts) == -(-sum(sizes) // most)
    assert {(part.engine, part.device) for part in parts} == {("torch", "cuda")}


def test_stacks_are_as_large_as_the_free_memory_of_the_gpu_allows(dataset, monkeypatch):
    from butter_etl import engines

    stack = Stack((Item(SPEC, 7, "b", tuple(range(200))),), "torch", "cuda")
    assert fitting_stacks(BUTTER, Stack(stack.items, "torch", "cpu"), dataset) == [Stack(stack.items, "torch", "cpu")]
    info = dataset.info
    topology = find_topology(SPEC.shape, SPEC.size, SPEC.depth, info.inputs, info.outputs)
    room = 70.5 * costs.gpu_run_bytes(SPEC, topology, info) / costs._GPU_SHARE
    nothing = next(free for free in range(0, 2**40, 2**20) if costs.gpu_stack_limit(SPEC, topology, info, free) > 1)
    for free, sizes in ((2**40, [200]), (nothing + room, [66, 67, 67]), (0, [1] * 200)):
        monkeypatch.setattr(engines, "free_gpu_bytes", lambda free=free: free)
        assert sorted(len(part.runs()) for part in fitting_stacks(BUTTER, stack, dataset)) == sizes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", [256, 2**16])
def test_a_stack_on_a_gpu_takes_no_more_memory_than_estimated(dataset, size):
    spec = make_experiment(dataset="breast_cancer", size=size, depth=4, epochs=4)
    info, topology = dataset.info, find_topology(spec.shape, size, 4, dataset.info.inputs, dataset.info.outputs)
    stack = Stack((Item(spec, 7, "b", tuple(range(100))),), "torch", "cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    train_stack(BUTTER, stack, dataset)
    taken = torch.cuda.max_memory_allocated() - before
    assert costs.gpu_stack_limit(spec, topology, info, taken / costs._GPU_SHARE) <= 100
