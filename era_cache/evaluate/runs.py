"""Runs and judgements of any system, whose collection is unknown: ids come from the files.

In: files in one of these forms, plain or packed with gzip. The content tells which it is, names and
endings do not:

    ``{`` first, then ``"``           JSON {query_id: {document_id: score or grade}}
    6 columns on the first line       TREC run
    4 columns on the first line       TREC judgements
    3 columns on the first line       BEIR judgements

Out: ids and arrays of row numbers, and rankings over rows that several runs share, for
``rank.measures``. A first line of judgements that ends in ``score``, ``relevance`` or ``rel``
is a head.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from era_cache.collection.text_files import read_blocks
from era_cache.errors import InputError
from era_cache.evaluate.run_json import JSON_FORM, looks_like_json, read_json_columns
from era_cache.evaluate.run_order import rank_results
from era_cache.evaluate.text_columns import Columns, Form, read_columns, row_numbers
from era_cache.evaluate.trec import QRELS_FORM, RUN_FORM, write_judgements
from era_cache.rank.measures import Ranking
from era_cache.types import IntArray, Qrels

__all__ = [
    "AlignedRun",
    "AlignedRuns",
    "QrelsFile",
    "RunFile",
    "align_runs",
    "load_qrels",
    "load_run",
    "write_qrels_tsv",
]

BEIR_FORM = Form("BEIR judgements", ("query-id", "corpus-id", "score"), 0, 1, 2, scores=False)
_FORMS = {len(form.names): form for form in (RUN_FORM, QRELS_FORM, BEIR_FORM)}
_HEADS = {b"score", b"relevance", b"rel"}
_NAMED = 3


class QrelsFile(NamedTuple):
    """Judgements, and the ids that their rows mean, each once in order of appearance."""

    path: Path
    query_ids: list[str]
    doc_ids: list[str]
    qrels: Qrels


class RunFile(NamedTuple):
    """The n results of a run in the order of the file, and the ids that their rows mean.

    ``query_rows`` and ``doc_rows`` (n,) int64, ``scores`` (n,) float32.
    """

    path: Path
    query_ids: list[str]
    doc_ids: list[str]
    query_rows: IntArray
    doc_rows: IntArray
    scores: NDArray[np.float32]


class AlignedRun(NamedTuple):
    """A run over the shared rows.

    ``missing_queries`` counts those without results, which score 0; ``unjudged_queries`` those of
    the run that no judgement names, which were left out; ``judged_results`` those results whose
    document is judged for any query: none where the ids of documents are of another kind.
    """

    path: Path
    ranking: Ranking
    missing_queries: int
    unjudged_queries: int
    judged_results: int


class AlignedRuns(NamedTuple):
    """Judgements and runs over the same rows.

    Queries are those with a positive judgement (1 or more); ``without_positive`` counts the judged
    ones that have none. Documents are those of judgements and runs together.
    """

    query_ids: list[str]
    doc_ids: list[str]
    qrels: Qrels
    runs: list[AlignedRun]
    without_positive: int


def load_qrels(path: str | os.PathLike[str]) -> QrelsFile:
    """Read judgements in any of the forms above.

    Raises:
        InputError: It cannot be read, is empty, of no known form or a run, a line or number is
            wrong, a document is judged twice for a query, or no judgement is positive.
    """
    path = Path(path)
    found = _load(path, run=False)
    if not np.any(found.values >= 1):
        raise InputError(f"{path}: no judgement is positive (1 or more); nothing can be measured.")
    qrels = Qrels(found.query_rows, found.doc_rows, found.values)
    return QrelsFile(path, found.query_ids, found.doc_ids, qrels)


def load_run(path: str | os.PathLike[str]) -> RunFile:
    """Read a run in any of the forms above.

    Raises:
        InputError: It cannot be read, is empty, of no known form or judgements, a line or score
            is wrong, or a document is there twice for a query.
    """
    path = Path(path)
    found = _load(path, run=True)
    if not found.values.size:
        raise InputError(f"{path}: a run without any result; nothing can be measured.")
    return RunFile(path, *found)


def _load(path: Path, *, run: bool) -> Columns:
    blocks = read_blocks(path)
    first = next(blocks, b"")
    content = itertools.chain([first], blocks)
    if not first.strip():
        raise InputError(f"{path}: the file is empty. Expected: {_expected(run)}.")
    if looks_like_json(first):
        return read_json_columns(path, content, scores=run)
    form, skip = _form_of(path, first, run)
    if form.scores != run:
        wanted = "a run" if run else "judgements"
        raise InputError(
            f"{path}: {form.title} ({len(form.names)} columns), where {wanted} must be. Give the "
            f"judgements first, then the runs. Expected: {_expected(run)}."
        )
    return read_columns(path, content, form, skip=skip)


def _form_of(path: Path, first: bytes, run: bool) -> tuple[Form, int]:
    """The form of a file that is no JSON, by its first line; and the lines of its head."""
    line = first.lstrip().partition(b"\n")[0]
    fields = line.split()
    form = _FORMS.get(len(fields))
    if form is None or b"\0" in first:
        found = "it is binary" if b"\0" in first else f"its first line has {len(fields)} columns"
        raise InputError(f"{path}: no known form; {found}. Expected: {_expected(run)}.")
    return form, int(not form.scores and fields[-1].lower() in _HEADS)


def _expected(run: bool) -> str:
    lines = [
        f"{columns} columns ({' '.join(form.names)})"
        for columns, form in _FORMS.items()
        if form.scores == run
    ]
    return ", or ".join([*lines, JSON_FORM])


def align_runs(
    qrels: QrelsFile, runs: Iterable[RunFile], *, judged_only: bool = False
) -> AlignedRuns:
    """Give judgements and runs the same rows, and rank each run as trec_eval does.

    Args:
        qrels: The judgements.
        runs: Taken one at a time, so that a generator holds one file's content at a time.
        judged_only: Leave out queries of a run that no judgement names; else they are an error.
            Judged queries without a positive judgement are always left out.

    Raises:
        InputError: No judgement is positive; a run names queries that are not judged, or none that
            counts; or it is too uneven to be ranked (``run_order.rank_results``).
    """
    kept = np.unique(qrels.qrels.query_rows[qrels.qrels.relevance >= 1])
    if not len(kept):
        raise InputError(f"{qrels.path}: no judgement is positive (1 or more).")
    judgements = qrels.qrels.select_queries(kept)
    query_ids = [qrels.query_ids[row] for row in kept.tolist()]
    # -1 are the judged queries that have no positive judgement.
    query_index = dict.fromkeys(qrels.query_ids, -1)
    query_index |= {query_id: row for row, query_id in enumerate(query_ids)}
    doc_index = row_numbers()
    doc_index.update(zip(qrels.doc_ids, itertools.count(), strict=False))
    aligned = [_align(run, qrels, query_index, len(kept), doc_index, judged_only) for run in runs]
    return AlignedRuns(
        query_ids, list(doc_index), judgements, aligned, len(qrels.query_ids) - len(kept)
    )


def _align(
    run: RunFile,
    qrels: QrelsFile,
    query_index: dict[str, int],
    n_queries: int,
    doc_index: dict[str, int],
    judged_only: bool,
) -> AlignedRun:
    unjudged = [query_id for query_id in run.query_ids if query_id not in query_index]
    if unjudged and not judged_only:
        raise InputError(
            f"{run.path}: {len(unjudged):,} of its {len(run.query_ids):,} queries are not judged "
            f"in {qrels.path} ({_names(unjudged)}). Give the judgements that belong to the run, or "
            "leave these queries out with --judged-only."
        )
    query_rows = np.array([query_index.get(one, -1) for one in run.query_ids], dtype=np.int64)
    query_rows = query_rows[run.query_rows]
    keep = query_rows >= 0
    if not keep.any():
        raise InputError(
            f"{run.path}: no result is of a query with a positive judgement in {qrels.path} (its "
            f"queries: {_names(run.query_ids)}; judged: {_names(qrels.query_ids)}). Give the "
            "judgements that belong to the run."
        )
    query_rows = query_rows[keep]
    ranking = rank_results(
        run.path, query_rows, run.doc_rows[keep], run.scores[keep], run.doc_ids, n_queries
    )
    # The last entry answers for padding, row -1.
    shared = np.empty(len(run.doc_ids) + 1, dtype=np.int64)
    shared[:-1] = np.fromiter(map(doc_index.__getitem__, run.doc_ids), np.int64, len(run.doc_ids))
    shared[-1] = -1
    doc_rows = shared[ranking.doc_rows]
    known = (doc_rows >= 0) & (doc_rows < len(qrels.doc_ids))
    return AlignedRun(
        run.path,
        ranking._replace(doc_rows=doc_rows),
        n_queries - len(np.unique(query_rows)),
        len(unjudged),
        int(np.count_nonzero(known)),
    )


def _names(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:_NAMED])) + (", …" if len(ids) > _NAMED else "")


def write_qrels_tsv(
    path: str | os.PathLike[str], query_ids: Sequence[str], doc_ids: Sequence[str], qrels: Qrels
) -> None:
    """Write judgements as BEIR keeps them: a head and three columns with tabs between.

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
    head = "\t".join(BEIR_FORM.names) + "\n"
    write_judgements(path, query_ids, doc_ids, qrels, "%s\t%s\t%d\n", head)
