"""Reports as one HTML page that needs no other file and no network.

In: the evaluation dict. Out: a string in which everything from the dict is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from typing import Any

from era_cache.report.charts import figure
from era_cache.report.records import Report, read_report
from era_cache.report.tables import MARKS_LEGEND, Cell, Listing, Table, blocks_of, summary_of

__all__ = ["render_html", "render_rows_html"]

_CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--page:#fff;--line:#d5dae0;
--band:#f3f6f9;--pick:#e3f0fb;--s0:#0072b2;--s1:#c44e00;--s2:#007a5a;--s3:#a8477f;--s4:#8f6400;--s5:#5b5bd6}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a0a9b4;--page:#14181d;
--line:#3a434d;--band:#1d2329;--pick:#1b3247;--s0:#56b4e9;--s1:#ff8c42;--s2:#2fc79a;--s3:#e69ac3;--s4:#f0c045;
--s5:#a5a5ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;background:var(--page);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}
h2{font-size:1.15rem;margin:2.5rem 0 .5rem}
.lead{text-wrap:pretty;font-size:1.2rem;line-height:1.45;margin:0 0 .5rem}
.soft,caption,.detail,figcaption{color:var(--soft)}
.scroll{overflow-x:auto;margin:.5rem 0}
.scroll:focus-visible,button:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;padding-bottom:.4rem;font-size:.9rem}
caption span{display:block;max-width:calc(100vw - 2rem)}
th,td{padding:.4rem .8rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--line);vertical-align:bottom;font-weight:600}
tbody th{font-weight:400}
.numeric tbody th{white-space:nowrap}
.numeric th:first-child{position:sticky;left:0;background:var(--page)}
.numeric tr.chosen th{background:var(--pick)}
.numeric td,.numeric thead th+th{text-align:right;white-space:nowrap}
.detail{display:block;font-size:.82rem;font-weight:400}
.stars{display:inline-block;width:1.7em;text-align:left}
.best{font-weight:700;text-decoration:underline;text-underline-offset:.2em}
tr.chosen>*{background:var(--pick)}
tr.chosen th{font-weight:700}
.badge{margin-left:.5rem;padding:.05rem .45rem;border:1px solid currentColor;border-radius:1rem;
font-size:.72rem;font-weight:600}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-align:inherit;white-space:nowrap}
th button::after{content:"";display:inline-block;width:1em;text-align:right}
th[aria-sort=ascending] button::after{content:"\\2191"}
th[aria-sort=descending] button::after{content:"\\2193"}
figure{margin:.5rem 0 1rem}
figure svg{display:block;width:100%;min-width:20rem;max-width:48rem;height:auto}
svg text{font-family:inherit!important}
figcaption{font-size:.9rem}
pre{background:var(--band);padding:.8rem 1rem;overflow-x:auto;margin:.5rem 0;border-radius:.3rem;
font-size:.88rem;overflow-wrap:normal}
@media (max-width:40rem){th,td{padding:.35rem .45rem}table{font-size:.93rem}
.badge{display:block;width:fit-content;margin:0}}
@media print{body{max-width:none;padding:0;font-size:10pt}.scroll,pre{overflow:visible}
pre{white-space:pre-wrap}tr,figure{break-inside:avoid}h2{break-after:avoid}
figure svg{min-width:0;max-width:16cm}th,td{padding:.2rem .4rem}}
"""

# Sorts a column by the number in data-key, else by the text; missing values stay at the end.
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const column = head.cellIndex, old = head.getAttribute("aria-sort");
    const up = old ? old === "descending" : column === 0;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.key;
    const text = (row) => row.cells[column].textContent;
    const compare = (a, b) => {
      if (key(a) === undefined && key(b) === undefined)
        return (up ? 1 : -1) * text(a).localeCompare(text(b));
      if (key(a) === undefined || key(b) === undefined) return key(a) === undefined ? 1 : -1;
      return (up ? 1 : -1) * (key(a) - key(b));
    };
    body.append(...[...body.rows].sort(compare));
  });
}
"""


def render_html(result: Mapping[str, Any]) -> str:
    """Render a result as one HTML page that needs no other file and no network.

    Args:
        result: An evaluation result, format "era-evaluation", version 1.

    Returns:
        An HTML document with inline style, script and SVG; the same input gives the same text.

    Raises:
        FormatError: ``result`` is not such a dict, or is damaged.
    """
    report = read_report(result)
    return _page(
        f"Evaluation on {report.collection}",
        [summary_of(report), report.choice_reason],
        [_html_section(block, report) for block in blocks_of(report)],
    )


def render_rows_html(title: str, lead: Sequence[str], table: Table) -> str:
    """Render one table as such a page, its columns to be sorted.

    Args:
        title: Of the page.
        lead: Sentences above the table, the first one larger.
        table: The rows.
    """
    return _page(title, lead, [f"<section>\n{_html_table(table, '')}\n</section>"])


def _page(title: str, lead: Sequence[str], sections: Sequence[str]) -> str:
    title = html.escape(title)
    script_hash = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )
    first, *others = (html.escape(sentence) for sentence in lead)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title>",
            f"<style>{_CSS}</style>",
            "</head>",
            "<body>",
            f"<header><h1>{title}</h1>",
            f'<p class="lead">{first}</p>',
            "\n".join(f'<p class="soft">{sentence}</p>' for sentence in others) + "</header>",
            "<main>",
            *sections,
            "</main>",
            f"<script>{_SCRIPT}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _html_section(block: Table | Listing, report: Report) -> str:
    parts = [f"<section>\n<h2>{html.escape(block.title)}</h2>"]
    if isinstance(block, Listing):
        tag = "<pre>{}</pre>" if block.code else "<ul>{}</ul>"
        form = "{}\n" if block.code else "<li>{}</li>"
        parts.append(tag.format("".join(form.format(html.escape(item)) for item in block.items)))
    else:
        if block.chart:
            parts.append(figure(block, report))
        parts.append(_html_table(block, report.chosen))
        if block.marked:
            legend = f"Underlined: best of its column. {MARKS_LEGEND}"
            parts.append(f'<p class="soft">{html.escape(legend)}</p>')
    return "\n".join([*parts, "</section>"])


def _html_table(table: Table, chosen: str) -> str:
    def cell_of(cell: Cell, tag: str, attributes: str, badge: str = "") -> str:
        text = html.escape(cell.text)
        if cell.best:
            text = f'<span class="best">{text}</span>'
        if tag == "th" and "col" in attributes and table.numeric:
            text = f'<button type="button">{text}</button>'
        detail = f' <span class="detail">{html.escape(cell.detail)}</span>' if cell.detail else ""
        if cell.detail and "col" not in attributes and table.numeric:
            text += f'<span class="stars">{cell.stars}</span>'
        key = "" if cell.key is None or "col" in attributes else f' data-key="{cell.key!r}"'
        return f"<{tag}{attributes}{key}>{text}{badge}{detail}</{tag}>"

    head = "".join(cell_of(cell, "th", ' scope="col"') for cell in table.head)
    rows = []
    for first, *others in table.rows:
        is_chosen = table.numeric and first.text == chosen
        badge = ' <span class="badge">chosen</span>' if is_chosen else ""
        cells = [cell_of(first, "th", ' scope="row"', badge)]
        cells += [cell_of(cell, "td", "") for cell in others]
        opening = '<tr class="chosen">' if is_chosen else "<tr>"
        rows.append(f"{opening}{''.join(cells)}</tr>")
    sorts = ' class="numeric"' if table.numeric else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(table.title)}">\n'
        f"<table{sorts}>\n"
        f"<caption><span>{html.escape(table.caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        "<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>\n</div>"
    )
