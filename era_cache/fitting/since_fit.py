"""What happened to a collection since an adapter was fitted on it, by keys.

In: an open store, the version that was fitted on and one of now. Out: which queries of now may
measure the adapter, and what was added or went, in numbers and words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import key_values, text_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.errors import FingerprintError
from era_cache.fitting.adapter_config import FittedOn, NamedCollection
from era_cache.store.store import Store
from era_cache.types import Array, IntArray

__all__ = [
    "Since",
    "fitted_version",
    "known_as",
    "named_now",
    "newer_split",
    "recorded_split",
    "seen_elsewhere",
    "since",
]


def _versioned(collection: NamedCollection) -> str:
    """Name and version, as the store finds it."""
    return f"{collection.name}-{collection.digest[:12]}"


def fitted_version(store: Store, one: FittedOn) -> Collection | None:
    """The version that was fitted on, perhaps renamed since; None where it is not in the store."""
    wanted = _versioned(one.collection)
    if one.collection.digest[:12] in store.versions(one.collection.name):
        return store.collection(wanted)
    return next((found for found in _renamed(store) if found.was == wanted), None)


def named_now(store: Store, name: str) -> str:
    """What a collection is called now: its own name, or the one that it was given since."""
    if name in store.collection_names():
        return name
    was = (one.name for one in _renamed(store) if _name_in(one.was) == name)
    return next(was, name)


def known_as(
    store: Store, collection: Collection, known: Mapping[str, FittedOn]
) -> FittedOn | None:
    """What an adapter was fitted on under this name or a former one; None where it was not."""
    if collection.name in known:
        return known[collection.name]
    was = (_name_in(one.was) for one in _renamed(store) if one.name == collection.name)
    return next((known[name] for name in was if name in known), None)


def _renamed(store: Store) -> Iterator[Collection]:
    """Collections that had another name when they were embedded."""
    names = (f"{name}-{version}" for name, version, _ in store.collection_paths())
    return (one for one in map(store.collection, names) if one.was)


def _name_in(was: str) -> str:
    return was.rpartition("-")[0]


def recorded_split(collection: Collection, one: FittedOn) -> Split:
    """The split of the version that was fitted on.

    Raises:
        FingerprintError: it is not the one that was recorded.
    """
    split = make_split(collection, one.split.config())
    if split.test_digest(collection) != one.split.test_digest:
        raise FingerprintError(
            f"{_versioned(one.collection)}: fitted with another split of it than the record of the "
            "adapter makes now; its test queries may be among the training queries. Fit again."
        )
    return split


def newer_split(store: Store, collection: Collection, known: Mapping[str, FittedOn]) -> Split:
    """Split another version of a collection by what the adapter has seen of it.

    Test queries are those that were test queries, or whose text was not there, and that have a
    positive judgement now. Texts, not ids, decide: queries may have been renamed. Only a new text
    under the id of a query that fitting saw is left out, too: it may be that query, mended.

    Args:
        store: must hold the version that was fitted on.
        collection: of another version.
        known: all collections that the adapter was fitted on, by name.

    Raises:
        FingerprintError: the store lacks a version that was fitted on.
    """
    one = known_as(store, collection, known)
    assert one is not None
    old = _needed(store, one, collection)
    then = recorded_split(old, one)
    texts, seen = text_keys(collection), text_keys(old)
    others = np.setdiff1d(np.arange(len(old.query_ids)), then.test)
    judged = np.unique(collection.qrels.query_rows[collection.qrels.relevance >= 1])
    fresh = ~np.isin(texts[judged], seen[others])
    fresh &= ~np.isin(texts[judged], seen_elsewhere(store, collection, known))
    # New words under the id of a query that fitting saw: an edited query, with its old answers.
    edited = {old.query_ids[row] for row in others.tolist()}
    new = ~np.isin(texts[judged], seen)
    fresh &= ~(
        new & np.array([collection.query_ids[row] in edited for row in judged.tolist()], bool)
    )
    train, validation = (
        np.flatnonzero(np.isin(texts, seen[rows])) for rows in (then.train, then.validation)
    )
    return Split(train, np.setdiff1d(validation, train), judged[fresh], then.config)


def seen_elsewhere(store: Store, collection: Collection, known: Mapping[str, FittedOn]) -> Array:
    """Texts of training and validation queries of the other collections (keys).

    Raises:
        FingerprintError: the store lacks a version that was fitted on.
    """
    found: list[Array] = [text_keys(collection)[:0]]
    for one in known.values():
        if one is not known_as(store, collection, known):
            fitted = _needed(store, one, collection)
            split = make_split(fitted, one.split.config())
            found.append(text_keys(fitted)[np.concatenate([split.train, split.validation])])
    return np.concatenate(found)


def _needed(store: Store, one: FittedOn, collection: Collection) -> Collection:
    fitted = fitted_version(store, one)
    if fitted is None:
        raise FingerprintError(
            f"The store lacks {_versioned(one.collection)}, which the adapter was fitted on, so "
            "that its training queries cannot be told among those of "
            f"{collection.name}-{collection.version}. Measure in a store that has both."
        )
    return fitted


class Since(NamedTuple):
    """Counts of what changed between two versions; judgements are pairs with a positive grade.

    A changed document counts as one added and one gone: its text is another.
    """

    documents: int
    fitted_documents: int
    documents_added: int
    documents_gone: int
    queries_added: int
    labels_added: int
    labels_gone: int

    def sentence(self, name: str) -> str:
        """What changed, for people; empty where nothing did."""
        changes = [
            (self.documents_added, "document", "newer"),
            (self.documents_gone, "document", "gone"),
            (self.queries_added, "query", "newer"),
            (self.labels_added, "label", "newer"),
            (self.labels_gone, "label", "withdrawn"),
        ]
        told = [f"{n:,} {_plural(what, n)} {how}" for n, what, how in changes if n]
        if not told:
            return ""
        return (
            f"{name}: {self.documents:,} documents, fitted on {self.fitted_documents:,} "
            f"({', '.join(told)})"
        )


def _plural(what: str, count: int) -> str:
    if count == 1:
        return what
    return "queries" if what == "query" else f"{what}s"


def since(old: Collection, new: Collection) -> Since:
    """Compare two versions of a collection by the keys of their texts."""
    documents = [key_values(one.doc_keys) for one in (old, new)]
    queries = [key_values(one.query_keys) for one in (old, new)]
    labels = [_labels(one) for one in (old, new)]
    return Since(
        len(new.doc_ids),
        len(old.doc_ids),
        *_changes(*documents),
        _changes(*queries)[0],
        *_changes(*labels),
    )


def _labels(collection: Collection) -> Array:
    """Each positive judgement as the keys of its texts, (m,) of 32 bytes."""
    rows: IntArray = np.flatnonzero(collection.qrels.relevance >= 1)
    pairs = [
        collection.query_keys[collection.qrels.query_rows[rows]],
        collection.doc_keys[collection.qrels.doc_rows[rows]],
    ]
    joined = np.ascontiguousarray(np.concatenate(pairs, axis=1))
    return joined.view(np.dtype((np.void, 32))).reshape(-1)


def _changes(old: Array, new: Array) -> tuple[int, int]:
    """How many different values came, and how many went."""
    old, new = np.unique(old), np.unique(new)
    kept = int(np.isin(new, old).sum())
    return len(new) - kept, len(old) - kept
