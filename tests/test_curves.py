"""Curves in long form: every value of the summary, once, in files that other readers take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import butter_etl as be
from butter_etl.cli.group import main
from butter_etl.errors import StaleSummaryWarning, UsageError
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.study import Points
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.views import plot
from butter_etl.views.curves import POINTS, curves_table
from tests.strategies import land

EPOCHS = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two experiments of three runs; one of them has an epoch without a finite loss."""
    store = Store.create(tmp_path_factory.mktemp("curves") / "store")
    for dataset in ("529_pollen", "banana"):
        spec = make_experiment(dataset=dataset, size=64, depth=2)
        losses = [64 / epoch for epoch in range(1, EPOCHS + 1)]
        losses[4] = float("nan") if dataset == "banana" else losses[4]
        histories = {(name, repetition): losses for name in ("val_loss", "val_accuracy") for repetition in range(3)}
        land(store, spec, BUTTER.fixed_ids.id_of(spec), [0, 1, 2], epochs=EPOCHS, histories=histories)
    run_summaries(plan_summaries(store), store)
    return store


@pytest.fixture(scope="module")
def summary(store):
    return plot.summary_table(str(store))


def test_every_value_of_the_summary_is_there_once(store, summary):
    frame = be.read_curves(str(store), series=["test_loss", "test_accuracy"])
    assert list(frame.columns)[-4:] == ["epoch", "series", "statistic", "value"]
    assert not frame.duplicated(["experiment_id", "epoch", "series", "statistic"]).any()
    assert {"median", "q1", "q3", "avg", "num_finite"} <= set(frame["statistic"])
    total = 0
    for row in summary.to_pylist():
        own = frame[frame["experiment_id"] == row["experiment_id"]]
        assert set(own["dataset"]) == {row["dataset"]}
        for (series, statistic), part in own.groupby(["series", "statistic"]):
            there = {epoch: value for epoch, value in enumerate(row[f"{series}_{statistic}"], 1) if value is not None}
            found = dict(zip(part["epoch"], part["value"], strict=True))
            np.testing.assert_equal(found, there)
            total += len(part)
    assert total == len(frame)


def test_a_median_can_be_drawn_from_two_lines_of_pandas(store):
    frame = be.read_curves(str(store), ["dataset=529_pollen"])
    medians = frame[frame["statistic"] == "median"].set_index("epoch")["value"]
    np.testing.assert_allclose(medians, 64 / medians.index.to_numpy(float), rtol=1e-6)
    assert set(frame["series"]) == {"test_loss"}


def test_points_are_thinned_evenly_on_a_log_scale(store):
    frame = be.read_curves(str(store), ["dataset=529_pollen"], epochs="log")
    epochs = frame[frame["statistic"] == "median"]["epoch"].tolist()
    assert (epochs[0], epochs[-1]) == (1, EPOCHS)
    assert 30 < len(epochs) <= POINTS
    assert max(np.diff(np.log(epochs))) <= np.log(2) + 1e-9


def test_points_are_those_of_the_study(summary):
    halves = replace(BUTTER, points=Points("step", first=0.5, step=0.5))
    table = curves_table(summary.slice(0, 1), study=halves)
    assert table["step"].type == pa.float64()
    assert table["step"].to_pylist()[:3] == [0.5, 1.0, 1.5]
    assert curves_table(summary.slice(0, 0))["epoch"].type == pa.int64()
    assert curves_table(summary.slice(0, 0)).num_rows == 0


def walk(resume, value: int = 3, seed: int = 0):
    """A training function of somebody's own, one of whose parameters is called as a column of ours."""
    resume.keep()
    yield {"loss": float(value + seed)}


def test_a_parameter_that_is_called_as_one_of_our_columns_keeps_a_name_of_its_own():
    study = be.study_of(walk, name="walks", histories=["loss"], points=1)
    row = {"experiment_id": 1, "value": 2, "loss_median": [0.5]}
    summary = pa.Table.from_pylist([row], schema=study.summary)
    table = curves_table(summary, study=study)
    assert table.column_names == ["experiment_id", "experiment_value", "epoch", "series", "statistic", "value"]
    assert table.to_pylist() == [
        {
            "experiment_id": 1,
            "experiment_value": 2,
            "epoch": 1,
            "series": "loss",
            "statistic": "median",
            "value": 0.5,
        }
    ]
    assert curves_table(summary.slice(0, 0), study=study).schema == table.schema


def test_of_an_export_they_are_those_of_the_store(store, tmp_path):
    be.export(store.location.root, tmp_path / "dest", where=["dataset=529_pollen"])
    exported = be.read_curves(str(tmp_path / "dest" / "complete_summary"), epochs="log")
    pd.testing.assert_frame_equal(exported, be.read_curves(str(store), ["dataset=529_pollen"], epochs="log"))


@pytest.mark.parametrize("name", ["curves.csv", "curves.parquet"])
def test_files_are_what_others_read(store, summary, tmp_path, name, capsys):
    path = tmp_path / name
    with pytest.raises(SystemExit) as done:
        main(["curves", str(store), str(path), "--epochs", "log", "--where", "dataset=banana"])
    assert done.value.code in (0, None)
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    frame = read(path)
    assert capsys.readouterr().out == f"wrote {path}: {len(frame):,} rows of 1 experiment\n"
    expected = be.read_curves(str(store), ["dataset=banana"], epochs="log")
    assert list(frame.columns) == list(expected.columns)
    np.testing.assert_array_equal(frame["value"], expected["value"])
    np.testing.assert_array_equal(frame["epoch"], expected["epoch"].astype("int64"))
    assert set(frame["dataset"]) == {"banana"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves.txt"], "curves.txt: curves are written to .csv or .parquet [usage]"),
        (["curves.csv", "--series", "test_los"], "unknown series 'test_los' (did you mean 'test_loss'?)"),
        (["no/such/curves.csv"], "no/such/curves.csv"),
    ],
)
def test_what_cannot_be_written_is_one_line(store, tmp_path, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["curves", str(store), *arguments])
    assert done.value.code not in (0, None)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_summaries_that_miss_runs_are_told(store, tmp_path, capsys):
    spec = make_experiment(dataset="banana", size=128, depth=2)
    land(store, spec, BUTTER.fixed_ids.id_of(spec), [0], epochs=3)
    with pytest.warns(StaleSummaryWarning, match="the summaries of 1 experiment are missing or out of date"):
        be.read_curves(str(store))
    with pytest.raises(SystemExit):
        main(["curves", str(store), str(tmp_path / "curves.csv")])
    assert capsys.readouterr().err.startswith("butter-etl: warning: the summaries of 1 experiment")
    with pytest.raises(UsageError, match="epochs are 'all' or 'log', not 'some'"):
        be.read_curves(str(store), ["dataset=529_pollen"], epochs="some")
