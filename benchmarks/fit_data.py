"""Ready vectors of the development collections, as fitting and evaluation see them.

In: the demo's store where there is one (``demo/store``, or what ``ERA_DEMO`` names), a folder of
collections (BEIR layout) and one of vectors (``<collection>/<encoder>.npz`` with
``Q``, ``qid``, ``D``, ``di``). Out: ``FitData`` and ``HeldOut`` of the tool's own splits.
"""

from __future__ import annotations

import csv
import functools
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from demo_models import demo_models_dir

from era_cache.collection.config import SplitConfig
from era_cache.collection.keys import row_keys
from era_cache.collection.records import Collection
from era_cache.collection.splits import Split, make_split
from era_cache.fitting.adapter import unit
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.fitting.tensors import (
    FitData,
    HeldOut,
    QuerySet,
    load_fit_data,
    load_held_out,
    query_set,
)
from era_cache.rank.ties import tie_order
from era_cache.store.store import Store
from era_cache.types import IntArray, Qrels, Role

__all__ = [
    "COLLECTIONS",
    "DEMO",
    "PAIRS",
    "Pair",
    "available",
    "demo_name",
    "problem",
    "vector_file",
    "vector_folders",
]

SHARED = Path(__file__).resolve().parents[2] / "shared"
COLLECTIONS = Path(os.environ.get("ERA_COLLECTIONS", SHARED / "collections"))
DEMO, DEMO_COLLECTION = Path(os.environ.get("ERA_DEMO", "demo/store")), "bfcl"
_ALIGN_SEED = 42


class Pair(NamedTuple):
    """Names of the encoders: large on queries, small on documents."""

    large: str
    small: str


PAIRS = {
    "demo": Pair("all-MiniLM-L6-v2", "wordllama-256"),
    "mpnet": Pair("all-mpnet-base-v2", "all-MiniLM-L6-v2"),
    "mpnet-static": Pair("all-mpnet-base-v2", "wordllama-256"),
}


class _Vectors(NamedTuple):
    """What is read once for a collection and pair."""

    collection: Collection
    views: dict[str, torch.Tensor]
    corpus: torch.Tensor
    align_rows: IntArray
    align_large: torch.Tensor
    large_corpus: torch.Tensor | None


def vector_folders() -> tuple[Path, ...]:
    """Ready vectors, and those that ``fit_encode`` made."""
    return COLLECTIONS.parent / "vectors", demo_models_dir().parent / "vectors"


def vector_file(name: str, encoder: str) -> Path | None:
    """Vectors of a collection by an encoder, where there are any; made ones hold more documents."""
    paths = (folder / name / f"{encoder}.npz" for folder in reversed(vector_folders()))
    return next((path for path in paths if path.is_file()), None)


def demo_name() -> str | None:
    """The demo's collection with its version, which kept figures go by; None without a demo."""
    if not DEMO.is_dir():
        return None
    return f"{DEMO_COLLECTION}-{Store.open(DEMO).collection(DEMO_COLLECTION).version}"


def available(pair: Pair) -> list[str]:
    """Collections that both encoders of a pair have vectors of."""
    made = demo_name() if pair == PAIRS["demo"] else None
    demo = [made] if made else []
    if not COLLECTIONS.is_dir():
        return demo
    names = sorted(path.name for path in COLLECTIONS.iterdir() if path.is_dir())
    return demo + [n for n in names if vector_file(n, pair.large) and vector_file(n, pair.small)]


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@functools.lru_cache(maxsize=2)
def _vectors(name: str, pair: Pair) -> _Vectors:
    paths = [vector_file(name, encoder) for encoder in pair]
    if paths[0] is None or paths[1] is None:
        raise FileNotFoundError(f"no vectors of {name} by {pair}")
    large, small = (np.load(path, allow_pickle=False) for path in paths if path)
    folder = COLLECTIONS / name
    texts = {line["_id"]: line["text"] for line in _lines(folder / "queries.jsonl")}
    doc_ids = [line["_id"] for line in _lines(folder / "corpus.jsonl")]
    rows = [{str(q): i for i, q in enumerate(z["qid"].tolist())} for z in (large, small)]
    query_ids = [str(q) for q in large["qid"].tolist() if str(q) in rows[1]]
    qrels, columns = _qrels(folder / "qrels", query_ids, doc_ids)
    keys = row_keys(Role.QUERY, [texts[q] for q in query_ids])
    collection = Collection(
        name=name,
        domain="",
        ignore_identical_ids=False,
        doc_keys=row_keys(Role.DOCUMENT, doc_ids),
        doc_ids=doc_ids,
        query_keys=keys,
        query_text_keys=keys,
        query_ids=query_ids,
        qrels=qrels,
        qrels_split=np.zeros(columns, dtype=np.uint8),
        splits=["test"],
        digest=name,
        created="",
    )

    def tensor(values: np.ndarray) -> torch.Tensor:
        return unit(torch.from_numpy(values.astype(np.float32)))

    views = {
        "large": tensor(large["Q"][[rows[0][q] for q in query_ids]]),
        "small": tensor(small["Q"][[rows[1][q] for q in query_ids]]),
    }
    encoded = np.asarray(large["di"], dtype=np.int64)
    sample = np.random.default_rng(_ALIGN_SEED).permutation(len(encoded))
    whole = len(encoded) == len(doc_ids)
    everything = tensor(large["D"])
    return _Vectors(
        collection,
        views,
        tensor(small["D"]),
        encoded[sample],
        everything[sample],
        everything[np.argsort(encoded)] if whole else None,
    )


def _qrels(folder: Path, query_ids: list[str], doc_ids: list[str]) -> tuple[Qrels, int]:
    """Judgements of all the splits together; of a pair that is judged twice the last one counts."""
    queries, docs = ({name: row for row, name in enumerate(ids)} for ids in (query_ids, doc_ids))
    grades: dict[tuple[int, int], int] = {}
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter="\t"):
                if row[0] in queries and row[1] in docs:
                    grades[queries[row[0]], docs[row[1]]] = int(row[2])
    pairs = np.array(sorted(grades), dtype=np.int64)
    relevance = np.array([grades[q, d] for q, d in pairs.tolist()], dtype=np.int64)
    return Qrels(pairs[:, 0], pairs[:, 1], relevance), len(pairs)


def problem(
    name: str, pair: Pair, labels: float, seed: int, align_documents: int = 1000
) -> tuple[FitData, HeldOut, Split]:
    """The paper's split of a collection at a share of the labels.

    Args:
        name: of the collection.
        pair: of encoders.
        labels: share for training.
        seed: of the shuffle.
        align_documents: documents that both encoders have, at most; a seeded sample.
    """
    if name == demo_name():
        return _demo(labels, seed, align_documents)
    found = _vectors(name, pair)
    collection = found.collection
    split = make_split(collection, SplitConfig(labels=labels, seed=seed))
    ties = torch.from_numpy(tie_order(collection.doc_ids))

    def part(rows: IntArray) -> QuerySet:
        views = {view: vectors[rows] for view, vectors in found.views.items()}
        return query_set(collection, rows, views, "cpu")

    data = FitData(
        train=part(split.train),
        validation=part(split.validation),
        corpus=found.corpus,
        tie_ranks=ties,
        align_large=found.align_large[:align_documents],
        align_small=found.corpus[found.align_rows[:align_documents]],
    )
    return data, HeldOut(part(split.test), found.corpus, ties, found.large_corpus), split


def _demo(labels: float, seed: int, align_documents: int) -> tuple[FitData, HeldOut, Split]:
    """The demo's collection, from the store that `make demo` made."""
    store = Store.open(DEMO)
    collection = store.collection(DEMO_COLLECTION)
    split = make_split(collection, SplitConfig(labels=labels, seed=seed))
    encoders = resolve_encoders(store, collection)
    data = load_fit_data(collection, split, encoders, align_documents=align_documents)
    return data, load_held_out(collection, split, encoders), split
