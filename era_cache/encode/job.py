"""Encoding groups of texts: each is read and committed beside the encoding of its neighbours.

In: rows of a part that the store lacks. Out: segments; texts that no vector can be made of.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from era_cache import __version__
from era_cache.encode.ahead import one_ahead
from era_cache.encode.bad_rows import BadRow, unusable
from era_cache.encode.config import EmbedConfig
from era_cache.encode.parts import Part
from era_cache.encode.served_probe import probe
from era_cache.errors import EncoderError
from era_cache.store.precision import StoredRows, sort_out, why_bad
from era_cache.store.remove import bring_back
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import FloatArray, IntArray, Keys

__all__ = ["Job", "missing_rows"]

_MOST_TEXTS = 1 << 16
"""Texts of a group at most: they are unpacked together."""
_FEWEST_TEXTS = 256
"""And at least; also of the first two groups, taken before the model's speed is known."""
_FIRST_ASKED = 1024
"""The first two of a server, which answers many requests at once and is idle between groups."""
_MOST_BAD = 1000
"""So many texts have no usable vector only where the model is at fault: all would fail."""


def missing_rows(store: Store, part: Part, distinct: IntArray, dtype: str) -> IntArray:
    """Which of some distinct rows of a part the store has not, as exactly as asked for."""
    fingerprint = part.encoder.spec.fingerprint(part.role)
    known = store.find_encoder(fingerprint) or bring_back(store, fingerprint)
    if known is None:
        return distinct
    # float16 rows do not satisfy a run that asks for float32; the other way round they do.
    return distinct[known.index().missing(part.keys[distinct], dtype)]


class Job:
    """Encodes groups of rows of one part and commits them.

    Use as a context manager, or call ``settle``: the last group is on its way until then.
    """

    def __init__(self, store: Store, part: Part, config: EmbedConfig) -> None:
        self._store, self._part, self._config = store, part, config
        self._dtype = config.dtype
        self._writer: SegmentWriter | None = None
        self._target: StoredEncoder | None = None
        served = getattr(part.encoder, "served", False)
        self._group_rows = _FIRST_ASKED if served else _FEWEST_TEXTS
        self._beside = ThreadPoolExecutor(1, "commit")
        self._on_its_way: Future[object] | None = None
        self.bad: list[BadRow] = []

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is on its way, also where an error or Ctrl-C is."""
        try:
            self.settle()
        finally:
            self._beside.shutdown()

    def settle(self) -> None:
        """Wait until the last group is committed. Raises ``StoreError`` where it cannot be."""
        waited_for, self._on_its_way = self._on_its_way, None
        if waited_for is not None:
            waited_for.result()

    def go_on(self, part: Part) -> None:
        """Take up another part by the same encoder and of the same role."""
        self._part, self.bad = part, []

    def run(self, rows: IntArray, tell: Callable[[int], None]) -> None:
        """Encode rows, in groups that take about ``seal_seconds`` each, and commit them.

        While one group is encoded, the one before is committed and the texts of the next are read,
        rendered and measured.

        Args:
            rows: (m,) of the part.
            tell: told how many are done.

        Raises as ``encode_group``.
        """
        done = 0
        with contextlib.closing(one_ahead(self._read, self._groups(rows))) as read:
            for group, texts in read:
                begun, before = time.monotonic(), done
                self._encode(group, texts, lambda seen: tell(before + seen))  # noqa: B023
                done += len(group)
                self._learn(len(group), time.monotonic() - begun)

    def _groups(self, rows: IntArray) -> Iterator[IntArray]:
        start = 0
        while start < len(rows):
            size = self._group_rows
            yield rows[start : start + size]
            start += size

    def _learn(self, size: int, seconds: float) -> None:
        """Take as many rows for the group after the next as should take the time wanted."""
        dim = self._target.spec.dim if self._target else 1
        most = max(1024, self._config.seal_bytes // (dim * np.dtype(self._dtype).itemsize))
        wanted = int(size * self._config.seal_seconds / max(seconds, 1e-6))
        # At most four times as many: a first group of short texts must not mislead.
        self._group_rows = max(_FEWEST_TEXTS, min(most, wanted, 4 * size, _MOST_TEXTS))

    def _read(self, group: IntArray) -> Sequence[str]:
        """Rendered texts, measured where the encoder wants to know their tokens first."""
        part = self._part
        texts = part.rendered(group)
        measured = getattr(part.encoder, "measured", None)
        return texts if measured is None else measured(texts, part.role)

    def check_server(self) -> None:
        """Of a model behind an address: is it still the one that the store has vectors of?"""
        if not getattr(self._part.encoder, "served", False):
            return
        spec, role = self._part.encoder.spec, self._part.role
        keys, vectors = probe(self._part, self._store.find_encoder(spec.fingerprint(role)))
        if len(keys):
            self._commit(keys, sort_out(vectors, self._dtype)[0])

    def encode_group(self, group: IntArray, tell: Callable[[int], None]) -> None:
        """Encode one group of rows; it is committed while the next one is encoded.

        Raises:
            EncoderError: the encoder fails or gives something else than vectors.
            StoreError: the group before, or this one, cannot be committed.
        """
        self._encode(group, self._read(group), tell)

    def _encode(self, group: IntArray, texts: Sequence[str], tell: Callable[[int], None]) -> None:
        stored: StoredRows | None = None
        done = np.zeros(len(group), dtype=bool)
        seen = 0
        try:
            for rows, batch in self._part.encoder.encode(texts, self._part.role):
                checked, bad = self._checked(group, rows, batch)
                if stored is None:
                    stored = StoredRows.empty(len(group), batch.shape[1], self._dtype)
                stored.put(rows, checked)
                done[np.delete(rows, bad)] = True
                seen += len(rows)
                tell(seen)
        finally:
            # Also on the way out of an error or Ctrl-C: finished rows are worth keeping.
            if stored is not None and done.any():
                kept = stored if done.all() else stored.take(done)
                self._commit(self._part.keys[group[done]], kept)
        if seen != len(group):
            raise EncoderError(
                f"{self._part.encoder.spec.name} returned {seen} vectors for {len(group)} texts."
            )

    def _checked(
        self, group: IntArray, rows: list[int], batch: FloatArray
    ) -> tuple[StoredRows, IntArray]:
        """The stored form of a batch, and which of its rows must not be stored."""
        part = self._part
        if batch.ndim != 2 or len(batch) != len(rows):
            raise EncoderError(
                f"{part.encoder.spec.name} returned shape {batch.shape} for {len(rows)} texts."
            )
        stored, bad = sort_out(batch, self._dtype)
        for at in bad.tolist():
            row = int(group[rows[at]])
            place = int(part.places(np.array([row]))[0])
            why = why_bad(batch[at], self._dtype)
            if reason := getattr(part.encoder, "reasons", {}).get(rows[at]):
                why = f"no vector ({reason})", "Shorten or mend that text."
            self.bad.append(BadRow(part.encoder, part.role, place, part.asked.ids[place], *why))
        if len(self.bad) > _MOST_BAD:
            raise unusable(self.bad)
        return stored, bad

    def _commit(self, keys: Keys, stored: StoredRows) -> None:
        if self._writer is None:
            spec, dim = self._part.encoder.spec, stored.values.shape[1]
            self._target = self._store.add_encoder(spec, self._part.role, dim)
            about = {**self._part.encoder.provenance(), "era-cache": __version__}
            if self._config.note:
                about["note"] = self._config.note
            self._writer = SegmentWriter(self._target, about, dtype=self._dtype)
        # One at a time: no more than two groups are held, and a full disk is noticed.
        self.settle()
        self._on_its_way = self._beside.submit(self._writer.commit, keys, stored)

    def finish(self) -> None:
        """Merge what this job wrote."""
        self.settle()
        if self._writer is not None:
            with self._writer:
                pass
