"""Imports point downward only, and nothing heavy is loaded before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "butter_etl"

#: Each module may import the package's modules of the layers before its own, and of its own group those before it.
LAYERS = [
    ["errors", "streams", "spec", "schema"],
    [
        "engines",
        "metrics",
        "engines.initialization",
        "engines.launches",
        "engines.parameters",
        "engines.passes",
        "engines.torch_engine",
    ],
    [
        "engines.lanes",
        "engines.vector_math",
        "engines.plans",
        "engines.products",
        "engines.measures",
        "engines.kernels",
        "engines.kernel_cache",
        "engines.fused_engine",
    ],
    ["topology", "datasets", "sweeps", "own_data", "sweep_files"],
    ["order_statistics", "aggregations", "provenance", "costs", "training", "calibrate", "selection", "sweep_tables"],
    [
        "object_store",
        "location",
        "deadlines",
        "locks",
        "claims",
        "attempts",
        "heartbeats",
        "checkpoints",
        "archives",
        "store",
        "fingerprints",
        "summary_files",
        "rewriting",
        "data_copies",
        "registry",
        "frames",
    ],
    ["profiles", "sources", "arrivals", "merging", "import_tasks"],
    ["columns", "reading", "attribution", "manifest", "data_card", "croissant", "publication", "export_plan"],
    ["findings", "checks", "inventory", "export_inventory"],
    ["vigil", "tasks", "driver"],
    ["train_tasks", "summarize", "imports", "partition", "verification", "withdrawal"],
    ["sites", "certificates", "supervisor", "clusters", "probe", "terminal", "plot", "activity", "report", "page"],
    [
        "commands",
        "commands.completion",
        "commands.options",
        "commands.sweeps",
        "commands.train",
        "commands.status",
        "commands.summarize",
        "commands.export",
        "commands.import_",
        "commands.verify",
        "commands.drop",
        "commands.errors",
        "commands.plot",
        "commands.report",
        "commands.cluster",
        "commands.calibrate",
        "commands.demo",
        "cli",
        "__init__",
        "__main__",
    ],
]
ORDER = [name for layer in LAYERS for name in layer]
STAGES = next(layer for layer in LAYERS if "train_tasks" in layer)


def module_name(path):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__") if name != "__init__" else name


def imported(path):
    """Modules of the package that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("butter_etl"):
            found.add(node.module.removeprefix("butter_etl").removeprefix(".") or "__init__")
            if node.module == "butter_etl":
                found |= {name.name for name in node.names if name.name in ORDER}
        elif isinstance(node, ast.Import):
            found |= {
                name.name.removeprefix("butter_etl.") for name in node.names if name.name.startswith("butter_etl")
            }
    return found - {"__init__"}


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_layer():
    assert sorted(map(module_name, MODULES)) == sorted(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_downward(path):
    name = module_name(path)
    later = [other for other in imported(path) if ORDER.index(other) > ORDER.index(name) and name != "__init__"]
    assert later == []
    if name in STAGES:
        assert not imported(path) & set(STAGES), "stages meet in the store, not in each other"


def loaded_by(code):
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport sys; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_and_its_help_load_nothing_heavy():
    help_page = "from butter_etl.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass"
    for code in ("import butter_etl", help_page):
        assert not loaded_by(code) & {"numpy", "pandas", "pyarrow", "dask", "distributed", "torch", "numba", "rich"}


def test_summarising_and_planning_never_load_torch():
    loaded = loaded_by("import butter_etl.summarize, butter_etl.partition, butter_etl.train_tasks, butter_etl.frames")
    assert not loaded & {"torch", "distributed", "sklearn", "pmlb", "dask_jobqueue"}
