"""Exact search: the k documents with the largest dot product, ties in a stated order.

In: float32 embeddings of queries and documents, as torch tensors. They are compared as they
are; whoever wants cosine normalises both sides first.
Out: a ``Ranking``. Among equal scores the document with the lower tie rank comes first:
``tie_order`` gives the ranks by which trec_eval orders a run.

Large searches on the CPU go through faiss's brute-force kernels, which are faster than what torch
offers there; all others through torch. Scores are what float32 matrix multiplication gives. Its
last bit may depend on the shapes of the blocks and on the place in them, so two runs are sure to be
identical only with the same shapes and block size. Ties are scores that came out equal. Copies of a
document do for one query (tests/test_search.py), but no library promises it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.rank.measures import Ranking
from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["check_embeddings", "check_request", "faiss_search", "search", "tie_order"]

_QUERIES_AT_A_TIME = 4096
_FAISS_FROM = 1 << 26
"""Scores from which faiss does the work. Its threads go on spinning for a while, beside torch's: a
fit, which makes hundreds of small searches between other products, was half as fast with it."""
_FAISS_BLOCK = 2048
"""Queries and documents that faiss multiplies at a time: a tenth faster than its 4096 and 1024."""
_OVERFLOW = 2.0**127
"""Scores below it, and sums on the way to them, are finite in float32."""
_LOW_BITS = 0xFFFF_FFFF
_ALL_BUT_SIGN = 0x7FFF_FFFF


class _Ties(NamedTuple):
    """The tie rank of each row and the row of each tie rank, (n,) int64 both."""

    ranks: torch.Tensor
    rows: torch.Tensor


def tie_order(doc_ids: Sequence[str]) -> IntArray:
    """Rank documents as trec_eval orders those of equal score.

    trec_eval sorts ties by falling document id, compared byte by byte (strcmp on UTF-8, which
    is the order of code points and so of Python strings).

    Args:
        doc_ids: n distinct document ids.

    Returns:
        (n,) int64, a permutation of 0..n-1: the document with the largest id has rank 0.
    """
    order = sorted(range(len(doc_ids)), key=doc_ids.__getitem__, reverse=True)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order), dtype=np.int64)
    return ranks


def search(
    queries: torch.Tensor,
    corpus: torch.Tensor,
    k: int,
    *,
    exclude: torch.Tensor | None = None,
    tie_ranks: torch.Tensor | None = None,
    block_bytes: int = 256 * 2**20,
) -> Ranking:
    """Find the k best documents of each query by exact dot product.

    Args:
        queries: (q, d) float32, normalised by the caller if cosine is wanted.
        corpus: (n, d) float32 on the same device, likewise.
        k: How many documents to return; where fewer exist, the ranking is padded.
        exclude: (q,) int64, the row of a document to leave out for each query, -1 for none.
        tie_ranks: (n,) int64 permutation of 0..n-1; of equal scores the lower rank comes first.
            None is by row.
        block_bytes: Size of the score matrix held at a time. Memory beyond inputs and result
            stays around twice that.

    Returns:
        (q, k) rows and scores, best first; -0.0 counts as and becomes 0.0.

    Raises:
        ValueError: Shapes, types or row numbers do not fit, or an input or score is NaN or
            infinite.
    """
    bound = _check_inputs(queries, corpus, k, exclude)
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1, not {block_bytes}.")
    large = corpus.device.type == "cpu" and len(queries) * len(corpus) >= _FAISS_FROM
    # Where a product may overflow, torch says so; faiss would leave the document out.
    find = _faiss_best if large and bound < _OVERFLOW else _torch_best
    ties = _tie_tables(tie_ranks, len(corpus), corpus.device)
    doc_rows = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    n_best = min(k, len(corpus))
    if not n_best:
        return Ranking(doc_rows, scores)
    # Scores, rows and keys of what is found take up to about 64 bytes each while they are sorted.
    most = min(block_bytes // 4, block_bytes // (64 * n_best))
    for rows in _slices(len(queries), max(1, min(len(queries), _QUERIES_AT_A_TIME, most))):
        left_out = None if exclude is None else exclude[rows]
        found_scores, found_rows = find(queries[rows], corpus, n_best, left_out, ties, block_bytes)
        # What was left out comes last, at minus infinity, if there was room for it.
        found_rows = found_rows.where(found_scores > -math.inf, -1)
        doc_rows[rows, :n_best] = found_rows.cpu().numpy()
        scores[rows, :n_best] = found_scores.cpu().numpy()
    _check_complete(doc_rows, len(corpus), exclude)
    return Ranking(doc_rows, scores)


def faiss_search(
    queries: torch.Tensor,
    corpus: torch.Tensor,
    k: int,
    *,
    exclude: torch.Tensor | None = None,
    tie_ranks: torch.Tensor | None = None,
    block_bytes: int = 256 * 2**20,
) -> Ranking:
    """Do what ``search`` does with faiss's IndexFlatIP: a second opinion, not a replacement.

    faiss promises no order among equal scores and copies the corpus. ``tie_ranks`` and
    ``block_bytes`` are taken only so that it can stand where ``search`` stands.

    Args:
        queries: (q, d) float32.
        corpus: (n, d) float32.
        k: How many documents to return; where fewer exist, the ranking is padded.
        exclude: (q,) int64, the row of a document to leave out for each query, -1 for none.
        tie_ranks: Not used.
        block_bytes: Not used.

    Returns:
        (q, k) rows and scores, best first.

    Raises:
        ValueError: Shapes, types or row numbers do not fit, or an input is NaN or infinite.
    """
    del tie_ranks, block_bytes
    _check_inputs(queries, corpus, k, exclude)
    import faiss

    doc_rows = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    if not len(queries) or not len(corpus):
        return Ranking(doc_rows, scores)
    index = faiss.IndexFlatIP(corpus.shape[1])
    index.add(corpus.detach().cpu().contiguous().numpy())
    depth = min(len(corpus), k + 1)  # one to spare for the document left out
    found_scores, found_rows = index.search(queries.detach().cpu().contiguous().numpy(), depth)
    unwanted = np.zeros(found_rows.shape, dtype=np.bool_)
    if exclude is not None:
        unwanted = found_rows == exclude.cpu().numpy()[:, None]
    found_rows[unwanted] = -1
    found_scores[unwanted] = -np.inf
    order = np.argsort(unwanted, axis=1, kind="stable")[:, :k]
    doc_rows[:, : order.shape[1]] = np.take_along_axis(found_rows, order, axis=1)
    scores[:, : order.shape[1]] = np.take_along_axis(found_scores, order, axis=1)
    return Ranking(doc_rows, scores)


def _faiss_best(
    queries: torch.Tensor,
    corpus: torch.Tensor,
    k: int,
    exclude: torch.Tensor | None,
    ties: _Ties,
    block_bytes: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let faiss find the k best, and compare all documents where it had a choice among equals.

    It is asked for one document more than needed (two where one is left out): where the k-th and
    the next score differ, the k best are known for sure.

    Returns:
        Scores, float32, and rows, int64, (q, k) both, best first.
    """
    depth = min(len(corpus), k + (1 if exclude is None else 2))
    scores, rows = _knn(queries, corpus, depth)
    scores += 0.0  # -0.0 + 0.0 is 0.0
    if exclude is not None:
        scores[rows == exclude[:, None]] = -math.inf
    # faiss gives falling scores: they are in order but for ties and for what was left out.
    unsure = (scores[:, 1:] >= scores[:, :-1]).any(dim=1).nonzero().squeeze(1)
    if len(unsure):
        keys = _keys(scores[unsure], ties.ranks[rows[unsure]]).sort(dim=1, descending=True).values
        if depth > k:
            ends = _unpacked(keys[:, k - 1 : k + 1], ties)[0]
            tied = (ends[:, 0] == ends[:, 1]).nonzero().squeeze(1)
            if len(tied):
                of = unsure[tied]
                left_out = None if exclude is None else exclude[of]
                keys[tied, :k] = _best_keys(
                    queries[of], corpus, k, left_out, ties.ranks, block_bytes
                )
        scores[unsure, :k], rows[unsure, :k] = _unpacked(keys[:, :k], ties)
    return scores[:, :k], rows[:, :k]


def _knn(
    queries: torch.Tensor, corpus: torch.Tensor, depth: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and rows of the best documents, (q, depth), with as many threads as torch uses."""
    import faiss
    import torch

    wanted, given = (matrix.detach().contiguous().numpy() for matrix in (queries, corpus))
    # The number of threads is of the calling thread only; the blocks are of the process, and change
    # nothing but time.
    threads, blocks = faiss.omp_get_max_threads(), faiss.cvar
    before = blocks.distance_compute_blas_query_bs, blocks.distance_compute_blas_database_bs
    faiss.omp_set_num_threads(torch.get_num_threads())
    blocks.distance_compute_blas_query_bs = blocks.distance_compute_blas_database_bs = _FAISS_BLOCK
    try:
        scores, rows = faiss.knn(wanted, given, depth, metric=faiss.METRIC_INNER_PRODUCT)
    finally:
        faiss.omp_set_num_threads(threads)
        blocks.distance_compute_blas_query_bs, blocks.distance_compute_blas_database_bs = before
    return torch.from_numpy(scores), torch.from_numpy(rows)


def _torch_best(
    queries: torch.Tensor,
    corpus: torch.Tensor,
    k: int,
    exclude: torch.Tensor | None,
    ties: _Ties,
    block_bytes: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what ``_faiss_best`` does, on any device, and refuse scores that overflow."""
    return _unpacked(_best_keys(queries, corpus, k, exclude, ties.ranks, block_bytes), ties)


def _best_keys(
    queries: torch.Tensor,
    corpus: torch.Tensor,
    k: int,
    exclude: torch.Tensor | None,
    ranks: torch.Tensor,
    block_bytes: int,
) -> torch.Tensor:
    """Go through the corpus in blocks and keep the k best keys, (q, min(k, n)) int64 falling."""
    import torch

    best = torch.empty((len(queries), 0), dtype=torch.int64, device=corpus.device)
    # One query alone would go through a matrix-vector product, in which the last rows of a
    # matrix are added up in another order: copies of a document would not tie.
    factors = queries if len(queries) > 1 else queries.expand(2, -1)
    n_columns = max(1, min(len(corpus), block_bytes // 4 // len(factors)))
    with torch.no_grad():
        # One buffer for all blocks: the pages of fresh memory cost time for each.
        buffer = torch.empty(len(factors) * n_columns, dtype=torch.float32, device=corpus.device)
        for columns in _slices(len(corpus), n_columns):
            part = corpus[columns]
            products = buffer[: len(factors) * len(part)].view(len(factors), len(part))
            torch.mm(factors, part.T, out=products)
            scores = products[: len(queries)]
            if exclude is not None:
                _leave_out(scores, exclude - columns.start)
            found = torch.cat([best, _block_keys(scores, ranks[columns], k)], dim=1)
            best = found.topk(min(k, found.shape[1]), dim=1).values
    return best


def _leave_out(scores: torch.Tensor, columns: torch.Tensor) -> None:
    """Set one column of each row to minus infinity, where it lies within the block."""
    inside = ((columns >= 0) & (columns < scores.shape[1])).nonzero().squeeze(1)
    scores[inside, columns[inside]] = -math.inf


def _block_keys(scores: torch.Tensor, ranks: torch.Tensor, k: int) -> torch.Tensor:
    """Return the keys of the k best of each row of a block, ties at the cut resolved.

    Keys for the whole block would take longer than topk on the scores. topk chooses freely among
    equal scores, but one score more than needed shows where it had a choice: only there, where
    the k-th and the next are equal, are all keys of the row compared.
    """
    top = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if not bool((top.values[:, 0] < math.inf).all()):  # topk puts NaN first
        raise ValueError("A score is NaN or too large for float32; scale the embeddings down.")
    keys = _keys(top.values, ranks[top.indices])[:, :k]
    if top.values.shape[1] <= k:
        return keys
    tied = (top.values[:, k - 1] == top.values[:, k]).nonzero().squeeze(1)
    # Keys are int64 and pass through copies: a sixteenth of the rows keeps them below the block.
    for piece in _slices(len(tied), max(1, len(scores) // 16)):
        rows = tied[piece]
        keys[rows] = _keys(scores[rows], ranks.expand(len(rows), -1)).topk(k, dim=1).values
    return keys


def _keys(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Pack score and tie rank into an int64 that is larger for the better document.

    The bits of a float32 read as int32 are in the order of the numbers if it is positive and in
    the opposite order if it is negative; flipping all but the sign mends the latter.
    """
    import torch

    bits = (scores + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0
    ordered = bits.where(bits >= 0, bits ^ _ALL_BUT_SIGN).to(torch.int64)
    return (ordered << 32) + (_LOW_BITS - ranks)


def _unpacked(keys: torch.Tensor, ties: _Ties) -> tuple[torch.Tensor, torch.Tensor]:
    """Unpack scores and rows from what ``_keys`` packed."""
    import torch

    ordered = (keys >> 32).to(torch.int32)
    bits = ordered.where(ordered >= 0, ordered ^ _ALL_BUT_SIGN)
    return bits.view(torch.float32), ties.rows[_LOW_BITS - (keys & _LOW_BITS)]


def _tie_tables(tie_ranks: torch.Tensor | None, n_docs: int, device: torch.device) -> _Ties:
    import torch

    by_row = torch.arange(n_docs, device=device)
    if tie_ranks is None:
        return _Ties(by_row, by_row)
    if tie_ranks.shape != (n_docs,) or tie_ranks.dtype != torch.int64:
        raise ValueError(
            f"tie_ranks must be int64 of shape ({n_docs},), not {tie_ranks.dtype} of "
            f"{tuple(tie_ranks.shape)}."
        )
    ranks = tie_ranks.to(device)
    rows = torch.full_like(by_row, -1)
    if bool(((ranks >= 0) & (ranks < n_docs)).all()):
        rows[ranks] = by_row
    if bool((rows < 0).any()):
        raise ValueError(f"tie_ranks must hold each of 0..{n_docs - 1} once.")
    return _Ties(ranks, rows)


def _slices(length: int, step: int) -> Iterator[slice]:
    for begin in range(0, length, step):
        yield slice(begin, min(length, begin + step))


def check_embeddings(name: str, embeddings: torch.Tensor) -> float:
    """Refuse what is no float32 matrix of finite numbers; return the largest without its sign.

    Raises:
        ValueError: It is not; the message begins with ``name``.
    """
    import torch

    if embeddings.ndim != 2 or embeddings.dtype != torch.float32:
        raise ValueError(
            f"{name} must be a float32 matrix, not {embeddings.dtype} of shape "
            f"{tuple(embeddings.shape)}."
        )
    if not embeddings.numel():
        return 0.0
    low, high = (float(end) for end in embeddings.detach().aminmax())  # NaN, if there is one
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"{name} must hold finite numbers; NaN or infinity was found.")
    return max(abs(low), abs(high))


def check_request(
    queries: torch.Tensor, k: int, exclude: torch.Tensor | None, corpus_shape: tuple[int, int]
) -> float:
    """Refuse what cannot be asked of a corpus of n documents and d dimensions.

    Returns:
        The largest number of the queries, without its sign.

    Raises:
        ValueError: k, shapes, types or row numbers do not fit, or a query is not finite.
    """
    import torch

    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    largest = check_embeddings("queries", queries)
    n_docs, dimensions = corpus_shape
    if queries.shape[1] != dimensions:
        raise ValueError(
            f"queries have {queries.shape[1]} dimensions, but the corpus has {dimensions}."
        )
    if exclude is None:
        return largest
    if exclude.shape != (len(queries),) or exclude.dtype != torch.int64:
        raise ValueError(
            f"exclude must be int64 of shape ({len(queries)},), not {exclude.dtype} of "
            f"{tuple(exclude.shape)}."
        )
    if len(exclude) and not -1 <= int(exclude.min()) <= int(exclude.max()) < n_docs:
        raise ValueError(f"exclude must hold rows from 0 to {n_docs - 1}, or -1 for none.")
    return largest


def _check_inputs(
    queries: torch.Tensor, corpus: torch.Tensor, k: int, exclude: torch.Tensor | None
) -> float:
    """Refuse what would give a wrong ranking without a word; return what no score can exceed."""
    largest = check_embeddings("corpus", corpus)
    n_docs, dimensions = corpus.shape
    return dimensions * largest * check_request(queries, k, exclude, (n_docs, dimensions))


def _check_complete(doc_rows: IntArray, n_docs: int, exclude: torch.Tensor | None) -> None:
    """Refuse scores of minus infinity: they would pass for documents that were left out."""
    n_eligible = np.full(len(doc_rows), n_docs, dtype=np.int64)
    if exclude is not None:
        n_eligible -= (exclude >= 0).cpu().numpy()
    n_found = np.count_nonzero(doc_rows >= 0, axis=1)
    if np.any(n_found < np.minimum(n_eligible, doc_rows.shape[1])):
        raise ValueError("A score is too large for float32; scale the embeddings down.")
