"""The documents say what is so: columns, links, commands, snippets and layers are held to the code."""

import importlib.util
import re
import shlex
import shutil
import textwrap
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click
import dask
import pytest
import yaml
from rich.text import Text

import butter_etl as be
from butter_etl.cli.group import cli
from butter_etl.clusters.sites import load_site
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.datasets import own_info
from butter_etl.studies.butter.experiments import OwnData, Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweep_files import parse_sweep
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.capacity.sweeps import READER as CELLS
from butter_etl.studies.lifespans.images import ImageSet
from butter_etl.studies.lifespans.sweeps import READER
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.train_tasks import train
from tests.strategies import DIGITS, land
from tests.test_layers import MAY_IMPORT, WINGS, face

ROOT = Path(__file__).parents[1]
FORMAT, HOW_TO, README = ROOT / "docs/data-format.md", ROOT / "docs/how-to.md", ROOT / "README.md"
RECIPES = ROOT / "docs/recipes.md"
OWN_STUDY = ROOT / "docs/own-study.md"
TUTORIAL = ROOT / "docs/tutorial.md"
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for top in ("docs", "cluster", "examples", "findings") for path in (ROOT / top).rglob("*.md")),
    ]
)
ALL_MARKDOWN = sorted([*DOCUMENTS, *(ROOT / "tests").rglob("*.md")])


def name_of(path):
    return str(path.relative_to(ROOT))


# --- parts of documents ------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A fenced block: its language, what stands behind that, the first line's number, and the text."""

    language: str
    mark: str
    line: int
    text: str


def blocks(path):
    """Every fenced block of a document."""
    found, start = [], None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = re.fullmatch(r"\s*```(\w*) ?(.*)", line)
        if fence and start is None:
            start, lines = (*fence.groups(), number + 1), []
        elif fence:
            found.append(Block(*start, textwrap.dedent("\n".join(lines))))
            start = None
        elif start is not None:
            lines.append(line)
    assert start is None, f"{path}: a block is not closed"
    return found


def prose(path):
    """A document without its fenced blocks."""
    return re.sub(r"^\s*```.*?^\s*```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def table_after(path, mark):
    """The rows of the first table after ``mark``, as lists of cells without backticks."""
    lines = iter(path.read_text().partition(mark)[2].splitlines())
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def slug(heading):
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- columns -----------------------------------------------------------------------------------------------------


def spelled(kind):
    return str(kind).replace("element: ", "").replace("float", "float32")


@pytest.mark.parametrize("name", ["runs", "summary", "executive", "precision"])
def test_every_column_is_documented(name):
    rows = table_after(FORMAT, f"<!-- table: {name} -->")
    assert [(row[0], row[1]) for row in rows] == [(f.name, spelled(f.type)) for f in getattr(BUTTER, name)]
    assert all(len(row) == 5 and row[2] and row[4] for row in rows)


def test_partition_keys_are_documented():
    rows = table_after(FORMAT, "## Partition keys")
    assert [row[:2] for row in rows] == [[field.name, spelled(field.type)] for field in BUTTER.key_schema]


# --- links, files, layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL_MARKDOWN, ids=name_of)
def test_relative_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        assert aim.exists(), target
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", aim.read_text(), flags=re.MULTILINE)), target


def test_every_wing_and_stage_has_its_paragraph():
    text = (ROOT / "docs/architecture.md").read_text()
    described = set(re.findall(r"^\*\*`?(\w+)`?\*\*", text, flags=re.MULTILINE))
    assert described >= {part for part in MAY_IMPORT if not part.startswith("__")}
    for wing in WINGS:
        paragraph = re.search(rf"^\*\*`?{wing}`?\*\*(.*?)\n\n", text, flags=re.MULTILINE | re.DOTALL)
        assert any(f"`{name}`" in paragraph.group(1) for name in face(ROOT / "butter_etl", wing)), wing


def test_decisions_are_numbered_dated_and_complete():
    paths = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    for number, path in enumerate(paths, 1):
        text = path.read_text()
        assert path.name.startswith(f"{number:04d}-")
        assert re.match(rf"# {number}\. .+\n\n\d{{4}}-\d\d-\d\d\n", text)
        assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_citation_and_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", be.__version__)
    assert [reference["doi"] for reference in citation["references"]] == ["10.25984/1872441"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n" in changelog
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", changelog, flags=re.MULTILINE)) <= kinds


# --- commands ----------------------------------------------------------------------------------------------------


def commands_of(path):
    """(line, is it complete) of each ``butter-etl`` command: whole ones in blocks, parts of ones in the text."""
    fenced = "\n".join(block.text for block in blocks(path) if block.language in ("", "sh"))
    indented = "\n".join(re.findall(r"^ {4}(.*)$", prose(path), flags=re.MULTILINE))
    for line in re.findall(r"(?:^|run \S+ )(butter-etl .*)$", f"{fenced}\n{indented}", flags=re.MULTILINE):
        yield line, True
    for line in re.findall(r"`(butter-etl [^`]*)`", prose(path)):
        yield line, False


def check_command(line, *, complete):
    arguments = shlex.split(line, comments=True)[1:]
    while arguments and arguments[0] == "--debug":
        arguments.pop(0)
    if arguments == ["--help"]:
        return
    assert arguments, line
    assert arguments[0] in cli.commands, f"{line}: no such command"
    try:
        cli.commands[arguments[0]].make_context(arguments[0], arguments[1:], resilient_parsing=not complete)
    except click.exceptions.Exit:
        assert "--help" in arguments


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_exist_with_their_options(path):
    for line, complete in commands_of(path):
        check_command(line, complete=complete)


def test_the_check_of_commands_finds_mistakes():
    for line in ("butter-etl trian store", "butter-etl train store --sweeps x", "butter-etl export store"):
        with pytest.raises((AssertionError, click.UsageError)):
            check_command(line, complete=True)
    assert ("butter-etl summarize store", True) in list(commands_of(README))
    assert ("butter-etl plan store --spec quick.yaml", True) in list(commands_of(TUTORIAL))


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_and_option_is_documented(name):
    text = README.read_text() + HOW_TO.read_text()
    assert f"butter-etl {name}" in text
    for option in (parameter for parameter in cli.commands[name].params if isinstance(parameter, click.Option)):
        assert any(spelling in text for spelling in (*option.opts, *option.secondary_opts)), option.opts


def test_make_targets_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [
        name
        for path in DOCUMENTS
        for name in re.findall(r"^make ([\w-]+)$|`make ([\w-]+)`", path.read_text(), flags=re.MULTILINE)
    ]
    assert {one or other for one, other in named} <= set(targets)
    assert {"demo", "test"} <= {one or other for one, other in named}


# --- the site ----------------------------------------------------------------------------------------------------


def test_every_page_is_linked_from_the_index():
    index = ROOT / "docs/index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)\s]+)\)", prose(index))}
    pages = {path for path in DOCUMENTS if path.parent != ROOT / "docs/decisions" and path != index}
    assert pages | {ROOT / "docs/decisions/README.md"} == linked


def test_every_public_name_has_its_place_in_the_api():
    described = re.findall(r"^\.\. auto\w+:: (\S+)$", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE)
    assert set(be.__all__) <= set(described)


def script(path):
    """A script of the documents, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorder():
    """The script that records sessions, as a module."""
    return script(ROOT / "docs/record_terminal.py")


@pytest.fixture(scope="module")
def sampler():
    """The script that records the sample of the README, as a module."""
    return script(ROOT / "docs/record_sample.py")


def untimed(text):
    """A text without what differs from one time to another: CPU time, and sizes, which versions and clocks are in."""
    return re.sub(r"\d[\d.,]* (?=[mk]?s of CPU time|min\b|MB\b)", "N ", text)


def test_the_sample_of_the_readme_is_of_commands_that_exist(sampler):
    commands = re.findall(r"^\$ (butter-etl .*)$", sampler.sample(README.read_text()), flags=re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        check_command(command, complete=True)
    assert any(sampler.PICTURE in command for command in commands)
    assert sampler.IMAGE.exists()
    assert name_of(sampler.IMAGE) in README.read_text()


@pytest.mark.long
def test_the_sample_of_the_readme_prints_what_it_shows(sampler, tmp_path):
    readme = README.read_text()
    assert untimed(sampler.run_sample(readme, tmp_path)) == untimed(sampler.sample(readme))
    assert (tmp_path / sampler.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_every_tool_of_the_comparison_has_cells_that_lead_somewhere():
    rows = table_after(README, "## How it compares")
    text = README.read_text()
    defined = dict(re.findall(r"^\[([\w-]+)\]: (https://\S+)$", text, flags=re.MULTILINE))
    used = set(re.findall(r"\]\[([\w-]+)\]", text))
    assert used == defined.keys()
    for row in rows:
        ours, *others = row[1:]
        assert "](" in ours or "](" in row[0], row
        assert sum("][" in cell for cell in others) >= 4 or "](" in row[0], row
    assert {len(row) for row in rows} == {7}


def test_the_example_page_is_of_a_sweep_that_fits():
    spec = ROOT / "docs/extensions/example.yaml"
    (sweep,) = [parse_sweep(spec.read_text(), name_of(spec), any_data)]
    assert 0 < len(sweep) * sweep.repetitions < 1000
    assert "```{example-report}" in (ROOT / "docs/example.md").read_text()


def test_recorded_sessions_are_of_commands_that_exist(recorder):
    for session in recorder.SESSIONS:
        for command in session.commands:
            check_command(command, complete=True)
        picture = (recorder.IMAGES / session.file).read_text()
        loaded = re.findall(r'(?:href|src)="|url\((?!#)|@import', picture)
        assert loaded == [], "a picture must not load anything"


def test_the_screen_of_recordings_shows_what_a_terminal_does(recorder):
    screen = recorder.Screen()
    screen.feed("one\r\n\x1b[32mtwo\x1b[0m 1/3\r\x1b[2K\x1b[32mtwo\x1b[0m 3/3\r\n\x1b[1A\x1b[2Kthr\bree\r\n" + "x" * 81)
    assert Text.from_ansi(screen.ansi()).plain == f"one\nthree\n{'x' * 80}\nx"
    screen = recorder.Screen()
    screen.feed("\x1b[?25lplain \x1b[1;31mloud\x1b[0m")
    (span,) = Text.from_ansi(screen.ansi()).spans
    assert (span.start, span.end, str(span.style)) == (6, 10, "bold color(1)")


# --- snippets ----------------------------------------------------------------------------------------------------

NURSERY = {"dataset": "nursery", "depth": 3}
EXPERIMENTS = [
    make_experiment(**NURSERY, size=512),
    make_experiment(**NURSERY, size=1024),
    make_experiment(**NURSERY, size=512, learning_rate=0.001),
    make_experiment(**NURSERY, size=512, kernel_regularizer=Regularizer("l2", 0.01)),
    make_experiment(dataset="mnist", size=4096, depth=3, label_noise=0.05),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What snippets find where they run: ``store``, ``dest`` (an export of its primary sweep), ``quick.yaml``."""
    home = tmp_path_factory.mktemp("docs")
    store = Store.create(home / "store")
    for spec in EXPERIMENTS:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(3))
    registry = Registry(store)
    registry.claim(store, {DIGITS: "mine"})
    land(store, DIGITS, registry.experiment_id(DIGITS), range(2), batch="mine")
    run_summaries(plan_summaries(store), store)
    options = ExportOptions(tar=True)
    plan = plan_export(store, Registry(store).select(Choice(sweeps=("primary",))), options)
    run_export(plan, store, Location(home / "dest"), options)
    quick = next(block.text for block in blocks(README) if block.language == "yaml")
    (home / "quick.yaml").write_text(quick)
    return home


@pytest.mark.parametrize("path", [README, FORMAT, HOW_TO, RECIPES], ids=name_of)
def test_python_snippets_run(path, folder, tmp_path, monkeypatch, shared_client):
    """The snippets of a document, one after the other as a reader would type them; a cluster is the tests' own."""

    @contextmanager
    def start_cluster(file=None, *, workers=None):
        yield shared_client()

    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(be, "start_cluster", start_cluster, raising=False)
    monkeypatch.setattr(be, "train", partial(train, engine="torch"), raising=False)  # nothing to compile
    names = {"__name__": "__main__"}
    ran = 0
    for block in blocks(path):
        if block.language != "python":
            continue
        assert block.mark in ("", "no-run")
        code = compile("\n" * (block.line - 1) + block.text, name_of(path), "exec")
        if not block.mark:
            with dask.config.set(scheduler="synchronous"):
                exec(code, names)  # noqa: S102 (our own documents)
            ran += 1
    assert ran > 0


def any_data(name, declaration, place):
    """Some data set: those that documents declare are not there."""
    return own_info(name, declaration.task, 1, OwnData("0" * 64, 100, 5))


def any_images(name, declaration, place):
    """Some images, likewise."""
    return ImageSet(name, 1, 8, declaration.classes, 10, 10, is_own=True, sha256="0" * 64)


def test_yaml_snippets_are_what_they_should_be(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    own = import_module("own_study").STUDY.reader
    sweeps = sites = 0
    for path in DOCUMENTS:
        for block in blocks(path):
            if block.language != "yaml":
                continue
            if "cubes:" in block.text and path == OWN_STUDY:
                assert len(own.parse(block.text, name_of(path))) > 0
            elif "study: rnn_capacity" in block.text:
                assert len(CELLS.parse(block.text, name_of(path))) > 0
            elif "draws:" in block.text:
                assert len(READER.parse(block.text, name_of(path), any_images)) > 0
            elif "cubes:" in block.text:
                assert len(parse_sweep(block.text, name_of(path), any_data)) > 0
                sweeps += 1
            else:
                (tmp_path / "site.yaml").write_text(block.text)
                assert load_site(tmp_path / "site.yaml").kind == "slurm"
                sites += 1
    assert sweeps >= 3
    assert sites >= 1
