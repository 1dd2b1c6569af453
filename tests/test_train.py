"""Training with few labels, on a problem whose answer is planted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from planted import fit_data

from era_cache.adapters import Adapter
from era_cache.align import align_procrustes
from era_cache.config import FitConfig
from era_cache.errors import FitError
from era_cache.losses import positives_of
from era_cache.pairs import FitData
from era_cache.train import (
    Fitted,
    Pool,
    identity,
    joined_start,
    make_pool,
    train_adapters,
    validation_values,
)
from era_cache.types import Qrels

CONFIG = FitConfig(max_rounds=15, learning_rate=1e-2, batch_queries=16)


def _train(data: FitData, start: Adapter, pool: Pool, config: FitConfig, anchor: float) -> Fitted:
    (fitted,) = train_adapters(data, start, pool, config, [anchor])
    return fitted


def _aligned(data: FitData) -> Adapter:
    return align_procrustes(data.align_large, data.align_small)


def _with_train(data: FitData, **changes: object) -> FitData:
    return data._replace(train=data.train._replace(**changes))


def test_identity_leaves_the_small_view_as_it_is() -> None:
    data = fit_data()
    views = data.validation.views
    torch.testing.assert_close(identity(data).apply(views), views["small"])


def test_joined_start_adds_the_scaled_aligned_view() -> None:
    data = fit_data()
    aligned, views = _aligned(data), data.validation.views
    expected = views["small"] + 0.5 * (views["large"] @ aligned.weight.T)
    mapped = joined_start(aligned, 0.5).apply(views)
    torch.testing.assert_close(mapped, torch.nn.functional.normalize(expected, dim=1))


def test_validation_values_by_hand() -> None:
    data = fit_data()
    values = validation_values(identity(data), data)
    scores = (data.validation.views["small"] @ data.corpus.T).numpy()
    for query, value in enumerate(values):
        (doc,) = data.validation.qrels.doc_rows[data.validation.qrels.query_rows == query]
        rank = int((scores[query] > scores[query, doc]).sum())
        assert value == pytest.approx(1 / math.log2(rank + 2) if rank < 10 else 0.0)
    assert 0 < values.mean() < 1


def test_validation_honours_the_excluded_document() -> None:
    data = fit_data(exclude=True)
    values = validation_values(identity(data), data)
    found = int(values.argmax())
    exclude = data.validation.exclude.clone()
    exclude[found] = int(data.validation.qrels.doc_rows[found])
    barred = data._replace(validation=data.validation._replace(exclude=exclude))
    values[found] = 0
    np.testing.assert_array_equal(validation_values(identity(barred), barred), values)


def test_training_raises_validation_on_a_planted_problem() -> None:
    data = fit_data()
    start = _aligned(data)
    before = validation_values(start, data)
    fitted = _train(data, start, make_pool(data, start, CONFIG), CONFIG, 1e-4)
    assert fitted.mean > before.mean() + 0.15
    assert 1 <= fitted.options["rounds"] <= CONFIG.max_rounds
    # What is reported is what the adapter that comes back does.
    np.testing.assert_array_equal(fitted.values, validation_values(fitted.adapter, data))


def test_the_start_is_kept_where_no_epoch_beats_it() -> None:
    data = fit_data()
    # Labels that say the opposite of validation.
    wrong = data.train.qrels._replace(doc_rows=data.train.qrels.doc_rows[::-1].copy())
    data = _with_train(data, qrels=wrong)
    start = identity(data)
    fitted = _train(data, start, make_pool(data, start, CONFIG), CONFIG, 0.0)
    assert fitted.options["rounds"] == 0
    assert torch.equal(fitted.adapter.weight, start.weight)
    np.testing.assert_array_equal(fitted.values, validation_values(start, data))


@pytest.mark.parametrize("seed", range(4))
def test_training_never_ends_below_its_start(seed) -> None:
    data = fit_data(seed=seed, n_train=8, noise=2.0)
    for start in (_aligned(data), identity(data), joined_start(_aligned(data), 1.0)):
        fitted = _train(data, start, make_pool(data, start, CONFIG), CONFIG, 1e-3)
        assert fitted.mean >= validation_values(start, data).mean()


def test_a_strong_anchor_holds_the_map_near_its_start() -> None:
    data = fit_data()
    start = _aligned(data)
    pool = make_pool(data, start, CONFIG)
    moved = [
        float((_train(data, start, pool, CONFIG, a).adapter.weight - start.weight).norm())
        for a in (0.0, 10.0)
    ]
    assert moved[1] < 0.3 * moved[0]


def test_training_is_deterministic_and_depends_on_its_seed() -> None:
    data = fit_data()
    start = _aligned(data)
    pool = make_pool(data, start, CONFIG)
    one = _train(data, start, pool, CONFIG, 1e-3)
    torch.manual_seed(5)  # the global generator takes no part
    again = _train(data, start, pool, CONFIG, 1e-3)
    assert torch.equal(one.adapter.weight, again.adapter.weight)
    other = FitConfig(max_rounds=15, learning_rate=1e-2, batch_queries=16, seed=1)
    shuffled = _train(data, start, pool, other, 1e-3)
    assert not torch.equal(one.adapter.weight, shuffled.adapter.weight)


def test_the_start_is_not_changed_in_place() -> None:
    data = fit_data()
    start = _aligned(data)
    copy = start.weight.clone()
    _train(data, start, make_pool(data, start, CONFIG), CONFIG, 1e-3)
    assert torch.equal(start.weight, copy)


# The pool


def _pooled(documents: int, mined: int) -> FitConfig:
    return FitConfig(
        pool_documents=documents, mined_per_query=mined, max_rounds=5, learning_rate=1e-2
    )


def _rows_of(pool_documents: torch.Tensor, corpus: torch.Tensor) -> list[int]:
    """Which corpus rows a pool's vectors are."""
    return (pool_documents @ corpus.T).argmax(dim=1).tolist()


def test_a_small_corpus_is_its_own_pool() -> None:
    data = fit_data()
    pool = make_pool(data, identity(data), _pooled(150, 5))
    assert pool.documents is data.corpus
    assert pool.rows == 150
    assert pool.positives.docs.tolist() == data.train.qrels.doc_rows.tolist()


def test_a_pool_holds_all_positives_and_the_best_documents_of_each_query() -> None:
    data = fit_data(n_docs=300, n_train=20)
    start = identity(data)
    pool = make_pool(data, start, _pooled(150, 5))
    rows = _rows_of(pool.documents, data.corpus)
    assert len(rows) == len(set(rows)) == pool.rows == 150
    assert set(data.train.qrels.doc_rows.tolist()) <= set(rows)
    best = (data.train.views["small"] @ data.corpus.T).topk(5, dim=1).indices
    assert set(best.flatten().tolist()) <= set(rows)
    # Positives are renumbered: they point to the same vectors as before.
    own = data.corpus[torch.from_numpy(data.train.qrels.doc_rows)]
    assert torch.equal(pool.documents[pool.positives.docs], own)


def test_a_pool_too_small_for_the_positives_still_holds_them_all() -> None:
    data = fit_data(n_docs=300, n_train=40)
    pool = make_pool(data, identity(data), _pooled(10, 5))
    assert pool.rows == 40
    assert sorted(_rows_of(pool.documents, data.corpus)) == list(range(40))


def test_where_mined_documents_do_not_all_fit_each_query_keeps_its_hardest() -> None:
    data = fit_data(n_docs=300, n_train=20)
    pool = make_pool(data, identity(data), _pooled(45, 50))
    rows = set(_rows_of(pool.documents, data.corpus))
    first = (data.train.views["small"] @ data.corpus.T).argmax(dim=1)
    assert set(first.tolist()) <= rows
    assert len(rows) == 45


def test_a_pool_of_all_documents_trains_as_no_pool_does() -> None:
    data = fit_data(exclude=True)
    start = _aligned(data)
    whole = make_pool(data, start, _pooled(150, 5))
    mined = make_pool(data, start, _pooled(149, 149))
    assert mined.rows == 149
    # A pool that lacks one document, which then is excluded for all queries in the whole corpus.
    (left,) = set(range(150)) - set(_rows_of(mined.documents, data.corpus))
    barred = whole._replace(exclude=torch.full((40,), left))
    free = mined._replace(exclude=None)
    config = _pooled(150, 5)
    one = _train(data, start, barred, config, 1e-3)
    two = _train(data, start, free, config, 1e-3)
    assert one.options["rounds"] == two.options["rounds"] > 0
    torch.testing.assert_close(one.adapter.weight, two.adapter.weight, atol=1e-4, rtol=0)


def test_excluded_documents_are_renumbered_and_those_outside_the_pool_dropped() -> None:
    data = fit_data(n_docs=300, n_train=20, exclude=True)
    exclude = data.train.exclude.clone()
    exclude[0] = -1
    data = _with_train(data, exclude=exclude)
    pool = make_pool(data, identity(data), _pooled(60, 1))
    rows = _rows_of(pool.documents, data.corpus)
    expected = [rows.index(e) if e in rows else -1 for e in exclude.tolist()]
    assert pool.exclude.tolist() == expected
    assert expected.count(-1) > 1
    assert max(expected) > 0


def test_excluded_documents_do_not_enter_the_loss() -> None:
    data = fit_data()
    start = _aligned(data)
    pool = make_pool(data, start, CONFIG)
    moved = pool.documents.clone()
    moved[149] = data.train.views["small"][0]
    weights = [
        _train(
            data, start, pool._replace(documents=documents, exclude=exclude), CONFIG, 1e-3
        ).adapter.weight
        for exclude in (torch.full((40,), 149), None)
        for documents in (pool.documents, moved)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[2], weights[3])


def test_training_without_a_positive_judgement_is_refused() -> None:
    data = fit_data()
    none = data.train.qrels._replace(relevance=np.zeros(40, np.int64))
    with pytest.raises(FitError, match="nothing to learn"):
        make_pool(_with_train(data, qrels=none), identity(data), CONFIG)


def test_judgements_of_grade_zero_are_no_positives() -> None:
    rows = np.array([0, 0], np.int64)
    qrels = Qrels(rows, np.array([3, 4], np.int64), np.array([1, 0], np.int64))
    assert positives_of(qrels, 1, "cpu").docs.tolist() == [3]


def test_anchors_trained_together_equal_anchors_trained_alone() -> None:
    data = fit_data()
    start = joined_start(_aligned(data), 0.5)
    pool = make_pool(data, start, CONFIG)
    together = train_adapters(data, start, pool, CONFIG, [1e-1, 1e-3])
    for anchor, fitted in zip([1e-1, 1e-3], together, strict=True):
        alone = _train(data, start, pool, CONFIG, anchor)
        assert fitted.options == alone.options
        torch.testing.assert_close(fitted.adapter.weight, alone.adapter.weight, atol=1e-4, rtol=0)


def test_the_teacher_moves_only_adapters_that_read_the_large_view() -> None:
    data = fit_data()
    silent = dataclasses.replace(CONFIG, teacher=0.0)
    for start, moved in ((_aligned(data), True), (identity(data), False)):
        pool = make_pool(data, start, CONFIG)
        weights = [_train(data, start, pool, c, 1e-3).adapter.weight for c in (CONFIG, silent)]
        assert torch.equal(*weights) != moved
