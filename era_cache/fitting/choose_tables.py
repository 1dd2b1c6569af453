"""The reference tables that help held-out queries: the step of the documents, then the memory.

In: what fold models made of held-out queries, how tables could be set. Out: the tables set as these
queries prefer, and their values under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from era_cache.fitting.held_out import PRIMARY, Judge, Tables, ranking_of
from era_cache.fitting.means import BETTER, Settings, luck, macro
from era_cache.fitting.own_documents import LEADING, OwnDocuments, own_documents
from era_cache.types import FloatArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.measures import Ranking

__all__ = ["choose_tables"]

_HELD = 1 << 26
"""Numbers of queries, under several settings, that are held at a time."""


def choose_tables(
    judge: Judge, mapped: Sequence[torch.Tensor], values: tuple[FloatArray, ...]
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
    """Set the references of a judge, then its memory.

    Settings are compared among documents that queries find at the far ends of what is tried; what
    is chosen is then judged like everything else.

    Args:
        judge: its memory is not set.
        mapped: from ``judge.held_out``.
        values: what ``judge.values`` gave for them with the tables as they are now.

    Returns:
        The values with the tables as chosen, less what the choice owes to luck; and as they were
        measured.
    """
    now = judge.setting
    found: list[OwnDocuments | None] = []
    owed = []
    for turn in ("references", "memory"):
        # The memory is added to what the references left, which is a setting, too.
        tried = [now._replace(memory=step) for step in judge.memories()]
        if turn == "references":
            tried = [now._replace(references=step) for step in judge.reference_steps()]
        best = 0
        if len(tried) > 1:
            found = found or _found_around(judge, mapped)
            compared = _compared(judge, mapped, tried, found)
            best = _best(compared)
            owed.append(luck(compared, best))
        now = tried[best]
    if found or now != judge.setting:
        judge.set(now)
        values = judge.values(mapped)
    measured = values
    for less in owed:
        values = tuple(v - lucky for v, lucky in zip(values, less, strict=True))
    return values, measured


def _best(settings: Settings) -> int:
    """The setting with the best mean; a later one must be better beyond rounding."""
    best = 0
    for number, values in enumerate(settings):
        if macro(values) > macro(settings[best]) + BETTER:
            best = number
    return best


def _ends(judge: Judge) -> list[Tables]:
    """The settings that move queries the least and the farthest."""
    steps = sorted(judge.reference_steps(), key=lambda one: one[0] * one[1] if one else 0.0)
    least, most = (judge.setting._replace(references=step) for step in (steps[0], steps[-1]))
    farthest = {step[1]: step for step in sorted(filter(None, judge.memories()))}
    beyond = [most._replace(memory=step) for step in farthest.values()]
    return [least, *(beyond or ([most] if most != least else []))]


def _found_around(judge: Judge, mapped: Sequence[torch.Tensor]) -> list[OwnDocuments | None]:
    """What queries find at the ends of the settings; None where a pool takes it up.

    Else a step that moves queries far would be judged among documents found elsewhere.
    """
    now = judge.setting
    rankings: list[list[Ranking]] = [[] for _ in judge.parts]
    for end in _ends(judge):
        judge.set(end)
        for part, moved, mine in zip(judge.parts, judge.corrected(mapped), rankings, strict=True):
            if part.pool is not None:
                part.judged(moved)
            else:
                queries, rows = part.labels.queries, part.labels.judges
                mine.append(ranking_of(moved, queries, rows, part.data, LEADING))
    judge.set(now)
    return [
        own_documents(mine, part.labels.queries, part.labels.judges, part.data) if mine else None
        for part, mine in zip(judge.parts, rankings, strict=True)
    ]


def _compared(
    judge: Judge,
    mapped: Sequence[torch.Tensor],
    tried: Sequence[Tables],
    found: Sequence[OwnDocuments | None],
) -> list[tuple[FloatArray, ...]]:
    """Values of the judging queries with the tables set otherwise, among what was found."""
    size = sum(rows.numel() for rows in mapped)
    step = max(1, _HELD // max(1, size))
    values: list[tuple[FloatArray, ...]] = []
    for begin in range(0, len(tried), step):
        moved = []
        for tables in tried[begin : begin + step]:
            judge.set(tables)
            moved.append(judge.corrected(mapped))
        by_part = [
            [part.judged(one, look=False) for one in ways]
            if own is None
            else own.values(ways, PRIMARY)
            for part, own, ways in zip(judge.parts, found, zip(*moved, strict=True), strict=True)
        ]
        values += zip(*by_part, strict=True)
    return values
