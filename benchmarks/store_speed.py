"""Speed and memory of one large store, beside what numpy and sha256sum take for the same bytes.

Peaks of memory are those of fresh processes (``VmHWM``, since ``ru_maxrss`` counts the process
that started them, too); what such a process holds before it begins is its baseline.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Bar
from era_cache.collection.keys import row_keys
from era_cache.collection.records import Dropped, TextCollection
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.store.clean import clean
from era_cache.store.compact import compact
from era_cache.store.sorted_keys import persist_index
from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.store.verify import verify
from era_cache.types import Array, Keys, Qrels, Role
from tests.hash_encoder import HashEncoder

__all__ = ["index_bars", "speed_bars"]

_DIM = 384
_BLOCK_ROWS = 1 << 15
_SMALL, _LARGE = HashEncoder(_DIM, "small"), HashEncoder(8, "large")
_LOOKED_UP = 100_000
_INDEX_SPEC = HashEncoder(8, "index").spec


def _texts(rows: int) -> TextCollection:
    zero = np.zeros(1, dtype=np.int64)
    words = "and of what may be said of it in a passage of some length"
    return TextCollection(
        name="large",
        domain="",
        ignore_identical_ids=False,
        doc_ids=[f"d{row}" for row in range(rows)],
        doc_texts=[f"Document {row}, {words}" for row in range(rows)],
        query_ids=[f"q{row}" for row in range(1000)],
        query_texts=[f"Query {row}" for row in range(1000)],
        instructions=[""] * 1000,
        splits={"test": Qrels(zero, zero, zero + 1)},
        dropped=Dropped(),
    )


def _build(path: Path, texts: TextCollection) -> StoredEncoder:
    """Store a vector of each document, all in one segment."""
    store = Store.create(path)
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    block = np.random.default_rng(0).standard_normal((_BLOCK_ROWS, _DIM), dtype=np.float32)
    with store.writer(_SMALL.spec, Role.DOCUMENT, _DIM) as writer:
        for start in range(0, len(keys), _BLOCK_ROWS):
            some = keys[start : start + _BLOCK_ROWS]
            writer.write(some, block[: len(some)] * np.float32(1 + start / len(keys)))
    compact(store)
    clean(store, grace_seconds=0)
    encoder = store.encoder(_SMALL.spec.fingerprint(Role.DOCUMENT))
    if len(encoder.segments()) != 1:
        raise RuntimeError("the store is not compacted into one segment")
    return encoder


def _best(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Shortest time of each task, in seconds; they take turns."""
    best = [float("inf")] * len(tasks)
    for _ in range(rounds):
        for number, task in enumerate(tasks):
            begun = time.perf_counter()
            task()
            best[number] = min(best[number], time.perf_counter() - begun)
    return best


def speed_bars(folder: Path, rows: int, rounds: int) -> list[Bar]:
    """The bars of one segment of ``rows`` rows."""
    texts = _texts(rows)
    encoder = _build(folder / "speed", texts)
    keys = row_keys(Role.DOCUMENT, texts.doc_texts)
    bars = _reading_bars(encoder, keys, rounds)
    bars.append(_memory_bar(folder, encoder, keys))
    seconds = min(_best(rounds, lambda: encoder.index().positions(keys)))
    target = f"< {rows / 1e6:g} s"
    bars.append(Bar(f"lookup of {rows:,} keys", target, f"{seconds:.2f} s", seconds < rows / 1e6))
    bars.append(_cached_bar(folder / "speed", texts))
    bars.append(_verify_bar(folder / "speed", rounds))
    return bars


def _reading_bars(encoder: StoredEncoder, keys: Keys, rounds: int) -> list[Bar]:
    (segment,) = encoder.segments()
    slot = segment.plain.slots["vectors"]
    path, fingerprint = encoder.folder.parent.parent, encoder.spec.fingerprint
    order = np.random.default_rng(1).permutation(len(keys))
    shuffled = keys[order]

    def mapped() -> Array:
        return np.memmap(segment.path, slot.dtype, "r", slot.offset, slot.shape)

    def read(wanted: Keys) -> Array:
        return Store.open(path).encoder(fingerprint).vectors(wanted)

    if not np.array_equal(read(keys), mapped().astype(np.float32)):
        raise RuntimeError("the store reads other rows than the memory map")
    ours, theirs = _best(rounds, lambda: read(keys), lambda: mapped().astype(np.float32))
    name = f"{len(keys):,} x {slot.shape[1]} {slot.dtype.name}"
    figure = f"{theirs / ours:.2f}x ({ours:.2f} s, memmap and astype {theirs:.2f} s)"
    bars = [Bar(f"{name}: all, in order", ">= 0.9x of memmap", figure, theirs / ours >= 0.9)]
    ours, theirs, bare = _best(
        rounds,
        lambda: read(shuffled),
        lambda: mapped()[order].astype(np.float32),
        lambda: mapped()[order],
    )
    figure = f"{theirs / ours:.2f}x ({ours:.2f} s, memmap[order].astype {theirs:.2f} s, "
    figure += f"without astype {bare:.2f} s: {bare / ours:.2f}x)"
    bars.append(Bar(f"{name}: random order", ">= 0.7x of memmap", figure, theirs / ours >= 0.7))
    return bars


def _cached_bar(path: Path, texts: TextCollection) -> Bar:
    store, config = Store.open(path), EmbedConfig()

    def embed() -> int:
        _, reports = embed_collection(store, texts, large=_LARGE, small=_SMALL, config=config)
        return sum(report.encoded for report in reports)

    embed()  # queries and alignment documents are not there yet
    begun = time.perf_counter()
    encoded = embed()
    speed = len(texts.doc_texts) / (time.perf_counter() - begun)
    figure = f"{speed:,.0f} texts/s ({encoded} encoded)"
    ok = speed >= 150_000 and not encoded
    return Bar(f"era-embed of {len(texts.doc_texts):,} cached texts", ">= 150,000/s", figure, ok)


def _verify_bar(path: Path, rounds: int) -> Bar:
    store = Store.open(path)
    files = [str(p) for encoder in store.encoders() for p in encoder.segment_paths()]
    if shutil.which("sha256sum") is None:
        return Bar("verify", ">= 0.8x of sha256sum", "there is no sha256sum here", False)
    sound = []
    ours, theirs = _best(
        rounds,
        lambda: sound.append(verify(store).ok),
        lambda: subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL),
    )
    figure = f"{theirs / ours:.2f}x ({ours:.2f} s, sha256sum {theirs:.2f} s)"
    return Bar("verify", ">= 0.8x of sha256sum", figure, all(sound) and theirs / ours >= 0.8)


# In processes of their own


def _peak_bytes() -> int:
    """Most memory that this process has held so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell VmHWM")


def _alone(task: str, *arguments: object) -> dict[str, Any]:
    """Run a task of this module in a fresh process; gives the JSON that it prints."""
    command = [sys.executable, "-m", "benchmarks.store_speed", task, *map(str, arguments)]
    folder = Path(__file__).parent.parent
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=folder)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _memory_bar(folder: Path, encoder: StoredEncoder, keys: Keys) -> Bar:
    np.save(folder / "keys.npy", keys)
    path, fingerprint = encoder.folder.parent.parent, encoder.spec.fingerprint
    found = _alone("read", path, fingerprint, folder / "keys.npy")
    result = len(keys) * encoder.spec.dim * 4
    share = (found["peak"] - found["baseline"]) / result
    figure = f"{share:.3f}x ({found['baseline'] / 2**20:.0f} MiB baseline, result "
    figure += f"{result / 2**20:.0f} MiB, peak {found['peak'] / 2**20:.0f} MiB)"
    return Bar("peak above the baseline, all rows", "<= 1.10x of result", figure, share <= 1.10)


def _read_alone(path: str, fingerprint: str, keys_path: str) -> dict[str, Any]:
    keys = np.load(keys_path)
    encoder = Store.open(path).encoder(fingerprint)
    encoder.vectors(keys[:1])
    baseline = _peak_bytes()
    encoder.vectors(keys)
    return {"baseline": baseline, "peak": _peak_bytes()}


def index_bars(folder: Path, rows: int) -> list[Bar]:
    """The bars of a key index of ``rows`` rows."""
    _alone("build", folder / "index", rows)
    found = _alone("index", folder / "index")
    scale = rows / 10_000_000
    figure = f"{found['seconds']:.1f} s, peak {found['peak'] / 2**30:.2f} GiB"
    figure += f" (again, from the file: {found['again']:.2f} s)"
    ok = found["seconds"] <= 60 * scale and found["peak"] <= 6 * 2**30 and not found["missing"]
    name = f"index of {rows:,} rows, {_LOOKED_UP:,} keys"
    return [Bar(name, f"<= {60 * scale:g} s, 6 GiB, two cores", figure, ok)]


def _build_alone(path: str, rows: str) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    with Store.create(path).writer(_INDEX_SPEC, Role.DOCUMENT, 8) as writer:
        for start in range(0, int(rows), 500_000):
            count = min(500_000, int(rows) - start)
            keys = rng.integers(0, 256, (count, 16), dtype=np.uint8)
            writer.write(keys, rng.random((count, 8), dtype=np.float32) + 1)
    clean(Store.open(path), grace_seconds=0)
    return {}


def _index_alone(path: str) -> dict[str, Any]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    encoder = Store.open(path).encoder(_INDEX_SPEC.fingerprint(Role.DOCUMENT))
    shutil.rmtree(encoder.folder / "index", ignore_errors=True)
    stored = np.concatenate([np.asarray(segment.keys) for segment in encoder.segments()])
    keys = stored[np.random.default_rng(3).integers(0, len(stored), _LOOKED_UP)]
    del stored
    begun = time.perf_counter()
    index = encoder.index()
    missing = int(np.count_nonzero(index.positions(keys) < 0))
    persist_index(encoder.folder, index.segments)
    seconds = time.perf_counter() - begun
    peak = _peak_bytes()
    begun = time.perf_counter()
    missing += int(np.count_nonzero(encoder.index().positions(keys) < 0))
    again = time.perf_counter() - begun
    return {"seconds": seconds, "peak": peak, "missing": missing, "again": again}


if __name__ == "__main__":
    _TASKS: dict[str, Callable[..., dict[str, Any]]] = {
        "read": _read_alone,
        "build": _build_alone,
        "index": _index_alone,
    }
    print(json.dumps(_TASKS[sys.argv[1]](*sys.argv[2:])))
