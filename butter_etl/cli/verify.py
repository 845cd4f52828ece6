"""`butter-etl verify`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby
from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import files, folders
from butter_etl.cli.options import (
    cluster_option,
    json_option,
    print_json,
    print_lines,
    quiet_option,
    state_option,
    study_options,
    workers_option,
)
from butter_etl.cli.waiting import shown_cluster
from butter_etl.errors import agreeing, counted

if TYPE_CHECKING:
    from butter_etl.upkeep import CheckReport, Finding, Inventory, RepairReport

#: At most this many experiments are named whose runs are missing after a repair; --json names all.
_NAMED = 10


@click.command()
@click.argument("path", shell_complete=folders)
@click.option("--summaries", is_flag=True, help="Recompute a sample of the summaries.")
@click.option("--repair", is_flag=True, help="Move what is wrong to quarantine (stores only).")
@click.option(
    "--certificate",
    metavar="FILE",
    help="An audit's certificate to be checked (else the one beside the data).",
    shell_complete=files,
)
@cluster_option
@workers_option
@state_option
@study_options
@quiet_option
@json_option
def verify(
    path: str,
    summaries: bool,
    repair: bool,
    certificate: str | None,
    cluster: str | None,
    workers: int | None,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check every file of PATH, a store or an export.

    Exits with 1 if anything is wrong. `butter-etl errors KIND` explains a
    kind of finding.

    \b
    butter-etl verify store
    butter-etl verify dest
    butter-etl verify store --repair
    """
    from butter_etl.store import Store
    from butter_etl.upkeep import check_audit, plan_verification, refuse_for_exports

    if repair or summaries:
        refuse_for_exports(path, "--repair" if repair else "--summaries")
    if repair:
        _ = Store.open(path, state).state  # complain of it before anything is done
    planned = plan_verification(path, state)
    report = _check_with_progress(planned, summaries, cluster, workers, quiet=quiet or as_json)
    report += check_audit(path, certificate, state)
    repaired = _repair_with_progress(planned, path, state, report, quiet=quiet or as_json) if repair else None
    if as_json:
        print_json({"checked": report, "repaired": repaired})
    else:
        _print_report(path, report, planned)
        if repaired is not None:
            print_lines(_repair_lines(path, repaired))
    return int(bool(repaired.left if repaired is not None else report.faults))


def _check_with_progress(
    planned: Inventory, summaries: bool, cluster: str | None, workers: int | None, *, quiet: bool
) -> CheckReport:
    from butter_etl.upkeep import run_verification
    from butter_etl.views import ProgressLine

    started = nullcontext(None) if cluster is None else shown_cluster(cluster, workers=workers, quiet=quiet)
    with started as client, ProgressLine("files", planned.files, quiet=quiet) as line:

        def show(report: CheckReport) -> None:
            faults = len(report.faults)
            line.update(report.files, counted(faults, "finding") if faults else "")

        threads = workers if client is None else None
        return run_verification(planned, values=summaries, client=client, threads=threads, on_progress=show)


def _repair_with_progress(
    planned: Inventory, path: str, state: str | None, report: CheckReport, *, quiet: bool
) -> RepairReport:
    from butter_etl.store import Store
    from butter_etl.upkeep import run_repair
    from butter_etl.views import ProgressLine

    faults = report.faults
    with ProgressLine("files moved", len(faults), quiet=quiet) as line:
        return run_repair(planned, Store.open(path, state), faults, line.update)


def _print_report(path: str, report: CheckReport, planned: Inventory) -> None:
    from butter_etl.store import Location
    from butter_etl.upkeep import remedy
    from butter_etl.views import print_table

    if faults := report.faults:
        groups = [(kind, list(own)) for kind, own in groupby(faults, key=lambda finding: finding.kind)]
        rows = [(kind, len(own), remedy(kind, planned.is_store)) for kind, own in groups]
        print_table(("finding", "count", "what to do"), rows)
        print_lines(_first_lines(groups))
        click.echo("`butter-etl errors FINDING` explains each; --json names every file", err=True)
    else:
        recomputed = f", {counted(report.summaries, 'summary')} recomputed" if report.summaries else ""
        what = f"{counted(report.files, 'file')} with {counted(report.rows, 'row')} ({report.bytes / 1e6:,.1f} MB)"
        are = agreeing(report.files, "is as it", "are as they")
        click.echo(f"{Location(path)}: {what} {are} should be{recomputed}")
    for kind, own in groupby(report.notes, key=lambda finding: finding.kind):
        members = list(own)
        more = f" and {len(members) - 1:,} more" if len(members) > 1 else ""
        click.echo(f"note: {kind}: {members[0].path}: {members[0].detail}{more}")


def _first_lines(groups: list[tuple[str, list[Finding]]]) -> Iterator[str]:
    """Yield the first finding of each kind, its path whole so that it can be copied."""
    for kind, members in groups:
        yield f"{kind}: {members[0].path}: {members[0].detail}"


def _repair_lines(path: str, report: RepairReport) -> Iterator[str]:
    """Yield what a repair did, in words."""
    from butter_etl.store import QUARANTINE, Location, ranges_text

    if report.moved:
        yield f"{counted(len(report.moved), 'file')} moved to {Location(path).address(QUARANTINE)}"
    if report.left:
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in report.left))
        yield f"{counted(len(report.left), 'finding')} cannot be mended by moving files: {kinds}"
    runs = sum(map(len, report.missing.values()))
    if not runs:
        return
    what = (
        f"{counted(runs, 'run')} of {counted(len(report.missing), 'experiment')} {agreeing(runs, 'is', 'are')} missing"
    )
    yield f"{what} now; `butter-etl train` makes {agreeing(runs, 'it', 'them')} again"
    for experiment_id, repetitions in list(report.missing.items())[:_NAMED]:
        yield f"  experiment {experiment_id}: repetitions {ranges_text(repetitions)}"
    if len(report.missing) > _NAMED:
        yield f"  and {len(report.missing) - _NAMED:,} more"
