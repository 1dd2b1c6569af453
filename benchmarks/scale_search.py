"""Searching many vectors in half precision, beside faiss: a process of its own for each size."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from era_cache.rank.corpus import HalfRows
from era_cache.rank.search import search

_DIM, _QUERIES, _DEPTH, _BLOCK = 256, 1000, 100, 1 << 16


def search_in_process(count: int) -> dict[str, float]:
    """How much faster than faiss (``ratio``), and the peak of memory in bytes (``peak``)."""
    words = [sys.executable, "-m", "benchmarks.scale_search", str(count)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _measured(count: int) -> dict[str, float]:
    import faiss

    torch.manual_seed(0)
    values = torch.empty(count, _DIM, dtype=torch.float16)
    for start in range(0, count, _BLOCK):
        values[start : start + _BLOCK] = torch.randn(min(_BLOCK, count - start), _DIM).half()
    rows = HalfRows(values)
    queries = torch.nn.functional.normalize(torch.randn(_QUERIES, _DIM), dim=1)
    begun = time.perf_counter()
    ours = search(queries, rows, _DEPTH)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    heap = faiss.ResultHeap(_QUERIES, _DEPTH, keep_max=True)
    for start in range(0, count, _BLOCK):
        index = faiss.IndexFlatIP(_DIM)
        index.add(rows[start : start + _BLOCK].numpy())
        scores, found = index.search(queries.numpy(), _DEPTH)
        heap.add_result(scores, found + start)
    heap.finalize()
    theirs = time.perf_counter() - begun
    # Of equal documents either may come first; sums differ in their last bit.
    assert np.allclose(heap.D, ours.scores, atol=1e-5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"ratio": theirs / seconds, "peak": peak}


if __name__ == "__main__":
    print(json.dumps(_measured(int(sys.argv[1]))))
