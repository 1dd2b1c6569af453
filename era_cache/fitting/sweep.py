"""Many settings at once: which recipe, label ratio or seed is worth fitting in full?

In: the data of a split, and jobs (candidate, settings, training queries). Out: for each job its
held-out mean. Jobs are trained together wherever they can share products. Where there are many, all
of them run a short first round and only the best fifth is fitted in full (successive halving:
Jamieson and Talwalkar, AISTATS 2016); rows say how far they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import References
from era_cache.fitting.candidates import TRAINED, VIEWS_READ
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted, Request, crossfit_all
from era_cache.fitting.held_out import Part
from era_cache.fitting.label_free import joined_start, spread
from era_cache.fitting.starts import align, choose_scale, document_references
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.fitting.who_judges import Fold, Labelled, Labels, labels_together, merged
from era_cache.types import IntArray

if TYPE_CHECKING:
    import torch

__all__ = ["FEWEST", "Job", "Outcome", "short", "sweep"]

FEWEST = 8
"""Jobs that are always fitted in full."""
_KEPT = 5
"""One job in so many goes on after the short round."""


class Job(NamedTuple):
    """One row of a sweep: a candidate, its recipe, and the training rows that it may use."""

    candidate: str
    config: FitConfig
    use: IntArray | None = None


class Outcome(NamedTuple):
    """What came of a job: the fit, and whether it was fitted in full or only in the short round."""

    fitted: Fitted
    full: bool


def short(config: FitConfig) -> FitConfig:
    """The short round's recipe: one middling strength, few steps, no choice of tables."""
    middle = config.strengths[len(config.strengths) // 2 :][:1]
    return replace(
        config,
        strengths=middle,
        iterations=min(3, config.iterations),
        reference_steps=(),
        memory_steps=(),
    )


def sweep(
    data: Sequence[FitData],
    jobs: Sequence[Job],
    *,
    halving: bool = True,
    tell: Callable[[str], None] = lambda _text: None,
) -> list[Outcome]:
    """Fit all jobs on the same collections, without the final training on all labels.

    Args:
        data: the collections.
        jobs: what to fit, in any order.
        halving: whether only the best fifth is fitted in full, where there are more than eight.
        tell: told in words how it goes.

    Raises:
        InputError: a job's candidate has nothing to sweep.
        FitError: there is nothing to learn from.
    """
    shared = _Shared(data)
    outcomes: dict[int, Outcome] = {}
    going = list(range(len(jobs)))
    if halving and len(jobs) > FEWEST:
        tell(f"short round of {len(jobs)} fits")
        requests = [shared.request(job._replace(config=short(job.config)), True) for job in jobs]
        for number, fitted in enumerate(crossfit_all(requests, refit=False)):
            outcomes[number] = Outcome(fitted, False)
        going = _best(jobs, outcomes)
    tell(f"{len(going)} fits in full")
    requests = [shared.request(jobs[number], False) for number in going]
    for number, fitted in zip(going, crossfit_all(requests, refit=False), strict=True):
        outcomes[number] = Outcome(fitted, True)
    return [outcomes[number] for number in range(len(jobs))]


def _best(jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> list[int]:
    """The best fifth of the jobs that train on the same labels, at least four of each."""
    groups: dict[bytes | None, list[int]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault(None if job.use is None else job.use.tobytes(), []).append(number)
    kept = []
    for numbers in groups.values():
        ranked = sorted(numbers, key=lambda number: -outcomes[number].fitted.mean)
        kept += ranked[: max(FEWEST // 2, -(-len(numbers) // _KEPT))]
    return sorted(kept)


class _Shared:
    """What jobs have in common, made once: merged queries, alignments, scales."""

    def __init__(self, data: Sequence[FitData]) -> None:
        self._data = data
        self._cut: dict[int, list[FitData]] = {}
        self._queries: list[QuerySet] = [merged(one.train, one.validation) for one in data]
        self._aligned: dict[object, torch.Tensor] = {}
        self._spread: dict[object, torch.Tensor] = {}
        self._starts: dict[object, torch.Tensor] = {}
        self._labels: dict[object, list[Labels]] = {}
        self._references: dict[object, References | None] = {}

    def request(self, job: Job, first_fold: bool) -> Request:
        """Turn a job into a request; in the short round only the first fold is trained."""
        config = job.config
        if job.candidate not in TRAINED:
            raise InputError(
                f"Candidate '{job.candidate}' has no settings; sweep {', '.join(TRAINED)}."
            )
        labels = self._labels_of(job)
        if not any(mine.folds and len(mine.judges) for mine in labels):
            raise FitError(
                "Too few labelled queries: none is left to train, or none to judge. Judge at least "
                "two different queries."
            )
        data = self._aligned_on(config.align_documents)
        parts = [Part(one, mine) for one, mine in zip(data, labels, strict=True)]
        references = self._references_of(parts, config) if job.candidate != "small+" else None
        start = self._start(job, parts)
        if first_fold:
            parts = [Part(part.data, _first_fold(part.labels)) for part in parts]
        return Request(parts, VIEWS_READ[job.candidate], start, config, references)

    def _labels_of(self, job: Job) -> list[Labels]:
        use, config = job.use, job.config
        folds = (config.folds, config.few_folds, config.many_labels, config.seed)
        key = (None if use is None else use.tobytes(), config.refit, config.align_texts, folds)
        if key not in self._labels:
            sets = [
                Labelled(queries, len(one.train.ids), use)
                for one, queries in zip(self._data, self._queries, strict=True)
            ]
            self._labels[key] = labels_together(sets, config)
        return self._labels[key]

    def _aligned_on(self, most: int) -> list[FitData]:
        """The collections with so many alignment documents: of nested samples, a prefix."""
        if most not in self._cut:
            self._cut[most] = [
                one
                if len(one.align_large) <= most
                else one._replace(
                    align_large=one.align_large[:most], align_small=one.align_small[:most]
                )
                for one in self._data
            ]
        return self._cut[most]

    def _references_of(self, parts: Sequence[Part], config: FitConfig) -> References | None:
        """``document_references``, the same object wherever it would be equal."""
        how = (config.reference_temperature, config.default_reference_step)
        key = (config.align_documents, config.reference_documents, how)
        if key not in self._references:
            self._references[key] = document_references(parts, config)
        return self._references[key]

    def _start(self, job: Job, parts: Sequence[Part]) -> torch.Tensor:
        config = job.config
        wide = (config.spread, config.spread_shrink)
        if wide not in self._spread:
            self._spread[wide] = spread([one.corpus for one in self._data], config)
        if job.candidate == "small+":
            return self._spread[wide]
        use = None if job.use is None else job.use.tobytes()
        tables = (config.reference_temperature, config.default_reference_step)
        # What untrained maps are compared by: the labelled queries, and the references.
        judged = (use, config.refit, config.align_texts, config.reference_documents, *tables)
        alignment: tuple[object, ...] = (config.align, config.align_documents, config.seed)
        if config.align == "auto":
            alignment += judged
        elif config.align_texts != "documents":
            alignment += (use, config.align_texts)
        if alignment not in self._aligned:
            self._aligned[alignment] = align(_of_use(parts, job.use), config)[0].weight
        aligned = self._aligned[alignment]
        key: object = (job.candidate, alignment, wide)
        if job.candidate == "era-dual":
            key = (key, config.scales, judged)
        if key not in self._starts:
            if job.candidate == "era":
                self._starts[key] = self._spread[wide] @ aligned
            else:
                references = self._references_of(parts, config)
                scale, _ = choose_scale(parts, aligned, self._spread[wide], references, config)
                self._starts[key] = joined_start(aligned, scale, self._spread[wide])
        return self._starts[key]


def _of_use(parts: Sequence[Part], use: IntArray | None) -> list[Part]:
    """The parts with no training query but those in use: they may align, too."""
    if use is None:
        return list(parts)
    import torch

    kept = []
    for part in parts:
        train = part.data.train
        rows = torch.from_numpy(use).to(part.data.corpus.device)
        views = {name: vectors[rows] for name, vectors in train.views.items()}
        kept.append(part._replace(data=part.data._replace(train=train._replace(views=views))))
    return kept


def _first_fold(labels: Labels) -> Labels:
    fold: Fold = labels.folds[0]
    return labels._replace(folds=(fold,), judges=fold.judge)
