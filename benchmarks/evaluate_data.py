"""Results as a large study would leave them, made up, query by query.

In: how many collections, shares of the labels and shuffles. Out: a folder of results.

Ranks of relevant documents are drawn first, and all measures follow from them: a query is easy or
hard, a collection too, and candidates share both, so that their gains correlate as real ones do.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from era_cache.evaluate.results import EDGES, CollectionEntry, Fit, Head, Histogram, Measured
from era_cache.evaluate.results_folder import ResultsFolder
from era_cache.fitting.adapter_config import NamedEncoder
from era_cache.report.records import Fact
from era_cache.types import FloatArray, IntArray

__all__ = ["CANDIDATES", "DOMAINS", "make_results"]

CANDIDATES = ("small", "aligned", "era-zero", "era", "era-dual", "small+", "large")
DOMAINS = ("web", "code/API", "academic", "finance", "legal", "medical")
MEASURES = ("nDCG@10", "R@100", "RR", "AP")
_TRAINED = {"era": 0.8, "era-dual": 1.0, "small+": 0.5}
_UNTRAINED = {"small": 0.0, "aligned": -0.3, "era-zero": 0.4, "large": 1.4}


def make_results(
    folder: Path, *, collections: int, shares: Sequence[float], seeds: int
) -> ResultsFolder:
    """Make the results of protocol ``each``: 400 to 600 test queries in each collection.

    Args:
        folder: where to.
        collections: how many, over the domains in turn.
        shares: of the labels.
        seeds: shuffles of the split.
    """
    rng = np.random.default_rng(0)
    names = [f"collection-{number:02d}" for number in range(collections)]
    sizes = {name: 2 * int(rng.integers(400, 601)) for name in names}
    head = _head(names, sizes, shares, seeds)
    ids = {name: [f"{name}-q{row:04d}" for row in range(sizes[name])] for name in names}
    kept = ResultsFolder(folder, head, ids)
    for name in names:
        study = _Study(name, sizes[name], rng)
        for share, seed in itertools.product(shares, range(42, 42 + seeds)):
            kept.add(study.fit(share, seed))
    return kept


def _head(names: Sequence[str], sizes: Mapping[str, int], shares: Sequence[float], n: int) -> Head:
    def digest(of: str) -> str:
        return hashlib.sha256(of.encode()).hexdigest()

    return Head(
        protocol="each",
        title=f"Each: {len(names)} collections",
        measures=MEASURES,
        primary=MEASURES[0],
        collections={
            name: CollectionEntry(
                digest(name), DOMAINS[number % len(DOMAINS)], 1000 * (number + 1), sizes[name]
            )
            for number, name in enumerate(names)
        },
        encoders={
            side: NamedEncoder(name=f"{model} encoder", fingerprint=digest(side), dim=dim)
            for side, model, dim in (
                ("query", "large", 384),
                ("small_query", "small", 256),
                ("document", "small", 256),
                ("align", "large", 384),
            )
        },
        configuration={
            "command": "era-eval each",
            "collections": list(names),
            "labels": list(shares),
            "split": "paper",
            "split_seeds": n,
            "test_seed": 0,
        },
        costs=(Fact("documents encoded by the large model", "1,000 a collection"),),
        commands=("era-eval each made/up --labels 5,10,20,40 --split-seeds 5 --out results",),
        notes=("These figures are made up.",),
        environment={"python": "3", "torch": "2"},
    )


class _Study:
    """The fits of one collection: how hard it and its queries are, and what training is worth."""

    def __init__(self, name: str, queries: int, rng: np.random.Generator) -> None:
        self._name, self._rng, self._queries = name, rng, queries
        self._ease = 0.2 + 1.2 * rng.normal(size=(queries, 1)) + rng.normal(scale=0.8)
        self._relevant = int(rng.choice([1, 1, 3]))
        self._worth = float(rng.normal(1.0, 0.4))
        noise = rng.normal(scale=0.4, size=(len(CANDIDATES), queries, self._relevant))
        self._noise = noise + rng.normal(scale=0.6, size=(queries, self._relevant))

    def fit(self, share: float, seed: int) -> Fit:
        """The candidates at one share of the labels and one shuffle."""
        # As in real splits, the test queries of a shuffle do not depend on the share.
        shuffled = np.random.default_rng(seed).permutation(self._queries)
        rows = np.sort(shuffled[: self._queries // 2])
        strength = self._worth * share**0.25
        gains = _UNTRAINED | {name: most * strength for name, most in _TRAINED.items()}
        jitter = self._rng.normal(scale=0.05, size=len(CANDIDATES))
        values = np.stack(
            [
                _measures_of(
                    self._ease[rows] + gains[name] + jitter[i] + self._noise[i, rows],
                )
                for i, name in enumerate(CANDIDATES)
            ]
        )
        held_out = {
            name: float(values[i, 0].mean()) + float(self._rng.normal(scale=0.01))
            for i, name in enumerate(CANDIDATES)
            if name != "large"
        }
        chosen = max(held_out, key=lambda name: held_out[name])
        scores = {name: _histogram(self._rng, len(rows), gains[name]) for name in {"small", chosen}}
        one = Measured(self._name, CANDIDATES, rows, values.astype(np.float32), scores)
        train, validation = round(share * self._queries), self._queries // 10
        return Fit(
            job={"train": [self._name], "split": {"labels": share, "seed": seed}},
            trained_on=self._name,
            labels=share,
            split_seed=seed,
            queries={"train": train, "validation": validation, "judging": train + validation},
            held_out=held_out,
            chosen=chosen,
            reason="best on held-out labels",
            seconds={"align": 0.05, "era": 0.4, "era-dual": 0.5, "small+": 0.3, "evaluate": 0.2},
            measured=(one,),
        )


def _measures_of(ease: FloatArray) -> FloatArray:
    """Values (measures, q) of queries whose (q, relevant) documents are more or less easy to find.

    nDCG@10, R@100, RR and AP of the ranks that follow.
    """
    drawn = np.sort(np.ceil(np.exp(2.0 - 1.5 * ease)).astype(np.int64), axis=1)
    count = np.arange(drawn.shape[1])
    # Two documents cannot have one rank: later ones move down.
    ranks: IntArray = np.maximum.accumulate(drawn - count, axis=1) + count
    ideal = np.sum(1 / np.log2(count + 2.0))
    return np.stack(
        [
            np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0.0).sum(axis=1) / ideal,
            (ranks <= 100).mean(axis=1),
            1.0 / ranks[:, 0],
            ((count + 1) / ranks).mean(axis=1),
        ]
    )


def _histogram(rng: np.random.Generator, queries: int, gain: float) -> Histogram:
    """Scores of relevant documents, of the hardest others and of a thousand others a query."""

    def counts(mean: float, spread: float, number: int) -> IntArray:
        drawn = np.clip(rng.normal(mean, spread, size=min(number, 20_000)), -1, 1)
        found = np.histogram(drawn, EDGES)[0].astype(np.int64)
        return found * max(1, number // 20_000)

    return Histogram(
        counts(0.45 + 0.05 * gain, 0.12, queries),
        counts(0.5, 0.08, queries),
        counts(0.1, 0.1, 1000 * queries),
    )
