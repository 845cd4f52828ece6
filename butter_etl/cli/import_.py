"""`butter-etl import`."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from butter_etl.cli.completion import files, format_names, profile_names
from butter_etl.cli.messages import warn
from butter_etl.cli.options import (
    cluster_option,
    json_option,
    print_json,
    print_lines,
    quiet_option,
    state_option,
    store_argument,
    study_options,
    workers_option,
)
from butter_etl.cli.waiting import shown_cluster
from butter_etl.errors import SourceError, agreeing, counted

if TYPE_CHECKING:
    from butter_etl.exchange import ImportReport
    from butter_etl.views import ProgressLine

#: Letters of a line that says whose runs were brought in.
_LINE: Final = 100


@click.command("import")
@click.argument("source", shell_complete=files)
@store_argument
@click.option(
    "--profile",
    default="seed",
    metavar="NAME",
    help="SOURCE's schema (seed); butter has also oedi-2022-08.",
    shell_complete=profile_names,
)
@click.option(
    "--prefer", type=click.Choice(["store", "source"]), help="Which run to keep where two of one run_id differ."
)
@click.option(
    "--format",
    "form",
    metavar="NAME",
    help="SOURCE's format: parquet or one of the study's (else its files tell).",
    shell_complete=format_names,
)
@click.option("--source-title", "title", metavar="TEXT", help="What SOURCE is called.")
@click.option(
    "--source-author",
    "authors",
    multiple=True,
    metavar="NAME",
    help="An author of SOURCE: 'Family, Given <ORCID>'; may be given again.",
)
@click.option("--source-license", "license_id", metavar="SPDX", help="The licence of SOURCE.")
@click.option("--source-doi", "doi", metavar="DOI", help="The DOI of SOURCE.")
@click.option("--source-citation", "citation", metavar="TEXT", help="How SOURCE wants to be cited.")
@cluster_option
@workers_option
@state_option
@study_options
@quiet_option
@json_option
def import_runs(
    source: str,
    store: str,
    profile: str,
    prefer: Literal["store", "source"] | None,
    title: str | None,
    authors: tuple[str, ...],
    license_id: str | None,
    doi: str | None,
    citation: str | None,
    form: str | None,
    cluster: str | None,
    workers: int | None,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Bring the runs of SOURCE into STORE, each once.

    SOURCE is a store, an export, or Parquet files of runs in any layout. It
    can be files in another format of the study, and archives of them.
    What it says of itself (authors, licence, DOI), or the options say of it,
    exports of these runs say too.

    \b
    butter-etl import other-store store
    butter-etl import published store --profile oedi-2022-08
    """
    from butter_etl.clusters import start_cluster
    from butter_etl.exchange import find_format, find_profile, run_import, study_of
    from butter_etl.studies import check_origin, source_note

    origin = check_origin(authors, title, license_id, doi, citation)
    study = study_of(store, state, None)
    find_profile(study, profile)  # complain of it before a cluster is started
    find_format(study, form)
    quiet = quiet or as_json
    start = start_cluster if cluster is None else partial(shown_cluster, cluster, quiet=quiet)
    with start(workers=workers) as client, _Steps(quiet=quiet) as steps:
        report = run_import(
            source,
            store,
            profile=profile,
            prefer=prefer,
            state=state,
            client=client,
            on_progress=steps.update,
            origin=origin,
            form=form,
        )
    if as_json:
        print_json(report)
        _fail_if_refused(report)
        return
    for warning in report.warnings:
        warn(warning)
    for line in report.refused:
        warn(f"refused: {line}")
    replaced = f", {report.replaced:,} replaced (the old files are in quarantine/)" if report.replaced else ""
    there = f"{report.present:,} {agreeing(report.present, 'was', 'were')} there"
    landed = f"{counted(report.landed, 'run')} landed, {there}{replaced}"
    click.echo(f"{counted(report.experiments, 'experiment')}: {landed}")
    if report.source is not None:
        said = f"recorded as of {source_note(study.card, report.source)}"
        print_lines(textwrap.wrap(said, _LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
    _fail_if_refused(report)


def _fail_if_refused(report: ImportReport) -> None:
    """Raise SourceError if some files were refused: the exit code says that not all runs are there."""
    if report.refused:
        count = counted(len(report.refused), "file")
        raise SourceError(f"{count} {agreeing(len(report.refused), 'was', 'were')} refused; the others were brought in")


class _Steps:
    """A line of progress for each step of an import."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._step = ""
        self._line: ProgressLine | None = None

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._line is not None:
            self._line.__exit__(*error)

    def update(self, step: str, done: int, total: int) -> None:
        """Show that ``done`` of the ``total`` parts of a step are done."""
        from butter_etl.views import ProgressLine

        if step != self._step or self._line is None:
            self.__exit__(None, None, None)
            self._step, self._line = step, ProgressLine(step, total, quiet=self._quiet)
            self._line.__enter__()
        self._line.update(done)
