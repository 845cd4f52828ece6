"""Studies that are not known, have changed, or cannot be imported: one line each; frames are read all the same."""

import json
import pickle
import sys
from dataclasses import replace

import pytest

import butter_etl as be
from butter_etl.errors import StudyError
from butter_etl.store.store import Store
from butter_etl.studies.known import choosing, installed
from tests.descents import DESCENTS
from tests.other_study import FITS, KEY_TYPES, make_store_of_fits
from tests.test_other_study import REFERENCE, SPEC


@pytest.fixture
def store(tmp_path):
    """A store of a study that is not known here."""
    return make_store_of_fits(tmp_path / "store").location.root


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of a study into a folder of its own; it is forgotten afterwards."""
    made = []

    def write(name, text):
        (tmp_path / "modules").mkdir(exist_ok=True)
        (tmp_path / "modules" / f"{name}.py").write_text(text)
        made.append(name)
        return ("--study", f"{name}:STUDY", "--study-path", tmp_path / "modules")

    yield write
    monkeypatch.undo()
    for name in made:
        sys.modules.pop(name, None)
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path / "modules")]


def one_line(result, *parts):
    code, _, err = result
    assert (code, err.count("\n"), "Traceback" in err) == (2, 1, False), err
    for part in parts:
        assert part in err
    return True


def conditions():
    yield from ("solver=many", "solver!=many", "knots", "steps<9", "steps=4,5", "terms=3")
    for key, (_, value) in KEY_TYPES.items():
        yield f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        yield f"{key}=null"


@pytest.mark.parametrize("condition", [one for one in conditions() if "knots" not in one])
def test_frames_of_an_unknown_study_are_read_by_conditions(store, condition):
    with choosing("tests.other_study:FITS", None):
        names = FITS.where_keys
        known = (
            None
            if condition.startswith("terms")
            else be.read_runs(store, where=[condition]).compute(scheduler="synchronous")
        )
    found = be.read_runs(store, where=[condition]).compute(scheduler="synchronous")
    summary = be.read_summary(store, where=[condition]).compute(scheduler="synchronous")
    if known is not None:
        assert len(found) == len(known)
        assert condition.split("=")[0].split("<")[0].strip("!") in names
    assert len(found) == 3 * len(summary)
    assert 0 < len(summary) < 3 or condition == "solver=null"


def test_frames_of_an_unknown_study_are_read_with_a_variable_that_names_nothing(store, monkeypatch):
    monkeypatch.setenv("BUTTER_ETL_STUDY", "no.such:STUDY")
    assert len(be.read_runs(store, where=["solver=many"]).compute(scheduler="synchronous")) == 3
    assert len(be.read_executive_summary(store).compute(scheduler="synchronous")) == 3


@pytest.mark.parametrize(
    "command",
    ["status", "summarize", "verify", "report", "plan", "train", "drop", "plot", "export", "import", "sweeps"],
)
def test_each_command_says_what_study_is_not_known(run, store, tmp_path, command):
    rest = {
        "report": [tmp_path / "x.html"],
        "plan": ["--sweep", "coarse"],
        "train": ["--sweep", "coarse"],
        "drop": ["--where", "solver=many", "--yes"],
        "plot": [tmp_path / "x.png"],
        "export": [tmp_path / "dest", "--all"],
    }.get(command, [])
    arguments = {"import": [store, tmp_path / "new"], "sweeps": ["--store", store]}.get(command, [store, *rest])
    code, _, err = run(command, *arguments)
    assert (code, err.count("\n"), "'fits'" in err) == (1 if command == "import" else 2, 1, True)
    assert err.endswith(
        "[source]\n" if command == "import" else "(known: butter, nn_lifespans, rnn_capacity) [study]\n"
    )
    assert not any((tmp_path / name).exists() for name in ("x.html", "x.png", "dest", "new"))


def test_a_declaration_that_changed_is_told(run, tmp_path, module):
    text = "from dataclasses import replace\nfrom butter_etl.studies.columns import Column\nimport pyarrow as pa\n"
    text += "from tests.descents import DESCENTS\n"
    before = module("before", f"{text}STUDY = replace(DESCENTS, name='mine')\n")
    assert run("sweeps", *before)[0] == 0
    with choosing(before[1], str(before[3])):
        path = Store.create(tmp_path / "mine").location.root
    more = "(*DESCENTS.run_columns, Column('more', pa.int8(), 'more'))"
    after = module("after", f"{text}STUDY = replace(DESCENTS, name='mine', run_columns={more})\n")
    for command in (
        ["status", path],
        ["train", path, "--sweep", "plain", "--quiet"],
        ["verify", path],
        ["summarize", path],
    ):
        assert run(command[0], *command[1:], *before)[0] in (0, 1)
        assert one_line(run(command[0], *command[1:], *after), "its study 'mine' is declared otherwise now", "[study]")
    assert len(be.read_runs(path, ["noisy=true"]).compute(scheduler="synchronous")) == 32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ValueError('two\\nlines')", "ValueError: two"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import torch_that_is_not_there.nn", "ModuleNotFoundError"),
        ("OTHER = 1", "has no attribute 'STUDY'"),
        ("STUDY = 1", "STUDY is no Study, but a int"),
        ("from tests.other_study import Fit as STUDY", "STUDY is no Study, but a"),
        (
            "from tests.other_study import FITS\nfrom dataclasses import replace\nSTUDY = replace(FITS, keys=('x',))",
            "keys: there is",
        ),
        ("import warnings\nwarnings.warn('old')", "UserWarning: old"),
    ],
)
def test_modules_that_cannot_be_imported_are_told(run, store, module, text, said):
    options = module(f"wrong_{abs(hash(text))}", text)
    assert one_line(run("status", store, *options), said, "[study]")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("tests.other_study", "the study 'tests.other_study' is not known here"),
        ("no_such_module:STUDY", "No module named 'no_such_module'"),
        ("tests.no_such:STUDY", "No module named 'tests.no_such'"),
        (":STUDY", "write package.module:NAME"),
        ("tests.other_study:", "write package.module:NAME"),
        ("tests/other_study.py:FITS", "write package.module:NAME"),
        (".other_study:FITS", "write package.module:NAME"),
        ("tests.other_study:FITS.name", "write package.module:NAME"),
        ("", "name a study: package.module:NAME"),
    ],
)
@pytest.mark.parametrize("command", [["sweeps"], ["status", "new"]])
def test_references_that_say_nothing_are_told(run, tmp_path, monkeypatch, command, reference, said):
    monkeypatch.chdir(tmp_path)
    assert one_line(run(*command, "--study", reference), said)


def test_a_variable_that_names_another_study_leaves_stores_what_they_are(run, store, tmp_path, monkeypatch):
    butter = Store.create(tmp_path / "butter", study="butter").location.root
    monkeypatch.setenv("BUTTER_ETL_STUDY", REFERENCE)
    assert run("status", butter)[0] == 0
    assert one_line(run("status", store), "the study 'fits' is not known here")
    assert run("sweeps")[1].splitlines()[2].split()[0] == "plain"
    assert Store.create(tmp_path / "new").study is DESCENTS
    assert one_line(run("status", butter, "--study", REFERENCE), "is a store of the study 'butter', not of 'descents'")


# --- on workers ---------------------------------------------------------------------------------------------------

ONLY_HERE = """
import multiprocessing
from dataclasses import replace
from tests.descents import DESCENTS
if multiprocessing.parent_process() is not None:
    raise OSError("no licence\\non this machine")
STUDY = replace(DESCENTS, name="descents")
"""


FEW = "{name: few, repetitions: 2, cubes: {surface: bowl, rate: [0.1, 0.2]}}"


def test_a_module_that_fails_on_workers_only(run, tmp_path, module):
    options, path = module("only_here", ONLY_HERE), tmp_path / "store"
    (tmp_path / "few.yaml").write_text(FEW)
    code, out, err = run("train", path, "--spec", tmp_path / "few.yaml", "--quiet", *options)
    said = "study only_here:STUDY: OSError: no licence; on this machine (looked in "
    assert (code, "0 runs landed" in out) == (1, True)
    assert [said in line and line.endswith("[study]") for line in err.splitlines()] == [True, True]
    recorded = json.loads(run("status", path, "--json", *options)[1])["failures"]
    assert [one["repetitions"] for one in recorded] == [[0, 1]] * 2
    assert all(one["error"].startswith(said) and one["kind"] == "study" for one in recorded)
    assert "recorded-failure" in run("verify", path, *options)[1]
    (tmp_path / "mine.yaml").write_text(SPEC)
    code, _, err = run("train", path, "--spec", tmp_path / "mine.yaml", "--quiet", *options)
    assert (code, err.count("\n")) == (1, 1)
    assert f"stopped: 20 tasks in a row failed, the last one with: {said}" in err
    good = ("--study", REFERENCE)
    assert run("train", path, "--sweep", "few", "--quiet", *good)[0] == 0
    assert json.loads(run("status", path, "--json", *good)[1])["failures"] == []


def test_other_stages_say_what_workers_cannot_import(run, tmp_path, module):
    options, path = module("only_here", ONLY_HERE), tmp_path / "store"
    assert run("train", path, "--sweep", "plain", "--quiet", "--study", REFERENCE)[0] == 0
    (tmp_path / "site.yaml").write_text("kind: local\nworkers: 1\n")
    site = ("--cluster", tmp_path / "site.yaml")
    for command in (["summarize", path, *site], ["import", path, tmp_path / "new", *site], ["verify", path, *site]):
        assert one_line(run(*command, *options, "--quiet"), "OSError: no licence; on this machine", "[study]")


def test_a_check_of_a_cluster_says_that_workers_cannot_import(run, tmp_path, module, monkeypatch):
    options = module("only_here", ONLY_HERE)
    (tmp_path / "site.yaml").write_text("kind: local\nworkers: 1\n")
    code, out, _ = run("cluster", "check", tmp_path / "site.yaml", "--json", *options)
    found = {one["subject"]: one for one in json.loads(out)["findings"]}
    assert (code, found["study"]["state"]) == (1, "wrong")
    assert found["study"]["said"].startswith("study only_here:STUDY: OSError: no licence; on this machine (looked in ")
    assert found["worker"]["state"] == "ok"


# --- installed ----------------------------------------------------------------------------------------------------


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution that declares studies, as far as Python can tell."""

    def install(*lines):
        folder = tmp_path / "site" / "of_tests-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: of-tests\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("\n".join(["[butter_etl.studies]", *lines, ""]))
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install


def test_an_installed_study_is_known_by_its_name(run, tmp_path, distribution, client):
    distribution("descents = tests.descents:DESCENTS [some]", "butter = tests.descents:DESCENTS")
    assert installed()["descents"] == REFERENCE
    path = Store.create(tmp_path / "store", study="descents").location.root
    assert Store.open(path).study is DESCENTS
    assert be.train(path, sweep="plain", where=["noisy=true"], client=client).landed == 32
    assert run("summarize", path, "--quiet")[0] == 0
    assert run("sweeps", "--study", "descents")[1].splitlines()[2].split()[0] == "plain"
    assert "16 summaries" in run("verify", path)[1] or run("verify", path)[0] == 0
    assert run("train", tmp_path / "new", "--sweep", "plain", "--study", "descents", "--quiet")[0] == 0
    assert Store.create(tmp_path / "butter").study.name == "butter"  # the package's own name stays its own


def test_what_is_installed_wrongly_is_told(run, tmp_path, distribution):
    distribution("other = tests.descents:DESCENTS", "lost = no.such:STUDY", "fits = tests.descents:REDUCTION")
    store = make_store_of_fits(tmp_path / "store").location.root
    said = "it is installed as 'other', but calls itself 'descents'"
    assert one_line(run("sweeps", "--study", "other"), said)
    assert one_line(run("sweeps", "--study", "lost"), "No module named 'no'")
    assert one_line(run("status", store), "REDUCTION is no Study, but a Reduction")
    assert one_line(run("sweeps", "--study", "othr"), "(did you mean 'other'?)")


def test_a_study_made_of_parts_of_others_is_pickled_by_where_it_stands(tmp_path, module):
    module(
        "made_of_parts",
        "from dataclasses import replace\nfrom tests.descents import DESCENTS\nSTUDY = replace(DESCENTS)",
    )
    sys.path.insert(0, str(tmp_path / "modules"))
    study = __import__("made_of_parts").STUDY
    assert study.reference == ("made_of_parts:STUDY", str(tmp_path / "modules"))
    assert pickle.loads(pickle.dumps(study)) is study  # noqa: S301 (our own)
    assert DESCENTS.reference[0] == REFERENCE


def test_a_study_in_no_module_is_told_before_anything_is_made(tmp_path, client):
    with pytest.raises(StudyError, match="it must stand in a module"):
        be.train(tmp_path / "store", sweep="plain", study=replace(DESCENTS), client=client)
    assert not (tmp_path / "store").exists()
