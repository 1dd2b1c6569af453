"""What runs beside the checker: ``python -m benchmarks.store_child JOB JSON``.

A child imports what it needs, prints ``ready``, waits for a line on stdin, and then works until it
is killed or its time is over. It writes down which rows are committed.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py  # noqa: F401  (imported now, so that it does not count as work)
import numpy as np

from benchmarks.store_rows import PatternEncoder, RowLog, expected_rows, numbered_texts
from era_cache.collection.keys import distinct_rows, row_keys
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.errors import EraError
from era_cache.store import sorted_keys
from era_cache.store.clean import clean
from era_cache.store.compact import compact
from era_cache.store.precision import StoredRows
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Array, Keys, Role

__all__ = ["LARGE", "SMALL", "seeds"]

LARGE, SMALL = 1, 2
"""Seeds of the two encoders that all children use."""
_ROWS = 700


def seeds() -> dict[str, int]:
    """Seed of each encoder, by fingerprint."""
    return {PatternEncoder(s).spec.fingerprint(role): s for s in (LARGE, SMALL) for role in Role}


class Committed:
    """Writes down what writers in this process commit, while it is on."""

    log: RowLog | None = None

    @classmethod
    def add(cls, fingerprint: str, keys: Keys) -> None:
        """Write down that rows are committed."""
        if cls.log is not None:
            cls.log.add(fingerprint, keys)

    @classmethod
    def watch(cls, log: RowLog) -> None:
        """Write down every commit from now on."""
        cls.log = log
        commit = SegmentWriter.commit

        def logged(writer: SegmentWriter, keys: Keys, rows: StoredRows | Array) -> Path:
            path = commit(writer, keys, rows)
            cls.add(writer.spec.fingerprint, keys)
            return path

        SegmentWriter.commit = logged  # type: ignore[method-assign,assignment]

    @classmethod
    @contextmanager
    def off(cls) -> Iterator[None]:
        """Write nothing down: it is another store that is written."""
        log, cls.log = cls.log, None
        try:
            yield
        finally:
            cls.log = log


class Job:
    """Work on one store, step by step, without end.

    Args:
        options: ``store``, ``first`` (number of the first text), ``seed`` and ``scratch``.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.store = Store.create(options["store"])
        self.scratch = Path(options["scratch"])
        self._first, self._count = int(options["first"]), itertools.count()
        self._rng = random.Random(options["seed"])
        self._encoders = PatternEncoder(LARGE), PatternEncoder(SMALL)

    def embed(self) -> int:
        """Embed a collection that overlaps with the ones before and after it."""
        number = next(self._count)
        texts = numbered_texts(self._first + number * (_ROWS - 100), _ROWS)
        dtype = self._rng.choice(["float16", "float16", "float32"])
        # Groups of 256 rows: many commits, and a merge at the end of each part.
        config = EmbedConfig(seal_seconds=1e-6, align_documents=300, dtype=dtype)
        large, small = self._encoders
        embed_collection(self.store, texts, large=large, small=small, config=config)
        return len(texts.doc_ids)

    def put(self) -> int:
        """Put a few rows."""
        number = next(self._count)
        first = self._first + number * 150
        texts = [f"document {row}" for row in range(first, first + 200)]
        for one, seed in zip(self._encoders, (LARGE, SMALL), strict=True):
            rows = expected_rows(row_keys(Role.DOCUMENT, texts), seed)
            dtype = self._rng.choice(["float16", "float32"])
            self.store.put(one.spec, Role.DOCUMENT, texts, rows, dtype=dtype)
        return 2 * len(texts)

    def compact(self) -> int:
        """Put a few rows, compact all, and sometimes clean up."""
        rows = self.put()
        self.put()
        compact(self.store, max_bytes=self._rng.choice([1 << 14, 1 << 31]))
        if self._rng.random() < 0.5:
            clean(self.store, grace_seconds=float(self.options.get("grace", 0)))
        return rows

    def only_compact(self) -> int:
        """Compact without end."""
        compact(self.store)
        time.sleep(0.05)
        return 0

    def only_clean(self) -> int:
        """Clean up without end; what was retired lately stays."""
        clean(self.store)
        time.sleep(0.05)
        return 0

    def merge(self) -> int:
        """Merge another store into this one."""
        from era_cache.store.sync import merge

        number = next(self._count)
        other = Store.create(self.scratch / f"other-{self.options['seed']}-{number}")
        texts = [f"document {self._first + number * 150 + row}" for row in range(200)]
        keys = row_keys(Role.DOCUMENT, texts)
        for one, seed in zip(self._encoders, (LARGE, SMALL), strict=True):
            with Committed.off():
                other.put(one.spec, Role.DOCUMENT, texts, expected_rows(keys, seed))
        merge(self.store.path, [other.path])
        for one in self._encoders:
            Committed.add(one.spec.fingerprint(Role.DOCUMENT), keys)
        return 2 * len(texts)

    def finish(self) -> int:
        """One undisturbed run: everything again, compacted, and nothing left lying about."""
        self.embed()
        compact(self.store)
        clean(self.store, grace_seconds=0)
        return 0

    def heavy(self) -> int:
        """Embed with an encoder that costs what a small model does."""
        number = next(self._count)
        texts = numbered_texts(self._first + number * 5000, 5000, name=f"c{self._first}")
        large, small = PatternEncoder(LARGE, 12), PatternEncoder(SMALL, 12)
        config = EmbedConfig(align_documents=10)
        embed_collection(self.store, texts, large=large, small=small, config=config)
        return len(texts.doc_ids)


class Reader:
    """Reads a store again and again: what was seen once must stay, and every value be right."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._path, self._seeds = Path(options["store"]), seeds()
        self._rng = np.random.default_rng(options["seed"])
        self._seen: dict[str, Keys] = {}
        self.counts = {"rounds": 0, "rows": 0, "missing": 0, "wrong": 0}
        self.errors: list[str] = []

    def step(self) -> int:
        """Look at every encoder once."""
        try:
            for encoder in Store.open(self._path).encoders():
                self._look(encoder)
        except EraError as error:
            self.errors.append(str(error))
        self.counts["rounds"] += 1
        return 0

    def _look(self, encoder: Any) -> None:
        fingerprint = encoder.spec.fingerprint
        index = encoder.index()
        if not index.segments:
            return
        seen = self._seen.get(fingerprint, np.empty((0, 16), np.uint8))
        self.counts["missing"] += int(np.count_nonzero(index.positions(seen) < 0))
        numbers = range(len(index.segments))
        now = np.concatenate([np.asarray(index.keys_of(number)) for number in numbers])
        keys = now[self._rng.integers(0, len(now), 5000)]
        # With the index just made, whose segments others retire, and with a new one.
        for given in (index, None):
            rows = encoder.vectors(keys, index=given)
            different = (rows != expected_rows(keys, self._seeds[fingerprint])).any(axis=1)
            self.counts["wrong"] += int(different.sum())
            self.counts["rows"] += len(keys)
        self._seen[fingerprint] = now[distinct_rows(now)]


def main() -> None:
    """Run a job."""
    job, options = sys.argv[1], json.loads(sys.argv[2])
    # Index files also for stores as small as these.
    sorted_keys._PERSIST_ROWS = 500
    Committed.watch(RowLog(Path(options["log"])))
    reader = Reader(options) if job == "read" else None
    step: Callable[[], int] = reader.step if reader else getattr(Job(options), job)
    print("ready", flush=True)
    sys.stdin.readline()
    begun, rows, steps = time.monotonic(), 0, 0
    while steps < options.get("steps", sys.maxsize):
        rows, steps = rows + step(), steps + 1
        seconds = time.monotonic() - begun
        if seconds >= options.get("seconds", sys.maxsize):
            break
    result: dict[str, Any] = {"rows": rows, "steps": steps, "seconds": time.monotonic() - begun}
    if reader is not None:
        result = {**reader.counts, "errors": reader.errors}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
