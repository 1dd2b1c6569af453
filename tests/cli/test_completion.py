"""Tab: names come from the store and the adapter at hand, in every shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "bin"


def _completed(command: str, words: list[object], shell: str = "bash") -> list[str]:
    """What a shell would offer for the last of some words."""
    line = [command, *map(str, words)]
    environment = {
        **os.environ,
        f"_{command.upper().replace('-', '_')}_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(line[:-1] if shell == "fish" else line),
        "COMP_CWORD": line[-1] if shell == "fish" else str(len(line) - 1),
    }
    done = subprocess.run(
        [sys.executable, BIN / command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    if shell == "zsh":  # kind, name, help
        return done.stdout.splitlines()[1::3]
    lines = filter(None, done.stdout.splitlines())
    return [one.partition(",")[2].partition("\t")[0] for one in lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_names_of_a_store_and_an_adapter(built_hash_store, built_adapter, shell) -> None:
    store, adapter = built_hash_store, built_adapter
    for command, words, expected in (
        ("era-fit", [store, "t"], {"toy"}),
        ("era-fit", [store, "toy", "--set", "temper"], {"temperature="}),
        ("era-fit", [store, "toy", "--candidate", "era-"], {"era-dual", "era-zero"}),
        ("era-fit", [store, "toy", "--query-encoder", "h"], {"hash-16", "hash-32"}),
        ("era-search", [store, adapter, "--candidates", "small,ali"], {"small,aligned"}),
        ("era-search", [store, adapter, "--collection", ""], {"toy"}),
        ("era-export", [adapter, "--candidate", "sm"], {"small", "small+"}),
        ("era-export", [adapter, "--to", "on"], {"onnx"}),
        ("era-store", ["export", store, "hash-1"], {"hash-16"}),
        ("era-store", ["ver"], {"verify"}),
    ):
        assert set(_completed(command, words, shell)) == expected, (command, words)


def test_what_cannot_be_read_offers_nothing(tmp_path) -> None:
    assert _completed("era-fit", [tmp_path, "t"]) == []
    (tmp_path / "config.json").write_text("[")
    assert _completed("era-export", [tmp_path, "--candidate", "s"]) == []


def test_bash_itself_completes(built_hash_store) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    script = f"""
eval "$(_ERA_FIT_COMPLETE=bash_source era-fit)"
COMP_WORDS=(era-fit {built_hash_store} t); COMP_CWORD=2
_era_fit_completion era-fit
echo "${{COMPREPLY[@]}}"
"""
    path = f"{BIN}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["toy"], done.stderr
