"""One step ahead: the next item is prepared in a thread while one is worked on.

In: items and what prepares one. Out: the items, each with what was made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["one_ahead"]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def one_ahead(
    prepare: Callable[[_Item], _Made], items: Iterable[_Item]
) -> Generator[tuple[_Item, _Made], None, None]:
    """Yield each item with ``prepare(item)``, which is called in another thread, in order.

    No more than one item is prepared beyond the one that was yielded. Items are drawn in the
    caller's thread, each just before the one ahead of it is yielded. What ``prepare`` raises is
    raised when its item's turn comes. Close the generator where it is left early.
    """
    beside = ThreadPoolExecutor(1, "ahead")
    try:
        waiting: tuple[_Item, Future[_Made]] | None = None
        for item in items:
            following = item, beside.submit(prepare, item)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
    finally:
        beside.shutdown(cancel_futures=True)
