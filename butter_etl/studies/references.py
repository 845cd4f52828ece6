"""References to studies, ``package.module:NAME``: how other processes import a study, in place of being sent it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Final

from butter_etl.errors import StudyError, one_line

#: The studies of the package, by name.
BUILT_IN: Final[Mapping[str, str]] = {"butter": "butter_etl.studies.butter.study:BUTTER"}
#: The variable of the environment that names the folder where the module of a study of one's own lies.
FOLDER: Final = "BUTTER_ETL_STUDY_PATH"


def import_reference(reference: str, folder: str | None = None) -> Any:
    """Import what a reference names, ``package.module:NAME``, from ``folder`` too if there is one.

    Raises StudyError in one line where that cannot be done.
    """
    module, colon, name = reference.partition(":")
    if not (module and colon and name):
        raise StudyError(f"--study {reference!r}: write package.module:NAME, or the name of a study that is installed")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return getattr(import_module(module), name)
    except Exception as error:
        # Whatever a user's module does wrong when it is imported, it is that module's doing, and said in one line.
        where = f" (looked in {folder} too)" if folder else ""
        raise StudyError(f"study {reference}: {type(error).__name__}: {one_line(error)}{where}") from error


def reference_to(study: object, name: str, modules: Iterable[str]) -> tuple[str, str | None]:
    """Return by what reference, and from which folder, other processes can import a study that is called ``name``.

    It stands in one of ``modules``, or is of the package. Raises StudyError for one that stands in no module.
    """
    for reference in BUILT_IN.values():
        if _is_at(study, reference):
            return reference, None
    for module in modules:
        names = [key for key, value in vars(sys.modules[module]).items() if value is study]
        if names and module != "__main__":
            return f"{module}:{names[0]}", os.environ.get(FOLDER)
    raise StudyError(f"study {name}: tasks import it by name, so it must stand in a module (a .py file), as `NAME = …`")


def _is_at(study: object, reference: str) -> bool:
    module, _, name = reference.partition(":")
    return getattr(sys.modules.get(module), name, None) is study
