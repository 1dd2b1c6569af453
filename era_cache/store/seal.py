"""Sealing: one segment written, compared with what was meant, and only then given its name.

In: rows in their stored form, which can be given twice. Out: the segment's path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.disk.digests import now
from era_cache.disk.files import sha256_file, staged
from era_cache.disk.hdf5 import plain_writer
from era_cache.errors import FormatError
from era_cache.store.encoder_record import StoredSpec
from era_cache.store.precision import StoredRows
from era_cache.store.provenance import provenance_text
from era_cache.store.segment import Segment, open_segment, segment_attributes
from era_cache.types import Keys

__all__ = ["Plan", "seal"]


class Plan(NamedTuple):
    """A segment about to be written: how many rows, their form, and where they come from."""

    rows: int
    dtype: str
    blocks: Callable[[], Iterator[tuple[Keys, StoredRows]]]
    """Starts the rows from the beginning; called twice, the second time to compare."""


def seal(folder: Path, spec: StoredSpec, plan: Plan, provenance: dict[str, Any]) -> Path:
    """Write one segment, compare it with what was meant, and commit it."""
    created = now()
    note = provenance_text({**provenance, "created": created})
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "keys": (np.dtype("uint8"), (plan.rows, 16)),
        "vectors": (np.dtype(plan.dtype), (plan.rows, spec.dim)),
    }
    if plan.dtype == "int8":
        layout["scales"] = (np.dtype("float32"), (plan.rows,))
    attributes = segment_attributes(spec.fingerprint, plan.rows, spec.dim, plan.dtype, note)
    with staged(folder, ".h5") as (temporary, commit):
        with plain_writer(temporary, layout, attributes) as writer:
            done = 0
            for keys, rows in plan.blocks():
                for name, array in {"keys": keys, **rows.arrays()}.items():
                    writer.write(name, done, array)
                done += len(keys)
        _compare(open_segment(temporary, spec.fingerprint, spec.dim), plan)
        path: Path = commit(f"{sha256_file(temporary)}.h5")
        return path


def _compare(written: Segment, plan: Plan) -> None:
    """Read a new file back before it gets its name. Raises ``FormatError`` where it differs."""
    # Not through a memory map: its pages would count as this process's memory.
    with written.plain.opened() as reader:
        done = 0
        for keys, rows in plan.blocks():
            for name, array in {"keys": keys, **rows.arrays()}.items():
                step = max(1, (8 << 20) * len(array) // array.nbytes)
                for start in range(0, len(array), step):
                    meant = array[start : start + step]
                    back = np.empty(meant.shape, meant.dtype)
                    reader.read(name, done + start, back)
                    if not np.array_equal(back, meant):
                        raise FormatError(
                            f"{written.path}: read back other bytes than were written. Check the "
                            "disk."
                        )
            done += len(keys)
