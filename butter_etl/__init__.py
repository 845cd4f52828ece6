"""Train fully connected networks over hyperparameter sweeps with Dask, and publish their curves as Parquet.

The public names are imported where they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from butter_etl.clusters import start_cluster
    from butter_etl.partition import partition_runs
    from butter_etl.store import read_executive_summary, read_export, read_runs, read_summary
    from butter_etl.summarize import summarize_runs
    from butter_etl.train_tasks import train

__version__ = "1.0.0.dev0"

__all__ = [
    "partition_runs",
    "read_executive_summary",
    "read_export",
    "read_runs",
    "read_summary",
    "start_cluster",
    "summarize_runs",
    "train",
]

_HOMES = {
    "partition_runs": "butter_etl.imports",
    "read_executive_summary": "butter_etl.frames",
    "read_export": "butter_etl.frames",
    "read_runs": "butter_etl.frames",
    "read_summary": "butter_etl.frames",
    "start_cluster": "butter_etl.clusters",
    "summarize_runs": "butter_etl.summarize",
    "train": "butter_etl.train_tasks",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'butter_etl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
