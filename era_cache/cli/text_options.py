"""Options of all commands that read a collection's texts, and the reading itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from era_cache.cli.common import note

__all__ = ["all_queries", "document_text", "name_option", "read_texts", "skip_bad_rows"]

name_option = click.option(
    "--name", help="Name of the collection.  [default: from meta.json, else the folder]"
)
document_text = click.option(
    "--document-text",
    metavar="TEMPLATE",
    default="{title} {text}",
    show_default=True,
    help="How title and text become a document; use what your index was made with.",
)
all_queries = click.option(
    "--all-queries", is_flag=True, help="Also take queries that no judgement names."
)
skip_bad_rows = click.option(
    "--skip-bad-rows", is_flag=True, help="Leave out and count rows that would be errors."
)


def read_texts(collection: Path, options: dict[str, Any]) -> Any:
    """Read a collection in BEIR layout, and tell what was left out. Raises ``InputError``."""
    from era_cache.collection.beir import read_beir

    texts = read_beir(
        collection,
        name=options["name"],
        document_template=options["document_text"],
        all_queries=options["all_queries"],
        skip_bad_rows=options["skip_bad_rows"],
    )
    for message in texts.dropped.messages():
        note(f"{texts.name}: {message}.")
    return texts
