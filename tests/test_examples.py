"""Every command line that help and documents show is run as it stands, on a small real store.

What needs a queue, a server, or data of PMLB is parsed: its command and its options are those that there are.
"""

import re
import shlex
import shutil
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest

from butter_etl.cli.group import cli
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.frames import read_runs, to_arrow
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweep_files import load_sweep
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries, summarize_store
from butter_etl.train_tasks import train
from tests.strategies import land
from tests.test_docs import HOW_TO, README, ROOT, check_command, commands_of

#: Sweeps that the examples name; the first two are registered, and of the second nothing has run.
SPECS = {
    "quick.yaml": """
name: quick
repetitions: 2
cubes:
  - dataset: [digits]
    shape: [rectangle, trapezoid]
    size: [4096]
    depth: [3]
    epochs: [2]
  - {dataset: [diabetes], size: [128, 512], depth: [2], epochs: [2]}
""",
    "later.yaml": """
name: later
repetitions: 1
cubes:
  - {dataset: [wine], size: [128], depth: [2], epochs: [2]}
""",
    "optimizers.yaml": """
name: optimizers
repetitions: 1
cubes:
  - {dataset: [wine], size: [64], depth: [2], epochs: [2], optimizer: [SGD]}
""",
    "mine.yaml": """
name: mine
repetitions: 1
datasets:
  mine: {file: mine.csv, task: classification, target: outcome}
cubes:
  - {dataset: [mine], size: [64], depth: [2], epochs: [2]}
""",
    "activations.yaml": """
name: activations
repetitions: 1
cubes:
  - {activation: [ReLU, Tanh], width: 4, epochs: 2}
""",
}
#: What is trained here in place of the demo, which takes a minute.
DEMO = """
name: demo
repetitions: 2
cubes:
  - dataset: [digits, breast_cancer]
    shape: [rectangle, trapezoid]
    size: [4096]
    depth: [3]
    learning_rate: [0.001]
    epochs: [2]
"""
NURSERY = [make_experiment(dataset="nursery", size=size, depth=3) for size in (512, 1024)]
#: What an example has that cannot be had here.
ELSEWHERE = (
    r"s3://",
    r"\b(train|summarize|import) .*--cluster",
    r"\bcluster check",
    r"\btrain .*--sweep primary",
    r"own[-_]data",
    r"\blives\b",  # a store of another study: tests/test_lifespan_campaigns.py, tests/test_lifespan_formats.py
    r"\bcapacity\b",  # of another study: tests/test_capacity_campaigns.py
    r"\bsearches\b",  # of another study too: tests/test_capacity_formats.py
    r"\bdemo$",
    r"\bcalibrate",
)


def help_pages():
    """Each command, with those of groups, by the words that call it."""
    pages = {"": cli}
    for name, command in cli.commands.items():
        pages[name] = command
        pages |= {f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()}
    return pages


def examples_of(name):
    """The command lines of a command's help, without what stands beside them."""
    page = click.Context(help_pages()[name], info_name=f"butter-etl {name}".strip()).get_help()
    body = page.partition("\n")[2]  # the first line is how it is used
    return [
        re.split(r"\s{2,}|\)| \| ", line)[0] for line in re.findall(r"(?:^ +|\$\()(butter-etl .*)$", body, re.MULTILINE)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with what examples name: stores, an export, sweeps, a site file, data of another schema."""
    home = tmp_path_factory.mktemp("examples")
    store = Store.create(home / "store")
    for spec in NURSERY:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(3))
    registry = Registry(store)
    for file, text in SPECS.items():
        (home / file).write_text(text)
    rows = [f"{number * 7 % 10},{'ab'[number % 2]},{'yes' if number % 3 else 'no'}" for number in range(40)]
    (home / "mine.csv").write_text("\n".join(["height,kind,outcome", *rows, ""]))
    registry.register(store, Choice(specs=(str(home / "quick.yaml"), str(home / "later.yaml"))))
    quick = list(load_sweep(home / "quick.yaml").experiments())
    registry.claim(store, dict.fromkeys(quick, "quick"))
    for spec in quick:
        land(store, spec, registry.experiment_id(spec), range(2), batch="quick", epochs=2)
    for level in (None, 0.95):
        run_summaries(plan_summaries(store, level=level), store)
    (home / "examples").mkdir()
    shutil.copy(ROOT / "examples/own_study.py", home / "examples")
    (home / "demo.yaml").write_text(DEMO)
    train(home / "demo-store", spec=home / "demo.yaml", workers=2)
    (home / "demo.yaml").unlink()
    summarize_store(home / "demo-store")
    plan = plan_export(store, registry.select(Choice(sweeps=("primary",))), ExportOptions())
    run_export(plan, store, Location(home / "dest"), ExportOptions())
    land(Store.create(home / "other-store"), NURSERY[0], BUTTER.fixed_ids.id_of(NURSERY[0]), [3, 4])
    profile = BUTTER.profiles["oedi-2022-08"]
    runs = to_arrow(read_runs(home / "other-store").compute(scheduler="synchronous"), BUTTER.runs)
    kept = runs.select([name for name in runs.column_names if name not in profile.constants])
    (home / "published").mkdir()
    pq.write_table(kept.rename_columns([*map(profile.theirs, kept.column_names)]), home / "published/runs.parquet")
    return home


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of `home` to work in."""
    shutil.copytree(home, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "here"


def is_elsewhere(line):
    """Tell whether a command is for another machine, or waits for somebody: it is parsed, and not run."""
    return any(re.search(one, line) for one in ELSEWHERE)


def try_out(line, run):
    """Run one command line, or parse it; return whether it was run."""
    check_command(line, complete=True)
    if is_elsewhere(line):
        return False
    words = shlex.split(line, comments=True)[1:]
    if words[:2] == ["cluster", "init"]:
        Path((*words, "slurm.yaml")[3]).unlink(missing_ok=True)
    if words[0] == "drop" and "--yes" not in words:
        words.append("--yes")  # on a terminal it asks
    code, out, err = run(*words)
    assert (code, "Traceback" in err) == (0, False), f"{line}: {err or out}"
    if "--json" not in words and words[0] not in ("completion", "report"):
        assert max(map(len, out.splitlines()), default=0) <= 110, line
    return True


@pytest.mark.parametrize("name", sorted(help_pages()))
def test_examples_of_help_run(name, here, run):
    (here / "my-site.yaml").write_text("kind: local\n")
    ran = [line for line in examples_of(name) if try_out(line, run)]
    assert ran == [line for line in examples_of(name) if not is_elsewhere(line)]


def test_every_command_but_the_plainest_shows_an_example():
    assert {name for name in help_pages() if not examples_of(name)} <= {"demo", "calibrate"}
    assert "butter-etl completion bash" in examples_of("completion")
    assert "butter-etl summarize store" in examples_of("")


@pytest.mark.long
@pytest.mark.parametrize("path", [README, HOW_TO], ids=lambda path: path.name)
def test_command_lines_of_documents_run(path, here, run):
    ran = [line for line, complete in commands_of(path) if complete and try_out(line, run)]
    assert len(ran) >= 6


def test_a_wrong_example_is_found(here, run):
    for line in ("butter-etl status store --where 'size=64,depth=2'", "butter-etl sweeps nothing"):
        with pytest.raises(AssertionError):
            try_out(line, run)
    with pytest.raises((AssertionError, click.UsageError)):
        try_out("butter-etl export store dest --repetition 3", run)


@pytest.mark.parametrize("name", sorted(help_pages()))
def test_help_is_whole_and_fits_80_columns(name):
    page = click.Context(help_pages()[name], info_name=f"butter-etl {name}".strip()).get_help()
    assert max(map(len, page.splitlines())) <= 80
    assert "..." not in page.partition("\n")[2], "a short description was cut"
    assert not re.search(r"[^ .]\n +\S{1,3}\.?\n", page), "a last line of one short word"


@pytest.mark.parametrize("name", ["summarize", "export", "plot"])
def test_what_a_command_refuses_is_not_in_its_help(name, here, run):
    page = run(name, "--help")[1]
    assert "--where" in page
    assert "repetition " not in page
    arguments = ("store",) if name == "summarize" else ("store", "out.png")
    for option in ("--repetitions", "--first-repetition"):
        assert option not in page
        code, _, err = run(name, *arguments, option, 3)
        assert (code, err.count("\n")) == (2, 1)
        assert "leave --repetitions and --first-repetition out [usage]" in err
