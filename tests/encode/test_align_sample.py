"""Which documents the large model encodes: nested, repeatable, and never by a test query."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hash_encoder import HashEncoder
from planted import planted_texts, qrels_of

from era_cache.collection.keys import alignment_order, row_keys
from era_cache.collection.records import TextCollection
from era_cache.encode.align_sample import (
    free_queries,
    judged_since,
    retrieval_weights,
    weighted_order,
)
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import EncodedRows, embed_collection
from era_cache.errors import InputError
from era_cache.store.store import Store
from era_cache.types import Role

LARGE, SMALL = HashEncoder(24, "large"), HashEncoder(16, "small")


def _keys(count: int) -> np.ndarray:
    return row_keys(Role.DOCUMENT, [f"text {row}" for row in range(count)])


def test_equal_weights_give_the_random_order() -> None:
    keys = np.concatenate([_keys(500), _keys(3)])  # copies count once
    order = weighted_order(keys, 42, np.full(503, 7.0))
    np.testing.assert_array_equal(order, alignment_order(keys, 42))


def test_documents_are_drawn_by_their_weights() -> None:
    # A document of weight 3 comes before one of weight 1 in three of four draws.
    keys, before = _keys(2), 0
    for seed in range(2000):
        before += int(weighted_order(keys, seed, np.array([3.0, 1.0]))[0] == 0)
    assert before / 2000 == pytest.approx(0.75, abs=0.03)


def test_weights_follow_the_formula() -> None:
    # Two groups of a hundred documents; four queries retrieve their fifty nearest of the first.
    generator = np.random.default_rng(1)
    documents = generator.normal(0, 0.1, (200, 8)).astype(np.float32)
    documents[:100, 0] += 1
    documents[100:, 1] += 1
    queries = documents[:4] + generator.normal(0, 0.02, (4, 8)).astype(np.float32)
    rows = torch.nn.functional.normalize(torch.from_numpy(documents), dim=1)
    weights = retrieval_weights(queries, rows, seed=0)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    order = np.random.default_rng(0).permutation(4)
    ranked = np.argsort(-(unit(queries[order]) @ unit(documents).T), axis=1)[:, :50]
    popularity = np.zeros(200)
    for row in ranked:
        popularity[row] += 1 / np.arange(1, 51)
    known = set(ranked[:2].reshape(-1).tolist())
    seen = np.mean([row in known for row in ranked[2:].reshape(-1).tolist()])
    power = popularity ** (1 - np.mean(popularity > 0)) * (popularity > 0)
    np.testing.assert_allclose(weights, seen * power / power.mean() + 1 - seen, rtol=1e-9)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:100].mean() > 1.5 > 0.5 > weights[100:].mean()


def test_a_single_query_chooses_nothing() -> None:
    documents = np.eye(4, dtype=np.float32)
    rows = torch.from_numpy(documents)
    np.testing.assert_array_equal(retrieval_weights(documents[:1], rows, seed=0), 1)


# In a store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def _unjudged(texts: TextCollection, rows: range) -> TextCollection:
    """The judgements of these queries are not known."""
    kept = [triple for triple in zip(*texts.splits["test"], strict=True) if triple[0] not in rows]
    return texts._replace(splits={"test": qrels_of(*kept)} if kept else {})


def _about_ten(n_docs: int = 2000) -> TextCollection:
    """Sixty queries, none of them judged, that ask for the first ten documents."""
    texts = _unjudged(planted_texts(n_docs=n_docs), range(60))
    words = [texts.doc_texts[row % 10].split() for row in range(60)]
    asked = [" ".join([*own[:6], f"q{row}"]) for row, own in enumerate(words)]
    return texts._replace(query_texts=asked)


def _embed(
    store: Store, texts: TextCollection, count: int = 30, sample: str = "", **options: object
) -> list[EncodedRows]:
    config = EmbedConfig(align_documents=count, align_sample=sample)
    return embed_collection(store, texts, large=LARGE, small=SMALL, config=config, **options)[1]


def _sample(store: Store, texts: TextCollection) -> set[int]:
    """Rows of the documents that the large model encoded."""
    encoder = store.find_encoder(LARGE.spec.fingerprint(Role.DOCUMENT))
    assert encoder is not None
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    return set(np.flatnonzero(encoder.index().positions(keys) >= 0).tolist())


def test_a_larger_sample_contains_the_smaller_and_encodes_what_is_missing(store, tmp_path) -> None:
    texts = _unjudged(planted_texts(), range(60))
    _embed(store, texts, 30)
    first = _sample(store, texts)
    reports = _embed(store, texts, 50)
    assert sum(report.encoded for report in reports) == 20
    assert first < _sample(store, texts)
    again = Store.create(tmp_path / "again")
    _embed(again, texts, 50)
    assert _sample(again, texts) == _sample(store, texts)


def test_what_queries_retrieve_is_drawn_more_often(store, tmp_path) -> None:
    texts = _about_ten()
    _embed(store, texts, 300)
    random = Store.create(tmp_path / "random")
    _embed(random, texts, 300, sample="random")
    # Weights of about 10 among 2,000 documents: drawn with 1 - exp(-300 * 10 / 2000) = 0.78.
    mine, theirs = (len(_sample(s, texts) & set(range(10))) for s in (store, random))
    assert mine >= 6 > 4 >= theirs


def test_judged_queries_choose_nothing_whatever_their_place(store, tmp_path) -> None:
    # Half of the queries are judged. What these ask must not change the sample.
    texts = _unjudged(planted_texts(n_docs=500), range(30))
    _embed(store, texts)
    changed = [f"{text} entirely other words" for text in texts.query_texts[30:]]
    other = texts._replace(query_texts=[*texts.query_texts[:30], *changed])
    second = Store.create(tmp_path / "second")
    _embed(second, other)
    assert _sample(second, other) == _sample(store, texts)
    # Nor an unjudged query that asks what a judged one asks.
    twin = texts._replace(query_texts=[*texts.query_texts[:29], *texts.query_texts[29:30] * 31])
    own, _ = free_queries(store.add_collection(twin), None)
    assert own.tolist() == list(range(29))


def test_where_every_query_is_judged_the_sample_is_random(store) -> None:
    texts = planted_texts()
    _embed(store, texts)
    expected = alignment_order(row_keys(Role.DOCUMENT, texts.doc_texts), EmbedConfig.align_seed)
    assert _sample(store, texts) == set(expected[:30].tolist())
    with pytest.raises(InputError, match=r"--query-log FILE.*--all-queries.*--align-sample random"):
        _embed(store, texts, sample="retrieved")


def test_a_log_of_queries_chooses_less_its_test_queries(store, tmp_path) -> None:
    texts = planted_texts(n_docs=2000)
    log = texts._replace(
        name="log",
        doc_ids=[],
        doc_texts=[],
        query_texts=[
            " ".join([*texts.doc_texts[100 + row % 10].split()[:6], f"q{row}"]) for row in range(60)
        ],
        splits={},
    )
    reports = _embed(store, texts, 300, log=log)
    assert {r.what: r.encoded for r in reports if "log" in r.what} == {"log of queries": 60}
    assert len(_sample(store, texts) & set(range(100, 110))) >= 6
    # A log of the judged queries themselves has nothing to say.
    second = Store.create(tmp_path / "second")
    own = log._replace(query_texts=texts.query_texts)
    _embed(second, texts, 300, log=own)
    expected = alignment_order(row_keys(Role.DOCUMENT, texts.doc_texts), EmbedConfig.align_seed)
    # The last two documents are copies of each other, of which one is drawn.
    assert _sample(second, texts) - {1999} == set(expected[:300].tolist())


def test_judgements_that_come_later_change_no_sample(store) -> None:
    before = _about_ten()
    texts = before._replace(splits=planted_texts(n_docs=2000).splits)
    collection, _ = embed_collection(
        store, before, large=LARGE, small=SMALL, config=EmbedConfig(align_documents=30)
    )
    assert not judged_since(store, collection)
    sample = _sample(store, texts)
    assert sum(report.encoded for report in _embed(store, texts)) == 0
    assert _sample(store, texts) == sample
    assert judged_since(store, store.collection("planted"))
    assert sum(report.encoded for report in _embed(store, texts, sample="random")) > 0
