"""The prologue of a job: shell lines of the site's, and which of them failed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from butter_etl.clusters.sites import CLUSTER_KINDS, SiteFile

_MARK = "butter-etl: prologue failed"
#: A failure is told once, by the first of two traps that hears of it; `exit` is heard by the second alone.
_TELL = f'code=$?; [ "$code" -eq 0 ] || echo "{_MARK}: $code: $BASH_COMMAND" >&2'


class PrologueFailure(msgspec.Struct, frozen=True):
    """A command of a prologue that failed, with its exit code and the line that the log has before."""

    command: str
    exit_code: int
    said: str

    def describe(self) -> str:
        """Return it for messages."""
        words = f", saying: {self.said}" if self.said else ""
        return f"`{self.command}` ended with exit code {self.exit_code}{words}"


def prologue_lines(site: SiteFile) -> list[str]:
    """Return the prologue of a site's jobs, made to tell in the job's log which command failed.

    A command that fails does not end a job, unless the lines themselves say so. Only bash can tell.
    """
    if not site.prologue or CLUSTER_KINDS[site.kind].job_shell != "bash":
        return list(site.prologue)
    return [f"trap '{_TELL}' ERR EXIT", *site.prologue, "trap - ERR EXIT"]


def prologue_failures(log: str) -> Iterator[PrologueFailure]:
    """Yield the failures that a job's log tells of."""
    said, told = "", None
    for line in log.splitlines():
        found = re.match(rf"{_MARK}: (\d+): (.*)", line)
        if found is None:
            said, told = line.strip() or said, None
            continue
        if told != found.group():  # `set -e` makes an end of a failure
            yield PrologueFailure(found[2], int(found[1]), said)
        said, told = "", found.group()
