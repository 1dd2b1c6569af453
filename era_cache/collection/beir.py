"""Reading a retrieval collection from a folder in BEIR layout.

In: ``corpus.jsonl {_id,title,text}``, ``queries.jsonl {_id,text,instruction?}``, judgements
(``judgements.py``), ``meta.json``; plain or packed with gzip. Either of the first two will do, and
judgements can come later. Out: a ``TextCollection``.
Whatever is not taken over is counted in ``Dropped`` and reported, never dropped silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.collection.judgements import Known, judgement_files, read_judgements
from era_cache.collection.lines import Line, Problems, lines_of
from era_cache.collection.records import Dropped, TextCollection
from era_cache.collection.text_files import read_blocks
from era_cache.disk.files import is_companion, safe_name
from era_cache.disk.json_files import loads_json
from era_cache.errors import FormatError, InputError
from era_cache.types import Qrels

__all__ = ["documents_of", "queries_of", "read_beir"]

_PLACEHOLDER = re.compile(r"\{(title|text)\}")


def read_beir(
    folder: Path,
    *,
    name: str | None = None,
    document_template: str = "{title} {text}",
    all_queries: bool = False,
    skip_bad_rows: bool = False,
    skip_lost_judgements: bool = False,
) -> TextCollection:
    """Read a collection in BEIR layout.

    Args:
        folder: holds ``corpus.jsonl`` or ``queries.jsonl`` or both, and maybe ``qrels/*.tsv`` and
            ``meta.json``; each may be packed (``.gz``).
        name: of the collection; None takes it from ``meta.json``, else from the folder.
        document_template: how title and text become a document; an empty title adds nothing.
        all_queries: keep queries that no judgement names; where nothing is judged, all are kept.
        skip_bad_rows: leave out and count rows that would otherwise be errors.
        skip_lost_judgements: of these only judgements of documents or queries that are not there.

    Raises:
        InputError: a file or row is wrong; the message names file and line.
        StoreError: a file cannot be read.
    """
    corpus, queries = _files(folder)
    meta = _read_meta(folder)
    name = safe_name(name or str(meta.get("name") or folder.resolve().name))
    problems = Problems(skip_bad_rows, lost=skip_lost_judgements)
    doc_rows: dict[str, int] = {}
    query_rows: dict[str, int] = {}
    doc_texts: list[str] = []
    query_texts: list[str] = []
    instructions: list[str] = []
    empty: set[str] = set()
    if corpus is not None:
        doc_rows, doc_texts, empty = documents_of(
            corpus, lines_of(corpus), document_template, problems
        )
    if queries is not None:
        query_rows, query_texts, instructions = queries_of(queries, lines_of(queries), problems)
    qrels, repeated = _read_qrels(folder, Known(query_rows, doc_rows, empty), problems)
    judged = np.zeros(len(query_rows), dtype=bool)
    for part in qrels.values():
        judged[part.query_rows] = True
    kept = np.flatnonzero(judged) if qrels and not all_queries else np.arange(len(judged))
    query_ids = list(query_rows)
    return TextCollection(
        name=name,
        domain=str(meta.get("domain") or ""),
        ignore_identical_ids=bool(meta.get("ignore_identical_ids", False)),
        doc_ids=list(doc_rows),
        doc_texts=doc_texts,
        query_ids=[query_ids[row] for row in kept],
        query_texts=[query_texts[row] for row in kept],
        instructions=[instructions[row] for row in kept],
        splits={split: part.select_queries(kept) for split, part in qrels.items()},
        dropped=Dropped(
            len(empty),
            len(judged) - len(kept),
            repeated,
            problems.count,
            tuple(problems.kinds.items()),
        ),
    )


def _files(folder: Path) -> tuple[Path | None, Path | None]:
    """The files of documents and of queries, one of which may be missing."""
    if folder.is_file():
        raise InputError(
            f"{folder}: a file, where a folder with corpus.jsonl, queries.jsonl and qrels/*.tsv "
            "(BEIR layout) is expected. A file of texts: say --role document or --role query."
        )
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder. A collection is a folder with corpus.jsonl, queries.jsonl "
            "and qrels/*.tsv (BEIR layout)."
        )
    corpus, queries = _found(folder, "corpus"), _found(folder, "queries")
    if corpus is None and queries is None:
        raise InputError(
            f"{folder}: neither corpus.jsonl nor queries.jsonl is there (BEIR layout: see README)."
        )
    return corpus, queries


def _found(folder: Path, name: str) -> Path | None:
    """The one file of lines of this name, packed or not; None where nothing is called so."""
    paths = [folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"]
    there = [path for path in paths if path.is_file()]
    if len(there) == 1:
        return there[0]
    if there:
        raise InputError(
            f"{folder}: has {paths[0].name} and {paths[1].name}, which may differ. Remove one."
        )
    others = sorted(path.name for path in folder.glob(f"{name}*") if not is_companion(path.name))
    if not others:
        return None
    raise InputError(
        f"{folder}: {name}.jsonl is missing (BEIR layout: see README). There is "
        f"{', '.join(others[:3])}. From Parquet or CSV, pandas writes it: "
        f"frame.to_json('{name}.jsonl', orient='records', lines=True)."
    )


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    data = b"".join(read_blocks(path))
    try:
        meta = loads_json(data, str(path))
    except FormatError as error:
        raise InputError(str(error)) from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: expected a JSON object.")
    if not isinstance(meta.get("ignore_identical_ids", False), bool):
        raise InputError(f"{path}: 'ignore_identical_ids' must be true or false.")
    for field in ("name", "domain"):
        if not isinstance(meta.get(field) or "", str):
            raise InputError(f"{path}: '{field}' must be text.")
    return meta


def documents_of(
    path: Path, lines: Iterable[Line], template: str, problems: Problems
) -> tuple[dict[str, int], list[str], set[str]]:
    """Read documents.

    Args:
        path: for messages.
        lines: each a JSON object with ``_id``, ``text`` and maybe ``title``.
        template: how title and text become a document.
        problems: takes up bad rows.

    Returns:
        Row numbers by id, texts, and ids of documents without text, which have no row.

    Raises:
        InputError: a row or the template is wrong, or there is no document.
    """
    if "{text}" not in template:
        raise InputError(f"The document template {template!r} does not contain {{text}}.")
    # Without a title, what stands between it and the text ("Title: {title}. {text}") goes too.
    untitled = re.sub(r"\{title\}.*?(?=\{text\})", "", template, flags=re.DOTALL)
    rows: dict[str, int] = {}
    texts: list[str] = []
    empty: set[str] = set()
    for line in lines:
        with problems:
            row = line.row()
            doc_id = line.new_id(row, rows, empty)
            title, text = line.text(row, "title").strip(), line.text(row, "text")
            if not title and not text.strip():
                empty.add(doc_id)
                continue
            rows[doc_id] = len(texts)
            texts.append(_fill(template if title else untitled, {"title": title, "text": text}))
    if not texts:
        raise InputError(f"{path}: no document in it.")
    return rows, texts, empty


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Fill the placeholders in one pass, so that braces in a text stay what they are."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template).strip()


def queries_of(
    path: Path, lines: Iterable[Line], problems: Problems
) -> tuple[dict[str, int], list[str], list[str]]:
    """Read queries: row numbers by id, texts, instructions. As ``documents_of``."""
    rows: dict[str, int] = {}
    texts: list[str] = []
    instructions: list[str] = []
    for line in lines:
        with problems:
            row = line.row()
            query_id = line.new_id(row, rows)
            text, instruction = line.text(row, "text"), line.text(row, "instruction")
            if not text.strip():
                raise line.wrong(
                    f"query '{query_id}' has no text. Give it one or remove it; --skip-bad-rows "
                    "leaves it out."
                )
            rows[query_id] = len(texts)
            texts.append(text)
            instructions.append(instruction)
    if not texts:
        raise InputError(f"{path}: no query in it.")
    return rows, texts, instructions


def _read_qrels(folder: Path, known: Known, problems: Problems) -> tuple[dict[str, Qrels], int]:
    files = judgement_files(folder)
    if not files:
        return {}, 0
    for what, rows in (("corpus.jsonl", known.documents), ("queries.jsonl", known.queries)):
        if not rows:
            raise InputError(f"{folder}: there are judgements, but no {what} that they are about.")
    grades: dict[tuple[int, int], int] = {}
    columns: dict[str, tuple[list[int], list[int], list[int]]] = {}
    repeated = 0
    for split, path in files:
        kept = columns.setdefault(split, ([], [], []))
        for line, query_id, doc_id, grade in read_judgements(path, known, problems):
            if doc_id in known.empty:
                continue
            pair = (known.queries[query_id], known.documents[doc_id])
            before = grades.get(pair)
            if before is None:
                grades[pair] = grade
                for column, value in zip(kept, (*pair, grade), strict=True):
                    column.append(value)
                continue
            with problems:
                if before != grade:
                    raise line.wrong(
                        f"'{query_id}' and '{doc_id}' were judged {before} before and {grade} "
                        "here. Keep one of them."
                    )
                repeated += 1
    if len(columns) > 255:
        raise InputError(f"{folder}: {len(columns)} splits; at most 255 are supported.")
    splits = {
        split: Qrels(*(np.array(column, dtype=np.int64) for column in kept))
        for split, kept in columns.items()
    }
    if not any(np.any(part.relevance >= 1) for part in splits.values()):
        raise InputError(
            f"{folder / 'qrels'}: no judgement is positive (1 or more); nothing can be measured."
        )
    return splits, repeated
