"""From data to all candidates, by the default recipe and by the published one."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from planted import QUICK, QUICK_PAPER, fit_data, normal, silenced

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import unit
from era_cache.fitting.candidates import DEFAULT, TRAINED, UNTRAINED, VIEWS_READ
from era_cache.fitting.choice import choose
from era_cache.fitting.recipes import FitResult, fit_candidates, fit_paper, parts_of
from era_cache.fitting.starts import align
from era_cache.fitting.tensors import FitData


@pytest.fixture(scope="module")
def whole() -> FitResult:
    return fit_candidates(fit_data(), QUICK)


def test_all_candidates_are_fitted_and_named_to_the_user() -> None:
    told: list[str] = []
    result = fit_candidates(fit_data(), QUICK, progress=told.append)
    assert (
        tuple(result.candidates)
        == DEFAULT
        == ("small", "aligned", "era-zero", "era", "era-dual", "small+")
    )
    assert [text for text in told if "," not in text] == ["aligned", *TRAINED]
    assert result.missing == ()
    assert "align" in result.seconds
    assert all(seconds >= 0 for seconds in result.seconds.values())
    for name, fit in result.candidates.items():
        assert fit.adapter.views == VIEWS_READ[name]
    json.dumps([fit.options for fit in result.candidates.values()], allow_nan=False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.2, 3.0])
def test_what_ships_is_never_below_small_on_validation(seed, noise) -> None:
    result = fit_candidates(fit_data(seed=seed, noise=noise, n_train=10), QUICK)
    fits = result.candidates
    assert fits[result.choice.name].mean >= fits["small"].mean


def test_useless_large_vectors_are_named_and_leave_small() -> None:
    data = fit_data(noise=50.0)
    result = fit_candidates(data, QUICK)
    assert result.choice.name == "small"
    assert "no adapter can be trusted" in result.choice.reason
    assert result.candidates["aligned"].mean < 0.3 * result.candidates["small"].mean


def test_fitting_depends_on_data_and_configuration_only(whole) -> None:
    # Which candidate is asked for decides what ships, and nothing else.
    again = fit_candidates(fit_data(), QUICK, candidate="aligned")
    assert again.choice.name == "aligned"
    assert list(again.candidates) == list(whole.candidates)
    for name, fit in whole.candidates.items():
        assert torch.equal(fit.adapter.weight, again.candidates[name].adapter.weight)
        np.testing.assert_array_equal(fit.values, again.candidates[name].values)


def test_all_candidates_are_judged_by_the_same_queries() -> None:
    result = fit_candidates([fit_data(n_train=10), fit_data(seed=1, n_validation=15)], QUICK)
    for fit in result.candidates.values():
        assert [len(values) for values in fit.values] == [50, 55]
    assert result.choice.name in result.candidates


def test_candidates_without_references_can_remember_labelled_queries() -> None:
    config = dataclasses.replace(QUICK, reference_documents=0)
    result = fit_candidates(fit_data(), config)
    assert result.candidates["aligned"].adapter.references == ()
    for fit in result.candidates.values():
        assert {table.view for table in fit.adapter.references} <= set(fit.adapter.views)


def test_a_collection_without_labels_is_left_to_the_others() -> None:
    data = fit_data(seed=1)
    silent = data._replace(train=silenced(data.train), validation=silenced(data.validation))
    assert len(parts_of([fit_data(), silent], QUICK)) == 1
    with pytest.raises(FitError, match="nothing to learn"):
        parts_of(silent, QUICK)


@pytest.mark.parametrize(
    ("n_train", "n_validation", "refit", "message"),
    [
        (1, 0, True, "cannot both train and judge"),
        (5, 0, False, "cannot both train and judge"),
        (0, 5, False, "nothing to learn"),
    ],
)
def test_too_few_labelled_queries_are_refused(n_train, n_validation, refit, message) -> None:
    data = fit_data(n_train=n_train, n_validation=n_validation)
    with pytest.raises(FitError, match=message):
        fit_candidates(data, dataclasses.replace(QUICK, refit=refit))


def test_two_labelled_queries_are_enough() -> None:
    result = fit_candidates(fit_data(n_train=2, n_validation=0), QUICK)
    assert all(len(fit.values[0]) == 2 for fit in result.candidates.values())


@pytest.mark.parametrize("candidate", ["best", "paper"])
def test_fitting_refuses_a_candidate_that_it_does_not_make(candidate) -> None:
    with pytest.raises(InputError, match=f"No candidate '{candidate}'; there are: small, aligned"):
        fit_candidates(fit_data(), QUICK, candidate=candidate)


# Interruption


def _interrupt(during: str) -> Callable[[str], None]:
    """Ctrl-C during a candidate."""

    def tell(text: str) -> None:
        if text.startswith(f"{during}, "):
            raise KeyboardInterrupt

    return tell


def test_an_interruption_leaves_what_is_ready_and_that_is_not_fitted_again(whole) -> None:
    partial = fit_candidates(fit_data(), QUICK, progress=_interrupt("era-dual"))
    assert list(partial.candidates) == ["small", "aligned", "era-zero", "era"]
    assert partial.missing == ("era-dual", "small+")
    assert partial.choice == choose(partial.candidates, signs=partial.signs)
    era = partial.candidates["era"]
    assert torch.equal(era.adapter.weight, whole.candidates["era"].adapter.weight)
    told: list[str] = []
    result = fit_candidates(fit_data(), QUICK, progress=told.append, ready={"era": era})
    assert result.candidates["era"] is era
    assert not any(text == "era" or text.startswith("era, ") for text in told)
    assert result.missing == ()
    assert list(result.candidates) == list(whole.candidates)
    assert result.choice == whole.choice


def test_a_ready_candidate_joins_although_one_before_it_is_interrupted(whole) -> None:
    ready = {"small+": whole.candidates["small+"]}
    result = fit_candidates(fit_data(), QUICK, progress=_interrupt("era"), ready=ready)
    assert list(result.candidates) == ["small", "aligned", "era-zero", "small+"]
    assert result.missing == ("era", "era-dual")


def test_the_candidate_asked_for_must_have_been_fitted() -> None:
    with pytest.raises(FitError, match=r"Interrupted before small\+ was fitted"):
        fit_candidates(fit_data(), QUICK, candidate="small+", progress=_interrupt("era"))
    result = fit_candidates(fit_data(), QUICK, candidate="era", progress=_interrupt("small+"))
    assert result.choice.name == "era"


# Without labels


def _unlabelled(data: FitData) -> FitData:
    """The training queries as queries without labels, and no other."""
    none = data.train._replace(
        ids=[],
        views={name: vectors[:0] for name, vectors in data.train.views.items()},
        qrels=data.train.qrels.select_queries(np.zeros(0, dtype=np.int64)),
    )
    return data._replace(train=none, validation=none, unlabelled=data.train)


def test_without_labels_there_are_the_candidates_that_need_none() -> None:
    data = fit_data(agreeing=2.0)
    result = fit_candidates(_unlabelled(data), QUICK)
    assert tuple(result.candidates) == UNTRAINED
    assert all(math.isnan(fit.mean) for fit in result.candidates.values())
    assert result.choice.name == "era-zero"
    metrics = result.metrics()
    assert metrics.judging_queries == 0
    assert {one.validation for one in metrics.candidates.values()} == {None}
    labelled = fit_candidates(data, QUICK).candidates
    for name in UNTRAINED:  # no label has a part in them
        one, other = result.candidates[name].adapter, labelled[name].adapter
        assert torch.equal(one.weight, other.weight)
        assert len(one.references) == len(other.references)
    with pytest.raises(FitError, match="'era' is trained with labels; there are none"):
        fit_candidates(_unlabelled(data), QUICK, candidate="era")


def test_without_labels_the_large_queries_alone_are_refused() -> None:
    data = _unlabelled(fit_data(agreeing=2.0))
    blind = [s._replace(views={"large": s.views["large"]}) for s in (data.train, data.unlabelled)]
    with pytest.raises(FitError, match="the small model's queries are needed"):
        fit_candidates(
            data._replace(train=blind[0], validation=blind[0], unlabelled=blind[1]), QUICK
        )


def test_without_labels_broken_vectors_leave_today_s_index() -> None:
    data = _unlabelled(fit_data(agreeing=2.0))
    queries = data.unlabelled
    noise = unit(normal(len(data.align_large), data.align_large.shape[1], seed=9))
    shuffled = {**queries.views, "large": queries.views["large"].flip(0)}
    for broken, named in (
        (data._replace(align_large=noise), "find themselves"),
        (data._replace(unlabelled=queries._replace(views=shuffled)), "shuffled or noise"),
    ):
        choice = fit_candidates(broken, QUICK).choice
        assert choice.name == "small"
        assert named in choice.reason


def test_era_zero_is_the_formula_that_the_documentation_gives() -> None:
    data, config = fit_data(agreeing=2.0), QUICK
    adapter = fit_candidates(data, config).candidates["era-zero"].adapter
    map_, _ = align(parts_of(data, config), config)
    moment = (data.corpus.T @ data.corpus / len(data.corpus)).double()
    values, vectors = torch.linalg.eigh(moment)
    values = 0.9 * values + 0.1 * values.mean()
    power = vectors @ torch.diag(values**-0.25) @ vectors.T
    views = data.validation.views
    query = (views["small"] + 0.1 * views["large"] @ map_.weight.T).double() @ power
    query = torch.nn.functional.normalize(query, dim=1)
    large, small = (texts[: config.reference_documents] for texts in data[4:6])
    wanted = torch.softmax(views["large"] @ large.T / 0.05, dim=1).double() @ small.double()
    small = small.double()
    start = query
    for _ in range(32):
        found = torch.softmax(query @ small.T / 0.05, dim=1) @ small
        moved = query + 0.3 * (wanted - found) + 0.09 * (start - query)
        query = torch.nn.functional.normalize(moved, dim=1)
    torch.testing.assert_close(adapter.apply(views).double(), query, atol=1e-4, rtol=0)


# The published recipe


def test_the_published_recipe_ships_its_own_adapter() -> None:
    told: list[str] = []
    result = fit_paper(fit_data(), QUICK_PAPER, progress=told.append)
    assert list(result.candidates) == ["small", "aligned", "paper"]
    assert result.choice.name == "paper"
    assert told == ["aligned", "paper"]
    assert result.candidates["paper"].adapter.bias is not None
