"""What is to be encoded of a collection, part by part.

In: a text collection, a store and two encoders. Out: texts of one role for one encoder after the
other; the sample of documents comes last, since it may depend on what was encoded before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.collection.keys import alignment_order, distinct_rows, row_keys
from era_cache.collection.records import Collection, RoleTexts, TextCollection
from era_cache.encode.align_sample import (
    free_queries,
    judged_since,
    retrieval_weights,
    rule_of,
    weighted_order,
)
from era_cache.encode.config import EmbedConfig
from era_cache.encode.encoder import Encoder
from era_cache.store.encoder_record import render
from era_cache.store.store import Store
from era_cache.types import Array, FloatArray, IntArray, Keys, Role

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["LOG", "Asked", "Part"]

LOG = "log of queries"
"""What the part of a log is called."""


class Part(NamedTuple):
    """Texts of one role for one encoder, none of them put into the template yet.

    ``what`` names them for progress and report; ``keys`` is (n, 16) uint8.
    """

    what: str
    encoder: Encoder
    role: Role
    keys: Keys
    asked: RoleTexts
    rows: IntArray | None = None
    """Which rows of ``asked`` they are; None for all."""

    def places(self, rows: IntArray) -> IntArray:
        """Where some of the texts are in ``asked``."""
        return rows if self.rows is None else self.rows[rows]

    def rendered(self, rows: IntArray) -> list[str]:
        """Some of the texts as the model is given them."""
        taken = self.asked.take(self.places(rows))
        return render(self.encoder.spec.templates[self.role], taken.texts, taken.instructions)


class Asked(NamedTuple):
    """What is to be encoded of a collection, by which encoders (large, small)."""

    store: Store
    texts: TextCollection
    collection: Collection
    encoders: tuple[Encoder, Encoder]
    config: EmbedConfig
    large_corpus: bool
    log: TextCollection | None

    def parts(self) -> Iterator[Part]:
        """All by the small encoder; queries and a sample of the documents by the large one.

        The sample comes last: which documents it has may depend on what was encoded before.
        """
        large, small = self.encoders
        documents, queries = self.texts.of(Role.DOCUMENT), self.texts.of(Role.QUERY)
        doc_keys, query_keys = self.collection.doc_keys, self.collection.query_keys
        own, logged = free_queries(self.collection, self.log)
        rule = rule_of(self.config.align_sample, self.collection, (len(own), len(logged)))
        yield Part("documents", small, Role.DOCUMENT, doc_keys, documents)
        yield Part("queries", small, Role.QUERY, query_keys, queries)
        yield Part("queries", large, Role.QUERY, query_keys, queries)
        log_keys = query_keys[:0]
        if self.log is not None and rule == "retrieved" and not self.large_corpus:
            asked = self.log.of(Role.QUERY).take(logged)
            log_keys = row_keys(Role.QUERY, asked.texts, asked.instructions)
            yield Part(LOG, small, Role.QUERY, log_keys, asked)
        if self.config.shard != (1, 1) and not self.drawn_by_key(rule):
            return  # it depends on what all the others encode: whoever finishes draws it
        sample = self._sample(rule, np.concatenate([query_keys[own], log_keys]))
        yield Part(
            "documents" if self.large_corpus else "alignment documents",
            large,
            Role.DOCUMENT,
            doc_keys[sample],
            documents,
            sample,
        )

    def drawn_by_key(self, rule: str | None = None) -> bool:
        """Whether the sample follows from the texts alone, so that each share encodes its part."""
        if rule is None:
            own, logged = free_queries(self.collection, self.log)
            rule = rule_of(self.config.align_sample, self.collection, (len(own), len(logged)))
        if self.large_corpus or self.config.align_documents >= len(self.collection.doc_keys):
            return True
        drawn_again = not self.config.align_sample and judged_since(self.store, self.collection)
        return rule == "random" and not drawn_again

    def _sample(self, rule: str, query_keys: Keys) -> IntArray:
        keys, seed = self.collection.doc_keys, self.config.align_seed
        most = len(keys) if self.large_corpus else self.config.align_documents
        if most >= len(keys):
            return distinct_rows(keys)
        # More queries, judgements, or a last bit of a cosine that differs, cost no encoding: what
        # was drawn stays in the sample, unless a rule is asked for.
        keep = not self.config.align_sample and (
            rule == "retrieved" or judged_since(self.store, self.collection)
        )
        if rule == "random" and not keep:
            return np.sort(alignment_order(keys, seed, most))
        order = alignment_order(keys, seed)
        if most >= len(order):
            return np.sort(order)
        known = self._known(0, Role.DOCUMENT, keys)
        enough = keep and known[order].sum() >= most
        if rule == "retrieved" and not enough:
            there = self._known(1, Role.DOCUMENT, keys)
            asked = query_keys[self._known(1, Role.QUERY, query_keys)]
            weights = np.full(len(keys), 1e-6)  # what has no usable vector comes last
            found = self._small(Role.QUERY, asked)
            weights[there] = retrieval_weights(found, self._documents(keys[there]), seed)
            order = weighted_order(keys, seed, weights)
        if keep:
            order = np.concatenate([order[known[order]], order[~known[order]]])
        return np.sort(order[:most])

    def _known(self, side: int, role: Role, keys: Keys) -> Array:
        """Which of some keys an encoder has a vector of, (n,) bool."""
        encoder = self.store.find_encoder(self.encoders[side].spec.fingerprint(role))
        if encoder is None:
            return np.zeros(len(keys), dtype=bool)
        return np.asarray(encoder.index().positions(keys) >= 0)

    def _documents(self, keys: Keys) -> Corpus:
        """Small vectors of documents, read in blocks as they are searched."""
        import torch

        from era_cache.rank.corpus import ReadRows

        encoder = self.store.find_encoder(self.encoders[1].spec.fingerprint(Role.DOCUMENT))
        if encoder is None:
            return torch.zeros(0, 1)
        index = encoder.index()

        def read(start: int, end: int) -> torch.Tensor:
            return torch.from_numpy(encoder.vectors(keys[start:end], index=index))

        return ReadRows(read, (len(keys), encoder.spec.dim))

    def _small(self, role: Role, keys: Keys) -> FloatArray:
        encoder = self.store.find_encoder(self.encoders[1].spec.fingerprint(role))
        if encoder is None or not len(keys):
            return np.zeros((0, 1), dtype=np.float32)
        return encoder.vectors(keys)
