"""What tests of stores share: a store with one encoder that has no rows yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_stores import DIM, SPEC

from era_cache.store.store import Store
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.types import Role


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


@pytest.fixture
def encoder(store: Store) -> StoredEncoder:
    """The documents of an encoder of 3 dimensions."""
    return store.add_encoder(SPEC, Role.DOCUMENT, DIM)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where there is nothing yet."""
    return tmp_path / "into"
