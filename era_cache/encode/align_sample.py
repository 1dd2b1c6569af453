"""Which documents the large model encodes: at random, or where unlabelled queries look.

In: keys of the documents, small vectors of documents and queries. Out: an order of the documents,
of which any prefix is a sample, so that a larger sample contains the smaller.

A document's weight grows with how often and how high queries retrieve it (small model, the first
fifty, 1 / rank). How far weights differ from chance is decided by what the queries show of the
corpus: where they retrieve nearly all of it, as in most test collections, the sample is as good as
random; where they come back to a corner of a large index, it is drawn from that corner.
docs/fitting.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from era_cache.collection.keys import alignment_order, key_halves, row_keys
from era_cache.collection.records import Collection, TextCollection
from era_cache.errors import InputError
from era_cache.store.store import Store
from era_cache.types import Array, FloatArray, IntArray, Keys, Role

if TYPE_CHECKING:
    from era_cache.rank.corpus import Corpus

__all__ = [
    "free_queries",
    "judged_since",
    "retrieval_weights",
    "rule_of",
    "weighted_order",
]

_DEPTH = 50
_BLOCK_BYTES = 1 << 28
"""Scores held at a time: so many that documents are read in long stretches."""
_MOST_QUERIES = 20_000
"""Queries that are searched; more would tell the same."""


def weighted_order(doc_keys: Keys, seed: int, weights: FloatArray) -> IntArray:
    """Order documents such that any prefix is a weighted sample without replacement.

    P. S. Efraimidis and P. G. Spirakis, Weighted random sampling with a reservoir, Information
    Processing Letters 97, 2006: by u^(1 / weight), u uniform. Here u follows from a document's text
    and the seed; with equal weights the order is that of ``alignment_order``.

    Args:
        doc_keys: (n, 16) uint8.
        seed: chooses u.
        weights: (n,) float64, above 0.

    Returns:
        Row numbers of the distinct documents, (m,) int64.
    """
    rows = alignment_order(doc_keys, seed)
    mask = np.random.default_rng(seed).integers(0, 256, 16, dtype=np.uint8)
    first, _ = key_halves(doc_keys[rows] ^ mask)
    uniform = (first.astype(np.float64) + 0.5) / 2.0**64
    # ln(1 - u) is negative, and nearest 0 for the keys that a random order takes first.
    return rows[np.argsort(-np.log1p(-uniform) / weights[rows], kind="stable")]


def retrieval_weights(queries: FloatArray, documents: Corpus, seed: int) -> FloatArray:
    """How likely each document is to be drawn, from what queries retrieve.

    With s the share of what one half of the queries retrieves that the other half retrieves, too,
    and c the share of the corpus that all of them retrieve: s parts of the popularity to the power
    1 - c, and 1 - s parts of chance. Few queries (small s) say little, and queries that come
    everywhere (c near 1) do not choose.

    Args:
        queries: (q, d) float32, by the small model.
        documents: (n, d) unit rows, by the small model; gone through in blocks.
        seed: of the halves.

    Returns:
        (n,) float64, of mean 1.
    """
    import torch

    from era_cache.rank.search import search

    order = np.random.default_rng(seed).permutation(len(queries))[:_MOST_QUERIES]
    if len(order) < 2:
        return np.ones(len(documents))
    depth = min(_DEPTH, len(documents))
    asked = torch.nn.functional.normalize(torch.from_numpy(queries[order]), dim=1)
    found = search(asked, documents, depth, block_bytes=_BLOCK_BYTES).doc_rows
    credit = np.tile(1.0 / np.arange(1, depth + 1), len(found))
    popularity = np.bincount(found.reshape(-1), credit, minlength=len(documents))
    half = len(order) // 2
    known = np.zeros(len(documents), dtype=bool)
    known[found[:half].reshape(-1)] = True
    seen = float(known[found[half:].reshape(-1)].mean())
    covered = float((popularity > 0).mean())
    flattened = np.zeros(len(documents))
    flattened[popularity > 0] = popularity[popularity > 0] ** (1.0 - covered)
    weights: FloatArray = seen * flattened / flattened.mean() + (1.0 - seen)
    # Where both halves retrieve the same, chance has no part; every document keeps a little.
    return np.maximum(weights, 1e-6)


def free_queries(collection: Collection, log: TextCollection | None) -> tuple[IntArray, IntArray]:
    """Queries that may choose documents: none that a test could ask.

    Args:
        collection: queries of it that have a positive judgement may be test queries, whatever the
            split; they and their equals take no part.
        log: further queries, if any.

    Returns:
        Row numbers of the collection's queries and of the log's, int64.
    """

    def words(keys: Keys) -> Array:
        return np.ascontiguousarray(keys).view("V16").reshape(-1)

    judged = np.unique(collection.qrels.query_rows[collection.qrels.relevance >= 1])
    taken = words(collection.query_text_keys)[judged]
    own = np.flatnonzero(~np.isin(words(collection.query_text_keys), taken))
    if log is None:
        return own, own[:0]
    logged = words(row_keys(Role.QUERY, log.query_texts))
    return own, np.flatnonzero(~np.isin(logged, taken))


def rule_of(asked: str, collection: Collection, counts: Sequence[int]) -> str:
    """Which rule applies: the one asked for, else ``retrieved`` where queries are free to choose.

    Raises:
        InputError: ``retrieved`` is asked for and no query may choose.
    """
    if asked == "retrieved" and not sum(counts):
        raise InputError(
            f"{collection.name}: --align-sample retrieved needs queries that are no test queries, "
            "and every query here is judged or there is none. Give --query-log FILE, keep unjudged "
            "ones with --all-queries, or use --align-sample random."
        )
    if asked:
        return asked
    return "retrieved" if sum(counts) else "random"


def judged_since(store: Store, collection: Collection) -> bool:
    """Whether the collection has judgements, and a version that is stored has none.

    Its queries may then have chosen documents before anyone knew that they would be test queries.
    """
    if not (collection.qrels.relevance >= 1).any():
        return False
    paths = [path for name, _, path in store.collection_paths() if name == collection.name]
    return not all(map(store.is_judged, paths))
