"""Many fits at once give what each of them would give alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from planted import fit_data, silenced

from era_cache.errors import FitError, InputError
from era_cache.fitting import sweep as sweep_module
from era_cache.fitting.candidates import TRAINED, VIEWS_READ
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted, Request, crossfit
from era_cache.fitting.label_free import joined_start, spread
from era_cache.fitting.recipes import parts_of
from era_cache.fitting.starts import align, choose_scale, document_references
from era_cache.fitting.sweep import Job, short, sweep
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.types import IntArray

CONFIG = FitConfig(
    strengths=(4.0, 1.0),
    iterations=3,
    folds=2,
    scales=(0.5, 1.0),
    reference_documents=40,
    reference_steps=((0.0, 1), (0.3, 1)),
    memory_steps=(0.2,),
)


@pytest.fixture(scope="module")
def data() -> FitData:
    return fit_data(n_docs=90, n_train=30, n_validation=20, noise=0.6)


def _changed(**changes: object) -> FitConfig:
    return dataclasses.replace(CONFIG, **changes)


def _some(queries: QuerySet, rows: IntArray) -> QuerySet:
    """Only these rows of a set, as if there had never been others."""
    views = {name: vectors[torch.from_numpy(rows)] for name, vectors in queries.views.items()}
    ids = [queries.ids[row] for row in rows]
    return QuerySet(ids, views, queries.qrels.select_queries(rows), queries.exclude)


def _alone(several: list[FitData], job: Job) -> Fitted:
    """The job fitted by itself, on data that hold nothing which it may not use."""
    config, most = job.config, job.config.align_documents
    several = [
        one._replace(
            train=one.train if job.use is None else _some(one.train, job.use),
            align_large=one.align_large[:most],
            align_small=one.align_small[:most],
        )
        for one in several
    ]
    parts = parts_of(several, config)
    references = document_references(parts, config)
    wide = spread([one.corpus for one in several], config)
    if job.candidate == "small+":
        start, references = wide, None
    else:
        aligned = align(parts, config)[0].weight
        start = wide @ aligned
        if job.candidate == "era-dual":
            scale, _ = choose_scale(parts, aligned, wide, references, config)
            start = joined_start(aligned, scale, wide)
    return crossfit(Request(parts, VIEWS_READ[job.candidate], start, config, references))


def _assert_as_alone(several: list[FitData], jobs: list[Job]) -> list[float]:
    outcomes = sweep(several, jobs, halving=False)
    for job, outcome in zip(jobs, outcomes, strict=True):
        alone = _alone(several, job)
        assert outcome.full
        assert outcome.fitted.mean == pytest.approx(alone.mean, abs=1e-4)
        options = {key: value for key, value in alone.options.items() if key != "scale"}
        assert outcome.fitted.options == options
        assert outcome.fitted.adapter.views == VIEWS_READ[job.candidate]
    return [outcome.fitted.mean for outcome in outcomes]


# Each as if alone


def test_jobs_of_one_stack_come_out_as_alone(data) -> None:
    jobs = [Job("era", _changed(temperature=t)) for t in (0.02, 0.05, 0.5)]
    means = _assert_as_alone([data], jobs)
    assert len(set(means)) > 1


def test_jobs_that_cannot_share_products_come_out_in_the_order_given(data) -> None:
    jobs = [
        Job("era", _changed(shape="mlp", hidden=4)),
        Job("small+", CONFIG),
        Job("era", CONFIG),
        Job("era-dual", CONFIG),
        Job("era", _changed(shape="low-rank", rank=2)),
        Job("era", _changed(strengths=(1e6,))),
        Job("small+", _changed(temperature=0.5)),
    ]
    means = _assert_as_alone([data], jobs)
    assert len(set(means)) > 4


@pytest.mark.parametrize(
    ("candidate", "changes"),
    [
        ("era", [{"align": name} for name in ("procrustes", "ridge", "auto")]),
        ("era", [{"align_documents": n} for n in (90, 12)]),
        ("era-dual", [{"align_documents": n} for n in (90, 12)]),
        ("era", [{"align_texts": name} for name in ("documents", "queries", "both")]),
        ("era-dual", [{"scales": (s,)} for s in (0.25, 4.0)]),
        ("era-dual", [{"scales": (0.1, 8.0), "reference_temperature": t} for t in (9.0, 0.01)]),
        (
            "era-dual",
            [{"scales": (0.1, 8.0), "default_reference_step": (s, 1)} for s in (0.0, 50.0)],
        ),
        ("era", [{"align": "auto", "default_reference_step": (s, 1)} for s in (0.0, 50.0)]),
        ("era", [{"folds": n} for n in (2, 3)]),
        ("era", [{"many_labels": n} for n in (2, 1000)]),
        ("era", [{"refit": flag} for flag in (True, False)]),
        ("era", [{"seed": n} for n in (0, 1)]),
        ("era", [{"negatives": name} for name in ("corpus", "in-batch", "naive_topk")]),
        ("era", [{"reference_documents": n} for n in (40, 0)]),
    ],
    ids=lambda value: "-".join(value[0]) if isinstance(value, list) else value,
)
def test_a_setting_counts_for_its_own_job_only(data, candidate, changes) -> None:
    _assert_as_alone([data], [Job(candidate, _changed(**change)) for change in changes])


def test_jobs_on_several_collections_come_out_as_alone(data) -> None:
    several = [data, fit_data(n_docs=90, n_train=12, n_validation=9, noise=0.6)]
    _assert_as_alone(several, [Job("era", CONFIG), Job("era-dual", _changed(temperature=0.2))])


# Fewer labels


@pytest.mark.parametrize(
    "changes",
    [{}, {"align": "auto"}, {"align_texts": "queries"}, {"align_texts": "both"}, {"refit": False}],
    ids=str,
)
@pytest.mark.parametrize("candidate", ["era", "era-dual"])
def test_a_job_with_fewer_labels_is_fitted_as_if_there_were_no_others(
    data, candidate, changes
) -> None:
    config, few = _changed(**changes), np.array([3, 4, 11, 12, 17, 20, 25, 29])
    # The job with all labels comes first: what it found out must not be taken over.
    _assert_as_alone([data], [Job(candidate, config), Job(candidate, config, few)])


def _poisoned(data: FitData, rows: IntArray) -> FitData:
    """Other vectors and other positives for some training queries."""
    docs = data.train.qrels.doc_rows.copy()
    docs[rows] = (docs[rows] + 41) % len(data.corpus)
    views = {name: vectors.clone() for name, vectors in data.train.views.items()}
    for vectors in views.values():
        vectors[rows] = vectors[rows].flip(1)
    qrels = data.train.qrels._replace(doc_rows=docs)
    return data._replace(train=data.train._replace(qrels=qrels, views=views))


@pytest.mark.parametrize("align_name", ["procrustes", "auto"])
def test_labels_outside_use_reach_no_outcome(data, align_name) -> None:
    use = np.arange(0, 30, 2)
    config, both = _changed(align=align_name), _changed(align=align_name, align_texts="both")
    jobs = [Job(candidate, config, use) for candidate in TRAINED] + [Job("era", both, use)]
    usual = sweep([data], jobs)
    other = sweep([_poisoned(data, use + 1)], jobs)
    for one, two in zip(usual, other, strict=True):
        np.testing.assert_allclose(one.fitted.values[0], two.fitted.values[0], atol=1e-6)
        assert one.fitted.options == two.fitted.options
    shown = sweep([_poisoned(data, use)], jobs)
    assert all(a.fitted.mean != b.fitted.mean for a, b in zip(usual, shown, strict=True))


# Halving


def _ladder(count: int) -> list[Job]:
    """Jobs from hopeless to good: at the first temperatures nothing is learned."""
    temperatures = np.geomspace(50.0, 0.05, count)
    return [Job("era", _changed(temperature=float(t), memory_steps=())) for t in temperatures]


def test_of_many_jobs_the_best_fifth_of_the_short_round_is_fitted_in_full(data) -> None:
    jobs = _ladder(25)
    outcomes = sweep([data], jobs)
    assert len(outcomes) == 25
    full = [number for number, outcome in enumerate(outcomes) if outcome.full]
    assert len(full) == 5
    alone = sweep([data], [jobs[number] for number in full], halving=False)
    for number, expected in zip(full, alone, strict=True):
        assert outcomes[number].fitted.mean == pytest.approx(expected.fitted.mean, abs=1e-4)
    # In the short round none of those dropped was better than one that went on.
    first = sweep_module._Shared([data])
    requests = [first.request(job._replace(config=short(job.config)), True) for job in jobs]
    means = [fitted.mean for fitted in sweep_module.crossfit_all(requests, refit=False)]
    assert outcomes[int(np.argmax(means))].full
    dropped = [outcome.fitted.mean for outcome in outcomes if not outcome.full]
    assert min(means[number] for number in full) >= max(dropped)


def test_jobs_with_fewer_labels_compete_among_themselves(data) -> None:
    few = np.array([3, 4, 11, 12])
    jobs = [job._replace(use=use) for use in (None, few) for job in _ladder(8)]
    outcomes = sweep([data], jobs)
    full = [outcome.full for outcome in outcomes]
    assert sum(full[:8]) == sum(full[8:]) == 4


def test_few_jobs_are_all_fitted_in_full_and_more_where_that_is_asked_for(data) -> None:
    told: list[str] = []
    for count, halving, full in ((8, True, 8), (9, False, 9), (9, True, 4)):
        told.clear()
        outcomes = sweep([data], _ladder(count), halving=halving, tell=told.append)
        assert sum(outcome.full for outcome in outcomes) == full
    assert told == ["short round of 9 fits", "4 fits in full"]


def test_the_short_round_is_short() -> None:
    config = short(_changed(strengths=(24.0, 8.0, 2.5), iterations=9, temperature=0.3))
    assert config.strengths == (8.0,)
    assert config.iterations == 3
    assert config.reference_steps == ()
    assert config.memory_steps == ()
    assert config.temperature == 0.3
    assert short(_changed(strengths=(), iterations=2)).iterations == 2


# What is refused


@pytest.mark.parametrize("candidate", ["small", "aligned", "paper", "best"])
@pytest.mark.parametrize("count", [1, 9])
def test_a_candidate_without_settings_is_refused(data, candidate, count) -> None:
    with pytest.raises(InputError, match=f"'{candidate}' has no settings; sweep era, era-dual, sm"):
        sweep([data], [Job("era", CONFIG)] * (count - 1) + [Job(candidate, CONFIG)])


def test_a_single_labelled_query_is_too_few(data) -> None:
    data = data._replace(validation=silenced(data.validation))
    with pytest.raises(FitError, match="at least two different queries"):
        sweep([data], [Job("era", CONFIG, np.array([4]))])


def test_no_job_gives_no_outcome(data) -> None:
    assert sweep([data], []) == []
