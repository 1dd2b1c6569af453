"""Distributions of lengths as a picture, and as one line of a terminal.

In: lengths of texts. Out: an ``svg`` element; a sparkline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from era_cache.report.svg import INK, PALETTE, draw_svg
from era_cache.types import IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_lengths", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_BINS = 24


def sparkline(lengths: IntArray) -> str:
    """How often each length is, in steps that grow with the length; empty for no text."""
    if not len(lengths):
        return ""
    counts, _ = np.histogram(np.log1p(lengths), bins=min(_BINS, max(1, len(np.unique(lengths)))))
    places = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(
        _BARS[place] if count else " " for place, count in zip(places, counts, strict=True)
    )


def draw_lengths(lengths: Mapping[str, IntArray], limits: Mapping[str, int] | None = None) -> str:
    """Draw how long the texts of each kind are.

    Args:
        lengths: of each kind of texts, (n,) int64; kinds without texts are left out.
        limits: of some kinds, where a model stops to read.
    """
    shown = {what: counts for what, counts in lengths.items() if len(counts)}
    limits = limits or {}

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("constrained", hspace=0.12)
        panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, (what, counts), color in zip(panels, shown.items(), PALETTE, strict=False):
            most = max(int(counts.max()), 1)
            edges = np.unique(np.geomspace(1, most + 1, 40).round()).astype(int)
            edges = edges if len(edges) > 1 else np.array([most, most + 1])
            axes.hist(np.maximum(counts, 1), bins=edges, color=color, alpha=0.75)
            axes.set_xscale("log")
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_title(what, fontsize=11, loc="left", parse_math=False)
            middle = float(np.median(counts))
            axes.axvline(max(middle, 1), color=INK, linewidth=1)
            if what in limits:
                axes.axvline(limits[what], color=INK, linestyle="--", linewidth=1)
            ticks = [
                tick for tick in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000) if tick <= 2 * most
            ]
            axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
            axes.set_xticks([], minor=True)
        panels[-1].set_xlabel("words" if not limits else "tokens")

    words = "; ".join(f"{what}: median {int(np.median(n)):,}" for what, n in shown.items())
    return draw_svg(draw, (7.0, 1.5 * max(len(shown), 1) + 0.4), "lengths", f"Lengths. {words}")
