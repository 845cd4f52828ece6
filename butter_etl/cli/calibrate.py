"""`butter-etl calibrate`."""

from __future__ import annotations

import click

from butter_etl.cli.options import json_option, print_json


@click.command()
@json_option
def calibrate(as_json: bool) -> None:
    """Measure what training costs on this machine.

    For better estimates. Takes about half a minute an engine. Without it, plans use the rates of
    an ordinary server core. Results never depend on it.
    """
    from butter_etl.errors import writing
    from butter_etl.store import require_writable
    from butter_etl.studies import DEFAULT_RATES, measure_rates, require_rates_path, save_rates
    from butter_etl.views import print_table

    for engine in DEFAULT_RATES:  # complain of it before anything is measured
        path = require_rates_path(engine)
        with writing(path):
            require_writable(path.parent)
    measured = {engine: measure_rates(engine) for engine in DEFAULT_RATES}
    files = [save_rates(engine, rates) for engine, rates in measured.items()]
    if as_json:
        print_json(measured)
        return
    rows = [
        (name, f"{one.flops / 1e9:.1f}", *(f"{1e6 * seconds:.3f}" for seconds in
         (one.step_seconds, one.layer_seconds, one.metric_seconds)))
        for name, one in measured.items()
    ]  # fmt: skip
    print_table(("engine", "GFLOP/s", "µs a batch", "µs a layer", "µs an output"), rows)
    for file in files:
        click.echo(f"kept in {file}")
