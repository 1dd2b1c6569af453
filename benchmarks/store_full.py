"""A disk that is full: at one write after the other, on a real file system of that size.

``python -m benchmarks.store_full FOLDER STEPS`` is the part that runs in a mount space of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.common import Bar, skipped
from benchmarks.store_child import LARGE, SMALL, seeds
from benchmarks.store_rows import PatternEncoder, numbered_texts, wrong_rows
from era_cache.disk.files import TEMPORARY_PREFIX
from era_cache.encode.config import EmbedConfig
from era_cache.encode.embed import embed_collection
from era_cache.errors import StoreError
from era_cache.store.contents import diff
from era_cache.store.store import Store
from era_cache.store.verify import verify

__all__ = ["full_bars", "run_full"]

_INSIDE = ("unshare", "--map-root-user", "--mount")
_TEXTS, _MORE = 300, 3000
_PAGE = 4096


def full_bars(folder: Path, steps: int) -> list[Bar]:
    """A store whose disk has room for less and less of what is to be embedded."""
    name = f"a full disk at {steps} places of a run"
    found = run_full(folder, steps)
    if found is None:
        return [skipped(name, "this system lets us mount nothing (unshare)")]
    figure = f"{found['full']} runs were told so, {found['went through']} had room, " + ", ".join(
        f"{found[what]} {what}" for what in ("changed", "left over", "damaged", "not mended")
    )
    bad = sum(found[what] for what in ("changed", "left over", "damaged", "not mended", "other"))
    return [Bar(name, "one error each, nothing lost", figure, bad == 0 and found["full"] > 0)]


def run_full(folder: Path, steps: int) -> dict[str, int] | None:
    """Counts of what went how; None where nothing can be mounted."""
    probe = [*_INSIDE, "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        able = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        able = False
    if not able:
        return None
    command = [*_INSIDE, sys.executable, "-m", __name__, str(folder), str(steps)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _embed(store: Store, count: int) -> None:
    large, small = PatternEncoder(LARGE), PatternEncoder(SMALL)
    config = EmbedConfig(dtype="float32")
    embed_collection(store, numbered_texts(0, count), large=large, small=small, config=config)


def _bytes_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _mount(place: Path, size: int, *options: str) -> None:
    words = ",".join([*options, f"size={size}"])
    subprocess.run(["mount", "-t", "tmpfs", "-o", words, "none", str(place)], check=True)


def _steps(folder: Path, steps: int) -> dict[str, int]:
    """In a mount space of our own."""
    before, whole, place = folder / "before", folder / "whole", folder / "small"
    _embed(Store.create(before), _TEXTS)
    shutil.copytree(before, whole)
    _embed(Store.open(whole), _MORE)
    place.mkdir()
    first, last = (_used(store, place) for store in (before, whole))
    counts: dict[str, int] = dict.fromkeys(
        ("full", "went through", "other", "changed", "left over", "damaged", "not mended"), 0
    )
    for step in range(steps):
        # A little less than fits the whole, in the end: what is merged is written twice.
        size = first + (last - first) * 2 * step // steps // _PAGE * _PAGE
        _mount(place, size)
        _one(before, whole, place, last * 4, counts)
        subprocess.run(["umount", str(place)], check=True)
    return counts


def _used(store: Path, place: Path) -> int:
    """Bytes of a file system that holds a copy of a store and no more."""
    _mount(place, 1 << 30)
    shutil.copytree(store, place / "store")
    state = os.statvfs(place)
    subprocess.run(["umount", str(place)], check=True)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def _one(before: Path, whole: Path, place: Path, enough: int, counts: dict[str, int]) -> None:
    shutil.copytree(before, place / "store")
    store = Store.open(place / "store")
    had = _bytes_of(store.path)
    try:
        _embed(store, _MORE)
        counts["went through"] += 1
    except StoreError as error:
        counts["full" if "disk is full" in str(error) else "other"] += 1
        has = _bytes_of(store.path)
        counts["changed"] += sum(has.get(name) != content for name, content in had.items())
        counts["left over"] += sum(Path(name).name.startswith(TEMPORARY_PREFIX) for name in has)
    counts["damaged"] += not _sound(Store.open(store.path))
    _mount(place, enough, "remount")
    _embed(Store.open(store.path), _MORE)
    counts["not mended"] += not diff(Store.open(store.path), Store.open(whole)).same


def _sound(store: Store) -> bool:
    return verify(store).ok and not wrong_rows(store, seeds(), {})["wrong"]


if __name__ == "__main__":
    print(json.dumps(_steps(Path(sys.argv[1]), int(sys.argv[2]))))
