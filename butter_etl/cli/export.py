"""`butter-etl export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import folders, format_names
from butter_etl.cli.options import (
    json_option,
    print_json,
    quiet_option,
    select_options,
    state_option,
    store_argument,
    study_options,
)
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from butter_etl.exchange import ExportOptions
    from butter_etl.partition import ExportReport
    from butter_etl.store import Store
    from butter_etl.studies import Choice


@click.command()
@store_argument
@click.argument("dest", shell_complete=folders)
@select_options(refusal="exports hold all repetitions")
@click.option("--all", "everything", is_flag=True, help="All sweeps of which there are runs, and the whole.")
@click.option("--runs/--no-runs", default=True, help="Export the run frames.")
@click.option("--summary/--no-summary", default=True, help="Export the summary frames.")
@click.option("--tar", is_flag=True, help="Make an archive of each summary.")
@click.option("--compact", is_flag=True, help="Gather run files into few large ones.")
@click.option(
    "--format",
    "form",
    default="parquet",
    metavar="NAME",
    help="Write runs, and nothing else, in a format of the study.",
    shell_complete=format_names,
)
@click.option(
    "--folder", "renamed", multiple=True, metavar="OLD=NEW", help="Another name for the folder OLD of a format."
)
@click.option("--file", "refiled", multiple=True, metavar="OLD=NEW", help="Another name for the file OLD of a format.")
@click.option("--as-measured", is_flag=True, help="Write also runs that such files do not say the truth of.")
@click.option(
    "--author",
    "authors",
    multiple=True,
    metavar="NAME",
    help="An author of the data: 'Family, Given <ORCID>'; may be given again.",
)
@click.option("--title", metavar="TEXT", help="What the data set is called.")
@click.option("--license", "license_id", metavar="SPDX", help="The licence of the data (CC-BY-4.0).")
@click.option("--doi", metavar="DOI", help="The DOI of the data set.")
@click.option("--allow-stale", is_flag=True, help="Export summaries that miss some runs.")
@state_option
@study_options
@quiet_option
@json_option
def export(
    store: str,
    dest: str,
    choice: Choice,
    everything: bool,
    runs: bool,
    summary: bool,
    tar: bool,
    compact: bool,
    form: str,
    renamed: tuple[str, ...],
    refiled: tuple[str, ...],
    as_measured: bool,
    authors: tuple[str, ...],
    title: str | None,
    license_id: str | None,
    doi: str | None,
    allow_stale: bool,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy a part of STORE to DEST, in the published layout.

    \b
    butter-etl export store dest --sweep primary --tar
    butter-etl export store dest --all --tar --author 'Lovelace, Ada'
    """
    from butter_etl.exchange import ExportOptions
    from butter_etl.store import Location, Store
    from butter_etl.studies import check_attribution

    if choice.is_empty and not everything:
        raise UsageError("name what to export: --sweep NAME, --spec FILE.yaml, --where COND or --all")
    attribution = check_attribution(authors, title, license_id, doi)
    options = ExportOptions(
        runs=runs,
        summary=summary,
        tar=tar,
        compact=compact,
        allow_stale=allow_stale,
        attribution=attribution,
        form=form,
        folders=_renamed("--folder", renamed),
        renamed=_renamed("--file", refiled),
        as_measured=as_measured,
    )
    report = export_with_progress(
        Store.open(store, state), dest, choice, options, everything=everything, quiet=quiet or as_json
    )
    if as_json:
        print_json(report)
        return
    from butter_etl.views import print_table

    print_table(("directory", "files", "experiments"), report.directories)
    for archive in report.archives:
        click.echo(f"archive: {Location(dest).address(archive)}")


def _renamed(option: str, pairs: tuple[str, ...]) -> dict[str, str]:
    """Return the new names by the old ones that an option tells; raise UsageError for what is no such pair."""
    for one in pairs:
        if "=" not in one:
            raise UsageError(f"{option} {one!r}: wants OLD=NEW")
    return {old: new for old, _, new in (one.partition("=") for one in pairs)}


def export_with_progress(
    store: Store, dest: str, choice: Choice, options: ExportOptions, *, everything: bool = False, quiet: bool = False
) -> ExportReport:
    """Plan and make an export, with its progress on the terminal."""
    from butter_etl.exchange import plan_export
    from butter_etl.partition import run_export
    from butter_etl.store import Location, Registry
    from butter_etl.views import ProgressLine

    planned = plan_export(store, Registry(store).select(choice), options, everything=everything)
    with ProgressLine("files", sum(len(one.files) for one in planned), quiet=quiet) as line:
        return run_export(planned, store, Location(dest), options, line.update)
