"""An adapter as arrays for other languages: ``.npz``, or safetensors with JSON beside it.

In: an adapter. Out: files whose meaning docs/format.md gives, with a test vector to check an
implementation by.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from era_cache.disk.files import write_bytes
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.adapter_folder import TABLE_SETTINGS, tensors_of
from era_cache.types import Array, FloatArray

__all__ = ["sample_views", "table_settings", "write_npz", "write_safetensors"]

_TEST_ROWS = 4


def table_settings(adapter: Adapter) -> list[dict[str, Any]]:
    """What reference tables are beside their vectors (JSON)."""
    return [{name: getattr(one, name) for name in TABLE_SETTINGS} for one in adapter.references]


def sample_views(adapter: Adapter, rows: int, seed: int = 0) -> dict[str, FloatArray]:
    """Random unit rows of each view that an adapter reads, to compare implementations with."""
    generator = np.random.default_rng(seed)
    small = adapter.weight.shape[0]
    joined = adapter.weight.shape[1]
    widths = {"small": small, "large": joined - small * ("small" in adapter.views)}
    found: dict[str, FloatArray] = {}
    for view in adapter.views:
        vectors = generator.standard_normal((rows, widths[view])).astype(np.float32)
        tables = [table for table in adapter.references if table.view == view]
        if tables:  # near a reference, where these weigh
            keys = tables[0].keys.cpu().numpy()
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors + keys[generator.integers(len(keys), size=rows)]
        found[view] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def _test_vectors(adapter: Adapter) -> dict[str, FloatArray]:
    views = sample_views(adapter, _TEST_ROWS)
    return {**{f"test.{v}": rows for v, rows in views.items()}, "test.out": adapter.apply(views)}


def write_npz(out: Path, adapter: Adapter) -> None:
    """Write ``adapter.npz``: the tensors, ``settings`` (JSON) and a test vector."""
    settings = {"views": adapter.views, "references": table_settings(adapter)}
    arrays: Mapping[str, Array] = {
        **tensors_of(adapter),
        **_test_vectors(adapter),
        "settings": np.array(json.dumps(settings)),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(out / "adapter.npz", buffer.getvalue())


def write_safetensors(out: Path, adapter: Adapter) -> None:
    """Write ``adapter.safetensors``, ``adapter.json`` and ``test-vector.json``."""
    from safetensors.numpy import save

    write_bytes(out / "adapter.safetensors", save(tensors_of(adapter)))
    settings = {
        "format": "era-map",
        "version": 1,
        "views": adapter.views,
        "references": table_settings(adapter),
    }
    write_bytes(out / "adapter.json", (json.dumps(settings, indent=2) + "\n").encode())
    vectors = {name.removeprefix("test."): v.tolist() for name, v in _test_vectors(adapter).items()}
    write_bytes(out / "test-vector.json", json.dumps(vectors).encode())
