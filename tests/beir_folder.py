"""Collections in BEIR layout, as people have them: one to spoil, and any texts written out."""

from __future__ import annotations

import json
from pathlib import Path

from era_cache.collection.records import TextCollection

CORPUS = [
    {"_id": "d1", "title": "One", "text": "first text"},
    {"_id": "d2", "title": "", "text": "second text"},
    {"_id": "d3", "text": "third text"},
]
QUERIES = [
    {"_id": "q1", "text": "find first"},
    {"_id": "q2", "text": "find second", "instruction": "Look"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\nq2\td3\t0\n"


def _lines(rows):
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def beir(folder: Path, corpus=CORPUS, queries=QUERIES, qrels=QRELS, **splits) -> Path:
    """Write a collection to ``folder/beir``; ``splits`` are further files of judgements."""
    folder = folder / "beir"
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = rows if isinstance(rows, bytes) else _lines(rows).encode()
        (folder / f"{name}.jsonl").write_bytes(text)
    for name, text in {"test": qrels, **splits}.items():
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            (folder / "qrels" / f"{name}.tsv").write_bytes(data)
    return folder


def beir_of(folder: Path, texts: TextCollection) -> Path:
    """Write the texts of a collection with one split."""
    ((split, qrels),) = texts.splits.items()
    asked = zip(texts.query_ids, texts.query_texts, texts.instructions, strict=True)
    return beir(
        folder,
        [{"_id": i, "text": text} for i, text in zip(texts.doc_ids, texts.doc_texts, strict=True)],
        [{"_id": i, "text": text, "instruction": said} for i, text, said in asked],
        None,
        **{
            split: "".join(
                f"{texts.query_ids[q]} {texts.doc_ids[d]} {grade}\n"
                for q, d, grade in zip(*qrels, strict=True)
            )
        },
    )
