"""Files of pairs and triples: a query, what answers it, and maybe what does not.

    {"anchor" or "query" or "question", "positive" or "answer" or "document" or …, "negative", …}

JSON lines, .csv, .tsv, .parquet; a file, or a folder of files called after splits. In: it. Out: a
``TextCollection`` whose documents are the distinct texts of both kinds; positives are judged 1,
negatives 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from era_cache.collection.assemble import Judged, ReaderSettings, Rows, Source, assemble
from era_cache.collection.lines import Line
from era_cache.collection.records import TextCollection
from era_cache.collection.tables import TABLES, rows_of, suffix_of
from era_cache.disk.files import is_companion, safe_name
from era_cache.errors import InputError

__all__ = ["read_pairs"]

_QUERY = ("anchor", "query", "question", "sentence1", "title")
_POSITIVE = ("positive", "pos", "answer", "document", "passage", "response", "sentence2", "text")
_NEGATIVE = ("negative", "neg")


def read_pairs(
    path: Path,
    settings: ReaderSettings,
    *,
    query: str = "",
    positive: str = "",
    negative: str = "",
    instruction: str = "instruction",
) -> TextCollection:
    """Read pairs or triples; see ``readers.Reader``.

    Args:
        path: a table, or a folder of tables called after splits.
        settings: what is wanted of the reader.
        query: column of the queries; empty takes the usual names.
        positive: column of the answers, likewise; may hold lists.
        negative: column of what does not answer, likewise.
        instruction: column of instructions, where there is one.

    Raises:
        InputError: a column is missing or a row is wrong; the message names file and line.
    """
    files = _files(path)
    problems = settings.problems()
    queries, documents = _Texts("q"), _Texts("d")
    judged: list[Judged] = []
    for split, file in files:
        for number, row in rows_of(file):
            with problems:
                line = Line(file, number, b"")
                said = line.text(row, instruction) if instruction in row else ""
                asked = _one(line, row, query, _QUERY, "query")
                found = _texts(line, row, positive, _POSITIVE, "positive")
                others = _negatives(line, row, negative)
                query_id = queries.add(line, asked, said)
                pairs = [(text, 1) for text in found] + [(text, 0) for text in others]
                judged += [
                    Judged(line, split, query_id, documents.add(line, text), grade)
                    for text, grade in pairs
                ]
    source = Source(
        path=path,
        name=safe_name(settings.name or path.name.partition(".")[0]),
        documents=Rows(path, documents.lines()),
        queries=Rows(path, queries.lines()),
        judgements=lambda _known: iter(judged),
        best_grade=True,  # an answer of one row may be another row's negative
    )
    return assemble(source, settings, problems)


class _Texts:
    """Distinct texts, numbered as they come."""

    def __init__(self, letter: str) -> None:
        self._letter = letter
        self._rows: dict[tuple[str, str], tuple[str, Line]] = {}

    def add(self, line: Line, text: str, instruction: str = "") -> str:
        known = self._rows.get((text, instruction))
        if known is not None:
            return known[0]
        new = f"{self._letter}{len(self._rows) + 1}"
        fields = {"_id": new, "text": text}
        if instruction:
            fields["instruction"] = instruction
        self._rows[text, instruction] = new, Line.of(line.path, line.number, fields)
        return new

    def lines(self) -> Iterator[Line]:
        return (line for _, line in self._rows.values())


def _files(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        stem = path.name.partition(".")[0].lower()
        return [(stem if stem in ("train", "dev", "validation", "test") else "train", path)]
    found = [
        (file.name.partition(".")[0].partition("-")[0], file)
        for file in sorted(path.glob("*"))
        if suffix_of(file) in TABLES and not is_companion(file.name)
    ]
    if not found:
        raise InputError(f"{path}: no file of pairs ({', '.join(TABLES)}).")
    return found


def _column(row: Mapping[str, Any], given: str, usual: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in row}
    names = (given,) if given else usual
    return next((lower[one.lower()] for one in names if one.lower() in lower), None)


def _one(line: Line, row: Mapping[str, Any], given: str, usual: tuple[str, ...], what: str) -> str:
    return _texts(line, row, given, usual, what)[0]


def _texts(
    line: Line, row: Mapping[str, Any], given: str, usual: tuple[str, ...], what: str
) -> list[str]:
    """The text of a column, or its texts where it holds a list."""
    column = _column(row, given, usual)
    if column is None:
        raise line.wrong(
            f"no column {given or what!r}; there are {', '.join(map(repr, [*row][:9]))}. Name it "
            f"with --read {what}=COLUMN."
        )
    values = row[column] if isinstance(row[column], list) else [row[column]]
    found = [line.text({column: value}, column, None) for value in values]
    if not found or not all(text.strip() for text in found):
        raise line.wrong(f"no text in the column {column!r}.")
    return found


def _negatives(line: Line, row: Mapping[str, Any], given: str) -> list[str]:
    if given:
        return _texts(line, row, given, (), "negative")
    found: list[str] = []
    for name in row:
        if name.lower().rstrip("_0123456789") in _NEGATIVE and row[name]:
            found += _texts(line, row, name, (), "negative")
    return found
