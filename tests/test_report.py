from __future__ import annotations

import base64
import copy
import csv
import hashlib
import html
import io
import itertools
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.errors import FormatError
from era_cache.report import charts, render_csv, render_html, render_markdown, render_text
from era_cache.report.records import Estimate

RENDERERS = [render_text, render_markdown, render_csv, render_html]
VOID = {"meta", "br", "img", "input", "link", "hr"}
HOSTILE = [
    '<script>alert("x")</script>',
    "\"><img src=x onerror='alert(1)'>",
    "--></style></title></pre><b>",
    '$\\frac{broken$ &amp; #010203 id="a"',
]


def compared(mean, difference, p, p_holm):
    return {
        "mean": mean,
        "low": mean - 0.018,
        "high": mean + 0.018,
        "difference": difference,
        "difference_low": difference - 0.013,
        "difference_high": difference + 0.014,
        "p": p,
        "p_holm": p_holm,
    }


def plain(mean):
    return {"mean": mean, "low": mean - 0.018, "high": mean + 0.018}


@pytest.fixture
def result():
    return {
        "format": "era-evaluation",
        "version": 1,
        "collection": {
            "name": "fiqa",
            "version": "a1b2c3d4e5f6",
            "documents": 57638,
            "queries": 6648,
            "domain": "finance",
        },
        "split": {"seed": 13, "labels": 0.2, "train": 476, "validation": 120, "test": 1190},
        "encoders": {"query": "small-en (d41c7b20aa11)", "document": "large-en (3f9c0e1a77bc)"},
        "measures": ["nDCG@10", "R@100"],
        "primary": "nDCG@10",
        "chosen": "era-dual",
        "choice_reason": "Best nDCG@10 on the validation queries.",
        "candidates": [
            {
                "name": "small",
                "kind": "the small encoder in its own index",
                "validation": 0.5284,
                "measures": {"nDCG@10": plain(0.5302), "R@100": plain(0.7811)},
            },
            {
                "name": "linear",
                "kind": "ridge map",
                "validation": 0.5342,
                "measures": {
                    "nDCG@10": compared(0.5364, 0.0062, 0.07, 0.21),
                    "R@100": compared(0.7932, 0.0121, 0.01, 0.03),
                },
            },
            {
                "name": "era-dual",
                "kind": "two-headed adapter",
                "validation": 0.6113,
                "measures": {
                    "nDCG@10": compared(0.6073, 0.0771, 0.0001, 0.0003),
                    "R@100": compared(0.8574, 0.0763, 0.0001, 0.0003),
                },
            },
            {
                "name": "large",
                "kind": "the large encoder in the served index",
                "validation": None,
                "measures": {
                    "nDCG@10": compared(0.6411, 0.1109, 0.0001, 0.0003),
                    "R@100": compared(0.8911, 0.1100, 0.0001, 0.0003),
                },
            },
        ],
        "curve": [
            {
                "labels": share,
                "train": train,
                "candidates": {"small": plain(0.5302), "era-dual": plain(mean)},
            }
            for share, train, mean in [(0.05, 119, 0.5555), (0.1, 238, 0.5816), (0.2, 476, 0.6073)]
        ],
        "costs": [{"what": "era-fit", "value": "7.1 s"}],
        "commands": ["era-embed --role query toy", "era-fit a b \\\n  --seed 13"],
        "notes": ["Two test queries score 0."],
        "environment": {"era_cache": "0.1.0", "torch": "2.6.0"},
    }


@pytest.fixture
def minimal(result):
    for key in ("curve", "costs", "commands", "notes", "environment"):
        del result[key]
    for candidate in result["candidates"]:
        for measure, estimate in candidate["measures"].items():
            candidate["measures"][measure] = plain(estimate["mean"])
    return result


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


def table_rows(page, title):
    section = next(part for part in page.split("<section>") if f"<h2>{title}</h2>" in part)
    body = re.search("<tbody>(.*?)</tbody>", section, re.DOTALL).group(1)
    return [
        [
            html.unescape(re.sub("<[^>]*>", "", cell))
            for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in body.strip().splitlines()
    ]


def csv_records(result):
    return list(csv.DictReader(io.StringIO(render_csv(result))))


def test_summary_names_choice_interval_queries_difference_and_p(result):
    expected = (
        "era-dual reaches nDCG@10 0.607 [0.589, 0.625] on 1,190 test queries: "
        "+7.7 points over small (p < 0.001)."
    )
    assert expected in " ".join(render_text(result).split())
    assert html.escape(expected) in render_html(result)
    assert expected.replace("<", "&lt;").replace("[", "\\[").replace("]", "\\]") in render_markdown(
        result
    )


def test_summary_says_when_a_difference_is_not_significant(result):
    result["chosen"] = "linear"
    text = " ".join(render_text(result).split())
    assert "+0.6 points over small (p = 0.210), not a significant difference." in text


def test_summary_reports_a_loss_as_a_loss(result):
    result["candidates"][2]["measures"]["nDCG@10"] = compared(0.5002, -0.03, 0.02, None)
    text = " ".join(render_text(result).split())
    assert "-3.0 points against small (p = 0.020)." in text


def test_summary_does_not_compare_the_baseline_with_itself(result):
    result["chosen"] = "small"
    text = " ".join(render_text(result).split())
    assert text.startswith("small reaches nDCG@10 0.530 [0.512, 0.548] on 1,190 test queries. Best")


def test_csv_keeps_the_full_precision_of_every_number(result):
    records = csv_records(result)
    expected = {
        (candidate["name"], measure): estimate
        for candidate in result["candidates"]
        for measure, estimate in candidate["measures"].items()
    }
    assert len(records) == len(expected) == 8
    for record in records:
        estimate = expected[record["candidate"], record["measure"]]
        for key in Estimate._fields:
            value = estimate.get(key)
            assert record[key] == ("" if value is None else repr(value)), key
    assert [r["candidate"] for r in records if r["chosen"] == "yes"] == ["era-dual"] * 2


def test_every_format_shows_the_same_numbers_of_every_candidate(result):
    markdown, text = (
        render_markdown(result).replace("\\", "").replace("**0", "0"),
        render_text(result),
    )
    rows = {
        row[0].removesuffix(" chosen"): row for row in table_rows(render_html(result), "Candidates")
    }
    text_lines = text[text.index("CANDIDATES") :].splitlines()
    assert list(rows) == [candidate["name"] for candidate in result["candidates"]]
    for record in csv_records(result):
        column = 2 + ["nDCG@10", "R@100"].index(record["measure"])
        mean, low, high = (f"{float(record[key]):.3f}" for key in ("mean", "low", "high"))
        assert rows[record["candidate"]][column].startswith(mean)
        assert rows[record["candidate"]][column].endswith(f" [{low}, {high}]")
        markdown_row = next(
            line for line in markdown.splitlines() if line.startswith(f"| {record['candidate']} ")
        )
        assert mean in markdown_row.split("|")[column + 1]
        assert f"[{low}, {high}]" in markdown_row.split("|")[column + 1]
        start = next(
            i for i, line in enumerate(text_lines) if line[2:].split(" ")[0] == record["candidate"]
        )
        assert mean in text_lines[start].split()[column + (record["chosen"] == "yes")]
        assert f"[{low}, {high}]" in text_lines[start + 1]


def test_marks_follow_the_corrected_p(result):
    rows = {row[0]: row for row in table_rows(render_html(result), "Candidates")}
    assert rows["linear"][2] == "0.536 [0.518, 0.554]"
    assert rows["linear"][3] == "0.793* [0.775, 0.811]"
    assert rows["large"][2] == "0.641*** [0.623, 0.659]"
    assert rows["small"][2] == "0.530 [0.512, 0.548]"


def test_marks_follow_the_plain_p_where_none_is_corrected(result):
    result["candidates"][1]["measures"]["nDCG@10"] = compared(0.5364, 0.0062, 0.004, None)
    rows = {row[0]: row for row in table_rows(render_html(result), "Candidates")}
    assert rows["linear"][2] == "0.536** [0.518, 0.554]"


def test_best_of_each_column_is_marked_and_no_other(result):
    marked = re.findall('<span class="best">(.*?)</span>', render_html(result))
    assert sorted(marked) == ["0.611", "0.641", "0.891"]


def test_values_that_print_alike_are_both_best(result):
    result["candidates"][2]["measures"]["nDCG@10"] = compared(0.64105, 0.1108, 0.0001, 0.0003)
    marked = re.findall('<span class="best">(.*?)</span>', render_html(result))
    assert marked.count("0.641") == 2


def test_only_the_chosen_row_is_marked(result):
    text = render_text(result)
    candidates = text[text.index("CANDIDATES") : text.index("> chosen.")]
    marked = [line.split()[1] for line in candidates.splitlines() if line.startswith("> ")]
    assert marked == ["era-dual"]
    first_table = render_html(result).split("</table>")[0]
    assert re.findall('<tr class="chosen"><th scope="row">(.*?) <', first_table) == ["era-dual"]
    assert "| era-dual (chosen) |" in render_markdown(result)


def test_difference_table_shows_difference_interval_and_both_p(result):
    assert table_rows(render_html(result), "Differences from small") == [
        ["linear", "+0.006 [-0.007, +0.020]", "0.070", "0.210"],
        ["era-dual chosen", "+0.077*** [+0.064, +0.091]", "< 0.001", "< 0.001"],
        ["large", "+0.111*** [+0.098, +0.125]", "< 0.001", "< 0.001"],
    ]


def test_curve_table_shows_every_share_and_a_gap_where_a_candidate_is_missing(result):
    del result["curve"][0]["candidates"]["era-dual"]
    result["curve"].reverse()
    page = render_html(result)
    assert table_rows(page, "Label efficiency")[1] == [
        "era-dual chosen",
        "-",
        "0.582 [0.564, 0.600]",
        "0.607 [0.589, 0.625]",
    ]
    assert page.index("119 queries") < page.index("238 queries") < page.index("476 queries")


def test_text_is_aligned_and_fits_the_terminal(result):
    text = render_text(result)
    assert max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("  candidate  held-out"))
    intervals = [line for line in lines if line.strip().startswith("[0.512, 0.548]  [0.763")]
    assert len(intervals) == 1
    assert len(head) == len(intervals[0])


def test_text_tables_too_wide_continue_below_themselves(result):
    result["measures"] = [f"nDCG@{k}" for k in range(10, 20)]
    for candidate in result["candidates"]:
        candidate["measures"] = dict.fromkeys(result["measures"], plain(0.5))
    text = render_text(result)
    assert max(map(len, text.splitlines())) <= 100
    # 10 + 12 columns, then 16 for each measure: 4 fit the first part, 5 the second, 1 is left.
    parts = text[text.index("CANDIDATES") : text.index("> chosen.")]
    heads = [line.split() for line in parts.splitlines() if line.startswith("  candidate")]
    assert [len(head) for head in heads] == [2 + 4, 1 + 5, 1 + 1]
    assert all(measure in text for measure in result["measures"])


def test_html_tags_balance_and_hold_what_a_reader_needs(result):
    page = Page(render_html(result))
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("svg") == 2
    assert tags.count("table") == tags.count("caption") == tags.count("thead") == 7
    assert any(attrs.get("name") == "viewport" for _, attrs in page.tags)
    assert {attrs.get("scope") for tag, attrs in page.tags if tag == "th"} == {"col", "row"}
    for tag, attrs in page.tags:
        if tag == "svg":
            titles = [a for t, a in page.tags if t == "title" and a.get("id")]
            assert attrs["role"] == "img"
            assert {"id": attrs["aria-labelledby"]} in titles
    assert ("pre", "era-embed --role query toy\nera-fit a b \\\n  --seed 13\n") in page.texts


def test_html_ids_are_unique_and_every_reference_finds_its_target(result):
    text = render_html(result)
    ids = [attrs["id"] for _, attrs in Page(text).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert referred
    assert referred <= set(ids)


def test_html_has_no_address_but_namespaces_and_forbids_the_network(result):
    text = render_html(result)
    without = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http://" not in without
    assert "https://" not in without
    page = Page(text)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    for _, attrs in page.tags:
        assert not {"src", "srcset", "action", "background"} & set(attrs)
        assert attrs.get("href", attrs.get("xlink:href", "#"))[0] == "#"


def test_html_allows_its_own_script_and_no_other(result):
    page = Page(render_html(result))
    scripts = [text for tag, text in page.texts if tag == "script"]
    assert len(scripts) == [tag for tag, _ in page.tags].count("script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert f"script-src 'sha256-{digest}';" in policy


def test_html_is_the_same_twice_and_carries_no_date(result):
    assert render_html(result) == render_html(copy.deepcopy(result))
    assert not re.search(r"20\d\d-\d\d-\d\d", render_html(result))
    assert "<metadata" not in render_html(result)


def test_charts_take_their_colours_from_the_page(result):
    for svg in re.findall("<svg.*?</svg>", render_html(result), re.DOTALL):
        assert "currentColor" in svg
        assert "var(--s" in svg
        colours = set(re.findall("(?:fill|stroke): *(#[0-9a-f]+)", svg))
        assert colours == set()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts_stay_texts(result, hostile):
    def spoil(value):
        if isinstance(value, dict):
            return {k if k in fixed else hostile + k: spoil(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        return hostile + value if isinstance(value, str) else value

    benign = Page(render_html(result))
    fixed = {
        key for key in json_keys(result) if key not in ("nDCG@10", "R@100", "small", "era-dual")
    }
    fixed -= {"torch"}
    spoiled = spoil(result) | {"format": "era-evaluation"}
    page = Page(render_html(spoiled))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in benign.tags}
    assert [t for t, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert any(hostile in text and tag == "th" for tag, text in page.texts)
    assert any(hostile in text and tag == "pre" for tag, text in page.texts)
    for part in render_markdown(spoiled).split("```")[::2]:
        assert "<" not in part


def json_keys(value):
    if isinstance(value, dict):
        return set(value).union(*map(json_keys, value.values()))
    return set().union(*map(json_keys, value)) if isinstance(value, list) else set()


def test_dollar_signs_and_colour_codes_in_names_reach_the_chart_unchanged(result):
    name = "$x_1$ #010203"
    result["candidates"][3]["name"] = name
    svgs = re.findall("<svg.*?</svg>", render_html(result), re.DOTALL)
    assert f">{name}</text>" in svgs[1]


def test_names_without_a_glyph_are_drawn_without_a_warning(result):
    result["candidates"][3]["name"] = "検索\U0001f50d"
    result["curve"][2]["candidates"]["検索\U0001f50d"] = plain(0.6)
    assert render_html(result).count("検索\U0001f50d</text>") == 2


@pytest.mark.parametrize("render", RENDERERS)
def test_control_characters_never_reach_the_output(result, render):
    result["candidates"][0]["kind"] = "a\x1b[31mred\u202eder\x00 \ud800"
    result["commands"] = ["era-fit \x1b[2J"]
    result["notes"] = ["x\u2028y\x07"]
    out = render(result)
    out.encode()
    assert not set(out) & set("\x1b\x00\x07\u202e\u2028\ud800")


def test_csv_texts_cannot_become_formulas(result):
    result["candidates"][1]["name"] = '=HYPERLINK("x")'
    result["candidates"][1]["kind"] = "@SUM(A1)"
    record = csv_records(result)[2]
    assert (record["candidate"], record["kind"]) == ('\'=HYPERLINK("x")', "'@SUM(A1)")


def test_markdown_cells_and_fences_hold_against_their_own_marks(result):
    result["candidates"][1]["name"] = "a|b`c*d"
    result["commands"] = ["echo ```` done"]
    markdown = render_markdown(result)
    assert "| a\\|b\\`c\\*d |" in markdown
    assert "`````sh\necho ```` done\n`````" in markdown
    widths = {
        len(re.findall(r"(?<!\\)\|", line))
        for line in markdown.split("## What")[0].splitlines()
        if line.startswith("|")
    }
    assert widths == {5}


@pytest.mark.parametrize("render", RENDERERS)
def test_optional_fields_may_be_missing(minimal, render):
    out = render(minimal)
    for candidate in minimal["candidates"]:
        assert candidate["name"] in out


def test_nothing_is_shown_of_what_is_missing(minimal):
    page = render_html(minimal)
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == ["Candidates", "What they are", "Set-up"]
    assert "<svg" not in page
    Page(page)


def test_a_result_without_a_curve_still_draws_the_differences(result):
    del result["curve"]
    page = render_html(result)
    assert page.count("<svg") == 1
    assert "Label efficiency" not in page + render_text(result) + render_markdown(result)


@pytest.mark.parametrize("shares", [[0.2], [0.0, 0.2]])
def test_curves_of_one_point_and_of_no_labels_are_drawn(result, shares):
    points = zip(shares, result["curve"], strict=False)
    result["curve"] = [point | {"labels": share} for share, point in points]
    assert len(table_rows(render_html(result), "Label efficiency")[0]) == 1 + len(shares)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "something"}, "expected format 'era-evaluation', version 1"),
        ({"version": 2}, "update era-cache"),
        ({"chosen": "nobody"}, "the chosen 'nobody' is not exactly one"),
        ({"primary": "MAP"}, "the primary measure 'MAP' is not among"),
        ({"split": None}, "is damaged"),
        ({"measures": ["nDCG@10", "P@5"]}, "the field 'P@5' is missing"),
        ({"candidates": 7}, "is damaged"),
    ],
)
def test_damaged_results_are_refused(result, render, change, message):
    with pytest.raises(FormatError, match=re.escape(message)):
        render(result | change)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "<b>0.5", None, 10**400, [0.5]])
def test_means_that_are_not_finite_numbers_are_refused(result, value):
    result["candidates"][1]["measures"]["nDCG@10"]["mean"] = value
    with pytest.raises(FormatError, match="not a finite number"):
        render_html(result)


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_what_is_not_a_dict_is_refused(value):
    with pytest.raises(FormatError, match="expected format"):
        render_text(value)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(0.01, 0.5))
def test_spread_labels_keep_order_distance_and_centre(values, gap):
    placed = charts._spread(values, gap)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for before, after in itertools.pairwise(order):
        assert placed[after] - placed[before] >= gap - 1e-9
    assert sum(placed) == pytest.approx(sum(values), abs=1e-9)


def test_labels_far_enough_apart_stay_where_they_are():
    assert charts._spread([0.9, 0.1, 0.5], 0.2) == pytest.approx([0.9, 0.1, 0.5])
