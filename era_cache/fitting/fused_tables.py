"""The tables of a candidate that a first stage joins: what helped alone may not help the sum.

In: a fused candidate, the weight of the first stage, what its tables could be. Out: the candidate
with the tables that held-out queries prefer in joined rankings.

Each judging query is ranked among documents of its own here (``own_documents``): those that lead
its ranking by the cosine alone or by the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from era_cache.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import PRIMARY, Part
from era_cache.fitting.means import Settings, luck, macro, standard_error
from era_cache.fitting.own_documents import LEADING, OwnDocuments, own_documents
from era_cache.rank.fuse import fused_rankings

if TYPE_CHECKING:
    import torch


__all__ = ["choose_fused_tables"]

_AHEAD = 0.5
"""Standard errors by which tables must be ahead of those that the candidate has alone."""


def choose_fused_tables(
    fit: Fitted, parts: Sequence[Part], weight: float, config: FitConfig
) -> Fitted:
    """Set references, then memory, by joined rankings.

    The tables stay as they are unless others are ahead by half a standard error; what choosing them
    owes to luck is taken off the values, like that of every choice.

    Args:
        fit: the candidate; its values are of joined rankings already.
        parts: the collections, all with lists.
        weight: of the first stage.
        config: what the tables may be.
    """
    corrections = fit.corrections
    judged = all(p.pool is None and p.labels.queries.first is not None for p in parts)
    if corrections is None or not weight or not judged:
        return fit
    own = [_own(part, fit.mapped[number], weight) for number, part in enumerate(parts)]
    values, now = fit.values, corrections.setting
    steps = config.reference_steps if now.references is not None else ()
    for turn in ("references", "memory"):
        if turn == "references":
            others = [now._replace(references=step) for step in steps]
        else:
            others = [now._replace(memory=step) for step in corrections.judge.memories()]
        tried = [now, *(one for one in others if one != now)]
        mapped = zip(*(corrections.at(one) for one in tried), strict=True)
        found = [o.values(ways, PRIMARY) for o, ways in zip(own, mapped, strict=True)]
        settings = list(zip(*found, strict=True))
        chosen = _chosen(settings)
        owed = luck(settings, chosen, choose=_chosen)
        values = tuple(
            before + new - old - less
            for before, new, old, less in zip(
                values, settings[chosen], settings[0], owed, strict=True
            )
        )
        now = tried[chosen]
    if now == corrections.setting:
        return fit._replace(values=values)
    moved = tuple(corrections.at(now))
    kept = {k: v for k, v in fit.options.items() if k not in ("references", "memory")}
    return fit._replace(
        adapter=fit.adapter._replace(references=corrections.judge.tables()),
        values=values,
        mapped=moved,
        options={**kept, **corrections.judge.options()},
    )


def _chosen(settings: Settings) -> int:
    """The best setting, if it is clearly ahead of the first one."""
    best = int(np.argmax([macro(values) for values in settings]))
    ahead = [new - old for new, old in zip(settings[best], settings[0], strict=True)]
    return best if macro(ahead) > _AHEAD * standard_error(ahead) else 0


def _own(part: Part, mapped: torch.Tensor, weight: float) -> OwnDocuments:
    import torch

    queries, rows, data = part.labels.queries, part.labels.judges, part.data
    assert queries.first is not None
    first = queries.first.select(rows)
    exclude = None
    if queries.exclude is not None:
        exclude = queries.exclude[torch.from_numpy(rows).to(mapped.device)]
    rankings = fused_rankings(
        mapped,
        data.corpus,
        first,
        [0.0, weight],
        min(LEADING, len(data.corpus)),
        exclude=exclude,
        tie_ranks=data.tie_ranks,
    )
    own = own_documents(rankings, queries, rows, data)
    return own._replace(lifts=weight * first.of(own.docs))
