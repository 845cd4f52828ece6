"""The cache of compiled kernels: this user's, for all machines of one kind, keyed by what kernels are made of.

Numba's own cache watches the one file of a cached function and neither those that it calls nor numba's version, and
finds nothing again from another folder of the package. So files are named and kept here: in the user's cache folder
(``NUMBA_CACHE_DIR`` moves them), which the nodes of a cluster share, and if that is not on this machine, in its
temporary folder too. Kept code is code that runs: what others may write is not read (`private_folders`). A file is
whole or not there. Processes that want the same kernel wait for the one that compiles it, where their file system has
locks. Whatever is wrong with the cache, kernels compile, and the log says once why.
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
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba as untyped_numba
from llvmlite import binding  # type: ignore[import-untyped]
from numba.core import caching

from butter_etl.engines import compiling
from butter_etl.engines.private_folders import is_on_this_machine, make_private, read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# It says that it is typed but leaves most of its functions untyped.
numba: Any = untyped_numba

_log = logging.getLogger("butter_etl")
_lock = threading.Lock()

#: Seconds to wait for another process that compiles: some times what it takes. A node that died may leave its lock.
PATIENCE_SECONDS = 300.0
_BETWEEN_LOOKS = 0.1


def fingerprint(sources: Sequence[Path]) -> str:
    """Hash what compiled code depends on: sources, how and for which CPU they are compiled, and by which versions.

    Returns 16 hexadecimal digits.
    """
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    facts = [platform.python_version(), *versions, binding.get_host_cpu_name(), _cpu_features()]
    digest = hashlib.sha256("\n".join(facts).encode())
    for source in (Path(compiling.__file__), *sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def target() -> str:
    """Return what kernels are compiled for here: LLVM's name of the processor, and a hash of what it can do."""
    return f"{binding.get_host_cpu_name()} {hashlib.sha256(_cpu_features().encode()).hexdigest()[:8]}"


def _cpu_features() -> str:
    features: str = binding.get_host_cpu_features().flatten()
    return features


def cache_folders(sources: Sequence[Path]) -> list[Path]:
    """Return the folders for kernels of these ``sources``, made where they are missing, in the order to look in.

    The user's cache folder stands last. Before it stands one of this machine, if the former is not on this machine or
    cannot be written. None is there that another user might write to.
    """
    name, chosen = f"butter_etl-{fingerprint(sources)}", os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return _private(Path(chosen).absolute() / name)
    shared = [folder for base in _users_cache() for folder in _private(base / "butter_etl" / "kernels" / name)]
    if any(is_on_this_machine(folder) and os.access(folder, os.W_OK | os.X_OK) for folder in shared):
        return shared
    return _private(Path(tempfile.gettempdir()) / f"butter_etl-kernels-{os.getuid()}" / name) + shared


def _users_cache() -> list[Path]:
    """Return the user's cache folder; nothing for a user without a home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # others are to be ignored, as XDG says
        return [named]
    # Path.home raises where there is none, Path.is_dir where this user may not look.
    home = os.path.expanduser("~")  # noqa: PTH111
    if os.path.isabs(home) and os.path.isdir(home):  # noqa: PTH112, PTH117
        return [Path(home, ".cache")]
    _tell(f"compiled kernels are not kept in the user's cache: this user has no home that it may enter, but {home}")
    return []


def _private(folder: Path) -> list[Path]:
    try:
        return [make_private(folder)]
    except OSError as error:
        _tell(f"compiled kernels are not kept in {folder.parent}: {error}")
        return []


@cache
def _tell(line: str) -> None:
    """Log each ``line`` once in a process."""
    _log.info(line)


def ready(function: Any, arguments: tuple[Any, ...], sources: Sequence[Path]) -> None:
    """Load the compiled ``function`` for such ``arguments`` from the cache, or compile it and keep it there."""
    if not hasattr(function, "compile"):  # numba is switched off
        return
    with _lock:
        signature = tuple(numba.typeof(argument) for argument in arguments)
        if signature not in function.overloads:
            started = time.perf_counter()
            kept = KeptKernels(function, cache_folders(sources))
            function._cache = kept
            with kept.turn(signature):
                function.compile(signature)
            _log.debug("kernels ready after %.1f s", time.perf_counter() - started)


class KeptKernels(caching.NullCache):
    """What numba asks for compiled code of a function, and gives it to: a file for each of its signatures.

    A file is the SHA-256 of what follows it, which is numba's pickle of a compiled function.
    """

    def __init__(self, function: Any, folders: Sequence[Path]) -> None:
        self._function = function.py_func
        self._folders = folders

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature; None if it is not kept."""
        content = self._content(self._name(sig))
        if content is None:
            where = f", once for this CPU and version; kept in {self._folders[-1]}" if self._folders else ""
            _log.info("compiling kernels%s", where or "; there is no folder to keep them in")
            return None
        target_context.refresh()
        return numba.core.compiler.CompileResult._rebuild(target_context, *pickle.loads(content))  # noqa: S301 (nobody else's)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function wherever that is possible; one with addresses of this process in it, nowhere."""
        if data.library.has_dynamic_globals:
            return
        content = numba.core.serialize.dumps(data._reduce())
        for folder in self._folders:
            self._keep(folder / self._name(sig), content)

    @contextlib.contextmanager
    def turn(self, signature: Any) -> Iterator[None]:
        """Wait for other processes that are compiling the function, where it is not kept yet.

        A node full of workers would compile it in each of them. Locks end with their process; on file systems that have
        none, each compiles as if alone.
        """
        name = self._name(signature)
        with contextlib.ExitStack() as stack:
            if self._content(name) is None:
                for folder in reversed(self._folders):
                    with contextlib.suppress(OSError):  # of a folder that cannot be written
                        path = os.open(folder / f"{name}.turn", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                        self._wait(stack.enter_context(os.fdopen(path, "wb")), name)
                        break
            yield

    def _wait(self, file: Any, name: str) -> None:
        """Wait for the lock on ``file``, or for the kernel of a ``name``, as long as that can take."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self._content(name) is None and time.monotonic() < until:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _tell("waiting for another process, which compiles kernels")
                time.sleep(_BETWEEN_LOOKS)
            except OSError as error:
                _log.debug("compiling without waiting for others (%s)", error)
                return
            else:
                return

    def _content(self, name: str) -> bytes | None:
        """Return the pickle in a kept file, from the first folder that has it; folders before get a copy of it."""
        for number, folder in enumerate(self._folders):
            content = _read(folder / name)
            if content is not None:
                for nearer in self._folders[:number]:
                    self._keep(nearer / name, content)
                return content
        return None

    def _keep(self, file: Path, content: bytes) -> None:
        try:
            write_private(file, hashlib.sha256(content).digest() + content)
        except OSError as error:
            _tell(f"compiled kernels are not kept in {file.parent}: {error}")

    def _name(self, signature: Any) -> str:
        code = self._function.__code__.co_code
        cells = numba.core.serialize.dumps(tuple(cell.cell_contents for cell in self._function.__closure__ or ()))
        what = repr((self._function.__module__, self._function.__qualname__, signature, code, cells))
        return f"kernel-{hashlib.sha256(what.encode()).hexdigest()[:24]}"


def _read(file: Path) -> bytes | None:
    """Return the pickle in a file; None where there is no such file, it is torn, or might be somebody else's."""
    try:
        content = read_private(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        _tell(f"a kept kernel is not used: {error}")
        return None
    digest, pickled = content[:32], content[32:]
    if hashlib.sha256(pickled).digest() != digest:
        _tell(f"a kept kernel is not used: {file} is torn")
        return None
    return pickled
