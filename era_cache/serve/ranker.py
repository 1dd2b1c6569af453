"""The vectors of a collection, an adapter's candidates over them, and rankings of queries.

In: what an adapter searches in. Out: views of stored queries, and for any views a ranking by each
candidate. Vectors are read once and kept as tensors; one query and many go the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from era_cache.errors import FormatError, StoreError
from era_cache.evaluate.kept_index import kept_index
from era_cache.fitting.adapter import unit
from era_cache.fitting.adapter_folder import load_adapter
from era_cache.fitting.unit_rows import read_corpus
from era_cache.rank.fuse import fused_rankings
from era_cache.rank.lists import FirstStage
from era_cache.rank.measures import Ranking
from era_cache.rank.search import search
from era_cache.rank.ties import tie_order
from era_cache.serve.source import Source, known_candidates
from era_cache.store.key_index import KeyIndex
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, IntArray, Keys

if TYPE_CHECKING:
    import torch

    from era_cache.rank.approximate import ApproximateIndex

__all__ = ["Ranker"]

_LARGE_BYTES = 2 << 30
"""Documents that would take more than this in float32 stay in half precision."""


class Ranker:
    """Candidates of an adapter over the documents of a collection.

    Args:
        source: from ``open_source``.
        names: candidates to load.
        device: torch device name.
        check: compare the digests of all segments first.
        index: what is searched: all documents (``exact``), or an index of ``rank.approximate``,
            which is kept in the store. Candidates that a first stage joins are searched exactly.

    Raises:
        InputError: a candidate is unknown, or there is no such index.
        StoreError: rows are missing.
        FormatError: a segment or the adapter is damaged.
    """

    def __init__(
        self,
        source: Source,
        names: Sequence[str],
        device: str,
        *,
        check: bool,
        index: str = "exact",
    ) -> None:
        import torch

        self.device = device
        self.adapters = {
            name: load_adapter(source.folder, name).to(device)
            for name in known_candidates(names, source.candidates)
        }
        collection, encoders = source.collection, source.encoders
        self._sides = {"large": encoders.query, "small": encoders.small_query}
        self._indexes = {view: side.index(check=check) for view, side in self._sides.items()}
        document_index = encoders.document.index(check=check)
        try:
            self.corpus = read_corpus(
                encoders.document,
                collection.doc_keys,
                device,
                check=False,
                index=document_index,
                large_bytes=_LARGE_BYTES,
            )
        except StoreError as error:
            older = f" Or search an older version: --collection {collection.name}-VERSION."
            raise StoreError(f"{error}{older if source.since else ''}") from error
        self._near: ApproximateIndex | None = None
        self.notes: list[str] = []
        """What is to be told of the index."""
        if index != "exact":
            made_by = encoders.document.spec.fingerprint
            self._near, self.notes = kept_index(
                source.store, collection, made_by, self.corpus, index
            )
        self._tie_ranks = torch.from_numpy(tie_order(collection.doc_ids)).to(device)
        self._query_row = {bytes(k): row for row, k in enumerate(collection.query_keys)}
        self._own = np.full(len(collection.query_ids), -1, dtype=np.int64)
        if collection.ignore_identical_ids:
            document_row = {doc_id: row for row, doc_id in enumerate(collection.doc_ids)}
            self._own[:] = [document_row.get(one, -1) for one in collection.query_ids]

    @property
    def near_by(self) -> str | None:
        """Which index is searched instead of all documents, in words."""
        return None if self._near is None else self._near.about

    def query_rows(self, keys: Keys) -> IntArray:
        """Rows of queries in the collection by their keys (n, 16); -1 for what is none of them."""
        return np.array([self._query_row.get(bytes(k), -1) for k in keys], dtype=np.int64)

    def own_documents(self, rows: IntArray) -> torch.Tensor:
        """The document that each query must not find, where queries are documents; else -1.

        Args:
            rows: of queries, -1 for what is no query of the collection.
        """
        import torch

        known = rows >= 0
        found = np.full(len(rows), -1, dtype=np.int64)
        found[known] = self._own[rows[known]]
        return torch.from_numpy(found).to(self.device)

    def stored_views(self, keys: Keys) -> dict[str, torch.Tensor]:
        """Both views of stored queries, (n, d) unit rows each.

        Raises:
            StoreError: one is missing.
            FormatError: one is damaged.
        """
        return {
            view: self._unit_rows(side, keys, self._indexes[view])
            for view, side in self._sides.items()
        }

    def unit(self, vectors: FloatArray) -> torch.Tensor:
        """Vectors as unit rows on the device."""
        import torch

        return unit(torch.from_numpy(vectors).to(self.device))

    def _unit_rows(self, side: StoredEncoder, keys: Keys, index: KeyIndex) -> torch.Tensor:
        vectors = side.vectors(keys, index=index)
        if not vectors.any(axis=1).all():
            raise FormatError(f"{side.folder}: a stored vector is all zero; damaged.")
        return self.unit(vectors)

    def rank(
        self,
        views: Mapping[str, torch.Tensor],
        names: Sequence[str],
        reach: int,
        *,
        itself: torch.Tensor,
        first: FirstStage | None = None,
    ) -> dict[str, Ranking]:
        """Rank documents for q queries by each of some candidates.

        Args:
            views: what the candidates read, (q, d) unit rows each.
            names: of loaded candidates.
            reach: documents of each ranking.
            itself: (q,) int64, the document that a query must not find, -1 for none.
            first: lists of these queries, for candidates that a first stage joins.

        Returns:
            Candidate to ranking, (q, reach) document rows and scores.
        """
        import torch

        mapped = {name: self.adapters[name].apply(views) for name in names}
        joined = {n for n in names if first is not None and self.adapters[n].fusion is not None}
        plain = [name for name in names if name not in joined]
        found: dict[str, Ranking] = {}
        if plain:  # the corpus is gone through once for all of them
            asked = torch.cat([mapped[name] for name in plain])
            ties, excluded = self._tie_ranks, itself.repeat(len(plain))
            if self._near is not None:
                whole = self._near.search(asked, reach, exclude=excluded, tie_ranks=ties)
            else:
                whole = search(asked, self.corpus, reach, exclude=excluded, tie_ranks=ties)
            parts = zip(*(np.split(column, len(plain)) for column in whole), strict=True)
            found = dict(zip(plain, (Ranking(*part) for part in parts), strict=True))
        for name in joined:
            fusion = self.adapters[name].fusion
            assert first is not None
            assert fusion is not None
            (found[name],) = fused_rankings(
                mapped[name],
                self.corpus,
                first,
                [fusion.weight],
                reach,
                exclude=itself,
                tie_ranks=self._tie_ranks,
            )
        return {name: found[name] for name in names}
