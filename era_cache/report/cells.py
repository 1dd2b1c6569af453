"""Texts of others made fit to be shown: cleaned once, quoted where a spreadsheet reads them.

In: any value. Out: a text.
"""

from __future__ import annotations

__all__ = ["clean", "csv_text", "printable"]


def printable(value: object) -> str:
    """Write a value as text without terminal escapes, direction marks and lone surrogates."""
    return "".join(char if char.isprintable() else "\ufffd" for char in str(value))


def clean(value: object) -> str:
    """Write a value as printable text on one line, with single spaces."""
    return printable(" ".join(str(value).split()))


def csv_text(text: str) -> str:
    """Quote what a spreadsheet would take for a formula; the apostrophe makes it a text again."""
    formula = text.lstrip().startswith(("=", "+", "-", "@")) or text.startswith(("\t", "\r"))
    return f"'{text}" if formula else text
