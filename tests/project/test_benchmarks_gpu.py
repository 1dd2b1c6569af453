"""The benchmark of accelerators, in small on the CPU: that it runs and needs what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"faiss", "h5py", "pyarrow", "matplotlib", "fsspec"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
from benchmarks.gpu import main
main()
"""


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, "--json", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_parts_run_without_the_packages_that_a_bare_machine_lacks() -> None:
    done = _run("--quick", "--device", "cpu", "--only", "fit", "--only", "search")
    bars = {bar["name"]: bar for bar in json.loads(done.stdout)}
    assert bars["results against the CPU's, nDCG@10"]["ok"]
    assert any(name.startswith("exact search") for name in bars)
    assert {bar["ok"] for bar in bars.values()} <= {True, False}


def test_without_a_device_nothing_is_claimed() -> None:
    import torch

    if torch.cuda.is_available():
        return
    done = _run("--quick")
    assert done.returncode == 1
    assert [bar["ok"] for bar in json.loads(done.stdout)] == [None]
    assert "--device cpu --quick is a dry run" in done.stderr
