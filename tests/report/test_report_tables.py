"""What stands in the tables of a report, worked by hand or counted again."""

from __future__ import annotations

import html
import itertools
import random
import re

import numpy as np
import pytest
from evaluation_records import compared, gain, large_record, small_record
from hypothesis import given
from hypothesis import strategies as st
from report_pages import large_page, read, render_html, render_text, small_page, table_rows

from era_cache.report.query_tables import quantile, query_tables
from era_cache.report.svg import spread
from era_cache.report.tables import Cell, mark_best, stars_of


@pytest.fixture
def record():
    return small_record()


def test_marks_follow_the_corrected_p():
    rows = {row[0]: row for row in table_rows(small_page(), "Candidates")}
    assert rows["linear"][2] == "0.536 [0.518, 0.554]"
    assert rows["linear"][3] == "0.793* [0.775, 0.811]"
    assert rows["large"][2] == "0.641*** [0.623, 0.659]"
    assert rows["small"][2] == "0.530 [0.512, 0.548]"


def test_marks_follow_the_plain_p_where_none_is_corrected(record):
    record["candidates"][1]["measures"]["nDCG@10"] = compared(0.5364, 0.0062, 0.004, None)
    rows = {row[0]: row for row in table_rows(render_html(record), "Candidates")}
    assert rows["linear"][2] == "0.536** [0.518, 0.554]"


@pytest.mark.parametrize(
    ("p", "stars"),
    [(None, ""), (0.05, ""), (0.0499, "*"), (0.01, "*"), (0.0099, "**"), (0.001, "**"), (0, "***")],
)
def test_stars_begin_below_their_levels(p, stars):
    assert stars_of(p) == stars


def test_best_of_each_column_is_marked_and_a_full_re_encode_is_no_rival():
    first_table = small_page().split("</table>")[0]
    assert re.findall('<span class="best">(.*?)</span>', first_table) == ["0.611", "0.607", "0.857"]


def test_values_that_print_alike_are_both_best():
    cells = [Cell("0.641", key=0.6411), Cell("0.641", key=0.64105), Cell("0.700", key=0.7)]
    marked = mark_best([*cells, Cell("-")], ["a", "b", "large", "c"])
    assert [cell.best for cell in marked] == [True, True, False, False]


def test_only_the_chosen_row_is_marked():
    first_table = small_page().split("</table>")[0]
    # A name may break where its parts meet.
    assert re.findall('<tr class="chosen"><th[^>]*>(.*?) <', first_table) == ["era-<wbr>dual"]


def test_difference_table_shows_difference_interval_both_p_and_effect():
    assert table_rows(small_page(), "Differences from small") == [
        ["linear", "+0.006 [-0.007, +0.020]", "0.070", "0.210", "+0.02"],
        ["era-dual chosen", "+0.077*** [+0.064, +0.091]", "< 0.001", "< 0.001", "+0.31"],
        ["large", "+0.111*** [+0.098, +0.125]", "< 0.001", "< 0.001", "+0.44"],
    ]


def test_curve_table_shows_every_share_and_a_gap_where_a_candidate_is_missing(record):
    del record["curve"][0]["candidates"]["era-dual"]
    page = render_html(record)
    assert table_rows(page, "Label efficiency")[1] == [
        "era-dual chosen",
        "-",
        "0.582 [0.564, 0.600]",
        "0.607 [0.589, 0.625]",
    ]
    assert page.index("119 queries") < page.index("238 queries") < page.index("476 queries")


# By collection


def test_gains_are_sorted_and_shown_in_full():
    record = large_record(3, 10)
    record["gains"]["rows"] = [
        gain("low", "web", 50, 0.5, -0.02, 0.2, 0.05),
        gain("top", "law", 1600, 0.25, 0.04, 0.0001, 0.01) | {"large": None},
        gain("mid", "web", 60, 0.5, 0.01, 0.3, 0.02),
    ]
    rows = table_rows(render_html(record), "Gains by collection")
    assert [row[0] for row in rows] == ["top", "mid", "low"]
    assert rows[0] == [
        *("top", "law", "1,600", "0.250", "0.290", "-", "+0.040***", "[+0.033, +0.047]"),
        *("< 0.001", "< 0.001", "+0.16", "0.010"),
    ]
    for row in record["gains"]["rows"]:
        row["large"] = None
    assert len(table_rows(render_html(record), "Gains by collection")[0]) == 11


def test_collections_with_too_few_queries_are_named_and_others_are_not():
    record = large_record(3, 10)
    record["gains"]["rows"] = [
        gain("seen", "web", 900, 0.5, 0.03, 0.0001, 0.02),
        gain("unseen", "web", 54, 0.5, 0.03, 0.4, 0.062),
        gain("tiny", "web", 9, 0.5, -0.01, 0.9, 0.2),
        gain("lucky", "web", 40, 0.5, 0.03, 0.0001, 0.05),  # significant all the same
        gain("sure", "web", 800, 0.5, 0.001, 0.9, 0.0009),  # could have been seen
        gain("bad", "web", 30, 0.5, -0.3, 0.4, 0.2),  # so could this
    ]
    text = " ".join(render_text(record).split())
    assert "80 % of cases: tiny (9: 0.200), unseen (54: 0.062)." in text
    assert "Too few queries to see a difference as small as the one found" in text


def test_the_best_of_each_row_is_marked_by_collection():
    record = large_record(2, 10)
    record["by_collection"] = [
        {
            "collection": "c",
            "domain": "web",
            "queries": 7,
            "candidates": {"large": 0.9, "era": 0.5, "small": 0.4, "linear": None},
        }
    ]
    page = render_html(record)
    section = page[page.index("<h3>Means by collection") :]
    head = re.findall("<button type=.button.><span>(.*?)</span>", section.split("</thead>")[0])
    assert head == ["collection", "domain", "queries", "small", "linear", "era", "large"]
    assert table_rows(page, "Means by collection") == [
        ["c", "web", "7", "0.400", "-", "0.500", "0.900"]
    ]
    assert re.findall('class="best">(.*?)<', section.split("</table>")[0]) == ["0.500"]


def test_all_domains_stay_below_the_domains():
    page = large_page()
    section = page[page.index("<h3>Means by domain") :].split("</table>")[0]
    body, foot = section.split("<tfoot>")
    assert "all domains" in foot
    assert "all domains" not in body
    assert len(table_rows(page, "Means by domain")) == 5


def test_matrix_cells_show_value_difference_and_heat():
    record = large_record(2, 10)
    record["matrix"] = {
        "candidate": "shipped",
        "rows": ["all but web", "law"],
        "columns": ["web", "law"],
        "values": [[0.58, 0.46], [None, 0.501]],
        "baseline": [0.5, 0.5],
    }
    page = render_html(record)
    assert table_rows(page, "Trained here, measured there") == [
        ["all but web", "0.580° +8.0", "0.460 -4.0"],
        ["law", "-", "0.501° +0.1"],
    ]
    section = page[page.index("<h2>Trained here") :].split("</section>")[0]
    classes = re.findall(
        r'<td(?: class="(\w+)")?', section.split("<tbody>")[1].split("</tbody>")[0]
    )
    assert classes == ["up4", "down2", "", ""]
    assert "\N{MINUS SIGN}8.0 <span>" in section
    foot = re.sub("<[^>]*>", " ", section.split("<tfoot>")[1].split("</tfoot>")[0])
    assert foot.split() == ["small", "0.500", "0.500"]


# Query by query


def test_queries_are_counted_by_what_they_had_before(record):
    generator = random.Random(3)
    values = [0.0, 0.1, 0.25, 0.26, 0.5, 0.6, 0.75, 0.9, 1.0]
    record["queries"]["points"] = [
        [generator.choice(values), generator.choice(values), generator.randrange(1, 5)]
        for _ in range(60)
    ]
    inside = [
        lambda v: v == 0,
        lambda v: 0 < v <= 0.25,
        lambda v: 0.25 < v <= 0.5,
        lambda v: 0.5 < v <= 0.75,
        lambda v: 0.75 < v < 1,
        lambda v: v == 1,
    ]
    table = query_tables(read(record))[1]
    assert table.folded
    for row, was in zip(table.rows, inside, strict=True):
        for cell, becomes in zip(row[1:], inside, strict=True):
            expected = sum(n for x, y, n in record["queries"]["points"] if was(x) and becomes(y))
            assert cell.key == expected


def test_wins_and_losses_name_query_collection_and_text_where_given():
    record = large_record(3, 10)
    win = record["queries"]["wins"][0]
    assert table_rows(render_html(record), "Largest wins")[0] == [
        *(win["query"], win["collection"], win["text"], "0.000", "1.000", "+1.000"),
    ]
    for query in (*record["queries"]["wins"], *record["queries"]["losses"]):
        query["text"] = None
    assert table_rows(render_html(record), "Largest losses")[0] == [
        *("query-0-loss", win["collection"], "1.000", "0.000", "-1.000"),
    ]
    one = small_record()
    assert table_rows(small_page(), "Largest wins")[0][1] == one["queries"]["wins"][0]["text"]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any),
    st.sampled_from([0.05, 0.5, 0.95]),
)
def test_quantiles_of_counts_lie_where_the_values_lie(counts, share):
    edges = np.linspace(-1, 1, len(counts) + 1)
    values = np.repeat(np.arange(len(counts)), counts)
    # The bin that holds the sorted value below which the share lies.
    holder = values[max(0, int(np.ceil(share * len(values))) - 1)]
    found = quantile(edges.tolist(), counts, share)
    assert edges[holder] - 1e-12 <= found <= edges[holder + 1] + 1e-12


def test_quantiles_are_linear_inside_a_bin_and_none_without_counts():
    assert quantile([0.0, 1.0, 3.0], [2, 2], 0.75) == pytest.approx(2.0)
    assert quantile([0.0, 1.0, 3.0], [2, 2], 0.25) == pytest.approx(0.5)
    assert quantile([0.0, 1.0], [0], 0.5) is None


def test_scores_compare_before_and_after_kind_by_kind():
    page = small_page()
    rows = table_rows(page[page.index('id="scores"') :], "Scores before and after")
    assert [row[:2] for row in rows] == [
        list(pair)
        for pair in itertools.product(
            ("relevant documents", "hardest negatives", "other documents"), ("small", "era-dual")
        )
    ]
    # Planted means: 0.55 and 0.67 for positives, 0.12 for others.
    assert [float(rows[i][5]) for i in (0, 1, 4)] == pytest.approx([0.55, 0.67, 0.12], abs=0.005)


def test_int8_shows_only_the_measures_that_were_measured():
    rows = table_rows(small_page(), "Stored as int8")
    assert rows == [
        ["small", "0.530", "-0.000 [-0.001, +0.000]"],
        ["era-dual chosen", "0.607", "-0.000 [-0.001, +0.000]"],
    ]


# Labels of charts


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(0.01, 0.5))
def test_spread_labels_keep_order_distance_and_centre(values, gap):
    placed = spread(values, gap)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for before, after in itertools.pairwise(order):
        assert placed[after] - placed[before] >= gap - 1e-9
    assert sum(placed) == pytest.approx(sum(values), abs=1e-9)


def test_labels_far_enough_apart_stay_where_they_are():
    assert spread([0.9, 0.1, 0.5], 0.2) == pytest.approx([0.9, 0.1, 0.5])


def test_titles_of_charts_say_their_numbers():
    record, page = large_record(), large_page()
    titles = {
        found: html.unescape(text)
        for found, text in re.findall('<title id="chart-(.*?)-title">(.*?)</title>', page)
    }
    assert list(titles) == ["differences", "curve", "gains", "queries", "scores"]
    best = max(record["gains"]["rows"], key=lambda row: row["difference"])
    assert f"difference: {best['collection']} {best['difference']:+.3f}, " in titles["gains"]
    assert f"better {record['queries']['better']:,}, equal" in titles["queries"]
    assert re.search("median: relevant documents small 0.5.., ", titles["scores"])
    assert "40 %: small 0." in titles["curve"]
    assert "shipped +0.040" in titles["differences"]
