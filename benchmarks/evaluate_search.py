"""Search: exact search against faiss's flat index, and what approximate indexes find.

In: sizes. Out: bars. Exact search and IndexFlatIP run in turns in this process with the same
threads on the same vectors; the ratio is of their fastest rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import faiss
import numpy as np
import torch

from benchmarks.common import Bar, seconds_of
from era_cache.evaluate.approximate_recall import recall_against_exact
from era_cache.fitting.adapter import unit
from era_cache.rank.approximate import KINDS, ApproximateIndex
from era_cache.rank.dots import dots
from era_cache.rank.search import search

__all__ = ["approximate_bars", "exact_bars", "product_bars"]

_DIM = 384


def _random(n: int, seed: int) -> torch.Tensor:
    return unit(torch.randn(n, _DIM, generator=torch.Generator().manual_seed(seed)))


def _clustered(n: int, seed: int, centres: int = 1000) -> torch.Tensor:
    """A mixture of clusters: random directions have no neighbours that an index could use."""
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(centres, _DIM, generator=generator)
    generator.manual_seed(seed)
    owner = torch.randint(centres, (n,), generator=generator)
    return unit(middle[owner] + torch.randn(n, _DIM, generator=generator))


def exact_bars(
    tell: Callable[[str], None], *, documents: int, queries: int, rounds: int
) -> list[Bar]:
    """Exact search is as fast as IndexFlatIP, and finds the same.

    Args:
        tell: told in words how it goes.
        documents: of the corpus.
        queries: searched at once.
        rounds: of each; the fastest counts.
    """
    corpus, wanted = _random(documents, 0), _random(queries, 1)
    index = faiss.IndexFlatIP(_DIM)
    index.add(corpus.numpy())
    faiss.omp_set_num_threads(torch.get_num_threads())
    bars = []
    for k in (10, 100, 1000):
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            tell(f"search: k = {k}, round {number + 1} of {rounds}")
            times[0].append(seconds_of(lambda k=k: search(wanted, corpus, k)))  # type: ignore[misc]
            times[1].append(seconds_of(lambda k=k: index.search(wanted.numpy(), k)))  # type: ignore[misc]
        ours, theirs = min(times[0]), min(times[1])
        bars.append(
            Bar(
                f"{queries:,} queries over {documents:,} x {_DIM}, top {k}",
                "IndexFlatIP's time, 5 % for noise",
                f"{ours / theirs:.2f} of it ({ours:.2f} s, {theirs:.2f} s)",
                ours <= 1.05 * theirs,
            )
        )
    ranking = search(wanted, corpus, 100)
    scores, rows = index.search(wanted.numpy(), 100)
    same = float(np.mean(ranking.doc_rows == rows))
    apart = float(np.abs(ranking.scores - scores).max())
    bars.append(
        Bar(
            "the same documents as IndexFlatIP, top 100",
            "scores within 1e-6",
            f"{apart:.1e}; {100 * same:.3f} % at the same rank",
            apart <= 1e-6,
        )
    )
    return bars


def product_bars() -> list[Bar]:
    """Products of matrices are no slower than torch.mm: many queries, few, and the loss's two."""
    bars = []
    for m, n, d in ((1000, 2000, 384), (16, 50_000, 384), (300, 1800, 768), (1140, 256, 2000)):
        left, right = torch.randn(m, d), torch.randn(n, d)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(30):
            times[0].append(seconds_of(lambda: dots(left, right)))  # noqa: B023
            times[1].append(seconds_of(lambda: torch.mm(left, right.T)))  # noqa: B023
        ours, theirs = min(times[0]), min(times[1])
        bars.append(
            Bar(
                f"({m:,} x {d}) times ({d} x {n:,})",
                "torch.mm's time, 10 % for noise",
                f"{ours / theirs:.2f} of it ({2e-9 * m * n * d / ours:.0f} GFLOP/s)",
                ours <= 1.1 * theirs,
            )
        )
    return bars


def approximate_bars(tell: Callable[[str], None], *, documents: int, queries: int) -> list[Bar]:
    """What approximate indexes find of the exact results, and how much faster they are."""
    corpus, wanted = _clustered(documents, 1), _clustered(queries, 2)
    exact = min(seconds_of(lambda: search(wanted, corpus, 100)) for _ in range(2))
    bars = []
    for kind in KINDS:
        tell(f"search: building {kind}")
        begun = time.perf_counter()
        index = ApproximateIndex(corpus, kind)
        built = time.perf_counter() - begun
        spent = min(seconds_of(lambda index=index: index.search(wanted, 100)) for _ in range(2))  # type: ignore[misc]
        found = recall_against_exact(index, wanted, corpus, depths=(10, 100), sample=queries)
        bars.append(
            Bar(
                f"{kind} over {documents:,} x {_DIM} in {1000:,} clusters ({index.about})",
                "stated",
                f"recall {found[10].mean:.3f} at 10, {found[100].mean:.3f} at 100; "
                f"{exact / spent:.1f}x exact search, built in {built:.0f} s",
                True,
            )
        )
    return bars
