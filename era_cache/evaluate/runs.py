"""Runs of other systems, laid over the test queries and documents of a collection.

In: a file, plain or packed with gzip. The content tells its form, names and endings do not:

    ``{`` first, then ``"``           JSON {query_id: {document_id: score}}
    6 columns on the first line       TREC run
    a first line that names query,    such columns, in any order, among others
    document and score

Out: a ranking in trec_eval's order, as any candidate has one, and counts of what did not fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.judgements import ROLE_NAMES, unquoted
from era_cache.collection.keys import key_values
from era_cache.collection.records import Collection
from era_cache.collection.text_files import read_blocks
from era_cache.disk.files import sha256_file
from era_cache.errors import InputError
from era_cache.evaluate.run_json import (
    JSON_FORM,
    LARGEST_GRADE,
    looks_like_json,
    read_json_run,
)
from era_cache.evaluate.run_order import rank_results
from era_cache.evaluate.text_columns import Columns, Form, read_columns
from era_cache.evaluate.trec import RUN_FORM
from era_cache.rank.measures import Ranking
from era_cache.store.lists import Lists, StoredLists
from era_cache.types import IntArray, Keys

__all__ = ["PlacedRun", "lists_of_run", "load_run", "place_run"]

_DEPTH = 1000

_EXPECTED = f"{len(RUN_FORM.names)} columns ({' '.join(RUN_FORM.names)}), or {JSON_FORM}"
_NAMED = 3
_NAMES = (ROLE_NAMES["query"], ROLE_NAMES["document"], {"score", "scores", "sim", "similarity"})
"""Of the three columns that count, where a first line names them."""


class PlacedRun(NamedTuple):
    """A run over the test queries of a collection.

    Rows of ``ranking`` from the number of documents on, up to ``n_docs``, are documents that the
    collection lacks: they keep their ranks and are relevant to nothing. ``missing_queries`` counts
    test queries without results, which score 0; ``unknown_documents`` are those that the collection
    lacks.
    """

    ranking: Ranking
    n_docs: int
    missing_queries: int
    unknown_documents: list[str]

    def notes(self, name: str) -> list[str]:
        """What a report must say of it."""
        found = []
        if self.missing_queries:
            found.append(f"{name} lacks {self.missing_queries:,} of the test queries: 0 each.")
        if self.unknown_documents:
            few = ", ".join(self.unknown_documents[:_NAMED])
            found.append(
                f"{name} ranks {len(self.unknown_documents):,} documents that the collection does "
                f"not have ({few}{', …' if len(self.unknown_documents) > _NAMED else ''}); they "
                "keep their ranks and count as not relevant."
            )
        return found


def load_run(path: Path) -> Columns:
    """Read a run in any of the forms above.

    Raises:
        InputError: It cannot be read, is empty, of no known form or judgements, a line or score
            is wrong, or a document is there twice for a query.
    """
    blocks = read_blocks(path)
    first = next(blocks, b"")
    content = itertools.chain([first], blocks)
    if not first.strip():
        raise InputError(f"{path}: the file is empty. Expected: {_EXPECTED}.")
    if looks_like_json(first):
        found = read_json_run(path, content)
    else:
        line = first.partition(b"\n")[0].rstrip(b"\r")
        form = _named_form(path, line)
        columns = [len(line.split()), len(line.split(b"\t"))]
        if b"\0" in first or (form is None and len(RUN_FORM.names) not in columns):
            what = "it is binary" if b"\0" in first else f"its first line has {columns[0]} columns"
            raise InputError(f"{path}: no run; {what}. Expected: {_EXPECTED}.")
        found = read_columns(path, content, form or RUN_FORM, head=form is not None)
        grades = set(range(LARGEST_GRADE + 1))
        if form is not None and found.values.size and grades.issuperset(found.values.tolist()):
            raise InputError(
                f"{path}: looks like judgements, where a run must be: all its scores are whole and "
                f"from 0 to {LARGEST_GRADE}. If it is a run, write it in the columns of TREC."
            )
    if not found.values.size:
        raise InputError(f"{path}: a run without any result; nothing can be measured.")
    return found


def _named_form(path: Path, line: bytes) -> Form | None:
    """The columns that a first line names; None where it names none.

    Raises:
        InputError: It does not say which columns are query, document and score.
    """
    cells = line.decode("utf-8", "replace").split("\t" if b"\t" in line else None)
    names = tuple(unquoted(cell.strip()).lower() for cell in cells)
    places = [[at for at, name in enumerate(names) if name in asked] for asked in _NAMES]
    if not any(places[:2]) or _is_number(cells[RUN_FORM.value : RUN_FORM.value + 1]):
        return None  # the second: of a query that is called 'query'
    if any(len(found) != 1 for found in places):
        what = "has no scores: ranks alone cannot be ordered and cut like other runs"
        raise InputError(
            f"{path}: its first line ({', '.join(names)}) "
            f"{what if not places[2] else 'does not name one query, document and score each'}. "
            f"Expected: {_EXPECTED}; or a first line with query_id, doc_id and score."
        )
    query, document, score = (found[0] for found in places)
    return Form("a run with named columns", names, query, document, score, scores=True)


def _is_number(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def place_run(
    path: Path,
    run: Columns,
    query_ids: Sequence[str],
    doc_ids: Sequence[str],
    exclude: IntArray | None = None,
    *,
    depth: int,
) -> PlacedRun:
    """Rank a run for the test queries of a collection as trec_eval does.

    Args:
        path: What to call the run in an error.
        run: From ``load_run``.
        query_ids: q ids of test queries.
        doc_ids: n ids of the collection.
        exclude: (q,) the row of a document that the query must not find, -1 for none.
        depth: Documents kept of each ranking, as many as of any other row of the table.

    Raises:
        InputError: No result is of a test query or none is of a document of the collection: the
            run belongs to something else. Or it is too uneven to be ranked.
    """
    known_docs = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    known_queries = {query_id: row for row, query_id in enumerate(query_ids)}
    query_rows = np.array([known_queries.get(one, -1) for one in run.query_ids], dtype=np.int64)
    unknown = [doc_id for doc_id in run.doc_ids if doc_id not in known_docs]
    numbers = itertools.count(len(doc_ids))
    # The last entry answers for padding, row -1.
    doc_rows = np.array(
        [known_docs[one] if one in known_docs else next(numbers) for one in run.doc_ids] + [-1],
        dtype=np.int64,
    )
    keep = query_rows[run.query_rows] >= 0
    if not keep.any() or len(unknown) == len(run.doc_ids):
        what = "documents" if keep.any() else "test queries"
        theirs, ours = (run.doc_ids, doc_ids) if keep.any() else (run.query_ids, query_ids)
        raise InputError(
            f"{path}: none of its {what} is one of the collection (the run has "
            f"{', '.join(map(repr, theirs[:_NAMED]))}, the collection "
            f"{', '.join(map(repr, ours[:_NAMED]))}). Give a run on this collection."
        )
    missing = len(query_ids) - len(np.unique(query_rows[run.query_rows[keep]]))
    if exclude is not None:
        own = exclude[np.maximum(query_rows, 0)][run.query_rows]
        keep &= (own < 0) | (doc_rows[run.doc_rows] != own)
    ranking = rank_results(
        path,
        query_rows[run.query_rows[keep]],
        run.doc_rows[keep],
        run.values[keep],
        run.doc_ids,
        len(query_ids),
    )
    return PlacedRun(
        Ranking(doc_rows[ranking.doc_rows[:, :depth]], ranking.scores[:, :depth]),
        len(doc_ids) + len(unknown),
        missing,
        unknown,
    )


def lists_of_run(path: Path, run: Columns, collection: Collection, name: str) -> StoredLists:
    """A run as the lists of a first stage, cut at 1,000 documents of each query.

    Queries are told apart by text and instruction. Documents that the collection lacks are left
    out; of documents of equal text the best one counts. The score of a document that a list does
    not hold is the lowest of the list where the run was cut there: the list is one of several that
    are the longest, or has 1,000 documents. Else it is all that matched, and other documents score
    0, unless the run has negative scores.

    Args:
        path: what to call the run in an error.
        run: from ``load_run``.
        collection: whose documents and queries it ranks.
        name: of the system.

    Raises:
        InputError: as ``place_run``.
    """
    placed = place_run(path, run, collection.query_ids, collection.doc_ids, depth=_DEPTH)
    doc_keys, doc_number = _distinct(collection.doc_keys)
    query_keys, query_number = _distinct(collection.query_keys)
    rows, scores = placed.ranking
    known = (rows >= 0) & (rows < len(collection.doc_ids))
    lengths = known.sum(axis=1)
    longest = int(lengths.max(initial=0))
    cut = longest if longest >= _DEPTH or (lengths == longest).sum() > 1 else longest + 1
    negative = bool((scores[known] < 0).any())
    docs: list[IntArray] = [np.zeros(0, dtype=np.int64)] * len(query_keys)
    values = [np.zeros(0, dtype=np.float32)] * len(query_keys)
    floor = np.zeros(len(query_keys), dtype=np.float32)
    there = np.zeros(len(query_keys), dtype=bool)
    for row in range(len(rows)):
        kept = known[row]
        at = query_number[row]
        if not kept.any() or there[at]:
            continue
        mine, first = np.unique(doc_number[rows[row, kept]], return_index=True)
        order = np.argsort(first)
        docs[at], values[at] = mine[order], scores[row, kept][first[order]].astype(np.float32)
        floor[at] = values[at][-1] if negative or lengths[row] == cut else 0.0
        there[at] = True
    lists = Lists(
        doc_keys,
        np.ascontiguousarray(query_keys[there]),
        np.cumsum([len(one) for one, kept in zip(docs, there, strict=True) if kept]),
        np.concatenate(docs),
        np.concatenate(values),
        floor[there],
    )
    return StoredLists(name, {"run": path.name, "sha256": sha256_file(path)}, "", lists)


def _distinct(keys: Keys) -> tuple[Keys, IntArray]:
    """The distinct keys, rising, and the number of each row's among them."""
    values, number = np.unique(key_values(keys), return_inverse=True)
    return values.view(np.uint8).reshape(-1, 16), number.reshape(-1)
