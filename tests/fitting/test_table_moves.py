"""Moves at many settings: those of ``References.move``, computed once where settings share them."""

from __future__ import annotations

import itertools

import pytest
import torch
from planted import normal

from era_cache.fitting.adapter import References, unit
from era_cache.fitting.table_moves import TableMoves

KEYS, VALUES = unit(normal(30, 5, seed=1)), unit(normal(30, 4, seed=2))
SETTINGS = list(itertools.product((0.1, 0.5), (1, 2, 3), (True, False)))


def _table(step: float, steps: int, contrast: bool) -> References:
    return References("large", KEYS, VALUES, 0.2, step, steps, contrast)


def _rows(seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    return [unit(normal(9, 4, seed=seed))], unit(normal(9, 5, seed=seed + 1))


def test_every_setting_in_any_order_is_what_the_table_does() -> None:
    moves, (mapped, queries) = TableMoves(), _rows(3)
    for setting in [*SETTINGS, *reversed(SETTINGS)]:
        table = _table(*setting)
        wanted = table.wanted(queries)
        found = moves.move(table, mapped[0], wanted, of=mapped, name=0)
        assert torch.equal(found, table.move(mapped[0], wanted)), setting


def test_other_queries_are_not_moved_like_those_before() -> None:
    moves, table = TableMoves(), _table(0.5, 1, True)
    for seed in (3, 3, 5):  # equal ones are another list all the same
        mapped, queries = _rows(seed)
        wanted = table.wanted(queries)
        found = moves.move(table, mapped[0], wanted, of=mapped, name=0)
        assert torch.equal(found, table.move(mapped[0], wanted))


def test_other_names_are_other_queries() -> None:
    moves, table, (mapped, queries) = TableMoves(), _table(0.5, 1, True), _rows(3)
    mapped.append(unit(normal(9, 4, seed=8)))
    wanted = table.wanted(queries)
    for number, rows in enumerate(mapped):
        found = moves.move(table, rows, wanted, of=mapped, name=number)
        assert torch.equal(found, table.move(rows, wanted))


@pytest.mark.parametrize("contrast", [True, False])
def test_what_settings_share_is_computed_once(contrast, monkeypatch) -> None:
    asked = []
    change = References.change
    monkeypatch.setattr(References, "change", lambda *a: asked.append(1) or change(*a))
    moves, (mapped, queries) = TableMoves(), _rows(3)
    for step in (0.1, 0.2, 0.4):
        table = _table(step, 1, contrast)
        moves.move(table, mapped[0], table.wanted(queries), of=mapped, name=0)
    assert len(asked) == 1
    # Of longer ways the first step is known, and each is gone once.
    gone, move = [], References.move
    monkeypatch.setattr(References, "move", lambda *a: gone.append(1) or move(*a))
    for step in (0.1, 0.4, 0.1, 0.4):
        table = _table(step, 3, contrast)
        found = moves.move(table, mapped[0], table.wanted(queries), of=mapped, name=0)
        assert torch.equal(found, move(table, mapped[0], table.wanted(queries)))
    assert (len(asked), len(gone)) == (1, 2)
