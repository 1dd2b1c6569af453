"""Candidates that another system's scores join: how much they count, by labels or without.

In: a fitted candidate, and what a first stage (BM25, say) found for the queries that judge. Out:
the same adapter with a ``Fusion``, and the values of the queries under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.fitting.adapter import Fusion
from era_cache.fitting.candidates import FUSED, fused_name
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.first_stage_sign import looked_at, worth_beside_small
from era_cache.fitting.fused_settings import choose_fused
from era_cache.fitting.held_out import PRIMARY, Part
from era_cache.fitting.means import Settings, errors_behind, luck, macros
from era_cache.fitting.own_documents import excluded
from era_cache.fitting.tensors import FitData
from era_cache.rank.fuse import cosines_of, fused_rankings
from era_cache.rank.largest import highest
from era_cache.rank.lists import FirstStage, spreads
from era_cache.rank.measures import Ranking, evaluate_each
from era_cache.rank.search import search
from era_cache.types import FloatArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["RETABLED", "fused_candidates"]

_NEAR = 0.5
"""Standard errors within which a weight counts as good as the best one."""
_DEPTH = 1000
"""Documents of a ranking whose scores are compared, at most."""
_CUTOFF = PRIMARY.cutoff or 10
_SPREAD_OF = 100
"""Queries whose rankings are compared, at most: the mean spread of more is the same within 5 %, and
neighbouring weights are a fifth apart or more."""
_WORTHLESS, _WORTH = 0.4, 0.7
"""Worth beside the small encoder up to which the default weight is 0, and from which it is whole:
0.94 to 1.16 where the small encoder is a static one, 0.47 to 0.83 beside a good one, where a first
stage at 0.47 loses and at 0.6 gains; 0 where lists are of other queries."""


_LEADING = 15
"""Documents of each ranking, by cosines alone and by the sum, among which settings are compared."""
_AT_ONCE = 1 << 24
"""Cosines that are held at a time."""
RETABLED = "era-dual"
"""Whose strength and tables are chosen anew by joined rankings; for ``era`` that gained nothing."""


class _Queries(NamedTuple):
    """Queries of one collection, mapped, with their lists; their cosines where these are known."""

    mapped: torch.Tensor
    first: FirstStage
    data: FitData
    cosines: torch.Tensor | None = None


def fused_candidates(
    fits: Mapping[str, Fitted], parts: Sequence[Part], config: FitConfig
) -> dict[str, Fitted]:
    """Join each candidate of ``FUSED`` with the first stage that the queries' lists are of.

    The weight is the one nearest to the default among those whose held-out mean is within half a
    standard error of the best; the default itself without judging queries, which is less where the
    first stage is worth little beside the small encoder (``first_stage_sign``). Like every choice
    by held-out queries it is taken off their values (``luck``). Strength and tables of
    ``era-dual`` are then chosen anew (``fused_settings``).

    Args:
        fits: fitted candidates with the mapped queries.
        parts: the collections.
        config: weights to choose from.

    Returns:
        Candidates by ``fused_name``; none where a collection has no lists.
    """
    found: dict[str, Fitted] = {}
    worth: float | None = None
    lexical: list[float] = []
    for name in FUSED:
        fit = fits.get(name)
        if fit is None:
            continue
        known = _cosines(fit, parts)
        queries = _queries(fit, parts, known)
        if not queries:
            continue
        if not lexical:
            worth = worth_beside_small(parts)
            lexical = [_spread_of_lists(one) for one in queries]
        weights = np.array([len(one.mapped) for one in queries], dtype=np.float64)
        scales = [_scale(one, spread) for one, spread in zip(queries, lexical, strict=True)]
        scale = float(np.average(scales, weights=weights))
        if scale:
            run = queries[0].first.name
            depth = _LEADING if name == RETABLED else 0
            fused, leading = _joined(fit, parts, config, _Beside(run, scale, worth, known), depth)
            if depth and fused.adapter.fusion is not None:
                weight = fused.adapter.fusion.weight
                fused = choose_fused(fused, parts, weight, leading, config)
            found[fused_name(run, name)] = fused
    return found


def _cosines(fit: Fitted, parts: Sequence[Part]) -> dict[int, torch.Tensor]:
    """Cosines of judging queries with all documents, by the number of their collection.

    They tell how far cosines spread, and are then ranked. Where there are too many to be held they
    are computed when they are needed.
    """
    found: dict[int, torch.Tensor] = {}
    held = 0
    for number, (part, mapped) in enumerate(zip(parts, fit.mapped, strict=False)):
        size = len(mapped) * len(part.data.corpus)
        if part.labels.queries.first is not None and 0 < size <= _AT_ONCE - held:
            found[number] = cosines_of(mapped, part.data.corpus)
            held += size
    return found


def _queries(
    fit: Fitted, parts: Sequence[Part], known: Mapping[int, torch.Tensor]
) -> list[_Queries]:
    """Judging queries, as models that never saw them map them, else those that nobody judged.

    None at all where a collection with judging queries has no lists.
    """
    found = []
    for number, part in enumerate(parts):
        judges, looked = part.labels.judges, looked_at(part)
        if looked is None or (len(judges) and len(fit.mapped) <= number):
            if len(judges):
                return []
            continue
        if len(judges):
            mapped = fit.mapped[number][: len(looked.rows)]
            cosines = known.get(number)
        else:
            views = looked.queries.views
            mapped = fit.adapter.mapped({n: rows[: len(looked.rows)] for n, rows in views.items()})
            cosines = None
        found.append(_Queries(mapped, looked.first, part.data, cosines))
    return found


def _scale(queries: _Queries, lexical: float) -> float:
    """How far cosines spread against first-stage scores, each among its highest documents.

    0 where the first stage says nothing.
    """
    import torch

    if not lexical > 0:
        return 0.0
    corpus, mapped = queries.data.corpus, queries.mapped[:_SPREAD_OF]
    depth = min(_DEPTH, len(corpus))
    if queries.cosines is None and len(mapped) * len(corpus) > _AT_ONCE:
        top = torch.from_numpy(search(mapped, corpus, depth).scores)
    else:
        # Which documents they are of does not matter, so that ties need not be broken.
        known = cosines_of(mapped, corpus) if queries.cosines is None else queries.cosines
        top = highest(known[: len(mapped)], depth)[0]
    return float(spreads(top, torch.ones_like(top, dtype=torch.bool)).mean()) / lexical


def _spread_of_lists(queries: _Queries) -> float:
    """Mean spread of first-stage scores among as many documents as cosines are compared of."""
    import torch

    docs, scores, floor = (column[:_SPREAD_OF] for column in queries.first[1:])
    depth = min(_DEPTH, len(queries.data.corpus))
    # Documents that a list does not hold count at its floor.
    wide = torch.nn.functional.pad(docs, (0, max(0, depth - docs.shape[1])), value=-1)[:, :depth]
    padded = torch.nn.functional.pad(scores, (0, max(0, depth - scores.shape[1])))[:, :depth]
    filled = padded.where(wide >= 0, floor[:, None])
    return float(spreads(filled, torch.ones_like(wide, dtype=torch.bool)).mean())


class _Beside(NamedTuple):
    """The first stage beside one candidate.

    Its name; how far cosines spread against its scores; what it is worth beside the small encoder,
    None where that is not known; the cosines that are known, by the number of their collection.
    """

    run: str
    scale: float
    worth: float | None
    cosines: Mapping[int, torch.Tensor]


def _joined(
    fit: Fitted,
    parts: Sequence[Part],
    config: FitConfig,
    beside: _Beside,
    depth: int,
) -> tuple[Fitted, list[list[Ranking]]]:
    """One candidate with the weight that labels choose, or the default.

    Args:
        fit: the candidate.
        parts: the collections.
        config: weights to choose from.
        beside: the first stage; the cosines are overwritten.
        depth: of the rankings that are given back, at least.

    Returns:
        The candidate; and of each collection with judging queries what leads their rankings, by
        cosines alone and by the sum.
    """
    run, scale, worth, cosines = beside
    share = 1.0 if worth is None else (worth - _WORTHLESS) / (_WORTH - _WORTHLESS)
    default = config.fusion_default * min(1.0, max(0.0, share))
    ratios = sorted({0.0, default, *config.fusion_weights})
    chosen, values = ratios.index(default), fit.values
    leading: list[list[Ranking]] = []
    if sum(len(part.labels.judges) for part in parts):
        found = _rankings(fit, parts, [ratio * scale for ratio in ratios], depth, cosines)
        settings = _settings(found, parts, len(ratios))

        def choose(some: Settings) -> int:
            return _nearest(some, ratios, default)

        chosen = choose(settings)
        owed = luck(settings, chosen, choose=choose)
        # Of the unfused candidate other choices were taken off already.
        values = tuple(
            before + now - plain - less
            for before, now, plain, less in zip(
                fit.values, settings[chosen], settings[0], owed, strict=True
            )
        )
        leading = [[of_part[0], of_part[chosen]] if of_part else [] for of_part in found]
    weight = float(f"{ratios[chosen] * scale:.6g}")  # short enough to be copied by hand
    options = {**fit.options, "run": run, "weight": weight, "ratio": round(ratios[chosen], 4)}
    if worth is not None:
        options["worth"] = round(worth, 4)
    adapter = fit.adapter._replace(fusion=Fusion(run, weight))
    return fit._replace(adapter=adapter, values=values, options=options), leading


def _rankings(
    fit: Fitted,
    parts: Sequence[Part],
    weights: Sequence[float],
    depth: int,
    cosines: Mapping[int, torch.Tensor],
) -> list[list[Ranking]]:
    """Of each collection the judging queries' rankings at each weight; none without judges."""
    found: list[list[Ranking]] = []
    for number, part in enumerate(parts):
        queries, rows, data = part.labels.queries, part.labels.judges, part.data
        if not len(rows) or queries.first is None:
            found.append([])
            continue
        rankings = fused_rankings(
            fit.mapped[number],
            data.corpus,
            queries.first.select(rows),
            weights,
            min(max(depth, _CUTOFF), len(data.corpus)),
            exclude=excluded(queries, rows),
            tie_ranks=data.tie_ranks,
            cosines=cosines.get(number),
        )
        found.append(rankings)
    return found


def _settings(found: Sequence[Sequence[Ranking]], parts: Sequence[Part], count: int) -> Settings:
    """Values of the judging queries at each of ``count`` weights."""
    by_part: list[list[FloatArray]] = []
    for part, rankings in zip(parts, found, strict=True):
        if not rankings:
            by_part.append([np.zeros(0)] * count)
            continue
        qrels = part.labels.queries.qrels.select_queries(part.labels.judges)
        docs = [one.doc_rows[:, :_CUTOFF] for one in rankings]
        each = evaluate_each(docs, qrels, [PRIMARY], len(part.data.corpus))
        by_part.append([values[PRIMARY] for values in each])
    return [tuple(values[i] for values in by_part) for i in range(count)]


def _nearest(settings: Settings, ratios: Sequence[float], default: float) -> int:
    """The ratio nearest to the default among those within ``_NEAR`` of the best."""
    means = macros(settings)
    best = int(np.argmax(means))
    enough = means[best] - means <= _NEAR * errors_behind(settings, best) + 1e-12
    fitting = [number for number in range(len(settings)) if number == best or enough[number]]
    return min(fitting, key=lambda number: abs(_place(ratios[number]) - _place(default)))


def _place(ratio: float) -> float:
    """Where a ratio lies: equal steps are equal factors, but for the smallest."""
    return float(np.log(ratio + 0.05))
