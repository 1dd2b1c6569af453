"""Evaluation on test queries: rankings, measures, intervals, paired tests, one record of it all.

In: ``HeldOut`` and adapters. Out: per-query values and the JSON record that every report shows.
This is the only place that sees a test query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from era_cache.maps import Adapter, unit
from era_cache.measures import Measure, Ranking, evaluate, mean, parse_measure
from era_cache.pairs import HeldOut
from era_cache.search import search
from era_cache.segments import check_vectors
from era_cache.statistics import bootstrap_interval, holm, paired_randomisation_test
from era_cache.types import FloatArray

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEFAULT_MEASURES",
    "DEPTH",
    "Scored",
    "as_int8",
    "compare",
    "evaluation_record",
    "int8_loss",
    "score_adapters",
    "score_large",
]

DEFAULT_MEASURES: tuple[Measure, ...] = tuple(
    parse_measure(name) for name in ("nDCG@10", "R@100", "RR", "AP")
)
DEPTH = 1000
"""Documents kept of each ranking, as is usual for TREC runs."""


class Scored(NamedTuple):
    """One candidate on the test queries.

    ``values`` maps each measure to (q,) float64, in the order of the queries.
    """

    ranking: Ranking
    values: dict[Measure, FloatArray]


def _score(
    mapped: torch.Tensor, corpus: torch.Tensor, data: HeldOut, measures: Sequence[Measure]
) -> Scored:
    ranking = search(
        mapped,
        corpus,
        min(DEPTH, len(corpus)),
        exclude=data.queries.exclude,
        tie_ranks=data.tie_ranks,
    )
    values = evaluate(ranking.doc_rows, data.queries.qrels, measures, len(corpus))
    return Scored(ranking, dict(values))


def score_adapters(
    data: HeldOut, adapters: Mapping[str, Adapter], measures: Sequence[Measure]
) -> dict[str, Scored]:
    """Rank the whole corpus for every test query by each adapter, and measure it.

    Raises:
        FingerprintError: an adapter expects other dimensions.
    """
    device = data.corpus.device
    return {
        name: _score(adapter.to(device).apply(data.queries.views), data.corpus, data, measures)
        for name, adapter in adapters.items()
    }


def score_large(data: HeldOut, measures: Sequence[Measure]) -> Scored | None:
    """The large encoder on both sides: the ceiling of a full re-encode, where it is stored."""
    if data.large_corpus is None:
        return None
    return _score(data.queries.views["large"], data.large_corpus, data, measures)


def as_int8(data: HeldOut) -> HeldOut:
    """The same vectors as a store that keeps int8 rows would give them back.

    Rounding is by row and relative to its largest value, so that rows scaled to unit length lose
    what the stored rows would.
    """
    import torch

    def rounded(rows: torch.Tensor) -> torch.Tensor:
        stored = check_vectors(rows.cpu().numpy(), "int8", lambda row: f"row {row}", "the store")
        return unit(torch.from_numpy(stored.to_float32()).to(rows.device))

    views = {name: rounded(rows) for name, rows in data.queries.views.items()}
    return data._replace(queries=data.queries._replace(views=views), corpus=rounded(data.corpus))


def int8_loss(
    data: HeldOut,
    adapters: Mapping[str, Adapter],
    scored: Mapping[str, Scored],
    measures: Sequence[Measure],
    *,
    seed: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """What each adapter would measure on int8 rows, and the difference to the rows as stored.

    Returns:
        candidate -> measure -> ``mean``, ``difference`` with its 95 % bootstrap interval
        (``difference_low``, ``difference_high``) and ``p`` of the paired randomisation test.
    """
    lossy = score_adapters(as_int8(data), adapters, measures)
    table: dict[str, dict[str, dict[str, float]]] = {name: {} for name in lossy}
    for name, one in lossy.items():
        for measure in measures:
            values, before = one.values[measure], scored[name].values[measure]
            lost = bootstrap_interval(values - before, seed=seed)
            table[name][str(measure)] = {
                "mean": mean(values),
                "difference": mean(values - before),
                "difference_low": lost.low,
                "difference_high": lost.high,
                "p": paired_randomisation_test(values, before, seed=seed),
            }
    return table


def compare(
    scored: Mapping[str, Scored], measures: Sequence[Measure], *, baseline: str, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Means with 95 % bootstrap intervals, and paired tests against a baseline.

    p values come from the paired randomisation test; ``p_holm`` corrects them over the candidates
    of one measure (Holm 1979).

    Returns:
        candidate -> measure -> ``mean``, ``low``, ``high``, and for all but the baseline
        ``difference``, ``difference_low``, ``difference_high``, ``p``, ``p_holm``.
    """
    table: dict[str, dict[str, dict[str, float]]] = {name: {} for name in scored}
    for measure in measures:
        base = scored[baseline].values[measure] if baseline in scored else None
        tested: list[str] = []
        for name, one in scored.items():
            values = one.values[measure]
            interval = bootstrap_interval(values, seed=seed)
            entry = {"mean": mean(values), "low": interval.low, "high": interval.high}
            if base is not None and name != baseline:
                gain = bootstrap_interval(values - base, seed=seed)
                entry |= {
                    "difference": mean(values - base),
                    "difference_low": gain.low,
                    "difference_high": gain.high,
                    "p": paired_randomisation_test(values, base, seed=seed),
                }
                tested.append(name)
            table[name][str(measure)] = entry
        corrected = holm([table[name][str(measure)]["p"] for name in tested])
        for name, p_holm in zip(tested, corrected, strict=True):
            table[name][str(measure)]["p_holm"] = p_holm
    return table


def evaluation_record(**fields: Any) -> dict[str, Any]:
    """The content of ``evaluation.json``: format, version, then the given fields.

    Fields: ``collection``, ``split``, ``encoders``, ``measures``, ``primary``, ``chosen``,
    ``choice_reason``, ``candidates`` (name, kind, validation mean, measures as from ``compare``),
    ``curve``, ``int8`` (as from ``int8_loss``), ``costs``, ``commands``, ``notes``,
    ``environment``.
    """
    return {"format": "era-evaluation", "version": 1, **fields}
