"""What one search found, as records and as JSON.

In: what ``engine`` computed. Out: records that ``show`` and the page present.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Answer", "Asked", "Column", "Elsewhere", "Hit", "Searched", "Spent", "to_json"]

FORMAT, VERSION = "era-search", 1


class Hit(msgspec.Struct, frozen=True):
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


class Column(msgspec.Struct, frozen=True):
    """The best documents under one candidate; ``value`` is the primary measure of this query."""

    name: str
    kind: str
    chosen: bool
    value: float | None
    hits: list[Hit]


class Elsewhere(msgspec.Struct, frozen=True):
    """A relevant document that some column does not show: candidate to rank, None beyond reach."""

    document: str
    grade: int
    ranks: dict[str, int | None]
    text: str | None


class Asked(msgspec.Struct, frozen=True):
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


class Searched(msgspec.Struct, frozen=True):
    """The collection that was searched, and how many documents it has.

    ``index`` says in words which index was searched instead of all documents, so that some may have
    been missed; None where all were. What a first stage joins is always searched exactly.
    """

    name: str
    version: str
    documents: int
    index: str | None = None


class Spent(msgspec.Struct, frozen=True):
    """Milliseconds; ``encode`` is None where stored vectors were taken."""

    encode: float | None
    search: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one search found; ``to_json`` gives the fields in this order.

    ``reach`` is the depth to which ranks are known, ``baseline`` the candidate that documents are
    said to have moved against, None where it is not shown.
    """

    collection: Searched
    asked: Asked = msgspec.field(name="query")
    depth: int
    reach: int
    baseline: str | None
    measure: str
    columns: list[Column] = msgspec.field(name="candidates")
    elsewhere: list[Elsewhere]
    milliseconds: Spent


def to_json(answer: Answer, *, most_text: int | None = None) -> dict[str, Any]:
    """The answer as JSON; ids and texts are as they are in the collection.

    Args:
        answer: what was found.
        most_text: characters kept of each text; None keeps all.
    """
    plain = msgspec.to_builtins(answer)
    hits = [hit for column in plain["candidates"] for hit in column["hits"]]
    for shown in [*hits, *plain["elsewhere"]]:
        if shown["text"] is not None:
            shown["text"] = shown["text"][:most_text]
    return {"format": FORMAT, "version": VERSION, **plain}
