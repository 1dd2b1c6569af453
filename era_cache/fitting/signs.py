"""Signs that need no label: can the large side be right, or is something broken?

In: vectors of the same texts by both encoders. Out: ``Signs`` of one collection, and what they say
is wrong. They know nothing of relevance: a large model that ranks badly and consistently passes.

Measured on thirteen collections and three pairs of encoders, sound and spoiled in fourteen ways;
docs/fitting.md has the figures behind each limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from era_cache.errors import FitError
from era_cache.fitting.adapter import unit
from era_cache.fitting.alignment.quality import compare_alignments

if TYPE_CHECKING:
    import torch

    from era_cache.fitting.tensors import FitData

__all__ = ["Signs", "agreement_of", "signs_of"]

_AGREEMENT, _FOUND, _RANK = 0.2, 0.65, 0.6
_OWN_OF_FEW, _FEW_ROWS, _OWN_OF_MANY = 0.75, 20, 0.65
"""The own share asked for of fewer than 20 queries, and of more: few shuffled rows pass by luck."""
_FEW_QUERIES = 8
"""Below so many, two rows that are exchanged are looked for: many shuffles of five move only two or
three of them, and the own share is then as high as that of some sound vectors."""
_MOST_QUERIES, _MOST_DOCUMENTS = 1000, 5000
"""What is looked at; more would say the same, and cost memory."""
_CENTRED, _FEW_DOCUMENTS = 20, 30
_SAME = 1 - 1e-4


class Signs(NamedTuple):
    """What the vectors of one collection say of the large side.

    ``found`` is the share of held-out alignment documents that find themselves among ten through
    the map of the others, None with fewer than 30; ``rank`` the effective number of directions of
    the large documents divided by that of the small ones. ``agreement`` is the mean over queries of
    the correlation between a query's cosines with the alignment documents in the large space and in
    the small one (from 20 queries on, each document's mean over queries is taken off first);
    ``own`` the share of other queries' small cosines that correlate less with a query's large ones
    than its own do: 0.5 is chance. Both are None without queries, ``own`` with a single one.
    ``same`` tells whether both sides are one model; ``exchanged``, whether of fewer than eight
    queries two would agree better if one had the large vector of the other.
    """

    documents: int
    queries: int
    found: float | None
    rank: float | None
    agreement: float | None
    own: float | None
    same: bool
    exchanged: bool = False

    def unknown(self) -> str:
        """What cannot be told for want of documents, in words; empty where it can."""
        if self.found is not None:
            return ""
        return (
            f"only {self.documents} alignment documents are there to tell whether the large model "
            "knows them (--align-documents encodes more)"
        )

    def problems(self) -> list[str]:
        """What is wrong, in words; empty where nothing is."""
        wrong = []
        if self.found is not None and self.found < _FOUND:
            wrong.append(
                f"only {self.found:.0%} of the alignment documents find themselves among ten: the "
                "large documents are of other texts, in another order, or noise"
            )
        if self.rank is not None and self.rank < _RANK:
            wrong.append(
                f"the large documents lie in {self.rank:.0%} of the directions that the small ones "
                "use: the large model tells less apart than the small one"
            )
        asked = _OWN_OF_FEW if self.queries < _FEW_ROWS else _OWN_OF_MANY
        if self.own is not None and self.own < asked:
            wrong.append(
                "a query's large vector agrees with its own small vector no better than with other "
                f"queries' ({self.own:.0%}; chance is 50%): query rows are shuffled or noise"
            )
        elif self.exchanged:
            wrong.append(
                "the large vectors of two queries agree better with each other's small vector than "
                "with their own: query rows are shuffled"
            )
        elif self.agreement is not None and self.agreement < _AGREEMENT:
            wrong.append(
                f"large and small queries hardly agree on their neighbours (correlation "
                f"{self.agreement:.2f}): another prompt, another model, or noise"
            )
        if self.same:
            wrong.append("both sides are the same model: there is nothing to learn from the other")
        return wrong


def signs_of(data: FitData, seed: int) -> Signs:
    """Read the signs of a collection.

    Args:
        data: what fitting may see. All its queries are looked at, none of its judgements.
        seed: of the documents that are held out.
    """
    import torch

    sets = [s for s in (data.train, data.validation, data.unlabelled) if s is not None]
    views = [s.views for s in sets if len(s.ids) and "small" in s.views]
    documents = len(data.align_large)
    large, small = data.align_large[:_MOST_DOCUMENTS], data.align_small[:_MOST_DOCUMENTS]
    found = rank = None
    if len(large) >= _FEW_DOCUMENTS:
        try:
            quality = compare_alignments(large, small, ["procrustes"], seed)["procrustes"]
            found = quality.recall_at_10
        except FitError:
            found = 0.0  # all alike
        rank = _directions(large) / max(1.0, _directions(small))
    agreement = own = None
    queries, exchanged = 0, False
    same = _same_model(large, small)
    if views and len(large) > 2:
        both = [torch.cat([v[name] for v in views])[:_MOST_QUERIES] for name in ("large", "small")]
        queries = len(both[0])
        agreement, own, exchanged = agreement_of(both[0] @ large.T, both[1] @ small.T)
        same = same and _same_model(*both)
    return Signs(documents, queries, found, rank, agreement, own, same, exchanged)


def agreement_of(large: torch.Tensor, small: torch.Tensor) -> tuple[float, float | None, bool]:
    """Mean agreement, own share, and whether two are exchanged (``Signs``).

    Args:
        large: (n, m) cosines of queries with documents in the large space.
        small: the same in the small space.
    """
    queries = len(large)
    if queries >= _CENTRED:
        large, small = large - large.mean(dim=0), small - small.mean(dim=0)
    correlations = _standard(large) @ _standard(small).T
    mine = correlations.diagonal()
    if queries < 2:
        return float(mine.mean()), None, False
    beaten = (mine[:, None] > correlations).sum()
    own = float(beaten) / (queries * (queries - 1))
    better = correlations + correlations.T > mine[:, None] + mine
    better.fill_diagonal_(False)
    return float(mine.mean()), own, queries < _FEW_QUERIES and bool(better.any())


def _standard(rows: torch.Tensor) -> torch.Tensor:
    """Rows of mean 0 and length 1, whose products are correlations."""
    return unit(rows - rows.mean(dim=1, keepdim=True))


def _directions(rows: torch.Tensor) -> float:
    """Effective number of directions: the exponential of the entropy of the variances along them.

    O. Roy and M. Vetterli, The effective rank, EUSIPCO 2007.
    """
    import torch

    centred = (rows - rows.mean(dim=0)).double().cpu()
    variances = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0)
    share = variances / variances.sum().clamp(min=1e-300)
    return float(torch.exp(-(share * (share + 1e-300).log()).sum()))


def _same_model(large: torch.Tensor, small: torch.Tensor) -> bool:
    """Whether cosines between texts are the same on both sides, so that one is the other turned."""
    n = min(len(large), 100)
    if n < 2:
        return False
    one, other = _standard(large[:n] @ large[:n].T), _standard(small[:n] @ small[:n].T)
    return bool((one * other).sum(dim=1).min() > _SAME)
