"""Which candidate ships: never one that is worse than doing nothing, as far as one can tell.

In: candidates with the values of the queries that judge them, and signs that need no label. Out:
the name of one, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from era_cache.errors import InputError
from era_cache.fitting.candidates import fused_name
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.means import macro, standard_error
from era_cache.fitting.signs import Signs

if TYPE_CHECKING:
    from era_cache.types import FloatArray

__all__ = ["FEW_JUDGES", "Choice", "choose"]

FEW_JUDGES = 50
"""Below so many judging queries a standard error is a guess: of 33, what was ahead of small by one
was 7 points behind it in one of ten fits."""
_CLEARLY = 2.0
"""Standard errors by which few labels must prefer a trained candidate, or small to era-zero, if the
standard error were known."""


class _Judges(NamedTuple):
    """How many judge, of what, and whether their standard errors are guesses."""

    number: int
    what: str
    few: bool

    @property
    def clearly(self) -> float:
        """As many standard errors, estimated from these, as are exceeded as rarely as ``_CLEARLY``.

        The quantile of Student's t: 2.9 of five queries, 2.3 of ten, 2.1 of twenty; by the
        expansion of R. A. Fisher and E. A. Cornish (Technometrics 2, 1960), whose first three terms
        are within 0.01 of it from four degrees of freedom on.
        """
        z, free = _CLEARLY, max(1, self.number - 1)
        terms = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        )
        return z + sum(term / float(free ** (n + 1)) for n, term in enumerate(terms))


class Choice(NamedTuple):
    """The chosen candidate and, in a sentence, why."""

    name: str
    reason: str


def choose(
    fits: Mapping[str, Fitted],
    candidate: str = "auto",
    signs: Sequence[Signs] = (),
    *,
    elsewhere: bool = False,
) -> Choice:
    """Choose by signs first, then by held-out means.

    1. Signs that something is broken: ``small``, today's index as it is. Likewise with too few
       documents to tell and fewer than 50 judging queries.
    2. Otherwise ``era-zero``, which needs no label, unless labels say that it is worse than
       ``small``.
    3. Or a trained candidate, if its mean exceeds that of ``small`` by more than one standard error
       of the paired difference and is not behind ``era-zero`` by one: fold models have fewer
       labels than what ships, so that a tie is none. Of those within one standard error of the
       best, ``era-dual`` is taken, which leans on both encoders (the one-standard-error rule of
       Breiman et al., Classification and Regression Trees, 1984). Of several collections none may
       lose clearly (``_harmed``). With fewer than 50 judging queries a standard error is a guess:
       only ``era-dual`` is tried, and must be ahead of both by two, or what Student's t makes of
       two where so few judge.

    4. Of the candidates that a first stage joins, one is chosen by the same steps among themselves;
       it ships if labels put it ahead of the one above by one standard error. With fewer than 50
       judging queries, or none, it ships unless labels speak against it or it has no weight.

    Without small queries there are neither ``small`` nor ``era-zero``, and ``aligned`` is what must
    be beaten.

    Args:
        fits: all candidates, ``small`` or at least ``aligned`` among them.
        candidate: ``auto``, or a name that is chosen without comparison.
        signs: of each collection.
        elsewhere: whether each value is that of a whole collection, and the adapter for others
            than these; however many they are, they count as few.

    Raises:
        InputError: there is no such candidate.
    """
    if candidate != "auto":
        if candidate not in fits:
            raise InputError(f"No candidate '{candidate}'; there are: {', '.join(fits)}.")
        return Choice(candidate, "asked for with --candidate")
    plain = {name: fit for name, fit in fits.items() if fit.adapter.fusion is None}
    count = sum(len(values) for values in next(iter(plain.values())).values)
    what = "unseen collections" if elsewhere else "queries"
    judges = _Judges(count, what, elsewhere or count < FEW_JUDGES)
    choice, trusted = _unfused(plain, signs, judges)
    joined = {
        name: fits[fused_name(fit.adapter.fusion.run, name)]
        for name in plain
        for fit in fits.values()
        if fit.adapter.fusion is not None and fused_name(fit.adapter.fusion.run, name) in fits
    }
    choice = _with_fusion(choice, plain, joined, judges, trusted=trusted)
    return choice._replace(reason=choice.reason + _highest(fits, choice.name))


def _with_fusion(
    choice: Choice,
    plain: Mapping[str, Fitted],
    joined: Mapping[str, Fitted],
    judges: _Judges,
    *,
    trusted: bool,
) -> Choice:
    """Step 4; ``joined`` by the names that the candidates have without the first stage."""
    if not trusted:
        joined = {name: fit for name, fit in joined.items() if name == "small" and judges.number}
    if not joined:
        return choice
    rival = "small" if "small" in joined else next(iter(joined))
    if trusted and judges.number:
        rival = _by_labels(joined, rival, judges).name
    elif trusted:
        rival = choice.name if choice.name in joined else rival
    fit, before = joined[rival], plain[choice.name]
    fusion = fit.adapter.fusion
    assert fusion is not None
    name = fused_name(fusion.run, rival)
    if not fusion.weight:
        return choice._replace(reason=f"{choice.reason}; {fusion.run} adds nothing to {rival}")
    if not judges.number:
        text = f"; joined with {fusion.run} at the weight that was best on other collections"
        return Choice(name, choice.reason + text)
    both = {choice.name: before, name: fit}
    counted = _counted(both, name, choice.name, judges)
    ahead = _differences(fit, before)
    least = -judges.clearly if judges.few else 1.0
    if macro(ahead) > least * standard_error(ahead) and not _harmed(fit, before):
        text = f"{counted}; without {fusion.run}, {choice.name} would ship: {choice.reason}"
        return Choice(name, text)
    return Choice(choice.name, f"{choice.reason}; {name} is not clearly better: {counted}")


def _unfused(
    fits: Mapping[str, Fitted], signs: Sequence[Signs], judges: _Judges
) -> tuple[Choice, bool]:
    """Steps 1 to 3, and whether adapters may be trusted at all."""
    base = "small" if "small" in fits else "aligned"
    problems = list(dict.fromkeys(text for sign in signs for text in sign.problems()))
    if problems and base == "small":
        return Choice(base, f"no adapter can be trusted: {'; '.join(problems)}"), False
    unknown = next((text for sign in signs if (text := sign.unknown())), "")
    if unknown and judges.few and base == "small":
        return Choice(base, f"no adapter can be trusted: {unknown}"), False
    if not judges.number:
        return Choice("era-zero", _unmeasured(signs)), True
    return _by_labels(fits, base, judges), True


def _unmeasured(signs: Sequence[Signs]) -> str:
    """What speaks for a candidate that nothing was measured of."""
    seen = sum(sign.queries for sign in signs)
    known = [sign.found for sign in signs if sign.found is not None]
    text = "chosen without any label or measurement: "
    if known:
        text += f"{min(known):.0%} of held-out alignment documents find themselves among ten, and "
    if not seen:
        return f"{text}no query was there to look at, so that a wrong prompt would not be seen"
    agreed = [sign.agreement for sign in signs if sign.agreement is not None]
    return (
        f"{text}both models agree on the neighbours of {seen:,} queries (correlation "
        f"{min(agreed):.2f}), as they do where era-zero was better than small on other collections"
    )


def _by_labels(fits: Mapping[str, Fitted], base: str, judges: _Judges) -> Choice:
    """Steps 2 and 3."""
    few = judges.few and base == "small"
    harmful = [name for name in fits if name != base and _harmed(fits[name], fits[base])]
    rival = base
    # Few queries of one collection are no reason to doubt what was better on all others.
    if "era-zero" in fits and (few or "era-zero" not in harmful):
        ahead = _differences(fits["era-zero"], fits[base])
        if macro(ahead) > (-judges.clearly * standard_error(ahead) if few else 0):
            rival = "era-zero"
    tried = ["era-dual"] if few else list(fits)
    tried = [n for n in tried if n in fits and n not in harmful and n not in (base, rival)]
    note = f" (of {judges.number} judging {judges.what} only era-dual was tried)" if few else ""
    if harmful and len(fits[base].values) > 1:
        note += f"; harmful to a collection: {', '.join(harmful)}"
    if tried:
        name = leader = max(tried, key=lambda n: fits[n].mean)
        if "era-dual" in tried:
            # The best of several means is in part the luckiest.
            ahead = _differences(fits[name], fits["era-dual"])
            if macro(ahead) <= standard_error(ahead):
                name = "era-dual"
        counted = _counted(fits, name, base, judges)
        least = judges.clearly if few else 1.0
        behind = judges.clearly if few else -1.0
        if _ahead(fits, name, base, least) and (rival == base or _ahead(fits, name, rival, behind)):
            why = "ahead on held-out labels"
            if name != leader:
                why = f"leans on both encoders, and within one standard error of {leader}"
            return Choice(name, f"{why}: {counted}{note}")
        if rival == base and fits[name].mean > fits[base].mean:
            by = f"{least:.1f} standard errors" if few else "one standard error"
            return Choice(base, f"{name} is not better than {base} by {by}: {counted}{note}")
    if rival != base:
        counted = _counted(fits, rival, base, judges)
        return Choice(rival, f"labels do not clearly prefer a trained adapter: {counted}{note}")
    what = "the small encoder's own queries" if base == "small" else "the label-free map"
    return Choice(base, f"no adapter beat {what} on held-out labels{note}")


def _highest(fits: Mapping[str, Fitted], chosen: str) -> str:
    """Who has the highest mean and by how much, where that is not the one that ships."""
    name = max(fits, key=lambda one: fits[one].mean)
    if not fits[name].mean > fits[chosen].mean:  # NaN where nothing was measured
        return ""
    gains = _differences(fits[name], fits[chosen])
    return (
        f"; the highest held-out mean is that of {name}, {fits[name].mean:.3f} "
        f"({macro(gains):+.3f} over {chosen}, standard error {standard_error(gains):.3f})"
    )


def _ahead(fits: Mapping[str, Fitted], name: str, other: str, errors: float) -> bool:
    """Whether a candidate's mean is that of another plus more than so many standard errors."""
    gains = _differences(fits[name], fits[other])
    return macro(gains) > errors * standard_error(gains)


def _counted(fits: Mapping[str, Fitted], name: str, base: str, judges: _Judges) -> str:
    gains = _differences(fits[name], fits[base])
    return (
        f"held-out {PRIMARY} {fits[name].mean:.3f} against {fits[base].mean:.3f} of {base} "
        f"({macro(gains):+.3f}, standard error {standard_error(gains):.3f}, "
        f"{judges.number} {judges.what})"
    )


def _differences(fit: Fitted, base: Fitted) -> list[FloatArray]:
    return [theirs - ours for theirs, ours in zip(fit.values, base.values, strict=True)]


def _harmed(fit: Fitted, base: Fitted) -> bool:
    """Whether a collection loses by more than chance explains.

    The limit is one standard error of a single collection, and Bonferroni's correction of it for
    several: among a dozen that neither gain nor lose, one or two lose a standard error by chance.
    """
    judged = [d for d in _differences(fit, base) if len(d) > 1]
    limit = NormalDist().inv_cdf(1 - NormalDist().cdf(-1.0) / max(1, len(judged)))
    return any(d.mean() < -limit * standard_error([d]) for d in judged)
