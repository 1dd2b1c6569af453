"""ReaderSettings a retrieval collection from a folder in BEIR layout.

In: ``corpus.jsonl {_id,title,text}``, ``queries.jsonl {_id,text,instruction?}``, judgements
(``judgements.py``), ``meta.json``; plain or packed with gzip. Either of the first two will do, and
judgements can come later. Out: a ``TextCollection``.
Whatever is not taken over is counted in ``Dropped`` and reported, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from era_cache.collection.assemble import Judged, ReaderSettings, Rows, Source, assemble
from era_cache.collection.judgements import Known, judgement_files, read_judgements
from era_cache.collection.lines import lines_of
from era_cache.collection.records import TextCollection
from era_cache.collection.text_files import read_blocks
from era_cache.disk.files import is_companion, safe_name
from era_cache.disk.json_files import loads_json
from era_cache.errors import FormatError, InputError

__all__ = ["read_beir"]


def read_beir(
    folder: Path,
    settings: ReaderSettings = ReaderSettings(),  # noqa: B008
) -> TextCollection:
    """Read a collection in BEIR layout.

    Args:
        folder: holds ``corpus.jsonl`` or ``queries.jsonl`` or both, and maybe ``qrels/*.tsv`` and
            ``meta.json``; each may be packed (``.gz``).
        settings: what is wanted of the reader.

    Raises:
        InputError: a file or row is wrong; the message names file and line.
        StoreError: a file cannot be read.
    """
    corpus, queries = _files(folder)
    meta = _read_meta(folder)
    problems = settings.problems()

    files = judgement_files(folder)

    def judgements(known: Known) -> Iterator[Judged]:
        for what, rows in (("corpus.jsonl", known.documents), ("queries.jsonl", known.queries)):
            if files and not rows:
                raise InputError(
                    f"{folder}: there are judgements, but no {what} that they are about."
                )
        for split, path in files:
            for line, query_id, doc_id, grade in read_judgements(path, known, problems):
                yield Judged(line, split, query_id, doc_id, grade)

    source = Source(
        path=folder,
        name=safe_name(settings.name or str(meta.get("name") or folder.resolve().name)),
        documents=None if corpus is None else Rows(corpus, lines_of(corpus)),
        queries=None if queries is None else Rows(queries, lines_of(queries)),
        judgements=judgements,
        domain=str(meta.get("domain") or ""),
        ignore_identical_ids=bool(meta.get("ignore_identical_ids", False)),
        splits=[split for split, _ in files],
    )
    return assemble(source, settings, problems)


def _files(folder: Path) -> tuple[Path | None, Path | None]:
    """The files of documents and of queries, one of which may be missing."""
    if folder.is_file():
        raise InputError(
            f"{folder}: a file, where a folder with corpus.jsonl, queries.jsonl and qrels/*.tsv "
            "(BEIR layout) is expected. A file of texts: say --role document or --role query."
        )
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder. A collection is a folder with corpus.jsonl, queries.jsonl "
            "and qrels/*.tsv (BEIR layout)."
        )
    corpus, queries = _found(folder, "corpus"), _found(folder, "queries")
    if corpus is None and queries is None:
        raise InputError(
            f"{folder}: neither corpus.jsonl nor queries.jsonl is there (BEIR layout: see README)."
        )
    return corpus, queries


def _found(folder: Path, name: str) -> Path | None:
    """The one file of lines of this name, packed or not; None where nothing is called so."""
    paths = [folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"]
    there = [path for path in paths if path.is_file()]
    if len(there) == 1:
        return there[0]
    if there:
        raise InputError(
            f"{folder}: has {paths[0].name} and {paths[1].name}, which may differ. Remove one."
        )
    others = sorted(path.name for path in folder.glob(f"{name}*") if not is_companion(path.name))
    if not others:
        return None
    raise InputError(
        f"{folder}: {name}.jsonl is missing (BEIR layout: see README). There is "
        f"{', '.join(others[:3])}. From Parquet or CSV, pandas writes it: "
        f"frame.to_json('{name}.jsonl', orient='records', lines=True)."
    )


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    data = b"".join(read_blocks(path))
    try:
        meta = loads_json(data, str(path))
    except FormatError as error:
        raise InputError(str(error)) from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: expected a JSON object.")
    if not isinstance(meta.get("ignore_identical_ids", False), bool):
        raise InputError(f"{path}: 'ignore_identical_ids' must be true or false.")
    for field in ("name", "domain"):
        if not isinstance(meta.get(field) or "", str):
            raise InputError(f"{path}: '{field}' must be text.")
    return meta
