"""Which candidate ships: never one that is worse than doing nothing, as far as labels can tell.

In: candidates with the values of the queries that judge them. Out: the name of one, and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from era_cache.errors import InputError
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import PRIMARY, macro, weights_of

if TYPE_CHECKING:
    from era_cache.types import FloatArray

__all__ = ["FEW_JUDGES", "Choice", "choose"]

FEW_JUDGES = 30
"""Below so many judging queries a standard error is a guess."""


class Choice(NamedTuple):
    """The chosen candidate and, in a sentence, why."""

    name: str
    reason: str


def choose(fits: Mapping[str, Fitted], candidate: str = "auto") -> Choice:
    """Choose by held-out means: the best candidate that is clearly better than ``small``.

    Without small queries there is no ``small``, and ``aligned`` is what must be beaten.

    Of adapters within one standard error of the best, ``era-dual`` is taken, which leans on both
    encoders (the one-standard-error rule of Breiman et al., Classification and Regression Trees,
    1984). To ship, its mean must exceed that of ``small`` by more than one standard error of the
    paired difference; otherwise doing nothing is as good, and ``small`` ships. Of several
    collections none may lose clearly (``_harmed``). With fewer than 30 judging
    queries a standard error is a guess: only ``era-dual`` is then tried, and ships if its mean is
    higher and the large model is known to know the documents (option ``knows_documents``).

    Args:
        fits: all candidates, ``small`` or at least ``aligned`` among them.
        candidate: ``auto``, or a name that is chosen without comparison.

    Raises:
        InputError: there is no such candidate.
    """
    if candidate != "auto":
        if candidate not in fits:
            raise InputError(f"No candidate '{candidate}'; there are: {', '.join(fits)}.")
        return Choice(candidate, "asked for with --candidate")
    base = "small" if "small" in fits else "aligned"
    what = "the small encoder's own queries" if base == "small" else "the label-free map"
    queries = sum(len(values) for values in fits[base].values)
    few = queries < FEW_JUDGES and base == "small" and "era-dual" in fits
    only = f" (of {queries} judging queries only era-dual was tried)" if few else ""
    harmful = [name for name in fits if _harmed(fits[name], fits[base])]
    tried = [base, "era-dual"] if few else list(fits)
    name = max((n for n in tried if n not in harmful), key=lambda n: fits[n].mean)
    if name != base and "era-dual" in fits and "era-dual" not in harmful:
        # One-standard-error rule: the adapter that leans on both encoders, unless one is clearly
        # better. The best of several means is in part the luckiest.
        ahead = _differences(fits[name], fits["era-dual"])
        if macro(ahead) <= _standard_error(ahead):
            name = "era-dual"
    if harmful and len(fits[base].values) > 1:
        only += f"; harmful to a collection: {', '.join(harmful)}"
    if name == base:
        return Choice(base, f"no adapter beat {what} on held-out labels{only}")
    differences = _differences(fits[name], fits[base])
    error = _standard_error(differences)
    gain = macro(differences)
    counted = (
        f"held-out {PRIMARY} {fits[name].mean:.3f} against {fits[base].mean:.3f} of {base} "
        f"({gain:+.3f}, standard error {error:.3f}, {queries} queries)"
    )
    if gain > error:
        return Choice(name, f"best on held-out labels: {counted}{only}")
    if few and fits[name].options.get("knows_documents"):
        return Choice(name, f"better on few held-out labels: {counted}{only}")
    return Choice(base, f"{name} is not better than {base} by one standard error: {counted}{only}")


def _differences(fit: Fitted, base: Fitted) -> list[FloatArray]:
    return [theirs - ours for theirs, ours in zip(fit.values, base.values, strict=True)]


def _harmed(fit: Fitted, base: Fitted) -> bool:
    """Whether a collection loses by more than chance explains.

    The limit is one standard error of a single collection, and Bonferroni's correction of it for
    several: among a dozen that neither gain nor lose, one or two lose a standard error by chance.
    """
    judged = [d for d in _differences(fit, base) if len(d) > 1]
    limit = NormalDist().inv_cdf(1 - NormalDist().cdf(-1.0) / max(1, len(judged)))
    return any(d.mean() < -limit * _standard_error([d]) for d in judged)


def _standard_error(differences: Sequence[FloatArray]) -> float:
    """Of ``macro`` of the differences, collections being fixed."""
    weights = weights_of(differences)
    judged = [(w, d) for w, d in zip(weights, differences, strict=True) if w]
    if not judged or any(len(d) < 2 for _, d in judged):
        return math.inf
    return math.sqrt(sum(w * w * float(d.var(ddof=1)) / len(d) for w, d in judged))
