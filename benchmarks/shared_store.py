"""A store of the development collections, made from ready vectors.

In: a folder of collections (BEIR layout) and one of vectors (``<collection>/<encoder>.npz`` with
``Q``, ``qid``, ``D``, ``di``). Out: a store such as era-embed would have made, with the queries
that both encoders have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.fit_data import COLLECTIONS, PAIRS, Pair, available, vector_file
from era_cache.collection.beir import read_beir
from era_cache.collection.records import TextCollection
from era_cache.store.encoder_record import stated_spec
from era_cache.store.store import Store
from era_cache.types import IntArray, Role

__all__ = ["make_store"]


def make_store(path: Path, pair: Pair = PAIRS["demo"], names: Sequence[str] = ()) -> Store:
    """Make the store, or open it where it is complete.

    Args:
        path: of the store.
        pair: of encoders.
        names: of collections; none named are all that have vectors of both.

    Raises:
        FileNotFoundError: there are no collections or no vectors.
    """
    wanted = list(names) or [name for name in available(pair) if (COLLECTIONS / name).is_dir()]
    if not wanted:
        raise FileNotFoundError(f"no collections with vectors of {pair} in {COLLECTIONS}")
    store = Store.open(path) if path.is_dir() else Store.create(path)
    for name in wanted:
        if name not in store.collection_names():
            _add(store, name, pair)
    return store


def _add(store: Store, name: str, pair: Pair) -> None:
    files = [vector_file(name, encoder) for encoder in pair]
    if files[0] is None or files[1] is None:
        raise FileNotFoundError(f"no vectors of {name} by {pair}")
    texts = read_beir(COLLECTIONS / name)
    archives = [np.load(path, allow_pickle=False) for path in files if path]
    both = set(archives[0]["qid"].astype(str)) & set(archives[1]["qid"].astype(str))
    rows = np.array([i for i, one in enumerate(texts.query_ids) if one in both], dtype=np.int64)
    texts = _only(texts, rows)
    prints = {}
    for side, encoder, archive in zip(("large", "small"), pair, archives, strict=True):
        spec = stated_spec(encoder, {"model": encoder})
        place = {str(one): i for i, one in enumerate(archive["qid"].tolist())}
        queries = archive["Q"][[place[one] for one in texts.query_ids]].astype(np.float32)
        documents = archive["D"].astype(np.float32)
        mine = [texts.doc_texts[row] for row in archive["di"].tolist()]
        store.put(spec, Role.QUERY, texts.query_texts, queries, instructions=texts.instructions)
        store.put(spec, Role.DOCUMENT, mine, documents)
        prints[side] = {role: spec.fingerprint(role) for role in Role}
    collection = store.add_collection(texts)
    store.add_pair(
        collection,
        {
            "query": prints["large"][Role.QUERY],
            "small_query": prints["small"][Role.QUERY],
            "document": prints["small"][Role.DOCUMENT],
            "align": prints["large"][Role.DOCUMENT],
        },
    )


def _only(texts: TextCollection, rows: IntArray) -> TextCollection:
    """Keep some queries."""
    kept = rows.tolist()
    return texts._replace(
        query_ids=[texts.query_ids[row] for row in kept],
        query_texts=[texts.query_texts[row] for row in kept],
        instructions=[texts.instructions[row] for row in kept],
        splits={name: qrels.select_queries(rows) for name, qrels in texts.splits.items()},
    )
