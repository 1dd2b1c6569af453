"""What the package wants, and the two sets of releases that CI tries it with."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRIED = ("serve", "parquet", "bm25", "api")
"""Extras that ``bin/try-wheel`` installs."""


def wanted():
    """Name to lowest release, as setup.cfg has it, of the package and the tried extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].splitlines()
    for extra in TRIED:
        lines += setup["options.extras_require"][extra].splitlines()
    pairs = (re.fullmatch(r"([\w.-]+)>=([\d.]+)", line) for line in lines if line.strip())
    return {match[1].lower().replace("_", "-"): match[2] for match in pairs if match}


def listed(name):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {package.lower().replace("_", "-"): release for package, release in pairs}


def numbers(release):
    found = [int(part) for part in re.findall(r"\d+", release)]
    return found + [0] * (6 - len(found))


def test_the_lowest_releases_are_those_that_setup_allows():
    lowest = {name: numbers(release) for name, release in listed("lowest").items()}
    allowed = {name: numbers(release) for name, release in wanted().items() if name != "torch"}
    assert lowest == allowed


def test_the_newest_releases_are_allowed_and_none_is_missing():
    newest, allowed = listed("newest"), wanted()
    del allowed["torch"]
    assert set(allowed) <= set(newest)
    assert all(numbers(newest[name]) >= numbers(release) for name, release in allowed.items())


@pytest.mark.skipif(sys.platform == "win32", reason="scripts are for shells")
def test_scripts_can_be_run():
    for name in ("demo", "life-cycle", "try-wheel"):
        assert (ROOT / "bin" / name).stat().st_mode & 0o111


def test_licences_are_told_of_every_dependency():
    from licences import rows

    found = {package.lower(): (release, licence) for package, release, licence, _ in rows()}
    assert set(wanted()) <= {name.replace("_", "-") for name in found}
    assert all(licence for release, licence in found.values() if release != "not here")
