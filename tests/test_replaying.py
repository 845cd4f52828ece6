"""Replays: the same bits from nothing but a row, and whatever is not what its row says is found and named."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import butter_etl as be
from butter_etl.errors import SelectError, StoreError
from butter_etl.exchange.imports import run_import
from butter_etl.store.copies import _remembered_copy
from butter_etl.store.frames import to_arrow
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.capacity.study import RNN_CAPACITY
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.identity import to_json
from butter_etl.upkeep.replaying import (
    OUTCOMES,
    SOUND,
    Equipment,
    Replayed,
    Replays,
    plan_replay,
    run_replay,
    training_workers,
)
from butter_etl.upkeep.run_frame import RunFrame
from tests.descents import DESCENTS
from tests.exports import contents, export
from tests.test_docs import ROOT
from tests.test_own_campaigns import SPEC as OWN_DATA
from tests.test_own_campaigns import heart
from tests.test_rounds import SEARCH, SWEEP

SPEC = """
name: few
repetitions: 4
cubes:
  - {dataset: [wine, diabetes], size: [128], depth: [2, 3], epochs: [4], learning_rate: [0.01]}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, client):
    """A store of sixteen runs, of stacks of four."""
    home = tmp_path_factory.mktemp("trained")
    (home / "few.yaml").write_text(SPEC)
    assert be.train(home / "store", spec=home / "few.yaml", workers=2).landed == 16
    be.summarize_store(home / "store")
    return home / "store"


@pytest.fixture
def store(trained, tmp_path):
    """A copy of it to be changed."""
    location = Store.open(trained).location
    for name, _ in location.walk():
        target = tmp_path / "store" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(location.read_bytes(name))
    return tmp_path / "store"


def rows(store, study=None):
    opened = Store.open(store, study=study)
    return [row for file in opened.run_files() for row in opened.read_runs(file).to_pylist()]


def change(store, run_id, make, study=None):
    """Change one row, as somebody would who writes Parquet; ``make(row)`` returns what is other."""
    opened = Store.open(store, study=study)
    for file in opened.run_files():
        table = opened.read_runs(file)
        if run_id in table["run_id"].to_pylist():
            changed = [row | make(row) if row["run_id"] == run_id else row for row in table.to_pylist()]
            data = parquet_bytes(pa.Table.from_pylist(changed, schema=table.schema), opened.study.encodings)
            Path(store, "all_runs", file.path).write_bytes(data)
            return
    raise AssertionError(run_id)


def elsewhere(**facts):
    """What makes a row one of another environment."""
    return lambda row: {"environment": to_json(json.loads(row["environment"]) | facts)}


def flip(values, place, bit=0):
    """A history with one bit of one value changed."""
    bits = np.array(values, np.float32)
    bits.view(np.uint32)[place] ^= np.uint32(1 << bit)
    return bits.tolist()


def only(replays):
    (one,) = replays.runs
    return one


# --- what is sound -----------------------------------------------------------------------------------------------


def test_runs_of_stacks_are_the_same_bits_alone_and_nothing_is_written(trained):
    before = contents(trained)
    assert {row["stack"] for row in rows(trained)} == {4}
    replays = be.replay(trained, where=["depth>=2"])
    assert replays.counts == {"equal": 16}
    assert replays.is_sound
    assert all(one.is_promised and one.circumstances == () and one.difference is None for one in replays.runs)
    assert [one.run_id for one in replays.runs] == sorted(row["run_id"] for row in rows(trained))
    assert contents(trained) == before


@pytest.mark.parametrize("compact", [False, True])
def test_runs_of_exports_too_each_once(trained, tmp_path, compact):
    export(Store.open(trained), tmp_path / "dest", "few", compact=compact)
    export(Store.open(trained), tmp_path / "dest", where=["dataset=wine"], compact=compact)
    assert be.replay(tmp_path / "dest", where=["depth=2"]).counts == {"equal": 8}
    assert be.replay(tmp_path / "dest" / "few_sweep_runs", where=["depth=2"]).counts == {"equal": 8}
    with pytest.raises(SelectError, match="has no runs"):
        be.replay(tmp_path / "dest" / "few_sweep_summary", where=["depth=2"])


def test_on_a_cluster_as_here(trained, client):
    assert be.replay(trained, where=["dataset=wine"], client=client).counts == {"equal": 8}


def test_of_torch_one_alone_is_promised_and_others_are_compared(tmp_path, client):
    """Which others were in a stack of torch is not recorded, and its sums may depend on them."""
    (tmp_path / "few.yaml").write_text(SPEC.replace("[wine, diabetes]", "[wine]").replace("[2, 3]", "[2]"))
    be.train(tmp_path / "store", spec=tmp_path / "few.yaml", engine="torch", repetitions=1, client=client)
    be.train(tmp_path / "store", spec=tmp_path / "few.yaml", engine="torch", repetitions=4, client=client)
    stacks = {row["run_id"]: row["stack"] for row in rows(tmp_path / "store")}
    replays = be.replay(tmp_path / "store", where=["dataset=wine"], client=client)
    assert replays.is_sound
    assert {stacks[one.run_id]: one.is_promised for one in replays.runs} == {1: True, 3: False}
    alone = [one for one in replays.runs if stacks[one.run_id] == 1]
    assert [one.outcome for one in alone] == ["equal"]
    assert all(one.circumstances == () or "stack: of 3 runs, here 1" in one.circumstances[0] for one in replays.runs)


def test_by_another_engine_they_are_close(trained, client):
    replays = be.replay(trained, where=["dataset=wine"], engine="torch", client=client)
    assert replays.counts == {"close": 8}
    for one in replays.runs:
        assert one.circumstances[0] == "engine: fused, here torch"
        assert one.distance.early <= 1e-4
        assert one.distance.spread < 1e-2
    assert any(one.distance.early > 0 for one in replays.runs)


def test_engines_of_processes_have_processes(trained):
    """Engines that are not threaded are given worker processes: their bits may depend on the threads of one."""
    plan = plan_replay(RunFrame.open(trained), where=["dataset=wine", "depth=2"])
    equipment = Equipment(str(trained.parent), engine="torch")
    with training_workers(plan, equipment, workers=1) as client:
        assert len(client.nthreads()) == 1
        assert run_replay(plan, equipment, client).counts == {"close": 4}


# --- what is not what it says ------------------------------------------------------------------------------------


def test_one_bit_of_one_history_is_found_and_named(store):
    victim = rows(store)[5]
    change(store, victim["run_id"], lambda row: {"val_hinge": flip(row["val_hinge"], 2)})
    replays = be.replay(store, where=["depth>=2"])
    assert replays.counts == {"differs": 1, "equal": 15}
    (one,) = replays.faults
    assert (one.run_id, one.is_promised) == (victim["run_id"], True)
    difference = one.difference
    assert (difference.column, difference.point, difference.values, difference.of) == ("val_hinge", 3, 1, 80)
    trained = str(np.float32(victim["val_hinge"][2]))
    assert (difference.trained, difference.stored) == (trained, str(np.float32(flip(victim["val_hinge"], 2)[2])))
    assert (
        one.detail == f"val_hinge at epoch 3: {difference.stored} is stored, {trained} trained again (1 of 80 values)"
    )


def test_another_seed_is_found_wherever_it_stands(store):
    first, second, third, *_ = (row["run_id"] for row in rows(store))

    def command(row):
        return {"command": to_json(json.loads(row["command"]) | {"seed": 7}), "seed": 7}

    def histories(row):
        other = next(one for one in rows(store) if one["run_id"] not in (first, second, third))
        return {name: other[name] for name in BUTTER.histories}

    change(store, first, lambda row: {"seed": row["seed"] + 1})
    change(store, second, command)
    change(store, third, histories)
    found = {one.run_id: one for one in be.replay(store, first, second, third).runs}
    assert [found[one].outcome for one in (first, second, third)] == ["wrong-row", "wrong-row", "differs"]
    seed = RunSpec(BUTTER.parse_command(rows(store)[0]["command"]), rows(store)[0]["repetition"]).seed
    assert found[first].detail == f"seed is {seed + 1}, not {seed}"
    assert found[second].detail.startswith("command: seed is 7, its experiment and repetition have ")
    assert (found[third].difference.point, found[third].difference.column) == (1, "val_loss")
    assert found[third].difference.values > 60


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda row: {"repetition": 9}, "repetition is 9, that of its command is "),
        (lambda row: {"command": row["command"] + " "}, "command: is not spelled as this package does"),
        (lambda row: {"command": None}, "command: not the command of a run"),
        (lambda row: {"learning_rate": 0.5}, ""),
    ],
)
def test_rows_that_contradict_themselves_are_not_trained(store, make, said):
    victim = rows(store)[0]["run_id"]
    change(store, victim, lambda row: {name: value for name, value in make(row).items() if name in row})
    one = only(be.replay(store, victim))
    assert one.outcome == ("wrong-row" if said else "equal")
    assert said in one.detail


def test_a_file_in_another_partition_is_named(store):
    (victim, *_) = Store.open(store).run_files()
    there = victim.path.replace("learning_rate=0.01", "learning_rate=0.1")
    (store / "all_runs" / there).parent.mkdir(parents=True)
    (store / "all_runs" / victim.path).rename(store / "all_runs" / there)
    replays = be.replay(store, where=["learning_rate=0.1"])
    assert replays.counts == {"wrong-row": 4}
    assert "belongs in dataset=" in replays.runs[0].detail


def test_other_data_are_found_and_named(store):
    victim, other = rows(store)[0], rows(store)[1]
    change(store, victim["run_id"], elsewhere(data="f" * 64))
    change(store, other["run_id"], lambda row: elsewhere(data="f" * 64)(row) | {"loss": flip(row["loss"], 0, 22)})
    harmless, found = (only(be.replay(store, row["run_id"])) for row in (victim, other))
    # The same bits came of what are called other data: nothing can be wrong with the row's histories.
    assert (harmless.outcome, harmless.is_promised) == ("equal", False)
    assert found.outcome == "other-data"
    assert found.circumstances == (f"data set: content ffffffffffff…, here {data_of(victim)[:12]}…",)
    assert found.detail.startswith(f"{found.circumstances[0]}; loss at epoch 1: ")


def data_of(row):
    return json.loads(row["environment"])["data"]


def test_a_file_of_data_that_was_changed_is_found_and_named(tmp_path, monkeypatch):
    """Users' own data are in the store; runs are known by their content."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/heart.csv").write_text("\n".join(heart()) + "\n")
    only_heart = "name: own\nrepetitions: 2\ndatasets:\n  heart: {file: data/heart.csv, task: classification, "
    only_heart += "target: outcome}\ncubes:\n  - {dataset: [heart], size: [64], depth: [2], epochs: [2]}\n"
    assert "data/heart.csv" in OWN_DATA
    (tmp_path / "own.yaml").write_text(only_heart)
    be.train("store", spec="own.yaml", workers=1)
    be.summarize_store("store")
    assert be.replay("store", where=["dataset=heart"]).counts == {"equal": 2}
    export(Store.open("store"), "dest", "own")
    exported = be.replay("dest", where=["dataset=heart"])
    assert exported.counts == {"untrained": 2}
    assert exported.runs[0].detail == "data set heart: exports do not hold it; replay the run in its store"
    copy = tmp_path / "store/datasets/heart.parquet"
    table = pq.read_table(copy)
    reversed_targets = pa.array(table["y"].to_pylist()[::-1], table.schema.field("y").type)
    pq.write_table(table.set_column(1, table.schema.field("y"), reversed_targets), copy)
    _remembered_copy.cache_clear()
    replays = be.replay("store", where=["dataset=heart"])
    assert replays.counts == {"untrained": 2}
    assert "has content " in replays.runs[0].detail
    assert not replays.is_sound


def test_what_differs_first_is_told_in_order(store):
    victim = rows(store)[0]
    facts = {"numpy": "1.0", "target": "skylake 12", "threads": 2, "blas": "mkl"}
    change(store, victim["run_id"], lambda row: elsewhere(**facts)(row) | {"python_version": "3.0"})
    one = only(be.replay(store, victim["run_id"]))
    assert (one.outcome, one.is_promised) == ("equal", False)
    assert [said.split(":")[0] for said in one.circumstances] == [
        "python_version",
        "version",
        "processor",
        "processor",
        "threads",
    ]
    assert one.circumstances[1].startswith("version: numpy 1.0, here ")


def test_without_an_environment_nothing_is_promised(store):
    victim, other = rows(store)[0], rows(store)[1]

    def rounded(row):
        return {"environment": None, "val_loss": flip(row["val_loss"], 0)}

    def moved(row):
        return {"environment": None, "val_loss": [1.01 * value for value in row["val_loss"]]}

    change(store, victim["run_id"], rounded)
    change(store, other["run_id"], moved)
    near, far = (only(be.replay(store, row["run_id"])) for row in (victim, other))
    assert (near.outcome, far.outcome) == ("close", "departs")
    assert near.circumstances[0].startswith("environment: not recorded")
    assert far.detail.startswith("environment: not recorded, or of several machines; nothing is promised of bits; ")
    assert "val_loss at epoch 1" in far.detail
    assert "of the range of repetitions" in far.detail
    assert far.distance.early == pytest.approx(0.01, rel=0.2)


def test_engines_that_are_not_there_are_named(store):
    victim = rows(store)[0]["run_id"]
    change(store, victim, lambda row: {"engine": "abacus"})
    assert (
        only(be.replay(store, victim)).detail == "the engine 'abacus' does not run on cpu; those that do: fused, torch"
    )
    change(store, victim, lambda row: {"engine": "torch", "device": "cuda"})
    assert only(be.replay(store, victim)).outcome == "untrained"
    here = only(be.replay(store, victim, device="cpu"))
    assert here.circumstances[:1] == ("device: cuda, here cpu",)
    assert here.outcome == "close"


# --- what can be replayed ----------------------------------------------------------------------------------------


def test_runs_of_others_are_not_ours_to_replay(store, trained, tmp_path, client):
    source = tmp_path / "source"
    source.mkdir()
    table = to_arrow(be.read_runs(trained).compute(scheduler="synchronous"), BUTTER.runs).slice(0, 2)
    run_ids = ["11111111-0000-5000-8000-000000000001", "11111111-0000-5000-8000-000000000002"]
    for name, values in {"run_id": run_ids, "task": ["AspectTestTask"] * 2, "task_version": [3, 3]}.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, source / "runs.parquet")
    run_import(source, store, client=client)
    line = "1 run was made by AspectTestTask 3: it is not ours to replay; `butter-etl audit` compares such with ours"
    with pytest.raises(SelectError, match=line):
        be.replay(store, run_ids[0])
    replays = be.replay(store, where=["depth>=2"])
    assert (replays.foreign, replays.counts) == (2, {"equal": 16})


@pytest.mark.parametrize(
    ("run_ids", "where", "line"),
    [
        ((), (), "name what to replay"),
        (("x",), ("depth=2",), "not by both"),
        (("x",), (), "has no run x"),
        ((), ("depth=9",), "has no runs that meet depth=9"),
        ((), ("dataset=wime",), "did you mean 'wine'"),
        ((), ("experiment=1",), "unknown key 'experiment'"),
    ],
)
def test_what_is_not_there_is_one_line(trained, run_ids, where, line):
    with pytest.raises(SelectError, match=line):
        be.replay(trained, *run_ids, where=where)


def test_where_there_is_neither_a_store_nor_an_export(tmp_path):
    with pytest.raises(StoreError, match="is neither a store"):
        be.replay(tmp_path, "x")


def test_a_study_without_environments_is_compared(tmp_path, client):
    store = tmp_path / "store"
    be.train(store, sweep="plain", repetitions=2, client=client, study=DESCENTS)
    replays = be.replay(store, where=["inner>0"], client=client, study=DESCENTS)
    assert set(replays.counts) == {"equal"}
    assert not any(one.is_promised for one in replays.runs)
    victim = rows(store, DESCENTS)[0]["run_id"]
    change(store, victim, lambda row: {"dimensions": row["dimensions"] + 1}, DESCENTS)
    assert only(be.replay(store, victim, study=DESCENTS, client=client)).outcome == "wrong-row"


def test_what_training_raises_is_in_the_result(tmp_path, client, monkeypatch):
    be.train(tmp_path / "store", sweep="plain", repetitions=1, client=client, study=DESCENTS)
    monkeypatch.setenv("BUTTER_ETL_TEST_DESCENTS_BROKEN", "1")
    frame = RunFrame.open(tmp_path / "store", study=DESCENTS)
    plan = plan_replay(frame, where=["inner>0"])
    replays = run_replay(plan, Equipment(str(tmp_path)), threads=1)
    assert set(replays.counts) == {"untrained"}
    assert replays.runs[0].detail == "ArithmeticError: nothing descends here"


LIVES = """
name: lives
study: nn_lifespans
repetitions: 2
draws:
  - {dataset: digits, networks: 2, seed: 5, epochs: 2, max_multiplications: 200000}
"""


def test_networks_of_another_study_without_special_words(tmp_path, client):
    (tmp_path / "lives.yaml").write_text(LIVES)
    be.train(tmp_path / "store", spec=tmp_path / "lives.yaml", study="nn_lifespans", client=client)
    assert be.replay(tmp_path / "store", where=["dataset=digits"]).counts == {"equal": 4}


FEW = (
    "n_layers: 1, max_params: 2000, min_train_steps: 20, max_train_steps: 20, n_points: 2, batch_size: 8, eval_size: 16"
)
TRIALS = f"""
name: trials
study: rnn_capacity
repetitions: 3
cubes:
  - {{task_type: [per_cap, mem_thru], architecture: [gru], {FEW}}}
  - {{task_type: arithmetic, architecture: rnn, search: gp, {FEW}}}
"""


@pytest.mark.parametrize("engine", RNN_CAPACITY.independent)
def test_trials_of_a_search_whatever_their_stacks(tmp_path, client, engine):
    (tmp_path / "trials.yaml").write_text(TRIALS)
    be.train(tmp_path / "store", spec=tmp_path / "trials.yaml", study="rnn_capacity", client=client, engine=engine)
    assert be.read_runs(tmp_path / "store", columns=["stack"]).compute()["stack"].max() > 1
    replays = be.replay(tmp_path / "store", where=["n_layers=1"])
    assert replays.counts == {"equal": 9}
    assert all(one.is_promised for one in replays.runs)


ACTIVATIONS = """
name: activations
study: activations
repetitions: 2
cubes:
  - {activation: [ReLU], width: 4, epochs: 2}
"""


def test_a_training_function_too(tmp_path, client, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import own_study

    (tmp_path / "few.yaml").write_text(ACTIVATIONS)
    be.train(tmp_path / "store", spec=tmp_path / "few.yaml", study=own_study.STUDY, client=client)
    replays = be.replay(tmp_path / "store", where=["width=4"], study=own_study.STUDY, client=client)
    assert replays.counts == {"equal": 2}
    assert all(one.is_promised for one in replays.runs)


def test_what_was_proposed_for_a_run_is_given_again(tmp_path, client):
    (tmp_path / "few.yaml").write_text(SWEEP)
    be.train(tmp_path / "store", spec=tmp_path / "few.yaml", study=SEARCH, client=client)
    there = rows(tmp_path / "store", SEARCH)
    assert all("given" in json.loads(row["command"]) for row in there)
    replays = be.replay(tmp_path / "store", where=["target>0"], study=SEARCH, client=client)
    assert replays.counts == {"equal": len(there)}


# --- results -----------------------------------------------------------------------------------------------------


def test_notebooks_show_outcomes_and_faults(store):
    assert "equal" in be.replay(store, rows(store)[0]["run_id"])._repr_html_()
    victim = rows(store)[0]["run_id"]
    change(store, victim, lambda row: {"loss": flip(row["loss"], 0)})
    page = be.replay(store, victim)._repr_html_()
    assert victim in page
    assert "loss at epoch 1" in page


def test_faults_come_gravest_first():
    runs = [Replayed(f"{n}", 0, 0, "", "", outcome) for n, outcome in enumerate(reversed(OUTCOMES))]
    replays = Replays("store", tuple(runs))
    assert [one.outcome for one in replays.faults] == [outcome for outcome in OUTCOMES if outcome not in SOUND]
    assert list(replays.counts) == list(OUTCOMES)
    assert msgspec.json.decode(msgspec.json.encode(replays), type=Replays) == replays


def test_an_interrupt_ends_training_that_is_under_way(trained, hears_signals):
    """Threads are not left: a run may take days."""
    plan = plan_replay(RunFrame.open(trained), where=["dataset=wine"])
    begun, waited = threading.Event(), []

    class Endless:
        def __getattr__(self, name):
            return getattr(BUTTER.trainer, name)

        def train(self, runs, data, *, watch, **options):
            begun.set()
            started = time.monotonic()
            while time.monotonic() - started < 60:
                watch(0.0, None)
                time.sleep(0.01)
            waited.append(runs)

    study = replace(BUTTER, trainer=Endless())
    plan = msgspec.structs.replace(plan, frame=replace(plan.frame, study=study))
    timer = threading.Thread(target=lambda: (begun.wait(30), os.kill(os.getpid(), signal.SIGINT)))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_replay(plan, Equipment(str(trained.parent)), threads=2)
    timer.join()
    assert waited == []


# --- a campaign that is disturbed --------------------------------------------------------------------------------

LONG = """
name: long
repetitions: 20
cubes:
  - dataset: [wine, diabetes, breast_cancer]
    size: [128, 256, 512]
    depth: [2, 3]
    epochs: [600]
    label_noise: [0, 0.1]
    learning_rate: [0.01]
"""


@pytest.mark.long
def test_a_hundred_runs_of_a_campaign_that_was_killed_are_the_same_bits(tmp_path):
    """Stacks, checkpoints, threads and kills; then a hundred runs by chance."""
    (tmp_path / "long.yaml").write_text(LONG)
    store = tmp_path / "store"
    command = [sys.executable, "-m", "butter_etl", "train", store, "--spec", tmp_path / "long.yaml", "--workers", "4"]
    command += ["--checkpoint-minutes", "0.001", "--quiet"]
    kills = 0
    for wanted in (1, 300):
        process = subprocess.Popen(command, start_new_session=True)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 120:
            landed = sum(1 for _ in store.glob("all_runs/**/*.parquet"))
            if landed >= wanted / 20 and any(store.glob("state/checkpoints/*")):
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.wait(60)
    assert kills
    subprocess.run(command, check=True, timeout=600)
    there = sorted(row["run_id"] for row in rows(store))
    assert len(there) == 720
    assert max(row["stack"] for row in rows(store)) > 1
    replays = be.replay(store, *random.Random(5).sample(there, 100), workers=4)
    assert replays.counts == {"equal": 100}
    assert all(one.is_promised for one in replays.runs)
