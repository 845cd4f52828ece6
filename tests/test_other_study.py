"""A study of one's own goes through everything: trained, stopped, summarised, shown, published, checked."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import butter_etl as be
from butter_etl.campaign.checkpoints import Checkpoints
from butter_etl.campaign.stacks import Item, Stack, cut_unfinished, train_stack
from butter_etl.errors import SpecError, StudyError
from butter_etl.store.frames import to_arrow
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.known import choosing
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import train
from butter_etl.views import plot
from butter_etl.views.page import page_data
from tests.descents import DESCENTS, HISTORIES, PLAIN, Descent
from tests.numpy_statistics import best_entries, epoch_statistics, is_finite
from tests.test_end_to_end import finish, landed, wait_for, workers_of

REFERENCE = "tests.descents:DESCENTS"
STUDY = ("--study", REFERENCE)
#: Columns of runs that say nothing of when or where they were trained: all of them.
SPEC = """
name: mine
study: descents
repetitions: 3
cubes:
  - {surface: bowl, rate: [3.5], noisy: true, place: [[0.001, -0.0]], measured: [6]}
  - {surface: [bowl, "ridge/ä b"], rate: [0.1, 1e-3], noisy: [null, false, true], sizes: [[3, 4], [5]]}
"""
MANY = """
name: many
repetitions: 300
cubes: {surface: bowl, rate: 3.5, noisy: true, place: [[0.001, -0.0]], measured: 4}
"""
#: Descents of many steps, so that they are seen on their way.
LONG = """
name: long
repetitions: 40
cubes: {surface: "ridge/ä b", rate: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], noisy: true, inner: 2000, measured: 10}
"""


@pytest.fixture
def descents(run):
    """Run a command with the option that names the study."""
    return lambda *arguments: run(*arguments, *STUDY)


@pytest.fixture
def spec(tmp_path):
    """Write the file of a sweep."""

    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shared_client):
    """A store of the study, trained on a cluster and summarised; nobody changes it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mine.yaml").write_text(SPEC)
    path = folder / "store"
    for what in ({"sweep": "plain"}, {"spec": folder / "mine.yaml"}):
        report = train(path, study=DESCENTS, client=shared_client(), **what)
        assert (report.failed, report.present) == (0, 0), report.failures
        assert report.landed == {"sweep": 64, "spec": 39}[next(iter(what))]
    from butter_etl.summarize import plan_summaries, run_summaries

    store = Store.open(path, study=DESCENTS)
    run_summaries(plan_summaries(store), store)
    return path


@pytest.fixture
def store(trained, tmp_path):
    """A copy of the trained store, to be changed."""
    import shutil

    shutil.copytree(trained, tmp_path / "store")
    return tmp_path / "store"


def run_files(path):
    """The bytes of each run file, by its name below the store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(Path(path).glob("all_runs/**/*.parquet"))}


def rows_of(path):
    """All rows of a store's runs, by experiment and repetition."""
    with choosing(REFERENCE, None):
        table = to_arrow(be.read_runs(path).compute(scheduler="synchronous"), DESCENTS.runs)
    return table.sort_by([("experiment_id", "ascending"), ("repetition", "ascending")])


def same_bits(ours, theirs):
    assert ours.schema == theirs.schema
    for name in ours.column_names:
        for one, other in zip(ours[name].to_pylist(), theirs[name].to_pylist(), strict=True):
            assert repr(one) == repr(other), name


# --- training -----------------------------------------------------------------------------------------------------


class StoppedError(Exception):
    """What a watch raises that has seen enough."""


def stack_of(one, repetitions):
    return Stack((Item(one, 2**24, "plain", tuple(repetitions)),), "numpy", "cpu")


def stopped(stack, at, resume):
    """The stack as it is after so many calls of its watch, counted from 1; None where it ends before."""
    calls, taken = 0, []

    def watch(points, take):
        nonlocal calls
        calls += 1
        if calls == at:
            taken.append(take())
            raise StoppedError

    try:
        train_stack(DESCENTS, stack, data_of(stack), resume=resume, watch=watch)
    except StoppedError:
        return taken[0]
    return None


def data_of(stack):
    return DESCENTS.trainer.load(stack.items[0].spec, Path(), None)


ONES = list(PLAIN.experiments())


@settings(max_examples=60)
@given(st.sampled_from(ONES), st.integers(1, 5), st.lists(st.integers(1, 6), max_size=8))
def test_a_stack_that_is_stopped_at_any_step_goes_on_to_the_same_bits(tmp_path_factory, one, runs, stops):
    stack = stack_of(one, range(1, 1 + runs))
    (whole,) = train_stack(DESCENTS, stack, data_of(stack))
    checkpoints, unfinished = Checkpoints(tmp_path_factory.mktemp("state"), DESCENTS), None
    for at in stops:
        later = stopped(stack, at, unfinished)
        if later is None:
            break
        checkpoints.write(later)
        unfinished = checkpoints.read(stack)
        assert unfinished.state.steps.tolist() == later.state.steps.tolist()
    (gone_on,) = train_stack(DESCENTS, stack, data_of(stack), resume=unfinished)
    same_bits(gone_on, whole)
    if unfinished is not None and runs > 1:
        parts = [
            train_stack(DESCENTS, part.stack, data_of(stack), resume=part) for part in cut_unfinished(unfinished, 2)
        ]
        same_bits(pa.concat_tables(table for part in parts for table in part), whole)


def test_runs_say_how_they_ended():
    (rows,) = train_stack(DESCENTS, stack_of(ONES[7], range(6)), data_of(stack_of(ONES[7], [0])))
    assert rows["end_reason"].to_pylist() == [
        "converged",
        "completed",
        "converged",
        "completed",
        "completed",
        "converged",
    ]
    assert pc.list_value_length(rows["loss"]).to_pylist() == [1, 5, 1, 5, 5, 1]
    assert rows["moments"].to_pylist()[0] == [0.0009]
    assert rows["steepest"].to_pylist() == [1.0] * 6
    (rows,) = train_stack(DESCENTS, stack_of(ONES[4], [0]), data_of(stack_of(ONES[4], [0])))
    assert rows["end_reason"].to_pylist() == ["diverged"]
    assert np.isnan(rows["loss"].to_pylist()[0][-1])


class Returning:
    """A trainer that changes what another returns."""

    def __init__(self, trainer, change):
        self._trainer, self._change = trainer, change

    def __getattr__(self, name):
        return getattr(self._trainer, name)

    def train(self, *arguments, **options):
        results = self._trainer.train(*arguments, **options)
        return replace(results, **self._change(results))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"details": {"support": [1, 2]}}, "its trainer returns support; it has the histories loss, norm"),
        (lambda r: {"details": {"seed": [1, 2]}}, "its trainer returns seed;"),
        (lambda r: {"histories": {**r.histories, "lost": r.histories["loss"]}}, "its trainer returns lost;"),
        (lambda r: {"histories": {"loss": r.histories["loss"]}}, "its trainer does not return norm, uphill;"),
        (lambda r: {"end_reasons": [None] * 3}, "its trainer returns 3 of end_reasons for 2 runs"),
        (lambda r: {"histories": {**r.histories, "loss": np.zeros((2, 6))}}, "returns 6 of loss for 5 moments"),
    ],
)
def test_a_trainer_must_return_what_its_study_has(change, message):
    study = replace(DESCENTS, trainer=Returning(DESCENTS.trainer, change))
    stack = stack_of(ONES[0], range(2))
    with pytest.raises(StudyError, match=message):
        train_stack(study, stack, data_of(stack))


def test_whole_numbers_are_not_wrapped_around():
    for values in ([2.0**70], [0.5], [np.nan]):
        change = lambda r, values=values: {"histories": {**r.histories, "uphill": [np.array(values)] * 2}}  # noqa: E731
        stack = stack_of(ONES[0], range(2))
        with pytest.raises(pa.ArrowInvalid):
            train_stack(replace(DESCENTS, trainer=Returning(DESCENTS.trainer, change)), stack, data_of(stack))


def test_it_is_planned_and_trained_on_a_cluster(descents, tmp_path, spec):
    path = tmp_path / "store"
    code, out, err = descents("plan", path, "--spec", spec(SPEC), "--json")
    planned = json.loads(out)
    assert (code, planned["experiments"], planned["infeasible"], planned["runs_missing"]) == (0, 13, 12, 39), err
    code, out, err = descents("train", path, "--spec", spec(SPEC), "--quiet")
    assert (code, "39 runs landed" in out) == (0, True), err
    assert "nothing to do" in descents("train", path, "--sweep", "mine")[1]
    code, out, _ = descents("status", path)
    assert (code, "39 runs of 13 experiments" in out) == (0, True)
    assert descents("train", path, "--sweep", "mine", "--where", "noisy=true", "--repetitions", 5, "--quiet")[0] == 0
    assert descents("train", path, "--sweep", "plain", "--engine", "also_numpy", "--quiet")[0] == 0
    assert len(landed(path)) == 39 + 5 * 2 + 64


def test_an_experiment_of_300_runs(descents, tmp_path, spec):
    path = tmp_path / "store"
    assert descents("train", path, "--spec", spec(MANY), "--quiet")[0] == 0
    code, _, err = descents("train", path, "--sweep", "many", "--repetitions", 70_000)
    assert (code, "between 1 and 65535 (run counts are uint16)" in err) == (2, True)
    assert descents("summarize", path, "--quiet")[0] == 0
    with choosing(REFERENCE, None):
        (row,) = be.read_summary(path).compute(scheduler="synchronous").to_dict("records")
    assert row["num_runs"] == row["num"][0] == 300
    assert 0 < row["num"][3] < 300
    assert len(row["moments"]) == len(row["num"]) == 4
    assert descents("verify", path, "--summaries")[0] == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("place: [[.inf, 1]]", "cubes[0].place: inf is not a finite number"),
        ("place: [[0.0, 1], [-0.0, 1]]", "cubes[0].place: a value stands there twice"),
        ("sizes: [[99999999999999999999, 1]]", "cubes[0].sizes: 99999999999999999999 takes more than 64 bits"),
        ("rate: 1e400", "cubes[0].rate: inf is not a finite number"),
        ("surface: bow", "unknown 'bow' (did you mean 'bowl'?)"),
    ],
)
def test_sweeps_of_what_no_column_can_hold_are_refused(descents, tmp_path, spec, values, said):
    surface = "" if "surface" in values else "surface: bowl, "
    file = spec(f"{{name: bad, repetitions: 1, cubes: {{{surface}{values}}}}}")
    code, _, err = descents("train", tmp_path / "store", "--spec", file)
    assert (code, err.count("\n"), said in err) == (2, 1, True), err
    assert not (tmp_path / "store").exists()


def test_an_experiment_that_does_not_fit_its_columns_is_told(tmp_path):
    store = Store.create(tmp_path / "store", study=DESCENTS)
    with pytest.raises(SpecError, match="an experiment does not fit the columns of the study descents"):
        Registry(store).claim(store, {Descent(surface="bowl", inner=2**33): "mine"})
    assert Registry(store).experiment_id(Descent(surface="bowl")) is None


# --- frames -------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_numpy(trained):
    runs = rows_of(trained)
    with choosing(REFERENCE, None):
        summary = to_arrow(be.read_summary(trained).compute(scheduler="synchronous"), DESCENTS.summary)
    for row in summary.to_pylist():
        own = runs.filter(pc.equal(runs["experiment_id"], row["experiment_id"])).to_pylist()
        points = max(len(one["norm"]) for one in own)
        assert row["moments"] == max((one["moments"] for one in own), key=len)
        for history in HISTORIES:
            lengths = np.array([len(one[history]) for one in own])
            values = np.full((len(own), points), np.nan)
            for one, place in zip(own, values, strict=True):
                place[: len(one[history])] = one[history]
            counts, floats = epoch_statistics(values, lengths, (0.25, 0.5, 0.75), np.float64)
            wanted = dict(zip(("avg", "stddev", "min", "max", "q1", "median", "q3"), floats, strict=True))
            wanted["num_finite"] = counts[1]
            assert row["num"] == counts[0].tolist()
            for name, numbers in wanted.items():
                least = 2 if name == "stddev" else 1
                enough = (counts[0] if name in ("q1", "median", "q3") else counts[1]) >= least
                found = row[f"descent_{history}_{name}"]
                if name == "num_finite":
                    assert found == numbers.tolist()
                else:
                    expected = [one if many else None for one, many in zip(numbers.tolist(), enough, strict=True)]
                    assert repr(found) == repr(expected), (history, name)
        best = best_entries(
            values_of(own, "loss", points), np.array([len(one["loss"]) for one in own]), "min", np.float64
        )
        if np.isfinite(best).any():
            assert row["loss_min_value_min"] == np.nanmin(best[:, 1])
            assert row["loss_min_moment_max"] == np.nanmax(best[:, 0])


def values_of(rows, name, points):
    found = np.full((len(rows), points), np.nan)
    for row, place in zip(rows, found, strict=True):
        place[: len(row[name])] = row[name]
    return np.where(is_finite(found, np.float64), found, np.nan)


def test_summaries_step_by_step_are_those_of_all_at_once(descents, tmp_path, spec):
    path = tmp_path / "store"
    for count in (1, 2, 4):
        assert descents("train", path, "--sweep", "plain", "--repetitions", count, "--quiet")[0] == 0
        assert descents("summarize", path, "--quiet")[0] == 0
    step_by_step = summary_files(path)
    code, _, _ = descents("summarize", path, "--full", "--quiet")
    assert (code, summary_files(path) == step_by_step) == (0, True)
    assert len(step_by_step) == 8


def summary_files(path):
    return {str(file): file.read_bytes() for file in Path(path).glob("complete_*/**/*.parquet")}


def test_conditions_on_keys_and_parameters(trained):
    with choosing(REFERENCE, None):
        for where, rows in ((["rate=0.3333333333333333", "noisy=true"], 16), (["noisy=null"], 44), (["measured>5"], 3)):
            found = be.read_runs(trained, where=where).compute(scheduler="synchronous")
            assert len(found) == rows, where


def test_an_export_comes_back_as_it_was(descents, store, tmp_path):
    dest, back = tmp_path / "dest", tmp_path / "back"
    assert descents("export", store, dest, "--all")[0] == 0
    assert descents("verify", dest)[0] == 0
    code, out, err = descents("import", dest / "all_runs", back)
    assert (code, "103 runs landed, 0 were there" in out) == (0, True), err
    assert run_files(back) == run_files(store)
    assert descents("verify", back)[0] == 0
    code, out, _ = descents("import", store, back)
    assert (code, "0 runs landed, 103 were there" in out) == (0, True)
    as_one = tmp_path / "as_one.parquet"
    pq.write_table(rows_of(store), as_one)
    assert descents("import", as_one, tmp_path / "again")[0] == 0
    same_bits(rows_of(tmp_path / "again"), rows_of(store))
    assert descents("export", store, tmp_path / "part", "--sweep", "mine")[0] == 0
    assert descents("verify", tmp_path / "part")[0] == 0


def test_runs_that_differ_in_the_last_bit_are_others(descents, store, tmp_path):
    rows = rows_of(store).to_pylist()
    number = next(n for n, row in enumerate(rows) if row["end_reason"] == "diverged")
    same = tmp_path / "same.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=DESCENTS.runs), same)
    assert "0 runs landed, 103 were there" in descents("import", same, store)[1]
    before = rows[number]["loss"][0]
    rows[number]["loss"][0] = float(np.nextafter(before, 2.0))
    assert np.float32(before) == np.float32(rows[number]["loss"][0])
    pq.write_table(pa.Table.from_pylist(rows, schema=DESCENTS.runs), same)
    code, _, err = descents("import", same, store)
    assert (code, err.count("\n")) == (1, 1)
    assert "1 experiment was not imported" in err or "--prefer" in err
    assert descents("import", same, store, "--prefer", "store")[0] == 0
    assert rows_of(store).to_pylist()[number]["loss"][0] == before
    code, out, _ = descents("import", same, store, "--prefer", "source")
    assert (code, "1 replaced" in out or "1 run replaced" in out) == (0, True), out
    assert rows_of(store).to_pylist()[number]["loss"][0] != before


def test_it_is_verified_dropped_and_trained_again(descents, store):
    before = run_files(store)
    code, out, _ = descents("verify", store, "--summaries")
    assert (code, "20 summaries recomputed" in out) == (0, True), out
    assert descents("drop", store, "--where", "rate=3.5", "--where", "surface=bowl", "--yes")[0] == 0
    assert 0 < len(run_files(store)) < len(before)
    for sweep in ("plain", "mine"):
        assert descents("train", store, "--sweep", sweep, "--quiet")[0] == 0
    assert rows_of(store).num_rows == 103


@pytest.mark.parametrize("arguments", [("--by", "rate"), ("--by", "noisy"), ("--series", "descent_norm"), ()])
def test_curves_are_drawn(descents, trained, tmp_path, arguments):
    code, _, err = descents("plot", trained, tmp_path / "out.pdf", "--where", "surface=bowl", *arguments)
    assert (code, (tmp_path / "out.pdf").exists()) == (0, True), err


def test_curves_are_over_the_moments_that_rows_name(trained):
    one = Descent(surface="bowl", rate=3.5, noisy=True, place=(0.001, -0.0))
    where = ["surface=bowl", "rate=3.5", "noisy=true", "measured=5"]
    with choosing(REFERENCE, None):
        table = plot.summary_table(trained, where)
    table = table.filter(pc.equal(pc.list_element(table["place"], 0), 0.001))
    figure = plot.learning_curves(table, study=DESCENTS)
    (line,) = figure.axes[0].lines
    from tests.descents import moments

    assert line.get_xdata().tolist() == moments(one, 5).tolist()


def test_the_page_has_the_moments(trained):
    data = page_data(Store.open(trained, study=DESCENTS), Choice(sweeps=("plain",)))
    assert (data["point"], data["curves"]["ends"][-1]) == ("moment", data["curves"]["ends"][15])
    assert len(data["runs"]) == 16


# --- killed, and side by side -------------------------------------------------------------------------------------


def start(path, spec, *options):
    command = [sys.executable, "-m", "butter_etl", "train", path, "--spec", spec, *STUDY, "--workers", "2", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.long
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(tmp_path, spec, client):
    path, undisturbed, file = tmp_path / "store", tmp_path / "undisturbed", spec(LONG)
    first = start(path, file, "--checkpoint-minutes", "0.001")
    checkpoints = path / "state" / "checkpoints"
    wait_for(lambda: run_files(path) and any(checkpoints.glob("*.checkpoint")), first)
    first.send_signal(signal.SIGSTOP)
    for process in (*workers_of(first), first):
        process.kill()
    first.communicate()
    assert 0 < len(landed(path)) < 240
    assert any(checkpoints.glob("*.checkpoint"))
    code, out, err = finish(start(path, file))
    assert (code, "runs landed" in out) == (0, True), err
    assert not any(checkpoints.glob("*.checkpoint"))
    assert train(undisturbed, spec=file, study=DESCENTS, client=client).landed == 240
    same_bits(rows_of(path), rows_of(undisturbed))


@pytest.mark.long
def test_two_drivers_at_once(tmp_path, spec):
    path, file = tmp_path / "store", spec(LONG)
    drivers = [start(path, file), start(path, file)]
    for driver in drivers:
        code, _, err = finish(driver)
        assert code == 0, err
    assert (len(landed(path)), set(landed(path).values())) == (240, {1})
