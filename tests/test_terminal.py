"""What a person sees: amounts in words, tables of 80 columns, progress as a bar or as lines."""

import re
import sys

from butter_etl.views import terminal
from butter_etl.views.terminal import News, ProgressLine, WaitLines, core_hours, core_time, count, print_table


def test_amounts():
    assert count(1234567) == "1,234,567"
    assert core_time(90) == "1 min 30 s of one core"
    assert core_time(7.2e6) == "2,000 core-hours"
    assert list(map(core_hours, (0, 3, 100, 5000, 7.2e6))) == ["0.00", "<0.01", "0.03", "1.39", "2,000"]


def test_tables_fit_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("name", "runs", "note"), [("a", 12345, "x" * 100), ("b", None, "y")], "title")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("12,345" in line for line in lines)


def test_progress_is_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_PLAIN_SECONDS", 0.0)
    with ProgressLine("runs", 1000) as line:
        line.update(0)
        line.update(250, "3 in flight")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "runs: 0 of 1,000"
    assert second.startswith("runs: 250 of 1,000, ")
    assert second.endswith(" left 3 in flight")


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine("runs", 10) as line:
        line.update(10, "done")
    assert "10/10" in capsys.readouterr().err


def test_figures_are_named_below_the_bar_and_in_lines(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_PLAIN_SECONDS", 0.0)
    figures = {"in flight": "8", "CPU time": "3 s"}
    with ProgressLine("runs", 10) as line:
        line.update(0, figures=figures)
        line.update(1, left=200.0, figures=figures, lines=["job 7: PENDING"])
        line.update(1, left=190.0, figures=figures, lines=["job 7: PENDING"])
        line.update(1, figures=figures)
    assert capsys.readouterr().err.splitlines() == [
        "runs: 0 of 10, in flight 8, CPU time 3 s",
        "job 7: PENDING",
        "runs: 1 of 10, 3 min 20 s left, in flight 8, CPU time 3 s",
        "runs: 1 of 10, 3 min 10 s left, in flight 8, CPU time 3 s",
        "runs: 1 of 10, in flight 8, CPU time 3 s",
    ]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with ProgressLine("runs", 10) as line:
        line.update(5, figures=figures, lines=["job 7: PENDING"])
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    lines = [text.split() for text in screen.splitlines()]
    assert any("5/10" in words for words in lines)
    assert ["in", "flight", "CPU", "time"] in lines
    assert ["8", "3", "s"] in lines
    assert ["job", "7:", "PENDING"] in lines


def test_a_wait_is_told_line_by_line_where_there_is_no_terminal(capsys):
    with WaitLines() as lines:
        lines.show(["asking the queue for 2 jobs"])
        lines.show(["waiting", "job 7: PENDING"])
        lines.show(["waiting", "job 7: PENDING (PartitionDown)"])
        lines.show(["waiting", "job 7: PENDING (PartitionDown)"])
        lines.show([])
    assert capsys.readouterr().err.splitlines() == [
        "asking the queue for 2 jobs",
        "waiting",
        "job 7: PENDING",
        "job 7: PENDING (PartitionDown)",
    ]
    with WaitLines(quiet=True) as lines:
        lines.show(["waiting"])
    assert capsys.readouterr().err == ""


def test_a_wait_is_shown_in_place_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with WaitLines() as lines:
        lines.show(["waiting", "job 7: PENDING (PartitionDown)"])
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "job 7: PENDING (PartitionDown)" in screen
    assert "(for 0 s)" in screen


def test_what_does_not_change_is_told_again_after_a_while():
    now = 0.0
    news = News(lambda: now)
    assert news.of(["a", "b"]) == ["a", "b"]
    now = 599.0
    assert news.of(["a", "b"]) == []
    now = 600.0
    assert news.of(["a", "b"]) == ["a", "b"]
    now = 700.0
    assert news.of(["a", "c"]) == ["c"]
    now = 1250.0
    assert news.of(["a", "c"]) == []


def test_quiet_is_quiet(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_PLAIN_SECONDS", 0.0)
    with ProgressLine("runs", 10, quiet=True) as line:
        line.update(5)
    assert capsys.readouterr().err == ""
