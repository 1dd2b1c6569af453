"""Runs that are wrong: each is refused by one message, and nothing is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Bar
from era_cache.collection.beir import read_beir
from era_cache.collection.config import SplitConfig
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.fitting.config import FitConfig
from era_cache.fitting.fit_from_store import FitPlan, fit_to_folder
from era_cache.fitting.sources import Reading
from era_cache.store.store import Store
from tests.hash_encoder import HashEncoder

__all__ = ["error_bars", "refused"]

_TOY = Path(__file__).parent.parent / "data" / "toy"


class Case(NamedTuple):
    """What is wrong, and what the run holds."""

    what: str
    run: str


def _line(query: str, document: str, score: str) -> str:
    return f"{query} Q0 {document} 0 {score} mine\n"


def _cases(query: str, documents: Sequence[str]) -> list[Case]:
    """Runs that are wrong each in one way, on a query and documents that are there."""
    right = "".join(_line(query, document, "0.5") for document in documents)
    return [
        Case("a run of unknown queries", _line("q-unheard-of", documents[0], "0.5")),
        Case("a run of unknown documents", _line(query, "d-unheard-of", "0.5")),
        Case("an empty run", ""),
        Case("a score that is NaN", right + _line(query, "d-unheard-of", "nan")),
        Case("a document twice for a query", right + _line(query, documents[0], "0.1")),
    ]


def error_bars(folder: Path, tell: Callable[[str], None]) -> list[Bar]:
    """Give every case to ``era-eval --run``, and first one that is right.

    Args:
        folder: for the files.
        tell: told the messages.
    """
    store, adapter = folder / "store", folder / "adapter"
    texts = read_beir(_TOY)
    collection, _ = embed_collection(
        Store.create(store),
        texts,
        large=HashEncoder(32),
        small=HashEncoder(16, seed="small"),
        config=EmbedConfig(),
    )
    plan = FitPlan(SplitConfig(labels=0.4), FitConfig(strengths=(8.0,), iterations=2))
    report = fit_to_folder(Store.open(store), texts.name, adapter, plan, Reading(device="cpu"))
    query = collection.query_ids[int(report.splits[texts.name].test[0])]
    cases = _cases(query, collection.doc_ids[:3])
    runs = [_line(query, collection.doc_ids[0], "0.5"), *(case.run for case in cases)]
    with ThreadPoolExecutor(2) as pool:
        right, *wrong = pool.map(
            lambda number: _measure(folder, number, runs[number]), range(len(runs))
        )
    if right.returncode:
        tell(f"a run that is right: {right.stderr.strip()}")
    good = 0
    for case, found in zip(cases, wrong, strict=True):
        tell(f"{case.what}: {found.stderr.strip()}")
        good += refused(found)
    ok = good == len(cases) and not right.returncode
    figure = f"{good} of {len(cases)}" + (", and a right run" if right.returncode else "")
    return [Bar("bad runs: exit code 1, one message", f"{len(cases)} of {len(cases)}", figure, ok)]


def refused(found: subprocess.CompletedProcess[str]) -> bool:
    """Whether a process ended with code 1, one line that says why, and no result."""
    lines = [line for line in found.stderr.strip().splitlines() if not line.endswith(" …")]
    return found.returncode == 1 and not found.stdout and [t[:7] for t in lines] == ["Error: "]


def _measure(folder: Path, number: int, run: str) -> subprocess.CompletedProcess[str]:
    path = folder / f"run-{number}.trec"
    path.write_text(run)
    program = str(Path(sys.executable).with_name("era-eval"))
    command = [program, "store", "adapter", "--run", f"bad={path.name}", "--device", "cpu"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
