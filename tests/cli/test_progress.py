"""Long steps speak: a bar on a terminal, lines in a log, nothing where that is asked for."""

from __future__ import annotations

import json
import time

import click
import pytest
from click.testing import CliRunner
from command_case import MODELS, done, embedded_in, run

from era_cache.cli import embed, fit, progress
from era_cache.cli.common import note


@progress.quiet_option
@click.command()
def _counting() -> None:
    with progress.progress() as bars:
        bars("loading a model", 0, 0)
        for at in range(0, 101):
            bars("documents", at, 100)
        progress.tell("told …")
    note("noted")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; each look takes a quarter of a second."""
    now = [0.0]

    def look() -> float:
        now[0] += 0.25
        return now[0]

    monkeypatch.setattr(time, "monotonic", look)
    return now


def test_a_log_gets_a_line_every_tenth_after_two_seconds(clock) -> None:
    lines = CliRunner().invoke(_counting).stderr.splitlines()
    assert lines == [
        "loading a model …",
        *(f"documents: {at} of 100 ({at} %)" for at in range(10, 101, 10)),
        "told …",
        "noted",
    ]


def test_slow_steps_speak_every_ten_seconds(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = progress._Lines()
    told: list[str] = []
    monkeypatch.setattr(progress, "note", told.append)
    for at in range(5):
        lines("queries", at, 1000)
        now[0] += 6.0
    assert told == ["queries: 2 of 1,000 (0 %)", "queries: 4 of 1,000 (0 %)"]


def test_what_is_over_at_once_needs_no_line() -> None:
    assert CliRunner().invoke(_counting).stderr.splitlines() == [
        "loading a model …",
        "told …",
        "noted",
    ]


def test_quiet_says_nothing_but_what_must_be_known(case) -> None:
    assert CliRunner().invoke(_counting, ["--quiet"]).stderr == "noted\n"
    words = [case / "beir", *MODELS, "--store", case / "store"]
    assert "loading hash-16 …" in done(run(embed.main, *words)).stderr
    embedded_in(case)
    words = [case / "store", "beir", "--out", case / "a", "--set", "iterations=2"]
    assert "fitting queries by hash-24" in done(run(fit.main, *words)).stderr
    quiet = done(run(fit.main, *words, "--quiet")).stderr
    assert "fitting" not in quiet
    assert "replaced the adapter" in quiet


def test_progress_as_json_is_a_line_for_each_step(case) -> None:
    words = [case / "beir", *MODELS, "--store", case / "store", "--progress", "json"]
    result = done(run(embed.main, *words))
    lines = [json.loads(one) for one in result.stderr.splitlines() if one.startswith("{")]
    steps = [one for one in lines if "progress" in one]
    assert {one["progress"] for one in steps}
    for one in steps:
        assert set(one) == {"progress", "done", "total", "unit", "seconds"}
        assert 0 <= one["done"] <= one["total"]
    last = {one["progress"]: one for one in steps}
    assert all(one["done"] == one["total"] for one in last.values())
    quiet = done(run(embed.main, *words, "--quiet"))
    assert not any(one.startswith("{") for one in quiet.stderr.splitlines())
