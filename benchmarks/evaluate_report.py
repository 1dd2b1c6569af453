"""The report of a large study: its time, its size, and what a browser makes of it."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Bar
from benchmarks.evaluate_data import make_results

__all__ = ["Page", "browser_program", "look_at", "report_bars"]

_SECONDS, _BYTES = 10, 5_000_000
_OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
# A drawing counts when it takes room on the page and holds a shape that does, too.
_DRAWN = """[...document.querySelectorAll("svg")].map((svg) => {
  const box = svg.getBoundingClientRect(), shape = svg.getBBox();
  return box.width > 0 && box.height > 0 && shape.width > 0 && shape.height > 0;
})"""
# The first table that can be sorted by a column of several numbers: clicked twice, what it shows.
_SORTED = """[...document.querySelectorAll("table")].map((table) => {
  const keys = (i) => [...table.tBodies[0].rows].map((row) => row.cells[i].dataset.key)
    .filter((key) => key !== undefined).map(Number);
  for (const button of table.querySelectorAll("thead th button")) {
    const i = button.closest("th").cellIndex, before = keys(i);
    if (new Set(before).size < 3) continue;
    button.click();
    const first = keys(i);
    button.click();
    return [before, first, keys(i)];
  }
}).find((one) => one)"""


class Page(NamedTuple):
    """What a browser found: complaints, addresses asked for, drawings, and a sorted column.

    ``orders`` has the keys of a column before a click on its head, after one and after two.
    """

    errors: list[str]
    requests: list[str]
    drawn: list[bool]
    orders: list[list[float]] | None

    @property
    def sorts(self) -> bool:
        """Whether the clicks put the column into one order and then into the other."""
        if self.orders is None:
            return False
        before, *clicked = self.orders
        up, down = sorted(before), sorted(before, reverse=True)
        return clicked in ([up, down], [down, up])


def browser_program() -> str | None:
    """The chromium that tests use, too."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def report_bars(
    folder: Path,
    tell: Callable[[str], None],
    *,
    collections: int,
    shares: Sequence[float],
    seeds: int,
    rounds: int = 3,
) -> list[Bar]:
    """Make results, have the command write their report, and open it."""
    results = folder / "results"
    make_results(results, collections=collections, shares=shares, seeds=seeds)
    command = [str(Path(sys.executable).with_name("era-eval")), "report", str(results)]
    seconds = statistics.median(_timed(command) for _ in range(rounds))
    page = results / "report.html"
    size = page.stat().st_size
    what = f"report of {collections} collections x {len(shares)} shares x 6 candidates x {seeds}"
    bars = [
        Bar(f"{what} shuffles", f"< {_SECONDS} s", f"{seconds:.1f} s", seconds < _SECONDS),
        Bar("its report.html", "< 5 MB", f"{size / 1e6:.2f} MB", size < _BYTES),
    ]
    program = browser_program()
    if program is None:
        tell("report in a browser: skipped, no chromium on the PATH")
        return bars
    seen = look_at(program, page)
    for error in seen.errors:
        tell(f"report.html: {error}")
    others = len(seen.requests) - 1
    figure = (
        f"{len(seen.errors)} errors, {others} requests, {sum(seen.drawn)} of {len(seen.drawn)} "
        f"drawings, sorted by click: {'yes' if seen.sorts else 'no'}"
    )
    ok = not seen.errors and not others and bool(seen.drawn) and all(seen.drawn) and seen.sorts
    return [*bars, Bar("it in chromium", "0, 0, all, yes", figure, ok)]


def _timed(command: Sequence[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start


def look_at(program: str, path: Path) -> Page:
    """Open a page, open all that is folded, and click the head of a column."""
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    requests: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfailed", lambda request: errors.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                errors.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.goto(path.resolve().as_uri())
        page.wait_for_load_state("networkidle")
        page.evaluate(_OPEN_ALL)
        drawn = page.evaluate(_DRAWN)
        orders = page.evaluate(_SORTED)
        browser.close()
    return Page(errors, requests, drawn, orders)
