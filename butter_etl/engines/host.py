"""The processor and the packages that the bits of a result depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


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
