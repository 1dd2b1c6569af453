"""A store of three small collections of two domains, for the tests of protocols."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from hash_encoder import HashEncoder
from planted import QUICK, default_qrels, planted_texts

from era_cache.collection.records import TextCollection
from era_cache.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.store.store import Store
from era_cache.types import FloatArray, Role

DOMAINS = {"alpha": "web", "beta": "law", "gamma": "web"}
SIZES = {"alpha": 20, "beta": 30, "gamma": 24}
RECIPE = dataclasses.replace(
    QUICK, iterations=2, align_documents=40, reference_steps=((0.0, 1), (0.25, 1))
)


class Changed(HashEncoder):
    """Claims to be ``HashEncoder(dim, seed)`` but gives other vectors for some texts."""

    def __init__(self, dim: int, seed: str, texts: Collection[str]) -> None:
        super().__init__(dim, seed)
        self._texts = frozenset(texts)

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        changed = [f"{text} poison" if text in self._texts else text for text in texts]
        yield from super().encode(changed, role)


def texts_of(
    name: str,
    labels: Collection[int] = (),
    queries: Callable[[list[str]], list[str]] = lambda texts: texts,
) -> TextCollection:
    """One of the collections; no text of it is in another.

    Args:
        name: of ``DOMAINS``.
        labels: query rows whose judgements are others than usual.
        queries: changes the texts of queries.
    """
    usual = default_qrels(50, itself=True)

    def qrels(query: int) -> list[tuple[int, int]]:
        return [((query + 20 + i) % 50, 3) for i in range(3)] if query in labels else usual(query)

    texts = planted_texts(n_docs=50, n_queries=SIZES[name], qrels=qrels)
    return texts._replace(
        name=name,
        domain=DOMAINS[name],
        doc_texts=[f"{text} {name}" for text in texts.doc_texts],
        query_texts=queries([f"{text} {name}" for text in texts.query_texts]),
    )


def several(
    path: Path,
    collections: Sequence[TextCollection] | None = None,
    *,
    vectors: Collection[str] = (),
    large_corpus: Collection[str] = (),
    seed: str = "",
) -> Store:
    """Make the store.

    Args:
        path: of the store.
        collections: in place of the three.
        vectors: texts that get other vectors than usual, by encoders of the same fingerprints.
        seed: of the encoders, which makes them others.
        large_corpus: collections whose documents the large encoder has, all of them.
    """
    store = Store.create(path)
    for texts in collections or [texts_of(name) for name in DOMAINS]:
        embed_collection(
            store,
            texts,
            large=Changed(24, f"large{seed}", vectors),
            small=Changed(16, f"small{seed}", vectors),
            config=EmbedConfig(align_documents=40),
            large_corpus=texts.name in large_corpus,
        )
    return store
