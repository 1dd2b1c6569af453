"""Many small segments: no file is held for each, and they are merged as they come."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_stores import DIM, numbered, rows, spec_of, write

from era_cache.errors import FormatError
from era_cache.store import write_segments
from era_cache.store.names import SEGMENT_NAME, list_names
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role

COUNT, FILES = 150, 100

COMMANDS = """
import json, resource, sys
from click.testing import CliRunner
from era_cache.cli.store import main
store, files = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
found = []
for words in (["ls", store], ["info", store], ["verify", store], ["gc", store],
              ["export", store, "model", "--all", "--out", store + ".npy"],
              ["pack", store, store + ".tar"], ["merge", store + "-2", store],
              ["compact", store], ["verify", store]):
    result = CliRunner().invoke(main, words)
    found.append([words[0], result.exit_code, result.output])
print(json.dumps(found))
"""


@pytest.fixture
def encoder(tmp_path):
    return Store.create(tmp_path / "s").add_encoder(spec_of(), Role.DOCUMENT, DIM)


def add(encoder, number: int) -> None:
    """Add one row as a command does: with a writer of its own, left normally."""
    with SegmentWriter(encoder, {"run": number}, dtype="float32") as writer:
        writer.write(numbered(number), rows(number))


def names(encoder) -> list[str]:
    return list_names(encoder.folder / "segments", SEGMENT_NAME)


def test_no_command_holds_a_file_for_each_segment(encoder, tmp_path):
    for number in range(COUNT):
        write(encoder, number)
    assert len(names(encoder)) == COUNT
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = len(
        list(Path("/proc/self/fd").iterdir())
    )  # of tests before, some of whose libraries keep files
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (others + FILES, before[1]))
        order = [*range(COUNT - 1, -1, -1), 3]
        found = encoder.vectors(numbered(*order), check=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    np.testing.assert_array_equal(found, rows(*order))
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(tmp_path / "s"), str(FILES)],
        capture_output=True,
        text=True,
        check=True,
    )
    for command, code, output in json.loads(done.stdout):
        assert code == 0, (command, output)
    assert len(names(encoder)) == 1


def test_small_segments_are_merged_as_they_come(encoder):
    most, writes = 0, Counter[str]()
    for number in range(200):
        add(encoder, number)
        now = names(encoder)
        most = max(most, len(now))
        writes.update(set(now) - set(writes))
    assert most <= 3 * write_segments._MANY
    assert len(writes) < 200 * 1.5  # each row is written again a few times, not each time
    np.testing.assert_array_equal(
        Store.open(encoder.folder.parent.parent).encoders()[0].vectors(numbered(*range(200))),
        rows(*range(200)),
    )
    (first, *_) = sorted(encoder.segments(), key=lambda one: -one.rows)
    about = first.about()
    assert {source["run"] for source in about["sources"]} <= set(range(200))
    assert len(about["writer"]) == 12


def test_large_segments_and_few_small_ones_stay_as_they_are(encoder, monkeypatch):
    monkeypatch.setattr(write_segments, "_SMALL_BYTES", 1)
    for number in range(2 * write_segments._MANY):
        add(encoder, number)
    assert len(names(encoder)) == 2 * write_segments._MANY
    monkeypatch.undo()
    add(encoder, 99)
    assert len(names(encoder)) == 1


def test_segments_of_two_forms_are_merged_apart(encoder):
    for number in range(4):
        write(encoder, number, dtype="float16")
    for number in range(4, 12):
        add(encoder, number)
    assert sorted(s.dtype for s in encoder.segments()) == ["float16"] * 4 + ["float32"]
    np.testing.assert_array_equal(encoder.vectors(numbered(*range(12))), rows(*range(12)))


def test_damage_among_small_segments_does_not_stop_a_writer_of_others(encoder):
    """Rows that are new are stored; damage is for verify and checking readers to tell."""
    write(encoder, 0)
    (damaged,) = encoder.segment_paths()
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    for number in range(1, 2 * write_segments._MANY):
        add(encoder, number)
    np.testing.assert_array_equal(encoder.vectors(numbered(9, 1)), rows(9, 1))
    assert damaged.is_file()  # damage got no new name
    with pytest.raises(FormatError, match="SHA-256"):
        encoder.vectors(numbered(1), check=True)
