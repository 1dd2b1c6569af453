"""Hostile strings in every place that takes text: a message, no traceback, nothing obeyed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from era_cache.cli import common, embed, evaluate, export, fit, search, serve, store

OBEYED = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202egpj.exe\u2066\nError: {0}%s{text.__class__}\r\n"
HOSTILE = {"obeyed": OBEYED, "long": "x" * 100_000, "device": "/dev/full"}
MAINS = {
    "embed": embed,
    "fit": fit,
    "eval": evaluate,
    "export": export,
    "search": search,
    "serve": serve,
    "store": store,
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and form by name."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for sub in command.commands:
                yield from walk(f"{name} {sub}", command.commands[sub])
            return
        yield name, command
        for form, other in getattr(command, "forms", {}).items():
            yield from walk(f"{name} {form}", other)

    for name, module in MAINS.items():
        yield from walk(name, module.main)


def takes_text(parameter: click.Parameter) -> bool:
    kinds = (click.types.StringParamType, click.Path, click.types.FuncParamType)
    return isinstance(parameter.type, kinds) and not getattr(parameter, "is_flag", False)


@pytest.fixture
def sound(built_hash_store, built_adapter, toy, tmp_path, monkeypatch) -> dict[str, object]:
    """A value for each argument that is not the hostile one; without models no run is long."""
    monkeypatch.chdir(tmp_path)
    return {
        "store_path": built_hash_store,
        "collections": "toy",
        "adapter": built_adapter,
        "collection": toy,
        "query_model": "no/model",
        "doc_model": "no/model",
        "model": "no/model",
        "out": tmp_path / "out",
        "folders": tmp_path,
        "file": built_adapter / "config.json",
        "path_a": built_hash_store,
        "path_b": built_hash_store,
        "vectors": tmp_path / "none.npy",
        "into": built_hash_store,
        "sources": built_hash_store,
        "url": "file:///nowhere",
        "grid": "temperature=0.05",
        "encoder": "none",
        "query": "words",
        "role": "query",
        "seed": 1,
        "names": "none",
        "old": "none",
        "new": "other",
        "kind": "npz",
        "adapters": built_adapter,
    }


def invoked(command: click.Command, sound: dict[str, object], place: str, value: str) -> Result:
    """Run a command with a value in one place, and check what every ending must be like."""
    arguments: list[str] = []
    for parameter in command.params:
        # A collection that is not there, where no run would be one of seconds.
        needed = parameter.required or parameter.name in ("collections", place)
        if not needed:
            continue
        given = value if parameter.name == place else str(sound[str(parameter.name)])
        option = isinstance(parameter, click.Option)
        arguments.append(f"{parameter.opts[0]}={given}" if option else given)
    # What an encoding lacks must not end the command either.
    result = CliRunner(charset="latin-1").invoke(command, arguments)
    where = "".join(traceback.format_exception(result.exception)) if result.exception else ""
    assert isinstance(result.exception, SystemExit | None), where
    assert result.exit_code in (0, 1, 2)
    shown = (result.stdout_bytes + result.stderr_bytes).decode("latin-1")
    assert shown.replace("\n", "").isprintable()
    assert len(shown) < 50_000
    return result


@pytest.mark.parametrize("name", dict(commands()))
def test_a_hostile_argument_ends_in_a_message_and_is_not_obeyed(sound, name):
    command = dict(commands())[name]
    places = [str(one.name) for one in command.params if takes_text(one)]
    assert places
    sound["collections"] = "toy" if name == "fit" else "none"
    for place in places:
        for value in HOSTILE.values():
            invoked(command, sound, place, value)
    for value in ("caf\udce9", "a\0b"):  # no text at all: told before any work
        result = invoked(command, sound, places[-1], value)
        assert (result.exit_code, "is no text in UTF-8" in result.output) == (2, True)


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict", "latin-1:strict"])
def test_no_encoding_of_the_output_ends_a_command(hash_store, encoding):
    moved = hash_store.path.rename(hash_store.path.with_name("caf\u00e9 \u6587"))

    def run(*words: str | bytes) -> subprocess.CompletedProcess[bytes]:
        code = "import sys; from era_cache.cli.store import main; main(sys.argv[1:])"
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=False,
        )

    found = run("info", str(moved), "no\u00e9")
    assert (found.returncode, b"Traceback" in found.stderr) == (1, False)
    assert b"no" in found.stderr
    found = run("verify", str(moved))
    assert (found.returncode, found.stderr) == (0, b"")
    found = run("ls", b"caf\xe9")
    assert (found.returncode, b"Traceback" in found.stderr) == (2, False)
    assert b"is no text in UTF-8" in found.stderr


@pytest.mark.parametrize("words", [["info", OBEYED], ["ls", OBEYED], ["verify", OBEYED]])
def test_a_terminal_is_shown_escapes_and_obeys_none(tmp_path, words):
    code = "import sys; from era_cache.cli.store import main; main(sys.argv[1:])"
    shown, outside = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            stdout=outside,
            stderr=outside,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(common.__file__).parents[2])},
            check=False,
        )
        text = os.read(shown, 1 << 16).decode()
    finally:
        os.close(outside)
        os.close(shown)
    assert done.returncode == 1
    assert "\\x1b]0;owned\\x07" in text
    assert text.replace("\r\n", "").isprintable()


def test_commands_print_through_one_door():
    """Only ``say``, ``note`` and the JSON and tables of ``cli.common`` write to the terminal."""
    folder = Path(common.__file__).parent
    for path in folder.glob("*.py"):
        if path.name != "common.py":
            assert not re.search(
                r"click\.s?echo|\bprint\(|sys\.std(out|err)\.write", path.read_text()
            )
