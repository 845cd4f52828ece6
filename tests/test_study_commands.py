"""Commands for a study of one's own: named by an option or a variable, found by the store, refused in one line."""

import json
import os
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl.cli.cluster import prepare
from butter_etl.clusters.probing import probe_workers
from butter_etl.clusters.sites import SiteFile
from butter_etl.store.parquet import parquet_bytes
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.known import choosing, chosen_study
from butter_etl.upkeep.verify import plan_verification, run_verification
from butter_etl.views.facts import best_losses, distinct_line, feasible_cells, sweep_table
from butter_etl.views.page import page_data
from tests.other_study import COARSE, FITS, make_store_of_fits
from tests.test_completion import path, tab  # noqa: F401 (fixtures)

REFERENCE = "tests.other_study:FITS"


@pytest.fixture
def store(tmp_path):
    """A store of the other study, summarised."""
    return make_store_of_fits(tmp_path / "store").location.root


@pytest.fixture
def fits(run):
    """Run a command with the option that names the other study."""
    return lambda *arguments: run(*arguments, "--study", REFERENCE)


def test_a_store_of_an_unknown_study_is_one_line(run, store):
    code, _, err = run("status", store)
    assert (code, err.count("\n")) == (2, 1)
    assert "the study 'fits' is not known here; install what declares it, or name its module: --study" in err
    assert err.endswith("(known: butter, nn_lifespans, rnn_capacity) [study]\n")


def test_the_option_names_a_study_for_the_command_alone(fits, run, store):
    code, out, _ = fits("status", store)
    assert (code, out.splitlines()) == (0, [f"{store}: 9 runs of 3 experiments", "summaries: 3 up to date"])
    assert "BUTTER_ETL_STUDY" not in os.environ
    assert run("status", store)[0] == 2


def test_the_variable_does_as_the_option(run, store, monkeypatch):
    monkeypatch.setenv("BUTTER_ETL_STUDY", REFERENCE)
    assert run("status", store)[0] == 0
    assert run("sweeps", "--study", "butter")[1].splitlines()[2].split()[0] == "primary"
    monkeypatch.setenv("BUTTER_ETL_STUDY", "nonsense")
    code, _, err = run("sweeps")
    assert (code, "BUTTER_ETL_STUDY=nonsense: the study 'nonsense' is not known here" in err) == (2, True)
    assert run("sweeps", "--study", REFERENCE)[0] == 0


def test_a_study_is_found_in_a_folder(run, tmp_path):
    text = "from dataclasses import replace\nfrom tests.other_study import FITS\nMINE = replace(FITS, name='mine')\n"
    (tmp_path / "lies_elsewhere.py").write_text(text)
    code, _, err = run("sweeps", "--study", "lies_elsewhere:MINE")
    assert (code, "ModuleNotFoundError" in err) == (2, True)
    code, out, _ = run("sweeps", "--study", "lies_elsewhere:MINE", "--study-path", tmp_path)
    assert (code, "coarse" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "STORE", "--study", "buter"], "--study buter: the study 'buter' is not known here (did you mean"),
        (["status", "STORE", "--study", "tests.other_study:FIT"], "has no attribute 'FIT'"),
        (["status", "STORE", "--study", "tests.other_study:Fit"], "Fit is no Study, but a"),
        (
            ["train", "STORE", "--sweep", "coarse", "--study", "butter"],
            "is a store of the study 'fits', not of 'butter'",
        ),
        (["verify", "STORE", "--study", "butter"], "is a store of the study 'fits', not of 'butter'"),
        (
            ["train", "STORE", "--sweep", "coarse", "--engine", "newtn", "--study", REFERENCE],
            "(did you mean 'newton'?)",
        ),
        (
            ["train", "new", "--sweep", "coarse", "--engine", "fused", "--study", REFERENCE],
            "'auto', 'newton', 'bisection'",
        ),
        (["train", "new", "--sweep", "primary", "--study", REFERENCE], "unknown sweep 'primary'; published: coarse"),
        (["plan", "STORE", "--sweep", "coarse", "--where", "size=3", "--study", REFERENCE], "unknown key 'size'"),
        (["import", "STORE", "new", "--profile", "oedi-2022-08", "--study", REFERENCE], "known: seed, old [select]"),
        (["plot", "STORE", "x.png", "--kind", "map", "--study", REFERENCE], "declares no parameters for maps"),
        (["plot", "STORE", "x.png", "--series", "test_loss", "--study", REFERENCE], "known: fit_error, fit_norm"),
        (["plot", "STORE", "x.png", "--by", "dataset", "--study", REFERENCE], "unknown parameter 'dataset'"),
    ],
)
def test_what_does_not_go_is_one_line(run, store, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*(store if word == "STORE" else word for word in arguments))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "new").exists()


def test_plans_are_by_the_outermost_key(fits, tmp_path):
    code, out, _ = fits("plan", tmp_path / "new", "--sweep", "coarse")
    assert code == 0
    assert out.splitlines()[1].split() == ["solver", "experiments", "infeasible", "there", "missing", "core-hours"]
    planned = json.loads(fits("plan", tmp_path / "new", "--sweep", "coarse", "--json")[1])
    assert planned["solvers"] == ["direct", "tree/ä b"]
    assert [(part["sweep"], part["solver"]) for part in planned["parts"]] == [
        ("coarse", "direct"), ("coarse", "tree/ä b"),
    ]  # fmt: skip


def test_sweeps_are_those_of_the_study(fits, tmp_path, store):
    rows = json.loads(fits("sweeps", "--json")[1])
    assert rows == [{"sweep": "coarse", "cubes": 1, "experiments": 2, "feasible": 2, "repetitions": 2}]
    shown = json.loads(fits("sweeps", "coarse", "--json")[1])
    assert {row["key"]: row["values"] for row in shown}["solver"] == "direct, tree/ä b"
    assert fits("sweeps")[1].count("\n") == 3


def test_a_store_is_verified_and_mended(fits, store):
    code, out, _ = fits("verify", store, "--summaries")
    assert (code, "9 files with 15 rows" in out, "3 summaries recomputed" in out) == (0, True, True)
    file = next(Path(store, "all_runs").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    assert "torn-file" in fits("verify", store)[1]
    assert "1 file moved" in fits("verify", store, "--repair")[1]
    assert fits("drop", store, "--where", "solver=many", "--yes")[0] == 0


def test_an_export_says_what_study_it_is_of(fits, run, store, tmp_path):
    assert fits("export", store, tmp_path / "dest", "--all")[0] == 0
    code, out, _ = fits("verify", tmp_path / "dest")
    assert (code, "20 files with 19 rows" in out) == (0, True)
    code, _, err = run("verify", tmp_path / "dest")
    assert (code, "dest: the study 'fits' is not known here" in err) == (2, True)
    code, out, _ = fits("import", tmp_path / "dest" / "all_runs", tmp_path / "other")
    assert (code, out) == (
        0,
        '3 experiments: 9 runs landed, 0 were there\nrecorded as of "Fits": licensed under CC-BY-4.0\n',
    )


def test_histories_may_not_be_longer_than_a_run_has_points(store):
    with choosing(REFERENCE, None):
        plan = plan_verification(store)
        assert {unit.study for unit in plan.units} == {FITS}
        path = next(Path(store, "all_runs").rglob("*.parquet"))
        rows = pq.read_table(path, partitioning=None).to_pylist()
        rows[0]["norm"].append(0.5)
        path.write_bytes(parquet_bytes(pa.Table.from_pylist(rows, schema=FITS.run_files), FITS.encodings))
        finding, outdated = run_verification(plan_verification(store)).faults
    assert (finding.kind, outdated.kind) == ("wrong-row", "stale-summary")
    assert finding.detail == f"norm has {rows[0]['steps'] + 1} entries for {rows[0]['steps']} steps"


def test_the_page_shows_what_the_study_declares(store, fits, tmp_path):
    from butter_etl.store.store import Store
    from butter_etl.studies.selection import Choice

    data = page_data(Store.open(store, study=FITS), Choice())
    assert (data["labels"], data["point"], data["map"], data["core_seconds"]) == (
        {"fit_error": "error", "fit_norm": "fit norm"},
        "step",
        [],
        None,
    )
    assert {one["name"]: one["values"] for one in data["filters"]}["solver"] == ["direct", "many", "tree/ä b"]
    assert fits("report", store, tmp_path / "out.html")[0] == 0


def test_best_values_without_groups(store):
    ((experiments, runs, error, network),) = best_losses(store, FITS)
    assert (experiments, runs, float(error) < 1, network) == (3, 9, True, "fit by direct")


def test_cells_are_counted_by_the_axes_that_matter():
    cube = type(COARSE.cubes[0]).of(solver=("a", "b"), rate=(None, 0.5), steps=(0, 3))
    assert feasible_cells(FITS, cube).tolist() == [False, True] * 4
    assert sweep_table(FITS, [COARSE]) == [("coarse", 1, 2, 2, 2)]
    assert distinct_line(BUTTER) == "distinct: experiments of the first seven sweeps, each counted once"


def test_tab_completes_words_of_the_study(tab, store):  # noqa: F811 (a fixture)
    option = ("--study", REFERENCE)
    assert tab("train", store, *option, "--engine", "") == ["auto", "newton", "bisection"]
    assert tab("plot", store, "x.pdf", *option, "--series", "") == ["fit_error", "fit_norm"]
    assert tab("plot", store, "x.pdf", *option, "--by", "so") == ["solver"]
    assert tab("plan", "new", *option, "--sweep", "") == ["coarse"]
    assert tab("import", "x", "new", *option, "--profile", "") == ["seed", "old"]
    assert tab("plan", store, "--sweep", "") == [""]  # of a study that is not known, nothing is
    assert tab("train", store, "--study", "") == ["butter", "nn_lifespans", "rnn_capacity"]


def test_a_worker_tells_whether_it_can_import_the_study(client, tmp_path):
    site = SiteFile(kind="local", logs=str(tmp_path))
    probe = partial(probe_workers, client, site)
    _, findings = probe(partial(prepare, "no.such:STUDY", None, "newton"), "mine")
    (found,) = [one for one in findings if one.subject == "study"]
    assert (found.state, "no.such:STUDY: ModuleNotFoundError" in found.said) == ("wrong", True)
    _, findings = probe(partial(prepare, REFERENCE, None, None), "fits")
    (found,) = [one for one in findings if one.subject == "study"]
    assert (found.state, found.said) == ("ok", "fits was imported there")
    assert not [one for one in probe(dict)[1] if one.subject == "study"]


def test_choosing_ends_with_the_block():
    with choosing(REFERENCE, "."):
        assert chosen_study() is FITS
        assert Path(os.environ["BUTTER_ETL_STUDY_PATH"]).is_absolute()
    assert chosen_study() is None
    assert "BUTTER_ETL_STUDY_PATH" not in os.environ
