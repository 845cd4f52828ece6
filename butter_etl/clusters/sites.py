"""Site files: how a computing site is used, said once in a short YAML file, checked strictly."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from butter_etl.errors import ClusterFileError, UsageError, one_line, suggestion

Count = Annotated[int, msgspec.Meta(ge=1)]
Size = Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)?\s?[kKMGT]i?B$")]
Walltime = Annotated[str, msgspec.Meta(pattern=r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$")]
Duration = Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)?(s|m|h)$")]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class SiteFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a site file. ``None`` leaves the choice to the kind of cluster or to the site.

    A *job* is what the queue starts; on this machine, a process. The cores and the memory of a job are shared equally
    by its processes.
    """

    kind: str
    workers: Count | None = None
    """How many jobs."""
    cores: Count | None = None
    processes: Count = 1
    """Dask worker processes in one job; divides ``cores``."""
    memory: Size | None = None
    walltime: Walltime | None = None
    queue: Name | None = None
    account: Name | None = None
    interface: Name | None = None
    """The network interface over which the nodes reach this machine."""
    resources: Name | None = None
    """What a job asks of the queue, in its own words, in place of what follows from cores and memory."""
    disk: Size | None = None
    job_extra: tuple[Name, ...] = ()
    """Further directives, without the queue's prefix (``#SBATCH``)."""
    prologue: tuple[str, ...] = ()
    """Shell lines that run in each job before the worker starts."""
    python: Name | None = None
    """The interpreter on the nodes, this one unless given; the job's shell expands it."""
    scratch: Name | None = None
    """Where workers spill; node-local, so in a job it is the job's shell that expands it."""
    logs: Name = "~/.butter_etl/logs"
    shared_tmp: Name = "~/.butter_etl/tls"
    """A directory that nodes can read, and nobody else: the workers' certificates lie there."""
    death_timeout: Duration = "60s"
    """A worker that cannot reach the scheduler for so long gives up."""
    start_timeout: Duration = "24h"
    """How long to wait for the first worker, the wait in the queue included."""
    submissions: Count = 60
    """How many jobs may be submitted a minute."""
    encryption: bool = True
    """Whether connections are encrypted and want a certificate. Without it, whoever reaches a port runs code as you."""
    dashboard: bool = False
    """Whether the scheduler serves Dask's dashboard, on 127.0.0.1 only; needs bokeh."""


class RecordCommand(msgspec.Struct, frozen=True):
    """A command that prints what a queue has on record of a job, and what it prints."""

    command: tuple[str, ...]
    """``{job}`` stands for the id."""
    pattern: str
    """Its groups ``state`` and ``code`` are the job's state and its exit code and signal, as ``1:0``."""


class ClusterKind(msgspec.Struct, frozen=True):
    """Properties of one kind of cluster."""

    keys: frozenset[str]
    """The keys that its site files may have."""
    required: frozenset[str] = frozenset()
    cluster: str | None = None
    """The class of dask_jobqueue, none on this machine."""
    words: Mapping[str, str] = {}
    """Site keys, and what dask_jobqueue's class calls them."""
    options: Mapping[str, str] = {}
    """Further arguments of that class."""
    listing: tuple[str, ...] = ()
    """The command that prints the user's jobs; ``{user}`` stands for the user's name."""
    listed: str = r"^\s*(?P<id>\d+)"
    """What it prints of a job that has not ended: ``id`` as the queue gave it and, where it says them, ``state``,
    ``reason`` and when it ``starts``."""
    explaining: tuple[str, ...] = ()
    """A command that prints reasons too, for people; a site that does not have it is asked by ``listing`` alone."""
    explained: str = ""
    """What that prints of a job, with the groups of ``listed``."""
    states: Mapping[str, str] = {}
    """The queue's names of states that it prints as letters or numbers."""
    hopeless: Mapping[str, str] = {}
    """Words (a pattern) of state and reason with which a job does not start as things are, and what has to change."""
    walltime: Literal["days", "hours", "minutes"] = "hours"
    """How the queue reads time limits: ``D-HH:MM:SS`` as it stands, ``HH:MM:SS``, or ``HH:MM``."""
    job_variable: str | None = None
    """The environment variable that has the id of a job, within it."""
    job_shell: Literal["bash", "sh"] = "bash"
    """What runs the lines of a job."""
    records: tuple[RecordCommand, ...] = ()
    """Ways to ask for the record of a job, the quicker first; none where how jobs ended is not asked."""
    going_on: frozenset[str] = frozenset()
    """States of a job that has not ended yet."""
    out_of_memory: frozenset[str] = frozenset()
    """States of a job that was ended for memory."""
    out_of_time: frozenset[str] = frozenset()
    """States of a job that was ended at its time limit."""
    by_itself: frozenset[str] = frozenset()
    """States of a job that ended by itself; all others are the queue's doing, or a node's."""


_JOB_KEYS = frozenset(SiteFile.__struct_fields__) - {"kind", "resources", "disk"}
_REQUIRED = frozenset({"cores", "memory", "walltime", "interface"})
_ASK_FOR_LESS = "no node has what it asks for: lower `cores` or `memory`, or name another `queue`"
_RELEASE = "it is held: release it, or cancel it"
_LETTERS = {"Q": "queued", "R": "running", "H": "held", "W": "waiting", "S": "suspended", "T": "moving"}
#: Reasons of Slurm, from its page on them, with which a job waits for somebody to change something.
_SLURM_HOPELESS = {
    "PartitionDown|PartitionInactive": "its partition is down: wait until it is up, or name another `queue`",
    "PartitionConfig|PartitionNodeLimit|BadConstraints|NodeConfig|MaxMemPerLimit": _ASK_FOR_LESS,
    "PartitionTimeLimit|MaxWallDurationPerJob": "longer than it may: lower `walltime`, or name another `queue`",
    "(Assoc|QOS)Max[A-Za-z]*Per(Job|Node)": "more than one job may have: lower `cores`, `memory` or `walltime`",
    "ReqNodeNotAvail|Nodes required for job are DOWN": "the nodes that it could have are down, drained or reserved",
    "AccountNotAllowed|QOSNotAllowed|InvalidAccount|InvalidQOS": "not allowed: name another `account` or `queue`",
    "JobHeld|JobHoldMaxRequeue|requeued held|RESV_DEL_HOLD|SPECIAL_EXIT": _RELEASE,
    "DependencyNeverSatisfied": "it depends on a job that failed: change `job_extra`",
    "BadLicenses|InvalidLicense|ReservationDeleted": "what it asks for is not there: change `job_extra`",
}
_WORDS = {"queue": "queue", "walltime": "walltime", "job_extra": "job_extra_directives"}

CLUSTER_KINDS: Mapping[str, ClusterKind] = {
    "local": ClusterKind(keys=frozenset({"workers", "cores", "memory", "scratch", "encryption", "dashboard"})),
    "slurm": ClusterKind(
        keys=_JOB_KEYS,
        required=_REQUIRED,
        cluster="SLURMCluster",
        words={**_WORDS, "account": "account"},
        listing=("squeue", "--noheader", "--me", "--format=%A|%T|%S|%r"),
        listed=r"^\s*(?P<id>\d+)\|(?P<state>[^|]*)\|(?P<starts>[^|]*)\|(?P<reason>.*)$",
        hopeless=_SLURM_HOPELESS,
        walltime="days",
        job_variable="SLURM_JOB_ID",
        records=(
            RecordCommand(
                ("scontrol", "show", "job", "--oneliner", "{job}"),
                r"\bJobState=(?P<state>\w+).*?\bExitCode=(?P<code>\d+:\d+)",
            ),
            RecordCommand(  # of jobs that the controller has forgotten, where there is accounting
                ("sacct", "--noheader", "--parsable2", "--allocations", "--format=State,ExitCode", "--jobs={job}"),
                r"^(?P<state>\w+)[^|]*\|(?P<code>\d+:\d+)$",
            ),
        ),
        going_on=frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}),
        out_of_memory=frozenset({"OUT_OF_MEMORY"}),
        out_of_time=frozenset({"TIMEOUT"}),
        by_itself=frozenset({"FAILED", "COMPLETED"}),
    ),
    "pbs": ClusterKind(
        keys=_JOB_KEYS | {"resources"},
        required=_REQUIRED,
        cluster="PBSCluster",
        words={**_WORDS, "account": "account", "resources": "resource_spec"},
        listing=("qstat", "-u", "{user}"),
        listed=r"^\s*(?P<id>\d+)(?!.*\s[CFE]\s)(.*\s(?P<state>[A-Z])\s)?",  # both list ended jobs for a while
        explaining=("qstat", "-s", "-u", "{user}"),
        # The line below a job is the scheduler's comment.
        explained=r"^\s*(?P<id>\d+)(?!.*\s[CFE]\s)(.*\s(?P<state>[A-Z])\s.*$)?(\n[ \t]+(?P<reason>[^\W\d].*)$)?",
        states=_LETTERS,
        hopeless={"Can Never Run": _ASK_FOR_LESS, "^H ": _RELEASE},
        job_variable="PBS_JOBID",
    ),
    "lsf": ClusterKind(
        keys=_JOB_KEYS,
        required=_REQUIRED,
        cluster="LSFCluster",
        words={**_WORDS, "account": "project"},
        listing=("bjobs", "-noheader", "-o", "jobid"),
        explaining=("bjobs", "-noheader", "-o", "jobid stat pend_reason delimiter='|'"),
        explained=r"^\s*(?P<id>\d+)\|(?P<state>[^|]*)\|(?P<reason>.*)$",
        hopeless={"PSUSP|USUSP": _RELEASE},
        walltime="minutes",
        job_variable="LSB_JOBID",
    ),
    "sge": ClusterKind(
        keys=_JOB_KEYS | {"resources"},
        required=_REQUIRED,
        cluster="SGECluster",
        words={**_WORDS, "account": "project", "resources": "resource_spec"},
        listing=("qstat", "-u", "{user}"),
        listed=r"^\s*(?P<id>\d+)(\s+[\d.]+\s+\S+\s+\S+\s+(?P<state>\S+))?",
        hopeless={"^E": "it is in an error state: see `qstat -j`, then `qmod -cj`", "^h": _RELEASE},
        job_variable="JOB_ID",
    ),
    "htcondor": ClusterKind(
        # HTCondor knows neither queues nor time limits; `walltime` only tells workers when to stop.
        keys=(_JOB_KEYS | {"disk"}) - {"queue", "account"},
        required=_REQUIRED - {"walltime"} | {"disk"},
        cluster="HTCondorCluster",
        words={"disk": "disk", "job_extra": "job_extra_directives"},
        listing=("condor_q", "{user}", "-af:j", "JobStatus", "HoldReason"),
        listed=r"^\s*(?P<id>\d+\.\d+)\s+(?P<state>[12567])(\s+(?P<reason>.*))?$",
        states={"1": "IDLE", "2": "RUN", "5": "HOLD", "6": "TRANSFERRING OUTPUT", "7": "SUSPENDED"},
        hopeless={"^5": _RELEASE},
        job_variable="CONDOR_JOB_ID",
        job_shell="sh",
    ),
    "oar": ClusterKind(
        keys=_JOB_KEYS | {"resources"},
        required=_REQUIRED,
        cluster="OARCluster",
        words={**_WORDS, "account": "project", "resources": "resource_spec"},
        options={"memory_per_core_property_name": "not_applicable"},  # sites name that property as they like
        listing=("oarstat", "--user", "{user}"),
        listed=r"^\s*(?P<id>\d+)(.*?\s(?P<state>[A-Z])\s)?",
        states={"W": "Waiting", "H": "Hold", "L": "Launching", "R": "Running", "F": "Finishing", "S": "Suspended"},
        hopeless={"^H": _RELEASE},
        job_variable="OAR_JOB_ID",
    ),
}

_COUNT = "a whole number from 1 up"
_TEXT = "a text"
_LINES = "a list of texts"
_DURATION = 'a duration with its unit, such as "60s", "5m" or "24h"'
_WANTED: Mapping[str, str] = {
    "workers": _COUNT,
    "cores": _COUNT,
    "processes": _COUNT,
    "memory": 'a size with its unit, such as "4GB"',
    "disk": 'a size with its unit, such as "4GB"',
    "submissions": _COUNT,
    "encryption": "true or false",
    "dashboard": "true or false",
    "walltime": "HH:MM:SS",
    "job_extra": _LINES,
    "prologue": _LINES,
    "death_timeout": _DURATION,
    "start_timeout": _DURATION,
}


def load_site(file: str | Path) -> SiteFile:
    """Read and check a site file.

    ``logs``, ``shared_tmp`` and, on this machine, ``scratch`` come back absolute, with ``~`` and environment variables
    expanded. Raises ClusterFileError, naming the file and the key, if the file cannot be read, or is not what a site
    file is.
    """
    raw = _read_yaml(file)
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in CLUSTER_KINDS:
        hint = suggestion(str(kind), CLUSTER_KINDS)
        raise ClusterFileError(f"{file}: kind: wants one of {', '.join(CLUSTER_KINDS)}; got {kind!r}{hint}")
    _check_keys(file, raw, CLUSTER_KINDS[kind])
    try:
        site = msgspec.convert(raw, SiteFile)
    except msgspec.ValidationError as error:
        raise ClusterFileError(f"{file}: {_explain(error, raw)}") from error
    if site.cores is not None and site.cores % site.processes:
        raise ClusterFileError(f"{file}: processes: {site.processes} processes cannot share {site.cores} cores equally")
    if site.kind == "htcondor":
        _check_assignments(file, site.job_extra)
    return _with_paths(file, site)


def _read_yaml(file: str | Path) -> dict[str, Any]:
    from butter_etl.studies import as_list, parse_yaml  # commands without a site file need no YAML

    try:
        text = Path(file).read_bytes()
    except OSError as error:
        raise ClusterFileError(f"{file}: cannot be read: {error.strerror}") from error
    raw = parse_yaml(text, str(file), ClusterFileError)
    if not isinstance(raw, dict):
        raise ClusterFileError(f"{file}: wants lines of the form 'key: value'")
    # A key left empty means the same as a key left out.
    said = {key: value for key, value in raw.items() if value is not None}
    return said | {key: as_list(said[key]) for key in said if _WANTED.get(key) == _LINES}


def _check_keys(file: str | Path, raw: Mapping[str, Any], kind: ClusterKind) -> None:
    from butter_etl.studies import unknown_key

    allowed = kind.keys | {"kind"}
    for key in raw:
        if key not in allowed:
            raise ClusterFileError(f"{file}: {key}: no such key for kind {raw['kind']}{unknown_key(key, allowed)}")
    for key in sorted(kind.required - raw.keys()):
        raise ClusterFileError(f"{file}: {key}: missing; wants {_WANTED.get(key, _TEXT)} for kind {raw['kind']}")


def _explain(error: msgspec.ValidationError, raw: Mapping[str, Any]) -> str:
    """Say what is wrong with a value, in the words of a site file; msgspec's words name a path like ``$.key[1]``."""
    match = re.search(r"`\$\.(\w+)", str(error))
    if match is None:
        return one_line(str(error))
    key = match[1]
    return f"{key}: wants {_WANTED.get(key, _TEXT)}; got {raw[key]!r}"


def _check_assignments(file: str | Path, lines: tuple[str, ...]) -> None:
    for line in lines:
        if not re.fullmatch(r"[\w.+]+\s*=.*\S.*", line):
            raise ClusterFileError(f"{file}: job_extra: wants lines 'key = value' for HTCondor; got {line!r}")


def _with_paths(file: str | Path, site: SiteFile) -> SiteFile:
    keys = ["logs", "shared_tmp"]
    if site.kind == "local" and site.scratch is not None:
        keys.append("scratch")
    return msgspec.structs.replace(site, **{key: _expand(file, key, getattr(site, key)) for key in keys})


def _expand(file: str | Path, key: str, value: str) -> str:
    path = os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111 (pathlib expands no variables)
    if path.startswith("~"):
        raise ClusterFileError(f"{file}: {key}: no home folder is known for {value!r}; set HOME, or give a whole path")
    if "$" in path:
        raise ClusterFileError(f"{file}: {key}: a variable in {value!r} is not set")
    if re.search(r"\s", path):
        raise ClusterFileError(f"{file}: {key}: job scripts cannot carry the blanks in {path!r}")
    return str(Path(path).absolute())


class Threads(msgspec.Struct, frozen=True):
    """Shares of a worker process's cores: how many tasks at a time, and how many threads inside each."""

    tasks: int
    """Tasks at a time."""
    pools: int
    """Threads of each BLAS, OpenMP or numba pool that a task starts."""

    def environment(self) -> dict[str, str]:
        """Return what a worker's environment says of pools, and of memory: keep what is freed.

        Dask has the heap trimmed from 64 KB up; then every batch of a training asks the kernel for its pages again,
        which took 40 % of all CPU time.
        """
        names = ("OMP", "MKL", "OPENBLAS", "NUMBA")
        pools = {f"{name}_NUM_THREADS": str(self.pools) for name in names}
        return {**pools, "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


def plan_threads(site: SiteFile, threads_per_worker: int | None = None) -> Threads:
    """Share the cores of a process between tasks and the thread pools inside a task.

    A process runs a task on each of its cores unless ``threads_per_worker`` says fewer; then the pools of each task get
    what is left, so that no core ever has two busy threads. Raises UsageError if ``threads_per_worker`` is not between
    1 and the cores of a process.
    """
    cores = site.cores // site.processes if site.cores else threads_per_worker or 1
    tasks = cores if threads_per_worker is None else threads_per_worker
    if not 1 <= tasks <= cores:
        raise UsageError(f"threads per worker: wants 1 to {cores}, the cores of a process; got {tasks}")
    return Threads(tasks=tasks, pools=cores // tasks)


def tasks_at_once(file: str | Path | None, workers: int | None, threads_per_worker: int | None = None) -> int:
    """Count the tasks that run at once on so many workers (jobs) of a site; without a site file, on this machine.

    Raises ClusterFileError if the site file is malformed, and UsageError as `plan_threads` does.
    """
    if file is None:
        return workers or len(os.sched_getaffinity(0))
    site = load_site(file)
    return (workers or site.workers or 1) * (site.processes or 1) * plan_threads(site, threads_per_worker).tasks


def walltime_seconds(site: SiteFile) -> int | None:
    """Return how long a job may run, in seconds; None where the site file does not say."""
    if site.walltime is None:
        return None
    days, _, clock = site.walltime.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def process_bytes(site: SiteFile) -> int | None:
    """Return the memory of one worker process of a site, in bytes; None where the site file does not say."""
    if site.memory is None:
        return None
    from dask.utils import parse_bytes

    return int(parse_bytes(site.memory)) // site.processes


def queue_walltime(site: SiteFile) -> str | None:
    """Return the time limit in the words of the site's queue; None where the site file does not say."""
    seconds = walltime_seconds(site)
    if seconds is None or CLUSTER_KINDS[site.kind].walltime == "days":
        return site.walltime
    minutes = -(-seconds // 60)
    if CLUSTER_KINDS[site.kind].walltime == "minutes":
        return f"{minutes // 60:02d}:{minutes % 60:02d}"
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def site_templates() -> dict[str, Path]:
    """Return the site files that come with the package, by name; leave those of tests out."""
    here = Path(__file__).parents[1]
    folders = (here / "site_files", here.parent / "cluster")  # in a wheel, and in a checkout
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if not path.stem.endswith("-test")}
