"""Means by collection and by domain, and what was trained here and measured there.

In: ``Results`` and their ``Panel``. Out: the parts of a report that compare domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from era_cache.errors import InputError
from era_cache.evaluate.estimates import number, place
from era_cache.evaluate.lined_up import BASELINE, SHIPPED, Panel, chosen_of, matrix_of, panel_of
from era_cache.evaluate.results import Results
from era_cache.report.records import CollectionMeans, DomainMeans, Matrix

__all__ = ["across", "by_collection", "by_domain", "matrix", "other_queries"]


def by_collection(results: Results, panel: Panel, primary: int) -> tuple[CollectionMeans, ...]:
    """Means of every candidate on every collection."""
    return tuple(
        CollectionMeans(
            name,
            results.head.collections[name].domain,
            len(values),
            {
                candidate: number(float(values[:, panel.column(candidate), primary].mean()))
                for candidate in sorted(panel.candidates, key=place)
            },
        )
        for name, values in panel.values.items()
    )


def by_domain(rows: Sequence[CollectionMeans]) -> tuple[DomainMeans, ...]:
    """Means over the collections of each domain, then over domains."""
    names = list(rows[0].candidates)

    def means_of(some: Sequence[CollectionMeans | DomainMeans]) -> dict[str, float | None]:
        return {name: _mean([row.candidates[name] for row in some]) for name in names}

    found = []
    for domain in dict.fromkeys(row.domain for row in rows):
        mine = [row for row in rows if row.domain == domain]
        queries = sum(row.queries for row in mine)
        found.append(DomainMeans(domain, len(mine), queries, means_of(mine)))
    queries = sum(row.queries for row in rows)
    return (*found, DomainMeans("all domains", len(rows), queries, means_of(found)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def matrix(results: Results, share: float, primary: int) -> Matrix:
    """What adapters of one domain reach on the others."""
    rows, columns, values, baseline = matrix_of(results, share, primary)
    return Matrix(
        SHIPPED,
        tuple(rows),
        tuple(columns),
        tuple(tuple(map(number, row)) for row in values.tolist()),
        tuple(map(number, baseline.tolist())),
    )


def across(several: Sequence[Results], share: float) -> Matrix:
    """What each protocol shipped, by domain; None where it lacks a collection of the first."""
    first = several[0]
    expected: dict[str, int] = {}
    rows: list[tuple[str, str, dict[str, DomainMeans]]] = []
    for results in several:
        if _digests(results) != _digests(first):
            raise InputError(
                f"{results.head.title}: measured on other collections, or other versions of them, "
                f"than {first.head.title}; the two cannot be compared."
            )
        if first.head.primary not in results.head.measures:
            raise InputError(f"{results.head.title}: {first.head.primary} was not measured.")
        panel = panel_of(results, share)
        primary = results.head.measures.index(first.head.primary)
        means = by_domain(by_collection(results, panel, primary))
        expected = expected or {one.domain: one.collections for one in means}
        whole = {m.domain: m for m in means if m.collections == expected.get(m.domain)}
        rows.append((results.head.title, chosen_of(panel)[0], whole))

    def values(entries: Mapping[str, DomainMeans], name: str) -> tuple[float | None, ...]:
        found = (entries.get(domain) for domain in expected)
        return tuple(None if one is None else one.candidates.get(name) for one in found)

    return Matrix(
        SHIPPED,
        tuple(title for title, _, _ in rows),
        tuple(expected),
        tuple(values(entries, chosen) for _, chosen, entries in rows),
        values(rows[0][2], BASELINE),
    )


def other_queries(panel: Panel, first: Results, others: Sequence[Results]) -> list[str]:
    """Say where other test queries, as of other shuffles, make part of a difference."""
    notes = []
    for results in others:
        theirs = panel_of(results, panel.labels).rows
        differing = [n for n in panel.rows if not np.array_equal(panel.rows[n], theirs.get(n, []))]
        if differing:
            notes.append(
                f"{results.head.title} has other test queries than {first.head.title} on "
                f"{', '.join(differing)}: part of a difference between the two is theirs."
            )
    return notes


def _digests(results: Results) -> dict[str, str]:
    return {name: entry.digest for name, entry in results.head.collections.items()}
