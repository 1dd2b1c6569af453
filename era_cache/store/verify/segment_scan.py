"""One read of a segment: its digest, and every value looked at on the way.

In: a segment's path. Out: what is wrong with it, if anything, what is odd about its rows, and their
norms. Memory does not grow with the file: its bytes pass through two buffers, hashed by one thread
while another looks at them.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.disk.files import os_errors, sha256_file
from era_cache.disk.hdf5 import PlainReader
from era_cache.errors import FormatError, NewerError, StoreError
from era_cache.store.encoder_record import StoredSpec
from era_cache.store.precision import LARGEST_SCALE, StoredRows
from era_cache.store.read_rows import repeats_a_key
from era_cache.store.segment import Segment, open_segment
from era_cache.types import Array, FloatArray, IntArray

__all__ = ["NormSummary", "Norms", "Scan", "scan_segment"]

_CHUNK_BYTES = 2 << 20
# Handing less to another thread costs more than hashing it.
_INLINE_BYTES = 1 << 18


class Scan(NamedTuple):
    """What reading a segment found out."""

    path: Path
    segment: Segment | None
    """None where its structure is damaged, or its encoder unknown."""
    problem: str | None
    """Why it must not be used; None where it is sound."""
    level: str
    """Of the problem: ``damage``, ``newer`` (no damage), or ``unreadable`` (the disk refused)."""
    doubts: list[str]
    """What is odd, but does no harm."""
    norms: Norms


def scan_segment(
    path: Path, spec: StoredSpec | None, pool: ThreadPoolExecutor, told: Callable[[int], None]
) -> Scan:
    """Check all of one segment.

    Args:
        path: the file.
        spec: of its encoder; where None, only its digest is checked.
        pool: of threads that hash; not the one that this call runs in.
        told: called with the number of bytes read since the last call.

    Raises:
        StoreError: it cannot be read; caused by ``FileNotFoundError`` where it is gone.
    """
    segment, problem = None, None
    if spec is not None:
        try:
            segment = open_segment(path, spec.fingerprint, spec.dim)
        except NewerError as error:
            return Scan(path, None, _without(path, error), "newer", [], Norms())
        except FormatError as error:
            problem = _without(path, error)
    if segment is None:
        with os_errors("reading", path):
            status = path.lstat()
            # Hours of zeros could be read to the same end; nothing of ours writes such a file.
            sparse = status.st_blocks * 512 < status.st_size // 2 and status.st_size > _CHUNK_BYTES
            wrong = "it is mostly a hole" if sparse else _wrong_digest(path, sha256_file(path))
            told(status.st_size)
        if problem is not None and wrong is None:
            problem += " Its content agrees with its name: it was made like this."
        # The structure's damage says more than the digest's, which follows from it.
        return Scan(path, None, problem or wrong, "damage", [], Norms())
    with segment.plain.opened() as reader:
        look = _RowScan(segment, reader)
        problem = _wrong_digest(path, _pass_by(segment, look, pool, told)) or look.problem()
        if problem is None and repeats_a_key(segment, reader):
            problem = "a key occurs twice"
    return Scan(path, segment, problem, "damage", look.doubts(), look.norms)


def _without(path: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _wrong_digest(path: Path, digest: str) -> str | None:
    if digest == path.stem:
        return None
    return f"the content's SHA-256 is {digest[:12]}…, the name says {path.stem[:12]}…"


class _Piece(NamedTuple):
    """Some bytes of a file: rows of a dataset from ``start`` on, or what lies between datasets."""

    offset: int
    size: int
    name: str | None
    start: int


def _pieces(segment: Segment) -> Iterator[_Piece]:
    """Cut the whole file, in order, such that no row is cut."""
    at = 0
    for name, slot in sorted(segment.plain.slots.items(), key=lambda item: item[1].offset):
        yield from _between(at, slot.offset)
        row_bytes = slot.nbytes // slot.shape[0]
        step = max(1, _CHUNK_BYTES // row_bytes)
        for start in range(0, slot.shape[0], step):
            rows = min(step, slot.shape[0] - start)
            yield _Piece(slot.offset + start * row_bytes, rows * row_bytes, name, start)
        at = slot.offset + slot.nbytes
    yield from _between(at, segment.plain.size)


def _between(begin: int, end: int) -> Iterator[_Piece]:
    for at in range(begin, end, _CHUNK_BYTES):
        yield _Piece(at, min(_CHUNK_BYTES, end - at), None, 0)


def _pass_by(
    segment: Segment, look: _RowScan, pool: ThreadPoolExecutor, told: Callable[[int], None]
) -> str:
    """Read a segment once, show its rows to ``look``, and give its SHA-256 in hex."""
    digest = hashlib.sha256()
    row_bytes = segment.dim * segment.plain.slots["vectors"].dtype.itemsize
    buffers = [np.empty(max(_CHUNK_BYTES, row_bytes), np.uint8) for _ in range(2)]
    hashing: Future[None] | None = None
    with os_errors("reading", segment.path):
        descriptor = os.open(segment.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for number, piece in enumerate(_pieces(segment)):
                data = buffers[number % 2][: piece.size]
                _fill(segment.path, descriptor, piece.offset, data)
                if hashing is not None:
                    hashing.result()
                    hashing = None
                if piece.size < _INLINE_BYTES:
                    digest.update(data.data)
                else:
                    hashing = pool.submit(digest.update, data.data)
                if piece.name is not None:
                    look.at(piece.name, piece.start, data)
                told(piece.size)
            if hashing is not None:
                hashing.result()
        finally:
            os.close(descriptor)
    return digest.hexdigest()


def _fill(path: Path, descriptor: int, offset: int, data: Array) -> None:
    left = data.data
    while len(left):
        count = os.preadv(descriptor, [left], offset)
        if not count:
            raise StoreError(f"{path}: reading failed: it was cut off meanwhile.")
        left, offset = left[count:], offset + count


_LARGE_NORM = 1e4
"""A larger norm of a row is unlike any encoder's; such rows are counted, not refused."""


# Values converted to float32 at a time: few enough to stay in the processor's cache.
_BLOCK_VALUES = 1 << 18


class Norms(NamedTuple):
    """Euclidean norms of some rows."""

    rows: int = 0
    smallest: float = math.inf
    total: float = 0.0
    largest: float = 0.0
    suspicious: int = 0
    """Rows whose norm is 0 in float32, or above ``_LARGE_NORM``."""

    def summary(self) -> NormSummary | None:
        """What they come to; None where there are no rows."""
        if not self.rows:
            return None
        return NormSummary(self.smallest, self.total / self.rows, self.largest, self.suspicious)

    def joined(self, other: Norms) -> Norms:
        """The norms of these rows and others."""
        return Norms(
            self.rows + other.rows,
            min(self.smallest, other.smallest),
            self.total + other.total,
            max(self.largest, other.largest),
            self.suspicious + other.suspicious,
        )


class NormSummary(NamedTuple):
    """What ``Norms`` come to."""

    smallest: float
    mean: float
    largest: float
    suspicious_rows: int


class _RowScan:
    """Looks at the rows of a segment as they pass by, in any pieces.

    Args:
        segment: whose rows they are.
        reader: of that segment's file.
    """

    def __init__(self, segment: Segment, reader: PlainReader) -> None:
        self._segment, self._reader = segment, reader
        rows = min(segment.rows, max(1, _BLOCK_VALUES // segment.dim))
        self._scratch = np.empty((rows, segment.dim), np.float32)
        self._bad: dict[str, tuple[int, int]] = {}
        """What is wrong with rows, to how many and the first."""
        self.norms = Norms()

    def at(self, name: str, start: int, data: Array) -> None:
        """Look at the bytes ``data`` of the rows of a dataset from ``start`` on."""
        if name == "scales":
            scales = data.view(np.float32)
            bad = np.flatnonzero(~((scales > 0) & (scales <= LARGEST_SCALE)))
            self._note("a scale that is not a positive number", start + bad)
        elif name == "vectors":
            dtype = self._segment.plain.slots["vectors"].dtype
            rows = data.view(dtype).reshape(-1, self._segment.dim)
            for begin in range(0, len(rows), len(self._scratch)):
                self._vectors(start + begin, rows[begin : begin + len(self._scratch)])

    def _vectors(self, start: int, stored: Array) -> None:
        scales = None
        if stored.dtype == np.int8:
            scales = np.empty(len(stored), np.float32)
            self._reader.read("scales", start, scales)
        with np.errstate(all="ignore"):  # what is not finite is what is looked for
            rows = StoredRows(stored, scales).to_float32(self._scratch[: len(stored)])
            squares = np.einsum("ij,ij->i", rows, rows)
            # One comparison finds what is all zero, too small to square, infinite or NaN.
            odd = np.flatnonzero(~((squares > 0) & (squares < np.inf)))
            norms = np.sqrt(squares, dtype=np.float64)
            norms[odd] = np.sqrt(np.square(rows[odd], dtype=np.float64).sum(axis=1))
        if len(odd):
            finite = np.isfinite(rows[odd]).all(axis=1)
            self._note("NaN or infinite values", start + odd[~finite])
            self._note("zeros only", start + odd[~stored[odd].any(axis=1)])
            norms = norms[np.isfinite(norms)]
        self._measure(norms, int(np.count_nonzero(squares == 0)))

    def _measure(self, norms: FloatArray, vanishing: int) -> None:
        if len(norms):
            suspicious = vanishing + int(np.count_nonzero(norms > _LARGE_NORM))
            low, total, high = float(norms.min()), float(norms.sum()), float(norms.max())
            self.norms = self.norms.joined(Norms(len(norms), low, total, high, suspicious))

    def _note(self, what: str, rows: IntArray) -> None:
        if len(rows):
            count, first = self._bad.get(what, (0, int(rows[0])))
            self._bad[what] = (count + len(rows), first)

    def problem(self) -> str | None:
        """What makes the segment unusable."""
        found = (
            f"{count} rows with {what} (the first: row {first})"
            for what, (count, first) in self._bad.items()
        )
        return "; ".join(found) or None

    def doubts(self) -> list[str]:
        """What is odd about it."""
        found = []
        if self.norms.suspicious:
            found.append(
                f"{self.norms.suspicious} rows have a norm that float32 takes for 0, or one above "
                f"{_LARGE_NORM:,.0f}"
            )
        if self._segment.about() is None:
            found.append("'created_by', which says what made it, is not a JSON object")
        return found
