"""The tables of a candidate that a first stage joins: what helped alone may not help the sum.

In: a fused candidate, the weight of the first stage, what its tables could be. Out: the candidate
with the tables that held-out queries prefer in joined rankings.

Each judging query is ranked among documents of its own here, those that lead its ranking by the
cosine alone or by the sum: tables move a query a little, and a search of the corpus for each
setting would cost as much as training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from era_cache.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import PRIMARY, Part
from era_cache.fitting.judging_pool import best_of_own
from era_cache.fitting.means import Settings, luck, macro, standard_error
from era_cache.rank.corpus import gathered
from era_cache.rank.fuse import fused_rankings
from era_cache.rank.measures import evaluate_each
from era_cache.rank.ties import Ties, tie_tables
from era_cache.types import FloatArray, Qrels

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["choose_fused_tables"]

_LEADING = 25
"""Documents of either ranking among which a query is judged."""
_GATHERED = 1 << 24
"""Elements of documents that are gathered at a time."""
_AHEAD = 0.5
"""Standard errors by which tables must be ahead of those that the candidate has alone."""


class _Own(NamedTuple):
    """Judging queries of a collection with documents of their own: (q, m) rows and lifts.

    A lift is the weighted score by the first stage.
    """

    docs: torch.Tensor
    lifts: torch.Tensor
    corpus: Corpus
    ties: Ties
    exclude: torch.Tensor | None
    qrels: Qrels

    def values(self, mapped: Sequence[torch.Tensor]) -> list[FloatArray]:
        """Primary measure of each query, (q,) float64, for each way (q, d) of mapping them."""
        import torch

        q, m = self.docs.shape
        scores = self.lifts.new_empty(len(mapped), q, m)
        every = torch.stack(list(mapped), dim=2)  # (q, d, settings)
        step = max(1, _GATHERED // max(1, m * every.shape[1]))
        for begin in range(0, q, step):
            rows = slice(begin, begin + step)
            documents = gathered(self.corpus, self.docs[rows].clamp(min=0))
            scores[:, rows] = torch.bmm(documents, every[rows]).permute(2, 0, 1)
        scores = (scores + self.lifts).masked_fill_(self.docs < 0, float("-inf"))
        depth = min(PRIMARY.cutoff or 10, len(self.corpus))
        rankings = [
            best_of_own(one, self.docs, depth, self.ties, self.exclude).doc_rows for one in scores
        ]
        each = evaluate_each(rankings, self.qrels, [PRIMARY], len(self.corpus))
        return [found[PRIMARY] for found in each]


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
        found = [o.values(ways) for o, ways in zip(own, mapped, strict=True)]
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


def _own(part: Part, mapped: torch.Tensor, weight: float) -> _Own:
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
        min(_LEADING, len(data.corpus)),
        exclude=exclude,
        tie_ranks=data.tie_ranks,
    )
    docs = torch.from_numpy(np.concatenate([one.doc_rows for one in rankings], axis=1))
    docs = docs.to(mapped.device).sort(dim=1).values
    docs[:, 1:] = docs[:, 1:].masked_fill(docs[:, 1:] == docs[:, :-1], -1)
    ties = tie_tables(data.tie_ranks, len(data.corpus), mapped.device)
    lifts = weight * first.of(docs)
    return _Own(docs, lifts, data.corpus, ties, exclude, queries.qrels.select_queries(rows))
