"""The two recipes, from data to all candidates: the default one, and the published one.

In: ``FitData`` of one or several collections. Out: every candidate with the values of the queries
that judge it, and which one ships.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_config import CandidateMetrics, Metrics
from era_cache.fitting.alignment.methods import align_paper
from era_cache.fitting.candidates import DEFAULT, TRAINED, VIEWS_READ, described, unfused_name
from era_cache.fitting.choice import Choice, choose
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.crossfit import Fitted, Request, crossfit
from era_cache.fitting.elsewhere import choose_elsewhere, free_elsewhere
from era_cache.fitting.fusion import RETABLED, fused_candidates
from era_cache.fitting.held_out import PRIMARY, Part, values_of
from era_cache.fitting.judging_pool import JudgingPool
from era_cache.fitting.label_free import joined_start
from era_cache.fitting.paper import train_paper
from era_cache.fitting.signs import Signs, signs_of
from era_cache.fitting.starts import Begin, begin_of, choose_scale, free_adapters, untrained
from era_cache.fitting.tensors import Documents, FitData
from era_cache.fitting.who_judges import Labelled, Labels, labels_together, merged

__all__ = ["FitResult", "fit_candidates", "fit_paper", "parts_of"]

Progress = Callable[[str], None]


class FitResult(NamedTuple):
    """All candidates by name, the choice, seconds by step, and what an interruption left out.

    ``signs`` are of each collection; empty where nothing was looked at.
    """

    candidates: dict[str, Fitted]
    choice: Choice
    seconds: dict[str, float]
    missing: tuple[str, ...] = ()
    signs: tuple[Signs, ...] = ()

    def metrics(self) -> Metrics:
        """What ``metrics.json`` says of a fit."""
        first = next(iter(self.candidates.values()))
        judges = sum(len(values) for values in first.values)
        return Metrics(
            primary=str(PRIMARY),
            judging_queries=judges,
            missing=list(self.missing),
            signs=[sign._asdict() for sign in self.signs],
            candidates={
                name: CandidateMetrics(validation=fit.mean if judges else None, options=fit.options)
                for name, fit in self.candidates.items()
            },
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
        )


def parts_of(
    data: FitData | Sequence[FitData], config: FitConfig, *, elsewhere: bool = False
) -> list[Part]:
    """Each collection with its folds; see ``labels_together``.

    Raises:
        FitError: no labelled query has a positive document, or only one of all queries has.
    """
    several = _several(data)
    sets = [Labelled(merged(one.train, one.validation), len(one.train.ids)) for one in several]
    labels = labels_together(sets, config, elsewhere=elsewhere)
    parts = [Part(one, mine) for one, mine in zip(several, labels, strict=True)]
    parts = [part for part in parts if len(part.labels.train_rows)]
    if not parts:
        raise FitError("No training query has a positive judgement; there is nothing to learn.")
    if not any(part.labels.folds and len(part.labels.judges) for part in parts):
        raise FitError(
            "A single labelled query cannot both train and judge. Judge at least two different "
            "queries."
        )
    return parts


def _several(data: FitData | Sequence[FitData]) -> list[FitData]:
    return [data] if isinstance(data, FitData) else list(data)


def _parts(data: Sequence[FitData], config: FitConfig, *, elsewhere: bool) -> list[Part]:
    """As ``parts_of``; where no query trains or judges, no query has a part."""
    if any(len(one.train.ids) or len(one.validation.ids) for one in data):
        found = parts_of(data, config, elsewhere=elsewhere)
        return [_pooled(part, config) for part in found]
    nobody = np.zeros(0, dtype=np.int64)
    return [Part(one, Labels(one.train, (), nobody, nobody)) for one in data]


def _pooled(part: Part, config: FitConfig) -> Part:
    """The part with a pool where a search of all documents for every setting takes too long."""
    corpus = part.data.corpus
    if len(corpus) <= config.judge_exactly or corpus.device.type != "cpu":
        return part
    return part._replace(pool=JudgingPool(part.data, part.labels.queries, config.seed))


def _exact(fit: Fitted, parts: Sequence[Part]) -> Fitted:
    """A candidate's values by a search of all documents, where they were found among fewer."""
    values = list(fit.values)
    for number, part in enumerate(parts):
        if part.pool is None or not fit.measured or not len(values[number]):
            continue
        labels = part.labels
        exact = values_of(fit.mapped[number], labels.queries, labels.judges, part.data)
        values[number] = values[number] + exact - fit.measured[number]
    return fit._replace(values=tuple(values))


def _choose_exactly(
    fits: dict[str, Fitted],
    parts: Sequence[Part],
    candidate: str,
    signs: Sequence[Signs],
    elsewhere: Sequence[Documents] | None,
) -> Choice:
    """Choose; what is chosen is judged exactly (in ``fits``) until that changes nothing."""
    exact: set[str] = set()
    while True:
        if elsewhere is None:
            choice = choose(fits, candidate, signs)
        else:
            choice = choose_elsewhere(fits, candidate, signs, documents=bool(elsewhere))
        if choice.name in exact or all(part.pool is None for part in parts):
            return choice
        exact.add(choice.name)
        fits[choice.name] = _exact(fits[choice.name], parts)


def fit_candidates(
    data: FitData | Sequence[FitData],
    config: FitConfig,
    *,
    candidate: str = "auto",
    elsewhere: Sequence[Documents] | None = None,
    progress: Progress | None = None,
    ready: Mapping[str, Fitted] | None = None,
) -> FitResult:
    """Align, train and choose, by the default recipe.

    Without training and validation queries there are the candidates that no label has a part in,
    and signs choose between them.

    Ctrl-C during a candidate leaves it and those after it out; what is ready is chosen from.

    Args:
        data: training and validation queries, corpus, alignment texts; of several collections for
            one adapter that serves them all.
        config: the recipe.
        candidate: ``auto``, or the name of the candidate that ships whatever held-out labels say.
        elsewhere: None for an adapter of these collections. For one that is to serve others, of
            which there are no labels: (large, small) unit vectors of their documents, as far as
            there are any. See ``fitting.elsewhere``.
        progress: told in words what is being fitted and how it goes.
        ready: candidates of an interrupted run with the same data and recipe, not fitted again.

    Raises:
        InputError: there is no such candidate.
        FitError: there is nothing to learn from.
    """
    if candidate != "auto" and not described(candidate):
        raise InputError(f"No candidate '{candidate}'; there are: {', '.join(DEFAULT)}.")
    tell = progress or (lambda _text: None)
    seconds: dict[str, float] = {}
    with _timed(seconds, "pool"):
        parts = _parts(_several(data), config, elsewhere=elsewhere is not None)
    has_small = all("small" in part.data.train.views for part in parts)
    judged = any(len(part.labels.judges) for part in parts)
    if not (judged or has_small):
        raise FitError(
            "Without labels the small model's queries are needed: the large ones alone do worse "
            "than today's index."
        )
    fits = {"small": untrained(_as_it_is(parts), parts)} if has_small else {}
    with _timed(seconds, "align"):
        tell("aligned")
        begin = begin_of(parts, config, elsewhere or ())
    with _timed(seconds, "era-zero"):
        names = ("aligned", "era-zero") if has_small else ("aligned",)
        if elsewhere is None:
            free = free_adapters(begin, config)
            fits |= {name: untrained(free[name], parts) for name in names}
        else:
            fits |= free_elsewhere(parts, config, elsewhere, names)
        fits["aligned"] = fits["aligned"]._replace(options={"align": begin.method})
        signs = tuple(signs_of(part.data, config.seed) for part in parts) if has_small else ()
    if not judged:
        fits |= fused_candidates(fits, parts, config)
        if candidate not in ("auto", *fits):
            raise FitError(f"Candidate '{candidate}' is trained with labels; there are none.")
        choice = _choose_exactly(fits, parts, candidate, signs, elsewhere)
        return FitResult(fits, choice, seconds, signs=signs)
    missing: list[str] = []
    for name in TRAINED if has_small else ("era",):
        if ready is not None and name in ready:
            fits[name] = ready[name]
            continue
        found = None if missing else _trained(name, parts, config, begin, tell, seconds)
        if found is None:
            missing.append(name)
        else:
            fits[name] = found
    if unfused_name(candidate) in missing:
        raise FitError(f"Interrupted before {candidate} was fitted; the same command begins anew.")
    with _timed(seconds, "fusion"):
        fits |= fused_candidates(fits, parts, config)
    with _timed(seconds, "choose"):
        choice = _choose_exactly(fits, parts, candidate, signs, elsewhere)
    return FitResult(fits, choice, seconds, tuple(missing), signs)


def _as_it_is(parts: Sequence[Part]) -> Adapter:
    """The small encoder's own queries."""
    import torch

    corpus = parts[0].data.corpus
    return Adapter(VIEWS_READ["small"], torch.eye(corpus.shape[1], device=corpus.device))


def _trained(
    name: str,
    parts: Sequence[Part],
    config: FitConfig,
    begin: Begin,
    tell: Progress,
    seconds: dict[str, float],
) -> Fitted | None:
    """One of the candidates that are trained, from its start; None where Ctrl-C came first."""
    tell(name)
    try:
        with _timed(seconds, name):
            return _from_start(name, parts, config, begin, tell)
    except KeyboardInterrupt:
        return None


def _from_start(
    name: str, parts: Sequence[Part], config: FitConfig, begin: Begin, tell: Progress
) -> Fitted:
    options: dict[str, float | int | str] = {}
    owed = None
    references = begin.references
    if name == "small+":
        start, references = begin.spread, None
    elif name == "era":
        start = begin.spread @ begin.aligned.weight
    else:
        options["scale"], owed = choose_scale(
            parts, begin.aligned.weight, begin.spread, references, config
        )
        start = joined_start(begin.aligned.weight, float(options["scale"]), begin.spread)
    # Joined with a first stage, another strength may be the best.
    joined = name == RETABLED and all(part.labels.queries.first is not None for part in parts)
    request = Request(parts, VIEWS_READ[name], start, config, references, keep_path=joined)
    fit = crossfit(request, tell=lambda text: tell(f"{name}, {text}"))
    values = fit.values
    if owed is not None:
        values = tuple(v - less for v, less in zip(values, owed, strict=True))
    return fit._replace(values=values, options={**options, **fit.options})


def fit_paper(
    data: FitData | Sequence[FitData], config: PaperConfig, *, progress: Progress | None = None
) -> FitResult:
    """Run the published recipe; what it ships is its adapter, whatever validation says.

    Args:
        data: of one collection, or of several for one adapter: their alignment documents and
            training pairs are taken together, as published.
        config: the recipe; its mode says which of the two stages are run.
        progress: told in words what is being fitted.

    Raises:
        FitError: there is nothing to learn from.
    """
    import torch

    tell = progress or (lambda _text: None)
    seconds: dict[str, float] = {}
    several = _several(data)
    parts = parts_of(several, FitConfig(refit=False))
    fits = {"small": untrained(_as_it_is(parts), parts)}
    aligned: Adapter | None = None
    if config.mode != "label_only":
        with _timed(seconds, "align"):
            tell("aligned")
            aligned = align_paper(
                torch.cat([one.align_large for one in several]),
                torch.cat([one.align_small for one in several]),
                config,
            )
        fits["aligned"] = untrained(aligned, parts)
    if config.mode != "alignment_only":
        with _timed(seconds, "paper"):
            tell("paper")
            trained = train_paper(several, aligned, config)
        fits["paper"] = untrained(trained.adapter, parts)._replace(options=trained.options)
    reason = "the published recipe compares with nothing; see the table"
    return FitResult(fits, Choice(list(fits)[-1], reason), seconds)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the block's seconds to ``seconds[name]``."""
    start = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
