"""What alignment documents are worth: by labels, or by agreement with the large model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import QUICK, fit_data, measured

from era_cache.errors import FitError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.recipes import fit_candidates
from era_cache.fitting.tensors import FitData
from era_cache.fitting.worth import AGREEMENT, worth_of


@pytest.fixture(scope="module")
def data() -> FitData:
    return fit_data(agreeing=3.0)


def _unlabelled(data: FitData) -> FitData:
    none = data.train._replace(
        ids=[],
        views={name: rows[:0] for name, rows in data.train.views.items()},
        qrels=data.train.qrels.select_queries(np.zeros(0, dtype=np.int64)),
    )
    return data._replace(train=none, validation=none, unlabelled=data.train)


def test_labels_judge_the_candidate_that_so_many_documents_make(data) -> None:
    found = worth_of([data], [40, 0, 10**6], QUICK)
    assert [(one.documents, one.judge) for one in found] == [
        (0, "nDCG@10"),
        (40, "nDCG@10"),
        (150, "nDCG@10"),
    ]
    small = Adapter(("small",), torch.eye(12))
    sets = (data.train, data.validation)
    expected = np.concatenate([measured(small, queries, data) for queries in sets]).mean()
    assert found[0].value == pytest.approx(expected)
    # Forty documents are what the recipe keeps as references here.
    cut = data._replace(align_large=data.align_large[:40], align_small=data.align_small[:40])
    zero = fit_candidates(cut, QUICK).candidates["era-zero"].adapter
    expected = np.concatenate([measured(zero, queries, data) for queries in sets]).mean()
    assert found[1].value == pytest.approx(expected)
    assert found[2].value > found[0].value


def test_without_labels_agreement_on_unseen_documents_judges(data) -> None:
    found = worth_of([_unlabelled(data)], [0, 60, 500], QUICK)
    # A fifth of the documents is held out.
    assert [(one.documents, one.judge) for one in found] == [
        (0, AGREEMENT),
        (60, AGREEMENT),
        (120, AGREEMENT),
    ]
    views, held = data.train.views, slice(120, 150)
    large = (views["large"] @ data.align_large[held].T).numpy()
    small = (views["small"] @ data.align_small[held].T).numpy()
    large, small = large - large.mean(axis=0), small - small.mean(axis=0)
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in zip(large, small, strict=True)]
    assert found[0].value == pytest.approx(np.mean(pairs), abs=1e-5)
    assert found[2].value > found[1].value > found[0].value


def test_something_must_judge(data) -> None:
    with pytest.raises(FitError, match="neither a label nor a query"):
        worth_of([_unlabelled(data)._replace(unlabelled=None)], [0, 60], QUICK)
