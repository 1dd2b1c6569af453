"""Adapters that are served: their models, what they search, and their folders as they change.

In: adapter folders. Out: what encodes queries and documents under a name. A folder that is replaced
is loaded beside the old one, which answers until the new one is ready.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.disk.shown import escaped
from era_cache.encode.encoder import Encoder
from era_cache.errors import EncoderError, StoreError
from era_cache.fitting.adapter_folder import load_config
from era_cache.serve.engine import Lookup
from era_cache.serve.query_encoder import QueryEncoder
from era_cache.store.encoder_record import render
from era_cache.types import FloatArray, Role

__all__ = ["Documents", "Loaded", "Opening", "Queries", "Served"]

RETRY_SECONDS = 5.0
_logger = logging.getLogger(__name__)
Signature = tuple[int, int, int, int]


class Queries:
    """Queries behind an adapter."""

    def __init__(self, encoder: QueryEncoder) -> None:
        self.encoder = encoder
        self.dim = encoder.dim
        self.takes_instruction = encoder.takes_instruction

    def encode(self, texts: Sequence[str], instructions: Sequence[str]) -> FloatArray:
        """See ``batches.Target``."""
        return self.encoder.encode(list(texts), list(instructions))

    def tokens(self, texts: Sequence[str], instructions: Sequence[str]) -> int:
        """Tokens that the large model reads, or the small one alone."""
        models = self.encoder.models()
        model = models.get("large") or models["small"]
        rendered = render(model.spec.templates[Role.QUERY], texts, instructions)
        return _tokens(model, rendered, Role.QUERY)


class Documents:
    """Documents by the small model, as the index holds them."""

    def __init__(self, encoder: Encoder, template: str, dim: int) -> None:
        self._encoder, self._template, self.dim = encoder, template, dim
        self.takes_instruction = "{instruction}" in template

    def encode(self, texts: Sequence[str], instructions: Sequence[str]) -> FloatArray:
        """See ``batches.Target``.

        Raises:
            EncoderError: the model fails, or gives what cannot be compared.
        """
        vectors = np.full((len(texts), self.dim), np.nan, dtype=np.float32)
        rendered = render(self._template, texts, instructions)
        for rows, some in self._encoder.encode(rendered, Role.DOCUMENT):
            vectors[rows] = some
        lengths = np.linalg.norm(vectors, axis=1)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[0])
            raise EncoderError(f"{self._encoder.spec.name} gave no vector for text {row}.")
        return vectors

    def tokens(self, texts: Sequence[str], instructions: Sequence[str]) -> int:
        """Tokens that the small model reads."""
        rendered = render(self._template, texts, instructions)
        return _tokens(self._encoder, rendered, Role.DOCUMENT)


def _tokens(model: Encoder, rendered: Sequence[str], role: Role) -> int:
    """Tokens of texts with their prompts; words where the model does not count."""
    count = getattr(model, "count_tokens", None)
    if count is None:
        return sum(len(text.split()) for text in rendered)
    return sum(count(rendered, role))


@dataclass(frozen=True)
class Loaded:
    """An adapter folder as it was when it was loaded."""

    queries: Queries
    documents: Documents
    lookup: Lookup | None
    signature: Signature | None
    models: frozenset[str]
    """Fingerprints of the encoders that are read."""


@dataclass(frozen=True)
class Opening:
    """How adapters are opened.

    ``lookup`` gives what is searched of a folder, with the models that are loaded already; None
    where there is no store.
    """

    query_model: str | None = None
    doc_model: str | None = None
    candidate: str | None = None
    device: str | None = None
    lookup: Callable[[Path, Mapping[str, Encoder]], Lookup] | None = None


class Served:
    """One adapter under its name.

    Args:
        name: that clients ask for.
        folder: of the adapter.
        opening: how it is opened.
        pool: encoders by fingerprint, shared by all adapters of a server.

    Raises:
        EraError: the folder or a model cannot be used.
    """

    def __init__(self, name: str, folder: Path, opening: Opening, pool: dict[str, Encoder]) -> None:
        self.name, self.folder = name, folder
        self._opening, self._pool = opening, pool
        self._refused: tuple[Signature | None, float] = (None, 0.0)
        """What could not be used, and when it was tried last."""
        self.current = self.load()

    def signature(self) -> Signature | None:
        """What changes when the folder is replaced."""
        try:
            found = (self.folder / "config.json").stat()
        except OSError:
            return None  # between two renames
        # Copies keep the time of writing, and numbers are given again; the time of change is new.
        return found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size

    def changed(self) -> bool:
        """Whether the folder is another than the one that is served.

        One that was refused is tried again after a while: files may still have been on their way.
        """
        now = self.signature()
        if now is None or now == self.current.signature:
            return False
        refused, tried = self._refused
        return now != refused or time.monotonic() - tried >= RETRY_SECONDS

    def load(self) -> Loaded:
        """Open the folder as it is now; models that others have are shared.

        Raises:
            EraError: it cannot be used.
        """
        signature = self.signature()
        opening = self._opening
        encoder = QueryEncoder(
            self.folder,
            query_model=opening.query_model,
            doc_model=opening.doc_model,
            candidate=opening.candidate,
            device=opening.device,
        )
        small, models = encoder.share(self._pool)
        config = load_config(self.folder)
        template = (config.encoders or {})["document"].template
        documents = Documents(small, template, encoder.dim)
        lookup = None
        if opening.lookup is not None:
            lookup = opening.lookup(self.folder, encoder.models())
        if self.signature() != signature:  # its parts may be of two adapters
            raise StoreError(f"{self.folder}: was replaced while it was read; read it again.")
        return Loaded(Queries(encoder), documents, lookup, signature, models)

    def reload(self) -> Loaded | None:
        """Open a changed folder and its models; None where it cannot be used.

        The one that is served goes on in that case, and the reason is logged once.
        """
        signature = self.signature()
        try:
            loaded = self.load()
        except Exception as error:  # noqa: BLE001 - whatever it is, the old one goes on
            if signature != self._refused[0]:
                _logger.warning("%s", escaped(f"{self.folder} is not taken: {error}"))
            self._refused = signature, time.monotonic()
            return None
        return loaded

    def model(self, name: str) -> Any:
        """What encodes under a name: ``NAME`` or ``NAME/document``; None for another."""
        if name == self.name:
            return self.current.queries
        return self.current.documents if name == f"{self.name}/document" else None
