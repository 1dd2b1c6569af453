"""Tables for a terminal: aligned whatever they hold, and never more than text."""

from __future__ import annotations

import pytest

from era_cache.report.terminal import cut, display_width, table_lines

ROWS = [["name", "kind", "amount"], ["検索", "[bold]x", "7"], ["abcdef\n more", ":smile:", "1,234"]]


def test_columns_stand_where_they_belong_also_behind_wide_characters() -> None:
    assert table_lines(ROWS, right=[2]) == [
        "name    kind     amount",
        "検索    [bold]x       7",
        "abcdef  :smile:   1,234",
        " more",
    ]


def test_only_what_is_asked_for_is_bold(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "5")
    plain = table_lines(ROWS)
    marked = table_lines(ROWS, bold=[(1, 0)])
    assert "\x1b" not in "".join(plain)
    assert marked == [line.replace("検索  ", "\x1b[1m検索  \x1b[0m") for line in plain]


def test_escapes_of_others_do_not_reach_the_terminal() -> None:
    assert table_lines([["a\x1b[31mb\u202ec", "x"]]) == ["a\ufffd[31mb\ufffdc  x"]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("abc", 5, "abc  "), ("abcdef", 4, "abc~"), ("検索する", 5, "検索~"), ("検索する", 4, "検 ~")],
)
def test_texts_are_cut_and_filled_to_a_width(text, width, expected) -> None:
    assert cut(text, width, "~") == expected
    assert display_width(expected) == width
