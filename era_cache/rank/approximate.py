"""Approximate search for large corpora, through faiss, with its recall stated.

In: unit float32 document vectors. Out: an index that stands where ``search.search`` stands, and the
share of the exact results that it finds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.errors import InputError
from era_cache.rank.corpus import UnitRows, products
from era_cache.rank.index_arrays import BLOCK_ROWS, arrays_of, block_array, index_of
from era_cache.rank.measures import Ranking
from era_cache.rank.request import check_embeddings, check_request
from era_cache.types import Array, IntArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["KINDS", "RECIPE", "ApproximateIndex", "scores_of"]

RECIPE = 1
"""Raised where other numbers below, or other steps, would build another index: kept ones go."""

KINDS = {
    "ivf": "inverted lists: documents by the nearest of about 4 sqrt(n) centres, a few lists read",
    "hnsw": "a graph of near documents, walked from the top",
    "pq": "inverted lists of 4-bit codes, two values in one; the best are ranked anew, exactly",
}
_PROBED, _FEWEST_PROBED = 16, 8
"""An IVF search reads one in so many lists, and at least so many."""
_PER_CENTRE = 64
"""Documents that train each centre of an IVF index, at most."""
_NEIGHBOURS, _BUILD_WIDTH, _SEARCH_WIDTH = 32, 200, 128
_CODES_READ, _RANKED_ANEW, _FEWEST_RANKED = 3, 3, 256
"""A PQ search reads one in so many lists, and ranks so many times what is asked for anew."""
_FEWEST_CODED = 1000
_TRAINED_ON, _ROUNDS = 1 << 16, 8
_GATHERED = 1 << 20
"""Values of documents that are ranked anew at a time: what a processor's cache holds."""


class ApproximateIndex:
    """A faiss index over a corpus; it keeps a copy of it, of kind ``pq`` the codes alone.

    Args:
        corpus: (n, d) float32, unit rows, or ``HalfRows``.
        kind: of ``KINDS``.
        seed: of the training of centres.
        arrays: what ``arrays`` gave of an index of this kind over the same documents; it is not
            built anew then.

    Raises:
        FormatError: the arrays are not of such an index.
        InputError: there is no such kind, or no document.
        ValueError: the corpus is no float32 matrix of finite numbers.
    """

    def __init__(
        self,
        corpus: Corpus,
        kind: str,
        *,
        seed: int = 0,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"Index {kind!r} is unknown; known are exact, {', '.join(KINDS)}.")
        if not len(corpus):
            raise InputError("An index needs at least one document.")
        if not isinstance(corpus, UnitRows):
            check_embeddings("corpus", corpus)
        n, dim = corpus.shape
        self.kind, self._n, self._corpus = kind, n, corpus
        if arrays is not None:
            self._index = index_of(kind, arrays, corpus)
        else:
            make = {"ivf": self._ivf, "hnsw": self._hnsw, "pq": self._pq}[kind]
            self._index = make(dim, seed % 2**31)
            for start in range(0, n, BLOCK_ROWS):
                self._index.add(block_array(corpus[start : start + BLOCK_ROWS]))
        self.about = self._set_up()

    def arrays(self) -> dict[str, Array]:
        """What makes the index, besides the documents; empty where there is nothing to keep."""
        return {} if self._whole else arrays_of(self._index, self.kind)

    @property
    def _whole(self) -> bool:
        """Whether all documents are searched, since they are too few for codes."""
        return self.kind == "pq" and self._n < _FEWEST_CODED

    def _set_up(self) -> str:
        """Say how many lists a search reads; what the index is, in words."""
        index = self._index
        if self._whole:
            return f"all of {self._n:,} documents: too few for codes"
        if self.kind == "hnsw":
            return f"hnsw, {_NEIGHBOURS} neighbours"
        lists = index.nlist
        share = _CODES_READ if self.kind == "pq" else _PROBED
        index.nprobe = max(min(lists, _FEWEST_PROBED), lists // share)
        of = f" of {index.pq.M} codes" if self.kind == "pq" else ""
        return f"{self.kind}, {lists:,} lists{of}, {index.nprobe:,} of them read"

    def _ivf(self, dim: int, seed: int) -> Any:
        import faiss

        lists = max(1, min(round(4 * math.sqrt(self._n)), self._n // 8))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed
        index.cp.max_points_per_centroid = _PER_CENTRE
        index.cp.min_points_per_centroid = 1
        index.train(block_array(self._corpus[:]))
        return index

    def _hnsw(self, dim: int, _seed: int) -> Any:
        import faiss

        index = faiss.IndexHNSWFlat(dim, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_WIDTH
        return index

    def _pq(self, dim: int, seed: int) -> Any:
        import faiss
        import torch

        if self._whole:
            return faiss.IndexFlatIP(dim)
        lists = max(1, min(round(math.sqrt(self._n) / 4), self._n // 64))
        codes = dim // 2 if dim % 2 == 0 else dim
        index = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(dim), dim, lists, codes, 4, faiss.METRIC_INNER_PRODUCT
        )
        for clustering in (index.cp, index.pq.cp):
            clustering.seed = seed
            clustering.niter = _ROUNDS
            clustering.max_points_per_centroid = max(64, _TRAINED_ON // lists)
            clustering.min_points_per_centroid = 1
        drawn = np.random.default_rng(seed).permutation(self._n)[:_TRAINED_ON]
        rows = torch.from_numpy(np.sort(drawn)).to(self._corpus.device)
        index.train(block_array(self._corpus[rows]))
        return index

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
        scores, rows = self._found(queries, depth)
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

    def _found(self, queries: torch.Tensor, depth: int) -> tuple[Array, IntArray]:
        """Scores and rows of what is found, (q, depth) each."""
        vectors = block_array(queries)
        import torch

        if self.kind == "ivf":
            scores, rows = self._index.search(vectors, depth)
            return scores, rows
        if self.kind == "hnsw":
            # It adds up four documents at a time or one: on some processors copies would not tie.
            _, rows = self._index.search(vectors, depth)
            places = torch.from_numpy(rows).to(queries.device)
            return scores_of(queries, self._corpus, places).cpu().numpy(), rows
        asked = min(self._n, max(_FEWEST_RANKED, _RANKED_ANEW * depth))
        _, guessed = self._index.search(vectors, asked)
        rows = torch.from_numpy(guessed).to(queries.device)
        scores = scores_of(queries, self._corpus, rows)
        best = scores.topk(depth, dim=1)
        return best.values.cpu().numpy(), rows.gather(1, best.indices).cpu().numpy()


def scores_of(queries: torch.Tensor, corpus: Corpus, rows: torch.Tensor) -> torch.Tensor:
    """Products of each query with documents of its own.

    Args:
        queries: (q, d) float32.
        corpus: (n, d).
        rows: (q, m) int64 rows of ``corpus``, -1 for none.

    Returns:
        (q, m) float32, minus infinity where there is no document.
    """
    import torch

    scores = torch.empty(rows.shape, dtype=torch.float32, device=queries.device)
    step = max(1, _GATHERED // max(1, rows.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores[part] = products(queries[part], corpus, rows[part].clamp(min=0))
    return scores.masked_fill_(rows < 0, -math.inf)
