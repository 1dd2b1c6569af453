"""Probing: are the stored vectors still those that the model gives?

In: an encoder of a store, the texts of a collection, and the model. Out: how a sample of texts,
encoded again, compares with what is stored. A fingerprint covers the model's files and settings,
but not the libraries and machine that ran them, nor the truth of what an import stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from era_cache.collection.keys import alignment_order
from era_cache.collection.records import RoleTexts, TextCollection
from era_cache.encode.encoder import Encoder, differences
from era_cache.errors import EncoderError, FingerprintError, StoreError
from era_cache.store.encoder_record import StoredSpec, render
from era_cache.store.exchange.blocks import cosines
from era_cache.store.exchange.matching import collection_keys
from era_cache.store.key_index import KeyIndex
from era_cache.store.precision import check_vectors
from era_cache.store.read_rows import read_rows
from era_cache.store.sorted_keys import by_segment
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import FloatArray, IntArray

__all__ = ["ProbeReport", "SegmentOrigin", "probe_rows"]

# Of the provenance, what can change a vector though no file of the model changes.
_RUNTIME = (
    "sentence-transformers",
    "transformers",
    "tokenizers",
    "torch",
    "device",
    "precision",
    "batch_tokens",
)


class SegmentOrigin(NamedTuple):
    """Where some of the compared rows came from."""

    segment: str
    """First 12 digits of its name."""
    rows: int
    dtype: str
    provenance: dict[str, Any]
    differs: dict[str, tuple[Any, Any]]
    """Runtime facts that are others today: (then, now)."""


class ProbeReport(NamedTuple):
    """How the stored vectors compare with those that the model gives today."""

    encoder: str
    fingerprint: str
    role: str
    rows: int
    """Texts compared."""
    stored: int
    """Texts of the collection that are stored at all."""
    cosine_min: float
    cosine_mean: float
    tolerance: float
    verdict: str
    """``ok``, or ``drift``: the smallest cosine is below the tolerance."""
    largest_difference: float
    """Of one value, stored against fresh."""
    largest_difference_rounded: float
    """The same, the fresh vector first rounded as the stored one was."""
    largest_norm_difference: float
    """Of a row's length, relative to the fresh one's."""
    equal_after_rounding: int
    """Rows whose difference is storage rounding and nothing else."""
    worst: str
    """Id of the text with the smallest cosine."""
    segments: list[SegmentOrigin]
    runtime: dict[str, Any]
    """Today's provenance."""


def _check_same_encoder(spec: StoredSpec, encoder: Encoder) -> None:
    """Refuse an encoder that is not the stored one.

    Raises:
        FingerprintError: the fingerprints differ; the message says in what.
    """
    if listed := differences(spec, encoder):
        raise FingerprintError(
            f"{encoder.spec.name} is not the encoder of {spec.label()}: {listed}. Give the model "
            "that made these vectors; another one has vectors of its own in the store."
        )


def probe_rows(
    stored: StoredEncoder,
    texts: TextCollection,
    encoder: Encoder,
    *,
    sample: int = 32,
    seed: int = 0,
    tolerance: float = 0.999,
) -> ProbeReport:
    """Encode a sample of a collection's texts again and compare with what is stored.

    Args:
        stored: the encoder in the store.
        texts: a collection; its texts of the encoder's role that are stored are sampled.
        encoder: the same encoder, ready to run.
        sample: texts to encode, at most.
        seed: chooses them.
        tolerance: smallest cosine that is no drift.

    Raises:
        FingerprintError: ``encoder`` is another one.
        StoreError: none of the texts is stored.
        EncoderError: the model cannot be run, or gave unusable vectors.
        FormatError: a segment is damaged.
    """
    spec = stored.spec
    _check_same_encoder(spec, encoder)
    ids, keys = collection_keys(texts, spec.role)
    index = stored.index()
    positions = index.positions(keys)
    present = np.flatnonzero(positions >= 0)
    if not len(present):
        raise StoreError(
            f"{stored.folder}: none of the {len(ids)} texts of {texts.name} is stored. Are "
            "--document-text and the collection those that the vectors were made from?"
        )
    order = alignment_order(keys[present], seed)
    rows = np.sort(present[order[:sample]])
    fresh = _encode(encoder, spec, texts.of(spec.role).take(rows))
    found = np.empty((len(rows), spec.dim), dtype=np.float32)
    read_rows(index, positions[rows], found)
    runtime = encoder.provenance()
    rounded, segments = _rounded(index, positions[rows], fresh, encoder.spec.name, runtime)
    similar = cosines(found, fresh)
    lengths = np.linalg.norm(fresh.astype(np.float64), axis=1)
    stored_lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    return ProbeReport(
        encoder=spec.name,
        fingerprint=spec.fingerprint,
        role=spec.role.value,
        rows=len(rows),
        stored=len(order),
        cosine_min=float(similar.min()),
        cosine_mean=float(similar.mean()),
        tolerance=tolerance,
        verdict="ok" if similar.min() >= tolerance else "drift",
        largest_difference=float(np.abs(found - fresh).max()),
        largest_difference_rounded=float(np.abs(found - rounded).max()),
        largest_norm_difference=float((np.abs(stored_lengths - lengths) / lengths).max()),
        equal_after_rounding=int((found == rounded).all(axis=1).sum()),
        worst=ids[rows[int(similar.argmin())]],
        segments=segments,
        runtime=runtime,
    )


def _encode(encoder: Encoder, spec: StoredSpec, texts: RoleTexts) -> FloatArray:
    rendered = render(spec.template, texts.texts, texts.instructions)
    fresh = np.full((len(rendered), spec.dim), np.nan, dtype=np.float32)
    for places, batch in encoder.encode(rendered, spec.role):
        if batch.shape != (len(places), spec.dim):
            raise EncoderError(
                f"{encoder.spec.name} gives vectors of {batch.shape[-1]} dimensions; the stored "
                f"ones have {spec.dim}. They are not this model's."
            )
        fresh[places] = batch
    check_vectors(fresh, "float32", lambda row: f"'{texts.ids[row]}'", encoder.spec.name)
    return fresh


def _rounded(
    index: KeyIndex,
    positions: IntArray,
    fresh: FloatArray,
    name: str,
    runtime: Mapping[str, Any],
) -> tuple[FloatArray, list[SegmentOrigin]]:
    """The fresh vectors as their segments would have stored them, and what these segments say."""
    rounded = np.empty_like(fresh)
    origins = []
    for number, where, _ in by_segment(index.starts, positions):
        segment = index.segments[number]
        part = check_vectors(fresh[where], segment.dtype, str, name)
        rounded[where] = part.to_float32()
        then = segment.about() or {}
        differs = {
            fact: (then[fact], runtime.get(fact))
            for fact in _RUNTIME
            if fact in then and then[fact] != runtime.get(fact)
        }
        rows = len(part.values)
        origins.append(SegmentOrigin(segment.path.stem[:12], rows, segment.dtype, then, differs))
    return rounded, origins
