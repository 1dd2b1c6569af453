"""The bars of fitting: quality against the paper's recipe and peers, bounds, no labels, harm, time.

    python -m benchmarks.peers.setup                 # once: environments of the peers
    python -m benchmarks.fit                         # hours on two cores; goes on where it stopped
    python -m benchmarks.fit --quick                 # four small collections, one split
    python -m benchmarks.fit --part labels --part harm      # what no labels and few labels give

Quality comes from the records of ``benchmarks.fit_quality``; missing ones are made first. Times are
ratios of runs in this process on the same arrays with the same threads: keep the machine idle.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.common import Bar, finish, skipped
from benchmarks.fit_bounds import bounds
from benchmarks.fit_data import PAIRS, available, demo_name
from benchmarks.fit_harm import harm_bars
from benchmarks.fit_hybrid import hybrid_bars, store_bar
from benchmarks.fit_labels import labels_bars, large_corpus_bars
from benchmarks.fit_quality import PEER_NAMES, RATIOS, SEEDS, check, records, run
from era_cache.config import FitConfig, PaperConfig
from era_cache.evaluate.statistics import holm
from era_cache.fitting.adapter import unit
from era_cache.fitting.candidates import DEFAULT
from era_cache.fitting.crossfit import Request, crossfit
from era_cache.fitting.held_out import document_references
from era_cache.fitting.paper import paper_triples
from era_cache.fitting.recipes import fit_candidates, fit_paper, parts_of
from era_cache.fitting.settings import grid
from era_cache.fitting.starts import align
from era_cache.fitting.sweep import Job, sweep
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.rank.corpus import whole
from era_cache.types import Qrels

PARTS = ("quality", "bounds", "labels", "hybrid", "harm", "time")
QUICK = ("gorilla-torch", "theoremqa", "toollens", "cranfield")
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

Found = dict[tuple[Any, ...], dict[str, Any]]


class Quality:
    """Means over seeds and collections of one pair of encoders, in points of nDCG@10."""

    def __init__(self, pair: str, names: Sequence[str], seeds: Sequence[int]) -> None:
        self.pair, self.names, self.seeds = pair, names, seeds
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
        head = "| candidate | " + " | ".join(f"{ratio:.0%}" for ratio in RATIOS) + " |"
        lines = [head, "|---|" + "---:|" * len(RATIOS)]
        whole = all(
            "large" in record["test"] for key, record in self.found.items() if self._ours(key)
        )
        for candidate in CANDIDATES if whole else CANDIDATES[:-1]:
            cells = [
                f"{self.macro(candidate, ratio):.1f} ± {self.spread(candidate, ratio):.1f}"
                for ratio in RATIOS
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
        for candidate, target in (("era", 9), ("era-dual", 12)):
            for ratio in RATIOS:
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
        gains = [self.macro("era-dual", r) - self.macro("small+", r) for r in RATIOS]
        mean = statistics.fmean(gains)
        figure = f"{mean:+.1f} (" + ", ".join(f"{gain:+.1f}" for gain in gains) + ")"
        bars.append(Bar(f"{self.pair}: era-dual over small+, mean", ">= +4", figure, mean >= 4))
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
        for ratio in RATIOS:
            best = max(self.macro(candidate, ratio) for candidate in singles)
            behind.append(self.macro("shipped", ratio) - best)
        figure = ", ".join(f"{b:+.2f}" for b in behind)
        what = f"{self.pair}: shipped against the best single candidate"
        return Bar(what, ">= -0.3", figure, min(behind) >= -0.3)

    def _harm(self) -> Bar:
        """Fits whose shipped candidate is significantly below small on test, after Holm."""
        keys = [(n, r, s) for n in self.names for r in RATIOS for s in self.seeds]
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
                lines.append(f"| {peer} | - | - | {len(runs)} |")
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


def _timed(act: Callable[[], Any]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def _synthetic(
    n_docs: int = 5000, labels: int = 500, d_large: int = 384, d_small: int = 256
) -> FitData:
    """Clustered documents; a query is its document seen through another map, with noise."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    topics = normal(200, 64)
    hidden = topics[torch.randint(200, (n_docs,), generator=generator)] + 0.7 * normal(n_docs, 64)
    to_small, to_large, shift = normal(64, d_small), normal(64, d_large), normal(64, d_large)
    corpus = unit(hidden @ to_small + normal(n_docs, d_small))

    def queries(first: int, count: int) -> QuerySet:
        rows = torch.arange(first, first + count)
        views = {
            "large": unit(hidden[rows] @ (to_large + 0.5 * shift) + 2 * normal(count, d_large)),
            "small": unit(hidden[rows] @ to_small + 6 * normal(count, d_small)),
        }
        numbers = np.arange(count, dtype=np.int64)
        qrels = Qrels(numbers, rows.numpy(), np.ones(count, dtype=np.int64))
        return QuerySet([f"q{i}" for i in range(count)], views, qrels, None)

    large = unit(hidden[:1000] @ to_large + normal(1000, d_large))
    ties = torch.arange(n_docs)
    return FitData(queries(0, labels), queries(labels, 250), corpus, ties, large, corpus[:1000])


def _row_wise_seconds(data: FitData, epochs: int = 5) -> float:
    """Seconds of one epoch of loading the paper's training rows one by one, as published."""
    from era_cache.fitting.alignment.methods import align_rows

    aligned = align_rows(data.align_large, data.align_small, "procrustes", seed=0)
    config = PaperConfig()
    triples = paper_triples(data.train, data, aligned, config, config.seed)
    queries, corpus = data.train.views["large"].numpy(), whole(data.corpus).numpy()

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(triples.query_rows)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
            return (
                torch.tensor(queries[triples.query_rows[i]], dtype=torch.float32),
                torch.tensor(corpus[triples.positive_rows[i]], dtype=torch.float32),
                torch.tensor(corpus[triples.negative_rows[i]], dtype=torch.float32),
                torch.tensor(1.0, dtype=torch.float32),
            )

    loader = torch.utils.data.DataLoader(Rows(), batch_size=config.batch, shuffle=True)

    def load() -> None:
        for _ in range(epochs):
            for _ in loader:
                pass

    return _timed(load) / epochs


def _time_bars() -> list[Bar]:
    """Times at 500 labels and 5,000 documents."""
    data, config = _synthetic(), FitConfig()
    parts = parts_of(data, config)

    def era() -> None:
        map_, _ = align(parts, config)
        references = document_references(parts, config)
        crossfit(Request(parts, ("large",), map_.weight, config, references))

    era()  # the first use of a library costs neither side
    one = statistics.median(_timed(era) for _ in range(3))
    everything = statistics.median(_timed(lambda: fit_candidates(data, config)) for _ in range(3))
    paper = PaperConfig()
    start = time.monotonic()
    result = fit_paper(data, paper)
    here = time.monotonic() - start
    epochs = int(result.candidates["paper"].options["epochs_all"])
    published = here + epochs * _row_wise_seconds(data)
    note = (
        f"of {published:.1f} s as published ({here:.1f} s with tensors moved once, {epochs} epochs)"
    )
    bars = []
    for what, seconds, share in (("era", one, 20), ("all candidates", everything, 8)):
        figure = f"{seconds:.2f} s: 1/{published / seconds:.1f} {note}"
        bars.append(
            Bar(f"time to fit {what}", f"<= 1/{share}", figure, seconds * share <= published)
        )
    return [*bars, _sweep_bar(data, config)]


def _sweep_bar(data: FitData, config: FitConfig) -> Bar:
    """32 configurations together against one alone, and what halving costs."""
    from dataclasses import replace

    settings = grid(
        [
            "temperature=0.03,0.04,0.05,0.07",
            "reference_documents=300,1000",
            "align=procrustes,mixture",
            "duplicates=0.999,2",
        ]
    )
    jobs = [Job("era", replace(config, **change)) for change in settings]
    one = statistics.median(
        _timed(lambda: sweep([data], jobs[:1], halving=False)) for _ in range(3)
    )
    many = _timed(lambda: sweep([data], jobs))
    halved = sweep([data], jobs)
    full = sweep([data], jobs, halving=False)
    best = max(range(len(jobs)), key=lambda i: (halved[i].full, halved[i].fitted.mean))
    lost = 100 * (max(o.fitted.mean for o in full) - full[best].fitted.mean)
    figure = (
        f"{many / one:.1f}x ({many:.1f} s of {one:.2f} s); its winner is {lost:.2f} points below"
    )
    return Bar(
        "sweep of 32 configurations", "<= 12x, 0.3", figure, many <= 12 * one and lost <= 0.3
    )


def _process_bar(store: Path, collection: str) -> list[Bar]:
    """Wall time of a whole `era-fit` process, the better of three, and of its imports."""
    if not store.is_dir():
        return [skipped("era-fit, whole process", f"no store at {store}; make demo makes one")]
    launcher = str(Path(sys.executable).with_name("era-fit"))
    with tempfile.TemporaryDirectory() as folder:
        command = [launcher, str(store), collection, "--labels", "20", "--out", f"{folder}/adapter"]
        spent = min(
            _timed(lambda: subprocess.run(command, check=True, capture_output=True))
            for _ in range(3)
        )
    imports = [sys.executable, "-c", "import torch, numpy, h5py, safetensors"]
    loading = min(_timed(lambda: subprocess.run(imports, check=True)) for _ in range(3))
    figure = f"{spent:.1f} s, of which imports {loading:.1f} s"
    return [Bar("era-fit, whole process", "<= 8 s", figure, spent <= 8)]


@click.command()
@click.option("--quick", is_flag=True, help="Four small collections, one split.")
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
    seeds = SEEDS[:1] if quick else SEEDS
    chosen = (pairs[:1] if quick else pairs) if "quality" in parts else ()
    for pair in chosen:
        there = available(PAIRS[pair])
        names = [n for n in there if not quick or n in QUICK] or there
        if not names:
            bars.append(skipped(f"{pair}: quality", "no vectors (see benchmarks/fit_data.py)"))
            continue
        demo_only = names == [demo_name()]
        first = pair == "demo" and not demo_only
        run(pair, names, RATIOS, seeds, ["ours", "paper"])
        if strict and first:
            run(pair, names, RATIOS, seeds[:1], ["strict"])
        if peers and first:
            run(pair, names, RATIOS[2:3], seeds[:1], ["peers"])
        quality = Quality(pair, names, seeds)
        stale = check(pair, seeds[0])
        if stale:
            raise click.ClickException(
                f"kept records differ from what the code gives now: {stale}. Raise the version in "
                "benchmarks/fit_quality.py."
            )
        click.echo(f"\n{pair}: {', '.join(names)}\n\n{quality.table()}", err=as_json)
        for ratio in RATIOS:
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
    if "hybrid" in parts:
        for found in map(hybrid_bars, pairs):
            click.echo(f"\n{found[0]}", err=as_json)
            bars += found[1]
        bars.append(store_bar())
    if "harm" in parts:
        table, harmed = harm_bars()
        click.echo(f"\n{table}", err=as_json)
        bars += harmed
    if "time" in parts:
        bars += _time_bars() + _process_bar(store, collection)
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
