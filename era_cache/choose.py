"""Fitting all candidates and choosing the one that ships.

In: ``FitData``. Out: every candidate with its validation values, and the name of the chosen one.
What ships is never worse than doing nothing, as far as the validation labels can tell.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from era_cache.adapters import Adapter
from era_cache.align import align_paper, align_procrustes
from era_cache.config import FitConfig, PaperConfig
from era_cache.errors import InputError
from era_cache.pairs import FitData
from era_cache.paper import train_paper
from era_cache.train import (
    Fitted,
    identity,
    joined_start,
    make_pool,
    train_adapters,
    validation_values,
)

if TYPE_CHECKING:
    from era_cache.types import FloatArray

__all__ = ["CANDIDATES", "Choice", "FitResult", "choose", "fit_candidates", "fit_paper"]

CANDIDATES = {
    "small": "the small encoder's own query: today's index as it is",
    "aligned": "the large query through the label-free map",
    "era": "aligned, then trained with labels (large query only)",
    "era-dual": "small and large query together, trained with labels",
    "small+": "the small query alone, trained with labels",
    "paper": "the published recipe (large query only)",
}

Progress = Callable[[str], None]


class Choice(NamedTuple):
    """The chosen candidate and, in a sentence, why."""

    name: str
    reason: str


class FitResult(NamedTuple):
    """All candidates by name, the choice, and seconds by step."""

    candidates: dict[str, Fitted]
    choice: Choice
    seconds: dict[str, float]


def _untrained(adapter: Adapter, data: FitData) -> Fitted:
    return Fitted(adapter, validation_values(adapter, data), {})


def fit_candidates(
    data: FitData,
    config: FitConfig,
    *,
    candidate: str = "auto",
    progress: Progress | None = None,
) -> FitResult:
    """Align, train and choose, by the default recipe.

    Args:
        data: training and validation queries, corpus, alignment texts.
        config: the recipe.
        candidate: ``auto``, or the name of the candidate that ships whatever validation says.
        progress: told the name of each candidate before it is fitted.

    Raises:
        InputError: there is no such candidate.
        FitError: there is nothing to learn from.
    """
    tell = progress or (lambda _name: None)
    seconds: dict[str, float] = {}
    do_nothing = identity(data)
    fits = {"small": _untrained(do_nothing, data)}
    with _timed(seconds, "align"):
        tell("aligned")
        aligned = align_procrustes(data.align_large, data.align_small)
        fits["aligned"] = _untrained(aligned, data)
    pool = make_pool(data, aligned, config)
    joined, scale = _joined(data, aligned, config)

    def best(start: Adapter, **options: float) -> Fitted:
        runs = train_adapters(data, start, pool, config, config.anchors, **options)
        return max(runs, key=lambda fit: fit.mean)

    recipes: dict[str, Callable[[], Fitted]] = {
        "era": lambda: best(aligned),
        "era-dual": lambda: best(joined, scale=scale),
        "small+": lambda: best(do_nothing),
    }
    for name, fit in recipes.items():
        tell(name)
        with _timed(seconds, name):
            fits[name] = fit()
    return FitResult(fits, choose(fits, candidate), seconds)


def _joined(data: FitData, aligned: Adapter, config: FitConfig) -> tuple[Adapter, float]:
    """The start of the dual view: both views at the best weight of the large one.

    The weight is chosen before any training, so training queries judge it as fairly as validation
    queries do, and three times as many judges choose better than validation alone.
    """
    judges = (data, data._replace(validation=data.train))
    starts = {scale: joined_start(aligned, scale) for scale in config.scales}

    def total(scale: float) -> float:
        return float(sum(validation_values(starts[scale], judge).sum() for judge in judges))

    scale = max(starts, key=total)
    return starts[scale], scale


def fit_paper(data: FitData, config: PaperConfig, *, progress: Progress | None = None) -> FitResult:
    """Run the published recipe; what it ships is its adapter, whatever validation says."""
    tell = progress or (lambda _name: None)
    seconds: dict[str, float] = {}
    with _timed(seconds, "align"):
        tell("aligned")
        aligned = align_paper(data.align_large, data.align_small, config)
    with _timed(seconds, "paper"):
        tell("paper")
        trained = train_paper(data, aligned, config)
    fits = {
        "small": _untrained(identity(data), data),
        "aligned": _untrained(aligned, data),
        "paper": trained,
    }
    reason = "the published recipe compares with nothing; see the table"
    return FitResult(fits, Choice("paper", reason), seconds)


def choose(fits: Mapping[str, Fitted], candidate: str = "auto") -> Choice:
    """Choose the candidate with the best validation mean, unless it fails to beat ``small``.

    To ship, its mean must exceed that of ``small`` by more than one standard error of the paired
    difference; otherwise doing nothing is as good, and ``small`` ships.

    Args:
        fits: all candidates, ``small`` among them.
        candidate: ``auto``, or a name that is chosen without comparison.

    Raises:
        InputError: there is no such candidate.
    """
    if candidate != "auto":
        if candidate not in fits:
            raise InputError(f"No candidate '{candidate}'; there are: {', '.join(fits)}.")
        return Choice(candidate, "asked for with --candidate")
    name = max(fits, key=lambda n: fits[n].mean)
    if name == "small":
        return Choice("small", "no adapter beat the small encoder's own queries on validation")
    difference = fits[name].values - fits["small"].values
    error = _standard_error(difference)
    gain = float(difference.mean())
    counted = (
        f"validation nDCG@10 {fits[name].mean:.3f} against {fits['small'].mean:.3f} of small "
        f"({gain:+.3f}, standard error {error:.3f}, {len(difference)} queries)"
    )
    if gain > error:
        return Choice(name, f"best on validation: {counted}")
    return Choice("small", f"{name} is not better than small by one standard error: {counted}")


def _standard_error(values: FloatArray) -> float:
    if len(values) < 2:
        return math.inf
    return float(values.std(ddof=1) / math.sqrt(len(values)))


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the block's seconds to ``seconds[name]``."""
    start = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
