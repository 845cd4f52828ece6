"""The host columns of the run frame: where and with what a run was trained."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "OAR_JOB_ID", "JOB_ID", "CONDOR_JOB_ID")


@cache
def host_facts() -> dict[str, str | None]:
    """Return the host columns of this process; null where a fact is not to be had."""
    return {
        "python_version": platform.python_version(),
        "tensorflow_version": None,
        "platform": platform.platform(),
        "git_hash": _git_hash(),
        "hostname": socket.gethostname(),
        "torch_version": package_version("torch"),
        "cpu_family": cpu_family(),
        "job_id": next((os.environ[name] for name in _JOB_VARIABLES if os.environ.get(name)), None),
    }


@cache
def cpu_family() -> str:
    """Return vendor, family and model of the processor, on which arithmetic may depend."""
    facts: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    named = [facts[key] for key in ("vendor_id", "cpu family", "model") if key in facts]
    return "-".join(named) or platform.processor() or platform.machine()


def package_version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_hash() -> str | None:
    """Return the commit of the checkout that this package runs from; None outside one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
