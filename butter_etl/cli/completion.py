"""`butter-etl completion`: what Tab completes, and the script that teaches a shell to ask.

click asks the command itself at each Tab, so what is completed is what is installed. That must be quick: libraries are
imported where a value needs them, and nothing but local names is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

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


def _sweep_names(context: click.Context) -> list[str]:
    """Return the published sweeps, and those registered in the store that has been named, if it is a folder."""
    from butter_etl.studies import PUBLISHED

    # While an option waits for its value, click has not yet told apart what stands before it.
    store = context.params.get("store") or next(iter(context.args), "")
    registered = (Path(store) / "sweeps").glob("[!.]*.yaml") if store else ()
    return [*PUBLISHED, *sorted(path.stem for path in registered)]


def _conditions(_context: click.Context) -> list[str]:
    """Return whole conditions on keys whose values are names; of the other keys, the key."""
    from butter_etl.studies import CHOICES, DATASETS, WHERE_KEYS

    named = {"dataset": tuple(DATASETS), **CHOICES}
    whole = [f"{key}={value}" for key, values in named.items() for value in values]
    return [*whole, *(key for key in WHERE_KEYS if key not in named)]


def _parameters(_context: click.Context) -> Iterable[str]:
    from butter_etl.studies import WHERE_KEYS

    return WHERE_KEYS


def _series(_context: click.Context) -> Iterable[str]:
    from butter_etl.studies import HISTORY_OF

    return HISTORY_OF


def _site_kinds(_context: click.Context) -> Iterable[str]:
    from butter_etl.clusters import site_templates

    return sorted(site_templates())


files = _paths("file")
folders = _paths("dir")
sweep_names = among(_sweep_names)
conditions = among(_conditions)
parameters = among(_parameters)
series_names = among(_series)
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
