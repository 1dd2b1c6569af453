"""Commands one after another on a collection of planted words, with no model to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from beir_folder import beir_of
from click.testing import CliRunner, Result
from hash_encoder import HashEncoder
from planted import planted_texts

from era_cache.cli import embed, evaluate, fit

__all__ = [
    "MODELS",
    "built_real",
    "case",
    "done",
    "embedded_in",
    "evaluated",
    "fitted",
    "run",
]

MODELS = ("--query-model", "L", "--doc-model", "S")


def run(command: object, *arguments: object) -> Result:
    """Run a command, whatever comes of it."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def done(result: Result) -> Result:
    """The same result, if it is a success."""
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def case(tmp_path, monkeypatch) -> Path:
    """A folder with the collection ``beir``; era-embed finds two encoders of hashes."""
    pair = HashEncoder(24, seed="large"), HashEncoder(16, seed="small")
    monkeypatch.setattr(embed, "_encoders", lambda *_: pair)
    beir_of(tmp_path, planted_texts())
    return tmp_path


def embedded_in(case: Path, *options: object, collection: str = "beir") -> dict[str, Any]:
    """What era-embed says of the collection."""
    words = [*MODELS, "--store", case / "store", "--json", *options]
    found: dict[str, Any] = json.loads(done(run(embed.main, case / collection, *words)).stdout)
    return found


def fitted(
    case: Path, *options: object, out: str = "a", collection: str = "beir"
) -> dict[str, Any]:
    """What era-fit says, quickly and at 40 % of the labels."""
    words = ["--out", case / out, "--labels", 40, "--set", "iterations=2", "--json", *options]
    result = done(run(fit.main, case / "store", collection, *words))
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def evaluated(case: Path, *options: object, adapter: str = "a") -> dict[str, Any]:
    """What era-eval says."""
    words = [case / "store", case / adapter, "--json", "--device", "cpu", *options]
    found: dict[str, Any] = json.loads(done(run(evaluate.main, *words)).stdout)
    return found


@pytest.fixture(scope="session")
def built_real(toy, models, tmp_path_factory) -> Path:
    """A folder with ``stores/toy``, made by the demo's real encoders, and ``adapters/toy``."""
    folder: Path = tmp_path_factory.mktemp("real")
    store = folder / "stores" / "toy"
    pair = ["--query-model", models["large"], "--doc-model", models["small"]]
    prompt = ["--large-query-template", "Answer: {text}"]
    done(run(embed.main, toy, "--store", store, *pair, *prompt, "--bm25"))
    words = ["--out", folder / "adapters" / "toy", "--labels", "40", "--set", "iterations=2"]
    done(run(fit.main, store, "toy", *words, "--candidate", "era-dual"))
    return folder
