"""HTML reports for tests: the sample pages, rendered once, and what stands in their tables."""

from __future__ import annotations

import functools
import html
import json
import re
from typing import Any

from evaluation_records import hostile_record, large_record, small_record

from era_cache import report
from era_cache.disk.json_files import from_plain
from era_cache.evaluate.analysis import report_of
from era_cache.report.records import Report

__all__ = [
    "hostile_page",
    "large_page",
    "read",
    "record_of",
    "render_csv",
    "render_html",
    "render_latex",
    "render_markdown",
    "render_text",
    "small_page",
    "table_rows",
]


def record_of(*results: Any, **options: Any) -> dict[str, Any]:
    """What evaluation.json would hold."""
    return json.loads(json.dumps(report_of(*results, **options).plain(), allow_nan=False))


def read(record: dict[str, Any]) -> Report:
    """The report that such a dict is read as."""
    rest = {key: value for key, value in record.items() if key not in ("format", "version")}
    return from_plain(rest, Report, "evaluation.json")


def render_text(record: dict[str, Any], **options: Any) -> str:
    return report.render_text(read(record), **options)


def render_markdown(record: dict[str, Any]) -> str:
    return report.render_markdown(read(record))


def render_latex(record: dict[str, Any]) -> str:
    return report.render_latex(read(record))


def render_csv(record: dict[str, Any]) -> str:
    return report.render_csv(read(record))


def render_html(record: dict[str, Any]) -> str:
    return report.render_html(read(record))


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
