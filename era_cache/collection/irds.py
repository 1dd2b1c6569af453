"""Data sets of ir_datasets (extra ``irds``), which also reads TREC topics: ``irds:ID``.

In: an id, such as ``beir/scifact`` or ``beir/scifact/test``. Out: a ``TextCollection``; an id
without judgements takes those of the ids below it, each as a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from era_cache.collection.assemble import Judged, ReaderSettings, Rows, Source, assemble
from era_cache.collection.judgements import Known, judged_row
from era_cache.collection.lines import Line
from era_cache.collection.records import TextCollection
from era_cache.disk.files import safe_name
from era_cache.errors import InputError

__all__ = ["read_irds"]


def read_irds(
    path: Path,
    settings: ReaderSettings,
    *,
    field: str = "",
) -> TextCollection:
    """Read a data set that ir_datasets knows, fetched by it; see ``readers.Reader``.

    Args:
        path: its id.
        settings: what is wanted of the reader.
        field: of the queries (``title``, ``description``); empty takes what the package does.

    Raises:
        InputError: there is no such data set, it cannot be fetched, or a row is wrong.
    """
    given = str(path)
    library = _library(given)
    try:
        whole = library.load(given)
    except KeyError as error:
        raise InputError(f"irds:{given}: ir_datasets knows no such id.") from error
    problems = settings.problems()
    place = Path(f"irds:{given}")
    parts = _parts(library, given, whole)
    if not (whole.has_docs() and all(part.has_queries() for _, part in parts)):
        raise InputError(f"irds:{given}: has no documents, or no queries.")

    def documents() -> Iterator[Line]:
        for number, one in enumerate(_each(whole.docs_iter(), given), start=1):
            title, text = getattr(one, "title", ""), getattr(one, "text", None)
            fields = {"_id": one.doc_id, "title": title, "text": text}
            if text is None:
                fields = {"_id": one.doc_id, "text": one.default_text()}
            yield Line.of(place / "docs", number, fields)

    def queries() -> Iterator[Line]:
        seen: set[str] = set()
        for _, part in parts:
            for number, one in enumerate(_each(part.queries_iter(), given), start=1):
                line = Line(place / "queries", number, b"")
                if field and not isinstance(getattr(one, field, None), str):
                    raise line.wrong(f"no field {field!r}; there are {', '.join(one._fields)}.")
                text = getattr(one, field) if field else one.default_text()
                if one.query_id not in seen:
                    seen.add(one.query_id)
                    yield Line.of(line.path, number, {"_id": one.query_id, "text": text})

    def judgements(known: Known) -> Iterator[Judged]:
        for split, part in parts:
            rows = _each(part.qrels_iter(), given) if part.has_qrels() else ()
            for number, one in enumerate(rows, start=1):
                line = Line(place / "qrels", number, b"")
                row = {"query-id": one.query_id, "corpus-id": one.doc_id, "score": one.relevance}
                with problems:
                    yield Judged(line, split, *judged_row(line, row, known))

    source = Source(
        path=place,
        name=safe_name(settings.name or given.replace("/", "-")),
        documents=Rows(place / "docs", documents()),
        queries=Rows(place / "queries", queries()),
        judgements=judgements,
        best_grade=True,
    )
    return assemble(source, settings, problems)


def _library(given: str) -> Any:
    try:
        import ir_datasets
    except ImportError as error:
        raise InputError(
            f"irds:{given}: the package ir_datasets is missing: pip install 'era-cache[irds]'."
        ) from error
    return ir_datasets


def _parts(library: Any, given: str, whole: Any) -> list[tuple[str, Any]]:
    """Splits with queries: the id itself, or those below it."""
    if whole.has_queries() and whole.has_qrels():
        return [(given.rpartition("/")[2] if "/" in given else "test", whole)]
    below = sorted(
        one
        for one in library.registry
        if one.startswith(f"{given}/") and one.count("/") == given.count("/") + 1
    )
    found = [(one.rpartition("/")[2], library.load(one)) for one in below]
    return [(split, part) for split, part in found if part.has_qrels()] or [("test", whole)]


def _each(rows: Any, given: str) -> Iterator[Any]:
    try:
        yield from rows
    except InputError:
        raise
    except Exception as error:
        # Fetching, unpacking and parsing: each failure means the same to the user.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"irds:{given}: cannot be read: {reason}.") from error
