"""The store: nothing is lost, nothing wrong is served, and how fast that is.

    python -m benchmarks.store [--quick] [--only kills]

Parts: ``kills``, ``race``, ``containers``, ``full``, ``flips``, ``writers``, ``speed`` and
``index``; each can be run alone. All of it takes about a quarter of an hour and 3 GB of disk. The
fuzz bar is in ``benchmarks.fuzz``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.common import Bar, finish
from benchmarks.store_containers import container_bars
from benchmarks.store_flips import flip_bars
from benchmarks.store_full import full_bars
from benchmarks.store_kills import kill_bars
from benchmarks.store_race import race_bars, writer_bars
from benchmarks.store_speed import index_bars, speed_bars

FULL: dict[str, Callable[[Path], list[Bar]]] = {
    "kills": lambda folder: kill_bars(folder, 500),
    "race": lambda folder: race_bars(folder, 60),
    "containers": lambda folder: container_bars(folder, 60),
    "full": lambda folder: full_bars(folder, 400),
    "flips": lambda folder: flip_bars(folder, 1000),
    "writers": lambda folder: writer_bars(folder, 8, rounds=3),
    "speed": lambda folder: speed_bars(folder, 1_000_000, rounds=5),
    "index": lambda folder: index_bars(folder, 10_000_000),
}
QUICK: dict[str, Callable[[Path], list[Bar]]] = {
    "kills": lambda folder: kill_bars(folder, 15),
    "race": lambda folder: race_bars(folder, 2),
    "containers": lambda folder: container_bars(folder, 2),
    "full": lambda folder: full_bars(folder, 20),
    "flips": lambda folder: flip_bars(folder, 100),
    "writers": lambda folder: writer_bars(folder, 1.5, rounds=2),
    "speed": lambda folder: speed_bars(folder, 100_000, rounds=3),
    "index": lambda folder: index_bars(folder, 1_000_000),
}


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything, in under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print the bars as JSON.")
@click.option("--only", multiple=True, type=click.Choice(list(FULL)), help="Run this part only.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where stores are made (and removed).  [default: the system's temporary folder]",
)
def main(quick: bool, as_json: bool, only: tuple[str, ...], folder: Path | None) -> None:
    """Measure the store."""
    parts = QUICK if quick else FULL
    bars = []
    for name in only or parts:
        begun = time.monotonic()
        # The folder of one part goes before the next begins: the disk need not hold both.
        with tempfile.TemporaryDirectory(prefix="era-store-", dir=folder) as own:
            bars += parts[name](Path(own))
        click.echo(f"{name}: {time.monotonic() - begun:.0f} s", err=True)
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
