"""Output that goes nowhere, fills, or closes: no traceback, work goes on, and lost results are told."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "butter_etl"]
PATIENCE = 600


def ends(*words, **streams):
    """Run a command with such streams; return its exit code and, where it is caught, what it said of errors."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    done = subprocess.run([*COMMAND, *words], timeout=PATIENCE, check=False, **streams)
    return done.returncode, (done.stderr or b"").decode()


@pytest.fixture
def broken_pipe():
    """The writing end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def full_disk():
    with Path("/dev/full").open("wb") as file:
        yield file


@pytest.fixture
def lost_terminal():
    """A terminal that has been closed at its other end."""
    controller, terminal = pty.openpty()
    os.close(controller)
    yield terminal
    os.close(terminal)


@pytest.mark.parametrize("words", [("--help",), ("errors", "store"), ("completion", "bash")])
def test_results_that_nobody_reads_are_no_error(broken_pipe, words):
    assert ends(*words, stdout=broken_pipe) == (141, "")


def test_a_closed_terminal_is_no_error(lost_terminal):
    assert ends("errors", stdout=lost_terminal, stderr=lost_terminal) == (0, "")


def test_results_on_a_full_disk_are_told(full_disk):
    code, err = ends("errors", stdout=full_disk)
    assert code == 1
    assert err.endswith("No space left on device; what was to be done is done [output]\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("stream", ["broken_pipe", "full_disk", "lost_terminal"])
def test_errors_that_cannot_be_shown_leave_the_exit_code(request, stream):
    assert ends("errors", "nothing", stderr=request.getfixturevalue(stream))[0] == 2
    assert ends("errors", stderr=request.getfixturevalue(stream))[0] == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path, closed):
    """Else a file that is opened next would be given what is printed."""
    script = f'"$0" -m butter_etl cluster init slurm site.yaml {closed}'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable], cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "site.yaml").read_text().startswith("#")
    assert "wrote" not in (tmp_path / "site.yaml").read_text()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(tmp_path, encoding):
    """A folder's name that is no text, and letters beyond the encoding."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    store = os.fsencode(tmp_path) + b"/caf\xc3\xa9\xff"
    code, err = ends("status", store, env=environment)
    assert code == 2
    assert "\\udcff" in err
    assert "is no UTF-8 text" in err
