"""A snapshot in MAIR's layout, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["write_mair", "write_task"]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_task(
    folder: Path,
    task: str,
    queries: list[dict[str, Any]],
    docs: list[dict[str, Any]],
    split: str = "",
) -> None:
    """Write one task, or one split of it."""
    names = (f"{split}_queries", f"{split}_docs") if split else ("queries", "docs")
    _write(folder / "MAIR-Queries" / task / f"{names[0]}.jsonl", queries)
    _write(folder / "MAIR-Docs" / task / f"{names[1]}.jsonl", docs)


def write_mair(folder: Path, tasks: list[str], n_queries: int = 40, n_docs: int = 60) -> Path:
    """Write tasks whose queries share words with their documents.

    Every third has an instruction for each query, every fifth ids that are numbers.
    """
    for number, task in enumerate(tasks):
        random = np.random.default_rng(number)
        words = [f"w{number % 7}x{one}" for one in range(90)]
        of_doc = [random.choice(words, 8, replace=False).tolist() for _ in range(n_docs)]
        docs, queries = [], []
        for row, said in enumerate(of_doc):
            doc_id = row if number % 5 == 0 else f"d{row}"
            docs.append({"id": doc_id, "doc": " ".join(said)})
        for row in range(n_queries):
            answer = row % n_docs
            text = " ".join(random.permutation(of_doc[answer])[:4])
            kind = row % 3 if number % 3 == 0 else 0
            queries.append(
                {
                    "qid": row if number % 5 == 0 else f"q{row}",
                    "instruction": f"Task {number}, kind {kind}: find what answers.",
                    "query": f"{text} {row}",
                    "labels": [{"id": docs[answer]["id"], "score": 1}],
                }
            )
        write_task(folder, task, queries, docs)
    return folder
