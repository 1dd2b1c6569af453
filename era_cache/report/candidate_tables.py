"""Tables about the candidates as a whole: means, differences, labels, int8.

In: a ``Report``. Out: tables and sentences.
"""

from __future__ import annotations

from era_cache.report.records import BASELINE, CEILING, Estimate, Report
from era_cache.report.tables import (
    MISSING,
    Cell,
    Table,
    difference_cell,
    effect_cell,
    estimate_cell,
    interval_text,
    mark_best,
    mean_cell,
    p_cell,
    p_text,
    pair_table,
    percent_text,
)

__all__ = [
    "candidate_table",
    "curve_names",
    "curve_table",
    "difference_tables",
    "kinds_table",
    "measured_on",
    "stored_table",
    "summary_of",
    "test_queries",
]

STARS = (
    f"* p < 0.05, ** p < 0.01, *** p < 0.001 against {BASELINE}, after Holm's correction where it "
    "was made."
)


def test_queries(report: Report) -> int:
    """Count the distinct test queries of all collections."""
    return sum(collection.test for collection in report.collections)


def measured_on(report: Report) -> str:
    """Say what the means are over."""
    queries = f"{test_queries(report):,} test queries"
    collections = report.collections
    if len(collections) == 1:
        return f"{queries} of {collections[0].name}"
    return f"{len(collections)} collections ({queries})"


def summary_of(report: Report) -> str:
    """Say in one or two sentences what the chosen candidate reaches."""
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    estimate = chosen.measures[report.primary]
    over = "on" if len(report.collections) == 1 else "over"
    subject = "The shipped adapter" if chosen.name == "shipped" else chosen.name
    sentence = (
        f"{subject} reaches {report.primary} {estimate.mean:.3f} "
        f"{interval_text(estimate.low, estimate.high)} {over} {measured_on(report)}"
    )
    if chosen.name == BASELINE or estimate.difference is None:
        return f"{sentence}."
    return f"{sentence}: {_compared(estimate)}.{_counted(report)}"


def _compared(estimate: Estimate) -> str:
    points, p = 100 * (estimate.difference or 0.0), estimate.p_shown
    side = "over" if points >= 0 else "against"
    certainty = "" if p is None else f" (p {p_text(p)})" if p < 0.001 else f" (p = {p_text(p)})"
    doubt = "" if p is None or p < 0.05 else ", not a significant difference"
    return f"{points:+.1f} points {side} {BASELINE}{certainty}{doubt}"


def _counted(report: Report) -> str:
    """On how many collections the chosen candidate gains."""
    gains = report.gains
    if gains.candidate != report.chosen or len(gains.rows) < 2:
        return ""
    above = sum(row.difference > 0 for row in gains.rows)
    clear = [row for row in gains.rows if row.p_holm < 0.05]
    up, down = (sum(sign * row.difference > 0 for row in clear) for sign in (1, -1))
    return (
        f" It is above {BASELINE} on {above} of {len(gains.rows)} collections, significantly on "
        f"{up or 'none'}, and significantly below on {down or 'none'}."
    )


def candidate_table(report: Report) -> Table:
    """Held-out mean and every measure of every candidate."""
    names = report.names
    columns = [
        [Cell(name) for name in names],
        mark_best([mean_cell(c.validation) for c in report.candidates], names),
    ]
    for measure in report.measures:
        cells = [estimate_cell(candidate.measures[measure]) for candidate in report.candidates]
        columns.append(mark_best(cells, names))
    seeds = report.split.seeds
    several = any(e.sd is not None for c in report.candidates for e in c.measures.values())
    legend = (
        "Brackets: 95 % interval. "
        + (f"±: standard deviation over {len(seeds)} seeds of the split. " if several else "")
        + STARS
        + (f" {CEILING} is not compared for the best." if CEILING in names else "")
    )
    return Table(
        "Candidates",
        f"Means over {measured_on(report)}, {percent_text(report.split.labels)} of the labels "
        f"used; held-out is {report.primary} on labels not trained on",
        (Cell("candidate"), Cell("held-out"), *(Cell(measure) for measure in report.measures)),
        tuple(zip(*columns, strict=True)),
        name="candidates",
        legend=legend,
    )


def kinds_table(report: Report) -> Table:
    """Every candidate in words."""
    kinds = tuple((candidate.name, candidate.kind) for candidate in report.candidates)
    return pair_table("What they are", "", ("candidate", "meaning"), kinds, "kinds")


def difference_tables(report: Report) -> list[Table]:
    """Differences from the baseline: the primary measure in full, then all measures."""
    compared = [c for c in report.candidates if c.name != BASELINE]
    rows = []
    for candidate in compared:
        one = candidate.measures[report.primary]
        if one.difference is None:
            continue
        rows.append(
            (
                Cell(candidate.name),
                difference_cell(
                    one.difference, one.difference_low, one.difference_high, one.p_shown
                ),
                p_cell(one.p),
                p_cell(one.p_holm),
                effect_cell(one.effect),
            )
        )
    head = ("candidate", "difference", "p", "p (Holm)", "effect d")
    title = f"Differences from {BASELINE}"
    main = Table(
        title,
        f"{report.primary} of each candidate minus that of {BASELINE}; p of the paired "
        "randomisation test; d is Cohen's, of the paired differences",
        tuple(Cell(text) for text in head),
        tuple(rows),
        name="differences",
        legend=f"Brackets: 95 % interval. {STARS} 1 point = 0.01.",
    )
    if len(report.measures) == 1 or not rows:
        return [main]
    return [main, _all_differences(report)]


def _all_differences(report: Report) -> Table:
    rows = []
    for candidate in report.candidates:
        if candidate.name == BASELINE:
            continue
        estimates = [candidate.measures[measure] for measure in report.measures]
        cells = (
            difference_cell(e.difference, e.difference_low, e.difference_high, e.p_shown)
            for e in estimates
        )
        rows.append((Cell(candidate.name), *cells))
    return Table(
        "Differences in every measure",
        f"Each candidate minus {BASELINE}",
        (Cell("candidate"), *(Cell(measure) for measure in report.measures)),
        tuple(rows),
        name="differences-all",
        folded=True,
    )


def curve_names(report: Report) -> list[str]:
    """Names of the candidates on the label curve, in order of appearance."""
    return list(dict.fromkeys(name for point in report.curve for name in point.candidates))


def curve_table(report: Report) -> Table:
    """The primary measure of the candidates by share of the labels."""
    head = [Cell(percent_text(p.labels), f"{p.train:,} queries", p.labels) for p in report.curve]
    rows = (
        (Cell(name), *(estimate_cell(point.candidates.get(name)) for point in report.curve))
        for name in curve_names(report)
    )
    several = any(e.sd is not None for point in report.curve for e in point.candidates.values())
    return Table(
        "Label efficiency",
        f"{report.primary} on the test queries, by share of the labels used for training",
        (Cell("candidate"), *head),
        tuple(rows),
        name="curve",
        legend="±: standard deviation over the seeds of the split." if several else "",
    )


def stored_table(report: Report) -> Table:
    """What storing the vectors as int8 costs."""
    int8 = report.int8 or {}
    shown = [m for m in report.measures if any(m in found for found in int8.values())]
    rows = []
    for name, measures in int8.items():
        cells = []
        for measure in shown:
            one = measures.get(measure)
            if one is None:
                cells += [Cell(MISSING), Cell(MISSING)]
                continue
            change = difference_cell(one.difference, one.difference_low, one.difference_high, one.p)
            cells += [mean_cell(one.mean), change]
        rows.append((Cell(name), *cells))
    head = [Cell(text) for measure in shown for text in (measure, "change")]
    return Table(
        "Stored as int8",
        "Means with vectors stored as int8, and what that changes",
        (Cell("candidate"), *head),
        tuple(rows),
        name="int8",
        legend="Brackets: 95 % interval. * p < 0.05, ** p < 0.01, *** p < 0.001, not corrected.",
    )
