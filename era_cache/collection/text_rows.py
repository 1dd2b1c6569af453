"""Rows of documents and queries: checked one by one, kept by the million.

In: lines of JSON. Out: packed ids and texts. Whole blocks of sound lines are parsed at once; a
block that holds anything unusual is read again line by line, which says what is wrong and where.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from era_cache.collection.lines import NOT_IN_IDS, Block, Line, Lines, Problems
from era_cache.collection.packed import PackedStrings, RowIndex, StringPacker, taken
from era_cache.errors import InputError
from era_cache.types import IntArray

__all__ = ["TextRows", "documents_of", "queries_of"]

_PLACEHOLDER = re.compile(r"(\{title\}|\{text\})")
_LINES = 1024
"""Lines of a block, of what does not come in blocks."""


class TextRows(NamedTuple):
    """Documents or queries; ``instructions`` is empty for documents.

    ``empty`` are the ids of documents without text, which have no row.
    """

    ids: PackedStrings
    texts: PackedStrings
    instructions: Sequence[str]
    empty: set[str]

    @classmethod
    def none(cls) -> TextRows:
        """Of a role that is not there."""
        nothing = StringPacker().finish()
        return cls(nothing, nothing, [], set())


class _Row(msgspec.Struct):
    """What is read of a line; what else it holds is passed over."""

    own: str | int | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="_id")
    id: str | int | msgspec.UnsetType = msgspec.UNSET
    title: str | None = None
    text: str | None = None
    instruction: str | None = None


_ROWS = msgspec.json.Decoder(_Row)


def documents_of(path: Path, lines: Iterable[Line], template: str, problems: Problems) -> TextRows:
    """Read documents.

    Args:
        path: for messages.
        lines: each a JSON object with ``_id``, ``text`` and maybe ``title``.
        template: how title and text become a document.
        problems: takes up bad rows.

    Raises:
        InputError: a row or the template is wrong, or there is no document.
        StoreError: the texts cannot be kept in a temporary file.
    """
    if "{text}" not in template:
        raise InputError(f"The document template {template!r} does not contain {{text}}.")
    fill = _filler(template)
    table = _Table(path, problems)
    for block in _blocks(lines):
        rows = _sound_rows(block)
        if rows is not None:
            table.add(block.path, *_filled(rows, fill, block.first))
            continue
        for line in block:
            with problems:
                row = line.row()
                doc_id = line.new_id(row)
                title, text = line.text(row, "title"), line.text(row, "text")
                table.add(line.path, *_filled([(doc_id, title, text, "")], fill, line.number))
    return table.finish("document")


def queries_of(path: Path, lines: Iterable[Line], problems: Problems) -> TextRows:
    """Read queries, which may have an ``instruction``. As ``documents_of``."""
    table = _Table(path, problems)
    for block in _blocks(lines):
        rows = _sound_rows(block)
        if rows is not None and all(text.strip() for _, _, text, _ in rows):
            numbers = range(block.first, block.first + len(rows))
            ids, _, texts, instructions = zip(*rows, strict=True)
            table.add(block.path, ids, texts, numbers, instructions=instructions)
            continue
        for line in block:
            with problems:
                row = line.row()
                query_id = line.new_id(row)
                text, instruction = line.text(row, "text"), line.text(row, "instruction")
                if not text.strip():
                    raise line.wrong(
                        f"query '{query_id}' has no text. Give it one or remove it; "
                        "--skip-bad-rows leaves it out."
                    )
                place = line.path, [query_id], [text], [line.number]
                table.add(*place, instructions=[instruction])
    return table.finish("query")


def _blocks(lines: Iterable[Line]) -> Iterator[Block]:
    if isinstance(lines, Lines):
        yield from lines.blocks()
        return
    given = iter(lines)
    while some := list(islice(given, _LINES)):
        # Lines of tables and archives have numbers of their own, with gaps.
        start = 0
        for at in range(1, len(some) + 1):
            if at == len(some) or some[at][:2] != (some[at - 1].path, some[at - 1].number + 1):
                yield Block.of(some[start:at])
                start = at


def _sound_rows(block: Block) -> list[tuple[str, str, str, str]] | None:
    """Id, title, text and instruction of each line; None where a line needs a closer look."""
    try:
        block.data.decode("utf-8")  # also names and fields that are passed over
        rows = [_ROWS.decode(line) for line in block.data.split(b"\n")]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    given = [row.id if row.own is msgspec.UNSET else row.own for row in rows]
    if any(one is msgspec.UNSET for one in given):
        return None
    ids = [one if isinstance(one, str) else str(one) for one in given]
    # Together, so that the tests run once for a block.
    joined = "\n".join(ids)
    if joined.count("\n") != len(ids) - 1 or not (NOT_IN_IDS - {"\n"}).isdisjoint(joined):
        return None
    if not all(ids) or list(map(str.strip, ids)) != ids:
        return None
    return [
        (one, row.title or "", row.text or "", row.instruction or "")
        for one, row in zip(ids, rows, strict=True)
    ]


def _filler(template: str) -> Callable[[str, str], str]:
    """Puts title and text into a template, in one pass: braces in a text stay what they are."""
    # Without a title, what stands between it and the text ("Title: {title}. {text}") goes too.
    untitled = re.sub(r"\{title\}.*?(?=\{text\})", "", template, flags=re.DOTALL)
    parts, bare = _PLACEHOLDER.split(template), _PLACEHOLDER.split(untitled)

    def fill(title: str, text: str) -> str:
        values = {"{title}": title, "{text}": text}
        return "".join([values.get(part, part) for part in (parts if title else bare)]).strip()

    return fill


def _filled(
    rows: Sequence[tuple[str, str, str, str]], fill: Callable[[str, str], str], first: int
) -> tuple[list[str], list[str], list[int], list[tuple[str, int]]]:
    """Ids, texts and lines of documents, and ids and lines of those without text."""
    ids, texts, lines = [], [], []
    empty = []
    for number, (doc_id, title, text, _) in enumerate(rows, start=first):
        title = title.strip()
        if not title and not text.strip():
            empty.append((doc_id, number))
            continue
        ids.append(doc_id)
        texts.append(fill(title, text))
        lines.append(number)
    return ids, texts, lines, empty


class _Place(NamedTuple):
    """Where a row stood."""

    path: Path
    line: int

    def twice(self, row_id: str) -> InputError:
        """That its id was there before."""
        return Line(self.path, self.line, b"").wrong(
            f"id '{row_id}' occurs a second time. Ids must be unique; --skip-bad-rows keeps the "
            "first."
        )


class _Table:
    """Rows as they come; which ids occur twice is found out in the end."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self._path, self._problems = path, problems
        self._ids, self._texts = StringPacker(), StringPacker()
        self._instructions: list[str] = []
        self._lines: list[IntArray] = []
        self._count = 0
        self._files: list[tuple[int, Path]] = []
        """The first row of each file."""
        self._empty: dict[str, tuple[int, _Place]] = {}
        """Documents without text: how many rows came before, and where they stood."""

    def add(
        self,
        path: Path,
        ids: Sequence[str],
        texts: Sequence[str],
        lines: Sequence[int],
        empty: Sequence[tuple[str, int]] = (),
        *,
        instructions: Sequence[str] = (),
    ) -> None:
        """Take rows, and the ids and lines of documents without text."""
        if not self._files or self._files[-1][1] != path:
            self._files.append((self._count, path))
        for doc_id, line in empty:
            place = _Place(path, line)
            with self._problems:
                if doc_id in self._empty:
                    raise place.twice(doc_id)
                before = self._count + bisect_left(lines, line)
                self._empty[doc_id] = before, place
        self._ids.extend(ids)
        self._texts.extend(texts)
        self._lines.append(np.array(lines, dtype=np.uint32))
        self._instructions += instructions
        self._count += len(ids)

    def finish(self, what: str) -> TextRows:
        """All of them, each id once."""
        ids, texts = self._ids.finish(), self._texts.finish()
        if not len(ids):
            raise InputError(f"{self._path}: no {what} in it.")
        self._lines = [np.concatenate(self._lines)]
        index = RowIndex(ids)
        repeated = set(index.repeated().tolist())
        wrong = [(row, self._place(row), ids[row]) for row in repeated]
        for doc_id, (before, place) in list(self._empty.items()):
            row = index.get(doc_id)
            if row is not None and row < before:
                wrong.append((before, place, doc_id))
                del self._empty[doc_id]
            elif row is not None:
                wrong.append((row, self._place(row), doc_id))
                repeated.add(row)
        for _, place, row_id in sorted(wrong):
            with self._problems:
                raise place.twice(row_id)
        instructions: Sequence[str] = self._instructions
        if repeated:
            kept = np.delete(np.arange(len(ids)), list(repeated))
            ids, texts = _kept(ids, kept), _kept(texts, kept)
            instructions = taken(instructions, kept) if instructions else []
        return TextRows(ids, texts, instructions, set(self._empty))

    def _place(self, row: int) -> _Place:
        lines = self._lines[0]
        file = bisect_right(self._files, row, key=lambda one: one[0]) - 1
        return _Place(self._files[file][1], int(lines[row]))


def _kept(strings: PackedStrings, rows: IntArray) -> PackedStrings:
    packer = StringPacker()
    for start in range(0, len(rows), _LINES):
        packer.extend(strings.take(rows[start : start + _LINES]))
    return packer.finish()
