"""Many writers and readers at work on one store, and how much faster two writers are than one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Bar
from benchmarks.store_child import seeds
from benchmarks.store_kills import begin, start_child, stop_all
from benchmarks.store_rows import read_log, try_open, wrong_rows
from era_cache.collection.keys import distinct_rows
from era_cache.errors import EraError
from era_cache.store.verify import verify
from era_cache.types import Keys

__all__ = ["READERS", "WRITERS", "race_bar", "race_bars", "run_race", "writer_bars"]

WRITERS = ("embed", "embed", "embed", "put", "put", "merge", "only_compact", "only_clean")
READERS = 3


def run_race(
    folder: Path,
    seconds: float,
    writers: tuple[str, ...] = WRITERS,
    readers: int = READERS,
    inside: Sequence[str] = (),
) -> dict[str, Any]:
    """Let processes loose on one store.

    Args:
        folder: for the store and its scratch files.
        seconds: how long.
        writers: the jobs of the writers.
        readers: how many processes read.
        inside: a program that starts each.

    Returns:
        ``missing`` and ``wrong`` rows as readers saw them and as they are in the end, ``errors``,
        and how much was done.
    """
    store = folder / "store"
    jobs = [*writers, *["read"] * readers]
    children = []
    for number, job in enumerate(jobs):
        options = {
            "store": str(store),
            "scratch": str(folder),
            "log": str(folder / f"race-{number}.log"),
            "first": 250 * number,  # each overlaps with its neighbours
            "seed": number,
            "seconds": seconds,
        }
        children.append(start_child(job, options, inside))
        if number == 0:
            # The first makes the store, for which the others would have to wait.
            begin(children[0])
    for child in children[1:]:
        begin(child)
    results = stop_all(children)
    required = _required(folder, len(jobs))
    end = try_open(store)
    if isinstance(end, EraError):
        return {"missing": 0, "wrong": 0, "errors": [str(end)]}
    final = wrong_rows(end, seeds(), required)
    readings = results[len(writers) :]
    report = verify(end)
    return {
        "missing": final["missing"] + sum(reading["missing"] for reading in readings),
        "wrong": final["wrong"] + sum(reading["wrong"] for reading in readings),
        "errors": [error for reading in readings for error in reading["errors"]]
        + [f"{finding.path}: {finding.message}" for finding in report.of_level("damage")],
        "read": sum(reading["rows"] for reading in readings),
        "rounds": sum(reading["rounds"] for reading in readings),
        "committed": sum(map(len, required.values())),
        "steps": [result["steps"] for result in results[: len(writers)]],
    }


def _required(folder: Path, count: int) -> dict[str, Keys]:
    groups: dict[str, list[Keys]] = {}
    for number in range(count):
        for fingerprint, keys in read_log(folder / f"race-{number}.log").items():
            groups.setdefault(fingerprint, []).extend(keys)
    joined = {fingerprint: np.concatenate(keys) for fingerprint, keys in groups.items()}
    return {fingerprint: keys[distinct_rows(keys)] for fingerprint, keys in joined.items()}


def throughput(folder: Path, writers: int, seconds: float) -> float:
    """Rows in a second that some writers commit to one store."""
    folder.mkdir()
    children = [
        start_child(
            "heavy",
            {
                "store": str(folder / "store"),
                "scratch": str(folder),
                "log": str(folder / f"{number}.log"),
                "first": 10_000_000 * number,
                "seed": number,
                "seconds": seconds,
            },
        )
        for number in range(writers)
    ]
    for child in children:
        begin(child)
    results = stop_all(children)
    return float(sum(result["rows"] / result["seconds"] for result in results))


def race_bar(what: str, found: dict[str, Any]) -> Bar:
    """The bar of what ``run_race`` found."""
    bad = found["missing"] + found["wrong"] + len(found["errors"])
    figure = (
        f"{found['missing']} missing, {found['wrong']} wrong, {len(found['errors'])} errors "
        f"({found.get('read', 0):,} rows read in {found.get('rounds', 0)} rounds, "
        f"{found.get('committed', 0):,} committed)"
    )
    if found["errors"]:
        figure += f"; the first: {found['errors'][0]}"
    return Bar(what, "wrong or missing rows: 0", figure, bad == 0)


def race_bars(folder: Path, seconds: float) -> list[Bar]:
    """The bar of a race of some seconds."""
    name = f"{len(WRITERS)} writers, {READERS} readers, {seconds:.0f} s"
    return [race_bar(name, run_race(folder, seconds))]


def writer_bars(folder: Path, seconds: float, rounds: int) -> list[Bar]:
    """How much faster two writers are than one, the median of some rounds."""
    ratios = []
    for number in range(rounds):
        one = throughput(folder / f"one-{number}", 1, seconds)
        two = throughput(folder / f"two-{number}", 2, seconds)
        ratios.append(two / one)
    ratio = statistics.median(ratios)
    return [
        Bar(
            "two writers against one",
            ">= 1.6x rows in a second",
            f"{ratio:.2f}x (median of {rounds}: {', '.join(f'{r:.2f}' for r in ratios)})",
            ratio >= 1.6,
        ),
    ]
