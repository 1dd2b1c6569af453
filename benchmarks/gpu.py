"""Every bar that needs an accelerator, in one command of at most nine minutes.

    python -m benchmarks.gpu [--quick] [--device cuda] [--only fit] [--json]

For a bare CUDA machine: run it from the root of a clone; nothing needs to be installed but torch,
numpy, click, msgspec, safetensors and, for the part ``encode``, sentence-transformers 6. Neither a
network nor faiss, h5py or a file of ../shared is used: vectors are made here, with a planted
structure, and so is the model (random weights). A part whose packages are missing is skipped, and
says so.
``--quick --device cpu`` is a dry run in small form; its bars say nothing about an accelerator.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch

from benchmarks.common import Bar, finish, skipped
from era_cache.api import FitOptions, RetrievalAdapter, fit
from era_cache.fitting.adapter import unit
from era_cache.fitting.config import FitConfig
from era_cache.fitting.sweep import Job, sweep
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.rank.measures import evaluate, parse_measure
from era_cache.rank.search import search
from era_cache.types import Qrels

_LAYERS, _WIDTH, _WORDS = 6, 384, 2000


class Size(NamedTuple):
    """How large the parts are."""

    labels: int
    documents: int
    configurations: int
    search_queries: int
    search_documents: int
    texts: int


FULL = Size(500, 5000, 1000, 10_000, 1_000_000, 20_000)
QUICK = Size(60, 400, 40, 200, 5000, 40)


class Made(NamedTuple):
    """Vectors of a made collection; query i asks for document i."""

    large: torch.Tensor
    small: torch.Tensor
    corpus: torch.Tensor
    align_large: torch.Tensor


def make_vectors(size: Size) -> Made:
    """Documents in topics; a query is its document seen through another map, with noise."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    n, queries = size.documents, 2 * size.labels
    topics = normal(200, 64)
    hidden = topics[torch.randint(200, (n,), generator=generator)] + 0.7 * normal(n, 64)
    to_small, to_large, shift = normal(64, 256), normal(64, _WIDTH), normal(64, _WIDTH)
    asked = hidden[torch.arange(queries) % n]
    return Made(
        unit(asked @ (to_large + 0.5 * shift) + 2 * normal(queries, _WIDTH)),
        unit(asked @ to_small + 6 * normal(queries, 256)),
        unit(hidden @ to_small + normal(n, 256)),
        unit(hidden[:1000] @ to_large + normal(min(n, 1000), _WIDTH)),
    )


def _settled(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _timed(act: Callable[[], Any], device: str, rounds: int = 3) -> float:
    """Seconds of the best of some rounds, after the same work has been done once."""
    spent = []
    for _ in range(rounds + 1):
        _settled(device)
        start = time.perf_counter()
        act()
        _settled(device)
        spent.append(time.perf_counter() - start)
    return min(spent[1:])


def _fitted(made: Made, size: Size, device: str) -> RetrievalAdapter:
    rows = [[row % size.documents] for row in range(size.labels)]
    return fit(
        made.large[: size.labels],
        made.corpus,
        rows,
        small_queries=made.small[: size.labels],
        align={"large": made.align_large, "small": made.corpus[: len(made.align_large)]},
        options=FitOptions(config=FitConfig(), device=device),
    )


def _ndcg(adapter: RetrievalAdapter, made: Made, size: Size) -> float:
    """nDCG@10 on queries that were not fitted on."""
    test = slice(size.labels, 2 * size.labels)
    mapped = adapter.transform(made.large[test].numpy(), made.small[test].numpy())
    found = search(torch.from_numpy(np.asarray(mapped)), made.corpus, 10)
    numbers = np.arange(size.labels, dtype=np.int64)
    relevant = (numbers + size.labels) % size.documents
    qrels = Qrels(numbers, relevant, np.ones(size.labels, dtype=np.int64))
    measure = parse_measure("nDCG@10")
    return float(evaluate(found.doc_rows, qrels, [measure], size.documents)[measure].mean())


def fit_bars(size: Size, device: str) -> list[Bar]:
    """All candidates on some labels, and the same on the CPU."""
    made = make_vectors(size)
    seconds = _timed(lambda: _fitted(made, size, device), device)
    here, there = (_ndcg(_fitted(made, size, where), made, size) for where in (device, "cpu"))
    what = f"fit all candidates, {size.labels} labels x {size.documents:,} documents"
    return [
        Bar(what, "< 1 s", f"{seconds:.2f} s", seconds < 1),
        Bar(
            "results against the CPU's, nDCG@10",
            "within 0.001",
            f"{here:.4f} and {there:.4f}",
            abs(here - there) <= 1e-3,
        ),
    ]


def _data(made: Made, size: Size, device: str) -> FitData:
    def part(first: int, count: int) -> QuerySet:
        rows = torch.arange(first, first + count)
        views = {"large": made.large[rows].to(device), "small": made.small[rows].to(device)}
        numbers = np.arange(count, dtype=np.int64)
        qrels = Qrels(numbers, rows.numpy() % size.documents, np.ones(count, dtype=np.int64))
        return QuerySet([f"q{row}" for row in range(count)], views, qrels, None)

    held = size.labels // 3
    return FitData(
        part(0, size.labels - held),
        part(size.labels - held, held),
        made.corpus.to(device),
        torch.arange(size.documents, device=device),
        made.align_large.to(device),
        made.corpus[: len(made.align_large)].to(device),
    )


def _jobs(count: int) -> list[Job]:
    """Configurations that differ in temperature and in how near a duplicate is."""
    base = FitConfig()
    return [
        Job(
            "era",
            dataclasses.replace(
                base, temperature=0.03 + 0.04 * (i % 32) / 31, duplicates=0.9 + 0.1 * (i / count)
            ),
        )
        for i in range(count)
    ]


def sweep_bars(size: Size, device: str) -> list[Bar]:
    """Settings that are fitted together."""
    data = [_data(make_vectors(size), size, device)]
    one = _timed(lambda: sweep(data, _jobs(1), halving=False), device)
    many = _timed(lambda: sweep(data, _jobs(32)), device)
    start = time.perf_counter()
    sweep(data, _jobs(size.configurations))
    _settled(device)
    all_of_them = time.perf_counter() - start
    return [
        Bar("sweep of 32", "<= 2x one", f"{many / one:.1f}x ({many:.2f} s)", many <= 2 * one),
        Bar(
            f"{size.configurations:,} configurations",
            "< 60 s",
            f"{all_of_them:.1f} s",
            all_of_them < 60,
        ),
    ]


def search_bars(size: Size, device: str) -> list[Bar]:
    """Exact search as a share of what the card's own float32 product reaches, side by side.

    The peak is that of a square product of 8,192 rows (2,048 on a CPU) with TF32 off.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    generator = torch.Generator().manual_seed(1)
    shape = (size.search_documents, _WIDTH)
    corpus = unit(torch.randn(shape, generator=generator)).to(device)
    queries = unit(torch.randn(size.search_queries, _WIDTH, generator=generator)).to(device)
    side = 8192 if device.startswith("cuda") else 2048
    square = torch.randn(side, side, device=device)
    peak = 2 * side**3 / _timed(lambda: square @ square, device)
    seconds = _timed(lambda: search(queries, corpus, 10), device, rounds=2)
    reached = 2 * size.search_queries * size.search_documents * _WIDTH / seconds
    figure = (
        f"{reached / peak:.0%} of {peak / 1e12:.1f} TFLOP/s ({seconds:.2f} s, "
        f"{size.search_queries / seconds:,.0f} queries/s)"
    )
    what = f"exact search, {size.search_queries:,} x {size.search_documents:,} x {_WIDTH}, top 10"
    return [Bar(what, "reported", figure, True)]


def make_model(folder: Path) -> Path:
    """A BERT of MiniLM's size with random weights, and a tokenizer of made words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(_WORDS))]
    inner = folder / "bert"
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(inner)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=12,
        intermediate_size=4 * _WIDTH,
    )
    BertModel(config).save_pretrained(inner)
    body = modules.Transformer(str(inner), max_seq_length=256)
    pooling = modules.Pooling(_WIDTH)
    SentenceTransformer(modules=[body, pooling], device="cpu").save(str(folder / "model"))
    return folder / "model"


def encode_bars(size: Size, device: str) -> list[Bar]:
    """Texts per second against ``SentenceTransformer.encode``, on texts of mixed length."""
    from sentence_transformers import SentenceTransformer

    from era_cache.encode.encoder import EncoderSettings, open_encoder
    from era_cache.types import Role

    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 60, size.texts), 240)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, _WORDS, n)) for n in lengths]
    alike = [" ".join(f"w{i}" for i in rng.integers(0, _WORDS, 62)) for _ in range(size.texts)]
    half = device.startswith("cuda")
    with tempfile.TemporaryDirectory() as folder:
        path = str(make_model(Path(folder)))
        settings = EncoderSettings(device=device, precision="float16" if half else "float32")
        ours = open_encoder(path, settings)
        theirs = SentenceTransformer(path, device=device)
        if half:
            theirs = theirs.half()

        def rate(act: Callable[[], Any]) -> float:
            return size.texts / statistics.median(_timed(act, device, 1) for _ in range(3))

        def all_of(some: list[str]) -> Callable[[], Any]:
            return lambda: list(ours.encode(some, Role.DOCUMENT))

        batch = max(1, settings.batch_tokens // 64)  # 62 words and two marks: the same batches
        same = rate(all_of(alike)) / rate(lambda: theirs.encode(alike, batch_size=batch))
        mine, default = rate(all_of(texts)), rate(lambda: theirs.encode(texts))
    return [
        Bar("encode, the same batches", ">= 0.98x", f"{same:.2f}x", same >= 0.98),
        Bar(
            "encode, texts of mixed length, their defaults",
            ">= 1.3x",
            f"{mine / default:.2f}x ({mine:,.0f} texts/s)",
            mine >= 1.3 * default,
        ),
    ]


PARTS: dict[str, Callable[[Size, str], list[Bar]]] = {
    "fit": fit_bars,
    "sweep": sweep_bars,
    "search": search_bars,
    "encode": encode_bars,
}


@click.command()
@click.option("--quick", is_flag=True, help="Small forms of all parts.")
@click.option("--device", help="Torch device.  [default: cuda]")
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="Run this part only.")
@click.option("--json", "as_json", is_flag=True, help="Print the bars as JSON.")
def main(quick: bool, device: str | None, only: tuple[str, ...], as_json: bool) -> None:
    """Measure what an accelerator is for."""
    if device is None and not torch.cuda.is_available():
        finish(
            [skipped("all parts", "no CUDA device; --device cpu --quick is a dry run")],
            as_json=as_json,
        )
    where = device or "cuda"
    bars: list[Bar] = []
    for name in only or PARTS:
        begun = time.monotonic()
        try:
            bars += PARTS[name](QUICK if quick else FULL, where)
        except ImportError as error:
            bars.append(skipped(name, f"{error}"))
        click.echo(f"{name}: {time.monotonic() - begun:.0f} s", err=True)
    about = {"device": torch.cuda.get_device_name() if where.startswith("cuda") else where}
    click.echo(json.dumps({**about, "torch": torch.__version__}), err=True)
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
