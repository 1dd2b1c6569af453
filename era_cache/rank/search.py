"""Exact search: the k documents with the largest dot product, ties in a stated order.

In: float32 embeddings of queries and documents, as torch tensors. They are compared as they
are; whoever wants cosine normalises both sides first.
Out: a ``Ranking``. Among equal scores the document with the lower tie rank comes first:
``ties.tie_order`` gives the ranks by which trec_eval orders a run.

Scores are what float32 matrix multiplication gives. Its last bit may depend on the shapes of the
blocks and on the place in them, so two runs are sure to be identical only with the same shapes and
block size. Ties are scores that came out equal. Copies of a document do for one query
(tests/rank/test_search.py), but no library promises it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from era_cache.rank.corpus import UnitRows, enough_rows
from era_cache.rank.dots import BLOCK_BYTES, dots
from era_cache.rank.largest import falling, highest
from era_cache.rank.measures import Ranking
from era_cache.rank.request import check_inputs
from era_cache.rank.ties import packed, score_of, tie_tables, unpacked
from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["best_packed_of", "search"]

_QUERIES_AT_A_TIME = 4096
_ONE_BLOCK_BYTES = 32 << 20
"""Scores that are looked at as one block: to merge a few takes longer than they gain by a cache."""
_DEVICE_BYTES, _FOUND_BYTES = 256 << 20, 256 << 20
_MERGED = 64
"""Keys of a query that may wait before they are merged with its best, or k of them."""
_LOWEST = -(1 << 63)
_SORTED = 256
"""Columns up to which all keys of a row are sorted, or twice as many as are looked for: that is
faster than to look for the best first."""


def search(
    queries: torch.Tensor,
    corpus: Corpus,
    k: int,
    *,
    exclude: torch.Tensor | None = None,
    tie_ranks: torch.Tensor | None = None,
    block_bytes: int | None = None,
) -> Ranking:
    """Find the k best documents of each query by exact dot product.

    Args:
        queries: (q, d) float32, normalised by the caller if cosine is wanted.
        corpus: (n, d) float32 on the same device, likewise; or ``HalfRows``.
        k: How many documents to return; where fewer exist, the ranking is padded.
        exclude: (q,) int64, the row of a document to leave out for each query, -1 for none.
        tie_ranks: (n,) int64 permutation of 0..n-1; of equal scores the lower rank comes first.
            None is by row.
        block_bytes: Size of the score matrix held at a time; None is what a processor's cache holds
            (8 MiB; a matrix of up to 32 MiB whole), on other devices 256 MiB. Memory beyond inputs
            and result stays around twice that, and 256 MiB while what is found is sorted.

    Returns:
        (q, k) rows and scores, best first; -0.0 counts as and becomes 0.0.

    Raises:
        ValueError: Shapes, types or row numbers do not fit, or an input or score is NaN or
            infinite.
    """
    check_inputs(queries, corpus, k, exclude)
    if block_bytes is None:
        few = 4 * len(queries) * len(corpus) <= _ONE_BLOCK_BYTES
        block_bytes = _ONE_BLOCK_BYTES if few else BLOCK_BYTES
        if corpus.device.type != "cpu":
            block_bytes = _DEVICE_BYTES
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1, not {block_bytes}.")
    ties = tie_tables(tie_ranks, len(corpus), corpus.device)
    doc_rows = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    n_best = min(k, len(corpus))
    if not n_best:
        return Ranking(doc_rows, scores)
    # Scores, rows and keys of what is found take up to about 64 bytes each while they are sorted.
    most = min(block_bytes // 4, max(block_bytes, _FOUND_BYTES) // (64 * n_best))
    for rows in _slices(len(queries), max(1, min(len(queries), _QUERIES_AT_A_TIME, most))):
        left_out = None if exclude is None else exclude[rows]
        keys = _bestpacked(queries[rows], corpus, n_best, left_out, ties.ranks, block_bytes)
        found_scores, found_rows = unpacked(keys, ties)
        # What was left out comes last, at minus infinity, if there was room for it.
        found_rows = found_rows.where(found_scores > -math.inf, -1)
        doc_rows[rows, :n_best] = found_rows.cpu().numpy()
        scores[rows, :n_best] = found_scores.cpu().numpy()
    _check_complete(doc_rows, len(corpus), exclude)
    return Ranking(doc_rows, scores)


def _bestpacked(
    queries: torch.Tensor,
    corpus: Corpus,
    k: int,
    exclude: torch.Tensor | None,
    ranks: torch.Tensor,
    block_bytes: int,
) -> torch.Tensor:
    """Go through the corpus in blocks and keep the k <= n best keys, (q, k) int64 falling."""
    import torch

    best: _Best | None = None
    factors = enough_rows(queries)
    unit = isinstance(corpus, UnitRows)  # no product of unit rows is too large
    n_columns = min(len(corpus), max(k, block_bytes // 4 // len(factors)))
    with torch.no_grad():
        for columns in _slices(len(corpus), n_columns):
            scores = dots(factors, corpus[columns])[: len(queries)]
            if exclude is not None:
                _leave_out(scores, exclude - columns.start)
            if best is None:
                best = _Best(best_packed_of(scores, ranks[columns], k))
                continue
            if not unit:
                check_scores(scores.sum(dim=1))
            best.add(*_not_below(scores, best.least(), ranks[columns]))
    return queries.new_zeros(0, k, dtype=torch.int64) if best is None else best.merged()


class _Best:
    """The k best keys of each query so far, and behind them those that wait to be merged.

    Most blocks find a few keys for a query, and a merge of all queries costs more than that.

    Args:
        keys: (q, k) int64 of the first block, falling.
    """

    def __init__(self, keys: torch.Tensor) -> None:
        self._k = keys.shape[1]
        room = max(_MERGED, self._k)
        self._table = keys.new_full((len(keys), self._k + room), _LOWEST)
        self._table[:, : self._k] = keys
        self._waiting = keys.new_zeros(len(keys))

    def least(self) -> torch.Tensor:
        """(q,) int64, a key below which no other is among the best."""
        return self._table[:, self._k - 1]

    def add(self, rows: torch.Tensor, keys: torch.Tensor) -> None:
        """Take up keys (m,) of queries (m,), which rise."""
        import torch

        counts = torch.bincount(rows, minlength=len(self._table))
        room = self._table.shape[1] - self._k
        if int((self._waiting + counts).max()) > room:
            self.merged()
            if (most := int(counts.max())) > room:
                wider = self._table.new_full((len(self._table), most - room), _LOWEST)
                self._table = torch.cat([self._table, wider], dim=1)
        first = counts.cumsum(0) - counts
        places = torch.arange(len(rows), device=rows.device) + (self._waiting - first)[rows]
        self._table[rows, self._k + places] = keys
        self._waiting += counts

    def merged(self) -> torch.Tensor:
        """The k best keys of all, (q, k) int64 falling."""
        if int(self._waiting.max()):
            self._table[:, : self._k] = falling(self._table, self._k)
            self._table[:, self._k :] = _LOWEST
            self._waiting.zero_()
        return self._table[:, : self._k]


def _not_below(
    scores: torch.Tensor, least: torch.Tensor, ranks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All scores that may be among the best: their queries (m,), which rise, and keys (m,) int64.

    Once some blocks are seen few scores are, and comparing all with one number takes a third of the
    time of topk.

    Args:
        scores: (q, n) float32.
        least: (q,) int64, the key that a better one must exceed.
        ranks: (n,) int64 of the columns.
    """
    limit = score_of(least)
    asked = (scores.amax(dim=1) >= limit).nonzero().squeeze(1)
    if 2 * len(asked) > len(scores):
        rows, columns = _places(scores >= limit[:, None])
        return rows, packed(scores[rows, columns], ranks[columns])
    some = scores[asked]
    rows, columns = _places(some >= limit[asked, None])
    return asked[rows], packed(some[rows, columns], ranks[columns])


def _places(marks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of what is true, row by row; numpy takes a third of torch's time."""
    import torch

    if marks.device.type != "cpu":
        rows, columns = marks.nonzero(as_tuple=True)
        return rows, columns
    flat = torch.from_numpy(np.flatnonzero(marks.numpy()))
    rows = flat.div(marks.shape[1], rounding_mode="floor")
    return rows, flat - rows * marks.shape[1]


def _leave_out(scores: torch.Tensor, columns: torch.Tensor) -> None:
    """Set one column of each row to minus infinity, where it lies within the block."""
    inside = ((columns >= 0) & (columns < scores.shape[1])).nonzero().squeeze(1)
    scores[inside, columns[inside]] = -math.inf


def best_packed_of(scores: torch.Tensor, ranks: torch.Tensor, k: int) -> torch.Tensor:
    """Keys (``ties.packed``) of the k best of each row of scores, falling.

    ``ranks`` are (n,) of the columns, or (q, n) where each row has documents of its own.

    Keys for the whole block would take longer than to find the highest scores. Which of equal ones
    are found is chance, but one more than needed shows where there was a choice: only there, where
    the k-th and the next are equal, are all keys of the row compared.
    """
    if not scores.shape[1]:
        return ranks.new_zeros(len(scores), 0)
    n, own = scores.shape[1], ranks.dim() == 2
    k = min(k, n)
    if own and n <= max(_SORTED, 2 * k):
        check_scores(scores)
        return falling(packed(scores, ranks), k)
    values, columns = highest(scores, min(k + 1, n))
    check_scores(values.amax(dim=1))  # NaN among them stays NaN
    # A third of the time of ranks[columns].
    theirs = ranks if own else ranks.expand(len(columns), -1)
    keys = packed(values, theirs.gather(1, columns))[:, :k]
    if n == k:
        return falling(keys, k)
    tied = (values[:, :k].amin(dim=1) == values[:, k]).nonzero().squeeze(1)
    # Keys are int64 and pass through copies: a sixteenth of the rows keeps them below the block.
    for piece in _slices(len(tied), max(1, len(scores) // 16)):
        rows = tied[piece]
        theirs = ranks[rows] if own else ranks.expand(len(rows), -1)
        keys[rows] = falling(packed(scores[rows], theirs), k)
    return falling(keys, k)


def check_scores(scores: torch.Tensor) -> None:
    """Refuse NaN and infinity among scores. Raises ``ValueError``."""
    if not bool((scores < math.inf).all()):
        raise ValueError("A score is NaN or too large for float32; scale the embeddings down.")


def _slices(length: int, step: int) -> Iterator[slice]:
    for begin in range(0, length, step):
        yield slice(begin, min(length, begin + step))


def _check_complete(doc_rows: IntArray, n_docs: int, exclude: torch.Tensor | None) -> None:
    """Refuse scores of minus infinity: they would pass for documents that were left out."""
    n_eligible = np.full(len(doc_rows), n_docs, dtype=np.int64)
    if exclude is not None:
        n_eligible -= (exclude >= 0).cpu().numpy()
    n_found = np.count_nonzero(doc_rows >= 0, axis=1)
    if np.any(n_found < np.minimum(n_eligible, doc_rows.shape[1])):
        raise ValueError("A score is too large for float32; scale the embeddings down.")
