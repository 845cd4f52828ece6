"""Runs of other makers held against ours: recorded runs of Keras in both schemas of 2022, and false alarms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import butter_etl as be
from benchmarks.keras_runs import EXPERIMENTS, RUNS, SPOILED
from butter_etl.exchange.imports import run_import
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.upkeep.auditing import plan_audit
from butter_etl.upkeep.certificates import check_certificate
from butter_etl.upkeep.likening import (
    LIKENESSES,
    Compared,
    Stranger,
    enough_repetitions,
    judged_together,
    plan_likening,
    ranked,
)
from butter_etl.upkeep.run_frame import RunFrame

RECORDED = Path(__file__).parent / "recorded" / "keras_runs.parquet"
PROFILE = BUTTER.profiles["oedi-2022-08"]


def recorded(**changed):
    """The recorded runs, with columns changed, by our names: in the schema of the document."""
    table = pq.read_table(RECORDED)
    ours = {PROFILE.theirs(name): name for name in BUTTER.runs.names}
    table = table.rename_columns([ours[name] for name in table.column_names])
    for name, value in {**PROFILE.constants, **changed}.items():
        column = pa.array([value] * table.num_rows, BUTTER.runs.field(name).type)
        held = name in table.column_names
        table = (
            table.set_column(table.column_names.index(name), name, column)
            if held
            else table.append_column(name, column)
        )
    return table


def spoiled_id():
    table = pq.read_table(RECORDED)
    return table["run_id"][SPOILED[0] * RUNS + SPOILED[1]].as_py()


@pytest.fixture(scope="module")
def store(tmp_path_factory, client):
    """A store of the recorded runs, brought in by their profile."""
    home = tmp_path_factory.mktemp("keras")
    (home / "published").mkdir()
    (home / "published" / "runs.parquet").write_bytes(RECORDED.read_bytes())
    assert run_import(home / "published", home / "store", profile=PROFILE.name, client=client).landed == 30
    return home / "store"


def outcomes(certificate):
    return {one.run_id: one.outcome for one in certificate.compared}


def test_the_spoiled_run_is_found_and_the_others_pass(store, tmp_path):
    done = be.audit(store, sample="100%", seed=1, out=tmp_path)
    certificate = done.certificate
    assert certificate.counts == {"incompatible": 1, "compatible": 29}
    (one,) = certificate.faults
    assert one.run_id == spoiled_id()
    assert one.repetitions == certificate.method.repetitions == 600
    assert (one.p_value, one.corrected) == (1 / 601, pytest.approx(30 / 601))
    assert one.detail.startswith("1 of 601 curves are no deeper; beyond all of ours at ")
    assert certificate.method.histories == ("val_loss", "loss")
    assert "incompatible" in done._repr_html_()
    findings = check_certificate(RunFrame.open(store), tmp_path / "certificate.json")
    assert [finding.kind for finding in findings] == ["failed-audit"]


def test_the_other_schema_says_the_same(tmp_path, client):
    """In the schema of the document, with epochs before the first that ours do not have."""
    source = tmp_path / "published"
    source.mkdir()
    table = recorded()
    pq.write_table(table, source / "runs.parquet")
    run_import(source, tmp_path / "store", client=client)
    certificate = be.audit(
        tmp_path / "store", sample="100%", seed=1, out=tmp_path / "certificate", client=client
    ).certificate
    assert [one.run_id for one in certificate.faults] == [spoiled_id()]
    assert certificate.counts == {"incompatible": 1, "compatible": 29}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"label_noise": 0.1, "dataset": "wine"}, "label noise: in what was run rows of several classes traded labels"),
        ({"dataset": "201_pol"}, "201_pol: what was run learned classes, this is a regression"),
        ({"optimizer": "RMSprop"}, "RMSprop without momentum"),
        ({"dataset": "iris"}, "iris"),
        ({"activation": "tanh"}, "activation is 'tanh'; study butter trains 'relu'"),
        (
            {"size": 5, "dataset": "mnist", "output_activation": "softmax"},
            "this package builds no network of these parameters",
        ),
        ({"val_loss": None}, "it has no values of a history that runs are judged by"),
    ],
)
def test_documented_departures_are_not_comparable_and_never_spoiled(tmp_path, client, changed, said):
    source = tmp_path / "published"
    source.mkdir()
    pq.write_table(recorded(**changed), source / "runs.parquet")
    run_import(source, tmp_path / "store", client=client)
    done = be.audit(tmp_path / "store", sample="100%", seed=1, out=tmp_path / "certificate", workers=1)
    assert done.certificate.counts == {"not-comparable": 30}
    assert done.is_sound
    assert all(said in one.detail for one in done.certificate.compared)


def test_longer_runs_are_compared_as_far_as_ours_go(tmp_path, client):
    source = tmp_path / "published"
    source.mkdir()
    table = recorded(epochs=10)
    pq.write_table(table, source / "runs.parquet")
    run_import(source, tmp_path / "store", client=client)
    frame = RunFrame.open(tmp_path / "store")
    plan = plan_audit(frame, "30", 1)
    assert {len(stranger.curve) for stranger in plan.likening.strangers} == {20}
    assert {stranger.one for stranger in plan.likening.strangers} == {
        BUTTER.twin_of(BUTTER.foreign("Maker", 1, one.parameters() | {"epochs": 10})) for one in EXPERIMENTS
    }


def test_too_few_repetitions_find_nothing_and_are_warned_of(store, tmp_path, run):
    frame = RunFrame.open(store)
    assert plan_audit(frame, "30", 1, repetitions=20).is_blind
    assert not plan_audit(frame, "30", 1).is_blind
    code, out, err = run("audit", store, "--sample", 30, "--seed", 1, "--repetitions", 20, "--out", tmp_path / "out")
    assert code == 0
    assert "compatible     30   may be a run of its experiment" in out
    assert "training 60 runs to compare with, 20 of each of 3 experiments" in err
    assert "among 20 repetitions no p-value is below 0.048: none of 30 runs can be found incompatible at 0.05" in err


def test_data_that_cannot_be_had_are_a_fault(tmp_path, client, monkeypatch):
    source = tmp_path / "published"
    source.mkdir()
    table = recorded(dataset="banana", output_activation="sigmoid", size=64, depth=2)
    pq.write_table(table.slice(0, 2), source / "runs.parquet")
    run_import(source, tmp_path / "store", client=client)
    monkeypatch.setenv("BUTTER_ETL_PMLB_URL", "http://127.0.0.1:9")
    done = be.audit(
        tmp_path / "store", sample="2", seed=1, repetitions=40, out=tmp_path / "out", data_dir=tmp_path / "empty"
    )
    assert done.certificate.counts == {"uncompared": 2}
    assert not done.is_sound
    assert "banana" in done.certificate.compared[0].detail


# --- false alarms ------------------------------------------------------------------------------------------------


def made_up(generator, number):
    """Curves of two histories that fall and scatter, some runs far more than others."""
    scale = np.exp(generator.normal(0, 0.5, (number, 1)))
    noise = np.cumsum(generator.normal(0, 0.05, (number, 2 * 12)), axis=1)
    return scale / np.tile(np.arange(1, 13), 2) + np.abs(noise)


def audit_of_made_up_runs(generator, runs, repetitions, level):
    ours = made_up(generator, repetitions)
    batches = [{"val_loss": ours[:, :12], "loss": ours[:, 12:]}]
    strangers = [
        Stranger(Compared(f"run {number}", 0, "", "", "", "compatible"), EXPERIMENTS[0], curve, (12, 12))
        for number, curve in enumerate(made_up(generator, runs))
    ]
    return judged_together([ranked(stranger, batches) for stranger in strangers], level)


@pytest.mark.parametrize(("runs", "repetitions"), [(1, 19), (1, 199), (10, 199)])
def test_false_alarms_come_at_the_nominal_rate(runs, repetitions):
    """200 audits: a false alarm in about 5 of 100, however many runs each looks at.

    Of 200 trials at 0.05, 2 to 20 succeed in 998 of 1,000 cases.
    """
    generator = np.random.default_rng(2022)
    level = 0.05
    assert repetitions + 1 >= runs / level
    audits = [audit_of_made_up_runs(generator, runs, repetitions, level) for _ in range(200)]
    alarms = sum(any(one.outcome == "incompatible" for one in found) for found in audits)
    assert 2 <= alarms <= 20


def test_a_run_that_is_no_such_run_is_found_among_many():
    generator = np.random.default_rng(3)
    ours = made_up(generator, enough_repetitions(10, 0.05))
    batches = [{"val_loss": ours[:, :12], "loss": ours[:, 12:]}]
    curves = made_up(generator, 10)
    curves[4] += np.linspace(0, 9, 24)
    strangers = [
        Stranger(Compared(f"run {number}", 0, "", "", "", "compatible"), EXPERIMENTS[0], curve, (12, 12))
        for number, curve in enumerate(curves)
    ]
    found = judged_together([ranked(stranger, batches) for stranger in strangers], 0.05)
    assert [one.run_id for one in found if one.outcome == "incompatible"] == ["run 4"]
    assert set(LIKENESSES) >= {one.outcome for one in found}


def test_of_runs_of_ours_none_is_compared(tmp_path):
    frame = RunFrame(Store.create(tmp_path / "store").location, BUTTER, (), is_store=True)
    assert plan_likening(frame, [], 0.05).runs == 0
