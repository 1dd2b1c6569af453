"""Runs and judgements that are wrong: each is refused by one message, and nothing is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Bar

__all__ = ["CASES", "error_bars", "refused"]

_QRELS = "q1 0 d1 1\nq1 0 d2 0\nq2 0 d3 2\n"
_RUN = "q1 Q0 d1 1 0.9 mine\nq1 Q0 d2 2 0.8 mine\nq2 Q0 d3 1 0.7 mine\n"


class Case(NamedTuple):
    """What is wrong, and the two files."""

    what: str
    qrels: str
    run: str


CASES = [
    Case("a run of unknown queries", _QRELS, _RUN + "q9 Q0 d1 1 0.5 mine\n"),
    Case("qrels without a positive", "q1 0 d1 0\nq2 0 d3 -1\n", _RUN),
    Case("an empty run", _QRELS, ""),
    Case("a score that is NaN", _QRELS, _RUN.replace("0.8", "nan")),
    Case("a document twice for a query", _QRELS, _RUN + "q1 Q0 d1 3 0.1 mine\n"),
]


def error_bars(folder: Path, tell: Callable[[str], None]) -> list[Bar]:
    """Give every case to ``era-eval runs``, and first one that is right.

    Args:
        folder: for the files.
        tell: told the messages.
    """
    right = _compare(folder / "right", Case("nothing wrong", _QRELS, _RUN))
    if right.returncode:
        tell(f"a run that is right: {right.stderr.strip()}")
    good = 0
    for number, case in enumerate(CASES):
        found = _compare(folder / str(number), case)
        tell(f"{case.what}: {found.stderr.strip()}")
        good += refused(found)
    ok = good == len(CASES) and not right.returncode
    figure = f"{good} of {len(CASES)}" + (", and a right run" if right.returncode else "")
    return [Bar("bad runs: exit code 1, one message", f"{len(CASES)} of {len(CASES)}", figure, ok)]


def refused(found: subprocess.CompletedProcess[str]) -> bool:
    """Whether a process ended with code 1, one line that says why, and no result."""
    lines = found.stderr.strip().splitlines()
    return found.returncode == 1 and not found.stdout and [t[:7] for t in lines] == ["Error: "]


def _compare(folder: Path, case: Case) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    (folder / "qrels.trec").write_text(case.qrels)
    (folder / "run.trec").write_text(case.run)
    program = str(Path(sys.executable).with_name("era-eval"))
    command = [program, "runs", "qrels.trec", "run.trec"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
