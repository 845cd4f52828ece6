"""The studies that are known here: those of the package, those that are installed, and the one that a user names.

A store says the name of its study. The name is looked up among the known ones, and never imported as it stands. A user
names a study of one's own by ``package.module:NAME``; tasks carry that reference, never code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from butter_etl.errors import StudyError, suggestion
from butter_etl.studies.references import BUILT_IN, FOLDER, import_reference
from butter_etl.studies.study import Study

#: The study of what says none, and of new ones where none is chosen.
DEFAULT: Final = "butter"
#: Packages declare their studies as entry points of this group, by the studies' names.
GROUP: Final = "butter_etl.studies"
#: The variable of the environment that names a study of one's own; `FOLDER` names the folder where its module lies.
CHOSEN: Final = "BUTTER_ETL_STUDY"


def load_study(reference: str, folder: str | None = None) -> Study:
    """Import the study that a reference names, ``package.module:NAME``, from ``folder`` too if there is one.

    Raises StudyError in one line where that cannot be done.
    """
    found = import_reference(reference, folder)
    if not isinstance(found, Study):
        name = reference.partition(":")[2]
        raise StudyError(f"study {reference}: {name} is no Study, but a {type(found).__name__}")
    return found


def installed() -> Mapping[str, str]:
    """Return the references of all studies that are installed, the package's own first, by name."""
    from importlib.metadata import entry_points  # which takes longer to import than all else here

    others = {one.name: f"{one.module}:{one.attr}" for one in entry_points(group=GROUP)}
    return {**others, **BUILT_IN}


@lru_cache(maxsize=8)
def _loaded(reference: str, folder: str | None) -> Study:
    return load_study(reference, folder)


def chosen_study() -> Study | None:
    """Return the study that BUTTER_ETL_STUDY names; None where it is not set. Raises StudyError."""
    name = os.environ.get(CHOSEN)
    if not name:
        return None
    if ":" in name:
        return _loaded(name, os.environ.get(FOLDER))
    return _by_name(name, f"{CHOSEN}={name}")


@contextmanager
def choosing(name: str | None, folder: str | None) -> Iterator[None]:
    """Choose a study while the block runs, by its name or a reference, for this process and those that it starts.

    None leaves the choice, or the folder, as the environment has it. Raises StudyError for a study that is not known.
    """
    before = {variable: os.environ.get(variable) for variable in (CHOSEN, FOLDER)}
    try:
        _set({FOLDER: os.path.abspath(folder) if folder else before[FOLDER]})  # noqa: PTH100 (links stay as they are)
        if name is not None:
            if not name:
                raise StudyError("--study '': name a study: package.module:NAME, or one that is installed")
            _set({CHOSEN: None})  # what is chosen so far need not be known
            if ":" not in name:
                find_study(name, f"--study {name}")
            _set({CHOSEN: name})
            chosen_study()
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for variable, value in variables.items():
        os.environ.pop(variable, None)
        if value is not None:
            os.environ[variable] = value


def default_study() -> Study:
    """Return the study of new stores: the chosen one, else BUTTER."""
    return chosen_study() or _loaded(BUILT_IN[DEFAULT], None)


def find_study(name: str | None, place: str) -> Study:
    """Return the study called ``name``, which ``place`` says; raise StudyError where it is not known here.

    What says none is of BUTTER.
    """
    name = name or DEFAULT
    chosen = chosen_study()
    return chosen if chosen is not None and chosen.name == name else _by_name(name, place)


def _by_name(name: str, place: str) -> Study:
    known = installed()
    if name not in known:
        raise StudyError(
            f"{place}: the study {name!r} is not known here{suggestion(name, known)}; install what declares it, or "
            f"name its module: --study package.module:NAME (known: {', '.join(sorted(known))})"
        )
    found = _loaded(known[name], None)
    if found.name != name:
        raise StudyError(f"study {known[name]}: it is installed as {name!r}, but calls itself {found.name!r}")
    return found
