"""The commands as users type them: what they print, their exit codes, and one clear line for bad input."""

import json
import logging
import re
import sys

import duckdb
import pytest

from butter_etl import __version__
from butter_etl.campaign.heartbeats import Heartbeat
from butter_etl.cli.group import main
from butter_etl.cli.messages import log_level, log_shown
from butter_etl.store.failures import Failure
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.selection import Choice
from tests.strategies import POLLEN, land

SPEC = """
name: quick
repetitions: 2
cubes:
  - {dataset: [breast_cancer], size: [128, 256], depth: [2], epochs: [2], learning_rate: [0.01]}
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, 0, range(3))
    return store


def test_help_and_version(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "sweeps", "plan", "train", "status", "summarize", "export", "import"):
        assert f"\n  {command} " in out
        code, page, _ = run(command, "--help")
        assert code == 0
        assert f"butter-etl {command}" in page
        assert max(map(len, page.splitlines())) <= 80
    assert run("--version")[1].strip().endswith(__version__)


def test_sweeps(run):
    code, out, _ = run("sweeps")
    assert code == 0
    for figure in ("30,576", "1,176", "5,488", "37,440", "50,960", "8,640", "40,824", "104,000", "148,232", "130,693"):
        assert figure in out
    assert max(map(len, out.splitlines())) <= 80
    as_json = json.loads(run("sweeps", "--json")[1])
    assert as_json[0] == {"sweep": "primary", "cubes": 1, "experiments": 30576, "feasible": 27337, "repetitions": 30}
    code, out, _ = run("sweeps", "label_noise")
    assert code == 0
    assert "0, 0.05, 0.1, 0.15, 0.2" in out


def test_sweeps_of_a_store(run, spec, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    opened = Store.create(tmp_path / "store")
    assert "has no custom sweeps" in run("sweeps", "--store", tmp_path / "store")[1]
    Registry(opened).register(opened, Choice(specs=(str(spec),)))
    code, out, _ = run("sweeps", "--store", tmp_path / "store")
    assert (code, "custom sweeps of" in out, max(map(len, out.splitlines())) <= 80) == (0, True, True)
    (row,) = re.findall(r"^ quick .*$", out, flags=re.MULTILINE)
    assert row.split() == ["quick", "1", "2", "2", "2"]
    rows = json.loads(run("sweeps", "--store", tmp_path / "store", "--json")[1])
    assert rows[-1] == {"sweep": "quick", "cubes": 1, "experiments": 2, "feasible": 2, "repetitions": 2}
    assert "quick: 2 experiments, 2 repetitions each" in run("sweeps", "quick", "--store", tmp_path / "store")[1]
    code, _, err = run("sweeps", "quik", "--store", tmp_path / "store")
    assert (code, "(did you mean 'quick'?)" in err) == (2, True)


def test_a_sweep_is_replaced_unless_it_has_begun_or_somebody_trains(run, spec, tmp_path):
    opened = Store.create(tmp_path / "store")
    Registry(opened).register(opened, Choice(specs=(str(spec),)))
    spec.write_text(SPEC.replace("[128, 256]", "[128]"))
    replace = ("sweeps", "--store", tmp_path / "store", "--replace", spec)
    with Heartbeat(opened.state, 10):
        code, _, err = run(*replace)
        assert (code, err.count("\n")) == (2, 1)
        assert "runs are being trained; stop that before a sweep is replaced [select]" in err
    assert run(*replace)[:2] == (0, "replaced quick: 1 experiment\n")
    registry = Registry(opened)
    registry.claim(opened, dict.fromkeys(registry.sweep("quick").experiments(), "quick"))
    spec.write_text(SPEC)
    code, _, err = run(*replace)
    assert (code, err.count("\n")) == (2, 1)
    assert "has begun (1 claimed experiment) and cannot be replaced; choose another name [select]" in err


def test_warnings_of_the_log_are_lines_like_others(run, tmp_path, capsys):
    with log_shown(), log_level("INFO"):
        logging.getLogger("butter_etl.somewhere").warning("the queue sleeps")
        logging.getLogger("butter_etl").info("compiling")
    assert capsys.readouterr().err == "butter-etl: warning: the queue sleeps\nbutter-etl: compiling\n"


def test_the_way_of_a_sweep(run, spec, tmp_path):
    store = tmp_path / "runs"
    code, out, _ = run("plan", store, "--spec", spec)
    assert (code, store.exists()) == (0, False)
    assert "2 experiments, 0 runs there, 4 missing" in out
    assert "with 3 at once, done 20" in run("plan", store, "--spec", spec, "--workers", 3)[1]
    code, out, err = run("train", store, "--spec", spec, "--workers", 2)
    assert code == 0
    assert "4 runs landed" in out
    assert "training 4 runs" in err
    code, out, _ = run("train", store, "--sweep", "quick")
    assert (code, out) == (0, "nothing to do: all 4 runs of 2 experiments are there\n")
    code, out, _ = run("status", store, "--sweep", "quick", "--repetitions", 3)
    assert "4 runs of 2 experiments" in out
    assert "summaries: 0 up to date, 2 missing or out of date" in out
    assert "selection: 2 experiments, 4 runs there, 2 missing" in out
    code, out, err = run("export", store, tmp_path / "out", "--sweep", "quick")
    assert code == 1
    assert "run `butter-etl summarize` first" in err
    code, out, _ = run("summarize", store, "--workers", 1)
    assert (code, out) == (0, "2 experiments summarised, 0 were up to date\n")
    code, out, _ = run("summarize", store)
    assert (code, out) == (0, "nothing to do: both summaries are up to date\n")
    code, out, _ = run("export", store, tmp_path / "out", "--sweep", "quick", "--tar")
    assert code == 0
    assert "quick_sweep_summary.tar" in out
    rows = duckdb.sql(f"select count(*) from read_parquet('{tmp_path}/out/quick_sweep_runs/**/*.parquet')").fetchall()
    assert rows == [(4,)]


def test_json_for_machines(run, spec, tmp_path):
    store = tmp_path / "runs"
    planned = json.loads(run("plan", store, "--spec", spec, "--json")[1])
    assert (planned["experiments"], planned["runs_missing"], planned["datasets"]) == (2, 4, ["breast_cancer"])
    assert [(part["sweep"], part["dataset"], part["runs_missing"]) for part in planned["parts"]] == [
        ("quick", "breast_cancer", 4)
    ]
    site = tmp_path / "site.yaml"
    site.write_text("kind: local\ncores: 4\n")
    times = json.loads(run("plan", store, "--spec", spec, "--json", "--cluster", site, "--workers", 3)[1])
    assert times["tasks_at_once"] == 12
    assert times["seconds"] <= planned["seconds"]
    _code, out, err = run("train", store, "--spec", spec, "--repetitions", 1, "--workers", 1, "--json")
    trained = json.loads(out)
    assert (trained["landed"], trained["failed"], trained["interrupted"], err) == (2, 0, False, "")
    assert json.loads(run("summarize", store, "--json")[1]) == {"computed": 2, "fresh": 0, "dropped": 0}
    status = json.loads(run("status", store, "--json")[1])
    assert (status["runs"], status["summaries"]["fresh"], status["sweeps"]) == (2, 2, ["quick"])
    matching = json.loads(run("status", store, "--json", "--where", "size=128")[1])
    assert matching["selection"] == {"experiments": 1, "runs_there": 1}
    exported = json.loads(run("export", store, tmp_path / "out", "--where", "size=128", "--json")[1])
    names = ("all_runs", "complete_executive_summary", "complete_summary")
    assert sorted(exported["directories"]) == [[name, 1, 1] for name in names]


def test_status_shows_failures(run, store):
    store.record_failure(Failure(0, "529_pollen", [3, 4], "ValueError: bad luck", "trace", "host", 1))
    code, out, _ = run("status", store)
    assert code == 0
    assert "failed: experiment 0 (529_pollen), repetitions 3-4: ValueError: bad luck" in out


def bad_store(tmp_path, name):
    """Paths that are no store, by what is wrong with them."""
    path = tmp_path / name
    if name == "a-file":
        path.write_text("not a store")
    elif name == "a-folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "S", "--sweep", "primry"], 2, "unknown sweep 'primry' (did you mean 'primary'?)"),
        (["train", "S"], 2, "name what to train"),
        (["plan", "S", "--sweep", "primary", "--where", "dataset"], 2, "write KEY OP VALUE"),
        (["plan", "S", "--sweep", "primary", "--where", "datset=mnist"], 2, "unknown key 'datset'"),
        (["train", "S", "--sweep", "primary", "--repetitions", "-3"], 2, "-3 is not between 1 and 255"),
        (["train", "S", "--sweep", "primary", "--repetitions", "300"], 2, "300 is not between 1 and 255"),
        (["train", "S", "--sweep", "primary", "--first-repetition", "-1"], 2, "-1 is not between 0 and 65535"),
        (["train", "a-file", "--sweep", "primary"], 2, "a-file: is a file, not a store"),
        (["train", "a-folder", "--sweep", "primary"], 2, "a-folder: is no store (it has no store.json) and not empty"),
        (["status", "a-folder"], 2, "a-folder: is no store"),
        (["status", "nowhere"], 2, "nowhere: does not exist"),
        (["summarize", "nowhere"], 2, "nowhere: does not exist"),
        (["export", "S", "out"], 2, "name what to export"),
        (["export", "S", "out", "--sweep", "primary", "--repetitions", "3"], 2, "exports hold all repetitions"),
        (["train", "S", "--spec", "misspelt.yaml"], 2, "cubes[0]: unknown key 'sizes' (did you mean 'size'?)"),
        (["train", "S", "--spec", "none.yaml"], 2, "none.yaml: cannot be read"),
        (["train", "S", "--sweep", "primary", "--cluster", "none.yaml"], 2, "none.yaml"),
        (["train", "S", "--sweep", "primary", "--engine", "fused", "--device", "cuda"], 2, "does not run on cuda"),
        (["plan", "S", "--sweep", "primary", "--where", "dataset=nursry"], 2, "(did you mean 'nursery'?)"),
        (["plan", "S", "--sweep", "primary", "--where", "experiment_id=3"], 2, "unknown key 'experiment_id'"),
        (["summarize", "a-folder", "--repetitions", "3"], 2, "summaries are over all repetitions"),
        (["sweeps", "nothing"], 2, "unknown sweep 'nothing'"),
        (["sweep"], 2, "no such command 'sweep' (did you mean 'sweeps'?); butter-etl --help lists them [usage]"),
        (["cluster", "chek", "x"], 2, "no such command 'chek' (did you mean 'check'?); butter-etl cluster --help"),
        (["train"], 2, "missing argument 'STORE'; butter-etl train --help shows how [usage]"),
        (["train", "S", "--sweps", "primary"], 2, "no such option '--sweps' (did you mean '--sweep'?)"),
        (
            ["train", "S", "--engine", "fuse"],
            2,
            "is not one of 'auto', 'fused', 'torch' (did you mean 'fused'?)",
        ),
        (["train", "S", "--workers", "0"], 2, "invalid value for '--workers': 0 is not in the range x>=1"),
        (["train", "S", "--workers", "few"], 2, "'few' is not a valid integer range"),
        (["cluster", "init", "slrm"], 2, "unknown kind of site 'slrm' (did you mean 'slurm'?)"),
        (["import", "S", "T", "--profile", "oedi-2022"], 2, "unknown (did you mean 'oedi-2022-08'?)"),
        (
            ["plan", "S", "--sweep", "primary", "--where", "datset=x"],
            2,
            "'datset' (did you mean 'dataset'?)",
        ),
        (
            ["plan", "S", "--sweep", "primary", "--where", "dataset=mushroom"],
            2,
            "mushroom is a data set of PMLB: declare",
        ),
        (["plan", "S", "--sweep", "primary", "--where", "dataset=mushrom"], 2, "(did you mean 'mushroom'?)"),
        (["plan", "S", "--sweep", "primary", "--where", "shape=rectangel"], 2, "(did you mean 'rectangle'?)"),
        (["plan", "S", "--spec", "mushroom.yaml"], 2, "mushroom is a data set of PMLB: declare it in a sweep file"),
        (["sweeps", "--replace", "misspelt.yaml"], 2, "--replace and --state are of a store; name it by --store"),
        (["export", "S", "out", "--all", "--author", " "], 2, "--author ' ': give a name in one line"),
        (["export", "S", "out", "--all", "--author", "Lovelace,"], 2, "write 'Family, Given'"),
        (["export", "S", "out", "--all", "--title", "a\nb"], 2, "--title 'a\\nb': give a name in one line"),
        (["frobnicate"], 2, "no such command 'frobnicate'"),
    ],
)
def test_bad_input_is_one_clear_line(run, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a-file", "a-folder"):
        bad_store(tmp_path, name)
    (tmp_path / "misspelt.yaml").write_text(SPEC.replace("size:", "sizes:"))
    (tmp_path / "mushroom.yaml").write_text(SPEC.replace("breast_cancer", "mushroom"))
    before = sorted(tmp_path.rglob("*"))
    found, _, err = run(*arguments)
    assert found == code
    assert message in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert re.fullmatch(r"butter-etl: .* \[[a-z-]+\]\n", err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_torn_file_is_named_and_nothing_is_half_written(run, store):
    (file,) = store.run_files()
    path = store.location.path(f"all_runs/{file.path}")
    with open(path, "rb+") as stream:  # noqa: PTH123
        stream.truncate(1000)
    code, _, err = run("summarize", store)
    assert code == 1
    assert "0-0-2.parquet cannot be read" in err
    assert len(err.splitlines()) == 1
    assert not list(store.state.parent.rglob("summary.parquet"))
    assert run("status", store)[0] == 0


def test_debug_shows_the_traceback(tmp_path):
    from butter_etl.errors import StoreError

    with pytest.raises(StoreError):
        main(["--debug", "status", str(tmp_path / "none")])


def test_demo_needs_no_network(run, tmp_path, monkeypatch):
    monkeypatch.setenv("BUTTER_ETL_PMLB_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BUTTER_ETL_STUDY", "tests.other_study:FITS")  # the demo is of BUTTER all the same
    monkeypatch.chdir(tmp_path)
    shorten_demo(monkeypatch, tmp_path)
    code, out, _ = run("demo", "--quiet")
    assert code == 0
    for text in ("breast_cancer", "diabetes", "digits", "demo_sweep_summary.tar", "be.read_runs", "be.read_export"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("demo", "--quiet")
    assert code == 0
    assert "nothing to do" in out


def shorten_demo(monkeypatch, tmp_path):
    """The demo's sweep with fewer epochs and sizes; everything else as it is."""
    from butter_etl.cli import demo

    original = demo.DEMO_SPEC.read_text()
    short = original.replace("epochs: [100]", "epochs: [3]").replace(
        "[rectangle, trapezoid, wide_first_2x]", "[rectangle]"
    )
    assert short != original
    path = tmp_path / "demo.yaml"
    path.write_text(short)
    monkeypatch.setattr(demo, "DEMO_SPEC", path)


def test_the_demo_is_what_it_says():
    from butter_etl.cli.demo import DEMO_SPEC
    from butter_etl.studies.butter.datasets import DATASETS
    from butter_etl.studies.butter.sweep_files import load_sweep

    sweep = load_sweep(DEMO_SPEC)
    specs = list(sweep.experiments())
    assert {DATASETS[spec.dataset].loss for spec in specs} == {
        "categorical_crossentropy",
        "binary_crossentropy",
        "mean_squared_error",
    }
    for key in ("shape", "size", "depth"):
        assert len({getattr(spec, key) for spec in specs}) > 1
    assert sweep.repetitions >= 5
    assert min(spec.epochs for spec in specs) >= 100


def test_a_missing_extra_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    select = ("--sweep", "primary", "--where", "dataset=nursery", "--where", "size=1024")
    code, _, err = run("train", tmp_path / "runs", *select, "--data-dir", tmp_path)
    way_out = "in a checkout of the package: pip install '.[train]' -c constraints.txt"
    assert (code, err) == (1, f"butter-etl: requests is not installed; {way_out} [extra]\n")
    assert not (tmp_path / "runs").exists()


def test_import(run, store, tmp_path):
    code, out, err = run("import", tmp_path / "store", tmp_path / "other")
    assert (code, out, err) == (0, "1 experiment: 3 runs landed, 0 were there\n", "")
    (tmp_path / "store/all_runs/notes.txt").write_text("x")
    code, out, err = run("import", tmp_path / "store", tmp_path / "other")
    assert (code, out) == (0, "1 experiment: 0 runs landed, 3 were there\n")
    assert err == "butter-etl: warning: files whose names do not end in .parquet are left out: all_runs/notes.txt\n"
    report = json.loads(run("import", tmp_path / "store", tmp_path / "other", "--json", "--prefer", "store")[1])
    assert (report["landed"], report["present"], len(report["warnings"])) == (0, 3, 1)
    (tmp_path / "store/all_runs/x.parquet").write_bytes(b"x")
    code, _, err = run("import", tmp_path / "store", tmp_path / "third")
    assert code == 1
    assert err.startswith("butter-etl: ")
    assert "x.parquet cannot be read" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "third").exists()
    code, _, err = run("import", tmp_path / "store", tmp_path / "third", "--profile", "v3")
    assert (code, err) == (2, "butter-etl: --profile 'v3': unknown; known: seed, oedi-2022-08 [select]\n")


def test_intervals_are_made_at_levels_that_are_asked_for_or_were(store, run):
    code, out, _ = run("summarize", store, "--precision", "--level", 0.9)
    assert (code, out.splitlines()[-1]) == (0, "1 experiment with intervals at 0.9, 0 were up to date")
    code, out, _ = run("summarize", store, "--precision")
    assert out.splitlines()[-1] == "nothing to do: the intervals at 0.9 of the only experiment are up to date"
    code, out, _ = run("summarize", store, "--precision", "--level", 0.99, "--full", "--json")
    assert json.loads(out)["precision"] == [{"level": 0.99, "computed": 1, "fresh": 0, "dropped": 0}]
    for level in (1, 0, "nan"):
        code, _, err = run("summarize", store, "--precision", "--level", level)
        assert (code, err.count("\n")) == (2, 1)
        assert "confidence levels lie between 0.5 and 0.9999" in err
    assert run("summarize", store, "--level", 0.9)[0] == 2


def test_summarize_and_verify_agree_on_intervals_that_runs_were_added_to(store, run):
    assert run("summarize", store, "--precision")[0] == 0
    land(store, POLLEN, 0, range(3, 5))
    assert "stale-summary" in run("verify", store)[1]
    code, out, _ = run("summarize", store)
    assert (code, out.splitlines()[-1]) == (0, "1 experiment with intervals at 0.95, 0 were up to date")
    assert run("verify", store)[0] == 0
