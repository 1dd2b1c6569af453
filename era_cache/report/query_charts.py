"""Charts query by query, and of scores.

In: a ``Report``. Drawn on a figure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from era_cache.report.query_tables import SCORE_PARTS, mass, quantile
from era_cache.report.records import BASELINE, Report, Scores
from era_cache.report.svg import INK, PALETTE, SOFT, short, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_queries", "draw_scores"]

_LARGEST = 30.0
"""Diameter of the largest circle in points."""
_SMALLEST = 2.5
_SIDE = 4.1
"""Of the square of values, in inches; the numbers stand at its right."""


def _diameter(number: int, most: int) -> float:
    """Give a number of queries the diameter of a circle whose area it is."""
    return max(_SMALLEST, _LARGEST * (number / most) ** 0.5) if most > 1 else 4.0


def draw_queries(figure: Figure, report: Report) -> None:
    """Draw what each query has before and after, as circles around the diagonal."""
    queries = report.queries
    figure.set_layout_engine("none")  # it would make room for the words beside the square
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.75 / width, 0.6 / height, _SIDE / width, _SIDE / height))
    axes.grid(color=INK, alpha=0.1)
    axes.set_axisbelow(True)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
    most = max((number for *_, number in queries.points), default=1)
    groups = defaultdict(list)
    for before, after, number in queries.points:
        side = 0 if after > before else 1 if after < before else 2
        groups[-number, side].append((before, after))
    # The largest first, so that no circle hides another.
    for (negative, side), places in sorted(groups.items()):
        color = (PALETTE[0], PALETTE[1], SOFT)[side]
        axes.plot(
            *zip(*places, strict=True),
            linestyle="none",
            marker="o",
            markersize=_diameter(-negative, most),
            color=color,
            markeredgewidth=0,
            alpha=0.45,
            clip_on=False,
        )
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"{short(report.primary)} of {BASELINE}", parse_math=False)
    axes.set_ylabel(short(f"{report.primary} of {queries.candidate}", 44), parse_math=False)
    total = max(1, queries.better + queries.equal + queries.worse)
    for word, number, color, height in (
        ("better", queries.better, PALETTE[0], 0.97),
        ("equal", queries.equal, SOFT, 0.90),
        ("worse", queries.worse, PALETTE[1], 0.83),
    ):
        axes.text(
            1.05,
            height,
            f"{number:,} {word} ({100 * number / total:.0f} %)",
            color=color,
            va="top",
            transform=axes.transAxes,
        )
    _draw_sizes(axes, most)


def _draw_sizes(axes: Axes, most: int) -> None:
    """Show what circles stand for how many queries."""
    if most < 4:
        return
    height = 0.08
    for number in sorted({1, round(most / 10) or 1, most}):
        size = _diameter(number, most)
        axes.plot(
            [1.12],
            [height],
            marker="o",
            markersize=size,
            color=SOFT,
            markeredgewidth=0,
            alpha=0.45,
            clip_on=False,
            transform=axes.transAxes,
        )
        words = f"{number:,} {'query' if number == 1 else 'queries'}"
        axes.text(1.19, height, words, color=SOFT, va="center", transform=axes.transAxes)
        height += 0.1


_LOOKS = {"positives": (PALETTE[0], "-"), "hardest": (PALETTE[1], "-"), "others": (SOFT, "--")}
_LABELS = {"positives": "relevant", "hardest": "hardest negatives", "others": "others"}


def draw_scores(figure: Figure, report: Report) -> None:
    """Draw the distributions of scores in panels with one x axis, before beside after."""
    figure.set_layout_engine("constrained", wspace=0.12)
    panels = figure.subplots(1, len(report.scores), sharex=True, squeeze=False)[0]
    low, high = _range(report.scores)
    for axes, scores in zip(panels, report.scores, strict=True):
        _draw_panel(axes, scores, high - low)
        axes.set_xlim(low, high)
        axes.set_ylim(bottom=0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(short(scores.candidate), fontsize=11, pad=24, parse_math=False)
        axes.set_xlabel("cosine")


def _draw_panel(axes: Axes, scores: Scores, width: float) -> None:
    labels = []
    for part in SCORE_PARTS:
        counts, total = mass(scores, part), sum(mass(scores, part))
        if not total:
            continue
        density = [
            number / total / (right - left)
            for number, left, right in zip(counts, scores.edges, scores.edges[1:], strict=False)
        ]
        color, line = _LOOKS[part]
        axes.stairs(density, scores.edges, color=color, fill=True, alpha=0.16, linewidth=0)
        axes.stairs(density, scores.edges, color=color, linestyle=line, linewidth=1.4)
        labels.append((quantile(scores.edges, counts, 0.5) or 0.0, _LABELS[part], color))
    places = spread([place for place, *_ in labels], 0.3 * width)
    for place, (_, word, color) in zip(places, labels, strict=True):
        axes.text(
            place,
            1.03,
            word,
            color=color,
            ha="center",
            fontsize=9,
            transform=axes.get_xaxis_transform(),
        )


def _range(panels: Sequence[Scores]) -> tuple[float, float]:
    """The x axis of all panels: where nearly all counts lie."""
    ends = [
        (quantile(scores.edges, counts, share) or 0.0)
        for scores in panels
        for counts in (mass(scores, part) for part in SCORE_PARTS)
        if sum(counts)
        for share in (0.001, 0.999)
    ]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.03 * (high - low) or 0.1
    return low - margin, high + margin
