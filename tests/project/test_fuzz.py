"""A short form of the fuzz bar: damaged files of every format, one command on each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_damaged_files_of_every_format_are_refused_or_survived():
    command = [sys.executable, "-m", "benchmarks.fuzz", "--cases", "300", "--seed", "11", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    bars = json.loads(done.stdout)
    assert [bar for bar in bars if not bar["ok"]] == [], done.stderr
    assert bars[0]["figure"].startswith("300: ")
    assert done.returncode == 0
