"""What a report says, whatever the format, and which records it refuses."""

from __future__ import annotations

import copy
import csv
import functools
import html
import io
import json
import random
import re

import pytest
from evaluation_records import compared, gain, large_record, plain, small_record
from msgspec import structs
from report_pages import (
    large_page,
    read,
    render_csv,
    render_html,
    render_latex,
    render_markdown,
    render_text,
    small_page,
    table_rows,
)

from era_cache.disk.json_files import read_record, write_json, write_record
from era_cache.disk.shown import csv_text
from era_cache.errors import FormatError, NewerError
from era_cache.report.records import Estimate, Report, cleaned

RENDERERS = [render_text, render_markdown, render_csv, render_latex, render_html]


@pytest.fixture
def record():
    return small_record()


def text_of(record):
    """The text format as one line."""
    return " ".join(render_text(record).split())


# The summary


def test_summary_names_choice_interval_queries_difference_and_p(record):
    expected = (
        "era-dual reaches nDCG@10 0.607 [0.589, 0.625] on 1,190 test queries of fiqa: "
        "+7.7 points over small (p < 0.001)."
    )
    assert f"Evaluation on fiqa {expected} Best nDCG@10 on the held-out" in text_of(record)
    assert f'<p class="lead">{html.escape(expected)}</p>' in small_page()
    escaped = expected.replace("<", "&lt;").replace("[", "\\[").replace("]", "\\]")
    assert f"**{escaped}**" in render_markdown(record)
    assert "+7.7 points over small (p \\textless{} 0.001)." in render_latex(record)


def test_summary_says_when_a_difference_is_not_significant(record):
    record["chosen"] = "linear"
    found = text_of(record)
    assert "+0.6 points over small (p = 0.210), not a significant difference." in found


def test_summary_reports_a_loss_as_a_loss(record):
    record["candidates"][2]["measures"]["nDCG@10"] = compared(0.5002, -0.03, 0.02, None)
    assert "-3.0 points against small (p = 0.020)." in text_of(record)


def test_summary_does_not_compare_the_baseline_with_itself(record):
    record["chosen"] = "small"
    assert "small reaches nDCG@10 0.530 [0.512, 0.548] on 1,190 test queries of fiqa. Best" in (
        text_of(record)
    )


def test_summary_counts_collections_above_and_significant_ones():
    record = large_record(4, 30)
    record["gains"]["rows"] = [
        gain("a", "web", 50, 0.5, 0.02, 0.0001, 0.01),
        gain("b", "web", 60, 0.5, 0.01, 0.3, 0.02),  # times 3 by Holm: 0.9
        gain("c", "web", 70, 0.5, 0.01, 0.02, 0.02),  # 0.06: no longer significant
        gain("d", "web", 80, 0.5, -0.02, 0.0001, 0.01),
    ]
    found = text_of(record)
    assert "over 4 collections (" in found
    assert (
        "above small on 3 of 4 collections, significantly on 1, and significantly below on 1."
        in (found)
    )
    record["gains"]["rows"].pop()
    assert "on 2 of 3" not in text_of(record)
    assert "on 3 of 3 collections, significantly on 1, and significantly below on none." in (
        text_of(record)
    )


def test_counts_over_collections_are_left_out_where_gains_are_of_another_candidate():
    record = large_record(4, 30)
    record["gains"]["candidate"] = "era"
    assert "above small on" not in text_of(record)


def test_test_queries_are_those_of_all_collections(record):
    record["collections"].append(record["collections"][0] | {"name": "nq", "test": 10})
    assert "over 2 collections (1,200 test queries)" in text_of(record)


# The same numbers everywhere


def test_every_format_shows_the_same_numbers_of_every_candidate(record):
    markdown = render_markdown(record).replace("\\", "").replace("**", "")
    text_lines = render_text(record).split("CANDIDATES")[1].splitlines()
    latex = render_latex(record).replace("{[}", "[").replace("{]}", "]")
    rows = {row[0].removesuffix(" chosen"): row for row in table_rows(small_page(), "Candidates")}
    assert list(rows) == [candidate["name"] for candidate in record["candidates"]]
    lines = csv.DictReader(io.StringIO(render_csv(record)))
    found = [line for line in lines if line["section"] == "candidates"]
    assert len(found) == 8
    for line in found:
        name = line["candidate"]
        column = 2 + ["nDCG@10", "R@100"].index(line["measure"])
        mean, low, high = (f"{float(line[key]):.3f}" for key in ("mean", "low", "high"))
        assert rows[name][column].startswith(mean)
        assert rows[name][column].endswith(f" [{low}, {high}]")
        markdown_row = next(m for m in markdown.splitlines() if m.startswith(f"| {name} "))
        assert mean in markdown_row.split("|")[column + 1]
        assert f"[{low}, {high}]" in markdown_row.split("|")[column + 1]
        start = next(i for i, t in enumerate(text_lines) if t[2:].split(" ")[0] == name)
        assert mean in text_lines[start].split()[column + (line["chosen"] == "yes")]
        assert f"[{low}, {high}]" in text_lines[start + 1]
        latex_row = next(
            part
            for part in latex.splitlines()
            if part.startswith((f"{name} &", f"\\textbf{{{name}}} &"))
        )
        assert mean in latex_row.split("&")[column]
        assert f"[{low}, {high}]" in latex_row.split("&")[column]


def test_every_heading_is_in_every_format_that_has_headings():
    record, page = large_record(), large_page()
    titles = [html.unescape(t) for t in re.findall("<h2>(.*?)</h2>", page)]
    assert titles == [
        "Candidates",
        "Differences from small",
        "Label efficiency",
        "Gains by collection",
        "Means by collection and domain",
        "Trained here, measured there",
        "Query by query",
        "Scores before and after",
        "Stored as int8",
        "Costs",
        "Commands",
        "Notes",
        "Set-up",
    ]
    text, markdown, latex = (r(record) for r in (render_text, render_markdown, render_latex))
    for title in titles:
        assert f"## {title}\n" in markdown
    tables = re.findall(r"<(?:h3|summary)>(.*?)</(?:h3|summary)>", page)
    for title in {*titles, *tables} - {"Means by collection and domain", "Set-up"}:
        if title != "The numbers of the chart":
            assert f"\n{title.upper()}\n" in text
            assert f"{{{title}" in latex


def test_means_carry_their_deviation_over_seeds():
    record = large_record()
    sd = record["candidates"][2]["measures"]["nDCG@10"]["sd"]
    for out in (large_page(), render_text(record), render_markdown(record)):
        assert f"] ± {sd:.3f}" in out.replace("\\", "")
        assert "standard deviation over 5 seeds of the split" in " ".join(out.split())
    assert "seeds of the split" not in render_text(small_record()).split("SPLIT AND")[0]


# What may be missing


@pytest.fixture
def minimal(record):
    for key in ("curve", "int8"):
        del record[key]
    for key in ("scores", "costs", "commands", "notes", "inputs"):
        record[key] = []
    for key in ("environment", "configuration"):
        record[key] = {}
    record["gains"]["rows"] = []
    for candidate in record["candidates"]:
        for measure, estimate in candidate["measures"].items():
            candidate["measures"][measure] = plain(estimate["mean"])
    return record


@pytest.mark.parametrize("render", RENDERERS)
def test_a_report_of_little_is_a_report(minimal, render):
    out = render(minimal)
    for candidate in minimal["candidates"]:
        assert candidate["name"] in out


def test_nothing_is_shown_of_what_is_missing(minimal):
    page = render_html(minimal)
    assert re.findall("<h2>(.*?)</h2>", page) == ["Candidates", "Query by query", "Set-up"]
    assert page.count("<svg") == 1
    assert "<nav" not in page


def test_a_record_without_a_curve_still_draws_the_differences(record):
    del record["curve"]
    record["scores"] = []
    page = render_html(record)
    assert page.count("<svg") == 2
    assert "Label efficiency" not in page + render_text(record) + render_markdown(record)


# What is read, and what is refused


def test_what_is_written_is_read_again_byte_by_byte(tmp_path):
    written, again = tmp_path / "a.json", tmp_path / "b.json"
    write_json(written, large_record(3, 5))
    write_record(again, read_record(written, Report))
    assert json.loads(again.read_text()) == json.loads(written.read_text())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": "something"}, FormatError, "not an era-evaluation file"),
        ({"version": 3}, NewerError, "Install a newer ERA Cache"),
        ({"extra": 1}, FormatError, "unknown field `extra`"),
    ],
)
def test_other_files_are_refused(tmp_path, record, change, error, message):
    path = tmp_path / "evaluation.json"
    write_json(path, record | change)
    with pytest.raises(error, match=f"evaluation.json.*{re.escape(message)}"):
        read_record(path, Report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "nobody"}, "the chosen 'nobody' is not one"),
        ({"primary": "MAP"}, "the primary measure 'MAP' is not among"),
        ({"split": None}, "$.split"),
        ({"measures": ["nDCG@10", "P@5"]}, "lacks the measure 'P@5'"),
        ({"candidates": 7}, "$.candidates"),
        ({"collections": []}, "$.collections"),
        ({"gains": {"candidate": "x", "rows": 5}}, "$.gains.rows"),
        ({"notes": "text"}, "$.notes"),
    ],
)
def test_damaged_records_are_refused(record, change, message):
    with pytest.raises(FormatError, match=f"damaged: .*{re.escape(message)}"):
        read(record | change)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "<b>0.5", None, 10**400, [0.5], True]
)
def test_means_that_are_not_finite_numbers_are_refused(record, value):
    record["candidates"][1]["measures"]["nDCG@10"]["mean"] = value
    with pytest.raises(FormatError, match=r"\$\.candidates\[1\]\.measures\[\.\.\.\]\.mean"):
        read(record)


@pytest.mark.parametrize("value", [-1, 0.5, "7", None])
def test_counts_that_are_no_counts_are_refused(record, value):
    record["collections"][0]["test"] = value
    with pytest.raises(FormatError, match=r"\$\.collections\[0\]\.test"):
        read(record)


def test_two_candidates_of_one_name_are_refused_also_when_only_spaces_differ(record):
    record["candidates"][1]["name"] = " era-dual "
    with pytest.raises(FormatError, match="two candidates are called 'era-dual'"):
        render_text(record)


def test_a_matrix_of_another_shape_is_refused():
    record = large_record(3, 5)
    record["matrix"]["values"][1].pop()
    with pytest.raises(FormatError, match="other rows or columns"):
        read(record)


@pytest.mark.parametrize("edges", [[0.0, 0.5, 0.5], [0.0, 1.0], [1.0]])
def test_scores_that_do_not_fit_their_edges_are_refused(record, edges):
    record["scores"][0] |= {
        "edges": edges,
        "positives": [1, 1],
        "hardest": [1, 1],
        "others": [1, 1],
    }
    with pytest.raises(FormatError, match="edges"):
        read(record)


def test_more_points_than_can_be_drawn_are_refused(record):
    record["queries"]["points"] = [[0.1, 0.2, 1]] * 2001
    with pytest.raises(FormatError, match="2000"):
        read(record)


def test_values_nested_without_end_are_refused(record):
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    report = structs.replace(read(record), configuration={"deep": deep})
    with pytest.raises(FormatError, match="nested too deep"):
        cleaned(report)


JUNK = [
    *(None, True, -1, 0, 0.5, 1e14, 10**400, float("nan"), "", "x", "\ud800", [], {}, [1], [None]),
    *({"a": 1}, [[1, 2, 3]], [[0.1, 0.2, 0]]),
]


def places(value, start=()):
    """The way to everything inside a record, of long lists only to the first two."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(len(value), 2)):
            yield (*start, key)
            yield from places(value[key], (*start, key))


def test_any_damage_is_refused_as_damage_or_shown():
    whole = large_record(3, 6)
    anywhere = list(places(whole))
    generator = random.Random(5)
    refused = 0
    for _ in range(250):
        record = copy.deepcopy(whole)
        *way, last = generator.choice(anywhere)
        inner = functools.reduce(lambda value, key: value[key], way, record)
        inner[last] = generator.choice(JUNK)
        try:
            for render in RENDERERS[:4]:
                render(record).encode()
        except FormatError:
            refused += 1
    assert 50 < refused < 240


def test_every_option_is_shown_with_its_whole_name(record):
    record["configuration"] = {
        "seed": 13,
        "recipe": {"name": "era", "steps": [0.5, 2], "more": {"on": True, "none": None}},
        "empty": {},
    }
    lines = [line.split() for line in render_text(record).splitlines()]
    for pair in (
        ["seed", "13"],
        ["recipe.name", "era"],
        ["recipe.steps", "[0.5,", "2]"],
        ["recipe.more.on", "true"],
        ["recipe.more.none", "null"],
        ["empty", "{}"],
    ):
        assert pair in lines


# Texts of others


@pytest.mark.parametrize("render", RENDERERS)
def test_control_characters_never_reach_the_output(record, render):
    record["candidates"][0]["kind"] = "a\x1b[31mred\u202eder\x00 \ud800"
    record["commands"] = ["era-fit \x1b[2J"]
    record["notes"] = ["x\u2028y\x07"]
    record["queries"]["wins"][0]["text"] = "\u2066\x9b"
    out = render(record)
    out.encode()
    assert not set(out) & set("\x1b\x00\x07\u202e\u2028\u2066\x9b\ud800")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "  ="])
def test_what_a_spreadsheet_would_run_is_quoted(start):
    assert csv_text(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("text", ["", "a=1", "1-1", "'=", "x@y"])
def test_other_texts_stay_as_they_are(text):
    assert csv_text(text) == text


def test_every_number_of_an_estimate_is_a_csv_column(record):
    head = render_csv(record).splitlines()[0].split(",")
    assert set(Estimate.__struct_fields__) <= set(head)
