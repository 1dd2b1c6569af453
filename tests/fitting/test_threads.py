"""How many threads are used where others use the machine, or a container has a part of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from era_cache.fitting import threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight cores, with a quota and a number of running processes that the test says."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)

    def found(quota: str, running: str) -> int:
        (tmp_path / "cpu.max").write_text(quota)
        (tmp_path / "stat").write_text(running)
        return threads.free_threads(tmp_path / "cpu.max", tmp_path / "stat")

    return found


@pytest.mark.parametrize(
    ("quota", "running", "expected"),
    [
        ("max 100000\n", "cpu 1 2\nprocs_running 1\n", 8),
        ("max 100000\n", "procs_running 4\n", 5),  # three others
        ("max 100000\n", "procs_running 30\n", 1),
        ("200000 100000\n", "procs_running 1\n", 2),
        ("150000 100000\n", "procs_running 1\n", 2),
        ("50000 100000\n", "procs_running 1\n", 1),
        ("200000 100000\n", "procs_running 4\n", 2),  # five are free
        ("nonsense", "procs_running many", 8),
        ("200000 0", "", 8),
    ],
)
def test_quota_and_others_bound_the_threads(machine, quota, running, expected) -> None:
    assert machine(quota, running) == expected


def test_without_such_files_all_that_is_allowed_is_used(tmp_path) -> None:
    found = threads.free_threads(tmp_path / "none", tmp_path / "none")
    assert found == len(os.sched_getaffinity(0))


def test_what_the_user_says_counts() -> None:
    code = (
        "from era_cache.fitting.threads import use_free_threads as u; import os; "
        "os.sched_getaffinity = lambda _: {0}; print(u(), u())"
    )

    def printed(**extra: str) -> list[str]:
        clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env=clean | extra, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert printed() == ["1", "1"]
    assert printed(OMP_NUM_THREADS="2") == ["2", "2"]
