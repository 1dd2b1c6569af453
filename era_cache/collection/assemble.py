"""A collection from its rows, whatever form of files they came from.

In: documents and queries as lines of JSON, judgements by ids. Out: a ``TextCollection``; what is
left out is counted in ``Dropped`` and reported, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.judgements import Known
from era_cache.collection.lines import Line, Problems
from era_cache.collection.packed import RowIndex, taken
from era_cache.collection.records import Dropped, TextCollection
from era_cache.collection.text_rows import TextRows, documents_of, queries_of
from era_cache.errors import InputError
from era_cache.types import Qrels

__all__ = ["Judged", "ReaderSettings", "Rows", "Source", "assemble"]

_MOST_SPLITS = 255


class ReaderSettings(NamedTuple):
    """What a user wants of a reader."""

    name: str | None = None
    """Of the collection; None lets the reader find one."""
    document_template: str = "{title} {text}"
    """How title and text become a document; an empty title adds nothing."""
    all_queries: bool = False
    """Keep queries that no judgement names; where nothing is judged, all are kept."""
    skip_bad_rows: bool = False
    """Leave out and count rows that would otherwise be errors."""
    skip_lost_judgements: bool = False
    """Of these only judgements of documents or queries that are not there."""

    def problems(self) -> Problems:
        """What takes up bad rows."""
        return Problems(self.skip_bad_rows, lost=self.skip_lost_judgements)


class Judged(NamedTuple):
    """One judgement by ids, where it stands, and the split that it is of."""

    line: Line
    split: str
    query: str
    document: str
    grade: int


class Rows(NamedTuple):
    """Rows of a role: the file that messages name, and lines of JSON (``documents_of``)."""

    path: Path
    lines: Iterable[Line]


class Source(NamedTuple):
    """Where the parts of a collection come from.

    ``judgements`` is called once documents and queries are read, with their ids. Of a pair that is
    judged twice with different grades, ``best_grade`` takes the higher; else it is an error.
    """

    path: Path
    name: str
    documents: Rows | None
    queries: Rows | None
    judgements: Callable[[Known], Iterator[Judged]]
    domain: str = ""
    ignore_identical_ids: bool = False
    best_grade: bool = False
    splits: Sequence[str] = ()
    """That there are, though they may hold no judgement."""


def assemble(source: Source, settings: ReaderSettings, problems: Problems) -> TextCollection:
    """Read all parts of a collection.

    Raises:
        InputError: a row is wrong; the message names file and line.
    """
    documents, queries = TextRows.none(), TextRows.none()
    if source.documents is not None:
        documents = documents_of(*source.documents, settings.document_template, problems)
    if source.queries is not None:
        queries = queries_of(*source.queries, problems)
    known = Known(RowIndex(queries.ids), RowIndex(documents.ids), documents.empty)
    qrels, repeated = _judgements(source, known, problems)
    judged = np.zeros(len(queries.ids), dtype=bool)
    for part in qrels.values():
        judged[part.query_rows] = True
    kept = np.flatnonzero(judged) if qrels and not settings.all_queries else np.arange(len(judged))
    return TextCollection(
        name=source.name,
        domain=source.domain,
        ignore_identical_ids=source.ignore_identical_ids,
        doc_ids=documents.ids,
        doc_texts=documents.texts,
        query_ids=queries.ids.take(kept),
        query_texts=queries.texts.take(kept),
        instructions=taken(queries.instructions, kept),
        splits={split: part.select_queries(kept) for split, part in qrels.items()},
        dropped=Dropped(
            len(documents.empty),
            len(judged) - len(kept),
            repeated,
            problems.count,
            tuple(problems.kinds.items()),
        ),
    )


def _judgements(source: Source, known: Known, problems: Problems) -> tuple[dict[str, Qrels], int]:
    """Judgements by split, and how many were there twice."""
    grades: dict[tuple[int, int], tuple[str, int]] = {}
    splits: dict[str, list[tuple[int, int]]] = {split: [] for split in source.splits}
    repeated = 0
    for line, split, query_id, doc_id, grade in source.judgements(known):
        pairs = splits.setdefault(split, [])
        if doc_id in known.empty:
            continue
        pair = (known.queries[query_id], known.documents[doc_id])
        if pair not in grades:
            grades[pair] = split, grade
            pairs.append(pair)
            continue
        first, before = grades[pair]
        with problems:
            if before != grade and not source.best_grade:
                raise line.wrong(
                    f"'{query_id}' and '{doc_id}' were judged {before} before and {grade} here. "
                    "Keep one of them."
                )
            grades[pair] = first, max(before, grade)
            repeated += 1
    if len(splits) > _MOST_SPLITS:
        raise InputError(
            f"{source.path}: {len(splits)} splits; at most {_MOST_SPLITS} are supported."
        )
    found = {}
    for split, pairs in splits.items():
        rows = np.array([(*pair, grades[pair][1]) for pair in pairs], dtype=np.int64)
        found[split] = Qrels(*np.ascontiguousarray(rows.reshape(-1, 3).T))
    if found and not any(np.any(part.relevance >= 1) for part in found.values()):
        raise InputError(
            f"{source.path / 'qrels'}: no judgement is positive (1 or more); nothing can be "
            "measured."
        )
    return found, repeated
