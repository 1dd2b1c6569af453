"""Evaluation: the numbers are trec_eval's, search is exact, and both are fast.

    python -m benchmarks.evaluate [--quick] [--only agreement]

Parts: ``agreement``, ``measures``, ``products``, ``search``, ``report``, ``protocol`` and
``errors``; each can be run alone. ``agreement`` and ``protocol`` need the development collections
with ready vectors.
All of it takes about fifteen minutes on two cores. Keep the machine idle: most bars are times.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.common import Bar, finish
from benchmarks.evaluate_errors import error_bars
from benchmarks.evaluate_protocol import protocol_bars
from benchmarks.evaluate_report import report_bars
from benchmarks.evaluate_search import approximate_bars, exact_bars, product_bars
from benchmarks.evaluate_trec import agreement_bars, measure_bars

_SHARES = (0.05, 0.1, 0.2, 0.4)
_FEW = ("gorilla-torch", "cranfield", "med")
_THREE_DOMAINS = ("gorilla-torch", "theoremqa", "cranfield", "med")

Tell = Callable[[str], None]
Part = Callable[[Path, Tell], list[Bar]]

FULL: dict[str, Part] = {
    "agreement": lambda _folder, tell: agreement_bars([], tell),
    "measures": lambda _folder, _tell: measure_bars(10_000, 1000, rounds=5),
    "products": lambda _folder, _tell: product_bars(),
    "search": lambda _folder, tell: (
        exact_bars(tell, documents=1_000_000, queries=2000, rounds=3)
        + approximate_bars(tell, documents=200_000, queries=1000)
    ),
    "report": lambda folder, tell: report_bars(
        folder, tell, collections=20, shares=_SHARES, seeds=5
    ),
    "protocol": lambda _folder, tell: protocol_bars([], tell),
    "errors": error_bars,
}
QUICK: dict[str, Part] = {
    "agreement": lambda _folder, tell: agreement_bars(_FEW, tell),
    "measures": lambda _folder, _tell: measure_bars(2000, 1000),
    "products": lambda _folder, _tell: product_bars(),
    "search": lambda _folder, tell: (
        exact_bars(tell, documents=100_000, queries=500, rounds=2)
        + approximate_bars(tell, documents=10_000, queries=300)
    ),
    "report": lambda folder, tell: report_bars(
        folder, tell, collections=4, shares=_SHARES[1:3], seeds=2, rounds=1
    ),
    "protocol": lambda _folder, tell: protocol_bars(_THREE_DOMAINS, tell),
    "errors": error_bars,
}


def _note(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything, in under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print the bars as JSON.")
@click.option("--only", multiple=True, type=click.Choice(list(FULL)), help="Run this part only.")
def main(quick: bool, as_json: bool, only: tuple[str, ...]) -> None:
    """Measure evaluation."""
    parts = QUICK if quick else FULL
    bars = []
    for name in only or parts:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="era-evaluate-") as folder:
            bars += parts[name](Path(folder), _note)
        _note(f"{name}: {time.monotonic() - begun:.0f} s")
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
