"""Run a peer in its own environment and process, and take its adapted test queries back.

    Problem(...).save(path)
    result = run_peer("search_adaptor", path, threads=1)

A peer that fails gives a result with ``error``, so that a table can show the others.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.peers.problem import FloatArray, Problem
from benchmarks.peers.setup import environment_dir, environment_error

__all__ = ["PEERS", "Peer", "PeerResult", "run_peer"]


class Peer(NamedTuple):
    """A module of this package, the variant it is given, and the environment it runs in."""

    module: str
    variant: str
    environment: str


PEERS = {
    "aecp": Peer("ridge", "aecp", "linear"),
    "ridge": Peer("ridge", "align", "linear"),
    "ridge_labels": Peer("ridge", "labels", "linear"),
    "rebasis": Peer("rebasis", "centred", "linear"),
    "rebasis_ridge": Peer("rebasis", "linear", "linear"),
    "llamaindex": Peer("llamaindex", "linear", "llamaindex"),
    "llamaindex_tuned": Peer("llamaindex", "tuned", "llamaindex"),
    "llamaindex_two_layer": Peer("llamaindex", "two_layer", "llamaindex"),
    "search_adaptor": Peer("search_adaptor", "grid", "torch"),
    "search_adaptor_fixed": Peer("search_adaptor", "fixed", "torch"),
}
"""Peers by name; see README.md."""

_ROOT = Path(__file__).resolve().parents[2]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class PeerResult(NamedTuple):
    """What a peer gave back.

    ``mapped`` is (n_test, d_small) float32 unit rows to search by cosine, ``seconds`` the time of
    its fit alone. A peer that failed has an ``error``, no ``mapped`` and 0 seconds.
    """

    mapped: FloatArray | None
    seconds: float
    error: str | None


def run_peer(
    name: str, problem_path: Path, threads: int, *, timeout_seconds: float = 3600
) -> PeerResult:
    """Fit a peer and adapt the test queries.

    Args:
        name: one of ``PEERS``.
        problem_path: what ``Problem.save`` wrote.
        threads: how many threads its numerical libraries may use.
        timeout_seconds: when to give up.
    """
    peer = PEERS[name]
    missing = environment_error(peer.environment)
    if missing is not None:
        return PeerResult(None, 0.0, missing)
    python = environment_dir(peer.environment) / "bin" / "python"
    arguments = [str(problem_path.resolve()), "out.npz", peer.variant]
    environment = {
        **os.environ,
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        "PYTHONPATH": str(_ROOT),
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [str(python), "-m", f"benchmarks.peers.{peer.module}", *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
            )
        except subprocess.TimeoutExpired:
            return PeerResult(None, 0.0, f"not done after {timeout_seconds:g} s")
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return PeerResult(None, 0.0, f"exit status {done.returncode}: {last}")
        with np.load(Path(folder, "out.npz"), allow_pickle=False) as out:
            mapped, seconds = out["mapped"], float(out["seconds"])
    problem = Problem.load(problem_path)
    wanted = (len(problem.test_queries), problem.corpus.shape[1])
    if mapped.shape != wanted or not np.isfinite(mapped).all():
        return PeerResult(None, 0.0, f"gave {mapped.shape} vectors, not finite ones of {wanted}")
    return PeerResult(mapped, seconds, None)
