"""What queues print of jobs is read as declared for each kind, and said in words: ids, states, reasons, starts."""

from pathlib import Path

import msgspec
import pytest

from butter_etl.clusters.listing import EXPLAIN_SECONDS, Explainer, QueuedJob, QueueState, list_jobs, queue_lines
from butter_etl.clusters.sites import CLUSTER_KINDS, ClusterKind

#: What each queue prints, and of each job that has not ended: id, state, reason, start.
LISTED = {
    "slurm": (
        "12|RUNNING|2026-11-29T10:00:00|None\n"
        "13|PENDING|2026-11-29T12:30:00|Resources\n"
        "14|PENDING|N/A|PartitionDown\n"
        "15|PENDING|N/A|ReqNodeNotAvail, UnavailableNodes:n[1-3]\n",
        [
            ("12", "RUNNING", "", "2026-11-29T10:00:00"),
            ("13", "PENDING", "Resources", "2026-11-29T12:30:00"),
            ("14", "PENDING", "PartitionDown", ""),
            ("15", "PENDING", "ReqNodeNotAvail, UnavailableNodes:n[1-3]", ""),
        ],
    ),
    "pbs": (
        "Job id              Name             Username        Time Use S Queue\n"
        "------------------- ---------------- --------------- -------- - -----\n"
        "12.head             butter-etl       ada             00:00:01 R workq\n"
        "13.head             butter-etl       ada             00:00:01 C workq\n"
        "14[]                butter-etl       ada             00:00:01 Q workq\n",
        [("12", "running", "", ""), ("14", "queued", "", "")],
    ),
    "lsf": ("12\n13\n", [("12", "", "", ""), ("13", "", "", "")]),
    "sge": (
        "job-ID  prior   name       user         state submit/start at     queue         slots ja-task-ID\n"
        "-----------------------------------------------------------------------------------------------\n"
        "     12 0.55500 butter-etl ada          r     11/21/2026 10:00:00 all.q@node1       4\n"
        "     13 0.00000 butter-etl ada          qw    11/21/2026 10:00:00                   4\n",
        [("12", "r", "", ""), ("13", "qw", "", "")],
    ),
    "htcondor": (
        "12.0 2 undefined\n13.0 4 undefined\n14.0 1 undefined\n15.0 5 The job exceeded its memory\n",
        [("12.0", "RUN", "", ""), ("14.0", "IDLE", "", ""), ("15.0", "HOLD", "The job exceeded its memory", "")],
    ),
    "oar": (
        "Job id    Name           User     Submission Date     S Queue\n"
        "--------- -------------- -------- ------------------- - ------\n"
        "12        butter-etl     ada      2026-11-21 10:00:00 R default\n",
        [("12", "Running", "", "")],
    ),
}
#: What the commands print that explain, where a queue has one.
EXPLAINED = {
    "pbs": (
        "                                                            Req'd  Req'd   Elap\n"
        "Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time\n"
        "--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----\n"
        "12.head         ada      workq    butter-etl    417   1  16   32gb 12:00 R 00:10\n"
        "   Job run at Sat Nov 21 at 10:00 on (node1:ncpus=16)\n"
        "14.head         ada      workq    butter-etl    --    1  16   32gb 12:00 Q   -- \n"
        "   Not Running: Insufficient amount of resource: ncpus \n"
        "15.head         ada      workq    butter-etl    --    1  99   32gb 12:00 Q   -- \n"
        "   Can Never Run: Insufficient amount of resource: ncpus (R: 99 A: 16 T: 16)\n"
        "16.head         ada      workq    butter-etl    --    1  16   32gb 12:00 H   -- \n",
        [
            ("12", "running", "Job run at Sat Nov 21 at 10:00 on (node1:ncpus=16)", ""),
            ("14", "queued", "Not Running: Insufficient amount of resource: ncpus", ""),
            ("15", "queued", "Can Never Run: Insufficient amount of resource: ncpus (R: 99 A: 16 T: 16)", ""),
            ("16", "held", "", ""),
        ],
        {"15", "16"},
    ),
    "lsf": (
        "12|RUN|-\n13|PEND|Job slot limit reached: 4 hosts;\n14|PSUSP|The job was suspended by its owner;\n",
        [
            ("12", "RUN", "", ""),
            ("13", "PEND", "Job slot limit reached: 4 hosts;", ""),
            ("14", "PSUSP", "The job was suspended by its owner;", ""),
        ],
        {"14"},
    ),
}


def printing(kind: ClusterKind, folder: Path, **texts: str) -> ClusterKind:
    """The kind with commands that print these texts."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    return msgspec.structs.replace(kind, **{name: ("cat", str(folder / name)) for name in texts})


def told(jobs):
    return [(job.job_id, job.state, job.reason, job.starts) for job in jobs]


@pytest.mark.parametrize("kind", sorted(LISTED))
def test_the_queues_list_is_read(kind: str, tmp_path: Path) -> None:
    text, jobs = LISTED[kind]
    assert told(list_jobs(printing(CLUSTER_KINDS[kind], tmp_path, listing=text)).values()) == jobs
    assert list_jobs(msgspec.structs.replace(CLUSTER_KINDS[kind], listing=("false",))) is None


def test_every_queue_has_its_list_read_here() -> None:
    assert LISTED.keys() == {name for name, kind in CLUSTER_KINDS.items() if kind.listing}
    assert EXPLAINED.keys() == {name for name, kind in CLUSTER_KINDS.items() if kind.explaining}


@pytest.mark.parametrize("kind", sorted(EXPLAINED))
def test_reasons_come_from_the_command_that_has_them(kind: str, tmp_path: Path) -> None:
    text, jobs, stuck = EXPLAINED[kind]
    ids = [job_id for job_id, *_ in jobs]
    listed = {job_id: QueuedJob(job_id) for job_id in ids}
    explainer = Explainer(printing(CLUSTER_KINDS[kind], tmp_path, explaining=text))
    found = explainer.waiting(ids, listed)
    assert told(found) == jobs
    assert {job.job_id for job in found if job.hint} == stuck


def test_a_queue_without_that_command_is_told_by_its_list(tmp_path: Path) -> None:
    explainer = Explainer(msgspec.structs.replace(CLUSTER_KINDS["pbs"], explaining=("false",)))
    assert told(explainer.waiting(["14"], {"14": QueuedJob("14", "queued")})) == [("14", "queued", "", "")]


def test_reasons_are_asked_for_now_and_then_and_states_are_the_lists(tmp_path: Path) -> None:
    now = 0.0
    kind = printing(CLUSTER_KINDS["lsf"], tmp_path, explaining="7|PEND|New job is waiting for scheduling;\n")
    explainer = Explainer(kind, lambda: now)

    def reason(state: str = "") -> tuple[str, str]:
        (job,) = explainer.waiting(["7"], {"7": QueuedJob("7", state)})
        return job.state, job.reason

    assert reason() == ("PEND", "New job is waiting for scheduling;")
    (tmp_path / "explaining").write_text("7|PEND|Queue's pre-exec command failed;\n")
    now = EXPLAIN_SECONDS - 1
    assert reason() == ("PEND", "New job is waiting for scheduling;")
    assert reason("RUN") == ("RUN", "")
    now = EXPLAIN_SECONDS + 1
    assert reason() == ("PEND", "Queue's pre-exec command failed;")


@pytest.mark.parametrize(
    ("kind", "text", "hint"),
    [
        ("slurm", "1|PENDING|N/A|PartitionDown", "its partition is down"),
        ("slurm", "1|PENDING|N/A|PartitionConfig", "no node has what it asks for"),
        ("slurm", "1|PENDING|N/A|BadConstraints", "no node has what it asks for"),
        ("slurm", "1|PENDING|N/A|PartitionTimeLimit", "lower `walltime`"),
        ("slurm", "1|PENDING|N/A|QOSMaxWallDurationPerJobLimit", "lower `walltime`"),
        ("slurm", "1|PENDING|N/A|AssocMaxCpuPerJobLimit", "more than one job may have"),
        ("slurm", "1|PENDING|N/A|JobHeldUser", "release it"),
        ("slurm", "1|PENDING|N/A|launch failed requeued held", "release it"),
        ("slurm", "1|PENDING|N/A|Priority", None),
        ("slurm", "1|PENDING|N/A|QOSMaxCpuPerUserLimit", None),
        ("slurm", "1|PENDING|N/A|None", None),
        ("sge", "1 0.5 butter-etl ada Eqw 11/21/2026", "qmod"),
        ("sge", "1 0.5 butter-etl ada hqw 11/21/2026", "release it"),
        ("sge", "1 0.5 butter-etl ada qw 11/21/2026", None),
        ("htcondor", "1.0 5 memory", "release it"),
        ("htcondor", "1.0 1 undefined", None),
        ("oar", "12  butter-etl ada 2026-11-21 10:00:00 H default", "release it"),
    ],
)
def test_reasons_that_do_not_clear_are_known(kind: str, text: str, hint: str | None, tmp_path: Path) -> None:
    (job,) = list_jobs(printing(CLUSTER_KINDS[kind], tmp_path, listing=f"{text}\n")).values()
    assert hint in job.hint if hint else job.hint == ""


def test_what_the_queue_says_is_said_by_job() -> None:
    assert list(queue_lines(QueueState(100.0, 2), 100.0)) == ["asking the queue for 2 jobs"]
    waiting = (
        QueuedJob("9", "PENDING", "Priority", "2026-11-29T12:30:00"),
        QueuedJob("10", "PENDING", "Priority", "2026-11-29T12:30:00"),
        QueuedJob("11", "PENDING", "PartitionDown", hint="wait"),
        QueuedJob("12"),
    )
    assert list(queue_lines(QueueState(100.0, 5, 1, waiting), 101.0)) == [
        "waiting for the queue: 1 of 5 jobs have a worker",
        "job 11: PENDING (PartitionDown); does not start as things are: wait",
        "jobs 9, 10: PENDING (Priority), start 2026-11-29T12:30:00",
        "job 12: not in the list of the queue yet",
    ]
    many = tuple(QueuedJob(str(number), "PENDING") for number in range(1, 9))
    assert list(queue_lines(QueueState(100.0, 8, 0, many), 190.0)) == [
        "waiting for the queue: 0 of 8 jobs have a worker (90 s ago)",
        "jobs 1, 2, 3, 4, 5 and 3 more: PENDING",
    ]
    assert list(queue_lines(QueueState(100.0, 5, 5), 190.0)) == []


def test_a_queue_that_does_not_answer_says_nothing_of_any_job() -> None:
    (job,) = Explainer(CLUSTER_KINDS["slurm"]).waiting(["7"], None)
    assert (job.job_id, job.state) == ("7", "unknown: the queue does not answer")
