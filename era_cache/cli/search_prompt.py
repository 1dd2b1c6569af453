"""The prompt of ``era-search``, and how an answer is printed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    echo_json,
    note,
    say,
)
from era_cache.errors import EraError, InputError

if TYPE_CHECKING:
    import numpy as np

    from era_cache.serve.answer import Answer
    from era_cache.serve.engine import Lookup

__all__ = ["converse", "print_answer"]

HELP = """Type a query, or one of these:
  :id ID     a query of the collection, by its stored vectors
  :random    a judged query that the adapter has not seen
  :help      this
  :quit      end; an empty line and Ctrl-D do so, too
A query that begins with a colon gets a space before it."""


def print_answer(answer: Answer, as_json: bool) -> None:
    """Print an answer in the terminal's width, or as JSON."""
    from era_cache.serve.answer import to_json
    from era_cache.serve.show import render

    if as_json:
        echo_json(to_json(answer))
        return
    encoding = sys.stdout.encoding or "ascii"
    unicode = encoding.lower().replace("-", "") in ("utf8", "utf16", "utf32")
    shown = render(
        answer,
        width=shutil.get_terminal_size((100, 24)).columns,
        ascii_only=not unicode,
        emphasise=_bold if _takes_style() else str,
    )
    say(shown, styled=True)


def _bold(line: str) -> str:
    return click.style(line, bold=True)


def _takes_style() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def converse(lookup: Lookup, options: dict[str, Any]) -> None:
    """Answer queries, one line each, until there is no more or an empty one."""
    import numpy as np

    generator = np.random.default_rng(options["seed"])
    at_terminal = sys.stdin.isatty()
    if lookup.models:
        note("loading the models …")
        lookup.warm_up()
    if at_terminal:
        note("Type a query; :help says what else.")
    with contextlib.suppress(KeyboardInterrupt):
        for line in _lines(at_terminal):
            if not line.strip() or line.strip() == ":quit":
                return
            try:
                _respond(lookup, line, generator, options)
            except EraError as error:
                note(f"Error: {error}")
    if at_terminal:
        note("")


def _lines(at_terminal: bool) -> Iterator[str]:
    """What is typed, with editing and history at a terminal."""
    if at_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - input() uses it
    while True:
        try:
            yield input("query> " if at_terminal else "")
        except EOFError:
            return
        except UnicodeDecodeError:
            note("Error: That line is not valid text in the terminal's encoding.")


def _respond(
    lookup: Lookup, line: str, generator: np.random.Generator, options: dict[str, Any]
) -> None:
    depth = options["depth"]
    word, _, rest = line.rstrip().partition(" ")
    if not word.startswith(":"):
        answer = lookup.find(line.strip(), options["instruction"], depth=depth)
    elif word == ":id":
        answer = lookup.find_id(rest.strip(), depth=depth)
    elif word == ":random":
        answer = lookup.find_id(lookup.random_id(generator), depth=depth)
    elif word == ":help":
        say(HELP)
        return
    else:
        raise InputError(
            f"'{word[:20]}' is no command. :help lists them; put a space before a query that "
            "begins with a colon."
        )
    print_answer(answer, as_json=False)
    say()
