"""Fitness in summaries: the published networks' numbers, and what an experiment of several runs says."""

import numpy as np
import pyarrow as pa
import pytest

import butter_etl as be
from butter_etl.studies.lifespans.fitness import FITNESS, foretell
from butter_etl.studies.lifespans.tables import read_table
from tests.test_lifespan_tables import GENUINE


def runs_of(*accuracies):
    lists = [list(one) for one in accuracies]
    return pa.table({"epoch": [[(k + 1) / 2 for k in range(len(one))] for one in lists], "val_accuracy_percent": lists})


def test_the_published_networks(tmp_path):
    """Accuracies at epoch 20 are those that PENGUIN's own output has."""
    (tmp_path / "tables").mkdir()
    for path in GENUINE:
        (tmp_path / "tables" / path.name).write_bytes(path.read_bytes())
    be.import_runs(tmp_path / "tables", tmp_path / "store", study="nn_lifespans")
    be.summarize_store(tmp_path / "store", study="nn_lifespans")
    summary = be.read_summary(tmp_path / "store").compute()
    assert set(summary["fitness_actual_median"].dropna()) <= {26.99, 1.125989044430919, 16.842105263157894}
    assert summary["fitness_converged"].sum() >= 2
    some = summary[summary["fitness_converged"] > 0]
    assert (abs(some["fitness_predicted_median"] - some["fitness_actual_median"]) < 7).all()
    assert ((some["fitness_epoch_median"] > 1) & (some["fitness_epoch_median"] < 20)).all()


def test_runs_that_do_not_agree_are_null():
    rng = np.random.default_rng(1)
    said = foretell(runs_of(rng.uniform(0, 100, 40)))
    assert set(said) == {one.name for one in FITNESS.columns}
    assert said["fitness_converged"] in (0, 1)
    assert foretell(runs_of([]))["fitness_converged"] == 0
    assert foretell(runs_of([], [float("nan")] * 80))["fitness_epoch_median"] is None


def test_medians_are_over_the_runs_that_agree():
    points = np.arange(1, 81) / 2
    curves = [top - 1.2 ** (15 - 2 * points) for top in (50.0, 60.0, 70.0)]
    said = foretell(runs_of(*curves, []))
    assert said["fitness_converged"] == 3
    assert said["fitness_predicted_median"] == pytest.approx(60 - 1.2 ** (15 - 40), abs=0.6)
    assert said["fitness_actual_median"] == curves[1][39]


def test_genuine_tables_are_read():
    assert all(len(read_table(path.read_bytes()).epochs) == 80 for path in GENUINE)
