"""Whether a model behind an address still is the one that a store has vectors of.

No file can be hashed there, so ten texts that never change are encoded and stored like any other
row; every later run encodes them again, before anything else, and compares.

In: an encoder and what is stored of it. Out: an error; or the ten rows, where they are not stored.
"""

from __future__ import annotations

import numpy as np

from era_cache.collection.keys import row_keys
from era_cache.encode.encoder import Encoder, in_order
from era_cache.encode.parts import Part
from era_cache.errors import EncoderError
from era_cache.store.encoder_record import render
from era_cache.store.exchange.blocks import cosines
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, Keys, Role

__all__ = ["PROBE_TEXTS", "check_server", "probe"]

PROBE_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Which statute limits liability of a carrier for lost luggage?",
    "def add(a, b):\n    return a + b",
    "Aspirin reduces the risk of a second myocardial infarction.",
    "Die Würde des Menschen ist unantastbar.",
    "La vitesse de la lumière dans le vide est de 299 792 458 m/s.",
    "天地玄黄，宇宙洪荒。",
    "SELECT name FROM users WHERE id = 42;",
    "weather tomorrow",
    "x² + y² = r² describes a circle; π ≈ 3.14159.",
)
"""Texts of many kinds; changing one would make stores forget what they were compared with."""
_TOLERANCE = 0.999
_MOST_STORED = 10


def probe(part: Part, stored: StoredEncoder | None) -> tuple[Keys, FloatArray]:
    """Encode the ten texts and some that are stored, and compare.

    Args:
        part: what is to be encoded next.
        stored: the encoder in the store; None where it has no row yet.

    Returns:
        Keys (n, 16) and vectors (n, d) float32 of those of the ten that are not stored.

    Raises:
        EncoderError: a vector is another one now.
    """
    encoder = part.encoder
    keys = row_keys(part.role, PROBE_TEXTS)
    texts = render(encoder.spec.templates[part.role], PROBE_TEXTS, [""] * len(PROBE_TEXTS))
    known = np.zeros(len(keys), dtype=bool)
    if stored is not None:
        index = stored.index()
        known = index.positions(keys) >= 0
        rows = np.flatnonzero(index.positions(part.keys) >= 0)[:_MOST_STORED].astype(np.int64)
        if not known.any():  # removed as rows of no collection, or imported
            keys = np.concatenate([keys, part.keys[rows]])
            texts += part.rendered(rows)
            known = np.concatenate([known, np.ones(len(rows), dtype=bool)])
    vectors = _encoded(encoder, part.role, texts)
    if stored is not None and known.any():
        _compare(encoder, part.role, stored, keys[known], vectors[known])
    return keys[~known], vectors[~known]


def check_server(encoder: Encoder, role: Role, stored: StoredEncoder) -> None:
    """Before a model behind an address answers for stored vectors: is it still the same one?

    Encoders whose files are known need no such check, nor can it be made where the ten texts are
    not stored.

    Raises:
        EncoderError: a vector is another one now.
    """
    if not getattr(encoder, "served", False):
        return
    keys = row_keys(role, PROBE_TEXTS)
    rows = np.flatnonzero(stored.index().positions(keys) >= 0)
    if not len(rows):
        return
    texts = render(encoder.spec.templates[role], PROBE_TEXTS, [""] * len(PROBE_TEXTS))
    vectors = _encoded(encoder, role, [texts[row] for row in rows.tolist()])
    _compare(encoder, role, stored, keys[rows], vectors)


def _compare(
    encoder: Encoder, role: Role, stored: StoredEncoder, keys: Keys, vectors: FloatArray
) -> None:
    what = f"{vectors.shape[1]} dimensions, not {stored.spec.dim}"
    if vectors.shape[1] == stored.spec.dim:
        least = cosines(stored.vectors(keys), vectors).min()
        if least >= _TOLERANCE:
            return
        what = f"a cosine of {least:.4f} to what is stored of the same text"
    raise EncoderError(
        f"{encoder.spec.name}: the server gives other vectors of {role.value} texts than those "
        f"stored: {what}. Another model runs under the name {encoder.spec.identity.get('model')!r} "
        "now. To keep both, state a revision of the new one (--large-revision or --small-revision, "
        "any word): it then has vectors of its own."
    )


def _encoded(encoder: Encoder, role: Role, texts: list[str]) -> FloatArray:
    vectors = in_order(encoder, texts, role)
    if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        raise EncoderError(f"{encoder.spec.name}: has no vector of a plain text.")
    return vectors
