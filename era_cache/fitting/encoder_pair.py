"""The two encoders of a collection: queries by the large one, documents by the small one.

In: a store and a collection. Out: the four sides of the pair that era-embed recorded, or that is
the only one the store has all rows of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.records import Collection
from era_cache.errors import FormatError, StoreError
from era_cache.store.encoder_record import StoredSpec
from era_cache.store.key_index import KeyIndex
from era_cache.store.records import mixed_up
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import Keys, Role

__all__ = ["Encoders", "resolve_encoders", "told_pair"]


class Encoders(NamedTuple):
    """The four sides of a pair, by fingerprint; ``align`` is the large model on documents."""

    query: StoredEncoder
    small_query: StoredEncoder
    document: StoredEncoder
    align: StoredEncoder

    def record(self) -> dict[str, Any]:
        """Names, fingerprints and spaces (JSON)."""
        return {
            side: {
                "name": encoder.spec.name,
                "fingerprint": encoder.spec.fingerprint,
                "space": encoder.spec.space,
                "template": encoder.spec.template,
                "dim": encoder.spec.dim,
            }
            for side, encoder in self._asdict().items()
        }

    def models(self) -> dict[str, StoredSpec]:
        """View of an adapter to the encoder of its queries."""
        return {"large": self.query.spec, "small": self.small_query.spec}


class _Coverage:
    """How many of some keys each encoder has; indexes are built once."""

    def __init__(self, store: Store) -> None:
        self.encoders = store.encoders()
        self._indexes: dict[str, KeyIndex] = {}

    def index(self, encoder: StoredEncoder) -> KeyIndex:
        fingerprint = encoder.spec.fingerprint
        if fingerprint not in self._indexes:
            self._indexes[fingerprint] = encoder.index()
        return self._indexes[fingerprint]

    def count(self, encoder: StoredEncoder, keys: Keys) -> int:
        return int(np.count_nonzero(self.index(encoder).positions(keys) >= 0))

    def of_role(self, role: Role) -> list[StoredEncoder]:
        return [encoder for encoder in self.encoders if encoder.spec.role is role]


def resolve_encoders(
    store: Store, collection: Collection, *, query: str | None = None, document: str | None = None
) -> Encoders:
    """Find the encoders of a pair: as era-embed recorded it, else by what the store holds.

    Args:
        store: the store.
        collection: what must be encoded.
        query: name or start of a fingerprint of the large side (query role, or its space); None if
            there is only one choice.
        document: the same for the small side (document role, or its space).

    Raises:
        StoreError: nothing fits, or several do; the message lists them.
    """
    recorded = _recorded_pair(store, collection, query, document)
    if recorded is not None:
        return recorded
    coverage = _Coverage(store)
    if not coverage.encoders:
        raise StoreError(f"{store.label}: no vectors yet. Run era-embed first.")
    documents = _matching(coverage.of_role(Role.DOCUMENT), document)
    complete = [
        e for e in documents if coverage.count(e, collection.doc_keys) == len(collection.doc_keys)
    ]
    if not complete:
        raise StoreError(_incomplete(store, coverage, collection, documents, document))
    queries = _matching(coverage.of_role(Role.QUERY), query)
    full = len(collection.query_keys)
    queries = [e for e in queries if coverage.count(e, collection.query_keys) == full]
    pairs = [
        pair
        for d in complete
        for q in queries
        for pair in _complete_pair(coverage, collection, q, d)
    ]
    if len(pairs) > 1:
        # Two different models say more than a model paired with itself.
        pairs = [p for p in pairs if p.query.spec.space != p.document.spec.space] or pairs
    if len(pairs) != 1:
        raise StoreError(_unclear(store, collection, pairs, coverage))
    return pairs[0]


def _recorded_pair(
    store: Store, collection: Collection, query: str | None, document: str | None
) -> Encoders | None:
    """The pair that the collection was last embedded for, among those asked for."""
    found = []
    for sides in store.pairs(collection):
        encoders = {side: store.find_encoder(fingerprint) for side, fingerprint in sides.items()}
        chosen = ((encoders["query"], query), (encoders["document"], document))
        if not any(wanted and not (e and _matching([e], wanted)) for e, wanted in chosen):
            found.append(encoders)
    named = {
        tuple(e.spec.fingerprint if e else "" for e in (one["query"], one["document"]))
        for one in found
    }
    if len(named) > 1 and (query or document):
        listed = "; ".join(_sides_text(one) for one in found)
        raise StoreError(
            f"{store.label}: {collection.name} was embedded for several pairs that match: "
            f"{listed}. Name both sides, by the start of a fingerprint where names are equal."
        )
    for encoders in found[:1]:
        missing = [side for side, encoder in encoders.items() if encoder is None]
        if missing:
            raise StoreError(
                f"{store.label}: {collection.name} was last embedded for a pair of encoders, of "
                f"which nothing is stored for: {', '.join(missing)}. Run era-embed again to "
                "complete it, or name another pair with --query-encoder and --doc-encoder."
            )
        pair = Encoders(**{side: e for side, e in encoders.items() if e is not None})
        if mixed_up({side: encoder.spec for side, encoder in pair._asdict().items()}):
            raise FormatError(
                f"{store.label}: the record of the pair {pair.query.spec.label()} and "
                f"{pair.document.spec.label()} mixes up roles or models. Remove the folder 'pairs' "
                "and run era-embed again."
            )
        return pair
    return None


def told_pair(store: Store, collection: Collection, encoders: Encoders) -> str:
    """Which pair is used, and which others the collection was embedded for, in words."""
    used = encoders._asdict()
    text = _sides_text(used)
    fingerprints = {side: one.spec.fingerprint for side, one in used.items()}
    others = [
        _sides_text({side: store.find_encoder(fingerprint) for side, fingerprint in sides.items()})
        for sides in store.pairs(collection)
        if sides != fingerprints
    ]
    if others:
        text += (
            f"; {collection.name} was also embedded for: {'; '.join(others)} (--query-encoder and "
            "--doc-encoder choose)"
        )
    return text


def _sides_text(sides: Mapping[Any, StoredEncoder | None]) -> str:
    shown = {"queries": sides["query"], "documents": sides["document"]}
    small = sides["small_query"]
    if small is not None and small.spec.prompt() and small is not sides["query"]:
        shown["small queries"] = small
    return ", ".join(
        f"{what} by {'nothing stored' if one is None else one.spec.label()}"
        for what, one in shown.items()
    )


def _matching(encoders: list[StoredEncoder], wanted: str | None) -> list[StoredEncoder]:
    if wanted is None:
        return encoders
    return [
        e
        for e in encoders
        if e.spec.name == wanted
        or (len(wanted) >= 4 and e.spec.fingerprint.startswith(wanted))
        or (len(wanted) >= 4 and e.spec.space.startswith(wanted))
    ]


def _complete_pair(
    coverage: _Coverage, collection: Collection, query: StoredEncoder, document: StoredEncoder
) -> list[Encoders]:
    """All ways to complete a large query side and a small document side; usually one."""
    smalls = [
        e
        for e in coverage.of_role(Role.QUERY)
        if e.spec.space == document.spec.space
        and coverage.count(e, collection.query_keys) == len(collection.query_keys)
    ]
    aligns = [
        e
        for e in coverage.of_role(Role.DOCUMENT)
        if e.spec.space == query.spec.space and coverage.count(e, collection.doc_keys) > 0
    ]
    if query.spec.space == document.spec.space:
        smalls = [query]
        aligns = [document]
    return [Encoders(query, small, document, align) for small in smalls for align in aligns]


def _incomplete(
    store: Store,
    coverage: _Coverage,
    collection: Collection,
    documents: list[StoredEncoder],
    wanted: str | None,
) -> str:
    have = [
        f"{e.spec.label()}: {coverage.count(e, collection.doc_keys)} of {len(collection.doc_keys)}"
        for e in documents or coverage.of_role(Role.DOCUMENT)
    ]
    asked = f" matches '{wanted}' and" if wanted else ""
    return (
        f"{store.label}: no document encoder{asked} has every document of {collection.name} "
        f"({'; '.join(have) or 'none at all'}). Run era-embed again: it encodes what is missing."
    )


def _unclear(
    store: Store, collection: Collection, pairs: list[Encoders], coverage: _Coverage
) -> str:
    if pairs:
        listed = "; ".join(_sides_text(pair._asdict()) for pair in pairs)
        return (
            f"{store.label}: several encoder pairs are complete for {collection.name}: {listed}. "
            "Choose with --query-encoder and --doc-encoder (a name or the start of a fingerprint)."
        )
    listed = "; ".join(
        f"{e.spec.label()}: {coverage.count(e, collection.query_keys)} of "
        f"{len(collection.query_keys)} queries, {coverage.count(e, collection.doc_keys)} of "
        f"{len(collection.doc_keys)} documents"
        for e in coverage.encoders
    )
    return (
        f"{store.label}: no encoder pair is complete for {collection.name} ({listed}). Queries are "
        "needed from both encoders, and documents of the large one for alignment; run era-embed."
    )
