"""The directive ``command-pages``: the help of every command of `butter-etl`, as the terminal shows it."""

from collections.abc import Iterator

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from butter_etl.cli.group import cli

#: The columns that help is set in.
WIDTH = 80


def help_pages(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """The full name and the help of a command, then those of its subcommands."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=WIDTH, **command.context_settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for subcommand in command.list_commands(context):
            yield from help_pages(command.commands[subcommand], subcommand, context)


class CommandPages(SphinxDirective):
    """A section for each command; links lead to the command's name with hyphens for spaces."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx where the directive stands."""
        sections: list[nodes.Node] = []
        for name, text in help_pages(cli, "butter-etl"):
            section = nodes.section("", nodes.title("", name), ids=[name.replace(" ", "-")], names=[name])
            section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("command-pages", CommandPages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
