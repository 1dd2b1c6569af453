"""Settings of a candidate that a first stage joins: what helped alone may not help the sum.

In: a fused candidate, the weight of the first stage, what else it could be. Out: the candidate as
held-out queries prefer it in joined rankings.

Each judging query is ranked among documents of its own here (``own_documents``): those that lead
its ranking by the cosine alone or by the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import PRIMARY, Part
from era_cache.fitting.means import Settings, highest, luck, macro, standard_error
from era_cache.fitting.own_documents import OwnDocuments, own_documents
from era_cache.types import FloatArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.measures import Ranking

__all__ = ["choose_fused"]

_AHEAD = 0.5
"""Standard errors by which another strength, or other tables, must be ahead of what it is alone."""


class _Choices:
    """Queries among documents of their own, and their values so far.

    Args:
        own: of each collection.
        values: of each collection, as the candidate is alone.
    """

    def __init__(self, own: Sequence[OwnDocuments], values: tuple[FloatArray, ...]) -> None:
        self._own, self.values = own, values

    def best(self, ways: Sequence[Sequence[torch.Tensor]]) -> int:
        """The best way of mapping the queries; the first one is as they are so far."""
        by_part = zip(*ways, strict=True)
        found = [o.values(way, PRIMARY) for o, way in zip(self._own, by_part, strict=True)]
        settings = list(zip(*found, strict=True))
        chosen = _chosen(settings)
        owed = luck(settings, chosen, choose=_chosen)
        self.values = tuple(
            before + new - old - less
            for before, new, old, less in zip(
                self.values, settings[chosen], settings[0], owed, strict=True
            )
        )
        return chosen


def choose_fused(
    fit: Fitted,
    parts: Sequence[Part],
    weight: float,
    leading: Sequence[Sequence[Ranking]],
    config: FitConfig,
) -> Fitted:
    """Choose strength, references, then memory, by joined rankings.

    All stay as they are unless others are ahead by half a standard error; what choosing them owes
    to luck is taken off the values, like that of every choice.

    Args:
        fit: the candidate; its values are of joined rankings already.
        parts: the collections, all with lists.
        weight: of the first stage.
        leading: rankings of each collection's judging queries, among whose documents they are
            ranked; of a collection without such queries none.
        config: what the tables may be.
    """
    corrections = fit.corrections
    judged = all(p.pool is None and p.labels.queries.first is not None for p in parts)
    if corrections is None or not weight or not judged:
        return fit
    own = [_own(p, rankings, weight) for p, rankings in zip(parts, leading, strict=True)]
    choices, now = _Choices(own, fit.values), corrections.setting
    options, adapter = dict(fit.options), fit.adapter
    points = [corrections, *(corrections._replace(mapped=p.mapped) for p in corrections.others)]
    other = 0
    if len(points) > 1:
        # Of the candidate, what its tables change was kept when they were chosen, and is needed.
        other = choices.best([one.at(now, again=one is corrections) for one in points])
    if other:
        corrections, point = points[other], corrections.others[other - 1]
        adapter = point.adapter()._replace(fusion=adapter.fusion)
        options["strength"] = point.strength
        options.pop("temperature", None)  # what training learned at the other strength
    steps = config.reference_steps if now.references is not None else ()
    for turn in ("references", "memory"):
        if turn == "references":
            others = [now._replace(references=step) for step in steps]
        else:
            others = [now._replace(memory=step) for step in corrections.judge.memories()]
        tried = [now, *(one for one in others if one != now)]
        now = tried[choices.best([corrections.at(one) for one in tried])]
    if not other and now == corrections.setting:
        return fit._replace(values=choices.values)
    moved = tuple(corrections.at(now))
    kept = {k: v for k, v in options.items() if k not in ("references", "memory")}
    return fit._replace(
        adapter=adapter._replace(references=corrections.judge.tables()),
        values=choices.values,
        mapped=moved,
        options={**kept, **corrections.judge.options()},
    )


def _chosen(settings: Settings) -> int:
    """The best setting, if it is clearly ahead of the first one."""
    best = highest(settings)
    ahead = [new - old for new, old in zip(settings[best], settings[0], strict=True)]
    return best if macro(ahead) > _AHEAD * standard_error(ahead) else 0


def _own(part: Part, rankings: Sequence[Ranking], weight: float) -> OwnDocuments:
    queries, rows = part.labels.queries, part.labels.judges
    assert queries.first is not None
    own = own_documents(rankings, queries, rows, part.data)
    return own._replace(lifts=weight * queries.first.select(rows).of(own.docs))
