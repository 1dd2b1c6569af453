"""Texts of others made fit to be shown: the only rule for what a terminal, page or table gets.

In: any value. Out: a text that no terminal obeys and no reader takes for another.
"""

from __future__ import annotations

from era_cache.errors import InputError

__all__ = ["as_percent", "clean", "csv_text", "escaped", "is_name", "printable", "require_unicode"]

_LONGEST_NAME = 200


def printable(value: object) -> str:
    """Write a value as text without terminal escapes, direction marks and lone surrogates."""
    return "".join(char if char.isprintable() else "\ufffd" for char in str(value))


def escaped(text: str, longest: int = 0) -> str:
    """Write the characters of a text that are not printable as Python would (``\\x1b``).

    Args:
        text: of one or several lines; line feeds stay.
        longest: characters kept, the rest left out in the middle; 0 for all.
    """
    if longest and len(text) > longest:
        half = longest // 2
        text = f"{text[:half]} … {text[-half:]}"
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def is_name(text: str) -> bool:
    """Whether a text can be a name that people are shown: short, and of printable characters."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable()


def require_unicode(text: str, what: str) -> str:
    """Refuse a text that could not be written down, before any work is done with it.

    Raises:
        InputError: it has a lone surrogate, as undecodable bytes of a command line give.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{what} {text!r} is not valid Unicode. Write it anew.") from error
    return text


def clean(value: object) -> str:
    """Write a value as printable text on one line, with single spaces."""
    return printable(" ".join(str(value).split()))


def csv_text(text: str) -> str:
    """Quote what a spreadsheet would take for a formula; the apostrophe makes it a text again."""
    formula = text.lstrip().startswith(("=", "+", "-", "@")) or text.startswith(("\t", "\r"))
    return f"'{text}" if formula else text


def as_percent(share: float) -> float:
    """A share as people read it: 0.2 is 20."""
    return round(100 * share, 6)
