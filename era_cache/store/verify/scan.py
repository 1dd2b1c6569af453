"""One read of a segment: its digest, and every value looked at on the way.

In: a segment's path. Out: what is wrong with it, if anything, and the norms of its rows. Memory
does not grow with the file: its bytes pass through two buffers, hashed by one thread while another
looks at them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.disk.files import os_errors, sha256_file
from era_cache.errors import FormatError, NewerError, StoreError
from era_cache.store.encoder_record import StoredSpec
from era_cache.store.read_rows import repeats_a_key
from era_cache.store.segment import Segment, open_segment
from era_cache.store.verify.row_scan import Norms, RowScan
from era_cache.types import Array

__all__ = ["Scan", "scan_segment"]

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
            digest = sha256_file(path)
            told(path.stat().st_size)
        wrong = _wrong_digest(path, digest)
        if problem is not None and wrong is None:
            problem += " Its content agrees with its name: it was made like this."
        # The structure's damage says more than the digest's, which follows from it.
        return Scan(path, None, problem or wrong, "damage", [], Norms())
    with segment.plain.opened() as reader:
        look = RowScan(segment, reader)
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
    segment: Segment, look: RowScan, pool: ThreadPoolExecutor, told: Callable[[int], None]
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
