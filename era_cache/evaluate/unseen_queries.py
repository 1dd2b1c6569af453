"""Which queries of a collection may measure several adapters at once.

In: adapter folders, a collection. Out: a split whose test queries none of them has seen, and what
must be told of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from era_cache.collection.records import Collection
from era_cache.collection.splits import Split
from era_cache.errors import FitError
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.fitting.check_against_store import split_since, told_since
from era_cache.store.store import Store

__all__ = ["unseen_queries"]


def unseen_queries(
    store: Store, fits: Sequence[tuple[Path, AdapterConfig]], collection: Collection
) -> tuple[Split, list[str]]:
    """Split a collection for some adapters, the first of which it is about.

    Args:
        store: holds what they were fitted on.
        fits: folders and what they say of themselves.
        collection: what is measured on.

    Returns:
        The split of the first, its test queries less those that another has seen; and notes.

    Raises:
        FitError: no test query is left.
        FingerprintError: another split, or the store cannot tell.
    """
    (folder, config), *others = fits
    split, notes = split_since(store, folder, config, collection), []
    mine = len(split.test)
    for where_from, made in others:
        tested = split_since(store, where_from, made, collection).test
        split = split._replace(test=split.test[np.isin(split.test, tested)])
    if told := told_since(store, collection, config):
        notes.append(f"{told}; measured on queries that it has not seen.")
    if len(split.test) < mine:
        notes.append(
            f"{collection.name}: {mine - len(split.test):,} of {mine:,} test queries left out, "
            "which another adapter measured here has seen."
        )
    if not len(split.test):
        raise FitError(_nothing_to_measure(collection))
    return split, notes


def _nothing_to_measure(collection: Collection) -> str:
    if (collection.qrels.relevance >= 1).any():
        return (
            f"{collection.name}: every judged query took part in fitting, so that nothing can be "
            "measured. Judge further queries and run the same era-embed again."
        )
    return (
        f"{collection.name}: no query has a positive judgement, so that nothing can be measured. "
        "Add judgements (qrels) to the collection's folder and run the same era-embed again; "
        "vectors that are there are not encoded anew."
    )
