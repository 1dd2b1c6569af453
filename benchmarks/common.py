"""What the benchmark modules share: bars, and how they are shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from demo_models import build_large, build_small, demo_models_dir

from era_cache.errors import EncoderError

__all__ = [
    "NO_MODELS",
    "Bar",
    "demo_models",
    "finish",
    "seconds_of",
    "seconds_of_command",
    "skipped",
]

NO_MODELS = "the demo's models are not installed; `make demo` installs them"
_WORDS = {True: "yes", False: "NO", None: "-"}


class Bar(NamedTuple):
    """One bar: what it is about, what is asked, what was measured, and whether that is enough.

    ``ok`` is None where nothing was measured; ``figure`` then says why.
    """

    name: str
    target: str
    figure: str
    ok: bool | None


def demo_models() -> Path | None:
    """The folder of the demo's two models, made of their packages where it lacks them.

    None, and a word on stderr, without the packages.
    """
    folder = demo_models_dir()
    try:
        build_small(folder)
        build_large(folder)
    except EncoderError as error:
        print(error, file=sys.stderr)
        return None
    return folder


def seconds_of(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def seconds_of_command(command: Sequence[str]) -> float:
    """How long a whole process takes, which finds its modules compiled as users' do."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return seconds_of(lambda: subprocess.run(command, check=True, capture_output=True, env=kept))


def skipped(name: str, why: str) -> Bar:
    """A bar that was not measured, told on stderr too."""
    print(f"{name}: skipped, {why}", file=sys.stderr)
    return Bar(name, "-", f"skipped: {why}", None)


def finish(bars: Sequence[Bar], *, as_json: bool) -> None:
    """Print the bars as a table (or JSON); exit with 1 if one is missed or none was measured."""
    if as_json:
        print(json.dumps([bar._asdict() for bar in bars], indent=1))
    else:
        rows = [("bar", "target", "figure", "ok")]
        rows += [(b.name, b.target, b.figure, _WORDS[b.ok]) for b in bars]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    measured = [bar for bar in bars if bar.ok is not None]
    if not measured:
        print(
            "Nothing could be measured. Run `make demo` first, or put the development collections "
            "where ERA_COLLECTIONS says; benchmarks.gpu needs a CUDA device.",
            file=sys.stderr,
        )
    sys.exit(0 if measured and all(bar.ok for bar in measured) else 1)
