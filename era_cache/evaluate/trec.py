"""Runs and judgements in the text formats of TREC.

    run    query_id Q0 document_id rank score tag
    qrels  query_id 0 document_id relevance

In and out: files with these columns, separated by ASCII white space; on the other side rankings
and qrels by row number. Read files may be packed with gzip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from era_cache.collection.text_files import read_blocks, write_text
from era_cache.errors import InputError
from era_cache.evaluate.run_order import rank_results
from era_cache.evaluate.text_columns import Columns, Form, check_words, read_columns
from era_cache.rank.measures import Ranking
from era_cache.types import IntArray, Qrels

__all__ = [
    "QRELS_FORM",
    "RUN_FORM",
    "read_qrels",
    "read_run",
    "write_qrels",
    "write_run",
]

RUN_FORM = Form(
    "a TREC run", ("query_id", "Q0", "document_id", "rank", "score", "tag"), 0, 2, 4, scores=True
)
QRELS_FORM = Form(
    "TREC judgements", ("query_id", "0", "document_id", "relevance"), 0, 2, 3, scores=False
)
_LINES = 1 << 14


def write_run(
    path: str | os.PathLike[str],
    query_ids: Sequence[str],
    doc_ids: Sequence[str],
    ranking: Ranking,
    tag: str,
) -> None:
    """Write a ranking as a TREC run, ranks counted from 1, padding left out.

    Scores carry the nine digits that identify a float32. Readers order by score and document
    id and ignore the rank; only a ranking with its ties in that order (``tie_order``) comes back
    as it was.

    Args:
        path: File to write or replace.
        query_ids: q ids, by row of the ranking.
        doc_ids: n ids, by document row.
        ranking: (q, k) rows and scores.
        tag: Name of the system, one word.

    Raises:
        InputError: An id or the tag is empty or has white space.
        StoreError: The file cannot be written.
        ValueError: Ranking and ids do not fit together, or a score is not finite.
    """
    _check_ranking(query_ids, doc_ids, ranking)
    filled = ranking.doc_rows >= 0
    check_words(path, "query id", query_ids)
    check_words(path, "document id", _used(doc_ids, ranking.doc_rows[filled]))
    check_words(path, "tag", [tag])
    # Ranks and tag are the same for each query: what is left to fill in is document and score.
    tail = tag.replace("%", "%%")
    lines = [f"\0 Q0 %s {rank} %.9g {tail}\n" for rank in range(1, filled.shape[1] + 1)]

    def pieces() -> Iterator[str]:
        for query, query_id in enumerate(query_ids):
            rows = ranking.doc_rows[query, filled[query]].tolist()
            fields: list[object] = [None] * (2 * len(rows))
            fields[::2] = map(doc_ids.__getitem__, rows)
            fields[1::2] = ranking.scores[query, filled[query]].tolist()
            template = "".join(lines[: len(rows)]).replace("\0", query_id.replace("%", "%%"))
            yield template % tuple(fields)

    write_text(Path(path), pieces())


def _check_ranking(query_ids: Sequence[str], doc_ids: Sequence[str], ranking: Ranking) -> None:
    """Refuse a ranking that cannot be written.

    Args:
        query_ids: q ids, by row of the ranking.
        doc_ids: n ids, by document row.
        ranking: (q, k) rows and scores.

    Raises:
        ValueError: Ranking and ids do not fit together, or a score is not finite.
    """
    doc_rows, scores = ranking
    if doc_rows.shape != scores.shape or len(doc_rows) != len(query_ids):
        raise ValueError(
            f"The ranking has shapes {doc_rows.shape} and {scores.shape} for "
            f"{len(query_ids)} queries."
        )
    filled = doc_rows >= 0
    _check_range("document", doc_rows[filled], len(doc_ids))
    if not np.all(np.isfinite(scores[filled])):
        raise ValueError("A score of the ranking is not finite.")


def read_run(
    path: str | os.PathLike[str], query_index: Mapping[str, int], doc_index: Mapping[str, int]
) -> Ranking:
    """Read a TREC run in the order that trec_eval gives it.

    Sorted by falling score (as float32), then by falling document id; the rank column and the
    order of lines are ignored, as is the tag.

    Args:
        path: File to read.
        query_index: Row, from 0 to q-1, by query id.
        doc_index: Row by document id.

    Returns:
        (q, k) rows and scores, k being the largest number of results of a query; shorter ones
        are padded, and queries that the run misses are padding only.

    Raises:
        InputError: The file cannot be read, has a wrong number of columns, an unknown id, a
            score that is not a finite float32, or a document twice for a query; or one query has
            so many results that the table would not fit into memory.
    """
    path = Path(path)
    found = read_columns(path, read_blocks(path), RUN_FORM)
    query_rows, doc_rows = _known_rows(path, found, query_index, doc_index)
    ranking = rank_results(
        path,
        query_rows[found.query_rows],
        found.doc_rows,
        found.values,
        found.doc_ids,
        len(query_index),
    )
    # The last entry answers for padding, row -1.
    return ranking._replace(doc_rows=np.append(doc_rows, -1)[ranking.doc_rows])


def write_qrels(
    path: str | os.PathLike[str], query_ids: Sequence[str], doc_ids: Sequence[str], qrels: Qrels
) -> None:
    """Write judgements in the four columns of TREC, in the order given.

    Args:
        path: File to write or replace.
        query_ids: q ids, by query row.
        doc_ids: n ids, by document row.
        qrels: The judgements.

    Raises:
        InputError: An id is empty or has white space.
        StoreError: The file cannot be written.
        ValueError: A row number has no id.
    """
    _check_range("query", qrels.query_rows, len(query_ids))
    _check_range("document", qrels.doc_rows, len(doc_ids))
    check_words(path, "query id", _used(query_ids, qrels.query_rows))
    check_words(path, "document id", _used(doc_ids, qrels.doc_rows))

    def pieces() -> Iterator[str]:
        for start in range(0, len(qrels.relevance), _LINES):
            queries, docs, grades = (column[start : start + _LINES].tolist() for column in qrels)
            fields: list[object] = [None] * (3 * len(grades))
            fields[::3] = map(query_ids.__getitem__, queries)
            fields[1::3] = map(doc_ids.__getitem__, docs)
            fields[2::3] = grades
            yield "%s 0 %s %d\n" * len(grades) % tuple(fields)

    write_text(Path(path), pieces())


def read_qrels(
    path: str | os.PathLike[str], query_index: Mapping[str, int], doc_index: Mapping[str, int]
) -> Qrels:
    """Read judgements in the four columns of TREC.

    Args:
        path: File to read; its second column is ignored.
        query_index: Row by query id.
        doc_index: Row by document id.

    Returns:
        The judgements in the order of the file.

    Raises:
        InputError: The file cannot be read, has a wrong number of columns, an unknown id, a
            relevance that is not a whole number, or a document judged twice for a query.
    """
    path = Path(path)
    found = read_columns(path, read_blocks(path), QRELS_FORM)
    query_rows, doc_rows = _known_rows(path, found, query_index, doc_index)
    return Qrels(query_rows[found.query_rows], doc_rows[found.doc_rows], found.values)


def _known_rows(
    path: Path, found: Columns, query_index: Mapping[str, int], doc_index: Mapping[str, int]
) -> tuple[IntArray, IntArray]:
    """Rows of the ids of a file. InputError for the first line with an unknown one."""
    columns = (
        ("query", found.query_ids, found.query_rows, query_index),
        ("document", found.doc_ids, found.doc_rows, doc_index),
    )
    try:
        query_rows, doc_rows = (
            np.fromiter(map(index.__getitem__, ids), np.int64, len(ids))
            for _, ids, _, index in columns
        )
        return query_rows, doc_rows
    except KeyError:
        pass
    unknown = []
    for order, (_, ids, rows, index) in enumerate(columns):
        # Ids are in order of appearance: the first unknown one stands on the first such line.
        first = next((number for number, one in enumerate(ids) if one not in index), None)
        if first is not None:
            unknown.append((int(np.argmax(rows == first)) + 1, order, ids[first]))
    line, order, text = min(unknown)
    what, _, _, index = columns[order]
    raise InputError(
        f"{path} line {line}: {what} {text!r} is not in the collection, which has {len(index)}. "
        "Remove the line, or pass the collection that the file belongs to."
    )


def _used(ids: Sequence[str], rows: IntArray) -> list[str]:
    return [ids[row] for row in np.unique(rows).tolist()]


def _check_range(what: str, rows: IntArray, count: int) -> None:
    if rows.size and (rows.min() < 0 or rows.max() >= count):
        raise ValueError(f"A {what} row is outside 0..{count - 1}, the rows that have an id.")
