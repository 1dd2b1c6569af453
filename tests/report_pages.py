"""HTML reports for tests: the sample pages, rendered once, and what stands in their tables."""

from __future__ import annotations

import functools
import html
import re

from evaluation_records import hostile_record, large_record, small_record

from era_cache.report import render_html

__all__ = ["hostile_page", "large_page", "small_page", "table_rows"]


@functools.cache
def small_page() -> str:
    return render_html(small_record())


@functools.cache
def large_page() -> str:
    return render_html(large_record())


@functools.cache
def hostile_page(text: str) -> str:
    return render_html(hostile_record(text))


def table_rows(page: str, title: str) -> list[list[str]]:
    """The body of the first table under a heading, tags left out, minus signs as hyphens."""
    heading = re.search(f"<h[23]>{title}</h[23]>", page)
    assert heading
    body = page[heading.end() :].split("<tbody>")[1].split("</tbody>")[0]
    return [
        [
            html.unescape(re.sub("<[^>]*>", "", cell)).replace("\N{MINUS SIGN}", "-")
            for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in body.strip().splitlines()
    ]
