"""How far one machine goes: ``python -m benchmarks.scale [--sizes 1000000,4000000]``.

Embedding short synthetic texts by a static model: texts a second, peak memory, and a second run
over what is stored. Every run is a process of its own, so that peaks do not mix.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from demo_models import SMALL_NAME, demo_models_dir

from benchmarks.common import Bar, finish, skipped

_QUERIES = 1000
_BLOCK = 100_000


class Ran(NamedTuple):
    """One process: seconds it took, and its largest resident memory in bytes."""

    seconds: float
    peak: int


def run_command(arguments: Sequence[str]) -> Ran:
    """Run a command of this environment to its end. Raises ``SystemExit`` where it fails."""
    start = time.perf_counter()
    pid = os.posix_spawn(
        arguments[0],
        list(arguments),
        dict(os.environ),
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(arguments)} failed")
    return Ran(time.perf_counter() - start, usage.ru_maxrss * 1024)


def synthetic_collection(folder: Path, documents: int, seed: int = 0) -> Path:
    """Write short texts of made-up words (8 to 16 a text) in BEIR layout; no judgements."""
    rng = np.random.default_rng(seed)
    syllables = np.array(["ka", "lo", "mi", "ter", "ran", "su", "vel", "on", "pra", "dis", "eth"])
    words = np.array(["".join(rng.choice(syllables, 3)) for _ in range(20_000)])
    folder.mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for start in range(0, documents, _BLOCK):
            count = min(_BLOCK, documents - start)
            # Popular words come often, as in any language.
            drawn = words[(len(words) * rng.random((count, 16)) ** 3).astype(np.int64)].tolist()
            ends = rng.integers(8, 17, count).tolist()
            file.writelines(
                f'{{"_id": "d{row}", "text": "{" ".join(some[:end])}"}}\n'
                for row, (some, end) in enumerate(zip(drawn, ends, strict=True), start=start)
            )
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for row in range(_QUERIES):
            some = rng.choice(words, 6)
            file.write(json.dumps({"_id": f"q{row}", "text": " ".join(some)}) + "\n")
    return folder


def embed(collection: Path, store: Path, model: Path) -> Ran:
    """Encode a collection by one static model on both sides."""
    command = Path(sys.executable).with_name("era-embed")
    return run_command(
        [
            *(str(command), str(collection), "--store", str(store), "--quiet"),
            *("--query-model", str(model), "--doc-model", str(model)),
            *("--align-sample", "random"),
        ]
    )


def embedding(sizes: Sequence[int], folder: Path) -> list[Bar]:
    """Speed and memory of era-embed at several sizes."""
    model = demo_models_dir() / SMALL_NAME
    if not model.is_dir():
        return [skipped("era-embed", "no demo models; run bin/demo once")]
    first, again = [], []
    for size in sizes:
        collection = synthetic_collection(folder / f"texts-{size}", size)
        store = folder / f"store-{size}"
        first.append(embed(collection, store, model))
        again.append(embed(collection, store, model))
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


@click.command()
@click.option("--sizes", default="1000000,4000000", help="Numbers of texts, by commas.")
@click.option("--json", "as_json", is_flag=True)
def main(sizes: str, as_json: bool) -> None:
    """Measure, and exit with 1 where a bar is missed."""
    with tempfile.TemporaryDirectory(prefix="era-scale-") as folder:
        bars = embedding([int(size) for size in sizes.split(",")], Path(folder))
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
