"""`butter-etl cluster`: site files, made and tried."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import files, site_kinds
from butter_etl.cli.messages import Commands
from butter_etl.cli.options import json_option, print_json, study_options
from butter_etl.cli.waiting import shown_cluster
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from butter_etl.studies import Study


@click.group(cls=Commands)
def cluster() -> None:
    """Make a site file, and try it.

    \b
    butter-etl cluster init slurm my-site.yaml
    butter-etl cluster check my-site.yaml
    """


@cluster.command()
@click.argument("kind", shell_complete=site_kinds)
@click.argument("file", required=False, shell_complete=files)
def init(kind: str, file: str | None) -> None:
    """Write a site file of a KIND, to be changed for your site.

    KIND is slurm, slurm-gpu, pbs, lsf, sge, htcondor or oar. FILE is
    KIND.yaml unless named; a file that is there is left alone.

    \b
    butter-etl cluster init slurm
    butter-etl cluster init slurm-gpu my-gpus.yaml
    """
    from butter_etl.clusters import site_templates
    from butter_etl.errors import suggestion
    from butter_etl.store import write_whole

    templates = site_templates()
    if kind not in templates:
        raise UsageError(
            f"unknown kind of site {kind!r}{suggestion(kind, sorted(templates))}; known: {', '.join(sorted(templates))}"
        )
    target = Path(file or f"{kind}.yaml")
    if target.is_symlink() or target.exists():
        raise UsageError(f"{target}: is there already; name another file")
    write_whole(target, templates[kind].read_bytes())
    click.echo(f"wrote {target}; change it for your site, then: butter-etl cluster check {target}")


@cluster.command()
@click.argument("file", shell_complete=files)
@study_options
@json_option
def check(file: str, as_json: bool) -> int:
    """Start one job as FILE says, and show what its worker is like.

    The job runs the prologue and the smallest training that there is. Exits with 1 if something
    would keep a campaign from working. With --study, its worker imports that too.

    \b
    butter-etl cluster check my-site.yaml
    """
    from butter_etl.clusters import load_site, probe_workers, require_folders, site_findings
    from butter_etl.studies import chosen_study, default_study
    from butter_etl.views import print_table

    study = chosen_study()
    site, facts = load_site(file), None
    findings = site_findings(site)
    if not findings:
        require_folders(site)
        if not as_json:
            click.echo("waiting for one worker to come up", err=True)
        with shown_cluster(file, workers=1, quiet=as_json) as client:
            task = _smallest_task(study or default_study())
            facts, findings = probe_workers(client, site, task, study.name if study else None)
    if as_json:
        print_json({"worker": facts, "findings": findings})
    else:
        print_table(("", "state", "found"), [(one.subject, one.state, one.said) for one in findings])
    return int(any(one.state == "wrong" for one in findings))


def _smallest_task(study: Study) -> Callable[[], None]:
    """Return the smallest training of a study; other processes look the study up when they run it."""
    reference, folder = study.reference
    engines = next(iter(study.trainer.engines.values()), ())
    return partial(prepare, reference, folder, engines[0] if engines else None)


def prepare(reference: str, folder: str | None, engine: str | None) -> None:
    """Import a study, and make its engine ready. Raises StudyError if it cannot be imported."""
    from butter_etl.studies import load_study

    trainer = load_study(reference, folder).trainer
    if engine is not None:
        trainer.prepare(engine)
