"""Embedding: encode what the store lacks, once, and commit it in groups.

In: a text collection and two encoders. Out: segments in the store, the stored collection, and a
report of what was encoded and what was already there. The only step that loads a model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from era_cache.collection.keys import distinct_rows
from era_cache.collection.records import Collection, TextCollection
from era_cache.disk.shown import require_unicode
from era_cache.encode.bad_rows import BadRow, rows_of_equals, unusable
from era_cache.encode.config import EmbedConfig
from era_cache.encode.encoder import Encoder
from era_cache.encode.job import Job, missing_rows
from era_cache.encode.parts import LOG, Asked, Part
from era_cache.encode.shard import Lack, lacking, share_of
from era_cache.store.records import ROLES
from era_cache.store.store import Store
from era_cache.types import Progress, Role, silent

__all__ = ["EncodedRows", "Left", "embed_collection", "left_to_encode"]


class EncodedRows(NamedTuple):
    """What became of one set of texts."""

    what: str
    encoder: str
    rows: int
    """Distinct texts asked for."""
    encoded: int
    cached: int
    truncated: int
    seconds: float
    bad: tuple[str, ...] = ()
    """Texts whose vectors cannot be used, and why."""

    def after(self, first: EncodedRows) -> EncodedRows:
        """The report of a run in two passes, of which this was the second."""
        return self._replace(
            encoded=first.encoded + self.encoded,
            cached=max(0, self.cached - first.encoded + len(first.bad)),
            truncated=first.truncated + self.truncated,
            seconds=first.seconds + self.seconds,
            bad=first.bad + self.bad,
        )


def embed_collection(
    store: Store,
    texts: TextCollection,
    *,
    large: Encoder,
    small: Encoder,
    config: EmbedConfig,
    large_corpus: bool = False,
    log: TextCollection | None = None,
    progress: Progress = silent,
) -> tuple[Collection, list[EncodedRows]]:
    """Encode a collection with both encoders as far as the store lacks it.

    The small encoder gets all documents and queries; the large one all queries and a sample of
    the documents for alignment, or all of them. A collection may lack either role.

    Args:
        store: where the vectors go.
        texts: the collection.
        large: the strong encoder of queries.
        small: the encoder of the index; may be the same model.
        config: sample size, precision, group sizes.
        large_corpus: encode every document with the large encoder, too.
        log: queries that help to choose the sample; only the small model encodes them.
        progress: told how far each part is.

    Returns:
        The stored collection, and one report for each part.

    Raises:
        InputError: the note is not valid Unicode, or the collection's domain or a split no name.
        EncoderError: a model fails or gives unusable vectors (which are told all at once, or left
            out where the configuration says so); finished rows are kept.
        StoreError: the store cannot be written; what was committed is kept.
    """
    require_unicode(config.note, "The note")
    # First, so that an interrupted run shows in `era-store info` as incomplete, not as nothing.
    collection = store.add_collection(texts)
    sides = (
        large.spec.fingerprint(Role.QUERY),
        small.spec.fingerprint(Role.QUERY),
        small.spec.fingerprint(Role.DOCUMENT),
        large.spec.fingerprint(Role.DOCUMENT),
    )
    store.add_pair(collection, dict(zip(ROLES, sides, strict=True)))
    asked = Asked(store, texts, collection, (large, small), config, large_corpus, log)
    parts: list[Part] = []
    reports: list[EncodedRows] = []
    bad: list[BadRow] = []
    seen = set()
    for part in asked.parts():
        parts.append(part)
        fingerprint = part.encoder.spec.fingerprint(part.role)
        if fingerprint in seen and part.what != LOG:  # same model on both sides: done in full
            continue
        seen.add(fingerprint)
        if not len(part.keys):
            continue
        if bad and part.encoder is not bad[0].encoder and not config.skip_bad_rows:
            break  # the other model may take hours
        report, found = _encode_missing(store, part, config, progress)
        reports.append(report)
        bad += found
    _register(store, parts)
    if not bad:
        return collection, reports
    if not config.skip_bad_rows:
        raise unusable(bad)
    if config.shard != (1, 1):  # what is left out is for who sees all of it to say
        return collection, reports
    left_out = texts.without(
        rows_of_equals(bad, Role.DOCUMENT, collection.doc_keys),
        rows_of_equals(bad, Role.QUERY, collection.query_keys),
    )
    if any(len(texts.of(role).ids) and not len(left_out.of(role).ids) for role in Role):
        raise unusable(bad)
    # The sample of documents is another without them, so that few may still have to be encoded.
    collection, second = embed_collection(
        store,
        left_out,
        large=large,
        small=small,
        config=config,
        large_corpus=large_corpus,
        log=log,
        progress=progress,
    )
    return collection, [one.after(first) for first, one in zip(reports, second, strict=True)]


class Left(NamedTuple):
    """What is left of a collection when a share is done.

    ``lacks`` is what no share has encoded yet; ``sample`` whether the documents for alignment
    follow from what all shares encode, so that the last one draws them.
    """

    lacks: list[Lack]
    sample: bool


def left_to_encode(
    store: Store,
    texts: TextCollection,
    collection: Collection,
    *,
    encoders: tuple[Encoder, Encoder],
    config: EmbedConfig,
    large_corpus: bool = False,
    log: TextCollection | None = None,
) -> Left:
    """What of a collection is left when a share is done.

    Args:
        store: where the vectors are.
        texts: the collection.
        collection: as stored.
        encoders: large and small.
        config: as for ``embed_collection``.
        large_corpus: as for ``embed_collection``.
        log: likewise.
    """
    config = replace(config, shard=(1, 2))  # of any share: all see the same parts
    asked = Asked(store, texts, collection, encoders, config, large_corpus, log)
    return Left(lacking(store, asked.parts(), config.dtype), not asked.drawn_by_key())


def _register(store: Store, parts: Sequence[Part]) -> None:
    """Let the store know the role of an encoder that no text was there for.

    Whoever fits on the documents alone needs to know which encoder the queries are to have.
    """
    for part in parts:
        if len(part.keys):
            continue
        for role in Role:
            known = store.find_encoder(part.encoder.spec.fingerprint(role))
            if known is not None:
                store.add_encoder(part.encoder.spec, part.role, known.spec.dim)


def _encode_missing(
    store: Store, part: Part, config: EmbedConfig, progress: Progress
) -> tuple[EncodedRows, list[BadRow]]:
    """Encode those texts of a part that the store has not, in groups that are committed one by one.

    A killed process loses at most the group in flight and the one that is being committed; an error
    or Ctrl-C loses nothing that the encoder had finished.

    Raises:
        EncoderError: the encoder fails or gives unusable vectors.
        StoreError: the store cannot be written.
    """
    start = time.monotonic()
    distinct = distinct_rows(part.keys)
    if config.shard != (1, 1):
        distinct = distinct[share_of(part.keys[distinct], config.shard)]
    missing = missing_rows(store, part, distinct, config.dtype)
    truncated = getattr(part.encoder, "truncated", 0)
    bad: list[BadRow] = []

    def tell(done: int) -> None:
        progress(part.what, done, len(missing))

    spread = getattr(part.encoder, "encode_into", None)
    if len(missing) and spread is not None:
        progress(part.what, 0, len(missing))
        bad = spread(store, part, missing, config, tell)
    elif len(missing):
        with Job(store, part, config) as job:
            progress(f"loading {part.encoder.spec.name}", 0, 0)
            part.encoder.provenance()  # what loads its model
            job.check_server()
            progress(part.what, 0, len(missing))
            job.run(missing, tell)
            job.finish()
        bad = job.bad
    report = EncodedRows(
        what=part.what,
        encoder=part.encoder.spec.name,
        rows=len(distinct),
        encoded=len(missing),
        cached=len(distinct) - len(missing),
        truncated=getattr(part.encoder, "truncated", 0) - truncated,
        seconds=time.monotonic() - start,
        bad=tuple(map(str, bad)),
    )
    return report, bad
