"""Fitting all candidates and choosing the one that ships.

In: ``FitData`` of one or several collections. Out: every candidate with the values of the queries
that judge it, and the name of the chosen one. What ships is never worse than doing nothing, as far
as held-out labels can tell.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from era_cache.config import FitConfig, PaperConfig
from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import Adapter, References
from era_cache.fitting.alignment.methods import ALIGNMENTS, align_paper
from era_cache.fitting.alignment.quality import align_rows, compare_alignments
from era_cache.fitting.crossfit import Fitted, Request, crossfit
from era_cache.fitting.held_out import (
    PRIMARY,
    Part,
    document_references,
    macro,
    values_of,
    weights_of,
)
from era_cache.fitting.paper import train_paper
from era_cache.fitting.tensors import Documents, FitData
from era_cache.fitting.who_judges import labels_together, merged

if TYPE_CHECKING:
    import torch

    from era_cache.types import FloatArray

__all__ = [
    "CANDIDATES",
    "Choice",
    "FitResult",
    "align",
    "choose",
    "choose_scale",
    "fit_candidates",
    "fit_paper",
    "joined_start",
    "parts_of",
]

CANDIDATES = {
    "small": "the small encoder's own query: today's index as it is",
    "aligned": "the large query through the label-free map",
    "era": "aligned, then trained with labels (large query only)",
    "era-dual": "small and large query together, trained with labels",
    "small+": "the small query alone, trained with labels",
    "paper": "the published recipe (large query only)",
}

Progress = Callable[[str], None]
_FEW_JUDGES = 30


class Choice(NamedTuple):
    """The chosen candidate and, in a sentence, why."""

    name: str
    reason: str


class FitResult(NamedTuple):
    """All candidates by name, the choice, seconds by step, and what an interruption left out."""

    candidates: dict[str, Fitted]
    choice: Choice
    seconds: dict[str, float]
    missing: tuple[str, ...] = ()


def parts_of(data: FitData | Sequence[FitData], config: FitConfig) -> list[Part]:
    """Each collection with its folds.

    Raises:
        FitError: no labelled query has a positive document, or only one of all queries has.
    """
    several = [data] if isinstance(data, FitData) else list(data)
    sets = [(merged(one.train, one.validation), len(one.train.ids), None) for one in several]
    labels = labels_together(sets, config)
    parts = [Part(one, mine) for one, mine in zip(several, labels, strict=True)]
    if not any(len(part.labels.train_rows) for part in parts):
        raise FitError("No training query has a positive judgement; there is nothing to learn.")
    parts = [part for part in parts if len(part.labels.train_rows)]
    if not any(part.labels.folds and len(part.labels.judges) for part in parts):
        raise FitError(
            "A single labelled query cannot both train and judge. Judge at least two different "
            "queries."
        )
    return parts


def align(
    parts: Sequence[Part], config: FitConfig, documents: Sequence[Documents] = ()
) -> tuple[Adapter, str]:
    """The label-free map of the texts that the configuration asks for, and the method's name.

    ``auto`` takes the method whose untrained map ranks best for the labelled queries, which no
    training has used yet; of equal ones the first.

    Args:
        parts: the collections.
        config: texts and method.
        documents: of further collections, which have no labels.

    Raises:
        InputError: there is no such method, or no such kind of text.
        FitError: there are no texts, or they do not fit the method.
    """
    import torch

    pairs = []
    for part in parts:
        if config.align_texts in ("documents", "both"):
            pairs.append((part.data.align_large, part.data.align_small))
        if config.align_texts in ("queries", "both"):
            views = part.data.train.views
            pairs.append((views["large"], views["small"]))
    if pairs and config.align_texts != "queries":
        pairs += documents
    if not pairs:
        raise InputError(
            f"Alignment texts '{config.align_texts}'; expected documents, queries or both."
        )
    large, small = (torch.cat(column) for column in zip(*pairs, strict=True))
    home = large.device
    if home.type == "mps":  # has no float64
        large, small = large.cpu(), small.cpu()
    names = tuple(ALIGNMENTS) if config.align == "auto" else (config.align,)
    maps = {name: align_rows(large, small, name, config.seed).to(home) for name in names}
    if len(maps) == 1:
        return maps[names[0]], names[0]
    references = document_references(parts, config, documents)
    tables = () if references is None else (references,)
    ranked = {n: _untrained(m._replace(references=tables), parts).mean for n, m in maps.items()}
    best = max(ranked, key=lambda name: ranked[name])
    return maps[best], best


def joined_start(aligned: torch.Tensor, scale: float) -> torch.Tensor:
    """Both views: the small one as it is, plus ``scale`` times the aligned large one.

    Args:
        aligned: (d_out, d_large) weight.
        scale: of the large view.

    Returns:
        (d_out, d_out + d_large) weight of the views small and large.
    """
    import torch

    eye = torch.eye(aligned.shape[0], device=aligned.device)
    return torch.cat([eye, scale * aligned], dim=1)


def _untrained(adapter: Adapter, parts: Sequence[Part], **options: float | int | str) -> Fitted:
    values = []
    for part in parts:
        queries, rows = part.labels.queries, part.labels.judges
        views = {name: vectors[rows] for name, vectors in queries.views.items()}
        values.append(values_of(adapter.apply(views), queries, rows, part.data))
    return Fitted(adapter, tuple(values), options)


def fit_candidates(
    data: FitData | Sequence[FitData],
    config: FitConfig,
    *,
    candidate: str = "auto",
    documents: Sequence[Documents] = (),
    progress: Progress | None = None,
    ready: Mapping[str, Fitted] | None = None,
) -> FitResult:
    """Align, train and choose, by the default recipe.

    Ctrl-C during a candidate leaves it and those after it out; what is ready is chosen from.

    Args:
        data: training and validation queries, corpus, alignment texts; of several collections for
            one adapter that serves them all.
        config: the recipe.
        candidate: ``auto``, or the name of the candidate that ships whatever held-out labels say.
        documents: (large, small) unit vectors of documents of further collections, which the
            adapter is to serve without labels; they align and become references.
        progress: told in words what is being fitted and how it goes.
        ready: candidates of an interrupted run with the same data and recipe, not fitted again.

    Raises:
        InputError: there is no such candidate.
        FitError: there is nothing to learn from.
    """
    import torch

    if candidate not in ("auto", *CANDIDATES) or candidate == "paper":
        names = ", ".join(name for name in CANDIDATES if name != "paper")
        raise InputError(f"No candidate '{candidate}'; there are: {names}.")
    tell = progress or (lambda _text: None)
    seconds: dict[str, float] = {}
    parts = parts_of(data, config)
    judges = sum(len(part.labels.judges) for part in parts)
    known: dict[str, float | int | str] = {}
    if judges < _FEW_JUDGES:
        known = {"knows_documents": int(_knows_documents(parts, config))}
    corpus = parts[0].data.corpus
    eye = torch.eye(corpus.shape[1], device=corpus.device)
    has_small = all("small" in part.data.train.views for part in parts)
    fits = {"small": _untrained(Adapter(("small",), eye), parts)} if has_small else {}
    with _timed(seconds, "align"):
        tell("aligned")
        map_, method = align(parts, config, documents)
        references = document_references(parts, config, documents)
        tables = () if references is None else (references,)
        fits["aligned"] = _untrained(map_._replace(references=tables), parts, align=method)

    def era() -> Fitted:
        return _crossfit("era", ("large",), map_.weight, references)

    def dual() -> Fitted:
        scale = choose_scale(parts, map_.weight, references, config)
        fit = _crossfit(
            "era-dual", ("small", "large"), joined_start(map_.weight, scale), references
        )
        return fit._replace(options={"scale": scale, **fit.options, **known})

    def small() -> Fitted:
        return _crossfit("small+", ("small",), eye, None)

    def _crossfit(
        name: str, views: tuple[str, ...], start: torch.Tensor, tables: References | None
    ) -> Fitted:
        request = Request(parts, views, start, config, tables)
        return crossfit(request, tell=lambda text: tell(f"{name}, {text}"))

    recipes: dict[str, Callable[[], Fitted]] = {"era": era}
    if has_small:
        recipes |= {"era-dual": dual, "small+": small}
    missing: list[str] = []
    for name, fit in recipes.items():
        if ready is not None and name in ready:
            fits[name] = ready[name]
            continue
        if missing:
            missing.append(name)
            continue
        tell(name)
        try:
            with _timed(seconds, name):
                fits[name] = fit()
        except KeyboardInterrupt:
            missing.append(name)
    if candidate in missing:
        raise FitError(f"Interrupted before {candidate} was fitted; the same command begins anew.")
    return FitResult(fits, choose(fits, candidate), seconds, tuple(missing))


def _knows_documents(parts: Sequence[Part], config: FitConfig) -> bool:
    """Whether held-out alignment documents find themselves among ten, half of them at least.

    A large model that tells documents no better than chance has nothing to say of queries either.
    """
    import torch

    large = torch.cat([part.data.align_large for part in parts]).cpu()
    small = torch.cat([part.data.align_small for part in parts]).cpu()
    if len(large) < _FEW_JUDGES:
        return False
    found = compare_alignments(large, small, ["procrustes"], config.seed)["procrustes"]
    return found.recall_at_10 >= 0.5


def choose_scale(
    parts: Sequence[Part],
    aligned: torch.Tensor,
    references: References | None,
    config: FitConfig,
) -> float:
    """The weight of the large view at which the untrained dual view ranks best.

    It is chosen before any training, so that every labelled query judges it fairly.
    """

    def mean(scale: float) -> float:
        tables = () if references is None else (references,)
        start = Adapter(("small", "large"), joined_start(aligned, scale), references=tables)
        return _untrained(start, parts).mean

    return max(config.scales, key=mean)


def fit_paper(data: FitData, config: PaperConfig, *, progress: Progress | None = None) -> FitResult:
    """Run the published recipe; what it ships is its adapter, whatever validation says.

    Raises:
        FitError: there is nothing to learn from.
    """
    import torch

    tell = progress or (lambda _text: None)
    seconds: dict[str, float] = {}
    with _timed(seconds, "align"):
        tell("aligned")
        aligned = align_paper(data.align_large, data.align_small, config)
    with _timed(seconds, "paper"):
        tell("paper")
        trained = train_paper(data, aligned, config)
    parts = parts_of(data, FitConfig(refit=False))
    eye = torch.eye(data.corpus.shape[1], device=data.corpus.device)
    fits = {
        "small": _untrained(Adapter(("small",), eye), parts),
        "aligned": _untrained(aligned, parts),
        "paper": _untrained(trained.adapter, parts, **trained.options),
    }
    reason = "the published recipe compares with nothing; see the table"
    return FitResult(fits, Choice("paper", reason), seconds)


def choose(fits: Mapping[str, Fitted], candidate: str = "auto") -> Choice:
    """Choose by held-out means: the best candidate that is clearly better than ``small``.

    Without small queries there is no ``small``, and ``aligned`` is what must be beaten.

    Of adapters within one standard error of the best, ``era-dual`` is taken, which leans on both
    encoders (the one-standard-error rule of Breiman et al., Classification and Regression Trees,
    1984). To ship, its mean must exceed that of ``small`` by more than one standard error of the
    paired difference; otherwise doing nothing is as good, and ``small`` ships. Of several
    collections none may lose clearly (``_harmed``). With fewer than 30 judging
    queries a standard error is a guess: only ``era-dual`` is then tried, and ships if its mean is
    higher and the large model is known to know the documents (``_knows_documents``).

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
    few = queries < _FEW_JUDGES and base == "small" and "era-dual" in fits
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


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the block's seconds to ``seconds[name]``."""
    start = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
