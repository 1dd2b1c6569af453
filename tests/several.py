"""A store of three small collections of two domains, for the tests of protocols."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from planted import QUICK, Meddled, embed, planted_texts, poisoned_qrels

from era_cache.collection.records import TextCollection
from era_cache.store.store import Store

DOMAINS = {"alpha": "web", "beta": "law", "gamma": "web"}
SIZES = {"alpha": 20, "beta": 30, "gamma": 24}
RECIPE = dataclasses.replace(
    QUICK, iterations=2, align_documents=40, reference_steps=((0.0, 1), (0.25, 1))
)


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
    qrels = poisoned_qrels(labels, 50)
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
        embed(
            store,
            texts,
            large=Meddled(24, f"large{seed}", vectors),
            small=Meddled(16, f"small{seed}", vectors),
            large_corpus=texts.name in large_corpus,
            align_documents=40,
        )
    return store
