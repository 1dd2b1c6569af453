"""Exchanged folders: one writer killed at every step, several at once, and what they leave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from era_cache.disk import folders
from era_cache.disk.files import temporary_name
from era_cache.disk.folders import exchanged, restore
from era_cache.errors import StoreError

OWN = ("a", "b")
_STEPS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"})


def write(folder: Path, text: str) -> None:
    with exchanged(folder, OWN) as new:
        for name in OWN:
            (new / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "target"
    write(folder, "old")
    (folder / "mine").write_text("kept")
    return folder


def in_child(work: Callable[[], object]) -> int:
    """The exit status of a forked process that does some work."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:  # a fork of the test run must not go on as one
            os._exit(1)
    return os.waitpid(child, 0)[1]


def killed_at(step: int, work: Callable[[], object]) -> Callable[[], object]:
    """The same work, killed before its file operation number ``step``."""

    def run() -> None:
        left = [step]

        def count(event: str, _: object) -> None:
            if event in _STEPS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()

    return run


def test_new_content_takes_the_place_and_what_is_not_ours_stays(folder):
    write(folder, "new")
    assert contents(folder) == {"a": "new", "b": "new", "mine": "kept"}
    assert beside(folder) == []


def test_a_folder_and_its_parents_are_made(tmp_path):
    write(tmp_path / "x" / "y", "new")
    assert contents(tmp_path / "x" / "y") == {"a": "new", "b": "new"}


def test_behind_a_link_the_folder_is_exchanged_and_not_the_link(folder, tmp_path):
    link = tmp_path / "links" / "link"
    link.parent.mkdir()
    link.symlink_to(folder)
    write(link, "new")
    assert link.is_symlink()
    assert contents(folder)["a"] == "new"


def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_content(folder, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    status, step, seen = -1, 0, []
    while status != 0:
        write(folder, "old")
        status = in_child(killed_at(step, lambda: write(folder, "new")))
        assert status in (0, signal.SIGKILL)
        away = not folder.exists()
        restore(folder)
        found = contents(folder)
        assert (found["a"], found["b"]) in [("old", "old"), ("new", "new")]
        seen.append((away, found["a"]))
        step += 1
        # The next writer finishes what was left: nothing lies beside, nobody's file is lost.
        write(folder, "next")
        assert contents(folder) == {"a": "next", "b": "next", "mine": "kept"}
        assert beside(folder) == []
    assert {(True, "old"), (False, "old"), (False, "new")} == set(seen)


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("state", ["old", "new"])
def test_an_exchange_that_fails_leaves_the_folder_as_it_was(folder, monkeypatch, error, state):
    before, rename = contents(folder), Path.rename
    failed = []

    def fail(path: Path, target: Path) -> Path:
        taken_away = state == "new" and path.name.endswith(".new") and not folder.exists()
        if not failed and (taken_away or target.name.endswith(f".{state}")):
            failed.append(path)
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises((StoreError, KeyboardInterrupt)):
        write(folder, "new")
    assert failed
    assert contents(folder) == before
    assert beside(folder) == []


def test_a_block_that_fails_leaves_the_folder_as_it_was(folder):
    before = contents(folder)
    with pytest.raises(FileNotFoundError), exchanged(folder, OWN) as new:
        (new / "a" / "b").write_text("new")
    assert contents(folder) == before
    assert beside(folder) == []


def test_writers_and_readers_at_once_see_whole_content(folder):
    stop = multiprocessing.Event()

    def write_many(name: str) -> None:
        for number in range(30):
            write(folder, f"{name}{number}")

    def read_many() -> None:
        while not stop.is_set():
            restore(folder)
            handle = None
            try:
                handle = os.open(folder, os.O_RDONLY)
                texts = {Path(f"/proc/self/fd/{handle}/{name}").read_text() for name in OWN}
                assert len(texts) == 1
            except FileNotFoundError:
                continue  # between two renames, or deleted while it was read
            finally:
                if handle is not None:
                    os.close(handle)

    readers = [multiprocessing.get_context("fork").Process(target=read_many) for _ in range(2)]
    writers = [
        multiprocessing.get_context("fork").Process(target=write_many, args=(name,))
        for name in "xyz"
    ]
    for process in (*readers, *writers):
        process.start()
    for process in writers:
        process.join()
    stop.set()
    for process in readers:
        process.join()
    assert [process.exitcode for process in (*readers, *writers)] == [0] * 5
    found = contents(folder)
    assert found["a"] == found["b"]
    assert found["mine"] == "kept"
    assert beside(folder) == []


def test_a_slow_writer_goes_on_where_a_reader_put_the_old_content_back(folder, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    rename, waiting, go_on = Path.rename, threading.Event(), threading.Event()

    def slow(path: Path, target: Path) -> Path:
        done = rename(path, target)
        if target.name.endswith(".old") and not waiting.is_set():
            waiting.set()
            go_on.wait(10)
        return done

    monkeypatch.setattr(Path, "rename", slow)
    writer = threading.Thread(target=write, args=(folder, "new"))
    writer.start()
    assert waiting.wait(10)
    assert not folder.exists()
    restore(folder)
    assert contents(folder)["a"] == "old"
    go_on.set()
    writer.join()
    assert contents(folder) == {"a": "new", "b": "new", "mine": "kept"}
    assert beside(folder) == []


def test_a_reader_waits_for_a_writer_that_is_between_its_renames(folder, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 5.0)
    away = folder.with_name(temporary_name(folders._ending(folder, "old")))
    folder.rename(away)
    timer = threading.Timer(0.3, write_there, (folder,))
    timer.start()
    start = time.monotonic()
    restore(folder)
    assert 0.1 < time.monotonic() - start < 4
    assert contents(folder) == {"a": "new"}
    assert away.exists()
    timer.join()


def write_there(folder: Path) -> None:
    new = folder.with_name("other")
    new.mkdir()
    (new / "a").write_text("new")
    new.rename(folder)


def test_only_what_dead_or_day_old_writers_left_goes(folder, dead_pid):
    own = temporary_name(folders._ending(folder, "new"))
    dead = own.replace(f"-{os.getpid()}-", f"-{dead_pid}-")
    elsewhere = f".tmp-another-{dead_pid}-1{folders._ending(folder, 'new')}"
    old = f".tmp-another-1-2{folders._ending(folder, 'new')}"
    others = temporary_name(folders._ending(folder.with_name("other"), "new"))
    for name in (own, dead, elsewhere, old, others):
        (folder.parent / name).mkdir()
    os.utime(folder.parent / old, (time.time() - 25 * 3600,) * 2)
    write(folder, "new")
    assert beside(folder) == sorted([own, elsewhere, others])
