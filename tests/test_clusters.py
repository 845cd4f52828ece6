"""Site files, the local cluster, job scripts, and a real Slurm."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest

from butter_etl.clusters.certificates import certificates
from butter_etl.clusters.sites import (
    CLUSTER_KINDS,
    SiteFile,
    Threads,
    load_site,
    plan_threads,
    queue_walltime,
    walltime_seconds,
)
from butter_etl.clusters.start import job_script, start_cluster
from butter_etl.clusters.supervisor import Supervisor
from butter_etl.clusters.worker import JOB_LOGS, deadline_lines, job_end
from butter_etl.errors import ClusterError, ClusterFileError, UsageError

ROOT = Path(__file__).parents[1]
RECORDED = Path(__file__).with_name("recorded")

SLURM = """\
kind: slurm
cores: 4
memory: 8GB
walltime: "01:00:00"
interface: lo
"""


def write_site(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


# --- site files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "kind: slrum",
            ": kind: wants one of local, slurm, pbs, lsf, sge, htcondor, oar; got 'slrum' (did you mean 'slurm'?)",
        ),
        ("workers: 3", ": kind: wants one of local, slurm, pbs, lsf, sge, htcondor, oar; got None"),
        ("kind: [local]", ": kind: wants one of local, slurm, pbs, lsf, sge, htcondor, oar; got ['local']"),
        ("kind: local\nwokers: 3", ": wokers: no such key for kind local (did you mean 'workers'?)"),
        (
            "kind: local\n7: 3",
            ": 7: no such key for kind local; known are cores, dashboard, encryption, kind",
        ),
        ("kind: local\nqueue: long", ": queue: no such key for kind local; known are"),
        ("kind: local\nworkers: three", ": workers: wants a whole number from 1 up; got 'three'"),
        ("kind: local\nworkers: 0", ": workers: wants a whole number from 1 up; got 0"),
        ("kind: local\nworkers: 2.5", ": workers: wants a whole number from 1 up; got 2.5"),
        ("kind: local\nworkers: true", ": workers: wants a whole number from 1 up; got True"),
        ("kind: local\nmemory: 4", ': memory: wants a size with its unit, such as "4GB"; got 4'),
        ("kind: local\nmemory: 4 apples", ": memory: wants a size with its unit, such as \"4GB\"; got '4 apples'"),
        ("kind: local\nscratch: $NO_SUCH/x", ": scratch: a variable in '$NO_SUCH/x' is not set"),
        ("kind: local\nscratch: /a b", ": scratch: job scripts cannot carry the blanks in '/a b'"),
        ("kind: slurm\ncores: 4", ": interface: missing; wants a text for kind slurm"),
        ("kind: htcondor\ncores: 4\nmemory: 1GB\ninterface: lo", ": disk: missing; wants a size with its unit"),
        (
            "kind: htcondor\ncores: 4\nmemory: 1GB\ninterface: lo\ndisk: 1GB\njob_extra: [-x]",
            ": job_extra: wants lines 'key = value' for HTCondor; got '-x'",
        ),
        ("kind: htcondor\nqueue: long", ": queue: no such key for kind htcondor"),
        (SLURM + "resources: x", ": resources: no such key for kind slurm"),
        (SLURM + "submissions: 0", ": submissions: wants a whole number from 1 up; got 0"),
        (SLURM.replace("01:00:00", "1h"), ": walltime: wants HH:MM:SS; got '1h'"),
        (SLURM + "death_timeout: 60", ': death_timeout: wants a duration with its unit, such as "60s", "5m" or "24h"'),
        (SLURM + "prologue: {load: gcc}", ": prologue: wants a list of texts; got [{'load': 'gcc'}]"),
        (SLURM + "cores: 8", ", line 6: 'cores' stands twice (line 2 has it too)"),
        (SLURM + "job_extra: [3]", ": job_extra: wants a list of texts; got [3]"),
        (SLURM + "queue: 7", ": queue: wants a text; got 7"),
        (SLURM + "processes: 3", ": processes: 3 processes cannot share 4 cores equally"),
        ("kind: local\nworkers: [1", ", line 2: not YAML: "),
        ("kind: local\n\tworkers: 1", ", line 2: not YAML: "),
        ("kind: \x00", ": not YAML: "),
        ("local", ": wants lines of the form 'key: value'"),
        ("", ": wants lines of the form 'key: value'"),
    ],
)
def test_a_malformed_site_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = write_site(tmp_path, text)
    with pytest.raises(ClusterFileError) as caught:
        load_site(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_one_text_is_a_list_of_its_lines_and_a_time_needs_no_quotes(tmp_path: Path) -> None:
    """YAML 1.1 would read 12:00:00 as a number to the base of 60, and 01:00:00 as a text."""
    text = SLURM.replace('"01:00:00"', "12:00:00") + "job_extra: --exclusive\nprologue: |\n  module load gcc\n  cd /x\n"
    site = load_site(write_site(tmp_path, text))
    assert site.walltime == "12:00:00"
    assert site.job_extra == ("--exclusive",)
    assert site.prologue == ("module load gcc", "cd /x")


def test_a_missing_site_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ClusterFileError, match=r"site\.yaml: cannot be read: No such file or directory$"):
        load_site(tmp_path / "site.yaml")


def test_paths_are_expanded_where_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PROJECT", "/project")
    site = load_site(write_site(tmp_path, SLURM + "logs: ${PROJECT}/logs\nscratch: $TMPDIR\nqueue:"))
    assert site.logs == "/project/logs"
    assert site.shared_tmp == str(tmp_path / ".butter_etl/tls")
    assert site.scratch == "$TMPDIR"  # the node's, so left to the job's shell
    assert site.queue is None


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "cluster").glob("*.yaml")))
def test_shipped_site_files_are_valid(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TEST_DIR", "/tmp/slurm")  # noqa: S108 (only a name)
    assert load_site(ROOT / "cluster" / file).kind == file.partition(".")[0].partition("-")[0]


def test_the_readme_explains_every_key() -> None:
    text = (ROOT / "cluster" / "README.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\.yaml.*?\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL))
    for name, kind in CLUSTER_KINDS.items():
        first_cells = re.findall(r"^\| (`[^|]*) \|", sections[name], re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", "".join(first_cells))) == kind.keys


def test_every_key_of_a_kind_is_a_field() -> None:
    for kind in CLUSTER_KINDS.values():
        assert kind.keys <= set(SiteFile.__struct_fields__)
        assert kind.required <= kind.keys
        assert kind.words.keys() <= kind.keys


@pytest.mark.parametrize(
    ("cores", "processes", "asked", "threads"),
    [
        (None, 1, None, Threads(tasks=1, pools=1)),
        (None, 1, 3, Threads(tasks=3, pools=1)),
        (8, 1, None, Threads(tasks=8, pools=1)),
        (8, 2, None, Threads(tasks=4, pools=1)),
        (8, 1, 1, Threads(tasks=1, pools=8)),
        (8, 2, 3, Threads(tasks=3, pools=1)),
    ],
)
def test_no_core_has_two_busy_threads(cores: int | None, processes: int, asked: int | None, threads: Threads) -> None:
    site = SiteFile(kind="slurm", cores=cores, processes=processes)
    assert plan_threads(site, asked) == threads


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(UsageError, match="wants 1 to 2, the cores of a process; got 3"):
        plan_threads(SiteFile(kind="slurm", cores=4, processes=2), 3)
    with pytest.raises(UsageError, match="wants a whole number from 1 up; got 0"), start_cluster(workers=0):
        pass


# --- this machine ------------------------------------------------------------------------------------------------


def listening(process: psutil.Process) -> set[str]:
    """The addresses on which a process and its descendants listen."""
    tree = [process, *process.children(recursive=True)]
    connections = [each for member in tree for each in member.net_connections(kind="inet")]
    return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def test_the_local_cluster_computes_and_keeps_to_itself(client) -> None:
    assert client.submit(sum, [1, 2]).result() == 3
    addresses = [client.scheduler.address, *client.scheduler_info()["workers"]]
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
    assert listening(psutil.Process()) == {"127.0.0.1"}


def test_the_local_cluster_pins_threads(client) -> None:
    workers = client.run(lambda: {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")})
    pins = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"], "1")
    assert [pins] * 2 == [{name: worker[name] for name in pins} for worker in workers.values()]


def test_workers_leave_interrupts_to_the_driver(client) -> None:
    handlers = client.run(lambda: signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    assert list(handlers.values()) == [True, True]


def test_only_this_clusters_certificate_opens_it(client) -> None:
    from distributed import Client, Security

    address = client.scheduler.address
    # Each ends in a refusal or, after retries of one, in a timeout: both are OSErrors, and neither is a client.
    with pytest.raises(OSError, match=r"Timed out|Connection reset|closed"):
        Client(address.replace("tls:", "tcp:"), timeout=0.5, set_as_default=False)
    with pytest.raises(OSError, match=r"Timed out|certificate does not match"):
        Client(address, security=Security.temporary(), timeout=0.5, set_as_default=False)
    assert client.submit(sum, [1, 3]).result() == 4


def test_encryption_can_be_given_up_by_name(tmp_path: Path) -> None:
    site = write_site(tmp_path, "kind: local\nworkers: 1\nencryption: false\n")
    with start_cluster(site) as client:
        assert client.scheduler.address.startswith("tcp://127.0.0.1:")
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_local_cluster_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a program of its own, as a user does: silent, and gone with what it set."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os\n"
        "from butter_etl.clusters import start_cluster\n"
        "if __name__ == '__main__':\n"
        "    before = dict(os.environ)\n"
        f"    with start_cluster({str(tmp_path / 'site.yaml')!r}) as client:\n"
        "        print(client.submit(os.getenv, 'OMP_NUM_THREADS').result(), client.nthreads().values())\n"
        "    changed = dict(os.environ.items() ^ before.items())\n"
        "    print(changed.keys() - {'__DASK_PARENT_PID'})  # Dask's own, of no effect here\n"
    )
    write_site(tmp_path, f"kind: local\nworkers: 1\ncores: 2\nmemory: 1GB\nscratch: {tmp_path}/scratch\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    command = [sys.executable, "-W", "always", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 dict_values([2])\nset()\n"


# --- job scripts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(CLUSTER_KINDS.keys() - {"local"}))
def test_the_job_script_is_as_recorded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__JOB_NAME", "other")
    interrupts = signal.getsignal(signal.SIGINT)
    script = job_script(ROOT / "cluster" / f"{kind}.yaml")
    recorded = (RECORDED / f"{kind}_job_script.txt").read_text()
    assert script.replace(sys.executable, "PYTHON").replace(str(tmp_path), "HOME") == recorded
    assert signal.getsignal(signal.SIGINT) is interrupts


@pytest.mark.parametrize(
    ("kind", "text", "written"),
    [
        ("slurm", "1-02:03:04", "1-02:03:04"),
        ("pbs", "1-02:03:04", "26:03:04"),
        ("sge", "00:10:00", "00:10:00"),
        ("lsf", "00:10:01", "00:11"),
        ("oar", "120:00:00", "120:00:00"),
    ],
)
def test_time_limits_are_in_the_words_of_the_queue(kind: str, text: str, written: str) -> None:
    assert queue_walltime(SiteFile(kind=kind, walltime=text)) == written


def test_a_job_knows_when_it_ends() -> None:
    lines = deadline_lines(walltime_seconds(SiteFile(kind="htcondor", walltime="1-00:00:10")), "/logs")
    script = "; ".join([*lines, f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"])
    before = time.time()
    environment = msgspec.json.decode(subprocess.check_output(["/bin/sh", "-c", script], text=True))
    assert before - 1 <= job_end(environment) - 86410 <= time.time()
    assert job_end({}) is None
    assert environment[JOB_LOGS] == "/logs"
    assert deadline_lines(walltime_seconds(SiteFile(kind="htcondor")), "/logs") == [f"export {JOB_LOGS}=/logs"]


def test_a_job_has_the_processes_and_threads_asked_for(tmp_path: Path) -> None:
    site = write_site(tmp_path, SLURM + f"processes: 2\nlogs: {tmp_path}\n")
    script = job_script(site, threads_per_worker=1)
    assert "#SBATCH --cpus-per-task=4" in script
    assert "--nworkers 2" in script
    assert re.findall(r"--nthreads (\d)", script)[-1] == "1"
    assert "export OMP_NUM_THREADS=2\n" in script


def test_a_home_that_is_not_known_is_refused(tmp_path: Path) -> None:
    site = write_site(
        tmp_path, (ROOT / "cluster" / "slurm.yaml").read_text().replace("logs: $HOME", "logs: ~nobody-of-that-name")
    )
    with pytest.raises(ClusterFileError, match="logs: no home folder is known for '~nobody-of-that-name"):
        load_site(site)


def test_a_local_cluster_has_no_job_script() -> None:
    with pytest.raises(ClusterFileError, match="kind: local clusters have no job script"):
        job_script(ROOT / "cluster" / "local.yaml")


def test_a_directory_that_others_may_enter_holds_no_keys(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    site = write_site(tmp_path, SLURM + f"shared_tmp: {tmp_path}\nlogs: {tmp_path}\n")
    with pytest.raises(ClusterFileError, match=f"must be yours alone: chmod 700 {tmp_path}"), start_cluster(site):
        pass


def test_certificates_of_killed_clusters_are_removed(tmp_path: Path) -> None:
    import socket

    tmp_path.chmod(0o700)
    dead = subprocess.Popen(["true"])
    dead.wait()
    killed, ours, elsewhere = (
        tmp_path / f"{host}-{pid}-abc_1"
        for host, pid in [(socket.gethostname(), dead.pid), (socket.gethostname(), os.getpid()), ("else-where", 1)]
    )
    for folder in (killed, ours, elsewhere):
        folder.mkdir()
    with certificates(tmp_path) as security:
        key = Path(security.get_tls_config_for_role("worker")["key"])
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.parent.stat().st_mode & 0o777 == 0o700
    assert not key.parent.exists()
    assert sorted(tmp_path.iterdir()) == sorted([ours, elsewhere])


# --- a real Slurm ------------------------------------------------------------------------------------------------


def queued(states: str = "PD,R,CG") -> list[str]:
    command = ["squeue", "--noheader", f"--states={states}", "--format=%A"]
    return subprocess.check_output(command, text=True, timeout=300).split()


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def change_site(site: Path, folder: Path, **changes: object) -> Path:
    changed = msgspec.structs.replace(load_site(site), **changes)
    return write_site(folder, msgspec.yaml.encode(changed).decode())


@pytest.mark.slurm
def test_futures_run_in_slurm_jobs(slurm: Path) -> None:
    with start_cluster(slurm, workers=1) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        assert client.submit(os.getenv, "SLURM_JOB_ID").result(timeout=300) in queued()
        assert client.submit(os.getenv, "OMP_NUM_THREADS").result(timeout=300) == "1"
    wait_until(lambda: not queued())
    assert list((Path(os.environ["SLURM_TEST_DIR"]) / "tls").iterdir()) == []


@pytest.mark.long
@pytest.mark.slurm
def test_a_cancelled_job_is_replaced(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "first_pause", 0.5)
    # Two processes: Dask itself forgets only jobs of one.
    site = change_site(slurm, tmp_path, cores=2, processes=2)
    with start_cluster(site, workers=1) as client:
        first = client.submit(os.getenv, "SLURM_JOB_ID").result(timeout=300)
        subprocess.run(["scancel", first], check=True, timeout=300)
        wait_until(lambda: first not in queued() and not client.scheduler_info()["workers"])
        second = client.submit(os.getenv, "SLURM_JOB_ID", pure=False).result(timeout=300)
        assert second != first


@pytest.mark.slurm
def test_a_refused_job_ends_with_the_queues_words(slurm: Path, tmp_path: Path) -> None:
    site = change_site(slurm, tmp_path, queue="nowhere")
    refused = pytest.raises(ClusterError, match=r"^the queue refused the job: sbatch: error: .*nowhere")
    with refused as caught, start_cluster(site):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.slurm
def test_a_job_that_fails_ends_with_its_last_words(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "first_pause", 0.5)
    site = change_site(slurm, tmp_path, python="/nowhere/python")
    ended = r"^job \d+ ended before its worker connected, saying: .*/nowhere/python"
    with pytest.raises(ClusterError, match=ended), start_cluster(site):
        pass
    wait_until(lambda: not queued())


@pytest.mark.slurm
def test_a_job_that_is_taken_away_before_its_worker_connects_is_replaced(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Supervisor, "first_pause", 0.5)
    site = change_site(slurm, tmp_path, prologue=[f"test -e {tmp_path}/go-on || sleep 600"])

    def take_away() -> None:
        wait_until(lambda: bool(queued("R")))
        (tmp_path / "go-on").touch()
        subprocess.run(["scancel", *queued("R")], check=True, timeout=300)

    with ThreadPoolExecutor(1) as beside:
        taken = beside.submit(take_away)
        with start_cluster(site, workers=1) as client:
            assert client.submit(os.getenv, "SLURM_JOB_ID").result(timeout=300)
        taken.result()
    (told,) = [record.getMessage() for record in caplog.records if "worker connected" in record.getMessage()]
    assert re.search(r"^job \d+ ended before its worker connected \(CANCELLED, .*\); another one is asked for$", told)


@pytest.mark.slurm
def test_waiting_for_a_worker_has_an_end(slurm: Path, tmp_path: Path) -> None:
    site = change_site(slurm, tmp_path, start_timeout="1s", prologue=["sleep 60"])
    with pytest.raises(ClusterError, match=r"^no worker came up within 1s"), start_cluster(site):
        pass
    wait_until(lambda: not queued())
