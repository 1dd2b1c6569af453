"""What was measured on test queries, value by value, as records.

In: values of each candidate, measure and query. Out: ``Results``, which folders keep and reports
are made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from era_cache.disk.json_files import json_digest
from era_cache.types import FloatArray, IntArray, Keys

__all__ = [
    "EDGES",
    "FIT_FORMAT",
    "FORMAT",
    "SHIPPED",
    "VERSION",
    "Fit",
    "Head",
    "Histogram",
    "MadeBy",
    "Measured",
    "Results",
    "in_order",
    "job_name",
    "texts_digest",
]

FORMAT, VERSION = "era-results", 1


FIT_FORMAT = "era-fit-results"

SHIPPED = "shipped"
"""What reports call the candidate that held-out labels chose in each fit; no candidate's name."""


EDGES = np.linspace(-1.0, 1.0, 81)
"""Bounds of the bins that scores (cosines) are counted in."""


class Histogram(NamedTuple):
    """Scores of a candidate by bin of ``EDGES``, (80,) int64 each.

    ``positives`` are relevant documents, ``hardest`` the best document of each query that is not,
    ``others`` all that are not relevant.
    """

    positives: IntArray
    hardest: IntArray
    others: IntArray


class Measured(NamedTuple):
    """Candidates of one fit on test queries of one collection.

    ``query_rows`` (q,) int64 counts in the collection; ``values`` is (candidates, measures, q)
    float32; ``scores`` has histograms of some candidates.
    """

    collection: str
    candidates: tuple[str, ...]
    query_rows: IntArray
    values: FloatArray
    scores: Mapping[str, Histogram]


class Fit(NamedTuple):
    """One fit and what it reached.

    ``job`` (JSON) is what makes the fit what it is; ``trained_on`` a collection, a domain, or words
    such as ``all but web``. ``labels`` is the share used for training, ``queries`` counts those of
    training and validation. ``held_out`` has means over labels not trained on, by candidate.
    """

    job: Mapping[str, Any]
    trained_on: str
    labels: float
    split_seed: int
    queries: Mapping[str, int]
    held_out: Mapping[str, float]
    chosen: str
    reason: str
    seconds: Mapping[str, float]
    measured: tuple[Measured, ...]


class Head(NamedTuple):
    """What all fits of a folder share (all JSON).

    ``collections`` maps a name to ``digest``, ``domain``, ``documents`` and ``queries``;
    ``adapters`` maps what was measured, where adapter folders were, to digests. ``configuration``
    holds every option; ``costs`` and ``notes`` are shown as they are. ``extra`` may have ``int8``,
    as ``evaluate.int8_loss`` gives it, and ``planned``, the names of the jobs that shall be there.
    """

    protocol: str
    title: str
    measures: tuple[str, ...]
    primary: str
    collections: Mapping[str, Mapping[str, Any]]
    encoders: Mapping[str, Any]
    configuration: Mapping[str, Any]
    adapters: Mapping[str, str] = {}
    costs: Sequence[Mapping[str, str]] = ()
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    environment: Mapping[str, str] = {}
    extra: Mapping[str, Any] = {}


class MadeBy(NamedTuple):
    """The command that makes results: every option of it (JSON), and how it was written."""

    configuration: Mapping[str, Any] = {}
    commands: Sequence[str] = ()


class Results(NamedTuple):
    """A head, the query ids of each collection by row, and all fits."""

    head: Head
    query_ids: Mapping[str, Sequence[str]]
    fits: Sequence[Fit]


def texts_digest(query_text_keys: Keys) -> str:
    """What tells the query texts of a collection, all of them in the order of rows."""
    return hashlib.sha256(np.ascontiguousarray(query_text_keys).tobytes()).hexdigest()


def job_name(job: Mapping[str, Any]) -> str:
    """Name a job by what makes it what it is."""
    return json_digest(dict(job))[:24]


def in_order(fits: Iterable[Fit]) -> list[Fit]:
    """The same order whoever fitted what first."""

    def key(fit: Fit) -> Any:
        return fit.labels, fit.split_seed, fit.trained_on, job_name(fit.job)

    return sorted(fits, key=key)
