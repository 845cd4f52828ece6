"""The catalogue of errors and findings: every kind has its entry, and every entry is of a kind."""

import re
from pathlib import Path

import pytest

from butter_etl.cli.errors import read_catalogue
from butter_etl.errors import tree as errors
from butter_etl.store.store import Store
from butter_etl.upkeep.findings import KINDS

CATALOGUE = Path(__file__).parents[1] / "docs" / "errors.md"
CLASSES = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.ButterError)]


def test_every_class_has_a_kind_of_its_own():
    kinds = [one.__dict__["kind"] for one in CLASSES]
    assert len(set(kinds)) == len(kinds) >= 12


def test_every_kind_has_its_entry():
    entries = read_catalogue()
    assert entries.keys() == {one.kind for one in CLASSES} | KINDS.keys()
    for kind, text in entries.items():
        assert re.findall(r"^- \*\*(.*?):\*\* \S", text, flags=re.MULTILINE) == ["When", "Example", "What to do"]
        (example,) = re.findall(r"\*\*Example:\*\* `(.*)`$", text, flags=re.MULTILINE)
        assert example.endswith(f" [{kind}]") or f"{kind}: " in example


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"(\w+Error)\s+([12])", errors.__doc__)
    assert drawn == [(one.__name__, str(one.exit_code)) for one in CLASSES]


def test_kinds_stand_in_the_catalogue_in_the_order_of_their_gravity():
    entries = [kind for kind in read_catalogue() if kind in KINDS and kind not in ("torn-file", "stale-summary")]
    assert entries == [kind for kind in KINDS if kind not in ("torn-file", "stale-summary")]


@pytest.mark.parametrize("kind", ["torn-file", "gap", "store"])
def test_the_command_prints_an_entry_in_80_columns(kind, run):
    code, out, _ = run("errors", kind)
    assert code == 0
    assert out.startswith(f"{kind}\n\nWhen: ")
    assert max(map(len, out.splitlines())) <= 80
    assert "**" not in out


def test_the_command_lists_kinds_and_knows_close_ones(run):
    assert run("errors")[1].splitlines() == list(read_catalogue())
    code, _, err = run("errors", "torn-fil")
    assert code == 2
    assert "did you mean 'torn-file'?" in err
    assert "`butter-etl errors` lists them" in run("errors", "xyz")[2]


def test_a_message_ends_with_its_kind(run, tmp_path):
    code, _, err = run("status", tmp_path / "none")
    assert code == 2
    assert err.endswith(" [store]\n")
    assert err.count("\n") == 1


def test_a_record_of_a_failure_that_cannot_be_read_is_named(run, tmp_path):
    store = Store.create(tmp_path / "store")
    (store.state / "failures").mkdir(parents=True)
    (store.state / "failures" / "0-0-1.json").write_text("{")
    code, _, err = run("status", tmp_path / "store")
    assert code == 1
    assert "0-0-1.json is no record of a failure" in err
    assert err.endswith(" [torn-file]\n")
