"""The cache of compiled kernels: on this machine, for this user, keyed by what they are made of.

Numba's own cache watches the one file of a cached function and neither those that it calls nor numba's version, and a
package folder is often shared by machines or not writable. So the folder is chosen here: below ``NUMBA_CACHE_DIR``, or
else in the temporary folder (node-local scratch on a cluster; ``TMPDIR`` moves it), and named by a hash of the kernels'
sources, the versions and the CPU. Numba writes files aside and renames them, so processes may race; where they can,
they wait for each other, and one compiles. Cached code is code that runs: a folder that is not the user's own is not
used. Whatever is wrong with the cache, kernels compile.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba as untyped_numba
from llvmlite import binding  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# It says that it is typed but leaves most of its functions untyped.
numba: Any = untyped_numba

_log = logging.getLogger("butter_etl")
_lock = threading.Lock()


def fingerprint(sources: Sequence[Path]) -> str:
    """Hash what compiled code depends on: the sources, the versions, and the CPU that it is compiled for.

    Returns 16 hexadecimal digits.
    """
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    facts = [platform.python_version(), *versions, binding.get_host_cpu_name(), _cpu_features()]
    digest = hashlib.sha256("\n".join(facts).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cpu_features() -> str:
    features: str = binding.get_host_cpu_features().flatten()
    return features


def cache_folder(sources: Sequence[Path]) -> Path | None:
    """Create and return the folder for kernels of these ``sources``.

    Returns None where there can be no such folder that only the user writes to.
    """
    parent = os.environ.get("NUMBA_CACHE_DIR")
    user = os.getuid() if hasattr(os, "getuid") else 0
    base = Path(parent) if parent else Path(tempfile.gettempdir()) / f"butter_etl-kernels-{user}"
    folder = base / f"butter_etl-{fingerprint(sources)}"
    try:
        base.mkdir(mode=0o700, parents=bool(parent), exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        safe = all(_only_mine(path) for path in ((folder,) if parent else (base, folder)))
        usable = safe and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return None
    return folder if usable else None


def _only_mine(path: Path) -> bool:
    """Tell whether ``path`` is a real folder of this user that no other user can write to."""
    facts = path.lstat()
    mine = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
    return mine and stat.S_ISDIR(facts.st_mode) and not facts.st_mode & 0o022


def ready(function: Any, arguments: tuple[Any, ...], sources: Sequence[Path]) -> None:
    """Load the compiled ``function`` for such ``arguments`` from the cache, or compile it."""
    if not hasattr(function, "compile"):  # numba is switched off
        return
    with _lock:
        signature = tuple(numba.typeof(argument) for argument in arguments)
        if signature not in function.overloads:
            _compile(function, signature, cache_folder(sources))


def _compile(function: Any, signature: tuple[Any, ...], folder: Path | None) -> None:
    started = time.perf_counter()
    if folder is None:
        _log.info("compiling kernels; there is no folder to keep them in")
    else:
        try:
            _enable(function, folder)
            with _turn(function, folder):
                if not _is_kept(function):
                    _log.info("compiling kernels, once for this machine and version; kept in %s", folder)
                function.compile(signature)
        # A full disk, a file torn by a crash: the cache is a convenience.
        except (OSError, EOFError, pickle.UnpicklingError, RuntimeError) as error:
            _log.info("compiling kernels, as %s cannot be used (%s)", folder, error)
            function._cache = numba.core.caching.NullCache()
    function.compile(signature)  # does nothing where that is done
    _log.debug("kernels ready after %.1f s", time.perf_counter() - started)


@contextlib.contextmanager
def _turn(function: Any, folder: Path) -> Iterator[None]:
    """Wait for other processes of this machine that are compiling the ``function``, where it is not kept yet.

    A node full of workers would compile it in each of them. The kernel's own locks end with their process; on file
    systems that have none, each compiles as if alone.
    """
    if _is_kept(function):
        yield
        return
    with (folder / f"{function.__name__}.turn").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process, which compiles kernels")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _log.debug("compiling without waiting for others (%s)", error)
        yield


def _is_kept(function: Any) -> bool:
    return any(Path(function._cache.cache_path).glob(f"*{function.__name__}*.nbc"))


def _enable(function: Any, folder: Path) -> None:
    """Let numba cache ``function`` in ``folder``: it asks its configuration only while this is switched on."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        function.enable_caching()
    finally:
        numba.config.CACHE_DIR = before
