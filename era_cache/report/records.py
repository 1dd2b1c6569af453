"""The record of an evaluation: what an analysis finds, what ``evaluation.json`` holds.

In: fields, or that file. Out: a ``Report``, whose texts are of others until ``cleaned`` made them
fit to be shown. All numbers are shares (0 to 1) unless said otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from era_cache.disk.json_files import Record, from_plain
from era_cache.disk.shown import clean, printable
from era_cache.errors import FormatError

__all__ = [
    "BASELINE",
    "CEILING",
    "Candidate",
    "CollectionFacts",
    "CollectionMeans",
    "CurvePoint",
    "DomainMeans",
    "Estimate",
    "Fact",
    "Gain",
    "Gains",
    "Matrix",
    "QueryDifference",
    "QueryValues",
    "Report",
    "Scores",
    "SplitFacts",
    "Stored",
    "cleaned",
]

BASELINE = "small"
CEILING = "large"
"""What a full re-encode would reach: shown, but no candidate for the best."""

_DEEPEST = 4
Number = Annotated[float, Meta(gt=-1e15, lt=1e15)]
Count = Annotated[int, Meta(ge=0, lt=10**15)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the record."""


class Estimate(_Part, frozen=True):
    """A mean with its 95 % interval and, where compared, its difference from the baseline.

    ``sd`` is over the seeds of the split, None for one seed; ``effect`` is Cohen's d of the paired
    differences, None where it has none.
    """

    mean: Number
    low: Number
    high: Number
    sd: Number | None
    difference: Number | None = None
    difference_low: Number | None = None
    difference_high: Number | None = None
    p: Number | None = None
    p_holm: Number | None = None
    effect: Number | UnsetType | None = UNSET

    @property
    def p_shown(self) -> float | None:
        """The p value that marks and sentences go by: the corrected one where there is one."""
        return self.p if self.p_holm is None else self.p_holm


class Candidate(_Part, frozen=True):
    """A way to serve the queries and, for each measure, its estimate on the test queries."""

    name: str
    kind: str
    validation: Number | None
    measures: dict[str, Estimate]


class CollectionFacts(_Part, frozen=True):
    """A collection; ``test`` counts its distinct test queries."""

    name: str
    version: str
    domain: str
    documents: Count
    queries: Count
    test: Count


class SplitFacts(_Part, frozen=True):
    """How queries were split; counts are over all collections, of one seed."""

    rule: str
    seeds: tuple[int, ...]
    labels: Number
    train: Count
    validation: Count
    test: Count


class CurvePoint(_Part, frozen=True):
    """The primary measure of the candidates, by name, fitted on a share of the labels."""

    labels: Number
    train: Count
    candidates: dict[str, Estimate]


class Gain(_Part, frozen=True):
    """What a candidate gains over the baseline on one collection.

    ``low`` and ``high`` bound the difference; ``p_holm`` is over the collections; ``detectable`` is
    the smallest true difference that such a test finds in 80 % of cases.
    """

    collection: str
    domain: str
    queries: Count
    baseline: Number
    mean: Number
    difference: Number
    low: Number
    high: Number
    p: Number
    effect: Number | None
    detectable: Number | None
    large: Number | None
    p_holm: Number


class Gains(_Part, frozen=True):
    """Gains of one candidate, a row for each collection."""

    candidate: str
    rows: tuple[Gain, ...]


class CollectionMeans(_Part, frozen=True):
    """Means of the candidates, by name, over the queries of a collection."""

    collection: str
    domain: str
    queries: Count
    candidates: dict[str, Number | None]


class DomainMeans(_Part, frozen=True):
    """Means of the candidates, by name, over the collections of a domain."""

    domain: str
    collections: Count
    queries: Count
    candidates: dict[str, Number | None]


class Matrix(_Part, frozen=True):
    """Means of a candidate trained on ``rows`` and measured on ``columns``, and the baseline's."""

    candidate: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Number | None, ...], ...]
    baseline: tuple[Number | None, ...]

    def __post_init__(self) -> None:
        """Refuse values that do not fill the matrix."""
        widths = {len(row) for row in (*self.values, self.baseline)}
        if len(self.values) != len(self.rows) or widths != {len(self.columns)}:
            raise ValueError("the matrix has other rows or columns than it names")


class QueryDifference(_Part, frozen=True):
    """One query, its text where known, and what the baseline and the candidate reach on it."""

    collection: str
    query: str
    text: str | None
    baseline: Number
    value: Number
    difference: Number


class QueryValues(_Part, frozen=True):
    """On how many queries a candidate is better; ``points`` are (baseline, value, number)."""

    candidate: str
    better: Count
    equal: Count
    worse: Count
    points: Annotated[tuple[tuple[Number, Number, Count], ...], Meta(max_length=2000)]
    wins: tuple[QueryDifference, ...]
    losses: tuple[QueryDifference, ...]


class Scores(_Part, frozen=True):
    """Scores of a candidate counted in the bins between b + 1 ``edges``, three times b counts.

    ``hardest`` has for each query the best-scored document that is not relevant, ``others`` all
    documents that are not.
    """

    candidate: str
    edges: Annotated[tuple[Number, ...], Meta(min_length=2)]
    positives: tuple[Count, ...]
    hardest: tuple[Count, ...]
    others: tuple[Count, ...]

    def __post_init__(self) -> None:
        """Refuse counts without their bins."""
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("the edges of the scores do not increase")
        if {len(self.positives), len(self.hardest), len(self.others)} != {len(self.edges) - 1}:
            raise ValueError("the counts of the scores do not fit their edges")


class Stored(_Part, frozen=True):
    """A measure with vectors stored as int8, and its difference from the full width."""

    mean: Number
    difference: Number
    difference_low: Number
    difference_high: Number
    p: Number


class Fact(_Part, frozen=True):
    """Something and what it is or costs, in words."""

    what: str
    value: str


class Report(Record, frozen=True, omit_defaults=True):
    """The whole evaluation; the last five are there where several things were measured."""

    FORMAT: ClassVar[str] = "era-evaluation"
    VERSION: ClassVar[int] = 2

    title: str
    protocol: str
    primary: str
    measures: tuple[str, ...]
    chosen: str
    choice_reason: str
    collections: Annotated[tuple[CollectionFacts, ...], Meta(min_length=1)]
    split: SplitFacts
    encoders: dict[str, str]
    candidates: tuple[Candidate, ...]
    gains: Gains
    queries: QueryValues
    scores: tuple[Scores, ...]
    costs: tuple[Fact, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    environment: dict[str, str]
    inputs: tuple[Fact, ...]
    configuration: dict[str, Any]
    int8: dict[str, dict[str, Stored]] | None = None
    curve: tuple[CurvePoint, ...] = ()
    by_collection: tuple[CollectionMeans, ...] = ()
    by_domain: tuple[DomainMeans, ...] = ()
    matrix: Matrix | None = None

    def __post_init__(self) -> None:
        """Refuse what the parts do not say of each other."""
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two candidates are called {name!r}")
        if self.chosen not in names:
            raise ValueError(f"the chosen {self.chosen!r} is not one of the candidates")
        if self.primary not in self.measures:
            raise ValueError(f"the primary measure {self.primary!r} is not among the measures")
        for candidate in self.candidates:
            missing = set(self.measures) - set(candidate.measures)
            if missing:
                raise ValueError(f"{candidate.name} lacks the measure {min(missing)!r}")

    def plain(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {"format": self.FORMAT, "version": self.VERSION, **msgspec.to_builtins(self)}

    @property
    def facts(self) -> dict[str, list[tuple[str, str]]]:
        """What is pairs of words: costs, inputs, configuration, environment."""
        shown = {k: _percent(v) if k in _SHARES else v for k, v in self.configuration.items()}
        return {
            "costs": [(fact.what, fact.value) for fact in self.costs],
            "inputs": [(fact.what, fact.value) for fact in self.inputs],
            "configuration": list(_flat("", shown)),
            "environment": list(self.environment.items()),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, in order."""
        return tuple(candidate.name for candidate in self.candidates)


def cleaned(report: Report) -> Report:
    """Make all texts of a report fit to be shown: the way of every report into every form.

    Raises:
        FormatError: numbers or names are damaged, also once their texts are cleaned.
    """
    try:
        plain = _clean(msgspec.to_builtins(report))
    except RecursionError as error:
        raise FormatError("Evaluation record: damaged: values are nested too deep.") from error
    # Line breaks and runs of spaces mean something in a command, so they stay.
    plain["commands"] = ["\n".join(map(printable, c.splitlines())) for c in report.commands]
    return from_plain(plain, Report, "Evaluation record")


_SHARES = ("labels", "test", "validation")
"""Options that are shares, which people read in percent."""


def _percent(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_percent(one) for one in value]
    return f"{100 * value:g} %" if type(value) in (int, float) else value


def _flat(start: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Options with dotted names; what is nested deeper than makes sense stays JSON."""
    if isinstance(value, dict) and (value or not depth) and depth < _DEEPEST:
        for name, inner in value.items():
            yield from _flat(f"{start}.{name}" if start else str(name), inner, depth + 1)
    else:
        yield start, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean(name): _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return clean(value) if isinstance(value, str) else value
