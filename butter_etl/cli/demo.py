"""`butter-etl demo`: the whole way on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import folders
from butter_etl.cli.export import export_with_progress
from butter_etl.cli.options import INTERRUPTED, quiet_option, workers_option
from butter_etl.cli.summarize import summarize_with_progress
from butter_etl.cli.train import print_trained, train_with_progress, training_cluster

if TYPE_CHECKING:
    from butter_etl.partition import ExportReport
    from butter_etl.store import Store


#: The sweep of `butter-etl demo`.
DEMO_SPEC = Path(__file__).with_name("demo.yaml")


@click.command()
@click.argument("store", default="demo-store", shell_complete=folders)
@workers_option
@quiet_option
def demo(store: str, workers: int | None, quiet: bool) -> int:
    """Go the whole way on real data, on this machine.

    Train a small sweep on three data sets that scikit-learn carries,
    summarise it and export it, without a network. STORE is ./demo-store
    unless named.
    """
    from butter_etl.exchange import ExportOptions
    from butter_etl.studies import Choice, data_folder
    from butter_etl.summarize import plan_summaries
    from butter_etl.train_tasks import open_campaign, plan_campaign

    choice = Choice(specs=(str(DEMO_SPEC),))
    campaign = plan_campaign(store, choice, study="butter")  # whatever study is chosen
    opened, settings = open_campaign(campaign, data_folder(None))
    with training_cluster(None, campaign, workers, quiet=quiet) as client:
        report = train_with_progress(campaign, opened, settings, client, quiet=quiet)
        print_trained(campaign, report)
        if report.interrupted or report.failed:
            return INTERRUPTED if report.interrupted else 1
        summarize_with_progress(plan_summaries(opened), opened, client, quiet=quiet)
    dest = f"{store.rstrip('/')}-export"
    exported = export_with_progress(opened, dest, choice, ExportOptions(tar=True), quiet=quiet)
    _print_demo(opened, dest, exported)
    return 0


def _print_demo(store: Store, dest: str, exported: ExportReport) -> None:
    from butter_etl.views import best_losses, print_table

    click.echo(f"\nTrained into {store}, with the lowest median test loss over repetitions:")
    print_table(("data set", "experiments", "runs", "loss", "network"), best_losses(store.location.absolute))
    click.echo(f"Exported to {dest}:")
    print_table(("directory", "files", "experiments"), exported.directories)
    for archive in exported.archives:
        click.echo(f"archive: {dest}/{archive}")
    click.echo(
        "\nRead it from Python:\n\n"
        "  import butter_etl as be\n"
        f'  runs = be.read_runs("{store}", where=["dataset=digits"]).compute()\n'
        f'  summary = be.read_export("{dest}/demo_sweep_summary").compute()\n'
    )
