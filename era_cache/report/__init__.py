"""Show one evaluation result to people: as text, Markdown, CSV or one self-contained HTML page.

In comes the plain dict that an evaluation stores as JSON (format "era-evaluation", version 1);
out goes a string. All its names are untrusted: they are cleaned once, when the dict is read
(``records``), and escaped for the target by each renderer. Text, Markdown and HTML walk the same
list of blocks (``tables``), and these and the CSV take their numbers from the same records.
"""

from __future__ import annotations

from era_cache.report.page import render_html
from era_cache.report.text import render_csv, render_markdown, render_text

__all__ = ["render_csv", "render_html", "render_markdown", "render_text"]
