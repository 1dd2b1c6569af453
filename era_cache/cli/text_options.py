"""Options of all commands that read a collection's texts, and the reading itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from era_cache.cli.common import note

if TYPE_CHECKING:
    from era_cache.collection.records import TextCollection

__all__ = ["Command", "collection_options", "how_to_read", "read_texts"]

Command = TypeVar("Command", bound=Callable[..., Any])


def how_to_read(command: Command) -> Command:
    """Add the options that say in which form a collection is, and what a document is."""
    options = (
        click.option(
            "--reader",
            metavar="NAME",
            default="beir",
            show_default=True,
            help="What reads the collection: beir for folders in BEIR layout; installed packages "
            "may bring others.",
        ),
        click.option(
            "--document-text",
            metavar="TEMPLATE",
            default="{title} {text}",
            show_default=True,
            help="How title and text become a document; use what your index was made with.",
        ),
        click.option(
            "--skip-bad-rows", is_flag=True, help="Leave out and count rows that would be errors."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def collection_options(command: Command) -> Command:
    """Add all options of a collection that is read whole."""
    name = click.option(
        "--name", help="Name of the collection.  [default: from meta.json, else the folder]"
    )
    all_queries = click.option(
        "--all-queries", is_flag=True, help="Also take queries that no judgement names."
    )
    return name(all_queries(how_to_read(command)))


def read_texts(collection: Path, options: dict[str, Any]) -> TextCollection:
    """Read a collection, and tell what was left out. Raises ``InputError``."""
    from era_cache.collection.readers import READERS, Reader

    read: Reader = READERS.load(options["reader"])
    texts = read(
        collection,
        name=options["name"],
        document_template=options["document_text"],
        all_queries=options["all_queries"],
        skip_bad_rows=options["skip_bad_rows"],
    )
    for message in texts.dropped.messages():
        note(f"{texts.name}: {message}.")
    return texts
