"""The benchmark of publishing: that it runs, that its contestants do the same, and what it prints."""

import json

from benchmarks import publish

TINY = ["--experiments", "3", "--runs", "2", "--epochs", "5", "--rounds", "1"]


def test_contestants_are_measured_against_the_export(tmp_path, capsys):
    assert publish.main([*TINY, "--folder", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == 3
    assert list(report["left_out"]) == ["export, copies"]
    names = [one["contestant"] for one in report["results"]]
    assert names == [name for name in publish.CONTESTANTS if name != "export, copies"]
    assert report["results"][0]["ratio"] == 1
    assert all(one["seconds"] > 0 for one in report["results"])
    assert list(tmp_path.iterdir()) == []


def test_the_table(tmp_path, capsys):
    assert publish.main([*TINY, "--folder", str(tmp_path), "--copies", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 files, ")
    assert lines[1] == publish.HEADER
    assert [line[:24].strip() for line in lines[2:]] == list(publish.CONTESTANTS)
