"""What embedding costs beside the model itself: ``python -m benchmarks.embed``.

Static models against sentence-transformers at its best batch size; a transformer against it, in the
same batches with commits and at mixed lengths; precision by measurement, where the processor has
units for it; a text far beyond what a model reads; many small additions to a store; servers that
fail; a snapshot of 126 tasks. Ratios are measured side by side, in turns.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from demo_models import LARGE_NAME, SMALL_NAME

from benchmarks.common import NO_MODELS, Bar, demo_models, finish, seconds_of, skipped
from benchmarks.embed_mair import snapshot_of_all_tasks
from benchmarks.embed_precision import precision_bars
from benchmarks.embed_served import documents_alone, faulty_server, many_at_once
from benchmarks.fit_data import COLLECTIONS
from era_cache.collection.keys import row_keys
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.encode.encoder import EncoderSettings
from era_cache.encode.sentence_transformers import SentenceTransformerEncoder
from era_cache.store.encoder_record import EncoderSpec
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import FloatArray, Role

_BATCHES = (256, 1024, 4096, 16384)
_ROOT = Path(__file__).parent.parent
_OTHERS = (_ROOT / "demo" / "bfcl" / "corpus.jsonl", _ROOT / "data" / "toy" / "corpus.jsonl")
"""Texts where the development collections are not; those of the toy are all of a length."""


def _texts(count: int) -> list[str]:
    """Documents of the development collections, or those of the demo; again and again, or some."""
    paths = sorted(COLLECTIONS.glob("*/corpus.jsonl")) if COLLECTIONS.is_dir() else []
    texts = [
        str(json.loads(line)["text"])
        for path in paths or [next(path for path in _OTHERS if path.is_file())]
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    # From all over, so that lengths are mixed as they are there.
    return [texts[number * len(texts) // count] for number in range(count)]


def _static(folder: Path, texts: list[str], turns: int) -> Bar:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = SentenceTransformerEncoder(str(folder), EncoderSettings(device="cpu"))
    list(ours.encode(texts[:100], Role.DOCUMENT))
    theirs.encode(texts[:100])
    seconds: dict[int, list[float]] = {size: [] for size in (*_BATCHES, 0)}
    for _ in range(turns):
        for size, taken in seconds.items():
            work = partial(theirs.encode, texts, batch_size=size) if size else None
            taken.append(seconds_of(work or (lambda: list(ours.encode(texts, Role.DOCUMENT)))))
    medians = {size: statistics.median(taken) for size, taken in seconds.items()}
    size = min(_BATCHES, key=medians.__getitem__)
    ratio = medians[size] / medians[0]
    shown = f"{ratio:.2f} ({len(texts) / medians[0]:,.0f} texts/s; its best batch {size:,})"
    return Bar("static model, texts/s against the library's best", ">= 1.2", shown, ratio >= 1.2)


def _transformer(folder: Path, count: int, turns: int) -> list[Bar]:
    """Embedding with commits against the library alone: its batches, and its own way."""
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folder), device="cpu")
    texts = [f"{text} {number}" for number, text in enumerate(_texts(count))]
    taken: dict[str, list[float]] = {"ours": [], "same batches": [], "in order": [], "sorted": []}
    in_order = [texts[start : start + 32] for start in range(0, len(texts), 32)]
    for _ in range(turns):
        encoder = _Watched(str(folder), EncoderSettings(device="cpu"))
        list(encoder.encode(texts[:32], Role.DOCUMENT))  # as warm as the other one
        encoder.batches.clear()
        with tempfile.TemporaryDirectory() as temporary:
            store = Store.create(Path(temporary) / "store")
            taken["ours"].append(seconds_of(partial(_embedded, store, encoder, texts)))
        taken["same batches"].append(seconds_of(partial(_in_batches, theirs, encoder.batches)))
        taken["in order"].append(seconds_of(partial(_in_batches, theirs, in_order)))
        taken["sorted"].append(seconds_of(partial(theirs.encode_document, texts)))
    ours, same, ordered, sorted_ = (statistics.median(taken[name]) for name in taken)
    return [
        Bar(
            f"{count:,} texts with commits over the library, same batches",
            "<= 1.02",
            f"{ours / same:.3f} ({count / ours:,.0f} texts/s)",
            ours <= 1.02 * same,
        ),
        Bar(
            "mixed lengths against the library's default batches in file order",
            ">= 1.3",
            f"{ordered / ours:.2f} (all texts at once, which it sorts: {sorted_ / ours:.2f})",
            ordered >= 1.3 * ours,
        ),
    ]


class _Watched(SentenceTransformerEncoder):
    """Remembers in which batches it took the texts."""

    def __init__(self, model: str, settings: EncoderSettings) -> None:
        super().__init__(model, settings)
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], FloatArray]]:
        for rows, vectors in super().encode(texts, role):
            self.batches.append([texts[row] for row in rows])
            yield rows, vectors


def _in_batches(model: Any, batches: list[list[str]]) -> None:
    for batch in batches:
        model.encode_document(batch, batch_size=len(batch))


def _embedded(store: Store, encoder: SentenceTransformerEncoder, texts: list[str]) -> None:
    collection = documents_alone(texts)
    embed_collection(store, collection, large=encoder, small=encoder, config=EmbedConfig())


def _long_text(folder: Path) -> Bar:
    encoder = SentenceTransformerEncoder(str(folder), EncoderSettings(device="cpu"))
    list(encoder.encode(["warm"], Role.DOCUMENT))
    text = "some words of a text " * 1_000_000
    seconds = seconds_of(lambda: list(encoder.encode([text], Role.DOCUMENT)))
    return Bar(
        "a text of 20 MB, of which 256 tokens are read", "< 1 s", f"{seconds:.2f} s", seconds < 1
    )


def _small_additions(count: int) -> list[Bar]:
    spec = EncoderSpec("bench", {"kind": "bench"}, dict.fromkeys(Role, "{text}"), {})
    with tempfile.TemporaryDirectory() as temporary:
        encoder = Store.create(Path(temporary) / "s").add_encoder(spec, Role.DOCUMENT, 64)

        def add(number: int) -> None:
            with SegmentWriter(encoder, {}) as writer:
                writer.write(
                    row_keys(Role.DOCUMENT, [f"text {number}"]), np.full((1, 64), 1.0 + number)
                )

        seconds = [seconds_of(partial(add, number)) for number in range(count)]
        segments = len(encoder.segment_paths())
    early, late = (statistics.median(part) for part in (seconds[4:16], seconds[-12:]))
    name = f"addition number {count:,} against the 10th"
    shown = f"{late / early:.2f} ({late * 1e3:.1f} ms, {early * 1e3:.1f} ms)"
    return [
        Bar(name, "<= 2", shown, late <= 2 * early),
        Bar(f"segments after {count:,} additions", "<= 40", str(segments), segments <= 40),
    ]


@click.command()
@click.option("--quick", is_flag=True, help="Fewer texts and turns.")
@click.option("--json", "as_json", is_flag=True)
def main(quick: bool, as_json: bool) -> None:
    """Measure embedding."""
    bars = []
    if (models := demo_models()) is not None:
        texts = _texts(2_000 if quick else 20_000)
        bars.append(_static(models / SMALL_NAME, texts, 3 if quick else 5))
        bars += _transformer(models / LARGE_NAME, 150 if quick else 2_000, 2 if quick else 3)
        bars += precision_bars(_texts(300), 1 if quick else 3, ndcg=not quick)
        bars.append(_long_text(models / LARGE_NAME))
    else:
        bars.append(skipped("encoders", NO_MODELS))
    bars += _small_additions(200 if quick else 1_000)
    bars += faulty_server(500 if quick else 10_000)
    bars.append(many_at_once(1_280))
    if not quick:
        bars += snapshot_of_all_tasks()
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
