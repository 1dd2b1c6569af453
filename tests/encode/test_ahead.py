"""The next item is prepared beside the one that is worked on, and no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from era_cache.encode.ahead import one_ahead

THREAD = "ahead"


def names() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(THREAD)]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_items_come_in_order_with_what_was_made_of_them(count) -> None:
    found = list(one_ahead(lambda n: n * n, range(count)))
    assert found == [(n, n * n) for n in range(count)]
    assert not names()


def test_one_is_prepared_beside_and_no_more() -> None:
    prepared: list[int] = []
    arrived = [threading.Event() for _ in range(5)]

    def prepare(n: int) -> str:
        assert threading.current_thread().name.startswith(THREAD)
        prepared.append(n)
        arrived[n].set()
        return str(n)

    for n, made in one_ahead(prepare, range(5)):
        assert made == str(n)
        if n < 4:
            assert arrived[n + 1].wait(20), "the next one waits until this one is done"
        time.sleep(0.01)
        assert len(prepared) <= n + 2


def test_items_are_drawn_by_the_caller_just_before_they_are_needed() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for n in range(4):
            assert threading.current_thread() is threading.main_thread()
            drawn.append(n)
            yield n

    for n, _ in one_ahead(lambda n: n, items()):
        assert len(drawn) == min(n + 2, 4)


def test_what_preparing_raises_comes_when_it_is_the_items_turn() -> None:
    found = one_ahead(lambda n: 4 // (2 - n), range(5))
    assert [next(found), next(found)] == [(0, 2), (1, 4)]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert not names()


def test_closing_it_ends_its_thread() -> None:
    found = one_ahead(lambda n: n, range(5))
    next(found)
    assert names()
    found.close()
    assert not names()
