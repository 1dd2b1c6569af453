"""What is estimated of the candidates: means, intervals, tests, gains, the curve of labels.

In: a ``Panel`` of the values of every query. Out: the parts of a report that hold statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from era_cache.evaluate.lined_up import BASELINE, SHIPPED, Panel, panel_of, shares_of
from era_cache.evaluate.results import Results
from era_cache.evaluate.statistics import (
    detectable_difference,
    effect_size,
    holm,
    macro_intervals,
    macro_randomisation_tests,
    seed_spread,
)
from era_cache.fitting.candidates import CANDIDATES, FUSED, fused_name, unfused_name
from era_cache.report.records import CurvePoint, Estimate, Gain, Gains
from era_cache.types import FloatArray

__all__ = ["beside_first_stage", "curve", "estimates", "gains", "mean_count", "number", "place"]

_JOINED = "joined with a first stage"
_ORDER = (*CANDIDATES, _JOINED, "large", SHIPPED)


def place(name: str) -> tuple[int, str]:
    """Where a candidate stands in every table: the known ones in their order, then by name."""
    base = unfused_name(name)
    if base != name:
        return _ORDER.index(_JOINED), f"{FUSED.index(base)} {name}"
    known = name in _ORDER
    return (_ORDER.index(name), "") if known else (len(_ORDER), name)


def estimates(
    panel: Panel, shown: Sequence[str], measures: Sequence[str], seed: int
) -> dict[str, dict[str, Estimate]]:
    """Mean, interval and comparison with the baseline, by candidate and measure."""
    groups = panel.groups(shown)
    others = [name for name in shown if name != BASELINE]
    base = shown.index(BASELINE)
    keep = [shown.index(name) for name in others]
    differences = [group[:, keep] - group[:, [base]] for group in groups]
    both = [np.concatenate(pair, axis=1) for pair in zip(groups, differences, strict=True)]
    intervals = _by_column(macro_intervals, both, seed)  # queries are drawn once for all
    means, gains = intervals[: len(shown)], intervals[len(shown) :]
    p_values = _by_column(macro_randomisation_tests, differences, seed)
    n_measures = groups[0].shape[2]
    corrected = [holm(p_values[:, m].tolist()) for m in range(n_measures)]
    table: dict[str, dict[str, Estimate]] = {}
    for i, name in enumerate(shown):
        column = panel.column(name)
        table[name] = {}
        for m, measure in enumerate(measures):
            sd = seed_spread(_whole(panel.by_seed[:, column, m]))
            mean, low, high = means[i, m].tolist()
            one = Estimate(mean, low, high, sd)
            if name != BASELINE:
                j = others.index(name)
                effects = [effect_size(group[:, j, m]) for group in differences]
                difference, difference_low, difference_high = gains[j, m].tolist()
                one = msgspec.structs.replace(
                    one,
                    difference=difference,
                    difference_low=difference_low,
                    difference_high=difference_high,
                    p=float(p_values[j, m]),
                    p_holm=corrected[m][j],
                    effect=sum(effects) / len(effects) if _finite(effects) else None,
                )
            table[name][measure] = one
    return table


def _by_column(function: Any, groups: Sequence[FloatArray], seed: int) -> FloatArray:
    """Apply a statistic of columns to (q, candidates, measures) groups."""
    _, n, m = groups[0].shape
    if not n:
        return np.empty((0, m))
    found: FloatArray = function([group.reshape(len(group), n * m) for group in groups], seed=seed)
    return found.reshape(n, m, *found.shape[1:])


def beside_first_stage(
    panel: Panel, chosen: str, measures: Sequence[str], primary: int, seed: int
) -> list[str]:
    """What the chosen candidate gains over a first stage, alone and joined with today's index.

    A sentence where there is one; p values are not corrected.
    """
    said = []
    runs = [name.removesuffix(f"+{BASELINE}") for name in panel.common if name != BASELINE]
    for run in (run for run in runs if fused_name(run, BASELINE) in panel.common):
        beside = (run, fused_name(run, BASELINE))
        others = [name for name in beside if name != chosen and name in panel.common]
        if others:
            mine, theirs = panel.column(chosen), [panel.column(name) for name in others]
            columns = [
                values[:, [mine], primary] - values[:, theirs, primary]
                for values in panel.values.values()
            ]
            found = zip(
                others,
                macro_intervals(columns, seed=seed).tolist(),
                macro_randomisation_tests(columns, seed=seed).tolist(),
                strict=True,
            )
            parts = []
            for other, (gain, low, high), p in found:
                shown = "< 0.001" if p < 0.001 else f"= {p:.3f}"
                parts.append(f"{other} {gain:+.3f} [{low:+.3f}, {high:+.3f}] (p {shown})")
            said.append(
                f"{chosen} against what may be run instead, {measures[primary]}: "
                f"{'; '.join(parts)}."
            )
    return list(dict.fromkeys(said))


def gains(results: Results, panel: Panel, chosen: str, primary: int, seed: int) -> Gains:
    """What the chosen candidate gains on each collection."""
    mine, base = panel.column(chosen), panel.column(BASELINE)
    columns = {
        name: (values[:, mine, primary] - values[:, base, primary])[:, None]
        for name, values in panel.values.items()
    }
    p_values = [float(macro_randomisation_tests([c], seed=seed)[0]) for c in columns.values()]
    rows = []
    for (name, column), p, corrected in zip(columns.items(), p_values, holm(p_values), strict=True):
        values = panel.values[name]
        ((difference, low, high),) = macro_intervals([column], seed=seed).tolist()
        large = None
        if "large" in panel.candidates:
            large = number(float(values[:, panel.column("large"), primary].mean()))
        rows.append(
            Gain(
                collection=name,
                domain=results.head.collections[name].domain,
                queries=len(values),
                baseline=float(values[:, base, primary].mean()),
                mean=float(values[:, mine, primary].mean()),
                difference=difference,
                low=low,
                high=high,
                p=p,
                effect=number(effect_size(column[:, 0])),
                detectable=number(detectable_difference(column[:, 0])),
                large=large,
                p_holm=corrected,
            )
        )
    return Gains(chosen, tuple(rows))


def curve(results: Results, panel: Panel, primary: int, seed: int) -> tuple[CurvePoint, ...]:
    """The label-efficiency curve: every share measured on the same test queries as the main one."""
    points = []
    for share in shares_of(results):
        here = panel if share == panel.labels else panel_of(results, share)
        if not _same_queries(here, panel):
            continue
        names = sorted(here.common, key=place)
        columns = [group[:, :, primary] for group in here.groups(names)]
        spreads = [
            seed_spread(_whole(here.by_seed[:, here.column(name), primary])) for name in names
        ]
        found = zip(names, macro_intervals(columns, seed=seed).tolist(), spreads, strict=True)
        candidates = {name: Estimate(mean, low, high, sd) for name, (mean, low, high), sd in found}
        points.append(CurvePoint(share, mean_count(results, here, "train"), candidates))
    return tuple(points)


def mean_count(results: Results, panel: Panel, part: str) -> int:
    """Queries of a part over the fits of one seed; of one fit where fits share their queries."""
    fits = len(panel.seeds)
    if results.head.protocol == "leave-one-domain-out":
        fits = len(panel.fits)
    return round(sum(fit.queries.get(part, 0) for fit in panel.fits) / fits)


def _same_queries(one: Panel, other: Panel) -> bool:
    """Whether two shares were measured on the same test queries, which curves need."""
    return set(one.rows) == set(other.rows) and all(
        np.array_equal(rows, other.rows[name]) for name, rows in one.rows.items()
    )


def number(value: float) -> float | None:
    """A number as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def _whole(values: FloatArray) -> list[float]:
    """The values of seeds that have all collections."""
    return [float(value) for value in values if not math.isnan(value)]
