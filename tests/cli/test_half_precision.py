"""A corpus that stays in half precision gives every figure that an unpacked one gives."""

from __future__ import annotations

import json

import pytest
from command_case import case, done, embedded_in, evaluated, fitted, run

from era_cache.cli import fit, search
from era_cache.fitting import unit_rows
from era_cache.rank.corpus import HalfRows
from era_cache.serve import ranker

__all__ = ["case"]


def figures(case, name):
    """Of fits, of their evaluation, and of a search."""
    fitted(case, out=name)
    values = evaluated(case, "--int8", "--overwrite", adapter=name)
    near = evaluated(case, "--index", "pq", "--overwrite", adapter=name)
    words = [case / "store", "beir", "--recipe", "paper", "--out", case / f"{name}-paper"]
    done(run(fit.main, *words, "--labels", 40))
    found = json.loads(
        done(
            run(search.main, case / "store", case / name, "--id", "q000", "--depth", "5", "--json")
        ).stdout
    )
    del found["milliseconds"]
    measured = [
        {candidate["name"]: candidate["measures"] for candidate in one["candidates"]}
        for one in (values, near)
    ]
    metrics = [
        json.loads((case / one / "metrics.json").read_bytes())["candidates"]
        for one in (name, f"{name}-paper")
    ]
    return *measured, *metrics, found


@pytest.mark.filterwarnings("ignore")
def test_every_figure_is_the_same(case, monkeypatch):
    embedded_in(case)
    unpacked = figures(case, "a")
    made = []
    monkeypatch.setattr(unit_rows, "_LARGE_BYTES", 0)
    monkeypatch.setattr(ranker, "_LARGE_BYTES", 0)
    monkeypatch.setattr(unit_rows, "HalfRows", lambda v: made.append(1) or HalfRows(v))
    kept = figures(case, "b")
    assert len(made) >= 5
    for one, other in zip(unpacked, kept, strict=True):
        assert one == other
