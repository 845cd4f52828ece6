"""`butter-etl completion`: what Tab completes, and the script that teaches a shell to ask.

click asks the command itself at each Tab, so what is completed is what is installed. That must be quick: libraries are
imported where a value needs them, and nothing but local names is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from butter_etl.errors import StudyError

if TYPE_CHECKING:
    from butter_etl.studies import Study

SHELLS: Final[dict[str, type[ShellComplete]]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
#: The environment variable by which the scripts of click ask the command.
_VARIABLE: Final = "_BUTTER_ETL_COMPLETE"

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def among(words: Callable[[click.Context], Iterable[str]]) -> Completer:
    """Return a completer to those of some words that go on from what has been typed."""

    def complete(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        return [CompletionItem(word) for word in words(context) if word.startswith(begun)]

    return complete


def _paths(kind: str) -> Completer:
    """Return a completer that leaves it to the shell to complete names of files, or of folders alone."""
    return lambda _context, _parameter, begun: [CompletionItem(begun, type=kind)]


def of_study(words: Callable[[Study], Iterable[str]]) -> Completer:
    """Return a completer to words of the study of the store that has been named, else of the one of new stores."""

    def complete(context: click.Context) -> Iterable[str]:
        with suppress(StudyError):
            return words(_study(context))
        return ()

    return among(complete)


def _store(context: click.Context) -> str:
    """Return the store that has been named; an empty text for none."""
    # While an option waits for its value, click has not yet told apart what stands before it.
    return context.params.get("store") or next(iter(context.args), "")


def _study(context: click.Context) -> Study:
    from butter_etl.studies import choosing, default_study, find_study

    store = _store(context)
    with choosing(context.params.get("study"), context.params.get("study_path")):
        with suppress(OSError, ValueError, KeyError):
            return find_study(json.loads((Path(store) / "store.json").read_bytes())["study"], store)
        return default_study()


def _sweep_names(context: click.Context) -> list[str]:
    """Return the published sweeps, and those registered in the store that has been named, if it is a folder."""
    published: Iterable[str] = ()
    with suppress(StudyError):
        published = _study(context).sweeps
    store = _store(context)
    registered = (Path(store) / "sweeps").glob("[!.]*.yaml") if store else ()
    return [*published, *sorted(path.stem for path in registered)]


def _conditions(study: Study) -> list[str]:
    """Return whole conditions on keys whose values are names; of the other keys, the key."""
    named = study.reader.choices
    whole = [f"{key}={value}" for key, values in named.items() for value in values]
    return [*whole, *(key for key in study.where_keys if key not in named)]


def known_engines(study: Study) -> list[str]:
    """Return what `--engine` can name."""
    return ["auto", *dict.fromkeys(name for names in study.trainer.engines.values() for name in names)]


def _studies(_context: click.Context) -> Iterable[str]:
    from butter_etl.studies import installed

    return sorted(installed())


def _site_kinds(_context: click.Context) -> Iterable[str]:
    from butter_etl.clusters import site_templates

    return sorted(site_templates())


files = _paths("file")
folders = _paths("dir")
sweep_names = among(_sweep_names)
conditions = of_study(_conditions)
parameters = of_study(lambda study: study.group_keys)
series_names = of_study(lambda study: study.reduction.histories)
engine_names = of_study(known_engines)
profile_names = of_study(lambda study: study.profiles)
kind_names = of_study(lambda study: ("curves", "map", "runs", *study.figures.drawings))
format_names = of_study(lambda study: ("parquet", *study.formats))
studies = among(_studies)
site_kinds = among(_site_kinds)


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes butter-etl.

    \b
    eval "$(butter-etl completion bash)"              in ~/.bashrc
    eval "$(butter-etl completion zsh)"               in ~/.zshrc
    butter-etl completion fish | source               in config.fish
    """
    script = SHELLS[shell](context.find_root().command, {}, "butter-etl", _VARIABLE).source()
    click.echo(script, nl=False)
