"""Single bytes flipped at random: verification finds each, and no reader that checks serves one."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.common import Bar
from benchmarks.store_rows import DIM, expected_rows
from era_cache.collection.keys import row_keys
from era_cache.errors import FormatError
from era_cache.store.store import Store
from era_cache.store.verify import verify
from era_cache.types import Role
from tests.hash_encoder import HashEncoder

__all__ = ["flip_bars", "run_flips"]

_ROWS = 60


def run_flips(folder: Path, flips: int, seed: int = 0) -> tuple[int, int]:
    """Flip bytes of the segments of a store, one at a time.

    Returns:
        How many verification did not find, or laid at another file's door; how many were served.
    """
    store = Store.create(folder / "flips")
    keys = row_keys(Role.DOCUMENT, [f"text {number}" for number in range(_ROWS)])
    for number, dtype in enumerate(("float32", "float16", "int8")):
        spec = HashEncoder(DIM, dtype).spec
        with store.writer(spec, Role.DOCUMENT, DIM, dtype=dtype) as writer:
            writer.write(keys, expected_rows(keys, number))
    encoders = store.encoders()
    missed = served = 0
    rng = random.Random(seed)
    for _ in range(flips):
        encoder = rng.choice(encoders)
        (path,) = encoder.segment_paths()
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        named = [finding.path for finding in verify(store).of_level("damage")]
        missed += named != [path.relative_to(store.path).as_posix()]
        try:
            encoder.vectors(keys, check=True)
            served += 1
        except FormatError:
            pass
        path.write_bytes(sound)
    return missed, served


def flip_bars(folder: Path, flips: int) -> list[Bar]:
    """The bars of some flips."""
    missed, served = run_flips(folder, flips)
    name = f"{flips:,} flipped bytes"
    return [
        Bar(name, "not found by verify: 0", str(missed), missed == 0),
        Bar(name, "served with check=True: 0", str(served), served == 0),
    ]
