"""Lines of a file that people made: numbered, so that every error names its place.

In: a path. Out: lines as bytes, parsed rows, ids; each checked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from era_cache.collection.text_files import read_blocks, whole_lines
from era_cache.errors import InputError

__all__ = ["NOT_IN_IDS", "Block", "Line", "Lines", "LostError", "Problems", "lines_of"]

NOT_IN_IDS = frozenset("\t\n\v\f\r\0")
"""An id with one of these could stand in no file of columns or lines."""
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_DETAILS = re.compile(r"[:;.,(] |\.\Z| \(")
"""Where a message goes from what is wrong to what is there."""


class Line(NamedTuple):
    """One line of a file, and where it is."""

    path: Path
    number: int
    data: bytes

    @classmethod
    def of(cls, path: Path, number: int, row: Mapping[str, Any]) -> Line:
        """What a row of another kind of file would be as a line of JSON. Raises ``InputError``."""
        try:
            return cls(path, number, json.dumps(row).encode())
        except (TypeError, ValueError) as error:
            raise cls(path, number, b"").wrong(f"no plain values: {error}.") from error

    def wrong(self, what: str) -> InputError:
        """An error that names the place."""
        return BadLineError(self.path, self.number, what)

    def decoded(self) -> str:
        """The line as text, without its end."""
        try:
            return self.data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self.wrong(f"not UTF-8 text ({error.reason}).") from error

    def row(self) -> dict[str, Any]:
        """The JSON object of this line."""
        try:
            value = json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise self.wrong(
                f"not valid JSON: {error}. Each line must hold one JSON object."
            ) from error
        if isinstance(value, list):
            raise self.wrong(
                "a JSON list, where each line must hold one JSON object. Convert it: "
                f"jq -c '.[]' {self.path.name}"
            )
        if not isinstance(value, dict):
            raise self.wrong(f"expected a JSON object, found {self.data[:40]!r}.")
        return value

    def text(self, row: Mapping[str, Any], name: str, default: str | None = "") -> str:
        """A field of the row as text; None as default means that it must be there."""
        value = row.get(name, default)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            found = type(value).__name__
            if value is None:
                found = f"nothing; the fields here are {', '.join(map(repr, [*row][:9])) or 'none'}"
            if isinstance(value, float) and math.isnan(value):
                found = "NaN, which pandas writes for what is missing; write null or an empty text"
            raise self.wrong(f"field '{name}' must be text, found {found}.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.wrong(f"field '{name}' is not valid Unicode (a lone surrogate).") from error
        return value

    def id_of(self, row: Mapping[str, Any], *names: str) -> str:
        """The id in the first of some fields that the row has; a whole number is taken as text."""
        name = next((one for one in names if one in row), names[0])
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(row, name, None)

    def new_id(self, row: Mapping[str, Any]) -> str:
        """The row's own id (``_id``, else ``id``); whether another row has it is not looked at."""
        record_id = self.id_of(row, "_id", "id")
        if not record_id or record_id != record_id.strip():
            raise self.wrong(f"id {record_id!r} is empty, or begins or ends with white space.")
        if not NOT_IN_IDS.isdisjoint(record_id):
            raise self.wrong(f"id {record_id!r} has a tab, a line end or a NUL in it.")
        return record_id


class BadLineError(InputError):
    """A line that cannot be used; ``kind`` is the same for all that fail alike in one file."""

    def __init__(self, path: Path, number: int, what: str) -> None:
        super().__init__(f"{path} line {number}: {what}")
        general = _QUOTED.sub("…", what)
        self.kind = f"{path.name}: {_DETAILS.split(general, maxsplit=1)[0]}"


class LostError(BadLineError):
    """A judgement of what is not there, perhaps not any more."""


class Problems:
    """Raises the first bad row, or counts it where the user asked to skip such rows.

    Args:
        skip: any that are bad.
        lost: judgements of documents or queries that are not there.
    """

    def __init__(self, skip: bool, *, lost: bool = False) -> None:
        self._skipped = (InputError,) if skip else (LostError,) if lost else ()
        self.kinds: dict[str, int] = {}

    @property
    def count(self) -> int:
        """Rows that were skipped."""
        return sum(self.kinds.values())

    def count_one(self, what: str) -> None:
        """Count what a reader leaves out by itself."""
        self.kinds[what] = self.kinds.get(what, 0) + 1

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, self._skipped):
            what = error.kind if isinstance(error, BadLineError) else "others"
            self.count_one(what)
            return True
        return False


@dataclass(frozen=True)
class Block:
    """Some lines in a row of one file, none of them blank."""

    path: Path
    first: int
    """Number of the first."""
    count: int
    data: bytes

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Block:
        """Lines whose numbers follow each other as one block."""
        data = b"\n".join([line.data for line in lines])
        return cls(lines[0].path, lines[0].number, len(lines), data)

    def __iter__(self) -> Iterator[Line]:
        for number, data in enumerate(self.data.split(b"\n"), start=self.first):
            yield Line(self.path, number, data)


class Lines:
    """The lines of a file, packed with gzip or not; blank ones are passed over.

    Iterating or asking for blocks raises ``InputError`` where it cannot be read, or is no text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Line]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[Block]:
        """Yield some lines at a time."""
        for first, data in whole_lines(self._path, read_blocks(self._path), longest=None):
            lines = data[:-1].split(b"\n")
            if all(map(bytes.strip, lines)):
                yield Block(self._path, first, len(lines), data[:-1])
                continue
            for number, line in enumerate(lines, start=first):
                if line.strip():
                    yield Block(self._path, number, 1, line)


def lines_of(path: Path) -> Lines:
    """The lines of a file."""
    return Lines(path)
