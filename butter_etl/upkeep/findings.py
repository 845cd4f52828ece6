"""Findings of a check of a store or an export: the kinds, and what to do about each."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class FindingKind(msgspec.Struct, frozen=True):
    """A kind of finding: what to do in a few words, and whether repairing moves the file to quarantine.

    A note is worth knowing and no fault: it does not make a check fail.
    """

    remedy: str
    moves: bool = False
    is_note: bool = False


_MOVE = "verify --repair, then train"

#: Each kind by its name, gravest first; docs/errors.md has an entry for each.
KINDS: Mapping[str, FindingKind] = {
    "torn-file": FindingKind(_MOVE, moves=True),
    "wrong-schema": FindingKind(_MOVE, moves=True),
    "wrong-name": FindingKind(_MOVE, moves=True),
    "wrong-row": FindingKind(_MOVE, moves=True),
    "misplaced-file": FindingKind(_MOVE, moves=True),
    "duplicate-run": FindingKind("verify --repair", moves=True),
    "duplicate-run-id": FindingKind("drop one of the two experiments"),
    "foreign-file": FindingKind("verify --repair", moves=True),
    "temporary-file": FindingKind("verify --repair", moves=True),
    "wrong-metadata": FindingKind("verify --repair, then train or summarize", moves=True),
    "unknown-experiment": FindingKind("restore its file in experiments/"),
    "wrong-experiment": FindingKind("restore the file from a copy"),
    "wrong-sweep": FindingKind("restore the file from a copy"),
    "wrong-source": FindingKind("restore the file from a copy"),
    "wrong-data": FindingKind("verify --repair, then train --spec", moves=True),
    "wrong-record": FindingKind("verify --repair", moves=True),
    "stale-summary": FindingKind("summarize"),
    "orphaned-summary": FindingKind("summarize"),
    "wrong-summary": FindingKind("summarize --full"),
    "wrong-manifest": FindingKind("export again"),
    "missing-file": FindingKind("export again"),
    "altered-file": FindingKind("export again"),
    "unlisted-file": FindingKind("export again"),
    "wrong-archive": FindingKind("export again"),
    "wrong-certificate": FindingKind("audit again"),
    "failed-audit": FindingKind("drop the runs that it names, train, audit"),
    "gap": FindingKind("train, if they are wanted", is_note=True),
    "missing-runs": FindingKind("train", is_note=True),
    "missing-summary": FindingKind("summarize", is_note=True),
    "outdated-certificate": FindingKind("audit again", is_note=True),
    "recorded-failure": FindingKind("status tells why; train", is_note=True),
    "outdated-failure": FindingKind("nothing: its runs have landed since", is_note=True),
}

#: The kinds of findings about certificates: what to do is the same for stores and exports.
AUDITED = ("wrong-certificate", "failed-audit", "outdated-certificate")


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be. ``path`` is relative to what was checked; ``kind`` is one of `KINDS`.

    ``partners`` are the files that make this one superfluous: of duplicates, those that hold the same runs.
    """

    kind: str
    path: str
    detail: str
    partners: tuple[str, ...] = ()

    @property
    def is_note(self) -> bool:
        """Tell whether it is worth knowing but no fault."""
        return KINDS[self.kind].is_note


class CheckReport(msgspec.Struct, frozen=True):
    """Counts of what was checked, and the findings; reports can be added. ``summaries`` counts recomputed ones."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    summaries: int = 0
    findings: tuple[Finding, ...] = ()

    def __add__(self, other: CheckReport) -> CheckReport:
        return CheckReport(
            self.files + other.files,
            self.rows + other.rows,
            self.bytes + other.bytes,
            self.summaries + other.summaries,
            (*self.findings, *other.findings),
        )

    @property
    def faults(self) -> list[Finding]:
        """Return the findings that are faults, gravest kind first, then by path."""
        return self._sorted(is_note=False)

    @property
    def notes(self) -> list[Finding]:
        """Return the findings that are no faults, by kind and path."""
        return self._sorted(is_note=True)

    def _sorted(self, *, is_note: bool) -> list[Finding]:
        ranks = {kind: rank for rank, kind in enumerate(KINDS)}
        chosen = [finding for finding in self.findings if finding.is_note is is_note]
        return sorted(chosen, key=lambda finding: (ranks[finding.kind], finding.path))
