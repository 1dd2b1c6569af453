"""First-stage scores of one query at a time, for the candidates that they join.

In: a collection, stored lists, texts. Out: a ``FirstStage`` of one query; for a text that the store
does not know BM25 is computed here, as era-embed does it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from era_cache.encode.bm25 import BM25, Bm25Index
from era_cache.errors import InputError
from era_cache.rank.lists import FirstStage, stacked
from era_cache.serve.source import Source
from era_cache.serve.texts import Texts
from era_cache.types import IntArray

__all__ = ["QueryScores"]


class QueryScores:
    """Scores of the first stage that an adapter's candidates are joined with.

    Args:
        source: with the lists.
        texts: of the documents; without, only stored queries have scores.
        device: torch device.
    """

    def __init__(self, source: Source, texts: Texts | None, device: str) -> None:
        self._source, self._texts, self._device = source, texts, device
        self._index: Bm25Index | None = None
        self._rows: list[np.ndarray] = []

    def stored(self, rows: IntArray) -> FirstStage:
        """Of queries of the collection.

        Raises:
            InputError: one has no list.
        """
        lists = self._source.lists
        first = lists.select(rows, self._device)
        if first is None:
            why = lists.problems[-1] if lists.problems else "Run era-embed with --bm25."
            raise InputError(
                f"The candidates joined with {lists.name} need its lists. {why} Or leave these "
                "candidates out (--candidates)."
            )
        return first

    def of(self, rows: IntArray, texts: Sequence[str]) -> FirstStage:
        """Of several queries: stored ones by their rows, the others (-1) by their texts.

        Raises:
            InputError: one has no scores and cannot be scored here.
        """
        known = np.flatnonzero(rows >= 0)
        others = np.flatnonzero(rows < 0)
        parts = [self.stored(rows[known])] if len(known) else []
        parts += [self.typed(texts[at]) for at in others.tolist()]
        together = stacked(parts)
        assert together is not None
        return together.select(np.argsort(np.concatenate([known, others])))

    def typed(self, text: str) -> FirstStage:
        """Of any text.

        Raises:
            InputError: it cannot be scored here.
        """
        import torch

        name = self._source.lists.name
        if self._index is None:
            self._index = self._built()
        ((docs, scores, floor),) = self._index.ask([text])
        rows = [self._rows[doc] for doc in docs.tolist()]
        times = [len(some) for some in rows]
        found = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        values = np.repeat(scores, times)
        return FirstStage(
            name,
            torch.from_numpy(found)[None].to(self._device),
            torch.from_numpy(values)[None].to(self._device),
            torch.tensor([floor], dtype=torch.float32, device=self._device),
        )

    def _built(self) -> Bm25Index:
        """Index the documents, those of equal text once, as the stored lists were made."""
        lists, texts = self._source.lists, self._texts
        settings = self._source.first_stage.get(lists.name, {})
        whole = texts is not None and None not in texts.documents
        if lists.name != BM25 or "language" not in settings or texts is None or not whole:
            raise InputError(
                f"A query that the store does not hold has no {lists.name} scores yet"
                + (": give the documents' texts (--texts)" if lists.name == BM25 else "")
                + ", or leave out the candidates that need them (--candidates)."
            )
        rows_of: dict[str, list[int]] = {}
        for row, text in enumerate(texts.documents):
            rows_of.setdefault(str(text), []).append(row)
        self._rows = [np.array(rows, dtype=np.int64) for rows in rows_of.values()]
        return Bm25Index(list(rows_of), str(settings["language"]))
