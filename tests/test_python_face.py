"""The whole way in Python, by the names of the package's face: the commands' results, as notebooks show them."""

from __future__ import annotations

import html.parser
import json
import re

import pytest

import butter_etl as be
from butter_etl.cli.group import main
from butter_etl.errors import SelectError, StaleSummaryError
from butter_etl.errors.words import html_table
from butter_etl.exchange.export_plan import ExportOptions

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
    assert json.loads(capsys.readouterr().out)["runs_missing"] == 0


def test_nothing_that_is_named_is_refused(tmp_path):
    with pytest.raises(SelectError, match="name what to export: a sweep, conditions, or everything"):
        be.export(tmp_path, tmp_path / "dest")
    with pytest.raises(SelectError, match="name what to train"):
        be.plan(tmp_path / "store")


def test_texts_in_tables_are_texts():
    made = html_table([("<b>&", 1234567, 0.5, True, None)], ("a", "b", "c", "d", "e"))
    assert Cells(made).rows == [["a", "b", "c", "d", "e"], ["<b>&", "1,234,567", "0.5", "True", "None"]]
    assert len(re.findall("text-align: right", made)) == 2
