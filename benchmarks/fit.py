"""The bars of fitting: quality, bounds, no labels, domains left out, beside BM25, harm, time.

    python -m benchmarks.peers.setup                 # once: environments of the peers
    python -m benchmarks.fit                         # hours on two cores; goes on where it stopped
    python -m benchmarks.fit --quick             # four small collections, two shares, one split
    python -m benchmarks.fit --part labels --part harm      # what no labels and few labels give

Quality comes from the records of ``benchmarks.fit_quality``; missing ones are made first. Times are
ratios of runs in this process on the same arrays with the same threads: keep the machine idle.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.common import Bar, finish, skipped
from benchmarks.fit_bounds import bounds
from benchmarks.fit_data import PAIRS, available, demo_name
from benchmarks.fit_domains import domains_bars
from benchmarks.fit_harm import harm_bars
from benchmarks.fit_hybrid import command_bars, hybrid_bars, store_bar
from benchmarks.fit_labels import labels_bars, large_corpus_bars
from benchmarks.fit_quality import PEER_NAMES, RATIOS, SEEDS, check, records, run
from benchmarks.fit_time import time_bars
from era_cache.evaluate.statistics import holm
from era_cache.fitting.candidates import DEFAULT

PARTS = ("quality", "bounds", "labels", "domains", "hybrid", "harm", "time")
QUICK = ("gorilla-torch", "theoremqa", "toollens", "cranfield")
QUICK_TIMED = ("gorilla-torch", "theoremqa", "cranfield")
QUICK_RATIOS = (0.05, 0.2)
CANDIDATES = (*DEFAULT, "shipped", "paper", "large")
# What the paper's own code gave at 20 % of the labels, the better of its two learning rates.
PUBLISHED = {
    "toollens": 0.365,
    "theoremqa": 0.567,
    "gorilla-torch": 0.266,
    "cranfield": 0.338,
    "msmarco-plain": 0.691,
    "msmarco-instruct": 0.609,
}

_BARS = {"demo": ({"era": 15, "era-dual": 24}, 6), "mpnet": ({"era-dual": 12}, 2)}
"""Pair to: gains over the paper's recipe by candidate, and of era-dual over small+."""

Found = dict[tuple[Any, ...], dict[str, Any]]


class Quality:
    """Means over seeds and collections of one pair of encoders, in points of nDCG@10."""

    def __init__(
        self, pair: str, names: Sequence[str], seeds: Sequence[int], ratios: Sequence[float]
    ) -> None:
        self.pair, self.names, self.seeds, self.ratios = pair, names, seeds, ratios
        self.found: Found = records()

    def value(self, kind: str, candidate: str, name: str, labels: float, seed: int) -> float:
        """One record's test value, in points."""
        record = self.found[kind, self.pair, name, labels, seed]
        if candidate == "shipped":
            candidate = record["shipped"]
        return 100 * float(record["test"][candidate])

    def macro(self, candidate: str, labels: float) -> float:
        """Mean over collections and seeds."""
        kind = "paper" if candidate == "paper" else "ours"
        return statistics.fmean(
            self.value(kind, candidate, name, labels, seed)
            for name in self.names
            for seed in self.seeds
        )

    def spread(self, candidate: str, labels: float) -> float:
        """Standard deviation over seeds of the mean over collections."""
        kind = "paper" if candidate == "paper" else "ours"
        means = [
            statistics.fmean(self.value(kind, candidate, name, labels, s) for name in self.names)
            for s in self.seeds
        ]
        return statistics.stdev(means) if len(means) > 1 else 0.0

    def _ours(self, key: tuple[Any, ...]) -> bool:
        return key[0] == "ours" and key[1] == self.pair and key[2] in self.names

    def table(self) -> str:
        """Macro means by candidate and share of labels, as Markdown."""
        head = "| candidate | " + " | ".join(f"{ratio:.0%}" for ratio in self.ratios) + " |"
        lines = [head, "|---|" + "---:|" * len(self.ratios)]
        whole = all(
            "large" in record["test"] for key, record in self.found.items() if self._ours(key)
        )
        for candidate in CANDIDATES if whole else CANDIDATES[:-1]:
            cells = [
                f"{self.macro(candidate, ratio):.1f} ± {self.spread(candidate, ratio):.1f}"
                for ratio in self.ratios
            ]
            lines.append(f"| {candidate} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def collections_table(self, labels: float) -> str:
        """Means over seeds of each collection at one share of labels, as Markdown.

        The gap closed is the share of the way from small to large that the shipped adapter goes.
        """
        lines = ["| collection | " + " | ".join(CANDIDATES) + " | gap closed |"]
        lines.append("|---|" + "---:|" * (len(CANDIDATES) + 1))
        for name in self.names:
            known = self.found["ours", self.pair, name, labels, self.seeds[0]]["test"]
            means = {
                candidate: statistics.fmean(
                    self.value(
                        "paper" if candidate == "paper" else "ours", candidate, name, labels, seed
                    )
                    for seed in self.seeds
                )
                for candidate in CANDIDATES
                if candidate != "large" or candidate in known
            }
            gap = means.get("large", 0.0) - means["small"]
            closed = f"{(means['shipped'] - means['small']) / gap:.0%}" if gap > 0 else "-"
            cells = [f"{means[c]:.1f}" if c in means else "-" for c in CANDIDATES]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {closed} |")
        return "\n".join(lines)

    def bars(self, strict: bool) -> list[Bar]:
        """Bars on gains, on what ships, and on the paper's recipe being the paper's."""
        bars = []
        over_recipe, over_small_plus = _BARS.get(self.pair, ({}, 0))
        for candidate, target in over_recipe.items():
            for ratio in self.ratios:
                gain = self.macro(candidate, ratio) - self.macro("paper", ratio)
                figure = f"{gain:+.1f}"
                if strict:
                    alone = statistics.fmean(
                        self.value("strict", candidate, name, ratio, self.seeds[0])
                        - self.value("paper", "paper", name, ratio, self.seeds[0])
                        for name in self.names
                    )
                    figure += f" ({alone:+.1f} where validation labels never train, one split)"
                what = f"{self.pair}: {candidate} over the paper's recipe, {ratio:.0%}"
                bars.append(Bar(what, f">= +{target}", figure, gain >= target))
        gains = [self.macro("era-dual", r) - self.macro("small+", r) for r in self.ratios]
        figure = ", ".join(f"{gain:+.1f}" for gain in gains)
        bars.append(
            Bar(
                f"{self.pair}: era-dual over small+, each share",
                f">= +{over_small_plus}",
                figure,
                min(gains) >= over_small_plus,
            )
        )
        return [*bars, self._harm(), self._behind()]

    def demo_bars(self) -> list[Bar]:
        """Bars where the demo's collection is all there is; those on means need the others."""
        why = "these are means over the development collections, which are not here"
        gain = self.macro("shipped", 0.2) - self.macro("small", 0.2)
        return [
            skipped(f"{self.pair}: gains over the paper's recipe and small+", why),
            Bar(f"{self.pair}: shipped over small, demo, 20 %", ">= +8", f"{gain:+.1f}", gain >= 8),
            self._harm(),
            self._behind(),
        ]

    def _behind(self) -> Bar:
        """What ships against the best single candidate, at each share."""
        singles = DEFAULT
        behind = []
        for ratio in self.ratios:
            best = max(self.macro(candidate, ratio) for candidate in singles)
            behind.append(self.macro("shipped", ratio) - best)
        figure = ", ".join(f"{b:+.2f}" for b in behind)
        what = f"{self.pair}: shipped against the best single candidate"
        return Bar(what, ">= -0.3", figure, min(behind) >= -0.3)

    def _harm(self) -> Bar:
        """Fits whose shipped candidate is significantly below small on test, after Holm."""
        keys = [(n, r, s) for n in self.names for r in self.ratios for s in self.seeds]
        p = [self.found["ours", self.pair, *key]["p_harm"] for key in keys]
        # Holm over the collections and shares of one split, so that seeds do not dilute it.
        harmed = [
            (name, ratio, seed)
            for wanted in self.seeds
            for (name, ratio, seed), value in zip(
                [k for k in keys if k[2] == wanted],
                holm([q for k, q in zip(keys, p, strict=True) if k[2] == wanted]),
                strict=True,
            )
            if value < 0.05
        ]
        below = sum(
            self.value("ours", "shipped", *key) < self.value("ours", "small", *key) for key in keys
        )
        figure = f"{len(harmed)} of {len(keys)} significantly, {below} at all; least p {min(p):.3f}"
        return Bar(f"{self.pair}: shipped below small", "0 significantly", figure, not harmed)

    def published(self) -> list[Bar]:
        """The paper's recipe against what its own code gave."""
        shown, worst = [], 0.0
        for name in (n for n in PUBLISHED if n in self.names):
            ours = statistics.fmean(self.value("paper", "paper", name, 0.2, s) for s in self.seeds)
            worst = max(worst, abs(ours - 100 * PUBLISHED[name]))
            shown.append(f"{name} {ours:.1f} ({100 * PUBLISHED[name]:.1f})")
        return [Bar("the paper's recipe, 20 %", "within 5", ", ".join(shown), worst < 5)]

    def peers(self, labels: float = 0.2) -> tuple[str, list[Bar]]:
        """Peers at equal inputs, the first split."""
        seed = self.seeds[0]
        lines = ["| peer | nDCG@10 | seconds a fit | failed |", "|---|---:|---:|---:|"]
        ours = statistics.fmean(self.value("ours", "era", n, labels, seed) for n in self.names)
        bars = []
        for peer in PEER_NAMES:
            runs = [self.found["peers", self.pair, name, labels, seed] for name in self.names]
            worked = [r for r in runs if peer in r["test"]]
            if not worked:
                failed = sum(peer in r["errors"] for r in runs)
                lines.append(f"| {peer} | - | - | {failed or 'not built'} |")
                if not failed:
                    why = "not built: python -m benchmarks.peers.setup"
                    bars.append(skipped(f"era over {peer}, 20 %", why))
                continue
            theirs = 100 * statistics.fmean(r["test"][peer] for r in worked)
            same = statistics.fmean(
                self.value("ours", "era", r["collection"], labels, seed) for r in worked
            )
            seconds = statistics.fmean(r["seconds"][peer] for r in worked)
            failed = len(runs) - len(worked)
            lines.append(f"| {peer} | {theirs:.1f} | {seconds:.1f} | {failed} |")
            figure = f"{same:.1f} against {theirs:.1f}"
            bars.append(Bar(f"era over {peer}, 20 %", "above", figure, same > theirs))
        lines.append(f"| **era** | **{ours:.1f}** | | |")
        return "\n".join(lines), bars


@click.command()
@click.option("--quick", is_flag=True, help="Four small collections, two shares, one split.")
@click.option(
    "--pair", "pairs", multiple=True, type=click.Choice(list(PAIRS)), default=["demo", "mpnet"]
)
@click.option(
    "--strict/--no-strict", default=True, help="Also where validation labels never train."
)
@click.option("--peers/--no-peers", default=True, help="Run the peers (see benchmarks/peers).")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(PARTS),
    default=PARTS,
    help="What is measured; may be repeated.  [default: all]",
)
@click.option("--store", type=click.Path(path_type=Path), default=Path("demo/store"))
@click.option("--collection", default="bfcl", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    quick: bool,
    pairs: tuple[str, ...],
    strict: bool,
    peers: bool,
    parts: tuple[str, ...],
    store: Path,
    collection: str,
    as_json: bool,
) -> None:
    """Measure the bars of fitting."""
    torch.zeros(512, 512) @ torch.zeros(512, 512)  # threads start before any clock does
    bars: list[Bar] = []
    seeds, ratios = (SEEDS[:1], QUICK_RATIOS) if quick else (SEEDS, RATIOS)
    strict = strict and not quick
    chosen = (pairs[:1] if quick else pairs) if "quality" in parts else ()
    for pair in chosen:
        there = available(PAIRS[pair])
        names = [n for n in there if not quick or n in QUICK] or there
        if not names:
            bars.append(skipped(f"{pair}: quality", "no vectors (see benchmarks/fit_data.py)"))
            continue
        demo_only = names == [demo_name()]
        first = pair == "demo" and not demo_only
        kept = records()
        run(pair, names, ratios, seeds, ["ours", "paper"])
        if strict and first:
            run(pair, names, ratios, seeds[:1], ["strict"])
        if peers and first:
            run(pair, names, [0.2], seeds[:1], ["peers"])
        quality = Quality(pair, names, seeds, ratios)
        stale = check(pair, seeds[0], kept)
        if stale:
            raise click.ClickException(
                f"kept records differ from what the code gives now: {stale}. Raise the version in "
                "benchmarks/fit_quality.py."
            )
        click.echo(f"\n{pair}: {', '.join(names)}\n\n{quality.table()}", err=as_json)
        for ratio in ratios:
            click.echo(f"\n{ratio:.0%}\n\n{quality.collections_table(ratio)}", err=as_json)
        if demo_only:
            bars += quality.demo_bars()
        else:
            bars += quality.bars(strict and first)
        if first and set(names) & set(PUBLISHED):
            bars += quality.published()
        if peers and first:
            table, peer_bars = quality.peers()
            click.echo(f"\n{table}", err=as_json)
            bars += peer_bars
    if "bounds" in parts:
        for found in (bounds(pair) for pair in pairs if available(PAIRS[pair])):
            click.echo(f"\n{found[0]}", err=as_json)
            bars += found[1]
    if "labels" in parts:
        for found in (*map(labels_bars, pairs), large_corpus_bars()):
            click.echo(f"\n{found[0]}", err=as_json)
            bars += found[1]
    if "domains" in parts:
        for found in map(domains_bars, pairs):
            click.echo(f"\n{found[0]}", err=as_json)
            bars += found[1]
    if "hybrid" in parts:
        for found in map(hybrid_bars, pairs):
            click.echo(f"\n{found[0]}", err=as_json)
            bars += found[1]
        bars += [store_bar(), *command_bars(store, collection)]
    if "harm" in parts:
        table, harmed = harm_bars()
        click.echo(f"\n{table}", err=as_json)
        bars += harmed
    if "time" in parts:
        bars += time_bars(QUICK_TIMED if quick else (), store, collection, rounds=1 if quick else 3)
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
