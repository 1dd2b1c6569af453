"""The HTML page as a document: tags, ids, policy, escapes, size."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluation_records import HOSTILE, large_record, plain, small_record
from report_pages import hostile_page, large_page, render_html, small_page

VOID = {"meta", "br", "img", "input", "link", "hr", "wbr"}


@pytest.fixture
def record():
    return small_record()


class Page(HTMLParser):
    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute is given twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


@pytest.mark.parametrize("build", [small_page, large_page])
def test_tags_balance_and_hold_what_a_reader_needs(build):
    page = Page(build())
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("svg") in (4, 5)
    assert tags.count("table") == tags.count("thead") > 10
    assert any(attrs.get("name") == "viewport" for _, attrs in page.tags)
    assert {attrs.get("scope") for tag, attrs in page.tags if tag == "th"} == {"col", "row"}
    titles = [a for t, a in page.tags if t == "title" and a.get("id")]
    for tag, attrs in page.tags:
        if tag == "svg":
            assert attrs["role"] == "img"
            assert {"id": attrs["aria-labelledby"]} in titles
        if attrs.get("role") == "region":
            assert attrs["tabindex"] == "0"
            assert attrs["aria-label"]
    assert ("pre", "era-embed --role query toy\nera-fit a b \\\n  --seed 13\n") in page.texts


def test_contents_lead_to_every_section():
    page = Page(large_page())
    sections = [a["id"] for t, a in page.tags if t == "section"]
    links = [a["href"] for t, a in page.tags if t == "a" and a.get("class") != "skip"]
    assert links == [f"#{name}" for name in sections]
    assert len(sections) == 13


@pytest.mark.parametrize("build", [small_page, large_page])
def test_ids_are_unique_and_every_reference_finds_its_target(build):
    text = build()
    ids = [attrs["id"] for _, attrs in Page(text).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', text))
    assert referred
    assert referred <= set(ids)
    # Charts keep no id that nothing refers to: they are most of the page.
    drawn = {one for one in ids if re.fullmatch(r"chart-\w+-\d+", one)}
    assert drawn <= referred


def test_no_address_but_namespaces_and_no_network():
    text = small_page()
    without = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http://" not in without
    assert "https://" not in without
    page = Page(text)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    for _, attrs in page.tags:
        assert not {"src", "srcset", "action", "background"} & set(attrs)
        assert attrs.get("href", attrs.get("xlink:href", "#"))[0] == "#"


def test_the_page_allows_its_own_script_and_no_other():
    page = Page(small_page())
    scripts = [text for tag, text in page.texts if tag == "script"]
    assert len(scripts) == [tag for tag, _ in page.tags].count("script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert f"script-src 'sha256-{digest}';" in policy


def test_the_page_is_the_same_twice_and_carries_no_date(record):
    assert small_page() == render_html(record)
    assert not re.search(r"20\d\d-\d\d-\d\d", small_page())
    assert "<metadata" not in small_page()


def test_another_process_writes_the_same_bytes(tmp_path):
    code = (
        "import hashlib; from evaluation_records import large_record; "
        "from report_pages import render_html; "
        "print(hashlib.sha256(render_html(large_record()).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ".:tests", "PYTHONHASHSEED": "5", "PATH": "", "HOME": str(tmp_path)},
    )
    here = hashlib.sha256(large_page().encode()).hexdigest()
    assert done.stdout.strip() == here


def test_charts_take_their_colours_from_the_page():
    for svg in re.findall("<svg.*?</svg>", large_page(), re.DOTALL):
        assert "currentColor" in svg
        assert "var(--s" in svg
        assert set(re.findall("(?:fill|stroke): *(#[0-9a-f]+)", svg)) == set()


def test_a_large_page_is_small_and_quick():
    record = large_record()
    assert len(record["queries"]["points"]) == 2000
    start = time.perf_counter()
    page = render_html(record)
    assert time.perf_counter() - start < 10  # 1 s where nothing else runs
    assert len(page.encode()) < 1_000_000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts_stay_texts(hostile):
    benign = Page(hostile_page(""))
    page = Page(hostile_page(hostile))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in benign.tags}
    assert [t for t, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    for place in ("h1", "th", "td", "pre", "li", "span", "p", "text"):
        assert any(hostile[:20] in text and tag == place for tag, text in page.texts), place


def test_dollar_signs_and_colour_codes_in_names_reach_the_chart_unchanged(record):
    name = "$x_1$ #010203"
    record["candidates"][3]["name"] = name
    svgs = re.findall("<svg.*?</svg>", render_html(record), re.DOTALL)
    assert f">{name}</text>" in svgs[0]


def test_names_without_a_glyph_are_drawn_without_a_warning(record):
    record["candidates"][3]["name"] = "検索\U0001f50d"
    record["curve"][2]["candidates"]["検索\U0001f50d"] = plain(0.6)
    assert render_html(record).count("検索\U0001f50d</text>") == 2


@pytest.mark.parametrize("shares", [[0.2], [0.0, 0.2]])
def test_curves_of_one_point_and_of_no_labels_are_drawn(record, shares):
    points = zip(shares, record["curve"], strict=False)
    record["curve"] = [point | {"labels": share} for share, point in points]
    assert "chart-curve-title" in render_html(record)


@pytest.mark.parametrize("points", [[], [[0.5, 0.5, 1]], [[0.0, 1.0, 10**9], [0.2, 0.1, 1]]])
def test_few_and_many_queries_at_one_place_are_drawn(record, points):
    record["queries"]["points"] = points
    assert "chart-queries-title" in render_html(record)


def test_scores_without_any_document_are_drawn(record):
    for scores in record["scores"]:
        scores["hardest"] = [0] * 80
    page = render_html(record)
    assert ">hardest negatives</text>" not in page
    assert page.count(">relevant</text>") == 2
