"""Forms that public collections are published in, turned into documents, queries, judgements.

In: contents of the files of one collection. Out: ``Parts``.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

__all__ = ["Parts", "of_beir", "of_cosqa", "of_cranfield", "of_med", "of_sealtools"]

_LARGEST = 1 << 28


class Parts(NamedTuple):
    """A collection: documents by id (title, text), queries by id, judgements by split."""

    documents: Mapping[str, tuple[str, str]]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[tuple[str, str], int]]


def _clean(text: str) -> str:
    return " ".join(text.split())


def _json_lines(data: bytes) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in data.decode("utf-8").splitlines() if line.strip())


def of_beir(contents: list[bytes]) -> Parts:
    """A BEIR archive: one folder with corpus, queries and qrels."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(contents[0])) as archive:
        for one in archive.infolist():
            path = PurePosixPath(one.filename)
            if path.name.endswith((".jsonl", ".tsv")) and one.file_size <= _LARGEST:
                found["/".join(path.parts[1:])] = archive.read(one)
    qrels: dict[str, dict[tuple[str, str], int]] = {}
    for name in sorted(one for one in found if one.startswith("qrels/")):
        lines = found[name].decode("utf-8").splitlines()[1:]
        rows = [line.split("\t") for line in lines if line.strip()]
        split = name.removeprefix("qrels/").removesuffix(".tsv")
        qrels[split] = {(query, doc): int(grade) for query, doc, grade in rows}
    judged = {query for part in qrels.values() for query, _ in part}
    queries = {row["_id"]: row["text"] for row in _json_lines(found["queries.jsonl"])}
    documents = {
        row["_id"]: (row.get("title") or "", row["text"])
        for row in _json_lines(found["corpus.jsonl"])
    }
    kept = {one: text for one, text in queries.items() if one in judged}
    return Parts(documents, kept, qrels)


def of_cosqa(contents: list[bytes]) -> Parts:
    """CoSQA: functions with their numbers, and for each split queries with the one that answers."""
    numbers = json.loads(contents[0])
    ordered = sorted(numbers.items(), key=lambda one: int(one[1]))
    documents = {f"code-{number}": ("", code) for code, number in ordered}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[tuple[str, str], int]] = {}
    for split, data in zip(("test", "dev"), contents[1:], strict=True):
        for row in json.loads(data):
            queries[row["idx"]] = row["doc"]
            qrels.setdefault(split, {})[row["idx"], f"code-{numbers[row['code']]}"] = 1
    return Parts(documents, queries, qrels)


def of_sealtools(contents: list[bytes]) -> Parts:
    """Seal-Tools: cards of tools, and requests with the calls that answer them."""
    documents: dict[str, tuple[str, str]] = {}
    places: dict[str, str] = {}
    for number, card in enumerate(_json_lines(contents[0])):
        parameters = "; ".join(
            f"{name} ({one.get('type')}): {one.get('description')}"
            for name, one in card["parameters"].items()
        )
        responses = "; ".join(
            f"{name}: {one.get('description')}" for name, one in card["responses"].items()
        )
        text = (
            f"{card['api_description']}\nfield: {card['field']}\nparameters: {parameters}\n"
            f"responses: {responses}"
        )
        documents[f"seal-{number}"] = card["api_name"], text
        places.setdefault(card["api_name"], f"seal-{number}")
    queries: dict[str, str] = {}
    qrels: dict[str, dict[tuple[str, str], int]] = {}
    for split, data in zip(("test", "dev", "test_in_domain"), contents[1:], strict=True):
        for row in _json_lines(data):
            queries[row["id"]] = _clean(row["query"])
            for call in row["calling"]:
                qrels.setdefault(split, {})[row["id"], places[call["api"]]] = 1
    return Parts(documents, queries, qrels)


def _smart(data: bytes) -> list[dict[str, str]]:
    """Records of the SMART collections: ``.I`` begins one, ``.T``, ``.W`` and others its fields."""
    records: list[dict[str, str]] = []
    field = ""
    for line in data.decode("latin-1").splitlines():
        if line.startswith(".I"):
            records.append({"I": line[2:].strip()})
            field = ""
        elif re.fullmatch(r"\.[A-Z]\s*", line):
            field = line[1]
        elif field:
            records[-1][field] = records[-1].get(field, "") + line + "\n"
    return records


def _members(data: bytes) -> dict[str, bytes]:
    """Regular files of a packed tar, by their last name."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for one in archive:
            file = archive.extractfile(one) if one.isreg() and one.size <= _LARGEST else None
            if file is not None:
                found[PurePosixPath(one.name).name] = file.read()
    return found


def of_cranfield(contents: list[bytes]) -> Parts:
    """Cranfield 1400: abstracts whose text repeats the title, queries numbered by their place."""
    files = _members(contents[0])
    documents = {}
    for record in _smart(files["cran.all.1400"]):
        title, text = _clean(record.get("T", "")), _clean(record.get("W", ""))
        text = _clean(text.removeprefix(title))
        if title or text:
            documents[record["I"]] = title, text
    queries = {
        f"q{number}": _clean(record["W"])
        for number, record in enumerate(_smart(files["cran.qry"]), start=1)
    }
    rows = [line.split() for line in files["cranqrel"].decode("latin-1").splitlines()]
    judged = {(f"q{row[0]}", row[1]): 1 for row in rows if len(row) > 2 and row[1] in documents}
    return Parts(documents, queries, {"test": judged})


def of_med(contents: list[bytes]) -> Parts:
    """MEDLARS: abstracts, thirty queries, judgements as TREC writes them."""
    files = _members(contents[0])
    documents = {one["I"]: ("", _clean(one["W"])) for one in _smart(files["MED.ALL"])}
    queries = {f"q{one['I']}": _clean(one["W"]) for one in _smart(files["MED.QRY"])}
    rows = [line.split() for line in files["MED.REL"].decode("latin-1").splitlines()]
    judged = {(f"q{row[0]}", row[2]): 1 for row in rows if len(row) == 4}
    return Parts(documents, queries, {"test": judged})
