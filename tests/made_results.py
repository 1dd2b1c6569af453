"""Results with made-up values, for the tests of what is done with results: nothing is fitted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from era_cache.evaluate.protocols import tasks_of
from era_cache.evaluate.results import (
    EDGES,
    CollectionEntry,
    Extra,
    Fit,
    Head,
    Histogram,
    Measured,
    Results,
    job_name,
)
from era_cache.fitting.adapter_config import NamedEncoder
from era_cache.report.records import Fact

MEASURES = ("AP", "nDCG@10")
NAMES = ("small", "aligned", "era", "era-dual")
DOMAINS = {"alpha": "web", "beta": "law", "gamma": "web"}


def made_results(
    protocol: str = "general",
    domains: Mapping[str, str] = DOMAINS,
    *,
    queries: Mapping[str, int] | int = 12,
    seeds: Sequence[int] = (42,),
    labels: Sequence[float] = (0.2,),
    candidates: Sequence[str] = NAMES,
    lacking: Mapping[str, Collection[str]] = {},
    steps: int = 8,
    seed: int = 0,
) -> Results:
    """Results of a protocol, all fits planned and there.

    Half of each collection's ``queries`` are tested in each shuffle, at least one. Values are
    multiples of 1 / ``steps``, so that many differences are 0. ``lacking`` maps a collection to
    candidates that were not measured on it; what a fit chose is always measured.
    """
    rng = np.random.default_rng(seed)
    sizes = {n: queries if isinstance(queries, int) else queries[n] for n in domains}
    fits = []
    for split_seed in seeds:
        test = {
            name: np.sort(rng.permutation(size)[: max(1, size // 2)])
            for name, size in sizes.items()
        }
        for share in labels:
            for trained_on, train, measure in _tasks(protocol, domains):
                absent = {"large", *(c for some in lacking.values() for c in some)}
                chosen = str(rng.choice([c for c in candidates if c not in absent]))
                measured = [
                    _measured(
                        rng,
                        name,
                        [c for c in candidates if c not in lacking.get(name, ())],
                        test[name],
                        steps,
                        chosen,
                    )
                    for name in measure
                ]
                fits.append(
                    Fit(
                        job={"train": sorted(train), "labels": share, "seed": split_seed},
                        trained_on=trained_on,
                        labels=share,
                        split_seed=split_seed,
                        queries={
                            "train": sum(int(share * sizes[name]) for name in train),
                            "validation": len(train),
                            "judging": 40,
                        },
                        held_out={c: float(rng.random()) for c in candidates if c != "large"},
                        chosen=chosen,
                        reason=f"best of {trained_on}",
                        seconds={"align": 0.5, "era": 2.0, "evaluate": 1.0},
                        measured=tuple(measured),
                    )
                )
    return Results(_head(protocol, domains, sizes, fits), _ids(sizes), fits)


def _tasks(protocol: str, domains: Mapping[str, str]) -> list[tuple[str, tuple[str, ...], ...]]:
    if protocol == "adapter":
        return [(", ".join(domains), tuple(domains), tuple(domains))]
    return list(tasks_of(protocol, domains))


def _measured(rng, name, candidates, rows, steps, chosen) -> Measured:
    values = rng.integers(0, steps + 1, size=(len(candidates), len(MEASURES), len(rows))) / steps
    bins = len(EDGES) - 1
    scores = {
        c: Histogram(*rng.integers(0, 9, size=(3, bins))) for c in dict.fromkeys(("small", chosen))
    }
    return Measured(name, tuple(candidates), rows, values.astype(np.float32), scores)


def _head(protocol, domains, sizes, fits) -> Head:
    return Head(
        protocol=protocol,
        title=f"{protocol} over {len(domains)}",
        measures=MEASURES,
        primary="nDCG@10",
        collections={
            name: CollectionEntry(f"{i:064x}", domain, 100, sizes[name])
            for i, (name, domain) in enumerate(domains.items())
        },
        encoders={
            side: NamedEncoder(name=f"{side}-model", fingerprint=f"{i:064x}")
            for i, side in enumerate(("query", "small_query", "document", "align"))
        },
        configuration={"command": "era-eval", "split": "paper", "recipe": {"strengths": [8.0]}},
        costs=(Fact("cached rows", "1,234"),),
        commands=("era-eval x",),
        notes=("A note.",),
        environment={"numpy": "2"},
        extra=Extra(planned=tuple(job_name(fit.job) for fit in fits)),
    )


def _ids(sizes: Mapping[str, int]) -> dict[str, list[str]]:
    return {name: [f"{name}-q{row}" for row in range(size)] for name, size in sizes.items()}
