"""Reading plain files of texts: a log of queries, an export of documents.

    JSON lines   {"text": …}, and maybe _id, title (documents), instruction (queries)
    .csv, .tsv   a head that names the columns, likewise
    .parquet     columns, likewise (needs pyarrow)
    any other    one text in each line

In: a file, and which role its texts have. Out: a ``TextCollection`` of that role alone. Texts
without an id are called by their line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from era_cache.collection.beir import documents_of, queries_of
from era_cache.collection.lines import Line, Problems, lines_of
from era_cache.collection.records import Dropped, TextCollection
from era_cache.collection.text_files import read_blocks, whole_lines
from era_cache.disk.files import safe_name
from era_cache.disk.parquet import import_pyarrow
from era_cache.errors import InputError
from era_cache.types import Role

__all__ = ["read_plain_texts"]

_FIELDS = ("title", "instruction")
_IDS = ("_id", "id")


def read_plain_texts(
    path: Path,
    role: Role,
    *,
    column: str = "text",
    name: str | None = None,
    document_template: str = "{title} {text}",
    skip_bad_rows: bool = False,
) -> TextCollection:
    """Read a file of texts, packed with gzip or not.

    Args:
        path: the file.
        role: of its texts.
        column: what the field or column of the texts is called.
        name: of the collection; None takes the file's.
        document_template: how title and text become a document.
        skip_bad_rows: leave out and count rows that would otherwise be errors.

    Raises:
        InputError: a row is wrong; the message names file and line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. With --role, one file of texts is expected.")
    name = safe_name(name or path.name.removesuffix(".gz").rpartition(".")[0] or path.name)
    problems = Problems(skip_bad_rows)
    lines = _lines(path, column)
    rows: dict[str, int]
    documents: list[str] = []
    queries: list[str] = []
    instructions: list[str] = []
    empty: set[str] = set()
    if role is Role.DOCUMENT:
        rows, documents, empty = documents_of(path, lines, document_template, problems)
    else:
        rows, queries, instructions = queries_of(path, lines, problems)
    return TextCollection(
        name=name,
        domain="",
        ignore_identical_ids=False,
        doc_ids=list(rows) if role is Role.DOCUMENT else [],
        doc_texts=documents,
        query_ids=list(rows) if role is Role.QUERY else [],
        query_texts=queries,
        instructions=instructions,
        splits={},
        dropped=Dropped(
            empty_documents=len(empty),
            bad_rows=problems.count,
            kinds=tuple(problems.kinds.items()),
        ),
    )


def _lines(path: Path, column: str) -> Iterator[Line]:
    """Every text as the line of JSON that a collection in BEIR layout would have."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _as_lines(path, column, ((line.number, line.row()) for line in lines_of(path)))
    if suffix in (".csv", ".tsv"):
        return _as_lines(path, column, _table(path, "\t" if suffix == ".tsv" else ","))
    if suffix == ".parquet":
        return _as_lines(path, column, _parquet(path, column))
    return _as_lines(
        path, "text", ((line.number, {"text": _bare(line)}) for line in lines_of(path))
    )


def _bare(line: Line) -> str:
    return line.decoded().strip()


def _as_lines(
    path: Path, column: str, rows: Iterator[tuple[int, Mapping[str, Any]]]
) -> Iterator[Line]:
    for number, row in rows:
        if column not in row:
            raise Line(path, number, b"").wrong(
                f"no field {column!r}, where the text is expected; there are "
                f"{', '.join(map(repr, [*row][:9]))}. Name one with --column."
            )
        given = next((name for name in _IDS if row.get(name) not in (None, "")), None)
        wanted = {"_id": str(number) if given is None else row[given], "text": row[column]}
        wanted |= {name: row[name] for name in _FIELDS if name in row and name != column}
        try:
            yield Line(path, number, json.dumps(wanted).encode())
        except (TypeError, ValueError) as error:
            raise Line(path, number, b"").wrong(f"no plain values: {error}.") from error


def _table(path: Path, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(_text_lines(path), delimiter=delimiter, strict=True)
    head: list[str] | None = None
    try:
        for cells in reader:
            if not cells:  # a blank line between rows
                continue
            if head is None:
                head = cells
                if len(set(head)) != len(head):
                    raise Line(path, reader.line_num, b"").wrong("two columns have one name.")
                continue
            if len(cells) != len(head):
                raise Line(path, reader.line_num, b"").wrong(
                    f"{len(cells)} cells, where the head names {len(head)} columns."
                )
            yield reader.line_num, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        raise Line(path, reader.line_num, b"").wrong(f"no row of a table: {error}.") from error


def _text_lines(path: Path) -> Iterator[str]:
    """Every line with its end, blank ones too: a quoted cell may hold them."""
    for first, block in whole_lines(path, read_blocks(path), longest=None):
        for number, data in enumerate(block[:-1].split(b"\n"), start=first):
            try:
                yield data.decode("utf-8") + "\n"
            except UnicodeDecodeError as error:
                raise Line(path, number, data).wrong(f"not UTF-8 text ({error.reason}).") from error


def _parquet(path: Path, column: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    parquet = import_pyarrow(path, ".jsonl or .csv")
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = [name for name in (column, *_IDS, *_FIELDS) if name in names]
        if column not in names:
            raise Line(path, 0, b"").wrong(
                f"no column {column!r}; there are {', '.join(map(repr, names[:9]))}. Name one with "
                "--column."
            )
        number = 0
        for batch in file.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except OSError as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}.") from error
    except ValueError as error:  # what pyarrow raises for a file that is none
        raise InputError(f"{path}: no sound Parquet file: {error}.") from error
