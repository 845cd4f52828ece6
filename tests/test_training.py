"""From an experiment to rows: provenance, identity, and independence of the stack."""

import json
import platform

import numpy as np
import pytest

from butter_etl.datasets import load_dataset, split_rows
from butter_etl.errors import InfeasibleError
from butter_etl.provenance import cpu_family, host_facts
from butter_etl.schema import HISTORIES, RUN_FILE_SCHEMA
from butter_etl.spec import Regularizer, RunSpec, parse_command
from butter_etl.sweeps import make_experiment
from butter_etl.training import Item, Stack, network_of, optimization_of, stack_data, train_stack

SPEC = make_experiment(dataset="breast_cancer", size=256, depth=3, learning_rate=0.01, batch_size=64, epochs=4)


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("breast_cancer", None)


def train(spec, repetitions, dataset):
    (rows,) = train_stack(Stack((Item(spec, 7, "b", tuple(repetitions)),), "torch"), dataset)
    return rows


def test_rows_hold_everything(dataset):
    rows = train(SPEC, [3, 4], dataset)
    assert rows.schema.equals(RUN_FILE_SCHEMA)
    first, second = rows.to_pylist()
    assert first["run_id"] == RunSpec(SPEC, 3).run_id != second["run_id"]
    assert first["seed"] == RunSpec(SPEC, 3).seed
    assert (first["repetition"], second["repetition"]) == (3, 4)
    assert parse_command(first["command"]) == SPEC
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
