"""Columns between white space or tabs, which runs and judgements are made of, read in blocks.

In: blocks of a file. Out: ids in order of appearance, and arrays of row numbers and values. A block
is held at a time, and no Python code runs for a line that is sound; only a block with something
wrong is read again line by line, to name line and reason.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.text_files import whole_lines
from era_cache.errors import InputError
from era_cache.types import Array, IntArray

__all__ = [
    "FLOAT32_END",
    "MAX_RELEVANCE",
    "Columns",
    "Form",
    "check_words",
    "read_columns",
    "row_numbers",
]

MAX_RELEVANCE = 2**31 - 1
FLOAT32_END = 2.0**128 - 2.0**103
"""From here on a number rounds to infinity as float32."""


class Form(NamedTuple):
    """A form of lines: what it is called, its columns, and which of them count.

    ``scores`` tells whether the value is a score (a finite float32) or a grade (a whole number).
    """

    title: str
    names: tuple[str, ...]
    query: int
    document: int
    value: int
    scores: bool


class Columns(NamedTuple):
    """The n lines of a file, in its order.

    ``query_rows`` and ``doc_rows`` (n,) int64 are places in ``query_ids`` and ``doc_ids``, which
    hold each id once in order of appearance. ``values`` (n,) are float32 scores or int64 grades.
    """

    query_ids: list[str]
    doc_ids: list[str]
    query_rows: IntArray
    doc_rows: IntArray
    values: Array


def read_columns(path: Path, blocks: Iterable[bytes], form: Form, *, head: bool = False) -> Columns:
    """Read lines of one form; ids are UTF-8.

    Columns part at tabs where these make as many columns as expected (ids may then hold blanks),
    else at ASCII white space.

    Args:
        path: What to call the file in errors.
        blocks: Its content.
        form: Of the lines.
        head: whether the first line names the columns.

    Raises:
        InputError: A line has a wrong number of columns, an id that is empty or not UTF-8, or a
            value that is no finite float32 or no whole number; or a query has a document twice.
    """
    ids = (_Numbered(), _Numbered())
    parts: list[tuple[IntArray, IntArray, Array]] = []
    skipped = int(head)
    for start, whole in whole_lines(path, blocks):
        first, block = start, whole
        if start <= skipped:
            first, block = start + 1, whole.partition(b"\n")[2]
        part = _parse(block, form, ids)
        if part is None:
            _explain(path, first, block, form)
        else:
            parts.append(part)
    if not parts:
        parts.append(_empty(form))
    query_rows, doc_rows, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    _check_distinct(path, query_rows, doc_rows, len(ids[1].texts), 1 + skipped)
    return Columns(ids[0].texts, ids[1].texts, query_rows, doc_rows, values)


def _empty(form: Form) -> tuple[IntArray, IntArray, Array]:
    rows: IntArray = np.empty(0, dtype=np.int64)
    return rows, rows, np.empty(0, dtype=np.float32 if form.scores else np.int64)


def row_numbers() -> defaultdict[Any, int]:
    """A dict that gives each new key the next number, without running any Python code."""
    rows: defaultdict[Any, int] = defaultdict()
    rows.default_factory = rows.__len__
    return rows


class _Numbered:
    """Ids as bytes, numbered in order of appearance, and the same as text."""

    def __init__(self) -> None:
        self.rows = row_numbers()
        self.texts: list[str] = []

    def numbers(self, fields: list[bytes]) -> IntArray:
        """Number some fields. ValueError where one is empty or not UTF-8."""
        if b"" in fields:
            raise ValueError
        found = np.fromiter(map(self.rows.__getitem__, fields), np.int64, len(fields))
        # A dict is in order of insertion: the new ones are its last.
        latest = itertools.islice(reversed(self.rows), len(self.rows) - len(self.texts))
        self.texts += [*map(bytes.decode, latest)][::-1]
        return found


def _parse(
    block: bytes, form: Form, ids: tuple[_Numbered, _Numbered]
) -> tuple[IntArray, IntArray, Array] | None:
    """Read some whole lines; None where there is something wrong with one."""
    step = len(form.names) + 1
    fields = _fields(block, step)
    if fields is None:
        return None
    try:
        query_rows = ids[0].numbers(fields[form.query :: step])
        doc_rows = ids[1].numbers(fields[form.document :: step])
        values = _numbers(fields[form.value :: step], form)
    except (ValueError, OverflowError):
        return None
    return query_rows, doc_rows, values


def _fields(block: bytes, step: int) -> list[bytes] | None:
    """Cut whole lines into ``step - 1`` columns each, and a NUL; None where a line has others."""
    if b"\0" in block:
        return None
    n = block.count(b"\n")
    # A NUL at each line's end makes one flat list of fields show whether each line has its number.
    marked = block.replace(b"\n", b"\t\0\t").split(b"\t")[:-1] if b"\t" in block else block
    if isinstance(marked, list):
        fields = [*map(bytes.strip, marked)]
        if not _even(fields, n, step):  # some lines part at tabs, others at blanks
            cut = [_cut(line, step - 1) for line in block.split(b"\n")[:-1]]
            fields = [field for line in cut for field in (*line, b"\0")]
    else:
        fields = block.replace(b"\n", b" \0 ").split()
    return fields if _even(fields, n, step) else None


def _even(fields: list[bytes], n: int, step: int) -> bool:
    return len(fields) == n * step and fields[step - 1 :: step].count(b"\0") == n


def _cut(line: bytes, expected: int) -> list[bytes]:
    """One line at its tabs, where this gives the columns expected, or all but one; else at blanks.

    With one column too few at tabs, blanks inside of another must not make up for it.
    """
    tabs = [field.strip() for field in line.split(b"\t")]
    return tabs if len(tabs) in (expected - 1, expected) else line.split()


def _numbers(fields: list[bytes], form: Form) -> Array:
    """Read scores or grades. ValueError or OverflowError where one is none."""
    if b"_" in b"".join(fields):  # Python takes 1_000 for a number
        raise ValueError
    if not form.scores:
        try:
            grades = np.fromiter(map(int, fields), np.int64, len(fields))
        except ValueError:  # 1.0 is a whole number, too
            numbers = np.fromiter(map(float, fields), np.float64, len(fields))
            if not np.all((numbers == np.trunc(numbers)) & (np.abs(numbers) <= MAX_RELEVANCE)):
                raise
            grades = numbers.astype(np.int64)
        if np.any((grades > MAX_RELEVANCE) | (grades < -MAX_RELEVANCE)):
            raise ValueError
        return grades
    scores = np.fromiter(map(float, fields), np.float64, len(fields))
    if not np.all(np.abs(scores) < FLOAT32_END):  # not so for NaN either
        raise ValueError
    return scores.astype(np.float32)


def _explain(path: Path, first: int, block: bytes, form: Form) -> None:
    """Raise for the first wrong line of a block."""
    for number, line in enumerate(block[:-1].split(b"\n"), start=first):
        where = f"{path} line {number}"
        if b"\0" in line:
            raise InputError(f"{where}: a NUL byte. This is no text; check that it is the file.")
        fields = _cut(line, len(form.names))
        if len(fields) != len(form.names):
            raise InputError(
                f"{where}: {len(fields)} columns where {len(form.names)} are expected "
                f"({' '.join(form.names)}). Mend or remove the line."
            )
        _check_id(fields[form.query], "query", where)
        _check_id(fields[form.document], "document", where)
        try:
            _numbers([fields[form.value]], form)
        except (ValueError, OverflowError):
            kind = (
                "score {} is not a finite float32 number"
                if form.scores
                else f"relevance {{}} is not a whole number between {-MAX_RELEVANCE} and "
                f"{MAX_RELEVANCE}"
            )
            text = fields[form.value].decode("utf-8", "replace")
            raise InputError(
                f"{where}: the {kind.format(repr(text))}. Mend or remove the line."
            ) from None
    raise AssertionError(f"{path}: a block from line {first} on is wrong, but no line of it is.")


def _check_id(field: bytes, what: str, where: str) -> None:
    if not field:
        raise InputError(f"{where}: the {what} id is empty. Mend or remove the line.")
    try:
        field.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            f"{where}: the {what} id {field!r} is not UTF-8. Convert the file to UTF-8."
        ) from None


def _check_distinct(
    path: Path, query_rows: IntArray, doc_rows: IntArray, n_docs: int, start: int
) -> None:
    """Refuse a second line for the same query and document."""
    pairs = query_rows * n_docs + doc_rows
    in_order = np.sort(pairs)
    if not np.any(in_order[1:] == in_order[:-1]):
        return
    order = np.argsort(pairs, kind="stable")  # of equal pairs the earlier line first
    second = int(order[1:][pairs[order[1:]] == pairs[order[:-1]]].min())
    first = int(np.flatnonzero(pairs == pairs[second])[0])
    raise InputError(
        f"{path} line {start + second}: the same query and document as on line "
        f"{start + first}. Remove one of them."
    )


def check_words(path: str | os.PathLike[str], what: str, words: Sequence[str]) -> None:
    """Refuse what would not come back as one column.

    Raises:
        InputError: a word is empty, has ASCII white space, or a lone surrogate.
    """
    try:
        encoded = [*map(str.encode, words)]
        if encoded == b"\n".join(encoded).split():
            return
    except UnicodeEncodeError:
        pass
    for word in words:
        if word.encode("utf-8", "replace").split() != [word.encode("utf-8", "surrogatepass")]:
            raise InputError(
                f"{os.fspath(path)} cannot be written: the {what} {word!r} is empty, has white "
                "space or is not valid Unicode, which the format has no means to quote."
            )
