"""What ships when the large side is useless or broken: never worse than doing nothing.

    python -m benchmarks.fit --part harm     # half an hour on two cores; goes on where it stopped

Three development collections, a handful of labels, no other query to look at: the hardest case for
signs and labels alike. Each fit's shipped candidate is compared with ``small`` on all test queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import Bar
from benchmarks.fit_data import PAIRS, problem
from benchmarks.fit_quality import Kept
from era_cache.evaluate.score import score_adapters
from era_cache.evaluate.statistics import paired_randomisation_test
from era_cache.fitting.adapter import unit
from era_cache.fitting.config import FitConfig
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.recipes import fit_candidates
from era_cache.fitting.tensors import FitData, HeldOut, QuerySet
from era_cache.types import IntArray

__all__ = ["KINDS", "harm_bars"]

COLLECTIONS = ("theoremqa", "toollens", "cranfield")
LABELS = (5, 10, 20, 50)
DRAWS = 8
"""Draws of labels for each collection, kind and number of labels: 24 fits a cell."""
KEPT = Kept("harm", "7")


class _Case(NamedTuple):
    data: FitData
    held_out: HeldOut


Spoil = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _noise(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return unit(torch.randn(rows.shape, generator=generator))


def _shuffled(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


def _as_it_is(rows: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    return rows


def _half_noise(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return unit(rows + 4 * unit(torch.randn(rows.shape, generator=generator)))


def _crude(rows: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    """A random projection to 16 dimensions, the same for documents and queries."""
    own = torch.Generator().manual_seed(1)
    return unit(rows @ torch.randn(rows.shape[1], 16, generator=own))


def _turned(rows: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    """Queries of another model of the same width."""
    own = torch.Generator().manual_seed(2)
    rotation: torch.Tensor = torch.linalg.qr(
        torch.randn(rows.shape[1], rows.shape[1], generator=own)
    )[0]
    return rows @ rotation


KINDS: dict[str, tuple[Spoil, Spoil]] = {
    "a real large model": (_as_it_is, _as_it_is),
    "noise on both sides": (_noise, _noise),
    "much noise on both sides": (_half_noise, _half_noise),
    "documents good, queries garbage": (_as_it_is, _noise),
    "query rows shuffled": (_as_it_is, _shuffled),
    "queries of another model": (_as_it_is, _turned),
    "alignment documents shuffled": (_shuffled, _as_it_is),
    "a crude model": (_crude, _crude),
    "a copy of the small model": (_as_it_is, _as_it_is),
}
"""Name to what becomes of the large documents and of the large queries."""


def _spoiled(case: _Case, kind: str, seed: int) -> _Case:
    documents, queries = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    data, held_out = case

    def asked(of: QuerySet) -> QuerySet:
        source = "small" if "copy" in kind else "large"
        return of._replace(views={**of.views, "large": queries(of.views[source], generator)})

    large = data.align_small if "copy" in kind else data.align_large
    return _Case(
        data._replace(
            align_large=documents(large, generator),
            train=asked(data.train),
            validation=asked(data.validation),
        ),
        held_out._replace(queries=asked(held_out.queries)),
    )


def _few(queries: QuerySet, rows: IntArray) -> QuerySet:
    return queries._replace(
        ids=[queries.ids[row] for row in rows],
        views={name: vectors[rows] for name, vectors in queries.views.items()},
        qrels=queries.qrels.select_queries(rows),
        exclude=None if queries.exclude is None else queries.exclude[rows],
        texts=None if queries.texts is None else queries.texts[rows],
    )


def _cases(name: str, labels: int) -> Iterator[tuple[int, _Case]]:
    for draw in range(DRAWS):
        data, held_out, _ = problem(name, PAIRS["demo"], 0.4, 100 + draw)
        rows = np.sort(np.random.default_rng(draw).permutation(len(data.train.ids))[:labels])
        nobody = _few(data.validation, rows[:0])
        yield draw, _Case(data._replace(train=_few(data.train, rows), validation=nobody), held_out)


def _record(case: _Case) -> dict[str, Any]:
    result = fit_candidates(case.data, FitConfig())
    shipped = result.choice.name
    wanted = {name: result.candidates[name].adapter for name in ("small", "era-zero", shipped)}
    scored = {
        n: s.values[PRIMARY] for n, s in score_adapters(case.held_out, wanted, [PRIMARY]).items()
    }
    gains = {n: float(100 * (v - scored["small"]).mean()) for n, v in scored.items()}

    def worse_than(name: str) -> float:
        if shipped == name or scored[shipped].mean() >= scored[name].mean():
            return 1.0
        return float(paired_randomisation_test(scored[shipped], scored[name], seed=0))

    held_out = {name: 100 * fit.mean for name, fit in result.candidates.items()}
    return {
        "shipped": shipped,
        "gain": gains[shipped],
        "zero": gains["era-zero"],
        "believed": held_out[shipped] - held_out["small"],
        "p_small": worse_than("small"),
        "p_zero": worse_than("era-zero"),
        "reason": result.choice.reason,
    }


def _records(kinds: Sequence[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = KEPT.read()
    for kind in kinds:
        for name in COLLECTIONS:
            for labels in LABELS:
                if (kind, name, labels, DRAWS - 1) in found:
                    continue
                for draw, case in _cases(name, labels):
                    key = (kind, name, labels, draw)
                    if key not in found:
                        found[key] = _record(_spoiled(case, kind, draw))
                        KEPT.keep(key, found[key])
    return found


def harm_bars() -> tuple[str, list[Bar]]:
    """Simulate, and give the table and the bars."""
    found = _records(list(KINDS))
    lines = [
        "| large side | labels | fits | ships | significantly worse | worst | belief - truth |",
        "|---|---|---|---|---|---|---:|",
    ]
    bars = []
    for kind in KINDS:
        rows = [[r for key, r in found.items() if key[0] == kind and key[2] == n] for n in LABELS]
        shipped = [[r for r in row if r["shipped"] != "small"] for row in rows]
        worse = [sum(r["p_small"] < 0.05 for r in row) for row in rows]
        every = [r for row in rows for r in row]
        lost = min(r["gain"] for r in every)
        biased = [r["believed"] - r["gain"] for row in shipped for r in row]
        bias = f"{np.mean(biased):+.1f}" if biased else "-"

        def cells(numbers: Sequence[int]) -> str:
            return " / ".join(map(str, numbers))

        lines.append(
            f"| {kind} | {cells(LABELS)} | {len(rows[0])} each | {cells([*map(len, shipped)])} | "
            f"{cells(worse)} | {lost:+.1f} | {bias} |"
        )
        share = sum(worse) / len(every)
        bars.append(
            Bar(
                f"harm, {kind}",
                "<= 2 % of fits, >= -3 points",
                f"{share:.1%}, {lost:+.1f}",
                share <= 0.02 and lost >= -3,
            )
        )
    real = [r for key, r in found.items() if key[0] == "a real large model" and key[2] == 5]
    below = sum(r["p_zero"] < 0.05 for r in real)
    bars.append(
        Bar(
            "5 labels: shipped below era-zero",
            "0 significantly",
            f"{below} of {len(real)}",
            not below,
        )
    )
    return "\n".join(lines), bars
