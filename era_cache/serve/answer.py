"""What one search found, as records and as JSON.

In: what ``engine`` computed. Out: records that ``show`` and the page present.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Answer", "Asked", "Column", "Elsewhere", "Hit", "to_json"]

FORMAT, VERSION = "era-search", 1


class Hit(NamedTuple):
    """One document of a ranking.

    ``grade`` is None where nobody judged it; ``baseline_rank`` is its rank under the baseline, None
    where it is not among the first ``Answer.reach`` there or no baseline is shown; ``text`` is None
    where it is not known.
    """

    rank: int
    document: str
    score: float
    grade: int | None
    baseline_rank: int | None
    text: str | None


class Column(NamedTuple):
    """The best documents under one candidate; ``value`` is the primary measure of this query."""

    name: str
    kind: str
    chosen: bool
    value: float | None
    hits: list[Hit]


class Elsewhere(NamedTuple):
    """A relevant document that some column does not show: candidate to rank, None beyond reach."""

    document: str
    grade: int
    ranks: dict[str, int | None]
    text: str | None


class Asked(NamedTuple):
    """The query that was searched.

    ``id``, ``part`` and ``relevant`` are those of the stored query, None where it is not stored;
    ``part`` says what the adapter's fit knew of it: ``test``, ``training``, ``validation`` or
    ``unused``. ``text`` is None where only the id of a stored query is known.
    """

    id: str | None
    text: str | None
    instruction: str
    part: str | None
    relevant: int | None


class Answer(NamedTuple):
    """What one search found.

    ``reach`` is the depth to which ranks are known, ``baseline`` the candidate that documents are
    said to have moved against, None where it is not shown.
    """

    collection: str
    version: str
    documents: int
    asked: Asked
    depth: int
    reach: int
    baseline: str | None
    measure: str
    columns: list[Column]
    elsewhere: list[Elsewhere]
    encode_ms: float | None
    search_ms: float


def to_json(answer: Answer, *, most_text: int | None = None) -> dict[str, Any]:
    """The answer as JSON; ids and texts are as they are in the collection.

    Args:
        answer: what was found.
        most_text: characters kept of each text; None keeps all.
    """

    def text_of(text: str | None) -> str | None:
        return text if text is None or most_text is None else text[:most_text]

    return {
        "format": FORMAT,
        "version": VERSION,
        "collection": {
            "name": answer.collection,
            "version": answer.version,
            "documents": answer.documents,
        },
        "query": answer.asked._asdict(),
        "depth": answer.depth,
        "reach": answer.reach,
        "baseline": answer.baseline,
        "measure": answer.measure,
        "candidates": [
            {
                **column._asdict(),
                "hits": [{**hit._asdict(), "text": text_of(hit.text)} for hit in column.hits],
            }
            for column in answer.columns
        ],
        "elsewhere": [
            {**entry._asdict(), "text": text_of(entry.text)} for entry in answer.elsewhere
        ],
        "milliseconds": {"encode": answer.encode_ms, "search": answer.search_ms},
    }
