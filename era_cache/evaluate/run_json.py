"""Runs and judgements as one JSON object, ``{query_id: {document_id: score or grade}}``.

The form of pytrec_eval and of BEIR's tools. In: a file's content. Out: columns, as from a file of
lines; and a ranking as such a file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.collection.text_files import write_text
from era_cache.errors import InputError
from era_cache.evaluate.text_columns import (
    FLOAT32_END,
    MAX_RELEVANCE,
    Columns,
    row_numbers,
)
from era_cache.evaluate.trec import check_ranking
from era_cache.rank.measures import Ranking
from era_cache.types import Array

__all__ = ["JSON_FORM", "looks_like_json", "read_json_columns", "write_run_json"]

JSON_FORM = "JSON {query_id: {document_id: number}}"
_LARGEST = 1 << 29
_LARGEST_GRADE = 10


def looks_like_json(head: bytes) -> bool:
    """Whether a file that begins like this is a JSON object: ``{``, then ``"`` or ``}``."""
    start = head.lstrip()
    return start[:1] == b"{" and start[1:].lstrip()[:1] in (b'"', b"}", b"")


def read_json_columns(path: Path, blocks: Iterable[bytes], *, scores: bool) -> Columns:
    """Read such an object. A query may be there without documents.

    Args:
        path: What to call the file in errors.
        blocks: Its content, 512 MiB at most.
        scores: Whether it is a run; else it holds judgements.

    Raises:
        InputError: It is too large, not such an object, has a query twice or a document twice for
            a query, a score that is not a finite float32 or a grade that is not a whole number.
            Or it looks like judgements where a run is wanted: there is no score but the whole
            numbers from 0 to 10, written without a point.
    """
    queries = _parsed(path, blocks)
    _check_once([query for query, _ in queries], f"{path}: query", "of the file")
    doc_index = row_numbers()
    lengths: list[int] = []
    docs: list[int] = []
    values: list[Array] = []
    whole = True
    for query, entries in queries:
        if not isinstance(entries, tuple):
            raise InputError(
                f"{path}: query {query!r} has {_short(entries)}, where an object "
                f"{{document_id: number}} is expected. The form is {JSON_FORM}."
            )
        ids, numbers = zip(*entries, strict=True) if entries else ((), ())
        _check_once(ids, f"{path}: document", f"of query {query!r}")
        kinds = set(map(type, numbers))
        whole = whole and kinds <= {int}
        values.append(_values(path, query, ids, numbers, scores, kinds))
        lengths.append(len(ids))
        docs += map(doc_index.__getitem__, ids)
    found = np.concatenate(values) if values else np.empty(0)
    if scores and whole and found.size and found.min() >= 0 and found.max() <= _LARGEST_GRADE:
        raise InputError(
            f"{path}: looks like judgements, where a run must be: all its numbers are whole and "
            f"from 0 to {_LARGEST_GRADE}. Give the judgements first, then the runs; if it is a "
            "run, write its scores with a decimal point (1.0)."
        )
    query_ids, doc_ids = [query for query, _ in queries], list(doc_index)
    _check_unicode(path, query_ids)
    _check_unicode(path, doc_ids)
    rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    kind = np.float32 if scores else np.int64
    return Columns(query_ids, doc_ids, rows, np.array(docs, dtype=np.int64), found.astype(kind))


def _parsed(path: Path, blocks: Iterable[bytes]) -> tuple[tuple[str, Any], ...]:
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > _LARGEST:
            raise InputError(
                f"{path}: more than {_LARGEST >> 20} MiB of JSON, which is held in memory whole. "
                "Write it as lines of TREC instead."
            )
    try:
        # Objects as tuples of pairs: a dict would silently keep the last of two equal keys.
        value = json.loads(data.decode("utf-8"), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}. The form is {JSON_FORM}.") from error
    if not isinstance(value, tuple):
        raise InputError(f"{path}: {_short(value)}, where {JSON_FORM} is expected.")
    return value


def _check_once(ids: Sequence[str], what: str, whose: str) -> None:
    if len(set(ids)) != len(ids):
        twice = next(one for one, times in Counter(ids).items() if times > 1)
        raise InputError(f"{what} {twice!r} {whose} is there twice. Remove one of them.")


def _values(
    path: Path,
    query: str,
    ids: Sequence[str],
    numbers: Sequence[Any],
    scores: bool,
    kinds: set[type],
) -> Array:
    try:
        if scores and kinds <= {int, float}:
            values = np.fromiter(map(float, numbers), np.float64, len(numbers))
            if np.all(np.abs(values) < FLOAT32_END):  # not so for NaN either
                return values
        elif not scores and kinds <= {int}:
            grades = np.fromiter(numbers, np.int64, len(numbers))
            if np.all((grades <= MAX_RELEVANCE) & (grades >= -MAX_RELEVANCE)):
                return grades
    except OverflowError:
        pass
    doc, number = next(
        pair for pair in zip(ids, numbers, strict=True) if not _fits(pair[1], scores)
    )
    kind = "a finite float32 number" if scores else "a whole number"
    advice = "Mend or remove it."
    if not scores and type(number) is float:
        advice = "If this is a run, give the judgements first, then the runs."
    raise InputError(
        f"{path}: query {query!r}, document {doc!r}: {_short(number)} is not {kind}. {advice}"
    )


def _fits(number: Any, scores: bool) -> bool:
    # By type, for True is an int to isinstance.
    if type(number) is int:
        return abs(number) < FLOAT32_END if scores else abs(number) <= MAX_RELEVANCE
    return scores and type(number) is float and abs(number) < FLOAT32_END


def _short(value: Any) -> str:
    text = "an object" if isinstance(value, tuple) else json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _check_unicode(path: Path, ids: Sequence[str]) -> None:
    try:
        "".join(ids).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: an id is not valid Unicode ({error.reason}).") from error


def write_run_json(
    path: str | os.PathLike[str],
    query_ids: Sequence[str],
    doc_ids: Sequence[str],
    ranking: Ranking,
) -> None:
    """Write a ranking as ``{query_id: {document_id: score}}``, a line for each query.

    Args:
        path: File to write or replace.
        query_ids: q distinct ids, by row of the ranking.
        doc_ids: n distinct ids, by document row.
        ranking: (q, k) rows and scores; padding is left out.

    Raises:
        StoreError: The file cannot be written.
        ValueError: Ranking and ids do not fit together, or a score is not finite.
    """
    check_ranking(query_ids, doc_ids, ranking)
    filled = ranking.doc_rows >= 0

    def pieces() -> Iterator[str]:
        for query, query_id in enumerate(query_ids):
            ids = map(doc_ids.__getitem__, ranking.doc_rows[query, filled[query]].tolist())
            scores = ranking.scores[query, filled[query]].tolist()
            results = json.dumps(dict(zip(ids, scores, strict=True)))
            yield f"{',' if query else '{'}\n{json.dumps(query_id)}: {results}"
        yield "\n}\n" if len(query_ids) else "{}\n"

    write_text(Path(path), pieces())
