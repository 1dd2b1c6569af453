"""A deterministic encoder without a model: vectors from a digest of the words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from era_cache.store.encoder_record import EncoderSpec, check_template
from era_cache.types import FloatArray, Role


class HashEncoder:
    """Texts that share words get similar vectors, so that retrieval means something."""

    def __init__(self, dim: int = 32, seed: str = "", template: str = "{text}") -> None:
        templates = {Role.QUERY: check_template(template), Role.DOCUMENT: "{text}"}
        identity = {"kind": "hash", "dim": dim, "seed": seed}
        self.spec = EncoderSpec(f"hash-{dim}", identity, templates, {})
        self.encoded = 0
        self._dim, self._seed = dim, seed

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        del role
        for row, text in enumerate(texts):
            vector = sum(map(self._word, text.lower().split() or [""]), np.zeros(self._dim))
            self.encoded += 1
            yield [row], np.asarray(vector, dtype=np.float32)[None]

    def _word(self, word: str) -> FloatArray:
        digest = hashlib.blake2b(f"{self._seed}/{word}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(self._dim)

    def provenance(self) -> dict[str, Any]:
        return {"device": "cpu", "precision": "float64"}
