"""References to studies, ``package.module:NAME``: how other processes import a study, in place of being sent it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from butter_etl.errors import StudyError, one_line

#: The studies of the package, by name.
BUILT_IN: Final[Mapping[str, str]] = {
    "butter": "butter_etl.studies.butter.study:BUTTER",
    "nn_lifespans": "butter_etl.studies.lifespans.study:NN_LIFESPANS",
    "rnn_capacity": "butter_etl.studies.capacity.study:RNN_CAPACITY",
}
#: The variable of the environment that names the folder where the module of a study of one's own lies.
FOLDER: Final = "BUTTER_ETL_STUDY_PATH"


#: What was imported by which reference, and from which folder.
_IMPORTED: Final[dict[tuple[str, str | None], Any]] = {}
#: Folders of what is installed, which other processes have as well.
_INSTALLED: Final = ("site-packages", "dist-packages")


def import_reference(reference: str, folder: str | None = None) -> Any:
    """Import what a reference names, ``package.module:NAME``, from ``folder`` too if there is one.

    Raises StudyError in one line where that cannot be done.
    """
    module, _, name = reference.partition(":")
    if not all(map(str.isidentifier, (*module.split("."), name))):
        raise StudyError(f"--study {reference!r}: write package.module:NAME, or the name of a study that is installed")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:
        # Whatever a user's module does wrong when it is imported, it is that module's doing, and said in one line.
        where = f" (looked in {folder} too)" if folder else ""
        raise StudyError(f"study {reference}: {type(error).__name__}: {one_line(error)}{where}") from error
    _IMPORTED[reference, folder] = found
    return found


def reference_to(study: object, name: str, modules: Iterable[str]) -> tuple[str, str | None]:
    """Return by what reference, and from which folder, other processes can import a study that is called ``name``.

    That is the one by which it was imported here; else it stands in one of ``modules``, or in any other that is loaded.
    Raises StudyError for one that stands in no module.
    """
    for reference in BUILT_IN.values():
        if _is_at(study, reference):
            return reference, None
    for (reference, folder), found in _IMPORTED.items():
        if found is study:
            return reference, folder
    for module in (*modules, *sorted(sys.modules)):
        there = getattr(sys.modules[module], "__dict__", {})
        names = [key for key, value in list(there.items()) if value is study]
        if names and module != "__main__":
            return f"{module}:{names[0]}", os.environ.get(FOLDER) or _folder_of(module)
    raise StudyError(f"study {name}: tasks import it by name, so it must stand in a module (a .py file), as `NAME = …`")


def _is_at(study: object, reference: str) -> bool:
    module, _, name = reference.partition(":")
    return getattr(sys.modules.get(module), name, None) is study


def _folder_of(module: str) -> str | None:
    """Return the folder that a module, or the package that it is in, was imported from; None of what is installed."""
    file = getattr(sys.modules[module.partition(".")[0]], "__file__", None)
    if file is None:
        return None
    path = Path(file).absolute()
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    return None if set(_INSTALLED) & set(folder.parts) else str(folder)
