"""Results lined up for comparison: the same queries of each collection under every candidate.

In: ``Results``. Out: arrays over queries, candidates and measures. A query that several shuffles of
the split tested counts once, with its mean: queries are what is sampled, seeds only repeat them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from era_cache.errors import FormatError
from era_cache.evaluate.results import SHIPPED, Fit, Head, Measured, Results
from era_cache.types import FloatArray, IntArray

__all__ = [
    "BASELINE",
    "SHIPPED",
    "Panel",
    "at_home",
    "chosen_of",
    "matrix_of",
    "panel_of",
    "shares_of",
]

BASELINE = "small"


class Panel(NamedTuple):
    """All that was measured at one share of the labels.

    ``values`` has for each collection (q, candidates, measures) float64, NaN where a candidate is
    missing; ``rows`` the query rows (q,). ``common`` are the candidates that no collection lacks.
    ``by_seed`` (seeds, candidates, measures) are means over collections, NaN likewise. ``units``
    are the fits with what their protocol means them to serve.
    """

    labels: float
    candidates: tuple[str, ...]
    common: tuple[str, ...]
    rows: dict[str, IntArray]
    values: dict[str, FloatArray]
    seeds: tuple[int, ...]
    by_seed: FloatArray
    units: tuple[tuple[Fit, Measured], ...]

    @property
    def fits(self) -> tuple[Fit, ...]:
        """The fits, each once."""
        return tuple({id(fit): fit for fit, _ in self.units}.values())

    def column(self, name: str) -> int:
        """Place of a candidate."""
        return self.candidates.index(name)

    def groups(self, names: Sequence[str]) -> list[FloatArray]:
        """Values of some candidates in each collection, (q, len(names), measures)."""
        columns = [self.column(name) for name in names]
        return [values[:, columns] for values in self.values.values()]


def at_home(head: Head, fit: Fit, measured: Measured) -> bool:
    """Whether a fit is the one that its protocol means to serve this collection."""
    if head.protocol == "each":
        return fit.trained_on == measured.collection
    if head.protocol == "domain-specific":
        return fit.trained_on == head.collections[measured.collection].domain
    return True


def shares_of(results: Results) -> list[float]:
    """The shares of the labels that were measured, smallest first."""
    head, fits = results.head, results.fits
    return sorted({fit.labels for fit, _ in _units(head, fits)})


def panel_of(results: Results, labels: float) -> Panel:
    """Line up what was measured at a share of the labels.

    Raises:
        FormatError: nothing was.
    """
    units = tuple(_units(results.head, [fit for fit in results.fits if fit.labels == labels]))
    if not units:
        known = ", ".join(f"{100 * share:g} %" for share in shares_of(results))
        raise FormatError(
            f"{results.head.title}: nothing was measured at {100 * labels:g} % of the labels"
            + (f", only at {known}." if known else ".")
        )
    several = len({id(fit) for fit, _ in units}) > 1
    names = list(dict.fromkeys(name for _, one in units for name in one.candidates))
    names += [SHIPPED] if several else []
    rows: dict[str, IntArray] = {}
    values: dict[str, FloatArray] = {}
    seeds = sorted({fit.split_seed for fit, _ in units})
    present = [
        name for name in results.head.collections if any(name == m.collection for _, m in units)
    ]
    by_seed = np.full((len(seeds), len(present), len(names), len(results.head.measures)), np.nan)
    for number, collection in enumerate(present):
        mine = [(fit, one) for fit, one in units if one.collection == collection]
        rows[collection] = np.unique(np.concatenate([one.query_rows for _, one in mine]))
        total = np.zeros((len(rows[collection]), *by_seed.shape[2:]))
        count = np.zeros((len(total), 1, 1))
        for fit, one in mine:
            found = _aligned(fit, one, names)
            place = np.searchsorted(rows[collection], one.query_rows)
            total[place] += found
            count[place] += 1
            by_seed[seeds.index(fit.split_seed), number] = found.mean(axis=0)
        values[collection] = total / count
    whole = [~np.isnan(found).any(axis=(0, 2)) for found in values.values()]
    common = tuple(name for name, mask in zip(names, np.all(whole, axis=0), strict=True) if mask)
    return Panel(
        labels,
        tuple(names),
        common,
        rows,
        values,
        tuple(seeds),
        by_seed.mean(axis=1),
        units,
    )


def _units(head: Head, fits: Sequence[Fit]) -> Iterator[tuple[Fit, Measured]]:
    for fit in sorted(fits, key=lambda fit: (fit.split_seed, fit.trained_on)):
        for measured in fit.measured:
            if at_home(head, fit, measured):
                yield fit, measured


def _aligned(fit: Fit, one: Measured, names: Sequence[str]) -> FloatArray:
    """Values (q, len(names), measures), NaN for what is missing."""
    found = np.full((one.values.shape[2], len(names), one.values.shape[1]), np.nan)
    for column, name in enumerate(names):
        wanted = fit.chosen if name == SHIPPED else name
        if wanted in one.candidates:
            found[:, column] = one.values[one.candidates.index(wanted)].T
    return found


def matrix_of(
    results: Results, labels: float, measure: int
) -> tuple[list[str], list[str], FloatArray, FloatArray]:
    """What each fit shipped, on each domain that it was measured on.

    Returns:
        What was trained on (rows), domains (columns), (rows, columns) means over collections,
        queries and seeds with NaN where nothing was measured, and (columns,) the baseline's.
    """
    fits = [fit for fit in results.fits if fit.labels == labels]
    domains = list(dict.fromkeys(e.domain for e in results.head.collections.values()))
    trained = list(dict.fromkeys(fit.trained_on for fit in fits))
    trained.sort(key=lambda name: domains.index(name) if name in domains else len(domains))
    cells: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for fit in fits:
        for one in fit.measured:
            domain = results.head.collections[one.collection].domain
            shipped = one.values[one.candidates.index(fit.chosen), measure].mean()
            base = np.nan
            if BASELINE in one.candidates:
                base = one.values[one.candidates.index(BASELINE), measure].mean()
            cell = cells.setdefault((fit.trained_on, domain, one.collection), [])
            cell.append((float(shipped), float(base)))
    values = np.full((len(trained), len(domains), 2), np.nan)
    for i, row in enumerate(trained):
        for j, domain in enumerate(domains):
            means = [
                np.mean(found, axis=0)
                for (t, d, _), found in cells.items()
                if (t, d) == (row, domain)
            ]
            if means:
                values[i, j] = np.mean(means, axis=0)
    measured = ~np.isnan(values[:, :, 1])
    sums = np.where(measured, values[:, :, 1], 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        baseline = sums / measured.sum(axis=0)
    return trained, domains, values[:, :, 0], baseline


def chosen_of(panel: Panel) -> tuple[str, str]:
    """The candidate to look at, and why it is the one."""
    if SHIPPED in panel.candidates:
        counts: dict[str, int] = {}
        for fit in panel.fits:
            counts[fit.chosen] = counts.get(fit.chosen, 0) + 1
        often = ", ".join(
            f"{name} {n}"
            for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        )
        return SHIPPED, f"What was chosen in each of {len(panel.fits)} fits: {often}."
    reason = panel.fits[0].reason.rstrip(".")  # as fitting says it, in the middle of a sentence
    return panel.fits[0].chosen, f"{reason[:1].upper()}{reason[1:]}."
