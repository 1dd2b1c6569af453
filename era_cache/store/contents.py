"""What a store holds, and what two stores have in common, as rows for a table.

In: open stores. Out: records of counts and names. Keys pass through in blocks, so
that memory is that of the key indexes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.records import Collection
from era_cache.store.key_index import KeyIndex
from era_cache.store.lists import find_lists, lists_of
from era_cache.store.names import LISTS_NAME, PAIR_NAME
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder

__all__ = [
    "CollectionRow",
    "CoverageRow",
    "Difference",
    "EncoderDifference",
    "EncoderRow",
    "Sides",
    "coverage",
    "diff",
    "list_collections",
    "list_encoders",
]


class EncoderRow(NamedTuple):
    """One role of an encoder."""

    encoder: str
    role: str
    fingerprint: str
    dim: int
    rows: int
    segments: int
    bytes: int
    prompt: str


class CollectionRow(NamedTuple):
    """One stored version of a collection."""

    collection: str
    version: str
    documents: int
    queries: int
    judgements: int
    splits: str
    embedded: str
    """When."""


class CoverageRow(NamedTuple):
    """How many texts of a collection one role of an encoder has, or how many queries have lists.

    Lists of another system have the role ``lists`` and no fingerprint.
    """

    collection: str
    encoder: str
    role: str
    fingerprint: str
    stored: int
    of: int
    prompt: str = ""


def list_encoders(store: Store) -> list[EncoderRow]:
    """One row for each encoder and role."""
    rows = []
    for encoder in store.encoders():
        spec, segments = encoder.spec, encoder.segments()
        count = sum(segment.rows for segment in segments)
        size = sum(segment.plain.size for segment in segments)
        names = spec.name, spec.role.value, spec.fingerprint[:12]
        rows.append(EncoderRow(*names, spec.dim, count, len(segments), size, spec.prompt()))
    return rows


def list_collections(store: Store) -> list[CollectionRow]:
    """One row for each stored version of each collection."""
    rows = []
    for name, version, _ in store.collection_paths():
        one = store.collection(f"{name}-{version}")
        counts = len(one.doc_ids), len(one.query_ids), len(one.qrels.doc_rows)
        rows.append(CollectionRow(name, version, *counts, ", ".join(one.splits), one.created[:19]))
    return rows


def coverage(store: Store, name: str | None = None) -> list[CoverageRow]:
    """How many rows of each collection each encoder has.

    Args:
        store: the store.
        name: of one collection; None is all.

    Raises:
        StoreError: there is no such collection.
    """
    names = [name] if name is not None else list(_collections(store))
    indexes = [(encoder.spec, encoder.index()) for encoder in store.encoders()]
    rows = []
    for collection in map(store.collection, names):
        label = f"{collection.name}-{collection.version}"
        for spec, index in indexes:
            keys = collection.keys_of(spec.role)
            have = int(np.count_nonzero(index.positions(keys) >= 0))
            about = spec.name, spec.role.value, spec.fingerprint[:12]
            rows.append(CoverageRow(label, *about, have, len(keys), spec.prompt()))
        rows += _lists(store, collection, label)
    return rows


def _lists(store: Store, collection: Collection, label: str) -> Iterator[CoverageRow]:
    """How many queries of a collection have a list, by the system that made it."""
    matches = map(LISTS_NAME.fullmatch, store.names("runs", LISTS_NAME))
    everyone = np.arange(len(collection.query_ids), dtype=np.int64)
    for name in sorted({match[1] for match in matches if match is not None}):
        found = find_lists(store, name, collection.doc_keys)
        missing = lists_of(found, collection, everyone)[1] if found else everyone
        have = len(everyone) - len(missing)
        yield CoverageRow(label, name, "lists", "", have, len(everyone))


class Sides(NamedTuple):
    """Names that only one of two stores has, and how many both have."""

    only_a: list[str]
    only_b: list[str]
    both: int

    @classmethod
    def of(cls, a: Iterable[str], b: Iterable[str]) -> Sides:
        """Compare two sets of names."""
        in_a, in_b = set(a), set(b)
        return cls(sorted(in_a - in_b), sorted(in_b - in_a), len(in_a & in_b))


class EncoderDifference(NamedTuple):
    """One fingerprint; ``rows_…`` count distinct keys."""

    encoder: str
    role: str
    fingerprint: str
    rows_only_a: int
    rows_only_b: int
    rows_both: int
    segments: Sides


class Difference(NamedTuple):
    """Two stores, ``a`` and ``b``."""

    a: str
    b: str
    encoders: list[EncoderDifference]
    collections: Sides
    pairs: Sides
    runs: Sides

    @property
    def same(self) -> bool:
        """Whether both have the same rows, collections, pairs and runs, in whatever segments."""
        rows = any(one.rows_only_a or one.rows_only_b for one in self.encoders)
        names = (*self.collections[:2], *self.pairs[:2], *self.runs[:2])
        return not rows and not any(names)


def diff(a: Store, b: Store) -> Difference:
    """Compare what two stores hold.

    Args:
        a: one store.
        b: another.

    Returns:
        Rows and segments by encoder, collections by name and version, pairs and runs by file name.

    Raises:
        FormatError: a store is damaged.
        StoreError: one cannot be read.
    """
    in_a = {encoder.spec.fingerprint: encoder for encoder in a.encoders()}
    in_b = {encoder.spec.fingerprint: encoder for encoder in b.encoders()}
    encoders = [
        _compare(in_a.get(fingerprint), in_b.get(fingerprint))
        for fingerprint in dict.fromkeys([*in_a, *in_b])
    ]
    return Difference(
        a=a.label,
        b=b.label,
        encoders=encoders,
        collections=Sides.of(_collections(a), _collections(b)),
        pairs=Sides.of(_pairs(a), _pairs(b)),
        runs=Sides.of(_runs(a), _runs(b)),
    )


def _collections(store: Store) -> Iterator[str]:
    return (f"{name}-{version}" for name, version, _ in store.collection_paths())


def _pairs(store: Store) -> list[str]:
    return [Path(name).stem for name in store.names("pairs", PAIR_NAME)]


def _runs(store: Store) -> list[str]:
    return [Path(name).stem for name in store.names("runs", LISTS_NAME)]


def _compare(a: StoredEncoder | None, b: StoredEncoder | None) -> EncoderDifference:
    spec = next(encoder.spec for encoder in (a, b) if encoder is not None)
    index_a, index_b = (one.index() if one is not None else KeyIndex([]) for one in (a, b))
    both, only_a = _count(index_a, index_b)
    _, only_b = _count(index_b, index_a)
    segments_a, segments_b = (
        [segment.path.stem for segment in index.segments] for index in (index_a, index_b)
    )
    return EncoderDifference(
        encoder=spec.name,
        role=spec.role.value,
        fingerprint=spec.fingerprint,
        rows_only_a=only_a,
        rows_only_b=only_b,
        rows_both=both,
        segments=Sides.of(segments_a, segments_b),
    )


def _count(index: KeyIndex, other: KeyIndex) -> tuple[int, int]:
    """How many distinct keys of ``index`` the other one has, and has not."""
    both = alone = 0
    for _, keys in index.distinct_rows():
        found = int(np.count_nonzero(other.positions(keys) >= 0))
        both, alone = both + found, alone + len(keys) - found
    return both, alone
