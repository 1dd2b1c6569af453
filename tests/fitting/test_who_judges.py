"""Who trains and who judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import labels_of, normal

from era_cache.fitting.adapter import unit
from era_cache.fitting.config import FitConfig
from era_cache.fitting.tensors import QuerySet
from era_cache.fitting.who_judges import Labelled, Labels, labels_together, merged, same_vectors
from era_cache.types import Qrels


def _queries(
    groups: list[int], grades: list[int] | None = None, exclude: list[int] | None = None
) -> QuerySet:
    """One query for each group number; equal numbers have equal vectors. Query i judges doc i."""
    count = len(groups)
    numbers = np.arange(count, dtype=np.int64)
    relevance = np.array(grades if grades is not None else [1] * count, dtype=np.int64)
    table = unit(normal(100, 3, seed=1))
    return QuerySet(
        [f"q{i}" for i in range(count)],
        {"large": unit(normal(100, 4))[groups], "small": table[groups]},
        Qrels(numbers, numbers.copy(), relevance),
        None if exclude is None else torch.tensor(exclude),
    )


def _check(labels: Labels) -> None:
    """What holds for any folds: apart from each other, and each judge judged once."""
    for fold in labels.folds:
        assert not np.intersect1d(fold.train, fold.judge).size
        for rows in fold:
            assert rows.dtype == np.int64
            assert rows.tolist() == sorted(rows.tolist())
    judged = np.concatenate([fold.judge for fold in labels.folds])
    assert sorted(judged.tolist()) == labels.judges.tolist()


@given(
    train=st.lists(st.integers(0, 12), min_size=1, max_size=25),
    validation=st.lists(st.integers(0, 12), max_size=15),
    folds=st.integers(1, 7),
    seed=st.integers(0, 50),
    data=st.data(),
)
def test_folds_part_no_equal_queries_and_judge_each_query_once(
    train, validation, folds, seed, data
) -> None:
    groups = train + validation
    grades = data.draw(st.lists(st.integers(-1, 2), min_size=len(groups), max_size=len(groups)))
    usable = [i for i, grade in enumerate(grades) if grade >= 1]
    split = len(train)
    labels = labels_of(
        _queries(train, grades[:split]),
        _queries(validation, grades[split:]),
        FitConfig(folds=folds, seed=seed),
    )
    # Queries without a positive take no part; all others train in the end and judge.
    assert labels.train_rows.tolist() == labels.judges.tolist() == usable
    distinct = {groups[i] for i in usable}
    if len(distinct) < 2:
        assert labels.folds == ()  # nothing is left to judge, or to train
        return
    _check(labels)
    assert len(labels.folds) == max(2, min(folds, len(distinct)))
    for fold in labels.folds:
        assert sorted([*fold.train.tolist(), *fold.judge.tolist()]) == usable
        trained = {groups[i] for i in fold.train}
        assert not trained & {groups[i] for i in fold.judge}
        # Folds are of about one size, counted in distinct queries.
        share = len(distinct) / len(labels.folds)
        assert abs(len({groups[i] for i in fold.judge}) - share) < 1


def test_without_refit_training_queries_train_and_validation_queries_judge() -> None:
    labels = labels_of(
        _queries([0, 1, 2, 3], [1, 0, 1, 2]), _queries([4, 5, 6], [0, 1, 1]), FitConfig(refit=False)
    )
    (fold,) = labels.folds
    assert fold.train.tolist() == labels.train_rows.tolist() == [0, 2, 3]
    assert fold.judge.tolist() == labels.judges.tolist() == [5, 6]
    _check(labels)


@pytest.mark.parametrize(
    ("many", "silent", "folds"), [(12, 0, 3), (13, 0, 4), (11, 0, 3), (12, 1, 4)]
)
def test_many_labels_make_few_folds(many, silent, folds) -> None:
    """Queries without a positive do not count."""
    config = FitConfig(folds=4, few_folds=3, many_labels=many)
    train = _queries(list(range(8)), [0] * silent + [1] * (8 - silent))
    labels = labels_of(train, _queries([20, 21, 22, 23]), config)
    assert len(labels.folds) == folds
    _check(labels)


def test_folds_depend_on_the_seed_and_on_nothing_else() -> None:
    def folds(seed: int) -> list[list[int]]:
        queries = _queries(list(range(20))), _queries(list(range(20, 30)))
        return [f.judge.tolist() for f in labels_of(*queries, FitConfig(seed=seed)).folds]

    assert folds(3) == folds(3)
    assert folds(3) != folds(4)


def test_equal_vectors_have_one_number_by_first_occurrence() -> None:
    rows = unit(torch.tensor([[2.0, 1], [0, 1], [2, 1], [1, 2], [0, 1], [0.01, 1.0]]))
    # Vectors of one text from two batches are equal, those of near texts are not.
    rows[2] += 1e-5
    assert same_vectors(rows).tolist() == [0, 1, 0, 2, 1, 3]


def test_equal_texts_of_two_collections_are_in_one_fold() -> None:
    texts = np.array([b"a", b"b", b"c", b"d", b"e", b"f"])
    one = _queries(list(range(6)), [1] * 6)._replace(texts=texts)
    two = _queries(list(range(10, 16)), [1] * 6)._replace(texts=texts[::-1].copy())
    first, second = labels_together([Labelled(one, 6), Labelled(two, 6)], FitConfig(folds=3))
    place = {texts[row]: k for k, fold in enumerate(first.folds) for row in fold.judge}
    for k, fold in enumerate(second.folds):
        assert {place[two.texts[row]] for row in fold.judge} <= {k}


def test_two_sets_become_one() -> None:
    one, two = _queries([0, 1], [1, 2], [5, -1]), _queries([2, 3, 4], [0, 1, 3], [-1, 7, 8])
    both = merged(one, two)
    assert both.ids == ["q0", "q1", "q0", "q1", "q2"]
    assert both.qrels.query_rows.tolist() == [0, 1, 2, 3, 4]
    assert both.qrels.doc_rows.tolist() == [0, 1, 0, 1, 2]
    assert both.qrels.relevance.tolist() == [1, 2, 0, 1, 3]
    assert both.exclude.tolist() == [5, -1, -1, 7, 8]
    for name in ("large", "small"):
        assert torch.equal(both.views[name], torch.cat([one.views[name], two.views[name]]))
    assert merged(_queries([0]), _queries([1])).exclude is None
