"""Why workers died: what nannies and queues tell, what is made of it, and how a campaign goes on."""

import os
import subprocess
import sys

import msgspec
import pytest

from butter_etl.campaign.attempts import attempts_at, begin_attempt, mark_deaths
from butter_etl.cli.group import main
from butter_etl.clusters.deaths import Death, death_of, deaths_told
from butter_etl.clusters.prologue import prologue_failures, prologue_lines
from butter_etl.clusters.records import early_end, job_record, last_words
from butter_etl.clusters.sites import CLUSTER_KINDS, RecordCommand, SiteFile
from butter_etl.clusters.start import start_cluster
from butter_etl.errors import AttemptsError, WorkerMemoryError
from butter_etl.store.store import Store
from tests.test_clusters import change_site, queued, wait_until

#: What `scontrol show job --oneliner` of Slurm 22.05 printed of a job, but for its user, and the end. Rows below
#: that FAILED have its words for a script that kills itself by signal 9, and for one that exits with 137. The others
#: are in the form of Slurm's documentation: no job was short of memory there, or lost with its node.
SCONTROL = (
    "JobId=1 JobName=butter-etl UserId=ada(1000) GroupId=ada(1000) MCS_label=N/A Priority=4294901759 Nice=0 "
    "Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 "
    "Reboot=0 ExitCode={code} RunTime=00:00:00 TimeLimit=00:10:00 TimeMin=N/A SubmitTime=2026-11-29T11:17:16 "
    "EligibleTime=2026-11-29T11:17:16 AccrueTime=2026-11-29T11:17:16 StartTime=2026-11-29T11:17:18 "
    "EndTime=2026-11-29T11:17:18 Deadline=N/A SuspendTime=None SecsPreSuspend=0 Scheduler=Main Partition=normal\n"
)
RECORDS = [
    ("OUT_OF_MEMORY", "OutOfMemory", "0:125", "memory"),
    ("FAILED", "JobLaunchFailure", "0:9", "memory"),
    ("FAILED", "NonZeroExitCode", "137:0", "memory"),
    ("FAILED", "NonZeroExitCode", "1:0", "unknown"),
    ("COMPLETED", "None", "0:0", "unknown"),
    ("CANCELLED", "None", "0:15", "queue"),
    ("TIMEOUT", "TimeLimit", "0:15", "queue"),
    ("NODE_FAIL", "NodeDown", "0:0", "queue"),
    ("PREEMPTED", "None", "0:15", "queue"),
    ("PENDING", "BeginTime", "0:0", "queue"),
    ("RUNNING", "None", "0:0", "goes on"),
    ("COMPLETING", "None", "0:0", "goes on"),
]


def slurm_that_prints(folder, text, *, accounting=False):
    printed = folder / "printed"
    printed.write_text(text)
    pattern = CLUSTER_KINDS["slurm"].records[accounting].pattern
    unknown = RecordCommand(("false",), "")
    return msgspec.structs.replace(
        CLUSTER_KINDS["slurm"], records=(unknown, RecordCommand(("cat", str(printed)), pattern))
    )


@pytest.mark.parametrize(("state", "reason", "code", "cause"), RECORDS)
def test_the_queues_record_says_why_a_job_ended(tmp_path, state, reason, code, cause):
    kind = slurm_that_prints(tmp_path, SCONTROL.format(state=state, reason=reason, code=code))
    record = job_record(kind, "7")
    assert (record.state, record.exit_code) == (state, code)
    assert record.cause(kind) == cause


@pytest.mark.parametrize(
    ("text", "state", "cause"),
    [
        ("OUT_OF_MEMORY|0:125\n", "OUT_OF_MEMORY", "memory"),
        ("CANCELLED by 1000|0:0\n", "CANCELLED", "queue"),
        ("NODE_FAIL|1:0\n", "NODE_FAIL", "queue"),
    ],
)
def test_accounting_says_it_of_jobs_that_the_controller_has_forgotten(tmp_path, text, state, cause):
    kind = slurm_that_prints(tmp_path, text, accounting=True)
    record = job_record(kind, "7")
    assert (record.state, record.cause(kind)) == (state, cause)


def test_a_queue_that_does_not_answer_says_nothing(tmp_path):
    assert job_record(slurm_that_prints(tmp_path, "slurm_load_jobs error: Invalid job id specified\n"), "7") is None


# --- prologues ---------------------------------------------------------------------------------------------------


def log_of(*prologue):
    site = SiteFile(kind="slurm", prologue=prologue)
    script = "\n".join([*prologue_lines(site), "echo started", "false"])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=os.environ)
    failures = [(one.command, one.exit_code, one.said.rpartition(": ")[2]) for one in prologue_failures(done.stderr)]
    return failures, "started" in done.stdout


def test_what_failed_in_a_prologue_is_told():
    missing = ("ls /nowhere/x", 2, "No such file or directory")
    assert log_of("true") == ([], True)
    assert log_of("ls /nowhere/x", "true", "no-such-command") == (
        [missing, ("no-such-command", 127, "command not found")],
        True,
    )
    assert log_of("set -e", "ls /nowhere/x") == ([missing], False)
    assert log_of("echo too old >&2; exit 3") == ([("exit 3", 3, "too old")], False)
    assert log_of("if ! ls /nowhere/x", "then true", "fi") == ([], True)
    assert prologue_lines(SiteFile(kind="slurm")) == []
    assert prologue_lines(SiteFile(kind="htcondor", prologue=("true",))) == ["true"]  # no bash there


def test_a_job_whose_prologue_failed_says_so(tmp_path):
    (tmp_path / "butter-etl-7.err").write_text("ls: no\nbutter-etl: prologue failed: 2: ls x\npython: not found\n")
    site = SiteFile(kind="htcondor", logs=str(tmp_path))
    assert early_end(site, "7") == ": its prologue failed: `ls x` ended with exit code 2, saying: ls: no"
    assert early_end(site, "8") == ""


def test_the_first_cause_stands_behind_the_last_words(tmp_path):
    program = "try:\n  open('/nowhere/x')\nexcept OSError as error:\n  raise RuntimeError('no worker') from error"
    failed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    (tmp_path / "butter-etl-7.err").write_text(failed.stderr)
    cause = "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/x'"
    assert last_words(str(tmp_path), "7") == f", saying: RuntimeError: no worker ({cause})"


# --- attempts ----------------------------------------------------------------------------------------------------


def died(cause, worker=""):
    return Death(worker, cause, "worker 0 of job 7 died", 2**30, 4, in_job=True)


def test_deaths_that_are_the_queues_doing_do_not_count(tmp_path):
    for _ in range(20):
        assert begin_attempt(tmp_path, 7, (0, 1)) == 1
        assert len(mark_deaths(tmp_path, died("queue"))) == 1
    assert mark_deaths(tmp_path, died("queue", worker="tls://another")) == []


def test_deaths_for_memory_halve_a_stack_down_to_one_run(tmp_path):
    stacks = []
    while not stacks or stacks[-1] > 1:
        begin_attempt(tmp_path, 7, range(30))
        stacks += [attempt.stack for attempt in mark_deaths(tmp_path, died("memory"))]
    assert stacks == [30, 15, 8, 4, 2, 1]
    with pytest.raises(WorkerMemoryError) as caught:
        begin_attempt(tmp_path, 7, range(30))
    assert str(caught.value) == (
        "experiment 7: repetitions 0 to 29 do not fit into the memory of a worker, not even one run at a time: "
        "worker 0 of job 7 died; a process has 1.00 GiB, shared by 4 tasks at a time; raise `memory` in the site file, "
        "or lower `cores`"
    )
    assert caught.value.kind == "memory"


def test_deaths_for_no_known_reason_count_as_ever(tmp_path):
    for count in (1, 2, 3):
        assert begin_attempt(tmp_path, 7, (0,)) == count
        mark_deaths(tmp_path, died("unknown"))
    with pytest.raises(AttemptsError, match="3 times and ended without a word, the last time: worker 0 of job 7 died"):
        begin_attempt(tmp_path, 7, (0,))
    assert [attempt.count for attempt in attempts_at(tmp_path, 7, (0,))] == [3]


# --- real workers ------------------------------------------------------------------------------------------------


def fill_memory():
    kept = []
    while True:
        kept.append(os.urandom(2**24))


def be_killed():
    os.kill(os.getpid(), 9)


@pytest.mark.long
def test_a_nanny_tells_how_its_worker_died(tmp_path, capfd):
    from distributed.scheduler import KilledWorker

    site = tmp_path / "site.yaml"
    site.write_text("kind: local\nworkers: 1\nmemory: 400MB\n")
    with start_cluster(site) as client, deaths_told(client):
        deaths = []
        for function in (fill_memory, be_killed):
            client.submit(sum, [1], pure=False).result()
            nanny = next(iter(client.cluster.workers.values()))
            wait_until(lambda nanny=nanny: nanny.process.status.name == "running")
            with pytest.raises(KilledWorker) as killed:
                client.submit(function, pure=False).result()
            deaths.append(death_of(client, killed.value.last_worker))
    assert [death.cause for death in deaths] == ["memory", "memory"]
    assert "of its memory" in deaths[0].said
    assert "was killed by the system" in deaths[1].said
    assert deaths[0].way_out == "a process has 0.37 GiB; give it more by `memory` in a site file"
    assert capfd.readouterr() == ("", "")


LARGE = """
name: large
repetitions: 1
cubes:
  - {dataset: [diabetes], size: [33554432], depth: [3], epochs: [1]}
"""


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.long
def test_what_does_not_fit_into_memory_is_recorded_as_that(tmp_path, capfd):
    """One run is tried three times; then the message, the record and `status` say what to raise."""
    spec, site, store = tmp_path / "large.yaml", tmp_path / "site.yaml", tmp_path / "store"
    spec.write_text(LARGE)
    site.write_text("kind: local\nworkers: 1\nmemory: 450MB\n")
    assert run("train", store, "--spec", spec, "--cluster", site) == 1
    err = capfd.readouterr().err
    (failure,) = Store.open(store).failures({})
    assert failure.kind == "memory"
    assert "not even one run at a time: worker 0 was" in failure.error
    assert "a process has 0.42 GiB; give it more by `memory` in a site file" in failure.error
    assert f"{failure.error} [memory]" in err
    assert "distributed" not in err
    assert run("status", store) == 0
    assert f"{failure.error} [memory]" in capfd.readouterr().out


# --- a real Slurm ------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slurm
def test_a_job_of_too_little_memory_is_told_in_the_record(slurm, tmp_path, capfd):
    spec, store = tmp_path / "large.yaml", tmp_path / "store"
    spec.write_text(LARGE)
    site = change_site(slurm, tmp_path, memory="450MB", workers=1)
    assert run("train", store, "--spec", spec, "--cluster", site) == 1
    (failure,) = Store.open(store).failures({})
    assert failure.kind == "memory"
    assert failure.job_id
    assert f"of job {failure.job_id} was ended at" in failure.error
    assert "raise `memory` in the site file" in failure.error
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    assert "distributed" not in captured.err
    wait_until(lambda: not queued())


@pytest.mark.long
@pytest.mark.slurm
def test_check_tells_what_failed_in_the_prologue(slurm, tmp_path, capfd):
    logs = tmp_path / "logs"
    site = change_site(slurm, tmp_path, prologue=("ls /nowhere/modules",), logs=str(logs))
    assert run("cluster", "check", site) == 1
    captured = capfd.readouterr()
    said = "`ls /nowhere/modules` ended with exit code 2, saying: ls: cannot access '/nowhere/modules'"
    assert said in " ".join(captured.out.split())
    assert captured.err.startswith("waiting for one worker to come up\n")
    assert "Traceback" not in captured.err
    wait_until(lambda: not queued())
    texts = [path.read_text() for path in logs.iterdir()]
    assert texts
    assert not any("Traceback" in text for text in texts)
    stopping = change_site(slurm, tmp_path, prologue=("set -e", "ls /nowhere/modules"), logs=str(logs))
    assert run("cluster", "check", stopping) == 1
    assert f"ended before its worker connected: its prologue failed: {said}" in capfd.readouterr().err
    wait_until(lambda: not queued())


def test_check_refuses_what_could_do_nothing(tmp_path, capsys):
    site = tmp_path / "site.yaml"
    site.write_text('kind: slurm\ncores: 2\nprocesses: 2\nmemory: 400MB\nwalltime: "00:01:30"\ninterface: lo\n')
    assert run("cluster", "check", site) == 1
    found = " ".join(capsys.readouterr().out.split())
    assert "191 MiB a process: interpreter, kernels and the smallest task take 300 MiB; raise `memory`" in found
    assert "90 s: a worker must start, compile its kernels, train a little and save it; give jobs 120 s" in found
