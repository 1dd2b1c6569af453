"""The report in a real browser: quiet, sorted, readable on screen, phone and paper, by keyboard."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

import pytest
from evaluation_records import HOSTILE, large_record, small_record
from report_pages import hostile_page, large_page, small_page

from era_cache.report.page import render_rows_html
from era_cache.report.tables import Cell, Table

PHONE = {"viewport": {"width": 390, "height": 844}}
A4 = {"viewport": {"width": 688, "height": 1000}}  # the sheet without its margins, at 96 dpi
HOSTILE_ALL = " ".join(HOSTILE)


def hostile() -> str:
    return hostile_page(HOSTILE_ALL)


def open_report(watch, tmp_path, text, **options):
    """The page of a report from a file, and what went wrong on it."""
    path = tmp_path / "report.html"
    path.write_text(text, "utf-8")
    seen = watch(**options)
    seen.page.goto(path.as_uri())
    return seen


@pytest.mark.parametrize("build", [small_page, large_page, hostile])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_asks_for_nothing_and_complains_of_nothing(watch, tmp_path, build, scheme):
    dialogs = []
    seen = open_report(watch, tmp_path, build(), color_scheme=scheme)
    seen.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    seen.page.evaluate("document.querySelectorAll('button, summary').forEach(one => one.click())")
    seen.page.wait_for_timeout(100)
    assert dialogs == []
    assert seen.errors == []
    assert seen.requests == [(tmp_path / "report.html").as_uri()]
    assert seen.page.evaluate("document.images.length + document.scripts.length") == 1


# Sorting and filtering

SORT_ALL = """() => {
  const found = [];
  for (const table of document.querySelectorAll("table.numeric")) {
    const heads = [...table.tHead.rows[0].cells];
    for (const head of heads) {
      for (const click of [1, 2]) {
        head.querySelector("button").click();
        const cells = [...table.tBodies[0].rows].map(row => row.cells[head.cellIndex]);
        found.push({
          name: head.textContent, order: head.getAttribute("aria-sort"),
          others: heads.filter(other => other !== head && other.hasAttribute("aria-sort")).length,
          values: cells.map(cell => cell.dataset.key ?? null),
          texts: cells.map(cell => cell.textContent),
          last: table.tFoot ? table.rows[table.rows.length - 1].parentElement.tagName : "TFOOT",
        });
      }
    }
  }
  return found;
}"""


def test_every_column_sorts_up_and_down(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page())
    found = seen.page.evaluate(SORT_ALL)
    assert len(found) > 2 * 80
    for column in found:
        down = column["order"] == "descending"
        numbers = [float(value) for value in column["values"] if value is not None]
        if numbers:
            # Missing values stay at the end, whatever the order.
            missing = [None] * (len(column["values"]) - len(numbers))
            shown = [None if value is None else float(value) for value in column["values"]]
            assert shown == [*sorted(numbers, reverse=down), *missing], column["name"]
        else:
            assert column["texts"] == sorted(column["texts"], reverse=down), column["name"]
        assert column["others"] == 0
        assert column["last"] == "TFOOT"
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert {first["order"], second["order"]} == {"ascending", "descending"}
    names = {column["name"]: column["order"] for column in found[::2]}
    assert names["collection"] == names["p (Holm)"] == "ascending"
    assert names["difference"] == names["nDCG@10"] == "descending"


def test_a_filter_keeps_the_rows_that_hold_its_words(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page())
    assert seen.page.get_by_role("searchbox").count() == 3  # gains, means, collections
    box = seen.page.get_by_role("searchbox", name="Filter collections").first
    box.fill("  LEGAL ")
    rows = seen.page.locator("#gains tbody tr")
    legal = [c for c in large_record()["collections"] if c["domain"] == "legal"]
    assert rows.count() == 20
    assert seen.page.locator("#gains tbody tr:visible").count() == len(legal) == 4
    assert seen.page.locator("#gains output").inner_text() == "4 of 20"
    seen.page.locator("#gains th button").first.click()
    assert seen.page.locator("#gains tbody tr:visible").count() == 4
    box.fill("")
    assert seen.page.locator("#gains tbody tr:visible").count() == 20
    assert seen.page.locator("#gains output").inner_text() == ""


def test_few_rows_get_no_filter_and_few_sections_no_contents(watch, tmp_path):
    seen = open_report(watch, tmp_path, small_page())
    assert seen.page.get_by_role("searchbox").count() == 0
    assert seen.page.get_by_role("navigation", name="Contents").count() == 1


# Keyboard


def test_the_keyboard_alone_reaches_skips_and_sorts(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page())
    page = seen.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the tables"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    kinds = []
    for _ in range(4):
        page.keyboard.press("Tab")
        kinds.append(page.evaluate("document.activeElement.tagName"))
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style not in ("none", "")
    assert kinds == ["DIV", "BUTTON", "BUTTON", "BUTTON"]  # the region, then its columns
    head = page.locator("#candidates th").nth(2)
    assert head.get_attribute("aria-sort") is None
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("#candidates tbody th").first.inner_text() == "large"
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.locator("#candidates tbody th").first.inner_text() == "small"


def test_contents_and_folded_tables_work_by_keyboard(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page())
    link = seen.page.get_by_role("link", name="Scores before and after")
    link.focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("location.hash") == "#scores"
    assert seen.page.evaluate(
        "Math.abs(document.querySelector('#scores').getBoundingClientRect().top) < 200"
    )
    table = seen.page.locator("#scores table")
    assert not table.is_visible()
    seen.page.locator("#scores summary").focus()
    seen.page.keyboard.press("Enter")
    assert table.is_visible()


# Copying


def test_commands_are_copied_exactly(watch, tmp_path):
    seen = open_report(watch, tmp_path, small_page())
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = seen.page.get_by_role("button", name="Copy")
    button.click()
    seen.page.get_by_role("button", name="Copied").wait_for()
    copied = seen.page.evaluate("navigator.clipboard.readText()")
    assert copied == "\n".join(small_record()["commands"]) + "\n"


@pytest.mark.parametrize(("works", "says"), [(True, "Copied"), (False, "Selected: press Ctrl+C")])
def test_without_a_clipboard_the_commands_are_selected(watch, tmp_path, works, says):
    path = tmp_path / "report.html"
    path.write_text(small_page(), "utf-8")
    seen = watch()
    seen.page.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
        f"document.execCommand = () => {str(works).lower()};"
    )
    seen.page.goto(path.as_uri())
    seen.page.locator(".copy").click()
    seen.page.get_by_role("button", name=says).wait_for()
    selected = seen.page.evaluate("getSelection().toString()")
    assert selected.strip() == "\n".join(small_record()["commands"])
    assert seen.errors == []


# Charts

CHARTS = """() => [...document.querySelectorAll("svg")].map(svg => {
  const box = svg.getBoundingClientRect();
  const drawn = [...svg.querySelectorAll("path, use")].map(one => one.getBoundingClientRect());
  return {
    title: svg.querySelector("title").textContent,
    box: [box.width, box.height],
    drawn: drawn.filter(one => one.width + one.height > 2).length,
    texts: [...svg.querySelectorAll("text")].map(one => {
      const text = one.getBoundingClientRect();
      return [one.textContent, text.left - box.left, text.top - box.top,
              text.right - box.left, text.bottom - box.top];
    }),
  };
})"""


@pytest.mark.parametrize(("build", "charts"), [(small_page, 4), (large_page, 5), (hostile, 5)])
def test_charts_are_drawn_and_no_label_is_cut_or_covered(watch, tmp_path, build, charts):
    seen = open_report(watch, tmp_path, build(), viewport={"width": 1280, "height": 900})
    found = seen.page.evaluate(CHARTS)
    assert len(found) == charts
    for chart in found:
        width, height = chart["box"]
        assert width > 600
        assert height > 100
        assert chart["drawn"] > 10
        texts = chart["texts"]
        assert len(texts) > 6
        for text, left, top, right, bottom in texts:
            assert right > left, text
            assert left >= -1, text
            assert top >= -1, text
            assert right <= width + 1, text
            assert bottom <= height + 1, text
        for i, (text, left, top, right, bottom) in enumerate(texts):
            for other, left2, top2, right2, bottom2 in texts[:i]:
                wide = min(right, right2) - max(left, left2)
                high = min(bottom, bottom2) - max(top, top2)
                # Lines of text may share the room above and below their letters.
                assert wide < 2 or high < 5, (text, other)


def test_a_chart_of_queries_draws_each_of_its_points(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page())
    uses = seen.page.locator("#queries svg use").count()
    assert 2000 <= uses < 2050  # and ticks


# Colours

CONTRAST = r"""() => {
  // A colour painted on black and on white says its red, green, blue and opacity.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    const on = (ground) => {
      canvas.fillStyle = ground; canvas.fillRect(0, 0, 1, 1);
      canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const black = on("#000"), white = on("#fff");
    return {color: black, alpha: 1 - (white[0] - black[0]) / 255};
  };
  const light = (color) => {
    const [r, g, b] = color.map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const found = rgba(getComputedStyle(one).backgroundColor);
      if (found.alpha > 0.99) return found.color;
    }
    return [255, 255, 255];
  };
  const worst = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (["SCRIPT", "STYLE", "title"].includes(one.tagName)) continue;
    if (!walker.currentNode.data.trim()) continue;
    const style = getComputedStyle(one);
    const ink = one.tagName === "text" ? style.fill : style.color;
    const [a, b] = [light(rgba(ink).color), light(ground(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${one.tagName} ${one.className.baseVal ?? one.className} ${ink}`;
    worst[name] = Math.min(worst[name] ?? 99, ratio);
  }
  return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(watch, tmp_path, scheme):
    seen = open_report(watch, tmp_path, large_page(), color_scheme=scheme)
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = seen.page.evaluate(CONTRAST)
    assert len(found) > 20
    assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}


def test_dark_and_light_differ_and_paper_is_light(watch, tmp_path):
    ground = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('svg text')).fill"
    found = {}
    for scheme in ("light", "dark"):
        page = open_report(watch, tmp_path, small_page(), color_scheme=scheme).page
        found[scheme] = (page.evaluate(ground), page.evaluate(label))
    page.emulate_media(media="print")
    found["print"] = (page.evaluate(ground), page.evaluate(label))
    assert found["light"] == found["print"]
    assert found["light"][0] == "rgb(255, 255, 255)"
    assert found["light"][0] != found["dark"][0]
    assert found["light"][1] != found["dark"][1]


def test_heat_is_not_told_by_colour_alone(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page())
    cells = seen.page.evaluate(
        "[...document.querySelectorAll('.heat tbody td')].map(cell => "
        "[cell.className, cell.querySelector('.detail').textContent, "
        "getComputedStyle(cell).backgroundColor])"
    )
    assert len(cells) == 400
    assert len({color for _, _, color in cells}) > 5
    for name, detail, _ in cells:
        if name:
            assert detail[0] == ("+" if name.startswith("up") else "\N{MINUS SIGN}")


# Paper and phone


@pytest.mark.parametrize("build", [small_page, large_page, hostile])
def test_no_table_is_cut_on_paper_and_all_but_the_set_up_is_open(watch, tmp_path, build):
    seen = open_report(watch, tmp_path, build(), **A4)
    seen.page.emulate_media(media="print")
    wide = seen.page.evaluate(
        "[...document.querySelectorAll('.scroll, pre')]"
        ".filter(one => one.scrollWidth > one.clientWidth)"
        ".map(one => [one.getAttribute('aria-label'), one.scrollWidth, one.clientWidth])"
    )
    assert wide == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 688
    closed = seen.page.locator("details:not([open]) > summary").all_inner_texts()
    assert closed == ["Inputs", "Configuration", "Environment"]
    assert seen.page.locator("details table").first.is_visible()
    for hidden in (".copy", "nav", ".filter", ".skip"):
        assert not any(one.is_visible() for one in seen.page.locator(hidden).all())
    seen.page.emulate_media(media="screen")
    # The page's own policy forbids what playwright waits with.
    end = time.monotonic() + 10
    while seen.page.locator("details[open]").count() and time.monotonic() < end:
        time.sleep(0.05)
    assert seen.page.locator("details[open]").count() == 0


def pdf_text(seen, tmp_path):
    """The words of the page as printed, sheet by sheet."""
    paper = seen.page.pdf(prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on the PATH")
    (tmp_path / "report.pdf").write_bytes(paper)
    command = ["pdftotext", "-layout", tmp_path / "report.pdf", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_printing_shows_every_collection(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page(), color_scheme="dark")
    text = pdf_text(seen, tmp_path)
    assert seen.errors == []
    assert 5 <= text.count("\f") <= 20
    for name in (c["name"] for c in large_record()["collections"]):
        assert text.count(name) >= 5


def test_a_table_that_goes_on_over_a_page_says_again_what_its_columns_are(watch, tmp_path):
    rows = tuple((Cell(f"row-{i}"), Cell(str(i), key=float(i))) for i in range(150))
    table = Table("Many", "rows", (Cell("name"), Cell("amount")), rows)
    seen = open_report(watch, tmp_path, render_rows_html("Many", ["Rows."], table))
    pages = pdf_text(seen, tmp_path).split("\f")[:-1]
    assert len(pages) >= 3
    for page in pages:
        assert len(re.findall(r"name +amount", page)) == 1


@pytest.mark.parametrize("build", [small_page, large_page, hostile])
def test_a_phone_scrolls_tables_and_never_the_page(watch, tmp_path, build):
    seen = open_report(watch, tmp_path, build(), **PHONE)
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    outside = seen.page.evaluate(
        "[...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, pre') && "
        "one.getBoundingClientRect().right > 391).map(one => one.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_the_first_column_stays_while_a_table_scrolls(watch, tmp_path):
    seen = open_report(watch, tmp_path, large_page(), **PHONE)
    region = seen.page.locator("#gains .scroll", has=seen.page.locator("table"))
    head = region.locator("tbody th").first
    before = head.bounding_box()["x"]
    region.evaluate("one => { one.scrollLeft = 250; }")
    assert region.evaluate("one => one.scrollLeft") == 250
    assert head.bounding_box()["x"] == pytest.approx(before, abs=1)
    assert head.bounding_box()["width"] < 0.5 * 390
    assert seen.page.evaluate("document.documentElement.scrollLeft") == 0
