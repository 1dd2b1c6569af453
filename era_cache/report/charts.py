"""The charts of the HTML report, each beside the table of the same values.

In: a ``Report`` and a table. Out: a figure element.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from era_cache.report.candidate_tables import curve_names
from era_cache.report.gain_chart import draw_gains
from era_cache.report.query_charts import draw_queries, draw_scores
from era_cache.report.records import BASELINE, Report
from era_cache.report.svg import INK, PAGE, PALETTE, draw_svg, short, spread
from era_cache.report.tables import Table, percent_text, stars_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure"]

_MARKERS = ("o", "s", "^", "D", "v", "P")
_SPOKEN = 40
"""At most so many rows are read out in the words of a chart."""


def _look(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Give a candidate its colour, marker and line; the baseline is neutral and dashed."""
    if name == BASELINE:
        return {"color": INK, "marker": "o", "linestyle": "--"}
    i = [other for other in names if other != BASELINE].index(name)
    # The second time round the palette, lines are dotted.
    line = "-" if i < len(PALETTE) else ":"
    return {"color": PALETTE[i % 6], "marker": _MARKERS[i % 6], "linestyle": line}


def _grid(figure: Figure, axis: Literal["x", "y"]) -> Axes:
    axes = figure.add_subplot()
    axes.grid(axis=axis, color=INK, alpha=0.13)
    axes.set_axisbelow(True)
    return axes


def _draw_curve(figure: Figure, report: Report) -> None:
    axes = _grid(figure, "y")
    names = curve_names(report)
    order = list(dict.fromkeys([*report.names, *names]))
    ends = []
    for name in names:
        points = [p for p in report.curve if name in p.candidates]
        shares = [p.labels for p in points]
        estimates = [p.candidates[name] for p in points]
        look = _look(name, order)
        lows, highs = [e.low for e in estimates], [e.high for e in estimates]
        axes.fill_between(shares, lows, highs, color=look["color"], alpha=0.1, linewidth=0)
        if len(points) == 1:  # A band needs two points; one gets a line.
            axes.vlines(shares, lows, highs, color=look["color"], linewidth=2.5)
        axes.plot(shares, [e.mean for e in estimates], **look)
        ends.append((name, estimates[-1].mean, look["color"]))
    shares = [point.labels for point in report.curve]
    if min(shares) > 0:
        axes.set_xscale("log")
    ticks = [f"{percent_text(point.labels)}\n{point.train:,}" for point in report.curve]
    axes.set_xticks(shares, labels=ticks)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labels used for training, and number of training queries")
    axes.set_ylabel(short(report.primary), parse_math=False)
    low, high = axes.get_ylim()
    heights = spread([mean for _, mean, _ in ends], 0.065 * (high - low))
    for (name, _, color), height in zip(ends, heights, strict=True):
        axes.text(
            1.015,
            height,
            short(name),
            color=color,
            va="center",
            parse_math=False,
            transform=axes.get_yaxis_transform(),
        )


def _draw_differences(figure: Figure, report: Report) -> None:
    axes = _grid(figure, "x")
    shown = []
    for candidate in report.candidates:
        estimate = candidate.measures[report.primary]
        if candidate.name != BASELINE and estimate.difference is not None:
            shown.append((candidate.name, estimate))
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    for row, (name, estimate) in enumerate(shown):
        look = _look(name, report.names)
        if estimate.difference_low is not None and estimate.difference_high is not None:
            interval = [estimate.difference_low, estimate.difference_high]
            axes.plot(interval, [row, row], color=look["color"], linewidth=2.5)
        axes.plot(
            [estimate.difference or 0.0],
            [row],
            marker=look["marker"],
            color=look["color"],
            markerfacecolor=look["color"] if stars_of(estimate.p_shown) else PAGE,
            markersize=9,
        )
    axes.set_yticks(range(len(shown)), labels=[short(name) for name, _ in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"difference in {short(report.primary)} from {BASELINE}", parse_math=False)


class _Chart(NamedTuple):
    """How a table is drawn: the column that its words read out, and its height in inches."""

    draw: Callable[[Figure, Report], None]
    note: str
    spoken: str
    height: float
    each_row: float = 0.0


_WIDTH = 7.2
_CHARTS = {
    "curve": _Chart(_draw_curve, "Bands are 95 % intervals over the test queries.", "", 3.9),
    "differences": _Chart(
        _draw_differences,
        "Lines are 95 % intervals. Filled: p < 0.05; hollow: not significant.",
        "difference",
        1.0,
        each_row=0.42,
    ),
    "gains": _Chart(
        draw_gains,
        "Lines are 95 % intervals. Filled: p < 0.05 after Holm's correction; hollow: not "
        "significant.",
        "difference",
        0.9,
        each_row=0.27,
    ),
    "queries": _Chart(
        draw_queries,
        "Each circle is a pair of values; its area is the number of queries that have it. Above "
        "the diagonal queries gain, below they lose.",
        "queries",
        4.8,
    ),
    "scores": _Chart(
        draw_scores,
        "Densities: each curve has the same area. The further the relevant documents lie to the "
        "right of the hardest negatives, the better.",
        "median",
        2.9,
    ),
}


def figure(table: Table, report: Report) -> str:
    """Draw the chart of a table as a figure element with its caption; empty where it has none."""
    chart = _CHARTS.get(table.name)
    if chart is None or (table.name == "gains" and len(table.rows) == 1):
        return ""  # one collection's gain is that of the candidate, drawn before
    height = chart.height + chart.each_row * len(table.rows)
    drawn = draw_svg(
        lambda canvas: chart.draw(canvas, report),
        (_WIDTH, height),
        f"chart-{table.name}",
        _words(table, chart.spoken),
    )
    return (
        '<figure><div class="scroll" role="region" tabindex="0" '
        f'aria-label="Chart: {html.escape(table.title)}">{drawn}'
        f"</div>\n<figcaption>{html.escape(chart.note)}</figcaption></figure>"
    )


def _words(table: Table, spoken: str) -> str:
    """The numbers of a chart, for those who cannot see it; without a column's name, the last."""
    heads = [cell.text for cell in table.head]
    column = heads.index(spoken) if spoken else -1
    named = 2 if table.name == "scores" else 1  # documents, candidate
    values = ", ".join(
        f"{' '.join(cell.text for cell in row[:named])} {row[column].text}"
        for row in table.rows[:_SPOKEN]
    )
    more = f", and {len(table.rows) - _SPOKEN} more" if len(table.rows) > _SPOKEN else ""
    return f"{table.caption}. {heads[column]}: {values}{more}."
