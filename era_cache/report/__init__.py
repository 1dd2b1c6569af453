"""Show one evaluation record to people: as text, Markdown, LaTeX, CSV or one HTML page.

In comes the plain dict that an evaluation stores as JSON (format "era-evaluation", version 2);
out goes a string. All its texts are untrusted: they are cleaned once, when the dict is read
(``parsing``), and escaped for the target by each renderer. Text, Markdown, LaTeX and HTML walk the
same sections (``blocks``), and these and the CSV take their numbers from the same records.
"""

from __future__ import annotations

from era_cache.report.latex import render_latex
from era_cache.report.long_csv import render_csv
from era_cache.report.markdown import render_markdown
from era_cache.report.page import render_html
from era_cache.report.text import render_text

__all__ = ["render_csv", "render_html", "render_latex", "render_markdown", "render_text"]
