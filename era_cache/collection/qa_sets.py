"""Sets of questions as LlamaIndex writes them: one JSON object of three.

    {"queries": {id: text}, "corpus": {id: text}, "relevant_docs": {query id: [document id, …]}}

In: the file. Out: a ``TextCollection``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from era_cache.collection.assemble import Judged, ReaderSettings, Rows, Source, assemble
from era_cache.collection.judgements import Known, judged_row
from era_cache.collection.lines import Line
from era_cache.collection.records import TextCollection
from era_cache.collection.text_files import read_blocks
from era_cache.disk.files import safe_name
from era_cache.disk.json_files import loads_json
from era_cache.errors import FormatError, InputError

__all__ = ["read_qa"]

_PARTS = ("queries", "corpus", "relevant_docs")


def read_qa(
    path: Path,
    settings: ReaderSettings,
) -> TextCollection:
    """Read such a file; see ``readers.Reader``. Messages count entries, as it has one line.

    Raises:
        InputError: it is of another form, or an entry is wrong.
    """
    parts = _parts(path)
    problems = settings.problems()

    def lines(part: str) -> Iterator[Line]:
        for number, (one, text) in enumerate(parts[part].items(), start=1):
            yield Line.of(path, number, {"_id": one, "text": text})

    def judgements(known: Known) -> Iterator[Judged]:
        for number, (query, documents) in enumerate(parts["relevant_docs"].items(), start=1):
            line = Line(path, number, b"")
            with problems:
                if not isinstance(documents, list):
                    raise line.wrong(f"relevant_docs of {query!r}: expected a list of ids.")
            for document in documents if isinstance(documents, list) else ():
                with problems:
                    row = {"query-id": query, "corpus-id": document, "score": 1}
                    yield Judged(line, "test", *judged_row(line, row, known))

    source = Source(
        path=path,
        name=safe_name(settings.name or path.name.partition(".")[0]),
        documents=Rows(path, lines("corpus")),
        queries=Rows(path, lines("queries")),
        judgements=judgements,
    )
    return assemble(source, settings, problems)


def _parts(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        value = loads_json(b"".join(read_blocks(path)), str(path))
    except FormatError as error:
        raise InputError(str(error)) from error
    if not isinstance(value, dict) or not all(isinstance(value.get(k), dict) for k in _PARTS):
        raise InputError(
            f"{path}: expected one JSON object with {', '.join(_PARTS)}, as LlamaIndex writes it. "
            "A file of texts: say --role document or --role query; pairs: --reader pairs."
        )
    return {part: value[part] for part in _PARTS}
