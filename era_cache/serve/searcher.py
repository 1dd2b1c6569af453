"""Texts in, documents out: an adapter folder over a store, vectors, or an index elsewhere.

In: an adapter folder, and where the documents are. Out: for each query text ids, scores, and texts
where they are known. What era-search answers, this answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.beir import read_beir
from era_cache.collection.keys import row_keys
from era_cache.errors import FingerprintError, InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.candidates import unfused_name
from era_cache.fitting.rows import has_width, rows_of
from era_cache.rank.measures import Ranking
from era_cache.rank.search import search
from era_cache.rank.ties import tie_order
from era_cache.serve.first_stage import QueryScores
from era_cache.serve.query_encoder import QueryEncoder, instructions_of, texts_of
from era_cache.serve.ranker import Ranker
from era_cache.serve.source import Source, open_source
from era_cache.serve.texts import Texts, matching_texts
from era_cache.store.open_store import open_store
from era_cache.store.store import Store
from era_cache.types import Array, Role

if TYPE_CHECKING:
    import torch

__all__ = ["Found", "Searcher"]


class Found(NamedTuple):
    """One document of an answer; ``text`` is None where it is not known."""

    id: str
    score: float
    text: str | None = None


class Searcher:
    """Answers query texts by the chosen candidate of an adapter.

    Args:
        adapter: a folder that era-fit wrote; or a ``QueryEncoder`` of one, where its models lie
            elsewhere now, or new queries are to be remembered. A path is opened with the store.
        index: a store (or its path), whose documents are searched exactly; or document vectors of
            the adapter's small model, (N, d), searched exactly; or a faiss index of unit vectors by
            inner product.
        ids: of the documents, where ``index`` is no store; None numbers them.
        collection: of the store, where the adapter was fitted on several, or another one.
        texts: folder of the collection in BEIR layout, from which texts are shown; BM25 of queries
            that the store does not hold needs it, too.
        candidate: name of a candidate of the folder; None is the chosen one.
        device: torch device name; None chooses. Both are a ``QueryEncoder``'s own.

    Raises:
        FingerprintError: a model or the store's vectors are not those of the adapter.
        InputError: a model that is read was moved and not named; the index does not fit.
        EraError: whatever else is wrong, with what to do.
    """

    def __init__(
        self,
        adapter: str | Path | QueryEncoder,
        index: str | Path | Store | Any,
        ids: Sequence[str] | None = None,
        *,
        collection: str | None = None,
        texts: str | Path | None = None,
        candidate: str | None = None,
        device: str | None = None,
    ) -> None:
        store = open_store(index) if isinstance(index, str | Path) else index
        in_store = isinstance(store, Store)
        if isinstance(adapter, QueryEncoder):
            if candidate is not None or device is not None:
                raise InputError("candidate and device are the QueryEncoder's: give them to it.")
            self.encoder = adapter
        else:
            self.encoder = QueryEncoder(
                adapter, candidate=candidate, store=store if in_store else None, device=device
            )
        if in_store:
            if ids is not None:
                raise InputError("ids: a store knows its own.")
            source = open_source(store, self.encoder.folder, collection)
            self._documents: _InStore | _Given = _InStore(source, self.encoder, texts)
        else:
            if collection is not None or texts is not None:
                raise InputError("collection and texts belong to a store.")
            self._documents = _Given(store, ids, self.encoder)

    def __repr__(self) -> str:
        return f"Searcher({len(self):,} documents, {self.encoder!r})"

    def __len__(self) -> int:
        return len(self._documents)

    def search(
        self, queries: str | Sequence[str], k: int = 10, instructions: str | Sequence[str] = ""
    ) -> list[list[Found]]:
        """Find the k best documents of each query.

        Args:
            queries: texts as they are, without any prompt; or one. Equal texts and instructions of
                a stored query are searched by its stored vectors.
            k: documents of each.
            instructions: one for all, or one for each.

        Returns:
            For each query its documents, best first; fewer than k where there are fewer.

        Raises:
            InputError: a query cannot be used, or k is below 1.
            EncoderError: a model fails.
        """
        if k < 1:
            raise InputError(f"k={k}: expected at least 1 document for each query.")
        asked = texts_of(queries)
        said = instructions_of(instructions, len(asked))
        if not asked:
            return []
        ranking = self._documents.rank(asked, said, min(k, len(self)))
        return [
            [
                Found(self._documents.id_of(row), score, self._documents.text_of(row))
                for row, score in zip(rows, scores, strict=True)
                if row >= 0
            ]
            for rows, scores in zip(ranking.doc_rows.tolist(), ranking.scores.tolist(), strict=True)
        ]


class _InStore:
    """The documents of a stored collection."""

    def __init__(self, source: Source, encoder: QueryEncoder, texts: str | Path | None) -> None:
        sides = {"large": source.encoders.query, "small": source.encoders.small_query}
        if any(sides[view].spec.fingerprint != one for view, one in encoder.fingerprints.items()):
            raise FingerprintError(
                f"{source.folder}: fitted on other models than those that were opened: the folder "
                "was exchanged since, or its store. Make the QueryEncoder anew."
            )
        self._source, self._encoder = source, encoder
        device = encoder.device
        self._ranker = Ranker(source, [encoder.candidate], device, check=True)
        self._texts: Texts | None = None
        if texts is not None:
            read = read_beir(
                Path(texts), ReaderSettings(all_queries=True, skip_lost_judgements=True)
            )
            self._texts = matching_texts(source.collection, read)
        self._scores = QueryScores(source, self._texts, device)

    def __len__(self) -> int:
        return len(self._source.collection.doc_ids)

    def id_of(self, row: int) -> str:
        return self._source.collection.doc_ids[row]

    def text_of(self, row: int) -> str | None:
        return None if self._texts is None else self._texts.documents[row]

    def rank(self, texts: list[str], instructions: list[str], k: int) -> Ranking:
        rows = self._ranker.query_rows(row_keys(Role.QUERY, texts, instructions))
        name = self._encoder.candidate
        return self._ranker.rank(
            self._encoder.views(texts, instructions),
            [name],
            k,
            itself=self._ranker.own_documents(rows),
            first=None if self._encoder.fusion is None else self._scores.of(rows, texts),
        )[name]


class _Given:
    """Documents that somebody else holds: vectors, or a faiss index."""

    def __init__(self, index: Any, ids: Sequence[str] | None, encoder: QueryEncoder) -> None:
        if encoder.fusion is not None:
            name = encoder.candidate
            raise InputError(
                f"Candidate {name} is joined with {encoder.fusion[0]}, which is not here. Add its "
                f"scores to those of candidate='{unfused_name(name)}' (README of the adapter)."
            )
        self._encoder = encoder
        self._index = index if hasattr(index, "ntotal") else None
        if self._index is None:
            self._corpus = unit(rows_of(index, "index", encoder.device))
            has_width(self._corpus, "index", encoder.dim, "the adapter")
        elif self._index.d != encoder.dim:
            raise InputError(
                f"index: {self._index.d} dimensions, the adapter maps to {encoder.dim}."
            )
        self._count = len(self._corpus) if self._index is None else int(self._index.ntotal)
        self._ids = None if ids is None else list(map(str, ids))
        if self._ids is not None and len(self._ids) != self._count:
            raise InputError(f"{len(self._ids)} ids for {self._count} documents.")
        self._tie_ranks = None if self._ids is None else _ties(self._ids, encoder.device)

    def __len__(self) -> int:
        return self._count

    def id_of(self, row: int) -> str:
        return str(row) if self._ids is None else self._ids[row]

    def text_of(self, _row: int) -> str | None:
        return None

    def rank(self, texts: list[str], instructions: list[str], k: int) -> Ranking:
        mapped = self._encoder.mapped(texts, instructions)
        if self._index is None:
            return search(mapped, self._corpus, k, tie_ranks=self._tie_ranks)
        scores, rows = self._index.search(np.ascontiguousarray(mapped.cpu().numpy()), k)
        return Ranking(np.asarray(rows, dtype=np.int64), np.asarray(scores, dtype=np.float32))


def _ties(ids: Sequence[str], device: str) -> torch.Tensor:
    import torch

    order: Array = tie_order(ids)
    return torch.from_numpy(order).to(device)
