"""MAIR (arXiv 2410.10127): 126 tasks with an instruction for each query, in six domains.

    FOLDER/MAIR-Queries/TASK/queries.jsonl  {"qid", "instruction", "query", "labels"}
    FOLDER/MAIR-Docs/TASK/docs.jsonl        {"id", "doc"}; a label is {"id", "score"}

or ``SPLIT_queries.jsonl`` and ``SPLIT_docs.jsonl`` of tasks with many splits; .parquet likewise.
In: a task, a domain or ``*``, from such a folder or from the hub. Out: a collection for each split
of a task (every one has documents of its own), or one for all of a task, as the code of arXiv
2604.03403 has it.

Queries with an id that was there are called ``ID_NUMBER``, of documents with one id the first
counts, of labels of one pair the highest; each is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from era_cache.collection.assemble import Judged, ReaderSettings, Rows, Source, assemble
from era_cache.collection.hub import hub_files, hub_snapshot
from era_cache.collection.judgements import Known, checked_grade
from era_cache.collection.lines import Line, LostError, Problems
from era_cache.collection.mair_tasks import DOMAIN_OF, DOMAINS
from era_cache.collection.records import TextCollection
from era_cache.collection.tables import rows_of, suffix_of
from era_cache.disk.files import safe_name
from era_cache.errors import InputError

__all__ = ["read_mair"]

_REPOSITORIES = ("MAIR-Bench/MAIR-Queries", "MAIR-Bench/MAIR-Docs")
_FORMS = (".jsonl", ".parquet")
_PART = re.compile(r"-\d{5}-of-\d{5}$|^\d{4}$")


class _Split(NamedTuple):
    """Files of one split of a task."""

    name: str
    queries: list[Path]
    documents: list[Path]


class _Mair:
    """The reader; see ``readers.Reader`` and ``readers.Several``."""

    def expand(self, given: str, *, folder: str = "", splits: str = "split-wise") -> list[str]:
        """Tasks of a domain, all tasks (``*``), and the splits of a task.

        Args:
            given: a task, ``TASK/SPLIT``, a domain, or ``*``.
            folder: that holds MAIR-Queries and MAIR-Docs; empty for the hub.
            splits: ``split-wise``, or ``merged`` for one collection of all splits of a task.

        Raises:
            InputError: there is no such task.
        """
        if splits not in ("split-wise", "merged"):
            raise InputError(f"splits={splits}: expected split-wise or merged.")
        if "/" in given:
            return [given]
        tasks = _tasks(folder)
        if given == "*":
            wanted = tasks
        elif given.lower() in DOMAINS:
            wanted = [task for task in tasks if DOMAIN_OF.get(task) == given.lower()]
        else:
            wanted = [task for task in tasks if task == given]
        if not wanted:
            raise InputError(
                f"MAIR has no task and no domain {given!r} there. Tasks: {', '.join(tasks[:12])}"
                f"{', …' if len(tasks) > 12 else ''}; domains: {', '.join(DOMAINS)}; * for all."
            )
        if splits == "merged":
            return wanted
        return [
            task if split.name == "queries" else f"{task}/{split.name}"
            for task in wanted
            for split in _splits(_task_folders(task, folder), task)
        ]

    def __call__(
        self,
        path: Path,
        settings: ReaderSettings,
        *,
        folder: str = "",
        splits: str = "split-wise",
    ) -> TextCollection:
        """Read a task or one of its splits; see ``readers.Reader``.

        Labels of documents that are not there are left out and counted, as no list of judgements
        of MAIR was ever checked for them.
        """
        task, _, split = str(path).partition("/")
        parts = _splits(_task_folders(task, folder), task)
        if split:
            parts = [part for part in parts if part.name == split]
        if not parts:
            raise InputError(f"MAIR: {task} has no split {split!r}.")
        if len(parts) > 1 and splits != "merged":
            raise InputError(
                f"MAIR: {task} has {len(parts)} splits with documents of their own: "
                f"{', '.join(part.name for part in parts[:6])}… Name one, or say splits=merged."
            )
        label = task if len(parts) > 1 or parts[0].name == "queries" else _label(task, split)
        problems = settings.problems()
        merged = len(parts) > 1
        rows = [row for part in parts for row in _queries(part.queries, problems, merged)]
        documents = _documents([f for part in parts for f in part.documents], problems, merged)
        source = Source(
            path=parts[0].queries[0],
            name=safe_name(settings.name or label),
            documents=Rows(parts[0].documents[0], documents),
            queries=Rows(parts[0].queries[0], (line for line, _ in _last(rows, merged))),
            judgements=lambda known: _labels(_last(rows, merged), known, problems),
            domain=DOMAIN_OF.get(task, ""),
            best_grade=True,
        )
        return assemble(source, settings, problems)


read_mair = _Mair()
_Query = tuple[Line, list[tuple[str, Any]]]


def _label(task: str, split: str) -> str:
    short = split.removesuffix("_queries").removeprefix(f"{task}_")
    return f"{task}-{short}"


def _tasks(folder: str) -> list[str]:
    """Tasks that are there, in MAIR's order; those that are in no domain last."""
    if folder:
        inside = Path(folder) / "MAIR-Queries"
        if not inside.is_dir():
            raise InputError(f"{folder}: no folder MAIR-Queries in it.")
        there = {one.name for one in inside.iterdir() if one.is_dir()}
    else:
        there = {name.split("/")[0] for name in hub_files(_REPOSITORIES[0]) if "/" in name}
    return [task for task in DOMAIN_OF if task in there] + sorted(there - DOMAIN_OF.keys())


def _task_folders(task: str, folder: str) -> tuple[Path, Path]:
    """The folders of a task's queries and documents, fetched where none is given."""
    if folder:
        root = Path(folder)
        return root / "MAIR-Queries" / task, root / "MAIR-Docs" / task
    queries, documents = (hub_snapshot(repo, f"{task}/*") / task for repo in _REPOSITORIES)
    return queries, documents


def _splits(folders: tuple[Path, Path], task: str) -> list[_Split]:
    """Queries paired with documents, by the official rule: ``X_queries`` has ``X_docs``."""
    queries, documents = (_by_split(folder, task) for folder in folders)
    found = []
    for name in sorted(one for one in queries if one.endswith("queries")):
        wanted = "docs" if name == "queries" else name.replace("_queries", "_docs")
        if wanted not in documents:
            raise InputError(f"{folders[1]}: no documents {wanted!r} for the queries {name!r}.")
        found.append(_Split(name, queries[name], documents[wanted]))
    if not found:
        raise InputError(f"{folders[0]}: no file of queries (*queries.jsonl or .parquet).")
    return found


def _by_split(folder: Path, task: str) -> dict[str, list[Path]]:
    """Files of each split, which may be one file, parts, or a folder of numbered files."""
    found: dict[str, list[Path]] = {}
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; MAIR's layout has one for each task ({task}).")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and suffix_of(path) in _FORMS:
            stem = path.name.removesuffix(".gz").rpartition(".")[0]
            name = path.parent.name if _PART.fullmatch(stem) else _PART.sub("", stem)
            found.setdefault(name, []).append(path)
    return found


def _queries(paths: list[Path], problems: Problems, merged: bool) -> Iterator[_Query]:
    seen: set[str] = set()
    number = 0
    for path in paths:
        for place, row in rows_of(path):
            with problems:
                line = Line(path, place, b"")
                query_id, text = line.id_of(row, "qid"), line.text(row, "query", None)
                if query_id in seen and not merged:
                    problems.count_one("query with an id that was there, called ID_NUMBER")
                    query_id = f"{query_id}_{number}"
                seen.add(query_id)
                fields = {
                    "_id": query_id,
                    "text": text,
                    "instruction": line.text(row, "instruction"),
                }
                yield Line.of(path, place, fields), list(_pairs(line, row.get("labels")))
            number += 1


def _pairs(line: Line, labels: Any) -> Iterator[tuple[str, Any]]:
    """Labels as a list of objects, or as older files have it: an object of lists."""
    if isinstance(labels, Mapping) and {"id", "score"} <= labels.keys():
        ids, scores = labels["id"], labels["score"]
        if not (isinstance(ids, list) and isinstance(scores, list) and len(ids) == len(scores)):
            raise line.wrong("'labels' must have as many scores as ids.")
        labels = [{"id": one, "score": score} for one, score in zip(ids, scores, strict=True)]
    if not isinstance(labels or [], list):
        raise line.wrong(f"'labels' must be a list, found {type(labels).__name__}.")
    for one in labels or []:
        if not isinstance(one, Mapping):
            raise line.wrong("each of 'labels' must have id and score.")
        yield line.id_of(one, "id"), one.get("score")


def _documents(paths: list[Path], problems: Problems, merged: bool) -> Iterator[Line]:
    rows: dict[str, Line] = {}
    for path in paths:
        for place, row in rows_of(path, ("id", "doc")):
            with problems:
                line = Line(path, place, b"")
                doc_id = line.id_of(row, "id")
                if doc_id in rows and not merged:
                    problems.count_one("document with an id that was there")
                    continue
                fields = {"_id": doc_id, "text": line.text(row, "doc", None)}
                rows[doc_id] = Line.of(path, place, fields)
    yield from rows.values()


def _last(rows: list[_Query], merged: bool) -> Iterable[_Query]:
    """All queries; of merged splits the last of each id, as the published code has it."""
    return {line.row()["_id"]: (line, labels) for line, labels in rows}.values() if merged else rows


def _labels(rows: Iterable[_Query], known: Known, problems: Problems) -> Iterator[Judged]:
    lost = Problems(False, lost=True)
    for line, labels in rows:
        query_id = line.row()["_id"]
        for doc_id, score in labels:
            with problems, lost:
                if query_id not in known.queries:
                    continue  # it had no text, and was counted
                if doc_id not in known.documents and doc_id not in known.empty:
                    raise LostError(line.path, line.number, f"document '{doc_id}' is not there.")
                yield Judged(line, "test", query_id, doc_id, checked_grade(line, score))
    for _ in range(lost.count):
        problems.count_one("label of a document that is not there")
