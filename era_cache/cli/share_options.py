"""Options for encoding one collection on many machines, and the end of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import all_of, note
from era_cache.cli.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_cache.collection.records import Collection
    from era_cache.config import EmbedConfig
    from era_cache.encode.embed import EncodedRows
    from era_cache.encode.shard import Lack
    from era_cache.store.store import Store

__all__ = ["compacted", "in_shares", "shard_of", "share_options"]

WHOLE = (1, 1)

share_options = all_of(
    click.option(
        "--shard",
        metavar="I/N",
        help="Encode only share I of N, from 1: any scheduler can run all N, on as many machines, "
        "into one store. The one that ends last finishes the collection.",
    ),
    click.option(
        "--finish",
        is_flag=True,
        help="After all shares: check that none is missing, encode what depends on all of them, "
        "and compact.",
    ),
)


def shard_of(options: dict[str, Any]) -> tuple[int, int]:
    """The share to encode. Raises ``InputError``, ``UsageError``."""
    if not options["shard"]:
        return WHOLE
    from era_cache.encode.shard import parse_shard

    for name in ("finish", "bm25"):
        if options[name]:
            raise click.UsageError(
                f"--{name} needs all documents: give it without --shard, once all shares are done."
            )
    return parse_shard(options["shard"])


Encoded = tuple["Collection", "list[EncodedRows]"]


def in_shares(
    store: Store,
    config: EmbedConfig,
    encode: Callable[[EmbedConfig], Encoded],
    lacks: Callable[[Collection], list[Lack]],
) -> tuple[Collection, list[EncodedRows], list[Lack]]:
    """Encode a share, and finish the collection where it was the last one.

    Args:
        store: where the vectors go.
        config: which share; of the whole collection, all of it is encoded.
        encode: encodes what a configuration asks for.
        lacks: what no share has encoded yet.

    Returns:
        The stored collection, reports, and what other shares still lack.
    """
    stored, reports = encode(config)
    if config.shard == WHOLE:
        return stored, reports, []
    number, count = config.shard
    if left := lacks(stored):
        note(
            f"Share {number} of {count} is done; others still lack {'; '.join(map(str, left))}. "
            "The one that ends last finishes the collection; era-embed --finish checks it."
        )
        return stored, reports, left
    note(f"Share {number} of {count} is done, and all others are: finishing the collection.")
    stored, more = encode(replace(config, shard=WHOLE))
    compacted(store)
    return stored, [*reports, *(one for one in more if one.encoded)], []


def compacted(store: Store) -> int:
    """Merge what many processes wrote; gives how many segments there are fewer."""
    from era_cache.store.compact import compact

    with progress() as bars:
        done = compact(store, progress=bars)
    return sum(one.segments_before - one.segments_after for one in done)
