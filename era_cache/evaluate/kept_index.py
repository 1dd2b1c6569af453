"""The approximate index of a collection's documents: from the store, else built and kept there.

In: a store, a collection, its document encoder and vectors. Out: an index that is searched instead
of all documents, and what is to be told of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from era_cache.collection.records import Collection
from era_cache.errors import FormatError, StoreError
from era_cache.rank.approximate import RECIPE, ApproximateIndex
from era_cache.store.search_indexes import (
    IndexSource,
    find_search_index,
    read_search_index,
    rows_digest,
    write_search_index,
)
from era_cache.store.store import Store

if TYPE_CHECKING:
    from era_cache.rank.corpus import Corpus

__all__ = ["KEPT_FROM", "kept_index"]

KEPT_FROM = 20_000
"""Documents from which on an index takes longer to build than to read."""


def kept_index(
    store: Store, collection: Collection, encoder: str, corpus: Corpus, kind: str
) -> tuple[ApproximateIndex, list[str]]:
    """Open the index of a collection's documents, or build it.

    Args:
        store: where it is kept; what cannot be written there is not.
        collection: whose documents they are.
        encoder: fingerprint of what made their vectors.
        corpus: (n, d) float32 unit rows, in the order of the collection.
        kind: of ``rank.approximate.KINDS``.

    Returns:
        The index, and notes for whoever reads the results.

    Raises:
        InputError: there is no such kind, or no document.
    """
    n, dim = corpus.shape
    if n < KEPT_FROM:
        return ApproximateIndex(corpus, kind), []
    import faiss

    notes = []
    source = IndexSource(kind, rows_digest(collection.doc_keys), encoder, dim, 0, RECIPE)
    try:
        for name in find_search_index(store, source):
            try:
                stored = read_search_index(store.file(name))
                if stored.source == source:
                    return ApproximateIndex(corpus, kind, arrays=stored.arrays), []
            except FormatError as error:
                notes.append(f"An index was built anew, since {name} cannot be used: {error}")
    except StoreError as error:
        notes.append(f"An index was built anew, since none can be read: {error}")
    index = ApproximateIndex(corpus, kind, seed=source.seed)
    arrays = index.arrays()
    with contextlib.suppress(StoreError):  # a store that is only read
        write_search_index(store, source, arrays, f"faiss {faiss.__version__}")
    return index, notes
