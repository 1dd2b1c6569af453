"""How long fitting takes: on the development collections, and at 500 labels and 5,000 documents.

    python -m benchmarks.fit --part time     # minutes; keep the machine idle

On the collections (20 % of the labels, one thread) the sum is compared with the paper's recipe at
the learning rate of its script, as published: its training rows are loaded one by one. That loading
is timed for a few epochs and counted for all.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch

from benchmarks.common import Bar, seconds_of, seconds_of_command, skipped
from benchmarks.fit_data import PAIRS, available, demo_name, problem
from benchmarks.fit_labels import without_labels
from benchmarks.fit_quality import SEEDS, one_thread
from era_cache.fitting.adapter import unit
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.crossfit import Request, crossfit
from era_cache.fitting.paper import paper_triples
from era_cache.fitting.recipes import fit_candidates, fit_paper, parts_of
from era_cache.fitting.settings import grid
from era_cache.fitting.starts import align, document_references
from era_cache.fitting.sweep import Job, sweep
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.rank.corpus import whole
from era_cache.types import Qrels

__all__ = ["time_bars"]

_RECIPE = replace(PaperConfig(), learning_rates=(1e-5,), weight_decays=(1e-4,))
"""The published script's learning rate alone."""
_SHARES = {"era": 15, "all candidates": 6}
"""What is timed, and into how many parts of the recipe's time it must fit."""


def time_bars(names: Sequence[str], store: Path, collection: str, *, rounds: int = 3) -> list[Bar]:
    """All bars on time.

    Args:
        names: development collections; none for all that are there.
        store: of the collection for a whole era-fit process.
        collection: its name.
        rounds: how often what takes seconds is timed on each collection; medians count.
    """
    there = [name for name in available(PAIRS["demo"]) if name != demo_name()]
    chosen = [name for name in there if name in names or not names]
    data = _synthetic()
    return [
        *_against_the_recipe(chosen, rounds),
        _label_free_bar(data),
        _sweep_bar(data, FitConfig()),
        _process_bar(store, collection),
    ]


def _era(data: FitData) -> None:
    config = FitConfig()
    parts = parts_of(data, config)
    map_, _ = align(parts, config)
    references = document_references(parts, config)
    crossfit(Request(parts, ("large",), map_.weight, config, references))


def _against_the_recipe(names: Sequence[str], rounds: int) -> list[Bar]:
    """Sums over collections at 20 % of the labels."""
    if not names:
        why = "the development collections are not here"
        return [skipped(f"time to fit {what}, of the recipe's", why) for what in _SHARES]
    spent = dict.fromkeys((*_SHARES, "recipe", "loading"), 0.0)
    with one_thread():
        for number, name in enumerate(names):
            data, _, _ = problem(name, PAIRS["demo"], 0.2, SEEDS[0])
            if not number:
                _era(data)  # the first use of a library costs neither side
            spent["era"] += median(
                seconds_of(lambda: _era(data))  # noqa: B023
                for _ in range(rounds)
            )
            spent["all candidates"] += median(
                seconds_of(lambda: fit_candidates(data, FitConfig()))  # noqa: B023
                for _ in range(rounds)
            )
            start = time.perf_counter()
            result = fit_paper(data, _RECIPE)
            spent["recipe"] += time.perf_counter() - start
            epochs = int(result.candidates["paper"].options["epochs_all"])
            spent["loading"] += epochs * _row_wise_seconds(data)
            told = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in spent.items())
            click.echo(f"{name} and before: {told}", err=True)
    published = spent["recipe"] + spent["loading"]
    note = (
        f"of {published:.0f} s as published ({spent['recipe']:.0f} s with tensors moved once), "
        f"{len(names)} collections"
    )
    return [
        Bar(
            f"time to fit {what}, of the recipe's",
            f"<= 1/{share}",
            f"{spent[what]:.1f} s: 1/{published / spent[what]:.1f} {note}",
            spent[what] * share <= published,
        )
        for what, share in _SHARES.items()
    ]


def _label_free_bar(data: FitData) -> Bar:
    """A fit without labels, 5,000 documents of which 1,000 align, 750 queries."""
    free = without_labels(data)
    spent = median(seconds_of(lambda: fit_candidates(free, FitConfig())) for _ in range(3))
    return Bar("fit without labels, 5,000 documents", "<= 0.3 s", f"{spent:.2f} s", spent <= 0.3)


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

    return seconds_of(load) / epochs


def _sweep_bar(data: FitData, config: FitConfig) -> Bar:
    """32 configurations together against one alone, and what halving costs."""
    settings = grid(
        [
            "temperature=0.03,0.04,0.05,0.07",
            "reference_documents=300,1000",
            "align=procrustes,mixture",
            "duplicates=0.999,2",
        ]
    )
    jobs = [Job("era", replace(config, **change)) for change in settings]
    one = median(seconds_of(lambda: sweep([data], jobs[:1], halving=False)) for _ in range(3))
    start = time.perf_counter()
    halved = sweep([data], jobs)
    many = time.perf_counter() - start
    full = sweep([data], jobs, halving=False)
    best = max(range(len(jobs)), key=lambda i: (halved[i].full, halved[i].fitted.mean))
    lost = 100 * (max(o.fitted.mean for o in full) - full[best].fitted.mean)
    figure = (
        f"{many / one:.1f}x ({many:.1f} s of {one:.2f} s); its winner is {lost:.2f} points below"
    )
    return Bar(
        "sweep of 32 configurations", "<= 10x, 0.3", figure, many <= 10 * one and lost <= 0.3
    )


def _process_bar(store: Path, collection: str) -> Bar:
    """Wall time of a whole `era-fit` process, the better of three, and of its imports."""
    if not store.is_dir():
        return skipped("era-fit, whole process", f"no store at {store}; make demo makes one")
    launcher = str(Path(sys.executable).with_name("era-fit"))
    with tempfile.TemporaryDirectory() as folder:
        command = [launcher, str(store), collection, "--labels", "20", "--out", f"{folder}/adapter"]
        spent = min(seconds_of_command(command) for _ in range(3))
    imports = [sys.executable, "-c", "import torch, numpy, h5py, safetensors"]
    loading = min(seconds_of_command(imports) for _ in range(3))
    figure = f"{spent:.1f} s, of which imports {loading:.1f} s"
    return Bar("era-fit, whole process", "<= 5 s", figure, spent <= 5)
