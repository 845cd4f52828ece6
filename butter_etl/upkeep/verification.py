"""What `butter-etl verify` does, in one call: check a store or an export, and repair a store where that is wished."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from butter_etl.errors import NotebookBar, UsageError, counted, html_table
from butter_etl.store import Location, Store, StudyLike
from butter_etl.upkeep.certificates import check_certificate, find_certificate
from butter_etl.upkeep.findings import AUDITED, KINDS, CheckReport, Finding
from butter_etl.upkeep.inventory import Inventory
from butter_etl.upkeep.repair import RepairReport, run_repair
from butter_etl.upkeep.run_frame import RunFrame
from butter_etl.upkeep.verify import is_store, plan_verification, run_verification

if TYPE_CHECKING:
    from distributed import Client


class Verification(msgspec.Struct, frozen=True):
    """What a check found: ``checked`` has the counts and findings, ``repaired`` what a repair did, None without one."""

    path: str
    is_store: bool
    checked: CheckReport
    repaired: RepairReport | None = None

    @property
    def faults(self) -> list[Finding]:
        """Return the findings that are faults and were not repaired, gravest kind first, then by path."""
        return self.checked.faults if self.repaired is None else list(self.repaired.left)

    @property
    def notes(self) -> list[Finding]:
        """Return the findings that are no faults, by kind and path."""
        return self.checked.notes

    @property
    def is_sound(self) -> bool:
        """Tell whether there is no fault: what the command ends with 0 for."""
        return not self.faults

    def _repr_html_(self) -> str:
        """Return the counts as a notebook shows them; below, each fault with what to do, and the notes."""
        checked, repaired = self.checked, self.repaired
        counts = [("files checked", checked.files), ("rows", checked.rows), ("MB", round(checked.bytes / 1e6, 1))]
        counts += [("summaries recomputed", checked.summaries)] if checked.summaries else []
        counts += [("files moved to quarantine", len(repaired.moved))] if repaired else []
        counts += [("runs missing now", sum(map(len, repaired.missing.values())))] if repaired else []
        return html_table([*counts, ("faults", len(self.faults))]) + "".join(
            html_table([(one.kind, one.path, one.detail, remedy(one.kind, self.is_store)) for one in own], head)
            for own, head in (
                (self.faults, ("fault", "path", "what is wrong", "what to do")),
                (self.notes, ("note", "path", "what is so", "what to do")),
            )
            if own
        )


def remedy(kind: str, is_store: bool) -> str:
    """Return what to do about a kind of finding, in a few words: an export is mended by exporting again."""
    is_of_exports = KINDS[kind].remedy if kind in AUDITED else "export again"
    return KINDS[kind].remedy if is_store else is_of_exports


def refuse_for_exports(path: str | os.PathLike[str], wish: str) -> None:
    """Raise UsageError for a wish that only a store can be asked, where there is none at ``path``."""
    if not is_store(path):
        raise UsageError(f"{wish} is for stores; an export is mended by exporting again")


def verify_data(
    path: str | os.PathLike[str],
    *,
    summaries: bool = False,
    repair: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
    certificate: str | os.PathLike[str] | None = None,
) -> Verification:
    """Check every file of a store or an export at ``path``, as ``butter-etl verify`` does; return what it found.

    With ``summaries`` a sample of a store's summaries is recomputed; with ``repair`` files of it that are wrong are
    moved to quarantine. The ``certificate`` of an audit, or the one beside the data, is held against them. It works on
    ``client``, else in ``workers`` threads of this process, by default as many as there are cores. What is wrong is in
    the result and raises nothing. Raises StoreError if there is neither a store nor an export, UsageError where an
    export is to be repaired or recomputed, LandingError if a file cannot be moved.
    """
    for wish, is_wished in (("repair", repair), ("summaries", summaries)):
        if is_wished:
            refuse_for_exports(path, wish)
    store = Store.open(path, state, study) if repair else None
    if store is not None:
        _ = store.state  # complain of it before anything is done
    planned = plan_verification(path, state, study)
    checked = _check(planned, summaries=summaries, client=client, workers=workers)
    checked += check_audit(path, certificate, state, study)
    repaired = None if store is None else _repair(planned, store, checked)
    return Verification(str(path), planned.is_store, checked, repaired)


def check_audit(
    path: str | os.PathLike[str],
    certificate: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> CheckReport:
    """Hold a certificate against the data at ``path``, by default the one beside them; without any, check nothing."""
    chosen = certificate or find_certificate(Location(path))
    if chosen is None:
        return CheckReport()
    findings = check_certificate(RunFrame.open(path, state, study), chosen)
    return CheckReport(files=1, findings=tuple(findings))


def _check(planned: Inventory, *, summaries: bool, client: Client | None, workers: int | None) -> CheckReport:
    with NotebookBar("files", planned.files) as bar:

        def show(report: CheckReport) -> None:
            faults = len(report.faults)
            bar.update(report.files, counted(faults, "finding") if faults else "")

        threads = workers if client is None else None
        return run_verification(planned, values=summaries, client=client, threads=threads, on_progress=show)


def _repair(planned: Inventory, store: Store, checked: CheckReport) -> RepairReport:
    with NotebookBar("files moved", len(checked.faults)) as bar:
        return run_repair(planned, store, checked.faults, bar.update)
