"""The whole way in Python, by the names of the package's face: the commands' results, as notebooks show them."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import nbclient
import nbformat
import pytest
from PIL import Image

import butter_etl as be
from butter_etl.cli.group import main
from butter_etl.errors import SelectError, StaleSummaryError, StaleSummaryWarning, UsageError, notebooks
from butter_etl.errors.words import html_table
from butter_etl.exchange.export_plan import ExportOptions
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.views.plot import Style
from tests.strategies import POLLEN, land

BANANA = make_experiment(dataset="banana", size=64, depth=2)
SPEC = """
name: quick
repetitions: 2
cubes:
  - {dataset: [breast_cancer, wine], size: [128], depth: [2], epochs: [3], learning_rate: [0.01]}
"""


class Cells(html.parser.HTMLParser):
    """The texts of a table, row by row; a tag that is not closed, or not known, is an error."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag in ("table", "tr", "td", "th")
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.rows[-1][-1] += text


def shown(result):
    return Cells(result._repr_html_()).rows


def test_the_whole_way(tmp_path, client, capsys):
    spec, store = tmp_path / "quick.yaml", tmp_path / "store"
    spec.write_text(SPEC)
    planned = be.plan(store, spec=spec)
    assert [row[:5] for row in shown(planned)] == [
        ["sweep", "dataset", "experiments", "there", "missing"],
        ["quick", "breast_cancer", "1", "0", "2"],
        ["quick", "wine", "1", "0", "2"],
    ]
    assert not store.exists()
    trained = be.train(store, spec=spec, client=client)
    assert shown(trained)[:3] == [["runs landed", "4"], ["there already", "0"], ["failed", "0"]]
    with pytest.raises(StaleSummaryError):
        be.export(store, tmp_path / "early", sweep="quick")
    summarised = be.summarize_store(store, where=["dataset=wine"])
    assert shown(summarised) == [["experiments summarised", "1"], ["up to date", "0"], ["gone", "0"]]
    assert shown(be.summarize_store(store))[:2] == [["experiments summarised", "1"], ["up to date", "1"]]
    assert be.summarize_store(store, sweep="quick", full=True).computed == 2
    told = be.status(store, sweep="quick")
    assert str(told).splitlines()[:2] == [f"{store}: 4 runs of 2 experiments", "summaries: 2 up to date"]
    assert [line for (line,) in shown(told)] == str(told).splitlines()
    assert told.facts["selection"]["runs_missing"] == 0
    exported = be.export(store, tmp_path / "dest", sweep="quick", options=ExportOptions(tar=True))
    assert shown(exported)[0] == ["directory", "files", "experiments"]
    assert [row[2] for row in shown(exported)[1:]] == ["2", "2"]
    imported = be.import_runs(tmp_path / "dest", tmp_path / "copy")
    assert shown(imported)[:3] == [["experiments", "2"], ["runs landed", "4"], ["there already", "0"]]
    assert be.import_runs(tmp_path / "dest", tmp_path / "copy").landed == 0
    assert be.plan(store, spec=spec).plan.missing == 0
    with pytest.raises(SystemExit):  # what the command says is the same
        main(["plan", str(store), "--spec", str(spec), "--json"])
    told = capsys.readouterr()
    assert json.loads(told.out)["runs_missing"] == 0
    assert told.err == ""  # none of these says anything where no notebook runs it


def test_nothing_that_is_named_is_refused(tmp_path):
    with pytest.raises(SelectError, match="name what to export: a sweep, conditions, or everything"):
        be.export(tmp_path, tmp_path / "dest")
    with pytest.raises(SelectError, match="name what to train"):
        be.plan(tmp_path / "store")


def test_texts_in_tables_are_texts():
    made = html_table([("<b>&", 1234567, 0.5, True, None)], ("a", "b", "c", "d", "e"))
    assert Cells(made).rows == [["a", "b", "c", "d", "e"], ["<b>&", "1,234,567", "0.5", "True", "None"]]
    assert len(re.findall("text-align: right", made)) == 2


# --- verify and plot, which are modules in their wings -----------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        "import butter_etl.upkeep.verify, butter_etl.views.plot",
        "from butter_etl.views import plot; from butter_etl.upkeep import verify",
        "import butter_etl as be; be.plot, be.verify; import butter_etl.views.plot, butter_etl.upkeep.verify",
        "from butter_etl import *; plot, verify; from butter_etl.cli import main",
    ],
)
def test_names_of_commands_are_functions_whatever_is_imported_first(first):
    checks = (
        "import butter_etl as be, types, sys",
        "assert 'IPython' not in sys.modules",
        "assert isinstance(be.plot, types.FunctionType) and isinstance(be.verify, types.FunctionType)",
        "import butter_etl.views.plot, butter_etl.upkeep.verify",
        "assert isinstance(sys.modules['butter_etl.views'].plot, types.ModuleType)",
        "assert isinstance(sys.modules['butter_etl.upkeep'].verify, types.ModuleType)",
        "from butter_etl import plot, verify",
        "assert plot is be.plot and verify is be.verify",
        "assert {'plot', 'verify'} <= {*dir(be)} and not {'draw_plot', 'verify_data'} & {*be.__all__}",
    )
    subprocess.run([sys.executable, "-c", "\n".join([first, *checks])], check=True)


@pytest.fixture
def store(tmp_path):
    """A store with summaries of two experiments; a third run of the first has landed since."""
    store = Store.create(tmp_path / "store")
    for spec in (POLLEN, BANANA):
        land(store, spec, BUTTER.fixed_ids.id_of(spec), [0, 1], epochs=8)
    run_summaries(plan_summaries(store), store)
    return store


def test_a_picture_shows_itself_and_is_written(store, tmp_path):
    path = str(store)
    picture = be.plot(path, tmp_path / "curves.pdf", where=["dataset=banana"], by="size", series="test_accuracy")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF-")
    shown, size = picture._repr_png_()
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (2 * size["width"], 2 * size["height"])
        assert len(image.convert("L").getcolors()) > 10  # something is drawn
    picture.save(tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_bytes().startswith(b"<?xml")
    assert repr(picture) == "Picture(kind='curves', stale=None)"
    assert be.plot(path, kind="map", where=["dataset=banana"], style=Style(width=3)).figure.get_size_inches()[0] == 3
    assert len(be.plot(path, kind="runs", where=["dataset=banana"]).figure.axes[0].lines) == 2
    assert be.plot(path, sweep="primary").figure.axes


def test_a_picture_warns_of_summaries_that_miss_runs(store):
    land(store, POLLEN, BUTTER.fixed_ids.id_of(POLLEN), [2], epochs=8)
    with pytest.warns(StaleSummaryWarning, match="the summaries of 1 experiment are missing or out of date") as told:
        picture = be.plot(str(store), where=["dataset=529_pollen"])
    assert told[0].filename == __file__
    assert picture.stale is not None
    be.plot(str(store), where=["dataset=banana"])  # nothing of this is out of date
    be.plot(str(store), kind="runs", where=["dataset=529_pollen"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "curve"}, r"unknown kind 'curve' \(did you mean 'curves'\?\); known: curves, map, runs"),
        ({"kind": "map", "by": "size"}, "by='size' goes with curves, not with kind='map'"),
        ({"by": "siz"}, r"unknown parameter 'siz' \(did you mean 'size'\?\)"),
        ({"out": "x.gif"}, "pictures end in one of"),
    ],
)
def test_what_cannot_be_drawn_is_told(store, arguments, said):
    with pytest.raises(UsageError, match=said):
        be.plot(str(store), **{"where": ["dataset=banana"]} | arguments)


def test_a_check_tells_what_is_wrong_and_what_to_do(store, tmp_path):
    path = str(store)
    sound = be.verify(path, summaries=True, workers=1)
    assert (sound.is_sound, sound.faults, sound.checked.summaries) == (True, [], 2)
    assert [row[0] for row in shown(sound)] == ["files checked", "rows", "MB", "summaries recomputed", "faults"]
    file = store.state.parent / "all_runs" / next(iter(store.run_files())).path
    file.write_bytes(file.read_bytes()[:-9])
    wrong = be.verify(path)
    assert not wrong.is_sound
    assert [one.kind for one in wrong.faults] == ["torn-file", "stale-summary"]
    rows = shown(wrong)
    assert ["faults", "2"] in rows
    assert rows[rows.index(["fault", "path", "what is wrong", "what to do"]) + 1][::3] == [
        "torn-file",
        "verify --repair, then train",
    ]
    repaired = be.verify(path, repair=True)
    assert [one.kind for one in repaired.repaired.moved] == ["torn-file"]
    assert [one.kind for one in repaired.faults] == ["stale-summary"]
    assert ["files moved to quarantine", "1"] in shown(repaired)
    assert ["runs missing now", "2"] in shown(repaired)
    be.summarize_store(path)
    assert be.verify(path).is_sound
    be.export(path, tmp_path / "dest", everything=True, authors="Lovelace, Ada", title="Mine")
    exported = be.verify(tmp_path / "dest")
    assert exported.is_sound
    (tmp_path / "dest/README.md").write_text("")
    assert shown(be.verify(tmp_path / "dest"))[-1][::3] == ["altered-file", "export again"]
    for wish in ({"repair": True}, {"summaries": True}):
        with pytest.raises(UsageError, match="is for stores; an export is mended by exporting again"):
            be.verify(tmp_path / "dest", **wish)


def test_an_export_carries_ones_own_name(store, tmp_path):
    own = {"authors": ["Lovelace, Ada", "Babbage, Charles"], "title": "Pollen", "license_id": "CC0-1.0"}
    exported = be.export(str(store), tmp_path / "dest", sweep="primary", runs=False, tar=True, **own)
    assert exported.archives == ("primary_sweep_summary.tar",)
    assert [name for name, *_ in exported.directories] == ["primary_sweep_summary"]
    card = (tmp_path / "dest/README.md").read_text()
    assert "Pollen" in card
    assert "Ada Lovelace and Charles Babbage" in card
    with pytest.raises(UsageError, match="is no ORCID"):
        be.export(str(store), tmp_path / "dest", sweep="primary", authors="Lovelace, Ada <0000-0002-1825-0098>")


# --- in a notebook -----------------------------------------------------------------------------------------------

NOTEBOOK = (
    "import butter_etl as be",
    "be.train('store', spec='quick.yaml', engine='torch', workers=1)",
    "be.train('store', spec='quick.yaml', engine='torch')",
    "be.summarize_store('store')",
    "be.export('store', 'dest', sweep='quick')",
    "be.import_runs('dest', 'copy')",
    "be.verify('copy')",
    "be.plot('store', where=['dataset=wine'])",
    "be.verify('nowhere')",
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The outputs of each cell of a notebook that a fresh kernel has run."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "quick.yaml").write_text(SPEC)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in NOTEBOOK])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute(cwd=str(folder))
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.parametrize(
    ("cell", "bar", "result"),
    [
        (1, r"4 of 4 runs, in \d+ \w+", "TrainReport(landed=4"),
        (2, None, "TrainReport(landed=0"),
        (3, r"2 of 2 experiments, in \d+ \w+", "SummaryReport(computed=2"),
        (4, r"\d+ of \d+ files, in \d+ \w+", "ExportReport("),
        (5, r"\d+ of \d+ tasks landed, in .*", "ImportReport("),
        (6, r"\d+ of \d+ files, in \d+ \w+", "Verification("),
    ],
)
def test_a_notebook_shows_progress_in_one_line_and_the_result(executed, cell, bar, result):
    outputs = executed[cell]
    assert [one.output_type for one in outputs] == ["display_data"] * (bar is not None) + ["execute_result"]
    if bar is not None:
        assert re.fullmatch(bar, outputs[0].data["text/plain"])
        assert re.fullmatch(rf'<progress value="(\d+)" max="\1"></progress> {bar}', outputs[0].data["text/html"])
    assert outputs[-1].data["text/plain"].startswith(result)
    assert Cells(outputs[-1].data["text/html"]).rows


def test_a_fresh_notebook_shows_a_picture(executed):
    (picture,) = executed[-2]
    assert base64.b64decode(picture.data["image/png"]).startswith(b"\x89PNG")
    assert picture.metadata["image/png"]["width"] == 640


def test_an_error_in_a_notebook_is_ours(executed):
    assert [(one.output_type, one.ename) for one in executed[-1]] == [("error", "StoreError")]


class Display:
    """Takes what would be sent to the browser."""

    def __init__(self):
        self.sent = []

    def __call__(self, shown, display_id):
        assert display_id
        self.update(shown)
        return self

    def update(self, shown):
        self.sent.append(repr(shown))


def test_a_bar_is_sent_a_few_times_however_often_it_moves(monkeypatch):
    display = Display()
    monkeypatch.setattr(notebooks, "_display", lambda: display)
    with suppress(KeyError), notebooks.NotebookBar("runs", 100_000) as bar:
        for done in range(100_000):
            bar.update(done, "1 failed")
        raise KeyError
    assert display.sent[0] == "0 of 100,000 runs"
    assert re.fullmatch(r"99,999 of 100,000 runs, after .*, 1 failed", display.sent[-1])
    assert len(display.sent) < 50


def test_a_bar_goes_from_step_to_step(monkeypatch):
    display = Display()
    monkeypatch.setattr(notebooks, "_display", lambda: display)
    monkeypatch.setattr(notebooks, "_PAUSE", 0)
    with notebooks.NotebookBar("files scanned", 0) as bar:
        assert display.sent == []
        bar.step("files scanned", 1, 1)
        bar.step("tasks landed", 0, 2)
    assert display.sent[:2] == ["1 of 1 files scanned", "0 of 2 tasks landed"]


@pytest.mark.parametrize("kernel", [None, object()])
def test_only_a_kernel_shows_bars(monkeypatch, kernel):
    shell = SimpleNamespace(kernel=kernel)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=print))
    assert notebooks._display() is (None if kernel is None else print)
