"""Real collections and ready vectors, where the developer has them; skipped, visibly, elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from era_cache.collection.beir import read_beir
from era_cache.rank.measures import evaluate, parse_measure
from era_cache.rank.search import search
from era_cache.rank.ties import tie_order
from era_cache.types import Qrels

ROOT = Path(__file__).parents[2]
COLLECTIONS = Path(os.environ.get("ERA_COLLECTIONS", ROOT.parent / "shared" / "collections"))
NAMES = ["gorilla-torch", "theoremqa", "toollens", "msmarco-plain"]

pytestmark = [
    pytest.mark.collections,
    pytest.mark.skipif(not COLLECTIONS.is_dir(), reason=f"no collections in {COLLECTIONS.name}"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_real_collection_is_read_whole(name: str) -> None:
    texts = read_beir(COLLECTIONS / name)
    lines = (COLLECTIONS / name / "corpus.jsonl").read_text("utf-8").splitlines()
    assert len(texts.doc_ids) == len(lines)
    assert texts.dropped.bad_rows == 0
    assert all(len(part.doc_rows) for part in texts.splits.values())


@pytest.mark.parametrize("name", NAMES)
def test_measures_of_real_rankings_equal_trec_eval(name: str) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    torch = pytest.importorskip("torch")
    path = COLLECTIONS.parent / "vectors" / name / "wordllama-256.npz"
    if not path.is_file():
        pytest.skip(f"no ready vectors of {name}")
    texts = read_beir(COLLECTIONS / name)
    archive = np.load(path, allow_pickle=False)
    row_of = {query_id: row for row, query_id in enumerate(texts.query_ids)}
    kept = [i for i, query_id in enumerate(archive["qid"]) if str(query_id) in row_of]
    rows = np.array([row_of[str(archive["qid"][i])] for i in kept], dtype=np.int64)
    parts = [part.select_queries(rows) for part in texts.splits.values()]
    qrels = Qrels(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    queries = torch.from_numpy(archive["Q"][kept].astype(np.float32))
    corpus = torch.from_numpy(archive["D"].astype(np.float32))
    ties = torch.from_numpy(tie_order(texts.doc_ids))
    ranking = search(queries, corpus, min(1000, len(corpus)), tie_ranks=ties)

    names = {"nDCG@10": "ndcg_cut_10", "R@100": "recall_100", "RR": "recip_rank", "AP": "map"}
    ours = evaluate(
        ranking.doc_rows, qrels, [parse_measure(measure) for measure in names], len(corpus)
    )
    judged: dict[str, dict[str, int]] = {}
    for query, doc, grade in zip(*qrels, strict=True):
        judged.setdefault(str(query), {})[texts.doc_ids[doc]] = int(grade)
    run = {
        str(query): {texts.doc_ids[d]: float(s) for d, s in zip(docs, scores, strict=True)}
        for query, (docs, scores) in enumerate(zip(*ranking, strict=True))
    }
    theirs = pytrec_eval.RelevanceEvaluator(judged, set(names.values())).evaluate(run)
    for measure, values in ours.items():
        expected = [theirs[str(query)][names[str(measure)]] for query in range(len(rows))]
        np.testing.assert_allclose(values, expected, atol=1e-6)
