"""Beside BM25: what it gives alone, joined with each candidate, and what then ships.

    python -m benchmarks.fit --part hybrid   # a quarter of an hour; goes on where it stopped

``small + bm25, RRF`` is what is usually run: both rankings by reciprocal ranks, equally weighted.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Bar, seconds_of_command, skipped
from benchmarks.fit_data import COLLECTIONS, PAIRS, available, demo_name, problem
from benchmarks.fit_labels import large_index, without_labels
from benchmarks.fit_quality import SEEDS, Kept
from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.beir import read_beir
from era_cache.encode.bm25 import BM25, Bm25Index, embed_bm25
from era_cache.evaluate.score import DEPTH, score_adapters, score_first_stage
from era_cache.evaluate.statistics import holm, paired_randomisation_test
from era_cache.fitting.candidates import FUSED, fused_name
from era_cache.fitting.choice import choose
from era_cache.fitting.config import FitConfig
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.recipes import fit_candidates
from era_cache.fitting.tensors import FitData, HeldOut, QuerySet
from era_cache.rank.lists import FirstStage
from era_cache.rank.measures import Ranking, evaluate
from era_cache.store.store import Store
from era_cache.types import FloatArray

__all__ = ["command_bars", "hybrid_bars", "store_bar"]

_RRF = "small + bm25, RRF"
_SHOWN = (
    *(BM25, "small", _RRF, "era-zero", "era", "era-dual"),
    *(fused_name(BM25, name) for name in FUSED),
    *("unfused", "shipped"),
)
_SMALL, _ZERO, _DUAL = (fused_name(BM25, name) for name in ("small", "era-zero", "era-dual"))
_AGAINST = ("unfused", _SMALL, "small")
_RANK = 60
"""Constant of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""
_LABELS = (0.2, 0.0)


@functools.lru_cache(maxsize=1)
def _index(name: str) -> tuple[Bm25Index, dict[str, str]]:
    texts = read_beir(COLLECTIONS / name, ReaderSettings(all_queries=True))
    if texts.dropped.empty_documents:
        raise ValueError(f"{name}: documents without text, which the vectors' rows count")
    queries = dict(zip(texts.query_ids, texts.query_texts, strict=True))
    return Bm25Index(texts.doc_texts, "english"), queries


def _joined(name: str, queries: QuerySet) -> QuerySet:
    """The queries with their lists."""
    index, texts = _index(name)
    found = index.ask([texts[one] for one in queries.ids])
    width = max(len(docs) for docs, _, _ in found)
    docs = np.full((len(found), width), -1, dtype=np.int64)
    scores = np.zeros((len(found), width), dtype=np.float32)
    for row, (mine, theirs, _) in enumerate(found):
        docs[row, : len(mine)], scores[row, : len(mine)] = mine, theirs
    floor = torch.tensor([one[2] for one in found], dtype=torch.float32)
    first = FirstStage(BM25, torch.from_numpy(docs), torch.from_numpy(scores), floor)
    return queries._replace(first=first)


def _with_bm25(name: str, data: FitData, held_out: HeldOut) -> tuple[FitData, HeldOut]:
    data = data._replace(train=_joined(name, data.train), validation=_joined(name, data.validation))
    return data, held_out._replace(queries=_joined(name, held_out.queries))


def _reciprocal(rankings: list[Ranking], data: HeldOut) -> FloatArray:
    """Values of both rankings together by reciprocal ranks."""
    total = np.zeros((len(data.queries.ids), len(data.corpus)), dtype=np.float32)
    for ranking in rankings:
        for row, docs in enumerate(ranking.doc_rows):
            kept = docs[docs >= 0]
            total[row, kept] += 1 / (_RANK + 1 + np.arange(len(kept), dtype=np.float32))
    best = np.argsort(-total, axis=1, kind="stable")[:, :10]
    return evaluate(best, data.queries.qrels, [PRIMARY], len(data.corpus))[PRIMARY]


def _record(data: FitData, held_out: HeldOut) -> dict[str, Any]:
    result = fit_candidates(data, FitConfig())
    adapters = {name: fit.adapter for name, fit in result.candidates.items()}
    scored = score_adapters(held_out, adapters, [PRIMARY])
    alone = score_first_stage(held_out, [PRIMARY], DEPTH)
    values = {name: one.values[PRIMARY] for name, one in scored.items()}
    values[BM25] = alone.values[PRIMARY]
    values[_RRF] = _reciprocal([scored["small"].ranking, alone.ranking], held_out)
    plain = {n: f for n, f in result.candidates.items() if f.adapter.fusion is None}
    values["unfused"] = values[choose(plain, signs=result.signs).name]
    values["shipped"] = values[result.choice.name]
    harm = {}
    for other in _AGAINST:
        worse = values["shipped"].mean() < values[other].mean()
        p = paired_randomisation_test(values["shipped"], values[other], seed=0) if worse else 1.0
        harm[other] = float(p)
    weights = {n: f.options.get("ratio") for n, f in result.candidates.items()}
    return {
        "test": {name: float(v.mean()) for name, v in values.items()},
        "shipped": result.choice.name,
        "harm": harm,
        "ratios": {name: ratio for name, ratio in weights.items() if ratio is not None},
        "seconds": result.seconds,
    }


def store_bar() -> Bar:
    """How long BM25 of 100,000 documents takes, from texts to a file of the store."""
    what = "bm25 of 100,000 documents and some 4,000 queries, stored"
    if not (COLLECTIONS / "msmarco-instruct").is_dir():
        return skipped(what, "the development collections are not here")
    texts = large_index()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "store")
        collection = store.add_collection(texts)
        report = embed_bm25(store, texts, collection)
    figure = f"{report.seconds:.1f} s ({report.encoded:,} queries)"
    return Bar(what, "< 60 s", figure, report.seconds < 60)


def command_bars(store: Path, collection: str) -> list[Bar]:
    """What lists in a store add to whole commands, the better of three, in turn with none."""
    if not store.is_dir():
        return [skipped("fusion, of whole commands", f"no store at {store}; make demo makes one")]
    spent: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        plain = Path(name, "store")
        shutil.copytree(store, plain)
        shutil.rmtree(plain / "runs")
        for turn in range(3):
            for lists, source in ((True, store), (False, plain)):
                adapter = f"{name}/adapter-{turn}-{lists}"
                commands = {
                    "era-fit": [str(source), collection, "--labels", "20", "--out", adapter],
                    "era-eval": [str(source), adapter],
                }
                for command, arguments in commands.items():
                    spent.setdefault((command, lists), []).append(_seconds(command, arguments))
    bars = []
    for command in commands:
        with_lists, without = (min(spent[command, lists]) for lists in (True, False))
        more = with_lists / without - 1
        figure = f"{more:.1%} ({with_lists:.2f} s, without lists {without:.2f} s)"
        bars.append(Bar(f"fusion adds to {command}", "<= 10 %", figure, more <= 0.1))
    return bars


def _seconds(command: str, arguments: list[str]) -> float:
    line = [str(Path(sys.executable).with_name(command)), *arguments]
    return seconds_of_command(line)


def _share(records: Iterable[Mapping[str, Any]]) -> float:
    """Median share that fusion adds to the time of a fit."""
    shares = []
    for record in records:
        seconds: dict[str, float] = dict(record["seconds"])
        fusion = seconds.pop("fusion", 0.0)
        shares.append(fusion / sum(seconds.values()))
    return statistics.median(shares)


def _means(rows: list[Mapping[str, float]]) -> dict[str, float]:
    names = [name for name in _SHOWN if all(name in row for row in rows)]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def hybrid_bars(pair: str) -> tuple[str, list[Bar]]:
    """BM25 on all collections that a pair has, with labels and without; means over splits."""
    names = [name for name in available(PAIRS[pair]) if name != demo_name()]
    if len(names) < 2:
        return "", [skipped(f"{pair}: beside BM25", "the development collections are not here")]
    kept = Kept("hybrid", "9")
    lines, bars = [], []
    for labels in _LABELS:
        records = {}
        for name in names:
            for seed in SEEDS:
                key = (pair, name, labels, seed)
                found = kept.read().get(key)
                if found is None:
                    made = problem(name, PAIRS[pair], labels or 0.4, seed)[:2]
                    data, held_out = _with_bm25(name, *made)
                    found = _record(data if labels else without_labels(data), held_out)
                    kept.keep(key, found)
                records[name, seed] = found
        table, more = _bars(pair, labels, names, records)
        lines.append(table)
        bars += more
    return "\n\n".join(lines), bars


def _bars(
    pair: str, labels: float, names: list[str], records: Mapping[tuple[str, int], dict[str, Any]]
) -> tuple[str, list[Bar]]:
    every = {
        name: {n: 100 * v for n, v in _means([records[name, s]["test"] for s in SEEDS]).items()}
        for name in names
    }
    mean = _means(list(every.values()))
    shown = [name for name in _SHOWN if name in mean]
    lines = [f"{pair}, {labels:.0%} of the labels", ""]
    lines += ["| collection | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown)]
    for name, row in (*every.items(), ("**mean**", mean)):
        lines.append(f"| {name} | " + " | ".join(f"{row[one]:.1f}" for one in shown) + " |")
    what = f"{pair}, {labels:.0%} labels"
    bars = []
    wanted = [(_DUAL, "era-dual", 2), (_DUAL, _SMALL, 8)] if labels else [(_ZERO, _SMALL, 2)]
    for one, other, least in wanted:
        gain = mean[one] - mean[other]
        asked, ok = (f">= +{least}", gain >= least) if pair == "demo" else ("(told)", None)
        bars.append(Bar(f"{what}: {one} over {other}", asked, f"{gain:+.2f}", ok))
    gain = mean[wanted[-1][0]] - mean[_RRF]
    bars.append(Bar(f"{what}: {wanted[-1][0]} over {_RRF}", "(told)", f"{gain:+.2f}", None))
    if labels:
        share = _share(records.values())
        bars.append(
            Bar(f"{what}: fusion, of the time of a fit", "<= 10 %", f"{share:.0%}", share <= 0.1)
        )
    for other in _AGAINST:
        p = {key: record["harm"][other] for key, record in records.items()}
        worse = [
            key[0]
            for seed in SEEDS
            for key, value in zip(
                [k for k in p if k[1] == seed],
                holm([v for k, v in p.items() if k[1] == seed]),
                strict=True,
            )
            if value < 0.05
        ]
        figure = f"{len(worse)} of {len(p)} fits{': ' + ', '.join(worse) if worse else ''}"
        bars.append(Bar(f"{what}: ships significantly below {other}", "0", figure, not worse))
    return "\n".join(lines), bars
