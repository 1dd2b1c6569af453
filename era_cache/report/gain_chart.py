"""The chart of gains: a dot and an interval for each collection.

In: a ``Report`` with gains. Drawn on a figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from era_cache.report.collection_tables import gain_order
from era_cache.report.records import BASELINE, Report
from era_cache.report.svg import INK, PAGE, PALETTE, SOFT, short
from era_cache.report.tables import stars_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_gains"]


def draw_gains(figure: Figure, report: Report) -> None:
    """Draw the gains, the largest on top, with the domains at the right."""
    axes = figure.add_subplot()
    axes.grid(axis="x", color=INK, alpha=0.13)
    axes.set_axisbelow(True)
    rows = gain_order(report.gains.rows)
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    for place, row in enumerate(rows):
        color = PALETTE[row.difference < 0]
        axes.plot([row.low, row.high], [place, place], color=color, linewidth=2)
        axes.plot(
            [row.difference],
            [place],
            marker="o",
            color=color,
            markerfacecolor=color if stars_of(row.p_holm) else PAGE,
            markersize=7,
        )
        axes.text(
            1.015,
            place,
            short(row.domain, 24),
            color=SOFT,
            fontsize=9,
            va="center",
            parse_math=False,
            transform=axes.get_yaxis_transform(),
        )
    names = [short(row.collection) for row in rows]
    axes.set_yticks(range(len(rows)), labels=names, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    candidate = report.gains.candidate
    axes.set_xlabel(
        f"{short(report.primary)} of {short(candidate)} minus that of {BASELINE}", parse_math=False
    )
