"""The end of the job that this process runs in: how the job's script says it, and how workers read it."""

from __future__ import annotations

from collections.abc import Mapping

#: Variables for when the job began (unix seconds), how long it may run (seconds), and where the queue writes its logs.
JOB_BEGAN, JOB_WALLTIME, JOB_LOGS = "BUTTER_ETL_JOB_BEGAN", "BUTTER_ETL_JOB_WALLTIME", "BUTTER_ETL_JOB_LOGS"


def deadline_lines(walltime_seconds: int | None, logs: str) -> list[str]:
    """Return shell lines for the top of a job, after which its workers know when it ends and where its logs are."""
    lines = [f"export {JOB_LOGS}={logs}"]
    if walltime_seconds is not None:
        # Backticks: in HTCondor's files a dollar sign before a bracket is a macro.
        lines += [f"export {JOB_BEGAN}=`date +%s`", f"export {JOB_WALLTIME}={walltime_seconds}"]
    return lines


def job_end(environment: Mapping[str, str]) -> float | None:
    """Return when this job ends, in unix seconds, by what `deadline_lines` left in the environment; else None."""
    if JOB_BEGAN not in environment or JOB_WALLTIME not in environment:
        return None
    return float(environment[JOB_BEGAN]) + float(environment[JOB_WALLTIME])
