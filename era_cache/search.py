"""Exact search: the k documents with the largest dot product, ties in a stated order.

In: float32 embeddings of queries and documents, as torch tensors. They are compared as they
are; whoever wants cosine normalises both sides first.
Out: a ``Ranking``. Among equal scores the document with the lower tie rank comes first:
``tie_order`` gives the ranks by which trec_eval orders a run.

On the CPU the products and the selection are those of faiss's brute-force search, which is faster
than what torch offers; elsewhere they are torch's. Scores are what float32 matrix multiplication
gives. Its last bit may depend on the shapes of the blocks and on the place in them, so two runs are
sure to be identical only with the same shapes and block size, and copies of a document may differ
in that bit. Ties are scores that came out equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from era_cache.measures import Ranking
from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["faiss_search", "search", "tie_order"]

_QUERIES_AT_A_TIME = 4096
_OVERFLOW = 2.0**127
"""Scores below it, and sums on the way to them, are finite in float32."""
_LOW_BITS = 0xFFFF_FFFF
_ALL_BUT_SIGN = 0x7FFF_FFFF


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
            stays around twice that, plus the candidates of 4096 queries.

    Returns:
        (q, k) rows and scores, best first; -0.0 counts as and becomes 0.0.

    Raises:
        ValueError: Shapes, types or row numbers do not fit, or an input or score is NaN or
            infinite.
    """
    bound = _check_inputs(queries, corpus, k, exclude)
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1, not {block_bytes}.")
    # Where a product may overflow, torch says so; faiss would leave the document out.
    find = _faiss_keys if corpus.device.type == "cpu" and bound < _OVERFLOW else _best_keys
    ranks, rows_by_rank = _tie_tables(tie_ranks, len(corpus), corpus.device)
    doc_rows = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    n_rows = max(1, min(len(queries), _QUERIES_AT_A_TIME, block_bytes // 4))
    for rows in _slices(len(queries), n_rows):
        left_out = None if exclude is None else exclude[rows]
        keys = find(queries[rows], corpus, k, left_out, ranks, block_bytes)
        found_scores, found_ranks = _scores_and_ranks(keys)
        # What was left out comes last, at minus infinity, if there was room for it.
        found_rows = rows_by_rank[found_ranks].where(found_scores > -math.inf, -1)
        doc_rows[rows, : keys.shape[1]] = found_rows.cpu().numpy()
        scores[rows, : keys.shape[1]] = found_scores.cpu().numpy()
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


def _faiss_keys(
    queries: torch.Tensor,
    corpus: torch.Tensor,
    k: int,
    exclude: torch.Tensor | None,
    ranks: torch.Tensor,
    block_bytes: int,
) -> torch.Tensor:
    """Let faiss find the k best, and compare all documents where it had a choice among equals.

    It is asked for one document more than needed (two where one is left out): where the k-th and
    the next score differ, the k best are known for sure.
    """
    import torch

    n_best = min(k, len(corpus))
    depth = min(len(corpus), k + (1 if exclude is None else 2))
    if not n_best:
        return torch.empty((len(queries), 0), dtype=torch.int64)
    scores, rows = _faiss_best(queries, corpus, depth)
    if exclude is not None:
        scores[rows == exclude[:, None]] = -math.inf
    keys = _keys(scores, ranks[rows]).sort(dim=1, descending=True).values
    if depth < len(corpus):
        values, _ = _scores_and_ranks(keys[:, n_best - 1 : n_best + 1])
        tied = (values[:, 0] == values[:, 1]).nonzero().squeeze(1)
        if len(tied):
            left_out = None if exclude is None else exclude[tied]
            keys[tied, :n_best] = _best_keys(queries[tied], corpus, k, left_out, ranks, block_bytes)
    return keys[:, :n_best]


def _faiss_best(
    queries: torch.Tensor, corpus: torch.Tensor, depth: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and rows of the best documents, (q, depth), with as many threads as torch uses."""
    import faiss
    import torch

    wanted, given = (matrix.detach().contiguous().numpy() for matrix in (queries, corpus))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        scores, rows = faiss.knn(wanted, given, depth, metric=faiss.METRIC_INNER_PRODUCT)
    finally:
        faiss.omp_set_num_threads(threads)
    return torch.from_numpy(scores), torch.from_numpy(rows)


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
    n_columns = max(1, min(len(corpus), block_bytes // 4 // len(queries)))
    with torch.no_grad():
        # One buffer for all blocks: the pages of fresh memory cost time for each.
        buffer = torch.empty(len(queries) * n_columns, dtype=torch.float32, device=corpus.device)
        for columns in _slices(len(corpus), n_columns):
            part = corpus[columns]
            scores = buffer[: len(queries) * len(part)].view(len(queries), len(part))
            torch.mm(queries, part.T, out=scores)
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


def _scores_and_ranks(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unpack what ``_keys`` packed."""
    import torch

    ordered = (keys >> 32).to(torch.int32)
    bits = ordered.where(ordered >= 0, ordered ^ _ALL_BUT_SIGN)
    return bits.view(torch.float32), _LOW_BITS - (keys & _LOW_BITS)


def _tie_tables(
    tie_ranks: torch.Tensor | None, n_docs: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tie rank of each row and the row of each tie rank, (n,) int64 both."""
    import torch

    by_row = torch.arange(n_docs, device=device)
    if tie_ranks is None:
        return by_row, by_row
    if tie_ranks.shape != (n_docs,) or tie_ranks.dtype != torch.int64:
        raise ValueError(
            f"tie_ranks must be int64 of shape ({n_docs},), not {tie_ranks.dtype} of "
            f"{tuple(tie_ranks.shape)}."
        )
    ranks = tie_ranks.to(device)
    in_order = ranks.sort()
    if not torch.equal(in_order.values, by_row):
        raise ValueError(f"tie_ranks must hold each of 0..{n_docs - 1} once.")
    return ranks, in_order.indices


def _slices(length: int, step: int) -> Iterator[slice]:
    for begin in range(0, length, step):
        yield slice(begin, min(length, begin + step))


def _check_inputs(
    queries: torch.Tensor, corpus: torch.Tensor, k: int, exclude: torch.Tensor | None
) -> float:
    """Refuse what would give a wrong ranking without a word; return what no score can exceed."""
    import torch

    bound = float(queries.shape[-1])

    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    for name, embeddings in (("queries", queries), ("corpus", corpus)):
        if embeddings.ndim != 2 or embeddings.dtype != torch.float32:
            raise ValueError(
                f"{name} must be a float32 matrix, not {embeddings.dtype} of shape "
                f"{tuple(embeddings.shape)}."
            )
        if not embeddings.numel():
            continue
        low, high = embeddings.detach().aminmax()  # NaN, if there is one
        largest = max(abs(float(low)), abs(float(high)))
        if not math.isfinite(float(low)) or not math.isfinite(largest):
            raise ValueError(f"{name} must hold finite numbers; NaN or infinity was found.")
        bound *= largest
    if queries.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"queries have {queries.shape[1]} dimensions, but the corpus has {corpus.shape[1]}."
        )
    if exclude is None:
        return bound
    if exclude.shape != (len(queries),) or exclude.dtype != torch.int64:
        raise ValueError(
            f"exclude must be int64 of shape ({len(queries)},), not {exclude.dtype} of "
            f"{tuple(exclude.shape)}."
        )
    if len(exclude) and not -1 <= int(exclude.min()) <= int(exclude.max()) < len(corpus):
        raise ValueError(f"exclude must hold rows from 0 to {len(corpus) - 1}, or -1 for none.")
    return bound


def _check_complete(doc_rows: IntArray, n_docs: int, exclude: torch.Tensor | None) -> None:
    """Refuse scores of minus infinity: they would pass for documents that were left out."""
    n_eligible = np.full(len(doc_rows), n_docs, dtype=np.int64)
    if exclude is not None:
        n_eligible -= (exclude >= 0).cpu().numpy()
    n_found = np.count_nonzero(doc_rows >= 0, axis=1)
    if np.any(n_found < np.minimum(n_eligible, doc_rows.shape[1])):
        raise ValueError("A score is too large for float32; scale the embeddings down.")
