"""One answer in a terminal: columns that fit, marks, nothing that a terminal obeys."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lookup_cases import NASTY

from era_cache.report.terminal import display_width
from era_cache.serve.answer import Answer, Asked, Column, Elsewhere, Hit, Searched, Spent
from era_cache.serve.show import fit, render


def _hits(ids, grades=(), before=None, texts=None):
    return [
        Hit(rank, doc, 1.0 - rank / 100, dict(grades).get(doc), (before or {}).get(doc), text)
        for rank, (doc, text) in enumerate(
            zip(ids, texts or [None] * len(ids), strict=True), start=1
        )
    ]


def _answer(columns, **changes):
    known = {
        "collection": Searched("toy", "0" * 12, 12345),
        "asked": Asked("q1", "what is asked", "", "test", 2),
        "depth": 3,
        "reach": 1000,
        "baseline": "small",
        "measure": "nDCG@10",
        "columns": columns,
        "elsewhere": [],
        "milliseconds": Spent(None, 1.25),
    }
    return Answer(**{**known, **changes})


SMALL = Column("small", "", False, 0.5, _hits(["a", "b", "c"], {"b": 1}))
BEFORE = {"a": 1, "b": 2, "c": 3, "far": 40}
DUAL = Column("era-dual", "", True, 1.0, _hits(["b", "a", "far"], {"b": 1, "far": 12}, BEFORE))


def test_an_answer_looks_like_this() -> None:
    far = Elsewhere("far", 12, {"small": 40, "era-dual": 3}, None)
    lost = Elsewhere("lost", 1, {"small": None, "era-dual": 4}, None)
    shown = render(_answer([SMALL, DUAL], elsewhere=[far, lost]), width=72)
    assert shown.splitlines() == [
        "Query q1 (test query, 2 relevant): what is asked",
        "",
        "small nDCG@10 0.500                │ era-dual (chosen) nDCG@10 1.000",
        "────────────────────────────────── │ ──────────────────────────────────",
        "1     0.990 a                      │ 1  ★1 0.990  +1 b",
        "2  ★1 0.980 b                      │ 2     0.980  -1 a",
        "3     0.970 c                      │ 3 ★12 0.970 new far",
        "",
        "Relevant, but not in every list above:",
        "  ★12 far: small 40, era-dual 3",
        "  ★1 lost: small beyond 1,000, era-dual 4",
        "",
        "stored vectors, searched 12,345 documents in 1.2 ms",
        "★ relevant, with its grade. +2, -2: places up or down from small; new:",
        "not in its list.",
    ]


def test_in_ascii_it_has_no_other_sign() -> None:
    shown = render(_answer([SMALL, DUAL]), width=72, ascii_only=True)
    assert shown.isascii()
    assert "2  *1 0.980 b                      | 2     0.980  -1 a" in shown


def test_what_the_fit_has_seen_is_said() -> None:
    warning = "flatters"
    for part, warned in (("test", False), ("unused", False), ("training", True)):
        asked = Asked("q1", None, "", part, 0)
        assert (warning in render(_answer([SMALL], asked=asked), width=100)) == warned


def test_a_typed_query_has_no_marks_to_explain() -> None:
    typed = Asked(None, "typed", "do this", None, None)
    column = Column("small", "", False, None, _hits(["a", "b"]))
    lines = render(
        _answer([column], asked=typed, milliseconds=Spent(12.34, 1.25)), width=100
    ).splitlines()
    assert lines[:2] == ["Query: typed", "Instruction: do this"]
    assert lines[3:] == [
        "small",
        "─" * 100,
        "1 0.990 a",
        "2 0.980 b",
        "",
        "encoded in 12.3 ms, searched 12,345 documents in 1.2 ms",
    ]


@pytest.mark.parametrize(("width", "side_by_side"), [(20, 1), (60, 2), (100, 3), (160, 3)])
def test_columns_fit_the_terminal(width, side_by_side) -> None:
    ids = [*NASTY.values(), "plain"]
    texts = [f"{doc} and more {doc}" for doc in ids]
    columns = [
        Column(name, "", False, 0.25, _hits(ids, {ids[2]: 1}, {ids[1]: 1}, texts))
        for name in ("small", "aligned", "era-dual")
    ]
    far = [Elsewhere(doc, 1, {"small": 400, "aligned": None, "era-dual": 9}, doc) for doc in ids]
    asked = Asked("q1", texts[2], texts[3], "test", 2)
    answer = _answer(columns, asked=asked, elsewhere=far, depth=10)
    shown = render(answer, width=width)
    lines = shown.splitlines()
    assert max(map(display_width, lines)) <= width
    assert shown.replace("\n", "").isprintable()
    rules = [line for line in lines if line.startswith("─")]
    assert rules[0].count("│") + 1 == side_by_side
    assert sum(rule.count("│") + 1 for rule in rules) == 3
    # The bars stand one below the other.
    for start, rule in ((i, line) for i, line in enumerate(lines) if line.startswith("─")):
        at = [display_width(rule[: m.start()]) for m in re.finditer("│", rule)]
        for line in lines[start + 1 : start + 1 + len(ids)]:
            assert [display_width(line[: m.start()]) for m in re.finditer("│", line)] == at


def test_a_wide_column_shows_texts_beside_and_a_narrow_one_below() -> None:
    column = Column("small", "", False, None, _hits(["a", "b"], texts=["text of a", "text of b"]))
    wide = render(_answer([column]), width=80).splitlines()
    assert "1 0.990 a text of a" in wide
    narrow = render(_answer([column]), width=40).splitlines()
    at = narrow.index("1 0.990 a")
    assert narrow[at + 1 : at + 4] == ["    text of a", "2 0.980 b", "    text of b"]


def test_relevant_lines_are_emphasised_and_others_not() -> None:
    shown = render(_answer([SMALL]), width=40, emphasise=lambda line: f"<{line.rstrip()}>")
    assert [line for line in shown.splitlines() if "<" in line] == ["<2 ★1 0.980 b>"]


def test_long_lists_of_relevant_documents_are_cut() -> None:
    far = [Elsewhere(f"d{n}", 1, {"small": 10 + n}, None) for n in range(25)]
    lines = render(_answer([SMALL], elsewhere=far), width=80).splitlines()
    assert "  ★1 d9: small 19" in lines
    assert "  and 15 more" in lines
    assert not any("d10:" in line for line in lines)


@given(st.text(), st.integers(1, 40))
def test_any_text_fits_exactly_and_is_printable(text, width) -> None:
    fitted = fit(text, width)
    assert display_width(fitted) == width
    assert fitted.isprintable()


def test_a_text_that_fits_is_whole_and_a_longer_one_is_cut() -> None:
    assert fit("abc", 3) == "abc"
    assert fit("abcd", 3) == "ab…"
    assert fit("漢字漢字", 5) == "漢字…"
    assert fit("漢字漢字", 4) == "漢 …"
    assert fit(" a\n\tb ", 6) == "a b   "
    assert fit("e\u0301e\u0301", 2) == "e\u0301e\u0301"


def test_what_all_texts_begin_with_gives_way_to_what_differs() -> None:
    texts = [f"Returns the current weather of the {place}" for place in ("city", "coast", "sea")]
    shown = render(_answer([Column("small", "", True, 0.5, _hits("abc", texts=texts))]), width=72)
    for place in ("city", "coast", "sea"):
        assert f"…{place}" in shown
    assert "Returns" not in shown
    other = [*texts[:2], "Sends a mail"]
    shown = render(_answer([Column("small", "", True, 0.5, _hits("abc", texts=other))]), width=72)
    assert "Returns the current" in shown


def test_a_query_of_an_unknown_part_has_none() -> None:
    asked = Asked("q1", "what is asked", "", None, 2)
    assert render(_answer([SMALL], asked=asked), width=72).startswith("Query q1 (2 relevant): ")


def test_an_index_that_was_searched_is_said_and_what_it_missed_is_not_called_far() -> None:
    searched = Searched("c", "0123456789ab", 12345, "ivf, 90 lists, 8 of them read")
    lost = Elsewhere("lost", 1, {"small": None, "era-dual": 4}, None)
    shown = render(_answer([SMALL, DUAL], elsewhere=[lost], collection=searched), width=72)
    assert "  ★1 lost: small not found, era-dual 4" in shown.splitlines()
    assert (
        "stored vectors, searched 12,345 documents through an index (ivf, 90 lists, 8 of them "
        "read), which may miss some, in 1.2 ms"
    ) in " ".join(shown.split())
