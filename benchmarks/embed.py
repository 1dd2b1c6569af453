"""What embedding costs beside the model itself: ``python -m benchmarks.embed``.

Static models against sentence-transformers at its best batch size, a text far beyond what a model
reads, and many small additions to a store. Ratios are measured side by side, in turns.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
from demo_models import LARGE_NAME, SMALL_NAME, demo_models_dir

from benchmarks.common import Bar, finish, skipped
from benchmarks.fit_data import COLLECTIONS
from era_cache.collection.keys import row_keys
from era_cache.encode.encoder import EncoderSettings
from era_cache.encode.sentence_transformers import SentenceTransformerEncoder
from era_cache.store.encoder_record import EncoderSpec
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role

_BATCHES = (256, 1024, 4096, 16384)
_TOY = Path(__file__).parent.parent / "data" / "toy" / "corpus.jsonl"


def _texts(count: int) -> list[str]:
    """Documents of the development collections, or the toy's again and again."""
    paths = sorted(COLLECTIONS.glob("*/corpus.jsonl")) if COLLECTIONS.is_dir() else []
    texts = [
        str(json.loads(line)["text"])
        for path in paths or [_TOY]
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return (texts * (count // len(texts) + 1))[:count]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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
            taken.append(_seconds(work or (lambda: list(ours.encode(texts, Role.DOCUMENT)))))
    medians = {size: statistics.median(taken) for size, taken in seconds.items()}
    size = min(_BATCHES, key=medians.__getitem__)
    ratio = medians[size] / medians[0]
    shown = f"{ratio:.2f} ({len(texts) / medians[0]:,.0f} texts/s; its best batch {size:,})"
    return Bar("static model, texts/s against the library's best", ">= 0.95", shown, ratio >= 0.95)


def _long_text(folder: Path) -> Bar:
    encoder = SentenceTransformerEncoder(str(folder), EncoderSettings(device="cpu"))
    list(encoder.encode(["warm"], Role.DOCUMENT))
    text = "some words of a text " * 1_000_000
    seconds = _seconds(lambda: list(encoder.encode([text], Role.DOCUMENT)))
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

        seconds = [_seconds(partial(add, number)) for number in range(count)]
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
    models = demo_models_dir()
    if (models / SMALL_NAME).is_dir() and (models / LARGE_NAME).is_dir():
        texts = _texts(3_000 if quick else 20_000)
        bars.append(_static(models / SMALL_NAME, texts, 1 if quick else 5))
        bars.append(_long_text(models / LARGE_NAME))
    else:
        bars.append(skipped("encoders", "no demo models; run `make demo`"))
    bars += _small_additions(200 if quick else 1_000)
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
