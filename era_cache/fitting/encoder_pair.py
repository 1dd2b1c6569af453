"""Tensors of one collection and one pair of encoders, ready to fit or to evaluate.

In: a store, a collection, a split. Out: unit float32 tensors on one device. ``load_fit_data`` reads
training and validation queries and nothing of a test query; ``load_held_out`` reads the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_cache.collection.keys import alignment_order, text_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split
from era_cache.config import EmbedConfig
from era_cache.errors import FitError, FormatError, StoreError
from era_cache.fitting.adapter import unit
from era_cache.rank.ties import tie_order
from era_cache.store.key_index import KeyIndex
from era_cache.store.store import Store, StoredEncoder
from era_cache.types import Array, IntArray, Keys, Qrels, Role

if TYPE_CHECKING:
    import torch

__all__ = [
    "Documents",
    "Encoders",
    "FitData",
    "HeldOut",
    "QuerySet",
    "load_documents",
    "load_fit_data",
    "load_held_out",
    "query_set",
    "resolve_device",
    "resolve_encoders",
]


Documents = tuple["torch.Tensor", "torch.Tensor"]
"""The same documents in both spaces: (n, d_large) and (n, d_small) unit float32."""


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


class QuerySet(NamedTuple):
    """Some queries with all that is needed to train on them or to measure them.

    ``views`` maps ``large`` and ``small`` to (n, d) unit float32; ``qrels`` numbers queries 0..n-1;
    ``exclude`` (n,) int64 is the document that a query must not find (itself), -1 for none, or None
    where the collection has no such rule. ``texts`` (n,) tells equal query texts, whatever their
    instructions; None where that is not known.
    """

    ids: list[str]
    views: Mapping[str, torch.Tensor]
    qrels: Qrels
    exclude: torch.Tensor | None
    texts: Array | None = None


class FitData(NamedTuple):
    """Everything fitting may see. ``corpus`` is (n, d) unit float32 in the small space."""

    train: QuerySet
    validation: QuerySet
    corpus: torch.Tensor
    tie_ranks: torch.Tensor
    align_large: torch.Tensor
    align_small: torch.Tensor


class HeldOut(NamedTuple):
    """Everything evaluation needs. ``large_corpus`` is there if the store has all its rows."""

    queries: QuerySet
    corpus: torch.Tensor
    tie_ranks: torch.Tensor
    large_corpus: torch.Tensor | None


def resolve_device(name: str | None) -> str:
    """Name of the torch device to use: as asked for, else cuda where there is one, else cpu.

    Raises:
        FitError: the device asked for is not there.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise FitError(f"Device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return name


# Which encoders


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
        raise StoreError(f"{store.path}: no vectors yet. Run era-embed first.")
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
    recorded = store.pairs(collection)
    for sides in recorded:
        encoders = {side: store.find_encoder(fingerprint) for side, fingerprint in sides.items()}
        chosen = ((encoders["query"], query), (encoders["document"], document))
        if any(wanted and not (e and _matching([e], wanted)) for e, wanted in chosen):
            continue
        missing = [side for side, encoder in encoders.items() if encoder is None]
        if missing:
            raise StoreError(
                f"{store.path}: {collection.name} was last embedded for a pair of encoders, of "
                f"which nothing is stored for: {', '.join(missing)}. Run era-embed again to "
                "complete it, or name another pair with --query-encoder and --doc-encoder."
            )
        pair = Encoders(**{side: e for side, e in encoders.items() if e is not None})
        _check_pair(store, pair)
        return pair
    return None


def _check_pair(store: Store, pair: Encoders) -> None:
    """Refuse a record that mixes up roles or models."""
    roles = [encoder.spec.role for encoder in pair]
    spaces = [encoder.spec.space for encoder in pair]
    expected = [Role.QUERY, Role.QUERY, Role.DOCUMENT, Role.DOCUMENT]
    if roles != expected or spaces[0] != spaces[3] or spaces[1] != spaces[2]:
        raise FormatError(
            f"{store.path}: the record of the pair {pair.query.spec.label()} and "
            f"{pair.document.spec.label()} mixes up roles or models. Remove the folder 'pairs' and "
            "run era-embed again."
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
        f"{store.path}: no document encoder{asked} has every document of {collection.name} "
        f"({'; '.join(have) or 'none at all'}). Run era-embed again: it encodes what is missing."
    )


def _unclear(
    store: Store, collection: Collection, pairs: list[Encoders], coverage: _Coverage
) -> str:
    if pairs:
        listed = "; ".join(
            f"queries {p.query.spec.label()} -> documents {p.document.spec.label()}" for p in pairs
        )
        return (
            f"{store.path}: several encoder pairs are complete for {collection.name}: {listed}. "
            "Choose with --query-encoder and --doc-encoder (a name or the start of a fingerprint)."
        )
    listed = "; ".join(
        f"{e.spec.label()}: {coverage.count(e, collection.query_keys)} of "
        f"{len(collection.query_keys)} queries, {coverage.count(e, collection.doc_keys)} of "
        f"{len(collection.doc_keys)} documents"
        for e in coverage.encoders
    )
    return (
        f"{store.path}: no encoder pair is complete for {collection.name} ({listed}). Queries are "
        "needed from both encoders, and documents of the large one for alignment; run era-embed."
    )


# Tensors


def query_set(
    collection: Collection, rows: IntArray, views: Mapping[str, torch.Tensor], device: str
) -> QuerySet:
    """Make a query set of some rows, whose vectors are given in the same order."""
    import torch

    exclude = None
    if collection.ignore_identical_ids:
        row_of = {doc_id: row for row, doc_id in enumerate(collection.doc_ids)}
        own = [row_of.get(collection.query_ids[row], -1) for row in rows]
        exclude = torch.tensor(own, dtype=torch.int64, device=device)
    return QuerySet(
        ids=[collection.query_ids[row] for row in rows],
        views=views,
        qrels=collection.qrels.select_queries(rows),
        exclude=exclude,
        texts=text_keys(collection)[rows],
    )


def _read_unit(
    encoder: StoredEncoder, keys: Keys, device: str, *, check: bool, index: KeyIndex | None = None
) -> torch.Tensor:
    import torch

    vectors = encoder.vectors(keys, check=check, index=index)
    zero = int(np.count_nonzero(~vectors.any(axis=1)))
    if zero:
        raise FormatError(f"{encoder.folder}: {zero} stored vectors are all zero; damaged.")
    return unit(torch.from_numpy(vectors).to(device))


def _tie_ranks(collection: Collection, device: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(tie_order(collection.doc_ids)).to(device)


def load_fit_data(
    collection: Collection,
    split: Split,
    encoders: Encoders,
    *,
    align_documents: int,
    device: str = "cpu",
    check: bool = True,
) -> FitData:
    """Read what fitting may see: no row of a test query is touched.

    Args:
        collection: the collection.
        split: made before.
        encoders: from ``resolve_encoders``.
        align_documents: documents used for alignment at most (nested samples).
        device: torch device name.
        check: compare the digests of all segments first.

    Raises:
        StoreError: rows are missing.
        FitError: there is no document to align on.
        FormatError: a segment is damaged.
    """
    seen = np.concatenate([split.train, split.validation])
    keys = collection.query_keys[seen]
    large = _read_unit(encoders.query, keys, device, check=check)
    small = _read_unit(encoders.small_query, keys, device, check=check)
    parts = []
    for rows, part in (
        (split.train, slice(0, len(split.train))),
        (split.validation, slice(len(split.train), None)),
    ):
        views = {"large": large[part], "small": small[part]}
        parts.append(query_set(collection, rows, views, device))
    document_index = encoders.document.index(check=check)
    corpus = _read_unit(
        encoders.document, collection.doc_keys, device, check=False, index=document_index
    )
    align_rows, align_index = _align_rows(collection, split, encoders, align_documents, check)
    return FitData(
        train=parts[0],
        validation=parts[1],
        corpus=corpus,
        tie_ranks=_tie_ranks(collection, device),
        align_large=_read_unit(
            encoders.align, collection.doc_keys[align_rows], device, check=False, index=align_index
        ),
        align_small=corpus[align_rows],
    )


def load_documents(
    collection: Collection,
    encoders: Encoders,
    *,
    align_documents: int,
    device: str = "cpu",
    check: bool = True,
) -> Documents:
    """Read documents of a collection that only aligns; none of its queries or labels is read.

    Args:
        collection: the collection.
        encoders: from ``resolve_encoders``.
        align_documents: at most.
        device: torch device name.
        check: compare the digests of all segments first.

    Raises:
        StoreError: rows are missing.
        FitError: there is no document to align on.
        FormatError: a segment is damaged.
    """
    rows, index = _align_rows(collection, None, encoders, align_documents, check)
    keys = collection.doc_keys[rows]
    large = _read_unit(encoders.align, keys, device, check=False, index=index)
    return large, _read_unit(encoders.document, keys, device, check=check)


def _align_rows(
    collection: Collection, split: Split | None, encoders: Encoders, most: int, check: bool
) -> tuple[IntArray, KeyIndex]:
    """Documents to align on, and the index of the large model's; without a split, all are test."""
    order = alignment_order(collection.doc_keys, EmbedConfig.align_seed)
    index = encoders.align.index(check=check)
    order = order[index.positions(collection.doc_keys[order]) >= 0]
    if collection.ignore_identical_ids:
        # Where queries are documents, no query's own text may align, nor be a reference: a test
        # query must take no part, and a judging query would find itself. By key, for its text may
        # have another id.
        query_ids = set(collection.query_ids)
        own = np.array([doc_id in query_ids for doc_id in collection.doc_ids], dtype=bool)
        keys = np.ascontiguousarray(collection.doc_keys).view("V16").reshape(-1)
        left = order[~np.isin(keys[order], keys[own])]
        tested = range(len(collection.query_ids)) if split is None else split.test
        test_ids = {collection.query_ids[row] for row in tested}
        is_test = np.array([doc_id in test_ids for doc_id in collection.doc_ids], dtype=bool)
        order = order[~np.isin(keys[order], keys[is_test])]
        # Where nearly every document is a query, those of training and validation have to do.
        order = left if len(left) >= min(100, len(order) / 4) else order
    if not len(order):
        raise FitError(
            f"{collection.name}: no document is encoded by {encoders.align.spec.label()}, or each "
            "one is a query, so the spaces cannot be aligned. Run era-embed with --align-documents "
            "1000."
        )
    return order[:most], index  # in the order of the sample: a prefix is a smaller sample


def load_held_out(
    collection: Collection,
    split: Split,
    encoders: Encoders,
    *,
    device: str = "cpu",
    check: bool = True,
) -> HeldOut:
    """Read what evaluation needs.

    Raises:
        StoreError: rows are missing.
        FormatError: a segment is damaged.
    """
    keys = collection.query_keys[split.test]
    views = {
        "large": _read_unit(encoders.query, keys, device, check=check),
        "small": _read_unit(encoders.small_query, keys, device, check=check),
    }
    corpus = _read_unit(encoders.document, collection.doc_keys, device, check=check)
    large_corpus = None
    align_index = encoders.align.index(check=check)
    if (align_index.positions(collection.doc_keys) >= 0).all():
        large_corpus = _read_unit(
            encoders.align, collection.doc_keys, device, check=False, index=align_index
        )
    queries = query_set(collection, split.test, views, device)
    return HeldOut(queries, corpus, _tie_ranks(collection, device), large_corpus)
