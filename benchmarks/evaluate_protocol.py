"""Leave-one-domain-out over the development collections, from stored tensors."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from demo_models import demo_models_dir

from benchmarks.common import Bar, skipped
from benchmarks.fit_data import PAIRS, available, demo_name
from benchmarks.shared_store import make_store
from era_cache.collection.config import SplitConfig
from era_cache.evaluate.protocols import Plan, run_protocol
from era_cache.fitting.config import FitConfig
from era_cache.fitting.sources import Reading
from era_cache.rank.measures import parse_measure

__all__ = ["protocol_bars"]

_PROTOCOL = "leave-one-domain-out"
_SECONDS, _COLLECTIONS_FITTED = 180, 65
"""Six domains of thirteen collections: 6 * 13 - 13 times is a collection among those trained on."""


def protocol_bars(names: Sequence[str], tell: Callable[[str], None]) -> list[Bar]:
    """Fit and measure with the default recipe, 20 % of the labels, one shuffle.

    Fewer collections have as much time for each collection that is trained on.

    Args:
        names: of collections, none named for all.
        tell: told which fit it is at.
    """
    there = [name for name in available(PAIRS["demo"]) if name != demo_name()]
    if len(there) < 2 or not set(names) <= set(there):
        return [skipped(_PROTOCOL, "no ready vectors of the development collections")]
    # Making the store is not part of the time: it is kept for the next run.
    store = make_store(demo_models_dir().parent / "benchmarks" / "store", names=names)
    wanted = list(names) or store.collection_names()
    with tempfile.TemporaryDirectory(prefix="era-protocol-") as folder:
        start = time.monotonic()
        plan = Plan(
            protocol=_PROTOCOL,
            collections=wanted,
            split=SplitConfig(),
            labels=[0.2],
            split_seeds=1,
            recipe=FitConfig(),
            measures=[parse_measure("nDCG@10"), parse_measure("R@100")],
        )
        results = run_protocol(store, plan, Path(folder, "results"), Reading(), tell=tell)
        seconds = time.monotonic() - start
    fitted = sum(len(fit.job["train"]) for fit in results.fits)
    steps = dict.fromkeys(step for fit in results.fits for step in fit.seconds)
    spent = {s: sum(fit.seconds.get(s, 0.0) for fit in results.fits) for s in steps}
    tell("seconds: " + ", ".join(f"{step} {took:.1f}" for step, took in spent.items()))
    allowed = _SECONDS * fitted / _COLLECTIONS_FITTED
    what = f"{_PROTOCOL}, {len(wanted)} collections, {len(results.fits)} domains"
    if fitted != _COLLECTIONS_FITTED:
        what += f" ({_SECONDS} s x {fitted}/{_COLLECTIONS_FITTED} collections trained on)"
    return [Bar(what, f"< {allowed:.0f} s", f"{seconds:.0f} s", seconds < allowed)]
