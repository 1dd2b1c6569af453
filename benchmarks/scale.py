"""How far one machine goes: ``python -m benchmarks.scale [--quick] [PART ...]``.

Parts: embed, shards, kills, fit, search, bucket. Embedding short synthetic texts by a static model:
texts a second, peak memory, a second run over what is stored, two shares side by side, shares that
are killed. Fitting and measuring on the documents of msmarco-instruct among windows of other
collections. Searching ten million vectors. A store in a bucket against one in a folder. Every run
is a process of its own, so that peaks do not mix.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from demo_models import LARGE_NAME, SMALL_NAME

from benchmarks.common import NO_MODELS, Bar, demo_models, finish, skipped
from benchmarks.fit_data import COLLECTIONS
from benchmarks.fit_labels import windows
from benchmarks.scale_bucket import bucket_bars
from benchmarks.scale_search import search_in_process
from era_cache.store.contents import diff
from era_cache.store.store import Store

_QUERIES = 1000
_QUICK = ("embed", "search", "bucket")
_BLOCK = 100_000
_MILLION = 1_000_000


class Ran(NamedTuple):
    """One process: seconds it took, and its largest resident memory in bytes."""

    seconds: float
    peak: int


def command(name: str) -> str:
    """The path of a command of this environment."""
    return str(Path(sys.executable).with_name(name))


def start_command(
    arguments: Sequence[str], more: Mapping[str, str] | None = None, *, core: int | None = None
) -> int:
    """Start a process, its standard output thrown away; gives its number.

    With ``core`` all its threads run there, one of those that this process may use.
    """
    cores = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {sorted(cores)[core % len(cores)]})
    try:
        return os.posix_spawn(
            arguments[0],
            list(arguments),
            {**os.environ, **(more or {})},
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
    finally:
        os.sched_setaffinity(0, cores)


def end_command(pid: int) -> int:
    """Wait for a process; gives its peak in bytes. Raises ``SystemExit`` where it failed."""
    _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit("a measured process failed")
    return usage.ru_maxrss * 1024


def run_command(arguments: Sequence[str], more: Mapping[str, str] | None = None) -> Ran:
    """Run a command of this environment to its end. Raises ``SystemExit`` where it fails."""
    start = time.perf_counter()
    peak = end_command(start_command(arguments, more))
    return Ran(time.perf_counter() - start, peak)


def synthetic_collection(folder: Path, documents: int, seed: int = 0) -> Path:
    """Write short texts of made-up words (8 to 16 a text) in BEIR layout.

    A query is the beginning of the document that it looks for.
    """
    rng = np.random.default_rng(seed)
    syllables = np.array(["ka", "lo", "mi", "ter", "ran", "su", "vel", "on", "pra", "dis", "eth"])
    words = np.array(["".join(rng.choice(syllables, 3)) for _ in range(20_000)])
    begun: list[list[str]] = []
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for start in range(0, documents, _BLOCK):
            count = min(_BLOCK, documents - start)
            # Popular words come often, as in any language.
            drawn = words[(len(words) * rng.random((count, 16)) ** 3).astype(np.int64)].tolist()
            ends = rng.integers(8, 17, count).tolist()
            begun = begun or [some[:4] for some in drawn[:_QUERIES]]
            file.writelines(
                f'{{"_id": "d{row}", "text": "{" ".join(some[:end])}"}}\n'
                for row, (some, end) in enumerate(zip(drawn, ends, strict=True), start=start)
            )
    queries = (
        f'{{"_id": "q{row}", "text": "{" ".join(some)}"}}\n' for row, some in enumerate(begun)
    )
    (folder / "queries.jsonl").write_text("".join(queries), encoding="utf-8")
    judged = (f"q{row}\td{row}\t1\n" for row in range(len(begun)))
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8"
    )
    return folder


def embed_words(collection: Path, store: Path, model: Path) -> list[str]:
    """The command that encodes a collection by one static model on both sides."""
    return [
        *(command("era-embed"), str(collection), "--store", str(store), "--quiet"),
        *("--query-model", str(model), "--doc-model", str(model)),
        *("--large-query-template", "find: {text}", "--align-sample", "random"),
    ]


def embedding(sizes: Sequence[int], folder: Path) -> list[Bar]:
    """Speed and memory of era-embed at several sizes."""
    if (models := demo_models()) is None:
        return [skipped("era-embed", NO_MODELS)]
    model = models / SMALL_NAME
    first, again = [], []
    for size in sizes:
        collection, store = _paths(folder, size)
        synthetic_collection(collection, size)
        first.append(run_command(embed_words(collection, store, model)))
        again.append(run_command(embed_words(collection, store, model)))
        shown = f"{size:,} texts: {first[-1]}, again {again[-1]}"
        print(shown, file=sys.stderr)
    most, last = sizes[-1], first[-1]
    more = (last.peak - first[0].peak) / 1e6
    allowed = 100e-6 * (most - sizes[0])
    speed, second = most / last.seconds, most / again[-1].seconds
    return [
        Bar("era-embed texts/s", "8,000", f"{speed:,.0f}", speed >= 8000),
        Bar("era-embed more memory", f"{allowed:.0f} MB", f"{more:.0f} MB", more <= allowed),
        Bar("second run texts/s", "150,000", f"{second:,.0f}", second >= 150_000),
        Bar(
            "second run memory",
            "1.5 GB",
            f"{again[-1].peak / 1e9:.2f} GB",
            again[-1].peak <= 1.5e9,
        ),
    ]


def _paths(folder: Path, size: int) -> tuple[Path, Path]:
    """Where the collection of a size lies, and its store."""
    return folder / f"texts-{size}", folder / f"store-{size}"


def shards(size: int, folder: Path) -> list[Bar]:
    """One process on one core against two shares on two, and whether they store the same."""
    if (models := demo_models()) is None:
        return [skipped("two shares", NO_MODELS)]
    model = models / SMALL_NAME
    collection = synthetic_collection(folder / "shared", size)
    # Held there: a process commits beside its encoding, and would else have a second core for it.
    bound = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    start = time.perf_counter()
    end_command(start_command(embed_words(collection, folder / "one", model), bound, core=0))
    one = time.perf_counter() - start
    start = time.perf_counter()
    words = embed_words(collection, folder / "two", model)
    begun = [start_command([*words, "--shard", f"{n}/2"], bound, core=n) for n in (1, 2)]
    for pid in begun:
        end_command(pid)
    two = time.perf_counter() - start
    same = diff(Store.open(folder / "one"), Store.open(folder / "two")).same
    return [
        Bar(
            "two shares over one, a core each",
            "1.6",
            f"{one / two:.2f} ({two:.0f} s of {one:.0f} s)",
            one >= 1.6 * two,
        ),
        Bar("both stores hold the same", "yes", str(same), same),
    ]


def kills(times: int, folder: Path, texts: int = 60_000) -> list[Bar]:
    """Two shares, one killed at some moment and run again: is the store that of one run?"""
    if (models := demo_models()) is None:
        return [skipped("killed shares", NO_MODELS)]
    model = models / SMALL_NAME
    rng = np.random.default_rng(0)
    collection = synthetic_collection(folder / "killed", texts)
    whole = folder / "whole"
    usual = run_command(embed_words(collection, whole, model)).seconds
    lost = 0
    for number in range(times):
        store = folder / f"killed-{number}"
        words = embed_words(collection, store, model)
        one, other = (start_command([*words, "--shard", f"{n}/2"]) for n in (1, 2))
        time.sleep(float(rng.uniform(0.3, 1.3)) * usual)
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)
        end_command(other)
        run_command([*words, "--shard", "1/2"])
        run_command([*words, "--finish"])
        lost += not diff(Store.open(whole), Store.open(store)).same
        shutil.rmtree(store)
    return [Bar(f"{times} shares killed", "0 lost", f"{lost} lost", lost == 0)]


def million(folder: Path) -> Path:
    """The documents of msmarco-instruct among a million windows of 60 words of the others."""
    source = COLLECTIONS / "msmarco-instruct"
    collection = folder / "million"
    shutil.copytree(source, collection)
    collection.chmod(0o755)
    (collection / "corpus.jsonl").unlink()
    count, seen = 0, set()
    with (collection / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for line in (source / "corpus.jsonl").open(encoding="utf-8"):
            file.write(line)
            count += 1
        for step in (6, 4, 3, 2, 1):
            for text in windows(step):
                if count == _MILLION:
                    return collection
                if (known := hash(text)) not in seen:
                    seen.add(known)
                    file.write(json.dumps({"_id": f"w{count}", "text": text}) + "\n")
                    count += 1
    return collection


def fitting(folder: Path) -> list[Bar]:
    """era-fit with all candidates and era-eval on a million documents."""
    models = demo_models()
    if not COLLECTIONS.is_dir() or models is None:
        return [skipped("era-fit", "no development collections, or no models of the demo")]
    store, adapter = folder / "million-store", folder / "adapter"
    words = embed_words(million(folder), store, models / SMALL_NAME)
    words[words.index("--query-model") + 1] = str(models / LARGE_NAME)
    run_command([*words, "--name", "million"])
    fit = run_command(
        [command("era-fit"), str(store), "million", "--out", str(adapter), "--labels", "20"]
    )
    seconds = sum(json.loads((adapter / "metrics.json").read_bytes())["seconds"].values())
    measured = run_command([command("era-eval"), str(store), str(adapter), "--quiet"])
    return [
        Bar("era-fit after reading", "30 s", f"{seconds:.1f} s", seconds <= 30),
        Bar("era-fit memory", "1.51 GB", f"{fit.peak / 1e9:.2f} GB", fit.peak <= 1.512e9),
        Bar("era-eval", "40 s", f"{measured.seconds:.1f} s", measured.seconds <= 40),
    ]


def bucket(size: int, folder: Path, fits: int) -> list[Bar]:
    """Reading and fitting from a bucket; the store is that of ``embedding``, if there is one."""
    if (models := demo_models()) is None:
        return [skipped("bucket", NO_MODELS)]
    model = models / SMALL_NAME
    collection, store = _paths(folder, size)
    if not store.is_dir():
        run_command(embed_words(synthetic_collection(collection, size), store, model))

    def fit(words: list[str]) -> float:
        return run_command([command("era-fit"), *words, "--quiet"]).seconds

    return bucket_bars(store, folder, fit, fits=fits)


def searching(count: int) -> list[Bar]:
    """Search of many vectors in half precision, against faiss fed the same blocks."""
    return [
        Bar(f"search of {count:,} over faiss", "0.95", f"{found:.2f}", found >= 0.95)
        if name == "ratio"
        else Bar(f"search of {count:,}, memory", "6 GB", f"{found / 1e9:.1f} GB", found <= 6e9)
        for name, found in search_in_process(count).items()
    ]


@click.command()
@click.argument("parts", nargs=-1)
@click.option("--sizes", help="Numbers of texts, by commas.  [default: 1000000,4000000]")
@click.option("--vectors", type=int, help="Vectors that are searched.  [default: 10000000]")
@click.option("--quick", is_flag=True, help="Three of the parts, with less of everything.")
@click.option("--json", "as_json", is_flag=True)
def main(
    parts: tuple[str, ...], sizes: str | None, vectors: int | None, quick: bool, as_json: bool
) -> None:
    """Measure, and exit with 1 where a bar is missed."""
    sizes = sizes or ("400000,1000000" if quick else "1000000,4000000")
    numbers = [int(size) for size in sizes.split(",")]
    vectors = vectors or (500_000 if quick else 10_000_000)
    with tempfile.TemporaryDirectory(prefix="era-scale-") as name:
        folder = Path(name)
        known = {
            "embed": lambda: embedding(numbers, folder),
            "shards": lambda: shards(numbers[-1], folder),
            "kills": lambda: kills(50, folder),
            "fit": lambda: fitting(folder),
            "search": lambda: searching(vectors),
            "bucket": lambda: bucket(numbers[0], folder, 0 if quick else 3),
        }
        bars = [bar for part in parts or (_QUICK if quick else known) for bar in known[part]()]
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
