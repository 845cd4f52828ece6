"""Where compiled kernels are kept: with small functions, in processes of their own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from butter_etl.engines import kernel_cache

SCRIPT = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s", stream=sys.stdout)
sys.path.insert(0, {folder!r})
import small
from butter_etl.engines import kernel_cache
kernel_cache.ready(small.double, (21,), [Path(small.__file__)])
print(small.double(21), sum(small.double.stats.cache_hits.values()))
"""


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """A module with a compiled function, and a temporary folder of the test's own."""
    (tmp_path / "small.py").write_text("import numba\n@numba.njit\ndef double(x):\n    return x + x\n")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)


def start(folder):
    command = [sys.executable, "-W", "error", "-c", SCRIPT.format(folder=str(folder))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output(process):
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text.splitlines()


@pytest.mark.long
def test_the_second_process_finds_what_the_first_compiled(tmp_path):
    first, second = output(start(tmp_path)), output(start(tmp_path))
    assert len(first) == 2
    assert first[0].startswith("butter_etl compiling kernels")
    assert first[1] == "42 0"
    assert second == ["42 1"]
    (tmp_path / "small.py").write_text("import numba\n@numba.njit\ndef double(x):\n    return 2 * x + 0\n")
    assert output(start(tmp_path))[-1] == "42 0"  # other sources, another folder


@pytest.mark.long
def test_of_several_processes_one_compiles(tmp_path):
    """The others wait, say so, and take what it kept, so that a node full of workers compiles once."""
    (tmp_path / "small.py").write_text(
        "import numba\n@numba.njit\ndef double(x):\n    return x + x\n"
        "import logging, time\nfrom pathlib import Path\n"
        "waiting, compile_it = Path(__file__).with_name('waiting'), double.compile\n"
        "class Note(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if 'waiting' in record.getMessage():\n"
        "            waiting.touch()\n"
        "logging.getLogger('butter_etl').addHandler(Note())\n"
        "def compile_late(signature):\n"
        "    while not waiting.exists():\n"
        "        time.sleep(0.01)\n"
        "    compile_it(signature)\n"
        "double.compile = compile_late\n"
    )
    lines = [output(process) for process in [start(tmp_path) for _ in range(3)]]
    assert sorted(line[-1] for line in lines) == ["42 0", "42 1", "42 1"]
    assert sum("compiling kernels, once" in line[0] for line in lines) == 1
    assert sum("waiting for another process" in line[0] for line in lines) >= 1
    assert output(start(tmp_path)) == ["42 1"]


@pytest.mark.long
def test_one_that_dies_while_it_compiles_holds_up_nobody(tmp_path, monkeypatch):
    with (tmp_path / "small.py").open("a") as file:
        file.write("import os\nif 'DIE' in os.environ:\n    double.compile = lambda signature: os._exit(9)\n")
    monkeypatch.setenv("DIE", "1")
    with start(tmp_path) as process:
        assert process.wait(300) == 9
    monkeypatch.delenv("DIE")
    assert output(start(tmp_path))[-1] == "42 0"


def test_without_locks_each_compiles(tmp_path, monkeypatch, caplog):
    def refused(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(kernel_cache.fcntl, "flock", refused)
    function = compiled(add_one)
    with caplog.at_level(logging.INFO, "butter_etl"):
        kernel_cache.ready(function, (1,), [Path(__file__)])
    assert function(1) == 2
    assert "No locks available" not in caplog.text
    assert list((tmp_path / "scratch").rglob("*.nbc"))


@pytest.mark.long
def test_the_users_own_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine" / "deep"))
    output(start(tmp_path))
    assert list((tmp_path / "mine").rglob("*.nbc"))
    assert not list((tmp_path / "scratch").rglob("*.nbc"))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    lines = output(start(tmp_path))
    assert "no folder to keep them in" in lines[0]
    assert lines[1] == "42 0"


@pytest.mark.long
def test_torn_files_are_no_error(tmp_path):
    output(start(tmp_path))
    files = [path for path in (tmp_path / "scratch").rglob("*.nb?") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:-20])
    assert output(start(tmp_path))[-1] == "42 0"


def compiled(function=None):
    return numba.njit(function or (lambda x: x + 1))


def test_a_full_disk_is_no_error(tmp_path, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    function = compiled(add_one)
    with caplog.at_level(logging.INFO, "butter_etl"):
        kernel_cache.ready(function, (1,), [Path(__file__)])
    assert function(1) == 2
    assert "cannot be used ([Errno 28]" in caplog.text


def add_one(x):
    return x + 1


def test_it_compiles_once_a_signature(monkeypatch):
    function, calls = compiled(add_one), []
    compile_it = function.compile
    monkeypatch.setattr(function, "compile", lambda signature: calls.append(signature) or compile_it(signature))
    for argument in (1, 2, 1.5):
        kernel_cache.ready(function, (argument,), [])
    assert {kind for (kind,) in calls} == {numba.int64, numba.float64}


def test_plain_functions_need_nothing():
    kernel_cache.ready(add_one, (1,), [Path("missing")])


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_to_is_not_used(mode):
    folder = kernel_cache.cache_folder([])
    assert folder is not None
    folder.chmod(mode)
    assert kernel_cache.cache_folder([]) is None


def test_a_link_or_anothers_folder_is_not_used(tmp_path, monkeypatch):
    folder = kernel_cache.cache_folder([])
    assert folder is not None
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert kernel_cache.cache_folder([]) is None
    folder.unlink()
    assert kernel_cache.cache_folder([]) == folder
    owner = os.getuid()
    base = folder.parent
    monkeypatch.setattr(kernel_cache.os, "getuid", lambda: owner + 1)
    base.rename(base.with_name(base.name.replace(str(owner), str(owner + 1))))
    assert kernel_cache.cache_folder([]) is None


def test_the_fingerprint_follows_sources_and_cpu(tmp_path, monkeypatch):
    source = tmp_path / "small.py"
    prints = [kernel_cache.fingerprint([source])]
    source.write_text("pass\n")
    prints.append(kernel_cache.fingerprint([source]))
    monkeypatch.setattr(kernel_cache, "_cpu_features", lambda: "+none")
    prints.append(kernel_cache.fingerprint([source]))
    assert len(set(prints)) == 3
