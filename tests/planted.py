"""Small made-up collections, stores and tensors for the tests of fitting and evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hash_encoder import HashEncoder

from era_cache.collection.records import Collection as StoredCollection
from era_cache.collection.records import Dropped, TextCollection
from era_cache.config import EmbedConfig, FitConfig, PaperConfig
from era_cache.encode.embed import embed_collection
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.methods import align_rows
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.fitting.who_judges import Labelled, Labels, labels_together, merged
from era_cache.rank.ties import tie_order
from era_cache.store.store import Store
from era_cache.types import FloatArray, Qrels, Role

# Tensors here are tiny: more threads only wait for each other where the tests share the cores.
torch.set_num_threads(1)

QUICK = FitConfig(
    align_documents=60,
    strengths=(8.0,),
    iterations=3,
    folds=2,
    scales=(1.0,),
    reference_documents=40,
    memory_steps=(0.2,),
)
QUICK_PAPER = PaperConfig(
    align_documents=60, align_epochs=2, epochs=3, mine_top=40, negatives=3, batch=16
)


class Meddled(HashEncoder):
    """Claims to be ``HashEncoder(dim, seed)`` but gives other vectors for some texts of a role."""

    def __init__(self, dim: int, seed: str, role: Role, texts: Collection[str]) -> None:
        super().__init__(dim, seed)
        self._role, self._texts = role, frozenset(texts)

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        changed = [
            f"{text} poison" if role is self._role and text in self._texts else text
            for text in texts
        ]
        yield from super().encode(changed, role)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers that depend on shape and seed only."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels_of(train: QuerySet, validation: QuerySet, config: FitConfig) -> Labels:
    """Who judges whom in one collection."""
    labelled = Labelled(merged(train, validation), len(train.ids))
    return labels_together([labelled], config)[0]


def aligned(large: torch.Tensor, small: torch.Tensor) -> Adapter:
    """The default alignment of rows."""
    return align_rows(large, small, "procrustes", 0)


def planted_texts(
    n_docs: int = 120,
    n_queries: int = 60,
    *,
    repeats: int = 0,
    queries_are_documents: bool = False,
    qrels: Callable[[int], list[tuple[int, int]]] | None = None,
) -> TextCollection:
    """Documents of random words; query i shares words with document i.

    The last ``repeats`` queries repeat the texts of the first. ``qrels(i)`` gives the judgements
    (document, grade) of query i.
    """
    rng = np.random.default_rng(7)
    docs = [" ".join(f"w{word}" for word in rng.integers(0, 400, 8)) for _ in range(n_docs)]
    docs[n_docs - 1] = docs[n_docs - 2]  # two equal documents: ties
    queries = []
    for row in range(n_queries):
        own = docs[row % n_docs].split()[:4]
        queries.append(" ".join([*own, f"w{rng.integers(0, 400)}", f"q{row}"]))
    if queries_are_documents:
        queries = docs[:n_queries]
    for row in range(repeats):
        queries[n_queries - 1 - row] = queries[row]
    of = qrels or default_qrels(n_docs, itself=not queries_are_documents)
    rows = [(query, doc, grade) for query in range(n_queries) for doc, grade in of(query)]
    prefix = "d" if queries_are_documents else "q"
    return TextCollection(
        name="planted",
        domain="words",
        ignore_identical_ids=queries_are_documents,
        doc_ids=[f"d{row:03d}" for row in range(n_docs)],
        doc_texts=docs,
        query_ids=[f"{prefix}{row:03d}" for row in range(n_queries)],
        query_texts=queries,
        instructions=[""] * n_queries,
        splits={"test": Qrels(*(np.array(c, dtype=np.int64) for c in zip(*rows, strict=True)))},
        dropped=Dropped(),
    )


def default_qrels(n_docs: int, *, itself: bool) -> Callable[[int], list[tuple[int, int]]]:
    """Grade 2 for the query's own document (or the next), 1 for another, 0 for a third."""

    def of(query: int) -> list[tuple[int, int]]:
        first = query if itself else query + 1
        return [(first % n_docs, 2), ((query + 5) % n_docs, 1), ((query + 9) % n_docs, 0)]

    return of


def embedded(
    path: Path,
    texts: TextCollection,
    *,
    large: HashEncoder | None = None,
    small: HashEncoder | None = None,
    large_corpus: bool = False,
) -> tuple[Store, StoredCollection]:
    """Make a store and embed ``texts`` by two encoders without a model."""
    store = Store.create(path)
    collection, _ = embed_collection(
        store,
        texts,
        large=large or HashEncoder(24, "large"),
        small=small or HashEncoder(16, "small"),
        config=EmbedConfig(align_documents=60),
        large_corpus=large_corpus,
    )
    return store, collection


def fit_data(
    *,
    n_docs: int = 150,
    n_train: int = 40,
    n_validation: int = 40,
    noise: float = 0.2,
    exclude: bool = False,
    seed: int = 0,
) -> FitData:
    """A problem that training can solve: queries know their document through a warped map.

    The large view is a linear, far from orthogonal image of the document; alignment is given on
    documents under another map, so that only labels tell the right one.
    """
    corpus = unit(normal(n_docs, 12, seed=seed))
    warp = normal(12, 16, seed=seed + 1)
    documents = unit(corpus @ normal(12, 16, seed=seed + 2))

    def queries(first: int, count: int) -> QuerySet:
        rows = torch.arange(first, first + count) % n_docs
        views = {
            "large": unit(corpus[rows] @ warp + noise * normal(count, 16, seed=seed + 3 + first)),
            "small": unit(corpus[rows] + 0.6 * normal(count, 12, seed=seed + 4 + first)),
        }
        numbers = np.arange(count, dtype=np.int64)
        qrels = Qrels(numbers, rows.numpy(), np.ones(count, dtype=np.int64))
        own = (rows + 3) % n_docs if exclude else None
        return QuerySet([f"q{first + i}" for i in range(count)], views, qrels, own)

    return FitData(
        train=queries(0, n_train),
        validation=queries(n_train, n_validation),
        corpus=corpus,
        tie_ranks=torch.from_numpy(tie_order([f"d{i:03d}" for i in range(n_docs)])),
        align_large=documents,
        align_small=corpus,
    )


def config_of(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of an adapter folder says, as it is written."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return found
