"""What ``--precision auto`` gains, and what it costs in nDCG, where the processor has units for it.

Speed is measured against the library in float32, which is what people run, and against ours, whose
linear layers may be faster than its (``era_cache.encode.fast_linear``). nDCG is that of two whole
runs, ``era-embed`` to ``era-eval``, for both pairs of models, on two collections and 25 shuffles.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from functools import partial
from pathlib import Path

import click
import numpy as np
from click.testing import CliRunner
from demo_models import LARGE_NAME, SMALL_NAME, demo_models_dir

from benchmarks.common import Bar, seconds_of, skipped
from benchmarks.fit_data import COLLECTIONS
from benchmarks.fit_encode import NAME as MPNET
from era_cache.cli import embed, evaluate, fit
from era_cache.collection.records import RoleTexts
from era_cache.encode.encoder import Encoder, EncoderSettings
from era_cache.encode.precision_choice import choose_precision
from era_cache.encode.sentence_transformers import SentenceTransformerEncoder
from era_cache.types import Role

__all__ = ["precision_bars"]

_COLLECTIONS = ("theoremqa", "scifact")
_CANDIDATES = ("small", "era-dual")
_SEEDS = range(42, 67)
"""Of the shuffles: single fits differ by up to two points either way, means of 25 by 0.14."""
_WORDS, _POINTS = 60, 0.2


def precision_bars(texts: list[str], turns: int, *, ndcg: bool) -> list[Bar]:
    """Speed for MiniLM and, where its folder was made, mpnet; nDCG where collections are there."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split() if cpu.is_file() else []
    if not {"amx_bf16", "avx512_bf16"} & set(flags):
        return [skipped("--precision auto", "this processor has no units for bfloat16")]
    cut = [" ".join(text.split()[:_WORDS]) for text in texts]
    folders = [demo_models_dir() / name for name in (SMALL_NAME, LARGE_NAME)]
    mpnet = next(iter((demo_models_dir() / MPNET).rglob("modules.json")), None)
    pairs = [("demo pair", folders[1], folders[0])]
    if mpnet:
        pairs.append(("second pair", mpnet.parent, folders[1]))
    bars = [_speed(large, cut, turns) for _, large, _ in pairs]
    if not mpnet:
        bars.append(skipped("mpnet", "benchmarks/fit_encode.py says how to get it"))
    if not ndcg:
        return bars
    for name, large, small in pairs:
        for collection in _COLLECTIONS:
            folder = COLLECTIONS / collection
            bars.append(
                _loss(f"{name}, {collection}", folder, large, small)
                if folder.is_dir()
                else skipped(f"nDCG on {collection}", "the collection is not here")
            )
    return bars


def _speed(folder: Path, texts: list[str], turns: int) -> Bar:
    from sentence_transformers import SentenceTransformer

    settings = EncoderSettings(device="cpu")
    given = RoleTexts([str(n) for n in range(len(texts))], texts, None)
    choice = choose_precision(str(folder), settings, given, Role.DOCUMENT, None)
    ours = SentenceTransformerEncoder(str(folder), settings)
    theirs = SentenceTransformer(str(folder), device="cpu")
    taken: dict[str, list[float]] = {"auto": [], "float32": [], "library": []}
    for turn in range(turns + 1):  # the first warms all three
        some = texts if turn else texts[:16]
        found = {
            "auto": seconds_of(partial(_encoded, choice.encoder, some)),
            "float32": seconds_of(partial(_encoded, ours, some)),
            "library": seconds_of(partial(theirs.encode_document, some)),
        }
        for name, seconds in found.items() if turn else ():
            taken[name].append(seconds)
    auto, exact, library = (statistics.median(times) for times in taken.values())
    shown = (
        f"{library / auto:.2f} ({choice.precision}, {len(texts) / auto:,.0f} texts/s; against our "
        f"float32 {exact / auto:.2f}, which is {library / exact:.2f} times as fast as theirs)"
    )
    name = f"--precision auto against the library in float32, {folder.name}"
    return Bar(name, ">= 2.5", shown, library >= 2.5 * auto)


def _encoded(encoder: Encoder, texts: list[str]) -> None:
    for _ in encoder.encode(texts, Role.DOCUMENT):
        pass


def _loss(name: str, collection: Path, large: Path, small: Path) -> Bar:
    """Means over shuffles: a last digit may tip what a single fit chooses, either way."""
    found = {}
    for precision in ("float32", "auto"):
        with tempfile.TemporaryDirectory() as temporary:
            store = Path(temporary) / "store"
            pair = ("--query-model", large, "--doc-model", small, "--precision", precision)
            _run(embed.main, collection, "--store", store, *pair)
            found[precision] = [_measured(store, collection.name, seed) for seed in _SEEDS]
    exact, auto = (np.array(rows) for rows in (found["float32"], found["auto"]))
    moved = (auto - exact).mean(axis=0)
    error = (auto - exact).std(axis=0, ddof=1) / len(_SEEDS) ** 0.5
    shown = ", ".join(
        f"{candidate} {value:.2f} {change:+.2f} ± {off:.2f} (single fits {low:+.2f} to {high:+.2f})"
        for candidate, value, change, off, low, high in zip(
            _CANDIDATES,
            exact.mean(axis=0),
            moved,
            error,
            (auto - exact).min(axis=0),
            (auto - exact).max(axis=0),
            strict=True,
        )
    )
    worst = float(np.abs(moved).max())
    what = f"nDCG@10 by --precision auto, {name}, mean of {len(_SEEDS)} shuffles"
    return Bar(what, "within 0.2", shown, worst <= _POINTS)


def _measured(store: Path, collection: str, seed: int) -> list[float]:
    """Points of nDCG@10 of the candidates under one shuffle."""
    adapter = store.parent / f"adapter-{seed}"
    chosen = ("--split-seed", seed, "--candidate", "era-dual")
    _run(fit.main, store, collection, "--out", adapter, *chosen)
    record = json.loads(_run(evaluate.main, store, adapter, "--json"))
    rows = {row["name"]: row["measures"]["nDCG@10"] for row in record["candidates"]}
    return [100 * rows[candidate]["mean"] for candidate in _CANDIDATES]


def _run(command: click.Command, *words: object) -> str:
    done = CliRunner().invoke(command, [*(str(word) for word in words), "--quiet"])
    if done.exit_code:
        raise click.ClickException(done.output)
    return done.stdout
