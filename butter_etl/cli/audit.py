"""`butter-etl audit`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import click

from butter_etl.cli.completion import engine_names, folders
from butter_etl.cli.messages import log_level, warn
from butter_etl.cli.options import (
    cluster_option,
    data_option,
    json_option,
    print_json,
    print_lines,
    quiet_option,
    state_option,
    study_options,
    workers_option,
)
from butter_etl.cli.replay import cluster_of
from butter_etl.errors import agreeing, counted, duration

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.upkeep import AuditPlan, Certificate, Compared, Equipment, Replayed


@click.command()
@click.argument("path", shell_complete=folders)
@click.option("--sample", metavar="SHARE", required=True, help="How many runs are drawn: 0.1%, or a number.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="What they are drawn by (else by chance).")
@click.option(
    "--repetitions", type=int, metavar="N", help="Runs of ours that others are held against (enough to tell)."
)
@click.option("--level", type=float, default=0.05, metavar="P", help="Probability of any false alarm (0.05).")
@click.option("--out", metavar="DIR", help="Where the certificate goes (PATH/certificate).", shell_complete=folders)
@click.option("--engine", metavar="NAME", help="What trains (else what a row names).", shell_complete=engine_names)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where it trains (else where a row says).")
@cluster_option
@workers_option
@data_option
@state_option
@study_options
@quiet_option
@json_option
def audit(
    path: str,
    sample: str,
    seed: int | None,
    repetitions: int | None,
    level: float,
    out: str | None,
    engine: str | None,
    device: Literal["cpu", "cuda"] | None,
    cluster: str | None,
    workers: int | None,
    data_dir: str | None,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Audit a random sample of the runs of PATH.

    PATH is a store or an export. Runs of ours are replayed; those of other makers are ranked among runs
    of ours. Leaves a certificate, for machines and for people. Exits with 1
    if any run is at fault.

    \b
    butter-etl audit demo-store --sample 2 --seed 7
    butter-etl audit demo-store --sample 25% --out certificate
    """
    from butter_etl.studies import data_folder
    from butter_etl.upkeep import Equipment, RunFrame, certificate_folder, plan_audit, write_certificate

    quiet = quiet or as_json
    frame = RunFrame.open(path, state)
    folder = certificate_folder(frame, out)  # complain of it before anything is done
    with cluster_of(cluster, workers, quiet=quiet) as client:
        planned = plan_audit(frame, sample, seed, repetitions=repetitions, level=level, client=client)
        equipment = Equipment(str(data_folder(data_dir)), engine, device)
        _tell(planned, equipment, quiet=quiet)
        certificate = _audit_with_progress(planned, equipment, client, workers, quiet=quiet)
    files = write_certificate(certificate, folder)
    if as_json:
        print_json(certificate)
    else:
        _print_certificate(certificate)
        click.echo(f"certificate in {out or f'{path}/certificate'}: {files[0].name}; for people {files[1].name}")
    return int(not certificate.is_sound)


def _tell(planned: AuditPlan, equipment: Equipment, *, quiet: bool) -> None:
    """Say what was drawn, and what comparing will cost; warn where it cannot find anything."""
    likening = planned.likening
    if not quiet:
        drawn = len(planned.drawn.run_ids)
        what = f"{counted(drawn, 'run')} of {len(planned.named):,} drawn by seed {planned.drawn.seed}"
        click.echo(f"{what}; {len(planned.own):,} {agreeing(len(planned.own), 'is', 'are')} replayed", err=True)
    if likening.runs and not quiet:
        seconds = likening.core_seconds(planned.frame.study, equipment)
        of = f"{likening.repetitions:,} of each of {counted(len(likening.ones), 'experiment')}"
        cost = f"about {duration(seconds)} of CPU time"
        click.echo(f"training {counted(likening.runs, 'run')} to compare with, {of}: {cost}", err=True)
    if planned.is_blind:
        compared = sum(one.one is not None for one in likening.strangers)
        warn(
            f"among {counted(likening.repetitions, 'repetition')} no p-value is below {planned.least_p:.2g}: none of "
            f"{counted(compared, 'run')} can be found incompatible at {planned.level:g}; take more --repetitions"
        )


def _audit_with_progress(
    planned: AuditPlan, equipment: Equipment, client: Client | None, workers: int | None, *, quiet: bool
) -> Certificate:
    from butter_etl.upkeep import audit_workers, run_audit
    from butter_etl.views import ProgressLine

    with (
        log_level("WARNING" if quiet else "INFO"),
        audit_workers(planned, equipment, client, workers) as on,
        ProgressLine("runs", planned.runs, quiet=quiet) as line,
    ):
        return run_audit(planned, equipment, on, workers if on is None else None, line.update)


def _print_certificate(certificate: Certificate) -> None:
    from butter_etl.upkeep import LIKENESSES, OUTCOMES
    from butter_etl.views import print_table

    meanings = {**OUTCOMES, **LIKENESSES}
    print_table(
        ("outcome", "runs", "what it means"),
        [(name, number, meanings[name]) for name, number in certificate.counts.items()],
    )
    print_lines(_lines(certificate.faults))
    faults, runs = len(certificate.faults), counted(len(certificate.runs), "run")
    found = f"{faults:,} of {runs} {agreeing(faults, 'is', 'are')} at fault"
    click.echo(f"{found if faults else f'nothing is wrong with {runs}'}, drawn by seed {certificate.drawn.seed}")


def _lines(faults: Iterable[Replayed | Compared]) -> Iterator[str]:
    for one in faults:
        yield f"{one.run_id}: {one.outcome}: {one.experiment}: {one.detail}"
