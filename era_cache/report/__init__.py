"""Show one evaluation record to people: as text, Markdown, LaTeX, CSV or one HTML page.

In: the record that an evaluation stores as JSON. Out: strings; all its texts are untrusted, cleaned
once when it is read and escaped for the target by each renderer.
"""

from __future__ import annotations

from era_cache.report.latex import render_latex, render_latex_table
from era_cache.report.long_csv import render_csv
from era_cache.report.markdown import render_markdown
from era_cache.report.page import render_html
from era_cache.report.text import render_text

__all__ = [
    "render_csv",
    "render_html",
    "render_latex",
    "render_latex_table",
    "render_markdown",
    "render_text",
]
