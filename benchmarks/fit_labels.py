"""What no labels give: on the development collections, and in an index of 100,000 documents.

    python -m benchmarks.fit --part labels   # minutes; the first time 10,000 texts are encoded

The large index is the documents of msmarco-instruct among windows of 60 words of the others. Half
of its queries are judged and test; the others choose which documents the large model encodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from demo_models import demo_models_dir

from benchmarks.common import NO_MODELS, Bar, demo_models, skipped
from benchmarks.fit_data import COLLECTIONS, PAIRS, available, demo_name, problem
from benchmarks.fit_quality import SEEDS
from era_cache.collection.beir import read_beir
from era_cache.collection.config import SplitConfig
from era_cache.collection.records import Dropped, TextCollection
from era_cache.collection.splits import make_split
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.encode.encoder import EncoderSettings, open_encoder
from era_cache.evaluate.score import score_adapters, score_large
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.config import FitConfig
from era_cache.fitting.encoder_pair import resolve_encoders
from era_cache.fitting.held_out import PRIMARY
from era_cache.fitting.recipes import fit_candidates
from era_cache.fitting.tensors import FitData, HeldOut, load_fit_data, load_held_out
from era_cache.rank.lists import stacked
from era_cache.store.store import Store
from era_cache.types import Qrels

__all__ = ["labels_bars", "large_corpus_bars", "large_index", "without_labels"]

_SHOWN = ("small", "stage 1", "aligned", "era-zero", "shipped", "large")
_BARS = {"demo": (8.5, 12.0, 0.0), "mpnet": (1.5, None, -0.3)}
"""Pair to: gain over small, gain over stage 1, and the worst collection."""
_INDEX, _WINDOW, _STEP = 100_000, 60, 40


def without_labels(data: FitData) -> FitData:
    """Training and validation queries as queries without labels, and no other."""
    nobody = data.train._replace(
        ids=[],
        views={name: rows[:0] for name, rows in data.train.views.items()},
        qrels=data.train.qrels.select_queries(np.zeros(0, dtype=np.int64)),
    )
    views = {
        name: torch.cat([rows, data.validation.views[name]])
        for name, rows in data.train.views.items()
    }
    ids = [*data.train.ids, *data.validation.ids]
    first = stacked([data.train.first, data.validation.first])
    nobody = nobody._replace(first=None)
    return data._replace(
        train=nobody,
        validation=nobody,
        unlabelled=nobody._replace(ids=ids, views=views, first=first),
    )


def _values(data: FitData, held_out: HeldOut, config: FitConfig) -> dict[str, float]:
    """Test means of the candidates that need no label, in points; ``stage 1`` is the bare map."""
    result = fit_candidates(data, config)
    adapters: dict[str, Adapter] = {n: fit.adapter for n, fit in result.candidates.items()}
    adapters["stage 1"] = adapters["aligned"]._replace(references=())
    scored = score_adapters(held_out, adapters, [PRIMARY])
    found = {n: 100 * float(one.values[PRIMARY].mean()) for n, one in scored.items()}
    large = score_large(held_out, [PRIMARY])
    if large is not None:
        found["large"] = 100 * float(large.values[PRIMARY].mean())
    return {**found, "shipped": found[result.choice.name]}


def _row(name: str, values: Mapping[str, float]) -> str:
    cells = (f"{values[one]:.1f}" if one in values else "-" for one in _SHOWN)
    return f"| {name} | " + " | ".join(cells) + " |"


def labels_bars(pair: str) -> tuple[str, list[Bar]]:
    """No labels, 1,000 documents, all collections that a pair has; means over splits."""
    names = [name for name in available(PAIRS[pair]) if name != demo_name()]
    what = f"{pair}: no labels"
    if len(names) < 2:
        return "", [skipped(what, "the development collections are not here")]
    lines = ["| collection | " + " | ".join(_SHOWN) + " |", "|---|" + "---:|" * len(_SHOWN)]
    every = []
    for name in names:
        splits = [problem(name, PAIRS[pair], 0.4, seed)[:2] for seed in SEEDS]
        found = [_values(without_labels(d), held_out, FitConfig()) for d, held_out in splits]
        every.append({one: float(np.mean([v[one] for v in found])) for one in found[0]})
        lines.append(_row(name, every[-1]))
    means = {
        one: float(np.mean([row[one] for row in every]))
        for one in _SHOWN
        if all(one in row for row in every)
    }
    lines.append(_row("**mean**", means))
    gains = [row["shipped"] - row["small"] for row in every]
    least, over_stage_1, worst = _BARS[pair]
    gain = float(np.mean(gains))
    bars = [
        Bar(f"{what}, shipped over small", f">= +{least}", f"{gain:+.2f}", gain >= least),
        Bar(f"{what}, worst collection", f">= {worst}", f"{min(gains):+.2f}", min(gains) >= worst),
    ]
    if over_stage_1 is not None:
        more = means["shipped"] - means["stage 1"]
        figure = f"{more:+.1f}"
        bars.append(
            Bar(f"{what}, over ERA's stage 1", f">= +{over_stage_1}", figure, more >= over_stage_1)
        )
    return "\n".join(lines), bars


def windows(step: int) -> Iterator[str]:
    """Windows of words of all collections but msmarco, each ``step`` words after the one before."""
    for folder in sorted(COLLECTIONS.iterdir()):
        if not folder.is_dir() or folder.name.startswith("msmarco"):
            continue
        for line in (folder / "corpus.jsonl").open(encoding="utf-8"):
            row = json.loads(line)
            words = f"{row.get('title') or ''} {row['text']}".split()
            for start in range(0, max(1, len(words) - _WINDOW // 3), step):
                yield " ".join(words[start : start + _WINDOW])


def large_index() -> TextCollection:
    """The documents of msmarco-instruct among windows; the first half of its queries is judged."""
    texts = read_beir(COLLECTIONS / "msmarco-instruct")
    found = list(dict.fromkeys(windows(_STEP)))
    kept = np.random.default_rng(0).permutation(len(found))[: _INDEX - len(texts.doc_ids)]
    qrels = Qrels(*(np.concatenate(c) for c in zip(*texts.splits.values(), strict=True)))
    tested = np.random.default_rng(SEEDS[0]).permutation(len(texts.query_ids))
    tested = tested[: len(tested) // 2]
    return texts._replace(
        name="large-index",
        doc_ids=[*texts.doc_ids, *(f"window-{row}" for row in kept)],
        doc_texts=[*texts.doc_texts, *(found[row] for row in kept)],
        splits={"test": qrels.take(np.isin(qrels.query_rows, tested))},
        dropped=Dropped(),
    )


class _Sample(NamedTuple):
    rule: str
    documents: int


def _sampled(store: Path, texts: TextCollection, sample: _Sample) -> dict[str, float]:
    """Values with the documents that a rule chooses, encoded by the demo's models."""
    models = demo_models_dir()
    large, small = (
        open_encoder(str(models / name), EncoderSettings(precision=precision))
        for name, precision in zip(PAIRS["demo"], ("bfloat16", "float32"), strict=True)
    )
    config = EmbedConfig(align_documents=sample.documents, align_sample=sample.rule)
    opened = Store.create(store)
    collection, _ = embed_collection(opened, texts, large=large, small=small, config=config)
    split = make_split(collection, SplitConfig(rule="source", labels=0.0))
    encoders = resolve_encoders(opened, collection)
    data = load_fit_data(collection, split, encoders, align_documents=sample.documents)
    recipe = FitConfig(align_documents=sample.documents, reference_documents=sample.documents)
    return _values(data, load_held_out(collection, split, encoders), recipe)


def large_corpus_bars() -> tuple[str, list[Bar]]:
    """1,000 and 3,000 documents of 100,000, at random and where unlabelled queries look."""
    if not (COLLECTIONS / "msmarco-instruct").is_dir():
        return "", [skipped("100,000 documents, no labels", "the collections are not here")]
    if (models := demo_models()) is None:
        return "", [skipped("100,000 documents, no labels", NO_MODELS)]
    texts, folder = large_index(), models.parent / "benchmarks"
    lines = ["| documents | " + " | ".join(_SHOWN) + " |", "|---|" + "---:|" * len(_SHOWN)]
    bars = []
    for rule, least in (("random", {}), ("retrieved", {1000: 12, 3000: 20})):
        for count in (1000, 3000):
            # A store each: of more documents than are asked for, fitting takes some at random.
            path = folder / f"large-index-{rule}-{count}"
            values = _sampled(path, texts, _Sample(rule, count))
            lines.append(_row(f"{count:,} {rule}", values))
            if count in least:
                gain = values["shipped"] - values["small"]
                bars.append(
                    Bar(
                        f"100,000 documents, {count:,} {rule}: shipped over small",
                        f">= +{least[count]}",
                        f"{gain:+.1f}",
                        gain >= least[count],
                    )
                )
    return "\n".join(lines), bars
