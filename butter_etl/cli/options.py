"""Options and ways of printing that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from butter_etl.cli.completion import conditions, files, folders, studies, sweep_names
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from butter_etl.studies import Choice

#: What a command returns that was stopped by a signal; the exit code is the signal's.
INTERRUPTED = 130
F = TypeVar("F", bound=Callable[..., Any])


def select_options(
    *,
    repetitions: str = "Runs wanted of each experiment, in all.",
    first_repetition: str = "Count repetitions from K.",
    refusal: str | None = None,
) -> Callable[[F], F]:
    """Add the options of SELECT to a command: which experiments, and how many runs of each.

    ``repetitions`` and ``first_repetition`` are what the command's help says of these. A command that has no use for
    them names its ``refusal``: then the help says nothing of them, and whoever gives one all the same is told why.
    """
    is_hidden = refusal is not None
    options = [
        click.option(
            "--sweep",
            "sweeps",
            multiple=True,
            metavar="NAME",
            help="A sweep: a published one, or one of STORE.",
            shell_complete=sweep_names,
        ),
        click.option(
            "--spec", "specs", multiple=True, metavar="FILE", help="The file of a custom sweep.", shell_complete=files
        ),
        click.option(
            "--where",
            multiple=True,
            metavar="COND",
            help="A condition, like 'depth>4' or 'dataset=wine,mnist'.",
            shell_complete=conditions,
        ),
        click.option("--repetitions", type=int, metavar="N", help=repetitions, hidden=is_hidden),
        click.option("--first-repetition", type=int, metavar="K", help=first_repetition, hidden=is_hidden),
    ]

    def add(command: F) -> F:
        wrapped: Any = _with_choice(command, refusal)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return add


def _with_choice(command: Callable[..., Any], refusal: str | None) -> Callable[..., Any]:
    """Return a command that is given the options of SELECT as one ``choice``."""

    @wraps(command)
    def with_choice(
        *args: Any,
        sweeps: tuple[str, ...],
        specs: tuple[str, ...],
        where: tuple[str, ...],
        repetitions: int | None,
        first_repetition: int | None,
        **rest: Any,
    ) -> Any:
        from butter_etl.studies import Choice

        if refusal is not None and (repetitions is not None or first_repetition is not None):
            raise UsageError(f"{refusal}; leave --repetitions and --first-repetition out")
        choice = Choice(
            sweeps=sweeps, specs=specs, where=where, repetitions=repetitions, first_repetition=first_repetition or 0
        )
        return command(*args, choice=choice, **rest)

    return with_choice


def like_option(command: F) -> F:
    """Add the option that chooses the twin of a run, in place of SELECT."""

    @wraps(command)
    def with_like(*args: Any, like: str | None, choice: Choice, **rest: Any) -> Any:
        if like is None:
            return command(*args, choice=choice, **rest)
        from butter_etl.train_tasks import choosing_like

        with choosing_like(rest["store"], like, choice, rest.get("state")) as chosen:
            return command(*args, choice=chosen, **rest)

    option = click.option("--like", metavar="RUN_ID", help="Train what a run of STORE has the parameters of.")
    return option(with_like)  # type: ignore[return-value]


def aim_options(command: F) -> F:
    """Add the options that say how sure medians are to be, in place of a number of repetitions, as one ``asked``."""

    @wraps(command)
    def with_asked(
        *args: Any,
        precision: tuple[str, ...],
        max_repetitions: int | None,
        budget: float | None,
        approximate: bool,
        **rest: Any,
    ) -> Any:
        from butter_etl.train_tasks import Asked

        return command(*args, asked=Asked(precision, max_repetitions, budget, approximate), **rest)

    options = [
        click.option(
            "--precision",
            multiple=True,
            metavar="GOAL",
            help="Train until medians are so sure: 'test_loss_median: 2% at 95%'.",
        ),
        click.option(
            "--max-repetitions", type=int, metavar="N", help="Of each experiment at most, for --precision (100)."
        ),
        click.option("--budget", type=float, metavar="H", help="Core-hours at most, for --precision."),
        click.option("--approximate", is_flag=True, help="Allow goals on means, which hold about."),
    ]
    wrapped: Any = with_asked
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


store_argument = click.argument("store", shell_complete=folders)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
state_option = click.option(
    "--state",
    metavar="DIR",
    help="Where locks and failures are, if not in STORE; a bucket needs one.",
    shell_complete=folders,
)
cluster_option = click.option(
    "--cluster", metavar="FILE", help="A site file of a queue; without one, this machine.", shell_complete=files
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="How many jobs of a queue, or cores of this machine."
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
data_option = click.option(
    "--data-dir",
    metavar="DIR",
    help="Where data sets of PMLB are (else BUTTER_ETL_DATA, else the cache).",
    shell_complete=folders,
)


_study_option = click.option(
    "--study",
    metavar="REF",
    help="A study of your own: package.module:NAME (else BUTTER_ETL_STUDY).",
    shell_complete=studies,
)
_study_path_option = click.option(
    "--study-path",
    metavar="DIR",
    help="The folder of its module (else BUTTER_ETL_STUDY_PATH).",
    shell_complete=folders,
)


def study_options(command: F) -> F:
    """Add the options by which a user names a study of one's own; it is chosen while the command runs."""

    @wraps(command)
    def with_study(*args: Any, study: str | None, study_path: str | None, **rest: Any) -> Any:
        if study is None and study_path is None:
            return command(*args, **rest)
        from butter_etl.studies import choosing

        with choosing(study, study_path):
            if study is not None:
                _refuse_other_study(rest.get("store") or rest.get("path"))
            return command(*args, **rest)

    wrapped: Any = _study_option(_study_path_option(with_study))
    return wrapped  # type: ignore[no-any-return]


def _refuse_other_study(path: str | None) -> None:
    """Raise StudyError if there is a store of another study than the one that is chosen; what else is there may be."""
    from butter_etl.store import Store
    from butter_etl.studies import chosen_study
    from butter_etl.upkeep import is_store

    if path is not None and is_store(path):
        Store.open(path, study=chosen_study())


def print_json(value: object) -> None:
    """Print a value of plain types or msgspec structs as indented JSON."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_lines(lines: Iterable[str]) -> None:
    """Print each line."""
    for line in lines:
        click.echo(line)
