"""What a report shows: records of plain numbers and clean texts.

``parsing`` makes a ``Report`` of the dict that an evaluation stores as JSON (format
"era-evaluation", version 2). All numbers are shares (0 to 1) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "BASELINE",
    "CEILING",
    "Candidate",
    "CollectionFacts",
    "CurvePoint",
    "Estimate",
    "Gain",
    "Gains",
    "GroupMeans",
    "Matrix",
    "Pairs",
    "QueryDifference",
    "QueryValues",
    "Report",
    "Scores",
    "SplitFacts",
    "Stored",
]

BASELINE = "small"
CEILING = "large"
"""What a full re-encode would reach: shown, but no candidate for the best."""

Pairs = tuple[tuple[str, str], ...]


class Estimate(NamedTuple):
    """A mean with its 95 % interval and, where compared, its difference from the baseline.

    ``sd`` is over the seeds of the split, None for one seed; ``effect`` is Cohen's d of the paired
    differences.
    """

    mean: float
    low: float
    high: float
    sd: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_holm: float | None
    effect: float | None

    @property
    def p_shown(self) -> float | None:
        """The p value that marks and sentences go by: the corrected one where there is one."""
        return self.p if self.p_holm is None else self.p_holm


class Candidate(NamedTuple):
    """A way to serve the queries and, for each measure, its estimate on the test queries."""

    name: str
    kind: str
    validation: float | None
    estimates: Mapping[str, Estimate]


class CollectionFacts(NamedTuple):
    """A collection; ``test`` counts its distinct test queries."""

    name: str
    version: str
    domain: str
    documents: int
    queries: int
    test: int


class SplitFacts(NamedTuple):
    """How queries were split; counts are over all collections, of one seed."""

    rule: str
    seeds: tuple[int, ...]
    labels: float
    train: int
    validation: int
    test: int


class CurvePoint(NamedTuple):
    """The primary measure of the candidates, by name, fitted on a share of the labels."""

    labels: float
    train: int
    estimates: Mapping[str, Estimate]


class Gain(NamedTuple):
    """What a candidate gains over the baseline on one collection.

    ``low`` and ``high`` bound the difference; ``p_holm`` is over the collections; ``detectable`` is
    the smallest true difference that such a test finds in 80 % of cases.
    """

    collection: str
    domain: str
    queries: int
    baseline: float
    mean: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    effect: float | None
    detectable: float | None
    large: float | None

    @property
    def p_shown(self) -> float | None:
        """The p value that marks and sentences go by: the corrected one where there is one."""
        return self.p if self.p_holm is None else self.p_holm


class Gains(NamedTuple):
    """Gains of one candidate, a row for each collection."""

    candidate: str
    rows: tuple[Gain, ...]


class GroupMeans(NamedTuple):
    """Means of the candidates, by name, over the queries of a collection or a domain.

    ``name`` is the collection, or the domain; ``collections`` is None for a collection.
    """

    name: str
    domain: str
    collections: int | None
    queries: int
    means: Mapping[str, float | None]


class Matrix(NamedTuple):
    """Means of a candidate trained on ``rows`` and measured on ``columns``, and the baseline's."""

    candidate: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    baseline: tuple[float | None, ...]


class QueryDifference(NamedTuple):
    """One query, and what the baseline and the candidate reach on it."""

    collection: str
    query: str
    text: str
    baseline: float
    value: float
    difference: float


class QueryValues(NamedTuple):
    """On how many queries a candidate is better; ``points`` are (baseline, value, number)."""

    candidate: str
    better: int
    equal: int
    worse: int
    points: tuple[tuple[float, float, int], ...]
    wins: tuple[QueryDifference, ...]
    losses: tuple[QueryDifference, ...]


class Scores(NamedTuple):
    """Scores of a candidate counted in the bins between b + 1 ``edges``, three times b counts.

    ``hardest`` has for each query the best-scored document that is not relevant, ``others`` all
    other documents.
    """

    candidate: str
    edges: tuple[float, ...]
    positives: tuple[int, ...]
    hardest: tuple[int, ...]
    others: tuple[int, ...]


class Stored(NamedTuple):
    """A measure with vectors stored as int8, and its difference from the full width."""

    mean: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None


class Report(NamedTuple):
    """The whole evaluation, checked, with clean texts."""

    title: str
    protocol: str
    primary: str
    measures: tuple[str, ...]
    chosen: str
    choice_reason: str
    collections: tuple[CollectionFacts, ...]
    split: SplitFacts
    encoders: Pairs
    candidates: tuple[Candidate, ...]
    curve: tuple[CurvePoint, ...]
    gains: Gains | None
    by_collection: tuple[GroupMeans, ...]
    by_domain: tuple[GroupMeans, ...]
    matrix: Matrix | None
    queries: QueryValues | None
    scores: tuple[Scores, ...]
    int8: Mapping[str, Mapping[str, Stored]]
    costs: Pairs
    inputs: Pairs
    configuration: Pairs
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    environment: Pairs

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, in order."""
        return tuple(candidate.name for candidate in self.candidates)
