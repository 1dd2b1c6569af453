"""What a reader of a report must know beside its numbers, in sentences.

In: ``Results`` and their ``Panel``. Out: notes.
"""

from __future__ import annotations

from collections.abc import Sequence

from era_cache.evaluate.estimates import place
from era_cache.evaluate.lined_up import BASELINE, Panel
from era_cache.evaluate.results import Results, job_name
from era_cache.rank.measures import parse_measure

__all__ = ["notes"]

_FEW = 50
_TIMES, _DEEP = 5, 50
"""What looks at 50 documents or more says little where there are not five times as many."""


def notes(results: Results, panel: Panel, shown: Sequence[str]) -> list[str]:
    """Say how figures came about, what is missing, and where to be careful."""
    several = len(panel.values) > 1
    said = [
        "Intervals are 95 % bootstrap intervals over test queries"
        + (", drawn within each collection" if several else "")
        + "; p values are of the paired randomisation test against small, corrected by Holm's "
        "method over the candidates of one measure"
        + (", or over collections." if several else "."),
        "Rankings keep the first 1,000 documents at most; ties go by document id as in trec_eval.",
    ]
    if several:
        said.append(
            "Means over collections count each collection once, whatever its size; the row 'all "
            "domains' counts each domain once. Counts of queries, and the drawing query by query, "
            "pool the queries of all collections."
        )
    if results.head.protocol == "leave-one-domain-out":
        said.append(
            "Held-out means are over the collections that were trained on, not those measured; "
            "numbers of training queries are means over the fits."
        )
    if len({fit.chosen for fit in panel.fits}) > 1:
        chosen = dict.fromkeys(f"{fit.trained_on} {fit.chosen}" for fit in panel.fits)
        said.append(f"Shipped, by what was trained on: {', '.join(chosen)}.")
    if len(panel.seeds) > 1:
        said.append(
            "A query that several shuffles tested counts once, with its mean; ± is the standard "
            "deviation over shuffles of the mean over collections."
        )
    missing = sorted(set(panel.candidates) - set(shown), key=place)
    if missing:
        said.append(
            f"Not in the tables, because a collection lacks it: {', '.join(missing)}. (large: "
            "era-embed --large-corpus stores what it needs.)"
        )
    elif "large" not in panel.candidates:
        said.append("No row 'large': era-embed --large-corpus stores what it needs.")
    few = [f"{name} {len(rows)}" for name, rows in panel.rows.items() if len(rows) < _FEW]
    if few:
        said.append(
            f"Few test queries ({', '.join(few)}): differences of a few points are noise there."
        )
    judging = [fit.queries["judging"] for fit in panel.fits if "judging" in fit.queries]
    if judging and min(judging) < _FEW:
        said.append(
            f"As few as {min(judging)} labelled queries judged a choice: it may be a wrong one."
        )
    return [*said, *_shallow(results), *_measured(results, panel)]


def _shallow(results: Results) -> list[str]:
    """Say which measures look at so much of a small collection that they say little."""
    said = []
    for measure in map(parse_measure, results.head.measures):
        small = [
            f"{name} {entry.documents:,}"
            for name, entry in results.head.collections.items()
            if measure.cutoff is not None and entry.documents < _TIMES * measure.cutoff
        ]
        if small and measure.cutoff is not None and measure.cutoff >= _DEEP:
            said.append(
                f"{measure} looks at {measure.cutoff:,} documents of few ({', '.join(small)}): "
                "there, nearly any ranking has a high one."
            )
    return said


def _measured(results: Results, panel: Panel) -> list[str]:
    """Say what int8 costs, and what is not measured yet."""
    said = []
    for name, found in (results.head.extra.int8 or {}).items():
        if name in (BASELINE, panel.fits[0].chosen):
            row = found[results.head.primary]
            said.append(
                f"Stored as int8, {name} would measure {row.mean:.4f} {results.head.primary}: "
                f"{row.difference:+.4f} [{row.difference_low:+.4f}, "
                f"{row.difference_high:+.4f}]."
            )
    planned = results.head.extra.planned
    left = set(planned) - {job_name(fit.job) for fit in results.fits}
    if left:
        said.append(
            f"Unfinished: {len(planned) - len(left)} of {len(planned)} fits. The same command goes "
            "on."
        )
    absent = [name for name in results.head.collections if name not in panel.values]
    if absent:
        said.append(
            f"Not measured at {100 * panel.labels:g} % of the labels, and in no mean: "
            f"{', '.join(absent)}."
        )
    return said
