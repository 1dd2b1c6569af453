"""What an adapter searches in: collection, split and encoders, checked against each other.

In: a store and an adapter folder. Out: a ``Source``; no vector is read yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from era_cache.collection.records import Collection
from era_cache.collection.splits import Split
from era_cache.disk.shown import clean
from era_cache.errors import FingerprintError, InputError
from era_cache.fitting.adapter_folder import load_config
from era_cache.fitting.check_against_store import searched_in, split_since, told_since
from era_cache.fitting.encoder_pair import Encoders
from era_cache.fitting.first_stage import FirstStages, QueryLists
from era_cache.store.store import Store

__all__ = ["BASELINE", "Source", "default_candidates", "known_candidates", "open_source"]

BASELINE = "small"


class Source(NamedTuple):
    """What an adapter searches in: checked against each other, nothing of it read yet."""

    store: Store
    folder: Path
    collection: Collection
    split: Split | None
    """None where the store cannot tell what was trained on."""
    encoders: Encoders
    candidates: list[str]
    chosen: str
    lists: QueryLists
    """Of the first stage that candidates are joined with, and what made it, by its name."""
    first_stage: dict[str, Any]
    since: str = ""
    """What changed in the collection since the adapter was fitted, in words."""

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt of either side has a place for an instruction."""
        sides = (self.encoders.query, self.encoders.small_query)
        return any("{instruction}" in side.spec.template for side in sides)


def open_source(store: Store, folder: Path, collection_name: str | None = None) -> Source:
    """Find the collection and the encoders that an adapter was fitted on.

    Args:
        store: holds them.
        folder: the adapter.
        collection_name: where the adapter was fitted on several, or another of the same encoders.

    Raises:
        FingerprintError: the store's vectors are not the adapter's, or it was fitted on arrays.
        EraError: whatever else is wrong.
    """
    config = load_config(folder)
    collection, encoders = searched_in(store, folder, config, collection_name)
    split = None
    with contextlib.suppress(FingerprintError):  # what was fitted on is not here: parts are unknown
        split = split_since(store, folder, config, collection)
    joined = [one.fusion.run for one in config.candidates.values() if one.fusion is not None]
    lists = FirstStages(joined[0] if joined else "").of(store, collection)
    names = list(config.candidates)
    return Source(
        store,
        folder,
        collection,
        split,
        encoders,
        names,
        config.chosen,
        lists,
        config.first_stage,
        told_since(store, collection, config),
    )


def default_candidates(source: Source) -> list[str]:
    """What is compared unless something else is asked for: small, aligned and the chosen one."""
    wanted = dict.fromkeys((BASELINE, "aligned", source.chosen))
    return [name for name in wanted if name in source.candidates]


def known_candidates(names: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Names without repeats, if all of them are candidates."""
    unknown = [name for name in names if name not in candidates]
    if unknown or not names:
        asked = f"'{clean(unknown[0])[:40]}'" if unknown else "nothing"
        have = ", ".join(clean(name) for name in candidates)
        raise InputError(f"Candidates: {asked} was asked for; there are {have}.")
    return list(dict.fromkeys(names))
