"""The processor and the packages that the bits of a result depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

#: What an environment says: texts and numbers by name.
Facts = Mapping[str, str | int | None]

#: The packages that say, compile and carry out the arithmetic of every engine.
_PACKAGES = ("butter-etl", "llvmlite", "numba", "numpy")


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
    from importlib.metadata import PackageNotFoundError, version  # which most that import this do without

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def arithmetic() -> Facts:
    """Return what carries out arithmetic in this process: versions of packages, and NumPy's BLAS with its kernel."""
    return {"blas": _blas(), **{name: package_version(name) for name in _PACKAGES}}


@cache
def _blas() -> str | None:
    """Return library, version and kernel of NumPy's BLAS, such as ``openblas 0.3.31 SkylakeX``; None if none is found.

    The kernel is chosen for the processor when the library is loaded.
    """
    import numpy as np
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
    # Wheels of other packages bring libraries of their own, which are loaded or not.
    near = Path(np.__file__).parent
    found.sort(key=lambda one: not Path(one["filepath"]).parent.is_relative_to(near.with_name("numpy.libs")))
    said = [found[0].get(key) for key in ("internal_api", "version", "architecture")] if found else []
    return " ".join(one for one in said if one) or None


def torch_facts(device: str) -> Facts:
    """Return what torch computes with: the kernels and threads of the CPU, or the GPU and its libraries."""
    import torch

    cudnn: Any = torch.backends.cudnn
    if device != "cuda":
        return {"target": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    return {
        "target": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version() if cudnn.is_available() else None,
    }
