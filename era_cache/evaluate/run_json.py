"""A run as one JSON object, ``{query_id: {document_id: score}}``.

The form of pytrec_eval and of BEIR's tools. In: a file's content. Out: columns, as from a file of
lines.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.errors import InputError
from era_cache.evaluate.text_columns import (
    FLOAT32_END,
    Columns,
    row_numbers,
)
from era_cache.types import Array

__all__ = ["JSON_FORM", "LARGEST_GRADE", "looks_like_json", "read_json_run"]

JSON_FORM = "JSON {query_id: {document_id: score}}"
_LARGEST = 1 << 29
LARGEST_GRADE = 10


def looks_like_json(head: bytes) -> bool:
    """Whether a file that begins like this is a JSON object: ``{``, then ``"`` or ``}``."""
    start = head.lstrip()
    return start[:1] == b"{" and start[1:].lstrip()[:1] in (b'"', b"}", b"")


def read_json_run(path: Path, blocks: Iterable[bytes]) -> Columns:
    """Read such an object. A query may be there without documents.

    Args:
        path: What to call the file in errors.
        blocks: Its content, 512 MiB at most.

    Raises:
        InputError: It is too large, not such an object, has a query twice, a document twice for a
            query, or a score that is not a finite float32. Or it looks like judgements: there is
            no score but the whole numbers from 0 to 10, written without a point.
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
        whole = whole and set(map(type, numbers)) <= {int}
        values.append(_scores(path, query, ids, numbers))
        lengths.append(len(ids))
        docs += map(doc_index.__getitem__, ids)
    found = np.concatenate(values) if values else np.empty(0)
    if whole and found.size and found.min() >= 0 and found.max() <= LARGEST_GRADE:
        raise InputError(
            f"{path}: looks like judgements, where a run must be: all its numbers are whole and "
            f"from 0 to {LARGEST_GRADE}. If it is a run, write its scores with a decimal point "
            "(1.0)."
        )
    query_ids, doc_ids = [query for query, _ in queries], list(doc_index)
    _check_unicode(path, query_ids)
    _check_unicode(path, doc_ids)
    rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    return Columns(
        query_ids, doc_ids, rows, np.array(docs, dtype=np.int64), found.astype(np.float32)
    )


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


def _scores(path: Path, query: str, ids: Sequence[str], numbers: Sequence[Any]) -> Array:
    with contextlib.suppress(OverflowError):
        if set(map(type, numbers)) <= {int, float}:
            scores = np.fromiter(map(float, numbers), np.float64, len(numbers))
            if np.all(np.abs(scores) < FLOAT32_END):  # not so for NaN either
                return scores
    doc, number = next(pair for pair in zip(ids, numbers, strict=True) if not _fits(pair[1]))
    raise InputError(
        f"{path}: query {query!r}, document {doc!r}: {_short(number)} is not a finite float32 "
        "number. Mend or remove it."
    )


def _fits(number: Any) -> bool:
    # By type, for True is an int to isinstance.
    return type(number) in (int, float) and abs(number) < FLOAT32_END


def _short(value: Any) -> str:
    text = "an object" if isinstance(value, tuple) else json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _check_unicode(path: Path, ids: Sequence[str]) -> None:
    try:
        "".join(ids).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: an id is not valid Unicode ({error.reason}).") from error
