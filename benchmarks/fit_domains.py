"""Each domain left out in turn: what ships there, against what no labels give.

    python -m benchmarks.fit --part domains   # half an hour on two cores; goes on where it stopped

The adapter of a domain is fitted with 20 % of the labels of all other domains and with documents of
this one. ``no labels`` is what ships from these documents without any label; ``alone`` the same
where each collection of the domain has an adapter of its own.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.common import Bar, skipped
from benchmarks.fit_data import COLLECTIONS, PAIRS, available, demo_name, problem
from benchmarks.fit_labels import without_labels
from benchmarks.fit_quality import SEEDS, Kept, one_thread
from era_cache.evaluate.score import score_adapters
from era_cache.evaluate.statistics import holm, paired_randomisation_test
from era_cache.fitting.config import FitConfig
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.recipes import FitResult, fit_candidates
from era_cache.fitting.tensors import FitData, HeldOut
from era_cache.types import FloatArray

__all__ = ["domains_bars"]

_SHOWN = ("small", "era-zero", "small+", "era", "era-dual", "shipped", "no labels", "alone")
_KEPT = Kept("domains", "5")
_SHUFFLES = SEEDS[:2]

Records = Mapping[tuple[str, int], Mapping[str, Any]]


def _domain(name: str) -> str:
    found = json.loads((COLLECTIONS / name / "meta.json").read_text(encoding="utf-8"))["domain"]
    return str(found)


def _values(result: FitResult, held_out: HeldOut) -> dict[str, FloatArray]:
    adapters = {name: fit.adapter for name, fit in result.candidates.items()}
    scored = score_adapters(held_out, adapters, [PRIMARY])
    found = {name: one.values[PRIMARY] for name, one in scored.items()}
    return {**found, "shipped": found[result.choice.name]}


def _left_out(
    domain: str, every: Mapping[str, tuple[FitData, HeldOut]]
) -> dict[str, dict[str, Any]]:
    """Test means of the collections of a domain, and how likely a loss is chance."""
    theirs = [name for name in every if _domain(name) == domain]
    seen = [data for name, (data, _) in every.items() if name not in theirs]
    documents = [every[name][0].documents for name in theirs]
    result = fit_candidates(seen, FitConfig(), elsewhere=documents)
    free = {name: without_labels(every[name][0]) for name in theirs}
    together = fit_candidates(list(free.values()), FitConfig())
    found = {}
    for name in theirs:
        held_out = every[name][1]
        values = _values(result, held_out)
        values["no labels"] = _values(together, held_out)["shipped"]
        alone = fit_candidates(free[name], FitConfig())
        values["alone"] = _values(alone, held_out)["shipped"]
        p = {}
        for other in ("small", "no labels"):
            worse = values["shipped"].mean() < values[other].mean()
            both = values["shipped"], values[other]
            p[other] = float(paired_randomisation_test(*both, seed=0)) if worse else 1.0
        found[name] = {
            "test": {one: 100 * float(v.mean()) for one, v in values.items()},
            "shipped": result.choice.name,
            "p": p,
        }
    return found


def _records(pair: str, names: list[str]) -> Records:
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for seed in _SHUFFLES:
        known = _KEPT.read()
        every: dict[str, tuple[FitData, HeldOut]] = {}
        for domain in sorted(set(map(_domain, names))):
            theirs = [name for name in names if _domain(name) == domain]
            if not all((pair, name, seed) in known for name in theirs):
                every = every or {n: problem(n, PAIRS[pair], 0.2, seed)[:2] for n in names}
                for name, record in _left_out(domain, every).items():
                    _KEPT.keep((pair, name, seed), record)
        known = _KEPT.read()
        found |= {(name, seed): known[pair, name, seed] for name in names}
    return found


def domains_bars(pair: str) -> tuple[str, list[Bar]]:
    """A table of the collections, each by an adapter of the other domains, and its bars."""
    names = [name for name in available(PAIRS[pair]) if name != demo_name()]
    what = f"{pair}: leave-one-domain-out"
    if len(names) < 2:
        return "", [skipped(what, "the development collections are not here")]
    with one_thread():
        records = _records(pair, names)
    lines = ["| collection | " + " | ".join(_SHOWN) + " |", "|---|" + "---:|" * len(_SHOWN)]
    rows = {
        name: [
            statistics.fmean(records[name, seed]["test"][one] for seed in _SHUFFLES)
            for one in _SHOWN
        ]
        for name in names
    }
    rows["**mean**"] = np.mean(list(rows.values()), axis=0).tolist()
    for name, means in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    shipped = sorted({str(record["shipped"]) for record in records.values()})
    table = f"{pair}, each domain left out; ships: {', '.join(shipped)}\n\n" + "\n".join(lines)
    return table, [_below(what, other, records) for other in ("small", "no labels")]


def _below(what: str, other: str, records: Records) -> Bar:
    worse = []
    for seed in _SHUFFLES:
        keys = [key for key in records if key[1] == seed]
        p = holm([records[key]["p"][other] for key in keys])
        worse += [key[0] for key, value in zip(keys, p, strict=True) if value < 0.05]
    gains = [r["test"]["shipped"] - r["test"][other] for r in records.values()]
    figure = f"{len(worse)} of {len(records)}{': ' + ', '.join(worse) if worse else ''}"
    figure += f" (mean {statistics.fmean(gains):+.1f}, worst {min(gains):+.1f})"
    return Bar(f"{what}: ships significantly below {other}", "0", figure, not worse)
