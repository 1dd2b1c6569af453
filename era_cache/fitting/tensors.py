"""Tensors of one collection and one pair of encoders, ready to fit or to evaluate.

In: a collection, a split, the encoders of ``encoder_pair``. Out: unit float32 tensors on one
device. ``load_fit_data`` reads training and validation queries and nothing of a test query;
``load_held_out`` reads the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.collection.keys import alignment_order, text_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split
from era_cache.encode.config import EmbedConfig
from era_cache.errors import FitError
from era_cache.fitting.encoder_pair import Encoders
from era_cache.fitting.first_stage import QueryLists
from era_cache.fitting.unit_rows import read_corpus, read_unit
from era_cache.rank.lists import FirstStage
from era_cache.rank.ties import tie_order
from era_cache.store.key_index import KeyIndex
from era_cache.types import Array, IntArray, Qrels

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = [
    "UNLABELLED",
    "Documents",
    "FitData",
    "HeldOut",
    "QuerySet",
    "load_documents",
    "load_fit_data",
    "load_held_out",
    "query_set",
    "resolve_device",
    "selected_queries",
]


UNLABELLED = 2000
"""Queries without labels that are looked at, at most."""


class Documents(NamedTuple):
    """A collection without its queries.

    ``large`` (n, d_large) and ``small`` (n, d_small) are unit float32 vectors of the same
    documents, which align; ``corpus`` holds all of them as they are searched.
    """

    large: torch.Tensor
    small: torch.Tensor
    corpus: Corpus


class QuerySet(NamedTuple):
    """Some queries with all that is needed to train on them or to measure them.

    ``views`` maps ``large`` and ``small`` to (n, d) unit float32; ``qrels`` numbers queries 0..n-1;
    ``exclude`` (n,) int64 is the document that a query must not find (itself), -1 for none, or None
    where the collection has no such rule. ``texts`` (n,) tells equal query texts, whatever their
    instructions; None where that is not known. ``first`` is what another system found for each
    query, None where there is none.
    """

    ids: list[str]
    views: Mapping[str, torch.Tensor]
    qrels: Qrels
    exclude: torch.Tensor | None
    texts: Array | None = None
    first: FirstStage | None = None


def selected_queries(queries: QuerySet, rows: IntArray) -> QuerySet:
    """Some queries of a set, (m,) int64, without another system's lists."""
    import torch

    if len(rows) == len(queries.ids):
        return queries
    at = torch.from_numpy(rows).to(next(iter(queries.views.values())).device)
    return QuerySet(
        ids=[queries.ids[row] for row in rows.tolist()],
        views={name: vectors[at] for name, vectors in queries.views.items()},
        qrels=queries.qrels.select_queries(rows),
        exclude=None if queries.exclude is None else queries.exclude[at],
        texts=None if queries.texts is None else queries.texts[rows],
    )


class FitData(NamedTuple):
    """Everything fitting may see. ``corpus`` is (n, d) unit rows in the small space.

    ``unlabelled`` are queries that fitting only looks at, without any judgement; None for none.
    """

    train: QuerySet
    validation: QuerySet
    corpus: Corpus
    tie_ranks: torch.Tensor
    align_large: torch.Tensor
    align_small: torch.Tensor
    unlabelled: QuerySet | None = None

    @property
    def documents(self) -> Documents:
        """The collection without its queries."""
        return Documents(self.align_large, self.align_small, self.corpus)


class HeldOut(NamedTuple):
    """Everything evaluation needs. ``large_corpus`` is there if the store has all its rows."""

    queries: QuerySet
    corpus: Corpus
    tie_ranks: torch.Tensor
    large_corpus: Corpus | None


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
    lists: QueryLists | None = None,
) -> FitData:
    """Read what fitting may see: no row of a test query is touched.

    Args:
        collection: the collection.
        split: made before.
        encoders: from ``resolve_encoders``.
        align_documents: documents used for alignment at most (nested samples).
        device: torch device name.
        check: compare the digests of all segments first.
        lists: what another system found for these queries, too.

    Raises:
        StoreError: rows are missing.
        FitError: there is no document to align on.
        FormatError: a segment is damaged.
    """
    import torch

    seen = np.concatenate([split.train, split.validation])
    keys = collection.query_keys[seen]
    large = read_unit(encoders.query, keys, device, check=check)
    small = read_unit(encoders.small_query, keys, device, check=check)
    parts = []
    for rows, part in (
        (split.train, slice(0, len(split.train))),
        (split.validation, slice(len(split.train), None)),
    ):
        views = {"large": large[part], "small": small[part]}
        parts.append(_with_lists(query_set(collection, rows, views, device), lists, rows))
    corpus = read_corpus(encoders.document, collection.doc_keys, device, check=check)
    align_rows, align_index = _align_rows(collection, split, encoders, align_documents, check)
    others = _stored(collection, split.unlabelled, encoders)[:UNLABELLED]
    other_keys = collection.query_keys[others]
    unlabelled = query_set(
        collection,
        others,
        {
            "large": read_unit(encoders.query, other_keys, device, check=False),
            "small": read_unit(encoders.small_query, other_keys, device, check=False),
        },
        device,
    )
    return FitData(
        train=parts[0],
        validation=parts[1],
        corpus=corpus,
        tie_ranks=_tie_ranks(collection, device),
        align_large=read_unit(
            encoders.align, collection.doc_keys[align_rows], device, check=False, index=align_index
        ),
        align_small=corpus[torch.from_numpy(align_rows).to(device)],
        unlabelled=_with_lists(
            unlabelled._replace(qrels=unlabelled.qrels.select_queries(others[:0])), lists, others
        ),
    )


def _with_lists(queries: QuerySet, lists: QueryLists | None, rows: IntArray) -> QuerySet:
    """The queries with another system's lists, where there are such lists."""
    if lists is None or not len(rows):
        return queries
    views = next(iter(queries.views.values()))
    return queries._replace(first=lists.select(rows, views.device))


def _stored(collection: Collection, rows: IntArray, encoders: Encoders) -> IntArray:
    """Those queries of which both encoders have a vector; unjudged ones need not be encoded."""
    keys = collection.query_keys[rows]
    for encoder in (encoders.query, encoders.small_query):
        there = encoder.index(check=False).positions(keys) >= 0
        rows, keys = rows[there], keys[there]
    return rows


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
    import torch

    rows, index = _align_rows(collection, None, encoders, align_documents, check)
    large = read_unit(encoders.align, collection.doc_keys[rows], device, check=False, index=index)
    corpus = read_corpus(encoders.document, collection.doc_keys, device, check=check)
    return Documents(large, corpus[torch.from_numpy(rows).to(device)], corpus)


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
        # Where nothing is judged yet, any query may be a test query later.
        tested: Iterable[int] = range(len(collection.query_ids))
        if split is not None and len(split.test):
            tested = split.test
        test_ids = {collection.query_ids[row] for row in tested}
        is_test = np.array([doc_id in test_ids for doc_id in collection.doc_ids], dtype=bool)
        order = order[~np.isin(keys[order], keys[is_test])]
        # Where nearly every document is a query, those of training and validation have to do.
        order = left if len(left) >= min(100, len(order) / 4) else order
    if not len(collection.doc_keys):
        raise FitError(
            f"{collection.name}: a collection of queries alone; there is nothing to search. Name "
            "one with documents."
        )
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
    lists: QueryLists | None = None,
) -> HeldOut:
    """Read what evaluation needs, also another system's ``lists``.

    Raises:
        StoreError: rows are missing.
        FormatError: a segment is damaged.
    """
    keys = collection.query_keys[split.test]
    views = {
        "large": read_unit(encoders.query, keys, device, check=check),
        "small": read_unit(encoders.small_query, keys, device, check=check),
    }
    corpus = read_corpus(encoders.document, collection.doc_keys, device, check=check)
    large_corpus = None
    align_index = encoders.align.index(check=check)
    if (align_index.positions(collection.doc_keys) >= 0).all():
        large_corpus = read_corpus(
            encoders.align, collection.doc_keys, device, check=False, index=align_index
        )
    queries = _with_lists(query_set(collection, split.test, views, device), lists, split.test)
    return HeldOut(queries, corpus, _tie_ranks(collection, device), large_corpus)
