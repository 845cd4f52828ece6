"""Dask's settings for our clusters: the package's, whatever Dask's files and variables of the user say.

People who use Dask have settings in ``~/.config/dask`` or in ``DASK_`` variables: lifetimes of workers, preloads, the
address of a scheduler. Made for other work, they would disturb a campaign, or have it wait for ever.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from butter_etl.clusters.logs import silence_dask
from butter_etl.errors import UsageError, one_line

#: What the user says of Dask and holds all the same: the folder where workers spill.
_KEPT: Final = ("temporary-directory",)


def import_dask() -> Any:
    """Import Dask, which reads the user's settings. Raises UsageError where they are malformed."""
    try:
        import dask
    except ValueError as error:
        raise UsageError(
            f"Dask cannot be started with its settings here: {one_line(error)}; mend or move them"
        ) from error
    return dask


@contextlib.contextmanager
def apart_from_users() -> Iterator[None]:
    """Have Dask's own defaults hold in this block, but for what `_KEPT` names; then give the user's settings back."""
    dask = import_dask()
    live: dict[str, Any] = dask.config.config
    theirs = copy.deepcopy(live)
    kept = {name: dask.config.get(name, None) for name in _KEPT}  # as Dask looks it up: a variable has underscores
    _replace(live, _defaults(dask) | kept)
    try:
        import distributed  # noqa: F401 (it reads settings as it is imported, and its defaults must be there)

        yield
    finally:
        _replace(live, theirs)
        _fill_up(dask, live)


@contextlib.contextmanager
def dask_settings(settings: Mapping[str, Any]) -> Iterator[None]:
    """Apply settings to Dask's defaults; they must hold before the scheduler is made and until it is gone."""
    with apart_from_users():
        dask = import_dask()
        silence_dask()
        with dask.config.set(settings):
            yield


def _defaults(dask: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    _fill_up(dask, found)
    return found


def _fill_up(dask: Any, settings: dict[str, Any]) -> None:
    """Add the defaults of what settings do not say: of Dask's parts, too, that were imported meanwhile."""
    for defaults in dask.config.defaults:
        dask.config.update(settings, copy.deepcopy(defaults), priority="old")


def _replace(live: dict[str, Any], settings: Mapping[str, Any]) -> None:
    live.clear()
    live.update(settings)
