"""The charts of the HTML report: inline SVG that follows the page's colours.

In: a ``Report``. Out: a figure element.
"""

from __future__ import annotations

import html
import io
import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from era_cache.report.records import BASELINE, Report, percent_text
from era_cache.report.tables import Table, curve_names, stars_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["figure"]

# Drawn in these, then replaced by style-sheet colours that suit light and dark pages. Text and
# axes get _INK, hollow markers _PAGE, which no palette uses. The palette follows Okabe and Ito
# (2008), darkened for a white page.
_INK, _PAGE = "#010203", "#fcfdfe"
_PALETTE = ("#0072b2", "#c44e00", "#007a5a", "#a8477f", "#8f6400", "#5b5bd6")
_MARKERS = ("o", "s", "^", "D", "v", "P")


def _look(name: str, names: Sequence[str]) -> dict[str, str]:
    """Give a candidate its colour, marker and line; the baseline is neutral and dashed."""
    if name == BASELINE:
        return {"color": _INK, "marker": "o", "linestyle": "--"}
    i = [other for other in names if other != BASELINE].index(name)
    # The second time round the palette, lines are dotted.
    line = "-" if i < len(_PALETTE) else ":"
    return {"color": _PALETTE[i % 6], "marker": _MARKERS[i % 6], "linestyle": line}


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Move labels apart to at least ``gap``, in their order, around their common centre."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = list(values)
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    shift = (sum(placed) - sum(values)) / max(1, len(values))
    return [value - shift for value in placed]


def _draw_curve(axes: Axes, report: Report) -> None:
    names = curve_names(report)
    order = [*(c.name for c in report.candidates), *names]
    ends = []
    for name in names:
        points = [p for p in report.curve if name in p.estimates]
        shares = [p.labels for p in points]
        estimates = [p.estimates[name] for p in points]
        look = _look(name, list(dict.fromkeys(order)))
        lows, highs = [e.low for e in estimates], [e.high for e in estimates]
        axes.fill_between(shares, lows, highs, color=look["color"], alpha=0.13, linewidth=0)
        if len(points) == 1:  # A band needs two points; one gets a line.
            axes.vlines(shares, lows, highs, color=look["color"], linewidth=2.5)
        axes.plot(shares, [e.mean for e in estimates], **look)  # type: ignore[arg-type]
        ends.append((name, estimates[-1].mean, look["color"]))
    shares = [point.labels for point in report.curve]
    if min(shares) > 0:
        axes.set_xscale("log")
    ticks = [f"{percent_text(point.labels)}\n{point.train:,}" for point in report.curve]
    axes.set_xticks(shares, labels=ticks)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labels used for training, and number of training queries")
    axes.set_ylabel(report.primary, parse_math=False)
    low, high = axes.get_ylim()
    heights = _spread([mean for _, mean, _ in ends], 0.065 * (high - low))
    for (name, _, color), height in zip(ends, heights, strict=True):
        axes.text(
            1.015,
            height,
            _short(name),
            color=color,
            va="center",
            parse_math=False,
            transform=axes.get_yaxis_transform(),
        )


def _draw_differences(axes: Axes, report: Report) -> None:
    names = [candidate.name for candidate in report.candidates]
    shown = []
    for candidate in report.candidates:
        estimate = candidate.estimates[report.primary]
        if candidate.name != BASELINE and estimate.difference is not None:
            shown.append((candidate.name, estimate))
    axes.axvline(0, color=_INK, linewidth=1, linestyle="--")
    for row, (name, estimate) in enumerate(shown):
        look = _look(name, names)
        if estimate.difference_low is not None and estimate.difference_high is not None:
            interval = [estimate.difference_low, estimate.difference_high]
            axes.plot(interval, [row, row], color=look["color"], linewidth=2.5)
        fill = look["color"] if stars_of(estimate.p_shown) else _PAGE
        axes.plot(
            [estimate.difference or 0.0],
            [row],
            marker=look["marker"],
            color=look["color"],
            markerfacecolor=fill,
            markersize=9,
        )
    axes.set_yticks(range(len(shown)), labels=[_short(name) for name, _ in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"difference in {report.primary} from {BASELINE}", parse_math=False)


_CHARTS: dict[str, tuple[Callable[[Axes, Report], None], str]] = {
    "curve": (_draw_curve, "Bands are 95 % intervals over the test queries."),
    "differences": (
        _draw_differences,
        "Lines are 95 % intervals. Filled: p < 0.05; hollow: not significant.",
    ),
}


def figure(table: Table, report: Report) -> str:
    """Draw the chart that a table names, as a figure element with its caption."""
    draw, note = _CHARTS[table.chart]
    column = len(table.head) - 1 if table.chart == "curve" else 1
    values = ", ".join(f"{row[0].text} {row[column].text}" for row in table.rows)
    title = f"{table.caption}. {table.head[column].text}: {values}."
    return (
        '<figure><div class="scroll" role="region" tabindex="0" '
        f'aria-label="Chart: {html.escape(table.title)}">{_svg(report, draw, table.chart, title)}'
        f"</div>\n<figcaption>{html.escape(note)}</figcaption></figure>"
    )


def _svg(report: Report, draw: Callable[[Axes, Report], None], prefix: str, title: str) -> str:
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": prefix,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.markersize": 5,
        "font.size": 10,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    # The page's own fonts draw the text, so that a glyph missing here is no one's concern.
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        height = 1.0 + 0.42 * len(report.candidates) if prefix == "differences" else 3.9
        figure = Figure(figsize=(7.2, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.grid(axis="x" if prefix == "differences" else "y", color=_INK, alpha=0.13)
        axes.set_axisbelow(True)
        draw(axes, report)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _inline_svg(stream.getvalue(), prefix, title)


def _inline_svg(svg: str, prefix: str, title: str) -> str:
    """Make a matplotlib SVG fit to stand inside a page: own ids, page colours, a title."""

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag.group())
        text = text.replace(_INK, "currentColor").replace(_PAGE, "var(--page)")
        for i, color in enumerate(_PALETTE):
            text = text.replace(color, f"var(--s{i})")
        return text

    start = svg.index("<svg")
    # Only tags are rewritten: in texts, which come from the result, "<" is always escaped.
    body = re.sub(r"<[^<>]*>", adapt, svg[start:])
    opening, rest = body.split(">", 1)
    label = f'<title id="{prefix}-title">{html.escape(title)}</title>'
    return f'{opening} role="img" aria-labelledby="{prefix}-title">\n{label}{rest}'
