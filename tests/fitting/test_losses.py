"""The softmax over the corpus against a plain loop in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import normal, qrels_of

from era_cache.fitting.adapter import unit
from era_cache.fitting.losses import RankingLoss, corpus_softmax, pull_of

# Query 0 has two positives of other grades, query 1 two equal ones, query 2 one,
# query 3 none.
QRELS = qrels_of(
    (1, 4, 1), (0, 2, 3), (1, 0, 1), (0, 5, 1), (2, 3, 2), (0, 1, 0), (2, 0, -1), (3, 2, 0)
)
BARRED = torch.zeros(3, 6, dtype=torch.bool)
BARRED[0, 1] = BARRED[0, 0] = BARRED[2, 5] = True


def _naive(mapped, corpus, qrels, temperature, barred, rows) -> torch.Tensor:
    """Losses in the dtype of ``mapped``, written down as the definition says."""
    losses = []
    for place, row in enumerate(rows):
        scores = [mapped[place] @ doc / temperature[place] for doc in corpus]
        left = [s for d, s in enumerate(scores) if barred is None or not barred[row, d]]
        log_sum = torch.logsumexp(torch.stack(left), dim=0)
        mine = [(d, g) for q, d, g in zip(*qrels, strict=True) if q == row and g >= 1]
        whole = sum(grade for _, grade in mine)
        losses.append(sum(float(grade) / whole * (log_sum - scores[doc]) for doc, grade in mine))
    return torch.stack(losses)


def _found(mapped, corpus, temperature, *, qrels=QRELS, barred=None, rows=(0, 1, 2), **options):
    here = torch.tensor(rows)
    pull = pull_of(qrels, 4, corpus)[here]
    return corpus_softmax(mapped, corpus, pull, temperature, barred=barred, rows=here, **options)


def test_pull_is_the_mean_of_the_positives_weighted_by_grade() -> None:
    corpus = torch.eye(6)
    expected = [
        [0, 0, 0.75, 0, 0, 0.25],
        [0.5, 0, 0, 0, 0.5, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],  # no positive
    ]
    assert pull_of(QRELS, 4, corpus).tolist() == expected
    assert pull_of(QRELS, 4, corpus).dtype == torch.float32


@given(
    seed=st.integers(0, 1000),
    rows=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    barred=st.sampled_from([None, BARRED]),
    sharpness=st.floats(0.05, 2.0),
)
def test_loss_and_derivatives_are_those_of_a_plain_loop(seed, rows, barred, sharpness) -> None:
    mapped, corpus = unit(normal(len(rows), 4, seed=seed)), unit(normal(6, 4, seed=seed + 1))
    temperature = sharpness * torch.linspace(0.5, 1.5, len(rows))
    exact = mapped.double().requires_grad_()
    log_temperature = temperature.double().log().requires_grad_()
    losses = _naive(exact, corpus.double(), QRELS, log_temperature.exp(), barred, rows)
    losses.sum().backward()
    found = _found(mapped, corpus, temperature, barred=barred, rows=rows)
    scale = 1e-5 / float(temperature.min())
    np.testing.assert_allclose(found.loss, losses.detach(), atol=scale)
    np.testing.assert_allclose(found.gradient, exact.grad, atol=scale / float(temperature.min()))
    np.testing.assert_allclose(found.by_log_temperature, log_temperature.grad, atol=scale)


@pytest.mark.parametrize("block_bytes", [1, 4 * 6, 2 * 4 * 6, 3 * 4 * 6 + 1])
@pytest.mark.parametrize("barred", [None, BARRED])
def test_blocks_give_the_same(block_bytes, barred) -> None:
    rows = (2, 0, 1, 0, 2, 2, 1)
    mapped, corpus = unit(normal(7, 4)), unit(normal(6, 4, seed=1))
    temperature = torch.linspace(0.05, 0.5, 7)
    whole = _found(mapped, corpus, temperature, barred=barred, rows=rows)
    parts = _found(mapped, corpus, temperature, barred=barred, rows=rows, block_bytes=block_bytes)
    for name in RankingLoss._fields:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_a_document_barred_for_all_has_no_influence() -> None:
    mapped, corpus = unit(normal(3, 4)), unit(normal(6, 4, seed=1))
    barred = torch.zeros(3, 6, dtype=torch.bool)
    barred[:, 1] = True
    moved = corpus.clone()
    moved[1] = mapped[0]  # would be the best of all
    temperature = torch.full((3,), 0.1)
    one, two = (_found(mapped, c, temperature, barred=barred) for c in (corpus, moved))
    gone = corpus[[0, 2, 3, 4, 5]]
    renumbered = QRELS._replace(doc_rows=QRELS.doc_rows - (QRELS.doc_rows > 1))
    left_out = _found(mapped, gone, temperature, qrels=renumbered)
    for name in RankingLoss._fields:
        assert torch.equal(getattr(one, name), getattr(two, name))
        torch.testing.assert_close(getattr(one, name), getattr(left_out, name))


def test_scores_beyond_the_range_of_exp_stay_finite() -> None:
    corpus = torch.eye(3)
    found = corpus_softmax(corpus[:1], corpus, corpus[1:2], torch.tensor([1e-3]))
    assert found.loss.tolist() == [pytest.approx(1000.0)]
    assert torch.isfinite(found.gradient).all()


def test_no_query_gives_no_loss() -> None:
    empty = torch.zeros(0, 3)
    found = corpus_softmax(empty, torch.eye(3), empty, torch.zeros(0))
    assert found.loss.shape == (0,)
    assert found.gradient.shape == (0, 3)


def test_queries_whose_scores_lie_far_apart_do_not_drown_each_other() -> None:
    """The largest score of all would leave nothing of a query whose own are far below it."""
    corpus = unit(
        torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, 0.3], [1, 0.4]])
    )
    mapped = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    temperature = torch.full((3,), 0.001)
    found = _found(mapped, corpus, temperature)
    exact = _naive(mapped.double(), corpus.double(), QRELS, temperature.double(), None, (0, 1, 2))
    assert torch.isfinite(found.gradient).all()
    torch.testing.assert_close(found.loss.double(), exact, rtol=1e-4, atol=1e-2)
