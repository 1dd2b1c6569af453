"""Options of all commands that read a collection's texts, and the reading itself."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import (
    all_of,
    note,
)
from era_cache.cli.progress import progress

if TYPE_CHECKING:
    from era_cache.collection.assemble import ReaderSettings
    from era_cache.collection.readers import Given
    from era_cache.collection.records import TextCollection

__all__ = [
    "collection_options",
    "each_collection",
    "how_to_read",
    "plain_options",
    "read_log",
    "read_texts",
]


_LARGE_BYTES = 100_000_000
how_to_read = all_of(
    click.option(
        "--reader",
        metavar="NAME",
        help="What reads the collection: beir, hub, zip, pairs, qa, mair, mteb, irds, or what an "
        "installed package brings.  [default: by READER: before the name, else by its look]",
    ),
    click.option(
        "--read",
        "reader_options",
        metavar="NAME=VALUE",
        multiple=True,
        help="An option of the reader (docs/collections.md); may be repeated.",
    ),
    click.option(
        "--document-text",
        metavar="TEMPLATE",
        default="{title} {text}",
        help="How title and text become a document; use what your index was made with.",
    ),
    click.option(
        "--skip-bad-rows", is_flag=True, help="Leave out and count rows that would be errors."
    ),
    click.option(
        "--skip-lost-judgements",
        is_flag=True,
        help="Leave out and count judgements of documents and queries that are not there, such as "
        "deleted ones.",
    ),
)
"""Options that say in which form a collection is, and what a document is."""


collection_options = all_of(
    click.option(
        "--name", help="Name of the collection.  [default: from meta.json, else the folder]"
    ),
    click.option("--all-queries", is_flag=True, help="Also take queries that no judgement names."),
    click.option(
        "--ignore-identical-ids/--keep-identical-ids",
        default=None,
        help="Whether a query's own document, that of the same id, is no result for it: for "
        "queries that are documents.  [default: from meta.json, else kept]",
    ),
    how_to_read,
)
"""All options of a collection that is read whole."""


plain_options = all_of(
    click.option(
        "--role",
        "plain_role",
        type=click.Choice(["document", "query"]),
        help="COLLECTION is one file of texts of this role: JSON lines, .csv, .tsv, .parquet, or "
        "one text a line.",
    ),
    click.option(
        "--column",
        metavar="NAME",
        default="text",
        help="With --role and --query-log: the field or column of the texts.",
    ),
)
"""Options of a plain file of texts."""


def read_log(options: dict[str, Any]) -> TextCollection | None:
    """The log of queries, if one was given. Raises ``InputError``."""
    if options["query_log"] is None:
        return None
    from era_cache.collection.plain_texts import read_plain_texts
    from era_cache.types import Role

    log = read_plain_texts(
        options["query_log"],
        Role.QUERY,
        column=options["column"],
        skip_bad_rows=options["skip_bad_rows"],
    )
    for message in log.dropped.messages():
        note(f"{options['query_log']}: {message}.")
    return log


def each_collection(collection: Path, options: dict[str, Any]) -> Sequence[Path | Given]:
    """All collections that a name stands for. Raises ``InputError``."""
    if options["plain_role"]:
        return [collection]
    found = _given(collection, options).each()
    if options["name"] and len(found) > 1:
        raise click.UsageError(f"--name names one collection, but {len(found)} are read.")
    return found


def _given(collection: Path, options: dict[str, Any]) -> Given:
    from era_cache.collection.readers import find_reader

    return find_reader(str(collection), options["reader"], options["reader_options"])


def _settings(options: dict[str, Any]) -> ReaderSettings:
    """What the options want of a reader."""
    from era_cache.collection.assemble import ReaderSettings

    return ReaderSettings(
        name=options["name"],
        document_template=options["document_text"],
        all_queries=options["all_queries"],
        skip_bad_rows=options["skip_bad_rows"],
        skip_lost_judgements=options["skip_lost_judgements"],
    )


def read_texts(collection: Path | Given, options: dict[str, Any]) -> TextCollection:
    """Read a collection, and tell what was left out. Raises ``InputError``."""
    _mention_size(collection if isinstance(collection, Path) else Path(collection.what))
    if isinstance(collection, Path) and options.get("plain_role"):
        from era_cache.collection.plain_texts import read_plain_texts
        from era_cache.types import Role

        texts = read_plain_texts(
            collection,
            Role(options["plain_role"]),
            column=options["column"],
            name=options["name"],
            document_template=options["document_text"],
            skip_bad_rows=options["skip_bad_rows"],
        )
    else:
        given = _given(collection, options) if isinstance(collection, Path) else collection
        texts = given.read(_settings(options))
    for message in texts.dropped.messages():
        note(f"{texts.name}: {message}.")
    if "ignore_identical_ids" not in options:
        return texts
    chosen = options["ignore_identical_ids"]
    if chosen is not None:
        return texts._replace(ignore_identical_ids=chosen)
    if not texts.ignore_identical_ids:
        _mention_own_documents(texts)
    return texts


def _mention_size(path: Path) -> None:
    """Say that a large collection is being read, which takes some seconds."""
    with contextlib.suppress(OSError):
        files = path.glob("*.jsonl*") if path.is_dir() else [path]
        size = sum(one.stat().st_size for one in files)
        if size > _LARGE_BYTES:
            with progress() as bars:
                bars(f"reading {path.name} ({size / 1e6:,.0f} MB)", 0, 0)


def _mention_own_documents(texts: TextCollection) -> None:
    """Say that queries seem to be documents: each would find itself first, as a miss."""
    from era_cache.collection.packed import RowIndex

    rows = RowIndex(texts.doc_ids)
    asked = zip(texts.query_ids, texts.query_texts, strict=True)
    # A document has its title in front, a query may have none.
    own = [(text, texts.doc_texts[rows[one]]) for one, text in asked if one in rows]
    same = sum(
        document.split()[-len(words) :] == words
        for text, document in own
        for words in [text.split()]
    )
    numbered = all(one.isdecimal() for one in texts.query_ids)
    if own and (same or not numbered):  # numbers agree by chance
        note(
            f"{texts.name}: {len(own):,} of {len(texts.query_ids):,} queries have the id of a "
            f"document, {same:,} of them its text. If queries are documents here (as in ArguAna "
            "or Quora), each finds itself first, and measures are far too low: add "
            '--ignore-identical-ids, or "ignore_identical_ids": true to meta.json. If the ids '
            "agree by chance, add --keep-identical-ids."
        )
