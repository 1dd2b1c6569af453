"""Reports as one HTML page that needs no other file and no network.

In: a ``Report``. Out: a string in which everything from the report is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from era_cache.report.blocks import lead_of, sections_of
from era_cache.report.charts import figure
from era_cache.report.page_files import packaged, policy_hash, render_page
from era_cache.report.records import Report, cleaned
from era_cache.report.rows_html import table_html
from era_cache.report.tables import Listing, Section, Table

__all__ = ["render_html", "render_rows_html"]

_PACKAGE = "era_cache.report"
_FEW_SECTIONS = 4
"""Pages with more sections than these get a list of contents."""


def render_html(report: Report) -> str:
    """Render a record as one HTML page that needs no other file and no network.

    Args:
        report: what an analysis found.

    Returns:
        An HTML document with inline style, script and SVG; the same input gives the same text.

    Raises:
        FormatError: its texts or numbers are damaged.
    """
    report = cleaned(report)
    sections = sections_of(report)
    contents = sections if len(sections) > _FEW_SECTIONS else []
    body = [_section(section, report) for section in sections]
    return _page(report.title, lead_of(report), body, contents)


def render_rows_html(title: str, lead: Sequence[str], table: Table, picture: str = "") -> str:
    """Render one table as such a page, its columns to be sorted.

    Args:
        title: Of the page.
        lead: Sentences above the table, the first one larger.
        table: The rows.
        picture: An ``svg`` element from ``draw_svg`` above them.
    """
    drawn = f"<figure>\n{picture}\n</figure>\n" if picture else ""
    return _page(title, lead, [f"<section>\n{drawn}{table_html(table)}\n</section>"], [])


def _page(
    title: str, lead: Sequence[str], sections: Sequence[str], contents: Sequence[Section]
) -> str:
    from markupsafe import Markup

    style, script = packaged(_PACKAGE, "report.css"), packaged(_PACKAGE, "report.js")
    return render_page(
        _PACKAGE,
        "report.html",
        title=title,
        lead=lead,
        contents=contents,
        # What is ours, and what each section has escaped itself.
        sections=[Markup(section) for section in sections],  # noqa: S704
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=Markup(policy_hash(script)),  # noqa: S704
    )


def _section(section: Section, report: Report) -> str:
    parts = [f'<section id="{section.name}">\n<h2>{html.escape(section.title)}</h2>']
    for block in section.blocks:
        title = html.escape(block.title)
        folded = isinstance(block, Table) and block.folded
        if block.title != section.title and not folded:
            parts.append(f"<h3>{title}</h3>")
        if isinstance(block, Listing):
            parts.append(_listing(block))
            continue
        parts.append(figure(block, report))
        shown = table_html(block, report.chosen)
        if folded:
            title = "The numbers of the chart" if block.title == section.title else title
            shown = f"<details>\n<summary>{title}</summary>\n{shown}\n</details>"
        parts.append(shown)
    return "\n".join([*(part for part in parts if part), "</section>"])


def _listing(block: Listing) -> str:
    if block.code:
        text = "".join(f"{html.escape(item)}\n" for item in block.items)
        return f'<div class="code"><pre tabindex="0">{text}</pre></div>'
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in block.items)}</ul>"
