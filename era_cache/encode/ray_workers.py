"""Encoding by workers of a Ray cluster: each holds a model, and writes what it encodes itself.

In: rows of a part that the store lacks. Out: segments, written by the workers; only texts go out,
and only counts come back. What is stored is the checkpoint: a worker that dies costs the texts that
it was encoding, which another one takes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from era_cache.collection.records import RoleTexts
from era_cache.encode.bad_rows import BadRow
from era_cache.encode.config import EmbedConfig
from era_cache.encode.encoder import Encoder, EncoderSettings, open_encoder
from era_cache.encode.job import Job, missing_rows
from era_cache.encode.parts import Part
from era_cache.encode.ray_pool import Pool, Workers
from era_cache.encode.service import ServiceSettings
from era_cache.errors import EncoderError, InputError
from era_cache.store.encoder_record import EncoderSpec
from era_cache.store.open_store import is_url, open_store
from era_cache.store.store import Store
from era_cache.types import FloatArray, IntArray, Keys, Role

__all__ = ["RayEncoder"]

_CHUNK_ROWS = 2048
"""Texts that a worker is given at a time, and loses at most twice."""
_MERGED = 64
"""Segments of a worker that are merged to one."""


class _Chunk(NamedTuple):
    """Texts of a part with what a worker needs to know of them."""

    what: str
    role: Role
    keys: Keys
    texts: RoleTexts

    @property
    def ids(self) -> Sequence[str]:
        """Of the texts."""
        return self.texts.ids


class _Done(NamedTuple):
    """What became of a chunk; ``bad`` are places in it with what is wrong and how to mend it."""

    truncated: int
    bad: list[tuple[int, str, str]]


class _Worker:
    """Runs in a process of the cluster."""

    def __init__(
        self, store: str, model: str, settings: EncoderSettings, expected: dict[Role, str]
    ) -> None:
        self._encoder = open_encoder(model, settings)
        for role, fingerprint in expected.items():
            if self._encoder.spec.fingerprint(role) != fingerprint:
                raise EncoderError(
                    f"{model}: a worker found other files or settings of the model than the "
                    "machine that began. Give all the same folder, or --…-revision."
                )
        self._store = open_store(store)
        self._encoder.provenance()  # loads the model
        self._job: Job | None = None
        self._chunks = 0

    def ready(self) -> int:
        """Its process, once the model is loaded."""
        return os.getpid()

    def encode(self, chunk: _Chunk, config: EmbedConfig) -> _Done:
        """Encode what the store lacks of a chunk, and commit it as a segment."""
        part = Part(chunk.what, self._encoder, chunk.role, chunk.keys, chunk.texts)
        rows = missing_rows(self._store, part, np.arange(len(chunk.keys)), config.dtype)
        before = getattr(self._encoder, "truncated", 0)
        self._job = job = self._job or Job(self._store, part, config)
        job.go_on(part)
        try:
            if len(rows):
                job.encode_group(rows, lambda _done: None)
        finally:
            job.settle()  # what is told as done is stored
        self._chunks += 1
        if self._chunks % _MERGED == 0:
            self.finish()
        cut = getattr(self._encoder, "truncated", 0) - before
        return _Done(cut, [(one.row, one.what, one.mend) for one in job.bad])

    def finish(self) -> None:
        """Merge the segments that this worker wrote."""
        if self._job is not None:
            self._job.finish()
            self._job = None


class RayEncoder:
    """A model that workers of a Ray cluster run; an ``Encoder`` that also encodes into a store.

    Args:
        model: as ``open_encoder`` takes it; every worker must find the same files under it.
        encoder: the model opened here, which says what it is.
        settings: how it is run.
        workers: how many, and what each occupies.

    Raises:
        InputError: Ray is not installed, or the model is behind an address.
    """

    _running: ClassVar[Any] = None
    """Whose workers there are, and for which store: a cluster may have room for one model only."""

    def __init__(
        self, model: str, encoder: Encoder, settings: EncoderSettings, workers: Workers
    ) -> None:
        if getattr(encoder, "served", False):
            raise InputError(
                f"{model}: a model behind an address is encoded from one machine, with "
                "--requests-in-flight; --engine ray is for models that workers load."
            )
        folder = Path(model)
        self._model = str(folder.resolve()) if folder.is_dir() else model
        self._encoder, self._workers = encoder, workers
        precision = str(encoder.spec.identity.get("precision", settings.precision))
        self._settings = replace(settings, precision=precision, service=ServiceSettings())
        self.spec: EncoderSpec = encoder.spec
        self.truncated = 0
        self.pool = Pool(workers)

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        """See ``Encoder.encode``: here, for the few texts that are tried first."""
        return self._encoder.encode(texts, role)

    def provenance(self) -> dict[str, Any]:
        """See ``Encoder.provenance``."""
        return self._encoder.provenance()

    def encode_into(
        self,
        store: Store,
        part: Part,
        rows: IntArray,
        config: EmbedConfig,
        tell: Callable[[int], None],
    ) -> list[BadRow]:
        """Encode rows of a part and commit them, by all workers.

        Args:
            store: that every worker can reach under the same path.
            part: what they are of.
            rows: (m,) int64, distinct texts.
            config: stored precision.
            tell: told how many are done.

        Returns:
            Texts that no vector can be made of.

        Raises:
            EncoderError: no worker could begin, or some texts failed again and again.
            EraError: what a worker met.
        """
        pool = self._begun(store)
        bad: list[BadRow] = []
        done = 0
        try:
            # Ray tells of dead workers on the standard output, which is for what was asked for.
            with contextlib.redirect_stdout(sys.stderr):
                for taken, found in pool.run(lambda: _chunks(part, rows), config):
                    self.truncated += found.truncated
                    for at, what, mend in found.bad:
                        place = int(part.places(taken[at : at + 1])[0])
                        named = part.asked.ids[place]
                        bad.append(BadRow(self, part.role, place, named, what, mend))
                    done += len(taken)
                    tell(done)
                pool.finish()
        except BaseException:
            pool.stop()
            raise
        known = store.find_encoder(self.spec.fingerprint(part.role))
        if known is not None:
            known.keep_index()
        return bad

    def _begun(self, store: Store) -> Pool:
        """Workers that hold this model; those of another one make room for them."""
        place = store.where if is_url(store.where) else str(store.path.resolve())
        if RayEncoder._running not in (None, (self, place)):
            RayEncoder._running[0].pool.stop()
            RayEncoder._running = None
        if RayEncoder._running is None or not self.pool.alive:
            self.pool = Pool(self._workers)
            expected = {role: self.spec.fingerprint(role) for role in Role}
            try:
                self.pool.start(_Worker, place, self._model, self._settings, expected)
            except BaseException:
                self.pool.stop()
                raise
            RayEncoder._running = self, place
        return self.pool


def _chunks(part: Part, rows: IntArray) -> Iterator[tuple[IntArray, _Chunk]]:
    for start in range(0, len(rows), _CHUNK_ROWS):
        taken = rows[start : start + _CHUNK_ROWS]
        texts = part.asked.take(part.places(taken))
        yield taken, _Chunk(part.what, part.role, part.keys[taken], texts)
