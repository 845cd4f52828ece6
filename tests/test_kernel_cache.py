"""Where compiled kernels are kept: with small functions, in processes of their own."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest

from butter_etl.engines import kernel_cache, private_folders

NOBODY = 65534
SCRIPT = """
import logging, os, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s", stream=sys.stdout)
sys.path.insert(0, {folder!r})
import small
from butter_etl.engines import kernel_cache
if {user!r}:
    small.other(1.5), kernel_cache.fingerprint([])  # imports all that this takes: another user may not see it
    os.setgroups([]), os.setgid({user!r}), os.setuid({user!r})
kernel_cache.ready(small.double, (21,), [Path(small.__file__)])
print(small.double(21), sum(small.double.stats.cache_hits.values()))
"""
SMALL = "import numba\n@numba.njit\ndef double(x):\n    return x + x\n@numba.njit\ndef other(x):\n    return x\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """A module with a compiled function, a home and a temporary folder of the test's own."""
    (tmp_path / "small.py").write_text(SMALL)
    for name, variable in (("home", "HOME"), ("scratch", "TMPDIR")):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", None)
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    kernel_cache._tell.cache_clear()


def start(folder, user=0):
    command = [sys.executable, "-W", "error", "-c", SCRIPT.format(folder=str(folder), user=user)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output(process):
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text.splitlines()


def kept(folder):
    return sorted(path for path in folder.rglob("kernel-*") if path.suffix == "")


@pytest.mark.long
def test_the_second_process_finds_what_the_first_compiled(tmp_path):
    first, second = output(start(tmp_path)), output(start(tmp_path))
    assert len(first) == 2
    assert first[0].startswith("butter_etl compiling kernels, once for this CPU and version; kept in ")
    assert first[1] == "42 0"
    assert second == ["42 1"]
    (file,) = kept(tmp_path)
    assert file.parents[1] == tmp_path / "home" / ".cache" / "butter_etl" / "kernels"
    assert {path.stat().st_mode & 0o777 for path in (file, *file.parent.glob("*.turn"))} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (file.parent, file.parents[1], file.parents[2])} == {0o700}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "small.py").rename(tmp_path / "elsewhere" / "small.py")
    assert output(start(tmp_path / "elsewhere")) == ["42 1"]  # the same, installed in another place
    (tmp_path / "small.py").write_text(SMALL.replace("x + x", "2 * x + 0"))
    assert output(start(tmp_path))[-1] == "42 0"  # other sources, another folder


@pytest.mark.long
def test_of_several_processes_one_compiles(tmp_path):
    """The others wait, say so, and take what it kept, so that a cluster full of workers compiles once."""
    (tmp_path / "small.py").write_text(
        "import numba\n@numba.njit\ndef double(x):\n    return x + x\n"
        "import logging, time\nfrom pathlib import Path\n"
        "waiting, compile_it = Path(__file__).with_name('waiting'), double._compiler.compile\n"
        "class Note(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if 'waiting' in record.getMessage():\n"
        "            waiting.touch()\n"
        "logging.getLogger('butter_etl').addHandler(Note())\n"
        "def compile_late(*arguments):\n"
        "    while not waiting.exists():\n"
        "        time.sleep(0.01)\n"
        "    return compile_it(*arguments)\n"
        "double._compiler.compile = compile_late\n"
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


def ready(function=None, argument=1):
    """Compile a function as a process of its own would: its dispatcher is new. How often it was found in the cache."""
    function = numba.njit(function or add_one)
    kernel_cache.ready(function, (argument,), [Path(__file__)])
    assert function(argument) == argument + 1
    return sum(function.stats.cache_hits.values())


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "butter_etl")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "butter_etl"]


def test_each_signature_is_kept(tmp_path):
    assert [ready(argument=argument) for argument in (1, 1.5, 2, 2.5)] == [0, 0, 1, 1]
    assert [ready(lambda x: x + 1), ready(lambda x: 1 + x)] == [0, 0]
    assert len(kept(tmp_path)) == 4
    assert [ready(adds(1)), ready(adds(1)), ready(adds(1.0))] == [0, 1, 0]


def adds(number):
    return lambda x: x + number


labs = ctypes.CDLL(None).labs
labs.argtypes, labs.restype = [ctypes.c_long], ctypes.c_long


def test_what_holds_addresses_of_this_process_is_not_kept(tmp_path):
    assert [ready(lambda x: labs(-x) + 1) for _ in range(2)] == [0, 0]
    assert kept(tmp_path) == []


def test_without_locks_each_compiles(tmp_path, monkeypatch, said):
    def refused(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(kernel_cache.fcntl, "flock", refused)
    assert [ready(), ready()] == [0, 1]
    assert "No locks available" not in "".join(said())
    assert len(kept(tmp_path)) == 1


def test_a_lock_that_nobody_gives_back_holds_up_nobody(tmp_path, monkeypatch, said):
    """As one of a node that died may be kept by a file server."""
    monkeypatch.setattr(kernel_cache, "PATIENCE_SECONDS", 0.3)
    ready()
    (file,), (turn,) = kept(tmp_path), tmp_path.rglob("*.turn")
    file.unlink()
    code = f"""
import fcntl, time
file = open({str(turn)!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            assert [ready(), ready()] == [0, 1]
        finally:
            holder.send_signal(signal.SIGKILL)
    assert said().count("waiting for another process, which compiles kernels") == 1
    assert kept(tmp_path) == [file]


def test_a_folder_of_the_users_choice_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine" / "deep"))
    ready()
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    ready()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says XDG
    ready()
    places = [path.relative_to(tmp_path).parts[:-2] for path in kept(tmp_path)]
    assert places == [(*base, "butter_etl", "kernels") for base in [("home", ".cache")]] + [
        ("mine", "deep"),
        ("xdg", "butter_etl", "kernels"),
    ]


def test_a_cache_that_cannot_be_made_is_no_error(tmp_path, monkeypatch, said):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert [ready(), ready()] == [0, 0]
    why, *compiling = said()
    assert why == (
        f"compiled kernels are not kept in {tmp_path}/file: [Errno 20] Not a directory: '{tmp_path}/file/{name()}'"
    )
    assert compiling == ["compiling kernels; there is no folder to keep them in"]  # once a process


def name():
    return f"butter_etl-{kernel_cache.fingerprint([Path(__file__)])}"


@pytest.mark.parametrize("home", ["absent", "relative", "file"])
def test_a_user_without_a_home_keeps_them_on_this_machine(tmp_path, monkeypatch, said, home):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", "relative" if home == "relative" else str(tmp_path / home))
    assert [ready(), ready()] == [0, 1]
    assert said()[0].startswith("compiled kernels are not kept in the user's cache: this user has no home that it may")
    assert len(said()) == 2
    assert kept(tmp_path)[0].parent == tmp_path / "scratch" / f"butter_etl-kernels-{os.getuid()}" / name()
    assert not (tmp_path / "absent").exists()


def test_a_home_that_others_write_to_is_not_used(tmp_path, said):
    (tmp_path / "home").chmod(0o777)
    assert [ready(), ready()] == [0, 1]
    assert f"others may write into {tmp_path}/home, in which it lies (mode 777)" in said()[0]
    assert kept(tmp_path)[0].is_relative_to(tmp_path / "scratch")
    assert list((tmp_path / "home").iterdir()) == []


@as_root
def test_a_home_of_another_user_is_not_used(tmp_path, said):
    os.chown(tmp_path / "home", NOBODY, NOBODY)
    assert [ready(), ready()] == [0, 1]
    assert f"{tmp_path}/home, in which it lies, belongs to user {NOBODY}" in said()[0]
    assert kept(tmp_path)[0].is_relative_to(tmp_path / "scratch")


@as_root
@pytest.mark.long
def test_a_user_whose_home_is_anothers(tmp_path, monkeypatch):
    """A process of another user, with root's home: kernels lie in the temporary folder, and are found there."""
    # Above the tests' own folders is one that only root enters.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        everyones = Path(folder)
        everyones.chmod(0o1777)
        shutil.copy(tmp_path / "small.py", everyones)
        (everyones / "small.py").chmod(0o644)
        monkeypatch.setenv("TMPDIR", folder)
        first, second = (output(start(everyones, NOBODY)) for _ in range(2))
        assert first[0].endswith(f"this user has no home that it may enter, but {tmp_path}/home")
        assert (first[-1], second[-1]) == ("42 0", "42 1")
        (file,) = kept(everyones)
        assert file.parents[1] == everyones / f"butter_etl-kernels-{NOBODY}"
        assert file.stat().st_uid == NOBODY
        # What root finds in a folder of its name that another user made, it leaves alone.
        (tmp_path / "home").chmod(0o777)
        planted = everyones / "butter_etl-kernels-0"
        file.parents[1].rename(planted)
        lines = output(start(everyones))
        assert f"{planted}, in which it lies, belongs to user {NOBODY}" in lines[1]
        assert lines[-2:] == ["butter_etl compiling kernels; there is no folder to keep them in", "42 0"]


@as_root
def test_a_file_that_another_user_planted_is_not_loaded(tmp_path, said):
    ready()
    (file,) = kept(tmp_path)
    os.chown(file, NOBODY, NOBODY)
    assert [ready(), ready()] == [0, 1]  # made anew in its place
    assert f"a kept kernel is not used: {file} belongs to user {NOBODY}" in said()
    assert file.stat().st_uid == 0


def test_a_file_that_others_may_write_to_or_a_link_is_not_loaded(tmp_path, said):
    ready()
    (file,) = kept(tmp_path)
    file.chmod(0o666)
    assert [ready(), ready()] == [0, 1]
    assert f"a kept kernel is not used: {file} is open to others (mode 666; chmod go= closes it)" in said()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert [ready(), ready()] == [0, 1]
    assert not file.is_symlink()


@pytest.mark.parametrize("left", [0, 20, -20])
def test_torn_files_are_no_error(tmp_path, said, left):
    ready()
    (file,) = kept(tmp_path)
    file.write_bytes(file.read_bytes()[:left])
    assert [ready(), ready()] == [0, 1]
    assert f"a kept kernel is not used: {file} is torn" in said()


def test_a_full_disk_is_no_error(tmp_path, monkeypatch, said):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_folders.os, "fsync", full)
    assert [ready(), ready()] == [0, 0]
    assert sum("are not kept" in line and "[Errno 28]" in line for line in said()) == 1
    assert kept(tmp_path) == []
    assert [path.suffix for path in tmp_path.rglob("*kernel-*")] == [".turn"]


@pytest.fixture
def far_home(tmp_path, monkeypatch):
    """A home that the system says is on a file server."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 253:0 / / rw - ext4 /dev/vda rw\n40 22 0:50 / {tmp_path}/home rw - nfs4 server:/home rw\n")
    monkeypatch.setattr(private_folders, "_MOUNTS", mounts)


def test_of_a_home_on_a_server_each_machine_has_a_copy(tmp_path, far_home):
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    assert ready() == 0
    (file,), (copy,) = kept(home), kept(scratch)
    assert file.read_bytes() == copy.read_bytes()
    copy.unlink()  # another machine
    assert ready() == 1
    assert kept(scratch) == [copy]
    file.unlink()  # this machine, once more
    assert ready() == 1
    assert [path.parent for path in tmp_path.rglob("*.turn")] == [file.parent]


def test_a_home_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    """As on nodes that have homes for reading only; root may write wherever the file system lets it."""
    ready()
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(tmp_path / "home"))
    assert [ready(), ready(argument=1.5), ready(argument=1.5)] == [1, 0, 1]
    assert len(kept(tmp_path / "scratch")) == 2


def add_one(x):
    return x + 1


def test_it_compiles_once_a_signature(monkeypatch):
    function, calls = numba.njit(add_one), []
    compile_it = function.compile
    monkeypatch.setattr(function, "compile", lambda signature: calls.append(signature) or compile_it(signature))
    for argument in (1, 2, 1.5):
        kernel_cache.ready(function, (argument,), [])
    assert {kind for (kind,) in calls} == {numba.int64, numba.float64}


def test_plain_functions_need_nothing(monkeypatch):
    """Where numba is switched off: no cache is looked for, and no source is read."""
    monkeypatch.setattr(kernel_cache, "cache_folders", lambda _: pytest.fail("a cache is looked for"))
    kernel_cache.ready(add_one, (1,), [Path("missing")])
    assert kernel_cache.are_at_hand([(add_one, (1,))], [Path("missing")])


def test_the_fingerprint_follows_sources_and_cpu(tmp_path, monkeypatch):
    source = tmp_path / "small.py"
    prints = [kernel_cache.fingerprint([source])]
    source.write_text("pass\n")
    prints.append(kernel_cache.fingerprint([source]))
    monkeypatch.setattr(kernel_cache, "_cpu_features", lambda: "+none")
    prints.append(kernel_cache.fingerprint([source]))
    assert len(set(prints)) == 3
