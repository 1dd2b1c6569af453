"""Reading a retrieval collection from a folder in BEIR layout.

In: ``corpus.jsonl {_id,title,text}``, ``queries.jsonl {_id,text,instruction?}``,
``qrels/<split>.tsv``, optional ``meta.json``. Out: a ``TextCollection``. Whatever is not taken over
is counted in ``Dropped`` and reported, never dropped silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.records import Dropped, TextCollection
from era_cache.disk.files import is_companion, os_errors, safe_name
from era_cache.disk.json_files import loads_json
from era_cache.errors import FormatError, InputError
from era_cache.types import Qrels

__all__ = ["read_beir"]

_PLACEHOLDER = re.compile(r"\{(title|text)\}")


class _Line(NamedTuple):
    """One line of a file, and where it is."""

    path: Path
    number: int
    data: bytes

    def wrong(self, what: str) -> InputError:
        """An error that names the place."""
        return InputError(f"{self.path} line {self.number}: {what}")

    def row(self) -> dict[str, Any]:
        """The JSON object of this line."""
        try:
            value = json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise self.wrong(
                f"not valid JSON: {error}. Each line must hold one JSON object."
            ) from error
        if not isinstance(value, dict):
            raise self.wrong(f"expected a JSON object, found {self.data[:40]!r}.")
        return value

    def text(self, row: Mapping[str, Any], name: str, default: str | None = "") -> str:
        """A field of the row as text; None as default means that it must be there."""
        value = row.get(name, default)
        if value is None and default is not None:
            return default
        if name == "_id" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            found = "nothing" if value is None else type(value).__name__
            raise self.wrong(f"field '{name}' must be text, found {found}.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.wrong(f"field '{name}' is not valid Unicode (a lone surrogate).") from error
        return value

    def new_id(self, row: Mapping[str, Any], *seen: Container[str]) -> str:
        """The id of the row, which must not have been seen."""
        record_id = self.text(row, "_id", None)
        if not record_id or record_id.split() != [record_id]:
            # TREC files are separated by white space: such an id could not be written there.
            raise self.wrong(f"id {record_id!r} is empty or has white space.")
        if any(record_id in ids for ids in seen):
            raise self.wrong(
                f"id '{record_id}' occurs a second time. Ids must be unique; --skip-bad-rows keeps "
                "the first."
            )
        return record_id


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the lines of a file; blank ones are passed over."""
    with os_errors("reading", path), path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            if data.strip():
                yield _Line(path, number, data)


class _Problems:
    """Raises the first bad row, or counts it where the user asked to skip them."""

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.count = 0

    def __enter__(self) -> _Problems:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        if self.skip and isinstance(error, InputError):
            self.count += 1
            return True
        return False


def read_beir(
    folder: Path,
    *,
    name: str | None = None,
    document_template: str = "{title} {text}",
    all_queries: bool = False,
    skip_bad_rows: bool = False,
) -> TextCollection:
    """Read a collection in BEIR layout.

    Args:
        folder: holds ``corpus.jsonl``, ``queries.jsonl``, ``qrels/*.tsv`` and maybe ``meta.json``.
        name: of the collection; None takes it from ``meta.json``, else from the folder.
        document_template: how title and text become a document; an empty title adds nothing.
        all_queries: keep queries that no judgement names.
        skip_bad_rows: leave out and count rows that would otherwise be errors.

    Raises:
        InputError: a file or row is wrong; the message names file and line.
        StoreError: a file cannot be read.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder. A collection is a folder with corpus.jsonl, queries.jsonl "
            "and qrels/*.tsv (BEIR layout)."
        )
    for needed in ("corpus.jsonl", "queries.jsonl"):
        if not (folder / needed).is_file():
            raise InputError(f"{folder}: {needed} is missing (BEIR layout: see README).")
    meta = _read_meta(folder)
    name = safe_name(name or str(meta.get("name") or folder.resolve().name))
    problems = _Problems(skip_bad_rows)
    doc_rows, doc_texts, empty = _read_corpus(folder / "corpus.jsonl", document_template, problems)
    query_rows, query_texts, instructions = _read_queries(folder / "queries.jsonl", problems)
    qrels, repeated = _read_qrels(folder / "qrels", query_rows, doc_rows, empty, problems)
    judged = np.zeros(len(query_rows), dtype=bool)
    for part in qrels.values():
        judged[part.query_rows] = True
    kept = np.arange(len(judged)) if all_queries else np.flatnonzero(judged)
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
        dropped=Dropped(len(empty), len(judged) - len(kept), repeated, problems.count),
    )


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    with os_errors("reading", path):
        data = path.read_bytes()
    try:
        meta = loads_json(data, str(path))
    except FormatError as error:
        raise InputError(str(error)) from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: expected a JSON object.")
    if not isinstance(meta.get("ignore_identical_ids", False), bool):
        raise InputError(f"{path}: 'ignore_identical_ids' must be true or false.")
    return meta


def _read_corpus(
    path: Path, template: str, problems: _Problems
) -> tuple[dict[str, int], list[str], set[str]]:
    if "{text}" not in template:
        raise InputError(f"The document template {template!r} does not contain {{text}}.")
    # Without a title, what stands between it and the text ("Title: {title}. {text}") goes too.
    untitled = re.sub(r"\{title\}.*?(?=\{text\})", "", template, flags=re.DOTALL)
    rows: dict[str, int] = {}
    texts: list[str] = []
    empty: set[str] = set()
    for line in _lines(path):
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


def _read_queries(path: Path, problems: _Problems) -> tuple[dict[str, int], list[str], list[str]]:
    rows: dict[str, int] = {}
    texts: list[str] = []
    instructions: list[str] = []
    for line in _lines(path):
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


def _read_qrels(
    folder: Path,
    queries: Mapping[str, int],
    documents: Mapping[str, int],
    empty: Container[str],
    problems: _Problems,
) -> tuple[dict[str, Qrels], int]:
    paths = sorted(path for path in folder.glob("*.tsv") if not is_companion(path.name))
    if not paths:
        raise InputError(f"{folder}: no judgements; expected qrels/<split>.tsv in it.")
    if len(paths) > 255:
        raise InputError(f"{folder}: {len(paths)} splits; at most 255 are supported.")
    seen: dict[tuple[int, int], int] = {}
    splits: dict[str, Qrels] = {}
    repeated = 0
    for path in paths:
        columns: tuple[list[int], list[int], list[int]] = ([], [], [])
        for line in _lines(path):
            with problems:
                judgement = _judgement(line)
                if judgement is None:
                    continue
                query_id, doc_id, grade = judgement
                if query_id in queries and doc_id in empty:
                    continue
                pair = _judged_pair(line, query_id, doc_id, queries, documents)
                known = seen.get(pair)
                if known is not None and known != grade:
                    raise line.wrong(
                        f"'{query_id}' and '{doc_id}' were judged {known} before and {grade} here. "
                        "Keep one of them."
                    )
                if known is not None:
                    repeated += 1
                    continue
                seen[pair] = grade
                for column, value in zip(columns, (*pair, grade), strict=True):
                    column.append(value)
        splits[path.stem] = Qrels(*(np.array(column, dtype=np.int64) for column in columns))
    if not any(np.any(part.relevance >= 1) for part in splits.values()):
        raise InputError(
            f"{folder}: no judgement is positive (1 or more); nothing can be measured."
        )
    return splits, repeated


def _judgement(line: _Line) -> tuple[str, str, int] | None:
    """Parse one line of qrels; None for the header and blank lines."""
    first = line.number == 1
    try:
        parts = line.data.decode("utf-8-sig" if first else "utf-8").split()
    except UnicodeDecodeError as error:
        raise line.wrong(f"not UTF-8 text ({error.reason}).") from error
    if not parts or (first and parts[-1].lower() in {"score", "relevance", "rel"}):
        return None
    if len(parts) == 4:  # TREC: query, iteration, document, grade
        parts = [parts[0], parts[2], parts[3]]
    if len(parts) != 3:
        raise line.wrong(f"{len(parts)} columns, expected query-id, corpus-id and score.")
    try:
        return parts[0], parts[1], _grade(parts[2])
    except ValueError as error:
        raise line.wrong(f"score '{parts[2]}' is not a whole number.") from error


def _grade(text: str) -> int:
    grade = int(text)
    if abs(grade) > 1_000_000:
        raise ValueError(text)
    return grade


def _judged_pair(
    line: _Line,
    query_id: str,
    doc_id: str,
    queries: Mapping[str, int],
    documents: Mapping[str, int],
) -> tuple[int, int]:
    for what, record_id, rows, place in (
        ("query", query_id, queries, "queries.jsonl ({} queries)"),
        ("document", doc_id, documents, "corpus.jsonl ({} documents)"),
    ):
        if record_id not in rows:
            raise line.wrong(
                f"{what} '{record_id}' is not in {place.format(len(rows))}. --skip-bad-rows leaves "
                "such rows out."
            )
    return queries[query_id], documents[doc_id]
