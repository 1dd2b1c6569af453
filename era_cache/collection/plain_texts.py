"""Reading plain files of texts: a log of queries, an export of documents.

    JSON lines   {"text": …}, and maybe _id, title (documents), instruction (queries)
    .csv, .tsv   a head that names the columns, likewise
    .parquet     columns, likewise (needs pyarrow)
    any other    one text in each line

In: a file, and which role its texts have. Out: a ``TextCollection`` of that role alone. Texts
without an id are called by their line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from era_cache.collection.lines import Line, Problems, lines_of
from era_cache.collection.records import Dropped, TextCollection
from era_cache.collection.tables import TABLES, columns_of, rows_of, suffix_of
from era_cache.collection.text_rows import TextRows, documents_of, queries_of
from era_cache.disk.files import safe_name
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
    documents, queries = TextRows.none(), TextRows.none()
    if role is Role.DOCUMENT:
        documents = documents_of(path, lines, document_template, problems)
    else:
        queries = queries_of(path, lines, problems)
    return TextCollection(
        name=name,
        domain="",
        ignore_identical_ids=False,
        doc_ids=documents.ids,
        doc_texts=documents.texts,
        query_ids=queries.ids,
        query_texts=queries.texts,
        instructions=queries.instructions,
        splits={},
        dropped=Dropped(
            empty_documents=len(documents.empty),
            bad_rows=problems.count,
            kinds=tuple(problems.kinds.items()),
        ),
    )


def _lines(path: Path, column: str) -> Iterator[Line]:
    """Every text as the line of JSON that a collection in BEIR layout would have."""
    if suffix_of(path) in TABLES:
        return _as_lines(path, column, rows_of(path, (column, *_IDS, *_FIELDS)))
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
            there = columns_of(path) if suffix_of(path) == ".parquet" else [*row]
            raise Line(path, number, b"").wrong(
                f"no field {column!r}, where the text is expected; there are "
                f"{', '.join(map(repr, there[:9]))}. Name one with --column."
            )
        given = next((name for name in _IDS if row.get(name) not in (None, "")), None)
        wanted = {"_id": str(number) if given is None else row[given], "text": row[column]}
        wanted |= {name: row[name] for name in _FIELDS if name in row and name != column}
        yield Line.of(path, number, wanted)
