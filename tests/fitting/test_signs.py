"""Signs that need no label: what is sound passes, what is broken is named."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from planted import fit_data, normal

from era_cache.fitting.adapter import unit
from era_cache.fitting.signs import Signs, signs_of
from era_cache.fitting.tensors import FitData


@pytest.fixture(scope="module")
def sound() -> FitData:
    return fit_data(agreeing=3.0)


def _with_queries(data: FitData, **views: torch.Tensor) -> FitData:
    """Training queries with other vectors, and no validation query."""
    none = data.validation._replace(ids=[])
    train = data.train._replace(views={**data.train.views, **views})
    return data._replace(train=train, validation=none)


def _problems(data: FitData) -> str:
    return "; ".join(signs_of(data, seed=0).problems())


def test_sound_vectors_have_no_problem(sound) -> None:
    signs = signs_of(sound, seed=0)
    assert signs.problems() == []
    assert (signs.documents, signs.queries) == (150, 80)
    assert not signs.same


def test_agreement_is_the_correlation_of_cosines_with_the_documents(sound) -> None:
    few = sound._replace(
        train=sound.train._replace(
            ids=sound.train.ids[:3], views={k: v[:3] for k, v in sound.train.views.items()}
        ),
        validation=sound.validation._replace(ids=[]),
    )
    views = few.train.views
    large = (views["large"] @ few.align_large.T).numpy()
    small = (views["small"] @ few.align_small.T).numpy()
    table = np.corrcoef(large, small)[:3, 3:]  # of each large row with each small one
    signs = signs_of(few, seed=0)
    assert signs.agreement == pytest.approx(table.diagonal().mean(), abs=1e-6)
    beaten = sum(table[i, i] > table[i, j] for i in range(3) for j in range(3) if i != j)
    assert signs.own == pytest.approx(beaten / 6)


def _of_queries(data: FitData, rows: list[int], larges: list[int]) -> FitData:
    views = data.train.views
    train = data.train._replace(
        ids=[data.train.ids[row] for row in rows],
        views={"large": views["large"][larges], "small": views["small"][rows]},
    )
    return data._replace(train=train, validation=data.validation._replace(ids=[]))


def test_two_queries_of_few_whose_large_rows_are_exchanged_are_seen(sound) -> None:
    rows = list(range(5))
    assert signs_of(_of_queries(sound, rows, rows), seed=0).problems() == []
    missed = []
    for i, j in itertools.combinations(rows, 2):
        swapped = list(rows)
        swapped[i], swapped[j] = j, i
        signs = signs_of(_of_queries(sound, rows, swapped), seed=0)
        assert signs.exchanged
        assert any("shuffled" in problem for problem in signs.problems())
        missed.append(signs.own is not None and signs.own >= 0.75)
    assert any(missed)  # which the own share alone would let pass
    more = list(range(8))
    swapped = [1, 0, *more[2:]]
    assert not signs_of(_of_queries(sound, more, swapped), seed=0).exchanged


def test_effective_rank_counts_directions() -> None:
    # Large documents in 2 of 12 directions, alike strong; small ones in all.
    data = fit_data()
    flat = torch.zeros(150, 16)
    flat[:, :2] = normal(150, 2, seed=3)
    signs = signs_of(data._replace(align_large=unit(flat)), seed=0)
    assert signs.rank == pytest.approx(2 / 12, abs=0.03)


def _alike(data: FitData) -> FitData:
    return data._replace(align_large=data.align_large[:1].expand(150, -1))


def _copy(data: FitData) -> FitData:
    data = data._replace(align_large=data.align_small)
    return _with_queries(data, large=data.train.views["small"])


BROKEN: dict[str, tuple[Callable[[FitData], FitData], str]] = {
    "noise": (lambda d: d._replace(align_large=unit(normal(150, 16, seed=9))), "find themselves"),
    "shuffled": (lambda d: d._replace(align_large=d.align_large.flip(0)), "find themselves"),
    "alike": (_alike, "find themselves"),
    "queries-shuffled": (
        lambda d: _with_queries(d, large=d.train.views["large"].flip(0)),
        "shuffled or noise",
    ),
    "queries-noise": (
        lambda d: _with_queries(d, large=unit(normal(40, 16, seed=9))),
        "shuffled or noise",
    ),
    "copy": (_copy, "the same model"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_broken_is_named(sound, how) -> None:
    spoil, named = BROKEN[how]
    assert named in _problems(spoil(sound))


def test_few_documents_tell_nothing(sound) -> None:
    few = sound._replace(align_large=sound.align_large[:9], align_small=sound.align_small[:9])
    signs = signs_of(few, seed=0)
    assert (signs.found, signs.rank) == (None, None)
    assert "only 9 alignment documents" in signs.unknown()
    assert signs_of(sound, seed=0).unknown() == ""


def test_a_turned_copy_of_the_small_model_is_the_same_model(sound) -> None:
    turn = torch.linalg.qr(normal(12, 12, seed=5))[0]
    turned = sound._replace(align_large=sound.align_small @ turn)
    assert "the same model" in _problems(
        _with_queries(turned, large=sound.train.views["small"] @ turn)
    )


def test_without_queries_only_documents_speak(sound) -> None:
    none = sound.train._replace(ids=[])
    signs = signs_of(sound._replace(train=none, validation=none), seed=0)
    assert (signs.queries, signs.agreement, signs.own) == (0, None, None)
    assert signs.problems() == []


def test_queries_without_labels_are_looked_at(sound) -> None:
    none = sound.train._replace(ids=[])
    hidden = sound._replace(train=none, validation=none, unlabelled=sound.train)
    assert signs_of(hidden, seed=0).queries == len(sound.train.ids)


def test_limits_lie_between_what_is_sound_and_what_is_broken() -> None:
    # The ranges that docs/fitting.md gives for sound vectors pass at both ends.
    for found, rank, agreement, own in ((0.82, 0.79, 0.33, 0.74), (1.0, 1.43, 0.65, 1.0)):
        assert Signs(1000, 500, found, rank, agreement, own, same=False).problems() == []
