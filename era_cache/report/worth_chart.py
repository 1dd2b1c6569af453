"""What alignment documents are worth, as a picture.

In: rows of ``documents`` and a judge's value. Out: an ``svg`` element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from era_cache.report.svg import INK, PALETTE, draw_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_worth"]


def draw_worth(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw quality by documents, with today's index as a dashed line.

    Args:
        rows: ``documents`` first, then the judge's value under its name, then the ``gain`` over the
            first row and perhaps the ``cost``.
    """
    judge = list(rows[0])[1]
    counts, values = [row["documents"] for row in rows], [row[judge] for row in rows]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.grid(axis="y", color=INK, alpha=0.13)
        axes.axhline(values[0], color=INK, linestyle="--", linewidth=1)
        axes.plot(counts, values, color=PALETTE[0], marker="o")
        axes.set_xscale("symlog", linthresh=max(1, min((c for c in counts if c), default=1)))
        ticks = [
            f"{c:,}\n{row['cost']:,.4g}" if "cost" in row else f"{c:,}"
            for c, row in zip(counts, rows, strict=True)
        ]
        axes.set_xticks(counts, labels=ticks)
        axes.set_xticks([], minor=True)
        what = "documents that the large model encodes"
        axes.set_xlabel(f"{what}, and their cost" if "cost" in rows[0] else what)
        axes.set_ylabel(judge, parse_math=False)

    steps = ", ".join(f"{c:,}: {v:.3f}" for c, v in zip(counts, values, strict=True))
    return draw_svg(draw, (7.0, 3.4), "worth", f"{judge} of era-zero by documents: {steps}")
