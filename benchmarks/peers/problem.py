"""What a peer gets and gives back, as files of plain arrays.

Imported by our interpreter and by every peer's, so only numpy is needed here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "FloatArray",
    "IntArray",
    "Map",
    "Problem",
    "grade_matrix",
    "main",
    "procrustes",
    "unit",
    "validation",
]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Map = Callable[[FloatArray], npt.NDArray[Any]]
"""Takes (n, d_large) query vectors to (n, d_small) vectors, to be searched by cosine."""


class Problem(NamedTuple):
    """All that a peer may see. Judgements of the test queries are not part of it.

    Vectors are float32 unit rows: queries by the large model, the corpus by the small one, the
    alignment texts by both. Judgements are int64 rows of query row, document row, grade.
    """

    train_queries: FloatArray
    val_queries: FloatArray
    test_queries: FloatArray
    corpus: FloatArray
    align_large: FloatArray
    align_small: FloatArray
    train_qrels: IntArray
    val_qrels: IntArray

    def save(self, path: Path) -> None:
        """Write the arrays as one ``.npz`` file."""
        np.savez(path, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> Problem:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls._fields})


def unit(rows: npt.NDArray[Any]) -> FloatArray:
    """Scale rows to length 1; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def procrustes(problem: Problem) -> FloatArray:
    """The (d_small, d_large) map with orthonormal rows or columns that fits the alignment texts."""
    u, _, vt = np.linalg.svd(problem.align_small.T @ problem.align_large, full_matrices=False)
    return np.asarray(u @ vt, dtype=np.float32)


def grade_matrix(qrels: IntArray, queries: int, documents: int) -> FloatArray:
    """Spread judgements over a (queries, documents) matrix; 0 where there is none."""
    grades = np.zeros((queries, documents), dtype=np.float32)
    grades[qrels[:, 0], qrels[:, 1]] = np.maximum(qrels[:, 2], 0)
    return grades


def validation(problem: Problem) -> Callable[[npt.NDArray[Any]], float]:
    """Return the function that gives mean nDCG@10 of mapped validation queries.

    For peers that choose by it; the benchmark measures test queries with its own measures.
    """
    corpus, k = problem.corpus, min(10, len(problem.corpus))
    grades = grade_matrix(problem.val_qrels, len(problem.val_queries), len(corpus))
    judged = grades.max(axis=1) > 0
    grades = grades[judged]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best = -np.sort(-grades, axis=1)[:, :k] @ discounts

    def value(mapped: npt.NDArray[Any]) -> float:
        scores = unit(mapped[judged]) @ corpus.T
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
        ranked = np.take_along_axis(top, order, axis=1)
        return float(np.mean(np.take_along_axis(grades, ranked, axis=1) @ discounts / best))

    return value


def main(fit: Callable[[Problem, str], Map]) -> None:
    """Run a peer: ``python -m benchmarks.peers.<peer> PROBLEM.npz OUT.npz [VARIANT]``.

    Writes ``mapped``, the adapted test queries, and ``seconds``, the time of ``fit`` alone.
    """
    problem = Problem.load(Path(sys.argv[1]))
    variant = sys.argv[3] if len(sys.argv) > 3 else ""
    start = time.perf_counter()
    adapt = fit(problem, variant)
    seconds = time.perf_counter() - start
    np.savez(sys.argv[2], mapped=unit(adapt(problem.test_queries)), seconds=np.float64(seconds))
