"""Runs and judgements in the text formats of TREC.

    run    query_id Q0 document_id rank score tag
    qrels  query_id 0 document_id relevance

In and out: files with these columns, separated by ASCII white space; on the other side rankings
and qrels by row number. A file is written beside its place and moved there when complete.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from era_cache.errors import InputError
from era_cache.measures import Ranking
from era_cache.search import tie_order
from era_cache.types import IntArray, Qrels

__all__ = ["read_qrels", "read_run", "write_qrels", "write_run"]

_RUN_COLUMNS = ("query_id", "Q0", "document_id", "rank", "score", "tag")
_QRELS_COLUMNS = ("query_id", "0", "document_id", "relevance")
_MAX_RELEVANCE = 2**31 - 1
_FLOAT32_END = 2.0**128 - 2.0**103
"""From here on a number rounds to infinity as float32."""


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
        InputError: An id or the tag is empty or has white space, or the file cannot be written.
        ValueError: Ranking and ids do not fit together, or a score is not finite.
    """
    doc_rows, scores = ranking
    filled = doc_rows >= 0
    if doc_rows.shape != scores.shape or len(doc_rows) != len(query_ids):
        raise ValueError(
            f"The ranking has shapes {doc_rows.shape} and {scores.shape} for "
            f"{len(query_ids)} queries."
        )
    _check_range("document", doc_rows[filled], len(doc_ids))
    if not np.all(np.isfinite(scores[filled])):
        raise ValueError("A score of the ranking is not finite.")
    _check_words(path, "query id", query_ids)
    _check_words(path, "document id", [doc_ids[row] for row in np.unique(doc_rows[filled])])
    _check_words(path, "tag", [tag])

    def lines() -> Iterator[str]:
        for query, query_id in enumerate(query_ids):
            here = filled[query]
            pairs = zip(doc_rows[query, here].tolist(), scores[query, here].tolist(), strict=True)
            for rank, (row, score) in enumerate(pairs, start=1):
                yield f"{query_id} Q0 {doc_ids[row]} {rank} {score:.9g} {tag}\n"

    _write_lines(Path(path), lines())


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
            score that is not a finite float32, or a document twice for a query.
    """
    path = Path(path)
    queries: list[int] = []
    docs: list[int] = []
    values: list[float] = []
    ids: dict[int, str] = {}
    for line, (query_id, _, doc_id, _, score, _) in _read_lines(path, _RUN_COLUMNS):
        queries.append(_row_of(query_id, query_index, "query", f"{path} line {line}")[1])
        text, row = _row_of(doc_id, doc_index, "document", f"{path} line {line}")
        docs.append(row)
        ids[row] = text
        values.append(_score(score, f"{path} line {line}"))
    query_rows = np.array(queries, dtype=np.int64)
    doc_rows = np.array(docs, dtype=np.int64)
    scores = np.array(values, dtype=np.float32)
    _check_distinct(path, query_rows, doc_rows)
    # Of the documents in the run only: the collection may be a thousand times larger.
    known_rows = np.array(sorted(ids), dtype=np.int64)
    ties = tie_order([ids[row] for row in known_rows.tolist()])
    order = np.lexsort((ties[np.searchsorted(known_rows, doc_rows)], -scores, query_rows))
    counts = np.bincount(query_rows, minlength=len(query_index))
    starts = np.cumsum(counts) - counts
    query_rows = query_rows[order]
    ranks = np.arange(len(order), dtype=np.int64) - starts[query_rows]
    shape = (len(counts), int(counts.max(initial=0)))
    ranking = Ranking(np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, np.float32))
    ranking.doc_rows[query_rows, ranks] = doc_rows[order]
    ranking.scores[query_rows, ranks] = scores[order]
    return ranking


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
        InputError: An id is empty or has white space, or the file cannot be written.
        ValueError: A row number has no id.
    """
    _check_range("query", qrels.query_rows, len(query_ids))
    _check_range("document", qrels.doc_rows, len(doc_ids))
    _check_words(path, "query id", [query_ids[row] for row in np.unique(qrels.query_rows)])
    _check_words(path, "document id", [doc_ids[row] for row in np.unique(qrels.doc_rows)])
    columns = zip(*(column.tolist() for column in qrels), strict=True)
    _write_lines(
        Path(path),
        (f"{query_ids[query]} 0 {doc_ids[doc]} {grade}\n" for query, doc, grade in columns),
    )


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
    queries: list[int] = []
    docs: list[int] = []
    grades: list[int] = []
    for line, (query_id, _, doc_id, relevance) in _read_lines(path, _QRELS_COLUMNS):
        queries.append(_row_of(query_id, query_index, "query", f"{path} line {line}")[1])
        docs.append(_row_of(doc_id, doc_index, "document", f"{path} line {line}")[1])
        grades.append(_relevance(relevance, f"{path} line {line}"))
    qrels = Qrels(*(np.array(column, dtype=np.int64) for column in (queries, docs, grades)))
    _check_distinct(path, qrels.query_rows, qrels.doc_rows)
    return qrels


def _read_lines(path: Path, names: tuple[str, ...]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield line number and columns. Bytes, for str.split would also part at no-break spaces."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                columns = line.split()
                if len(columns) != len(names):
                    raise InputError(
                        f"{path} line {number}: {len(columns)} columns where {len(names)} are "
                        f"expected ({' '.join(names)}). Mend or remove the line."
                    )
                yield number, columns
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def _row_of(field: bytes, index: Mapping[str, int], what: str, where: str) -> tuple[str, int]:
    """Decode an id and look it up; return both id and row."""
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            f"{where}: the {what} id {field!r} is not UTF-8. Convert the file to UTF-8."
        ) from None
    row = index.get(text)
    if row is None:
        raise InputError(
            f"{where}: {what} {text!r} is not in the collection, which has {len(index)}. "
            "Remove the line, or pass the collection that the file belongs to."
        )
    return text, row


def _score(field: bytes, where: str) -> float:
    """Read a score. float() alone would take 1_000, nan and what float32 cannot hold."""
    try:
        value = float(field)
    except ValueError:
        value = float("nan")
    if b"_" in field or not abs(value) < _FLOAT32_END:
        raise InputError(
            f"{where}: the score {field.decode('utf-8', 'replace')!r} is not a finite float32 "
            "number. Mend or remove the line."
        )
    return value


def _relevance(field: bytes, where: str) -> int:
    """Read a grade, which trec_eval takes as a whole number."""
    digits = field[1:] if field[:1] in (b"-", b"+") else field
    if not digits.isdigit() or len(digits) > 10 or int(digits) > _MAX_RELEVANCE:
        raise InputError(
            f"{where}: the relevance {field.decode('utf-8', 'replace')!r} is not a whole number "
            f"between {-_MAX_RELEVANCE} and {_MAX_RELEVANCE}. Mend or remove the line."
        )
    return int(field)


def _check_distinct(path: Path, query_rows: IntArray, doc_rows: IntArray) -> None:
    """Refuse a second line for the same query and document. Row i stands on line i + 1."""
    order = np.lexsort((doc_rows, query_rows))  # stable: of equal pairs the earlier line first
    same = (np.diff(query_rows[order]) == 0) & (np.diff(doc_rows[order]) == 0)
    if same.any():
        second = int(order[1:][same].min())
        pair = (query_rows == query_rows[second]) & (doc_rows == doc_rows[second])
        first = int(np.flatnonzero(pair)[0])
        raise InputError(
            f"{path} line {second + 1}: the same query and document as on line {first + 1}. "
            "Remove one of them."
        )


def _check_range(what: str, rows: IntArray, count: int) -> None:
    if rows.size and (rows.min() < 0 or rows.max() >= count):
        raise ValueError(f"A {what} row is outside 0..{count - 1}, the rows that have an id.")


def _check_words(path: str | os.PathLike[str], what: str, words: Iterable[str]) -> None:
    """Refuse what would not come back as one column."""
    for word in words:
        if word.encode("utf-8", "replace").split() != [word.encode("utf-8", "surrogatepass")]:
            raise InputError(
                f"{os.fspath(path)} cannot be written: the {what} {word!r} is empty, has white "
                "space or is not valid Unicode, which the TREC format has no means to quote."
            )


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Replace a file in one step: readers see the old one or the new one, whole."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with staged.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}. Check the folder and its free space."
        ) from error
    finally:
        staged.unlink(missing_ok=True)
