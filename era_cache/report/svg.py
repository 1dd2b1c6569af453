"""Drawings as inline SVG that follows the page's colours, small and the same each time.

In: a function that draws on a matplotlib figure. Out: an ``svg`` element.
"""

from __future__ import annotations

import html
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from era_cache.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["INK", "PAGE", "PALETTE", "SOFT", "draw_svg", "load_matplotlib", "short", "spread"]

# Drawn in these, then replaced by style-sheet colours that suit light and dark pages. Text and
# axes get INK, hollow markers PAGE, which no palette uses. The palette follows Okabe and Ito
# (2008), darkened for a white page.
INK, PAGE, SOFT = "#010203", "#fcfdfe", "#040506"
PALETTE = ("#0072b2", "#c44e00", "#007a5a", "#a8477f", "#8f6400", "#5b5bd6")
_COLORS = {
    INK: "currentColor",
    PAGE: "var(--page)",
    SOFT: "var(--soft)",
    **{color: f"var(--s{i})" for i, color in enumerate(PALETTE)},
}


def short(name: str, most: int = 28) -> str:
    """Cut a name that is too long for a label."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Move labels apart to at least ``gap``, in their order, around their common centre."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = list(values)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    shift = (sum(placed) - sum(values)) / max(1, len(values))
    return [value - shift for value in placed]


def load_matplotlib() -> None:
    """Import matplotlib without its user's configuration, on which no drawing here depends.

    Raises:
        InputError: it does not load, as a broken ``matplotlibrc`` in the working folder brings
            about.
    """
    given = {name: os.environ.get(name) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    logger = logging.getLogger("matplotlib")
    level = logger.level
    try:
        os.environ.pop("MPLBACKEND", None)
        os.environ["MATPLOTLIBRC"] = os.devnull
        logger.setLevel(logging.CRITICAL)  # of a matplotlibrc in the working folder, which wins
        import matplotlib.style  # noqa: F401
    except (ImportError, ValueError, OSError) as error:
        raise InputError(
            f"matplotlib cannot be loaded: {error}. Look for a file matplotlibrc in this folder, "
            "or install matplotlib anew."
        ) from error
    finally:
        logger.setLevel(level)
        for name, value in given.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def draw_svg(
    draw: Callable[[Figure], None], size: tuple[float, float], prefix: str, title: str
) -> str:
    """Draw a figure as an ``svg`` element.

    Args:
        draw: fills the figure.
        size: width and height in inches.
        prefix: of all ids in the drawing, unique on its page.
        title: the drawing in words, for those who cannot see it.
    """
    load_matplotlib()
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
        "font.sans-serif": ["DejaVu Sans"],
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
        ),
    }
    # The page's own fonts draw the text, so that a glyph missing here is no one's concern.
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _inline(stream.getvalue(), prefix, title)


def _inline(svg: str, prefix: str, title: str) -> str:
    """Make a matplotlib SVG fit to stand inside a page: own short ids, page colours, a title."""
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    ids: dict[str, str] = {}
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))

    def name(match: re.Match[str]) -> str:
        found = match.group(2)
        if match.group(1).lstrip().startswith("id=") and found not in used:
            return ""
        return f"{match.group(1)}{ids.setdefault(found, f'{prefix}-{len(ids)}')}{match.group(3)}"

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'(\s*\bid="|href="#|url\(#)([^")]+)("|\))', name, tag.group())
        for drawn, shown in _COLORS.items():
            text = text.replace(drawn, shown)
        return _rounded(text)

    # Only tags are rewritten: in texts, which come from the record, "<" is always escaped.
    body = re.sub(r"<[^<>]*>", adapt, body)
    body = _USES.sub(_hoisted, body)
    body = re.sub(r">\s*\n\s*<", ">\n<", body)
    opening, rest = body.split(">", 1)
    label = f'<title id="{prefix}-title">{html.escape(title)}</title>'
    return f'{opening} role="img" aria-labelledby="{prefix}-title">\n{label}{rest}'


def _rounded(tag: str) -> str:
    """Keep two digits of coordinates: a hundredth of a point."""

    def two(number: re.Match[str]) -> str:
        return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")

    if tag.startswith("<path"):
        tag = re.sub(r"\s*\n\s*", " ", tag)
    return re.sub(r"-?\d+\.\d{2,}", two, tag)


# A group of equal markers says in each what all have in common.
_USES = re.compile(r'<g([^<>]*)>\s*((?:<use [^<>]*style="([^"]*)"/>\s*)+)</g>')


def _hoisted(group: re.Match[str]) -> str:
    style = f' style="{group.group(3)}"'
    if "style=" in group.group(1) or group.group(2).count(style) != group.group(2).count("<use "):
        return group.group()
    return f"<g{group.group(1)}{style}>{group.group(2).replace(style, '')}</g>"
