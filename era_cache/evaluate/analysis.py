"""From what was measured to what a report says: means, intervals, tests, wins and losses.

In: ``Results``. Out: the evaluation record (docs/format.md), plain JSON values, which every form of
a report shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from era_cache.errors import FormatError, InputError
from era_cache.evaluate.lined_up import BASELINE, SHIPPED, Panel, matrix_of, panel_of, shares_of
from era_cache.evaluate.results_folder import EDGES, Head, Histogram, Results, job_name
from era_cache.evaluate.statistics import (
    detectable_difference,
    effect_size,
    holm,
    macro_intervals,
    macro_randomisation_tests,
    seed_spread,
)
from era_cache.fitting.candidates import CANDIDATES
from era_cache.types import FloatArray

__all__ = ["default_share", "record_of"]

FORMAT, VERSION = "era-evaluation", 2
KINDS = {
    **CANDIDATES,
    "large": "the large encoder on both sides: a full re-encode",
    SHIPPED: "what held-out labels chose in each fit",
}
_PAPERS_SHARE = 0.2
_LISTED = 20
_POINTS = 2000
_FEW = 50
_ORDER = (*CANDIDATES, "large", SHIPPED)


def default_share(results: Results) -> float:
    """The share of the labels that tables are about.

    The adapter's own where a folder was measured, else 20 % where measured, else the largest.

    Raises:
        FormatError: nothing was measured.
    """
    shares = shares_of(results)
    if not shares:
        raise FormatError(
            f"{results.head.title}: these results hold no fit yet. Run the command that makes them "
            "again."
        )
    own = results.head.configuration.get("labels")
    if results.head.protocol == "adapter" and own in shares:
        return float(own)
    return _PAPERS_SHARE if _PAPERS_SHARE in shares else shares[-1]


def record_of(
    results: Results,
    *,
    labels: float | None = None,
    seed: int = 0,
    texts: Mapping[str, Mapping[str, str]] | None = None,
    others: Sequence[Results] = (),
) -> dict[str, Any]:
    """Analyse results.

    Args:
        results: what was measured.
        labels: the share of the labels that tables are about; None for ``default_share``.
        seed: of bootstrap and randomisation.
        texts: query texts by collection and id, shown beside the largest wins and losses.
        others: results of other protocols on the same collections, compared by domain.

    Raises:
        FormatError: nothing was measured at that share of the labels, or ``small`` was not.
        InputError: ``others`` are of other collections.
    """
    share = default_share(results) if labels is None else labels
    panel, head = panel_of(results, share), results.head
    if BASELINE not in panel.common:
        raise FormatError(
            f"{head.title}: these results lack '{BASELINE}', which everything is compared with."
        )
    measures, primary = head.measures, head.measures.index(head.primary)
    shown = sorted(panel.common, key=_place)
    chosen, reason = _chosen(panel)
    table = _estimates(panel, shown, seed)
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "title": head.title,
        "protocol": head.protocol,
        "primary": head.primary,
        "measures": list(measures),
        "chosen": chosen,
        "choice_reason": reason,
        "collections": _collections(results, panel),
        "split": _split(results, panel),
        "encoders": {side: _encoder(head.encoders, side) for side in ("query", "document")},
        "candidates": [
            {
                "name": name,
                "kind": _kind(name, head),
                "validation": _held_out(panel, name),
                "measures": dict(zip(measures, table[name], strict=True)),
            }
            for name in shown
        ],
        "gains": {"candidate": chosen, "rows": _gains(results, panel, chosen, primary, seed)},
        "queries": _queries(results, panel, chosen, primary, texts or {}),
        "scores": _scores(panel, chosen),
        "costs": [*_seconds(panel), *(dict(cost) for cost in head.costs)],
        "commands": list(head.commands),
        "notes": [*_notes(results, panel, shown), *head.notes],
        "environment": dict(head.environment),
        "inputs": _inputs(results),
        "configuration": dict(head.configuration),
    }
    if "int8" in head.extra:
        record["int8"] = head.extra["int8"]
    if len(shares_of(results)) > 1:
        record["curve"] = _curve(results, panel, primary, seed)
        shown_at = {point["labels"] for point in record["curve"]}
        left = [f"{100 * one:g} %" for one in shares_of(results) if one not in shown_at]
        if left:
            record["notes"].append(
                f"Not in the curve, because a collection was not measured there: {', '.join(left)}."
            )
    if len(panel.values) > 1:
        record["by_collection"] = _by_collection(results, panel, primary)
        record["by_domain"] = _by_domain(record["by_collection"])
    if others:
        record["matrix"] = _across([results, *others], share)
        record["notes"] += _other_queries(panel, results, others)
    elif head.protocol == "domain-specific":
        record["matrix"] = _matrix(results, share, primary)
    return record


def _kind(name: str, head: Head) -> str:
    """What a row is."""
    if f"run {name}" in head.adapters:
        return "a run of another system"
    return KINDS.get(name, "another adapter folder")


def _place(name: str) -> tuple[int, str]:
    known = name in _ORDER
    return (_ORDER.index(name), "") if known else (len(_ORDER), name)


def _encoder(encoders: Mapping[str, Any], side: str) -> str:
    entry = encoders.get(side, {})
    return f"{entry.get('name', 'unknown')} ({str(entry.get('fingerprint', ''))[:12]})"


def _chosen(panel: Panel) -> tuple[str, str]:
    """The candidate to look at, and why it is the one."""
    if SHIPPED in panel.candidates:
        counts: dict[str, int] = {}
        for fit in panel.fits:
            counts[fit.chosen] = counts.get(fit.chosen, 0) + 1
        often = ", ".join(
            f"{name} {n}"
            for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        )
        return SHIPPED, f"What held-out labels chose in each of {len(panel.fits)} fits: {often}."
    reason = panel.fits[0].reason.rstrip(".")  # as fitting says it, in the middle of a sentence
    return panel.fits[0].chosen, f"{reason[:1].upper()}{reason[1:]}."


def _held_out(panel: Panel, name: str) -> float | None:
    values = [
        fit.held_out[wanted]
        for fit in panel.fits
        for wanted in [fit.chosen if name == SHIPPED else name]
        if wanted in fit.held_out
    ]
    return float(np.mean(values)) if len(values) == len(panel.fits) else None


def _number(value: float) -> float | None:
    """A number as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def _whole(values: FloatArray) -> list[float]:
    """The values of seeds that have all collections."""
    return [float(value) for value in values if not math.isnan(value)]


def _estimates(panel: Panel, shown: Sequence[str], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Mean, interval and comparison with the baseline, by candidate and measure."""
    groups = panel.groups(shown)
    others = [name for name in shown if name != BASELINE]
    base = shown.index(BASELINE)
    keep = [shown.index(name) for name in others]
    differences = [group[:, keep] - group[:, [base]] for group in groups]
    means = _by_column(macro_intervals, groups, seed)
    gains = _by_column(macro_intervals, differences, seed)
    p_values = _by_column(macro_randomisation_tests, differences, seed)
    n_measures = groups[0].shape[2]
    corrected = [holm(p_values[:, m].tolist()) for m in range(n_measures)]
    table: dict[str, list[dict[str, Any]]] = {}
    for i, name in enumerate(shown):
        column, entries = panel.column(name), []
        for m in range(n_measures):
            mean, low, high = (float(v) for v in means[i, m])
            entry: dict[str, Any] = {"mean": mean, "low": low, "high": high}
            entry["sd"] = seed_spread(_whole(panel.by_seed[:, column, m]))
            if name != BASELINE:
                j = others.index(name)
                effects = [effect_size(group[:, j, m]) for group in differences]
                entry |= dict(
                    zip(
                        ("difference", "difference_low", "difference_high"),
                        (float(v) for v in gains[j, m]),
                        strict=True,
                    )
                )
                entry |= {"p": float(p_values[j, m]), "p_holm": corrected[m][j]}
                entry["effect"] = _number(sum(effects) / len(effects)) if _finite(effects) else None
            entries.append(entry)
        table[name] = entries
    return table


def _by_column(function: Any, groups: Sequence[FloatArray], seed: int) -> FloatArray:
    """Apply a statistic of columns to (q, candidates, measures) groups."""
    _, n, m = groups[0].shape
    if not n:
        return np.empty((0, m))
    found: FloatArray = function([group.reshape(len(group), n * m) for group in groups], seed=seed)
    return found.reshape(n, m, *found.shape[1:])


def _gains(
    results: Results, panel: Panel, chosen: str, primary: int, seed: int
) -> list[dict[str, Any]]:
    """What the chosen candidate gains on each collection."""
    rows = []
    mine, base = panel.column(chosen), panel.column(BASELINE)
    for name, values in panel.values.items():
        difference = values[:, mine, primary] - values[:, base, primary]
        column = difference[:, None]
        ((mean, low, high),) = macro_intervals([column], seed=seed)
        row: dict[str, Any] = {
            "collection": name,
            "domain": str(results.head.collections[name]["domain"]),
            "queries": len(values),
            "baseline": float(values[:, base, primary].mean()),
            "mean": float(values[:, mine, primary].mean()),
            "difference": float(mean),
            "low": float(low),
            "high": float(high),
            "p": float(macro_randomisation_tests([column], seed=seed)[0]),
            "effect": _number(effect_size(difference)),
            "detectable": _number(detectable_difference(difference)),
        }
        large = None
        if "large" in panel.candidates:
            large = _number(float(values[:, panel.column("large"), primary].mean()))
        rows.append({**row, "large": large})
    for row, corrected in zip(rows, holm([float(row["p"]) for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def _curve(results: Results, panel: Panel, primary: int, seed: int) -> list[dict[str, Any]]:
    """The label-efficiency curve: every share measured on the same test queries as the main one."""
    points = []
    for share in shares_of(results):
        here = panel if share == panel.labels else panel_of(results, share)
        if not _same_queries(here, panel):
            continue
        names = sorted(here.common, key=_place)
        columns = [group[:, :, primary] for group in here.groups(names)]
        spreads = [
            seed_spread(_whole(here.by_seed[:, here.column(name), primary])) for name in names
        ]
        points.append(
            {
                "labels": share,
                "train": _mean_count(results, here, "train"),
                "candidates": {
                    name: {"mean": float(mean), "low": float(low), "high": float(high), "sd": sd}
                    for name, (mean, low, high), sd in zip(
                        names, macro_intervals(columns, seed=seed), spreads, strict=True
                    )
                },
            }
        )
    return points


def _same_queries(one: Panel, other: Panel) -> bool:
    """Whether two shares were measured on the same test queries, which curves need."""
    return set(one.rows) == set(other.rows) and all(
        np.array_equal(rows, other.rows[name]) for name, rows in one.rows.items()
    )


def _mean_count(results: Results, panel: Panel, part: str) -> int:
    """Queries of a part over the fits of one seed; of one fit where fits share their queries."""
    fits = len(panel.seeds)
    if results.head.protocol == "leave-one-domain-out":
        fits = len(panel.fits)
    return round(sum(fit.queries.get(part, 0) for fit in panel.fits) / fits)


def _by_collection(results: Results, panel: Panel, primary: int) -> list[dict[str, Any]]:
    return [
        {
            "collection": name,
            "domain": str(results.head.collections[name]["domain"]),
            "queries": len(values),
            "candidates": {
                candidate: _number(float(values[:, panel.column(candidate), primary].mean()))
                for candidate in sorted(panel.candidates, key=_place)
            },
        }
        for name, values in panel.values.items()
    ]


def _by_domain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over the collections of each domain, then over domains."""

    def mean_of(some: Sequence[Mapping[str, Any]], name: str) -> float | None:
        values = [row["candidates"][name] for row in some]
        return None if None in values else float(np.mean(values))

    found = []
    for domain in dict.fromkeys(row["domain"] for row in rows):
        mine = [row for row in rows if row["domain"] == domain]
        found.append(
            {
                "domain": domain,
                "collections": len(mine),
                "queries": sum(row["queries"] for row in mine),
                "candidates": {name: mean_of(mine, name) for name in rows[0]["candidates"]},
            }
        )
    every = {
        "domain": "all domains",
        "collections": len(rows),
        "queries": sum(row["queries"] for row in rows),
        "candidates": {name: mean_of(found, name) for name in rows[0]["candidates"]},
    }
    return [*found, every]


def _matrix(results: Results, share: float, primary: int) -> dict[str, Any]:
    rows, columns, values, baseline = matrix_of(results, share, primary)
    return {
        "candidate": SHIPPED,
        "rows": rows,
        "columns": columns,
        "values": [[_number(float(v)) for v in row] for row in values],
        "baseline": [_number(float(v)) for v in baseline],
    }


def _across(several: Sequence[Results], share: float) -> dict[str, Any]:
    """What each protocol shipped, by domain; None where it lacks a collection of the first."""
    first = several[0]
    expected: dict[str, int] = {}
    rows: list[tuple[str, str, dict[str, dict[str, Any]]]] = []
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
        means = _by_domain(_by_collection(results, panel, primary))
        expected = expected or {entry["domain"]: entry["collections"] for entry in means}
        whole = {e["domain"]: e for e in means if e["collections"] == expected.get(e["domain"])}
        rows.append((results.head.title, _chosen(panel)[0], whole))

    def values(entries: Mapping[str, Mapping[str, Any]], name: str) -> list[float | None]:
        found = [entries.get(domain, {"candidates": {}}) for domain in expected]
        return [entry["candidates"].get(name) for entry in found]

    return {
        "candidate": SHIPPED,
        "rows": [title for title, _, _ in rows],
        "columns": list(expected),
        "values": [values(entries, chosen) for _, chosen, entries in rows],
        "baseline": values(rows[0][2], BASELINE),
    }


def _other_queries(panel: Panel, first: Results, others: Sequence[Results]) -> list[str]:
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
    return {name: str(entry["digest"]) for name, entry in results.head.collections.items()}


def _queries(
    results: Results,
    panel: Panel,
    chosen: str,
    primary: int,
    texts: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Every query under the baseline and the chosen candidate, and the largest differences."""
    mine, base = panel.column(chosen), panel.column(BASELINE)
    before = np.concatenate([v[:, base, primary] for v in panel.values.values()])
    after = np.concatenate([v[:, mine, primary] for v in panel.values.values()])
    names = list(panel.values)
    owner = np.repeat(np.arange(len(names)), [len(v) for v in panel.values.values()])
    rows = np.concatenate(list(panel.rows.values()))
    difference = after - before

    def listed(order: Any) -> Iterator[dict[str, Any]]:
        for i in order[:_LISTED].tolist():
            name = names[owner[i]]
            query = results.query_ids[name][int(rows[i])]
            yield {
                "collection": name,
                "query": query,
                "text": texts.get(name, {}).get(query),
                "baseline": float(before[i]),
                "value": float(after[i]),
                "difference": float(difference[i]),
            }

    falling = np.argsort(-difference, kind="stable")
    rising = np.argsort(difference, kind="stable")
    return {
        "candidate": chosen,
        "better": int((difference > 0).sum()),
        "equal": int((difference == 0).sum()),
        "worse": int((difference < 0).sum()),
        "points": _points(before, after),
        "wins": list(listed(falling[difference[falling] > 0])),
        "losses": list(listed(rising[difference[rising] < 0])),
    }


def _points(before: FloatArray, after: FloatArray) -> list[list[float]]:
    """Pairs of values with how often they occur, on a grid coarse enough for a drawing."""
    for steps in (1000, 200, 100, 50, 40):
        pairs = np.rint(np.stack([before, after], axis=1) * steps)
        distinct, counts = np.unique(pairs, axis=0, return_counts=True)
        if len(distinct) <= _POINTS:
            break
    return [
        [x / steps, y / steps, int(n)]
        for (x, y), n in zip(distinct.tolist(), counts.tolist(), strict=True)
    ]


def _scores(panel: Panel, chosen: str) -> list[dict[str, Any]]:
    """Histograms of scores, before and after, over all fits."""
    found = []
    for name in dict.fromkeys((BASELINE, chosen)):
        total = [np.zeros(len(EDGES) - 1, dtype=np.int64) for _ in Histogram._fields]
        some = False
        for fit, one in panel.units:
            histogram = one.scores.get(fit.chosen if name == SHIPPED else name)
            if histogram is not None:
                some = True
                total = [a + b for a, b in zip(total, histogram, strict=True)]
        if some:
            counts = {part: t.tolist() for part, t in zip(Histogram._fields, total, strict=True)}
            found.append({"candidate": name, "edges": EDGES.tolist(), **counts})
    return found


def _collections(results: Results, panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "version": str(results.head.collections[name]["digest"])[:12],
            "domain": str(results.head.collections[name]["domain"]),
            "documents": results.head.collections[name]["documents"],
            "queries": results.head.collections[name]["queries"],
            "test": len(rows),
        }
        for name, rows in panel.rows.items()
    ]


def _split(results: Results, panel: Panel) -> dict[str, Any]:
    tested = sum(one.values.shape[2] for _, one in panel.units)
    return {
        "rule": str(results.head.configuration.get("split", "paper")),
        "seeds": list(panel.seeds),
        "labels": panel.labels,
        "train": _mean_count(results, panel, "train"),
        "validation": _mean_count(results, panel, "validation"),
        "test": round(tested / len(panel.seeds)),
    }


def _seconds(panel: Panel) -> list[dict[str, str]]:
    def spent(*steps: str) -> float:
        return sum(fit.seconds.get(step, 0.0) for fit in panel.fits for step in steps)

    trained = {step for fit in panel.fits for step in fit.seconds} - {"align", "evaluate"}
    fits = f", {len(panel.fits)} fits" if len(panel.fits) > 1 else ""
    return [
        {"what": f"alignment{fits}", "value": f"{spent('align'):.2f} s"},
        {"what": f"training, all candidates{fits}", "value": f"{spent(*sorted(trained)):.1f} s"},
        {"what": f"measuring on test queries{fits}", "value": f"{spent('evaluate'):.1f} s"},
    ]


def _notes(results: Results, panel: Panel, shown: Sequence[str]) -> list[str]:
    several = len(panel.values) > 1
    notes = [
        "Intervals are 95 % bootstrap intervals over test queries"
        + (", drawn within each collection" if several else "")
        + "; p values are of the paired randomisation test against small, corrected by Holm's "
        "method over the candidates of one measure"
        + (", or over collections." if several else "."),
        "Rankings keep the first 1,000 documents at most; ties go by document id as in trec_eval.",
    ]
    if several:
        notes.append(
            "Means over collections count each collection once, whatever its size; the row 'all "
            "domains' counts each domain once. Counts of queries, and the drawing query by query, "
            "pool the queries of all collections."
        )
    if results.head.protocol == "leave-one-domain-out":
        notes.append(
            "Held-out means are over the collections that were trained on, not those measured; "
            "numbers of training queries are means over the fits."
        )
    if len({fit.chosen for fit in panel.fits}) > 1:
        chosen = dict.fromkeys(f"{fit.trained_on} {fit.chosen}" for fit in panel.fits)
        notes.append(f"Shipped, by what was trained on: {', '.join(chosen)}.")
    if len(panel.seeds) > 1:
        notes.append(
            "A query that several shuffles tested counts once, with its mean; ± is the standard "
            "deviation over shuffles of the mean over collections."
        )
    missing = sorted(set(panel.candidates) - set(shown), key=_place)
    if missing:
        notes.append(
            f"Not in the tables, because a collection lacks it: {', '.join(missing)}. (large: "
            "era-embed --large-corpus stores what it needs.)"
        )
    elif "large" not in panel.candidates:
        notes.append("No row 'large': era-embed --large-corpus stores what it needs.")
    few = [f"{name} {len(rows)}" for name, rows in panel.rows.items() if len(rows) < _FEW]
    if few:
        notes.append(
            f"Few test queries ({', '.join(few)}): differences of a few points are noise there."
        )
    judging = [fit.queries["judging"] for fit in panel.fits if "judging" in fit.queries]
    if judging and min(judging) < _FEW:
        notes.append(
            f"As few as {min(judging)} labelled queries judged a choice: it may be a wrong one."
        )
    for name, found in results.head.extra.get("int8", {}).items():
        if name in (BASELINE, panel.fits[0].chosen):
            row = found[results.head.primary]
            notes.append(
                f"Stored as int8, {name} would measure {row['mean']:.4f} {results.head.primary}: "
                f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, "
                f"{row['difference_high']:+.4f}]."
            )
    planned = results.head.extra.get("planned", ())
    left = set(planned) - {job_name(fit.job) for fit in results.fits}
    if left:
        notes.append(
            f"Unfinished: {len(planned) - len(left)} of {len(planned)} fits. The same command goes "
            "on."
        )
    absent = [name for name in results.head.collections if name not in panel.values]
    if absent:
        notes.append(
            f"Not measured at {100 * panel.labels:g} % of the labels, and in no mean: "
            f"{', '.join(absent)}."
        )
    return notes


def _inputs(results: Results) -> list[dict[str, str]]:
    head = results.head
    return [
        *(
            {"what": f"collection {name}", "value": str(entry["digest"])}
            for name, entry in head.collections.items()
        ),
        *(
            {"what": f"encoder, {side.replace('_', ' ')}", "value": str(entry["fingerprint"])}
            for side, entry in head.encoders.items()
        ),
        *({"what": f"adapter {name}", "value": value} for name, value in head.adapters.items()),
    ]
