"""Approximate search for large corpora, through faiss, with its recall stated.

In: unit float32 document vectors. Out: an index that stands where ``search.search`` stands, and the
share of the exact results that it finds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.errors import InputError
from era_cache.rank.measures import Ranking
from era_cache.rank.request import check_embeddings, check_request

if TYPE_CHECKING:
    import torch

__all__ = ["KINDS", "ApproximateIndex"]

KINDS = {
    "ivf": "inverted lists: documents by the nearest of about 4 sqrt(n) centres, a few lists read",
    "hnsw": "a graph of near documents, walked from the top",
}
_PROBED, _FEWEST_PROBED = 16, 8
"""An IVF search reads one in so many lists, and at least so many."""
_PER_CENTRE = 64
"""Documents that train each centre of an IVF index, at most."""
_NEIGHBOURS, _BUILD_WIDTH, _SEARCH_WIDTH = 32, 200, 128


class ApproximateIndex:
    """A faiss index over a corpus; it keeps a copy of it.

    Args:
        corpus: (n, d) float32, unit rows.
        kind: of ``KINDS``.
        seed: of the training of centres.

    Raises:
        InputError: there is no such kind, or no document.
        ValueError: the corpus is no float32 matrix of finite numbers.
    """

    def __init__(self, corpus: torch.Tensor, kind: str, *, seed: int = 0) -> None:
        import faiss

        if kind not in KINDS:
            raise InputError(f"Index {kind!r} is unknown; known are exact, {', '.join(KINDS)}.")
        if not len(corpus):
            raise InputError("An index needs at least one document.")
        check_embeddings("corpus", corpus)
        vectors = corpus.detach().cpu().contiguous().numpy()
        n, dim = vectors.shape
        self.kind, self._n = kind, n
        self._index: Any
        if kind == "ivf":
            lists = max(1, min(round(4 * math.sqrt(n)), n // 8))
            quantizer = faiss.IndexFlatIP(dim)
            self._index = faiss.IndexIVFFlat(quantizer, dim, lists, faiss.METRIC_INNER_PRODUCT)
            self._index.cp.seed = seed % 2**31
            self._index.cp.max_points_per_centroid = _PER_CENTRE
            self._index.cp.min_points_per_centroid = 1
            self._index.train(vectors)
            self._index.nprobe = max(min(lists, _FEWEST_PROBED), lists // _PROBED)
            self.about = f"ivf, {lists:,} lists, {self._index.nprobe:,} of them read"
        else:
            self._index = faiss.IndexHNSWFlat(dim, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = _BUILD_WIDTH
            self.about = f"hnsw, {_NEIGHBOURS} neighbours"
        self._index.add(vectors)

    def search(
        self,
        queries: torch.Tensor,
        k: int,
        *,
        exclude: torch.Tensor | None = None,
        tie_ranks: torch.Tensor | None = None,
    ) -> Ranking:
        """Find near to the k best documents of each query.

        Arguments and result are those of ``search.search``; equal scores among what is found are in
        the order of ``tie_ranks``, and where fewer are found than exist, the ranking is padded.

        Raises:
            ValueError: shapes, types or row numbers do not fit, or a query is not finite.
        """
        check_request(queries, k, exclude, (self._n, self._index.d))
        depth = min(self._n, k + (exclude is not None))
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = max(_SEARCH_WIDTH, 2 * depth)
        scores, rows = self._index.search(queries.detach().cpu().contiguous().numpy(), depth)
        missing = rows < 0
        if exclude is not None:
            missing |= rows == exclude.cpu().numpy()[:, None]
        scores = np.where(missing, -np.inf, scores + 0.0).astype(np.float32)
        ties = np.arange(self._n) if tie_ranks is None else tie_ranks.cpu().numpy()
        order = np.lexsort((ties[np.where(missing, 0, rows)], -scores), axis=1)
        doc_rows = np.full((len(queries), k), -1, dtype=np.int64)
        found = np.full((len(queries), k), -np.inf, dtype=np.float32)
        width = min(k, depth)
        sorted_rows = np.take_along_axis(np.where(missing, -1, rows), order, axis=1)
        doc_rows[:, :width] = sorted_rows[:, :width]
        found[:, :width] = np.take_along_axis(scores, order, axis=1)[:, :width]
        return Ranking(doc_rows, found)
