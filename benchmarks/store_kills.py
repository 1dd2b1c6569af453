"""Processes killed at random moments: what was committed stays, and nothing else is believed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Bar
from benchmarks.store_child import seeds
from benchmarks.store_rows import read_log, try_open, wrong_rows
from era_cache.collection.keys import distinct_rows
from era_cache.disk.files import TEMPORARY_PREFIX
from era_cache.errors import EraError
from era_cache.store.verify import verify
from era_cache.types import Keys

__all__ = ["begin", "kill_bars", "start_child", "stop_all"]

JOBS = ("embed", "embed", "put", "compact", "merge")
# A store grows with each run; a new one keeps the checks short.
_KILLS_PER_STORE = 25
_LONGEST_SECONDS = 0.35


def start_child(
    job: str, options: dict[str, Any], inside: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a child, by a program if one is given; it waits for a line on its stdin."""
    command = [*inside, sys.executable, "-m", "benchmarks.store_child", job, json.dumps(options)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )


def begin(child: subprocess.Popen[str]) -> None:
    """Wait until a child is ready, and let it work."""
    assert child.stdout is not None
    assert child.stdin is not None
    if child.stdout.readline() != "ready\n":
        raise RuntimeError("a child did not start")
    child.stdin.write("\n")
    child.stdin.flush()


def stop_all(children: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Wait for the end of children; gives what each printed. One that fails ends all of them."""
    outs = [child.communicate()[0] for child in children]
    failed = [child.returncode for child in children if child.returncode]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(children)} children ended with {failed[0]}")
    return [json.loads(out) for out in outs]


class KilledStore:
    """One store, whose writers are killed again and again.

    Args:
        folder: for the store and its scratch files.
        seed: chooses jobs and moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.path, self._folder = folder / "store", folder
        folder.mkdir()
        self._rng = random.Random(seed)
        self._required: dict[str, Keys] = {}
        self._started = 0
        self.tally: Counter[str] = Counter()

    def prepared(self, job: str | None = None, **more: Any) -> subprocess.Popen[str]:
        """A child that is about to work."""
        self._started += 1
        job = job or self._rng.choice(JOBS)
        options = {
            "store": str(self.path),
            "scratch": str(self._folder),
            "log": str(self._folder / f"{self._started}.log"),
            # Jobs go on where others were, and overlap with them.
            "first": 400 * self._rng.randrange(20),
            "seed": self._started,
            **more,
        }
        self.tally[f"job {job}"] += 1
        return start_child(job, options)

    def kill(self, child: subprocess.Popen[str]) -> None:
        """Let a child work for a random time, and kill it."""
        begin(child)
        time.sleep(self._rng.uniform(0, _LONGEST_SECONDS))
        if child.poll() is not None:
            raise RuntimeError("a child ended before it was killed")
        child.send_signal(signal.SIGKILL)
        child.communicate()

    def check(self, number: int) -> None:
        """Compare the store with all that its writers committed."""
        self._take_log(self._folder / f"{number}.log")
        self.tally["kills"] += 1
        self.tally["temporaries"] += len(list(self.path.rglob(f"{TEMPORARY_PREFIX}*")))
        store = try_open(self.path)
        if isinstance(store, EraError):
            # Killed before store.json was there, nothing can have been committed.
            unborn = not (self.path / "store.json").exists() and not self._required
            self.tally["unborn" if unborn else "not open"] += 1
            return
        self.tally.update(wrong_rows(store, seeds(), self._required))

    def _take_log(self, path: Path) -> None:
        for fingerprint, groups in read_log(path).items():
            before = self._required.get(fingerprint, np.empty((0, 16), np.uint8))
            keys = np.concatenate([before, *groups])
            self._required[fingerprint] = keys[distinct_rows(keys)]

    def finish(self) -> None:
        """One undisturbed run, after which nothing is left to clean."""
        child = self.prepared("finish", steps=1)
        number = self._started
        begin(child)
        stop_all([child])
        self.check(number)
        self.tally["kills"] -= 1
        store = try_open(self.path)
        if isinstance(store, EraError):
            return
        report = verify(store)
        self.tally["damage"] += len(report.of_level("damage"))
        self.tally["left over"] += report.temporaries + len(report.orphans)
        self.tally["required"] += sum(map(len, self._required.values()))


def run_kills(folder: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Kill writers, on a new store from time to time; gives what was counted."""
    tally: Counter[str] = Counter()
    for start in range(0, kills, _KILLS_PER_STORE):
        one = KilledStore(folder / f"kills-{start}", seed + start)
        child = one.prepared()
        for number in range(1, min(_KILLS_PER_STORE, kills - start) + 1):
            # The next child imports while this one works and is looked after.
            following = one.prepared()
            one.kill(child)
            one.check(number)
            child = following
        child.kill()
        child.communicate()
        one.finish()
        tally.update(one.tally)
    return tally


def kill_bars(folder: Path, kills: int) -> list[Bar]:
    """The bars of ``kills`` kills."""
    tally = run_kills(folder, kills)
    lost, broken = tally["missing"] + tally["wrong"], tally["not open"]
    jobs = ", ".join(f"{job}: {tally[f'job {job}']}" for job in dict.fromkeys(JOBS))
    name = f"{tally['kills']} SIGKILLs ({jobs})"
    figure = f"{lost} ({tally['rows']:,} rows read, {tally['required']:,} committed at the ends)"
    left = tally["left over"] + tally["damage"]
    found = f"{left} ({tally['temporaries']} temporaries seen on the way)"
    return [
        Bar(name, "committed rows lost or wrong: 0", figure, lost == 0),
        Bar(name, "stores that do not open: 0", f"{broken}", broken == 0),
        Bar("after an undisturbed run", "left over or damaged: 0", found, left == 0),
    ]
