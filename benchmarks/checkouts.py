"""Two versions of the package side by side: a revision in a git worktree of its own, and the working tree.

Both run with the interpreter and the dependencies that are installed; a version's folder stands first on the path. So
nothing is installed, and only what users call is called: commands, ``python -m``, and the public names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: The checkout that this file belongs to.
WORKING_TREE = Path(__file__).resolve().parents[1]
_WHERE = "import butter_etl; print(butter_etl.__file__)"
_TIMEOUT_SECONDS = 1800


class RevisionError(Exception):
    """A revision cannot be had or run; the message says why."""


@dataclass(frozen=True)
class Said:
    """What a process left: its exit code, what it wrote, and the CPU seconds of it and all below it."""

    code: int
    out: str
    err: str
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Version:
    """A version of the package: ``old`` or ``new``, where its checkout is, and a folder for what it caches."""

    name: str
    folder: Path
    cache: Path

    @property
    def commit(self) -> str:
        """The commit that is checked out."""
        return _git(self.folder, "rev-parse", "HEAD")

    def environment(self) -> dict[str, str]:
        """The environment of its processes: this one's, but for what would make a version see something of its own.

        Kernels are cached apart, unless ``NUMBA_CACHE_DIR`` says where; terminals are 80 columns wide; nobody's data
        sets and calibration are found.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BUTTER_ETL_")}
        return {
            "NUMBA_CACHE_DIR": str(self.cache / self.name),
            **kept,
            "PYTHONPATH": str(self.folder),
            "XDG_CACHE_HOME": str(self.cache / "shared"),
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }

    def command(self, *arguments: str) -> list[str]:
        """``butter-etl`` with these arguments."""
        return [sys.executable, "-m", "butter_etl", *arguments]

    def start(self, command: Sequence[str], folder: Path, log: Path | None = None) -> subprocess.Popen[str]:
        """Start a process in a folder and in a process group of its own; ``log`` takes what it writes to stderr."""
        with (log or folder / f"{self.name}.log").open("a") as err:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
            )

    def run(self, command: Sequence[str], folder: Path) -> Said:
        """Run a process in a folder to its end."""
        log = folder / f".{self.name}-{time.monotonic_ns()}.log"
        try:
            with self.start(command, folder, log) as process:
                assert process.stdout is not None
                try:
                    out = process.stdout.read()
                    _, status, usage = os.wait4(process.pid, 0)
                except BaseException:
                    end(process)
                    raise
                process.returncode = os.waitstatus_to_exitcode(status)
            return Said(process.returncode, out, log.read_text(errors="replace"), usage.ru_utime + usage.ru_stime)
        finally:
            log.unlink(missing_ok=True)

    def butter(self, folder: Path, *arguments: str) -> str:
        """What ``butter-etl`` prints; raises RevisionError if it fails."""
        said = self.run(self.command(*arguments), folder)
        if said.code:
            last = (said.err.strip() or said.out.strip() or "no word").splitlines()[-1]
            raise RevisionError(f"{self.name}: butter-etl {' '.join(arguments)}: exit code {said.code}: {last}")
        return said.out

    def check(self, folder: Path) -> Path:
        """Where its processes find the package; raises RevisionError if that is not in its checkout."""
        said = self.run([sys.executable, "-c", _WHERE], folder)
        found = Path(said.out.strip() or said.err.strip().rpartition("\n")[2])
        if said.code or found.resolve().parents[1] != self.folder.resolve():
            raise RevisionError(f"{self.name}: the package is not that of {self.folder} but {found}")
        return found


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process that `Version.start` started, with all in its process group, and wait for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        process.wait(_TIMEOUT_SECONDS)


@contextmanager
def versions(revision: str, folder: Path) -> Iterator[tuple[Version, Version]]:
    """The version of a revision and that of the working tree; the former's worktree, in ``folder``, is removed after.

    Raises RevisionError for what git does not know, and where a version does not run from its own checkout.
    """
    tree, cache = folder / "revision", folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    commit = _git(WORKING_TREE, "rev-parse", "--verify", f"{revision}^{{commit}}")
    try:
        _git(WORKING_TREE, "worktree", "add", "--detach", "--quiet", str(tree), commit)
        old, new = Version("old", tree, cache), Version("new", WORKING_TREE, cache)
        for version in (old, new):
            version.check(cache)
        yield old, new
    finally:
        with suppress(RevisionError):  # it was not even added
            _git(WORKING_TREE, "worktree", "remove", "--force", str(tree))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RevisionError(done.stderr.strip())
    return done.stdout.strip()
