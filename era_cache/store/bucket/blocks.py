"""A segment that lies elsewhere, of which this machine keeps the blocks that were read.

In: ranges of bytes. Out: a file of which at least these are here. One file holds both the blocks
and, behind the segment's end, a byte for each block that tells whether it has come, so that whoever
opens it sees the two together. When all have come, their SHA-256 is compared with the segment's
name, the file is cut down to the segment and moved from ``partial`` to where whole ones lie: a size
alone proves nothing, since a crash of the machine can cut a file off anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from era_cache.disk.files import os_errors, regular_file, staged
from era_cache.errors import FormatError, StoreError
from era_cache.types import Array, IntArray, Progress, silent

__all__ = ["BLOCK_BYTES", "KeptSegment"]

BLOCK_BYTES = 1 << 18
_REQUEST_BLOCKS = 128
"""Blocks asked for by one request, at most."""
_REQUESTS = 4
"""Requests at a time; the answers of twice as many are held in memory."""
_ATTEMPTS = 10
_READ_BYTES = 4 << 20
_MOVE_SECONDS = 0.02

Fetch = Callable[[Sequence[int], Sequence[int]], list[bytes]]
"""Gives the bytes from each start to each end; raises ``StoreError``."""


@functools.cache
def _boot() -> bytes:
    """Tell this run of the system from all others: blocks that came before a crash may be lost."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        told = uuid.uuid4().bytes
    return hashlib.sha256(told).digest()[:12]


class KeptSegment:
    """Where a segment's bytes come from (``hdf5.Origin``).

    Args:
        path: of the whole file on this machine; it need not be there. What is not whole lies in
            the folder ``partial`` beside its own.
        size: of the segment in bytes.
        fetch: gives bytes of it.
        shown: how messages name it.
        progress: told how many bytes have come.
    """

    def __init__(
        self, path: Path, size: int, fetch: Fetch, shown: str, progress: Progress = silent
    ) -> None:
        self.path, self.size = path, size
        self._partial = path.parent.parent / "partial" / path.name
        self._fetch, self._shown, self._progress = fetch, shown, progress
        self._blocks = -(-size // BLOCK_BYTES)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[int, int]]:
        """Open the file, made where it is missing: its descriptor, and the segment's size."""
        with contextlib.ExitStack() as stack:
            yield self._open(stack), self.size

    def _open(self, stack: contextlib.ExitStack) -> int:
        for number in range(_ATTEMPTS):
            for path in (self.path, self._partial):
                attempt = contextlib.ExitStack()
                try:
                    descriptor, size = attempt.enter_context(regular_file(path, os.O_RDWR))
                except FileNotFoundError:
                    continue
                good = size == self.size
                if path == self._partial:
                    if good and number < _ATTEMPTS // 2:  # another program just moves it
                        attempt.close()
                        time.sleep(_MOVE_SECONDS)
                        break
                    good = self._marks(descriptor, size) is not None
                with attempt:
                    if good:
                        stack.push(attempt.pop_all())
                        os.utime(descriptor)
                        return descriptor
                # Of another run of the system, or cut off by a crash: nothing in it counts.
                path.unlink(missing_ok=True)
            else:
                self._begin()
        raise StoreError(f"{self.path}: keeps changing. Delete the folder it lies in.")

    def _begin(self) -> None:
        """Make the file, all blocks of it missing, unless another program just does."""
        with staged(self._partial.parent, ".h5") as (temporary, _):
            with temporary.open("wb") as file:
                file.seek(self.size)
                file.write(bytes(self._blocks) + _boot())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._partial)

    def _marks(self, descriptor: int, size: int) -> Array | None:
        """A byte for each block, 0 where it is missing; None where the file cannot be trusted."""
        tail = os.pread(descriptor, self._blocks + len(_boot()), self.size)
        if size != self.size + self._blocks + len(_boot()) or tail[self._blocks :] != _boot():
            return None
        return np.frombuffer(tail[: self._blocks], np.uint8).copy()

    def bring(self, descriptor: int, starts: IntArray, ends: IntArray) -> None:
        """Make sure that ranges are here: see ``hdf5.Origin``."""
        with self._lock, os_errors("keeping what was read of a bucket", self.path):
            size = os.fstat(descriptor).st_size
            if size == self.size:  # it was whole, or is by now: cut down once its digest was right
                return
            marks = self._marks(descriptor, size)
            if marks is None:
                raise FileNotFoundError(errno.ENOENT, "replaced by another program", self.path.name)
            wanted = np.zeros(self._blocks + 1, np.int32)
            np.add.at(wanted, starts // BLOCK_BYTES, 1)
            np.add.at(wanted, (ends - 1) // BLOCK_BYTES + 1, -1)
            missing = np.flatnonzero((np.cumsum(wanted[:-1]) > 0) & (marks == 0))
            if not len(missing):
                return
            spans = list(_spans(missing))
            groups = [spans[at : at + _REQUESTS] for at in range(0, len(spans), _REQUESTS)]
            # The next ones come while these are written.
            with ThreadPoolExecutor(1) as ahead:
                coming = ahead.submit(self._asked, groups[0])
                for number, group in enumerate(groups):
                    came = coming.result()
                    if number + 1 < len(groups):
                        coming = ahead.submit(self._asked, groups[number + 1])
                    self._keep(descriptor, group, came)
                    done = min(len(missing), (number + 1) * _REQUESTS * _REQUEST_BLOCKS)
                    whole = len(missing) * BLOCK_BYTES
                    self._progress("reading the bucket", done * BLOCK_BYTES, whole)
            marks[missing] = 1
            if marks.all():
                self._complete(descriptor)

    def _asked(self, spans: list[tuple[int, int]]) -> list[bytes]:
        starts = [first * BLOCK_BYTES for first, _ in spans]
        ends = [min(last * BLOCK_BYTES, self.size) for _, last in spans]
        answers = self._fetch(starts, ends)
        for start, end, data in zip(starts, ends, answers, strict=True):
            if len(data) != end - start:
                raise StoreError(
                    f"{self._shown}: {end - start} bytes were asked for, {len(data)} came."
                )
        return answers

    def _keep(self, descriptor: int, spans: list[tuple[int, int]], came: list[bytes]) -> None:
        """Write blocks, and only then say that they are there."""
        for (first, last), data in zip(spans, came, strict=True):
            _write(descriptor, data, first * BLOCK_BYTES)
            with _alone(descriptor):
                if os.fstat(descriptor).st_size > self.size:  # else it is whole by now
                    _write(descriptor, b"\1" * (last - first), self.size + first)

    def _complete(self, descriptor: int) -> None:
        """Compare the content with its name, make it durable, and cut off what is behind it."""
        digest = hashlib.sha256()
        for start in range(0, self.size, _READ_BYTES):
            digest.update(os.pread(descriptor, min(_READ_BYTES, self.size - start), start))
        if digest.hexdigest() != self.path.stem:
            self._partial.unlink(missing_ok=True)
            raise FormatError(
                f"{self._shown}: the content's SHA-256 is {digest.hexdigest()[:12]}…, which is not "
                "its name; the segment is damaged. Delete it there: the next era-embed encodes "
                "only its rows again."
            )
        os.fsync(descriptor)
        with _alone(descriptor), contextlib.suppress(FileNotFoundError):  # another has moved it
            os.ftruncate(descriptor, self.size)
            if self._partial.stat().st_ino == os.fstat(descriptor).st_ino:
                self._partial.rename(self.path)


@contextlib.contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Wait for other programs and threads that change what is behind the segment's end.

    A mark written just after the file was cut down would make it longer again: all would have to
    come once more. That is no more than slow, so a file system without locks may go without.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _spans(blocks: IntArray) -> Iterator[tuple[int, int]]:
    """Yield runs of blocks that follow each other, (first, last + 1), none of them too long."""
    for run in np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
        end = int(run[-1]) + 1
        for first in range(int(run[0]), end, _REQUEST_BLOCKS):
            yield first, min(first + _REQUEST_BLOCKS, end)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while len(left):
        count = os.pwrite(descriptor, left, offset)
        left, offset = left[count:], offset + count
