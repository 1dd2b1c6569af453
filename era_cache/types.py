"""Words that every module shares: roles, rows of qrels, array types."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "FloatArray",
    "IntArray",
    "Keys",
    "Progress",
    "Qrels",
    "Role",
    "Where",
    "silent",
]

Array = NDArray[Any]
FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Where = Path | str
"""Where a store lies: a folder, or a URL."""
Keys = NDArray[np.uint8]
"""Row keys, shape (n, 16) uint8: the 128-bit digest of (role, instruction, text)."""


Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, how much there is)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Tell nobody of progress."""


class Role(enum.Enum):
    """What a text is for. Always an argument, never guessed from the text."""

    QUERY = "query"
    DOCUMENT = "document"


class Qrels(NamedTuple):
    """Relevance judgements as three parallel columns of length n.

    ``query_rows`` and ``doc_rows`` are row numbers (int64) into a collection's queries and
    documents; ``relevance`` (int64) is the grade, where 1 and above is positive, and 0 and below
    is judged non-relevant.
    """

    query_rows: IntArray
    doc_rows: IntArray
    relevance: IntArray

    def take(self, which: Array) -> Qrels:
        """Some of the judgements, by a mask or by place."""
        return Qrels(self.query_rows[which], self.doc_rows[which], self.relevance[which])

    def select_queries(self, query_rows: IntArray) -> Qrels:
        """Keep the judgements of ``query_rows`` and renumber queries by position in it.

        Args:
            query_rows: (m,) int64, distinct row numbers.

        Returns:
            Judgements whose query row i means ``query_rows[i]``, in the original order.
        """
        if not len(query_rows):
            empty = np.empty(0, dtype=np.int64)
            return Qrels(empty, empty, empty)
        order = np.argsort(query_rows, kind="stable")
        found = np.searchsorted(query_rows[order], self.query_rows)
        found = np.minimum(found, len(order) - 1)
        keep = query_rows[order[found]] == self.query_rows
        return Qrels(order[found[keep]], self.doc_rows[keep], self.relevance[keep])
