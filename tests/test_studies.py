"""The package is of no study: outside the folders of studies, nothing names a column, a key or a metric of one."""

import ast
from pathlib import Path

import pytest

import butter_etl
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.capacity.study import RNN_CAPACITY
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from butter_etl.studies.run_columns import run_columns
from tests.test_layers import modules_of

PACKAGE = Path(butter_etl.__file__).parent

#: What any study has.
GENERAL = {column.name for column in run_columns((), ())} | {"num_runs", "num", "canonical_json", "confidence_level"}
#: The word that any study without one of its own has for its measuring points.
POINT = {"epoch"}
#: Columns of studies that are words of any program too.
EVERYDAY = {"infeasible", "progress", "search", "step"}


def words_that_only_it_has(study):
    """Columns, series, best entries, and the names of published sweeps."""
    words = {*study.columns, *study.figures.labels, *study.sweeps}
    words |= {series.name for series in study.reduction.series}
    words |= {extremum.name for extremum in study.reduction.extrema}
    return words - GENERAL - POINT - EVERYDAY


OF_BUTTER = words_that_only_it_has(BUTTER)
OF_STUDIES = OF_BUTTER | words_that_only_it_has(NN_LIFESPANS) | words_that_only_it_has(RNN_CAPACITY)
#: Where what is of one study stands.
FOLDERS = ("studies.butter", "studies.capacity", "studies.lifespans")
#: Attributes that arrays, tables and files have too.
OF_ARRAYS = {"shape", "size"}
#: Words of BUTTER's that mean something else where they stand: (file, word) -> what.
MEANT_OTHERWISE = {
    ("campaign/attempts.py", "epochs"): "the measuring points of an attempt, as files of before call them",
    ("campaign/checkpoints.py", "epochs"): "the array of measuring points, as files of before call it",
    ("cli/demo.py", "loss"): "the head of a column of the demo, which is of BUTTER",
    ("cli/curves.py", "epochs"): "which points of a curve are kept, whatever a study calls them: an option",
    ("errors/tree.py", "dataset"): "a kind of error",
    ("exchange/origins.py", "dataset"): "a type of work, as citation files have it",
    ("studies/kept_states.py", "shape"): "the shape of a tensor",
    ("views/curves.py", "epochs"): "which points are kept of a curve, whatever a study calls them: a public argument",
    ("views/facts.py", "dataset"): "the name of a user's own data set, in facts that scripts read",
}
#: Who may import what of BUTTER's, by the face of studies: how fast machines are.
MAY_IMPORT_OF_BUTTER = {
    "cli.calibrate": {"DEFAULT_RATES", "measure_rates", "require_rates_path", "save_rates"},
}


def words_of(source):
    """(line, word) of each literal, attribute and named argument of a module; docstrings are left out."""
    tree = ast.parse(source)
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value
        elif isinstance(node, ast.Attribute) and node.attr not in OF_ARRAYS:
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.value.lineno, node.arg


def named_of_studies(file, source):
    """What a module names that only one study has."""
    return [
        f"{file}:{line} names {word!r}"
        for line, word in words_of(source)
        if word in OF_STUDIES and (file, word) not in MEANT_OTHERWISE
    ]


def general_modules():
    """The modules that are to be of no study: all but those of studies, and the engines that train their networks."""
    return [
        module for module in modules_of(PACKAGE) if module.part != "engines" and not module.name.startswith(FOLDERS)
    ]


def file_of(module):
    return str(module.path.relative_to(PACKAGE))


def test_what_is_looked_for_is_there():
    assert {
        "val_loss",
        "test_loss",
        "test_loss_median",
        "kernel_regularizer.l2",
        "label_noise",
        "early_stopping",
    } < OF_BUTTER
    assert {"widths", "network_structure", "num_free_parameters", "30k_epoch", "tensorflow_version"} < OF_BUTTER
    assert not OF_BUTTER & {"experiment_id", "run_id", "engine", "end_reason", "num_runs"}


def test_no_general_module_names_what_only_one_study_has():
    found = [one for module in general_modules() for one in named_of_studies(file_of(module), module.path.read_text())]
    assert found == []


def test_every_word_that_is_meant_otherwise_is_there():
    words = {(file_of(module), word) for module in general_modules() for _, word in words_of(module.path.read_text())}
    assert set(MEANT_OTHERWISE) <= words


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('def best(table):\n    return table["test_loss_median"]', 1),
        ("def folder(one):\n    return one.dataset, one.label_noise", 2),
        ("plan(spec, learning_rate=0.1)", 1),
        ('def best(table):\n    """The best test_loss."""\n    return table.shape, table.size', 0),
        ('row["experiment_id"], row["core_seconds"]', 0),
    ],
)
def test_names_of_butter_are_found(source, count):
    assert len(named_of_studies("views/plot.py", source)) == count


def test_only_declared_modules_import_of_butter():
    shown = {
        alias.name
        for node in ast.parse((PACKAGE / "studies/__init__.pyi").read_text()).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("butter.")
        for alias in node.names
    }
    used: dict[str, set[str]] = {}
    for module in general_modules():
        if module.name == "studies":  # the face itself
            continue
        for imported, name in module.imports():
            assert not imported.startswith(FOLDERS), f"{module.name} imports {imported}"
            if imported == "studies" and name in shown:
                used.setdefault(module.name, set()).add(name)
    assert used == MAY_IMPORT_OF_BUTTER


def test_only_the_table_of_studies_says_where_they_stand():
    named = [
        file_of(module)
        for module in general_modules()
        if any(folder in word for folder in FOLDERS for _, word in words_of(module.path.read_text()))
    ]
    assert named == ["studies/references.py"]
