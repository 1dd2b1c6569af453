"""Evaluation against pytrec_eval, through the run and qrels files that a user gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
import torch
from hash_encoder import HashEncoder
from planted import embedded, first_stage, planted_texts

from era_cache.collection.config import SplitConfig
from era_cache.collection.splits import make_split
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.evaluate.results import EDGES
from era_cache.evaluate.score import (
    DEFAULT_MEASURES,
    DEPTH,
    Scored,
    as_int8,
    depth_of,
    int8_loss,
    score_adapters,
    score_histogram,
    score_large,
)
from era_cache.evaluate.trec import write_qrels, write_run
from era_cache.fitting.adapter import Adapter, Fusion, unit
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.fitting.tensors import HeldOut, QuerySet, load_held_out
from era_cache.rank.measures import Measure, parse_measure
from era_cache.store.store import Store
from era_cache.types import Qrels

THEIR_NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "R@100": "recall_100",
    "RR": "recip_rank",
    "AP": "map",
}


def _adapters() -> dict[str, Adapter]:
    generator = torch.Generator().manual_seed(3)
    return {
        "small": Adapter(("small",), torch.eye(16)),
        "mapped": Adapter(("large",), torch.randn(16, 24, generator=generator), torch.ones(16)),
        "both": Adapter(("small", "large"), torch.randn(16, 40, generator=generator)),
    }


def _held_out(
    path: Path, *, queries_are_documents: bool = False, large_corpus: bool = False
) -> tuple[HeldOut, list[str]]:
    texts = planted_texts(queries_are_documents=queries_are_documents)
    store, collection = embedded(path, texts, large_corpus=large_corpus)
    split = make_split(collection, SplitConfig())
    data = load_held_out(collection, split, resolve_encoders(store, collection))
    return data, collection.doc_ids


def _columns(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def _their_values(
    folder: Path, data: HeldOut, doc_ids: list[str], scored: Scored
) -> dict[str, dict[str, float]]:
    """Write run and qrels, read them as any other program would, and ask pytrec_eval."""
    write_run(folder / "run", data.queries.ids, doc_ids, scored.ranking, "tag")
    write_qrels(folder / "qrels", data.queries.ids, doc_ids, data.queries.qrels)
    run: dict[str, dict[str, float]] = {}
    for query, _, doc, _, score, _ in _columns(folder / "run"):
        run.setdefault(query, {})[doc] = float(score)
    qrels: dict[str, dict[str, int]] = {}
    for query, _, doc, grade in _columns(folder / "qrels"):
        qrels.setdefault(query, {})[doc] = int(grade)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(THEIR_NAMES.values()))
    return evaluator.evaluate(run)


@pytest.mark.parametrize("queries_are_documents", [False, True])
def test_values_equal_those_of_pytrec_eval_on_the_written_files(
    tmp_path, queries_are_documents
) -> None:
    data, doc_ids = _held_out(tmp_path / "store", queries_are_documents=queries_are_documents)
    assert [str(m) for m in DEFAULT_MEASURES] == list(THEIR_NAMES)
    scored = score_adapters(data, _adapters(), DEFAULT_MEASURES)
    seen = set()
    for one in scored.values():
        theirs = _their_values(tmp_path, data, doc_ids, one)
        assert len(theirs) == len(data.queries.ids) == 30
        for measure in DEFAULT_MEASURES:
            expected = [theirs[query][THEIR_NAMES[str(measure)]] for query in data.queries.ids]
            np.testing.assert_allclose(one.values[measure], expected, atol=1e-6, rtol=0)
            seen |= set(expected)
    assert len(seen) > 50  # not all zeros and ones


def test_ties_count_as_pytrec_eval_counts_them_on_the_written_files(tmp_path) -> None:
    # Documents 118 and 119 have one text, so that they tie; each query wants one of them.
    texts = planted_texts(qrels=lambda query: [(118 + query % 2, 1)])
    store, collection = embedded(tmp_path / "store", texts)
    split = make_split(collection, SplitConfig())
    data = load_held_out(collection, split, resolve_encoders(store, collection))
    for one in score_adapters(data, _adapters(), DEFAULT_MEASURES).values():
        theirs = _their_values(tmp_path, data, collection.doc_ids, one)
        expected = [theirs[query]["recip_rank"] for query in data.queries.ids]
        np.testing.assert_allclose(one.values[Measure("RR")], expected, atol=1e-6, rtol=0)


def test_a_query_that_is_a_document_does_not_find_itself(tmp_path) -> None:
    data, doc_ids = _held_out(tmp_path / "store", queries_are_documents=True)
    ranking = score_adapters(data, _adapters(), DEFAULT_MEASURES)["small"].ranking
    found = [{doc_ids[row] for row in rows if row >= 0} for rows in ranking.doc_rows]
    for query, docs in zip(data.queries.ids, found, strict=True):
        assert query in doc_ids
        assert docs == set(doc_ids) - {query}


def test_where_ids_may_coincide_a_query_finds_the_document_of_its_id(tmp_path) -> None:
    texts = planted_texts(queries_are_documents=True)._replace(ignore_identical_ids=False)
    store, collection = embedded(tmp_path / "store", texts)
    split = make_split(collection, SplitConfig())
    data = load_held_out(collection, split, resolve_encoders(store, collection))
    assert data.queries.exclude is None
    ranking = score_adapters(data, _adapters(), DEFAULT_MEASURES)["small"].ranking
    first = [collection.doc_ids[row] for row in ranking.doc_rows[:, 0]]
    # As queries and as documents the texts have the same vectors here.
    assert first == data.queries.ids


def test_large_is_scored_only_where_all_documents_are_stored(tmp_path) -> None:
    some, _ = _held_out(tmp_path / "some")
    assert some.large_corpus is None
    assert score_large(some, DEFAULT_MEASURES) is None
    everything, _ = _held_out(tmp_path / "all", large_corpus=True)
    scored = score_large(everything, DEFAULT_MEASURES)
    assert scored is not None
    # The best document by plain numpy; few ties at the top.
    queries = everything.queries.views["large"].numpy()
    corpus = everything.large_corpus.numpy()
    assert corpus.shape == (120, 24)
    best = (queries @ corpus.T).max(axis=1)
    np.testing.assert_allclose(scored.ranking.scores[:, 0], best, atol=1e-6)


def test_rankings_are_cut_at_the_usual_depth() -> None:
    generator = torch.Generator().manual_seed(0)
    corpus = unit(torch.randn(1100, 4, generator=generator))
    qrels = Qrels(np.zeros(1, np.int64), np.array([1], np.int64), np.ones(1, np.int64))
    queries = QuerySet(["q"], {"small": -corpus[1:2]}, qrels, None)
    data = HeldOut(queries, corpus, torch.arange(1100), None)
    adapter = Adapter(("small",), torch.eye(4))
    recall = parse_measure("R@1100")
    scored = score_adapters(data, {"small": adapter}, [recall])["small"]
    # The only relevant document is the last of 1,100, so that the ranking does not reach it.
    assert scored.ranking.doc_rows.shape == (1, DEPTH) == (1, 1000)
    assert scored.values[recall].tolist() == [0.0]


def test_scores_are_counted_as_a_loop_counts_them(tmp_path) -> None:
    data, _ = _held_out(tmp_path / "store", queries_are_documents=True)
    adapter = _adapters()["both"]
    found = score_histogram(data, adapter)
    mapped = adapter.apply(data.queries.views).numpy()
    scores = mapped @ data.corpus.numpy().T
    relevant = {(q, d) for q, d, r in zip(*data.queries.qrels, strict=True) if r >= 1}
    own = data.queries.exclude.tolist()
    parts: dict[str, list[float]] = {"positives": [], "hardest": [], "others": []}
    for q, row in enumerate(scores):
        others = [s for d, s in enumerate(row) if (q, d) not in relevant and d != own[q]]
        parts["others"] += others
        parts["hardest"].append(max(others))
        parts["positives"] += [s for d, s in enumerate(row) if (q, d) in relevant and d != own[q]]
    for part, values in parts.items():
        counts = getattr(found, part)
        assert counts.sum() == len(values)
        # A score on a bound may be counted on either side of it.
        expected = np.histogram(np.clip(values, -1, 1), EDGES)[0]
        assert np.abs(counts - expected).sum() <= 2
    assert found.hardest.sum() == 30


def test_as_many_documents_are_ranked_as_measures_look_at() -> None:
    def depth(*names: str) -> int:
        return depth_of([parse_measure(name) for name in names])

    assert depth("nDCG@10", "R@100") == 100
    assert depth("nDCG@10", "RR") == depth() == depth("R@5000") == DEPTH


def test_int8_rows_lose_what_a_store_of_int8_rows_would(tmp_path):
    """Evaluating rounded tensors equals embedding into a store that keeps int8."""
    config = replace(EmbedConfig(), align_documents=40)
    stores = {}
    for dtype in ("float32", "int8"):
        store = Store.create(tmp_path / dtype)
        embed_collection(
            store,
            planted_texts(),
            large=HashEncoder(24, "large"),
            small=HashEncoder(16, "small"),
            config=replace(config, dtype=dtype),
        )
        stores[dtype] = store
    held = {}
    for dtype, store in stores.items():
        collection = store.collection(planted_texts().name)
        split = make_split(collection, SplitConfig())
        held[dtype] = load_held_out(collection, split, resolve_encoders(store, collection))
    rounded = as_int8(held["float32"])
    torch.testing.assert_close(rounded.corpus, held["int8"].corpus, rtol=0, atol=2e-6)
    for view, rows in rounded.queries.views.items():
        torch.testing.assert_close(rows, held["int8"].queries.views[view], rtol=0, atol=2e-6)
    assert not torch.equal(rounded.corpus, held["float32"].corpus)


def test_the_loss_of_int8_is_the_difference_of_two_evaluations(tmp_path):
    store, collection = embedded(tmp_path / "store", planted_texts())
    split = make_split(collection, SplitConfig())
    data = load_held_out(collection, split, resolve_encoders(store, collection))
    measures = [parse_measure("nDCG@10")]
    dim = data.corpus.shape[1]
    adapters = {"small": Adapter(("small",), torch.eye(dim), None)}
    scored = score_adapters(data, adapters, measures)
    row = int8_loss(data, adapters, scored, measures, seed=0)["small"]["nDCG@10"]
    lossy = score_adapters(as_int8(data), adapters, measures)
    before = scored["small"].values[measures[0]].mean()
    after = lossy["small"].values[measures[0]].mean()
    assert row.mean == pytest.approx(after, abs=1e-12)
    assert row.difference == pytest.approx(after - before, abs=1e-12)
    assert row.difference_low <= row.difference <= row.difference_high


def test_joined_candidates_are_mapped_once_and_scored_as_each_alone(tmp_path, monkeypatch) -> None:
    data, _ = _held_out(tmp_path)
    queries = data.queries
    first = first_stage(queries, len(data.corpus), 0.5)
    data = data._replace(queries=queries._replace(first=first))
    plain = _adapters()["both"]
    other = plain._replace(weight=plain.weight + 0.1)
    joined = {
        "both": plain,
        "bm25+both": plain._replace(fusion=Fusion("bm25", 0.05)),
        "bm25+other": other._replace(fusion=Fusion("bm25", 0.05)),
    }
    applied = []
    apply = Adapter.apply
    monkeypatch.setattr(Adapter, "apply", lambda *a: applied.append(1) or apply(*a))
    together = score_adapters(data, joined, DEFAULT_MEASURES)
    assert len(applied) == 2
    for name, adapter in joined.items():
        (alone,) = score_adapters(data, {name: adapter}, DEFAULT_MEASURES).values()
        assert np.array_equal(together[name].ranking.doc_rows, alone.ranking.doc_rows)
    assert not np.array_equal(
        together["bm25+both"].ranking.doc_rows, together["bm25+other"].ranking.doc_rows
    )
