"""Every command line of the README and the site is taken by its command, and the tutorial runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from commands import FORMS
from error_messages import KINDS, messages

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^ *```[a-z]*\n(.*?)^ *```$|((?:^(?: {4,}|\t)[^\n]*\n)+)", re.DOTALL | re.MULTILINE
)
TUTORIAL = re.compile(r"<!-- test: tutorial -->\n```\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def command_lines(text: str) -> list[str]:
    """Lines of blocks that begin with a command of ours, continued ones joined."""
    found = []
    for name, value in re.findall(r'^ *(\w+)="([^"$]*)"$', text, re.MULTILINE):
        text = text.replace(f" ${name} ", f" {value} ")
    for fenced, indented in BLOCK.findall(text):
        lines = re.sub(r"\\\n\s*", " ", fenced or indented).splitlines()
        for line in lines:
            # Further to the right they are words of a picture.
            match = re.match(r" {0,8}(?:\$ |\.venv/bin/|\w+=\S+ )*(era-[a-z]+(?: .*)?)$", line)
            if match and "…" not in match[1]:
                found.append(match[1])
    return found


ALL = [
    pytest.param(line, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, line in enumerate(command_lines(page.read_text("utf-8")), start=1)
]


def test_lines_are_found_where_they_are():
    text = "a\n\n    era-embed x \\\n        --store y   # why\n\n```\nera-fit a b\nother\n```\n"
    assert command_lines(text) == ["era-embed x  --store y   # why", "era-fit a b"]
    assert len(ALL) > 60


@pytest.mark.parametrize("line", ALL)
def test_a_command_line_is_taken(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)
    for sign in ("|", ">", "&&", "&", ";"):
        words = words[: words.index(sign)] if sign in words else words
    typed = " ".join(words[:2]) if " ".join(words[:2]) in FORMS else words[0]
    command, rest = FORMS[typed], words[len(typed.split()) :]
    if not rest or isinstance(command, click.Group):
        assert not rest or rest[0] in getattr(command, "commands", {})
        return
    with command.make_context(typed, rest):
        pass


def test_a_line_with_an_option_that_is_none_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError):
        FORMS["era-fit"].make_context("era-fit", ["store", "x", "--out", "a", "--no-such-option"])


def test_the_tutorial_runs(models, tmp_path):
    blocks = TUTORIAL.findall((ROOT / "docs" / "tutorial.md").read_text("utf-8"))
    assert len(blocks) >= 4
    (tmp_path / "data").symlink_to(ROOT / "data")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"LARGE": str(models["large"]), "SMALL": str(models["small"]), "PATH": path}
    done = subprocess.run(
        ["bash", "-euxc", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adapter" / "evaluation" / "report.html").is_file()
    assert (tmp_path / "mine-npz").is_dir()


def test_every_test_that_a_page_names_is_there():
    page = (ROOT / "docs" / "wrong-vectors.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= 12
    assert {name for name in named if f"def {name}(" not in text} == set()


def test_messages_are_read_from_the_source():
    found = messages()
    assert {one.kind for one in found} >= set(KINDS) - {"EraError"}
    wanted = "not a store (no store.json). era-embed makes one; check the path."
    (known,) = (one for one in found if one.text == wanted)
    assert (known.kind, known.place) == ("StoreError", "store.store")
