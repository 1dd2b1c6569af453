"""Retrieval tasks of MTEB, by its own package (extra ``mteb``): ``mteb:TASK[/SUBSET]``.

In: a task's name. Out: a ``TextCollection``. Instructions stay apart from the queries: how both
become one text is the template's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from era_cache.collection.assemble import Judged, ReaderSettings, Rows, Source, assemble
from era_cache.collection.judgements import Known, judged_row
from era_cache.collection.lines import Line
from era_cache.collection.records import TextCollection
from era_cache.disk.files import safe_name
from era_cache.errors import InputError

__all__ = ["read_mteb", "read_task"]


def read_mteb(
    path: Path,
    settings: ReaderSettings,
    *,
    split: str = "",
) -> TextCollection:
    """Read a task that MTEB's package knows, fetched by it; see ``readers.Reader``.

    Args:
        path: ``TASK`` or ``TASK/SUBSET``.
        settings: what is wanted of the reader.
        split: whose documents and queries are read; empty takes the only one, or ``test``.

    Raises:
        InputError: there is no such task, it cannot be fetched, or a row is wrong.
    """
    task_name, _, subset = str(path).partition("/")
    try:
        import mteb
    except ImportError as error:
        raise InputError(
            f"mteb:{path}: the package mteb is missing: pip install 'era-cache[mteb]'."
        ) from error
    try:
        task = mteb.get_task(task_name)
    except KeyError as error:
        raise InputError(f"mteb:{task_name}: MTEB knows no such task: {error}") from error
    return read_task(task, settings, subset=subset, split=split)


def read_task(
    task: Any, settings: ReaderSettings, *, subset: str = "", split: str = ""
) -> TextCollection:
    """Read a retrieval task of MTEB, loading its data where that is still to be done.

    Args:
        task: an ``AbsTaskRetrieval``.
        settings: what is wanted of the reader.
        subset: one of several, such as a language.
        split: one of several.

    Raises:
        InputError: as ``read_mteb``.
    """
    label = str(task.metadata.name)
    try:
        if not task.data_loaded:
            task.load_data()
        if not getattr(task, "dataset", None):
            task.convert_v1_dataset_format_to_v2(num_proc=None)
        data = task.dataset
    except Exception as error:
        # It fetches, converts and runs code of the task: each failure means the same to the user.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"mteb:{label}: its data cannot be loaded: {reason}.") from error
    one = _chosen(data, subset, "subset", label)
    part = _chosen(one, split, "split", label)
    problems = settings.problems()
    place = Path(f"mteb:{label}")

    def lines(rows: Any, what: str) -> Iterator[Line]:
        for number, row in enumerate(rows, start=1):
            fields = {"_id": row["id"], "text": row["text"]}
            fields |= {key: row[key] for key in ("title", "instruction") if row.get(key)}
            yield Line.of(place / what, number, fields)

    def judgements(known: Known) -> Iterator[Judged]:
        number = 0
        for query, documents in part["relevant_docs"].items():
            for document, grade in documents.items():
                number += 1
                line = Line(place / "relevant_docs", number, b"")
                row = {"query-id": query, "corpus-id": document, "score": grade}
                with problems:
                    yield Judged(line, "test", *judged_row(line, row, known))

    given = f"{label}-{subset}" if subset else label
    source = Source(
        path=place,
        name=safe_name(settings.name or given),
        documents=Rows(place / "corpus", lines(part["corpus"], "corpus")),
        queries=Rows(place / "queries", lines(part["queries"], "queries")),
        judgements=judgements,
    )
    return assemble(source, settings, problems)


def _chosen(parts: Mapping[str, Any], wanted: str, what: str, label: str) -> Any:
    names = list(parts)
    usual = ("default", "test") if not wanted else (wanted,)
    name = (
        names[0] if len(names) == 1 and not wanted else next((n for n in usual if n in parts), "")
    )
    if not name:
        how = "mteb:TASK/SUBSET" if what == "subset" else "--read split=…"
        raise InputError(f"mteb:{label}: which {what}? There are {', '.join(names)}; say {how}.")
    return parts[name]
