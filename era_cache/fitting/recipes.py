"""The two recipes, from data to all candidates: the default one, and the published one.

In: ``FitData`` of one or several collections. Out: every candidate with the values of the queries
that judge it, and which one ships.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from era_cache.config import FitConfig, PaperConfig
from era_cache.errors import FitError, InputError
from era_cache.fitting.adapter import Adapter, References
from era_cache.fitting.adapter_config import CandidateMetrics, Metrics
from era_cache.fitting.alignment.methods import align_paper
from era_cache.fitting.alignment.quality import compare_alignments
from era_cache.fitting.candidates import DEFAULT, TRAINED, VIEWS_READ
from era_cache.fitting.choice import FEW_JUDGES, Choice, choose
from era_cache.fitting.crossfit import Fitted, Request, crossfit
from era_cache.fitting.held_out import PRIMARY, Part, document_references
from era_cache.fitting.paper import train_paper
from era_cache.fitting.starts import align, choose_scale, joined_start, untrained
from era_cache.fitting.tensors import Documents, FitData
from era_cache.fitting.who_judges import Labelled, labels_together, merged

__all__ = ["FitResult", "fit_candidates", "fit_paper", "parts_of"]

Progress = Callable[[str], None]


class FitResult(NamedTuple):
    """All candidates by name, the choice, seconds by step, and what an interruption left out."""

    candidates: dict[str, Fitted]
    choice: Choice
    seconds: dict[str, float]
    missing: tuple[str, ...] = ()

    def metrics(self) -> Metrics:
        """What ``metrics.json`` says of a fit."""
        first = next(iter(self.candidates.values()))
        return Metrics(
            primary=str(PRIMARY),
            judging_queries=sum(len(values) for values in first.values),
            missing=list(self.missing),
            candidates={
                name: CandidateMetrics(validation=fit.mean, options=fit.options)
                for name, fit in self.candidates.items()
            },
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
        )


def parts_of(data: FitData | Sequence[FitData], config: FitConfig) -> list[Part]:
    """Each collection with its folds.

    Raises:
        FitError: no labelled query has a positive document, or only one of all queries has.
    """
    several = [data] if isinstance(data, FitData) else list(data)
    sets = [Labelled(merged(one.train, one.validation), len(one.train.ids)) for one in several]
    labels = labels_together(sets, config)
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
    if candidate not in ("auto", *DEFAULT):
        raise InputError(f"No candidate '{candidate}'; there are: {', '.join(DEFAULT)}.")
    tell = progress or (lambda _text: None)
    seconds: dict[str, float] = {}
    parts = parts_of(data, config)
    has_small = all("small" in part.data.train.views for part in parts)
    fits = {"small": untrained(_as_it_is(parts), parts)} if has_small else {}
    with _timed(seconds, "align"):
        tell("aligned")
        aligned, method = align(parts, config, documents)
        references = document_references(parts, config, documents)
        fit = untrained(aligned, parts, references)
        fits["aligned"] = fit._replace(options={"align": method})
    missing: list[str] = []
    for name in TRAINED if has_small else ("era",):
        if ready is not None and name in ready:
            fits[name] = ready[name]
            continue
        if missing:
            missing.append(name)
            continue
        tell(name)
        try:
            with _timed(seconds, name):
                fits[name] = _trained(name, parts, config, aligned, references, tell)
        except KeyboardInterrupt:
            missing.append(name)
    if candidate in missing:
        raise FitError(f"Interrupted before {candidate} was fitted; the same command begins anew.")
    return FitResult(fits, choose(fits, candidate), seconds, tuple(missing))


def _as_it_is(parts: Sequence[Part]) -> Adapter:
    """The small encoder's own queries."""
    import torch

    corpus = parts[0].data.corpus
    return Adapter(VIEWS_READ["small"], torch.eye(corpus.shape[1], device=corpus.device))


def _trained(
    name: str,
    parts: Sequence[Part],
    config: FitConfig,
    aligned: Adapter,
    references: References | None,
    tell: Progress,
) -> Fitted:
    """One of the candidates that are trained, from its start."""
    options: dict[str, float | int | str] = {}
    known: dict[str, float | int | str] = {}
    start = aligned.weight
    if name == "small+":
        start, references = _as_it_is(parts).weight, None
    elif name == "era-dual":
        options["scale"] = scale = choose_scale(parts, start, references, config)
        start = joined_start(start, scale)
        if sum(len(part.labels.judges) for part in parts) < FEW_JUDGES:
            known["knows_documents"] = int(_knows_documents(parts, config))
    request = Request(parts, VIEWS_READ[name], start, config, references)
    fit = crossfit(request, tell=lambda text: tell(f"{name}, {text}"))
    return fit._replace(options={**options, **fit.options, **known})


def _knows_documents(parts: Sequence[Part], config: FitConfig) -> bool:
    """Whether held-out alignment documents find themselves among ten, half of them at least.

    A large model that tells documents no better than chance has nothing to say of queries either.
    """
    import torch

    large = torch.cat([part.data.align_large for part in parts]).cpu()
    small = torch.cat([part.data.align_small for part in parts]).cpu()
    if len(large) < FEW_JUDGES:
        return False
    found = compare_alignments(large, small, ["procrustes"], config.seed)["procrustes"]
    return found.recall_at_10 >= 0.5


def fit_paper(data: FitData, config: PaperConfig, *, progress: Progress | None = None) -> FitResult:
    """Run the published recipe; what it ships is its adapter, whatever validation says.

    Raises:
        FitError: there is nothing to learn from.
    """
    tell = progress or (lambda _text: None)
    seconds: dict[str, float] = {}
    with _timed(seconds, "align"):
        tell("aligned")
        aligned = align_paper(data.align_large, data.align_small, config)
    with _timed(seconds, "paper"):
        tell("paper")
        trained = train_paper(data, aligned, config)
    parts = parts_of(data, FitConfig(refit=False))
    fits = {
        "small": untrained(_as_it_is(parts), parts),
        "aligned": untrained(aligned, parts),
        "paper": untrained(trained.adapter, parts)._replace(options=trained.options),
    }
    reason = "the published recipe compares with nothing; see the table"
    return FitResult(fits, Choice("paper", reason), seconds)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the block's seconds to ``seconds[name]``."""
    start = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
