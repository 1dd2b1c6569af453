"""From the rankings of one query to what is shown of them: marks, movements, far ranks.

In: document rows and scores of each candidate, the query's judgements. Out: columns of hits, and
the relevant documents that some column does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from era_cache.fitting.candidates import described
from era_cache.fitting.held_out import PRIMARY
from era_cache.rank.measures import Ranking, evaluate
from era_cache.serve.answer import Column, Elsewhere, Hit
from era_cache.serve.source import BASELINE, Source
from era_cache.serve.texts import Texts
from era_cache.types import IntArray, Qrels

__all__ = ["Rankings"]


class Rankings(NamedTuple):
    """One query under several candidates.

    Row i of ``ranking`` is that of ``names[i]``; ``qrels`` holds the judgements of this query
    alone; ``itself`` is the row of the document that it must not find, -1 for none.
    """

    source: Source
    texts: Texts | None
    names: Sequence[str]
    ranking: Ranking
    qrels: Qrels
    itself: int
    depth: int

    def columns(self) -> list[Column]:
        """The best documents of each candidate."""
        grades, places = self._grades(), self._places()
        before = places.get(BASELINE, {})
        return [
            Column(
                name,
                described(name),
                name == self.source.chosen,
                self._value(number),
                [
                    Hit(
                        rank=rank,
                        document=self.source.collection.doc_ids[row],
                        score=float(self.ranking.scores[number, rank - 1]),
                        grade=grades.get(row),
                        baseline_rank=before.get(row),
                        text=self._text(row),
                    )
                    for row, rank in places[name].items()
                    if rank <= self.depth
                ],
            )
            for number, name in enumerate(self.names)
        ]

    def elsewhere(self) -> list[Elsewhere]:
        """Relevant documents that some column does not show, the nearest first."""
        places = self._places()
        beyond = self.ranking.doc_rows.shape[1] + 1
        found = []
        for row, grade in self._grades().items():
            ranks = {name: places[name].get(row) for name in self.names}
            nearest, farthest = (f(rank or beyond for rank in ranks.values()) for f in (min, max))
            if grade >= 1 and farthest > self.depth:
                document = self.source.collection.doc_ids[row]
                found.append((nearest, Elsewhere(document, grade, ranks, self._text(row))))
        return [entry for _, entry in sorted(found, key=lambda e: (e[0], e[1].document))]

    def _grades(self) -> dict[int, int]:
        rows, grades = self.qrels.doc_rows.tolist(), self.qrels.relevance.tolist()
        return {row: grade for row, grade in zip(rows, grades, strict=True) if row != self.itself}

    def _places(self) -> dict[str, dict[int, int]]:
        return {
            name: _ranks(rows) for name, rows in zip(self.names, self.ranking.doc_rows, strict=True)
        }

    def _value(self, number: int) -> float | None:
        """The primary measure; None where nothing relevant is known."""
        if not (self.qrels.relevance >= 1).any():
            return None
        rows = self.ranking.doc_rows[number : number + 1]
        documents = len(self.source.collection.doc_ids)
        return float(evaluate(rows, self.qrels, [PRIMARY], documents)[PRIMARY][0])

    def _text(self, row: int) -> str | None:
        return None if self.texts is None else self.texts.documents[row]


def _ranks(doc_rows: IntArray) -> dict[int, int]:
    """Document row to its rank, from 1, the best first."""
    return {row: rank for rank, row in enumerate(doc_rows.tolist(), start=1) if row >= 0}
