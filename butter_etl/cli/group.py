"""The ``butter-etl`` command: parse, call, print, set the exit code.

Exit codes: 0 done, 1 something failed and was reported, 2 bad usage, 128 and the number of a signal that stopped it.
Stages are imported by the commands that need them: ``--help`` answers at once and summarising never loads torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from butter_etl import __version__
from butter_etl.cli.audit import audit
from butter_etl.cli.calibrate import calibrate
from butter_etl.cli.cluster import cluster
from butter_etl.cli.compare import compare
from butter_etl.cli.completion import completion
from butter_etl.cli.curves import curves
from butter_etl.cli.demo import demo
from butter_etl.cli.drop import drop
from butter_etl.cli.errors import errors
from butter_etl.cli.export import export
from butter_etl.cli.import_ import import_runs
from butter_etl.cli.messages import Commands, log_shown, usage_error
from butter_etl.cli.options import INTERRUPTED
from butter_etl.cli.output import final_code, secure_streams
from butter_etl.cli.plot import plot
from butter_etl.cli.replay import replay
from butter_etl.cli.report import report
from butter_etl.cli.status import status
from butter_etl.cli.summarize import summarize
from butter_etl.cli.sweeps import sweeps
from butter_etl.cli.train import plan, train
from butter_etl.cli.verify import verify
from butter_etl.clusters import INTERRUPTS, Stop
from butter_etl.errors import WAYS_OUT, ButterError, ExtraError, refused

#: The modules that each extra of the package brings; commands that do not need them work without.
EXTRAS = {"train": ("torch", "pmlb", "requests", "sklearn"), "plot": ("matplotlib",)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error of ours is one line on standard error and its exit code.

    Signals stay taken over once one has come: what is closed as the interpreter ends must not be disturbed either.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    secure_streams()
    stop = Stop()
    stop.listen(*INTERRUPTS)
    try:
        sys.exit(_run(arguments, stop))
    finally:
        if stop.number is None:
            stop.leave()


def _run(arguments: list[str], stop: Stop) -> int:
    """Run the command and return its exit code."""
    try:
        code = _invoke(arguments)
        return _stopped(stop) if code == INTERRUPTED else final_code(code)
    except click.exceptions.NoArgsIsHelpError as page:
        page.show()
        return page.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _stopped(stop)
    except (click.ClickException, ModuleNotFoundError, ButterError, OSError) as error:
        named = _named(error)
        if named is None or "--debug" in arguments:
            raise
        click.echo(f"butter-etl: {named} [{named.kind}]", err=True)
        return named.exit_code


def _invoke(arguments: list[str]) -> int:
    try:
        with log_shown():
            code = cli.main(args=arguments, prog_name="butter-etl", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    return code if isinstance(code, int) else 0


def _stopped(stop: Stop) -> int:
    """Say how to go on; return the exit code by which a shell knows the signal."""
    click.echo(f"{stop.words}; the same command goes on from here", err=True)
    return stop.exit_code


def _named(error: Exception) -> ButterError | None:
    """Return the error of ours that says what an error says; None for a module that no extra of ours brings."""
    if isinstance(error, click.ClickException):
        return usage_error(error)
    if isinstance(error, ModuleNotFoundError):
        extra = next((extra for extra, names in EXTRAS.items() if error.name in names), None)
        install = f"in a checkout of the package: pip install '.[{extra}]' -c constraints.txt"
        return ExtraError(f"{error.name} is not installed; {install}") if extra is not None else None
    if isinstance(error, OSError):
        what = f"{error.filename or 'a file or folder'}: cannot be used"
        return refused(error, what) if error.errno in WAYS_OUT else None
    return error if isinstance(error, ButterError) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="butter-etl")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train sweeps of fully connected networks, summarise and publish them.

    A STORE is a folder (or a URL) that holds one study. Every command can be
    stopped at any moment and started again: it goes on where it was.

    \b
    butter-etl demo                              the whole way on real data
    butter-etl train store --spec quick.yaml     train what is missing
    butter-etl summarize store                   statistics over repetitions
    butter-etl export store dest --sweep quick   the published layout
    """


for _command in (
    demo,
    sweeps,
    plan,
    train,
    status,
    summarize,
    export,
    import_runs,
    plot,
    curves,
    compare,
    report,
    cluster,
    verify,
    replay,
    audit,
    drop,
    calibrate,
    errors,
    completion,
):
    cli.add_command(_command)
