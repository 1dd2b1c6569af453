"""What was measured on test queries, value by value, as records.

In: values of each candidate, measure and query. Out: ``Results``, which folders keep and reports
are made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from era_cache.disk.json_files import Record, json_digest
from era_cache.fitting.adapter_config import NamedEncoder
from era_cache.report.records import Fact, Stored
from era_cache.types import FloatArray, IntArray, Keys

__all__ = [
    "EDGES",
    "SHIPPED",
    "CollectionEntry",
    "Count",
    "Extra",
    "Fit",
    "Head",
    "Histogram",
    "MadeBy",
    "Measured",
    "Results",
    "check_plain",
    "in_order",
    "job_name",
    "texts_digest",
]

SHIPPED = "shipped"
"""What reports call the candidate that was chosen in each fit; no candidate's name."""


EDGES = np.linspace(-1.0, 1.0, 81)
"""Bounds of the bins that scores (cosines) are counted in."""


Count = Annotated[int, Meta(ge=0, le=2**53)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of ``results.json``."""


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


class CollectionEntry(_Part, frozen=True):
    """A collection: its digest (hex), and the digest of the texts of all its queries."""

    digest: str
    domain: str
    documents: Count
    queries: Count
    query_texts: str | None = None


class Extra(_Part, frozen=True):
    """What some protocols add: int8 losses by candidate and measure, names of the jobs to come."""

    int8: dict[str, dict[str, Stored]] | None = None
    planned: tuple[str, ...] = ()


class Head(Record, frozen=True, omit_defaults=True):
    """What all fits of a folder share: ``results.json``.

    ``adapters`` maps what was measured, where adapter folders or runs were, to digests;
    ``configuration`` holds every option; ``costs`` and ``notes`` are shown as they are.
    """

    FORMAT: ClassVar[str] = "era-results"
    VERSION: ClassVar[int] = 1

    protocol: str
    title: str
    measures: tuple[str, ...]
    primary: str
    collections: Annotated[dict[str, CollectionEntry], Meta(min_length=1)]
    encoders: dict[str, NamedEncoder]
    configuration: dict[str, Any]
    adapters: dict[str, str] = msgspec.field(default_factory=dict)
    costs: tuple[Fact, ...] = ()
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    extra: Extra = Extra()

    def __post_init__(self) -> None:
        """Refuse measures that do not name the primary one, or name one twice."""
        check_plain(self.configuration)
        if self.primary not in self.measures or len(set(self.measures)) != len(self.measures):
            raise ValueError("no primary measure, or the same measure twice")
        for candidate, stored in (self.extra.int8 or {}).items():
            if self.primary not in stored:
                raise ValueError(f"no {self.primary} of {candidate} as int8")


class MadeBy(NamedTuple):
    """The command that makes results: every option of it (JSON), and how it was written."""

    configuration: Mapping[str, Any] = {}
    commands: Sequence[str] = ()


class Results(NamedTuple):
    """A head, the query ids of each collection by row, and all fits."""

    head: Head
    query_ids: Mapping[str, Sequence[str]]
    fits: Sequence[Fit]


def check_plain(value: Any, levels: int = 20) -> None:
    """Refuse free JSON (ValueError) that might not be written again: too deep, or huge numbers."""
    if not levels or (isinstance(value, int | float) and not abs(value) < 2**63):
        raise ValueError("nested too deeply, or a number that is too large")
    inner = value.values() if isinstance(value, dict) else value
    for one in inner if isinstance(value, dict | list | tuple) else ():
        check_plain(one, levels - 1)


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
