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
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llvmlite import binding  # type: ignore[import-untyped]

from butter_etl.engines import compiling, native_code
from butter_etl.engines.private_folders import is_on_this_machine, make_private, read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np

_log = logging.getLogger("butter_etl")
_lock = threading.Lock()

#: Seconds to wait for another process that compiles: some times what it takes. A node that died may leave its lock.
PATIENCE_SECONDS = 300.0
_BETWEEN_LOOKS = 0.1


def fingerprint(sources: Sequence[Path]) -> str:
    """Hash what compiled code depends on: sources, how and for which CPU they are compiled, and by which versions.

    Returns 16 hexadecimal digits.
    """
    python = [platform.python_version(), str(object.__basicsize__)]
    facts = [*python, *_versions(), binding.get_host_cpu_name(), _cpu_features()]
    digest = hashlib.sha256("\n".join(facts).encode())
    ours = [Path(compiling.__file__).with_name(f"{name}.py") for name in ("compiling", "native_code", "native_entries")]
    for source in (*ours, *sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _versions() -> tuple[str, ...]:
    return tuple(importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy"))


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
    """Load the compiled ``function`` for such ``arguments`` from the cache, or compile it and keep it there.

    A kernel of arrays and numbers is loaded without numba, any other function as numba keeps it.
    """
    kernel = function if isinstance(function, compiling.Kernel) else None
    if kernel is None and not hasattr(function, "compile"):  # numba is switched off
        return
    with _lock:
        signature = native_code.signature_of(arguments) if kernel else None
        if kernel is None or signature is None:
            _ready_by_numba(function if kernel is None else kernel.dispatcher, arguments, sources)
        elif signature not in kernel.natives:
            _ready_native(kernel, signature, sources)


#: A compiled function, and arguments that it is called with.
Call = tuple[Any, tuple[Any, ...]]


def are_at_hand(kernels: Sequence[Call], sources: Sequence[Path]) -> bool:
    """Tell whether nothing needs to be compiled for calls of these kernels with such arguments."""
    missing = []
    for kernel, arguments in kernels:
        signature = native_code.signature_of(arguments)
        if isinstance(kernel, compiling.Kernel) and signature not in kernel.natives:
            missing.append((kernel, signature))
    if not missing:
        return True
    folders = cache_folders(sources)
    names = [KeptFiles(kernel.py_func, folders).name("native", signature) for kernel, signature in missing]
    return all(any((folder / name).exists() for folder in folders) for name in names)


class KernelSet:
    """Kernels that are used together, for each type of the numbers that they work on.

    ``calls`` returns those for a type, each with arguments as it will have.
    """

    def __init__(self, calls: Callable[[np.dtype[Any]], Sequence[Call]], sources: Sequence[Path]) -> None:
        self._calls, self._sources = calls, sources
        self._ready: set[np.dtype[Any]] = set()

    def are_at_hand(self, types: Iterable[np.dtype[Any]]) -> bool:
        """Tell whether nothing needs to be compiled for numbers of some types."""
        return all(are_at_hand(self._calls(one), self._sources) for one in set(types) - self._ready)

    def ready(self, numbers: np.dtype[Any]) -> None:
        """Load all kernels for numbers of a type from the cache, or compile them and keep them there."""
        if numbers not in self._ready:
            for function, arguments in self._calls(numbers):
                ready(function, arguments, self._sources)
            self._ready.add(numbers)


def _ready_native(kernel: compiling.Kernel, signature: native_code.Signature, sources: Sequence[Path]) -> None:
    started = time.perf_counter()
    kept = KeptFiles(kernel.py_func, cache_folders(sources))
    name = kept.name("native", signature)
    with kept.turn(name):
        content = kept.content(name)
        if content is None:
            kept.tell_of_compiling()
            from butter_etl.engines.native_entries import build  # and numba with it

            content = build(kernel.dispatcher, signature)
            kept.keep(name, content)
    kernel.add(signature, native_code.load(content))
    _log.debug("kernel %s ready after %.3f s", kernel.py_func.__name__, time.perf_counter() - started)


def _ready_by_numba(function: Any, arguments: tuple[Any, ...], sources: Sequence[Path]) -> None:
    numba: Any = import_module("numba")  # it says that it is typed but leaves most of its functions untyped
    signature = tuple(numba.typeof(argument) for argument in arguments)
    if signature not in function.overloads:
        started = time.perf_counter()
        kept = KeptKernels(KeptFiles(function.py_func, cache_folders(sources)))
        function._cache = kept
        with kept.turn(signature):
            function.compile(signature)
        _log.debug("kernels ready after %.1f s", time.perf_counter() - started)


class KeptKernels:
    """What numba asks for compiled code of a function, and gives it to, in place of its own cache.

    A file holds numba's pickle of a compiled function.
    """

    cache_path = None

    def __init__(self, files: KeptFiles) -> None:
        self._files = files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature; None if it is not kept."""
        content = self._files.content(self._name(sig))
        if content is None:
            self._files.tell_of_compiling()
            return None
        target_context.refresh()
        results: Any = import_module("numba.core.compiler").CompileResult
        return results._rebuild(target_context, *pickle.loads(content))  # noqa: S301 (nobody else's)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function wherever that is possible; one with addresses of this process in it, nowhere."""
        if not data.library.has_dynamic_globals:
            self._files.keep(self._name(sig), _pickled(data._reduce()))

    def turn(self, signature: Any) -> contextlib.AbstractContextManager[None]:
        """Wait for other processes that are compiling the function for a signature, where it is not kept yet."""
        return self._files.turn(self._name(signature))

    def _name(self, signature: Any) -> str:
        return self._files.name("kernel", signature)


class KeptFiles:
    """The files with the compiled code of a function, one for each of its signatures.

    A file is the SHA-256 of what follows it.
    """

    def __init__(self, function: Any, folders: Sequence[Path]) -> None:
        self._function = function
        self._folders = folders

    def tell_of_compiling(self) -> None:
        """Log that kernels are compiled, and where they are kept."""
        kept = f", once for this CPU and version; kept in {self._folders[-1]}" if self._folders else ""
        _tell(f"compiling kernels{kept or '; there is no folder to keep them in'}")

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait for other processes that are compiling what a file is to keep, where it is not kept yet.

        A node full of workers would compile it in each of them. Locks end with their process; on file systems that have
        none, each compiles as if alone.
        """
        with contextlib.ExitStack() as stack:
            if self.content(name) is None:
                for folder in reversed(self._folders):
                    with contextlib.suppress(OSError):  # of a folder that cannot be written
                        path = os.open(folder / f"{name}.turn", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                        self._wait(stack.enter_context(os.fdopen(path, "wb")), name)
                        break
            yield

    def _wait(self, file: Any, name: str) -> None:
        """Wait for the lock on ``file``, or for the kernel of a ``name``, as long as that can take."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.content(name) is None and time.monotonic() < until:
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

    def content(self, name: str) -> bytes | None:
        """Return what a file keeps, from the first folder that has it; folders before get a copy of it."""
        for number, folder in enumerate(self._folders):
            content = _read(folder / name)
            if content is not None:
                for nearer in self._folders[:number]:
                    _keep(nearer / name, content)
                return content
        return None

    def keep(self, name: str, content: bytes) -> None:
        """Keep something under a name, wherever that is possible."""
        for folder in self._folders:
            _keep(folder / name, content)

    def name(self, kind: str, signature: Any) -> str:
        """Return the name of the file that keeps code of some kind for a signature."""
        function = self._function
        code = function.__code__.co_code
        what = repr((function.__module__, function.__qualname__, signature, code, _cells(function)))
        return f"{kind}-{hashlib.sha256(what.encode()).hexdigest()[:24]}"


def _cells(function: Any) -> bytes:
    """Return what a function has from the functions around it, as bytes."""
    cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    return _pickled(cells) if cells else b""


def _pickled(value: Any) -> bytes:
    """Return numba's pickle of a value."""
    serialize: Any = import_module("numba.core.serialize")
    content: bytes = serialize.dumps(value)
    return content


def _keep(file: Path, content: bytes) -> None:
    try:
        write_private(file, hashlib.sha256(content).digest() + content)
    except OSError as error:
        _tell(f"compiled kernels are not kept in {file.parent}: {error}")


def _read(file: Path) -> bytes | None:
    """Return what a file keeps; None where there is no such file, it is torn, or might be somebody else's."""
    try:
        content = read_private(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        _tell(f"a kept kernel is not used: {error}")
        return None
    digest, kept = content[:32], content[32:]
    if hashlib.sha256(kept).digest() != digest:
        _tell(f"a kept kernel is not used: {file} is torn")
        return None
    return kept
