"""``python -m era_cache embed …`` is ``era-embed …``, where the commands are not on the path."""

from __future__ import annotations

import importlib
import sys

import click

from era_cache.cli.common import version_option

__all__ = ["COMMANDS", "command", "main"]

COMMANDS = {
    "embed": "embed",
    "fit": "fit",
    "eval": "evaluate",
    "search": "search",
    "serve": "serve",
    "export": "export",
    "store": "store",
}
"""What one types after ``era-``, and the module of ``era_cache.cli`` that does it."""


def command(name: str) -> click.Command:
    """The command of a name."""
    found: click.Command = importlib.import_module(f"era_cache.cli.{COMMANDS[name]}").main
    return found


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", metavar="COMMAND", type=click.Choice(list(COMMANDS)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@version_option
def main(name: str, arguments: tuple[str, ...]) -> None:
    """Run a COMMAND: embed, fit, eval, search, serve, export or store.

    Each tells its options with --help.
    """
    sys.argv[:] = [f"era-{name}", *arguments]  # a command may write or run itself anew
    command(name).main(list(arguments), f"python -m era_cache {name}")


if __name__ == "__main__":
    sys.exit(main())
