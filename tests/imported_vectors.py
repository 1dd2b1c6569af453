"""Small vector files with their texts, brought into a store as ``era-store import`` does."""

from __future__ import annotations

import json

import numpy as np
from hash_encoder import HashEncoder

from era_cache.collection.records import Dropped, TextCollection
from era_cache.store.exchange.arrays import open_vectors
from era_cache.store.exchange.importing import Claim, import_vectors
from era_cache.store.exchange.matching import collection_keys, rows_by_id
from era_cache.types import Qrels, Role

DIM = 3
SPEC = HashEncoder(DIM).spec


def import_file(store, file, rows, role=Role.DOCUMENT, spec=SPEC, *, note="", **options):
    """Import the rows of an open file, as made by ``spec``."""
    return import_vectors(store, file, rows, Claim(spec, role, note), **options)


def texts_of(documents, queries=("find one", "find two"), instructions=None, dropped=None):
    one = np.zeros(1, dtype=np.int64)
    return TextCollection(
        name="c",
        domain="",
        ignore_identical_ids=False,
        doc_ids=[f"d{row}" for row in range(len(documents))],
        doc_texts=list(documents),
        query_ids=[f"q{row}" for row in range(len(queries))],
        query_texts=list(queries),
        instructions=list(instructions or [""] * len(queries)),
        splits={"test": Qrels(one, one, one + 1)},
        dropped=dropped or Dropped(),
    )


def numbered(count):
    """A collection of distinct documents, and a recognisable vector for each."""
    vectors = np.array([[n + 1, n + 0.5, -1] for n in range(count)], dtype="f4")
    return texts_of([f"text {n}" for n in range(count)]), vectors


def bring(store, folder, vectors, ids, texts, role=Role.DOCUMENT, spec=SPEC, **options):
    skip = {"skip_unknown": options.pop("skip_unknown", False)}
    path = folder / "v.npy"
    np.save(path, vectors)
    file = open_vectors(path)
    rows = rows_by_id(path, file.rows, ids, texts, role, **skip)
    return import_file(store, file, rows, role, spec, texts=texts, **options)


def stored(store, texts, role=Role.DOCUMENT, spec=SPEC):
    keys = collection_keys(texts, role)[1]
    return store.encoder(spec.fingerprint(role)).vectors(keys, check=True)


def nothing_stored(store):
    return not list(store.path.rglob("*.h5"))


def write_spec(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
