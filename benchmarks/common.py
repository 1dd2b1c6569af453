"""What the benchmark modules share: bars, and how they are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Bar", "finish"]


class Bar(NamedTuple):
    """One bar: what it is about, what is asked, what was measured, and whether that is enough."""

    name: str
    target: str
    figure: str
    ok: bool


def finish(bars: Sequence[Bar], *, as_json: bool) -> None:
    """Print the bars as a table (or JSON) and exit with 1 if one is missed."""
    if as_json:
        print(json.dumps([bar._asdict() for bar in bars], indent=1))
    else:
        rows = [("bar", "target", "figure", "ok")]
        rows += [(b.name, b.target, b.figure, "yes" if b.ok else "NO") for b in bars]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    sys.exit(0 if all(bar.ok for bar in bars) else 1)
