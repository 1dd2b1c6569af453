"""What a run would encode, and what that costs; nothing is encoded and no store is written.

In: what ``embed_collection`` takes. Out: texts, tokens, requests and money of each part.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from era_cache.collection.keys import alignment_order, distinct_rows
from era_cache.collection.records import TextCollection
from era_cache.encode.config import EmbedConfig
from era_cache.encode.encoder import Encoder
from era_cache.encode.parts import Asked, Part
from era_cache.store.store import Store
from era_cache.types import IntArray

__all__ = ["PlannedRows", "plan_embedding"]

_WARM, _TIMED, _MOST_SECONDS = 8, 512, 20.0
_COUNTED = 5000
"""Texts whose tokens are counted; more are taken to be like these."""


class PlannedRows(NamedTuple):
    """What would become of one set of texts."""

    what: str
    encoder: str
    rows: int
    """Distinct texts asked for."""
    missing: int
    """Of them not stored: what would be encoded."""
    tokens: int | None
    """Of the missing, about; None for encoders that do not count."""
    requests: int | None
    """For models behind an address."""
    cost: float | None
    """In the currency of the price that was given."""
    seconds: float | None = None
    """On this machine, from a sample; None where none was encoded."""
    bytes: int | None = None
    """That the missing vectors take."""


def plan_embedding(
    store: Store | None,
    texts: TextCollection,
    *,
    encoders: tuple[Encoder, Encoder],
    config: EmbedConfig,
    large_corpus: bool = False,
    log: TextCollection | None = None,
    timed: bool = False,
) -> list[PlannedRows]:
    """Say what a run would encode. The sample of documents may be another in the end, not its size.

    Args:
        store: where the vectors would go; None if there is none yet.
        texts: the collection.
        encoders: large and small.
        config: sample size, stored precision.
        large_corpus: encode every document with the large encoder, too.
        log: queries that help to choose the sample.
        timed: encode some of the missing texts to see how long all take; they are not stored.
            Models behind an address are not asked.

    Raises:
        EncoderError: a model whose tokens are counted cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Store.create(Path(folder) / "store")
        collection = scratch.add_collection(texts)
        asked = Asked(store or scratch, texts, collection, encoders, config, large_corpus, log)
        planned: dict[tuple[str, str], PlannedRows] = {}
        for part in asked.parts():
            key = part.encoder.spec.fingerprint(part.role), part.what
            if len(part.keys) and key not in planned:
                planned[key] = _planned(asked.store, part, config.dtype, timed=timed)
        return list(planned.values())


def _planned(store: Store, part: Part, dtype: str, *, timed: bool) -> PlannedRows:
    distinct = distinct_rows(part.keys)
    known = store.find_encoder(part.encoder.spec.fingerprint(part.role))
    missing = distinct
    if known is not None:
        missing = distinct[known.index().missing(part.keys[distinct], dtype)]
    tokens, requests = _counted(part, missing)
    seconds = size = None
    if timed and len(missing) and not getattr(part.encoder, "served", False):
        seconds, dim = _timed(part, missing)
        size = len(missing) * (dim * np.dtype(dtype).itemsize + 16 + 4 * (dtype == "int8"))
    price = getattr(part.encoder, "price", 0.0)
    return PlannedRows(
        what=part.what,
        encoder=part.encoder.spec.name,
        rows=len(distinct),
        missing=len(missing),
        tokens=tokens,
        requests=requests,
        cost=None if tokens is None or not price else tokens * price / 1e6,
        seconds=seconds,
        bytes=size,
    )


def _timed(part: Part, missing: IntArray) -> tuple[float, int]:
    """Seconds that all the missing texts take here, and the dimensions of a vector.

    By a sample of any length, after some texts that warm the model up.
    """
    rows = missing[alignment_order(part.keys[missing], 1, _TIMED)]
    texts = part.rendered(rows)
    (_, first), *_rest = part.encoder.encode(texts[:_WARM], part.role)
    start, done = time.perf_counter(), 0
    for at, _ in part.encoder.encode(texts, part.role):
        done += len(at)
        if time.perf_counter() - start > _MOST_SECONDS:
            break
    return (time.perf_counter() - start) / done * len(missing), first.shape[1]


def _counted(part: Part, missing: IntArray) -> tuple[int | None, int | None]:
    """Tokens and requests, of a sample where there are many texts."""
    count = getattr(part.encoder, "count_tokens", None)
    if count is None or not len(missing):
        return (None, None) if len(missing) else (0, None)
    rows = missing
    if len(rows) > _COUNTED:
        rows = np.sort(missing[alignment_order(part.keys[missing], 0)[:_COUNTED]])
    lengths = count(part.rendered(rows), part.role)
    share = len(missing) / len(rows)
    cut = getattr(part.encoder, "requests", None)
    requests = None if cut is None else round(share * len(cut(lengths)))
    return round(share * sum(lengths)), requests
