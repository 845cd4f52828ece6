"""The house: imports point downward only, from wing to face, and nothing heavy is loaded before it is needed."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import butter_etl

PACKAGE = Path(butter_etl.__file__).parent

#: What each part may import, from the bottom to the top. ``errors`` may be imported by all.
MAY_IMPORT = {
    "errors": set(),
    "engines": set(),
    "studies": {"engines"},
    "clusters": {"studies", "engines"},
    "store": {"studies", "engines"},
    "campaign": {"store", "clusters", "studies", "engines"},
    "exchange": {"store", "clusters", "studies", "engines"},
    "train_tasks": {"campaign", "store", "clusters", "studies", "engines"},
    "summarize": {"store", "clusters", "studies", "engines"},
    "partition": {"exchange", "store", "clusters", "studies", "engines"},
    "upkeep": {"exchange", "campaign", "store", "clusters", "studies", "engines"},
    "views": {"train_tasks", "summarize", "campaign", "store", "clusters", "studies", "engines"},
    "cli": {
        "views", "upkeep", "train_tasks", "summarize", "partition", "exchange", "campaign", "store", "clusters",
        "studies",
    },
    "__init__": {"views", "upkeep", "train_tasks", "summarize", "partition", "store", "clusters", "studies"},
    "__main__": {"cli"},
}  # fmt: skip
WINGS = sorted(part for part in MAY_IMPORT if (PACKAGE / part).is_dir())
MOST_LEVELS, MOST_ARROWS = 9, 60


@cache
def statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a source text, in functions too; tests read the same ones many times."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


class Module:
    """A source file of a package: its dotted name below the package, and the modules that it imports."""

    def __init__(self, package: Path, path: Path) -> None:
        self.package, self.path = package, path
        self.name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        self.part = self.name.partition(".")[0]

    def imports(self) -> list[tuple[str, str]]:
        """Return what is imported of the package, at the top or in functions: (module, name)."""
        found = []
        for node in statements(self.path.read_text()):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                here = self.name if self.path.stem == "__init__" and self.part != "__init__" else self.name[:0]
                found += [(".".join(filter(None, (here, node.module))), alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == self.package.name:
                found += [(node.module.partition(".")[2], alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                found += [
                    (alias.name.partition(".")[2], "")
                    for alias in node.names
                    if alias.name.startswith(f"{self.package.name}.")
                ]
        return found

    def modules(self, known: set[str]) -> set[str]:
        """Return the modules that are imported, names that are modules among them."""
        pairs = [(f"{module}.{name}".strip("."), module) for module, name in self.imports()]
        return {longer if longer in known else module for longer, module in pairs} - {""}


def modules_of(package: Path) -> list[Module]:
    return [Module(package, path) for pattern in ("*.py", "*.pyi") for path in sorted(package.rglob(pattern))]


def faults(package: Path) -> list[str]:
    """What is wrong with the imports of a package that is cut into the parts of `MAY_IMPORT`."""
    modules = modules_of(package)
    known = {module.name for module in modules}
    found = []
    graph: dict[str, set[str]] = {}
    for module in modules:
        imported = module.modules(known)
        if module.path.stem != "__init__":
            graph.setdefault(module.name, set()).update(imported)
        for other in sorted(imported):
            part = other.partition(".")[0]
            if part == module.part:
                continue
            if part != "errors" and part not in MAY_IMPORT[module.part]:
                found.append(f"{module.name} imports {other}, which is above it")
            if "." in other:
                found.append(f"{module.name} imports the inside of a wing, {other}")
    try:
        TopologicalSorter(graph).prepare()
    except ValueError as error:
        found.append(f"a circle: {error.args[1]}")
    for wing in WINGS:
        inside = {path.stem for path in (package / wing).iterdir()}
        found += [f"{wing} has a module and a name {name}" for name in sorted(face(package, wing) & inside)]
    return found


def face(package: Path, wing: str) -> set[str]:
    """The names that a wing shows."""
    stub = ast.parse((package / wing / "__init__.pyi").read_text())
    return {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_part_has_its_row():
    parts = {module.part for module in modules_of(PACKAGE)}
    assert parts == set(MAY_IMPORT)
    assert set(WINGS) == {
        "errors", "engines", "studies", "store", "clusters", "campaign", "exchange", "upkeep", "views", "cli",
    }  # fmt: skip


def test_imports_point_downward_and_stop_at_faces():
    assert faults(PACKAGE) == []


def test_the_table_has_no_more_rows_and_arrows_than_one_can_see():
    arrows = {
        (module.part, other.partition(".")[0])
        for module in modules_of(PACKAGE)
        for other in module.modules({module.name for module in modules_of(PACKAGE)})
    }
    arrows = {(one, other) for one, other in arrows if one not in (other, "__init__")}
    assert len(arrows) <= MOST_ARROWS
    levels: dict[str, int] = {}
    for part in TopologicalSorter({part: {b for a, b in arrows if a == part} for part in MAY_IMPORT}).static_order():
        levels[part] = 1 + max((levels[below] for above, below in arrows if above == part), default=0)
    assert max(levels.values()) <= MOST_LEVELS


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("engines/streams.py", "from butter_etl.store import Store", "engines.streams imports store, which is above"),
        ("summarize.py", "from butter_etl.partition import run_export", "summarize imports partition, which is above"),
        ("views/plot.py", "def draw():\n    from butter_etl.store.store import Store", "the inside of a wing"),
        ("views/plot.py", "from butter_etl.store import layout", "the inside of a wing, store.layout"),
        ("store/locks.py", "from butter_etl.store import store", "a circle"),
        ("store/__init__.pyi", "from .layout import files as files", "store has a module and a name files"),
    ],
)
def test_what_is_not_allowed_is_found(tmp_path, file, line, fault):
    for module in modules_of(PACKAGE):
        copy = tmp_path / "butter_etl" / module.path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(module.path.read_text())
    changed = tmp_path / "butter_etl" / file
    changed.write_text(f"{changed.read_text()}\n{line}\n")
    assert any(fault in one for one in faults(tmp_path / "butter_etl"))


@pytest.mark.parametrize("wing", WINGS)
def test_a_face_shows_what_others_use(wing):
    shown = face(PACKAGE, wing)
    module = import_module(f"butter_etl.{wing}")
    assert set(module.__all__) == shown
    assert all(hasattr(module, name) for name in shown)
    used = {
        name
        for other in modules_of(PACKAGE)
        if other.part != wing
        for imported, name in other.imports()
        if imported == wing
    }
    assert shown - used <= {"main"}, "names that nobody uses"


def loaded_by(code):
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport sys; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_and_its_help_load_nothing_heavy():
    help_page = "from butter_etl.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass"
    for code in ("import butter_etl", help_page):
        assert not loaded_by(code) & {"numpy", "pandas", "pyarrow", "dask", "distributed", "torch", "numba", "rich"}


def test_summarising_and_planning_do_not_load_torch_or_pandas():
    loaded = loaded_by("import butter_etl.summarize, butter_etl.partition, butter_etl.train_tasks, butter_etl.upkeep")
    assert not loaded & {"torch", "distributed", "sklearn", "pmlb", "dask_jobqueue", "pandas", "numba"}


def test_commands_that_need_no_pandas_do_not_load_it(tmp_path):
    for arguments in (["sweeps", "primary"], ["plan", str(tmp_path / "new"), "--sweep", "300_epoch"]):
        loaded = loaded_by(f"from butter_etl.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass")
        assert not loaded & {"pandas", "torch", "distributed", "sklearn"}
