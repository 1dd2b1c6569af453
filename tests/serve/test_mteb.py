"""MTEB's own evaluation of a local task: the exported model and the stored vectors agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_case import done, run

from era_cache.cli import export
from era_cache.errors import StoreError
from era_cache.serve.mteb_search import StoredSearch

pytestmark = pytest.mark.filterwarnings("ignore")
mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'era-cache[mteb]'")
CANDIDATE = "era-dual"


@pytest.fixture
def task(toy):
    """The toy collection as a retrieval task that nobody downloads."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.mocks.mock_tasks.retrieval import MockRetrievalTask

    def lines(name: str) -> list[dict]:
        return [json.loads(one) for one in (toy / name).read_text("utf-8").splitlines()]

    qrels: dict[str, dict[str, int]] = {}
    for line in (toy / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split()
        qrels.setdefault(query, {})[document] = int(grade)
    corpus = [
        {"id": d["_id"], "title": d["title"], "text": d["text"]} for d in lines("corpus.jsonl")
    ]
    queries = [{"id": q["_id"], "text": q["text"]} for q in lines("queries.jsonl")]
    split = {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list([q for q in queries if q["id"] in qrels]),
        "relevant_docs": qrels,
        "top_ranked": None,
    }
    about = MockRetrievalTask.metadata.model_dump() | {"name": "Toy", "eval_splits": ["test"]}

    class Toy(AbsTaskRetrieval):
        metadata = TaskMetadata(**about)

        def load_data(self, *_args, **_kwargs) -> None:
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Toy()


def _score(model, task, tmp_path: Path) -> dict[str, float]:
    cache = mteb.ResultCache(tmp_path / "cache")
    result = mteb.evaluate(model, task, cache=cache, overwrite_strategy="always")
    (scores,) = result.task_results[0].scores["test"]
    return {name: scores[name] for name in ("ndcg_at_10", "recall_at_100", "mrr_at_10")}


@pytest.mark.encoders
def test_an_exported_folder_and_stored_vectors_score_the_same(built_real, task, tmp_path) -> None:
    from sentence_transformers import SentenceTransformer

    adapter, out = built_real / "adapters" / "toy", tmp_path / "model"
    words = ["--to", "sentence-transformers", "--candidate", CANDIDATE, "--out", out]
    done(run(export.main, adapter, *words))
    model = SentenceTransformer(str(out), trust_remote_code=True, device="cpu")
    exported = _score(model, task, tmp_path)
    stored = StoredSearch(adapter, built_real / "stores" / "toy", candidate=CANDIDATE, device="cpu")
    assert _score(stored, task, tmp_path) == pytest.approx(exported, abs=1e-4)
    assert exported["recall_at_100"] == 1


def test_documents_that_are_not_stored_are_said(built_real) -> None:
    stored = StoredSearch(built_real / "adapters" / "toy", built_real / "stores" / "toy")
    with pytest.raises(StoreError, match="lacks 1 of the task's 1 documents"):
        stored.index([{"id": "d", "title": "", "text": "never seen"}])
