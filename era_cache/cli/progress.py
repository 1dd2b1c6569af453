"""Progress of long steps on stderr: bars on a terminal, lines elsewhere, nothing with --quiet.

In: what is done, and how much of it. Out: words for whoever waits.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from era_cache.cli.common import all_of, note

if TYPE_CHECKING:
    from era_cache.types import Progress

__all__ = ["progress", "quiet_option", "shown", "tell"]

_QUIET = "era_cache.quiet"
_PATIENCE, _OFTEN = 2.0, 10.0
"""Seconds before progress is worth a word, and between two lines of it."""
_STYLE = "era_cache.progress"


def _kept(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Keep an option's value where the functions of this module find it."""
    return lambda context, _parameter, value: context.meta.update({name: value})


quiet_option = all_of(
    click.option(
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_kept(_QUIET),
        help="Say nothing of progress; what must be known is said all the same.",
    ),
    click.option(
        "--progress",
        type=click.Choice(["auto", "json"]),
        default="auto",
        show_default=False,
        expose_value=False,
        callback=_kept(_STYLE),
        help="json: a JSON object for each step of progress, a line each on stderr.",
    ),
)
"""``--quiet`` and ``--progress``."""


def tell(text: str) -> None:
    """Tell the user of progress on stderr, unless --quiet was given."""
    if _is_quiet():
        return
    if _is_json():
        _write({"message": text})
    else:
        note(text)


def _meta(name: str) -> Any:
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(name)


def _is_quiet() -> bool:
    return bool(_meta(_QUIET))


def _is_json() -> bool:
    return bool(_meta(_STYLE) == "json")


def _write(value: dict[str, Any]) -> None:
    note(json.dumps(value))


@contextlib.contextmanager
def progress(unit: str = "text") -> Iterator[Progress]:
    """Show on stderr how far each part of a long step is.

    A bar where stderr is a terminal; elsewhere, such as in a log, a line every tenth or every ten
    seconds, once a part has taken two. A part of no units is only named.

    Args:
        unit: what is counted; ``B`` for bytes.
    """
    bars = shown(unit)
    try:
        yield bars
    finally:
        bars.close()


def shown(unit: str) -> _Lines | _Objects | _Bars | _Silence:
    """What ``progress`` gives, for steps whose end nobody tells."""
    if _is_quiet():
        return _Silence()
    if _is_json():
        return _Objects(unit)
    return _Bars(unit) if sys.stderr.isatty() else _Lines()


class _Silence:
    """For --quiet."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say nothing."""

    def close(self) -> None:
        """There is nothing to end."""


class _Lines:
    """Lines, for stderr that is no terminal."""

    def __init__(self) -> None:
        self._what = ""
        self._begun = self._told_at = 0.0
        self._told = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` units of ``what`` are ready, if it is time to."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun, self._told_at, self._told = what, now, now, 0
            if not total:
                note(f"{what} …")
        if not total or now - self._begun < _PATIENCE:
            return
        tenth = 10 * done // total
        if tenth > self._told or now - self._told_at >= _OFTEN:
            note(f"{what}: {done:,} of {total:,} ({100 * done // total} %)")
            self._told, self._told_at = tenth, now

    def close(self) -> None:
        """There is nothing to end."""


class _Objects:
    """JSON objects, for schedulers: at least one for each part, and one a second."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._what: str | None = None
        self._begun = self._told_at = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Write down that ``done`` of ``total`` units of ``what`` are ready."""
        now = time.monotonic()
        new = what != self._what
        if new:
            self._what, self._begun = what, now
        if new or done >= total or now - self._told_at >= 1:
            self._told_at = now
            seconds = round(now - self._begun, 3)
            about = {"unit": self._unit, "seconds": seconds}
            _write({"progress": what, "done": done, "total": total, **about})

    def close(self) -> None:
        """There is nothing to end."""


class _Bars:
    """Bars, one after the other."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``what`` are ready."""
        from tqdm import tqdm

        if not total:
            self.close()
            note(f"{what} …")
            return
        if self._bar is None or what != self._what or total != self._bar.total:
            self.close()
            self._what = what
            self._bar = tqdm(
                total=total,
                desc=what,
                unit=self._unit,
                unit_scale=self._unit == "B",
                delay=_PATIENCE,
            )
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Finish the bar on show."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
