"""Fitting on the demo's store: quality against the paper's recipe, and time.

    make demo && .venv/bin/python -m benchmarks.fit

Both recipes run on the same tensors in this process, on five shuffles of the split. Bars are on the
mean of the gains (the demo's own split is shown beside it) and the median of the times; `--quick`
takes the demo's split only. The paper's recipe is timed as it runs here (tensors moved once) and
with its published data loading, one row at a time made into a tensor.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import torch

from benchmarks.common import Bar, finish
from era_cache.choose import FitResult, fit_candidates, fit_paper
from era_cache.config import FitConfig, PaperConfig, SplitConfig
from era_cache.evaluate import compare, score_adapters
from era_cache.pairs import FitData, load_fit_data, load_held_out, resolve_encoders
from era_cache.paper import mine_triples
from era_cache.splits import make_split
from era_cache.store import Store
from era_cache.train import PRIMARY

SEEDS = (42, 43, 44, 45, 46)


class Run(NamedTuple):
    """One split: test values by candidate in points, p of era-dual, and both results."""

    points: dict[str, float]
    p_dual: float
    ours: FitResult
    paper: FitResult
    data: FitData


def _run(store: Store, collection: str, labels: float, seed: int) -> Run:
    stored = store.collection(collection)
    split = make_split(stored, SplitConfig(labels=labels, seed=seed))
    encoders = resolve_encoders(store, stored)
    data = load_fit_data(stored, split, encoders, align_documents=FitConfig.align_documents)
    ours, paper = fit_candidates(data, FitConfig()), fit_paper(data, PaperConfig())
    adapters = {name: fit.adapter for name, fit in ours.candidates.items()}
    adapters["paper"] = paper.candidates["paper"].adapter
    scored = score_adapters(load_held_out(stored, split, encoders), adapters, [PRIMARY])
    table = compare(scored, [PRIMARY], baseline="small", seed=0)
    points = {name: 100 * row[str(PRIMARY)]["mean"] for name, row in table.items()}
    return Run(points, table["era-dual"][str(PRIMARY)]["p_holm"], ours, paper, data)


def _row_wise_seconds(data: FitData, config: PaperConfig, epochs: int = 10) -> float:
    """Seconds that one epoch of loading the paper's training rows one by one takes."""
    from era_cache.align import align_paper

    aligned = align_paper(data.align_large, data.align_small, config)
    triples = mine_triples(data.train, data, aligned, config, config.seed)
    queries, corpus = data.train.views["large"].numpy(), data.corpus.numpy()

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(triples.query_rows)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
            return (
                torch.tensor(queries[triples.query_rows[i]], dtype=torch.float32),
                torch.tensor(corpus[triples.positive_rows[i]], dtype=torch.float32),
                torch.tensor(corpus[triples.negative_rows[i]], dtype=torch.float32),
            )

    loader = torch.utils.data.DataLoader(Rows(), batch_size=config.batch, shuffle=True)
    start = time.monotonic()
    for _ in range(epochs):
        for _ in loader:
            pass
    return (time.monotonic() - start) / epochs


def _process_seconds(store: Path, collection: str) -> float:
    """Wall time of a whole `era-fit` process, the better of two."""
    launcher = str(Path(sys.executable).with_name("era-fit"))
    command = [launcher, str(store), collection, "--labels", "20"]
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = time.monotonic()
            out = f"{folder}/adapter"
            subprocess.run([*command, "--out", out], check=True, capture_output=True)
            spent.append(time.monotonic() - start)
    return min(spent)


def _quality(runs: list[Run]) -> list[Bar]:
    bars = []
    for name, target in (("era", 6), ("era-dual", 16)):
        gains = [run.points[name] - run.points["paper"] for run in runs]
        mean = statistics.fmean(gains)
        spread = f" ± {statistics.stdev(gains):.1f} over {len(gains)} splits" if runs[1:] else ""
        figure = f"{mean:+.2f}{spread}; demo's split {gains[0]:+.2f}"
        bars.append(
            Bar(f"{name} over the paper's, points", f">= +{target}", figure, mean >= target)
        )
    worst = max(run.p_dual for run in runs)
    gain = statistics.fmean(run.points["era-dual"] - run.points["small"] for run in runs)
    figure = f"{gain:+.1f} points, greatest p {worst:.4f}"
    bars.append(Bar("era-dual over small", "p < 0.05", figure, worst < 0.05 and gain > 0))
    shipped = [run.points[run.ours.choice.name] - run.points["small"] for run in runs]
    names = ", ".join(sorted({run.ours.choice.name for run in runs}))
    figure = f"{names}: {min(shipped):+.1f} at worst"
    bars.append(Bar("what ships is not below small", ">= 0", figure, min(shipped) >= 0))
    return bars


def _speed(runs: list[Run], process_seconds: float) -> list[Bar]:
    """Medians over the splits, so that the first use of a library costs neither side."""
    config, median = PaperConfig(), statistics.median
    here = median(sum(run.paper.seconds.values()) for run in runs)
    epochs = median(float(str(r.paper.candidates["paper"].options["epochs_all"])) for r in runs)
    published = here + epochs * median(_row_wise_seconds(run.data, config) for run in runs)
    ours = [run.ours.seconds for run in runs]
    rows = [("era, alignment and training", median(s["align"] + s["era"] for s in ours), True)]
    rows.append(("all candidates", median(sum(s.values()) for s in ours), False))
    bars = [
        Bar(
            "era-fit, whole process, all candidates",
            "<= 15 s",
            f"{process_seconds:.1f} s",
            process_seconds <= 15,
        )
    ]
    for what, seconds, asked in rows:
        figure = (
            f"{seconds:.2f} s: 1/{published / seconds:.1f} of {published:.1f} s as published "
            f"(1/{here / seconds:.1f} of {here:.1f} s without row-wise loading)"
        )
        target = "<= 1/10" if asked else "(shown)"
        bars.append(Bar(f"time of {what}", target, figure, not asked or seconds * 10 <= published))
    return bars


@click.command()
@click.option("--store", type=click.Path(path_type=Path), default=Path("demo/store"))
@click.option("--collection", default="bfcl", show_default=True)
@click.option("--labels", default=0.2, show_default=True)
@click.option("--quick", is_flag=True, help="One split, under a minute.")
@click.option("--json", "as_json", is_flag=True)
def main(store: Path, collection: str, labels: float, quick: bool, as_json: bool) -> None:
    """Measure the bars of fitting on a store that `make demo` made."""
    torch.zeros(512, 512) @ torch.zeros(512, 512)  # threads start before any clock does
    opened = Store.open(store)
    runs = [_run(opened, collection, labels, seed) for seed in (SEEDS[:1] if quick else SEEDS)]
    bars = _quality(runs) + _speed(runs, _process_seconds(store, collection))
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
