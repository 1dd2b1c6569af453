"""Files of judgements, in the forms that people have them in.

    query-id  corpus-id  score                     as BEIR writes it, with a head or without
    query_id  0  document_id  relevance            TREC
    any columns, where a head names these three
    {"query-id": …, "corpus-id": …, "score": …}    a JSON object in each line

Columns part at tabs, or at white space; cells may be quoted as a CSV library does. In: a file, and
the ids that there are. Out: judgements. A line that these ids allow to read in two ways is refused.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from era_cache.collection.lines import Line, LostError, Problems, lines_of
from era_cache.disk.files import is_companion
from era_cache.errors import InputError

__all__ = [
    "ROLE_NAMES",
    "Judgement",
    "Known",
    "checked_grade",
    "judged_row",
    "judgement_files",
    "read_judgements",
    "unquoted",
]

ROLE_NAMES = {
    "query": {"query-id", "query_id", "queryid", "query", "qid", "q_id", "topic", "topic_id"},
    "document": {"corpus-id", "corpus_id", "document-id", "document_id", "document", "doc-id"}
    | {"doc_id", "docid", "docno", "did", "pid", "passage_id", "passage-id"},
    "grade": {"score", "relevance", "rel", "grade", "label"},
}
"""What heads call the three columns."""
_USUAL = {3: (0, 1, 2), 4: (0, 2, 3)}
"""Places of query, document and grade where no head names them, by the number of columns."""
_EXPECTED = "expected query-id, corpus-id and score"
_GRADE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_ASCII_WHITE = " \t\r\n\f\v"
_WHITE = re.compile(f"[{_ASCII_WHITE}]+")
_LARGEST_GRADE = 1_000_000
_SUFFIXES = (".tsv", ".jsonl")


class Judgement(NamedTuple):
    """How relevant a document is to a query; ``grade`` is still text or a JSON value."""

    query: str
    document: str
    grade: Any


class Known(NamedTuple):
    """The ids that judgements can be about; documents without text are left out with theirs."""

    queries: Mapping[str, int]
    documents: Mapping[str, int]
    empty: Container[str]

    def has(self, one: Judgement) -> bool:
        """Whether both its ids exist."""
        return one.query in self.queries and (
            one.document in self.documents or one.document in self.empty
        )


def judgement_files(folder: Path) -> list[tuple[str, Path]]:
    """The files of judgements of a collection, each with the name of its split, in order.

    They lie in ``folder/qrels``; or it is one file, ``qrels.tsv`` or ``qrels.jsonl``.

    Returns:
        Nothing where nothing is called so: judgements can come later.

    Raises:
        InputError: what is there is of another form.
    """
    inside = folder / "qrels"
    paths = sorted(inside.iterdir()) if inside.is_dir() else sorted(folder.glob("qrels.*"))
    others = [path.name for path in paths if not is_companion(path.name)]
    found = []
    for path in paths:
        split, _, suffix = path.name.removesuffix(".gz").rpartition(".")
        if f".{suffix}" in _SUFFIXES and split and not is_companion(path.name):
            found.append((split, path))
    if found or not others:
        return found
    raise InputError(
        f"{inside}: no judgements; expected qrels/<split>.tsv (or .jsonl) in {folder}. There is "
        f"{', '.join(others[:3])}, of another form or name."
    )


def read_judgements(
    path: Path, known: Known, problems: Problems
) -> Iterator[tuple[Line, str, str, int]]:
    """Yield line, query id, document id and grade of each judgement of a file.

    Args:
        path: of any of the forms above.
        known: the ids that there are; every judgement is of some of them.
        problems: takes up bad rows.

    Raises:
        InputError: it cannot be read; a row is wrong or could mean two things.
    """
    as_json = path.name.removesuffix(".gz").endswith(".jsonl")
    places: tuple[int, ...] | None = None
    width = 0
    for line in lines_of(path):
        with problems:
            if as_json:
                found = _of_fields(line, line.row())
            else:
                text = line.decoded()
                head = _head(line, text) if line.number == 1 else None
                if head is not None:
                    places, width = head
                    continue
                found = _of_columns(line, text, places, width, known)
            grade = checked_grade(line, found.grade)
            _check_known(line, found, known)
            yield line, found.query, found.document, grade


def judged_row(line: Line, row: Mapping[str, Any], known: Known) -> tuple[str, str, int]:
    """Query id, document id and grade of a row of a table. Raises ``InputError``."""
    found = _of_fields(line, row)
    grade = checked_grade(line, found.grade)
    _check_known(line, found, known)
    return found.query, found.document, grade


def _of_fields(line: Line, row: Mapping[str, Any]) -> Judgement:
    fields = {}
    for role, names in ROLE_NAMES.items():
        given = [name for name in row if name.lower() in names]
        if len(given) != 1:
            raise line.wrong(
                f"{len(given) or 'no'} fields say which {role} it is; {_EXPECTED} in each object."
            )
        fields[role] = given[0]
    query, document = line.id_of(row, fields["query"]), line.id_of(row, fields["document"])
    return Judgement(query, document, row[fields["grade"]])


def _head(line: Line, text: str) -> tuple[tuple[int, ...], int] | None:
    """Places of query, document and grade as a head names them, and its columns; None if none.

    A head that names only some of them must have all in the usual places.
    """
    cells = [unquoted(cell).lower() for cell in _cut(text)[0]]
    roles = [next((r for r, names in ROLE_NAMES.items() if cell in names), None) for cell in cells]
    usual = _USUAL.get(len(cells), ())
    if roles.count("grade") != 1 or (usual and _GRADE.fullmatch(cells[usual[2]])):
        return None  # the second: of a query or document that is called 'score'
    if sorted(filter(None, roles)) == sorted(ROLE_NAMES):
        return tuple(roles.index(role) for role in ROLE_NAMES), len(cells)
    places = dict(zip(ROLE_NAMES, usual, strict=False))
    if any(role is not None and places.get(role) != at for at, role in enumerate(roles)):
        raise line.wrong(
            f"the head {' '.join(cells)!r} does not say which columns are query, document and "
            "grade. Name them query-id, corpus-id and score."
        )
    return usual, len(cells)


def _cut(text: str) -> list[list[str]]:
    """The ways to cut a line into columns: at tabs, where it has some, and at white space."""
    words = _WHITE.split(text.strip(_ASCII_WHITE))
    if "\t" not in text:
        return [words]
    tabs = [cell.strip() for cell in text.split("\t")]
    return [tabs] if tabs == words else [tabs, words]


def unquoted(cell: str) -> str:
    """A cell as a CSV library means it."""
    quoted = len(cell) >= 2 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if quoted else cell


def _of_columns(
    line: Line, text: str, places: tuple[int, ...] | None, width: int, known: Known
) -> Judgement:
    """The one way to read a line that is about ids that there are."""
    cuts = _cut(text)
    ways: list[Judgement] = []
    for cells in cuts:
        at = places if places is not None and len(cells) == width else _USUAL.get(len(cells))
        if at is None or (places is not None and len(cells) != width):
            continue
        one = Judgement(*(cells[place] for place in at))
        ways += [one, Judgement(*map(unquoted, one))] if '"' in text else [one]
    if not ways:
        raise line.wrong(f"{len(cuts[0])} columns, {_EXPECTED}.")
    fitting = list(dict.fromkeys(one for one in ways if known.has(one)))
    by_ids = {(one.query, one.document) for one in fitting}
    if len(by_ids) > 1:
        first, second = sorted(by_ids)[:2]
        raise line.wrong(
            f"could mean {first} or {second}. Put tabs between the columns, and a first line "
            "'query-id<tab>corpus-id<tab>score'."
        )
    sound = [one for one in fitting if _GRADE.fullmatch(one.grade)]
    return [*sound, *fitting, *ways][0]


def checked_grade(line: Line, given: Any) -> int:
    """A whole number, which may be written as 1.0."""
    text = repr(given) if isinstance(given, float) else str(given)
    if isinstance(given, bool) or not _GRADE.fullmatch(text) or abs(float(text)) > _LARGEST_GRADE:
        raise line.wrong(f"score '{text}' is not a whole number up to {_LARGEST_GRADE:,}.")
    return int(float(text))


def _check_known(line: Line, found: Judgement, known: Known) -> None:
    places: Sequence[tuple[str, str, Container[str], str]] = (
        ("query", found.query, known.queries, f"queries.jsonl ({len(known.queries)} queries)"),
        (
            "document",
            found.document,
            known.empty if found.document in known.empty else known.documents,
            f"corpus.jsonl ({len(known.documents)} documents)",
        ),
    )
    for what, record_id, rows, place in places:
        if record_id not in rows:
            raise LostError(
                line.path,
                line.number,
                f"{what} '{record_id}' is not in {place}. --skip-lost-judgements leaves judgements "
                f"of what is not there out, --skip-bad-rows all that is wrong.",
            )
