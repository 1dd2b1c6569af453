"""Data sets as they lie on the Hugging Face hub: tables of corpus, queries and judgements.

    corpus*      _id or id, text, maybe title
    queries*     _id or id, text, maybe instruction
    qrels*, default*, …    query-id, corpus-id, score
    instruction*           query-id, instruction

each one a file, a folder of parts, or a folder of files called after splits; .parquet, JSON lines,
.csv, .tsv. In: a folder of that layout, or ``hub:OWNER/NAME``. Out: a ``TextCollection``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from era_cache.collection.assemble import Judged, ReaderSettings, Rows, Source, assemble
from era_cache.collection.hub import hub_snapshot
from era_cache.collection.judgements import ROLE_NAMES, Known, judged_row
from era_cache.collection.lines import Line, Problems
from era_cache.collection.records import TextCollection
from era_cache.collection.tables import TABLES, columns_of, rows_of, suffix_of
from era_cache.disk.files import is_companion, safe_name
from era_cache.errors import InputError

__all__ = ["read_hub"]

_KINDS = {
    "documents": ("corpus", "documents", "docs", "passages"),
    "queries": ("queries", "query"),
    "instructions": ("instruction", "instructions"),
    "judgements": ("qrels", "default", "relevance", "labels"),
}
_PART = re.compile(r"[-_]?\d{5}-of-\d{5}$|^\d{4}$")
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_FIELDS = ("_id", "id", "doc_id", "text", "title", "instruction")


def read_hub(
    path: Path,
    settings: ReaderSettings,
    *,
    subset: str = "",
    splits: str = "",
) -> TextCollection:
    """Read tables of the hub's layout; see ``readers.Reader``.

    Args:
        path: a folder, or ``OWNER/NAME`` on the hub.
        settings: what is wanted of the reader.
        subset: of data sets with several (``de`` where the tables are called ``de-corpus``).
        splits: of the judgements, parted by commas; empty for all.

    Raises:
        InputError: a table is missing, a row is wrong; the message names file and row.
    """
    folder = path
    if not path.is_dir():
        if not _REPOSITORY.fullmatch(str(path)):
            raise InputError(f"{path}: no such folder, and no name of a data set (OWNER/NAME).")
        folder = hub_snapshot(str(path))
    tables = _tables(folder, subset)
    for kind in ("documents", "queries"):
        if not tables[kind]:
            raise InputError(
                f"{folder}: no table of {kind}; expected one of {', '.join(_KINDS[kind])} as a "
                f"folder or file ({', '.join(TABLES)})"
                + (
                    f" of the subset {subset!r}."
                    if subset
                    else "; or name a subset: --read subset=…"
                )
            )
    wanted = {one for one in splits.split(",") if one}
    judged = [
        (split, file) for split, file in tables["judgements"] if not wanted or split in wanted
    ]
    if wanted - {split for split, _ in judged}:
        there = ", ".join(sorted({split for split, _ in tables["judgements"]})) or "none"
        raise InputError(f"{folder}: splits {splits!r}; there are {there}.")
    problems = settings.problems()
    said = _instructions([file for _, file in tables["instructions"]], problems)
    documents, queries = ([file for _, file in tables[kind]] for kind in ("documents", "queries"))

    def judgements(known: Known) -> Iterator[Judged]:
        for split, file in judged:
            for number, row in rows_of(file):
                with problems:
                    line = Line(file, number, b"")
                    yield Judged(line, split, *judged_row(line, row, known))

    source = Source(
        path=folder,
        name=safe_name(settings.name or path.resolve().name),
        documents=Rows(documents[0], _lines(documents, {}, problems)),
        queries=Rows(queries[0], _lines(queries, said, problems)),
        judgements=judgements,
        splits=list(dict.fromkeys(split for split, _ in judged)),
    )
    return assemble(source, settings, problems)


def _tables(folder: Path, subset: str) -> dict[str, list[tuple[str, Path]]]:
    """Files of each kind with the split that they are called after, in order."""
    found: dict[str, list[tuple[str, Path]]] = {kind: [] for kind in _KINDS}
    for path in sorted(folder.rglob("*")):
        if suffix_of(path) not in TABLES or not path.is_file():
            continue
        inside = path.relative_to(folder).parts
        if any(is_companion(part) or part.startswith(".") for part in inside):
            continue
        stem = path.name.removesuffix(".gz").rpartition(".")[0]
        split = _PART.sub("", stem) or path.parent.name
        for word in (*inside[:-1], split):
            kind = _kind(word, subset)
            if kind is not None:
                found[kind].append(("test" if split == word else split, path))
                break
        else:
            if not subset and _holds_judgements(path):
                found["judgements"].append((split, path))
    return found


def _kind(word: str, subset: str) -> str | None:
    if subset:
        if not word.lower().startswith(f"{subset.lower()}-"):
            return None
        word = word[len(subset) + 1 :]
    return next((kind for kind, names in _KINDS.items() if word.lower() in names), None)


def _holds_judgements(path: Path) -> bool:
    names = {name.lower() for name in columns_of(path)}
    return all(names & wanted for wanted in ROLE_NAMES.values())


def _instructions(paths: Sequence[Path], problems: Problems) -> dict[str, str]:
    found = {}
    for path in paths:
        for number, row in rows_of(path):
            with problems:
                line = Line(path, number, b"")
                query_id = line.id_of(row, "query-id", "query_id", "_id", "id")
                found[query_id] = line.text(row, "instruction", None)
    return found


def _lines(
    paths: Sequence[Path], instructions: Mapping[str, str], problems: Problems
) -> Iterator[Line]:
    for path in paths:
        for number, row in rows_of(path, _FIELDS):
            with problems:
                line = Line(path, number, b"")
                fields: dict[str, Any] = {"_id": line.id_of(row, "_id", "id", "doc_id")}
                fields |= {key: row[key] for key in ("text", "title", "instruction") if key in row}
                if fields["_id"] in instructions:
                    fields["instruction"] = instructions[fields["_id"]]
                yield Line.of(path, number, fields)
