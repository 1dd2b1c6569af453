"""Small made-up collections, stores and tensors for the tests of fitting and evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hash_encoder import HashEncoder

from era_cache.collection.config import SplitConfig
from era_cache.collection.records import Collection as StoredCollection
from era_cache.collection.records import Dropped, TextCollection
from era_cache.collection.splits import Split
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment.methods import align_rows
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.fitting.fit_from_store import FitPlan, FitReport, fit_to_folder
from era_cache.fitting.held_out import values_of
from era_cache.fitting.sources import Reading
from era_cache.fitting.tensors import FitData, QuerySet, load_fit_data
from era_cache.fitting.who_judges import Labelled, Labels, labels_together, merged
from era_cache.rank.lists import FirstStage
from era_cache.rank.ties import tie_order
from era_cache.store.store import Store
from era_cache.types import FloatArray, IntArray, Qrels, Role

# Tensors here are tiny: more threads only wait for each other where the tests share the cores.
torch.set_num_threads(1)

SPLIT = SplitConfig(labels=0.3)
CPU = Reading(device="cpu")
QUICK = FitConfig(
    align_documents=60,
    strengths=(8.0,),
    iterations=3,
    folds=2,
    scales=(1.0,),
    reference_documents=40,
    memory_steps=(0.2,),
)
LIST_DEPTH = 30
"""Documents of a made-up first stage's lists."""
QUICK_PAPER = PaperConfig(
    align_documents=60, align_epochs=2, epochs=3, mine_top=40, negatives=3, batch=16
)


class Meddled(HashEncoder):
    """Claims to be ``HashEncoder(dim, seed)`` but gives other vectors for some texts.

    Only for texts of ``role`` where one is given.
    """

    def __init__(self, dim: int, seed: str, texts: Collection[str], role: Role | None = None):
        super().__init__(dim, seed)
        self._role, self._texts = role, frozenset(texts)

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        poisoned = self._texts if self._role in (None, role) else ()
        yield from super().encode([f"{t} poison" if t in poisoned else t for t in texts], role)


def qrels_of(*rows: tuple[int, int, int]) -> Qrels:
    """Judgements from rows of query, document and grade."""
    return Qrels(*np.array(rows, dtype=np.int64).reshape(-1, 3).T)


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
        splits={"test": qrels_of(*rows)},
        dropped=Dropped(),
    )


def default_qrels(n_docs: int, *, itself: bool) -> Callable[[int], list[tuple[int, int]]]:
    """Grade 2 for the query's own document (or the next), 1 for another, 0 for a third."""

    def of(query: int) -> list[tuple[int, int]]:
        first = query if itself else query + 1
        return [(first % n_docs, 2), ((query + 5) % n_docs, 1), ((query + 9) % n_docs, 0)]

    return of


def poisoned_qrels(
    rows: Collection[int], n_docs: int, *, itself: bool = True
) -> Callable[[int], list[tuple[int, int]]]:
    """The usual judgements, but others for the queries ``rows``."""
    usual = default_qrels(n_docs, itself=itself)
    return lambda query: (
        [((query + 20 + i) % n_docs, 3) for i in range(3)] if query in rows else usual(query)
    )


def texts_elsewhere(name: str, ending: str = "elsewhere", n_queries: int = 60) -> TextCollection:
    """The documents of ``planted_texts`` under another name, with other queries."""
    texts = planted_texts(n_queries=n_queries)
    return texts._replace(name=name, query_texts=[f"{text} {ending}" for text in texts.query_texts])


def embedded(path: Path, texts: TextCollection, **options: Any) -> tuple[Store, StoredCollection]:
    """Make a store and embed ``texts``."""
    store = Store.create(path)
    return store, embed(store, texts, **options)


def embed(
    store: Store,
    texts: TextCollection,
    *,
    large: HashEncoder | None = None,
    small: HashEncoder | None = None,
    large_corpus: bool = False,
    align_documents: int = 60,
) -> StoredCollection:
    """Embed ``texts`` by two encoders without a model."""
    collection, _ = embed_collection(
        store,
        texts,
        large=large or HashEncoder(24, "large"),
        small=small or HashEncoder(16, "small"),
        config=EmbedConfig(align_documents=align_documents),
        large_corpus=large_corpus,
    )
    return collection


def poisoned_store(
    path: Path, texts: TextCollection, rows: Collection[int], large_role: Role = Role.QUERY
) -> Store:
    """The store of planted ``texts`` with other vectors and labels for the queries ``rows``.

    The large encoder gives their texts other vectors in the role ``large_role``.
    """
    poisoned, n_docs = {texts.query_texts[row] for row in rows}, len(texts.doc_ids)
    changed = planted_texts(
        n_docs,
        len(texts.query_ids),
        queries_are_documents=texts.ignore_identical_ids,
        qrels=poisoned_qrels(rows, n_docs, itself=not texts.ignore_identical_ids),
    )
    large = Meddled(24, "large", poisoned, large_role)
    return embedded(path, changed, large=large, small=Meddled(16, "small", poisoned, Role.QUERY))[0]


def read_fit_data(
    store: Store, collection: StoredCollection, split: Split, align_documents: int = 1000
) -> FitData:
    """What fitting may see of a collection."""
    encoders = resolve_encoders(store, collection)
    return load_fit_data(collection, split, encoders, align_documents=align_documents)


def fit_folder(
    store: Store,
    folder: Path,
    names: str | list[str] = "planted",
    *,
    recipe: FitConfig | PaperConfig = QUICK,
    split: SplitConfig = SPLIT,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> FitReport:
    """Fit on collections of a store at 30 % of the labels; ``options`` are more of the plan."""
    plan = FitPlan(split, recipe, **options)
    return fit_to_folder(store, names, folder, plan, CPU, resume=resume, overwrite=overwrite)


def fit_data(
    *,
    n_docs: int = 150,
    n_train: int = 40,
    n_validation: int = 40,
    noise: float = 0.2,
    exclude: bool = False,
    seed: int = 0,
    agreeing: float = 0.0,
) -> FitData:
    """A problem that training can solve: queries know their document through a warped map.

    The large view is a linear, far from orthogonal image of the document; alignment is given on
    documents under another map, so that only labels tell the right one. ``agreeing`` is how much of
    the queries' map is in that of the documents: at 2 what needs no label works, too.
    """
    corpus = unit(normal(n_docs, 12, seed=seed))
    warp = normal(12, 16, seed=seed + 1)
    documents = unit(corpus @ (agreeing * warp + normal(12, 16, seed=seed + 2)))

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


def first_stage(queries: QuerySet, n_docs: int, good: float, seed: int = 0) -> FirstStage:
    """Lists that put a query's positive first with the probability ``good``, else anything."""
    rng = np.random.default_rng(seed)
    docs = np.stack([rng.permutation(n_docs)[:LIST_DEPTH] for _ in queries.ids])
    for row, doc in zip(queries.qrels.query_rows, queries.qrels.doc_rows, strict=True):
        if rng.random() < good:
            docs[row] = [doc, *[d for d in docs[row] if d != doc][: LIST_DEPTH - 1]]
    scores = np.tile(np.linspace(20, 5, LIST_DEPTH, dtype=np.float32), (len(docs), 1))
    floor = torch.zeros(len(docs))
    return FirstStage("bm25", torch.from_numpy(docs), torch.from_numpy(scores), floor)


def with_lists(data: FitData, good: float) -> FitData:
    n_docs = len(data.corpus)
    return data._replace(
        train=data.train._replace(first=first_stage(data.train, n_docs, good)),
        validation=data.validation._replace(first=first_stage(data.validation, n_docs, good, 1)),
    )


def silenced(queries: QuerySet, rows: slice | list[int] = slice(None)) -> QuerySet:
    """The queries ``rows`` lose their positives; all of them unless told."""
    grades = queries.qrels.relevance.copy()
    grades[rows] = 0
    return queries._replace(qrels=queries.qrels._replace(relevance=grades))


def measured(
    adapter: Adapter, queries: QuerySet, data: FitData, rows: IntArray | None = None
) -> FloatArray:
    """Values of an adapter for queries of a set; for all of them unless told."""
    rows = np.arange(len(queries.ids)) if rows is None else rows
    views = {name: vectors[rows] for name, vectors in queries.views.items()}
    return values_of(adapter.apply(views), queries, rows, data)


def config_of(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of an adapter folder says, as it is written."""
    return read_json(folder / "config.json")


def tensors_of(folder: Path) -> dict[str, bytes]:
    """The tensor files of an adapter folder by their relative names."""
    paths = sorted(folder.rglob("*.safetensors"))
    assert paths
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def read_json(path: Path) -> dict[str, Any]:
    """What a file says."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
