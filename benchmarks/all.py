"""Every claim that a machine can repeat: ``python -m benchmarks.all [--quick] [--reliability]``.

Runs each benchmark in a process of its own, one after the other, and shows all bars together with
the commit and the machine. What needs something that is not here (the development collections, a
GPU, the demo's models) is skipped and said. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.common import Bar, finish

__all__ = ["RELIABILITY", "RUNS", "Run", "main"]

ROOT = Path(__file__).resolve().parents[1]


class Run(NamedTuple):
    """One benchmark: what it is about, its arguments, and those of a short form."""

    about: str
    module: str
    full: list[str]
    quick: list[str]


RUNS = [
    Run("store: kills, writers, flips, speed", "store", [], ["--quick"]),
    Run("damaged files", "fuzz", [], ["--quick"]),
    Run("encoding", "embed", [], ["--quick"]),
    Run("evaluation and reports", "evaluate", [], ["--quick"]),
    Run("fitting", "fit", [], ["--quick", "--part", "quality", "--part", "time"]),
    Run("the endpoint", "serve", [], ["--quick"]),
    Run("size", "scale", [], ["--quick"]),
    Run("a GPU", "gpu", [], ["--quick"]),
]

_PARTS = ("kills", "race", "containers", "full", "flips")
_ATTACKED = [word for part in _PARTS for word in ("--only", part)]
_SERVED = ["--only", "exchange", "--only", "connections"]
RELIABILITY = [
    Run("store: " + ", ".join(_PARTS), "store", _ATTACKED, [*_ATTACKED, "--quick"]),
    Run("damaged files", "fuzz", [], ["--quick"]),
    Run("the endpoint", "serve", _SERVED, [*_SERVED, "--quick"]),
]
"""Nothing is lost and nothing wrong is served, whatever happens: docs/reliability.md."""


def _bars(run: Run, arguments: list[str]) -> list[Bar]:
    """Run one; what it measured, or that it failed."""
    command = [sys.executable, "-m", f"benchmarks.{run.module}", *arguments, "--json"]
    print(f"{run.about}: {' '.join(command[1:])}", file=sys.stderr)
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(f"  {time.monotonic() - begun:.0f} s", file=sys.stderr)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        return [Bar(run.about, "an answer", f"exit code {done.returncode}", ok=False)]
    return [Bar(f"{run.module}: {bar['name']}", *list(bar.values())[1:]) for bar in found]


def _machine() -> dict[str, str]:
    """What the figures were measured on."""
    named = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    return {
        "commit": named.stdout.strip() or "unknown",
        "processor": processor,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


@click.command()
@click.option("--quick", is_flag=True, help="The core of each, in under ten minutes.")
@click.option("--reliability", is_flag=True, help="Kills, races, damage, full disks, load alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the bars as JSON.")
def main(quick: bool, reliability: bool, as_json: bool) -> None:
    """Repeat every claim that a machine can repeat."""
    for name, value in _machine().items():
        print(f"{name}: {value}", file=sys.stderr)
    bars = [
        bar
        for run in (RELIABILITY if reliability else RUNS)
        for bar in _bars(run, run.quick if quick else run.full)
    ]
    finish(bars, as_json=as_json)


if __name__ == "__main__":
    main()
