"""What is in a collection, before anything is encoded: sizes, lengths, labels, and what is odd.

In: a ``TextCollection``. Out: numbers. Texts count as equal where they are so but for case and
white space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from era_cache.collection.records import TextCollection
from era_cache.types import Array, IntArray, Qrels

__all__ = ["Inspection", "Lengths", "SplitFacts", "inspect_collection"]


class Lengths(NamedTuple):
    """Words of each text of a kind, (n,) int64."""

    what: str
    words: IntArray

    def quantiles(self) -> dict[str, int]:
        """Of the lengths: median, 95 %, longest."""
        if not len(self.words):
            return {"median": 0, "95 %": 0, "longest": 0}
        middle, high = np.quantile(self.words, [0.5, 0.95])
        return {"median": int(middle), "95 %": int(high), "longest": int(self.words.max())}


class SplitFacts(NamedTuple):
    """Judgements of one split."""

    name: str
    queries: int
    """With a judgement."""
    unanswered: int
    """Of them without a positive one."""
    judgements: int
    positives: float
    """Positive judgements of a query, on average."""
    most_positives: int
    grades: dict[int, int]
    """How often each grade is given."""
    shared: int
    """Queries whose text is in another split, too."""


class Inspection(NamedTuple):
    """What was found."""

    name: str
    domain: str
    documents: int
    queries: int
    instructions: int
    """Different ones."""
    lengths: tuple[Lengths, ...]
    splits: tuple[SplitFacts, ...]
    equal_documents: int
    """Documents whose text another one has."""
    equal_queries: int
    query_documents: int
    """Queries whose text is a document's."""
    own_ids: int
    """Queries whose id is a document's."""
    inside: int
    """Queries whose text stands in a document that answers them."""
    relevant: int
    """Documents that answer some query."""

    def remarks(self) -> list[str]:
        """What to know before training or measuring on it; empty where nothing is odd."""
        found = []
        shared = sum(one.shared for one in self.splits)
        unanswered = sum(one.unanswered for one in self.splits)
        if shared:
            found.append(
                f"Query texts in two splits: {shared:,}. --split source keeps them out of training."
            )
        if self.query_documents:
            found.append(
                f"Queries that are documents word for word: {self.query_documents:,}. Each finds "
                "itself first; --ignore-identical-ids helps where they have the document's id "
                f"({self.own_ids:,} have one)."
            )
        if self.inside:
            found.append(
                f"Queries that stand word for word in what answers them: {self.inside:,}. "
                "Easy for BM25, and no sign of understanding."
            )
        if self.equal_documents:
            found.append(
                f"Documents with the text of another: {self.equal_documents:,}. Where one is "
                "judged, its twins count as wrong."
            )
        if unanswered:
            found.append(f"Judged queries without a positive judgement: {unanswered:,}.")
        return found


def inspect_collection(texts: TextCollection) -> Inspection:
    """Look at a collection."""
    documents, queries = map(_folded, (texts.doc_texts, texts.query_texts))
    said = [text for text in texts.instructions if text]
    lengths = [Lengths("documents", _words(texts.doc_texts))]
    lengths.append(Lengths("queries", _words(texts.query_texts)))
    if said:
        lengths.append(Lengths("instructions", _words(said)))
    asked = list(zip(queries, texts.instructions, strict=True))
    known = set(documents)
    relevant = [part.doc_rows[part.relevance >= 1] for part in texts.splits.values()]
    ids = set(texts.doc_ids)
    return Inspection(
        name=texts.name,
        domain=texts.domain,
        documents=len(documents),
        queries=len(queries),
        instructions=len(set(said)),
        lengths=tuple(lengths),
        splits=_splits(texts.splits, queries),
        equal_documents=len(documents) - len(known),
        equal_queries=len(asked) - len(set(asked)),
        query_documents=sum(query in known for query in queries),
        own_ids=sum(one in ids for one in texts.query_ids),
        inside=_inside(texts, documents, queries),
        relevant=len(np.unique(np.concatenate(relevant))) if relevant else 0,
    )


def _folded(texts: Sequence[str]) -> list[str]:
    return [" ".join(text.casefold().split()) for text in texts]


def _words(texts: Sequence[str]) -> IntArray:
    return np.array([len(text.split()) for text in texts], dtype=np.int64)


def _splits(splits: dict[str, Qrels], queries: Sequence[str]) -> tuple[SplitFacts, ...]:
    asked = {
        name: {queries[row] for row in set(q.query_rows.tolist())} for name, q in splits.items()
    }
    found = []
    for name, part in splits.items():
        rows = np.unique(part.query_rows)
        counts: Array = np.bincount(part.query_rows[part.relevance >= 1], minlength=len(queries))
        positives = counts[rows]
        elsewhere = set().union(*(texts for other, texts in asked.items() if other != name))
        found.append(
            SplitFacts(
                name=name,
                queries=len(rows),
                unanswered=int((positives == 0).sum()),
                judgements=len(part.query_rows),
                positives=float(positives.mean()) if len(rows) else 0.0,
                most_positives=int(positives.max()) if len(rows) else 0,
                grades=dict(sorted(Counter(part.relevance.tolist()).items())),
                shared=sum(queries[row] in elsewhere for row in rows.tolist()),
            )
        )
    return tuple(found)


def _inside(texts: TextCollection, documents: Sequence[str], queries: Sequence[str]) -> int:
    """Queries that stand in one of their documents, but are not all of it."""
    found = set()
    for part in texts.splits.values():
        positive = part.relevance >= 1
        rows = zip(
            part.query_rows[positive].tolist(), part.doc_rows[positive].tolist(), strict=True
        )
        found |= {q for q, d in rows if queries[q] != documents[d] and queries[q] in documents[d]}
    return len(found)
