"""Measures beside trec_eval's, on every query of the development collections, and their speed.

In: the development collections and ready vectors. Runs and judgements go through files: ours are
read by ``evaluate.trec``, trec_eval gets what a few lines of plain Python read from the same
files. Three runs of each collection:

    real    the small encoder on both sides, the best 1,000 documents, in our order
    tied    the same with scores rounded to two digits
    random  over all judged queries: ties, lines in no order, short rankings, queries left out
"""

from __future__ import annotations

import heapq
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common import Bar, skipped
from benchmarks.fit_data import COLLECTIONS, DEMO, PAIRS, demo_name, problem, vector_file
from era_cache.collection.beir import read_beir
from era_cache.evaluate.trec import read_qrels, read_run, write_qrels, write_run
from era_cache.rank.measures import Measure, Ranking, evaluate, parse_measure
from era_cache.rank.search import search
from era_cache.rank.ties import tie_order
from era_cache.store.store import Store
from era_cache.types import Array, IntArray, Qrels

__all__ = ["MEASURES", "Judged", "agreement_bars", "compared", "measure_bars"]

_THEIRS = {
    "nDCG": ("ndcg_cut", (1, 3, 5, 10, 100, 1000)),
    "AP": ("map_cut", (10, 100)),
    "R": ("recall", (5, 10, 100, 1000)),
    "P": ("P", (1, 5, 10, 100)),
    "Success": ("success", (1, 5, 10)),
}
MEASURES = {"nDCG": "ndcg", "AP": "map", "RR": "recip_rank"} | {
    f"{ours}@{cutoff}": f"{theirs}_{cutoff}"
    for ours, (theirs, cutoffs) in _THEIRS.items()
    for cutoff in cutoffs
}
"""Our names and trec_eval's. RR@10, which it lacks, is its RR of a run that we cut for it."""

_CUT_RR = "RR@10"
_TOLERANCE = 1e-6
_TOGETHER = 500
_ENCODER = "wordllama-256"
_SPEED_MEASURES = "nDCG@10,nDCG@100,AP,RR,R@100,R@1000,P@10,Success@5"

Scores = dict[str, dict[str, float]]


class Judged(NamedTuple):
    """Queries and documents by row, and the judgements of all splits together."""

    query_ids: Sequence[str]
    doc_ids: Sequence[str]
    qrels: Qrels


class Agreement(NamedTuple):
    """How many values were compared, and the largest difference with where it was."""

    pairs: int
    largest: float
    where: str


def agreement_bars(names: Sequence[str], tell: Callable[[str], None]) -> list[Bar]:
    """Compare all measures with trec_eval's on some collections, none named for all.

    Args:
        names: of collections.
        tell: told the figures of each collection.
    """
    there = sorted(p.name for p in COLLECTIONS.glob("*") if p.is_dir())
    demo = demo_name()
    wanted = [name for name in names or there if name in there] or ([demo] if demo else [])
    if not wanted:
        why = f"no collections in {COLLECTIONS} and no demo store"
        return [skipped("agreement with trec_eval", why)]
    found: list[Agreement] = []
    unordered: list[str] = []
    for name in wanted:
        judged, runs = _demo_run(name) if name == demo else _with_runs(name)
        # What search ordered must stand in the order in which others read it.
        if "real" in runs and not _comes_back(*runs["real"]):
            unordered.append(name)
        runs["random"] = judged, _random_run(judged, len(found))
        here = {kind: compared(*run) for kind, run in runs.items()}
        found += [one._replace(where=f"{name} {kind}: {one.where}") for kind, one in here.items()]
        figures = ", ".join(f"{kind} {one.pairs:,}" for kind, one in here.items())
        largest = max(one.largest for one in here.values())
        tell(f"{name}: pairs of query and measure: {figures}; largest difference {largest:.1e}")
    worst = max(found, key=lambda one: one.largest)
    figure = (
        f"{worst.largest:.1e} over {sum(one.pairs for one in found):,} values of "
        f"{len(MEASURES) + 1} measures on {len(wanted)} collections"
    )
    ok = worst.largest <= _TOLERANCE
    order = f"{', '.join(unordered)} not" if unordered else f"{len(wanted)} of {len(wanted)}"
    return [
        Bar(
            "agreement with trec_eval", "<= 1e-6", figure if ok else f"{figure}: {worst.where}", ok
        ),
        Bar("rankings in trec_eval's order", "all", order, not unordered),
    ]


def compared(judged: Judged, ranking: Ranking) -> Agreement:
    """Write a run and its judgements, read and measure them twice, and compare every value."""
    with tempfile.TemporaryDirectory(prefix="era-trec-") as folder:
        run, qrels = Path(folder, "run.trec"), Path(folder, "qrels.trec")
        write_run(run, judged.query_ids, judged.doc_ids, ranking, "benchmark")
        write_qrels(qrels, judged.query_ids, judged.doc_ids, judged.qrels)
        theirs = _trec_eval(run, qrels)
        rows = [{name: row for row, name in enumerate(ids)} for ids in judged[:2]]
        read, grades = read_run(run, *rows), read_qrels(qrels, *rows)
    measures = [parse_measure(name) for name in [*MEASURES, _CUT_RR]]
    ours = evaluate(read.doc_rows, grades, measures, len(judged.doc_ids))
    # A query that the run misses counts 0, as in trec_eval -c.
    others = np.array(
        [[theirs.get(q, {}).get(str(m), 0.0) for m in measures] for q in judged.query_ids]
    )
    differences = np.abs(np.stack([ours[m] for m in measures], axis=1) - others)
    differences[np.isnan(differences)] = np.inf
    query, column = np.unravel_index(differences.argmax(), differences.shape)
    where = (
        f"query {judged.query_ids[query]}, {measures[column]}: {ours[measures[column]][query]!r}, "
        f"trec_eval {others[query, column]!r}"
    )
    return Agreement(differences.size, float(differences.max()), where)


def _trec_eval(run_path: Path, qrels_path: Path) -> Scores:
    """Values by query and measure, some queries at a time so that memory stays small."""
    import pytrec_eval

    judged: dict[str, dict[str, int]] = {}
    for query, _, doc, grade in _lines(qrels_path):
        judged.setdefault(query, {})[doc] = int(grade)
    asked = {f"{name}.{','.join(map(str, cutoffs))}" for name, cutoffs in _THEIRS.values()}
    asked |= {"ndcg", "map", "recip_rank"}
    values: Scores = {}
    for run in _runs(run_path):
        here = {query: judged[query] for query in run if query in judged}
        found = pytrec_eval.RelevanceEvaluator(here, asked).evaluate(run)
        cut = {
            query: dict(heapq.nlargest(10, docs.items(), key=lambda item: item[::-1]))
            for query, docs in run.items()
        }
        first = pytrec_eval.RelevanceEvaluator(here, {"recip_rank"}).evaluate(cut)
        for query, theirs in found.items():
            values[query] = {ours: theirs[name] for ours, name in MEASURES.items()}
            values[query][_CUT_RR] = first[query]["recip_rank"]
    return values


def _lines(path: Path) -> Iterator[list[str]]:
    """Columns between ASCII white space: an id may hold other spaces."""
    with path.open("rb") as file:
        for line in file:
            yield [column.decode() for column in line.split()]


def _runs(path: Path) -> Iterator[Scores]:
    """Parts of a run whose lines stand together by query."""
    by_query = itertools.groupby(_lines(path), key=lambda columns: columns[0])
    whole = ((query, {row[2]: float(row[4]) for row in rows}) for query, rows in by_query)
    while part := dict(itertools.islice(whole, _TOGETHER)):
        yield part


def _demo_run(name: str) -> tuple[Judged, dict[str, tuple[Judged, Ranking]]]:
    """The demo's test queries, and what the small encoder finds for them."""
    _, held_out, _ = problem(name, PAIRS["demo"], 0.2, 42)
    doc_ids = Store.open(DEMO).collection(name).doc_ids
    judged = Judged(held_out.queries.ids, doc_ids, held_out.queries.qrels)
    ties = held_out.tie_ranks
    found = search(held_out.queries.views["small"], held_out.corpus, 1000, tie_ranks=ties)
    return judged, {"real": (judged, found)}


def _with_runs(name: str) -> tuple[Judged, dict[str, tuple[Judged, Ranking]]]:
    judged = _read(name)
    return judged, dict(_vector_runs(name, judged))


def _read(name: str) -> Judged:
    texts = read_beir(COLLECTIONS / name)
    columns = zip(*texts.splits.values(), strict=True)
    return Judged(texts.query_ids, texts.doc_ids, Qrels(*map(np.concatenate, columns)))


def _comes_back(judged: Judged, ranking: Ranking) -> bool:
    """Whether a written ranking is read in the order that it was in."""
    rows = [{name: row for row, name in enumerate(ids)} for ids in judged[:2]]
    with tempfile.TemporaryDirectory(prefix="era-trec-") as folder:
        path = Path(folder, "run.trec")
        write_run(path, judged.query_ids, judged.doc_ids, ranking, "benchmark")
        return np.array_equal(read_run(path, *rows).doc_rows, ranking.doc_rows)


def _vector_runs(name: str, judged: Judged) -> Iterator[tuple[str, tuple[Judged, Ranking]]]:
    """The real run of the queries that have vectors, and the same with many ties."""
    import torch

    path = vector_file(name, _ENCODER)
    if path is None:
        return
    archive = np.load(path, allow_pickle=False)
    ids = [str(one) for one in archive["qid"].tolist()]
    row_of = {query_id: row for row, query_id in enumerate(judged.query_ids)}
    rows = np.array([row_of[one] for one in ids], dtype=np.int64)
    some = Judged(ids, judged.doc_ids, judged.qrels.select_queries(rows))
    corpus = np.empty((len(judged.doc_ids), archive["D"].shape[1]), dtype=np.float32)
    corpus[archive["di"]] = archive["D"]
    ranking = search(
        torch.from_numpy(archive["Q"].astype(np.float32)),
        torch.from_numpy(corpus),
        min(1000, len(corpus)),
        tie_ranks=torch.from_numpy(tie_order(judged.doc_ids)),
    )
    yield "real", (some, ranking)
    yield "tied", (some, ranking._replace(scores=np.round(ranking.scores, 2)))


def _random_run(judged: Judged, seed: int) -> Ranking:
    """Random documents, some of them judged, in no order, with few distinct scores."""
    rng = np.random.default_rng(seed)
    n_queries, n_docs = len(judged.query_ids), len(judged.doc_ids)
    order = np.argsort(judged.qrels.query_rows, kind="stable")
    bounds = np.searchsorted(judged.qrels.query_rows[order], np.arange(n_queries + 1))
    depth = min(n_docs, 200)
    ranking = Ranking(
        np.full((n_queries, depth), -1, dtype=np.int64),
        np.full((n_queries, depth), -np.inf, dtype=np.float32),
    )
    for query in range(n_queries):
        length = 0 if rng.random() < 0.1 else int(rng.integers(1, depth + 1))
        mine = judged.qrels.doc_rows[order[bounds[query] : bounds[query + 1]]]
        docs = np.union1d(mine, rng.choice(n_docs, depth, replace=False))
        length = min(length, len(docs))
        ranking.doc_rows[query, :length] = rng.permutation(docs)[:length]
        levels = int(rng.choice([1, 5, 50, 10_000]))
        ranking.scores[query, :length] = rng.integers(-levels, levels, length) / np.float32(7)
    return ranking


def measure_bars(queries: int, depth: int, rounds: int = 3) -> list[Bar]:
    """Time eight measures of synthetic rankings; 10,000 queries and 1,000 results have a second.

    Smaller sizes are allowed as much for each result.
    """
    judged, ranked = _synthetic(queries, depth, 100_000)
    measures = [parse_measure(name) for name in _SPEED_MEASURES.split(",")]
    seconds = statistics.median(_timed(ranked, judged, measures) for _ in range(rounds))
    allowed = queries * depth / 10_000_000
    what = f"{len(measures)} measures of {queries:,} queries x {depth:,} results"
    return [Bar(what, f"< {allowed:g} s", f"{seconds:.3f} s", seconds < allowed)]


def _timed(ranked: IntArray, judged: Qrels, measures: Sequence[Measure]) -> float:
    start = time.perf_counter()
    evaluate(ranked, judged, measures, 100_000)
    return time.perf_counter() - start


def _synthetic(queries: int, depth: int, n_docs: int) -> tuple[Qrels, IntArray]:
    """Twenty graded judgements of each query, half of them in its ranking."""
    rng = np.random.default_rng(0)
    # A stride prime to the number of documents: no document comes twice for a query.
    first = rng.integers(n_docs, size=(queries, 1))
    ranked: Array = (first + 7919 * np.arange(depth)) % n_docs
    places = rng.permuted(np.tile(np.arange(2 * depth), (min(queries, 500), 1)), axis=1)[:, :20]
    chosen = places[np.arange(queries) % len(places)]
    docs = (first + 7919 * chosen) % n_docs
    rows = np.repeat(np.arange(queries, dtype=np.int64), chosen.shape[1])
    return Qrels(rows, docs.ravel(), rng.integers(0, 4, size=docs.size)), ranked
