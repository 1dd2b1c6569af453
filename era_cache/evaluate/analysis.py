"""From what was measured to what a report says: means, intervals, tests, wins and losses.

In: ``Results``. Out: the record of the evaluation (docs/format.md), which every form of a report
shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from era_cache.errors import FormatError
from era_cache.evaluate.domains import across, by_collection, by_domain, matrix, other_queries
from era_cache.evaluate.estimates import (
    beside_first_stage,
    curve,
    estimates,
    gains,
    mean_count,
    place,
)
from era_cache.evaluate.lined_up import (
    BASELINE,
    SHIPPED,
    Panel,
    chosen_of,
    panel_of,
    shares_of,
)
from era_cache.evaluate.query_differences import queries, scores
from era_cache.evaluate.report_notes import notes
from era_cache.evaluate.results import Head, Results
from era_cache.fitting.candidates import CANDIDATES, described
from era_cache.fitting.first_stage import FirstStages
from era_cache.report.records import (
    Candidate,
    CollectionFacts,
    CurvePoint,
    Fact,
    Report,
    SplitFacts,
)

__all__ = ["default_share", "report_of"]

KINDS = {
    **CANDIDATES,
    "large": "the large encoder on both sides: a full re-encode",
    SHIPPED: "what was chosen in each fit: by held-out labels, without any by signs",
}
_PAPERS_SHARE = 0.2


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


def report_of(
    results: Results,
    *,
    labels: float | None = None,
    seed: int = 0,
    texts: Mapping[str, Mapping[str, str]] | None = None,
    others: Sequence[Results] = (),
) -> Report:
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
    chosen, reason = chosen_of(panel)
    for name in (BASELINE, chosen):
        if name not in panel.common:
            raise FormatError(
                f"{head.title}: these results lack '{name}', which everything is compared with."
            )
    primary = head.measures.index(head.primary)
    shown = sorted(panel.common, key=place)
    points = curve(results, panel, primary, seed) if len(shares_of(results)) > 1 else ()
    means = by_collection(results, panel, primary) if len(panel.values) > 1 else ()
    compared = None
    if others:
        compared = across([results, *others], share)
    elif head.protocol == "domain-specific":
        compared = matrix(results, share, primary)
    return Report(
        title=head.title,
        protocol=head.protocol,
        primary=head.primary,
        measures=head.measures,
        chosen=chosen,
        choice_reason=reason,
        collections=_collections(results, panel),
        split=_split(results, panel),
        encoders={
            side: f"{one.name} ({one.fingerprint[:12]})"
            for side in ("query", "document")
            if (one := head.encoders.get(side))
        },
        candidates=_candidates(results, panel, shown, seed),
        gains=gains(results, panel, chosen, primary, seed),
        queries=queries(results, panel, chosen, primary, texts or {}),
        scores=scores(panel, chosen),
        costs=(*_seconds(panel), *head.costs),
        commands=head.commands,
        notes=(
            *notes(results, panel, shown),
            *beside_first_stage(panel, chosen, head.measures, primary, seed),
            *head.notes,
            *_left_out(results, points),
            *other_queries(panel, results, others),
        ),
        environment=head.environment,
        inputs=_inputs(results),
        configuration=head.configuration,
        int8=head.extra.int8,
        curve=points,
        by_collection=means,
        by_domain=by_domain(means) if means else (),
        matrix=compared,
    )


def _left_out(results: Results, points: Sequence[CurvePoint]) -> Iterator[str]:
    """Say which shares of the labels the curve lacks."""
    shown_at = {point.labels for point in points}
    left = [f"{100 * one:g} %" for one in shares_of(results) if one not in shown_at]
    if points and left:
        yield f"Not in the curve, because a collection was not measured there: {', '.join(left)}."


def _candidates(
    results: Results, panel: Panel, shown: Sequence[str], seed: int
) -> tuple[Candidate, ...]:
    table = estimates(panel, shown, results.head.measures, seed)
    return tuple(
        Candidate(
            name,
            _kind(name, results.head),
            _held_out(panel, name),
            table[name],
        )
        for name in shown
    )


def _kind(name: str, head: Head) -> str:
    """What a row is."""
    if f"run {name}" in head.adapters:
        return "a run of another system"
    if name == FirstStages().name:
        return "the first stage alone, as stored"
    return KINDS.get(name) or described(name) or "another adapter folder"


def _held_out(panel: Panel, name: str) -> float | None:
    values = [
        fit.held_out[wanted]
        for fit in panel.fits
        for wanted in [fit.chosen if name == SHIPPED else name]
        if wanted in fit.held_out
    ]
    return float(np.mean(values)) if len(values) == len(panel.fits) else None


def _collections(results: Results, panel: Panel) -> tuple[CollectionFacts, ...]:
    known = results.head.collections
    return tuple(
        CollectionFacts(
            name=name,
            version=known[name].digest[:12],
            domain=known[name].domain,
            documents=known[name].documents,
            queries=known[name].queries,
            test=len(rows),
        )
        for name, rows in panel.rows.items()
    )


def _split(results: Results, panel: Panel) -> SplitFacts:
    tested = sum(one.values.shape[2] for _, one in panel.units)
    return SplitFacts(
        rule=str(results.head.configuration.get("split", "paper")),
        seeds=tuple(panel.seeds),
        labels=panel.labels,
        train=mean_count(results, panel, "train"),
        validation=mean_count(results, panel, "validation"),
        test=round(tested / len(panel.seeds)),
    )


def _seconds(panel: Panel) -> tuple[Fact, ...]:
    def spent(*steps: str) -> float:
        return sum(fit.seconds.get(step, 0.0) for fit in panel.fits for step in steps)

    trained = {step for fit in panel.fits for step in fit.seconds} - {"align", "evaluate"}
    fits = f", {len(panel.fits)} fits" if len(panel.fits) > 1 else ""
    return (
        Fact(f"alignment{fits}", f"{spent('align'):.2f} s"),
        Fact(f"training, all candidates{fits}", f"{spent(*sorted(trained)):.1f} s"),
        Fact(f"measuring on test queries{fits}", f"{spent('evaluate'):.1f} s"),
    )


def _inputs(results: Results) -> tuple[Fact, ...]:
    head = results.head
    return (
        *(Fact(f"collection {name}", one.digest) for name, one in head.collections.items()),
        *(
            Fact(f"encoder, {side.replace('_', ' ')}", one.fingerprint)
            for side, one in head.encoders.items()
        ),
        *(Fact(f"adapter {name}", value) for name, value in head.adapters.items()),
    )
