"""Write the golden files of the current format version, once: ``python tests/golden/make.py``.

The result is a small store of made-up rows, whose values ``tests/test_golden.py`` knows. Never
write a version's files again: they stand for what users have on their disks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from era_cache.collection.records import Dropped, TextCollection
from era_cache.store.encoder_record import EncoderSpec
from era_cache.store.store import SIDES, SegmentWriter, Store
from era_cache.types import Qrels, Role

IDENTITY = {
    "kind": "sentence-transformers",
    "files": {"modules.json": "0" * 64, "model.safetensors": "f" * 64},
    "backend": "torch",
    "precision": "float32",
    "max_seq_length": None,
    "truncate_dim": 3,
}


def write_golden(folder: Path) -> None:
    """Make the store in ``folder``, which must not exist."""
    if folder.exists():
        raise SystemExit(f"{folder} exists; golden files are written once.")
    store = Store.create(folder)
    collection = store.add_collection(
        TextCollection(
            name="golden",
            domain="tests",
            ignore_identical_ids=True,
            doc_ids=["d1", "dü2", "d3"],
            doc_texts=["one", "zwei ü", "three"],
            query_ids=["q1", "q2"],
            query_texts=["first?", "second?"],
            instructions=["", "Find it"],
            splits={
                "dev": Qrels(np.array([1]), np.array([2]), np.array([1])),
                "test": Qrels(np.array([0, 0]), np.array([0, 1]), np.array([2, -1])),
            },
            dropped=Dropped(unjudged_queries=4),
        )
    )
    templates = {Role.QUERY: "Task: {instruction}\nQuery: {text}", Role.DOCUMENT: "{text}"}
    spec = EncoderSpec("golden-model", IDENTITY, templates, {"model": "golden-model"})
    documents = store.add_encoder(spec, Role.DOCUMENT, 3)
    vectors = np.array([[1, 2, 3], [-0.5, 0.25, 1024], [0, 0, -2]], dtype=np.float16)
    SegmentWriter(documents, {"device": "cpu"}).commit(collection.doc_keys, vectors)
    queries = store.add_encoder(spec, Role.QUERY, 3)
    vectors = np.array([[0.5, 1, 1e-10], [3e38, 0, -1]], dtype=np.float32)
    SegmentWriter(queries, {"device": "cpu"}).commit(collection.query_keys, vectors)
    fingerprints = {side: spec.fingerprint(Role.QUERY) for side in SIDES}
    fingerprints["document"] = fingerprints["align"] = spec.fingerprint(Role.DOCUMENT)
    store.add_pair(collection, fingerprints)


if __name__ == "__main__":
    write_golden(Path(__file__).parent / "v1")
