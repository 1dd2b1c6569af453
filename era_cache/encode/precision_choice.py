"""Which precision a model is run in here: the fastest that gives the same vectors, by trying.

In: a model and a few texts. Out: the precision, and what was measured. Processors with units for
bfloat16 encode several times as fast with it, others slower; nothing but trying tells.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from era_cache.collection.records import RoleTexts
from era_cache.encode.encoder import DEFAULT_KIND, Encoder, EncoderSettings, in_order, open_encoder
from era_cache.store.encoder_record import render
from era_cache.store.exchange.blocks import cosines
from era_cache.store.store import Store
from era_cache.types import FloatArray, Role

__all__ = ["TOLERANCE", "Choice", "choose_precision", "other_precisions"]

TOLERANCE = 5e-4
"""Largest distance of a cosine from 1 that counts as the same vector."""
_GAIN = 1.25
"""Times as fast that is worth another precision."""
_TRIED = 24
_LONGEST = 2000
"""Characters of a text that is tried: a long one would be all that is measured."""


class Choice(NamedTuple):
    """What was taken, and why."""

    encoder: Encoder
    """Opened with the precision that was taken, and loaded."""
    precision: str
    reason: str


def choose_precision(
    model: str, settings: EncoderSettings, texts: RoleTexts, role: Role, store: Store | None
) -> Choice:
    """Open a model in the fastest precision whose vectors are those of float32.

    What the store holds of the model goes before: encoding it a second time costs more.

    Args:
        model: as ``open_encoder`` takes it.
        settings: their precision is set here.
        texts: of the role; some of them are tried.
        role: of these texts.
        store: where the vectors will go; None if there is none.

    Raises:
        EncoderError: the model cannot be found or used.
    """
    exact = open_encoder(model, replace(settings, precision="float32"))
    if exact.spec.identity.get("kind") != DEFAULT_KIND:
        return Choice(exact, "float32", "this kind of encoder has one precision only")
    known = other_precisions(exact, store, include_own=True)
    if known:
        precision = max(known, key=lambda name: (known[name], name == "float32"))
        encoder = open_encoder(model, replace(settings, precision=precision))
        stored = f"{known[precision]:,} rows of it are stored, and none is encoded twice"
        return Choice(encoder, precision, stored)
    if not len(texts.ids):
        return Choice(exact, "float32", "there is no text to try")
    rows = np.linspace(0, len(texts.ids) - 1, min(_TRIED, len(texts.ids))).astype(np.int64)
    some = texts.take(rows)
    given = render(exact.spec.templates[role], some.texts, some.instructions)
    tried = [text[:_LONGEST] for text in given]
    wanted, slow = _timed(exact, tried, role)
    best = Choice(exact, "float32", "")
    seconds, told = slow, []
    for precision in _candidates(settings.device):
        encoder = open_encoder(model, replace(settings, precision=precision))
        vectors, took = _timed(encoder, tried, role)
        distance = _distance(wanted, vectors)
        told.append(f"{precision} {slow / took:.1f} times as fast, cosines within {distance:.1g}")
        if distance <= TOLERANCE and took * _GAIN < seconds:
            seconds, best = took, Choice(encoder, precision, "")
    return best._replace(
        reason=f"float32 makes {len(tried) / slow:,.0f} texts/s here; {'; '.join(told)}"
    )


def other_precisions(
    encoder: Encoder, store: Store | None, *, include_own: bool = False
) -> dict[str, int]:
    """Rows that a store holds of the same model and templates in other precisions, by precision."""
    found: dict[str, int] = {}
    if store is None:
        return found
    mine = {k: v for k, v in encoder.spec.identity.items() if k != "precision"}
    own = encoder.spec.identity.get("precision")
    for stored in store.encoders():
        theirs = dict(stored.spec.identity)
        precision = str(theirs.pop("precision", ""))
        same = theirs == mine and stored.spec.template == encoder.spec.templates[stored.spec.role]
        if same and precision and (include_own or precision != own):
            found[precision] = found.get(precision, 0) + int(stored.index(check=False).starts[-1])
    return {precision: rows for precision, rows in found.items() if rows}


def _candidates(device: str | None) -> list[str]:
    import torch

    on_gpu = (device or ("cuda" if torch.cuda.is_available() else "cpu")).startswith("cuda")
    return ["bfloat16", "float16"] if on_gpu else ["bfloat16"]


def _timed(encoder: Encoder, texts: list[str], role: Role) -> tuple[FloatArray, float]:
    """Vectors, and the shorter of two times, after a first text that is not timed."""
    in_order(encoder, texts[:1], role)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        found = in_order(encoder, texts, role)
        times.append(time.perf_counter() - start)
    return found, min(times)


def _distance(one: FloatArray, other: FloatArray) -> float:
    """Of the worst cosine from 1; infinite where a vector cannot be used."""
    usable = np.isfinite(other).all() and other.any(axis=1).all() and one.any(axis=1).all()
    return float(1 - cosines(one, other).min()) if usable else float("inf")
