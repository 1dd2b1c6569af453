"""Strings by the million: packed as UTF-8, in memory or in a nameless file.

In: strings, or such a run. Out: a sequence of strings that takes 8 bytes beside the text of each,
and an index that finds a string's row.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import overload

import numpy as np

from era_cache.disk.files import os_errors
from era_cache.types import Array, IntArray

__all__ = ["PackedStrings", "RowIndex", "StringPacker", "taken"]

_IN_MEMORY = 16 << 20
"""Bytes of text that stay in memory; more go to a temporary file (``TMPDIR``)."""
_BLOCK = 1 << 20
"""Bytes of text that are unpacked at a time."""
_GAP = 1 << 15
"""Bytes between wanted strings that are read with them rather than passed over."""


class _KeptFile:
    """A temporary file without a name, which goes with the last use of it."""

    descriptor = -1

    def __init__(self, head: bytes) -> None:
        with tempfile.TemporaryFile() as file:
            self.descriptor = os.dup(file.fileno())
        self.append(head)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def __reduce__(self) -> str:
        raise TypeError("a temporary file cannot be copied")

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def read(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            part = os.pread(self.descriptor, end - start, start)
            if not part:
                raise OSError("the temporary file was cut short")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _file_errors() -> AbstractContextManager[None]:
    return os_errors("keeping texts in a temporary file (TMPDIR)", Path(tempfile.gettempdir()))


class PackedStrings(Sequence[str]):
    """n strings, packed.

    Args:
        data: all of them in UTF-8.
        ends: (n,) int64, where each ends.
    """

    def __init__(self, data: bytes | _KeptFile, ends: IntArray) -> None:
        self._data = data
        self.ends = ends

    @classmethod
    def of(cls, strings: Sequence[str]) -> PackedStrings:
        """Pack strings, unless they are. Raises ``UnicodeEncodeError``, ``StoreError``."""
        if isinstance(strings, PackedStrings):
            return strings
        packer = StringPacker()
        packer.extend(strings)
        return packer.finish()

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self._between(*self._bounds(row % len(self))).decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            for data in block:
                yield data.decode("utf-8")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} packed strings>"

    @property
    def sizes(self) -> IntArray:
        """Bytes of each, (n,) int64."""
        return np.diff(self.ends, prepend=0)

    def packed(self) -> Array:
        """All bytes in a row, uint8."""
        return np.frombuffer(self._between(0, int(self.ends[-1]) if len(self) else 0), np.uint8)

    def blocks(self) -> Iterator[list[bytes]]:
        """Yield all strings in UTF-8, some at a time."""
        row = 0
        while row < len(self):
            start = self._bounds(row)[0]
            last = max(int(np.searchsorted(self.ends, start + _BLOCK, side="right")), row + 1)
            ends = self.ends[row:last]
            yield _cut(self._between(start, int(ends[-1])), start, ends)
            row = last

    def take(self, rows: IntArray) -> list[str]:
        """Some of them, in the order of ``rows``."""
        rows = np.asarray(rows, dtype=np.int64)
        found: list[str] = [""] * len(rows)
        rising = len(rows) < 2 or bool((rows[1:] >= rows[:-1]).all())
        order = np.arange(len(rows)) if rising else np.argsort(rows, kind="stable")
        ends = self.ends[rows[order]]
        starts = np.where(rows[order] > 0, self.ends[rows[order] - 1], 0)
        for first, last in _stretches(starts, ends):
            begin = int(starts[first])
            data = self._between(begin, int(ends[last - 1]))
            bounds = zip(
                order[first:last].tolist(),
                (starts[first:last] - begin).tolist(),
                (ends[first:last] - begin).tolist(),
                strict=True,
            )
            for place, a, b in bounds:
                found[place] = data[a:b].decode("utf-8")
        return found

    def _bounds(self, row: int) -> tuple[int, int]:
        return int(self.ends[row - 1]) if row else 0, int(self.ends[row])

    def _between(self, start: int, end: int) -> bytes:
        if isinstance(self._data, bytes):
            return self._data if (start, end) == (0, len(self._data)) else self._data[start:end]
        with _file_errors():
            return self._data.read(start, end)


def _cut(data: bytes, start: int, ends: IntArray) -> list[bytes]:
    """The strings that end at ``ends`` of a stretch that begins at ``start``."""
    cuts = [0, *(ends - start).tolist()]
    return [data[a:b] for a, b in itertools.pairwise(cuts)]


def _stretches(starts: IntArray, ends: IntArray) -> Iterator[tuple[int, int]]:
    """Cut rising rows into stretches that lie close together, none much larger than a block."""
    if not len(starts):
        return
    far = np.flatnonzero(starts[1:] - ends[:-1] > _GAP) + 1
    for first, last in zip([0, *far.tolist()], [*far.tolist(), len(starts)], strict=True):
        while first < last:
            most = int(np.searchsorted(ends[first:last], starts[first] + _BLOCK, side="right"))
            end = first + max(most, 1)
            yield first, end
            first = end


class StringPacker:
    """Packs strings as they come."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._file: _KeptFile | None = None
        self._ends: list[IntArray] = []
        self._size = 0

    def extend(self, strings: Iterable[str]) -> None:
        """Take some more.

        Raises:
            UnicodeEncodeError: one cannot be written as UTF-8.
            StoreError: the temporary file cannot be written.
        """
        encoded = [text.encode("utf-8") for text in strings]
        if not encoded:
            return
        self._held.append(b"".join(encoded))
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._ends.append(np.cumsum(lengths) + self._size)
        self._size = int(self._ends[-1][-1])
        if self._size > _IN_MEMORY:
            with _file_errors():
                data = b"".join(self._held)
                if self._file is None:
                    self._file = _KeptFile(data)
                else:
                    self._file.append(data)
            self._held = []

    def finish(self) -> PackedStrings:
        """All that were taken."""
        ends = np.concatenate([np.zeros(0, np.int64), *self._ends])
        return PackedStrings(self._file or b"".join(self._held), ends)


def taken(column: Sequence[str], rows: IntArray) -> list[str]:
    """Some of a column's strings, in the order of ``rows``."""
    if isinstance(column, PackedStrings):
        return column.take(rows)
    return [column[row] for row in rows.tolist()]


class RowIndex(Mapping[str, int]):
    """The row of each of some strings; of one that is there twice, the first.

    Strings are found by their hashes and then compared, so that it takes 12 bytes a string.

    Args:
        names: n strings.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        hashes = np.fromiter(map(hash, names), np.int64, len(names))
        order = np.argsort(hashes, kind="stable")
        self._rows = order.astype(np.uint32 if len(names) < 1 << 32 else np.int64)
        del order
        hashes.sort()
        self._hashes = hashes
        self._seen: Sequence[int] = memoryview(
            hashes.data
        )  # of which Python takes single numbers faster

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> int:
        row = self._find(name)
        if row < 0:
            raise KeyError(name)
        return row

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) >= 0

    def _find(self, name: str) -> int:
        wanted = hash(name)
        at = bisect_left(self._seen, wanted)
        while at < len(self._seen) and self._seen[at] == wanted:
            row = int(self._rows[at])
            if self._names[row] == name:
                return row
            at += 1
        return -1

    def repeated(self) -> IntArray:
        """Rows of strings that an earlier row has, too, ascending, int64."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        suspects = np.unique(self._rows[np.concatenate([same, same + 1])].astype(np.int64))
        names = zip(suspects.tolist(), taken(self._names, suspects), strict=True)
        seen: set[str] = set()
        found = []
        for row, name in names:
            if name in seen:
                found.append(row)
            seen.add(name)
        return np.array(found, dtype=np.int64)
