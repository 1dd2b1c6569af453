"""The softmax over the corpus against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from era_cache.losses import corpus_softmax, positives_of, teacher_softmax, teacher_targets
from era_cache.types import Qrels


def _qrels(*rows: tuple[int, int, int]) -> Qrels:
    return Qrels(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))


QRELS = _qrels((1, 4, 1), (0, 2, 3), (1, 0, 1), (0, 5, 1), (2, 3, 2), (0, 1, 0), (2, 0, -1))


def _loop(mapped, corpus, rows, qrels, temperature, exclude) -> float:
    total = 0.0
    for place, row in enumerate(rows):
        scores = [float(mapped[place] @ doc) / temperature for doc in corpus]
        left = [s for d, s in enumerate(scores) if exclude is None or d != exclude[place]]
        log_sum = math.log(sum(math.exp(s) for s in left))
        mine = [(d, g) for q, d, g in zip(*qrels, strict=True) if q == row and g >= 1]
        whole = sum(grade for _, grade in mine)
        total += sum(grade / whole * (log_sum - scores[doc]) for doc, grade in mine)
    return total / len(rows)


def _vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=1)


def test_positives_are_grouped_by_query_with_weights_by_grade() -> None:
    positives = positives_of(QRELS, 4, "cpu")
    assert positives.starts.tolist() == [0, 2, 4, 5, 5]
    assert positives.docs.tolist() == [2, 5, 4, 0, 3]
    assert positives.weights.tolist() == [0.75, 0.25, 0.5, 0.5, 1.0]
    assert positives.weights.dtype == torch.float32


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1]])
@pytest.mark.parametrize("exclude", [None, [1, -1, 5]])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_loss_equals_a_plain_loop(rows, exclude, temperature) -> None:
    mapped, corpus = _vectors(len(rows), 4), _vectors(6, 4, seed=1)
    left_out = None if exclude is None else torch.tensor([exclude[row] for row in rows])
    positives = positives_of(QRELS, 3, "cpu")
    loss = corpus_softmax(mapped, corpus, torch.tensor(rows), positives, temperature, left_out)
    expected = _loop(
        mapped, corpus, rows, QRELS, temperature, None if left_out is None else left_out.tolist()
    )
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_loss_of_a_worked_example() -> None:
    # Scores 1 and 0 at temperature 1; the positive is the first: ln(e + 1) - 1.
    corpus = torch.eye(2)
    positives = positives_of(_qrels((0, 0, 1)), 1, "cpu")
    loss = corpus_softmax(corpus[:1], corpus, torch.tensor([0]), positives, 1.0)
    assert float(loss) == pytest.approx(math.log(math.e + 1) - 1)


@pytest.mark.parametrize("exclude", [None, [1, -1, 5]])
def test_gradient_is_that_of_finite_differences(exclude) -> None:
    positives = positives_of(QRELS, 3, "cpu")
    corpus = _vectors(6, 4, seed=1)
    left_out = None if exclude is None else torch.tensor(exclude)
    mapped = _vectors(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: corpus_softmax(m, corpus, torch.arange(3), positives, 0.5, left_out), (mapped,)
    )


def test_an_excluded_document_neither_attracts_nor_repels() -> None:
    positives = positives_of(_qrels((0, 0, 1)), 1, "cpu")
    corpus, mapped = _vectors(6, 4, seed=1), _vectors(1, 4)
    moved = corpus.clone()
    moved[3] = -moved[3]
    losses = [
        float(corpus_softmax(mapped, c, torch.tensor([0]), positives, 0.1, torch.tensor([3])))
        for c in (corpus, moved)
    ]
    assert losses[0] == losses[1]
    assert losses[0] < float(corpus_softmax(mapped, corpus, torch.tensor([0]), positives, 0.1))


def test_a_query_judged_relevant_to_itself_leaves_the_gradient_finite() -> None:
    positives = positives_of(_qrels((0, 0, 1), (0, 1, 1), (1, 2, 1)), 2, "cpu")
    mapped = _vectors(2, 4).requires_grad_()
    loss = corpus_softmax(
        mapped, _vectors(6, 4, seed=1), torch.arange(2), positives, 0.1, torch.tensor([0, -1])
    )
    loss.backward()
    assert torch.isfinite(mapped.grad).all()
    assert mapped.grad.abs().sum() > 0


def test_teacher_loss_equals_a_plain_loop() -> None:
    mapped, small = _vectors(3, 4), _vectors(5, 4, seed=1)
    large, documents = _vectors(3, 6, seed=2), _vectors(5, 6, seed=3)
    total = 0.0
    for query in range(3):
        wanted = [math.exp(float(large[query] @ doc) / 0.5) for doc in documents]
        found = [math.exp(float(mapped[query] @ doc) / 0.5) for doc in small]
        for w, f in zip(wanted, found, strict=True):
            total -= w / sum(wanted) * math.log(f / sum(found))
    loss = teacher_softmax(mapped, teacher_targets(large, documents, 0.5), small, 0.5)
    assert float(loss) == pytest.approx(total / 3)


def test_teacher_loss_is_least_where_both_rank_alike() -> None:
    vectors, documents = _vectors(3, 4), _vectors(5, 4, seed=1)
    best = teacher_softmax(vectors, teacher_targets(vectors, documents, 0.5), documents, 0.5)
    for seed in range(10, 30):
        other = _vectors(3, 4, seed=seed)
        assert (
            teacher_softmax(other, teacher_targets(vectors, documents, 0.5), documents, 0.5) > best
        )
